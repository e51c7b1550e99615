//! The state that all connections of a server share, and the phase of its life.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{answers::overloaded, handed};
use crate::{
    host::Host,
    model::{Fault, limits},
};

/// The phase of a server's life. Once the sender is gone, the server has no connections any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Open,
    /// It accepts no connections and begins no calls.
    Closing,
    /// The time for running calls is over, and they end.
    Over,
}

/// The state that all connections of a server share.
pub struct Server {
    pub(super) host: Host,
    /// From [`Phase::Closing`] on no call begins.
    pub(super) closing: watch::Receiver<Phase>,
    pub(super) calls: Arc<Semaphore>,
    /// Memory for large bodies, in KiB.
    pub(super) bodies: Arc<Semaphore>,
    pub(super) leaving: handed::Leaving,
}

impl Server {
    pub fn new(host: Host, closing: watch::Receiver<Phase>) -> Server {
        let calls = Arc::new(Semaphore::new(limits::SERVE_CALLS_MAX));
        Server { host, closing, calls, bodies: Arc::new(Semaphore::new(limits::SERVE_BODIES_BYTES_MAX >> 10)), leaving: Default::default() }
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.closing.borrow() >= Phase::Closing
    }

    /// A permit for one more call, given back on drop.
    ///
    /// Errors: `shutting_down`, `overloaded`.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Fault> {
        if self.is_closing() {
            return Err(begins_no_call());
        }
        let full = |_| overloaded(format!("{} calls are under way, the most that run at once", limits::SERVE_CALLS_MAX));
        self.calls.clone().try_acquire_owned().map_err(full)
    }
}

pub(super) fn begins_no_call() -> Fault {
    Fault::ending("server", "begins no call any more")
}
