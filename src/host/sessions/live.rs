//! One live session: its pool, its callers, and when its state is kept.
//!
//! The kept state lies behind a lock that only blocking work holds for longer than a moment.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    host::{HostState, entry::Entry, source::SessionOfPods},
    model::{
        Code, Fault, events,
        limits::{CHECKPOINT_GOODBYE_MS, CHECKPOINT_WAIT_MS, SESSION_CLOSE_MS, SESSION_LOOK_MS},
        status::session::{CheckpointStatus, Mode, SessionSpec},
    },
    pod::{self, BoxFuture, Clerk, Pool, Program},
    shelf::{
        blocking,
        sessions::{self as disk, Identity, Piece},
    },
};

/// A live session; see the module.
pub struct Live {
    identity: Identity,
    spec: SessionSpec,
    entry: Arc<Entry>,
    pool: Pool,
    state: Mutex<LiveState>,
    /// `None` once the session was dropped.
    kept: Arc<Mutex<Option<disk::Session>>>,
    /// Counts finished checkpoints, for tasks that wait for one.
    outcomes: watch::Sender<u64>,
    closed: watch::Sender<bool>,
}

/// The state of a session that changes from moment to moment.
struct LiveState {
    /// The event senders of the calls in the session, for notes to those that wait.
    callers: Vec<(u64, events::Sender)>,
    slots: u64,
    used: Instant,
    last_checkpoint: Instant,
    /// The state may have changed since the last checkpoint.
    dirty: bool,
    /// The result of the last checkpoint.
    last: Outcome,
    /// No further call may enter.
    leaving: bool,
    /// The number of the pod whose state may be kept.
    incarnation: u64,
}

#[derive(Debug, Clone)]
enum Outcome {
    None,
    Kept(CheckpointStatus),
    Fault(Fault),
    /// Its class has no `checkpoint`.
    Cannot,
}

/// How a session is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Only if its state was kept, and no call is in it.
    Parked,
    /// In any case, with the state that was last kept.
    Whatever,
    /// For good: its kept state is deleted.
    Closed,
}

impl Live {
    /// A live session of that recipe, with a pool of its own, from its folder on disk.
    pub fn new(host: &Arc<HostState>, entry: &Arc<Entry>, kept: disk::Session) -> Arc<Live> {
        let manifest = entry.recipe().manifest();
        let spec = manifest.pod.as_ref().and_then(|pod| pod.session.clone()).expect("only a recipe with `[pod.session]` has a session");
        let now = Instant::now();
        Arc::new_cyclic(|this: &Weak<Live>| Live {
            identity: kept.record().identity.clone(),
            spec,
            entry: entry.clone(),
            pool: entry.session_pool(host, this.clone() as Weak<dyn SessionOfPods>),
            state: Mutex::new(LiveState {
                callers: Vec::new(),
                slots: 0,
                used: now,
                last_checkpoint: now,
                dirty: false,
                last: Outcome::None,
                leaving: false,
                incarnation: 0,
            }),
            kept: Arc::new(Mutex::new(Some(kept))),
            outcomes: watch::Sender::new(0),
            closed: watch::Sender::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn title(&self) -> String {
        format!("the session `{}` of `{}`", self.identity.name, self.identity.recipe)
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether its pod is of that recipe, with the same grants and the same environment.
    pub fn is_of(&self, entry: &Entry) -> bool {
        let mine = &self.entry;
        mine.recipe().digest() == entry.recipe().digest() && mine.grants() == entry.grants() && mine.environment() == entry.environment()
    }

    pub fn running(&self) -> usize {
        self.state().callers.len()
    }

    pub fn is_at_work(&self) -> bool {
        self.running() > 0
    }

    /// The fault of the last checkpoint, if it failed.
    pub fn checkpoint_fault(&self) -> Option<Fault> {
        match &self.state().last {
            Outcome::Fault(fault) => Some(fault.clone()),
            _ => None,
        }
    }

    pub fn busy(&self, why: &str) -> Fault {
        Fault::new(Code::SessionBusy, format!("{} {why}", self.title())).hint("call again when that is over, or name another session")
    }

    /// A slot in the session for one call; `None` if the session is being dropped.
    ///
    /// Errors: `session_busy`.
    pub fn enter(self: &Arc<Live>, events: &events::Sender) -> Result<Option<SessionSlot>, Fault> {
        let mut state = self.state();
        if state.leaving {
            return Ok(None);
        }
        if self.spec.mode == Mode::Exclusive && !state.callers.is_empty() {
            drop(state);
            return Err(self.busy("is at work for another call"));
        }
        state.slots += 1;
        let id = state.slots;
        state.callers.push((id, events.clone()));
        state.dirty = true;
        Ok(Some(SessionSlot { live: self.clone(), id }))
    }

    pub fn is_leaving(&self) -> bool {
        self.state().leaving
    }

    /// Lets no further call enter.
    pub fn leave(&self) {
        self.state().leaving = true;
    }

    /// Restarts the session's timeouts.
    pub fn touch(&self) {
        self.state().used = Instant::now();
        self.count(false);
    }

    fn count(&self, done: bool) {
        let mut kept = locked(&self.kept);
        if let Some(kept) = kept.as_mut()
            && let Err(error) = kept.used(done)
        {
            tracing::warn!("a call of {} was not counted: {error}", self.title());
        }
    }

    /// Takes the kept state out, to drop it. Waits for a checkpoint that is being written.
    pub async fn take_kept(&self) -> Option<disk::Session> {
        let kept = self.kept.clone();
        blocking(move || Ok(locked(&kept).take())).await.ok().flatten()
    }

    // Its pods.

    /// What the next pod of the session begins with.
    ///
    /// Errors: `session_lost`, with its calls and checkpoints in `detail`; as [`Clerk::lend`].
    async fn begin_pod(self: &Arc<Live>, clerk: &Clerk, program: &Program) -> Result<pod::Session, Fault> {
        let incarnation = {
            let mut state = self.state();
            state.incarnation += 1;
            state.incarnation
        };
        let (kept, version) = (self.kept.clone(), self.entry.recipe().manifest().version.clone());
        let (clerk, python) = (clerk.clone(), program.base.clone());
        let (restore, calls) = blocking(move || {
            // The lock comes after anything that the previous pod was still writing.
            let mut kept = locked(&kept);
            let kept = kept.as_mut().ok_or_else(|| Fault::new(Code::SessionNotFound, "the session was closed"))?;
            kept.forget_half();
            let restore = match kept.restore(&version)? {
                Some(disk::Restore { file, kept, damaged }) => {
                    let lent = clerk.lend(&python, &file.into(), kept.status.bytes, "a checkpoint")?;
                    Some((lent, kept, damaged))
                }
                None => None,
            };
            Ok((restore, kept.calls()))
        })
        .await
        .map_err(|fault| self.why_lost(fault))?;
        if let Some((_, kept, damaged)) = &restore {
            let status = &kept.status;
            let mut data = json!({
                "session": "resumed", "checkpoint": status.number, "calls_since": calls.saturating_sub(status.calls),
            });
            if !damaged.is_empty() {
                data["damaged"] = json!(damaged);
            }
            for (_, events) in &self.state().callers {
                // A caller that does not listen misses the note.
                events.note(data.clone());
            }
        }
        let keeps_first = restore.is_none() && self.spec.checkpoint_interval_ms > 0;
        Ok(pod::Session {
            name: self.identity.name.clone(),
            restore: restore.map(|(file, kept, _)| pod::Restore {
                number: kept.status.number,
                bytes: kept.status.bytes,
                json: kept.json,
                file,
            }),
            keep: Box::new(Incarnation { live: Arc::downgrade(self), number: incarnation }),
            keeps_first,
        })
    }

    /// Adds what this host knows about why nothing was kept.
    fn why_lost(&self, fault: Fault) -> Fault {
        if fault.code != Code::SessionLost || fault.detail["checkpoints"] != 0 {
            return fault;
        }
        match &self.state().last {
            Outcome::Cannot => fault.hint("the next call opens it anew; a class with `checkpoint` and `restore` outlives its pod"),
            Outcome::Fault(why) => fault.hint(disk::not_kept(&why.message)),
            _ => fault,
        }
    }

    // Its state.

    /// Has the pod give its state, and waits for at most `wait` until it is kept. Returns the last
    /// checkpoint, also if there is nothing new to keep.
    ///
    /// Errors: why there is none; `usage` if its class gives none.
    pub async fn checkpoint(&self, wait: Duration) -> Result<Option<CheckpointStatus>, Fault> {
        if !self.is_dirty() {
            return Ok(self.last_kept().await);
        }
        let mut outcomes = self.outcomes.subscribe();
        outcomes.borrow_and_update();
        if !self.pool.want_checkpoint() {
            if self.pool.is_empty() && !self.is_at_work() {
                // The pod is gone, and its unkept state with it.
                self.state().dirty = false;
                return Ok(self.last_kept().await);
            }
            let fault = Fault::new(Code::SessionBusy, format!("{} has no pod that could give its state now", self.title()));
            return Err(fault.hint("ask again when its pod is ready"));
        }
        if timeout(wait, outcomes.changed()).await.is_err() {
            let text = format!("{} did not give its state within {} ms", self.title(), wait.as_millis());
            let fault = Fault::new(Code::Stalled, text).hint("a long operation gives it where it calls `hob_pod.checkpoint()`");
            self.state().last = Outcome::Fault(fault.clone());
            return Err(fault);
        }
        let last = self.state().last.clone();
        match last {
            Outcome::Kept(status) => Ok(Some(status)),
            Outcome::Fault(fault) => Err(fault),
            Outcome::Cannot => Err(Fault::new(Code::Usage, format!("the pod of {} has no state to give", self.title()))
                .hint("its class has no method `checkpoint`")),
            Outcome::None => Ok(self.last_kept().await),
        }
    }

    /// [`Live::checkpoint`] before the pod ends. A failure is recorded on disk, because the next one to ask
    /// may be another host.
    ///
    /// Errors: as there.
    pub async fn last_checkpoint(&self) -> Result<(), Fault> {
        let done = self.checkpoint(Duration::from_millis(CHECKPOINT_GOODBYE_MS)).await;
        if let Some(why) = done.as_ref().err().cloned().or_else(|| self.checkpoint_fault()) {
            let kept = self.kept.clone();
            let remember = move || locked(&kept).as_ref().map_or(Ok(()), |kept| kept.remember_unkept(&why.message));
            if let Err(fault) = blocking(remember).await {
                tracing::warn!("why nothing was kept of {} is not remembered: {fault}", self.title());
            }
        }
        done.map(drop)
    }

    fn is_dirty(&self) -> bool {
        self.state().dirty
    }

    async fn last_kept(&self) -> Option<CheckpointStatus> {
        let kept = self.kept.clone();
        let last = move || Ok(locked(&kept).as_ref().and_then(|kept| kept.record().checkpoints.last().map(|kept| kept.status.clone())));
        blocking(last).await.ok().flatten()
    }

    fn became(&self, outcome: Outcome) {
        let mut state = self.state();
        // Changes that a call makes after this are for the next checkpoint.
        state.last_checkpoint = Instant::now();
        if matches!(outcome, Outcome::Kept(_)) {
            state.dirty = !state.callers.is_empty();
        }
        if let Outcome::Fault(fault) = &outcome {
            tracing::warn!("no checkpoint of {}: {fault}", self.title());
        }
        state.last = outcome;
        drop(state);
        self.outcomes.send_modify(|count| *count += 1);
    }

    /// Keeps the state so that the session can be parked; returns whether it may be. It may not while a call
    /// is in it, or while its pod has state that no checkpoint holds.
    pub async fn park(&self) -> Result<bool, Fault> {
        if self.is_at_work() {
            return Ok(false);
        }
        match self.checkpoint(Duration::from_millis(CHECKPOINT_WAIT_MS)).await {
            Ok(_) => {}
            Err(_) if self.cannot() => return Ok(false),
            Err(fault) => return Err(fault),
        }
        let mut state = self.state();
        // A call may have entered meanwhile.
        let may = state.callers.is_empty() && !state.dirty;
        state.leaving = may;
        Ok(may)
    }

    fn cannot(&self) -> bool {
        matches!(self.state().last, Outcome::Cannot)
    }

    /// Gives the pod a moment to handle the close of its session.
    pub async fn say_goodbye(&self) {
        let mut closed = self.closed.subscribe();
        if self.pool.want_close() {
            let _ = timeout(Duration::from_millis(SESSION_CLOSE_MS), closed.wait_for(|closed| *closed)).await;
        }
    }

    // Its times.

    /// Tends the session until it is dropped: checkpoints, parking, its end.
    pub fn tend(live: &Arc<Live>, host: &Arc<HostState>) {
        let (live, host) = (Arc::downgrade(live), Arc::downgrade(host));
        tokio::spawn(async move {
            loop {
                let Some(look) = live.upgrade().map(|live| live.look_every()) else { return };
                sleep(look).await;
                let (Some(live), Some(host)) = (live.upgrade(), host.upgrade()) else { return };
                let Some(ending) = live.look(&host).await else { continue };
                match host.sessions.park(&host, &live, ending).await {
                    Ok(()) => {}
                    Err(fault) => tracing::warn!("{} is not let go of: {fault}", live.title()),
                }
                let mut state = live.state();
                if state.leaving {
                    return;
                }
                // The session stays for another idle timeout.
                if ending == Ending::Parked {
                    state.used = Instant::now();
                }
            }
        });
    }

    fn look_every(&self) -> Duration {
        let interval = Some(self.spec.checkpoint_interval_ms).filter(|interval| *interval > 0).unwrap_or(SESSION_LOOK_MS);
        Duration::from_millis(SESSION_LOOK_MS.min(interval).min(self.spec.idle_timeout_ms.max(10)).min(self.spec.ttl_ms.max(10)))
    }

    /// Does what is due now; returns how to drop the session, if it is to be dropped.
    async fn look(&self, host: &HostState) -> Option<Ending> {
        let (idle, rested, at_work, dirty) = {
            let state = self.state();
            (state.used.elapsed(), state.last_checkpoint.elapsed(), !state.callers.is_empty(), state.dirty)
        };
        let is_over = |ms: u64| idle >= Duration::from_millis(ms);
        if !at_work {
            // No recipe in use has this content and these grants: the session must not keep lost permissions.
            if !host.catalogue.entries().iter().any(|entry| self.is_of(entry)) {
                return Some(Ending::Whatever);
            }
            if is_over(self.spec.ttl_ms) {
                return Some(Ending::Closed);
            }
            if is_over(self.spec.idle_timeout_ms) && !self.cannot() {
                return Some(Ending::Parked);
            }
        }
        let interval = self.spec.checkpoint_interval_ms;
        if interval > 0 && dirty && rested >= Duration::from_millis(interval) && !self.cannot() {
            // A fault is recorded and shown; a checkpoint that takes longer arrives later.
            let wait = Duration::from_millis(CHECKPOINT_WAIT_MS.min(interval.max(SESSION_LOOK_MS)));
            let _ = self.checkpoint(wait).await;
        }
        None
    }
}

impl SessionOfPods for Live {
    fn name(&self) -> String {
        self.identity.name.clone()
    }

    fn incarnate<'a>(self: Arc<Self>, clerk: &'a Clerk, program: &'a Program) -> BoxFuture<'a, Result<pod::Session, Fault>> {
        Box::pin(async move { Live::begin_pod(&self, clerk, program).await })
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

/// A call's slot in its session, given back on drop.
pub struct SessionSlot {
    live: Arc<Live>,
    id: u64,
}

impl SessionSlot {
    pub fn pool(&self) -> &Pool {
        &self.live.pool
    }

    /// Ends the call: counts it if it ended well. If its session is at an end, the call's fault is that of
    /// the session.
    pub async fn over<T>(self, host: &Arc<HostState>, result: Result<T, Fault>) -> Result<T, Fault> {
        let live = self.live.clone();
        let fault = match result {
            Ok(done) => {
                live.count(true);
                return Ok(done);
            }
            Err(fault) => fault,
        };
        drop(self);
        if fault.code == Code::SessionLost {
            // Without a checkpoint, nothing is left for a further call to continue with.
            let ending = if live.last_kept().await.is_some() { Ending::Whatever } else { Ending::Closed };
            let _ = host.sessions.park(host, &live, ending).await;
            return Err(fault);
        }
        let is_closed = live.state().leaving && matches!(fault.code, Code::ShuttingDown | Code::Crashed | Code::Cancelled);
        match is_closed && !host.lifecycle.is_closing() {
            true => Err(Fault::new(Code::SessionNotFound, format!("{} was closed while the call ran", live.title()))
                .hint("the next call that names it opens it anew")),
            false => Err(fault),
        }
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        let mut state = self.live.state();
        state.callers.retain(|(id, _)| *id != self.id);
        state.used = Instant::now();
        state.dirty = true;
    }
}

/// One pod of a session: the pod whose state is kept.
#[derive(Debug)]
pub struct Incarnation {
    live: Weak<Live>,
    number: u64,
}

impl Incarnation {
    /// The session, for as long as this is its pod.
    fn live(&self) -> Option<Arc<Live>> {
        self.live.upgrade().filter(|live| live.state().incarnation == self.number)
    }
}

impl pod::Keep for Incarnation {
    fn piece(&self, bytes: Bytes, last: bool, json: bool) -> BoxFuture<'static, Result<Option<u64>, Fault>> {
        let live = self.live();
        let number = self.number;
        Box::pin(async move {
            let gone = || Fault::new(Code::SessionNotFound, "the session goes on without this pod");
            let live = live.ok_or_else(gone)?;
            let (kept, again) = (live.kept.clone(), live.clone());
            let done = blocking(move || {
                let mut kept = locked(&kept);
                let kept = kept.as_mut().filter(|_| again.state().incarnation == number).ok_or_else(gone)?;
                let piece = kept.piece(&bytes, last, json)?;
                Ok((piece, kept.record().checkpoints.last().map(|kept| kept.status.clone())))
            });
            match done.await {
                Ok((Piece::More, _)) => Ok(None),
                Ok((Piece::Kept(number), status)) => {
                    live.became(status.map_or(Outcome::None, Outcome::Kept));
                    Ok(Some(number))
                }
                Err(fault) => {
                    live.became(Outcome::Fault(fault.clone()));
                    Err(fault)
                }
            }
        })
    }

    fn none(&self, why: Option<Fault>) {
        if let Some(live) = self.live() {
            live.became(why.map_or(Outcome::Cannot, Outcome::Fault));
        }
    }

    fn closed(&self) {
        if let Some(live) = self.live() {
            let _ = live.closed.send(true);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
