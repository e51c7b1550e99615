//! The life of a host: since when it runs, and whether it still takes work.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::model::Fault;

/// The life of one host: open, closing (takes no more calls), ending (running work is told to stop).
pub struct Lifecycle {
    opened: Instant,
    closing: AtomicBool,
    ending: CancellationToken,
}

impl Lifecycle {
    pub fn begin() -> Lifecycle {
        Lifecycle { opened: Instant::now(), closing: AtomicBool::new(false), ending: CancellationToken::new() }
    }

    pub fn up(&self) -> Duration {
        self.opened.elapsed()
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Refuses new work once the host closes. `what` is the text of the refusal, such as
    /// `takes no more calls`.
    ///
    /// Errors: `shutting_down`.
    pub fn check_open(&self, what: &str) -> Result<(), Fault> {
        if self.is_closing() { Err(Fault::ending("host", what)) } else { Ok(()) }
    }

    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub fn end(&self) {
        self.ending.cancel();
    }

    /// Resolves when running work is to stop.
    pub fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.ending.cancelled()
    }
}
