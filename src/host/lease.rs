//! Use of a recipe's pods by one call, given back on drop.
//!
//! Here `glue` and `pod`, which do not know each other, meet: `glue` asks through its trait `Pods`, and
//! `Leased` implements it with `pod`.

use crate::glue::pods;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

use super::{call_context::CallContext, entry::Entry, sessions::SessionSlot};
use crate::{
    glue::pods::BoxFuture,
    model::{Admitted, Blob, Code, Document, Fault, Operation, Priority, events},
    pod::{self, Pool, Reply, Request},
    shelf::reading,
};

/// One call's access to the pods of its recipe.
pub struct Leased {
    in_session: bool,
    entry: Arc<Entry>,
    pool: Option<Pool>,
    events: events::Sender,
    deadline: Instant,
    priority: Priority,
    frames: Arc<Frames>,
}

/// Counts of the frames that one call sent and received.
#[derive(Debug, Default)]
pub struct Frames {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

impl Leased {
    pub fn new(context: &CallContext, call: &Admitted, session: Option<&SessionSlot>) -> Leased {
        let CallContext { host, entry, events, deadline, .. } = context;
        let pool = match session {
            Some(session) => Some(session.pool().clone()),
            None if call.is_one_shot() => entry.one_shot(host),
            None => entry.pool(host).cloned(),
        };
        Leased {
            in_session: session.is_some(),
            entry: Arc::clone(entry),
            pool,
            events: events.clone(),
            deadline: *deadline,
            priority: call.priority(),
            frames: Arc::default(),
        }
    }

    /// Starts a pod if there is none, so that the pod starts while other things are made ready.
    pub fn warm(&self) {
        if let Some(pool) = &self.pool {
            pool.warm();
        }
    }

    /// Asks sent and replies received so far.
    pub fn crossings(&self) -> (u64, u64) {
        (self.frames.sent.load(Ordering::Relaxed), self.frames.received.load(Ordering::Relaxed))
    }

    /// Sends one ask to the recipe's pods, where it waits until a pod is free.
    pub async fn send(&self, operation: &Arc<Operation>, input: &Document, blobs: Vec<Blob>) -> Result<Asked, Fault> {
        let pool = self.pool.as_ref().ok_or_else(|| {
            let name = &self.entry.recipe().manifest().name;
            Fault::new(Code::InvalidRecipe, format!("`{name}` has no pod to ask: its manifest has no `[pod]`"))
        })?;
        if !self.in_session {
            // Admission checked only the operation of the call; glue may ask for another one.
            operation.check_is_free(&self.entry.recipe().manifest().name)?;
        }
        let cost = match operation.batch.as_ref().and_then(|batch| batch.cost.clone()) {
            Some(cost) => {
                let input = input.clone();
                reading(input.text().len(), move || Ok(cost.cost(&input.looked_at()))).await?
            }
            None => 1,
        };
        let ask = pool.ask(Request {
            operation: operation.clone(),
            input: input.text().to_owned(),
            cost,
            blobs,
            deadline: self.deadline,
            priority: self.priority,
            events: self.events.clone(),
        })?;
        self.frames.sent.fetch_add(1, Ordering::Relaxed);
        Ok(Asked { ask, frames: self.frames.clone(), operation: operation.clone() })
    }
}

/// A running ask.
pub struct Asked {
    ask: pod::Ask,
    frames: Arc<Frames>,
    operation: Arc<Operation>,
}

impl Asked {
    /// The next chunk, or the answer, which `read` turns into a document. Must not be called after the
    /// answer.
    pub async fn next(&mut self, read: fn(String, &str) -> Result<Document, Fault>) -> Result<pods::AskEvent, Fault> {
        let Some(reply) = self.ask.next().await else {
            return Err(Fault::new(Code::Internal, "an ask ended without an answer"));
        };
        self.frames.received.fetch_add(1, Ordering::Relaxed);
        let what = || format!("answer of `{}`", self.operation.name);
        match reply {
            Reply::Chunk(payload) => {
                // Glue and callers take the text of a chunk.
                let (data, blobs) = document(payload, what(), Document::unread).await?;
                Ok(pods::AskEvent::Chunk { data, blobs })
            }
            Reply::Answer(payload) => {
                let (data, blobs) = document(payload, what(), read).await?;
                Ok(pods::AskEvent::Answer { data, blobs })
            }
            Reply::Fault(fault) => Err(fault),
        }
    }
}

impl pods::Ask for Asked {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<pods::AskEvent>, Fault>> {
        Box::pin(async move { Asked::next(self, Document::unread).await.map(Some) })
    }
}

impl pods::Pods for Leased {
    fn start<'a>(&'a self, operation: &'a str, arguments: Document, blobs: Vec<Blob>) -> BoxFuture<'a, Result<Box<dyn pods::Ask>, Fault>> {
        Box::pin(async move {
            let operation = self.entry.recipe().manifest().operation(operation)?.clone();
            let asked = self.send(&operation, &arguments, blobs).await?;
            Ok(Box::new(asked) as Box<dyn pods::Ask>)
        })
    }
}

/// Converts a pod's payload into the glue layer's event.
async fn document(
    payload: pod::Payload,
    what: String,
    read: fn(String, &str) -> Result<Document, Fault>,
) -> Result<(Document, Vec<Blob>), Fault> {
    let pod::Payload { json, blobs, .. } = payload;
    let document = reading(json.len(), move || read(json, &what)).await.map_err(Fault::of_recipe)?;
    Ok((document, blobs))
}
