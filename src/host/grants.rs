//! The grants that operators give recipes, and the permissions that pods have.
//!
//! This file is the only way to `[grants]` of `hob.toml`, for the command line and for apps that embed a
//! host. The doors that serve other callers have no such way, so no caller and no agent can grant itself
//! anything.

use crate::{disk::look, shelf::config::edit};
use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{Host, HostState};
use crate::{
    model::{
        Code, Fault, Grants, Origin, Permissions, RecipeName, RecipeRef, Verified, act, grant::effective, hint,
        limits::NAMED_IN_MESSAGE_MAX,
    },
    shelf::{
        config::{
            Config as File,
            grants::{leads_within_reach, within_reach},
        },
        store::revoked,
    },
};

/// The permissions that a recipe asks for, and those that it has.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Granted {
    /// The key in `hob.toml`: `publisher/name`, or the absolute path of a recipe folder.
    pub recipe: String,
    pub version: semver::Version,
    pub asked: Permissions,
    /// The grants of its operator, including those that it does not ask for.
    pub given: Grants,
    /// The permissions of its pods: asked for and granted.
    pub effective: Permissions,
    /// Asked for, but not granted.
    pub missing: Permissions,
    /// Granted without effect: the recipe asks for nothing of the kind.
    pub unused: Permissions,
}

/// What to take back.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Revoke {
    /// Every grant of the recipe.
    All,
    /// These permissions; `reduced`: also that it may run on a machine that cannot confine it fully.
    These { permissions: Permissions, reduced: bool },
}

/// An operator's decision on permissions that a recipe asks for and does not have yet, for [`Host::add`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Consent {
    /// No decision yet: a recipe that asks for something new is not installed.
    Required,
    /// Grant everything that it asks for.
    Give,
    /// Grant these, which the operator has seen. If the recipe asks for more by now, it is not installed.
    These(Permissions),
    /// Install the recipe without granting anything new.
    Withhold,
}

impl Consent {
    /// The part of `new` that is granted.
    ///
    /// Errors: `consent_required`, with the permissions in `detail`.
    pub(super) fn to(&self, name: &RecipeName, version: &semver::Version, new: Permissions) -> Result<Permissions, Fault> {
        match self {
            _ if new.is_empty() => Ok(new),
            Consent::Give => Ok(new),
            Consent::These(agreed) if new.without(agreed).is_empty() => Ok(new),
            Consent::Withhold => Ok(Permissions::default()),
            Consent::Required | Consent::These(_) => {
                let words = new.words();
                let count = if words.len() == 1 { "a permission" } else { "permissions" };
                // `detail` has the full list, and doors that show a fault to people explain each.
                let left_out = words.len().saturating_sub(NAMED_IN_MESSAGE_MAX);
                let more = if left_out == 0 { String::new() } else { format!(" and {left_out} more") };
                let named = words[..words.len() - left_out].join(", ");
                let text = format!("`{name}` {version} asks for {count} that it was not given: {named}{more}");
                Err(Fault::new(Code::ConsentRequired, text)
                    .hint(hint![
                        act::add_granting(name),
                        " installs it and gives it this, ",
                        act::add_ungranted(name),
                        " installs it without; nothing was changed"
                    ])
                    .with("permissions", words))
            }
        }
    }
}

/// The permissions of a recipe's pods, given all grants in `hob.toml`. The only way from grants to a pod.
pub(super) fn of(recipe: &Verified, grants: &BTreeMap<String, Grants>) -> Grants {
    let key = match recipe.origin() {
        Origin::Signed { .. } => Some(recipe.manifest().name.to_string()),
        // By its path, not by its name: else any folder could take the grants of an installed recipe.
        Origin::Unsigned { folder } => folder.to_str().map(str::to_owned),
    };
    match key.and_then(|key| grants.get(&key)) {
        Some(given) => Grants { permissions: effective(&recipe.manifest().permissions, &given.permissions), reduced: given.reduced },
        None => Grants::default(),
    }
}

impl HostState {
    /// The permissions of a recipe's pods, as `hob.toml` is now.
    ///
    /// Errors: `invalid_config`.
    pub(super) fn effective(&self, recipe: &Verified) -> Result<Grants, Fault> {
        Ok(of(recipe, &File::read(&self.home)?.grants))
    }

    /// Refuses permissions that no recipe may have.
    ///
    /// Errors: `usage`.
    pub(super) fn may_be_given(&self, permissions: &Permissions) -> Result<(), Fault> {
        match within_reach(&self.home, permissions).or_else(|| leads_within_reach(&self.home, permissions)) {
            None => Ok(()),
            Some((path, folder)) => {
                let text = format!("`{path}` cannot be given: Hob's own files in {} are reached from there", folder.display());
                Err(Fault::new(Code::Usage, text)
                    .hint("a recipe that reaches them could give itself everything; name a folder beside them"))
            }
        }
    }
}

impl Host {
    /// The permissions that a recipe asks for, and those that it has.
    ///
    /// Errors: those of a recipe that cannot be loaded, `invalid_config`.
    pub async fn granted(&self, recipe: &RecipeRef) -> Result<Granted, Fault> {
        let recipe = &self.settled(recipe).await?;
        let entry = self.0.catalogue.find(&self.0, recipe).await?;
        let manifest = entry.recipe().manifest();
        let key = key(recipe)?;
        let given = File::load(&self.0.home).await?.grants.remove(&key).unwrap_or_default();
        let asked = manifest.permissions.clone();
        let has = effective(&asked, &given.permissions);
        let (mut unused, words) = (Permissions::default(), given.permissions.words());
        for word in &words {
            let one = Permissions::from_words([word.as_str()])?;
            if effective(&asked, &one).is_empty() {
                unused = unused.with(one);
            }
        }
        Ok(Granted { recipe: key, version: manifest.version.clone(), missing: asked.without(&has), effective: has, asked, given, unused })
    }

    /// Grants a recipe these permissions beside those that it has; with `reduced`, its pods may also run
    /// where this machine cannot confine them fully. A permission that the recipe does not ask for has no
    /// effect until it does. Running pods finish the asks that they have, then end.
    ///
    /// Errors: those of [`Host::granted`]; `usage` for a path from which Hob's own files are reached;
    /// `disk_full`, `io`.
    pub async fn grant(&self, recipe: &RecipeRef, more: Permissions, reduced: bool) -> Result<Granted, Fault> {
        let (host, recipe) = (&self.0, &self.settled(recipe).await?);
        host.may_be_given(&more)?;
        // A recipe that does not exist is a typing error; its grant would wait for any recipe that takes the
        // name.
        host.catalogue.find(host, recipe).await?;
        let (home, key) = (host.home.clone(), key(recipe)?);
        edit::change(&host.home, move |edit, _| {
            let mut given = File::read(&home)?.grants.remove(&key).unwrap_or_default();
            given.permissions = given.permissions.with(more);
            given.reduced |= reduced;
            edit.set_grants(&key, &given);
            Ok(())
        })
        .await?;
        host.catalogue.refresh(host)?;
        self.granted(recipe).await
    }

    /// Takes back grants of a recipe, and returns those that are left. The recipe itself need not exist. A
    /// running install of it grants it nothing new any more. Its running pods finish the asks that they have,
    /// then end; pods of other hosts of this home do so within [`crate::model::limits::GRANTS_LOOK_MS`].
    ///
    /// Errors: `recipe_not_found` for a recipe that does not exist and has no grants, `usage` for permissions
    /// that were not granted, `invalid_config`, `disk_full`, `io`.
    pub async fn revoke(&self, recipe: &RecipeRef, what: &Revoke) -> Result<Grants, Fault> {
        let (host, recipe) = (&self.0, self.settled(recipe).await?);
        let (home, key, what) = (host.home.clone(), key(&recipe)?, what.clone());
        let shelf = host.clone();
        let left = edit::change(&host.home, move |edit, guard| {
            // A running install of the recipe carries an older decision of its operator.
            if let RecipeRef::Name(name) = &recipe {
                revoked::note(&home, name, guard)?;
            }
            let given = File::read(&home)?.grants.remove(&key).unwrap_or_default();
            if given == Grants::default() {
                is_there(&shelf, &recipe, &key)?;
            }
            let left = match what {
                Revoke::All => Grants::default(),
                Revoke::These { permissions, reduced } => {
                    not_given(&key, &permissions, &given.permissions)?;
                    if reduced && !given.reduced {
                        let text =
                            format!("`{key}` was not given leave for less: its pods run only where this machine confines them wholly");
                        return Err(Fault::new(Code::Usage, text).hint(hint![act::granted(&key), " shows what it has"]));
                    }
                    Grants { permissions: given.permissions.without(&permissions), reduced: given.reduced && !reduced }
                }
            };
            edit.set_grants(&key, &left);
            Ok(left)
        })
        .await?;
        host.catalogue.refresh(host)?;
        Ok(left)
    }
}

/// Refuses to revoke from a recipe that does not exist: a typing error that seems to succeed would leave
/// another recipe the permission.
fn is_there(host: &HostState, recipe: &RecipeRef, key: &str) -> Result<(), Fault> {
    let is_missing = match recipe {
        // A shelf that cannot be read has its own fault, which the caller gets.
        RecipeRef::Name(name) => host.shelf.entry(name).is_err_and(|fault| fault.code == Code::RecipeNotFound),
        RecipeRef::Folder(folder) => !look::is_there(&folder.join("recipe.toml"))?,
        RecipeRef::Capability(_) => true,
    };
    match is_missing {
        true => Err(Fault::new(Code::RecipeNotFound, format!("`{key}` is not there, and was given nothing that could be taken back"))
            .hint(hint![act::list(), " shows what is installed, and ", act::grants(), " has all that was given"])),
        false => Ok(()),
    }
}

/// Refuses to revoke a permission that was not granted in these words: if that seemed to succeed, a granted
/// parent folder would remain, and with it the path.
fn not_given(recipe: &str, what: &Permissions, given: &Permissions) -> Result<(), Fault> {
    let wrong = what.without(given);
    if wrong.is_empty() {
        return Ok(());
    }
    let words = given.words();
    let there = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
    let text = format!("`{recipe}` was not given {} (it was given: {there})", wrong.words().join(", "));
    let above = effective(&wrong, given).words();
    Err(Fault::new(Code::Usage, text).hint(match above.is_empty() {
        true => hint![act::granted(recipe), " shows what it has"],
        false => format!("it has {} by a folder above: take that one back, and give what is left of it", above.join(", ")).into(),
    }))
}

/// The key of a recipe in `hob.toml`.
fn key(recipe: &RecipeRef) -> Result<String, Fault> {
    let folder = match recipe {
        RecipeRef::Name(name) => return Ok(name.to_string()),
        RecipeRef::Folder(folder) => folder,
        RecipeRef::Capability(word) => {
            return Err(Fault::new(Code::Internal, format!("`{word}` was not settled to a recipe before it was looked for in hob.toml")));
        }
    };
    let absolute = |folder: &Path| folder.canonicalize().or_else(|_| std::path::absolute(folder));
    let path = absolute(folder).map_err(|error| Fault::io(format!("finding {}", folder.display()), &error))?;
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Fault::new(Code::Usage, format!("{} is not text, which `hob.toml` is", path.display())).hint("give the folder another name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreeing_is_to_what_was_shown_and_a_long_list_is_cut_in_the_message_alone() {
        let asks = |count: usize| {
            Permissions::from_words((0..count).map(|n| format!("env=V{n:02}")).collect::<Vec<_>>().iter().map(String::as_str))
        };
        let (name, version) = ("lab/x".parse().unwrap(), semver::Version::new(1, 0, 0));
        let new = asks(20).unwrap();
        for consent in [Consent::Required, Consent::These(asks(19).unwrap())] {
            let fault = consent.to(&name, &version, new.clone()).unwrap_err();
            assert_eq!(fault.code, Code::ConsentRequired);
            assert!(fault.message.ends_with("env=V10, env=V11 and 8 more"), "{fault}");
            assert_eq!(fault.detail["permissions"].as_array().map(Vec::len), Some(20));
        }
        assert_eq!(Consent::These(asks(21).unwrap()).to(&name, &version, new.clone()).unwrap(), new);
        assert_eq!(Consent::Give.to(&name, &version, new.clone()).unwrap(), new);
        assert!(Consent::Withhold.to(&name, &version, new).unwrap().is_empty());
        // Where nothing is new there is nothing to agree to.
        assert!(Consent::Required.to(&name, &version, Permissions::default()).unwrap().is_empty());
    }
}
