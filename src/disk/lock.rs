//! Locks between processes, on open files (`flock`): the one type that holds such a lock.
//!
//! The kernel releases a lock when the last descriptor of the opened file is closed. A process that this one
//! is starting has a copy of every descriptor until it runs its own program, so closing the file would leave
//! the lock held for that moment. [`Held`] therefore unlocks before it closes. A killed holder's lock is
//! released by the kernel.

use std::{
    fs::{File, TryLockError},
    io,
    ops::Deref,
};

/// A held lock, and the file that it is on. Dropped, the lock is free at once.
#[derive(Debug)]
pub struct Held {
    file: File,
}

/// Locks the file for this holder alone. Returns `None` if somebody else holds it or shares it.
#[expect(clippy::disallowed_methods, reason = "this is the room for it")]
pub fn try_exclusive(file: File) -> io::Result<Option<Held>> {
    taken(file, File::try_lock)
}

/// Locks the file for this holder and others that share it. Returns `None` if somebody holds it exclusively.
#[expect(clippy::disallowed_methods, reason = "this is the room for it")]
pub fn try_shared(file: File) -> io::Result<Option<Held>> {
    taken(file, File::try_lock_shared)
}

fn taken(file: File, lock: fn(&File) -> Result<(), TryLockError>) -> io::Result<Option<Held>> {
    match lock(&file) {
        Ok(()) => Ok(Some(Held { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Locks the file until the last copy of its descriptor is closed, so a tool that inherits one holds the lock
/// on after this process has dropped `file` or was killed. Returns false if somebody else holds the lock.
#[expect(clippy::disallowed_methods, reason = "this is the room for it")]
pub fn try_exclusive_for_heirs(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Deref for Held {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Should it fail, closing the file releases the lock.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::open;

    #[test]
    fn a_dropped_lock_is_free_though_a_process_that_is_being_started_has_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = || open::open_to_write(&path).unwrap();
        for take in [try_exclusive, try_shared] {
            let held = take(file()).unwrap().unwrap();
            let _copy = held.try_clone().unwrap();
            assert!(try_exclusive(file()).unwrap().is_none(), "got a lock that was held");
            drop(held);
            assert!(try_exclusive(file()).unwrap().is_some());
        }
    }

    #[test]
    fn a_tool_that_inherits_a_lock_holds_it_after_its_maker() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = || open::open_to_write(&path).unwrap();
        let made = file();
        assert!(try_exclusive_for_heirs(&made).unwrap() && !try_exclusive_for_heirs(&file()).unwrap());
        let inherited = made.try_clone().unwrap();
        drop(made);
        assert!(try_exclusive(file()).unwrap().is_none(), "got a lock that a tool holds");
        drop(inherited);
        assert!(try_exclusive(file()).unwrap().is_some());
    }
}
