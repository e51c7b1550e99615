//! The task that owns one pod: it performs what `state.rs` decides.
//!
//! One loop waits for everything at once (what callers and the pool want, both lanes, the process, the next wait), turns what came into
//! events of the state machine, and acts. No other task touches the pod. `sending.rs` has what goes out, `burial.rs` the end.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    handle::{Inbox, Placed, Reply, Shared, Watcher},
    lane::Lane,
    log,
    page::Page,
    pool,
    process::{Process, Spec},
    registry::{self, Record},
    seat::{Report, Seat},
    state::{Action, AskId, Ending, Event, Rules, State, step},
    vitals,
    waits::{Undelivered, deliver, far, readable, wait, writable},
    wire::{FromPod, Payload},
};
use crate::model::{
    Blame, Code, Fault,
    limits::{CANCEL_GRACE_MS, FRAME_BYTES_MAX, MEMORY_LOOK_MS, PING_MS, SILENCE_MS},
    recipe::Recycle,
};

/// Spawns the process and the task that owns it from now on.
///
/// Must be called within a tokio runtime. Errors: `io` when there is no process to be had.
pub fn spawn(spec: Spec, seat: Seat) -> Result<Watcher, Fault> {
    let beside = spec.scratch.parent().unwrap_or(&spec.scratch);
    std::fs::create_dir_all(beside).map_err(|error| Fault::io(format!("making {}", beside.display()), &error))?;
    let page = or_without(Page::create(beside, &spec.incarnation), "what a pod has begun will not be known").unwrap_or_else(Page::none);
    let manifest = spec.recipe.manifest().clone();
    // Written before there is a process: whatever happens from here on, the next host finds what is left.
    let mut record = Record::new(&spec.incarnation, &manifest.name.to_string());
    let path = registry::path_of(&spec.scratch);
    or_without(registry::record(&path, &record), "should this host be killed, the next one may not find what its pod left");
    let mut process = Process::spawn(&spec, page.path()).inspect_err(|_| registry::forget(&path))?;
    record.keeper = process.keeper_pid().and_then(registry::Process::of);
    // The first one found its place on the disk; should this one not, the mark in the pod's variables still leads to it.
    let _ = registry::record(&path, &record);
    let (control, data) = process.take_streams().expect("a new process has its sockets");
    let (logs_done, logs_ended) = oneshot::channel();
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let shared = Arc::new(Shared::new(&manifest, &spec.incarnation));
    let log = shared.log.clone();
    tokio::spawn(async move {
        let out = async {
            if let Some(pipe) = stdout {
                log::drain(pipe, log.clone()).await;
            }
        };
        let err = async {
            if let Some(pipe) = stderr {
                log::drain(pipe, log.clone()).await;
            }
        };
        tokio::join!(out, err);
        let _ = logs_done.send(());
    });
    let (bury, buried) = watch::channel(false);
    let pod = manifest.pod.as_ref();
    let now = Instant::now();
    let driver = Driver {
        control: Lane::new(control, FRAME_BYTES_MAX),
        data: Some(Lane::new(data, FRAME_BYTES_MAX)),
        phase: Some(now + Duration::from_millis(pod.map_or(0, |pod| pod.start_timeout_ms))),
        rules: Rules { concurrency: pod.map_or(1, |pod| pod.concurrency as usize) },
        recycle: pod.map(|pod| pod.recycle.clone()).unwrap_or_default(),
        idle_timeout: Duration::from_millis(pod.map_or(0, |pod| pod.pool.idle_timeout_ms)),
        spec,
        process,
        page,
        seat,
        shared: shared.clone(),
        state: State::Starting { hello: false },
        actions: Vec::new(),
        next_ask: 1,
        hands: BTreeMap::new(),
        running: BTreeMap::new(),
        report: Report::default(),
        returns: Vec::new(),
        hungry: false,
        leaving: false,
        keeps_page: false,
        dumps_stacks: false,
        undelivered: None,
        unfinished: None,
        last: None,
        partial: None,
        start_descriptor: false,
        again: None,
        idle_at: None,
        lane_closed_at: None,
        heard: now,
        silence: Silence::default(),
        last_freed: now,
        memory_looked: now,
        ending: None,
        blame: None,
        logs_ended: Some(logs_ended),
        bury,
    };
    tokio::spawn(driver.run());
    Ok(Watcher { buried, shared })
}

/// A pod that answers is worth more than what would be known of its end: on a full disk it goes without.
fn or_without<T>(result: Result<T, Fault>, lost: &str) -> Option<T> {
    result.inspect_err(|fault| tracing::warn!("{lost}: {fault}")).ok()
}

/// One of the two lanes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Which {
    Control,
    Data,
}

/// An ask that was sent.
pub(super) struct Hand {
    /// None once its caller has its outcome.
    pub placed: Option<Placed>,
    /// Its unit: the number of the unit's first ask.
    pub unit: AskId,
    /// When it last gave progress or a chunk, or was begun.
    pub heard: Instant,
}

/// A unit that was sent.
pub(super) struct Running {
    pub asks: usize,
    pub sent: Instant,
    /// Until when it may wind up.
    grace: Option<Instant>,
    /// The cohorts of its halves, once it failed as a whole.
    pub split: Option<(u64, u64)>,
    good: usize,
}

/// What is known while a busy pod says nothing.
#[derive(Default)]
pub(super) struct Silence {
    /// How often it was looked at since it last spoke.
    pub looks: u32,
    cpu: Option<Duration>,
    /// Since when it has not computed.
    still_since: Option<Instant>,
}

pub(super) struct Driver {
    pub spec: Spec,
    pub process: Process,
    pub page: Page,
    pub seat: Seat,
    pub shared: Arc<Shared>,
    pub state: State,
    pub rules: Rules,
    recycle: Recycle,
    idle_timeout: Duration,
    actions: Vec<Action>,
    pub control: Lane,
    /// None when both lanes share the control socket.
    pub data: Option<Lane>,
    pub next_ask: AskId,
    pub hands: BTreeMap<AskId, Hand>,
    pub running: BTreeMap<AskId, Running>,
    /// What the pool is told at the next turn.
    pub report: Report,
    /// Asks of batches that failed as a whole: they go back in halves.
    pub returns: Vec<Placed>,
    /// There may be work in the pool, and room for it here.
    hungry: bool,
    /// It was asked to go.
    pub leaving: bool,
    /// The pod notes in its page what it has begun.
    pub keeps_page: bool,
    pub dumps_stacks: bool,
    pub undelivered: Option<Undelivered>,
    /// A lane whose decoder may hold whole frames.
    pub unfinished: Option<Which>,
    /// What the last `Answer` or `Partial` event carried, for the action that follows from it.
    pub last: Option<(Result<Payload, Fault>, bool)>,
    pub partial: Option<FromPod>,
    pub start_descriptor: bool,
    // Waits, and when each is over.
    phase: Option<Instant>,
    again: Option<Instant>,
    idle_at: Option<Instant>,
    /// A lane ended: when to stop waiting for the process to end as well.
    pub lane_closed_at: Option<Instant>,
    /// When the pod last said anything.
    pub heard: Instant,
    pub silence: Silence,
    last_freed: Instant,
    memory_looked: Instant,
    pub ending: Option<Ending>,
    pub blame: Option<Fault>,
    pub logs_ended: Option<oneshot::Receiver<()>>,
    pub bury: watch::Sender<bool>,
}

impl Driver {
    async fn run(mut self) {
        // One timer for all waits. It may ring early, when a wait was put off: then it is set again.
        let mut ring: Pin<Box<Sleep>> = Box::pin(sleep_until(far()));
        while self.state != State::Dead {
            if self.hungry || !self.report.is_empty() {
                self.turn();
            }
            self.flush();
            if let Some(due) = self.next_due()
                && due < ring.deadline()
            {
                ring.as_mut().reset(due);
            }
            let undelivered = self.undelivered.is_some();
            let lane_open = !self.lane_ended();
            // Not biased: a lane that is always readable must not starve the timer or the end of the process.
            tokio::select! {
                _ = readable(self.data.as_ref()), if !undelivered && lane_open => self.read(Which::Data),
                _ = self.control.stream().readable(), if lane_open && !(undelivered && self.carries_data(Which::Control)) => {
                    self.read(Which::Control)
                }
                _ = std::future::ready(()), if self.unfinished.is_some() => {
                    if let Some(which) = self.unfinished.take() {
                        self.read(which);
                    }
                }
                inbox = self.shared.told() => self.heed(inbox),
                ending = self.process.ended() => {
                    self.read_last_words();
                    self.step(Event::Exited(ending));
                }
                _ = deliver(&mut self.undelivered), if undelivered => {
                    self.unfinished = Some(if self.data.is_some() { Which::Data } else { Which::Control });
                }
                _ = writable(&self.control, self.data.as_ref()), if self.has_output() => {}
                _ = &mut ring => {
                    self.due(Instant::now());
                    ring.as_mut().reset(self.next_due().unwrap_or_else(far));
                }
            }
        }
        self.bury().await;
    }

    fn has_output(&self) -> bool {
        self.control.has_output() || self.data.as_ref().is_some_and(Lane::has_output)
    }

    fn lane_ended(&self) -> bool {
        self.lane_closed_at.is_some() || self.control.is_closed() || self.data.as_ref().is_some_and(Lane::is_closed)
    }

    pub(super) fn step(&mut self, event: Event) {
        let state = std::mem::replace(&mut self.state, State::Dead);
        let mut actions = std::mem::take(&mut self.actions);
        self.state = step(self.rules, state, event, &mut actions);
        self.shared.show(&self.state);
        for action in actions.drain(..) {
            self.act(action);
        }
        // An action may have made a step of its own: the list of the outermost is kept for the next.
        self.actions = actions;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SendStart => self.send_start(),
            Action::SendLoad => self.say_load(),
            Action::SendPing => self.say_ping(),
            Action::SendCancel(ask) => self.say_cancel(ask),
            Action::SendDrain => self.say_drain(),
            Action::SendUnit(first) => self.send_unit(first),
            Action::Serve => {
                self.shared.was_ready.store(true, Ordering::Release);
                self.idle_at = Some(Instant::now() + self.idle_timeout);
                self.hungry = true;
                self.seat.ready();
            }
            Action::Deliver(ask) => self.deliver_partial(ask),
            Action::Resolve(ask) => self.resolve(ask),
            Action::Fail(ask, fault) => self.finish(ask, Reply::Fault(fault)),
            Action::Grace(unit) => {
                let until = Instant::now() + Duration::from_millis(CANCEL_GRACE_MS);
                self.running.entry(unit).and_modify(|running| running.grace = Some(until));
            }
            Action::Freed(unit) => self.freed(unit),
            Action::DumpStacks => {
                // The pod prints where it hangs; one that cannot would die of the signal.
                if self.dumps_stacks {
                    self.process.dump_stacks(self.shared.pid.load(Ordering::Acquire));
                }
            }
            Action::Terminate => {
                // By word as well as by signal: the control thread hears while the main thread ignores SIGTERM.
                self.say_exit();
                self.process.terminate();
            }
            Action::Kill => self.process.kill(),
            Action::KillGroup => self.process.kill_group(),
            Action::Arm(timer) => self.phase = Some(Instant::now() + wait(timer, self.dumps_stacks)),
            Action::Disarm => self.phase = None,
            // The first reason is the reason; what follows from it is not.
            Action::Blame(fault) => drop(self.blame.get_or_insert(fault)),
            Action::Bury(ending) => self.ending = Some(ending),
        }
    }

    // What the pool and callers want.

    fn heed(&mut self, inbox: Inbox) {
        self.hungry |= inbox.work;
        for ticket in inbox.cancelled {
            let of = |hand: &Hand| hand.placed.as_ref().is_some_and(|placed| placed.ticket == ticket);
            let Some(ask) = self.hands.iter().find(|(_, hand)| of(hand)).map(|(ask, _)| *ask) else { continue };
            self.step(Event::Cancel(ask));
            // A pod that is being ended by force has no use for the word: its caller is let go of all the same.
            self.finish(ask, Reply::Fault(Fault::new(Code::Cancelled, "the caller went away")));
        }
        if inbox.retire {
            self.retire();
        }
        if inbox.stop {
            self.leaving = true;
            self.seat.retire();
            self.step(Event::Stop);
        }
    }

    fn retire(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.seat.retire();
            self.step(Event::Retire);
        }
    }

    /// Tells the pool what is over, and takes what there is room for.
    fn turn(&mut self) {
        self.hungry = false;
        let returns = std::mem::take(&mut self.returns);
        self.seat.put_back(returns, false);
        if !matches!(self.state, State::Serving(_)) || self.leaving {
            if !self.report.is_empty() {
                self.seat.report(&mut self.report);
            }
            return;
        }
        let taken = self.seat.turn(&mut self.report, self.state.units(), self.keeps_page, &self.shared);
        self.again = taken.again;
        for unit in taken.units {
            self.begin(unit);
        }
    }

    fn begin(&mut self, mut unit: Vec<Placed>) {
        unit.retain(|placed| {
            let wanted = !placed.pending.end.is_closed();
            if !wanted {
                self.report.over.push(placed.ticket);
            }
            wanted
        });
        if unit.is_empty() {
            self.hungry = true;
            return;
        }
        let (first, asks, now) = (self.next_ask, unit.len(), Instant::now());
        self.next_ask += asks as u64;
        for (ask, mut placed) in (first..).zip(unit) {
            placed.pending.begun += 1;
            self.hands.insert(ask, Hand { placed: Some(placed), unit: first, heard: now });
        }
        self.running.insert(first, Running { asks, sent: now, grace: None, split: None, good: 0 });
        if self.running.len() == 1 {
            (self.heard, self.silence) = (now, Silence::default());
        }
        self.idle_at = None;
        self.shared.in_hand.store(self.hands.len(), Ordering::Relaxed);
        self.step(Event::Unit(first, asks));
    }

    // Callers.

    fn resolve(&mut self, ask: AskId) {
        let Some((result, whole_batch)) = self.last.take() else {
            return self.finish(ask, Reply::Fault(Fault::new(Code::Internal, "an answer was lost")));
        };
        let Some(hand) = self.hands.get_mut(&ask) else { return };
        match result {
            Ok(payload) => {
                if let Some(running) = self.running.get_mut(&hand.unit) {
                    running.good += 1;
                }
                self.shared.was_useful.store(true, Ordering::Relaxed);
                self.report.good += 1;
                if let Some(placed) = hand.placed.as_ref().filter(|_| self.seat.has_suspects()) {
                    self.report.cleared.push(pool::digest(&placed.pending.request));
                }
                self.finish(ask, Reply::Answer(payload));
            }
            Err(fault) => {
                let unit = hand.unit;
                if whole_batch && self.running.get(&unit).is_some_and(|running| running.asks > 1) {
                    // Which item it was is found by halves.
                    if let Some(placed) = hand.placed.take() {
                        let placed = self.halved(placed, ask, unit);
                        self.returns.push(placed);
                    }
                    return;
                }
                let by_pod = matches!(fault.blame, Blame::Pod | Blame::Machine);
                self.report.failed += u64::from(by_pod);
                // A pod that can say what failed is at work, whoever is to blame.
                self.report.good += u64::from(!by_pod);
                self.shared.was_useful.fetch_or(!by_pod, Ordering::Relaxed);
                let fault = self.with_tail(fault, ask);
                *self.shared.last_fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(fault.clone());
                self.finish(ask, Reply::Fault(fault));
            }
        }
    }

    /// The ask as a member of its half of a batch that failed.
    pub(super) fn halved(&mut self, mut placed: Placed, ask: AskId, unit: AskId) -> Placed {
        let Some(running) = self.running.get_mut(&unit) else { return placed };
        let (left, right) = *running.split.get_or_insert_with(|| self.seat.split());
        let cohort = if ((ask - unit) as usize) < running.asks / 2 { left } else { right };
        if let Some(group) = &mut placed.waiting.group {
            group.cohort = cohort;
        }
        placed
    }

    /// Gives its caller the last reply, if nobody did.
    pub(super) fn finish(&mut self, ask: AskId, reply: Reply) {
        let Some(placed) = self.hands.get_mut(&ask).and_then(|hand| hand.placed.take()) else { return };
        self.report.over.push(placed.ticket);
        placed.pending.finish(reply);
        // What waits to be delivered is of this ask, unless several run: then it finds its receiver gone.
        if self.hands.len() == 1 {
            self.undelivered = None;
        }
    }

    fn freed(&mut self, unit: AskId) {
        let Some(running) = self.running.remove(&unit) else { return };
        for ask in unit..unit + running.asks as u64 {
            self.hands.remove(&ask);
        }
        let now = Instant::now();
        if running.good > 0 {
            // One that was sent ahead began when the one before it was over.
            let service = now - running.sent.max(self.last_freed);
            self.report.served.push((service, running.asks));
        }
        self.last_freed = now;
        self.hungry = true;
        self.shared.in_hand.store(self.hands.len(), Ordering::Relaxed);
        self.shared.log.attribute_to(self.hands.first_key_value().map_or(0, |(ask, _)| *ask));
        if self.running.is_empty() {
            self.idle_at = Some(now + self.idle_timeout);
        }
        self.recycle(now);
    }

    /// Whether the pod served long enough.
    fn recycle(&mut self, now: Instant) {
        let Recycle { calls, age_ms, memory_bytes } = self.recycle;
        let many = calls.is_some_and(|calls| self.shared.asks.load(Ordering::Relaxed) >= calls);
        let old = age_ms.is_some_and(|age_ms| self.shared.age_ms() >= age_ms);
        let large = memory_bytes.is_some_and(|most| {
            // Looking takes tens of microseconds: not after every ask.
            let looks = now - self.memory_looked >= Duration::from_millis(MEMORY_LOOK_MS);
            if looks {
                self.memory_looked = now;
            }
            looks && vitals::memory_bytes(self.shared.pid.load(Ordering::Acquire)).is_some_and(|bytes| bytes > most)
        });
        if many || old || large {
            self.retire();
        }
    }

    // Waits.

    /// When the first of all waits is over.
    fn next_due(&self) -> Option<Instant> {
        let graces = self.running.values().filter_map(|running| running.grace);
        let stalls = self.hands.values().filter_map(stalls_at);
        let speaks = (!self.running.is_empty()).then(|| self.looks_at());
        let others = [self.phase, self.again, self.idle_at, self.lane_closed_at, speaks];
        others.into_iter().flatten().chain(graces).chain(stalls).min()
    }

    /// When a busy pod that says nothing is looked at next.
    fn looks_at(&self) -> Instant {
        self.heard + Duration::from_millis(PING_MS) * (self.silence.looks + 1)
    }

    fn due(&mut self, now: Instant) {
        if self.phase.take_if(|at| *at <= now).is_some() {
            self.step(Event::Timeout);
        }
        if self.lane_closed_at.take_if(|at| *at <= now).is_some() {
            self.step(Event::LaneClosed);
        }
        if self.again.take_if(|at| *at <= now).is_some() {
            self.hungry = true;
        }
        if self.idle_at.take_if(|at| *at <= now).is_some() {
            match self.leaving || self.seat.may_idle_out() {
                true => self.retire(),
                false => self.idle_at = Some(now + self.idle_timeout),
            }
        }
        let graces: Vec<AskId> =
            self.running.iter_mut().filter_map(|(unit, running)| running.grace.take_if(|at| *at <= now).map(|_| *unit)).collect();
        for unit in graces {
            self.step(Event::GraceOver(unit));
        }
        let stalled: Vec<AskId> =
            self.hands.iter().filter(|(_, hand)| stalls_at(hand).is_some_and(|at| at <= now)).map(|(ask, _)| *ask).collect();
        for ask in stalled {
            let fault = self.stalled(ask);
            self.step(Event::Stalled(ask, fault));
        }
        self.listen(now);
    }

    /// Liveness, apart from progress: a busy pod that says nothing is asked; one that then neither speaks nor computes is ended.
    fn listen(&mut self, now: Instant) {
        if self.running.is_empty() || !matches!(self.state, State::Serving(_) | State::Draining { .. }) {
            return;
        }
        if now < self.looks_at() {
            return;
        }
        self.silence.looks += 1;
        if self.silence.looks == 1 {
            self.say_ping();
        }
        let cpu = vitals::cpu_time(self.shared.pid.load(Ordering::Acquire));
        let computes = self.silence.cpu.is_none_or(|before| cpu > Some(before));
        self.silence.cpu = cpu;
        let still_since = match computes {
            true => *self.silence.still_since.insert(now),
            false => *self.silence.still_since.get_or_insert(now),
        };
        if now - still_since >= Duration::from_millis(SILENCE_MS) {
            let quiet = (now - self.heard).as_secs();
            let text = format!("the pod said nothing for {quiet} s, did not compute either, and was killed");
            self.step(Event::Silent(Fault::new(Code::Stalled, text)));
        }
    }

    fn stalled(&self, ask: AskId) -> Fault {
        let operation = self.hands.get(&ask).and_then(|hand| hand.placed.as_ref()).map(|placed| placed.pending.request.operation.clone());
        let (name, interval) = operation.map_or((String::new(), 0), |op| (op.name.clone(), op.progress_interval_ms.unwrap_or(0)));
        let recipe = &self.spec.recipe.manifest().name;
        let fault =
            Fault::new(Code::Stalled, format!("`{name}` of `{recipe}` gave no progress for {interval} ms, which is what it promises"))
                .hint("the recipe declares that as `progress_interval_ms`: it hangs, or it should report progress more often");
        self.with_tail(fault, ask)
    }
}

/// When an ask without progress has stalled; only what promises progress can.
fn stalls_at(hand: &Hand) -> Option<Instant> {
    let placed = hand.placed.as_ref()?;
    Some(hand.heard + Duration::from_millis(placed.pending.request.operation.progress_interval_ms?))
}
