//! Bundles: whatever archive and index somebody signs, what is unpacked is what the index lists, and nothing
//! else changes anywhere.
//!
//! Input: a byte of choices and an archive. A checksum guards every header of a tar file, which stops a
//! mutation long before it means anything, so one choice sets all of them right; another makes an index that
//! agrees with the archive as far as an index can, as a hostile publisher would, instead of reading one from
//! the input's end.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use hob::{
    model::{Code, Digest, limits, path_pattern::is_inner_path},
    shelf::bundle::{
        Packed,
        contents::Contents,
        index::Index,
        pack_files_of,
        unpack::{check_folder, diagnose, read_files, unpack},
    },
};
use serde_json::{Map, Value, json};

const RIGHT_CHECKSUMS: u8 = 1;
const INDEX_OF_ITS_OWN: u8 = 2;
const BLOCK: usize = 512;

pub fn holds(bytes: &[u8]) {
    let [choices, rest @ ..] = bytes else { return };
    // Of its own: behind the last NUL NUL `{`.
    let own = (choices & INDEX_OF_ITS_OWN != 0).then(|| rest.windows(3).rposition(|three| three == b"\0\0{")).flatten();
    let (archive, own) = own.map_or((rest, None), |at| (&rest[..at + 2], Some(&rest[at + 2..])));
    let mut archive = archive.to_vec();
    if choices & RIGHT_CHECKSUMS != 0 {
        set_checksums(&mut archive);
    }
    let json = match own {
        Some(own) => serde_json::from_slice(own).unwrap_or(Value::Null),
        None => agreeing(&archive),
    };
    let index = match Index::read(json) {
        Ok(index) => index,
        Err(fault) => {
            assert_eq!(fault.code, Code::BundleInvalid, "{fault}");
            Index::default()
        }
    };
    unpacked(&archive, &index);
}

fn unpacked(archive: &[u8], index: &Index) {
    let root = tempfile::Builder::new().prefix("hob-fuzz-").tempdir().expect("a folder");
    let staging = root.path().join("staging");
    fs::create_dir(&staging).expect("a folder");
    // Things to overwrite, and a link to leave by.
    fs::write(root.path().join("recipe.toml"), "mine").expect("a file");
    fs::create_dir(root.path().join("pod")).expect("a folder");
    symlink(root.path().join("pod"), staging.join("pod")).expect("a link");
    let dest = staging.join("recipe");
    let before = tree(root.path(), &dest);
    let what = "hob/x 1.0.0";

    let diagnosed = diagnose(archive, index, what, "hob");
    assert!([Code::BundleInvalid, Code::Tampered].contains(&diagnosed.code), "{diagnosed}");
    let read = read_files(archive, index, what);
    match unpack(archive, index, &dest, what) {
        Err(fault) => {
            assert_eq!(fault.code, Code::BundleInvalid, "{fault}");
            assert!(fault.message.starts_with("bundle hob/x 1.0.0: ") && fault.hint.is_some(), "{fault}");
            assert_eq!(read.expect_err("unpacked it was not"), fault);
            assert!(!dest.exists(), "refused and written: {fault}");
        }
        Ok(()) => {
            let read = read.expect("unpacked it was");
            assert_eq!(read.len(), index.len());
            let found = tree(&dest, Path::new(""));
            let files: Vec<_> = found.iter().filter(|(_, what)| !what.starts_with("folder")).map(|(path, _)| path.as_str()).collect();
            assert_eq!(files, index.files().map(|(path, _)| path).collect::<Vec<_>>());
            for (path, wanted) in index.files() {
                assert!(is_inner_path(path) && path.len() <= limits::BUNDLE_PATH_BYTES_MAX, "{path:?}");
                let content = fs::read(dest.join(path)).expect("a file");
                assert!(Digest::of(&content) == wanted.sha256 && content.len() as u64 == wanted.bytes);
                let mode = fs::symlink_metadata(dest.join(path)).expect("a file").permissions().mode();
                // A plain file, with no more than these bits: neither set-user-id nor a writer.
                assert_eq!(mode, if wanted.executable { 0o100_555 } else { 0o100_444 }, "{path} has mode {mode:o}");
            }
            check_folder(&dest, index).expect("what was just unpacked");
            // One content, one encoding.
            let taken = index.files().map(|(path, _)| (path.to_owned(), dest.join(path))).collect();
            let Packed { bytes: packed, index: again, .. } =
                pack_files_of(&Contents { taken, ..Contents::default() }).expect("what was just unpacked");
            assert!(packed == archive && again == *index, "what was unpacked packs to another bundle");
            if !index.is_empty() {
                assert_eq!(unpack(archive, index, &dest, what).expect_err("unpacked over files").code, Code::Internal);
            }
        }
    }
    assert_eq!(tree(root.path(), &dest), before, "something changed outside");
    // The modes let no one in to take it away.
    drop(root);
}

/// Everything below `folder` but `except`, by relative path; nothing is followed.
fn tree(folder: &Path, except: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path == except {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).expect("an entry");
            let what = if metadata.is_dir() {
                left.push(path.clone());
                "folder".to_owned()
            } else if metadata.is_symlink() {
                format!("link to {}", fs::read_link(&path).expect("a link").display())
            } else {
                format!("{:?} of {} bytes, mode {:o}", metadata.file_type(), metadata.len(), metadata.permissions().mode())
            };
            found.insert(path.strip_prefix(folder).expect("below").to_str().expect("UTF-8").to_owned(), what);
        }
    }
    found
}

/// Walks the headers as their sizes say, and sets the checksum of each.
fn set_checksums(archive: &mut [u8]) {
    let mut at = 0usize;
    while let Some(header) = archive.get_mut(at..).and_then(|rest| rest.get_mut(..BLOCK)) {
        if header.iter().all(|byte| *byte == 0) {
            at += BLOCK;
            continue;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
        let size = tar::Header::from_byte_slice(header).entry_size().unwrap_or(0);
        let Some(next) = usize::try_from(size).ok().and_then(|size| size.checked_next_multiple_of(BLOCK)?.checked_add(at + BLOCK)) else {
            return;
        };
        at = next;
    }
}

/// An index in which everything is that the archive holds, as far as paths and sizes can be read.
fn agreeing(archive: &[u8]) -> Value {
    let mut index = Map::new();
    let mut at = 0usize;
    while let Some(header) = archive.get(at..).and_then(|rest| rest.get(..BLOCK)) {
        let header = tar::Header::from_byte_slice(header);
        let (Ok(size), Ok(mode)) = (header.entry_size(), header.mode()) else { break };
        let Ok(size) = usize::try_from(size) else { break };
        let content = archive.get(at + BLOCK..).and_then(|rest| rest.get(..size.min(rest.len()))).unwrap_or_default();
        if let Ok(path) = std::str::from_utf8(&header.path_bytes())
            && !path.is_empty()
        {
            let file = json!({ "sha256": Digest::of(content).hex(), "bytes": size, "executable": mode & 0o111 != 0 });
            // The first: a second one of that name is the attack.
            index.entry(path).or_insert(file);
        }
        let Some(next) = size.checked_next_multiple_of(BLOCK).and_then(|size| size.checked_add(at + BLOCK)) else { break };
        at = next;
    }
    Value::Object(index)
}
