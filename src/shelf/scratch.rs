//! The folder of one host's pods: theirs to write in, swept by the next host when its own was killed.
//!
//! Apart from staging, because it lies with Hob's state and not on the file system of the shelf.

use std::path::Path;

use super::staging::{self, Staging};
use crate::model::{Fault, Home};

/// A folder below [`Home::scratch`]; deleted on drop.
#[derive(Debug)]
pub struct Scratch(Staging);

impl Scratch {
    /// A fresh, empty folder. What killed hosts left is deleted first, once `reap` ended what still ran there.
    ///
    /// Errors: `io`, `disk_full`.
    pub fn new(home: &Home, reap: &dyn Fn(&Path) -> bool) -> Result<Scratch, Fault> {
        Staging::below(&home.scratch(), "host", reap).map(Scratch)
    }

    /// Deletes what killed hosts left, once `reap` ended what still ran there. Blocking.
    ///
    /// Errors: `io`.
    pub fn sweep(home: &Home, reap: &dyn Fn(&Path) -> bool) -> Result<(), Fault> {
        match home.scratch().is_dir() {
            true => staging::sweep(&home.scratch(), reap),
            false => Ok(()),
        }
    }

    pub fn folder(&self) -> &Path {
        self.0.folder()
    }

    /// The folder's own name, unique among all that this home has now.
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
        let living = Scratch::new(&home, &|_| true).unwrap();
        std::fs::create_dir_all(living.folder().join("1")).unwrap();
        let left = home.scratch().join("host-killed");
        std::fs::create_dir_all(left.join("1/__pycache__")).unwrap();
        std::fs::write(left.with_extension("lock"), "").unwrap();
        let next = Scratch::new(&home, &|_| true).unwrap();
        assert!(!left.exists() && living.folder().join("1").is_dir() && next.name() != living.name());
        drop(next);
        drop(living);
        assert_eq!(std::fs::read_dir(home.scratch()).unwrap().count(), 0);
    }
}
