//! Recipes that an older Hob installed: this Hob reads them as the older one did, and warns of the
//! differences.

use std::sync::Arc;

use super::{Host, HostState};
use crate::{
    model::{Digest, Edition, Fault},
    shelf::{blocking, store::lockfile::LockEntry},
};

impl Host {
    /// Warnings about what today's Hob would refuse or enforce in an installed recipe, but does not. The
    /// bytes of the manifest are not verified here; an unreadable manifest has no warnings.
    pub fn warnings(&self, entry: &LockEntry) -> Vec<String> {
        match entry.edition {
            Edition::Older => self.0.shelf.read_again(entry, Edition::Older).map(|manifest| manifest.warnings()).unwrap_or_default(),
            Edition::Current => Vec::new(),
        }
    }
}

impl HostState {
    /// Whether exactly that bundle is installed and a new install would not make its schemas enforce more; an
    /// older Hob may have installed it.
    pub(super) async fn is_as_installed_today(self: &Arc<Self>, before: Option<&LockEntry>, bundle: Digest) -> Result<bool, Fault> {
        let Some(before) = before.filter(|before| before.sha256 == bundle).cloned() else { return Ok(false) };
        let host = self.clone();
        blocking(move || Ok(before.edition == Edition::Current || host.shelf.read_again(&before, Edition::Current).is_err())).await
    }
}
