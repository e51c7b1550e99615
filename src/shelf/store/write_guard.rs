//! The right to change the shelf and its two files, `hob.lock` and `hob.toml`.

use crate::{
    model::{Fault, Home, progress},
    shelf::{
        config::edit::{self, ConfigGuard},
        files::locks,
    },
};

/// Held by one process at a time; [`Shelf::write`](crate::shelf::store::Shelf::write) gives it.
#[derive(Debug)]
pub struct WriteGuard {
    config: ConfigGuard,
    _shelf: locks::Held,
}

impl WriteGuard {
    /// Waits until nobody else changes the shelf, and reports that once.
    pub(super) async fn acquire(home: &Home, progress: &progress::Shared) -> Result<WriteGuard, Fault> {
        let shelf = locks::acquire(&home.locks().join("shelf.lock"), "changing the shelf", progress).await?;
        let config = edit::lock(home).await?;
        Ok(WriteGuard { config, _shelf: shelf })
    }

    /// The right to change `hob.toml`, which comes with it.
    pub(super) fn config(&self) -> &ConfigGuard {
        &self.config
    }
}
