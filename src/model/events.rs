//! The channel that carries a call's events to its caller, bounded in number and in bytes.
//!
//! - Waiting events are kept as JSON text and become values when they are taken, because a value may take a
//!   hundred times the memory of its text.
//! - Chunks wait for room, and hold back their sender.
//! - Log lines and notes are dropped if there is no room.
//! - The latest progress is always kept; if there is no room for two, it replaces the one before.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Blob, Document, Event, limits::CALL_EVENTS_MAX};

/// The caller is gone, or takes no more events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// A new channel, on which events of that many bytes may wait together, and [`CALL_EVENTS_MAX`] of them.
pub fn channel(bytes_max: usize) -> (Sender, Receiver) {
    let bytes_max = u32::try_from(bytes_max.max(1)).unwrap_or(u32::MAX);
    let state = State { senders: 1, ..State::default() };
    let way = Arc::new(Way { bytes_max, room: Arc::new(Semaphore::new(bytes_max as usize)), state: Mutex::new(state) });
    (Sender(way.clone()), Receiver(way))
}

/// The sending end. Cloning makes another.
#[derive(Debug)]
pub struct Sender(Arc<Way>);

/// The receiving end.
#[derive(Debug)]
pub struct Receiver(Arc<Way>);

#[derive(Debug)]
struct Way {
    bytes_max: u32,
    /// The free part of those bytes.
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Waiting>,
    senders: usize,
    closed: bool,
    waker: Option<Waker>,
}

/// An event, and its share of the room; only the latest progress may have no share.
#[derive(Debug)]
struct Waiting {
    what: What,
    room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum What {
    Progress(String),
    Note(Value),
    Chunk(Document, Vec<Blob>),
    Log { level: String, message: String },
    Printed(String),
}

impl Way {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The share of an event of that many bytes. The smallest share is such that [`CALL_EVENTS_MAX`] of them
    /// fit.
    fn share(&self, bytes: u64) -> u32 {
        let least = (self.bytes_max / CALL_EVENTS_MAX as u32).max(1);
        u32::try_from(bytes).unwrap_or(u32::MAX).clamp(least, self.bytes_max)
    }

    fn room_now(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_many_owned(self.share(bytes as u64)).ok()
    }

    fn push(&self, waiting: Waiting) -> Result<(), Gone> {
        let mut state = self.state();
        if state.closed {
            return Err(Gone);
        }
        if waiting.room.is_none() {
            state.queue.retain(|waiting| waiting.room.is_some());
        }
        state.queue.push_back(waiting);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl Sender {
    /// Sends a progress report, as JSON. Never waits: without room it replaces the last report that was not
    /// taken.
    pub fn progress(&self, json: String) {
        let room = self.0.room_now(json.len());
        let _ = self.0.push(Waiting { what: What::Progress(json), room });
    }

    /// Sends an event that looks like progress, and is not from a pod. Dropped if there is no room.
    pub fn note(&self, data: Value) {
        if let Some(room) = self.0.room_now(0) {
            let _ = self.0.push(Waiting { what: What::Note(data), room: Some(room) });
        }
    }

    /// Sends a part of a result, and waits for room. Cancel-safe.
    ///
    /// Errors: nobody receives any more.
    pub async fn chunk(&self, data: Document, blobs: Vec<Blob>) -> Result<(), Gone> {
        // Blobs count wherever they are: those in a pod's regions block the regions, of which a pod has few.
        let bytes = blobs.iter().map(Blob::size).fold(data.text().len() as u64, u64::saturating_add);
        let share = self.0.share(bytes);
        let room = self.0.room.clone().acquire_many_owned(share).await.map_err(|_| Gone)?;
        self.0.push(Waiting { what: What::Chunk(data, blobs), room: Some(room) })
    }

    /// Sends a printed line; returns whether there was room.
    pub fn printed(&self, text: String) -> bool {
        let Some(room) = self.0.room_now(text.len()) else { return false };
        self.0.push(Waiting { what: What::Printed(text), room: Some(room) }).is_ok()
    }

    /// A number that distinguishes this call from all other current calls.
    pub fn call(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Sends a log line; returns whether there was room.
    pub fn log(&self, level: String, message: String) -> bool {
        let Some(room) = self.0.room_now(level.len() + message.len()) else { return false };
        self.0.push(Waiting { what: What::Log { level, message }, room: Some(room) }).is_ok()
    }
}

impl Clone for Sender {
    fn clone(&self) -> Sender {
        self.0.state().senders += 1;
        Sender(self.0.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.senders -= 1;
        let waker = if state.senders == 0 { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Receiver {
    /// The next event; `None` once no sender is left, or after [`Receiver::close`], when all were taken.
    pub async fn recv(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// See [`Receiver::recv`].
    pub fn poll_recv(&mut self, context: &mut Context) -> Poll<Option<Event>> {
        let mut state = self.0.state();
        match state.queue.pop_front() {
            Some(waiting) => {
                drop(state);
                Poll::Ready(Some(waiting.taken()))
            }
            None if state.closed || state.senders == 0 => Poll::Ready(None),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Accepts no more events; those on the way can still be taken.
    pub fn close(&mut self) {
        self.0.room.close();
        self.0.state().closed = true;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.close();
        // Outside the lock: dropping a blob may notify its pod.
        let left = std::mem::take(&mut self.0.state().queue);
        drop(left);
    }
}

impl Waiting {
    fn taken(self) -> Event {
        match self.what {
            // The text was checked when it came.
            What::Progress(json) => Event::Progress { data: serde_json::from_str(&json).unwrap_or_default() },
            What::Note(data) => Event::Progress { data },
            What::Chunk(data, blobs) => Event::Chunk { data, blobs },
            What::Log { level, message } => Event::Log { level, message },
            What::Printed(text) => Event::Printed { text },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::timeout;

    use super::*;

    fn document(bytes: usize) -> Document {
        Document::from(json!("x".repeat(bytes)))
    }

    async fn finds_no_room(sender: &Sender, data: Document) -> bool {
        timeout(Duration::from_millis(20), sender.chunk(data, vec![])).await.is_err()
    }

    #[tokio::test]
    async fn a_deaf_caller_is_kept_so_many_bytes_and_the_latest_progress() {
        let (sender, mut receiver) = channel(64 << 10);
        for _ in 0..3 {
            sender.chunk(document(20 << 10), vec![]).await.unwrap();
        }
        assert!(finds_no_room(&sender, document(20 << 10)).await && !sender.log("info".into(), "x".repeat(8 << 10)));
        // Many reports, each as large as allowed: the last one arrives, after the events before it.
        (0..1_000).for_each(|n| sender.progress(json!({ "n": n, "pad": "x".repeat(60 << 10) }).to_string()));
        let waiting: usize = receiver.0.state().queue.len();
        assert_eq!(waiting, 4);
        for _ in 0..3 {
            assert!(matches!(receiver.recv().await, Some(Event::Chunk { .. })));
        }
        let Some(Event::Progress { data }) = receiver.recv().await else { panic!() };
        assert_eq!(data["n"], 999);
        // One that is larger than all of the room has it for itself.
        sender.chunk(document(100 << 10), vec![]).await.unwrap();
        assert!(finds_no_room(&sender, document(1)).await);
        receiver.recv().await.unwrap();
        sender.chunk(document(1), vec![]).await.unwrap();
        drop(receiver);
        assert_eq!(sender.chunk(document(1), vec![]).await, Err(Gone));
    }

    #[tokio::test]
    async fn small_ones_are_bounded_in_number_and_keep_their_order() {
        let (sender, mut receiver) = channel(64 << 10);
        let mut sent = 0;
        while timeout(Duration::from_millis(20), sender.chunk(document(0), vec![])).await.is_ok() {
            sent += 1;
        }
        assert_eq!(sent, CALL_EVENTS_MAX);
        let second = sender.clone();
        let waits = tokio::spawn(async move { second.chunk(Document::from(json!("last")), vec![]).await });
        drop(sender);
        let mut taken = Vec::new();
        while let Some(event) = receiver.recv().await {
            taken.push(event);
        }
        assert_eq!(waits.await.unwrap(), Ok(()));
        assert_eq!((taken.len(), taken.last()), (sent + 1, Some(&Event::Chunk { data: json!("last").into(), blobs: vec![] })));
    }

    #[test]
    fn what_was_on_the_way_at_the_end_can_be_taken() {
        let (sender, mut receiver) = channel(1 << 20);
        assert!(sender.log("info".into(), "one".into()));
        receiver.close();
        assert!(!sender.log("info".into(), "two".into()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(receiver.poll_recv(&mut context), Poll::Ready(Some(Event::Log { .. }))));
        assert!(matches!(receiver.poll_recv(&mut context), Poll::Ready(None)));
    }
}
