//! What is installed on this machine, and how it gets there.
//!
//! ```text
//!    repository/  whom to believe: TUF, downloads --+
//!    models/      model files, from where they lie --+--> store/  verify, publish by one rename --> host
//!    environment/ Python packages, by `uv` ----------+      ^
//!                                                           |
//!    config/      hob.toml: remotes, ranges, grants     bundle/  a recipe as a file or a folder
//! ```
//!
//! - `store/load.rs` turns files into [`crate::model::Verified`]; nothing outside the shelf can.
//! - `files/`: locks, staging, scratch, trees of any depth.
//! - `home.rs`: whether a home is safe to use.
//! - `sessions.rs`, `pod_caches.rs`: checkpoints of sessions, caches of pods' libraries.
//! - `process.rs`: tools, with bounds on time, output and memory. `aside.rs`: work on a thread where no call
//!   waits.

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

/// Reads a text of `bytes` bytes: a short one on this thread, a long one [aside], only a few at a time.
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
