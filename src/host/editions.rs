//! What this Hob would make of recipes that an older one installed: it reads them as that one did, and says
//! so.

use std::sync::Arc;

use super::{Host, HostState};
use crate::{
    model::{Digest, Edition, Fault},
    shelf::{blocking, store::lockfile::LockEntry},
};

impl Host {
    /// What would be refused today of an installed recipe, or held, and is neither: as far as its manifest
    /// can be read, whose bytes are not checked here.
    pub fn warnings(&self, entry: &LockEntry) -> Vec<String> {
        match entry.edition {
            Edition::Older => self.0.shelf.read_again(entry, Edition::Older).map(|manifest| manifest.warnings()).unwrap_or_default(),
            Edition::Current => Vec::new(),
        }
    }
}

impl HostState {
    /// Whether exactly that bundle is installed, and installing it again would not have its schemas hold
    /// more: an older Hob may have installed it.
    pub(super) async fn is_as_installed_today(self: &Arc<Self>, before: Option<&LockEntry>, bundle: Digest) -> Result<bool, Fault> {
        let Some(before) = before.filter(|before| before.sha256 == bundle).cloned() else { return Ok(false) };
        let host = self.clone();
        blocking(move || Ok(before.edition == Edition::Current || host.shelf.read_again(&before, Edition::Current).is_err())).await
    }
}
