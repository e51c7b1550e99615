//! The pods of one recipe and what waits for them: asks come in here, drivers take them from here.
//!
//! Apart from `driver.rs`, which owns one pod and knows no other, and from the pure policies in `schedule.rs`, `restarts.rs` and `poison.rs`,
//! which decide without clock or lock. Here is the one lock around them. It is held to decide, never across an await, and no caller and no
//! driver waits for a pod while it is held.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sha2::Digest as _;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    handle::{Ask, Pending, Placed, Reply, Request, Shared, Watcher},
    poison::{Poison, Tally},
    restarts::{MayStart, Restarts},
    schedule::{Group, Schedule, Ticket, Waiting, grow},
    seat::{End, Report, Seat},
};
use crate::model::{
    Code, Fault, Verified,
    limits::{CALL_EVENTS_MAX, FAILING_ENDS_MIN, POD_QUEUE_MAX, UNUSED_START_ENDS},
    recipe::PoolSpec,
    status::{self, Health, PoolStatus},
};

/// A future behind a pointer.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where pods come from. The host implements it over its shelf and this machine's processes.
pub trait Spawner: Send + Sync {
    /// Makes ready what a pod needs, and spawns one for that seat of the pool.
    fn spawn(&self, seat: Seat) -> BoxFuture<'_, Result<Watcher, Fault>>;
}

/// The pods of one recipe. Cloning shares them; when the last clone and the last ask are gone, the pods finish and go.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

/// A look at a pool that does not keep it.
#[derive(Clone)]
pub struct WeakPool(Weak<Inner>);

/// See [`Pool`].
pub(super) struct Inner {
    pub(super) this: Weak<Inner>,
    pub(super) recipe: Arc<Verified>,
    pub(super) spawner: Arc<dyn Spawner>,
    pub(super) spec: PoolSpec,
    pub(super) concurrency: usize,
    pub(super) born: Instant,
    pub(super) book: Mutex<Book>,
    /// Whether an input is remembered for having ended a pod: only then are inputs digested.
    pub(super) suspects: AtomicBool,
    /// Told whenever work is over, for who waits until there is none.
    pub(super) quiet: Notify,
}

/// What the lock guards.
pub(super) struct Book {
    pub(super) schedule: Schedule<Pending>,
    /// Asks whose pod ended while others were at work there too: the next to go alone, to tell which of them it was.
    pub(super) solo: VecDeque<Placed>,
    /// In whose hands an ask is.
    pub(super) placed: HashMap<Ticket, Arc<Shared>>,
    pub(super) members: Vec<Member>,
    pub(super) seats: u64,
    pub(super) restarts: Restarts,
    pub(super) poison: Poison,
    /// A start is planned for later.
    pub(super) planned: bool,
    /// The recipe was asked, or is to be kept ready: `min` counts from then on.
    pub(super) used: bool,
    pub(super) closed: bool,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) repeated: u64,
    pub(super) crashes: u64,
    /// Ends of pods since the last good answer; a start that came to nothing counts for several.
    pub(super) failing: u32,
    pub(super) last_fault: Option<Fault>,
}

/// One pod, from the wish to have it until it is buried.
pub(super) struct Member {
    pub(super) seat: u64,
    pub(super) since: Instant,
    /// None while its environment is made ready.
    pub(super) watcher: Option<Watcher>,
    pub(super) ready: bool,
    /// It takes nothing any more.
    pub(super) leaving: bool,
    /// Units in its hands.
    pub(super) units: usize,
}

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
                planned: false,
                used: false,
                closed: false,
                done: 0,
                failed: 0,
                repeated: 0,
                crashes: 0,
                failing: 0,
                last_fault: None,
            }),
        }))
    }

    /// Sends a request. It waits for its turn; a pod is started if none has room and there may be one more.
    ///
    /// Errors: `overloaded` and `cooling_down` (both with `retry_after`), `poison_request`, `shutting_down`.
    pub fn ask(&self, request: Request) -> Result<Ask, Fault> {
        let pool = &self.0;
        let now = pool.now();
        let waiting = Waiting {
            priority: request.priority,
            arrived: now,
            deadline: pool.at(request.deadline),
            group: request.operation.batch.is_some().then(|| Group { operation: request.operation.clone(), cost: request.cost, cohort: 0 }),
        };
        let (sender, chunks) = match request.operation.streaming {
            true => Some(mpsc::channel(CALL_EVENTS_MAX)).unzip(),
            false => (None, None),
        };
        let (end, receiver) = oneshot::channel();
        let mut book = pool.book();
        if book.closed {
            return Err(ending());
        }
        if pool.suspects.load(Ordering::Relaxed)
            && let Some(after) = book.poison.check(&digest(&request), now)
        {
            return Err(pool.poisoned(&request.operation.name, after));
        }
        pool.refuse_while_cooling(&mut book, now, waiting.deadline)?;
        book.used = true;
        let pending = Pending { request, chunks: sender, end, tally: Tally::default(), begun: 0 };
        let late = book.schedule.shed(now);
        let pushed = book.schedule.push(pending, waiting).map_err(|refused| {
            drop(refused.item);
            Fault::new(Code::Overloaded, format!("{} asks wait for `{}` already", refused.waiting, pool.name()))
                .hint("call again after `retry_after` milliseconds: that is how long the queue takes to move at its present pace")
                .retry_after(refused.retry_after)
        });
        pool.offer(&mut book);
        let failed = pool.grow(&mut book, now, false);
        drop(book);
        pool.refuse(late, &overdue());
        failed.send();
        Ok(Ask { pool: pool.clone(), ticket: pushed?, chunks, end: receiver, over: false })
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
        book.failing = 0;
        let failed = self.0.grow(&mut book, self.0.now(), false);
        drop(book);
        failed.send();
    }

    /// Reads each pod's memory from the system.
    pub fn status(&self) -> PoolStatus {
        let pool = &self.0;
        let book = pool.book();
        let now = pool.now();
        let (health, retry_after) = match book.restarts.may_start(now) {
            MayStart::Quarantined(until) => (Health::Quarantined, Some(until)),
            MayStart::At(at) => (Health::Failing, Some(at)),
            MayStart::Now if book.failing >= FAILING_ENDS_MIN => (Health::Failing, None),
            MayStart::Now => (Health::Good, None),
        };
        let [interactive, normal, bulk] = book.schedule.counts();
        let (recipe, version) = (pool.name(), pool.recipe.manifest().version.to_string());
        let members: Vec<_> = book.members.iter().map(|member| (member.since, member.watcher.clone())).collect();
        let mut status = PoolStatus {
            recipe,
            version,
            health,
            retry_after: retry_after.map(|at| at.saturating_sub(now).as_millis() as u64),
            waiting: status::Waiting { interactive, normal, bulk },
            pods_max: pool.spec.max,
            asks_done: book.done,
            asks_failed: book.failed,
            asks_repeated: book.repeated,
            crashes: book.crashes,
            last_fault: book.last_fault.clone(),
            pods: Vec::new(),
        };
        drop(book);
        let provisioning = |since: Instant| status::PodStatus {
            recipe: status.recipe.clone(),
            version: status.version.clone(),
            state: "provisioning".to_owned(),
            since_ms: since.elapsed().as_millis() as u64,
            age_ms: since.elapsed().as_millis() as u64,
            pid: None,
            incarnation: String::new(),
            memory_bytes: None,
            asks: 0,
            in_hand: 0,
            last_fault: None,
        };
        status.pods = members
            .into_iter()
            .map(|(since, watcher)| match watcher {
                Some(watcher) => watcher.status(),
                None => provisioning(since),
            })
            .collect();
        status
    }

    /// `publisher/name` of the recipe.
    pub fn recipe(&self) -> String {
        self.0.name()
    }

    /// Takes nothing new; returns when all that was accepted is over, or at `until`: then what still waits ends as `shutting_down`.
    pub async fn close(&self, until: Instant) {
        let pool = &self.0;
        pool.book().closed = true;
        loop {
            let quiet = pool.quiet.notified();
            let idle = {
                let book = pool.book();
                book.schedule.is_empty() && book.solo.is_empty() && book.placed.is_empty()
            };
            if idle || timeout_at(until, quiet).await.is_err() {
                break;
            }
        }
        let left = {
            let mut book = pool.book();
            let solo: Vec<_> = book.solo.drain(..).map(|placed| placed.pending).collect();
            [book.schedule.drain(), solo].concat_all()
        };
        pool.refuse(left, &ending());
    }

    pub fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0))
    }
}

impl WeakPool {
    pub fn upgrade(&self) -> Option<Pool> {
        self.0.upgrade().map(Pool)
    }
}

/// Asks that end without having been begun, and why; sent once the lock is let go of.
#[must_use]
pub(super) struct Refusals(Vec<Pending>, Option<Fault>);

impl Refusals {
    fn none() -> Refusals {
        Refusals(Vec::new(), None)
    }
    pub(super) fn send(self) {
        let Refusals(asks, Some(fault)) = self else { return };
        for ask in asks {
            ask.finish(Reply::Fault(fault.clone()));
        }
    }
}

trait ConcatAll<T> {
    fn concat_all(self) -> Vec<T>;
}
impl<T, const N: usize> ConcatAll<T> for [Vec<T>; N] {
    fn concat_all(self) -> Vec<T> {
        self.into_iter().flatten().collect()
    }
}

impl Inner {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.born)
    }

    fn name(&self) -> String {
        self.recipe.manifest().name.to_string()
    }

    pub(super) fn refuse(&self, asks: Vec<Pending>, fault: &Fault) {
        Refusals(asks, Some(fault.clone())).send();
    }

    /// Wakes the pod that should take next, if one has room.
    pub(super) fn offer(&self, book: &mut Book) {
        if book.schedule.is_empty() && book.solo.is_empty() {
            return;
        }
        let free = book.members.iter().filter(|member| member.ready && !member.leaving && member.units < self.concurrency);
        // The first among equals, so that the others may be idle long enough to go.
        if let Some(shared) = free.min_by_key(|member| member.units).and_then(|member| member.watcher.as_ref()) {
            shared.shared.offer();
        }
    }

    /// Starts as many pods as are wanted and may be; gives the asks that nobody will take.
    pub(super) fn grow(&self, book: &mut Book, now: Duration, warm: bool) -> Refusals {
        loop {
            let live = book.members.len();
            let starting = book.members.iter().filter(|member| !member.ready && !member.leaving).count();
            let serving = book.members.iter().filter(|member| member.ready && !member.leaving);
            let room = serving.map(|member| self.concurrency.saturating_sub(member.units)).sum();
            let waiting = book.schedule.units() + book.solo.len();
            let below_min = book.used && !book.closed && live < self.spec.min;
            if !(grow(waiting, room, starting, live, self.spec.max) || below_min || (warm && live == 0)) {
                return Refusals::none();
            }
            match book.restarts.may_start(now) {
                // One is enough to see whether the recipe is cured.
                MayStart::Now if book.restarts.is_on_trial() && live > 0 => return Refusals::none(),
                MayStart::Now => self.start(book),
                MayStart::At(at) => {
                    self.plan(book, at);
                    return Refusals::none();
                }
                MayStart::Quarantined(until) if live == 0 => {
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

    fn start(&self, book: &mut Book) {
        book.seats += 1;
        let id = book.seats;
        book.members.push(Member { seat: id, since: Instant::now(), watcher: None, ready: false, leaving: false, units: 0 });
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
        if std::mem::replace(&mut book.planned, true) {
            return;
        }
        let (pool, when) = (self.this.clone(), self.born + at);
        tokio::spawn(async move {
            sleep_until(when).await;
            let Some(pool) = pool.upgrade() else { return };
            let mut book = pool.book();
            book.planned = false;
            let failed = pool.grow(&mut book, pool.now(), false);
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
                self.offer(&mut book);
            }
            Err(fault) => self.over(seat, End { unwanted: true, was_ready: false, was_useful: false, was_killed_at_start: false, fault }),
        }
    }

    /// A pod is over, or never was. Its asks were dealt with by its driver.
    pub(super) fn over(&self, seat: u64, end: End) {
        let mut book = self.book();
        book.members.retain(|member| member.seat != seat);
        let now = self.now();
        let mut failed = Refusals::none();
        if end.unwanted {
            book.crashes += 1;
            book.failing += if end.was_ready { 1 } else { UNUSED_START_ENDS };
            book.last_fault = Some(end.fault.clone());
            let jitter = (RandomState::new().hash_one(seat) % 1_000) as f64 / 1_000.0;
            book.restarts.died(now, end.was_useful, jitter);
            // What fails to start would fail for everybody who waits; unless another pod serves them.
            let others = book.members.iter().any(|member| !member.leaving);
            if !end.was_ready && !end.was_killed_at_start && !others {
                failed = Refusals(everybody(&mut book), Some(end.fault));
            }
        }
        let cooling = self.grow(&mut book, now, false);
        drop(book);
        failed.send();
        cooling.send();
        self.quiet.notify_waiters();
    }

    /// Refuses at once what no pod could take in time.
    fn refuse_while_cooling(&self, book: &mut Book, now: Duration, deadline: Duration) -> Result<(), Fault> {
        if !book.members.is_empty() {
            return Ok(());
        }
        match book.restarts.may_start(now) {
            MayStart::Now => Ok(()),
            MayStart::At(at) if at < deadline => Ok(()),
            MayStart::At(at) | MayStart::Quarantined(at) => Err(self.cooling(book, at.saturating_sub(now))),
        }
    }

    fn cooling(&self, book: &Book, left: Duration) -> Fault {
        let name = self.name();
        let fault = Fault::new(Code::CoolingDown, format!("the pods of `{name}` failed again and again; none is started for now"))
            .hint(format!("mend the cause, which is in `detail.last_fault`; `hob pods --lift {name}` tries again at once"))
            .retry_after(left);
        match &book.last_fault {
            Some(last) => fault.with("last_fault", serde_json::to_value(last).unwrap_or_default()),
            None => fault,
        }
    }

    pub(super) fn poisoned(&self, operation: &str, left: Duration) -> Fault {
        let name = self.name();
        Fault::new(
            Code::PoisonRequest,
            format!("this input of `{operation}` ended pods of `{name}` before, and is not tried again for now"),
        )
        .hint(format!("change the input, or mend the recipe; `hob pods --lift {name}` lets it be tried again"))
        .retry_after(left)
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

impl Book {
    pub(super) fn note(&mut self, report: &Report, now: Duration) {
        for ticket in &report.over {
            self.placed.remove(ticket);
        }
        for (service, items) in &report.served {
            self.schedule.done(now, *service, *items);
        }
        for input in &report.cleared {
            self.poison.answered(input);
        }
        self.done += report.over.len() as u64;
        self.failed += report.failed;
        if report.good > 0 {
            self.restarts.answered();
            self.failing = 0;
        }
    }

    /// Marks that member as leaving; whether it is one.
    pub(super) fn leave(&mut self, seat: u64) -> bool {
        let member = self.members.iter_mut().find(|member| member.seat == seat);
        member.map(|member| member.leaving = true).is_some()
    }
}

/// All that waits.
fn everybody(book: &mut Book) -> Vec<Pending> {
    let solo: Vec<_> = book.solo.drain(..).map(|placed| placed.pending).collect();
    [book.schedule.drain(), solo].concat_all()
}

fn ending() -> Fault {
    Fault::new(Code::ShuttingDown, "the host is ending and takes no more work").hint("call again when it was started anew")
}

pub(super) fn overdue() -> Fault {
    Fault::new(Code::Deadline, "the deadline passed before a pod was free")
}

/// What makes two requests the same input of the same recipe.
pub(super) fn digest(request: &Request) -> [u8; 32] {
    let mut hasher = sha2::Sha256::new();
    for part in [request.operation.name.as_bytes(), request.input.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    for blob in &request.blobs {
        hasher.update((blob.bytes.len() as u64).to_le_bytes());
        hasher.update(&blob.bytes);
    }
    hasher.finalize().into()
}
