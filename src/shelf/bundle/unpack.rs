//! Reads a bundle that someone else made.
//!
//! Everything here is untrusted input: nothing outside the signed index is written or trusted. Each
//! difference is reported by the name of the inner file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::{
    disk::make,
    model::{Code, Digest, Fault, act, hint, limits},
    shelf::{
        bundle::{
            index::{Index, IndexedFile},
            pack_files,
            places::{PLACES, is_bundle_path, is_first_place},
        },
        durable,
    },
};

/// How a bundle differs from its index.
enum Wrong {
    /// A difference in one inner file: the message without the bundle's name.
    Inside(String),
    /// The tar file itself is damaged.
    Archive(String),
}

/// Reads every file of `bytes` and compares it with `index`; `wanted_to_be` says in messages what a file
/// should have been.
fn files(bytes: &[u8], index: &Index, wanted_to_be: &str) -> Result<BTreeMap<String, (Vec<u8>, bool)>, Wrong> {
    let damaged = |after: &str, error: &dyn std::fmt::Display| {
        let place = if after.is_empty() { "at its start".to_owned() } else { format!("after `{after}`") };
        Wrong::Archive(format!("the archive is damaged {place}: {error}"))
    };
    let mut found = BTreeMap::new();
    let mut last = String::new();
    let mut archive = tar::Archive::new(bytes);
    // Raw entries: no GNU or pax extension may change an entry.
    for entry in archive.entries().map_err(|error| damaged(&last, &error))?.raw(true) {
        let mut entry = entry.map_err(|error| damaged(&last, &error))?;
        let path = match std::str::from_utf8(&entry.path_bytes()) {
            Ok(path) => path.to_owned(),
            Err(_) => return Err(Wrong::Inside(format!("{:?} is not a UTF-8 path", String::from_utf8_lossy(&entry.path_bytes())))),
        };
        let kind = entry.header().entry_type();
        if kind != tar::EntryType::Regular {
            return Err(Wrong::Inside(format!("`{path}` is a {} and not a plain file", kind_name(kind))));
        }
        // A path that only newer recipes may have must be in the signed index.
        if !is_bundle_path(&path) || (index.get(&path).is_none() && !is_first_place(&path)) {
            return Err(Wrong::Inside(format!("`{path}` has no place in a bundle")));
        }
        let Some(wanted) = index.get(&path) else {
            return Err(Wrong::Inside(format!("`{path}` is an extra file that the signed index does not list")));
        };
        if found.contains_key(&path) {
            return Err(Wrong::Inside(format!("`{path}` is there twice")));
        }
        let claimed = entry.size();
        if claimed > limits::BUNDLE_BYTES_MAX {
            return Err(Wrong::Inside(format!("`{path}` claims {claimed} bytes; the signed index says {}", wanted.bytes)));
        }
        let mut content = Vec::new();
        (&mut entry).take(claimed).read_to_end(&mut content).map_err(|error| damaged(&last, &error))?;
        if (content.len() as u64) < claimed {
            return Err(damaged(&last, &format!("`{path}` claims {claimed} bytes, {} are there", content.len())));
        }
        let executable = entry.header().mode().map_err(|error| damaged(&last, &error))? & 0o111 != 0;
        if let Some(difference) = difference(wanted, &content, executable, wanted_to_be) {
            return Err(Wrong::Inside(format!("`{path}` {difference}")));
        }
        found.insert(path.clone(), (content, executable));
        last = path;
    }
    match index.files().find(|(path, _)| !found.contains_key(*path)) {
        Some((path, _)) => Err(Wrong::Inside(format!("`{path}` is missing"))),
        None => Ok(found),
    }
}

fn difference(wanted: &IndexedFile, content: &[u8], executable: bool, wanted_to_be: &str) -> Option<String> {
    let sha256 = Digest::of(content);
    if sha256 != wanted.sha256 || content.len() as u64 != wanted.bytes {
        return Some(format!(
            "is not {wanted_to_be} (found sha256 {} of {} bytes, signed sha256 {} of {} bytes)",
            sha256.short(),
            content.len(),
            wanted.sha256.short(),
            wanted.bytes
        ));
    }
    (executable != wanted.executable).then(|| {
        let word = |executable| if executable { "executable" } else { "not executable" };
        format!("is {}; it was signed as {}", word(executable), word(wanted.executable))
    })
}

fn kind_name(kind: tar::EntryType) -> &'static str {
    use tar::EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    match kind {
        Symlink => "symbolic link",
        Link => "hard link",
        Directory => "folder entry",
        Char | Block => "device",
        Fifo => "pipe",
        _ => "tar extension",
    }
}

/// Names the difference between the signed content and `bytes`, whose digest is not the signed one. `what`
/// names the bundle and `signer` its signer.
///
/// Returns `bundle_invalid` if an inner file differs; `tampered` if only the archive around the files does.
pub fn diagnose(bytes: &[u8], index: &Index, what: &str, signer: &str) -> Fault {
    const HINT: &str =
        "nothing was installed; the mirror or the line alters files: try again, and tell the repository's maintainer if it remains";
    match files(bytes, index, &format!("what `{signer}` signed")) {
        Err(Wrong::Inside(wrong)) => Fault::new(Code::BundleInvalid, format!("bundle {what}: {wrong}")).hint(HINT),
        Err(Wrong::Archive(wrong)) => {
            Fault::new(Code::Tampered, format!("bundle {what} is not what `{signer}` signed: {wrong}")).hint(HINT)
        }
        Ok(_) => Fault::new(
            Code::Tampered,
            format!("bundle {what} is not what `{signer}` signed: the files agree, the archive around them does not"),
        )
        .hint(HINT),
    }
}

/// Reads a bundle whose digest was already found to be the signed one; writes nothing.
///
/// Errors: `bundle_invalid`, naming the inner file.
pub fn read_files(bytes: &[u8], index: &Index, what: &str) -> Result<BTreeMap<String, (Vec<u8>, bool)>, Fault> {
    let refused = |message: String| {
        Fault::new(Code::BundleInvalid, format!("bundle {what}: {message}"))
            .hint(format!("nothing was installed; its publisher has to publish it again ({PLACES})"))
    };
    if bytes.len() as u64 > limits::BUNDLE_BYTES_MAX {
        return Err(refused(format!("{} bytes; at most {} are taken", bytes.len(), limits::BUNDLE_BYTES_MAX)));
    }
    let files = files(bytes, index, "what was signed").map_err(|wrong| match wrong {
        Wrong::Inside(message) | Wrong::Archive(message) => refused(message),
    })?;
    // One content has exactly one encoding: anything hidden in padding, owners, times or behind the end is
    // refused here.
    if pack_files(&files)? != bytes {
        return Err(refused("the archive is not in the one form that packing writes".to_owned()));
    }
    Ok(files)
}

/// Unpacks a bundle into `dest`, which must not exist or be empty: files 0444 (executables 0555), nothing
/// overlaid.
///
/// Errors: `bundle_invalid` by the name of the inner file, before anything is written; `io`, `disk_full`.
pub fn unpack(bytes: &[u8], index: &Index, dest: &Path, what: &str) -> Result<(), Fault> {
    let files = read_files(bytes, index, what)?;
    durable::make_folder(dest)?;
    let mut entries = fs::read_dir(dest).map_err(|error| Fault::io(dest.display(), &error))?;
    if entries.next().is_some() {
        return Err(Fault::new(Code::Internal, format!("{} is not empty: a bundle is never unpacked over other files", dest.display())));
    }
    let mut folders = BTreeSet::from([dest.to_owned()]);
    for (path, (content, executable)) in &files {
        let place = dest.join(path);
        for folder in place.ancestors().skip(1).take_while(|folder| *folder != dest) {
            folders.insert(folder.to_owned());
        }
        durable::make_folder(place.parent().unwrap_or(dest))?;
        let write = || -> std::io::Result<()> {
            let mut file = make::new_file(&place, if *executable { 0o555 } else { 0o444 })?;
            file.write_all(content)?;
            file.sync_all()
        };
        write().map_err(|error| Fault::io(format!("writing {}", place.display()), &error))?;
    }
    for folder in folders {
        durable::sync_folder(&folder).map_err(|error| Fault::io(folder.display(), &error))?;
    }
    Ok(())
}

/// Compares an unpacked recipe with its index, byte by byte.
///
/// Errors: `shelf_altered`, naming the first altered, missing or extra file.
pub fn check_folder(folder: &Path, index: &Index) -> Result<(), Fault> {
    let altered = |path: &str, how: String| {
        Fault::new(Code::ShelfAltered, format!("`{path}` in {} {how}", folder.display())).with("path", path).hint(hint![
            "take the recipe away and install it again: ",
            act::remove("RECIPE"),
            " and ",
            act::add("RECIPE")
        ])
    };
    for (path, wanted) in index.files() {
        let place = folder.join(path);
        let metadata = match fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Err(altered(path, "is missing".into()));
            }
            Err(error) => return Err(Fault::io(place.display(), &error)),
        };
        if !metadata.is_file() {
            return Err(altered(path, "is not a plain file any more".into()));
        }
        if metadata.len() != wanted.bytes {
            return Err(altered(path, format!("is {} bytes; {} were installed", metadata.len(), wanted.bytes)));
        }
        let content = durable::read(&place, wanted.bytes)?.ok_or_else(|| altered(path, "is missing".into()))?;
        if let Some(difference) = difference(wanted, &content, metadata.permissions().mode() & 0o111 != 0, "what was installed") {
            return Err(altered(path, difference));
        }
    }
    extra(folder, "", index).and_then(|extra| match extra {
        Some(path) => Err(altered(&path, "is an extra file: it was not installed".into())),
        None => Ok(()),
    })
}

/// The first file below `folder` that the index does not list.
fn extra(folder: &Path, below: &str, index: &Index) -> Result<Option<String>, Fault> {
    let place = folder.join(below);
    let failed = |error: std::io::Error| Fault::io(format!("reading the folder {}", place.display()), &error);
    for entry in fs::read_dir(&place).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        // The walk enters a folder that holds a signed file. Any other folder is itself extra, and is not
        // entered: a stranger may have chosen its depth.
        let holds = |path: &str| index.files().any(|(file, _)| file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')));
        if entry.file_type().map_err(failed)?.is_dir() && holds(&path) {
            if let Some(extra) = extra(folder, &path, index)? {
                return Ok(Some(extra));
            }
        } else if index.get(&path).is_none() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
