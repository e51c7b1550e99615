//! Chooses the one target for a name and a range from a publisher's signed role. Pure: no IO, no clock.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use sigstore_tuf::{TargetFile, Targets};

use crate::{
    model::{
        Code, Digest, Fault, Manifest, ModelNames, ModelSource, Permissions, RecipeName, VersionRange, act, hint, limits,
        manifest::spec::ModelSpec,
    },
    shelf::bundle::{contents, index::Index},
};

/// A publisher's role, loaded and verified.
pub(in crate::shelf) struct Role {
    pub remote: String,
    pub publisher: String,
    pub key_ids: Vec<String>,
    /// Its current file, e.g. `3.alice.json`.
    pub file: String,
}

/// A path of the publisher's namespace that no recipe can have: names never start with `-`.
pub(in crate::shelf) fn probe(publisher: &str) -> String {
    format!("{publisher}/-/-")
}

/// The custom data of a bundle's target, for a resolver that has not fetched the bundle. Later versions may
/// add keys; no key is needed to verify the bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Custom {
    pub name: RecipeName,
    pub version: Version,
    pub hob: VersionReq,
    pub summary: String,
    pub license: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// When it was published.
    pub published: jiff::Timestamp,
    #[serde(default)]
    pub models: Vec<ModelTarget>,
    /// The permissions that its pods ask for, each as `KEY=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
    pub files: Index,
}

/// A model of a recipe: published beside the bundle, unless it names another source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelTarget {
    pub name: String,
    pub sha256: Digest,
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ModelSource>,
}

impl From<&ModelSpec> for ModelTarget {
    fn from(model: &ModelSpec) -> ModelTarget {
        ModelTarget { name: model.name.clone(), sha256: model.sha256, bytes: model.bytes, from: model.from.clone() }
    }
}

/// One version of a recipe, as its publisher signed it.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub remote: String,
    pub name: RecipeName,
    pub version: Version,
    /// Target path: `<publisher>/<recipe>/<version>.hob`.
    pub target: String,
    /// The bundle's length.
    pub bytes: u64,
    /// The bundle's digest.
    pub sha256: Digest,
    /// The content of the bundle, as signed.
    pub index: Index,
    pub publisher: String,
    /// Ids of the keys that may sign for the publisher, as the repository's maintainers say.
    pub key_ids: Vec<String>,
    /// Versions of Hob that may run it.
    pub hob: VersionReq,
    pub summary: String,
    pub license: String,
    pub capability: Option<String>,
    pub published: jiff::Timestamp,
    pub models: Vec<ModelTarget>,
    /// The permissions that its pods ask for.
    pub permissions: Permissions,
}

impl Resolved {
    /// Checks that the manifest in the bundle asks for the permissions in the target's data: an operator may
    /// have agreed to those before the bundle was fetched.
    ///
    /// Errors: `bundle_invalid`.
    pub fn same_permissions(&self, manifest: &Manifest) -> Result<(), Fault> {
        if manifest.permissions == self.permissions {
            return Ok(());
        }
        let list = |permissions: &Permissions| some(permissions.words().iter().map(String::as_str));
        let (said, asked) = (list(&self.permissions), list(&manifest.permissions));
        let text = format!("the bundle of `{}` {} asks for {asked}; its publisher signed that it asks for {said}", self.name, self.version);
        Err(Fault::new(Code::BundleInvalid, text).hint("its publisher has to publish it again"))
    }

    /// Checks that the manifest in the bundle names the models in the target's data: those were fetched
    /// before the bundle.
    ///
    /// Errors: `bundle_invalid`.
    pub fn same_models(&self, manifest: &Manifest) -> Result<(), Fault> {
        if manifest.models.iter().map(ModelTarget::from).eq(self.models.iter().cloned()) {
            return Ok(());
        }
        let text = format!("the bundle of `{}` {} names other models than its publisher signed of it", self.name, self.version);
        Err(Fault::new(Code::BundleInvalid, text).hint("its publisher has to publish it again"))
    }

    /// Checks that the publisher still signs with a key that the lock file remembers.
    ///
    /// Errors: `publisher_key_changed` if no key is in common.
    pub fn same_signer(&self, remembered: &[String]) -> Result<(), Fault> {
        match self.key_ids.iter().any(|key| remembered.contains(key)) {
            true => Ok(()),
            false => Err(Fault::new(
                Code::PublisherKeyChanged,
                format!(
                    "publisher `{}` of remote `{}` now signs with key {}; `{}` was installed from key {}",
                    self.publisher,
                    self.remote,
                    some(self.key_ids.iter().map(String::as_str)),
                    self.name,
                    some(remembered.iter().map(String::as_str))
                ),
            )
            .hint(hint![
                "ask the publisher whether the key was changed on purpose; if it was, ",
                act::remove(&self.name),
                " and ",
                act::add(&self.name),
                " take it anew"
            ])),
        }
    }
}

/// A recipe in a listing.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    pub name: RecipeName,
    /// Newest first.
    pub versions: Vec<Version>,
    /// Of the newest version.
    pub summary: String,
    pub capability: Option<String>,
    pub hob: VersionReq,
}

/// What a remote offers.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    pub recipes: Vec<Listed>,
    /// Publishers whose role cannot be read, and why.
    pub unread: Vec<(String, Fault)>,
    /// Number of publishers that were not read, because the remote has more than one listing reads.
    pub publishers_left_out: usize,
}

/// Up to a handful of `names` for a message.
pub(in crate::shelf) fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(limits::NAMED_IN_MESSAGE_MAX);
    names.truncate(limits::NAMED_IN_MESSAGE_MAX);
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (_, 0) => names.join(", "),
        (_, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// The parts of `<publisher>/<recipe>/<version>.hob`; any other path is no bundle of this publisher.
fn bundle<'a>(role: &Role, path: &'a str) -> Option<(&'a str, Version)> {
    let (publisher, rest) = path.split_once('/')?;
    let (recipe, file) = rest.split_once('/')?;
    let version = Version::parse(file.strip_suffix(".hob")?).ok()?;
    (publisher == role.publisher && crate::model::id::is_name(recipe)).then_some((recipe, version))
}

pub(in crate::shelf) fn newest(role: &Role, targets: &Targets, name: &RecipeName, range: &VersionRange) -> Result<Resolved, Fault> {
    let missing = |message: String| Fault::new(Code::NotInRepository, format!("remote `{}` {message}", role.remote));
    let mut recipes: Vec<&str> = Vec::new();
    let mut versions: Vec<(Version, &String, &TargetFile)> = Vec::new();
    for (path, target) in &targets.targets {
        match bundle(role, path) {
            Some((recipe, version)) if recipe == name.name() => versions.push((version, path, target)),
            Some((recipe, _)) if recipes.last() != Some(&recipe) => recipes.push(recipe),
            _ => {}
        }
    }
    if versions.is_empty() {
        return Err(missing(format!("has no recipe `{name}` (publisher `{}` has: {})", role.publisher, some(recipes.into_iter())))
            .hint("check the name, or ask its publisher where it is published"));
    }
    versions.sort_by(|a, b| b.0.cmp(&a.0));
    let ours = Version::parse(env!("CARGO_PKG_VERSION")).expect("Cargo checks our own version");
    let mut too_new = Vec::new();
    for (version, path, target) in &versions {
        if !range.matches(version) {
            continue;
        }
        let resolved = read(role, path, name, version, target)?;
        if resolved.hob.matches(&ours) {
            return Ok(resolved);
        }
        too_new.push(format!("{version} wants Hob {}", resolved.hob));
    }
    let there: Vec<_> = versions.iter().map(|(version, ..)| version.to_string()).collect();
    match too_new.is_empty() {
        true => {
            Err(missing(format!("has no version of `{name}` in the range `{range}` (it has: {})", some(there.iter().map(String::as_str))))
                .hint(hint!["name another range: ", act::add_in_range("NAME")]))
        }
        false => {
            too_new.truncate(limits::NAMED_IN_MESSAGE_MAX);
            Err(missing(format!("has no version of `{name}` for this Hob {ours} ({})", too_new.join(", "))).hint("update Hob"))
        }
    }
}

fn invalid(role: &Role, message: String) -> Fault {
    Fault::new(Code::MetadataInvalid, format!("remote `{}`: `{}`: {message}", role.remote, role.file))
        .with("file", role.file.as_str())
        .hint(format!("the publisher `{}` signed it so: tell them, or take another version", role.publisher))
}

fn sha256_of(role: &Role, path: &str, target: &TargetFile) -> Result<Digest, Fault> {
    let hex = target.hashes.get("sha256").ok_or_else(|| invalid(role, format!("target `{path}` has no sha256")))?;
    hex.to_ascii_lowercase().parse().map_err(|_| invalid(role, format!("target `{path}` has a malformed sha256")))
}

fn read(role: &Role, path: &str, name: &RecipeName, version: &Version, target: &TargetFile) -> Result<Resolved, Fault> {
    let sha256 = sha256_of(role, path, target)?;
    if target.length > limits::BUNDLE_BYTES_MAX {
        return Err(invalid(role, format!("target `{path}` is {} bytes; at most {} are taken", target.length, limits::BUNDLE_BYTES_MAX)));
    }
    let custom = target.custom.clone().ok_or_else(|| invalid(role, format!("target `{path}` has no `custom`")))?;
    let custom: Custom =
        serde_json::from_value(custom).map_err(|error| invalid(role, format!("`custom` of target `{path}` is malformed: {error}")))?;
    if custom.name != *name || custom.version != *version {
        return Err(invalid(role, format!("target `{path}` says that it is `{}` {}", custom.name, custom.version)));
    }
    // Models are fetched before the manifest, which has these bounds too, can be read.
    if custom.models.len() > limits::MODELS_MAX {
        return Err(invalid(
            role,
            format!("target `{path}` names {} models; at most {} are taken", custom.models.len(), limits::MODELS_MAX),
        ));
    }
    if let Some(model) = custom.models.iter().find(|model| model.bytes > limits::MODEL_BYTES_MAX) {
        let (bytes, most) = (model.bytes, limits::MODEL_BYTES_MAX);
        return Err(invalid(role, format!("target `{path}` names a model of {bytes} bytes; at most {most} are taken")));
    }
    let mut names = ModelNames::default();
    for model in &custom.models {
        names.take(&model.name).map_err(|why| invalid(role, format!("target `{path}`: {why}")))?;
    }
    // Read again by the function that checks: serde alone accepts any path.
    let index = serde_json::to_value(&custom.files).map_err(|error| invalid(role, error.to_string()))?;
    let index = Index::read(index).map_err(|fault| invalid(role, format!("`files` of target `{path}`: {}", fault.message)))?;
    index.check_distinct().map_err(|fault| invalid(role, format!("`files` of target `{path}`: {}", fault.message)))?;
    // So an older Hob, which accepts none of these paths, looks for another version.
    contents::check_wider(index.wider(), &custom.hob)
        .map_err(|fault| invalid(role, format!("`files` of target `{path}`: {}", fault.message)))?;
    let permissions = Permissions::from_words(custom.permissions.iter().map(String::as_str))
        .map_err(|why| invalid(role, format!("`permissions` of target `{path}`: {why}")))?;
    Ok(Resolved {
        remote: role.remote.clone(),
        name: custom.name,
        version: custom.version,
        target: path.to_owned(),
        bytes: target.length,
        sha256,
        index,
        publisher: role.publisher.clone(),
        key_ids: role.key_ids.clone(),
        hob: custom.hob,
        summary: custom.summary,
        license: custom.license,
        capability: custom.capability,
        published: custom.published,
        models: custom.models,
        permissions,
    })
}

pub(in crate::shelf) fn list(role: &Role, targets: &Targets) -> BTreeMap<RecipeName, Listed> {
    let mut listed: BTreeMap<RecipeName, Listed> = BTreeMap::new();
    for (path, target) in &targets.targets {
        let Some((recipe, version)) = bundle(role, path) else { continue };
        let Ok(name) = format!("{}/{recipe}", role.publisher).parse::<RecipeName>() else { continue };
        // A target that contradicts itself is not offered; resolving it reports why.
        let Ok(resolved) = read(role, path, &name, &version, target) else { continue };
        let entry = listed.entry(name.clone()).or_insert_with(|| Listed {
            name,
            versions: Vec::new(),
            summary: String::new(),
            capability: None,
            hob: resolved.hob.clone(),
        });
        if entry.versions.iter().all(|other| *other < version) {
            (entry.summary, entry.capability, entry.hob) = (resolved.summary, resolved.capability, resolved.hob);
        }
        entry.versions.push(version);
        entry.versions.sort_by(|a, b| b.cmp(a));
    }
    listed
}

/// Target path of a model of the recipe, if the publisher signed these bytes.
pub(in crate::shelf) fn model(role: &Role, targets: &Targets, resolved: &Resolved, sha256: Digest, bytes: u64) -> Result<String, Fault> {
    let path = format!("{}/{}.model", resolved.name, sha256);
    let Some(target) = targets.target(&path) else {
        return Err(Fault::new(
            Code::NotInRepository,
            format!(
                "remote `{}`: `{}` lists no model with sha256 {sha256}, which `{}` {} wants",
                role.remote, role.file, resolved.name, resolved.version
            ),
        )
        .hint("its publisher has to publish it again, with the model"));
    };
    if sha256_of(role, &path, target)? != sha256 || target.length != bytes {
        return Err(invalid(
            role,
            format!("target `{path}` is signed as {} bytes; the manifest of `{}` says {bytes}", target.length, resolved.name),
        ));
    }
    Ok(path)
}
