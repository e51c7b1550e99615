//! What a pool knows of its pods and of its work: the state that its lock guards.
//!
//! `mod.rs` has the lock and decides; nothing here starts a pod, and nothing waits.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    model::{Fault, Priority, limits::POD_QUEUE_MAX},
    pod::{
        pool::{
            ask::{Pending, TicketedAsk},
            member::Member,
            poison::Poison,
            restarts::Restarts,
            schedule::{Schedule, Served, Ticket},
            watcher::PodShared,
        },
        replan::Replan,
    },
};

/// The state that the lock guards.
pub(super) struct PoolState {
    pub schedule: Schedule<Pending>,
    /// Asks whose pod ended while it worked on several. Each runs alone next, to find out which of them it
    /// was.
    pub solo: VecDeque<TicketedAsk>,
    /// The pod that has an ask in hand.
    pub holders: HashMap<Ticket, Arc<PodShared>>,
    pub members: Vec<Member>,
    /// The number of the newest slot.
    pub slots: u64,
    pub restarts: Restarts,
    pub poison: Poison,
    /// The next time at which to check whether a pod may be started.
    pub replan: Replan,
    /// The index of the recipe's out-of-memory fallback value that is in force.
    pub fallback: usize,
    /// The recipe was asked, or must be kept ready: `min` counts from then on.
    pub used: bool,
    pub closed: bool,
    pub done: u64,
    pub failed: u64,
    pub repeated: u64,
    pub crashes: u64,
    /// Ends of pods since the last good answer; a failed start counts for several.
    pub failing: u32,
    pub last_fault: Option<Fault>,
    /// Why the models of a pod will never fit, if no pod is started for that reason.
    pub hopeless: Option<Fault>,
}

impl PoolState {
    pub fn new() -> PoolState {
        PoolState {
            schedule: Schedule::new(POD_QUEUE_MAX),
            solo: VecDeque::new(),
            holders: HashMap::new(),
            members: Vec::new(),
            slots: 0,
            restarts: Restarts::new(),
            poison: Poison::new(),
            replan: Replan::default(),
            fallback: 0,
            used: false,
            closed: false,
            done: 0,
            failed: 0,
            repeated: 0,
            crashes: 0,
            failing: 0,
            last_fault: None,
            hopeless: None,
        }
    }

    pub fn member(&mut self, slot: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.slot() == slot)
    }

    /// Whether no ask waits in the queue; some may be in hand.
    pub fn is_empty(&self) -> bool {
        self.schedule.is_empty() && self.solo.is_empty()
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_quiet(&self) -> bool {
        self.is_empty() && self.holders.is_empty()
    }

    pub fn is_closed_and_quiet(&self) -> bool {
        self.closed && self.is_quiet()
    }

    /// Whether an ask waits for which no pod has room.
    pub fn is_crowded(&self, concurrency: usize) -> bool {
        self.best_waiting().is_some() && !self.members.iter().any(|member| member.has_room(concurrency))
    }

    /// Records a driver's report. Returns true when it ends a failure streak, so that more pods may start.
    pub fn note(&mut self, report: &Report, now: Duration) -> bool {
        for ticket in &report.over {
            self.holders.remove(ticket);
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

    /// Makes the pods that wait for memory check again: they wait for the best class of work, and only as
    /// long as there is any.
    pub fn tell_awaiting_memory(&self) {
        self.members.iter().for_each(Member::offer_work_if_awaiting_memory);
    }

    /// Makes the pods check again that are busy with work of a lower class than this.
    pub fn tell_outranked(&self, priority: Priority) {
        self.members.iter().for_each(|member| member.offer_work_if_outranked(priority));
    }

    /// The best class of the waiting asks.
    pub fn best_waiting(&self) -> Option<Priority> {
        let solo = self.solo.iter().map(|ask| ask.pending.request.priority);
        let queued = Priority::ALL.into_iter().zip(self.schedule.counts()).filter(|(_, count)| *count > 0).map(|(priority, _)| priority);
        queued.chain(solo).min()
    }

    /// Marks that member as leaving. Returns false if there is no such member.
    pub fn mark_leaving(&mut self, slot: u64) -> bool {
        self.member(slot).map(Member::report_leaving).is_some()
    }

    /// Removes and returns all waiting asks.
    pub fn take_waiting(&mut self) -> Vec<Pending> {
        let solo = self.solo.drain(..).map(|ask| ask.pending);
        self.schedule.drain().into_iter().chain(solo).collect()
    }
}

/// A driver's report, sent when it takes work.
#[derive(Default)]
pub(in crate::pod) struct Report {
    /// Asks that have their outcome.
    pub over: Vec<Ticket>,
    pub good: u64,
    /// Number of them that ended by a fault of the pod.
    pub failed: u64,
    /// Inputs that were answered well, if any input is suspected.
    pub cleared: Vec<[u8; 32]>,
    pub served: Vec<Served>,
}

impl Report {
    pub fn is_empty(&self) -> bool {
        self.over.is_empty() && self.served.is_empty()
    }

    pub(in crate::pod) fn clear(&mut self) {
        self.over.clear();
        self.served.clear();
        self.cleared.clear();
        (self.good, self.failed) = (0, 0);
    }
}

/// How a pod's life ended, for the pool.
pub(in crate::pod) struct End {
    pub why: Why,
    pub was_ready: bool,
    /// It had given a good answer.
    pub was_useful: bool,
    /// Ended by SIGKILL before it was ready, and not by the host: the recipe is not to blame.
    pub was_killed_at_start: bool,
    pub fault: Fault,
}

/// Why a pod ended. All but the first count for the restart policy, whatever `min` says: a pod that never
/// answered is not replaced again and again without a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pod) enum Why {
    /// It was asked to exit: by its operator, for another pod, because of its age, or to load with less.
    Asked,
    /// It could not be forked, so there was no pod.
    NeverBegan,
    /// Its models will never fit: nothing failed, and a retry would not help.
    Refused,
    /// Other pods have all that a pod needs of the host (descriptors, for example); nothing of this recipe
    /// failed.
    Short,
    /// It failed.
    Failed,
}
