//! What a pod shows of itself while it lives, and the messages to its driver: the two ends of one mailbox.

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

/// What a driver shows of its pod, and the driver's mailbox.
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
    /// Whether it took, or could have taken, an ask.
    was_ready: watch::Sender<bool>,
    pub forked: AtomicBool,
    /// Set once its sandbox is complete.
    pub confinement: OnceLock<Confinement>,
    /// Whether a control group limits its memory.
    pub in_group: AtomicBool,
    /// Whether it has an ask in hand that gives chunks.
    pub streams: AtomicBool,
    /// Whether it gave a good answer.
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
            was_ready: watch::Sender::new(false),
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

    /// Asks wait for which no pod has room.
    pub fn tell_crowded(&self) {
        if self.streams.load(Ordering::Acquire) {
            self.post(|mailbox| mailbox.crowded = true);
        }
    }

    /// That ask's caller is gone.
    pub fn cancel(&self, ticket: Ticket) {
        self.post(|mailbox| mailbox.cancelled.push(ticket));
    }

    /// That ask's caller took chunks of this weight.
    pub fn credit(&self, ticket: Ticket, weight: u32) {
        self.post(|mailbox| mailbox.credits.push((ticket, weight)));
    }

    /// The last holder of the blob in that region is gone.
    pub fn free_region(&self, region: u64) {
        self.post(|mailbox| mailbox.freed.push(region));
    }

    /// The pod should finish its units in hand, and exit.
    pub fn retire(&self) {
        self.post(|mailbox| mailbox.retire = true);
    }

    /// The pod's state is requested.
    pub fn request_checkpoint(&self) {
        self.post(|mailbox| mailbox.checkpoint = true);
    }

    /// Its session is closed.
    pub fn request_close(&self) {
        self.post(|mailbox| mailbox.close = true);
    }

    /// There is memory for the pod's models, on that GPU if it needs one.
    pub fn grant_memory(&self, gpu: Option<Gpu>) {
        self.post(|mailbox| mailbox.memory_grant = Some(gpu));
    }

    /// The pod's memory is for another pod: it unloads its models at the next end of an ask.
    pub fn reclaim_memory(&self) {
        self.post(|mailbox| mailbox.memory_reclaimed = true);
    }

    /// Whether the memory of the unloaded models came back.
    pub fn report_memory_back(&self, back: bool) {
        self.post(|mailbox| mailbox.memory_back = Some(back));
    }

    fn post(&self, say: impl FnOnce(&mut Mailbox)) {
        say(&mut self.mailbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.wake.notify_one();
    }

    /// The messages since the last call; waits until there is one. Cancel-safe.
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

    /// It could take an ask now.
    pub fn set_ready(&self) {
        self.was_ready.send_if_modified(|was_ready| !std::mem::replace(was_ready, true));
    }

    pub fn was_ready(&self) -> bool {
        *self.was_ready.borrow()
    }

    pub fn age_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }
}

/// The messages to a driver. Bounded: a ticket comes once, and only while its ask is in this pod's hands.
#[derive(Debug, Default)]
pub(in crate::pod) struct Mailbox {
    pub cancelled: Vec<Ticket>,
    /// Weight of the chunks taken of an ask. Each entry is at least half of the pod's credit.
    pub credits: Vec<(Ticket, u32)>,
    /// Regions whose blobs have no holder any more.
    pub freed: Vec<u64>,
    pub work: bool,
    /// Asks wait for which no pod has room.
    pub crowded: bool,
    pub retire: bool,
    pub stop: bool,
    pub checkpoint: bool,
    pub close: bool,
    /// There is memory for its models, on that GPU if it needs one.
    pub memory_grant: Option<Option<Gpu>>,
    /// Its memory is for another pod.
    pub memory_reclaimed: bool,
    /// Whether the memory of the unloaded models came back.
    pub memory_back: Option<bool>,
}

/// A handle on a pod that does not keep it alive: it can stop, await and describe the pod.
#[derive(Debug, Clone)]
pub struct Watcher {
    pub(in crate::pod) finished: watch::Receiver<bool>,
    pub(in crate::pod) shared: Arc<PodShared>,
}

impl Watcher {
    /// Asks the pod to exit now: it drains, then climbs the stop ladder. Returns when no process of it is
    /// left.
    pub async fn stop(&self) {
        self.shared.post(|mailbox| mailbox.stop = true);
        let _ = self.finished.clone().wait_for(|finished| *finished).await;
    }

    /// Whether no process of it is left, or its driver is gone (with its runtime).
    pub fn is_over(&self) -> bool {
        *self.finished.borrow() || self.finished.has_changed().is_err()
    }

    /// Whether it took, or could have taken, an ask.
    pub fn was_ready(&self) -> bool {
        self.shared.was_ready()
    }

    /// Waits until the pod is ready for the first time, or over. Cancel-safe.
    pub async fn ready(&self) {
        let (mut ready, mut finished) = (self.shared.was_ready.subscribe(), self.finished.clone());
        tokio::select! {
            _ = ready.wait_for(|ready| *ready) => {}
            _ = finished.wait_for(|finished| *finished) => {}
        }
    }

    /// Waits until its libraries keep something on disk with which the next pod could begin, or it is over.
    /// Returns whether they do. Cancel-safe.
    pub async fn caches(&self) -> bool {
        let (mut caches, mut finished) = (self.shared.caches.subscribe(), self.finished.clone());
        tokio::select! {
            // Biased: what a pod reported before its end counts.
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

    /// Reads the lines that it printed so far and that are still in its pipes.
    pub fn catch_up(&self) {
        self.shared.log.catch_up();
    }

    /// The recipe of the pod.
    pub fn recipe(&self) -> &str {
        &self.shared.recipe
    }

    /// Its last lines, oldest first.
    pub fn log(&self, lines: usize) -> Vec<LogLine> {
        self.shared.log.tail(lines).into_iter().map(|line| line.of(&self.shared.recipe, &self.shared.incarnation)).collect()
    }
}
