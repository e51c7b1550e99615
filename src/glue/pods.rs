//! What glue needs of pods, which the host implements: an ask and what comes of it.

use crate::model::{Blob, Document, Fault};
use std::future::Future;
use std::pin::Pin;

/// A future behind a pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The pods of one recipe, as its glue sees them.
pub trait Pods: Send + Sync {
    /// Starts an ask and returns as soon as it is on its way. `operation` is one that the recipe's manifest
    /// declares.
    fn start<'a>(&'a self, operation: &'a str, arguments: Document, blobs: Vec<Blob>) -> BoxFuture<'a, Result<Box<dyn Ask>, Fault>>;
}

/// One ask under way; dropping it cancels the work down to the worker.
pub trait Ask: Send {
    /// The next event; `None` after the answer. The work goes on between two calls, so that several asks wait
    /// side by side.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<AskEvent>, Fault>>;
}

/// What an ask gives.
#[derive(Debug, Clone, PartialEq)]
pub enum AskEvent {
    /// A part of a streaming operation's result.
    Chunk { data: Document, blobs: Vec<Blob> },
    /// The whole, or the end of a stream.
    Answer { data: Document, blobs: Vec<Blob> },
}

/// How often a run crossed from one side to the other.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Crossings {
    /// Host into guest, without the calls that only allocate for arguments.
    pub wasm_entries: u64,
    /// Guest into host, dropped handles included.
    pub host_calls: u64,
    /// Asks that went to the pod.
    pub asks: u64,
    /// Chunks that went to the caller.
    pub chunks: u64,
    /// Log lines kept.
    pub log_lines: u64,
    /// Log lines above the bound, or that the caller was too slow for.
    pub log_lines_dropped: u64,
}
