//! `hob pack`: checks a recipe folder as if it were untrusted, and packs it as one bundle.
//!
//! Everything that a host would refuse after the download is refused here already, with the place in the
//! author's own file.

use crate::disk::look;
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::cases;
use crate::{
    glue::{Compiler, Glue},
    model::{
        Code, Digest, Edition, Fault, Hint, Manifest, Reading, act, hint, limits,
        manifest::spec::{ModelSpec, Runtime},
        stand_in,
    },
    shelf::{
        bundle::{
            self, behind,
            contents::{self, Left, Rules},
            index::Index,
        },
        durable,
        environment::requirements::{Lock, locking},
        files,
        store::load::{is_folder, schema_file},
    },
};

/// A recipe that is ready to be published.
#[derive(Debug)]
#[non_exhaustive]
pub struct Packed {
    pub bytes: Vec<u8>,
    #[doc(hidden)]
    pub index: Index,
    #[doc(hidden)]
    pub manifest: Arc<Manifest>,
    /// The number of its cases.
    pub cases: usize,
    /// The component, as in `bytes`.
    glue: Option<Bytes>,
    /// Files that are not packed, and why.
    pub left: BTreeMap<String, Left>,
    /// Number of further files that are not packed and not named.
    pub left_more: usize,
    /// Files that are packed and have no effect, in words.
    pub warnings: Vec<String>,
}

impl Packed {
    /// The bundle's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Compiles and links the glue, as every installing host does. The result is kept in `compile_cache`,
    /// where calls in the same home find it.
    ///
    /// Errors: those of a call, such as `glue_incompatible` and `glue_limit`; `io`.
    #[doc(hidden)]
    pub async fn check_glue(&self, compile_cache: &Path, compiler: Arc<dyn Compiler>) -> Result<(), Fault> {
        match &self.glue {
            None => Ok(()),
            Some(glue) => Glue::open(compile_cache, compiler)?.check(&self.manifest, glue.clone()).await,
        }
    }
}

/// Checks and packs a recipe folder, except for the content of its glue: see [`Packed::check_glue`]. The same
/// folder always gives the same bytes.
///
/// Errors: `invalid_manifest` with line and key; `invalid_recipe` for a file that the manifest names and that
/// is missing or wrong; `too_large`.
pub fn pack(folder: &Path) -> Result<Packed, Fault> {
    let manifest = read_manifest(folder)?;
    if manifest.glue.is_some() && !folder.join("glue.wasm").is_file() {
        return Err(Fault::new(
            Code::InvalidRecipe,
            format!("`{}` declares `[glue]`, but there is no `glue.wasm` in {}", manifest.name, folder.display()),
        )
        .hint(hint![act::build(folder.display()), " makes it"]));
    }
    let contents = contents::of(folder, &Rules::of(&manifest))?;
    contents.check(folder)?;
    let bundle::Packed { bytes, index, mut files } = bundle::pack_files_of(&contents)?;
    if let Some(glue) = index.get("glue.wasm")
        && glue.bytes > limits::GLUE_COMPONENT_BYTES_MAX
    {
        return Err(Fault::new(
            Code::TooLarge,
            format!("`glue.wasm` is {} bytes; at most {} are taken", glue.bytes, limits::GLUE_COMPONENT_BYTES_MAX),
        ));
    }
    check_pod(folder, &manifest, &index)?;
    for model in &manifest.models {
        let path = model_path(folder, model);
        // A fetched model need not be here; `hob build` fetches it. A model that is here is given to the pods
        // of this folder.
        if model.from.is_none() || look::is_there(&path)? {
            check_model(&path, model)?;
        }
    }
    let cases = cases::all(folder, &manifest)?.len();
    let glue = manifest.glue.as_ref().and_then(|_| files.remove("glue.wasm")).map(|(glue, _)| glue.into());
    let warnings = unnamed_locks(&manifest, &index);
    let (left, left_more) = (contents.left, contents.left_more);
    Ok(Packed { bytes, index, manifest: Arc::new(manifest), cases, glue, left, left_more, warnings })
}

/// For a recipe that names no lock: the files that look like one. Such a file beside `pod/requirements.in` is
/// refused.
fn unnamed_locks(manifest: &Manifest, index: &Index) -> Vec<String> {
    let Some(Runtime::Python { lock: None, .. }) = manifest.pod.as_ref().map(|pod| &pod.runtime) else { return Vec::new() };
    let there = ["pod/requirements.lock", "pod/requirements.txt"].into_iter().filter(|path| index.get(path).is_some());
    there
        .map(|path| {
            format!(
                "nothing in `{path}` is installed: recipe.toml names no lock; wanted e.g. `lock = \"pod/requirements.lock\"` in `[pod]`"
            )
        })
        .collect()
}

/// Reads the manifest of a recipe folder.
///
/// Errors: `invalid_recipe` if there is none, `invalid_manifest`.
pub fn read_manifest(folder: &Path) -> Result<Manifest, Fault> {
    is_folder(folder, &folder.display())?;
    let path = folder.join("recipe.toml");
    let bytes = durable::read(&path, limits::MANIFEST_BYTES_MAX)?.ok_or_else(|| {
        Fault::new(Code::InvalidRecipe, format!("{} is not a recipe folder: there is no `recipe.toml`", folder.display()))
            .hint("a recipe folder is one with a recipe.toml in it")
    })?;
    let text = stand_in::text(bytes).map_err(|wrong| wrong.fault(Code::InvalidManifest, &path.display().to_string()))?;
    let file = |path: &str| schema_file(folder, path);
    Manifest::parse_with(&text, &Reading { what: &path.display().to_string(), edition: Edition::Current, file: &file })
}

/// The path of a model in a recipe folder.
pub fn model_path(folder: &Path, model: &ModelSpec) -> PathBuf {
    folder.join("models").join(&model.name)
}

fn check_pod(folder: &Path, manifest: &Manifest, index: &Index) -> Result<(), Fault> {
    let lacking = |key: &str, path: &str, hint: Option<String>| {
        let text =
            format!("`{key}` of `{}` names `{path}`, which is not among the files of {} that are packed", manifest.name, folder.display());
        let hint = hint.unwrap_or_else(|| "make the file, or correct the key in recipe.toml".to_owned());
        Fault::new(Code::InvalidRecipe, text).with("path", path).hint(hint)
    };
    let missing = |key: &str, path: &str| lacking(key, path, behind::hint_of_file(folder, manifest, path));
    if let Some((key, file)) = manifest.schema_files().find(|(_, file)| index.get(file).is_none()) {
        return Err(missing(&key, file));
    }
    match manifest.pod.as_ref().map(|pod| &pod.runtime) {
        None => Ok(()),
        Some(Runtime::Executable { entry }) => match index.get(entry) {
            None => Err(missing("pod.entry", entry)),
            Some(file) if !file.executable => {
                Err(Fault::new(Code::InvalidRecipe, format!("`pod.entry` `{entry}` of `{}` is not executable", manifest.name))
                    .hint(hint![act::shell(format!("chmod +x {}", folder.join(entry).display()))]))
            }
            Some(_) => Ok(()),
        },
        Some(Runtime::Python { entry, lock, .. }) => {
            let module = entry.split(':').next().unwrap_or(entry).replace('.', "/");
            let (file, package) = (format!("pod/{module}.py"), format!("pod/{module}/__init__.py"));
            if index.get(&file).is_none() && index.get(&package).is_none() {
                let module = entry.split(':').next().unwrap_or(entry);
                return Err(lacking("pod.entry", &file, behind::hint_of_module(folder, manifest, module)));
            }
            let Some(lock) = lock else {
                return match index.get("pod/requirements.in") {
                    None => Ok(()),
                    Some(_) => Err(Fault::new(
                        Code::InvalidRecipe,
                        format!("`{}` has `pod/requirements.in`, but no `pod.lock`: nothing in it would be installed", manifest.name),
                    )
                    .hint(Hint::from("lock it").and(" with ", locking()).and("; then name the lock as ", hint![act::lock()]))),
                };
            };
            if index.get(lock).is_none() {
                return Err(missing("pod.lock", lock));
            }
            let path = folder.join(lock);
            let bytes = durable::read(&path, limits::LOCK_BYTES_MAX)?.ok_or_else(|| missing("pod.lock", lock))?;
            Lock::parse(&bytes, &path.display().to_string()).map(drop)
        }
    }
}

/// Checks a model file against the manifest.
///
/// Errors: `invalid_recipe` with what was found and wanted.
pub(super) fn check_model(path: &Path, model: &ModelSpec) -> Result<(), Fault> {
    let wrong = |why: String| {
        let fault = Fault::new(Code::InvalidRecipe, format!("model `{}` at {}: {why}", model.name, path.display()));
        fault.hint(hint!["put the file there, or correct ", act::model()])
    };
    let other = |why: String| match files::stand_in(path) {
        Ok(Some(found)) => wrong(format!("it is {}: {why}", found.name())).hint(found.hint_of_folder()),
        _ => wrong(why),
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(wrong(format!("it is missing; wanted {} bytes with sha256 {}", model.bytes, model.sha256)));
        }
        Err(error) => return Err(Fault::io(format!("reading {}", path.display()), &error)),
    };
    let bytes = file.metadata().map_err(|error| Fault::io(path.display(), &error))?.len();
    if bytes != model.bytes {
        return Err(other(format!("found {bytes} bytes, wanted {}", model.bytes)));
    }
    let found = digest(file).map_err(|error| Fault::io(format!("reading {}", path.display()), &error))?;
    match found == model.sha256 {
        true => Ok(()),
        false => Err(other(format!("found sha256 {found}, wanted {}", model.sha256))),
    }
}

fn digest(mut file: File) -> std::io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; limits::COPY_CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Digest::finish(hasher)),
            count => hasher.update(&chunk[..count]),
        }
    }
}
