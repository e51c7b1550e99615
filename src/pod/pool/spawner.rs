//! The source of a pool's pods.

use crate::{
    model::Fault,
    pod::pool::{slot::Slot, watcher::Watcher},
};

/// A future behind a pointer.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes pods. The host implements it over its shelf and this machine's processes.
pub trait Spawner: Send + Sync {
    /// Prepares what a pod needs, and spawns one for that slot of the pool.
    fn spawn(&self, slot: Slot) -> BoxFuture<'_, Result<Watcher, Fault>>;

    /// The session that the pool serves exclusively, if any.
    fn session(&self) -> Option<String> {
        None
    }
}
