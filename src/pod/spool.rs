//! The chunks of a stream between its pod and its caller.
//!
//! Apart from `handle.rs`: here is counted what a caller has not taken. While nobody waits for the pod, what it may send is bounded by its credit;
//! when others wait, the driver gives credit in the caller's place ([`Outlet::lend`]), and chunks are kept here, within bounds in bytes.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::wire::Payload;
use crate::model::limits::{CHUNK_KEPT_BYTES, STREAM_KEPT_BYTES_MAX, STREAMS_KEPT_BYTES_MAX};

/// What all streams of this host keep, in bytes.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// Both ends of a stream.
pub(super) fn stream() -> (Outlet, Inlet) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let kept = Arc::new(Kept::default());
    (Outlet { sender, kept: kept.clone() }, Inlet { receiver, kept })
}

/// The driver's end. Never waits: who gives checks the credit.
pub(super) struct Outlet {
    sender: mpsc::UnboundedSender<Payload>,
    kept: Arc<Kept>,
}

/// The caller's end.
pub(super) struct Inlet {
    receiver: mpsc::UnboundedReceiver<Payload>,
    kept: Arc<Kept>,
}

/// What was given and not taken.
#[derive(Default)]
struct Kept(Mutex<Count>);

#[derive(Default)]
struct Count {
    weight: u32,
    /// How much of `weight`, the oldest of it, the pod has credit for already.
    lent: u32,
    bytes: u64,
    /// Chunks that were taken, since the beginning.
    taken: u64,
}

impl Kept {
    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn add(&self, payload: &Payload) {
        let (bytes, mut count) = (bytes(payload), self.count());
        count.weight += payload.weight();
        count.bytes += bytes;
        KEPT.fetch_add(bytes, Ordering::Relaxed);
    }

    /// That one is not kept any more; gives the part of its weight that the pod has no credit for yet.
    fn remove(&self, payload: &Payload) -> u32 {
        let (bytes, weight, mut count) = (bytes(payload), payload.weight(), self.count());
        let lent = weight.min(count.lent);
        count.lent -= lent;
        count.weight -= weight;
        count.bytes -= bytes;
        count.taken += 1;
        KEPT.fetch_sub(bytes, Ordering::Relaxed);
        weight - lent
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(self.count().bytes, Ordering::Relaxed);
    }
}

impl Outlet {
    pub fn give(&self, payload: Payload) {
        self.kept.add(&payload);
        if let Err(mpsc::error::SendError(payload)) = self.sender.send(payload) {
            self.kept.remove(&payload);
        }
    }

    /// Takes what its caller has not taken for taken; gives the weight that the pod is to get credit for.
    pub fn lend(&self) -> u32 {
        let mut count = self.kept.count();
        let weight = count.weight - count.lent;
        count.lent = count.weight;
        weight
    }

    /// Whether so much is kept that no more is to be lent: of this stream, or of all.
    pub fn is_full(&self) -> bool {
        self.kept.count().bytes > STREAM_KEPT_BYTES_MAX || KEPT.load(Ordering::Relaxed) > STREAMS_KEPT_BYTES_MAX
    }

    /// How many chunks its caller took.
    pub fn taken(&self) -> u64 {
        self.kept.count().taken
    }
}

impl Inlet {
    /// The next chunk, and the weight that its pod has no credit for yet. Cancel-safe.
    pub async fn take(&mut self) -> Option<(Payload, u32)> {
        let payload = self.receiver.recv().await?;
        let weight = self.kept.remove(&payload);
        Some((payload, weight))
    }
}

fn bytes(payload: &Payload) -> u64 {
    let blobs = payload.blobs.iter().map(|blob| blob.size().saturating_add(CHUNK_KEPT_BYTES));
    blobs.fold(payload.json.len() as u64 + CHUNK_KEPT_BYTES, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: usize) -> Payload {
        Payload { json: "x".repeat(bytes), ..Payload::default() }
    }

    #[tokio::test]
    async fn each_unit_of_weight_is_credited_once_and_in_order() {
        let (outlet, mut inlet) = stream();
        (1..=3).for_each(|n| outlet.give(chunk(n)));
        let (first, weight) = inlet.take().await.unwrap();
        assert_eq!((first.json.len(), weight), (1, 1));
        assert_eq!((outlet.lend(), outlet.lend(), outlet.taken()), (2, 0, 1), "what was taken is its caller's to tell");
        outlet.give(chunk(4));
        for (bytes, credit) in [(2, 0), (3, 0), (4, 1)] {
            let (payload, weight) = inlet.take().await.unwrap();
            assert_eq!((payload.json.len(), weight), (bytes, credit));
        }
        drop(outlet);
        assert!(inlet.take().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_is_full_by_its_bytes_until_they_are_taken() {
        let (outlet, mut inlet) = stream();
        outlet.give(chunk(STREAM_KEPT_BYTES_MAX as usize));
        assert!(outlet.is_full());
        inlet.take().await.unwrap();
        assert!(!outlet.is_full());
        drop(inlet);
        outlet.give(chunk(STREAM_KEPT_BYTES_MAX as usize));
        assert!(!outlet.is_full(), "nobody is there to keep it for");
    }
}
