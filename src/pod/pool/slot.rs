//! A pod's slot in its pool: its driver takes work from it, and reports the outcome to it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{Fault, Priority, limits::POISON_MS},
    pod::pool::{
        PoolShared,
        ask::{Request, TicketedAsk, digest},
        change::Change,
        member::Member,
        poison::Ended,
        refusals::overdue,
        schedule::Take,
        state::{End, Report},
        watcher::PodShared,
    },
};

/// A pod's handle on its pool. It keeps neither the pool nor the pod alive; if the pool is gone, reports are
/// dropped.
#[derive(Clone)]
pub struct Slot {
    pool: Weak<PoolShared>,
    id: u64,
}

/// What a driver gets when it takes work.
#[derive(Default)]
pub(in crate::pod) struct Taken {
    pub units: Vec<Unit>,
    /// When to take again even if nothing happens: a batch is being gathered.
    pub again: Option<Instant>,
    /// The best class of the asks that still wait.
    pub waiting: Option<Priority>,
    /// The best class of those, of the units in hand and of the units given.
    pub class: Option<Priority>,
    /// There was no room for more; other pods may have some.
    is_full: bool,
}

/// Asks that run together.
pub(in crate::pod) struct Unit {
    pub asks: Vec<TicketedAsk>,
    /// Whether units of its operation end so quickly that others may be sent to wait behind them.
    pub is_tiny: bool,
}

impl Slot {
    pub(super) fn new(pool: Weak<PoolShared>, id: u64) -> Slot {
        Slot { pool, id }
    }

    /// The pod is ready for its first unit.
    pub(in crate::pod) fn report_ready(&self) {
        self.change(|pool, change| {
            if let Some(member) = change.state.member(self.id) {
                member.report_ready();
            }
            change.tell_waiters();
            pool.offer(change.state, None);
        });
    }

    /// The pod has no models any more, and loads none until there is work.
    pub(in crate::pod) fn report_asleep(&self) {
        self.change_member(Member::report_asleep);
    }

    /// The pod takes no more units until it has loaded again: other pods take the waiting asks.
    pub(in crate::pod) fn report_yielding(&self) {
        self.change_member(Member::report_yielding);
    }

    fn change_member(&self, report: fn(&mut Member)) {
        self.change(|pool, change| {
            if let Some(member) = change.state.member(self.id) {
                report(member);
            }
            pool.dispatch(change);
        });
    }

    /// The pod has no models and requests memory for them. Returns the best class of the waiting asks; if
    /// there is one, a sleeping pod is awake now.
    pub(in crate::pod) fn await_memory(&self) -> Option<Priority> {
        self.change(|_, change| {
            let best = change.state.best_waiting();
            if let Some(member) = change.state.member(self.id) {
                member.report_empty(best.is_some());
            }
            best
        })
        .flatten()
    }

    /// Reports finished units, and takes as many as there is room for.
    ///
    /// `units`: number in hand now; `class`: the best class of those. `ahead`: the pod reports what it has
    /// begun, and its units in hand are tiny, so that it may be sent more than it runs.
    pub(in crate::pod) fn take_work(
        &self,
        report: &mut Report,
        units: usize,
        class: Option<Priority>,
        ahead: bool,
        shared: &Arc<PodShared>,
    ) -> Taken {
        let taken = self.change(|pool, change| {
            let mut taken = Taken::default();
            let ends_failing = change.state.note(report, change.now);
            if !report.cleared.is_empty() {
                pool.note_suspects(change.state);
            }
            report.clear();
            let late = change.state.schedule.shed(change.now);
            change.refuse(late, overdue());
            if let Some(member) = change.state.member(self.id) {
                member.report_units(units);
            }
            self.take_units(pool, change, &mut taken, ahead, shared);
            taken.waiting = change.state.best_waiting();
            let given = taken.units.iter().flat_map(|unit| &unit.asks).map(|ask| ask.pending.request.priority);
            taken.class = given.chain(taken.waiting).chain(class).min();
            if let Some(member) = change.state.member(self.id) {
                member.report_class(taken.class);
            }
            if taken.is_full {
                pool.offer(change.state, Some(self.id));
            }
            if taken.waiting.is_none() {
                // A pod that requests memory for asks that were taken here stops doing so.
                change.state.tell_awaiting_memory();
            }
            if ends_failing {
                pool.dispatch(change);
            }
            taken
        });
        taken.unwrap_or_default()
    }

    /// Takes units until there is no room, or nothing to take.
    fn take_units(&self, pool: &PoolShared, change: &mut Change<'_>, taken: &mut Taken, mut ahead: bool, shared: &Arc<PodShared>) {
        let (state, now) = (&mut *change.state, change.now);
        let serving = state.members.iter().filter(|member| member.is_serving());
        // Work that runs alone waits for the pod that is the first to be empty, perhaps one that is just
        // starting. That pod takes nothing else; the others go on.
        let starting = state.members.iter().any(Member::is_next_free);
        let empties_first =
            serving.clone().min_by_key(|member| (!member.is_alone(), member.units())).map(Member::slot).filter(|_| !starting);
        let others_free = serving.clone().any(|member| member.slot() != self.id && member.has_room(pool.concurrency));
        let serving = serving.count();
        let Some(at) = state.members.iter().position(|member| member.slot() == self.id && member.is_serving()) else { return };
        loop {
            let in_hand = state.members[at].units();
            if state.members[at].is_alone() {
                taken.is_full = true;
                return;
            }
            if in_hand == 0
                && let Some(ask) = state.solo.pop_front()
            {
                state.holders.insert(ask.ticket, shared.clone());
                state.members[at].give_alone();
                taken.units.push(Unit { asks: vec![ask], is_tiny: false });
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
                    let asks: Vec<_> = asks.collect();
                    let is_tiny = asks.first().is_some_and(|ask| state.schedule.is_tiny(&ask.pending.request.operation));
                    // No unit is sent to wait behind one that may take long.
                    ahead &= is_tiny;
                    state.members[at].give();
                    taken.units.push(Unit { asks, is_tiny });
                }
            }
        }
    }

    /// Asks of this pod that now wait for another pod: never begun, harmless to repeat, or halves of a failed
    /// batch.
    pub(in crate::pod) fn put_back(&self, asks: Vec<TicketedAsk>, alone: bool) {
        if asks.is_empty() {
            return;
        }
        self.change(|pool, change| {
            let state = &mut *change.state;
            for mut ask in asks {
                state.holders.remove(&ask.ticket);
                if ask.pending.end.is_closed() {
                    continue;
                }
                state.repeated += u64::from(std::mem::take(&mut ask.pending.ran));
                match alone {
                    true => state.solo.push_back(ask),
                    false => state.schedule.put_back(ask.ticket, ask.pending, ask.waiting),
                }
            }
            pool.dispatch(change);
        });
    }

    /// Two new cohorts for the halves of a failed batch.
    pub(in crate::pod) fn split(&self) -> (u64, u64) {
        self.change(|_, change| change.state.schedule.split()).unwrap_or((1, 2))
    }

    /// That input ended its pod, which worked only on it. Returns the fault of an input that is now given up.
    pub(in crate::pod) fn blame(&self, request: &Request, how: Ended) -> Option<Fault> {
        let digest = digest(request);
        self.change(|pool, change| {
            let is_poison = change.state.poison.ended(digest, how, change.now);
            pool.note_suspects(change.state);
            is_poison.then(|| pool.poisoned(&request.operation.name, Duration::from_millis(POISON_MS)))
        })
        .flatten()
    }

    /// The index of the recipe's out-of-memory fallback value that is in force.
    pub(in crate::pod) fn fallback(&self) -> Option<usize> {
        Some(self.pool.upgrade()?.lock().fallback)
    }

    /// Moves the out-of-memory fallback, which has `values` values, to the next one, unless another pod has
    /// moved it since it was at `used`. Returns true if it is beyond `used` now.
    pub(in crate::pod) fn lower_fallback(&self, used: usize, values: usize) -> bool {
        self.change(|_, change| {
            let fallback = &mut change.state.fallback;
            if *fallback == used && used + 1 < values {
                *fallback += 1;
            }
            *fallback > used
        })
        .unwrap_or(false)
    }

    /// Whether any input is suspected of having ended a pod.
    pub(in crate::pod) fn has_suspects(&self) -> bool {
        self.pool.upgrade().is_some_and(|pool| pool.has_suspects())
    }

    /// Whether a pod that has nothing to do may exit. If so, it is offered nothing from then on.
    pub(in crate::pod) fn may_idle_out(&self) -> bool {
        self.change(|pool, change| {
            let state = &mut *change.state;
            let staying = state.members.iter().filter(|member| member.stays()).count();
            let spare = staying > if state.used { pool.spec.min } else { 0 };
            spare && state.is_empty() && state.mark_leaving(self.id)
        })
        .unwrap_or(true)
    }

    /// The pod takes no more units, for a good reason: another pod may be started in its place.
    pub(in crate::pod) fn report_retiring(&self) {
        self.change(|pool, change| {
            change.state.mark_leaving(self.id);
            pool.dispatch(change);
        });
    }

    /// The pod takes no more units, because it is dead or about to be: other pods take the units meant for
    /// it. Whether a pod may be started in its place is decided once it is known how this one ended.
    pub(in crate::pod) fn report_failing(&self) {
        self.change(|pool, change| {
            change.state.mark_leaving(self.id);
            pool.offer(change.state, None);
        });
    }

    /// No process of the pod is left.
    pub(in crate::pod) fn report_end(&self, end: End) {
        if let Some(pool) = self.pool.upgrade() {
            pool.ended(self.id, end);
        }
    }

    /// Reports finished units without taking any.
    pub(in crate::pod) fn report(&self, report: &mut Report) {
        self.change(|pool, change| {
            let ends_failing = change.state.note(report, change.now);
            report.clear();
            if ends_failing {
                pool.dispatch(change);
            }
        });
    }

    /// Whether asks wait for which no pod has room.
    pub(in crate::pod) fn is_crowded(&self) -> bool {
        self.pool.upgrade().is_some_and(|pool| pool.lock().is_crowded(pool.concurrency))
    }

    fn change<T>(&self, act: impl FnOnce(&PoolShared, &mut Change<'_>) -> T) -> Option<T> {
        let pool = self.pool.upgrade()?;
        Some(pool.change(|change| act(&pool, change)))
    }
}
