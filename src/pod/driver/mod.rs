//! The task that owns one pod: it performs what `state.rs` decides.
//!
//! One loop waits for everything at once (what callers and the pool want, both lanes, the process, the next wait), turns what came into
//! events of the state machine, and acts. No other task touches the pod. `sending.rs` has what goes out, `ending.rs` the end.

mod answering;
pub mod checkpoints;
mod clocks;
mod crowding;
mod ending;
mod in_flight;
mod loading;
mod receiving;
mod regions;
mod sending;
pub mod state;
mod waits;

use crate::pod::spec;
use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    disk::make,
    model::{
        Code, Fault,
        limits::{CANCEL_GRACE_MS, FRAME_BYTES_MAX, MEMORY_LOOK_MS, MEMORY_WATCH_MS, POD_FILES, SESSION_TTL_MAX_MS},
        manifest::Recycle,
    },
    pod::{
        pool::{
            ask::{Inbox, Placed, Reply, Shared, Watcher},
            schedule::{Served, Ticket},
            slot::{Report, Seat, Unit},
        },
        process::{
            Process,
            family::Family,
            holdings::Holder,
            page::Page,
            registry::{self, Record},
            starting::{Grouping, grouped, started},
            vitals,
        },
        record::log,
        sandbox::{
            cgroup::{Group, cgroups},
            egress::Egress,
        },
        spec::Spec,
        wire::{
            frame,
            lane::Lane,
            messages::{Control, FromPod, Payload},
        },
    },
};
use checkpoints::Asked;
use in_flight::{Hand, Outgoing, Running, Silence, Unfinished, Which, copied};
use loading::Residing;
use regions::{Lender, Regions};
use state::{Action, AskId, Ending, Event, Rules, State, Timer, step};
use waits::{Undelivered, far, readable, wait, writable};

/// Spawns the process and the task that owns it from now on. `family`: a zygote to fork it from, where there is one that may be.
///
/// Must be called within a tokio runtime. Errors: `io` when there is no process to be had, `overloaded` when its recipe holds
/// all the descriptors that it may.
pub fn spawn(mut spec: Spec, seat: Seat, family: Option<&Family>) -> Result<Watcher, Fault> {
    let recipe = spec.recipe.manifest().name.to_string();
    let holder = Holder::of(&recipe);
    let own = holder.take(POD_FILES).map_err(|short| short.fault(&format!("a pod of `{recipe}` was not started")))?;
    spec.keeps.push(Box::new(own));
    let beside = spec.scratch.parent().unwrap_or(&spec.scratch);
    make::folder(beside, make::PRIVATE_FOLDER).map_err(|error| Fault::io(format!("making {}", beside.display()), &error))?;
    let page = or_without(Page::create(beside, &spec.incarnation), "what a pod has begun will not be known").unwrap_or_else(Page::none);
    let manifest = spec.recipe.manifest().clone();
    // Written before there is a process: whatever happens from here on, the next host finds what is left.
    let mut record = Record::new(&spec.incarnation, &manifest.name.to_string());
    let path = spec::path_of(&spec.scratch);
    or_without(registry::record(&path, &record), "should this host be killed, the next one may not find what its pod left");
    let (mut process, plan) = started(&spec, family, page.path()).inspect_err(|_| registry::forget(&path))?;
    // A forked pod's number comes later.
    let grouping = process.keeper_pid().filter(|_| !process.is_forked()).and_then(|keeper| grouped(&spec, keeper));
    record.keeper = process.keeper_pid().and_then(registry::Process::of);
    // The first one found its place on the disk; should this one not, the mark in the pod's variables still leads to it.
    let _ = registry::record(&path, &record);
    let (control, data) = process.take_streams().expect("a new process has its sockets");
    let (logs_done, logs_ended) = oneshot::channel();
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let shared = Arc::new(Shared::new(&manifest, &spec.incarnation, spec.printed.clone()));
    shared.forked.store(process.is_forked(), Ordering::Relaxed);
    let log = shared.log.clone();
    tokio::spawn(async move {
        let out = async {
            if let Some(pipe) = stdout {
                log::drain_pipe(pipe, log.clone()).await;
            }
        };
        let err = async {
            if let Some(pipe) = stderr {
                log::drain_pipe(pipe, log.clone()).await;
            }
        };
        tokio::join!(out, err);
        let _ = logs_done.send(());
    });
    let (bury, buried) = watch::channel(false);
    let mut control = Lane::new(control, FRAME_BYTES_MAX);
    // First of all the walls: the keeper reads exactly this, and the pod everything after it. Before the keeper is in its group it starts nothing.
    let plan = match grouping {
        Some(_) => plan,
        None => {
            if let Some(plan) = plan {
                control.put_ask(|out| frame::encode(out, 0, &plan, std::iter::empty()));
            }
            None
        }
    };
    let pod = manifest.pod.as_ref();
    let now = Instant::now();
    let residing = Residing::new(&mut spec, &shared);
    let regions = Regions::new(Arc::downgrade(&shared), Some(Lender::of(&spec)), holder);
    let driver = Driver {
        control,
        data: Some(Lane::new(data, FRAME_BYTES_MAX)),
        phase: Some(now + Duration::from_millis(pod.map_or(0, |pod| pod.start_timeout_ms))),
        rules: Rules { concurrency: pod.map_or(1, |pod| pod.concurrency as usize) },
        // What a session has is not to be lost by chance: its pod goes when it was kept, and then by word of the session.
        recycle: pod.filter(|_| spec.session.is_none()).map(|pod| pod.recycle.clone()).unwrap_or_default(),
        idle_timeout: Duration::from_millis(match spec.session {
            Some(_) => SESSION_TTL_MAX_MS,
            None => pod.map_or(0, |pod| pod.pool.idle_timeout_ms),
        }),
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
        is_past_help: false,
        keeps_page: false,
        dumps_stacks: false,
        undelivered: None,
        is_behind: false,
        backed_up_until: None,
        unfinished: Unfinished::default(),
        pings: 0,
        last: None,
        partial: None,
        session: Asked::default(),
        residing,
        outgoing: VecDeque::new(),
        regions,
        shares_memory: false,
        heeds_credit: false,
        again: None,
        idle_at: None,
        lane_closed_at: None,
        exit_late_until: None,
        heard: now,
        silence: Silence::default(),
        last_freed: now,
        memory_looked: now,
        memory_due: Some(now + Duration::from_millis(MEMORY_WATCH_MS)),
        group: None,
        grouping,
        plan,
        egress: None,
        awaits_birth: false,
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

/// Waits for a group that is being made. Cancel-safe.
async fn made(grouping: &mut Option<Grouping>) -> Option<Group> {
    let group = match grouping {
        Some(grouping) => grouping.await.flatten(),
        None => std::future::pending().await,
    };
    *grouping = None;
    group
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
    pub idle_timeout: Duration,
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
    pub hungry: bool,
    /// It was asked to go.
    pub leaving: bool,
    /// It is being ended by force, or ended.
    is_past_help: bool,
    /// The pod notes in its page what it has begun.
    pub keeps_page: bool,
    pub dumps_stacks: bool,
    pub undelivered: Option<Undelivered>,
    /// A caller may be behind while others wait: to be looked at.
    pub is_behind: bool,
    /// It leaves too much unread, and is not read itself: when to stop waiting for it to read.
    pub backed_up_until: Option<Instant>,
    /// Lanes whose decoders may hold whole frames.
    pub unfinished: Unfinished,
    /// Pings that were sent.
    pub pings: u64,
    /// What the last `Answer` or `Partial` event carried, for the action that follows from it.
    pub last: Option<(Result<Payload, Fault>, bool)>,
    pub partial: Option<FromPod>,
    pub session: Asked,
    /// Its place for its models.
    pub residing: Residing,
    /// Units that are to be sent, in order: one whose blobs are being copied holds up those behind it.
    pub outgoing: VecDeque<Outgoing>,
    /// Memory that it shares with the host.
    pub regions: Regions,
    /// It can have blobs in regions.
    pub shares_memory: bool,
    /// It counts what it may send of a stream.
    pub heeds_credit: bool,
    // Waits, and when each is over.
    pub phase: Option<Instant>,
    pub again: Option<Instant>,
    pub idle_at: Option<Instant>,
    /// A lane ended: when to stop waiting for the process to end as well.
    pub lane_closed_at: Option<Instant>,
    /// A lane ended: until when a process that has ended, and whose end was not told yet, is waited for.
    pub exit_late_until: Option<Instant>,
    /// When the pod last said anything.
    pub heard: Instant,
    pub silence: Silence,
    last_freed: Instant,
    memory_looked: Instant,
    /// When its memory is looked at next, to end it above its limit; never where a control group does from its first process on.
    pub memory_due: Option<Instant>,
    /// What bounds it in the kernel, where this machine lets us.
    pub group: Option<Group>,
    /// That group, while it is being made.
    pub grouping: Option<Grouping>,
    /// What its keeper is told once it is in its group.
    plan: Option<Vec<u8>>,
    /// Answers its proxy, if names on the network were granted.
    pub egress: Option<Egress>,
    /// Its first word came before its number: it is told to start when that is known.
    pub awaits_birth: bool,
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
            if std::mem::take(&mut self.is_behind) {
                self.make_way();
            }
            self.flush();
            if let Some(due) = self.next_due()
                && due < ring.deadline()
            {
                ring.as_mut().reset(due);
            }
            let lane_open = !self.lane_ended();
            let (hears_data, hears_control) = (lane_open && self.hears(Which::Data), lane_open && self.hears(Which::Control));
            let birth = self.process.born();
            // Not biased: a lane that is always readable must not starve the timer or the end of the process.
            tokio::select! {
                _ = readable(self.data.as_ref()), if hears_data => self.read(Which::Data),
                _ = self.control.stream().readable(), if hears_control => self.read(Which::Control),
                _ = std::future::ready(()), if self.unfinished.any() => {
                    for which in self.unfinished.take() {
                        self.read(which);
                    }
                }
                inbox = self.shared.told() => self.heed(inbox),
                result = copied(&mut self.outgoing) => self.copied(result),
                group = made(&mut self.grouping), if self.grouping.is_some() => self.grouped(group),
                _ = birth, if self.awaits_birth => self.born(),
                ending = self.process.ended() => {
                    self.read_last_words();
                    self.step(Event::Exited(ending));
                }
                kept = Driver::kept(&mut self.session), if self.keeps() => self.was_kept(kept),
                _ = writable(&self.control, self.data.as_ref()), if self.has_output() => {}
                _ = &mut ring => {
                    self.due(Instant::now());
                    ring.as_mut().reset(self.next_due().unwrap_or_else(far));
                }
            }
        }
        self.lost_checkpoint();
        self.bury().await;
    }

    fn grouped(&mut self, group: Option<Group>) {
        self.group = group;
        self.shared.in_group.store(self.group.is_some() && cgroups().limits_memory(), Ordering::Relaxed);
        // What a forked pod started before it was in its group is outside: it stays watched.
        if self.group.is_some() && cgroups().limits_memory() && !self.process.is_forked() {
            self.memory_due = None;
        }
        if let Some(plan) = self.plan.take() {
            self.control.put_ask(|out| frame::encode(out, 0, &plan, std::iter::empty()));
        }
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
        if matches!(self.state, State::Stopping { .. } | State::Dead) && !std::mem::replace(&mut self.is_past_help, true) {
            self.seat.fail();
        }
        for action in actions.drain(..) {
            self.act(action);
        }
        // An action may have made a step of its own: the list of the outermost is kept for the next.
        self.actions = actions;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SendStart => self.send_start(),
            Action::AskToLoad => self.ask_to_load(),
            Action::SendLoad => self.say_load(),
            Action::SendUnload => self.say_on_data(&Control::Unload),
            Action::Emptied => self.emptied(),
            Action::SendPing => self.say_ping(),
            Action::SendCancel(ask) => self.say_cancel(ask),
            Action::SendDrain => self.say_drain(),
            Action::SendUnit(first) => self.send_unit(first),
            Action::Serve => {
                self.shared.was_ready.store(true, Ordering::Release);
                self.loaded();
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
            Action::KillGroup => {
                self.process.kill_group();
                if let Some(group) = &self.group {
                    let _ = group.kill();
                }
            }
            Action::Arm(Timer::Load) => self.phase = Some(Instant::now() + self.residing.time_to_load()),
            Action::Arm(timer) => self.phase = Some(Instant::now() + wait(timer, self.dumps_stacks)),
            Action::Disarm => self.residing.time_left = self.phase.take().map(|at| at.saturating_duration_since(Instant::now())),
            // The first reason is the reason; what follows from it is not.
            Action::Blame(fault) => drop(self.blame.get_or_insert(fault)),
            Action::Bury(ending) => self.ending = Some(ending),
        }
    }

    // What the pool and callers want.

    fn heed(&mut self, inbox: Inbox) {
        self.hungry |= inbox.work;
        self.is_behind |= inbox.crowded;
        self.heed_place(&inbox);
        for ticket in inbox.cancelled {
            let Some(ask) = self.ask_of(ticket) else { continue };
            self.step(Event::Cancel(ask));
            // A pod that is being ended by force has no use for the word: its caller is let go of all the same.
            self.finish(ask, Reply::Fault(Fault::new(Code::Cancelled, "the caller went away")));
        }
        if inbox.checkpoint {
            self.want_checkpoint();
        }
        if inbox.close {
            self.want_close();
        }
        inbox.freed.into_iter().for_each(|region| self.region_freed(region));
        for (ticket, chunks) in inbox.credits {
            if let Some(ask) = self.ask_of(ticket) {
                self.say_credit(ask, chunks);
            }
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

    fn ask_of(&self, ticket: Ticket) -> Option<AskId> {
        let of = |hand: &Hand| hand.placed.as_ref().is_some_and(|placed| placed.ticket == ticket);
        self.hands.iter().find(|(_, hand)| of(hand)).map(|(ask, _)| *ask)
    }

    pub(super) fn retire(&mut self) {
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
        if !self.takes_asks() {
            if !self.report.is_empty() {
                self.seat.report(&mut self.report);
            }
            return;
        }
        let ahead = self.keeps_page && self.running.values().all(|running| running.is_tiny);
        let in_hand = self.hands.values().filter_map(|hand| hand.placed.as_ref()).map(|placed| placed.pending.request.priority).min();
        let taken = self.seat.turn(&mut self.report, self.state.units(), in_hand, ahead, &self.shared);
        self.again = taken.again;
        self.residing.work_waits = taken.waiting.is_some();
        for unit in taken.units {
            match self.takes_asks() {
                true => self.begin(unit),
                // One before it was the last that this pod was to have.
                false => self.seat.put_back(unit.asks, false),
            }
        }
        self.works(taken.class);
    }

    /// Not if what the pod would say could not be heard.
    fn takes_asks(&self) -> bool {
        matches!(self.state, State::Serving(_)) && !self.leaving && !self.residing.yields && !self.lane_ended() && !self.asks_wait()
    }

    fn begin(&mut self, unit: Unit) {
        let Unit { asks: mut placed, is_tiny } = unit;
        placed.retain(|placed| {
            let wanted = !placed.pending.end.is_closed();
            if !wanted {
                self.report.over.push(placed.ticket);
            }
            wanted
        });
        let Some(operation) = placed.first().map(|placed| placed.pending.request.operation.clone()) else {
            self.hungry = true;
            return;
        };
        let (first, asks, now) = (self.next_ask, placed.len(), Instant::now());
        self.next_ask += asks as u64;
        for (ask, mut placed) in (first..).zip(placed) {
            placed.pending.begun += 1;
            placed.pending.ran = true;
            self.hands.insert(ask, Hand { placed: Some(placed), unit: first, heard: now, owed: 0, unread: None });
        }
        self.running.insert(
            first,
            Running { asks, operation, is_tiny, sent: now, lever: self.lever_of_an_ask(), grace: None, split: None, good: 0 },
        );
        if self.running.len() == 1 {
            (self.heard, self.silence) = (now, Silence::default());
            self.memory_due = self.memory_due.map(|at| at.min(now + Duration::from_millis(MEMORY_WATCH_MS)));
        }
        self.idle_at = None;
        self.shared.in_hand.store(self.hands.len(), Ordering::Relaxed);
        self.note_streams();
        self.step(Event::Unit(first, asks));
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
            self.report.served.push(Served { operation: running.operation, service, items: running.asks });
        }
        self.last_freed = now;
        self.hungry = true;
        self.note_streams();
        // One that was sent ahead has its turn, and its clock begins.
        if let Some(next) = self.running.keys().nth(self.rules.concurrency - 1).copied() {
            self.hands.range_mut(next..).take_while(|(_, hand)| hand.unit == next).for_each(|(_, hand)| hand.heard = now);
        }
        self.shared.in_hand.store(self.hands.len(), Ordering::Relaxed);
        self.attribute_lines();
        if self.running.is_empty() {
            self.idle_at = Some(now + self.idle_timeout);
            self.rests(now);
        }
        self.want_first_checkpoint();
        self.tell_between();
        self.recycle(now);
    }

    /// Lines belong to the eldest ask, and to its call unless the pod works for several.
    pub(super) fn attribute_lines(&self) {
        let last = self.running.keys().nth(self.rules.concurrency - 1).copied().unwrap_or(AskId::MAX);
        let mut at_work = self.hands.values().filter(|hand| hand.unit <= last);
        let call = match (at_work.next(), at_work.next()) {
            // One that has its answer, or went away, is still no other's.
            (Some(hand), None) => Some(hand.placed.as_ref().map_or(0, |placed| placed.pending.request.events.call())),
            _ => None,
        };
        self.shared.log.attribute_to(self.hands.first_key_value().map_or(0, |(ask, _)| *ask), call);
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
}
