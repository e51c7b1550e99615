//! Checks that paths form the same tree of files on any file system, including those that ignore case or
//! treat two forms of a letter as one.

use std::collections::BTreeMap;

use icu_normalizer::ComposingNormalizerBorrowed;

/// A set of paths, each checked against the earlier ones.
#[derive(Debug, Default)]
pub struct Distinct {
    /// Files and the folders above them, by [`fold`].
    taken: BTreeMap<String, Taken>,
}

#[derive(Debug)]
struct Taken {
    path: String,
    is_file: bool,
}

/// Why a path cannot be in one tree with the earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clash {
    /// The path is there already.
    Same,
    /// Some file systems treat one of its files or folders as the same as an earlier one: its own name, and
    /// the earlier name.
    Folded(String, String),
    /// One of the two paths has a file where the other has a folder.
    FileAndFolder(String),
}

impl Distinct {
    /// Adds the next file's path.
    pub fn take(&mut self, path: &str) -> Result<(), Clash> {
        let folders = path.match_indices('/').map(|(at, _)| (&path[..at], false));
        for (path, is_file) in folders.chain([(path, true)]) {
            let key = fold(path);
            let Some(before) = self.taken.get(&key) else {
                self.taken.insert(key, Taken { path: path.to_owned(), is_file });
                continue;
            };
            match (before.is_file, is_file) {
                _ if before.path != path => return Err(Clash::Folded(path.to_owned(), before.path.clone())),
                (true, true) => return Err(Clash::Same),
                (false, false) => {}
                _ => return Err(Clash::FileAndFolder(path.to_owned())),
            }
        }
        Ok(())
    }
}

/// Maps all names that some file system treats as one to the same text.
pub fn fold(path: &str) -> String {
    // Most paths are ASCII, and need only lower case.
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    let form = ComposingNormalizerBorrowed::new_nfc();
    // Upper case first: it splits letters that stand for two, and merges letters with several lower-case
    // forms.
    let cased = form.normalize(path).to_uppercase().to_lowercase();
    form.normalize(&cased).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_file_system_takes_for_one_is_no_two() {
        let clash = |paths: &[&str]| {
            let mut distinct = Distinct::default();
            paths.iter().find_map(|path| distinct.take(path).err())
        };
        for paths in
            [&["pod/a", "pod/b", "pod/a.txt", "pods", "cases/a"][..], &["pod/é", "pod/e", "pod/è", "pod/ß"], &["a/b/c", "a/b/d", "a/e/c"]]
        {
            assert_eq!(clash(paths), None, "{paths:?}");
        }
        for (one, other) in [
            ("pod/Readme", "pod/README"),
            ("pod/\u{e9}", "pod/e\u{301}"),
            ("pod/\u{c9}", "pod/e\u{301}"),
            ("pod/straße", "pod/STRASSE"),
            ("pod/ſ", "pod/S"),
            ("pod/ΟΔΟΣ", "pod/οδος"),
            ("pod/\u{212a}", "pod/k"),
        ] {
            let (one, other) = (one.to_owned(), other.to_owned());
            assert_eq!(clash(&[&one, &other]), Some(Clash::Folded(other.clone(), one.clone())));
            assert_eq!(clash(&[&other, &one]), Some(Clash::Folded(one.clone(), other.clone())));
            // Folders, too.
            assert_eq!(clash(&[&format!("{one}/a"), &format!("{other}/b")]), Some(Clash::Folded(other, one)));
        }
        assert_eq!(clash(&["a", "a"]), Some(Clash::Same));
        assert_eq!(clash(&["a/b", "a/b/c"]), Some(Clash::FileAndFolder("a/b".into())));
        assert_eq!(clash(&["a/b/c", "a/b"]), Some(Clash::FileAndFolder("a/b".into())));
        assert_eq!(clash(&["a/B", "a/b/c"]), Some(Clash::Folded("a/b".into(), "a/B".into())));
    }
}
