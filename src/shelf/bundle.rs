//! The `.hob` bundle: a recipe as one uncompressed, deterministic tar file, and the index of what is in it.
//!
//! Apart from reading one back (`unpack.rs`), which faces strangers. The same folder always gives the same bytes,
//! so that a bundle can be made again from source and compared by digest.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::durable;
use crate::model::{Code, Digest, Fault, limits, recipe::is_inner_path};

/// One file of a bundle, as signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexedFile {
    pub sha256: Digest,
    pub bytes: u64,
    pub executable: bool,
}

/// What is in a bundle: path to digest, sorted. It travels in the signed target, so that a wrong byte has a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Index {
    files: BTreeMap<String, IndexedFile>,
}

impl Index {
    /// Reads an index from its JSON.
    ///
    /// Errors: `bundle_invalid` for a path that has no place in a bundle, or an index above the bounds.
    pub fn read(json: serde_json::Value) -> Result<Index, Fault> {
        let index: Index = serde_json::from_value(json)
            .map_err(|error| Fault::new(Code::BundleInvalid, format!("the index of files is malformed: {error}")))?;
        index.check()?;
        Ok(index)
    }

    fn check(&self) -> Result<(), Fault> {
        if self.files.len() > limits::BUNDLE_FILES_MAX {
            return Err(Fault::new(
                Code::BundleInvalid,
                format!("{} files; at most {} are taken", self.files.len(), limits::BUNDLE_FILES_MAX),
            ));
        }
        let mut bytes: u64 = 0;
        for (path, file) in &self.files {
            if !is_bundle_path(path) {
                return Err(Fault::new(Code::BundleInvalid, format!("`{path}` has no place in a bundle")).hint(PLACES));
            }
            bytes = bytes.saturating_add(file.bytes);
            // A file where another has a folder could be written in one order only.
            if let Some((inner, _)) =
                self.files.range(format!("{path}/")..).next().filter(|(inner, _)| inner.starts_with(&format!("{path}/")))
            {
                return Err(Fault::new(Code::BundleInvalid, format!("`{path}` is both a file and the folder of `{inner}`")));
            }
        }
        if bytes > limits::BUNDLE_BYTES_MAX {
            return Err(Fault::new(Code::BundleInvalid, format!("{bytes} bytes of files; at most {} are taken", limits::BUNDLE_BYTES_MAX)));
        }
        Ok(())
    }

    /// Every file, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &IndexedFile)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }
    /// The file at that path.
    pub fn get(&self, path: &str) -> Option<&IndexedFile> {
        self.files.get(path)
    }
    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }
    /// Whether it lists nothing.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
    /// One digest for all of it: names what a recipe folder holds without packing it.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("an index is plain strings and numbers"))
    }
}

/// What a bundle may hold, for people.
pub(super) const PLACES: &str =
    "a bundle holds `recipe.toml`, `glue.wasm`, `README.md`, `LICENSE*`, `pod/` and `cases/`; no dotfiles, no `__pycache__`";

/// Whether a file of that path may be in a bundle.
pub(super) fn is_bundle_path(path: &str) -> bool {
    let mut parts = path.split('/');
    let placed = match (parts.next(), parts.next()) {
        (Some("pod" | "cases"), Some(_)) => true,
        (Some(file), None) => matches!(file, "recipe.toml" | "glue.wasm" | "README.md") || file.starts_with("LICENSE"),
        _ => false,
    };
    placed && is_inner_path(path) && path.split('/').all(|part| !part.starts_with('.') && part != "__pycache__")
}

/// Packs a recipe folder. `glue` says whether the manifest has `[glue]`: a stray `glue.wasm` is left out otherwise.
///
/// Errors: `invalid_recipe` for links and names that cannot be carried, `too_large`, `io`.
pub fn pack_folder(folder: &Path, glue: bool) -> Result<(Vec<u8>, Index), Fault> {
    let mut found = BTreeMap::new();
    for name in names(folder)? {
        match name.as_str() {
            "glue.wasm" if !glue => {}
            "pod" | "cases" => walk(folder, &name, &mut found)?,
            file if is_bundle_path(file) => walk(folder, &name, &mut found)?,
            _ => {}
        }
    }
    let mut files = BTreeMap::new();
    let mut left = limits::BUNDLE_BYTES_MAX;
    for (path, place) in found {
        let bytes = durable::read(&place, left)
            .map_err(|fault| match fault.code {
                Code::TooLarge => {
                    Fault::new(Code::TooLarge, format!("with `{path}` the bundle is larger than {} bytes", limits::BUNDLE_BYTES_MAX))
                        .hint("large files belong into `[[model]]`")
                }
                _ => fault,
            })?
            .ok_or_else(|| Fault::new(Code::Io, format!("{} went away while it was packed", place.display())))?;
        left -= bytes.len() as u64;
        let executable = fs::metadata(&place).map_err(|error| Fault::io(place.display(), &error))?.permissions().mode() & 0o100 != 0;
        files.insert(path, (bytes, executable));
    }
    let packed = pack_files(&files)?;
    let index = Index {
        files: files
            .iter()
            .map(|(path, (bytes, executable))| {
                (path.clone(), IndexedFile { sha256: Digest::of(bytes), bytes: bytes.len() as u64, executable: *executable })
            })
            .collect(),
    };
    index.check()?;
    if packed.len() as u64 > limits::BUNDLE_BYTES_MAX {
        return Err(Fault::new(
            Code::TooLarge,
            format!("the bundle is {} bytes; at most {} are taken", packed.len(), limits::BUNDLE_BYTES_MAX),
        ));
    }
    Ok((packed, index))
}

/// The one encoding of these files (path to content and executable bit).
pub(super) fn pack_files(files: &BTreeMap<String, (Vec<u8>, bool)>) -> Result<Vec<u8>, Fault> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, (bytes, executable)) in files {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).map_err(|error| Fault::new(Code::InvalidRecipe, format!("`{path}` cannot be packed: {error}")))?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(if *executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        builder.append(&header, bytes.as_slice()).map_err(|error| Fault::io(format!("packing `{path}`"), &error))?;
    }
    builder.into_inner().map_err(|error| Fault::io("packing", &error))
}

fn names(folder: &Path) -> Result<Vec<String>, Fault> {
    let failed = |error: std::io::Error| Fault::io(format!("reading the folder {}", folder.display()), &error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        match name.to_str() {
            Some(name) if name.starts_with('.') || name == "__pycache__" => {}
            Some(name) => names.push(name.to_owned()),
            None => {
                return Err(Fault::new(
                    Code::InvalidRecipe,
                    format!("{}: the file name {name:?} is not UTF-8 and cannot be packed", folder.display()),
                ));
            }
        }
    }
    Ok(names)
}

/// Collects the files at and below `path` (relative to `folder`). Never follows a link: a link is refused.
fn walk(folder: &Path, path: &str, found: &mut BTreeMap<String, PathBuf>) -> Result<(), Fault> {
    let place = folder.join(path);
    let kind = fs::symlink_metadata(&place).map_err(|error| Fault::io(place.display(), &error))?.file_type();
    if kind.is_dir() && !path.starts_with("LICENSE") {
        for name in names(&place)? {
            walk(folder, &format!("{path}/{name}"), found)?;
        }
        return Ok(());
    }
    if !kind.is_file() {
        let what = if kind.is_symlink() { "a link" } else { "not a plain file" };
        return Err(Fault::new(
            Code::InvalidRecipe,
            format!("`{path}` in {} is {what}: a bundle holds plain files only", folder.display()),
        )
        .hint("replace it with a copy of the file, or remove it"));
    }
    if !is_bundle_path(path) {
        return Err(Fault::new(
            Code::InvalidRecipe,
            format!(
                "`{path}` in {} cannot be packed: wanted at most {} bytes of path, without `\\` and control characters",
                folder.display(),
                limits::BUNDLE_PATH_BYTES_MAX
            ),
        )
        .hint("give it a shorter, plainer name"));
    }
    if found.len() >= limits::BUNDLE_FILES_MAX {
        return Err(Fault::new(Code::TooLarge, format!("{} holds more than {} files to pack", folder.display(), limits::BUNDLE_FILES_MAX)));
    }
    found.insert(path.to_owned(), place);
    Ok(())
}
