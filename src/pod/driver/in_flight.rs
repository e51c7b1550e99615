//! The asks that a pod has in hand: the caller of each, what is known of each unit, and the report about them
//! to the pool.
//!
//! `state.rs` decides which units there are. This file keeps what belongs to them; every other count of asks
//! or units is derived from here.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    disk::threads::Work,
    model::{Code, Fault, Operation, Priority, limits::CHUNK_CREDIT},
    pod::{
        driver::{
            regions::{BlobPlan, New},
            state::AskId,
        },
        pool::{
            ask::{self, Request, TicketedAsk},
            schedule::{Served, Ticket},
            slot::Unit,
            state::Report,
        },
        wire::messages::Payload,
    },
};

/// The asks of one pod, from the queue to their last reply.
pub(super) struct InFlight {
    next_ask: AskId,
    asks: BTreeMap<AskId, SentAsk>,
    /// By the number of their first ask.
    units: BTreeMap<AskId, Running>,
    /// Units that are to be sent, in order: a unit whose blobs are being copied delays those behind it.
    outgoing: VecDeque<Outgoing>,
    /// The report that the pool gets at the next turn.
    report: Report,
    /// Asks that go back to the queue: halves of a batch, or asks that run again with less.
    returns: Vec<TicketedAsk>,
    /// When a unit last ended.
    last_freed: Instant,
}

/// An ask that was sent.
struct SentAsk {
    /// `None` once its caller has its outcome.
    ticketed: Option<TicketedAsk>,
    /// When it last sent progress or a chunk, or was begun.
    heard: Instant,
    /// Weight of the chunks that it sent and its caller has not taken yet.
    owed: u32,
    /// Set if the most that may be kept of its chunks is kept while others wait: until when its caller may
    /// take one, and how many it had taken before.
    unread: Option<(Instant, u64)>,
}

/// A unit that is to be sent.
struct Outgoing {
    first: AskId,
    plan: BlobPlan,
    /// The copying or lending of its blobs, while it runs.
    copying: Option<Work<Result<Vec<New>, Fault>>>,
}

/// A unit that was sent.
struct Running {
    asks: usize,
    operation: Arc<Operation>,
    /// See [`Unit::is_tiny`].
    is_tiny: bool,
    sent: Instant,
    /// The value of the recipe's out-of-memory fallback (its `lever`) with which it was sent.
    fallback: usize,
    /// Until when it may wind up.
    grace: Option<Instant>,
    /// The cohorts of its halves, once it failed as a whole.
    split: Option<(u64, u64)>,
    good: usize,
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

    // Asks.

    /// Number of asks in hand.
    pub fn count(&self) -> usize {
        self.asks.len()
    }

    pub fn ids(&self) -> Vec<AskId> {
        self.asks.keys().copied().collect()
    }

    /// The ask, if its caller still waits.
    pub fn ticketed(&self, ask: AskId) -> Option<&TicketedAsk> {
        self.asks.get(&ask)?.ticketed.as_ref()
    }

    /// The first ask whose caller still waits.
    pub fn first_ticketed(&self) -> Option<&TicketedAsk> {
        self.asks.values().find_map(|sent| sent.ticketed.as_ref())
    }

    pub fn ask_of(&self, ticket: Ticket) -> Option<AskId> {
        let of = |sent: &SentAsk| sent.ticketed.as_ref().is_some_and(|ticketed| ticketed.ticket == ticket);
        self.asks.iter().find(|(_, sent)| of(sent)).map(|(ask, _)| *ask)
    }

    /// The unit of this ask: the number of the unit's first ask.
    pub fn unit_of(&self, ask: AskId) -> Option<AskId> {
        let (unit, running) = self.units.range(..=ask).next_back()?;
        (ask < unit + running.asks as u64).then_some(*unit)
    }

    /// The highest priority among the asks in hand.
    pub fn best_priority(&self) -> Option<Priority> {
        self.asks.values().filter_map(|sent| sent.ticketed.as_ref()).map(|ticketed| ticketed.pending.request.priority).min()
    }

    /// The number of the oldest ask (0: none), and the call that the pod works for, if it works for one ask
    /// alone.
    pub fn at_work(&self, concurrency: usize) -> (AskId, Option<usize>) {
        let mut at_work = self.asks_of_first(concurrency);
        let call = match (at_work.next(), at_work.next()) {
            // One that has its answer, or went away, is still no other's.
            (Some((_, sent)), None) => Some(sent.ticketed.as_ref().map_or(0, |ticketed| ticketed.pending.request.events.call())),
            _ => None,
        };
        (self.asks.first_key_value().map_or(0, |(ask, _)| *ask), call)
    }

    // Units.

    /// Whether no unit is in hand.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Number of units in hand.
    pub fn units(&self) -> usize {
        self.units.len()
    }

    /// The numbers of a unit's asks.
    pub fn asks_of(&self, unit: AskId) -> Option<Range<AskId>> {
        self.units.get(&unit).map(|running| unit..unit + running.asks as u64)
    }

    /// The asks of the first `units` units.
    fn asks_of_first(&self, units: usize) -> impl Iterator<Item = (AskId, &SentAsk)> {
        let end = self.units.iter().take(units).next_back().map_or(0, |(unit, running)| unit + running.asks as u64);
        self.asks.range(..end).map(|(ask, sent)| (*ask, sent))
    }

    pub fn is_batch(&self, unit: AskId) -> bool {
        self.units.get(&unit).is_some_and(|running| running.asks > 1)
    }

    /// The value of the out-of-memory fallback with which a unit was sent.
    pub fn fallback_of(&self, unit: AskId) -> Option<usize> {
        self.units.get(&unit).map(|running| running.fallback)
    }

    /// The asks of a unit whose callers still wait, with their requests.
    pub fn requests(&self, unit: AskId) -> impl Iterator<Item = (AskId, &Request)> {
        let asks = self.asks_of(unit).unwrap_or(0..0);
        self.asks.range(asks).filter_map(|(ask, sent)| Some((*ask, &sent.ticketed.as_ref()?.pending.request)))
    }

    /// The units that the pod has begun, if it has begun all asks up to this number.
    pub fn units_up_to(&self, last: AskId) -> Vec<AskId> {
        self.units.range(..=last).map(|(unit, _)| *unit).collect()
    }

    pub fn are_all_tiny(&self) -> bool {
        self.units.values().all(|running| running.is_tiny)
    }

    pub fn has_streams(&self) -> bool {
        self.units.values().any(|running| running.operation.streaming)
    }

    /// The asks in hand whose callers still wait: each with its unit, its request and how long its unit runs.
    pub fn in_hand(&self) -> impl Iterator<Item = (AskId, &Request, Duration)> {
        let units = self.units.iter();
        units.flat_map(|(unit, running)| self.requests(*unit).map(|(_, request)| (*unit, request, running.sent.elapsed())))
    }

    // Coming and going.

    /// Takes a unit in hand; returns the number of its first ask and how many asks it has. `None` if no
    /// caller of it waits any more.
    pub fn begin(&mut self, unit: Unit, fallback: usize, now: Instant) -> Option<(AskId, usize)> {
        let Unit { asks: mut ticketed, is_tiny } = unit;
        ticketed.retain(|ticketed| {
            let wanted = !ticketed.pending.end.is_closed();
            if !wanted {
                self.report.over.push(ticketed.ticket);
            }
            wanted
        });
        let operation = ticketed.first()?.pending.request.operation.clone();
        let (first, asks) = (self.next_ask, ticketed.len());
        self.next_ask += asks as u64;
        for (ask, mut ticketed) in (first..).zip(ticketed) {
            ticketed.pending.begun += 1;
            ticketed.pending.ran = true;
            self.asks.insert(ask, SentAsk { ticketed: Some(ticketed), heard: now, owed: 0, unread: None });
        }
        self.units.insert(first, Running { asks, operation, is_tiny, sent: now, fallback, grace: None, split: None, good: 0 });
        Some((first, asks))
    }

    /// Removes a unit that is over; returns false if there is none of that number. A unit that was sent ahead
    /// and has its turn now starts its clocks.
    pub fn free(&mut self, unit: AskId, concurrency: usize, now: Instant) -> bool {
        let Some(running) = self.units.remove(&unit) else { return false };
        for ask in unit..unit + running.asks as u64 {
            self.asks.remove(&ask);
        }
        if running.good > 0 {
            // One that was sent ahead began when the one before it was over.
            let service = now - running.sent.max(self.last_freed);
            self.report.served.push(Served { operation: running.operation, service, items: running.asks });
        }
        self.last_freed = now;
        let next = self.units.keys().nth(concurrency - 1);
        if let Some(asks) = next.and_then(|next| self.asks_of(*next)) {
            self.asks.range_mut(asks).for_each(|(_, sent)| sent.heard = now);
        }
        true
    }

    /// Takes an ask away from its number, to put it back into the queue.
    pub fn take(&mut self, ask: AskId) -> Option<TicketedAsk> {
        self.asks.get_mut(&ask)?.ticketed.take()
    }

    /// Takes an ask that gets its last reply now. The report tells the pool that the ask is over.
    pub fn take_over(&mut self, ask: AskId) -> Option<TicketedAsk> {
        let ticketed = self.take(ask)?;
        self.report.over.push(ticketed.ticket);
        Some(ticketed)
    }

    /// The pod is over: takes every ask whose caller still waits, in order. Its units stay known until
    /// [`InFlight::forget_units`].
    pub fn take_all(&mut self) -> Vec<(AskId, TicketedAsk)> {
        std::mem::take(&mut self.asks).into_iter().filter_map(|(ask, sent)| Some((ask, sent.ticketed?))).collect()
    }

    pub fn forget_units(&mut self) {
        self.units.clear();
    }

    /// The cohort of the half to which an ask of a failed batch belongs. `split` makes the two cohorts, once
    /// per unit.
    pub fn cohort_of_half(&mut self, unit: AskId, ask: AskId, split: impl FnOnce() -> (u64, u64)) -> Option<u64> {
        let running = self.units.get_mut(&unit)?;
        let (left, right) = *running.split.get_or_insert_with(split);
        Some(if ((ask - unit) as usize) < running.asks / 2 { left } else { right })
    }

    // The report to the pool.

    pub fn has_report(&self) -> bool {
        !self.report.is_empty()
    }

    /// The report, for the pool to take.
    pub fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Keeps an ask that goes back to the queue at the next turn.
    pub fn put_back(&mut self, ticketed: TicketedAsk) {
        self.returns.push(ticketed);
    }

    pub fn take_returns(&mut self) -> Vec<TicketedAsk> {
        std::mem::take(&mut self.returns)
    }

    /// Counts a result. `has_suspects`: the pool suspects inputs, so that it is told that this one is none.
    pub fn count_result(&mut self, ask: AskId, has_suspects: bool) {
        if let Some(running) = self.unit_of(ask).and_then(|unit| self.units.get_mut(&unit)) {
            running.good += 1;
        }
        self.report.good += 1;
        if has_suspects && let Some(ticketed) = self.ticketed(ask) {
            let digest = ask::digest(&ticketed.pending.request);
            self.report.cleared.push(digest);
        }
    }

    /// Counts a fault. `by_pod`: the pod or the machine is to blame.
    pub fn count_fault(&mut self, by_pod: bool) {
        self.report.failed += u64::from(by_pod);
        // A pod that can say what failed is at work, whoever is to blame.
        self.report.good += u64::from(!by_pod);
    }

    /// Counts an ask that ends with its pod.
    pub fn count_ended(&mut self, ticketed: &TicketedAsk) {
        self.report.over.push(ticketed.ticket);
        self.report.failed += 1;
    }

    // Clocks.

    /// When the first grace, or the first wait for a caller that takes nothing, ends.
    pub fn next_due(&self) -> Option<Instant> {
        let graces = self.units.values().filter_map(|running| running.grace);
        let unread = self.asks.values().filter_map(|sent| sent.unread.map(|(at, _)| at));
        graces.chain(unread).min()
    }

    /// A unit may wind up until then.
    pub fn begin_grace(&mut self, unit: AskId, until: Instant) {
        if let Some(running) = self.units.get_mut(&unit) {
            running.grace = Some(until);
        }
    }

    /// The units whose grace is over; each is returned once.
    pub fn take_graces_over(&mut self, now: Instant) -> Vec<AskId> {
        let over = self.units.iter_mut().filter_map(|(unit, running)| running.grace.take_if(|at| *at <= now).map(|_| *unit));
        over.collect()
    }

    /// When asks of the first `turns` units have stalled. An ask can stall only if it promises progress, and
    /// while it runs.
    pub fn stalls(&self, turns: usize) -> impl Iterator<Item = (AskId, Instant)> {
        self.asks_of_first(turns).filter_map(|(ask, sent)| {
            let interval_ms = sent.ticketed.as_ref()?.pending.request.operation.progress_interval_ms?;
            Some((ask, sent.heard + Duration::from_millis(interval_ms)))
        })
    }

    /// An ask sent progress or a chunk.
    pub fn heard(&mut self, ask: AskId, at: Instant) {
        if let Some(sent) = self.asks.get_mut(&ask) {
            sent.heard = at;
        }
    }

    /// Restarts the clocks of all asks.
    pub fn heard_all(&mut self, now: Instant) {
        self.asks.values_mut().for_each(|sent| sent.heard = now);
    }

    // Chunks that callers have not taken.

    /// Whether a chunk of this weight is more than the ask has credit for. Without a waiting caller nothing
    /// is counted.
    pub fn exceeds_credit(&self, ask: AskId, weight: u32) -> bool {
        self.asks.get(&ask).is_some_and(|sent| sent.ticketed.is_some() && sent.owed + weight > CHUNK_CREDIT)
    }

    /// The caller gets a chunk of this weight, and owes the credit for it until it takes the chunk.
    pub fn owe(&mut self, ask: AskId, weight: u32) {
        let Some(sent) = self.asks.get_mut(&ask) else { return };
        let Some(ticketed) = &mut sent.ticketed else { return };
        sent.owed += weight;
        ticketed.pending.gave = true;
    }

    /// The caller took chunks of this weight; returns false if there is no such ask.
    pub fn pay(&mut self, ask: AskId, weight: u32) -> bool {
        let Some(sent) = self.asks.get_mut(&ask) else { return false };
        sent.owed = sent.owed.saturating_sub(weight);
        true
    }

    /// Whether the caller of this ask has not taken half of what it may owe.
    pub fn is_behind(&self, ask: AskId) -> bool {
        self.asks.get(&ask).is_some_and(|sent| sent.owed >= CHUNK_CREDIT / 2)
    }

    /// The caller of this ask may take a chunk until then; it has taken `taken`.
    pub fn await_reading(&mut self, ask: AskId, until: Instant, taken: u64) {
        if let Some(sent) = self.asks.get_mut(&ask) {
            sent.unread.get_or_insert((until, taken));
        }
    }

    /// The asks whose callers had until now to take a chunk, and how many they had taken before. Each is
    /// returned once.
    pub fn take_unread(&mut self, now: Instant) -> Vec<(AskId, u64)> {
        self.asks.iter_mut().filter_map(|(ask, sent)| Some((*ask, sent.unread.take_if(|(at, _)| *at <= now)?.1))).collect()
    }

    // What is to be sent.

    /// Queues a unit; `copying` is the work that puts its blobs in place, if there is any.
    pub fn queue(&mut self, first: AskId, plan: BlobPlan, copying: Option<Work<Result<Vec<New>, Fault>>>) {
        self.outgoing.push_back(Outgoing { first, plan, copying });
    }

    /// The next unit to send, if it waits for nothing.
    pub fn next_to_send(&mut self) -> Option<(AskId, BlobPlan)> {
        self.outgoing.front().filter(|outgoing| outgoing.copying.is_none())?;
        self.outgoing.pop_front().map(|outgoing| (outgoing.first, outgoing.plan))
    }

    /// Waits for the blobs of the first outgoing unit. Cancel-safe.
    pub async fn copied(&mut self) -> Result<Vec<New>, Fault> {
        match self.outgoing.front_mut().and_then(|outgoing| outgoing.copying.as_mut()) {
            Some(copying) => copying.await.unwrap_or_else(|| Err(Fault::new(Code::Internal, "copying a blob to a pod ended early"))),
            None => std::future::pending().await,
        }
    }

    /// The copying for the first outgoing unit ended. If it failed, the unit is returned and not sent.
    pub fn end_copying(&mut self, result: Result<Vec<New>, Fault>) -> Option<(AskId, BlobPlan, Fault)> {
        let outgoing = self.outgoing.front_mut()?;
        outgoing.copying = None;
        match result {
            Ok(lent) => {
                outgoing.plan.add(lent);
                None
            }
            Err(fault) => self.outgoing.pop_front().map(|outgoing| (outgoing.first, outgoing.plan, fault)),
        }
    }
}
