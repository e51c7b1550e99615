//! From files on the shelf (or in an author's folder) to [`Verified`]: the only place where one is made.
//!
//! Apart from the store, because it changes nothing. Every file is held against the signed index on every load;
//! a recipe folder has no index, and what comes of it says so.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    disk::{open, owner::Writers},
    model::{
        Code, Digest, Fault, Manifest, Origin, RecipeName, Verified, limits,
        recipe::{self, ModelSpec, Runtime},
        verified::ModelFile,
    },
};

use super::{
    bundle::{self, Index},
    durable, environment,
    lockfile::{DamagedEntry, LockEntry, LockFile},
    models,
    resolve::ModelTarget,
    store::{Shelf, Staged},
    unpack::check_folder,
};

/// What `hob verify` found about one thing on the shelf.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// E.g. `recipe hob/echo 0.1.0` or `environment 0123456789abcdef`.
    pub subject: String,
    /// `None`: it is what was installed.
    pub fault: Option<Fault>,
    /// The models of a recipe, which were compared with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelTarget>,
}

impl Shelf {
    /// An installed recipe, with every file checked against its signed index.
    ///
    /// Errors: `recipe_not_found`, `shelf_altered` by the name of the file, `model_missing`, `invalid_manifest` (a Hob
    /// older than the recipe wants).
    pub fn load(&self, name: &RecipeName) -> Result<Verified, Fault> {
        let mut entry = self.entry(name)?;
        let mut tries = 1;
        loop {
            let loaded = self.load_entry(&entry);
            // Readers take no lock: an install or removal may have changed the files between the two reads.
            if loaded.is_err() && tries < limits::SHELF_READ_TRIES {
                let now = self.entry(name)?;
                if now != entry {
                    (entry, tries) = (now, tries + 1);
                    continue;
                }
            }
            return loaded;
        }
    }

    fn load_entry(&self, entry: &LockEntry) -> Result<Verified, Fault> {
        Writers::new(self.home.group()).check_with_above(&self.place(entry))?;
        let index = self.index(entry)?;
        self.attest(&self.place(entry), entry, &index)
    }

    /// A recipe that was unpacked but is not installed yet: for compiling its glue and running its checks before it is.
    ///
    /// `index` must come from the signed target that `entry` was made of; the models must be on the shelf.
    pub fn load_staged(&self, staged: &Staged, entry: &LockEntry, index: &Index) -> Result<Verified, Fault> {
        self.attest(&staged.folder(), entry, index)
    }

    fn attest(&self, folder: &Path, entry: &LockEntry, index: &Index) -> Result<Verified, Fault> {
        check_folder(folder, index)?;
        let manifest_path = folder.join("recipe.toml");
        let text = indexed(folder, "recipe.toml", index)?;
        let text =
            String::from_utf8(text).map_err(|_| Fault::new(Code::InvalidManifest, format!("{}: not UTF-8", manifest_path.display())))?;
        // Who installed it is not who wrote it.
        let next =
            format!("`hob add {0}` installs a version that this Hob takes, if there is one; `hob remove {0}` takes it away", entry.name);
        let read = Manifest::parse(&text, &manifest_path.display().to_string()).map_err(|fault| match fault.hint.as_deref() {
            Some(recipe::CORRECT_THE_MANIFEST) => fault.hint(next),
            _ => fault,
        });
        let manifest = Arc::new(read?);
        if manifest.name != entry.name || manifest.version != entry.version {
            return Err(Fault::new(
                Code::BundleInvalid,
                format!(
                    "the bundle published as `{}` {} says of itself that it is `{}` {}",
                    entry.name, entry.version, manifest.name, manifest.version
                ),
            )
            .hint("its publisher has to publish it again"));
        }
        let glue = match &manifest.glue {
            Some(_) => Some(Bytes::from(indexed(folder, "glue.wasm", index)?)),
            None => None,
        };
        let mut files = Vec::new();
        for model in &manifest.models {
            let path = models::place(self.home(), model.sha256);
            let what = format!("model `{}` of `{}`", model.name, manifest.name);
            let hint = format!("`hob remove {0}` and `hob add {0}` fetch it again", manifest.name);
            files.push(self.model(&what, path, model).map_err(|fault| fault.hint(hint))?);
        }
        let origin = Origin::Signed { remote: entry.remote.clone(), publisher: entry.publisher.clone(), key_ids: entry.key_ids.clone() };
        Ok(Verified::attest(manifest, folder.to_owned(), glue, files, entry.sha256, origin))
    }

    /// The capability that an installed recipe's manifest claims, read without any check: to say whose fault it is that a recipe cannot be loaded,
    /// and for nothing else.
    pub fn says_capability(&self, entry: &LockEntry) -> Option<String> {
        let text = durable::read(&self.place(entry).join("recipe.toml"), limits::MANIFEST_BYTES_MAX).ok()??;
        let text = String::from_utf8(text).ok()?;
        let read: toml::Table = text.parse().ok()?;
        Some(read.get("capability")?.as_str()?.to_owned())
    }

    fn model(&self, what: &str, path: PathBuf, model: &ModelSpec) -> Result<ModelFile, Fault> {
        self.checked.check(what, &path, model.sha256, model.bytes)?;
        Ok(ModelFile { name: model.name.clone(), path, digest: model.sha256 })
    }

    /// A recipe folder, run by its author: nobody signed it, and the result says so.
    ///
    /// Errors: `invalid_recipe` for what the manifest names and the folder lacks, `invalid_manifest`, `model_missing`.
    pub fn load_folder(&self, folder: &Path) -> Result<Verified, Fault> {
        let shown = folder.display();
        let (folder, manifest) = folder_manifest(folder)?;
        let manifest = Arc::new(manifest);
        let lacks = |what: &str, hint: String| lacks(&shown, what).hint(hint);

        let glue = match &manifest.glue {
            None => None,
            Some(_) => Some(Bytes::from(
                durable::read(&folder.join("glue.wasm"), limits::GLUE_COMPONENT_BYTES_MAX)?
                    .ok_or_else(|| lacks("no glue.wasm, which `[glue]` asks for", format!("`hob build {shown}` makes it")))?,
            )),
        };
        let named = match manifest.pod.as_ref().map(|pod| &pod.runtime) {
            Some(Runtime::Python { lock: Some(lock), .. }) => Some(("pod.lock", lock)),
            Some(Runtime::Executable { entry }) => Some(("pod.entry", entry)),
            _ => None,
        };
        if let Some((key, file)) = named
            && !folder.join(file).is_file()
        {
            let hint = "make the file, or correct the key in recipe.toml".to_owned();
            return Err(lacks(&format!("no file `{file}`, which `{key}` names"), hint));
        }
        let mut files = Vec::new();
        for model in &manifest.models {
            let own = folder.join("models").join(&model.name);
            let what = format!("model `{}` of `{}`", model.name, manifest.name);
            if let (Some(source), false) = (&model.from, own.exists()) {
                let found = self.model(&what, models::place(self.home(), model.sha256), model);
                let hint = format!("`hob build {shown}` fetches it from {source}");
                files.push(found.map_err(|fault| fault.hint(hint))?);
                continue;
            }
            // An author's own file, which may be a link into a cache of models.
            let real = own.canonicalize().unwrap_or_else(|_| own.clone());
            let found = self.model(&what, real, model).map(|file| ModelFile { path: own, ..file });
            files.push(found.map_err(|fault| {
                match fault.code {
                    Code::ShelfAltered => Fault { code: Code::InvalidRecipe, blame: crate::model::Blame::Recipe, ..fault }
                        .hint("put back the file, or correct sha256 and bytes in recipe.toml"),
                    _ => fault.hint("the recipe's README says how to make or fetch it"),
                }
            })?);
        }
        let digest = folder_digest(&folder, manifest.glue.is_some())?;
        Ok(Verified::attest(manifest, folder.clone(), glue, files, digest, Origin::Unsigned { folder }))
    }

    /// Checks every byte of what is installed: of one recipe, or of all.
    ///
    /// Errors: `recipe_not_found`; what is wrong with a thing is in its report.
    pub fn verify(&self, name: Option<&RecipeName>) -> Result<Vec<Report>, Fault> {
        let entries = match name {
            Some(name) => vec![self.entry(name)?],
            None => self.installed()?,
        };
        let mut reports = Vec::new();
        if name.is_none() {
            let unread = LockFile::read(&self.home)?;
            let report = |damaged: &DamagedEntry| {
                let subject = format!("recipe {} of hob.lock", damaged.name.as_deref().unwrap_or("without a name"));
                Report { subject, fault: Some(damaged.fault.clone()), models: Vec::new() }
            };
            reports.extend(unread.damaged().iter().map(report));
        }
        let mut environments = Vec::new();
        let writers = Writers::new(self.home.group());
        // Another shelf object: what this process has checked before is checked again.
        let fresh = Shelf::open(self.home.clone())?;
        for entry in &entries {
            let subject = format!("recipe {} {}", entry.name, entry.version);
            let (models, fault) = match fresh.load_entry(entry) {
                Ok(recipe) => {
                    let models = recipe.manifest().models.iter().map(ModelTarget::from).collect();
                    (models, writers.check_tree(&self.place(entry)).err())
                }
                Err(fault) => (Vec::new(), Some(fault)),
            };
            reports.push(Report { subject, fault, models });
            environments.extend(entry.environment);
        }
        environments.sort_by_key(|pin| pin.digest);
        environments.dedup_by_key(|pin| pin.digest);
        for pin in environments {
            let checked = environment::tree_digest(&self.home, pin.digest).and_then(|tree| match tree == pin.tree {
                true => environment::verify(&self.home, pin.digest)
                    .and_then(|()| writers.check_tree(&self.home.environments().join(pin.digest.hex()))),
                false => Err(environment::altered(pin.digest, "the record of its files is not the one that hob.lock names".into())),
            });
            let subject = format!("environment {}", pin.digest.short());
            reports.push(Report { subject, fault: checked.err(), models: Vec::new() });
        }
        Ok(reports)
    }
}

/// A recipe folder's full path, and its manifest.
///
/// Errors: `recipe_not_found`, `invalid_recipe`, `invalid_manifest`, `io`.
pub fn folder_manifest(folder: &Path) -> Result<(PathBuf, Manifest), Fault> {
    let shown = folder.display();
    let next = "a recipe folder is one with a recipe.toml in it";
    let folder = folder.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Fault::new(Code::RecipeNotFound, format!("no folder {shown}")).hint(next),
        _ => Fault::io(format!("opening {shown}"), &error),
    })?;
    let text = durable::read(&folder.join("recipe.toml"), limits::MANIFEST_BYTES_MAX)?;
    let text = text.ok_or_else(|| lacks(&shown, "no recipe.toml").hint(next))?;
    let what = format!("{shown}/recipe.toml");
    let text = String::from_utf8(text).map_err(|_| Fault::new(Code::InvalidManifest, format!("{what}: not UTF-8")))?;
    Ok((folder, Manifest::parse(&text, &what)?))
}

fn lacks(shown: &impl std::fmt::Display, what: &str) -> Fault {
    Fault::new(Code::InvalidRecipe, format!("recipe folder {shown}: {what}"))
}

/// The file's bytes, which are the very bytes that were compared.
fn indexed(folder: &Path, path: &str, index: &Index) -> Result<Vec<u8>, Fault> {
    let wanted = index.get(path).ok_or_else(|| {
        Fault::new(Code::BundleInvalid, format!("the bundle has no `{path}`")).hint("its publisher has to publish it again")
    })?;
    let place = folder.join(path);
    let bytes = open::read_of(&place, wanted.bytes).map_err(|error| Fault::io(format!("reading {}", place.display()), &error))?;
    match Digest::of(&bytes) == wanted.sha256 {
        true => Ok(bytes),
        false => Err(Fault::new(Code::ShelfAltered, format!("{} changed while it was read", place.display()))),
    }
}

/// What would be in the bundle, as one digest.
fn folder_digest(folder: &Path, glue: bool) -> Result<Digest, Fault> {
    Ok(bundle::pack_folder(folder, glue)?.1.digest())
}
