//! Locks between processes: the process that holds a file's lock may write.
//!
//! These are advisory locks of the kernel, so a killed holder releases them. Waiting polls instead of
//! blocking a thread: a caller that gives up leaves no entry in the kernel's queue. Lock files are never
//! deleted.

use std::{
    fs::File,
    io,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    disk::{lock, open},
    model::{Code, Fault, Step, act, hint, limits, progress},
};

use crate::shelf::durable;

pub use crate::disk::lock::Held;

/// Takes the lock at `path` if nobody holds it.
pub(in crate::shelf) fn try_acquire(path: &Path) -> Result<Option<Held>, Fault> {
    take(path, lock::try_exclusive)
}

fn take(path: &Path, lock: fn(File) -> io::Result<Option<Held>>) -> Result<Option<Held>, Fault> {
    if let Some(folder) = path.parent() {
        durable::make_folder(folder)?;
    }
    open::open_to_write(path).and_then(lock).map_err(|error| Fault::io(format!("locking {}", path.display()), &error))
}

/// Takes a share of the lock at `path`, unless a process holds it exclusively.
pub(in crate::shelf) fn try_share(path: &Path) -> Result<Option<Held>, Fault> {
    take(path, lock::try_shared)
}

/// Waits for the lock at `path`, at most [`limits::LOCK_WAIT_MS`]. `doing` says what another holder is doing,
/// for people.
///
/// Errors: `overloaded` when the wait is over.
pub(in crate::shelf) async fn acquire(path: &Path, doing: &str, progress: &progress::Shared) -> Result<Held, Fault> {
    let tell = || progress.step(Step::Note { text: format!("another hob is {doing}; waiting for it") });
    wait_for(path, doing, limits::LOCK_WAIT_MS, tell).await
}

/// `acquire` for operations that take moments: waits at most [`limits::REPOSITORY_LOCK_WAIT_MS`], and
/// reports no progress.
///
/// Errors: `overloaded` when the wait is over.
pub async fn acquire_briefly(path: &Path, doing: &str) -> Result<Held, Fault> {
    wait_for(path, doing, limits::REPOSITORY_LOCK_WAIT_MS, || ()).await
}

/// Takes one of a few places, so that only so many callers work at once. A caller that has waited for the
/// whole time continues without a place, because strangers may fill the places and take their time.
pub(in crate::shelf) async fn turn(
    folder: &Path,
    of: &str,
    places: usize,
    wait_ms: u64,
    progress: &progress::Shared,
) -> Result<Option<Held>, Fault> {
    let end = Instant::now() + Duration::from_millis(wait_ms);
    let mut told = false;
    loop {
        for place in 0..places {
            if let Some(held) = try_acquire(&folder.join(format!("{of}-{place}.lock")))? {
                return Ok(Some(held));
            }
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        if !told {
            progress.step(Step::Note { text: format!("{places} other {of} are being built; waiting a moment for them") });
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(limits::LOCK_POLL_MS)).await;
    }
}

async fn wait_for(path: &Path, doing: &str, wait_ms: u64, tell: impl Fn()) -> Result<Held, Fault> {
    let began = Instant::now();
    let mut told = false;
    loop {
        if let Some(held) = try_acquire(path)? {
            return Ok(held);
        }
        if !told {
            tell();
            told = true;
        }
        if began.elapsed() > Duration::from_millis(wait_ms) {
            return Err(Fault::new(
                Code::Overloaded,
                format!("another hob was still {doing} after {} s (lock: {})", wait_ms / 1000, path.display()),
            )
            .hint(hint!["see what the other hob is doing, end it if it hangs, and ", act::again()]));
        }
        tokio::time::sleep(Duration::from_millis(limits::LOCK_POLL_MS)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Silent;

    #[tokio::test]
    async fn who_waited_long_enough_for_strangers_goes_on_without_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let quiet: progress::Shared = Arc::new(Silent);
        let take = || turn(folder.path(), "works", 2, 100, &quiet);
        let places = [take().await.unwrap(), take().await.unwrap()];
        assert!(places.iter().all(Option::is_some));
        assert!(take().await.unwrap().is_none());
        drop(places);
        assert!(take().await.unwrap().is_some());
    }

    #[tokio::test]
    async fn one_at_a_time_and_a_waiter_goes_on_when_the_holder_drops() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks/shelf");
        let quiet: progress::Shared = Arc::new(Silent);
        let held = try_acquire(&path).unwrap().unwrap();
        assert!(try_acquire(&path).unwrap().is_none());
        let waiting = tokio::time::timeout(Duration::from_millis(150), acquire(&path, "installing", &quiet)).await;
        assert!(waiting.is_err(), "got a lock that was held");
        drop(held);
        acquire(&path, "installing", &quiet).await.unwrap();
    }
}
