//! Asks: what a caller sends and holds, and what the pool keeps of it until its last reply.

use sha2::Digest as _;
use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use crate::{
    model::{self, Blob, Fault, Priority, limits::CHUNK_CREDIT},
    pod::{
        pool::{
            PoolShared,
            poison::Tally,
            schedule::{Ticket, Waiting},
        },
        stream::{Inlet, Outlet},
        wire::messages::Payload,
    },
};

/// One piece of work for a pod.
#[derive(Debug, Clone)]
pub struct Request {
    pub operation: Arc<model::Operation>,
    /// JSON text.
    pub input: String,
    /// The cost that counts against the bound of a batch.
    pub cost: u64,
    pub blobs: Vec<Blob>,
    pub deadline: Instant,
    pub priority: Priority,
    /// Receives progress, which does not go through the reply.
    pub events: model::events::Sender,
}

/// The replies to a request, in order: any number of chunks, then one of the others.
#[derive(Debug)]
pub enum Reply {
    Chunk(Payload),
    Answer(Payload),
    Fault(Fault),
}

/// A request in the queue or in hand.
pub(in crate::pod) struct Pending {
    pub request: Request,
    /// `None` for operations that give no chunks.
    pub chunks: Option<Outlet>,
    pub end: oneshot::Sender<Reply>,
    /// How often its pod ended while the pod worked only on this ask.
    pub tally: Tally,
    /// How often it was begun.
    pub begun: u32,
    /// Whether its last pod began it, even if that does not count as a try.
    pub ran: bool,
    /// Whether the recipe's lever was lowered for it.
    pub lowered: bool,
    /// Whether its caller has a chunk of its result: then it cannot run again.
    pub gave: bool,
}

impl Pending {
    /// Sends the last reply.
    pub fn finish(self, reply: Reply) {
        drop(self.chunks);
        let _ = self.end.send(reply);
    }
}

/// A request with everything needed to put it back into the queue.
pub(in crate::pod) struct TicketedAsk {
    pub ticket: Ticket,
    pub waiting: Waiting,
    pub pending: Pending,
}

/// A request in progress. Dropping it cancels the work down to the worker.
pub struct Ask {
    pool: Arc<PoolShared>,
    ticket: Ticket,
    chunks: Option<Inlet>,
    end: oneshot::Receiver<Reply>,
    is_over: bool,
    /// Weight of the chunks taken since the pod was last told.
    taken: u32,
}

impl Ask {
    pub(super) fn new(pool: Arc<PoolShared>, ticket: Ticket, chunks: Option<Inlet>, end: oneshot::Receiver<Reply>) -> Ask {
        Ask { pool, ticket, chunks, end, is_over: false, taken: 0 }
    }

    /// The next reply; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Reply> {
        if let Some(chunks) = &mut self.chunks {
            match chunks.take().await {
                Ok(Some((payload, weight))) => {
                    self.taken += weight;
                    if self.taken >= CHUNK_CREDIT / 2 {
                        self.pool.credit(self.ticket, std::mem::take(&mut self.taken));
                    }
                    return Some(Reply::Chunk(payload));
                }
                // A stream with a gap is useless: the work is cancelled as if the caller had gone.
                Err(fault) => {
                    self.chunks = None;
                    self.leave();
                    return Some(Reply::Fault(fault));
                }
                Ok(None) => {}
            }
            // The driver drops its end of the stream before it sends the last reply.
            self.chunks = None;
        }
        if self.is_over {
            return None;
        }
        let reply = (&mut self.end).await.ok();
        self.is_over = true;
        reply
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            // First, so that the ask is not put back meanwhile for a caller that is gone.
            self.end.close();
            self.pool.withdraw(self.ticket);
        }
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The digest by which two requests are the same input of the same recipe.
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
            // The bytes are not read for this: there may be gigabytes.
            Some(store) => store.mark().iter().for_each(|part| hasher.update(part.to_le_bytes())),
        }
    }
    hasher.finalize().into()
}
