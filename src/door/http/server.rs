//! What all connections of a server share, and how far it is in its life.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{answers::overloaded, handed};
use crate::{
    host::Host,
    model::{Code, Fault, limits},
};

/// How far a server is in its life. One whose sender is gone has no connections any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Open,
    /// It takes no connections and begins no calls.
    Closing,
    /// Calls that still run had their time, and end.
    Over,
}

/// What all connections of a server share.
pub struct Server {
    pub(super) host: Host,
    /// From [`Phase::Closing`] on no call is begun any more.
    pub(super) closing: watch::Receiver<Phase>,
    pub(super) calls: Arc<Semaphore>,
    /// Room for large bodies, in KiB.
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

    /// Room for one more call, given back on drop.
    ///
    /// Errors: `shutting_down`, `overloaded`.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Fault> {
        if self.is_closing() {
            return Err(shutting_down("the server is ending and begins no call any more"));
        }
        let full = |_| overloaded(format!("{} calls are under way, the most that run at once", limits::SERVE_CALLS_MAX));
        self.calls.clone().try_acquire_owned().map_err(full)
    }
}

pub(super) fn shutting_down(message: &str) -> Fault {
    Fault::new(Code::ShuttingDown, message).hint("call again when it was started anew")
}
