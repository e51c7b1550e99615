//! What recipes were measured to take of the machine, kept for the next host.
//!
//! Apart from `pod/residency/mod.rs`, which measures: here is the file. It is a help and no more: without it
//! what recipes declare counts.

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

/// Those of this home. Blocking. A file that cannot be read is said in the log, and made anew.
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

/// Writes them when they changed.
pub async fn watch(host: Weak<HostState>) {
    loop {
        tokio::time::sleep(Duration::from_millis(FOOTPRINTS_SAVE_MS)).await;
        let Some(host) = host.upgrade() else { return };
        save(&host).await;
    }
}

/// Writes them, if they changed.
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
