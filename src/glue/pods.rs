//! The interface through which glue uses pods, which the host implements: an ask and its events.

use crate::model::{Blob, Document, Fault};
use std::future::Future;
use std::pin::Pin;

/// A future behind a pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The pods of one recipe, as its glue sees them.
pub trait Pods: Send + Sync {
    /// Starts an ask and returns once it was sent. The recipe's manifest declares `operation`.
    fn start<'a>(&'a self, operation: &'a str, arguments: Document, blobs: Vec<Blob>) -> BoxFuture<'a, Result<Box<dyn Ask>, Fault>>;
}

/// A running ask; dropping it cancels the work, down to the worker.
pub trait Ask: Send {
    /// The next event; `None` after the answer. The work continues between two calls, so several asks can
    /// wait side by side.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<AskEvent>, Fault>>;
}

/// An event of an ask.
#[derive(Debug, Clone, PartialEq)]
pub enum AskEvent {
    /// A part of a streaming operation's result.
    Chunk { data: Document, blobs: Vec<Blob> },
    /// The whole result, or the end of a stream.
    Answer { data: Document, blobs: Vec<Blob> },
}

/// Counts of a run's crossings between host and guest.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Crossings {
    /// Calls from host to guest, without those that only allocate for arguments.
    pub wasm_entries: u64,
    /// Calls from guest to host, including dropped handles.
    pub host_calls: u64,
    /// Asks sent to the pod.
    pub asks: u64,
    /// Chunks sent to the caller.
    pub chunks: u64,
    /// Log lines kept.
    pub log_lines: u64,
    /// Log lines above the bound, or dropped because the caller was too slow.
    pub log_lines_dropped: u64,
}
