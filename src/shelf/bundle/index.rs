//! The signed index of a bundle: every file with its digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Code, Digest, Fault, distinct::Distinct, limits},
    shelf::bundle::places::{PLACES, folded, is_bundle_path, is_first_place},
};

/// The content of a bundle: path to digest, sorted. The index travels in the signed target, so that a wrong
/// byte can be reported by the name of its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Index {
    files: BTreeMap<String, IndexedFile>,
}

impl Index {
    /// Reads an index from its JSON.
    ///
    /// Errors: `bundle_invalid` for a path that a bundle may not hold, or an index above the bounds.
    pub fn read(json: serde_json::Value) -> Result<Index, Fault> {
        let index: Index = serde_json::from_value(json)
            .map_err(|error| Fault::new(Code::BundleInvalid, format!("the index of files is malformed: {error}")))?;
        index.check()?;
        Ok(index)
    }

    /// The index of `files`: path to content and executable bit.
    ///
    /// Errors: `bundle_invalid`, as for [`Index::read`].
    pub(super) fn of(files: &BTreeMap<String, (Vec<u8>, bool)>) -> Result<Index, Fault> {
        let indexed = |(bytes, executable): &(Vec<u8>, bool)| IndexedFile {
            sha256: Digest::of(bytes),
            bytes: bytes.len() as u64,
            executable: *executable,
        };
        let index = Index { files: files.iter().map(|(path, file)| (path.clone(), indexed(file))).collect() };
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
            // A path that is a file here and a folder there could be written in one order only.
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
    /// The first file, by path, that Hob 0.1.0 does not accept in a bundle.
    pub fn wider(&self) -> Option<&str> {
        self.files.keys().map(String::as_str).find(|path| !is_first_place(path))
    }
    /// Checks that no two paths name the same file on any file system.
    ///
    /// Errors: `bundle_invalid` for two paths that some file systems treat as one.
    pub fn check_distinct(&self) -> Result<(), Fault> {
        let mut distinct = Distinct::default();
        self.files.keys().try_for_each(|path| distinct.take(path).map_err(|clash| Fault::new(Code::BundleInvalid, folded(path, &clash))))
    }
    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }
    /// Whether the index lists no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
    /// One digest of the whole index; it identifies the content of a recipe folder without packing it.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("an index is plain strings and numbers"))
    }
}

/// One file of a bundle, as signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexedFile {
    pub sha256: Digest,
    pub bytes: u64,
    pub executable: bool,
}
