//! The pods of one recipe and the asks that wait for them: callers come in here, drivers take from here.
//!
//! ```text
//!    Pool::ask --> schedule.rs  who goes next, what goes together --> slot.rs: a pod's driver takes a unit
//!                      ^                                                 |
//!                      +--- put back: not begun, or half of a batch -----+
//!                                                                        |
//!    the pool starts a pod <-- restarts.rs  may one be started? <--------+  how a pod ended
//!    Pool::ask refuses <------ poison.rs    which inputs end pods <------+
//! ```
//!
//! This file has the one lock; it is held to decide, never across an await, and no caller and no driver waits
//! for a pod while it is held.
//!
//! - `state.rs`, `member.rs`: the state that the lock guards.
//! - `change.rs`: the only way to change the state; callers and waiters are notified after the lock.
//! - `schedule.rs`, `restarts.rs`, `poison.rs`: policies, without clock and lock.
//! - `handle.rs`, `ask.rs`: what callers hold.
//! - `slot.rs`: what a driver holds.
//! - `watcher.rs`: what a driver shows of its pod, and its mailbox.
//! - `spawner.rs`: the source of pods.
//! - `refusals.rs`: the faults of refused asks.

pub mod ask;
mod change;
mod handle;
mod member;
pub mod poison;
mod refusals;
mod restarts;
pub mod schedule;
pub mod slot;
mod spawner;
pub(in crate::pod) mod state;
#[cfg(test)]
mod tests;
pub mod watcher;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use crate::model::{Code, Fault, Verified, limits::UNUSED_START_ENDS, manifest::spec::PoolSpec, status::LeverStatus};
use change::Change;
pub use handle::{Pool, WeakPool};
use member::Member;
use restarts::MayStart;
use schedule::{Ticket, grow};
use slot::Slot;
pub use spawner::{BoxFuture, Spawner};
use state::{End, PoolState, Why};
use watcher::Watcher;

/// The state that a pool's handles, asks and slots share.
struct PoolShared {
    this: Weak<PoolShared>,
    recipe: Arc<Verified>,
    spawner: Arc<dyn Spawner>,
    spec: PoolSpec,
    concurrency: usize,
    born: Instant,
    state: Mutex<PoolState>,
    /// Whether any input is remembered for having ended a pod; only then are inputs digested.
    suspects: AtomicBool,
    /// Notified when a pod becomes ready, ends, or cannot be started, and when a closed pool has nothing left
    /// to do.
    changed: Notify,
}

impl PoolShared {
    fn new(recipe: Arc<Verified>, spec: PoolSpec, concurrency: usize, spawner: Arc<dyn Spawner>) -> Arc<PoolShared> {
        Arc::new_cyclic(|this| PoolShared {
            this: this.clone(),
            recipe,
            spawner,
            spec,
            concurrency,
            born: Instant::now(),
            suspects: AtomicBool::new(false),
            changed: Notify::new(),
            state: Mutex::new(PoolState::new()),
        })
    }

    /// For reading the state. [`PoolShared::change`] changes it.
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.born)
    }

    fn name(&self) -> String {
        self.recipe.manifest().name.to_string()
    }

    fn fallback_status(&self, at: usize) -> Option<LeverStatus> {
        let lever = self.recipe.manifest().pod.as_ref()?.lever.as_ref()?;
        let value = serde_json::to_value(lever.values.get(at)?).ok()?;
        Some(LeverStatus { name: lever.name.clone(), value, lowered: at })
    }

    fn has_suspects(&self) -> bool {
        self.suspects.load(Ordering::Relaxed)
    }

    fn note_suspects(&self, state: &PoolState) {
        self.suspects.store(!state.poison.is_empty(), Ordering::Relaxed);
    }

    /// Completes at the next notification of `changed` from now on.
    fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Called after any change to waiting asks or pods: wakes the pod that should take next, and starts more
    /// pods.
    fn dispatch(&self, change: &mut Change<'_>) {
        self.offer(change.state, None);
        self.grow(change, false);
    }

    /// Wakes the pod that should take next, if one has room; skips the pod `not`, which has just checked for
    /// itself.
    fn offer(&self, state: &PoolState, not: Option<u64>) {
        if state.is_empty() {
            return;
        }
        let free = state.members.iter().filter(|member| Some(member.slot()) != not && member.has_room(self.concurrency));
        // The first among equals, so that the others may be idle long enough to exit.
        match free.min_by_key(|member| member.units()) {
            Some(member) => member.offer_work(),
            None => state.members.iter().filter_map(Member::watcher).for_each(|watcher| watcher.shared.tell_crowded()),
        }
        state.tell_awaiting_memory();
    }

    /// Starts as many pods as are wanted and allowed. Refuses the waiting asks if no pod will take them.
    /// `warm`: one pod is wanted without work.
    fn grow(&self, change: &mut Change<'_>, warm: bool) {
        loop {
            let (state, now) = (&mut *change.state, change.now);
            let live = state.members.len();
            let staying = state.members.iter().filter(|member| member.stays()).count();
            let asleep = state.members.iter().filter(|member| member.is_asleep()).count();
            let starting = state.members.iter().filter(|member| member.is_starting()).count();
            let room = state.members.iter().map(|member| member.room(self.concurrency)).sum();
            let empty = state.members.iter().filter(|member| member.has_room(self.concurrency) && member.units() == 0).count();
            let max = self.spec.max + asleep;
            let wanted = grow(state.schedule.units() + state.solo.len(), room, starting, live, max)
                || grow(state.solo.len(), empty, starting, live, max);
            if wanted && let Some(member) = state.members.iter_mut().find(|member| member.is_asleep()) {
                member.wake();
                continue;
            }
            let below_min = state.used && !state.closed && live < self.spec.min;
            if !(wanted || below_min || (warm && live == 0)) {
                return;
            }
            match state.restarts.may_start(now) {
                // One pod is enough to find out whether the recipe works again.
                MayStart::Now if state.restarts.is_on_trial() && staying > 0 => return,
                MayStart::Now => self.start(state),
                MayStart::At(at) => return self.plan(state, at),
                MayStart::Quarantined(until) if staying == 0 => {
                    if below_min {
                        self.plan(state, until);
                    }
                    let fault = self.cooling(state, until.saturating_sub(now));
                    return change.refuse_all(fault);
                }
                MayStart::Quarantined(until) => return self.plan(state, until),
            }
        }
    }

    fn start(&self, state: &mut PoolState) {
        state.slots += 1;
        let id = state.slots;
        state.members.push(Member::new(id));
        let (pool, spawner) = (self.this.clone(), self.spawner.clone());
        tokio::spawn(async move {
            let spawned = spawner.spawn(Slot::new(pool.clone(), id)).await;
            match (pool.upgrade(), spawned) {
                (Some(pool), spawned) => pool.spawned(id, spawned),
                // The pod is no longer wanted.
                (None, Ok(watcher)) => watcher.shared.retire(),
                (None, Err(_)) => {}
            }
        });
    }

    /// Checks again at that time whether a pod is wanted.
    fn plan(&self, state: &mut PoolState, at: Duration) {
        state.replan.plan(&self.this, self.born, at, |pool: &PoolShared, at| {
            pool.change(|change| {
                change.state.replan.looked(at);
                pool.dispatch(change);
            });
        });
    }

    fn spawned(&self, slot: u64, spawned: Result<Watcher, Fault>) {
        match spawned {
            Ok(watcher) => self.change(|change| {
                if let Some(member) = change.state.member(slot) {
                    member.spawned(watcher);
                    // The pod may have been ready before its watcher was set.
                    self.offer(change.state, None);
                }
            }),
            Err(fault) => {
                let why = if fault.code == Code::Overloaded { Why::Short } else { Why::Failed };
                self.ended(slot, End { why, was_ready: false, was_useful: false, was_killed_at_start: false, fault });
            }
        }
    }

    /// A pod is over, or never started. Its driver has dealt with its asks.
    fn ended(&self, slot: u64, end: End) {
        let jitter = (RandomState::new().hash_one(slot) % 1_000) as f64 / 1_000.0;
        self.change(|change| {
            change.tell_waiters();
            let (state, now) = (&mut *change.state, change.now);
            state.members.retain(|member| member.slot() != slot);
            // If the recipe has other pods, the waiting asks wait for those.
            let others = state.members.iter().any(Member::stays);
            match end.why {
                Why::Asked => {}
                // Another pod is started for the waiting asks.
                Why::NeverBegan => state.restarts.died(now, false, jitter),
                Why::Refused => {
                    state.last_fault = Some(end.fault.clone());
                    // A serving pod got memory for its models, so there may be some again.
                    if state.members.iter().any(Member::is_serving) {
                        state.restarts.died(now, false, jitter);
                    } else {
                        state.restarts.hopeless(now);
                        state.hopeless = Some(end.fault.clone());
                        change.refuse_all(end.fault);
                    }
                }
                Why::Short => {
                    state.restarts.pause(now);
                    if !others {
                        change.refuse_all(end.fault);
                    }
                }
                Why::Failed => {
                    state.crashes += 1;
                    state.failing += if end.was_ready { 1 } else { UNUSED_START_ENDS };
                    state.last_fault = Some(end.fault.clone());
                    state.hopeless = None;
                    state.restarts.died(now, end.was_useful, jitter);
                    // A pod that fails to start would fail for all waiting asks, unless another pod serves
                    // them.
                    if !end.was_ready && !end.was_killed_at_start && !others {
                        change.refuse_all(end.fault);
                    }
                }
            }
            self.dispatch(change);
        });
    }

    /// The caller of that ask took chunks of this weight.
    fn credit(&self, ticket: Ticket, weight: u32) {
        if let Some(shared) = self.lock().holders.get(&ticket) {
            shared.credit(ticket, weight);
        }
    }

    /// The caller of that ask is gone.
    fn withdraw(&self, ticket: Ticket) {
        let left = self.change(|change| {
            let state = &mut *change.state;
            let left = state.schedule.remove(ticket);
            let waited = left.is_some() || {
                let before = state.solo.len();
                state.solo.retain(|ask| ask.ticket != ticket);
                state.solo.len() != before
            };
            if !waited && let Some(shared) = state.holders.get(&ticket) {
                shared.cancel(ticket);
            }
            state.tell_awaiting_memory();
            left
        });
        // Not under the lock: its input may be large.
        drop(left);
    }
}

impl Drop for PoolShared {
    /// No pool handle and no ask is left: the remaining pods have nothing more to do.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        for watcher in state.members.iter().filter_map(Member::watcher) {
            watcher.shared.retire();
        }
    }
}
