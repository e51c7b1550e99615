//! Recipes on this machine: repository client, store, environments, models, lock.

mod aside;
pub mod behind;
mod building;
pub mod bundle;
pub mod componentizer;
pub mod config;
pub mod contents;
mod download;
pub mod environment;
pub mod fetching;
pub(crate) mod files;
pub mod folder_view;
pub mod grants;
pub mod home;
mod index_answers;
pub mod indexes;
mod inert;
pub mod load;
pub mod lockfile;
pub mod locks;
mod machine;
mod metadata_store;
mod model_folder;
pub mod models;
mod origin;
mod pip;
pub mod pod_caches;
pub(crate) mod process;
pub mod python;
pub mod rehearsal;
pub mod repository;
pub mod requirements;
mod resolve;
pub mod revoked;
pub mod scratch;
mod serve;
pub mod sessions;
pub mod sources;
mod staging;
pub mod store;
pub mod transport;
mod tree;
pub mod tuf;
mod unbuilt;
pub mod unpack;
pub mod uv;

pub use aside::aside;

pub use crate::disk::{
    durable,
    threads::{blocking, runtime},
};
use crate::model::{
    Code, Fault,
    limits::{READ_HERE_BYTES_MAX, READS_AT_ONCE},
};

/// Reads a text of so many bytes: a short one here, a long one [aside], few at a time.
pub async fn reading<T: Send + 'static>(bytes: usize, read: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    static READS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(READS_AT_ONCE);
    if bytes <= READ_HERE_BYTES_MAX {
        return read();
    }
    let held = READS.acquire().await.map_err(|_| Fault::new(Code::Internal, "nothing is read any more"))?;
    aside(move || {
        let _held = held;
        read()
    })
    .await
}
