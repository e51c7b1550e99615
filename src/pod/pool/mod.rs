//! The pods of one recipe and the asks that wait for them: callers come in here, drivers take from here.
//!
//! ```text
//!    Pool::ask --> schedule.rs  who goes next, what goes together --> slot.rs: a pod's driver takes a unit
//!                      ^                                                 |
//!                      +--- put back: not begun, or half of a batch -----+
//!                                                                        |
//!    Pool starts a pod <-- restarts.rs  may one be started? <------------+  how a pod ended
//!    Pool::ask refuses <-- poison.rs    which inputs end pods <----------+
//! ```
//!
//! One lock is around all of it (`state.rs` has what it guards). It is held to decide, never across an await,
//! and no caller and no driver waits for a pod while it is held. `schedule.rs`, `restarts.rs` and `poison.rs`
//! decide without clock and lock. `ask.rs` is what callers hold, `watcher.rs` what a driver shows of its pod
//! and hears from others, `refusals.rs` the asks that nobody will take.

pub mod ask;
pub mod poison;
mod refusals;
mod restarts;
pub mod schedule;
pub mod slot;
pub(in crate::pod) mod state;
#[cfg(test)]
mod tests;
pub mod watcher;

use crate::{model::limits::CHUNK_CREDIT, pod::stream::Inlet};
use ask::{Reply, digest};
use state::{Member, PoolShared, PoolState};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    model::{
        Code, Fault, Verified,
        limits::{FAILING_ENDS_MIN, POD_QUEUE_MAX, UNUSED_START_ENDS},
        manifest::spec::PoolSpec,
        status::{self, Health, PodStatus, PoolStatus},
    },
    pod::stream,
};
use ask::Pending;
use ask::Request;
use poison::{Poison, Tally};
use refusals::{Refusals, ending, everybody, overdue};
use restarts::{MayStart, Restarts};
use schedule::{Group, Schedule, Ticket, Waiting, grow};
use slot::Slot;
use state::{End, Why};
use watcher::{PodShared, Watcher};

/// A future behind a pointer.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where pods come from. The host implements it over its shelf and this machine's processes.
pub trait Spawner: Send + Sync {
    /// Makes ready what a pod needs, and spawns one for that slot of the pool.
    fn spawn(&self, slot: Slot) -> BoxFuture<'_, Result<Watcher, Fault>>;

    /// The session that the pool is for, and no other call.
    fn session(&self) -> Option<String> {
        None
    }
}

/// The pods of one recipe. Cloning shares them; when the last clone and the last ask are gone, the pods finish and go.
#[derive(Clone)]
pub struct Pool(Arc<PoolShared>);

/// A look at a pool that does not keep it.
#[derive(Clone)]
pub struct WeakPool(Weak<PoolShared>);

impl Pool {
    /// An empty pool: the first ask starts the first pod. Must be used within a tokio runtime.
    pub fn new(recipe: Arc<Verified>, spec: PoolSpec, concurrency: u32, spawner: Arc<dyn Spawner>) -> Pool {
        Pool(Arc::new_cyclic(|this| PoolShared {
            this: this.clone(),
            recipe,
            spawner,
            spec,
            concurrency: concurrency as usize,
            born: Instant::now(),
            suspects: AtomicBool::new(false),
            quiet: Notify::new(),
            state: Mutex::new(PoolState {
                schedule: Schedule::new(POD_QUEUE_MAX),
                solo: VecDeque::new(),
                holders: HashMap::new(),
                members: Vec::new(),
                slots: 0,
                restarts: Restarts::new(),
                poison: Poison::new(),
                planned: None,
                fallback: 0,
                used: false,
                closed: false,
                done: 0,
                failed: 0,
                repeated: 0,
                crashes: 0,
                failing: 0,
                last_fault: None,
                hopeless: None,
            }),
        }))
    }

    /// Sends a request. It waits for its turn; a pod is started if none has room and there may be one more.
    ///
    /// Errors: `overloaded` and `cooling_down` (both with `retry_after`), `poison_request`, `shutting_down`; `invalid_input` for blobs of an
    /// operation that goes in batches.
    pub fn ask(&self, request: Request) -> Result<Ask, Fault> {
        let pool = &self.0;
        if request.operation.batch.is_some() && !request.blobs.is_empty() {
            let text = format!("`{}` takes its asks in batches, which carry no blobs", request.operation.name);
            return Err(Fault::new(Code::InvalidInput, text).hint("send the data within the input"));
        }
        let (now, priority) = (pool.now(), request.priority);
        let waiting = Waiting {
            priority,
            arrived: now,
            deadline: pool.at(request.deadline),
            group: request.operation.batch.is_some().then(|| Group { operation: request.operation.clone(), cost: request.cost, cohort: 0 }),
        };
        let (sender, chunks) = match request.operation.streaming {
            true => Some(stream::stream()).unzip(),
            false => (None, None),
        };
        let (end, receiver) = oneshot::channel();
        // Not under the lock: inputs may be large.
        let digest = pool.suspects.load(Ordering::Relaxed).then(|| digest(&request));
        let mut state = pool.lock();
        if state.closed {
            return Err(ending());
        }
        if let Some(digest) = digest {
            if let Some(after) = state.poison.check(&digest, now) {
                return Err(pool.poisoned(&request.operation.name, after));
            }
            pool.suspects.store(!state.poison.is_empty(), Ordering::Relaxed);
        }
        pool.refuse_while_cooling(&mut state, now, waiting.deadline)?;
        state.used = true;
        let pending = Pending { request, chunks: sender, end, tally: Tally::default(), begun: 0, ran: false, lowered: false, gave: false };
        let late = state.schedule.shed(now);
        let pushed = state.schedule.push(pending, waiting).map_err(|refused| {
            drop(refused.item);
            Fault::new(Code::Overloaded, format!("{} asks wait for `{}` already", refused.waiting, pool.name()))
                .hint("call again after `retry_after` milliseconds: that is how long the queue takes to move at its present pace")
                .retry_after(refused.retry_after)
        });
        let failed = pool.dispatch(&mut state, now);
        state.tell_outranked(priority);
        drop(state);
        pool.refuse(late, &overdue());
        failed.send();
        Ok(Ask { pool: pool.clone(), ticket: pushed?, chunks, end: receiver, over: false, taken: 0 })
    }

    /// Starts a pod if there is none, so that it is there sooner; from then on `min` pods are kept.
    pub fn warm(&self) {
        let mut state = self.0.lock();
        if state.closed || (state.used && !state.members.is_empty()) {
            return;
        }
        state.used = true;
        let failed = self.0.grow(&mut state, self.0.now(), true);
        drop(state);
        failed.send();
    }

    /// Forgets failures: the next ask starts a pod at once, and inputs that ended one are tried again.
    pub fn lift(&self) {
        let mut state = self.0.lock();
        state.restarts.lift();
        state.poison.clear();
        self.0.suspects.store(false, Ordering::Relaxed);
        (state.failing, state.fallback, state.hopeless) = (0, 0, None);
        let failed = self.0.dispatch(&mut state, self.0.now());
        drop(state);
        failed.send();
    }

    /// Reads each pod's memory from the system.
    pub fn status(&self) -> PoolStatus {
        let pool = &self.0;
        // Before the lock: it may be the last to look at a session that goes, with this pool.
        let session = pool.spawner.session();
        let state = pool.lock();
        let now = pool.now();
        let (health, retry_after) = match state.restarts.may_start(now) {
            MayStart::Quarantined(until) => (Health::Quarantined, Some(until)),
            // Nothing failed: there was no room for it.
            MayStart::At(at) if state.failing == 0 => (Health::Good, Some(at)),
            MayStart::At(at) => (Health::Failing, Some(at)),
            MayStart::Now if state.failing >= FAILING_ENDS_MIN => (Health::Failing, None),
            MayStart::Now => (Health::Good, None),
        };
        let [interactive, normal, bulk] = state.schedule.counts();
        let (recipe, version) = (pool.name(), pool.recipe.manifest().version.to_string());
        let members: Vec<_> = state.members.iter().map(|member| (member.since, member.watcher.clone())).collect();
        let mut status = PoolStatus {
            recipe,
            session,
            version,
            health,
            retry_after: retry_after.map(|at| at.saturating_sub(now).as_millis() as u64),
            waiting: status::Waiting { interactive, normal, bulk },
            pods_max: pool.spec.max,
            lever: pool.fallback_status(state.fallback),
            asks_done: state.done,
            asks_failed: state.failed,
            asks_repeated: state.repeated,
            crashes: state.crashes,
            last_fault: state.last_fault.clone(),
            pods: Vec::new(),
        };
        drop(state);
        status.pods = members
            .into_iter()
            .map(|(since, watcher)| match watcher {
                Some(watcher) => watcher.status(),
                None => PodStatus::provisioning(&status.recipe, &status.version, since.elapsed().as_millis() as u64),
            })
            .collect();
        status
    }

    /// `publisher/name` of the recipe.
    pub fn recipe(&self) -> String {
        self.0.name()
    }

    /// Whether it is of that very recipe.
    pub fn is_of(&self, recipe: &Arc<Verified>) -> bool {
        Arc::ptr_eq(&self.0.recipe, recipe)
    }

    /// From now on every ask is refused.
    pub fn refuse_all(&self) {
        self.0.lock().closed = true;
    }

    /// Takes nothing new; returns when all that was accepted is over, or at `until`: then what still waits ends as `shutting_down`.
    pub async fn close(&self, until: Instant) {
        let pool = &self.0;
        self.refuse_all();
        loop {
            let quiet = pool.quiet.notified();
            let quiet_now = pool.lock().is_quiet();
            if quiet_now || timeout_at(until, quiet).await.is_err() {
                break;
            }
        }
        let left = everybody(&mut pool.lock());
        pool.refuse(left, &ending());
    }

    pub fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0))
    }

    /// Asks the pods that are there for their state; whether there is one.
    pub fn want_checkpoint(&self) -> bool {
        self.tell_all(|shared| shared.request_checkpoint())
    }

    /// Whether there is no pod, nor one to come.
    pub fn is_empty(&self) -> bool {
        self.0.lock().members.is_empty()
    }

    /// Tells the pods that are there that their session is closed; whether there is one.
    pub fn want_close(&self) -> bool {
        self.tell_all(|shared| shared.request_close())
    }

    fn tell_all(&self, tell: impl Fn(&PodShared)) -> bool {
        let state = self.0.lock();
        let ready = state.members.iter().filter(|member| member.ready && !member.leaving).filter_map(|member| member.watcher.as_ref());
        ready.map(|watcher| tell(&watcher.shared)).count() > 0
    }

    /// Takes nothing more, ends what waits, and returns when no process of its pods is left.
    pub async fn end(&self) {
        self.close(Instant::now()).await;
        let watchers: Vec<_> = self.0.lock().members.iter().filter_map(|member| member.watcher.clone()).collect();
        for watcher in watchers {
            watcher.stop().await;
        }
    }
}

impl WeakPool {
    pub fn upgrade(&self) -> Option<Pool> {
        self.0.upgrade().map(Pool)
    }
}

impl PoolShared {
    pub(super) fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn fallback_status(&self, at: usize) -> Option<status::LeverStatus> {
        let lever = self.recipe.manifest().pod.as_ref()?.lever.as_ref()?;
        let value = serde_json::to_value(lever.values.get(at)?).ok()?;
        Some(status::LeverStatus { name: lever.name.clone(), value, lowered: at })
    }

    fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.born)
    }

    pub(super) fn name(&self) -> String {
        self.recipe.manifest().name.to_string()
    }

    /// Sees to what waits, after anything changed about it or about the pods: wakes the pod that should take next, and starts more. Gives the
    /// asks that nobody will take.
    pub(super) fn dispatch(&self, state: &mut PoolState, now: Duration) -> Refusals {
        self.offer(state, None);
        self.grow(state, now, false)
    }

    /// Wakes the pod that should take next, if one has room, but not the one that just saw for itself.
    pub(super) fn offer(&self, state: &PoolState, not: Option<u64>) {
        if state.schedule.is_empty() && state.solo.is_empty() {
            return;
        }
        let free = state.members.iter().filter(|member| Some(member.slot) != not && member.has_room(self.concurrency));
        // The first among equals, so that the others may be idle long enough to go.
        match free.min_by_key(|member| member.units) {
            Some(member) => member.watcher.iter().for_each(|watcher| watcher.shared.offer_work()),
            None => state.members.iter().filter_map(|member| member.watcher.as_ref()).for_each(|watcher| watcher.shared.tell_crowded()),
        }
        state.tell_awaiting_memory();
    }

    /// Starts as many pods as are wanted and may be; gives the asks that nobody will take.
    fn grow(&self, state: &mut PoolState, now: Duration, warm: bool) -> Refusals {
        loop {
            let live = state.members.len();
            let staying = state.members.iter().filter(|member| !member.leaving).count();
            let asleep = state.members.iter().filter(|member| member.asleep && !member.leaving).count();
            let starting = state.members.iter().filter(|member| !member.ready && !member.leaving).count() - asleep;
            let room = |member: &Member| if member.has_room(self.concurrency) { self.concurrency - member.units } else { 0 };
            let room = state.members.iter().map(room).sum();
            let empty = state.members.iter().filter(|member| member.has_room(self.concurrency) && member.units == 0).count();
            let max = self.spec.max + asleep;
            let wanted = grow(state.schedule.units() + state.solo.len(), room, starting, live, max)
                || grow(state.solo.len(), empty, starting, live, max);
            if wanted && asleep > 0 {
                self.wake(state);
                continue;
            }
            let below_min = state.used && !state.closed && live < self.spec.min;
            if !(wanted || below_min || (warm && live == 0)) {
                return Refusals::none();
            }
            match state.restarts.may_start(now) {
                // One is enough to see whether the recipe is cured.
                MayStart::Now if state.restarts.is_on_trial() && staying > 0 => return Refusals::none(),
                MayStart::Now => self.start(state),
                MayStart::At(at) => {
                    self.plan(state, at);
                    return Refusals::none();
                }
                MayStart::Quarantined(until) if staying == 0 => {
                    if below_min {
                        self.plan(state, until);
                    }
                    let fault = self.cooling(state, until.saturating_sub(now));
                    return Refusals(everybody(state), Some(fault));
                }
                MayStart::Quarantined(until) => {
                    self.plan(state, until);
                    return Refusals::none();
                }
            }
        }
    }

    /// A pod without models is to load them.
    fn wake(&self, state: &mut PoolState) {
        if let Some(member) = state.members.iter_mut().find(|member| member.asleep && !member.leaving) {
            member.asleep = false;
            if let Some(watcher) = &member.watcher {
                watcher.shared.offer_work();
            }
        }
    }

    fn start(&self, state: &mut PoolState) {
        state.slots += 1;
        let id = state.slots;
        state.members.push(Member {
            slot: id,
            since: Instant::now(),
            watcher: None,
            ready: false,
            asleep: false,
            awaits_memory: false,
            yielding: false,
            leaving: false,
            alone: false,
            units: 0,
            class: None,
        });
        let (pool, spawner) = (self.this.clone(), self.spawner.clone());
        tokio::spawn(async move {
            let spawned = spawner.spawn(Slot { pool: pool.clone(), id }).await;
            match (pool.upgrade(), spawned) {
                (Some(pool), spawned) => pool.spawned(id, spawned),
                // Nobody wants it any more.
                (None, Ok(watcher)) => watcher.shared.retire(),
                (None, Err(_)) => {}
            }
        });
    }

    /// Looks again at that time whether a pod is wanted.
    fn plan(&self, state: &mut PoolState, at: Duration) {
        if state.planned.is_some_and(|planned| planned <= at) {
            return;
        }
        state.planned = Some(at);
        let (pool, when) = (self.this.clone(), self.born + at);
        tokio::spawn(async move {
            sleep_until(when).await;
            let Some(pool) = pool.upgrade() else { return };
            let mut state = pool.lock();
            state.planned.take_if(|planned| *planned == at);
            let failed = pool.dispatch(&mut state, pool.now());
            drop(state);
            failed.send();
        });
    }

    fn spawned(&self, slot: u64, spawned: Result<Watcher, Fault>) {
        match spawned {
            Ok(watcher) => {
                let mut state = self.lock();
                match state.members.iter_mut().find(|member| member.slot == slot) {
                    Some(member) => member.watcher = Some(watcher),
                    None => return,
                }
                // It may have been ready before it was known.
                self.offer(&state, None);
            }
            Err(fault) => {
                let why = if fault.code == Code::Overloaded { Why::Short } else { Why::Failed };
                self.ended(slot, End { why, was_ready: false, was_useful: false, was_killed_at_start: false, fault });
            }
        }
    }

    /// A pod is over, or never was. Its asks were dealt with by its driver.
    pub(super) fn ended(&self, slot: u64, end: End) {
        let mut state = self.lock();
        state.members.retain(|member| member.slot != slot);
        let now = self.now();
        let mut failed = Refusals::none();
        let jitter = (RandomState::new().hash_one(slot) % 1_000) as f64 / 1_000.0;
        match end.why {
            Why::Asked => {}
            // What waits gets another one.
            Why::NeverBegan => state.restarts.died(now, false, jitter),
            Why::Refused => {
                state.last_fault = Some(end.fault.clone());
                // One that is serving had a place: there may be one again.
                match state.members.iter().any(|member| member.ready && !member.leaving) {
                    true => state.restarts.died(now, false, jitter),
                    false => {
                        state.restarts.hopeless(now);
                        state.hopeless = Some(end.fault.clone());
                        failed = Refusals(everybody(&mut state), Some(end.fault));
                    }
                }
            }
            Why::Short => {
                state.restarts.pause(now);
                // Who waits beside pods of its own waits for these.
                if !state.members.iter().any(|member| !member.leaving) {
                    failed = Refusals(everybody(&mut state), Some(end.fault));
                }
            }
            Why::Failed => {
                state.crashes += 1;
                state.failing += if end.was_ready { 1 } else { UNUSED_START_ENDS };
                state.last_fault = Some(end.fault.clone());
                state.hopeless = None;
                state.restarts.died(now, end.was_useful, jitter);
                // What fails to start would fail for everybody who waits; unless another pod serves them.
                let others = state.members.iter().any(|member| !member.leaving);
                if !end.was_ready && !end.was_killed_at_start && !others {
                    failed = Refusals(everybody(&mut state), Some(end.fault));
                }
            }
        }
        let cooling = self.dispatch(&mut state, now);
        drop(state);
        failed.send();
        cooling.send();
        self.quiet.notify_waiters();
    }

    /// The caller of that ask took so much of its chunks.
    pub(super) fn credit(&self, ticket: Ticket, weight: u32) {
        if let Some(shared) = self.lock().holders.get(&ticket) {
            shared.credit(ticket, weight);
        }
    }

    /// The caller of that ask is gone.
    pub(super) fn withdraw(&self, ticket: Ticket) {
        let mut state = self.lock();
        let left = state.schedule.remove(ticket);
        let waited = left.is_some() || {
            let before = state.solo.len();
            state.solo.retain(|ticketed| ticketed.ticket != ticket);
            state.solo.len() != before
        };
        if !waited && let Some(shared) = state.holders.get(&ticket) {
            shared.cancel(ticket);
        }
        state.tell_awaiting_memory();
        drop(state);
        if waited {
            self.quiet.notify_waiters();
        }
    }
}

impl Drop for PoolShared {
    /// No pool and no ask is left: whatever pods there are have nothing more to do.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        for watcher in state.members.iter().filter_map(|member| member.watcher.as_ref()) {
            watcher.shared.retire();
        }
    }
}

/// A request under way. Dropping it cancels the work down to the worker.
pub struct Ask {
    pool: Arc<PoolShared>,
    pub(in crate::pod) ticket: Ticket,
    pub(in crate::pod) chunks: Option<Inlet>,
    pub(in crate::pod) end: oneshot::Receiver<Reply>,
    pub(in crate::pod) over: bool,
    /// Weight of the chunks that were taken since the pod was told.
    pub(in crate::pod) taken: u32,
}

impl Ask {
    /// The next reply; none after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Reply> {
        if let Some(chunks) = &mut self.chunks {
            match chunks.take().await {
                Ok(Some((payload, weight))) => {
                    self.taken += weight;
                    if self.taken >= CHUNK_CREDIT / 2 {
                        self.pool.credit(self.ticket, std::mem::take(&mut self.taken));
                    }
                    return Some(Reply::Chunk(payload));
                }
                // A stream with a hole is none: as if its caller had gone.
                Err(fault) => {
                    self.chunks = None;
                    self.leave();
                    return Some(Reply::Fault(fault));
                }
                Ok(None) => {}
            }
            // The driver lets go of this end before it sends the last reply.
            self.chunks = None;
        }
        if self.over {
            return None;
        }
        let reply = (&mut self.end).await.ok();
        self.over = true;
        reply
    }
}

impl Ask {
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            // First, so that nobody puts it back meanwhile for a caller that is gone.
            self.end.close();
            self.pool.withdraw(self.ticket);
        }
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.leave();
    }
}
