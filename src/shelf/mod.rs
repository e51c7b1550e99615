//! Recipes on this machine: repository client, store, environments, models, lock.

pub mod bundle;
pub mod componentizer;
pub mod config;
mod download;
pub mod durable;
pub mod environment;
pub mod fetching;
mod files;
pub mod grants;
pub mod load;
pub mod lockfile;
pub mod locks;
mod machine;
mod metadata_store;
pub mod models;
mod origin;
mod process;
pub mod python;
pub mod rehearsal;
pub mod repository;
pub mod requirements;
mod resolve;
pub mod revoked;
pub mod scratch;
pub mod sessions;
pub mod sources;
mod staging;
pub mod store;
pub mod transport;
mod tree;
pub mod tuf;
pub mod unpack;
pub mod uv;

use crate::model::{Code, Fault};

/// Runs blocking work off the async threads; a panic there is Hob's own fault, not a hang.
///
/// The work goes on when the future is dropped: what it must not lose goes into it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Fault::new(Code::Internal, format!("a background task ended early: {error}"))),
    }
}
