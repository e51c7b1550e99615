//! What the host holds of a pod: a handle to ask it, the replies to one ask, a look at its state.
//!
//! Apart from `driver.rs`, the task that owns the pod: everything here only sends to that task, or reads what it shows.

use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{driver, log::Log, process::Spec, wire::Payload};
use crate::model::{
    self, Blob, Code, Fault,
    limits::{CALL_EVENTS_MAX, POD_QUEUE_MAX},
};

/// One piece of work for a pod.
#[derive(Debug, Clone)]
pub struct Request {
    pub operation: Arc<model::Operation>,
    /// JSON text.
    pub input: String,
    pub blobs: Vec<Blob>,
    pub deadline: Instant,
    /// Where progress goes: past whoever waits for the answer.
    pub events: mpsc::Sender<model::Event>,
}

/// What comes back for a request, in order: any number of chunks, then one of the others.
#[derive(Debug)]
pub enum Reply {
    Chunk(Payload),
    Answer(Payload),
    Fault(Fault),
    /// The pod ended before this request was sent to it: another pod may take it.
    Unstarted {
        fault: Fault,
        request: Box<Request>,
    },
}

/// A request under way. Dropping it cancels the work down to the worker.
#[derive(Debug)]
pub struct Ask {
    replies: mpsc::Receiver<Reply>,
}

impl Ask {
    /// The next reply; none after the last.
    pub async fn next(&mut self) -> Option<Reply> {
        self.replies.recv().await
    }
}

/// A request in the queue or in hand.
pub(super) struct Pending {
    pub request: Request,
    pub replies: mpsc::Sender<Reply>,
    /// Kept free from the start, so that an answer never waits for a caller who reads slowly.
    pub last: mpsc::OwnedPermit<Reply>,
}

/// What others may see of a pod.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub recipe: String,
    pub state: &'static str,
    /// The process that does the work, once it said hello.
    pub pid: Option<u32>,
    pub incarnation: String,
    pub asks: u64,
}

/// What the driver shows.
#[derive(Debug)]
pub(super) struct Shared {
    recipe: String,
    incarnation: String,
    pub state: Mutex<&'static str>,
    pub pid: AtomicU32,
    pub asks: AtomicU64,
    pub was_ready: AtomicBool,
    /// Why the pod is over; set before its queue closes.
    pub epitaph: OnceLock<Fault>,
    pub log: Arc<Log>,
}

/// A handle to a pod; the pod is stopped when the last one is dropped and its asks are done.
#[derive(Clone)]
pub struct Pod {
    queue: mpsc::Sender<Pending>,
    watcher: Watcher,
}

/// A look at a pod that does not keep it: it can be stopped, waited for and described, but not asked.
#[derive(Debug, Clone)]
pub struct Watcher {
    stop: CancellationToken,
    buried: watch::Receiver<bool>,
    shared: Arc<Shared>,
}

/// The driver's ends of what a handle holds.
pub(super) struct Ends {
    pub shared: Arc<Shared>,
    pub waiting: mpsc::Receiver<Pending>,
    pub stop: CancellationToken,
    pub bury: watch::Sender<bool>,
}

impl Pod {
    /// Spawns the process and the task that owns it. Requests may be sent at once: they wait until it is ready.
    ///
    /// Must be called within a tokio runtime. Errors: `io` when there is no process to be had.
    pub fn spawn(spec: Spec) -> Result<Pod, Fault> {
        let (queue, waiting) = mpsc::channel(POD_QUEUE_MAX);
        let (bury, buried) = watch::channel(false);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            recipe: spec.recipe.manifest().name.to_string(),
            incarnation: spec.incarnation.clone(),
            state: Mutex::new("starting"),
            pid: AtomicU32::new(0),
            asks: AtomicU64::new(0),
            was_ready: AtomicBool::new(false),
            epitaph: OnceLock::new(),
            log: Arc::new(Log::default()),
        });
        driver::start(spec, Ends { shared: shared.clone(), waiting, stop: stop.clone(), bury })?;
        Ok(Pod { queue, watcher: Watcher { stop, buried, shared } })
    }

    /// Sends a request; it waits until the pod is ready and free. A pod that is over replies `Unstarted`.
    ///
    /// Errors: `overloaded` when the queue is full.
    pub fn ask(&self, request: Request) -> Result<Ask, Fault> {
        let (replies, receiver) = mpsc::channel(CALL_EVENTS_MAX + 1);
        let last = replies.clone().try_reserve_owned().expect("a new channel has room");
        match self.queue.try_send(Pending { request, replies, last }) {
            Ok(()) => {}
            // It ended between the caller's look and now: the same as if it had ended with this in its queue.
            Err(mpsc::error::TrySendError::Closed(pending)) => {
                let over = || Fault::new(Code::Crashed, "the pod is over");
                let fault = self.watcher.shared.epitaph.get().cloned().unwrap_or_else(over);
                pending.last.send(Reply::Unstarted { fault, request: Box::new(pending.request) });
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(Fault::new(Code::Overloaded, format!("{POD_QUEUE_MAX} asks are waiting for this pod already"))
                    .hint("call again when some are done"));
            }
        }
        Ok(Ask { replies: receiver })
    }

    /// Whether it can still take requests.
    pub fn is_alive(&self) -> bool {
        !self.queue.is_closed() && !self.watcher.stop.is_cancelled()
    }

    /// Whether it ever was ready: a pod that never was would fail the same way again.
    pub fn was_ready(&self) -> bool {
        self.watcher.shared.was_ready.load(Ordering::Acquire)
    }

    /// A look at it that does not keep it.
    pub fn watcher(&self) -> Watcher {
        self.watcher.clone()
    }
}

impl Watcher {
    /// Drains the pod, then climbs the stop ladder; returns when no process of it is left.
    pub async fn stop(&self) {
        self.stop.cancel();
        let _ = self.buried.clone().wait_for(|buried| *buried).await;
    }

    /// Whether no process of it is left, or nobody looks after it any more (its runtime is gone).
    pub fn is_over(&self) -> bool {
        *self.buried.borrow() || self.buried.has_changed().is_err()
    }

    pub fn snapshot(&self) -> Snapshot {
        let pid = self.shared.pid.load(Ordering::Acquire);
        Snapshot {
            recipe: self.shared.recipe.clone(),
            state: *self.shared.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
            pid: (pid != 0).then_some(pid),
            incarnation: self.shared.incarnation.clone(),
            asks: self.shared.asks.load(Ordering::Relaxed),
        }
    }
}
