//! A pod's place in its pool: how its driver gets work and tells what became of it.
//!
//! Apart from `mod.rs`, which callers come to: here is the side that drivers see.

use crate::pod::pool::state::{End, Report};
use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{Fault, Priority, limits::POISON_MS},
    pod::pool::{
        ask::{Request, TicketedAsk, digest},
        poison::Ended,
        refusals::{Refusals, overdue},
        schedule::Take,
        state::{Member, PoolShared, PoolState},
        watcher::PodShared,
    },
};

/// A pod's place in its pool: how its driver gets work and tells what became of it.
#[derive(Clone)]
pub struct Slot {
    pub(super) pool: Weak<PoolShared>,
    pub(in crate::pod) id: u64,
}

/// What a driver is given.
#[derive(Default)]
pub(in crate::pod) struct Taken {
    pub units: Vec<Unit>,
    /// When to ask again although nothing happens: a batch is being gathered.
    pub again: Option<Instant>,
    /// The best class of what still waits.
    pub waiting: Option<Priority>,
    /// The best class of that, of what is in hand and of what is given.
    pub class: Option<Priority>,
    /// There was no room for more; there may be elsewhere.
    is_full: bool,
}

/// Asks that run together.
pub(in crate::pod) struct Unit {
    pub asks: Vec<TicketedAsk>,
    /// Units of its operation are over so quickly that others may be sent to wait behind them.
    pub is_tiny: bool,
}

impl Slot {
    /// The pod is ready for its first unit.
    pub(in crate::pod) fn report_ready(&self) {
        self.with(|pool, state| {
            if let Some(member) = state.members.iter_mut().find(|member| member.slot == self.id) {
                (member.ready, member.asleep, member.yielding, member.awaits_memory) = (true, false, false, false);
            }
            pool.offer(state, None);
        });
    }

    /// The pod has no models any more, and loads none before there is work for it.
    pub(in crate::pod) fn report_asleep(&self) {
        self.change_member(|member| (member.ready, member.asleep, member.yielding) = (false, true, false));
    }

    /// The pod takes nothing more until it has loaded again: what waits is for others.
    pub(in crate::pod) fn report_yielding(&self) {
        self.change_member(|member| member.yielding = true);
    }

    fn change_member(&self, change: impl FnOnce(&mut Member)) {
        let failed = self.with(|pool, state| {
            if let Some(member) = state.members.iter_mut().find(|member| member.slot == self.id) {
                change(member);
            }
            pool.dispatch(state, pool.now())
        });
        if let Some(failed) = failed {
            failed.send();
        }
    }

    /// The best class of what waits for a pod; the pod is awake then.
    pub(in crate::pod) fn await_memory(&self) -> Option<Priority> {
        self.with(|_, state| {
            let waits = state.best_waiting();
            if let Some(member) = state.members.iter_mut().find(|member| member.slot == self.id) {
                member.asleep &= waits.is_none();
                member.awaits_memory = true;
            }
            waits
        })
        .flatten()
    }

    /// Tells what is over and takes what there is room for. `units`: in hand now, `class` the best of theirs. `ahead`: the pod says what it has
    /// begun, and what it has in hand is tiny, so that it may be sent more than it runs.
    pub(in crate::pod) fn take_work(
        &self,
        report: &mut Report,
        units: usize,
        class: Option<Priority>,
        ahead: bool,
        shared: &Arc<PodShared>,
    ) -> Taken {
        let mut taken = Taken::default();
        let Some(pool) = self.pool.upgrade() else { return taken };
        let now = pool.now();
        let mut state = pool.lock();
        let cured = state.note(report, now);
        if !report.cleared.is_empty() {
            pool.suspects.store(!state.poison.is_empty(), Ordering::Relaxed);
        }
        let late = state.schedule.shed(now);
        if let Some(member) = state.members.iter_mut().find(|member| member.slot == self.id) {
            member.units = units;
            member.alone &= units > 0;
        }
        self.take_units(&pool, &mut state, &mut taken, ahead, shared);
        taken.waiting = state.best_waiting();
        let given = taken.units.iter().flat_map(|unit| &unit.asks).map(|ticketed| ticketed.pending.request.priority);
        taken.class = given.chain(taken.waiting).chain(class).min();
        if let Some(member) = state.members.iter_mut().find(|member| member.slot == self.id) {
            member.class = taken.class;
        }
        if taken.is_full {
            pool.offer(&state, Some(self.id));
        }
        if taken.waiting.is_none() {
            // Whoever wanted a place for what was taken here does not any more.
            state.tell_awaiting_memory();
        }
        let failed = if cured { pool.dispatch(&mut state, now) } else { Refusals::none() };
        let quiet = state.closed && state.is_quiet();
        report.clear();
        drop(state);
        pool.refuse(late, &overdue());
        failed.send();
        if quiet {
            pool.quiet.notify_waiters();
        }
        taken
    }

    /// Takes units until there is no room or nothing to take.
    fn take_units(&self, pool: &PoolShared, state: &mut PoolState, taken: &mut Taken, mut ahead: bool, shared: &Arc<PodShared>) {
        let now = pool.now();
        let serving = state.members.iter().filter(|member| member.ready && !member.leaving);
        // Work that goes alone waits for the pod that is the first to be empty, perhaps one that just starts: that one takes nothing else, and the
        // others go on.
        let starting = state.members.iter().any(|member| !member.ready && !member.leaving && !member.awaits_memory);
        let empties_first =
            serving.clone().min_by_key(|member| (!member.alone, member.units)).map(|member| member.slot).filter(|_| !starting);
        let others_free = serving.clone().any(|member| member.slot != self.id && member.has_room(pool.concurrency));
        let serving = serving.count();
        let Some(at) = state.members.iter().position(|member| member.slot == self.id) else { return };
        if !state.members[at].ready || state.members[at].leaving {
            return;
        }
        loop {
            let in_hand = state.members[at].units;
            if state.members[at].alone {
                taken.is_full = true;
                return;
            }
            if in_hand == 0
                && let Some(ticketed) = state.solo.pop_front()
            {
                state.holders.insert(ticketed.ticket, shared.clone());
                (state.members[at].units, state.members[at].alone) = (1, true);
                taken.units.push(Unit { asks: vec![ticketed], is_tiny: false });
                continue;
            }
            if !state.solo.is_empty() && empties_first == Some(self.id) {
                taken.is_full = true;
                return;
            }
            if in_hand >= pool.concurrency {
                let share = state.schedule.ahead().min(state.schedule.units().div_ceil(serving) + taken.units.len());
                if !ahead || others_free || in_hand >= pool.concurrency + share {
                    taken.is_full = true;
                    return;
                }
            }
            match state.schedule.take(now) {
                Take::Nothing => return,
                Take::NotBefore(at) => {
                    taken.again = Some(pool.born + at);
                    return;
                }
                Take::Unit(items) => {
                    state.holders.extend(items.iter().map(|(ticket, ..)| (*ticket, shared.clone())));
                    let asks = items.into_iter().map(|(ticket, waiting, pending)| TicketedAsk { ticket, waiting, pending });
                    let unit = Unit { is_tiny: false, asks: asks.collect() };
                    let is_tiny = unit.asks.first().is_some_and(|ticketed| state.schedule.is_tiny(&ticketed.pending.request.operation));
                    // Nothing is sent to wait behind one that may take long.
                    ahead &= is_tiny;
                    state.members[at].units += 1;
                    taken.units.push(Unit { is_tiny, ..unit });
                }
            }
        }
    }

    /// Asks of this pod that wait for another now: never begun, harmless to repeat, or halves of a batch that failed.
    pub(in crate::pod) fn put_back(&self, asks: Vec<TicketedAsk>, alone: bool) {
        if !asks.is_empty() {
            self.put_back_some(asks, alone);
        }
    }

    fn put_back_some(&self, asks: Vec<TicketedAsk>, alone: bool) -> Option<()> {
        let (failed, quiet) = self.with(|pool, state| {
            for mut ticketed in asks {
                state.holders.remove(&ticketed.ticket);
                if ticketed.pending.end.is_closed() {
                    continue;
                }
                state.repeated += u64::from(std::mem::take(&mut ticketed.pending.ran));
                match alone {
                    true => state.solo.push_back(ticketed),
                    false => state.schedule.put_back(ticketed.ticket, ticketed.pending, ticketed.waiting),
                }
            }
            (pool.dispatch(state, pool.now()), state.closed && state.is_quiet())
        })?;
        failed.send();
        if quiet {
            self.pool.upgrade()?.quiet.notify_waiters();
        }
        Some(())
    }

    /// Two names for the halves of a failed batch.
    pub(in crate::pod) fn split(&self) -> (u64, u64) {
        self.with(|_, state| state.schedule.split()).unwrap_or((1, 2))
    }

    /// That input ended its pod, alone at work there. Whether it is given up now.
    pub(in crate::pod) fn blame(&self, request: &Request, how: Ended) -> Option<Fault> {
        let digest = digest(request);
        self.with(|pool, state| {
            let poison = state.poison.ended(digest, how, pool.now());
            pool.suspects.store(true, Ordering::Relaxed);
            poison.then(|| pool.poisoned(&request.operation.name, Duration::from_millis(POISON_MS)))
        })
        .flatten()
    }

    /// Which value of the recipe's lever holds.
    pub(in crate::pod) fn fallback(&self) -> Option<usize> {
        self.with(|_, state| state.fallback)
    }

    /// Lowers the lever, which has so many values, unless another did since it was at `used`; whether it is lower than that now.
    pub(in crate::pod) fn lower_fallback(&self, used: usize, values: usize) -> bool {
        self.with(|_, state| {
            if state.fallback == used && used + 1 < values {
                state.fallback += 1;
            }
            state.fallback > used
        })
        .unwrap_or(false)
    }

    /// Whether inputs are suspected of having ended a pod.
    pub(in crate::pod) fn has_suspects(&self) -> bool {
        self.pool.upgrade().is_some_and(|pool| pool.suspects.load(Ordering::Relaxed))
    }

    /// Whether a pod that has nothing to do may go; from then on nothing is offered to it.
    pub(in crate::pod) fn may_idle_out(&self) -> bool {
        self.with(|pool, state| {
            let staying = state.members.iter().filter(|member| !member.leaving).count();
            let spare = staying > if state.used { pool.spec.min } else { 0 };
            spare && state.schedule.is_empty() && state.solo.is_empty() && state.mark_leaving(self.id)
        })
        .unwrap_or(true)
    }

    /// The pod takes nothing any more, for a good reason: another may take its place.
    pub(in crate::pod) fn report_retiring(&self) {
        let failed = self.with(|pool, state| {
            state.mark_leaving(self.id);
            pool.dispatch(state, pool.now())
        });
        if let Some(failed) = failed {
            failed.send();
        }
    }

    /// The pod takes nothing any more, because it is dead or about to be: what was meant for it goes to others. Whether one may be started in its
    /// place is seen when it is known how it ended.
    pub(in crate::pod) fn report_failing(&self) {
        self.with(|pool, state| {
            state.mark_leaving(self.id);
            pool.offer(state, None);
        });
    }

    /// No process of the pod is left.
    pub(in crate::pod) fn report_end(&self, end: End) {
        if let Some(pool) = self.pool.upgrade() {
            pool.ended(self.id, end);
        }
    }

    /// Tells what is over without taking anything.
    pub(in crate::pod) fn report(&self, report: &mut Report) {
        let failed = self.with(|pool, state| {
            let cured = state.note(report, pool.now());
            report.clear();
            pool.quiet.notify_waiters();
            if cured { pool.dispatch(state, pool.now()) } else { Refusals::none() }
        });
        if let Some(failed) = failed {
            failed.send();
        }
    }

    /// Whether asks wait that no pod has room for.
    pub(in crate::pod) fn is_crowded(&self) -> bool {
        self.with(|pool, state| state.is_crowded(pool.concurrency)).unwrap_or(false)
    }

    fn with<T>(&self, act: impl FnOnce(&PoolShared, &mut PoolState) -> T) -> Option<T> {
        let pool = self.pool.upgrade()?;
        let mut state = pool.lock();
        let done = act(&pool, &mut state);
        drop(state);
        Some(done)
    }
}

impl Report {
    pub fn is_empty(&self) -> bool {
        self.over.is_empty() && self.served.is_empty()
    }

    pub(in crate::pod) fn clear(&mut self) {
        self.over.clear();
        self.served.clear();
        self.cleared.clear();
        (self.good, self.failed) = (0, 0);
    }
}
