//! What a pool knows of its pods and its work: what is read off it, and what is noted.
//!
//! Apart from `mod.rs`, which has the lock around it and decides: here nothing is started, and nobody waits.

use std::time::Duration;

use crate::{
    model::Priority,
    pod::pool::{Book, Member, slot::Report},
};

impl Member {
    /// Whether it could take a further unit now.
    pub(in crate::pod) fn has_room(&self, concurrency: usize) -> bool {
        self.ready && !self.leaving && !self.yields && !self.alone && self.units < concurrency
    }
}

impl Book {
    /// Whether nothing waits and nothing runs.
    pub(in crate::pod) fn is_quiet(&self) -> bool {
        self.schedule.is_empty() && self.solo.is_empty() && self.placed.is_empty()
    }

    /// Whether something waits that no pod has room for.
    pub(in crate::pod) fn is_crowded(&self, concurrency: usize) -> bool {
        self.waits().is_some() && !self.members.iter().any(|member| member.has_room(concurrency))
    }

    /// Whether an end of failing was among it: then more pods may be started.
    pub(in crate::pod) fn note(&mut self, report: &Report, now: Duration) -> bool {
        for ticket in &report.over {
            self.placed.remove(ticket);
        }
        for served in &report.served {
            self.schedule.done(now, served);
        }
        for input in &report.cleared {
            self.poison.answered(input);
        }
        self.done += report.over.len() as u64;
        self.failed += report.failed;
        if report.good == 0 {
            return false;
        }
        self.failing = 0;
        self.restarts.answered()
    }

    /// Who waits for a place for its models waits for the best of what there is, and no longer than for that.
    pub(in crate::pod) fn tell_placeless(&self) {
        let waiting = self.members.iter().filter(|member| member.placeless && !member.asleep && !member.leaving);
        waiting.filter_map(|member| member.watcher.as_ref()).for_each(|watcher| watcher.shared.offer());
    }

    /// One that is busy with work of a lower class keeps its place against others for what now waits behind that.
    pub(in crate::pod) fn tell_outranked(&self, priority: Priority) {
        let outranked = |member: &&Member| member.class.is_some_and(|class| class > priority);
        let busy = self.members.iter().filter(|member| member.units > 0 && !member.leaving && !member.yields);
        busy.filter(outranked).filter_map(|member| member.watcher.as_ref()).for_each(|watcher| watcher.shared.offer());
    }

    /// The best class of what waits.
    pub(in crate::pod) fn waits(&self) -> Option<Priority> {
        let solo = self.solo.iter().map(|placed| placed.pending.request.priority);
        let queued = Priority::ALL.into_iter().zip(self.schedule.counts()).filter(|(_, count)| *count > 0).map(|(priority, _)| priority);
        queued.chain(solo).min()
    }

    /// Marks that member as leaving; whether it is one.
    pub(in crate::pod) fn leave(&mut self, seat: u64) -> bool {
        let member = self.members.iter_mut().find(|member| member.seat == seat);
        member.map(|member| member.leaving = true).is_some()
    }
}
