//! Use of a recipe's pod by one call, returned on drop.
//!
//! Apart from `run.rs` because it is where the two blind siblings meet: `glue` asks through its trait
//! `Pods`, and this answers with `pod`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::mpsc, time::Instant};

use super::{Inner, entry::Entry};
use crate::{
    glue::{self, BoxFuture},
    model::{Blame, Blob, Code, Document, Event, Fault, Operation},
    pod::{self, Reply, Request},
};

/// One call's way to the pod of its recipe.
pub struct Leased {
    host: Arc<Inner>,
    entry: Arc<Entry>,
    events: mpsc::Sender<Event>,
    deadline: Instant,
    frames: Arc<Frames>,
}

/// Frames that crossed for one call.
#[derive(Debug, Default)]
pub struct Frames {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

impl Leased {
    pub fn new(host: Arc<Inner>, entry: Arc<Entry>, events: mpsc::Sender<Event>, deadline: Instant) -> Leased {
        Leased { host, entry, events, deadline, frames: Arc::default() }
    }

    /// Asks sent and replies received so far.
    pub fn crossings(&self) -> (u64, u64) {
        (self.frames.sent.load(Ordering::Relaxed), self.frames.received.load(Ordering::Relaxed))
    }

    /// Sends one ask to the recipe's pod, starting one if there is none.
    pub async fn send(&self, operation: &Arc<Operation>, input: String, blobs: Vec<Blob>) -> Result<Asked, Fault> {
        let pod = self.entry.start_pod(&self.host).await?;
        let pod = pod.ok_or_else(|| {
            let name = &self.entry.recipe().manifest().name;
            Fault::new(Code::InvalidRecipe, format!("`{name}` has no pod to ask: its manifest has no `[pod]`"))
        })?;
        let request = Request { operation: operation.clone(), input, blobs, deadline: self.deadline, events: self.events.clone() };
        let again = Again { pod: pod.clone(), host: self.host.clone(), entry: self.entry.clone() };
        let ask = pod.ask(request)?;
        self.frames.sent.fetch_add(1, Ordering::Relaxed);
        Ok(Asked { ask, again: Some(again), frames: self.frames.clone(), operation: operation.name.clone() })
    }
}

/// What it takes to send an ask once more.
struct Again {
    pod: pod::Pod,
    host: Arc<Inner>,
    entry: Arc<Entry>,
}

/// An ask under way.
pub struct Asked {
    ask: pod::Ask,
    again: Option<Again>,
    frames: Arc<Frames>,
    operation: String,
}

impl Asked {
    /// The next chunk, or the answer. Not to be called after the answer.
    pub async fn next(&mut self) -> Result<glue::AskEvent, Fault> {
        loop {
            let reply = self.ask.next().await;
            if !matches!(reply, None | Some(Reply::Unstarted { .. })) {
                self.frames.received.fetch_add(1, Ordering::Relaxed);
            }
            let what = format!("answer of `{}`", self.operation);
            match reply {
                Some(Reply::Chunk(payload)) => {
                    let (data, blobs) = document(payload, &what)?;
                    return Ok(glue::AskEvent::Chunk { data, blobs });
                }
                Some(Reply::Answer(payload)) => {
                    let (data, blobs) = document(payload, &what)?;
                    return Ok(glue::AskEvent::Answer { data, blobs });
                }
                Some(Reply::Fault(fault)) => return Err(fault),
                // The pod died before it saw this ask: nothing ran, so another pod may take it, once.
                Some(Reply::Unstarted { fault, request }) => match self.again.take() {
                    Some(again) if again.pod.was_ready() => {
                        let pod = again.entry.start_pod(&again.host).await?.ok_or(fault)?;
                        self.ask = pod.ask(*request)?;
                    }
                    _ => return Err(fault),
                },
                None => return Err(Fault::new(Code::Internal, "an ask ended without an answer")),
            }
        }
    }
}

impl glue::Ask for Asked {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<glue::AskEvent>, Fault>> {
        Box::pin(async move { Asked::next(self).await.map(Some) })
    }
}

impl glue::Pods for Leased {
    fn start<'a>(&'a self, operation: &'a str, arguments: Document, blobs: Vec<Blob>) -> BoxFuture<'a, Result<Box<dyn glue::Ask>, Fault>> {
        Box::pin(async move {
            let operation = self.entry.recipe().manifest().operation(operation)?.clone();
            let asked = self.send(&operation, arguments.text().to_owned(), blobs).await?;
            Ok(Box::new(asked) as Box<dyn glue::Ask>)
        })
    }
}

/// A pod's payload as the glue layer's event.
fn document(payload: pod::Payload, what: &str) -> Result<(Document, Vec<Blob>), Fault> {
    let document = Document::parse(payload.json, what).map_err(|fault| fault.blame(Blame::Recipe))?;
    Ok((document, payload.blobs))
}
