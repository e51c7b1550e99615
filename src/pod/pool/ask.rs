//! What callers hold of an ask, and what a pod's driver shows of its pod.
//!
//! Apart from `mod.rs`, which decides, and `driver/`, which owns the pod: everything here only carries between the two and the outside.

use sha2::Digest as _;
use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use crate::{
    model::{self, Blob, Fault, Priority},
    pod::{
        pool::{
            poison::Tally,
            schedule::{Ticket, Waiting},
        },
        stream::Outlet,
        wire::messages::Payload,
    },
};

/// One piece of work for a pod.
#[derive(Debug, Clone)]
pub struct Request {
    pub operation: Arc<model::Operation>,
    /// JSON text.
    pub input: String,
    /// What it counts in a batch.
    pub cost: u64,
    pub blobs: Vec<Blob>,
    pub deadline: Instant,
    pub priority: Priority,
    /// Where progress goes: past whoever waits for the answer.
    pub events: model::events::Sender,
}

/// What comes back for a request, in order: any number of chunks, then one of the others.
#[derive(Debug)]
pub enum Reply {
    Chunk(Payload),
    Answer(Payload),
    Fault(Fault),
}

/// A request in the queue or in hand.
pub(in crate::pod) struct Pending {
    pub request: Request,
    /// None for operations that give no chunks.
    pub chunks: Option<Outlet>,
    pub end: oneshot::Sender<Reply>,
    /// How often its pod ended while it alone was at work there.
    pub tally: Tally,
    /// How often it was begun.
    pub begun: u32,
    /// Begun by the pod that had it last, also where that does not count as a try of its own.
    pub ran: bool,
    /// The recipe's lever was lowered for it.
    pub lowered: bool,
    /// Its caller has a chunk of its result: from then on it cannot be run again.
    pub gave: bool,
}

impl Pending {
    /// Its last reply.
    pub fn finish(self, reply: Reply) {
        drop(self.chunks);
        let _ = self.end.send(reply);
    }
}

/// A request with all that it takes to put it back into the queue.
pub(in crate::pod) struct TicketedAsk {
    pub ticket: Ticket,
    pub waiting: Waiting,
    pub pending: Pending,
}

/// What makes two requests the same input of the same recipe.
pub(in crate::pod) fn digest(request: &Request) -> [u8; 32] {
    let mut hasher = sha2::Sha256::new();
    for part in [request.operation.name.as_bytes(), request.input.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    for blob in &request.blobs {
        hasher.update(blob.size().to_le_bytes());
        match blob.store() {
            None => hasher.update(blob.in_memory().map_or(&[][..], |bytes| &bytes[..])),
            // Not read for this: it may be gigabytes.
            Some(store) => store.mark().iter().for_each(|part| hasher.update(part.to_le_bytes())),
        }
    }
    hasher.finalize().into()
}
