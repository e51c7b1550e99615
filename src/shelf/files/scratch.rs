//! The scratch folder of one host's pods, in which they may write. If its host is killed, a later host
//! deletes it.
//!
//! It lies with Hob's state, whereas staging lies on the file system of the shelf.

use crate::disk::look;
use std::path::Path;

use crate::{
    model::{Fault, Home},
    shelf::files::staging::{Staging, sweep},
};

/// A folder below [`Home::scratch`]; deleted on drop.
#[derive(Debug)]
pub struct Scratch(Staging);

impl Scratch {
    /// A fresh, empty folder.
    ///
    /// Errors: `io`, `disk_full`.
    pub fn new(home: &Home) -> Result<Scratch, Fault> {
        Staging::below(&home.scratch(), "host").map(Scratch)
    }

    /// Deletes what killed hosts left, each folder only if `may_delete` agrees: processes may still run
    /// there. Blocking.
    ///
    /// A folder that a living host holds is neither passed to `may_delete` nor touched. Errors: `io`, after
    /// everything else was tried.
    pub fn sweep(home: &Home, may_delete: impl Fn(&Path) -> bool) -> Result<(), Fault> {
        match look::is_there(&home.scratch())? {
            true => sweep(&home.scratch(), may_delete),
            false => Ok(()),
        }
    }

    pub fn folder(&self) -> &Path {
        self.0.folder()
    }

    /// The folder's name, unique among all that this home has now.
    pub fn name(&self) -> String {
        self.folder().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_host_left_is_deleted_and_a_living_one_keeps_its_own() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::at(root.path());
        Scratch::sweep(&home, |_| unreachable!("there is nothing")).unwrap();
        let living = Scratch::new(&home).unwrap();
        std::fs::create_dir_all(living.folder().join("1")).unwrap();
        let left = home.scratch().join("host-killed");
        std::fs::create_dir_all(left.join("1/__pycache__")).unwrap();
        std::fs::write(left.with_extension("lock"), "").unwrap();
        let next = Scratch::new(&home).unwrap();
        assert!(left.exists() && next.name() != living.name(), "to make a folder is not to sweep");
        let asked = std::cell::RefCell::new(Vec::new());
        let ask = |answer: bool| {
            let asked = &asked;
            move |folder: &Path| {
                asked.borrow_mut().push(folder.to_owned());
                answer
            }
        };
        Scratch::sweep(&home, ask(false)).unwrap();
        assert!(left.join("1").is_dir() && left.with_extension("lock").exists(), "deleted against the word");
        Scratch::sweep(&home, ask(true)).unwrap();
        assert!(!left.exists() && living.folder().join("1").is_dir() && next.folder().is_dir());
        // Asked once per folder, not for its lock too, and never for a held folder.
        assert_eq!(asked.take(), [left.clone(), left]);
        drop(next);
        drop(living);
        assert_eq!(std::fs::read_dir(home.scratch()).unwrap().count(), 0);
    }
}
