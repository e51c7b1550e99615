//! The content of a folder as one text: a line per file, sorted, with digest and mode.
//!
//! Everything that Hob unpacks is compared by this text with its state when it was made.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use crate::model::Digest;

use crate::shelf::files;

/// First line of the text: names the format.
const HEADER: &str = "hob-tree 1";

/// Relative path (escaped) to the entry at that path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shelf) struct Tree(BTreeMap<String, String>);

impl Tree {
    /// Reads every file below `folder`. Folders are not recorded: an empty one changes nothing.
    pub fn of(folder: &Path) -> io::Result<Tree> {
        let mut entries = BTreeMap::new();
        let mut waiting = vec![folder.to_owned()];
        while let Some(current) = waiting.pop() {
            for entry in fs::read_dir(&current)? {
                let entry = entry?;
                let (path, kind) = (entry.path(), entry.file_type()?);
                if kind.is_dir() {
                    waiting.push(path);
                    continue;
                }
                let line = if kind.is_symlink() {
                    format!("link {}", Digest::of(fs::read_link(&path)?.as_os_str().as_bytes()))
                } else if kind.is_file() {
                    format!("{:04o} {}", entry.metadata()?.permissions().mode() & 0o7777, files::digest(&path)?.0)
                } else {
                    "special".to_owned()
                };
                entries.insert(name(path.strip_prefix(folder).unwrap_or(&path)), line);
            }
        }
        Ok(Tree(entries))
    }

    /// The text to keep: equal trees give equal texts.
    pub fn text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (path, line) in &self.0 {
            let _ = writeln!(text, "{line} {path}");
        }
        text
    }

    /// Reads a kept text; `None` if it is malformed.
    pub fn parse(text: &str) -> Option<Tree> {
        let lines = text.strip_prefix(HEADER)?.strip_prefix('\n')?;
        let entry = |line: &str| -> Option<(String, String)> {
            let mut parts = line.splitn(3, ' ');
            let (kind, second) = (parts.next()?, parts.next()?);
            match kind {
                "special" => Some((line.strip_prefix("special ")?.to_owned(), kind.to_owned())),
                _ => Some((parts.next()?.to_owned(), format!("{kind} {second}"))),
            }
        };
        lines.lines().map(entry).collect::<Option<_>>().map(Tree)
    }

    /// The first difference of `found` from this tree, in path order, for people.
    pub fn difference(&self, found: &Tree) -> Option<String> {
        let paths: std::collections::BTreeSet<_> = self.0.keys().chain(found.0.keys()).collect();
        paths.into_iter().find_map(|path| match (self.0.get(path), found.0.get(path)) {
            (Some(_), None) => Some(format!("`{path}` is missing")),
            (None, Some(_)) => Some(format!("`{path}` was added")),
            (Some(was), Some(is)) if was != is => {
                let same_bytes = was.split(' ').nth(1) == is.split(' ').nth(1);
                Some(format!("`{path}` was altered{}", if same_bytes { " (its mode)" } else { "" }))
            }
            _ => None,
        })
    }
}

/// A path as one line of text; different paths give different lines.
fn name(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(['\n', '\r', '\\']) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Removes the write permission from `path` itself. A tree that was renamed to its final place needs only
/// this step, so nothing else can fail there.
pub(in crate::shelf) fn take_write(path: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(path)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7555))
}

/// Removes the write permission from everything below `folder`. `folder` itself stays writable, because it is
/// still to be renamed.
pub(in crate::shelf) fn make_read_only(folder: &Path) -> io::Result<()> {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let mut next = 0;
    while next < folders.len() {
        for entry in fs::read_dir(&folders[next])? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if !kind.is_symlink() {
                take_write(&entry.path())?;
            }
        }
        next += 1;
    }
    folders.iter().skip(1).try_for_each(|folder| take_write(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("b/c")).unwrap();
        fs::write(at("a"), "1").unwrap();
        fs::write(at("b/c/with space"), "2").unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o644)).unwrap();
        let before = Tree::of(root.path()).unwrap();
        assert_eq!(Tree::parse(&before.text()).unwrap(), before);
        assert_eq!(before.difference(&before), None);
        assert_eq!(Tree::parse("hob-tree 2\n"), None);
        assert_eq!(Tree::parse("hob-tree 1\nrubbish"), None);

        let says = |tree: &Tree| before.difference(tree).unwrap_or_default();
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(says(&Tree::of(root.path()).unwrap()), "`a` was altered (its mode)");
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(at("b/c/with space"), "3").unwrap();
        assert_eq!(says(&Tree::of(root.path()).unwrap()), "`b/c/with space` was altered");
        fs::remove_file(at("b/c/with space")).unwrap();
        assert_eq!(says(&Tree::of(root.path()).unwrap()), "`b/c/with space` is missing");
        fs::write(at("aa"), "").unwrap();
        assert_eq!(says(&Tree::of(root.path()).unwrap()), "`aa` was added");
        fs::remove_file(at("aa")).unwrap();
        fs::write(at("b/c/with space"), "2").unwrap();
        fs::remove_file(at("link")).unwrap();
        std::os::unix::fs::symlink("b", at("link")).unwrap();
        assert_eq!(says(&Tree::of(root.path()).unwrap()), "`link` was altered");
    }

    #[test]
    fn read_only_is_all_or_all_but_the_top() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("top");
        fs::create_dir_all(top.join("inner")).unwrap();
        fs::write(top.join("inner/file"), "").unwrap();
        let writable = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o222 != 0;
        make_read_only(&top).unwrap();
        assert!(writable(&top) && !writable(&top.join("inner")) && !writable(&top.join("inner/file")));
        take_write(&top).unwrap();
        assert!(!writable(&top));
        files::remove_tree(&top).unwrap();
    }
}
