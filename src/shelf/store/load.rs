//! Turns files on the shelf (or in an author's folder) into [`Verified`]; no other module makes one.
//!
//! Loading changes nothing. Every file is compared with the signed index on every load. A recipe folder has
//! no index, and its `Verified` says so.

use crate::disk::look;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    disk::{open, owner::Writers},
    model::{
        Code, Digest, Edition, Fault, Hint, Manifest, Origin, Reading, RecipeName, Verified, act, hint,
        limits::{self, SCHEMA_FILES_BYTES_MAX},
        manifest::{
            self,
            spec::{ModelSpec, Runtime},
        },
        stand_in,
        verified::{ModelFile, Models},
    },
};

use crate::shelf::{
    bundle::{
        self, behind,
        contents::{self, Rules},
        folder_view,
        index::Index,
        unpack::check_folder,
    },
    durable, environment,
    models::{self, folder},
    repository::resolve::ModelTarget,
    store::{
        Shelf, Staged,
        lockfile::{DamagedEntry, LockEntry, LockFile},
    },
};

/// The findings of `hob verify` about one thing on the shelf.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Report {
    /// E.g. `recipe hob/echo 0.1.0` or `environment 0123456789abcdef`.
    pub subject: String,
    /// `None`: it is unchanged since its install.
    pub fault: Option<Fault>,
    /// The models of a recipe that were compared with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelTarget>,
}

impl Shelf {
    /// An installed recipe, with every file checked against its signed index.
    ///
    /// Errors: `recipe_not_found`, `shelf_altered` by the name of the file, `model_missing`,
    /// `invalid_manifest` (this Hob is older than the recipe requires).
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

    /// A recipe that is unpacked but not installed yet, so that its glue can be compiled and its checks can
    /// run first.
    ///
    /// `index` must come from the signed target from which `entry` was made; the models must be on the shelf.
    pub fn load_staged(&self, staged: &Staged, entry: &LockEntry, index: &Index) -> Result<Verified, Fault> {
        self.attest(&staged.folder(), entry, index)
    }

    fn attest(&self, folder: &Path, entry: &LockEntry, index: &Index) -> Result<Verified, Fault> {
        check_folder(folder, index)?;
        let manifest_path = folder.join("recipe.toml");
        let text = indexed(folder, "recipe.toml", index)?;
        let text = stand_in::text(text).map_err(|wrong| wrong.fault(Code::InvalidManifest, &manifest_path.display().to_string()))?;
        // The user who installed the recipe is not its author.
        let next = hint![
            act::add(&entry.name),
            " installs a version that this Hob takes, if there is one; ",
            act::remove(&entry.name),
            " takes it away"
        ];
        let file = |path: &str| indexed(folder, path, index);
        let what = manifest_path.display().to_string();
        let reading = Reading { what: &what, edition: entry.edition, file: &file };
        let read = Manifest::parse_with(&text, &reading).map_err(|fault| match fault.hint == Some(manifest::correct_the_manifest()) {
            true => fault.hint(next),
            false => fault,
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
        contents::check_wider(index.wider(), &manifest.hob)?;
        let glue = match &manifest.glue {
            Some(_) => Some(Bytes::from(indexed(folder, "glue.wasm", index)?)),
            None => None,
        };
        let models = self.installed_models(folder, &manifest)?;
        let origin = Origin::Signed { remote: entry.remote.clone(), publisher: entry.publisher.clone(), key_ids: entry.key_ids.clone() };
        Ok(Verified::attest(manifest, folder.to_owned(), glue, models, entry.sha256, origin))
    }

    /// The manifest of an installed recipe in this edition, read without checking its bytes: to report how
    /// another edition reads it.
    ///
    /// Errors: `invalid_manifest`, `io`.
    pub fn read_again(&self, entry: &LockEntry, edition: Edition) -> Result<Manifest, Fault> {
        let folder = self.place(entry);
        let path = folder.join("recipe.toml");
        let what = path.display().to_string();
        let text = durable::read(&path, limits::MANIFEST_BYTES_MAX)?.ok_or_else(|| Fault::new(Code::ShelfAltered, format!("no {what}")))?;
        let text = stand_in::text(text).map_err(|wrong| wrong.fault(Code::InvalidManifest, &what))?;
        Manifest::parse_with(&text, &Reading { what: &what, edition, file: &|path| schema_file(&folder, path) })
    }

    /// The capability that an installed recipe's manifest claims, read without any check. Use it only to name
    /// the recipe that is to blame when a recipe cannot be loaded.
    pub fn says_capability(&self, entry: &LockEntry) -> Option<String> {
        let text = durable::read(&self.place(entry).join("recipe.toml"), limits::MANIFEST_BYTES_MAX).ok()??;
        let text = String::from_utf8(text).ok()?;
        let read: toml::Table = text.parse().ok()?;
        Some(read.get("capability")?.as_str()?.to_owned())
    }

    /// The models of an installed recipe whose files are in `recipe`. If the home is from before folders of
    /// models existed, the folder is made now.
    ///
    /// Errors: `model_missing`, `shelf_altered`; `io`, `disk_full` if the folder has to be made.
    fn installed_models(&self, recipe: &Path, manifest: &Manifest) -> Result<Models, Fault> {
        let wanted: Vec<Wanted> =
            manifest.models.iter().map(|model| Wanted { model, file: models::place(self.home(), model.sha256) }).collect();
        if wanted.is_empty() {
            return Ok(Models::default());
        }
        let (name, folder) = (&manifest.name, folder::beside(recipe));
        let again = |fault: Fault| fault.hint(hint![act::remove(name), " and ", act::add(name), " fetch it again"]);
        // The folder is made before the check: another name changes the file's status, and the file would be
        // read again.
        for wanted in &wanted {
            models::is_there(&wanted.what(name), &wanted.file).map_err(again)?;
        }
        let lent = match look::is_there(&folder)? {
            true => None,
            false => match folder::make_at(self.home(), &folder, &named(&wanted)) {
                Ok(()) => None,
                Err(fault) if fault.code == Code::DiskFull => return Err(fault),
                // This user cannot write to the home, as in an image: the folder lasts as long as this
                // process.
                Err(fault) => Some(self.model_folders.of(self.home(), recipe, &named(&wanted)).map_err(|_| fault)?),
            },
        };
        let folder = lent.as_ref().map_or(folder, |lent| lent.folder());
        let wrong = folder::compare(&folder, wanted.iter().map(|wanted| wanted.model.name.as_str()))
            .map_err(|error| Fault::io(format!("reading {}", folder.display()), &error))?;
        if let Some(wrong) = wrong {
            return Err(again(Fault::new(Code::ShelfAltered, format!("the models of `{name}` in {}: {wrong}", folder.display()))));
        }
        // Fetched models are checked too, for the next recipe. It is the same file, so it is read once.
        self.check_models(&wanted, name).map_err(again)?;
        let files = Wanted::in_folder(&wanted, &folder);
        self.check_models(&files, name).map_err(again)?;
        Ok(models_in(folder, files, lent))
    }

    /// The models of a recipe folder: the files in its `models/`, and from the shelf those that it lacks but
    /// names a source for. Its pods get `models/` itself if that folder suffices, else a folder that is made
    /// for them.
    ///
    /// Errors: `model_missing`, `invalid_recipe`; `io`, `disk_full` if a folder has to be made.
    fn folder_models(&self, recipe: &Path, manifest: &Manifest, shown: &impl std::fmt::Display) -> Result<Models, Fault> {
        let own = recipe.join("models");
        // The folder may be a link to where an author keeps all models.
        let own = own.canonicalize().unwrap_or(own);
        let mut wanted = Vec::new();
        let mut all_own = true;
        for model in &manifest.models {
            let at = own.join(&model.name);
            let lies_there = look::is_there(&at)?;
            let on_shelf = model.from.as_ref().filter(|_| !lies_there);
            // A model may be a link into a cache of models.
            let file = match on_shelf {
                Some(_) => models::place(self.home(), model.sha256),
                None => at.canonicalize().unwrap_or_else(|_| at.clone()),
            };
            all_own &= file == at;
            let wanted_one = Wanted { model, file };
            models::is_there(&wanted_one.what(&manifest.name), &wanted_one.file).map_err(|fault| match on_shelf {
                Some(source) => fault.hint(hint![act::build(shown), format!(" fetches it from {source}")]),
                None => fault.hint("the recipe's README says how to make or fetch it"),
            })?;
            wanted.push(wanted_one);
        }
        if wanted.is_empty() {
            return Ok(Models::default());
        }
        let is_all =
            all_own && folder::compare(&own, wanted.iter().map(|wanted| wanted.model.name.as_str())).is_ok_and(|wrong| wrong.is_none());
        let lent = match is_all {
            true => None,
            false => Some(self.model_folders.of(self.home(), recipe, &named(&wanted))?),
        };
        let folder = lent.as_ref().map_or(own, |lent| lent.folder());
        let files = Wanted::in_folder(&wanted, &folder);
        self.check_models(&wanted, &manifest.name).and_then(|()| self.check_models(&files, &manifest.name)).map_err(|fault| {
            if fault.code != Code::ShelfAltered {
                return fault;
            }
            let hint = fault.hint.clone().unwrap_or_else(|| "put back the file, or correct sha256 and bytes in recipe.toml".into());
            Fault { code: Code::InvalidRecipe, blame: crate::model::Blame::Recipe, ..fault }.hint(hint)
        })?;
        Ok(models_in(folder, files, lent))
    }

    fn check_models(&self, wanted: &[Wanted], recipe: &RecipeName) -> Result<(), Fault> {
        wanted.iter().try_for_each(|one| self.checked.check(&one.what(recipe), &one.file, one.model.sha256, one.model.bytes))
    }

    /// A recipe folder, run by its author: nobody signed it, and the result says so.
    ///
    /// Errors: `invalid_recipe` for a file that the manifest names and the folder lacks, `invalid_manifest`,
    /// `model_missing`.
    pub fn load_folder(&self, folder: &Path) -> Result<Verified, Fault> {
        let shown = folder.display();
        let (folder, manifest) = folder_manifest(folder)?;
        let manifest = Arc::new(manifest);
        let lacks = |what: &str, hint: Hint| lacks(&shown, what).hint(hint);

        let glue = match &manifest.glue {
            None => None,
            Some(_) => Some(Bytes::from(
                durable::read(&folder.join("glue.wasm"), limits::GLUE_COMPONENT_BYTES_MAX)?
                    .ok_or_else(|| lacks("no glue.wasm, which `[glue]` asks for", hint![act::build(&shown), " makes it"]))?,
            )),
        };
        let mut named: Vec<(String, &str)> = manifest.schema_files().collect();
        named.extend(match manifest.pod.as_ref().map(|pod| &pod.runtime) {
            Some(Runtime::Python { lock: Some(lock), .. }) => Some(("pod.lock".to_owned(), lock.as_str())),
            Some(Runtime::Executable { entry }) => Some(("pod.entry".to_owned(), entry.as_str())),
            _ => None,
        });
        let contents = contents::of(&folder, &Rules::of(&manifest))?;
        if let Some((key, file)) = named.into_iter().find(|(_, file)| !contents.taken.contains_key(*file)) {
            return Err(match behind::hint_of_file(&folder, &manifest, file) {
                Some(hint) => lacks(&format!("`{file}`, which `{key}` names, is not packed"), hint.into()),
                None => {
                    let hint = "make the file, or correct the key in recipe.toml".into();
                    lacks(&format!("no file `{file}`, which `{key}` names"), hint)
                }
            });
        }
        let models = self.folder_models(&folder, &manifest, &shown)?;
        let mut places = folder_view::places_of(&folder, &manifest.permissions);
        if models.folder.as_ref().is_some_and(|models| models.starts_with(&folder)) {
            places.insert("models".to_owned(), true);
        }
        let packed = bundle::pack_files_of(&contents)?;
        let digest = packed.index.digest();
        let view = self.folder_views.of(self.home(), &folder, digest, &contents, &packed.files, places)?;
        let (seen, held) = (view.folder().to_owned(), view as Arc<dyn std::fmt::Debug + Send + Sync>);
        Ok(Verified::attest(manifest, folder.clone(), glue, models, digest, Origin::Unsigned { folder }).seen_as(seen, held))
    }

    /// Checks every byte that is installed: of one recipe, or of all.
    ///
    /// Errors: `recipe_not_found`; a finding about one thing is in its report.
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
        // Another shelf object checks again what this process has checked before.
        let fresh = Shelf::open(self.home.clone())?;
        for entry in &entries {
            let subject = format!("recipe {} {}", entry.name, entry.version);
            let (models, fault) = match fresh.load_entry(entry) {
                Ok(recipe) => {
                    let models = recipe.manifest().models.iter().map(ModelTarget::from).collect();
                    let folders = [Some(recipe.folder()), recipe.models_folder()];
                    (models, folders.into_iter().flatten().find_map(|folder| writers.check_tree(folder).err()))
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

/// A model of a manifest, and the file that should have its bytes.
struct Wanted<'a> {
    model: &'a ModelSpec,
    file: PathBuf,
}

impl<'a> Wanted<'a> {
    /// For messages.
    fn what(&self, recipe: &RecipeName) -> String {
        format!("model `{}` of `{recipe}`", self.model.name)
    }

    /// The same models, each at its name in `folder`.
    fn in_folder(wanted: &[Wanted<'a>], folder: &Path) -> Vec<Wanted<'a>> {
        wanted.iter().map(|Wanted { model, .. }| Wanted { model, file: folder.join(&model.name) }).collect()
    }
}

/// Must be called after the check.
fn models_in(folder: PathBuf, files: Vec<Wanted>, lent: Option<Arc<folder::Lent>>) -> Models {
    let checked = |one: Wanted| ModelFile { name: one.model.name.clone(), path: one.file, digest: one.model.sha256 };
    let held = lent.map(|lent| lent as Arc<dyn std::fmt::Debug + Send + Sync>);
    Models { folder: Some(folder), files: files.into_iter().map(checked).collect(), held }
}

fn named<'a>(wanted: &[Wanted<'a>]) -> Vec<folder::Named<'a>> {
    wanted.iter().map(|wanted| (wanted.model.name.as_str(), wanted.file.clone())).collect()
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
    is_folder(&folder, &shown)?;
    let text = durable::read(&folder.join("recipe.toml"), limits::MANIFEST_BYTES_MAX)?;
    let text = text.ok_or_else(|| lacks(&shown, "no recipe.toml").hint(next))?;
    let what = format!("{shown}/recipe.toml");
    let text = stand_in::text(text).map_err(|wrong| wrong.fault(Code::InvalidManifest, &what))?;
    let reading = Reading { what: &what, edition: Edition::Current, file: &|path| schema_file(&folder, path) };
    let manifest = Manifest::parse_with(&text, &reading)?;
    Ok((folder, manifest))
}

/// The bytes of a JSON file in a folder that holds a schema.
///
/// Errors: `invalid_recipe` if there is none; `io`.
pub fn schema_file(folder: &Path, path: &str) -> Result<Vec<u8>, Fault> {
    let place = folder.join(path);
    let found = durable::read(&place, SCHEMA_FILES_BYTES_MAX)?;
    found.ok_or_else(|| Fault::new(Code::InvalidRecipe, format!("there is no such file in {}", folder.display())))
}

/// Refuses a file given instead of a recipe folder; `shown` is the path as it was given.
///
/// Errors: `invalid_recipe`.
pub fn is_folder(folder: &Path, shown: &impl std::fmt::Display) -> Result<(), Fault> {
    if !folder.is_file() {
        return Ok(());
    }
    let fault = Fault::new(Code::InvalidRecipe, format!("{shown} is a file, wanted the folder of a recipe"));
    Err(fault.hint("name the folder in which recipe.toml is"))
}

fn lacks(shown: &impl std::fmt::Display, what: &str) -> Fault {
    Fault::new(Code::InvalidRecipe, format!("recipe folder {shown}: {what}"))
}

/// The file's bytes: the very bytes that were compared with the index.
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
