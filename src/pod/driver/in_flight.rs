//! What a driver keeps count of: what its pod has in hand, since when it says nothing, which lanes still hold
//! something.
//!
//! Apart from `mod.rs`, which acts on it: here are only the words.

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

/// Some of the lanes.
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

/// The asks that the pod has in hand, and what the pool is to hear of them.
pub(super) struct InFlight {
    pub next_ask: AskId,
    pub asks: BTreeMap<AskId, SentAsk>,
    /// By the number of their first ask.
    pub units: BTreeMap<AskId, Running>,
    /// Units that are to be sent, in order: one whose blobs are being copied holds up those behind it.
    pub outgoing: VecDeque<Outgoing>,
    /// What the pool is told at the next turn.
    pub report: Report,
    /// Asks of batches that failed as a whole: they go back in halves.
    pub returns: Vec<TicketedAsk>,
    /// When a unit was over last.
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

    /// What was asked for best, of what is in hand.
    pub fn best_priority(&self) -> Option<Priority> {
        self.asks.values().filter_map(|sent| sent.ticketed.as_ref()).map(|ticketed| ticketed.pending.request.priority).min()
    }

    /// Their clocks begin anew.
    pub fn heard_all(&mut self, now: Instant) {
        self.asks.values_mut().for_each(|sent| sent.heard = now);
    }
}

/// What a pod said of an ask, on its way through the state machine to the ask's caller.
pub(super) enum Said {
    /// JSON text.
    Progress(String),
    Chunk(Payload),
    /// `whole_batch`: it failed as a whole, and which item did is not known.
    Answer {
        result: Result<Payload, Fault>,
        whole_batch: bool,
    },
    /// It is over, or went on, and there is nothing to tell.
    Nothing,
}

/// An ask that was sent.
pub(super) struct SentAsk {
    /// None once its caller has its outcome.
    pub ticketed: Option<TicketedAsk>,
    /// Its unit: the number of the unit's first ask.
    pub unit: AskId,
    /// When it last gave progress or a chunk, or was begun.
    pub heard: Instant,
    /// Weight of the chunks that it sent and its caller has not taken.
    pub owed: u32,
    /// As much as may be is kept of its chunks, and others wait: until when its caller may take one, and how
    /// many it had taken before.
    pub unread: Option<(Instant, u64)>,
}

/// A unit that is to be sent.
pub(super) struct Outgoing {
    pub first: AskId,
    pub plan: BlobPlan,
    /// Its blobs, while they are copied or lent.
    pub copying: Option<Work<Result<Vec<New>, Fault>>>,
}

/// Waits for the blobs of the first of them. Cancel-safe.
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
    /// Which value of the recipe's out-of-memory fallback (its `lever`) it was sent with.
    pub fallback: usize,
    /// Until when it may wind up.
    pub grace: Option<Instant>,
    /// The cohorts of its halves, once it failed as a whole.
    pub split: Option<(u64, u64)>,
    pub good: usize,
}
