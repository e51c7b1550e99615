//! Installs, lists, shows, verifies and removes recipes on the shelf.
//!
//! An install is a transaction. A crash at any point leaves the old shelf or the new one.
//!
//! 1. Fetch into staging and verify.
//! 2. Compile the glue and instantiate it; build the environment.
//! 3. Under the shelf's lock: a last look, one rename, and the lock file.

use crate::shelf::config::edit;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{Consent, Host, HostState};
use crate::{
    model::{
        Address, Code, Edition, Fault, Grants, Home, Origin, Permissions, RecipeName, RecipeRef, Step, VersionRange, act, grant::effective,
        hint, limits::INSTALL_TRIES, manifest::spec::ModelSpec,
    },
    shelf::{
        blocking,
        bundle::{contents, unpack},
        config::{Config as File, RemoteEntry, Wish},
        environment::{self, Existing},
        models::{self, Claim, fetching, sources},
        pod_caches,
        repository::{Client, ModelTarget, Pinned, Remote, Resolved, Trust, transport::address},
        store::{
            Staged, WriteGuard,
            load::{Report, folder_manifest},
            lockfile::{EnvironmentPin, LockEntry, LockedModel},
            revoked::{self, Mark},
        },
    },
};

/// The result of an install.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Added {
    pub name: RecipeName,
    pub version: semver::Version,
    /// The version that was installed before.
    pub version_before: Option<semver::Version>,
    /// The version range in `hob.toml` from now on.
    pub wanted: String,
    /// The version range in `hob.toml` before, if it had one.
    pub wanted_before: Option<String>,
    pub remote: String,
    pub publisher: String,
    /// Other remotes that have a publisher of that name, who may be another person.
    pub also_in: Vec<String>,
    /// Whether exactly this was installed before; then nothing was changed.
    pub already: bool,
    /// Permissions granted by this install, each as `KEY=VALUE`.
    pub granted: Vec<String>,
    /// Permissions that the recipe asks for and does not have.
    pub withheld: Vec<String>,
}

/// One permission that a recipe asks for.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Asked {
    /// The permission as `KEY=VALUE`.
    pub permission: String,
    pub means: String,
    /// Whether its pods have it.
    pub granted: bool,
}

/// Everything that `hob show` says about a recipe.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Shown {
    pub name: RecipeName,
    pub version: semver::Version,
    pub summary: String,
    pub license: String,
    pub capability: Option<String>,
    pub bundle_sha256: String,
    /// `None` for a folder: unsigned dev mode.
    pub signed_by: Option<String>,
    pub remote: Option<String>,
    pub key_ids: Vec<String>,
    pub folder: std::path::PathBuf,
    pub operations: Vec<Value>,
    pub permissions: Vec<Asked>,
    /// Whether its pods may run where this machine cannot confine them fully.
    pub reduced: bool,
    pub models: Vec<ModelTarget>,
    /// What this Hob would refuse or enforce but does not, because an older Hob installed the recipe.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Parts of its schemas that are only for readers and are not enforced, with their places.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_held: Vec<String>,
}

impl Host {
    /// Installs the newest version in `range` of a recipe, from `remote`, or from the first remote that has
    /// its publisher. Without `range`, the range in `hob.toml` counts and stays. `consent` is the operator's
    /// decision on permissions that the recipe asks for and does not have yet.
    ///
    /// No lock of the shelf is held while foreign servers and tools work. Changes that others made meanwhile
    /// are checked at the end, and win: a permission that was taken back is not granted, and a recipe that
    /// was removed is not installed.
    ///
    /// Errors: `consent_required`; any fault of a repository, a bundle, its glue or its environment. The
    /// shelf is then as it was.
    pub async fn add(
        &self,
        name: &RecipeName,
        range: Option<&VersionRange>,
        remote: Option<&str>,
        consent: &Consent,
    ) -> Result<Added, Fault> {
        let host = &self.0;
        // A pinned version stays pinned until an operator names another.
        let pinned = File::load(&host.home).await?.recipes.remove(name);
        // Take the mark before applying the operator's consent: a revoke from here on is newer than the
        // consent.
        let revoked = revoked::mark(&host.home, name)?;
        let found = host.find_remote(name, range.or(pinned.as_ref()).unwrap_or(&VersionRange::ANY), remote).await;
        let Found { mut client, resolved, also_in } = found.map_err(|fault| match (range, &pinned) {
            (None, Some(pinned)) if fault.code == Code::NotInRepository && *pinned != VersionRange::ANY => {
                fault.hint(hint![act::wanted_range(name), format!(" is `{pinned}`; "), act::add_in_range(name), " changes it"])
            }
            _ => fault,
        })?;
        let before = host.shelf.installed()?.into_iter().find(|entry| &entry.name == name);
        if let Some(before) = &before {
            resolved.same_signer(&before.key_ids)?;
        }
        // Check consent before fetching anything: the signed target lists the permissions, and the bundle is
        // checked against it below.
        let file = File::load(&host.home).await?;
        let given = file.grants.get(&name.to_string()).cloned().unwrap_or_default();
        let asked = &resolved.permissions;
        let more = consent.to(name, &resolved.version, asked.without(&effective(asked, &given.permissions)))?;
        host.may_be_given(&more)?;
        let is_same = host.is_as_installed_today(before.as_ref(), resolved.sha256).await?;
        let plan = Arc::new(Plan { resolved, range: range.cloned(), more, revoked, also_in, before });
        if is_same && self.verify(Some(name)).await?.iter().all(|report| report.fault.is_none()) {
            // The recipe stays; only the wanted range or the grants may change.
            return host.settle(plan).await;
        }

        // Fetch and verify, into staging.
        let resolved = &plan.resolved;
        let staged = host.stage().await?;
        let bytes = client.fetch_bundle(resolved, &*host.progress).await?;
        unpack::unpack(&bytes, &resolved.index, &staged.folder(), &format!("{name} {}", resolved.version))?;
        let mut entry = plan.entry();
        host.fetch_models(&mut client, resolved, &file).await?;
        let recipe = Arc::new(host.shelf.load_staged(&staged, &entry, &resolved.index)?);
        resolved.same_permissions(recipe.manifest())?;
        resolved.same_models(recipe.manifest())?;
        contents::check_index(&resolved.index, recipe.manifest())?;

        // Compile and link now: broken glue is not installed, and no call waits for a compiler.
        if recipe.glue().is_some() {
            let label = format!("compiling the glue of {name}");
            host.progress.step(Step::Started { label: label.clone(), total_bytes: None });
            let compiled = host.prepare_glue(&recipe).await;
            host.progress.step(Step::Finished { label });
            compiled?;
        }
        // Hold the environment until the recipe is installed, so that nobody deletes it before.
        let environment = host.build_environment(&recipe, Existing::Verify).await?;
        match &environment {
            Some(environment) => {
                let tree = environment::tree_digest(&host.home, environment.digest)?;
                entry.environment = Some(EnvironmentPin { digest: environment.digest, tree });
            }
            // There is nothing to build, but the interpreter must exist.
            None => drop(host.python(&recipe).await?),
        }

        let (mut staged, mut tries) = (staged, 1);
        loop {
            let (inner, agreed, entry, held) = (host.clone(), plan.clone(), entry.clone(), environment.clone());
            let published = host.shelf.write(&host.progress, move |guard| {
                let _held = held;
                inner.publish(guard, &agreed, staged, entry)
            });
            staged = match published.await? {
                Published::Done(added) => {
                    // The previous version ends with its running calls.
                    host.catalogue.refresh(host)?;
                    return Ok(added);
                }
                Published::NoModels(staged) => staged,
            };
            if tries == INSTALL_TRIES {
                let text = format!("the models of `{name}` were removed as often as they were fetched");
                return Err(Fault::new(Code::Overloaded, text).hint(hint!["see what removes recipes of this home, and ", act::again()]));
            }
            tries += 1;
            host.fetch_models(&mut client, &plan.resolved, &file).await?;
        }
    }

    /// The installed recipes, sorted by name.
    pub fn installed(&self) -> Result<Vec<LockEntry>, Fault> {
        self.0.shelf.installed()
    }

    /// A recipe's declaration and origin; every byte is verified on the way.
    ///
    /// Errors: `recipe_not_found`, `shelf_altered`, `invalid_manifest`.
    pub async fn show(&self, recipe: &RecipeRef) -> Result<Shown, Fault> {
        let entry = self.0.catalogue.find(&self.0, recipe).await?;
        let recipe = entry.recipe();
        let manifest = recipe.manifest();
        let (signed_by, remote, key_ids) = match recipe.origin() {
            Origin::Signed { remote, publisher, key_ids } => (Some(publisher.clone()), Some(remote.clone()), key_ids.clone()),
            Origin::Unsigned { .. } => (None, None, Vec::new()),
        };
        let operations = manifest.operations().map(|operation| operation.shown()).collect();
        let has = &entry.grants().permissions.words();
        let asked = manifest.permissions.explained().into_iter();
        let permissions = asked.map(|(permission, means)| Asked { granted: has.contains(&permission), permission, means }).collect();
        Ok(Shown {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            summary: manifest.summary.clone(),
            license: manifest.license.clone(),
            capability: manifest.capability.clone(),
            bundle_sha256: recipe.digest().hex(),
            signed_by,
            remote,
            key_ids,
            folder: recipe.folder().to_owned(),
            operations,
            permissions,
            reduced: entry.grants().reduced,
            models: manifest.models.iter().map(ModelTarget::from).collect(),
            warnings: manifest.warnings(),
            not_held: manifest.not_held(),
        })
    }

    /// Removes a recipe from the shelf, and its grants. Its environment and models stay for other recipes.
    ///
    /// Errors: `recipe_not_found`.
    pub async fn remove(&self, name: &RecipeName) -> Result<(), Fault> {
        self.0.shelf.remove(name, &self.0.progress).await?;
        let (home, gone) = (self.0.home.clone(), name.clone());
        blocking(move || pod_caches::remove(&home, &gone)).await?;
        self.0.catalogue.refresh(&self.0)
    }

    /// Checks installed bytes against their signed digests: recipes, models and environments, of `name` or of
    /// all recipes.
    pub async fn verify(&self, name: Option<&RecipeName>) -> Result<Vec<Report>, Fault> {
        let (host, name) = (self.0.clone(), name.cloned());
        blocking(move || host.shelf.verify(name.as_ref())).await
    }

    /// Trusts a repository under a name; returns its address as it is stored, and the pinned root.
    ///
    /// Errors: `fingerprint_mismatch`, `repository_unreachable`, `metadata_invalid`, `usage`,
    /// `invalid_config`.
    pub async fn add_remote(&self, name: &str, url: &str, trust: Trust) -> Result<(Address, Pinned), Fault> {
        let url = address(url)?;
        // Refuse an unreadable `hob.toml` before pinning anything.
        File::load(&self.0.home).await?;
        let pinned = Remote::pin(&self.0.home, name, &url, trust).await?;
        let (name, kept) = (name.to_owned(), url.clone());
        edit::change(&self.0.home, move |edit, _| {
            edit.set_remote(&name, &kept);
            Ok(())
        })
        .await?;
        Ok((url, pinned))
    }

    /// The trusted repositories, in the order in which they are asked.
    pub fn remotes(&self) -> Result<Vec<RemoteEntry>, Fault> {
        Ok(File::read(&self.0.home)?.remotes)
    }

    /// Forgets a repository and its pinned root.
    ///
    /// Errors: `remote_not_found`.
    pub async fn remove_remote(&self, name: &str) -> Result<(), Fault> {
        // A crash between the two steps of adding or removing leaves a pinned root that no file names; it can
        // be removed too.
        if !Remote::is_pinned(&self.0.home, name) {
            File::load(&self.0.home).await?.remote(name)?;
        }
        let gone = name.to_owned();
        edit::change(&self.0.home, move |edit, _| Ok(edit.remove_remote(&gone))).await?;
        Remote::forget(&self.0.home, name).await
    }
}

/// An install that its operator agreed to, with the state at that time.
struct Plan {
    resolved: Resolved,
    /// The range that the operator named; `None`: the one in `hob.toml`.
    range: Option<VersionRange>,
    /// Permissions to grant beside those that the recipe has.
    more: Permissions,
    /// When a grant of the recipe was last revoked.
    revoked: Mark,
    also_in: Vec<String>,
    before: Option<LockEntry>,
}

/// A version of a recipe, and the remote that has it.
struct Found {
    client: Client,
    resolved: Resolved,
    also_in: Vec<String>,
}

/// The result of putting a version on the shelf.
enum Published {
    Done(Added),
    /// A model went away before the install, together with another recipe that had it.
    NoModels(Staged),
}

impl Plan {
    /// The entry for `hob.lock`; the environment is not known yet.
    fn entry(&self) -> LockEntry {
        let resolved = &self.resolved;
        let models = resolved.models.iter().map(|model| LockedModel { name: model.name.clone(), sha256: model.sha256, bytes: model.bytes });
        let mut key_ids = resolved.key_ids.clone();
        key_ids.sort();
        LockEntry {
            name: resolved.name.clone(),
            version: resolved.version.clone(),
            remote: resolved.remote.clone(),
            publisher: resolved.publisher.clone(),
            key_ids,
            sha256: resolved.sha256,
            index_sha256: resolved.index.digest(),
            environment: None,
            edition: Edition::Current,
            models: models.collect(),
        }
    }

    /// The last look, under the shelf's lock: whether the install is still wanted, and the recipe's grants
    /// from now on.
    ///
    /// Errors: `remote_not_found`, `recipe_not_found` and `consent_required` if the operator meanwhile
    /// removed the remote, the recipe or a grant; `overloaded` if `hob.toml` meanwhile wants another range;
    /// `publisher_key_changed`.
    fn last_look(&self, home: &Home, now: Option<&LockEntry>) -> Result<(Grants, Option<VersionRange>), Fault> {
        let Resolved { name, version, remote, .. } = &self.resolved;
        let file = File::read(home)?;
        file.remote(remote)?;
        let pinned = file.recipes.get(name).cloned();
        if self.range.is_none()
            && let Some(pinned) = pinned.as_ref().filter(|pinned| !pinned.matches(version))
        {
            let text = format!("`hob.toml` wants `{name}` in `{pinned}` since {version} of it was chosen: it is not installed");
            return Err(Fault::new(Code::Overloaded, text).hint(hint![act::add(name), " chooses again"]));
        }
        match (&self.before, now) {
            (Some(_), None) => {
                let text = format!("`{name}` was removed while {version} of it was being installed: it is not installed");
                return Err(Fault::new(Code::RecipeNotFound, text).hint(hint![act::add(name), " installs it anew"]));
            }
            (_, Some(now)) => self.resolved.same_signer(&now.key_ids)?,
            (None, None) => {}
        }
        if !self.more.is_empty() && revoked::mark(home, name)? != self.revoked {
            let text = format!("permissions of `{name}` were taken back while {version} of it was being installed, so it is given none");
            return Err(Fault::new(Code::ConsentRequired, text)
                .hint(hint!["nothing was installed; ", act::add(name), " asks again"])
                .with("permissions", self.more.words()));
        }
        let mut given = file.grants.get(&name.to_string()).cloned().unwrap_or_default();
        given.permissions = given.permissions.with(self.more.clone());
        Ok((given, pinned))
    }

    fn added(&self, (given, pinned): &(Grants, Option<VersionRange>), before: Option<&LockEntry>, already: bool) -> Added {
        let Resolved { name, version, remote, publisher, permissions: asked, .. } = &self.resolved;
        Added {
            name: name.clone(),
            version: version.clone(),
            version_before: before.map(|before| before.version.clone()),
            wanted: self.range.as_ref().or(pinned.as_ref()).unwrap_or(&VersionRange::ANY).to_string(),
            wanted_before: pinned.as_ref().map(VersionRange::to_string),
            remote: remote.clone(),
            publisher: publisher.clone(),
            also_in: self.also_in.clone(),
            already,
            granted: self.more.words(),
            withheld: asked.without(&effective(asked, &given.permissions)).words(),
        }
    }
}

impl HostState {
    async fn stage(self: &Arc<Self>) -> Result<Staged, Fault> {
        let host = self.clone();
        blocking(move || host.shelf.stage()).await
    }

    /// Records the wanted range and grants of a recipe whose files are on the shelf already.
    async fn settle(self: &Arc<Self>, plan: Arc<Plan>) -> Result<Added, Fault> {
        let inner = self.clone();
        let added = self.shelf.write(&self.progress, move |guard| {
            let now = inner.shelf.installed()?.into_iter().find(|entry| entry.name == plan.resolved.name);
            let given = plan.last_look(&inner.home, now.as_ref())?;
            inner.shelf.wish(guard, &plan.resolved.name, Wish { range: plan.range.as_ref(), given: &given.0 })?;
            Ok(plan.added(&given, now.as_ref(), true))
        });
        let added = added.await?;
        self.catalogue.refresh(self)?;
        Ok(added)
    }

    /// Installs the fetched and built version, unless the last look refuses it.
    fn publish(&self, guard: &WriteGuard, plan: &Plan, staged: Staged, entry: LockEntry) -> Result<Published, Fault> {
        let now = self.shelf.installed()?.into_iter().find(|now| now.name == entry.name);
        let given = plan.last_look(&self.home, now.as_ref())?;
        let is_there = |model: &LockedModel| {
            let found = std::fs::metadata(models::place(&self.home, model.sha256));
            found.is_ok_and(|found| found.len() == model.bytes)
        };
        if !entry.models.iter().all(is_there) {
            return Ok(Published::NoModels(staged));
        }
        let was_listed = now.as_ref().is_some_and(|now| now.sha256 == entry.sha256);
        let was_there = staged.publish(guard, entry, &plan.resolved.index, Some(Wish { range: plan.range.as_ref(), given: &given.0 }))?;
        Ok(Published::Done(plan.added(&given, now.as_ref(), was_listed && was_there)))
    }

    /// Fetches the missing models of a version to the shelf.
    async fn fetch_models(&self, client: &mut Client, resolved: &Resolved, file: &File) -> Result<(), Fault> {
        for model in &resolved.models {
            let spec = ModelSpec { name: model.name.clone(), sha256: model.sha256, bytes: model.bytes, from: model.from.clone() };
            if let Some(source) = &spec.from {
                sources::may_name(&resolved.name, source, &file.remote(&resolved.remote)?.url)?;
                let what = format!("model `{}` of {} {}", model.name, resolved.name, resolved.version);
                fetching::bring(&self.home, &spec, source, &what, &self.sources, &self.progress).await?;
            } else if let Claim::Missing(right) = models::claim(&self.home, model.sha256, model.bytes, &self.progress).await? {
                client.fetch_model(resolved, &spec, &right.part(), &*self.progress).await?;
                right.keep()?;
            }
        }
        Ok(())
    }

    /// The recipe in the named remote, or in the first remote that has its publisher. That remote owns the
    /// publisher's names: no other is asked for them, because two repositories may give one publisher name to
    /// two people.
    async fn find_remote(&self, name: &RecipeName, range: &VersionRange, remote: Option<&str>) -> Result<Found, Fault> {
        let file = File::load(&self.home).await?;
        let remotes: Vec<&RemoteEntry> = match remote {
            Some(remote) => vec![file.remote(remote)?],
            None => file.remotes.iter().collect(),
        };
        if remotes.is_empty() {
            return Err(Fault::new(Code::RemoteNotFound, format!("no remote to look for `{name}` in"))
                .hint(hint![act::remote_add("NAME"), " trusts a repository"]));
        }
        let (mut missing, publisher) = (None, name.publisher());
        for remote in remotes {
            let mut client = Remote::open(&self.home, &remote.name, &remote.url).await?;
            let fault = match client.resolve(name, range).await {
                Ok(resolved) => {
                    let also_in = self.others_with(&file, &remote.name, publisher).await;
                    if !also_in.is_empty() {
                        let others = also_in.iter().map(|other| format!("`{other}`")).collect::<Vec<_>>().join(", ");
                        let text = format!(
                            "this `{publisher}` is the one of remote `{}`; there is a publisher of that name, perhaps somebody else, in {others} too",
                            remote.name
                        );
                        self.progress.step(Step::Note { text });
                    }
                    return Ok(Found { client, resolved, also_in });
                }
                Err(fault) => fault,
            };
            // Any other fault of a remote is returned, not skipped.
            if fault.code != Code::NotInRepository {
                return Err(fault);
            }
            if client.has_publisher(publisher).await? {
                return Err(self.owned(fault, &file, &remote.name, name).await);
            }
            missing.get_or_insert(fault);
        }
        Err(missing.unwrap_or_else(|| Fault::new(Code::NotInRepository, format!("no remote has `{name}`"))))
    }

    /// Other remotes that have a publisher of that name. A remote that cannot be asked is left out.
    async fn others_with(&self, file: &File, but: &str, publisher: &str) -> Vec<String> {
        let mut others = Vec::new();
        for remote in file.remotes.iter().filter(|remote| remote.name != but) {
            let had = match Remote::open(&self.home, &remote.name, &remote.url).await {
                Ok(mut client) => client.had_publisher(publisher).await,
                Err(fault) => Err(fault),
            };
            match had {
                Ok(true) => others.push(remote.name.clone()),
                Ok(false) => {}
                Err(fault) => tracing::debug!("whether remote `{}` has a publisher `{publisher}` is not known: {fault}", remote.name),
            }
        }
        others
    }

    /// Adds to the fault of a remote that owns the publisher's names, and lacks this one, the other remotes
    /// that may have it.
    async fn owned(&self, fault: Fault, file: &File, remote: &str, name: &RecipeName) -> Fault {
        let also_in = self.others_with(file, remote, name.publisher()).await;
        let Some(other) = also_in.first() else { return fault };
        let (others, publisher) = (also_in.iter().map(|other| format!("`{other}`")).collect::<Vec<_>>().join(", "), name.publisher());
        let first = format!("names of `{publisher}` are taken from remote `{remote}` alone, the first that has that publisher");
        let whose = format!("{first}; {others} has one of that name too, perhaps somebody else: ");
        fault.hint(hint![whose, act::add_from(name, other), " asks there"]).with("also_in", also_in)
    }

    /// Fetches the missing models of a recipe folder that name their origin; returns how many.
    ///
    /// Errors: those of the folder's manifest, and of [`fetching::bring`].
    pub(super) async fn bring_models(&self, folder: &std::path::Path) -> Result<usize, Fault> {
        let folder = folder.to_owned();
        let (folder, manifest) = blocking(move || folder_manifest(&folder)).await?;
        fetching::bring_all(&self.home, &folder, &manifest, false, &self.sources, &self.progress).await
    }
}
