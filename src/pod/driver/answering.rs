//! The driver's replies to callers: each ask gets its last reply exactly once.
//!
//! `mod.rs` decides when to reply. This file delivers an answer or a fault to the waiting caller, or puts the
//! ask back into the queue.

use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::time::Instant;

use crate::{
    model::{Blame, Code, Fault},
    pod::{
        driver::{Driver, in_flight::Said, lanes::Which, state::AskId},
        pool::ask::{Reply, TicketedAsk},
    },
};

impl Driver {
    pub(super) fn resolve(&mut self, ask: AskId, answer: Said) {
        let Said::Answer { result, whole_batch } = answer else {
            return self.reply(ask, Reply::Fault(Fault::new(Code::Internal, "an answer was lost")));
        };
        let Some(unit) = self.in_flight.unit_of(ask) else { return };
        match result {
            Ok(payload) => {
                self.shared.was_useful.store(true, Ordering::Relaxed);
                self.in_flight.count_result(ask, self.slot.has_suspects());
                self.reply(ask, Reply::Answer(payload));
            }
            Err(fault) => {
                if fault.code == Code::OutOfMemory && self.lowered(ask) {
                    return;
                }
                if whole_batch && self.in_flight.is_batch(unit) {
                    // Which item it was is found by halves.
                    if let Some(ticketed) = self.in_flight.take(ask) {
                        let ticketed = self.halved(ticketed, ask, unit);
                        self.in_flight.put_back(ticketed);
                    }
                    return;
                }
                let by_pod = matches!(fault.blame, Blame::Pod | Blame::Machine);
                self.in_flight.count_fault(by_pod);
                self.shared.was_useful.fetch_or(!by_pod, Ordering::Relaxed);
                let fault = self.with_tail(fault, ask);
                *self.shared.last_fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(fault.clone());
                self.reply(ask, Reply::Fault(fault));
            }
        }
    }

    /// The ask as a member of its half of a failed batch.
    pub(super) fn halved(&mut self, mut ticketed: TicketedAsk, ask: AskId, unit: AskId) -> TicketedAsk {
        let Some(cohort) = self.in_flight.cohort_of_half(unit, ask, || self.slot.split()) else { return ticketed };
        if let Some(group) = &mut ticketed.waiting.group {
            group.cohort = cohort;
        }
        ticketed
    }

    /// Gives the caller the last reply, unless it already has one.
    pub(super) fn reply(&mut self, ask: AskId, reply: Reply) {
        let Some(ticketed) = self.in_flight.take_over(ask) else { return };
        ticketed.pending.finish(reply);
        self.give_undelivered();
    }

    /// Restarts the pod's clocks: meanwhile the host did not read what the pod sent.
    pub(super) fn resume_reading(&mut self) {
        self.lanes.note_unfinished(Which::Data);
        self.lanes.note_unfinished(Which::Control);
        let now = Instant::now();
        self.clocks.listen_anew(now);
        self.in_flight.heard_all(now);
    }

    /// Handles an ask during which memory ran out: lowers the recipe's fallback, if possible, and puts the
    /// ask back to run again with the lower value. It does so once per ask, and never for an ask whose caller
    /// already has a part of its result.
    fn lowered(&mut self, ask: AskId) -> bool {
        let Some(unit) = self.in_flight.unit_of(ask) else { return false };
        let Some(used) = self.in_flight.fallback_of(unit) else { return false };
        // A batch is halved, which is a fallback too.
        let may = !self.in_flight.is_batch(unit)
            && self.in_flight.ticketed(ask).is_some_and(|ticketed| !ticketed.pending.lowered && !ticketed.pending.gave);
        // A session's state is in its pod, which is not given up for a lower value.
        let costs_state = self.spec.session.is_some() && self.fallback_is_for_loading();
        if !may || costs_state || !self.lower(used) {
            return false;
        }
        let Some(mut ticketed) = self.in_flight.take(ask) else { return false };
        self.tell_lowered(&mut ticketed, used);
        self.in_flight.put_back(ticketed);
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
