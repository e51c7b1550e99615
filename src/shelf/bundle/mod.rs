//! The `.hob` bundle: a recipe as one uncompressed, deterministic tar file with an index of its content.
//!
//! The same folder always gives the same bytes, so that a bundle can be rebuilt from source and compared by
//! digest. Reading a bundle (`unpack.rs`) is separate because its input comes from strangers.

pub mod behind;
pub mod contents;
pub mod folder_view;
pub mod index;
pub mod places;
pub mod unpack;

use index::Index;
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use crate::{
    model::{Code, Fault, act, hint, limits},
    shelf::durable,
};
use contents::Contents;

/// A folder's bundle.
#[derive(Debug)]
pub struct Packed {
    pub bytes: Vec<u8>,
    pub index: Index,
    /// The content of each file, and whether it is executable.
    pub files: BTreeMap<String, (Vec<u8>, bool)>,
}

/// Packs the files that belong in the bundle of a recipe folder.
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
    let index = Index::of(&files)?;
    if packed.len() as u64 > limits::BUNDLE_BYTES_MAX {
        return Err(Fault::new(
            Code::TooLarge,
            format!("the bundle is {} bytes; at most {} are taken", packed.len(), limits::BUNDLE_BYTES_MAX),
        ));
    }
    Ok(Packed { bytes: packed, index, files })
}

/// Encodes these files (path to content and executable bit); there is exactly one encoding.
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
