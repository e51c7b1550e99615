//! The task of one pod: its start, its loop, and the actions that the state machine orders.

use crate::pod::spec;
use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::{Instant, Sleep, sleep_until},
};

use super::Driver;
use super::bounds::Sandbox;
use super::checkpoints::Checkpoints;
use super::clocks::Clocks;
use super::ending::End;
use super::features::Features;
use super::in_flight::{InFlight, Said};
use super::lanes::{Lanes, Which};
use super::loading::Loading;
use super::regions::{Lender, Regions};
use super::state::{Action, AskId, Event, Rules, State, Timer, step};
use super::waits::{far, wait};
use crate::{
    disk::make,
    model::{
        Code, Fault,
        limits::{CANCEL_GRACE_MS, FRAME_BYTES_MAX, POD_FILES},
    },
    pod::{
        pool::{
            ask::Reply,
            slot::{Slot, Unit},
            watcher::{Mailbox, PodShared, Watcher},
        },
        process::{
            family::Family,
            holdings::Holder,
            page::Page,
            registry::{self, Record},
            starting::{grouped, started},
            vitals,
        },
        record::log,
        spec::Spec,
        wire::{frame, lane::Lane, messages::Control},
    },
};

/// Spawns the process and the task that owns it from then on. `family`: a zygote to fork the pod from, if
/// there is a usable one.
///
/// Must be called within a tokio runtime. Errors: `io` if no process can be started, `overloaded` if its
/// recipe holds all the descriptors that it may.
pub fn spawn(mut spec: Spec, slot: Slot, family: Option<&Family>) -> Result<Watcher, Fault> {
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
    // The first one found its place on the disk; should this one not, the mark in the pod's variables still
    // leads to it.
    let _ = registry::record(&path, &record);
    let (control, data) = process.take_streams().expect("a new process has its sockets");
    let (logs_done, logs_ended) = oneshot::channel();
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let shared = Arc::new(PodShared::new(&manifest, &spec.incarnation, spec.printed.clone()));
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
    let (finished_sender, finished) = watch::channel(false);
    let mut control = Lane::new(control, FRAME_BYTES_MAX);
    // First of all the walls: the keeper reads exactly this, and the pod everything after it. Before the
    // keeper is in its group it starts nothing.
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
    let loading = Loading::new(&mut spec, &shared);
    let regions = Regions::new(Arc::downgrade(&shared), Some(Lender::of(&spec)), holder);
    let driver = Driver {
        rules: Rules::new(pod.map_or(1, |pod| pod.concurrency as usize)),
        clocks: Clocks::new(now, pod, spec.session.is_some()),
        spec,
        process,
        page,
        slot,
        shared: shared.clone(),
        state: State::Starting { hello: false },
        actions: Vec::new(),
        lanes: Lanes::new(control, Lane::new(data, FRAME_BYTES_MAX)),
        features: Features::default(),
        in_flight: InFlight::new(now),
        wants_work: false,
        is_behind: false,
        checkpoints: Checkpoints::default(),
        loading,
        regions,
        sandbox: Sandbox::new(grouping, plan),
        end: End::new(logs_ended, finished_sender),
    };
    tokio::spawn(driver.run());
    Ok(Watcher { finished, shared })
}

/// Continues without a record of the pod's end if it cannot be made, as on a full disk: a pod that answers is
/// worth more.
fn or_without<T>(result: Result<T, Fault>, lost: &str) -> Option<T> {
    result.inspect_err(|fault| tracing::warn!("{lost}: {fault}")).ok()
}

impl Driver {
    async fn run(mut self) {
        // One timer for all waits. It may ring early, when a wait was put off: then it is set again.
        let mut ring: Pin<Box<Sleep>> = Box::pin(sleep_until(far()));
        while self.state != State::Dead {
            if self.wants_work || self.in_flight.has_report() {
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
            let lane_open = !self.lanes.is_ended();
            let (hears_data, hears_control) = (lane_open && self.lanes.hears(Which::Data), lane_open && self.lanes.hears(Which::Control));
            let pid_known = self.process.pid_known();
            // Not biased: a lane that is always readable must not starve the timer or the end of the process.
            tokio::select! {
                _ = self.lanes.readable(Which::Data), if hears_data => self.read(Which::Data),
                _ = self.lanes.readable(Which::Control), if hears_control => self.read(Which::Control),
                _ = std::future::ready(()), if self.lanes.has_unfinished() => {
                    for which in self.lanes.take_unfinished() {
                        self.read(which);
                    }
                }
                mailbox = self.shared.receive() => self.heed(mailbox),
                result = self.in_flight.copied() => self.copied(result),
                _ = self.sandbox.grouped(), if self.sandbox.is_grouping() => self.grouped(),
                _ = pid_known, if self.sandbox.awaits_pid() => self.pid_known(),
                ending = self.process.ended() => {
                    self.read_last_words();
                    self.step(Event::Exited(ending));
                }
                kept = self.checkpoints.kept(), if self.checkpoints.is_keeping() => self.was_kept(kept),
                _ = self.lanes.writable(), if self.lanes.has_output() => {}
                _ = &mut ring => {
                    self.due(Instant::now());
                    ring.as_mut().reset(self.next_due().unwrap_or_else(far));
                }
            }
        }
        self.lost_checkpoint();
        self.finish().await;
    }

    /// The pod's control group is there, or cannot be made.
    fn grouped(&mut self) {
        let limits_memory = self.sandbox.limits_memory();
        self.shared.in_group.store(limits_memory, Ordering::Relaxed);
        // What a forked pod started before it was in its group is outside: it stays watched.
        if limits_memory && !self.process.is_forked() {
            self.clocks.stop_watching_memory();
        }
        if let Some(plan) = self.sandbox.take_plan() {
            self.lanes.control().put_ask(|out| frame::encode(out, 0, &plan, std::iter::empty()));
        }
    }

    pub(super) fn step(&mut self, event: Event<Said>) {
        let state = std::mem::replace(&mut self.state, State::Dead);
        let mut actions = std::mem::take(&mut self.actions);
        self.state = step(self.rules, state, event, &mut actions);
        self.shared.show(&self.state);
        if matches!(self.state, State::Stopping { .. } | State::Dead) && self.end.terminate() {
            self.slot.report_failing();
        }
        for action in actions.drain(..) {
            self.act(action);
        }
        // An action may have made a step of its own: the list of the outermost is kept for the next.
        self.actions = actions;
    }

    fn act(&mut self, action: Action<Said>) {
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
                self.shared.set_ready();
                self.loaded();
                self.clocks.begin_idle(Instant::now());
                self.wants_work = true;
                self.slot.report_ready();
            }
            Action::Deliver(ask, part) => self.deliver(ask, part),
            Action::Resolve(ask, answer) => self.resolve(ask, answer),
            Action::Fail(ask, fault) => self.reply(ask, Reply::Fault(fault)),
            Action::Grace(unit) => {
                let until = Instant::now() + Duration::from_millis(CANCEL_GRACE_MS);
                self.in_flight.begin_grace(unit, until);
            }
            Action::Freed(unit) => self.freed(unit),
            Action::DumpStacks => {
                // The pod prints where it hangs; one that cannot would die of the signal.
                if self.features.dumps_stacks() {
                    self.process.dump_stacks(self.shared.pid.load(Ordering::Acquire));
                }
            }
            Action::Terminate => {
                // By word as well as by signal: the control thread hears while the main thread ignores
                // SIGTERM.
                self.say_exit();
                self.process.terminate();
            }
            Action::Kill => self.process.kill(),
            Action::KillGroup => {
                self.process.kill_group();
                self.sandbox.kill_group();
            }
            Action::Arm(Timer::Load) => self.clocks.arm(Instant::now(), self.loading.time_to_load()),
            Action::Arm(timer) => self.clocks.arm(Instant::now(), wait(timer, self.features.dumps_stacks())),
            Action::Disarm => self.loading.set_time_left(self.clocks.disarm(Instant::now())),
            Action::Blame(fault) => self.end.blame(fault),
            Action::Finish(ending) => self.end.exited(ending),
        }
    }

    // What the pool and callers want.

    fn heed(&mut self, mailbox: Mailbox) {
        self.wants_work |= mailbox.work;
        self.is_behind |= mailbox.crowded;
        self.heed_memory(&mailbox);
        for ticket in mailbox.cancelled {
            let Some(ask) = self.in_flight.ask_of(ticket) else { continue };
            self.step(Event::Cancel(ask));
            // A pod that is being ended by force has no use for the word: its caller is let go of all the
            // same.
            self.reply(ask, Reply::Fault(Fault::new(Code::Cancelled, "the caller went away")));
        }
        if mailbox.checkpoint {
            self.want_checkpoint();
        }
        if mailbox.close {
            self.want_close();
        }
        mailbox.freed.into_iter().for_each(|region| self.region_freed(region));
        for (ticket, chunks) in mailbox.credits {
            if let Some(ask) = self.in_flight.ask_of(ticket) {
                self.say_credit(ask, chunks);
            }
        }
        if mailbox.retire {
            self.retire();
        }
        if mailbox.stop {
            self.end.leave();
            self.slot.report_retiring();
            self.step(Event::Stop);
        }
    }

    pub(super) fn retire(&mut self) {
        if self.end.leave() {
            self.slot.report_retiring();
            self.step(Event::Retire);
        }
    }

    /// Reports ended asks to the pool, and takes as many new ones as there is room for.
    fn turn(&mut self) {
        self.wants_work = false;
        let returns = self.in_flight.take_returns();
        self.slot.put_back(returns, false);
        if !self.takes_asks() {
            if self.in_flight.has_report() {
                self.slot.report(self.in_flight.report());
            }
            return;
        }
        let ahead = self.features.keeps_page() && self.in_flight.are_all_tiny();
        let in_hand = self.in_flight.best_priority();
        let taken = self.slot.take_work(self.in_flight.report(), self.state.units(), in_hand, ahead, &self.shared);
        self.clocks.look_for_work_at(taken.again);
        self.loading.set_work_waits(taken.waiting.is_some());
        for unit in taken.units {
            match self.takes_asks() {
                true => self.begin(unit),
                // One before it was the last that this pod was to have.
                false => self.slot.put_back(unit.asks, false),
            }
        }
        self.report_busy(taken.class);
    }

    /// False while the host could not read the pod's messages.
    fn takes_asks(&self) -> bool {
        matches!(self.state, State::Serving(_))
            && !self.end.is_leaving()
            && !self.loading.is_yielding()
            && !self.lanes.is_ended()
            && !self.lanes.asks_wait()
    }

    fn begin(&mut self, unit: Unit) {
        let (fallback, now) = (self.fallback_for_asks(), Instant::now());
        let Some((first, asks)) = self.in_flight.begin(unit, fallback, now) else {
            self.wants_work = true;
            return;
        };
        if self.in_flight.units() == 1 {
            self.clocks.begin_work(now);
        }
        self.clocks.end_idle();
        self.show_in_flight();
        self.step(Event::Unit(first, asks));
    }

    fn freed(&mut self, unit: AskId) {
        let now = Instant::now();
        if !self.in_flight.free(unit, self.rules.concurrency(), now) {
            return;
        }
        self.wants_work = true;
        self.show_in_flight();
        self.attribute_lines();
        if self.in_flight.is_empty() {
            self.clocks.begin_idle(now);
            self.report_idle(now);
        }
        self.want_first_checkpoint();
        self.tell_between();
        self.recycle(now);
    }

    /// Shows others how many asks are in hand, and whether one of them streams. The pool tells only pods with
    /// a stream that others wait.
    fn show_in_flight(&self) {
        self.shared.in_hand.store(self.in_flight.count(), Ordering::Relaxed);
        self.shared.streams.store(self.in_flight.has_streams(), Ordering::Release);
    }

    /// Attributes printed lines to the oldest ask, and to its call unless the pod works for several.
    pub(super) fn attribute_lines(&self) {
        let (oldest, call) = self.in_flight.at_work(self.rules.concurrency());
        self.shared.log.attribute_to(oldest, call);
    }

    /// Retires the pod if it has served long enough.
    fn recycle(&mut self, now: Instant) {
        let asks = self.shared.asks.load(Ordering::Relaxed);
        let memory = || vitals::memory_bytes(self.shared.pid.load(Ordering::Acquire));
        if self.clocks.served_long_enough(now, asks, self.shared.age_ms(), memory) {
            self.retire();
        }
    }
}
