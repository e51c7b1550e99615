//! The file that keeps the measured footprints of recipes for the next host.
//!
//! `pod/residency/mod.rs` measures. The file is only a help: without it, the sizes that recipes declare
//! count.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use super::HostState;
use crate::{
    model::{
        Digest, Home,
        limits::{FOOTPRINTS_BYTES_MAX, FOOTPRINTS_SAVE_MS},
        status::machine::Footprint,
    },
    shelf::{blocking, durable},
};

/// The footprints of this home. Blocking. A file that cannot be read is logged and will be replaced.
pub fn read(home: &Home) -> Vec<(Digest, Footprint)> {
    let path = home.footprints();
    let bytes = match durable::read(&path, FOOTPRINTS_BYTES_MAX) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(fault) => {
            tracing::warn!("footprints are measured anew: {fault}");
            return Vec::new();
        }
    };
    if bytes.is_empty() {
        return Vec::new();
    }
    match serde_json::from_slice::<BTreeMap<String, Footprint>>(&bytes) {
        Ok(read) => read.into_iter().filter_map(|(recipe, footprint)| Some((recipe.parse().ok()?, footprint))).collect(),
        Err(error) => {
            tracing::warn!("footprints are measured anew: {}: {error}", path.display());
            Vec::new()
        }
    }
}

/// Writes the footprints from time to time if they changed, for as long as the host exists.
pub async fn watch(host: Weak<HostState>) {
    loop {
        tokio::time::sleep(Duration::from_millis(FOOTPRINTS_SAVE_MS)).await;
        let Some(host) = host.upgrade() else { return };
        save(&host).await;
    }
}

/// Writes the footprints if they changed.
pub async fn save(host: &Arc<HostState>) {
    let Some(footprints) = host.memory.unsaved_footprints() else { return };
    let path = host.home.footprints();
    let written = blocking(move || {
        let all: BTreeMap<String, Footprint> = footprints.into_iter().map(|(recipe, footprint)| (recipe.to_string(), footprint)).collect();
        if let Some(folder) = path.parent() {
            durable::make_folder(folder)?;
        }
        durable::replace(&path, &serde_json::to_vec(&all).expect("names and numbers become JSON"))
    });
    if let Err(fault) = written.await {
        tracing::warn!("what recipes were measured to take is not kept: {fault}");
    }
}
