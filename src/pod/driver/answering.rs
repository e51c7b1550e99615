//! The driver's replies to callers: each ask gets its last reply exactly once.
//!
//! `mod.rs` decides when to reply. This file delivers an answer or a fault to the waiting caller, or puts the
//! ask back into the queue.

use crate::pod::pool::ask;
use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::time::Instant;

use crate::{
    model::{Blame, Code, Fault},
    pod::{
        driver::{
            Driver,
            in_flight::{Said, Which},
            state::AskId,
        },
        pool::ask::{Reply, TicketedAsk},
    },
};

impl Driver {
    pub(super) fn resolve(&mut self, ask: AskId, answer: Said) {
        let Said::Answer { result, whole_batch } = answer else {
            return self.reply(ask, Reply::Fault(Fault::new(Code::Internal, "an answer was lost")));
        };
        let Some(sent) = self.in_flight.asks.get_mut(&ask) else { return };
        match result {
            Ok(payload) => {
                if let Some(running) = self.in_flight.units.get_mut(&sent.unit) {
                    running.good += 1;
                }
                self.shared.was_useful.store(true, Ordering::Relaxed);
                self.in_flight.report.good += 1;
                if let Some(ticketed) = sent.ticketed.as_ref().filter(|_| self.slot.has_suspects()) {
                    self.in_flight.report.cleared.push(ask::digest(&ticketed.pending.request));
                }
                self.reply(ask, Reply::Answer(payload));
            }
            Err(fault) => {
                let unit = sent.unit;
                if fault.code == Code::OutOfMemory && self.lowered(ask) {
                    return;
                }
                let Some(sent) = self.in_flight.asks.get_mut(&ask) else { return };
                if whole_batch && self.in_flight.units.get(&unit).is_some_and(|running| running.asks > 1) {
                    // Which item it was is found by halves.
                    if let Some(ticketed) = sent.ticketed.take() {
                        let ticketed = self.halved(ticketed, ask, unit);
                        self.in_flight.returns.push(ticketed);
                    }
                    return;
                }
                let by_pod = matches!(fault.blame, Blame::Pod | Blame::Machine);
                self.in_flight.report.failed += u64::from(by_pod);
                // A pod that can say what failed is at work, whoever is to blame.
                self.in_flight.report.good += u64::from(!by_pod);
                self.shared.was_useful.fetch_or(!by_pod, Ordering::Relaxed);
                let fault = self.with_tail(fault, ask);
                *self.shared.last_fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(fault.clone());
                self.reply(ask, Reply::Fault(fault));
            }
        }
    }

    /// The ask as a member of its half of a failed batch.
    pub(super) fn halved(&mut self, mut ticketed: TicketedAsk, ask: AskId, unit: AskId) -> TicketedAsk {
        let Some(running) = self.in_flight.units.get_mut(&unit) else { return ticketed };
        let (left, right) = *running.split.get_or_insert_with(|| self.slot.split());
        let cohort = if ((ask - unit) as usize) < running.asks / 2 { left } else { right };
        if let Some(group) = &mut ticketed.waiting.group {
            group.cohort = cohort;
        }
        ticketed
    }

    /// Gives the caller the last reply, unless it already has one.
    pub(super) fn reply(&mut self, ask: AskId, reply: Reply) {
        let Some(sent) = self.in_flight.asks.get_mut(&ask) else { return };
        let Some(ticketed) = sent.ticketed.take() else { return };
        self.in_flight.report.over.push(ticketed.ticket);
        ticketed.pending.finish(reply);
        self.give_undelivered();
    }

    /// Restarts the pod's clocks: meanwhile the host did not read what the pod sent.
    pub(super) fn resume_reading(&mut self) {
        self.lanes.unfinished.add(Which::Data);
        self.lanes.unfinished.add(Which::Control);
        let now = Instant::now();
        self.clocks.listen_anew(now);
        self.in_flight.heard_all(now);
    }

    /// Handles an ask during which memory ran out: lowers the recipe's fallback, if possible, and puts the
    /// ask back to run again with the lower value. It does so once per ask, and never for an ask whose caller
    /// already has a part of its result.
    fn lowered(&mut self, ask: AskId) -> bool {
        let Some(sent) = self.in_flight.asks.get(&ask) else { return false };
        let Some(running) = self.in_flight.units.get(&sent.unit) else { return false };
        // A batch is halved, which is a fallback too.
        let may = sent.ticketed.as_ref().is_some_and(|ticketed| !ticketed.pending.lowered && !ticketed.pending.gave) && running.asks == 1;
        let (used, unit) = (running.fallback, sent.unit);
        // A session's state is in its pod, which is not given up for a lower value.
        let costs_state = self.spec.session.is_some() && self.fallback_is_for_loading();
        if !may || costs_state || !self.lower(used) {
            return false;
        }
        let Some(mut ticketed) = self.in_flight.asks.get_mut(&ask).and_then(|sent| sent.ticketed.take()) else { return false };
        self.tell_lowered(&mut ticketed, used);
        self.in_flight.returns.push(ticketed);
        self.wants_work = true;
        tracing::info!(recipe = %self.spec.recipe.manifest().name, unit, "memory ran out: the lever is lowered, and the ask run again");
        if self.fallback_is_for_loading() {
            self.retire();
        }
        true
    }

    pub(super) fn fallback_is_for_loading(&self) -> bool {
        self.spec.recipe.manifest().pod.as_ref().and_then(|pod| pod.lever.as_ref()).is_some_and(|lever| lever.at_load)
    }

    /// Whether the fallback is now lower than `used`.
    pub(super) fn lower(&self, used: usize) -> bool {
        let values = self.spec.recipe.manifest().pod.as_ref().and_then(|pod| pod.lever.as_ref()).map_or(0, |lever| lever.values.len());
        self.slot.lower_fallback(used, values)
    }

    /// Sends an event to the call, which explains the other batch size.
    pub(super) fn tell_lowered(&self, ticketed: &mut TicketedAsk, used: usize) {
        ticketed.pending.lowered = true;
        let Some(lever) = self.spec.recipe.manifest().pod.as_ref().and_then(|pod| pod.lever.as_ref()) else { return };
        let (from, to) = (lever.values.get(used), lever.values.get(self.slot.fallback().unwrap_or(used)));
        let data = json!({ "lever": { "name": lever.name, "from": from, "to": to }, "because": "out_of_memory" });
        ticketed.pending.request.events.note(data);
    }
}
