//! The driver's bookkeeping: the asks that its pod has in hand, since when they are silent, and the lanes
//! that still hold unread data.
//!
//! These are only the types; the rest of the driver acts on them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{
    disk::threads::Work,
    model::{Code, Fault, Operation, Priority},
    pod::{
        driver::{
            regions::{BlobPlan, New},
            state::AskId,
        },
        pool::{ask::TicketedAsk, schedule::Ticket, state::Report},
        wire::messages::Payload,
    },
};

/// One of the two lanes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Which {
    Control,
    Data,
}

/// A set of lanes.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    control: bool,
    data: bool,
}

impl Unfinished {
    pub fn any(&self) -> bool {
        self.control || self.data
    }
    pub fn add(&mut self, which: Which) {
        match which {
            Which::Control => self.control = true,
            Which::Data => self.data = true,
        }
    }
    pub fn take(&mut self) -> impl Iterator<Item = Which> + use<> {
        let Unfinished { control, data } = std::mem::take(self);
        [(control, Which::Control), (data, Which::Data)].into_iter().filter_map(|(is_in, which)| is_in.then_some(which))
    }
}

/// The asks that the pod has in hand, and the report about them to the pool.
pub(super) struct InFlight {
    pub next_ask: AskId,
    pub asks: BTreeMap<AskId, SentAsk>,
    /// By the number of their first ask.
    pub units: BTreeMap<AskId, Running>,
    /// Units that are to be sent, in order: a unit whose blobs are being copied delays those behind it.
    pub outgoing: VecDeque<Outgoing>,
    /// The report that the pool gets at the next turn.
    pub report: Report,
    /// Asks of batches that failed as a whole: they go back to the queue in halves.
    pub returns: Vec<TicketedAsk>,
    /// When a unit last ended.
    pub last_freed: Instant,
}

impl InFlight {
    pub fn new(now: Instant) -> InFlight {
        InFlight {
            next_ask: 1,
            asks: BTreeMap::new(),
            units: BTreeMap::new(),
            outgoing: VecDeque::new(),
            report: Report::default(),
            returns: Vec::new(),
            last_freed: now,
        }
    }

    pub fn ask_of(&self, ticket: Ticket) -> Option<AskId> {
        let of = |sent: &SentAsk| sent.ticketed.as_ref().is_some_and(|ticketed| ticketed.ticket == ticket);
        self.asks.iter().find(|(_, sent)| of(sent)).map(|(ask, _)| *ask)
    }

    /// The highest priority among the asks in hand.
    pub fn best_priority(&self) -> Option<Priority> {
        self.asks.values().filter_map(|sent| sent.ticketed.as_ref()).map(|ticketed| ticketed.pending.request.priority).min()
    }

    /// Restarts the clocks of all asks.
    pub fn heard_all(&mut self, now: Instant) {
        self.asks.values_mut().for_each(|sent| sent.heard = now);
    }
}

/// A message of the pod about an ask, on its way through the state machine to the ask's caller.
pub(super) enum Said {
    /// JSON text.
    Progress(String),
    Chunk(Payload),
    /// `whole_batch`: the batch failed as a whole, and the failing item is not known.
    Answer {
        result: Result<Payload, Fault>,
        whole_batch: bool,
    },
    /// The ask ended or continued, and there is nothing to deliver.
    Nothing,
}

/// An ask that was sent.
pub(super) struct SentAsk {
    /// `None` once its caller has its outcome.
    pub ticketed: Option<TicketedAsk>,
    /// Its unit: the number of the unit's first ask.
    pub unit: AskId,
    /// When it last sent progress or a chunk, or was begun.
    pub heard: Instant,
    /// Weight of the chunks that it sent and its caller has not taken yet.
    pub owed: u32,
    /// Set if the most that may be kept of its chunks is kept while others wait: until when its caller may
    /// take one, and how many it had taken before.
    pub unread: Option<(Instant, u64)>,
}

/// A unit that is to be sent.
pub(super) struct Outgoing {
    pub first: AskId,
    pub plan: BlobPlan,
    /// The copying or lending of its blobs, while it runs.
    pub copying: Option<Work<Result<Vec<New>, Fault>>>,
}

/// Waits for the blobs of the first outgoing unit. Cancel-safe.
pub(super) async fn copied(outgoing: &mut VecDeque<Outgoing>) -> Result<Vec<New>, Fault> {
    match outgoing.front_mut().and_then(|outgoing| outgoing.copying.as_mut()) {
        Some(copying) => copying.await.unwrap_or_else(|| Err(Fault::new(Code::Internal, "copying a blob to a pod ended early"))),
        None => std::future::pending().await,
    }
}

/// A unit that was sent.
pub(super) struct Running {
    pub asks: usize,
    pub operation: Arc<Operation>,
    /// See [`crate::pod::pool::slot::Unit::is_tiny`].
    pub is_tiny: bool,
    pub sent: Instant,
    /// The value of the recipe's out-of-memory fallback (its `lever`) with which it was sent.
    pub fallback: usize,
    /// Until when it may wind up.
    pub grace: Option<Instant>,
    /// The cohorts of its halves, once it failed as a whole.
    pub split: Option<(u64, u64)>,
    pub good: usize,
}
