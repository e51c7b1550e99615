//! What a pool knows of its pods and its work: what is read off it, and what is noted.
//!
//! Apart from `mod.rs`, which has the lock around it and decides: here nothing is started, and nobody waits.

use crate::{
    model::{Fault, Verified, manifest::spec::PoolSpec},
    pod::pool::{
        Spawner,
        ask::{Pending, TicketedAsk},
        poison::Poison,
        restarts::Restarts,
        schedule::{Schedule, Served, Ticket},
        watcher::{PodShared, Watcher},
    },
};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::Priority;

impl Member {
    /// Whether it could take a further unit now.
    pub(in crate::pod) fn has_room(&self, concurrency: usize) -> bool {
        self.ready && !self.leaving && !self.yielding && !self.alone && self.units < concurrency
    }
}

impl PoolState {
    /// Whether nothing waits and nothing runs.
    pub(in crate::pod) fn is_quiet(&self) -> bool {
        self.schedule.is_empty() && self.solo.is_empty() && self.holders.is_empty()
    }

    /// Whether something waits that no pod has room for.
    pub(in crate::pod) fn is_crowded(&self, concurrency: usize) -> bool {
        self.best_waiting().is_some() && !self.members.iter().any(|member| member.has_room(concurrency))
    }

    /// Whether an end of failing was among it: then more pods may be started.
    pub(in crate::pod) fn note(&mut self, report: &Report, now: Duration) -> bool {
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

    /// Who waits for a place for its models waits for the best of what there is, and no longer than for that.
    pub(in crate::pod) fn tell_awaiting_memory(&self) {
        let waiting = self.members.iter().filter(|member| member.awaits_memory && !member.asleep && !member.leaving);
        waiting.filter_map(|member| member.watcher.as_ref()).for_each(|watcher| watcher.shared.offer_work());
    }

    /// One that is busy with work of a lower class keeps its place against others for what now waits behind that.
    pub(in crate::pod) fn tell_outranked(&self, priority: Priority) {
        let outranked = |member: &&Member| member.class.is_some_and(|class| class > priority);
        let busy = self.members.iter().filter(|member| member.units > 0 && !member.leaving && !member.yielding);
        busy.filter(outranked).filter_map(|member| member.watcher.as_ref()).for_each(|watcher| watcher.shared.offer_work());
    }

    /// The best class of what waits.
    pub(in crate::pod) fn best_waiting(&self) -> Option<Priority> {
        let solo = self.solo.iter().map(|ticketed| ticketed.pending.request.priority);
        let queued = Priority::ALL.into_iter().zip(self.schedule.counts()).filter(|(_, count)| *count > 0).map(|(priority, _)| priority);
        queued.chain(solo).min()
    }

    /// Marks that member as leaving; whether it is one.
    pub(in crate::pod) fn mark_leaving(&mut self, slot: u64) -> bool {
        let member = self.members.iter_mut().find(|member| member.slot == slot);
        member.map(|member| member.leaving = true).is_some()
    }
}

/// See [`Pool`].
pub(super) struct PoolShared {
    pub(super) this: Weak<PoolShared>,
    pub(super) recipe: Arc<Verified>,
    pub(super) spawner: Arc<dyn Spawner>,
    pub(super) spec: PoolSpec,
    pub(super) concurrency: usize,
    pub(super) born: Instant,
    pub(super) state: Mutex<PoolState>,
    /// Whether an input is remembered for having ended a pod: only then are inputs digested.
    pub(super) suspects: AtomicBool,
    /// Told whenever work is over, for who waits until there is none.
    pub(super) quiet: Notify,
}

/// What the lock guards.
pub(super) struct PoolState {
    pub(super) schedule: Schedule<Pending>,
    /// Asks whose pod ended while others were at work there too: the next to go alone, to tell which of them it was.
    pub(super) solo: VecDeque<TicketedAsk>,
    /// In whose hands an ask is.
    pub(super) holders: HashMap<Ticket, Arc<PodShared>>,
    pub(super) members: Vec<Member>,
    pub(super) slots: u64,
    pub(super) restarts: Restarts,
    pub(super) poison: Poison,
    /// A start is planned for then.
    pub(super) planned: Option<Duration>,
    /// Which value of the recipe's lever holds.
    pub(super) fallback: usize,
    /// The recipe was asked, or is to be kept ready: `min` counts from then on.
    pub(super) used: bool,
    pub(super) closed: bool,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) repeated: u64,
    pub(super) crashes: u64,
    /// Ends of pods since the last good answer; a start that came to nothing counts for several.
    pub(super) failing: u32,
    pub(super) last_fault: Option<Fault>,
    /// Why there never will be a place for a pod's models, while that is why none is started.
    pub(super) hopeless: Option<Fault>,
}

/// One pod, from the wish to have it until its end was dealt with.
pub(super) struct Member {
    pub(super) slot: u64,
    pub(super) since: Instant,
    /// None while its environment is made ready.
    pub(super) watcher: Option<Watcher>,
    pub(super) ready: bool,
    /// It has no models, and is not to load any before there is work for it.
    pub(super) asleep: bool,
    /// It waits for a place for its models.
    pub(super) awaits_memory: bool,
    /// It gives its place to another when it has done what it has in hand.
    pub(super) yielding: bool,
    /// It takes nothing any more.
    pub(super) leaving: bool,
    /// What it has in hand goes alone.
    pub(super) alone: bool,
    /// Units in its hands.
    pub(super) units: usize,
    /// The best class of what it has in hand and of what it knows to wait.
    pub(super) class: Option<Priority>,
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

/// How a pod's life ended, for the pool.
pub(in crate::pod) struct End {
    pub why: Why,
    pub was_ready: bool,
    /// It had answered well.
    pub was_useful: bool,
    /// Ended by SIGKILL before it was ready, and not by us: whoever did that, the recipe is not to blame.
    pub was_killed_at_start: bool,
    pub fault: Fault,
}

/// Why a pod is no more. All but the first are for the restart policy, whatever `min` wants: a pod that served nobody is not replaced at once for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pod) enum Why {
    /// It was asked to go: by its operator, for another's sake, for its age, to load with less. Each of these ends by itself.
    Asked,
    /// It could not be forked: there was no pod.
    NeverBegan,
    /// There never will be a place for its models: nothing failed, and trying again is no use.
    Refused,
    /// There was nothing left of what a pod takes of the host: others have it, and nothing of this recipe's failed.
    Short,
    /// It failed.
    Failed,
}
