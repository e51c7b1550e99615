//! Recipes on this machine: repository client, store, environments, models, lock.

mod aside;
pub mod bundle;
pub mod config;
pub mod environment;
pub(crate) mod files;
pub mod home;
pub mod models;
pub mod pod_caches;
pub(crate) mod process;
pub mod redirects;
pub mod repository;
pub mod sessions;
pub mod store;

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
