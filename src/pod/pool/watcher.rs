//! What a pod shows of itself while it lives, and what it is told: the two ends of one mailbox.

use crate::{
    model::{
        self, Fault,
        status::{Confinement, LogLine, MemoryBound, PodState, PodStatus, machine::Gpu},
    },
    pod::{
        driver::state::State,
        pool::schedule::Ticket,
        process::vitals,
        record::{log::Log, printed::Printed},
    },
};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;

/// What a driver shows of its pod, and what it is told.
#[derive(Debug)]
pub(in crate::pod) struct PodShared {
    recipe: String,
    version: String,
    pub incarnation: String,
    born: Instant,
    state: Mutex<(PodState, Instant)>,
    pub pid: AtomicU32,
    pub asks: AtomicU64,
    pub in_hand: AtomicUsize,
    pub was_ready: AtomicBool,
    pub forked: AtomicBool,
    /// Set once its sandbox is around it.
    pub confinement: OnceLock<Confinement>,
    /// Whether a control group holds it to its memory.
    pub in_group: AtomicBool,
    /// Whether it has an ask in hand that gives chunks.
    pub streams: AtomicBool,
    /// Whether it answered an ask well.
    pub was_useful: AtomicBool,
    /// Whether its libraries keep something on disk.
    pub caches: watch::Sender<bool>,
    pub last_fault: Mutex<Option<Fault>>,
    pub log: Arc<Log>,
    mailbox: Mutex<Mailbox>,
    wake: Notify,
}

impl PodShared {
    pub fn new(recipe: &model::Manifest, incarnation: &str, printed: Printed) -> PodShared {
        let (now, name) = (Instant::now(), recipe.name.to_string());
        PodShared {
            log: Arc::new(Log::of(&name, incarnation, printed)),
            recipe: name,
            version: recipe.version.to_string(),
            incarnation: incarnation.to_owned(),
            born: now,
            state: Mutex::new((PodState::Starting, now)),
            pid: AtomicU32::new(0),
            asks: AtomicU64::new(0),
            in_hand: AtomicUsize::new(0),
            was_ready: AtomicBool::new(false),
            forked: AtomicBool::new(false),
            confinement: OnceLock::new(),
            in_group: AtomicBool::new(false),
            streams: AtomicBool::new(false),
            was_useful: AtomicBool::new(false),
            caches: watch::Sender::new(false),
            last_fault: Mutex::new(None),
            mailbox: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// There may be work for it.
    pub fn offer_work(&self) {
        self.post(|mailbox| mailbox.work = true);
    }

    /// Asks wait, and no pod has room for them.
    pub fn tell_crowded(&self) {
        if self.streams.load(Ordering::Acquire) {
            self.post(|mailbox| mailbox.crowded = true);
        }
    }

    /// That ask's caller is gone.
    pub fn cancel(&self, ticket: Ticket) {
        self.post(|mailbox| mailbox.cancelled.push(ticket));
    }

    /// That ask's caller took so much of its chunks.
    pub fn credit(&self, ticket: Ticket, weight: u32) {
        self.post(|mailbox| mailbox.credits.push((ticket, weight)));
    }

    /// Nobody holds the blob in that region any more.
    pub fn free_region(&self, region: u64) {
        self.post(|mailbox| mailbox.freed.push(region));
    }

    /// Let it finish what it has, and go.
    pub fn retire(&self) {
        self.post(|mailbox| mailbox.retire = true);
    }

    /// Its state is wanted.
    pub fn request_checkpoint(&self) {
        self.post(|mailbox| mailbox.checkpoint = true);
    }

    /// Its session is closed.
    pub fn request_close(&self) {
        self.post(|mailbox| mailbox.close = true);
    }

    /// There is memory for its models, on that GPU if it needs one.
    pub fn grant_memory(&self, gpu: Option<Gpu>) {
        self.post(|mailbox| mailbox.memory_grant = Some(gpu));
    }

    /// Its memory is for another pod: it lets go of its models at the next end of an ask.
    pub fn reclaim_memory(&self) {
        self.post(|mailbox| mailbox.memory_reclaimed = true);
    }

    /// Whether the memory of what it unloaded came back.
    pub fn report_memory_back(&self, back: bool) {
        self.post(|mailbox| mailbox.memory_back = Some(back));
    }

    fn post(&self, say: impl FnOnce(&mut Mailbox)) {
        say(&mut self.mailbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.wake.notify_one();
    }

    /// What was said since the last time; waits until something is. Cancel-safe.
    pub async fn receive(&self) -> Mailbox {
        self.wake.notified().await;
        std::mem::take(&mut *self.mailbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub fn show(&self, state: &State) {
        let mut shown = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if shown.0 != state.shown() {
            *shown = (state.shown(), Instant::now());
        }
    }

    pub fn age_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }
}

/// What others want of a driver. Bounded: a ticket comes once, and only while its ask is in this pod's hands.
#[derive(Debug, Default)]
pub(in crate::pod) struct Mailbox {
    pub cancelled: Vec<Ticket>,
    /// How much of the chunks of an ask was taken. Each is half of what the pod may send without.
    pub credits: Vec<(Ticket, u32)>,
    /// Regions whose blobs nobody holds any more.
    pub freed: Vec<u64>,
    pub work: bool,
    /// Asks wait, and no pod has room for them.
    pub crowded: bool,
    pub retire: bool,
    pub stop: bool,
    pub checkpoint: bool,
    pub close: bool,
    /// There is memory for its models, on that GPU if it needs one.
    pub memory_grant: Option<Option<Gpu>>,
    /// Its memory is for another pod.
    pub memory_reclaimed: bool,
    /// Whether the memory of what it unloaded came back.
    pub memory_back: Option<bool>,
}

/// A look at a pod that does not keep it: it can be stopped, waited for and described.
#[derive(Debug, Clone)]
pub struct Watcher {
    pub(in crate::pod) finished: watch::Receiver<bool>,
    pub(in crate::pod) shared: Arc<PodShared>,
}

impl Watcher {
    /// Asks the pod to go now: it drains, then climbs the stop ladder. Returns when no process of it is left.
    pub async fn stop(&self) {
        self.shared.post(|mailbox| mailbox.stop = true);
        let _ = self.finished.clone().wait_for(|finished| *finished).await;
    }

    /// Whether no process of it is left, or nobody looks after it any more (its runtime is gone).
    pub fn is_over(&self) -> bool {
        *self.finished.borrow() || self.finished.has_changed().is_err()
    }

    /// Whether it took, or could have taken, an ask.
    pub fn was_ready(&self) -> bool {
        self.shared.was_ready.load(Ordering::Acquire)
    }

    /// Waits until its libraries keep something on disk that the next pod could begin with, or it is over.
    /// Returns whether they do. Cancel-safe.
    pub async fn caches(&self) -> bool {
        let (mut caches, mut finished) = (self.shared.caches.subscribe(), self.finished.clone());
        tokio::select! {
            // Biased: what a pod said before its end counts.
            biased;
            said = caches.wait_for(|caches| *caches) => said.is_ok(),
            _ = finished.wait_for(|finished| *finished) => *self.shared.caches.borrow(),
        }
    }

    /// Reads its memory from the system: some tens of microseconds for each process.
    pub fn status(&self) -> PodStatus {
        let shared = &self.shared;
        let pid = shared.pid.load(Ordering::Acquire);
        let (state, since) = *shared.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        PodStatus {
            recipe: shared.recipe.clone(),
            version: shared.version.clone(),
            state,
            since_ms: since.elapsed().as_millis() as u64,
            age_ms: shared.age_ms(),
            pid: (pid != 0).then_some(pid),
            incarnation: shared.incarnation.clone(),
            memory_bytes: (pid != 0).then(|| vitals::memory_bytes(pid)).flatten(),
            asks: shared.asks.load(Ordering::Relaxed),
            in_hand: shared.in_hand.load(Ordering::Relaxed),
            forked: shared.forked.load(Ordering::Relaxed),
            sandbox: shared.confinement.get().map(|sandbox| Confinement {
                memory: if shared.in_group.load(Ordering::Relaxed) { MemoryBound::Group } else { MemoryBound::Watched },
                ..sandbox.clone()
            }),
            last_fault: shared.last_fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone(),
        }
    }

    /// Keeps what it printed so far and nobody read yet.
    pub fn catch_up(&self) {
        self.shared.log.catch_up();
    }

    /// The recipe that it is a pod of.
    pub fn recipe(&self) -> &str {
        &self.shared.recipe
    }

    /// Its last lines, oldest first.
    pub fn log(&self, lines: usize) -> Vec<LogLine> {
        self.shared.log.tail(lines).into_iter().map(|line| line.of(&self.shared.recipe, &self.shared.incarnation)).collect()
    }
}
