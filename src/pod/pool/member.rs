//! A member of a pool: one pod, from the decision to start it until its end is dealt with.
//!
//! ```text
//!   Starting --> AwaitsMemory --> Ready { alone } --> Yielding { alone }
//!      ^  \         ^  |  ^          ^     |              |
//!      |   \-------/|--|--|----------/     v              v
//!      |            |  v  |             Unloading <-------+
//!      |         Asleep <-|----------------+
//!      +--------------------- woken -------+              every state --> Leaving
//! ```

use tokio::time::Instant;

use crate::{model::Priority, pod::pool::watcher::Watcher};

/// A member's phase in its pool. Only the methods of [`Member`] change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its environment is prepared, or its process starts, or it was woken before the memory of its models
    /// was free.
    Starting,
    /// It waits for memory for its models.
    AwaitsMemory,
    /// It serves. `alone`: its unit in hand runs without company.
    Ready { alone: bool },
    /// It finishes its units in hand and takes no more, because its memory is for another pod.
    Yielding { alone: bool },
    /// It unloads its models; their memory is not free yet.
    Unloading,
    /// It has no models, and loads none until there is work.
    Asleep,
    /// It takes no more units, for good.
    Leaving,
}

/// One pod of a pool.
pub(super) struct Member {
    slot: u64,
    since: Instant,
    /// `None` while its environment is prepared. The pod may report that it is ready before this is set.
    watcher: Option<Watcher>,
    phase: Phase,
    /// Units in its hands.
    units: usize,
    /// The best class among its units in hand and the waiting asks that it knows of.
    class: Option<Priority>,
}

impl Member {
    pub fn new(slot: u64) -> Member {
        Member { slot, since: Instant::now(), watcher: None, phase: Phase::Starting, units: 0, class: None }
    }

    pub fn slot(&self) -> u64 {
        self.slot
    }

    /// When its start was decided.
    pub fn since(&self) -> Instant {
        self.since
    }

    pub fn watcher(&self) -> Option<&Watcher> {
        self.watcher.as_ref()
    }

    pub fn units(&self) -> usize {
        self.units
    }

    /// Whether it is not about to leave.
    pub fn stays(&self) -> bool {
        self.phase != Phase::Leaving
    }

    /// Whether its models are loaded and it stays.
    pub fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. } | Phase::Yielding { .. })
    }

    /// Whether it loads its models as soon as it is woken.
    pub fn is_asleep(&self) -> bool {
        matches!(self.phase, Phase::Asleep | Phase::Unloading)
    }

    /// Whether it becomes ready without being woken.
    pub fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::AwaitsMemory)
    }

    /// Whether it may be the next one without work: not while it waits for memory, which may take long.
    pub fn is_next_free(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Unloading)
    }

    /// Whether its unit in hand runs without company.
    pub fn is_alone(&self) -> bool {
        matches!(self.phase, Phase::Ready { alone: true } | Phase::Yielding { alone: true })
    }

    /// Whether it could take another unit now.
    pub fn has_room(&self, concurrency: usize) -> bool {
        self.phase == Phase::Ready { alone: false } && self.units < concurrency
    }

    /// Number of units that it could take now.
    pub fn room(&self, concurrency: usize) -> usize {
        if self.has_room(concurrency) { concurrency - self.units } else { 0 }
    }

    /// Tells it that there may be work for it.
    pub fn offer_work(&self) {
        self.watcher.iter().for_each(|watcher| watcher.shared.offer_work());
    }

    /// Makes it check again for which class it waits for memory.
    pub fn offer_work_if_awaiting_memory(&self) {
        if self.phase == Phase::AwaitsMemory {
            self.offer_work();
        }
    }

    /// Makes it check again if it is busy with work of a lower class: it then keeps its memory for the better
    /// class that waits.
    pub fn offer_work_if_outranked(&self, priority: Priority) {
        let is_outranked = self.units > 0 && self.class.is_some_and(|class| class > priority);
        if is_outranked && !matches!(self.phase, Phase::Leaving | Phase::Yielding { .. }) {
            self.offer_work();
        }
    }

    pub fn spawned(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    /// Wakes it from sleep to load its models.
    pub fn wake(&mut self) {
        self.phase = match self.phase {
            Phase::Asleep => Phase::AwaitsMemory,
            Phase::Unloading => Phase::Starting,
            other => other,
        };
        self.offer_work();
    }

    pub fn report_ready(&mut self) {
        self.become_unless_leaving(Phase::Ready { alone: self.is_alone() });
    }

    /// Its models are unloaded, or it must not load any until there is work.
    pub fn report_asleep(&mut self) {
        let phase = if matches!(self.phase, Phase::AwaitsMemory | Phase::Asleep) { Phase::Asleep } else { Phase::Unloading };
        self.become_unless_leaving(phase);
    }

    pub fn report_yielding(&mut self) {
        if let Phase::Ready { alone } = self.phase {
            self.phase = Phase::Yielding { alone };
        }
    }

    /// It has no models. `has_work`: work waits for which it has to load them.
    pub fn report_empty(&mut self, has_work: bool) {
        let sleeps_on = self.is_asleep() && !has_work;
        self.become_unless_leaving(if sleeps_on { Phase::Asleep } else { Phase::AwaitsMemory });
    }

    pub fn report_leaving(&mut self) {
        self.phase = Phase::Leaving;
    }

    /// It has `units` units in hand.
    pub fn report_units(&mut self, units: usize) {
        self.units = units;
        if let Phase::Ready { alone } | Phase::Yielding { alone } = &mut self.phase {
            *alone &= units > 0;
        }
    }

    pub fn report_class(&mut self, class: Option<Priority>) {
        self.class = class;
    }

    /// It gets another unit.
    pub fn give(&mut self) {
        self.units += 1;
    }

    /// It gets a unit that runs without company.
    pub fn give_alone(&mut self) {
        self.units = 1;
        if let Phase::Ready { alone } | Phase::Yielding { alone } = &mut self.phase {
            *alone = true;
        }
    }

    fn become_unless_leaving(&mut self, phase: Phase) {
        if self.stays() {
            self.phase = phase;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Report = fn(&mut Member);

    /// A member in each phase, by the reports that lead there.
    fn reported(reports: &[Report]) -> Member {
        let mut member = Member::new(1);
        reports.iter().for_each(|report| report(&mut member));
        member
    }

    const READY: Report = Member::report_ready;
    const ASLEEP: Report = Member::report_asleep;
    const YIELDING: Report = Member::report_yielding;
    const LEAVING: Report = Member::report_leaving;
    const WAKE: Report = Member::wake;
    const ALONE: Report = Member::give_alone;
    const EMPTY: Report = |member| member.report_empty(false);
    const WANTED: Report = |member| member.report_empty(true);
    const IDLE: Report = |member| member.report_units(0);

    #[test]
    fn each_report_leads_to_the_phase_that_it_tells_of() {
        let cases: [(&[Report], Phase); 15] = [
            (&[], Phase::Starting),
            (&[EMPTY], Phase::AwaitsMemory),
            (&[EMPTY, ASLEEP], Phase::Asleep),
            (&[EMPTY, ASLEEP, EMPTY], Phase::Asleep),
            (&[EMPTY, ASLEEP, WANTED], Phase::AwaitsMemory),
            (&[EMPTY, ASLEEP, WAKE], Phase::AwaitsMemory),
            (&[READY], Phase::Ready { alone: false }),
            (&[READY, ALONE], Phase::Ready { alone: true }),
            (&[READY, ALONE, YIELDING], Phase::Yielding { alone: true }),
            (&[READY, ALONE, YIELDING, IDLE], Phase::Yielding { alone: false }),
            (&[READY, YIELDING, ASLEEP], Phase::Unloading),
            (&[READY, YIELDING, ASLEEP, EMPTY], Phase::Asleep),
            (&[READY, YIELDING, ASLEEP, WAKE], Phase::Starting),
            (&[READY, YIELDING, ASLEEP, WAKE, EMPTY], Phase::AwaitsMemory),
            (&[YIELDING], Phase::Starting),
        ];
        for (at, (reports, phase)) in cases.into_iter().enumerate() {
            assert_eq!(reported(reports).phase, phase, "{at}");
        }
    }

    #[test]
    fn one_that_leaves_is_never_anything_else() {
        for report in [READY, ASLEEP, YIELDING, WAKE, ALONE, EMPTY, WANTED, IDLE] {
            let member = reported(&[READY, LEAVING, report]);
            assert_eq!(member.phase, Phase::Leaving);
            assert!(!member.stays() && !member.is_serving() && !member.is_asleep() && !member.is_starting() && !member.has_room(1));
        }
    }
}
