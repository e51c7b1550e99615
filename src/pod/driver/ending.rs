//! Ends a pod: removes everything that is left of it, and settles every ask that it had in hand.
//!
//! This file guarantees at-most-once execution. An ask that was never begun goes to another pod. An ask that
//! was begun ends as a fault, unless its operation is idempotent. An input that ends pods is identified and
//! not tried again.

use crate::pod::{pool::state, spec};
use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::{
    disk::threads::certainly,
    model::{
        Code, Fault, act, exhausted_in, hint,
        limits::{ASK_BEGUN_MAX, DOSSIER_LINES, EXIT_GRACE_MS, FAULT_TAIL_LINES},
    },
    pod::{
        driver::{
            Driver,
            clocks::over_memory,
            loading::loads_less,
            state::{AskId, Ending},
        },
        pool::{
            ask::{Reply, TicketedAsk},
            poison::Ended,
            state::Why,
        },
        process::{leftovers, registry},
        record::dossier::{self, AskInHand, Dossier},
        sandbox::{plan, refused},
    },
};

/// SIGKILL: sent by the kernel when memory runs out, and by anybody else at any time.
const SIGKILL: i32 = 9;

/// The known facts about a pod's end.
pub(super) struct End {
    /// The pod was asked to leave.
    leaving: bool,
    /// The pod is being ended by force, or is ended.
    is_terminating: bool,
    /// How its process ended.
    ending: Option<Ending>,
    /// Why the pod was ended.
    blame: Option<Fault>,
    /// Completes when everything that the pod printed is in its log.
    logs_ended: Option<oneshot::Receiver<()>>,
    /// Notified when nothing of the pod is left.
    over: watch::Sender<bool>,
}

impl End {
    pub fn new(logs_ended: oneshot::Receiver<()>, over: watch::Sender<bool>) -> End {
        End { leaving: false, is_terminating: false, ending: None, blame: None, logs_ended: Some(logs_ended), over }
    }

    /// The pod is asked to leave. Returns true the first time.
    pub fn leave(&mut self) -> bool {
        !std::mem::replace(&mut self.leaving, true)
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The pod is being ended by force, or is ended. Returns true the first time.
    pub fn terminate(&mut self) -> bool {
        !std::mem::replace(&mut self.is_terminating, true)
    }

    /// Notes why the pod has to end. The first reason is the reason; what follows from it is not.
    pub fn blame(&mut self, fault: Fault) {
        self.blame.get_or_insert(fault);
    }

    /// Whether there is a reason for which the pod has to end.
    pub fn is_blamed(&self) -> bool {
        self.blame.is_some()
    }

    /// Notes how the pod's process ended.
    pub fn exited(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }
}

impl Driver {
    pub(super) async fn finish(mut self) {
        let ending = self.end.ending.unwrap_or(Ending::Code(-1));
        if self.sandbox.is_grouping() {
            self.sandbox.grouped().await;
        }
        // The kernel's way to hold a group to its memory: nobody else would say why.
        let most = plan::memory_bytes(self.spec.recipe.manifest().pod.as_ref());
        if !self.end.is_blamed()
            && ending == Ending::Signal(SIGKILL)
            && let Some(held) = self.sandbox.killed_for_memory(most)
        {
            self.end.blame = Some(over_memory(held, most));
        }
        // Said or killed for it: it is the same.
        if let Some(fault) = self.end.blame.clone()
            && self.can_load_less(&fault)
        {
            self.end.blame = Some(loads_less());
        }
        let was_ready = self.shared.was_ready();
        let unwanted = match &self.end.blame {
            // There was no pod: what waits gets another one.
            _ if ending == Ending::NeverBegan => false,
            Some(fault) => fault.code != Code::ShuttingDown,
            // One that was asked to go has to finish what it has.
            None => !self.end.leaving || self.in_flight.count() > 0,
        };
        // The keeper reports last; without its report it was killed itself, and what fled from the pod's
        // group may still run.
        if self.page.peak_bytes().is_none() {
            let incarnation = self.spec.incarnation.clone();
            let _ = certainly(move || leftovers::end_leftovers(&incarnation)).await;
        }
        // Its last lines say why, or are those that it kept for its end; a grandchild that holds the pipe
        // open is not waited for.
        if let Some(logs) = self.end.logs_ended.take() {
            let _ = timeout(Duration::from_millis(EXIT_GRACE_MS), logs).await;
        }
        let mut fault = self.end_fault(ending);
        let mut saved = None;
        if unwanted && !self.loading.is_refused() {
            let dossier = self.dossier(ending);
            // Until the dossier is saved, this log is what is shown: callers know of the end before that.
            self.shared.log.attribute_to(0, None);
            self.shared.log.push(&dossier.ending.line());
            fault = fault.with("dossier", dossier.incarnation.clone());
            for (key, value) in [("memory_peak_bytes", dossier.memory_peak_bytes), ("cpu_ms", dossier.cpu_ms)] {
                fault = match value {
                    Some(value) => fault.with(key, value),
                    None => fault,
                };
            }
            let folder = self.spec.dossiers.clone();
            saved = Some(certainly(move || {
                if let Err(fault) = dossier::save(&folder, &dossier) {
                    tracing::warn!("the dossier of a crash is lost: {fault}");
                }
            }));
        }
        self.settle_asks(ending, &fault);
        // No process of it is left: what it had of the machine is free.
        self.loading.end();
        self.slot.report(self.in_flight.report());
        self.slot.report_end(state::End {
            why: match unwanted {
                _ if ending == Ending::NeverBegan => Why::NeverBegan,
                true if self.loading.is_refused() => Why::Refused,
                true => Why::Failed,
                false => Why::Asked,
            },
            was_ready,
            was_useful: self.shared.was_useful.load(Ordering::Relaxed),
            was_killed_at_start: !was_ready && !self.end.is_blamed() && ending == Ending::Signal(SIGKILL),
            fault,
        });
        // What lives as long as the pod goes before anybody hears of its end: who waits for that finds
        // nothing of it.
        let (page, scratch, group) = (self.page, self.spec.scratch.clone(), self.sandbox.take_group());
        let keeps = std::mem::take(&mut self.spec.keeps);
        let _ = certainly(move || {
            // Before the folder in which it lies, which the last pod's end deletes.
            drop(page);
            drop(group);
            let _ = std::fs::remove_dir_all(&scratch);
            registry::forget(&spec::path_of(&scratch));
            drop(keeps);
        })
        .await;
        // No caller waits for it; but who looks for what the pod said finds it here or there at any time.
        if let Some(saved) = saved {
            let _ = saved.await;
        }
        let _ = self.end.over.send(true);
    }

    /// Ends or puts back every ask in hand.
    fn settle_asks(&mut self, ending: Ending, fault: &Fault) {
        let begun = self.in_flight.units_up_to(self.begun_up_to());
        // One at a time, in order: the ones before the last are done, only their answers were lost with the
        // pod.
        let suspects: BTreeSet<AskId> = match self.rules.concurrency() {
            1 => begun.last().copied().into_iter().collect(),
            _ => begun.iter().copied().collect(),
        };
        let how = self.how(ending);
        let (mut again, mut alone) = (self.in_flight.take_returns(), Vec::new());
        for (ask, mut ticketed) in self.in_flight.take_all() {
            let unit = self.in_flight.unit_of(ask).unwrap_or(ask);
            let is_suspect = suspects.contains(&unit);
            let is_batch = self.in_flight.is_batch(unit);
            // Alone at work there, so that it was this input; or one of several, of which nobody knows which
            // it was.
            let lone = how.filter(|_| is_suspect && suspects.len() == 1 && !is_batch && !self.end.leaving);
            if !begun.contains(&unit) {
                ticketed.pending.begun -= 1;
                ticketed.pending.ran = false;
                again.push(ticketed);
                continue;
            }
            let poison = lone.and_then(|how| {
                ticketed.pending.tally.add(how);
                self.slot.blame(&ticketed.pending.request, how)
            });
            // Killed for its memory: what runs from now on, and this ask again, does so with less.
            let used = self.in_flight.fallback_of(unit).unwrap_or(0);
            let less = fault.code == Code::OutOfMemory && is_suspect && self.lower(used);
            // A caller that has a part of the result cannot be given the same part again.
            if !ticketed.pending.request.operation.idempotent || ticketed.pending.gave {
                self.end_with(ticketed, fault.clone());
            } else if less && !ticketed.pending.lowered {
                self.tell_lowered(&mut ticketed, used);
                again.push(ticketed);
            } else if ticketed.pending.tally.is_poison() {
                let poison = poison.unwrap_or_else(|| Fault::new(Code::PoisonRequest, "this input ended its pod again and again"));
                self.end_with(ticketed, poison.with("crash", serde_json::to_value(fault).unwrap_or_default()));
            } else if ticketed.pending.begun >= ASK_BEGUN_MAX || (self.end.is_blamed() && ticketed.pending.begun > 1) {
                self.end_with(ticketed, fault.clone());
            } else if is_suspect && is_batch {
                if how.is_some() {
                    // Told from its neighbours and not tried: halving has an end of its own.
                    ticketed.pending.begun -= 1;
                }
                again.push(self.halved(ticketed, ask, unit));
            } else if is_suspect && self.rules.concurrency() > 1 {
                alone.push(ticketed);
            } else {
                again.push(ticketed);
            }
        }
        self.in_flight.forget_units();
        self.slot.put_back(again, false);
        self.slot.put_back(alone, true);
    }

    /// The last ask that the pod has begun; without a page, all that it was sent counts as begun.
    fn begun_up_to(&self) -> AskId {
        if self.features.keeps_page() { self.page.begun() } else { AskId::MAX }
    }

    /// Whether the asks in hand may have ended the pod, and how; `None` if the host ended it for its own
    /// reasons.
    fn how(&self, ending: Ending) -> Option<Ended> {
        match (self.end.blame.as_ref().map(|fault| fault.code), ending) {
            (Some(Code::ProtocolViolation), _) => Some(Ended::Crash),
            // Killed for its silence, which the machine may be the reason of.
            (Some(Code::Stalled), _) | (None, Ending::Signal(SIGKILL)) => Some(Ended::Kill),
            (Some(_), _) => None,
            (None, _) => Some(Ended::Crash),
        }
    }

    fn end_with(&mut self, ticketed: TicketedAsk, fault: Fault) {
        self.in_flight.count_ended(&ticketed);
        ticketed.pending.finish(Reply::Fault(fault));
    }

    /// The record of the pod's end, for later readers.
    fn dossier(&self, ending: Ending) -> Dossier {
        let manifest = self.spec.recipe.manifest();
        let pid = self.shared.pid.load(Ordering::Acquire);
        let begun_up_to = self.begun_up_to();
        let asks = self.in_flight.in_hand().map(|(unit, request, running)| AskInHand {
            operation: request.operation.name.clone(),
            running_ms: running.as_millis() as u64,
            begun: unit <= begun_up_to,
        });
        let asked = self.shared.asks.load(Ordering::Relaxed);
        Dossier {
            incarnation: self.spec.incarnation.clone(),
            recipe: manifest.name.to_string(),
            version: manifest.version.to_string(),
            at_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
            pid: (pid != 0).then_some(pid),
            ending: match ending {
                Ending::Code(code) => dossier::Ended::Code(code),
                // Which leaves none: nothing ran.
                Ending::NeverBegan => dossier::Ended::Code(-1),
                Ending::Signal(number) => dossier::Ended::Signal { number, name: signal_name(number).to_owned() },
            },
            memory_peak_bytes: self.page.peak_bytes(),
            cpu_ms: self.page.cpu_ms(),
            age_ms: self.shared.age_ms(),
            asks_done: asked.saturating_sub(self.in_flight.count() as u64),
            asks: asks.collect(),
            log: self.shared.log.tail(DOSSIER_LINES),
        }
    }

    /// The fault with which asks end together with the pod.
    fn end_fault(&self, ending: Ending) -> Fault {
        let manifest = self.spec.recipe.manifest();
        let name = &manifest.name;
        let during = match self.in_flight.first_ticketed() {
            Some(ticketed) => format!(" during `{}`", ticketed.pending.request.operation.name),
            None if self.shared.was_ready() => String::new(),
            None => " before it was ready".to_owned(),
        };
        let fault = match (&self.end.blame, ending) {
            (Some(blame), _) => {
                let mut fault = blame.clone();
                fault.message = match fault.message.strip_prefix("the pod ") {
                    Some(rest) => format!("the pod of `{name}` {rest}"),
                    None => fault.message,
                };
                fault
            }
            (None, Ending::Signal(signal)) => {
                Fault::new(Code::Crashed, format!("the pod of `{name}` was ended by signal {signal} ({}){during}", signal_name(signal)))
            }
            (None, Ending::Code(_)) if let Some(fault) = self.ran_out() => fault,
            (None, Ending::Code(code)) => Fault::new(Code::Crashed, format!("the pod of `{name}` exited with code {code}{during}")),
            (None, Ending::NeverBegan) => Fault::new(Code::Crashed, format!("a pod of `{name}` could not be forked")),
        };
        // A pod that was ended for a reason tells nothing by how it ended.
        let fault = match ending {
            _ if self.end.is_blamed() => fault,
            Ending::Signal(signal) => fault.with("signal", signal),
            Ending::Code(code) => fault.with("exit_code", code),
            Ending::NeverBegan => fault,
        };
        let fault = match fault.hint {
            Some(_) => fault,
            None => fault.hint(hint!["the next call starts a new pod; what this one printed last is told by ", act::logs(name)]),
        };
        self.with_tail(fault, 0)
    }

    /// The fault that the machine had too few resources, if the pod ended before it was confined. Until then
    /// no code of the recipe ran, and the printed lines come from Hob and the interpreter.
    fn ran_out(&self) -> Option<Fault> {
        let is_ours = !self.is_confined() && !self.process.is_forked();
        let said = is_ours.then(|| self.shared.log.tail(FAULT_TAIL_LINES))?;
        let (line, error) = said.iter().rev().find_map(|line| Some((&line.text, exhausted_in(&line.text)?)))?;
        Some(refused::ran_out(&self.spec.recipe, Some(&error), line))
    }

    /// Adds the last lines that the pod printed (during `ask`, unless it is 0).
    pub(super) fn with_tail(&self, fault: Fault, ask: AskId) -> Fault {
        let fault = match self.sandbox.refusals() {
            // How often in all; the texts are the last few, each once.
            Some((texts, count)) if fault.detail.is_null() || fault.detail.is_object() => {
                fault.with("network_refused", texts).with("network_refusals", count)
            }
            _ => fault,
        };
        let log = &self.shared.log;
        let lines = log.tail(FAULT_TAIL_LINES).into_iter().filter(|line| ask == 0 || line.ask == ask);
        let mut lines: Vec<String> = lines.map(|line| line.text).collect();
        if log.dropped() > 0 && !lines.is_empty() {
            lines.insert(0, format!("[{} earlier lines were let go]", log.dropped()));
        }
        match lines.is_empty() || !(fault.detail.is_null() || fault.detail.is_object()) {
            true => fault,
            false => fault.with("log", lines),
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => "see signal(7)",
    }
}
