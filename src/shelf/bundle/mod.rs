//! The `.hob` bundle: a recipe as one uncompressed, deterministic tar file, and the index of what is in it.
//!
//! Apart from reading one back (`unpack.rs`), which faces strangers. The same folder always gives the same bytes,
//! so that a bundle can be made again from source and compared by digest.

pub mod behind;
pub mod contents;
pub mod folder_view;
pub mod unpack;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use serde::{Deserialize, Serialize};

use crate::{
    model::{Code, Digest, Fault, act, distinct::Distinct, hint, limits, manifest::is_inner_path},
    shelf::durable,
};
use contents::{Contents, folded, is_first_place, is_never};

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
    /// The first file, by path, that Hob 0.1.0 does not take.
    pub fn wider(&self) -> Option<&str> {
        self.files.keys().map(String::as_str).find(|path| !is_first_place(path))
    }
    /// Whether its files are as many on every file system.
    ///
    /// Errors: `bundle_invalid` for two that some take for one.
    pub fn check_distinct(&self) -> Result<(), Fault> {
        let mut distinct = Distinct::default();
        self.files.keys().try_for_each(|path| distinct.take(path).map_err(|clash| Fault::new(Code::BundleInvalid, folded(path, &clash))))
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

/// A folder's bundle.
#[derive(Debug)]
pub struct Packed {
    pub bytes: Vec<u8>,
    pub index: Index,
    /// The content of each file, and whether it is executable.
    pub files: BTreeMap<String, (Vec<u8>, bool)>,
}

/// What a bundle may hold, for people.
pub(super) const PLACES: &str = "a bundle holds `recipe.toml`, `glue.wasm`, `README.md`, `LICENSE*`, `pod/`, `cases/`, and what `files` names; no `models/`, no `__pycache__`";

/// Whether a file of that path may be in a bundle, of a recipe that names the Hobs that take it.
pub(super) fn is_bundle_path(path: &str) -> bool {
    is_inner_path(path) && !is_never(path)
}

/// Packs what goes into the bundle of a recipe folder.
///
/// Errors: `too_large`, `io`.
pub fn pack_files_of(contents: &Contents) -> Result<Packed, Fault> {
    let mut files = BTreeMap::new();
    let mut left = limits::BUNDLE_BYTES_MAX;
    for (path, place) in &contents.taken {
        let bytes = durable::read(place, left)
            .map_err(|fault| match fault.code {
                Code::TooLarge => {
                    Fault::new(Code::TooLarge, format!("with `{path}` the bundle is larger than {} bytes", limits::BUNDLE_BYTES_MAX))
                        .hint(hint!["large files belong into ", act::model()])
                }
                _ => fault,
            })?
            .ok_or_else(|| Fault::new(Code::Io, format!("{} went away while it was packed", place.display())))?;
        left -= bytes.len() as u64;
        let executable = fs::metadata(place).map_err(|error| Fault::io(place.display(), &error))?.permissions().mode() & 0o100 != 0;
        files.insert(path.clone(), (bytes, executable));
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
    Ok(Packed { bytes: packed, index, files })
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
