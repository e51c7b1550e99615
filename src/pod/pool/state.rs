//! What a pool knows of its pods and of its work: all that its lock guards.
//!
//! `mod.rs` has the lock and decides; here nothing is started, and nobody waits.

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

/// What the lock guards.
pub(super) struct PoolState {
    pub schedule: Schedule<Pending>,
    /// Asks whose pod ended while others were at work there too. Each runs alone next, to tell which of them
    /// it was.
    pub solo: VecDeque<TicketedAsk>,
    /// The pod that has an ask in hand.
    pub holders: HashMap<Ticket, Arc<PodShared>>,
    pub members: Vec<Member>,
    /// The number of the newest slot.
    pub slots: u64,
    pub restarts: Restarts,
    pub poison: Poison,
    /// When it is looked again whether a pod may be started.
    pub replan: Replan,
    /// Which value of the recipe's out-of-memory fallback is in force.
    pub fallback: usize,
    /// The recipe was asked, or is to be kept ready: `min` counts from then on.
    pub used: bool,
    pub closed: bool,
    pub done: u64,
    pub failed: u64,
    pub repeated: u64,
    pub crashes: u64,
    /// Ends of pods since the last good answer; a start that came to nothing counts for several.
    pub failing: u32,
    pub last_fault: Option<Fault>,
    /// Why the models of a pod will never fit, while that is why none is started.
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

    /// Whether something waits that no pod has room for.
    pub fn is_crowded(&self, concurrency: usize) -> bool {
        self.best_waiting().is_some() && !self.members.iter().any(|member| member.has_room(concurrency))
    }

    /// Takes a driver's report over. Returns true when it ends a failure streak, so that more pods may start.
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

    /// Has the pods that wait for memory look again: they wait for the best class of what there is, and no
    /// longer than there is any.
    pub fn tell_awaiting_memory(&self) {
        self.members.iter().for_each(Member::offer_work_if_awaiting_memory);
    }

    /// Has the pods look again that are busy with work of a lower class than this.
    pub fn tell_outranked(&self, priority: Priority) {
        self.members.iter().for_each(|member| member.offer_work_if_outranked(priority));
    }

    /// The best class of what waits.
    pub fn best_waiting(&self) -> Option<Priority> {
        let solo = self.solo.iter().map(|ask| ask.pending.request.priority);
        let queued = Priority::ALL.into_iter().zip(self.schedule.counts()).filter(|(_, count)| *count > 0).map(|(priority, _)| priority);
        queued.chain(solo).min()
    }

    /// Marks that member as leaving. Returns false when it is none.
    pub fn mark_leaving(&mut self, slot: u64) -> bool {
        self.member(slot).map(Member::report_leaving).is_some()
    }

    /// Takes out all that waits.
    pub fn take_waiting(&mut self) -> Vec<Pending> {
        let solo = self.solo.drain(..).map(|ask| ask.pending);
        self.schedule.drain().into_iter().chain(solo).collect()
    }
}

/// What a driver has to tell when it asks for work.
#[derive(Default)]
pub(in crate::pod) struct Report {
    /// Asks that have their outcome.
    pub over: Vec<Ticket>,
    pub good: u64,
    /// Ended by a fault of the pod.
    pub failed: u64,
    /// Inputs that were answered well, while some are suspected.
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
    /// It had answered well.
    pub was_useful: bool,
    /// Ended by SIGKILL before it was ready, and not by the host: the recipe is not to blame.
    pub was_killed_at_start: bool,
    pub fault: Fault,
}

/// Why a pod ended. All but the first count for the restart policy, whatever `min` says: a pod that never
/// answered is not replaced at once again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pod) enum Why {
    /// It was asked to go: by its operator, for another pod, for its age, or to load with less.
    Asked,
    /// It could not be forked: there was no pod.
    NeverBegan,
    /// Its models will never fit: nothing failed, and trying again is no use.
    Refused,
    /// Other pods have all that a pod takes of the host (descriptors, say); nothing of this recipe failed.
    Short,
    /// It failed.
    Failed,
}
