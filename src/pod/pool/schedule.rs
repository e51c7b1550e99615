//! The queue of a pool: which ask is next, which run together as a batch, and which are refused.
//!
//! A policy without IO and without a clock: tests run it in virtual time. Times are since the pool was made.
//!
//! ```text
//!            push                                take
//!   caller --------> waiting, by class, then ----------> unit: an ask, or asks of one operation together
//!      ^    |          those put back first,                |          |
//!      |    | full     then by deadline                     | done     | its pod died before it was begun,
//!      +----+           |        |        ^                 v          | or its batch failed and is split
//!    Refused      shed  v        v remove +--- put_back ---------------+
//!                    expired    caller left
//! ```
//!
//! - A higher class goes first. But when [`PASSED_OVER_MAX`] units in a row passed over a class whose oldest
//!   ask has waited longer than [`AGE_MS`], that ask is next. So under a full load of interactive asks the
//!   others keep a ninth. An occasional interactive ask never finds the count so high, and waits for no more
//!   than one unit.
//! - A batch is gathered around the ask that is next, from all classes, in order. A batch that is not full
//!   may wait for more asks as long as the recipe says, while other work goes first.

mod pace;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::model::{
    limits::{AGE_MS, BATCH_MISFITS_MAX, BATCH_WAIT_PERCENT, BULK_QUEUE_PERCENT, PASSED_OVER_MAX, SENT_AWAY_MAX},
    manifest::operation::{Batch, Operation},
    priority::Priority,
};
use pace::Pace;
pub use pace::Served;

/// Identifies a waiting or running ask for its whole life, even after it is put back. A later ticket is
/// greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the schedule needs to know of an ask.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub priority: Priority,
    pub arrived: Duration,
    pub deadline: Duration,
    /// The asks with which it may share a batch; `None`: it runs alone.
    pub group: Option<Group>,
}

/// The batches that an ask may be part of.
#[derive(Debug, Clone)]
pub struct Group {
    /// An operation with batches. Asks share a batch only with the very same object: the operation of that
    /// name in another version is another.
    pub operation: Arc<Operation>,
    pub cost: u64,
    /// Asks of one cohort share batches only with each other; cohort 0 is one of them.
    pub cohort: u64,
}

impl Group {
    fn batch(&self) -> Option<&Batch> {
        self.operation.batch.as_ref()
    }
}

/// No room.
#[derive(Debug)]
pub struct Refused<T> {
    pub item: T,
    /// Number of waiting asks.
    pub waiting: usize,
    /// When the queue will likely have room for this caller. Each further refusal gets a later time.
    pub retry_after: Duration,
}

/// The result of [`Schedule::take`].
#[derive(Debug)]
pub enum Take<T> {
    Nothing,
    /// A batch is being gathered: take again at that time, or after a push.
    NotBefore(Duration),
    /// Never empty.
    Unit(Vec<(Ticket, Waiting, T)>),
}

/// The asks that wait for the pods of one recipe. Each method is logarithmic in them, and linear in the
/// operations and cohorts that wait.
#[derive(Debug)]
pub struct Schedule<T> {
    queue_max: usize,
    next_ticket: u64,
    next_cohort: u64,
    /// All asks of each class, oldest first.
    classes: [BTreeMap<Ticket, Entry<T>>; 3],
    /// Asks that may run together, by what they have in common. No set of candidates is empty.
    candidates: BTreeMap<Key, Candidates>,
    deadlines: BTreeSet<(Duration, Priority, Ticket)>,
    /// Units in a row that passed over the oldest ask of each class.
    passed_over: [u32; 3],
    /// Number of refused callers that were told when to come back, one after the other, minus those for whom
    /// there was room since. Reset when the queue is empty, so that a caller that tries all the time delays
    /// others no longer than there is work.
    sent_away: usize,
    pace: Pace,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    waiting: Waiting,
    fresh: bool,
}

/// The order in which asks are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    class: Priority,
    /// False for an ask that was put back.
    fresh: bool,
    deadline: Duration,
    ticket: Ticket,
}

/// What asks that may run together have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Alone,
    /// The operation by its address: as long as an ask of it waits, no other operation has that address.
    Batch {
        operation: usize,
        cohort: u64,
    },
}

#[derive(Debug)]
struct Candidates {
    order: BTreeSet<Order>,
    /// The sum over all its asks.
    cost: u128,
    /// None of them has to run before this time; may be too early once asks have left.
    hold: Duration,
}

impl Waiting {
    fn key(&self) -> Key {
        match &self.group {
            Some(group) if group.batch().is_some() => {
                Key::Batch { operation: Arc::as_ptr(&group.operation) as usize, cohort: group.cohort }
            }
            _ => Key::Alone,
        }
    }

    fn cost(&self) -> u64 {
        self.group.as_ref().map_or(1, |group| group.cost)
    }
}

impl<T> Entry<T> {
    fn order(&self, ticket: Ticket) -> Order {
        Order { class: self.waiting.priority, fresh: self.fresh, deadline: self.waiting.deadline, ticket }
    }

    /// Until when it may wait for others in its batch. An ask that was put back has waited enough.
    fn hold(&self) -> Duration {
        let wait_ms = self.waiting.group.as_ref().and_then(Group::batch).map_or(0, |batch| batch.wait_ms);
        if !self.fresh || wait_ms == 0 {
            return Duration::ZERO;
        }
        let share = self.waiting.deadline.saturating_sub(self.waiting.arrived).saturating_mul(BATCH_WAIT_PERCENT) / 100;
        self.waiting.arrived.saturating_add(share.min(Duration::from_millis(wait_ms)))
    }
}

impl<T> Schedule<T> {
    /// `queue_max`: most waiting asks. Asks that were put back count, but are never refused.
    pub fn new(queue_max: usize) -> Schedule<T> {
        Schedule {
            queue_max,
            next_ticket: 1,
            next_cohort: 1,
            classes: [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()],
            candidates: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            passed_over: [0; 3],
            sent_away: 0,
            pace: Pace::default(),
        }
    }

    /// Errors: the item itself if the queue is full, or if it is bulk and bulk asks have filled their share
    /// of the queue.
    pub fn push(&mut self, item: T, waiting: Waiting) -> Result<Ticket, Refused<T>> {
        let [interactive, normal, bulk] = self.counts();
        let all = interactive + normal + bulk;
        let bulk_is_full = waiting.priority == Priority::Bulk && bulk >= self.queue_max * BULK_QUEUE_PERCENT / 100;
        if all >= self.queue_max || bulk_is_full {
            // Room for bulk comes only after all better classes.
            let before = if bulk_is_full { interactive + normal } else { 0 };
            let retry_after = self.pace.retry_after(self.sent_away + 1 + before);
            // Until something is measured, every caller is told the same time.
            if self.pace.is_measured() {
                self.sent_away = (self.sent_away + 1).min(SENT_AWAY_MAX);
            }
            return Err(Refused { item, waiting: all, retry_after });
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.insert(ticket, Entry { item, waiting, fresh: true });
        Ok(ticket)
    }

    /// Puts back an ask that was taken, as the first of its class: its pod died before it was begun, or its
    /// batch is split and `waiting` names its cohort. Never refused.
    pub fn put_back(&mut self, ticket: Ticket, item: T, waiting: Waiting) {
        debug_assert!(self.classes.iter().all(|class| !class.contains_key(&ticket)), "{ticket:?} waits already");
        self.insert(ticket, Entry { item, waiting, fresh: false });
    }

    /// The caller left; `None` if the ask does not wait (any more).
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let class = Priority::ALL.into_iter().find(|class| self.classes[*class as usize].contains_key(&ticket))?;
        let entry = self.detach(class, ticket)?;
        self.note_empty();
        Some(entry.item)
    }

    /// The next unit: an ask, or a batch. Asks of an operation with batches are always given as a batch,
    /// perhaps of one. Expired asks are given too: see [`Schedule::shed`].
    pub fn take(&mut self, now: Duration) -> Take<T> {
        let mut gathering = Vec::new();
        let mut not_before: Option<Duration> = None;
        let mut next = self.aged(now).or_else(|| self.first(&gathering));
        while let Some((lead, key)) = next {
            match self.gather(lead, key, now) {
                Gathered::Unit(unit) => return Take::Unit(self.give(lead, unit)),
                Gathered::NotBefore(at) => {
                    gathering.push(key);
                    not_before = Some(not_before.map_or(at, |before| before.min(at)));
                }
            }
            next = self.first(&gathering);
        }
        not_before.map_or(Take::Nothing, Take::NotBefore)
    }

    /// Removes and returns the expired asks, longest expired first. Call it before [`Schedule::take`].
    pub fn shed(&mut self, now: Duration) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(&(deadline, class, ticket)) = self.deadlines.first()
            && deadline <= now
            && let Some(entry) = self.detach(class, ticket)
        {
            expired.push(entry.item);
        }
        self.note_empty();
        expired
    }

    /// When the next ask expires.
    #[cfg(test)]
    pub fn next_expiry(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// Removes and returns all asks, by class, oldest first.
    pub fn drain(&mut self) -> Vec<T> {
        self.candidates.clear();
        self.deadlines.clear();
        let all = self.classes.iter_mut().flat_map(std::mem::take).map(|(_, entry)| entry.item).collect();
        self.note_empty();
        all
    }

    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Number of waiting asks: interactive, normal, bulk.
    pub fn counts(&self) -> [usize; 3] {
        self.classes.each_ref().map(BTreeMap::len)
    }

    /// Number of units that the waiting asks would make if all batches were full: for [`grow`].
    pub fn units(&self) -> usize {
        let items = |candidates: &Candidates| {
            let first = candidates.order.first()?;
            let group = self.classes[first.class as usize].get(&first.ticket)?.waiting.group.as_ref()?;
            let batch = group.batch()?;
            let by_cost = batch.cost.as_ref().map_or(0, |cost| candidates.cost.div_ceil(u128::from(cost.max.max(1))));
            Some(
                candidates
                    .order
                    .len()
                    .div_ceil(batch.items.max(1))
                    .max(usize::try_from(by_cost).unwrap_or(usize::MAX))
                    .min(candidates.order.len()),
            )
        };
        self.candidates
            .iter()
            .map(|(key, candidates)| if *key == Key::Alone { candidates.order.len() } else { items(candidates).unwrap_or(0) })
            .sum()
    }

    /// A unit ended well.
    pub fn done(&mut self, now: Duration, served: &Served) {
        let waits = !self.is_empty();
        self.pace.done(now, served, waits);
    }

    /// Whether units of that operation end so quickly that others may be sent to wait behind them.
    pub fn is_tiny(&self, operation: &Operation) -> bool {
        self.pace.is_tiny(&operation.name)
    }

    /// How long until the queue will likely have room for the next refused caller.
    #[cfg(test)]
    pub fn retry_after(&self) -> Duration {
        self.pace.retry_after(self.sent_away + 1)
    }

    /// Units to send to a pod beyond its concurrency; 0 unless they are tiny.
    pub fn ahead(&self) -> usize {
        self.pace.ahead()
    }

    /// Two new cohorts, for the halves of a failed batch.
    pub fn split(&mut self) -> (u64, u64) {
        let first = self.next_cohort;
        self.next_cohort += 2;
        (first, first + 1)
    }

    fn insert(&mut self, ticket: Ticket, entry: Entry<T>) {
        let (order, hold) = (entry.order(ticket), entry.hold());
        let new = || Candidates { order: BTreeSet::new(), cost: 0, hold };
        let candidates = self.candidates.entry(entry.waiting.key()).or_insert_with(new);
        candidates.order.insert(order);
        candidates.cost += u128::from(entry.waiting.cost());
        candidates.hold = candidates.hold.min(hold);
        self.deadlines.insert((order.deadline, order.class, ticket));
        self.classes[order.class as usize].insert(ticket, entry);
    }

    /// Removes an ask from everything that refers to it.
    fn detach(&mut self, class: Priority, ticket: Ticket) -> Option<Entry<T>> {
        let entry = self.classes[class as usize].remove(&ticket)?;
        let key = entry.waiting.key();
        if let Some(candidates) = self.candidates.get_mut(&key) {
            candidates.order.remove(&entry.order(ticket));
            candidates.cost -= u128::from(entry.waiting.cost());
            if candidates.order.is_empty() {
                self.candidates.remove(&key);
            }
        }
        self.deadlines.remove(&(entry.waiting.deadline, class, ticket));
        self.sent_away = self.sent_away.saturating_sub(1);
        Some(entry)
    }

    /// Called after an ask has left.
    fn note_empty(&mut self) {
        if self.is_empty() {
            self.pace.ran_empty();
            self.sent_away = 0;
        }
    }

    /// The ask that is next because of its age, if there is one.
    fn aged(&self, now: Duration) -> Option<(Order, Key)> {
        [Priority::Normal, Priority::Bulk].into_iter().find_map(|class| {
            if self.passed_over[class as usize] < PASSED_OVER_MAX {
                return None;
            }
            let (ticket, entry) = self.classes[class as usize].first_key_value()?;
            let is_aged = now.saturating_sub(entry.waiting.arrived) > Duration::from_millis(AGE_MS);
            is_aged.then(|| (entry.order(*ticket), entry.waiting.key()))
        })
    }

    /// The first ask in order, apart from those that are being gathered.
    fn first(&self, gathering: &[Key]) -> Option<(Order, Key)> {
        let candidates = self.candidates.iter().filter(|(key, _)| !gathering.contains(key));
        candidates.filter_map(|(key, candidates)| Some((*candidates.order.first()?, *key))).min_by_key(|(order, _)| *order)
    }

    /// The asks that share a batch with `lead`, in order.
    fn gather(&mut self, lead: Order, key: Key, now: Duration) -> Gathered {
        let entry = |order: &Order| self.classes[order.class as usize].get(&order.ticket);
        let alone = Gathered::Unit(Vec::new());
        let (Some(candidates), Some(first)) = (self.candidates.get_mut(&key), entry(&lead)) else { return alone };
        let Some(batch) = first.waiting.group.as_ref().and_then(Group::batch) else { return alone };
        let cost_max = batch.cost.as_ref().map_or(u64::MAX, |cost| cost.max);
        // Usually, when a push asks again, the sums over all candidates are enough.
        if candidates.hold > now && candidates.order.len() < batch.items && candidates.cost < u128::from(cost_max) {
            return Gathered::NotBefore(candidates.hold);
        }
        let (mut others, mut cost, mut hold, mut misfits) = (Vec::new(), first.waiting.cost(), first.hold(), 0);
        for order in candidates.order.iter().filter(|order| **order != lead) {
            if others.len() + 1 >= batch.items || cost >= cost_max || misfits > BATCH_MISFITS_MAX {
                break;
            }
            let Some(other) = entry(order) else { continue };
            match cost.checked_add(other.waiting.cost()) {
                Some(sum) if sum <= cost_max => {
                    cost = sum;
                    hold = hold.min(other.hold());
                    others.push(*order);
                }
                _ => misfits += 1,
            }
        }
        // If one did not fit, the batch is as full as it gets.
        let is_full = others.len() + 1 >= batch.items || cost >= cost_max || misfits > 0;
        if is_full || hold <= now {
            return Gathered::Unit(others);
        }
        candidates.hold = hold;
        Gathered::NotBefore(hold)
    }

    fn give(&mut self, lead: Order, others: Vec<Order>) -> Vec<(Ticket, Waiting, T)> {
        let oldest =
            |classes: &[BTreeMap<Ticket, Entry<T>>; 3]| classes.each_ref().map(|class| class.first_key_value().map(|(ticket, _)| *ticket));
        let before = oldest(&self.classes);
        let mut unit = Vec::with_capacity(others.len() + 1);
        for order in std::iter::once(lead).chain(others) {
            if let Some(Entry { item, waiting, .. }) = self.detach(order.class, order.ticket) {
                unit.push((order.ticket, waiting, item));
            }
        }
        let after = oldest(&self.classes);
        for class in Priority::ALL {
            let at = class as usize;
            let is_passed_over = class != lead.class && after[at].is_some() && after[at] == before[at];
            self.passed_over[at] = if is_passed_over { self.passed_over[at].saturating_add(1) } else { 0 };
        }
        self.note_empty();
        unit
    }
}

enum Gathered {
    /// The asks that run with the leading one.
    Unit(Vec<Order>),
    NotBefore(Duration),
}

/// Whether another pod should be started: when more units wait than the running and starting pods will take.
///
/// `waiting`: units ([`Schedule::units`]); `room`: units that ready pods could take now; `starting`: pods,
/// each of which is expected to take at least one unit; `live`: pods that are not dead, including the
/// starting ones; `max`: most of those.
pub fn grow(waiting: usize, room: usize, starting: usize, live: usize, max: usize) -> bool {
    live < max && waiting > room.saturating_add(starting)
}
