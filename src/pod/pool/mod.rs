//! The pods of one recipe and what waits for them: asks come in here, drivers take them from here.
//!
//! Apart from `driver/`, which owns one pod and knows no other, and from the pure policies in `schedule.rs`, `restarts.rs` and `poison.rs`,
//! which decide without clock or lock. Here is the one lock around them. It is held to decide, never across an await, and no caller and no
//! driver waits for a pod while it is held.

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
use state::{Book, Inner, Member};
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
use slot::Seat;
use state::{End, Why};
use watcher::{Shared, Watcher};

/// A future behind a pointer.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where pods come from. The host implements it over its shelf and this machine's processes.
pub trait Spawner: Send + Sync {
    /// Makes ready what a pod needs, and spawns one for that seat of the pool.
    fn spawn(&self, seat: Seat) -> BoxFuture<'_, Result<Watcher, Fault>>;

    /// The session that the pool is for, and no other call.
    fn session(&self) -> Option<String> {
        None
    }
}

/// The pods of one recipe. Cloning shares them; when the last clone and the last ask are gone, the pods finish and go.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

/// A look at a pool that does not keep it.
#[derive(Clone)]
pub struct WeakPool(Weak<Inner>);

impl Pool {
    /// An empty pool: the first ask starts the first pod. Must be used within a tokio runtime.
    pub fn new(recipe: Arc<Verified>, spec: PoolSpec, concurrency: u32, spawner: Arc<dyn Spawner>) -> Pool {
        Pool(Arc::new_cyclic(|this| Inner {
            this: this.clone(),
            recipe,
            spawner,
            spec,
            concurrency: concurrency as usize,
            born: Instant::now(),
            suspects: AtomicBool::new(false),
            quiet: Notify::new(),
            book: Mutex::new(Book {
                schedule: Schedule::new(POD_QUEUE_MAX),
                solo: VecDeque::new(),
                placed: HashMap::new(),
                members: Vec::new(),
                seats: 0,
                restarts: Restarts::new(),
                poison: Poison::new(),
                planned: None,
                lever: 0,
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
        let mut book = pool.book();
        if book.closed {
            return Err(ending());
        }
        if let Some(digest) = digest {
            if let Some(after) = book.poison.check(&digest, now) {
                return Err(pool.poisoned(&request.operation.name, after));
            }
            pool.suspects.store(!book.poison.is_empty(), Ordering::Relaxed);
        }
        pool.refuse_while_cooling(&mut book, now, waiting.deadline)?;
        book.used = true;
        let pending = Pending { request, chunks: sender, end, tally: Tally::default(), begun: 0, ran: false, lowered: false, gave: false };
        let late = book.schedule.shed(now);
        let pushed = book.schedule.push(pending, waiting).map_err(|refused| {
            drop(refused.item);
            Fault::new(Code::Overloaded, format!("{} asks wait for `{}` already", refused.waiting, pool.name()))
                .hint("call again after `retry_after` milliseconds: that is how long the queue takes to move at its present pace")
                .retry_after(refused.retry_after)
        });
        let failed = pool.dispatch(&mut book, now);
        book.tell_outranked(priority);
        drop(book);
        pool.refuse(late, &overdue());
        failed.send();
        Ok(Ask { pool: pool.clone(), ticket: pushed?, chunks, end: receiver, over: false, taken: 0 })
    }

    /// Starts a pod if there is none, so that it is there sooner; from then on `min` pods are kept.
    pub fn warm(&self) {
        let mut book = self.0.book();
        if book.closed || (book.used && !book.members.is_empty()) {
            return;
        }
        book.used = true;
        let failed = self.0.grow(&mut book, self.0.now(), true);
        drop(book);
        failed.send();
    }

    /// Forgets failures: the next ask starts a pod at once, and inputs that ended one are tried again.
    pub fn lift(&self) {
        let mut book = self.0.book();
        book.restarts.lift();
        book.poison.clear();
        self.0.suspects.store(false, Ordering::Relaxed);
        (book.failing, book.lever, book.hopeless) = (0, 0, None);
        let failed = self.0.dispatch(&mut book, self.0.now());
        drop(book);
        failed.send();
    }

    /// Reads each pod's memory from the system.
    pub fn status(&self) -> PoolStatus {
        let pool = &self.0;
        // Before the lock: it may be the last to look at a session that goes, with this pool.
        let session = pool.spawner.session();
        let book = pool.book();
        let now = pool.now();
        let (health, retry_after) = match book.restarts.may_start(now) {
            MayStart::Quarantined(until) => (Health::Quarantined, Some(until)),
            // Nothing failed: there was no room for it.
            MayStart::At(at) if book.failing == 0 => (Health::Good, Some(at)),
            MayStart::At(at) => (Health::Failing, Some(at)),
            MayStart::Now if book.failing >= FAILING_ENDS_MIN => (Health::Failing, None),
            MayStart::Now => (Health::Good, None),
        };
        let [interactive, normal, bulk] = book.schedule.counts();
        let (recipe, version) = (pool.name(), pool.recipe.manifest().version.to_string());
        let members: Vec<_> = book.members.iter().map(|member| (member.since, member.watcher.clone())).collect();
        let mut status = PoolStatus {
            recipe,
            session,
            version,
            health,
            retry_after: retry_after.map(|at| at.saturating_sub(now).as_millis() as u64),
            waiting: status::Waiting { interactive, normal, bulk },
            pods_max: pool.spec.max,
            lever: pool.lever_status(book.lever),
            asks_done: book.done,
            asks_failed: book.failed,
            asks_repeated: book.repeated,
            crashes: book.crashes,
            last_fault: book.last_fault.clone(),
            pods: Vec::new(),
        };
        drop(book);
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
        self.0.book().closed = true;
    }

    /// Takes nothing new; returns when all that was accepted is over, or at `until`: then what still waits ends as `shutting_down`.
    pub async fn close(&self, until: Instant) {
        let pool = &self.0;
        self.refuse_all();
        loop {
            let quiet = pool.quiet.notified();
            let quiet_now = pool.book().is_quiet();
            if quiet_now || timeout_at(until, quiet).await.is_err() {
                break;
            }
        }
        let left = everybody(&mut pool.book());
        pool.refuse(left, &ending());
    }

    pub fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0))
    }

    /// Asks the pods that are there for their state; whether there is one.
    pub fn want_checkpoint(&self) -> bool {
        self.tell_all(|shared| shared.want_checkpoint())
    }

    /// Whether there is no pod, nor one to come.
    pub fn is_empty(&self) -> bool {
        self.0.book().members.is_empty()
    }

    /// Tells the pods that are there that their session is closed; whether there is one.
    pub fn want_close(&self) -> bool {
        self.tell_all(|shared| shared.want_close())
    }

    fn tell_all(&self, tell: impl Fn(&Shared)) -> bool {
        let book = self.0.book();
        let ready = book.members.iter().filter(|member| member.ready && !member.leaving).filter_map(|member| member.watcher.as_ref());
        ready.map(|watcher| tell(&watcher.shared)).count() > 0
    }

    /// Takes nothing more, ends what waits, and returns when no process of its pods is left.
    pub async fn end(&self) {
        self.close(Instant::now()).await;
        let watchers: Vec<_> = self.0.book().members.iter().filter_map(|member| member.watcher.clone()).collect();
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

impl Inner {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn lever_status(&self, at: usize) -> Option<status::LeverStatus> {
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
    pub(super) fn dispatch(&self, book: &mut Book, now: Duration) -> Refusals {
        self.offer(book, None);
        self.grow(book, now, false)
    }

    /// Wakes the pod that should take next, if one has room, but not the one that just saw for itself.
    pub(super) fn offer(&self, book: &Book, not: Option<u64>) {
        if book.schedule.is_empty() && book.solo.is_empty() {
            return;
        }
        let free = book.members.iter().filter(|member| Some(member.seat) != not && member.has_room(self.concurrency));
        // The first among equals, so that the others may be idle long enough to go.
        match free.min_by_key(|member| member.units) {
            Some(member) => member.watcher.iter().for_each(|watcher| watcher.shared.offer()),
            None => book.members.iter().filter_map(|member| member.watcher.as_ref()).for_each(|watcher| watcher.shared.crowded()),
        }
        book.tell_placeless();
    }

    /// Starts as many pods as are wanted and may be; gives the asks that nobody will take.
    fn grow(&self, book: &mut Book, now: Duration, warm: bool) -> Refusals {
        loop {
            let live = book.members.len();
            let staying = book.members.iter().filter(|member| !member.leaving).count();
            let asleep = book.members.iter().filter(|member| member.asleep && !member.leaving).count();
            let starting = book.members.iter().filter(|member| !member.ready && !member.leaving).count() - asleep;
            let room = |member: &Member| if member.has_room(self.concurrency) { self.concurrency - member.units } else { 0 };
            let room = book.members.iter().map(room).sum();
            let empty = book.members.iter().filter(|member| member.has_room(self.concurrency) && member.units == 0).count();
            let max = self.spec.max + asleep;
            let wanted = grow(book.schedule.units() + book.solo.len(), room, starting, live, max)
                || grow(book.solo.len(), empty, starting, live, max);
            if wanted && asleep > 0 {
                self.wake(book);
                continue;
            }
            let below_min = book.used && !book.closed && live < self.spec.min;
            if !(wanted || below_min || (warm && live == 0)) {
                return Refusals::none();
            }
            match book.restarts.may_start(now) {
                // One is enough to see whether the recipe is cured.
                MayStart::Now if book.restarts.is_on_trial() && staying > 0 => return Refusals::none(),
                MayStart::Now => self.start(book),
                MayStart::At(at) => {
                    self.plan(book, at);
                    return Refusals::none();
                }
                MayStart::Quarantined(until) if staying == 0 => {
                    if below_min {
                        self.plan(book, until);
                    }
                    let fault = self.cooling(book, until.saturating_sub(now));
                    return Refusals(everybody(book), Some(fault));
                }
                MayStart::Quarantined(until) => {
                    self.plan(book, until);
                    return Refusals::none();
                }
            }
        }
    }

    /// A pod without models is to load them.
    fn wake(&self, book: &mut Book) {
        if let Some(member) = book.members.iter_mut().find(|member| member.asleep && !member.leaving) {
            member.asleep = false;
            if let Some(watcher) = &member.watcher {
                watcher.shared.offer();
            }
        }
    }

    fn start(&self, book: &mut Book) {
        book.seats += 1;
        let id = book.seats;
        book.members.push(Member {
            seat: id,
            since: Instant::now(),
            watcher: None,
            ready: false,
            asleep: false,
            placeless: false,
            yields: false,
            leaving: false,
            alone: false,
            units: 0,
            class: None,
        });
        let (pool, spawner) = (self.this.clone(), self.spawner.clone());
        tokio::spawn(async move {
            let spawned = spawner.spawn(Seat { pool: pool.clone(), id }).await;
            match (pool.upgrade(), spawned) {
                (Some(pool), spawned) => pool.spawned(id, spawned),
                // Nobody wants it any more.
                (None, Ok(watcher)) => watcher.shared.retire(),
                (None, Err(_)) => {}
            }
        });
    }

    /// Looks again at that time whether a pod is wanted.
    fn plan(&self, book: &mut Book, at: Duration) {
        if book.planned.is_some_and(|planned| planned <= at) {
            return;
        }
        book.planned = Some(at);
        let (pool, when) = (self.this.clone(), self.born + at);
        tokio::spawn(async move {
            sleep_until(when).await;
            let Some(pool) = pool.upgrade() else { return };
            let mut book = pool.book();
            book.planned.take_if(|planned| *planned == at);
            let failed = pool.dispatch(&mut book, pool.now());
            drop(book);
            failed.send();
        });
    }

    fn spawned(&self, seat: u64, spawned: Result<Watcher, Fault>) {
        match spawned {
            Ok(watcher) => {
                let mut book = self.book();
                match book.members.iter_mut().find(|member| member.seat == seat) {
                    Some(member) => member.watcher = Some(watcher),
                    None => return,
                }
                // It may have been ready before it was known.
                self.offer(&book, None);
            }
            Err(fault) => {
                let why = if fault.code == Code::Overloaded { Why::Short } else { Why::Failed };
                self.over(seat, End { why, was_ready: false, was_useful: false, was_killed_at_start: false, fault });
            }
        }
    }

    /// A pod is over, or never was. Its asks were dealt with by its driver.
    pub(super) fn over(&self, seat: u64, end: End) {
        let mut book = self.book();
        book.members.retain(|member| member.seat != seat);
        let now = self.now();
        let mut failed = Refusals::none();
        let jitter = (RandomState::new().hash_one(seat) % 1_000) as f64 / 1_000.0;
        match end.why {
            Why::Asked => {}
            // What waits gets another one.
            Why::NeverBegan => book.restarts.died(now, false, jitter),
            Why::Refused => {
                book.last_fault = Some(end.fault.clone());
                // One that is serving had a place: there may be one again.
                match book.members.iter().any(|member| member.ready && !member.leaving) {
                    true => book.restarts.died(now, false, jitter),
                    false => {
                        book.restarts.hopeless(now);
                        book.hopeless = Some(end.fault.clone());
                        failed = Refusals(everybody(&mut book), Some(end.fault));
                    }
                }
            }
            Why::Short => {
                book.restarts.pause(now);
                // Who waits beside pods of its own waits for these.
                if !book.members.iter().any(|member| !member.leaving) {
                    failed = Refusals(everybody(&mut book), Some(end.fault));
                }
            }
            Why::Failed => {
                book.crashes += 1;
                book.failing += if end.was_ready { 1 } else { UNUSED_START_ENDS };
                book.last_fault = Some(end.fault.clone());
                book.hopeless = None;
                book.restarts.died(now, end.was_useful, jitter);
                // What fails to start would fail for everybody who waits; unless another pod serves them.
                let others = book.members.iter().any(|member| !member.leaving);
                if !end.was_ready && !end.was_killed_at_start && !others {
                    failed = Refusals(everybody(&mut book), Some(end.fault));
                }
            }
        }
        let cooling = self.dispatch(&mut book, now);
        drop(book);
        failed.send();
        cooling.send();
        self.quiet.notify_waiters();
    }

    /// The caller of that ask took so much of its chunks.
    pub(super) fn credit(&self, ticket: Ticket, weight: u32) {
        if let Some(shared) = self.book().placed.get(&ticket) {
            shared.credit(ticket, weight);
        }
    }

    /// The caller of that ask is gone.
    pub(super) fn leave(&self, ticket: Ticket) {
        let mut book = self.book();
        let left = book.schedule.remove(ticket);
        let waited = left.is_some() || {
            let before = book.solo.len();
            book.solo.retain(|placed| placed.ticket != ticket);
            book.solo.len() != before
        };
        if !waited && let Some(shared) = book.placed.get(&ticket) {
            shared.cancel(ticket);
        }
        book.tell_placeless();
        drop(book);
        if waited {
            self.quiet.notify_waiters();
        }
    }
}

impl Drop for Inner {
    /// No pool and no ask is left: whatever pods there are have nothing more to do.
    fn drop(&mut self) {
        let book = self.book.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        for watcher in book.members.iter().filter_map(|member| member.watcher.as_ref()) {
            watcher.shared.retire();
        }
    }
}

/// A request under way. Dropping it cancels the work down to the worker.
pub struct Ask {
    pool: Arc<Inner>,
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
            self.pool.leave(self.ticket);
        }
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.leave();
    }
}
