//! When the next pod of a recipe may be started: at once, after a wait, or not until its quarantine is over.
//!
//! A policy without IO and without a clock; `mod.rs` starts the pods.
//!
//! ```text
//!                 died, had answered: nothing changes
//!                     |
//!            answered v     died, first          died, 2nd, 3rd ...
//!   lift() -------> free ----------------> free ------------------> waiting 0.25 s, 0.5 s ... 30 s
//!                     ^                                                | the budget is spent
//!                     | answered                                       v
//!                   trial <-------------------------------------- quarantined 30 s, 1 min ... 10 min
//!                     |               the time is over                 ^
//!                     +------------------------------------------------+
//!                                       died
//! ```

use std::{collections::VecDeque, time::Duration};

use crate::model::limits::{
    QUARANTINE_MAX_MS, QUARANTINE_MIN_MS, RESTART_BUDGET, RESTART_ROW_MAX, RESTART_WAIT_BESIDE_MS, RESTART_WAIT_MAX_MS,
    RESTART_WAIT_MIN_MS, RESTART_WINDOW_MS, SERVE_RETRY_MS,
};

/// Whether a pod may be started. Times are since the pool was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayStart {
    Now,
    At(Duration),
    /// Until then no pod is started; asks that wait for a first pod are better refused than kept.
    Quarantined(Duration),
}

/// The deaths of a recipe's pods that count.
#[derive(Debug, Default)]
pub struct Restarts {
    /// Unproductive deaths since the last productive one.
    row: u32,
    /// Unproductive deaths since the last good answer.
    unanswered: u32,
    /// Times of the last of those, oldest first; at most [`RESTART_BUDGET`].
    recent: VecDeque<Duration>,
    /// Time of the last unproductive death.
    last: Duration,
    not_before: Duration,
    quarantine: Option<Quarantine>,
}

/// Kept after its time is over, until a good answer: the next pod is a trial.
#[derive(Debug)]
struct Quarantine {
    until: Duration,
    length: Duration,
}

impl Restarts {
    pub fn new() -> Restarts {
        Restarts::default()
    }

    pub fn may_start(&self, now: Duration) -> MayStart {
        match &self.quarantine {
            Some(quarantine) if quarantine.until > now => MayStart::Quarantined(quarantine.until),
            _ if self.not_before > now => MayStart::At(self.not_before),
            _ => MayStart::Now,
        }
    }

    /// A pod ended without a request to end. `productive`: it gave a good answer since it started; such a
    /// death does not count, so that random kills never quarantine a recipe that works. `jitter`: random,
    /// from 0 to 1; a wait is between half of its length and all of it.
    pub fn died(&mut self, now: Duration, productive: bool, jitter: f64) {
        if productive {
            (self.row, self.not_before) = (0, Duration::ZERO);
            return;
        }
        match &self.quarantine {
            // A sibling died of the same cause, which is not news.
            Some(quarantine) if quarantine.until > now => return,
            Some(_) => return self.hopeless(now),
            None => {}
        }
        self.last = now;
        self.row = self.row.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        self.recent.push_back(now);
        if self.recent.len() > RESTART_BUDGET {
            self.recent.pop_front();
        }
        let window = Duration::from_millis(RESTART_WINDOW_MS);
        let is_burst = self.recent.len() == RESTART_BUDGET && self.recent.front().is_some_and(|first| now.saturating_sub(*first) <= window);
        if is_burst || self.unanswered >= RESTART_ROW_MAX {
            return self.hopeless(now);
        }
        // A number outside 0 to 1 counts as the longest wait.
        let jitter = if (0.0..=1.0).contains(&jitter) { jitter } else { 1.0 };
        self.not_before = now.saturating_add(wait(self.row).mul_f64(0.5 + jitter / 2.0));
    }

    /// Nothing failed, but an immediate retry would not help.
    pub fn pause(&mut self, now: Duration) {
        self.not_before = self.not_before.max(now.saturating_add(Duration::from_millis(SERVE_RETRY_MS)));
    }

    /// The trial failed, or the pod's need can never be met: no pod is started before the end of a
    /// quarantine.
    pub fn hopeless(&mut self, now: Duration) {
        let length = match &self.quarantine {
            Some(quarantine) if quarantine.until > now => return,
            Some(quarantine) => quarantine.length.saturating_mul(2).min(Duration::from_millis(QUARANTINE_MAX_MS)),
            None => Duration::from_millis(QUARANTINE_MIN_MS),
        };
        self.begin_quarantine(now, length);
    }

    /// A pod of the recipe gave a good answer: a quarantine ends, and the whole budget is available again. A
    /// wait becomes short, but does not end: the answering pod may be an old one while every new one fails.
    /// Returns true if this changed anything.
    pub fn answered(&mut self) -> bool {
        // The usual case, thousands of times a second.
        if self.unanswered == 0 && self.quarantine.is_none() {
            return false;
        }
        self.unanswered = 0;
        self.recent.clear();
        self.quarantine = None;
        let beside = Duration::from_millis(RESTART_WAIT_BESIDE_MS);
        while wait(self.row) > beside {
            self.row -= 1;
        }
        self.not_before = self.not_before.min(self.last.saturating_add(beside));
        true
    }

    /// The operator says that the cause is fixed: all is forgotten.
    pub fn lift(&mut self) {
        *self = Restarts::new();
    }

    #[cfg(test)]
    pub fn is_quarantined(&self, now: Duration) -> bool {
        matches!(self.may_start(now), MayStart::Quarantined(_))
    }

    /// Whether no pod has answered since a quarantine began. Then one pod at a time is enough: its death
    /// renews the quarantine.
    pub fn is_on_trial(&self) -> bool {
        self.quarantine.is_some()
    }

    fn begin_quarantine(&mut self, now: Duration, length: Duration) {
        *self = Restarts { quarantine: Some(Quarantine { until: now.saturating_add(length), length }), ..Restarts::new() };
    }
}

/// The full wait after `row` unproductive deaths in a row; the first death is free.
fn wait(row: u32) -> Duration {
    let Some(doublings) = row.checked_sub(2) else { return Duration::ZERO };
    let wait = RESTART_WAIT_MIN_MS.saturating_mul(1 << doublings.min(32));
    Duration::from_millis(wait.min(RESTART_WAIT_MAX_MS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Lets pods die without an answer, each as soon as it may be started, until the quarantine; returns when
    /// the quarantine began and its end.
    fn until_quarantined(restarts: &mut Restarts, mut now: Duration) -> (Duration, Duration) {
        for _ in 0..100 {
            restarts.died(now, false, 1.0);
            match restarts.may_start(now) {
                MayStart::Now => {}
                MayStart::At(at) => now = at,
                MayStart::Quarantined(until) => return (now, until),
            }
        }
        panic!("never quarantined");
    }

    #[test]
    fn waits_double_from_the_second_death_on_and_the_budget_ends_in_quarantine() {
        let (mut restarts, mut now) = (Restarts::new(), ms(5_000));
        assert_eq!(restarts.may_start(now), MayStart::Now);
        for wait in [0, 250, 500, 1_000, 2_000] {
            restarts.died(now, false, 1.0);
            let expected = if wait == 0 { MayStart::Now } else { MayStart::At(now + ms(wait)) };
            assert_eq!(restarts.may_start(now), expected);
            now += ms(wait);
            assert_eq!(restarts.may_start(now), MayStart::Now);
        }
        assert!(!restarts.is_quarantined(now) && !restarts.is_on_trial());
        restarts.died(now, false, 1.0);
        assert_eq!(restarts.may_start(now), MayStart::Quarantined(now + ms(30_000)));
        assert!(restarts.is_quarantined(now));
        assert_eq!(restarts.may_start(now + ms(30_000)), MayStart::Now);
        assert!(!restarts.is_quarantined(now + ms(30_000)) && restarts.is_on_trial());
    }

    #[test]
    fn jitter_shortens_a_wait_by_half_at_most() {
        for (jitter, wait) in [(0.0, 125), (0.5, 187), (1.0, 250), (7.0, 250), (-1.0, 250), (f64::NAN, 250)] {
            let mut restarts = Restarts::new();
            restarts.died(ms(0), false, jitter);
            restarts.died(ms(0), false, jitter);
            let MayStart::At(at) = restarts.may_start(ms(0)) else { panic!("no wait with {jitter}") };
            assert_eq!(at.as_millis(), wait, "{jitter}");
        }
    }

    #[test]
    fn a_quarantine_is_longer_each_time_that_its_trial_fails() {
        let mut restarts = Restarts::new();
        let (mut now, mut until) = until_quarantined(&mut restarts, ms(0));
        for length in [30, 60, 120, 240, 480, 600, 600] {
            assert_eq!(until - now, ms(length * 1_000));
            (0..20).for_each(|_| restarts.died(until - ms(1), false, 1.0));
            assert_eq!(restarts.may_start(until - ms(1)), MayStart::Quarantined(until), "the deaths of siblings change nothing");
            now = until;
            restarts.died(now, false, 1.0);
            let MayStart::Quarantined(next) = restarts.may_start(now) else { panic!("the trial had no second try") };
            until = next;
        }
        // A good answer ends it, and the next one starts short.
        restarts.answered();
        assert_eq!(restarts.may_start(now), MayStart::Now);
        assert!(!restarts.is_on_trial());
        let (began, until) = until_quarantined(&mut restarts, now);
        assert!(began > now && until - began == ms(30_000));
    }

    #[test]
    fn the_operator_lifts_all_of_it() {
        let mut restarts = Restarts::new();
        until_quarantined(&mut restarts, ms(0));
        restarts.lift();
        assert_eq!(restarts.may_start(ms(0)), MayStart::Now);
        restarts.died(ms(0), false, 1.0);
        assert_eq!(restarts.may_start(ms(0)), MayStart::Now, "the first death is free again");
    }

    #[test]
    fn productive_deaths_cost_nothing() {
        let mut restarts = Restarts::new();
        for now in 0..1_000 {
            restarts.answered();
            restarts.died(ms(now), true, 1.0);
            assert_eq!(restarts.may_start(ms(now)), MayStart::Now);
        }
    }

    #[test]
    fn a_productive_death_ends_the_row() {
        let mut restarts = Restarts::new();
        (0..4).for_each(|_| restarts.died(ms(0), false, 1.0));
        assert_eq!(restarts.may_start(ms(0)), MayStart::At(ms(1_000)));
        restarts.died(ms(0), true, 1.0);
        assert_eq!(restarts.may_start(ms(0)), MayStart::Now);
        restarts.died(ms(0), false, 1.0);
        assert_eq!(restarts.may_start(ms(0)), MayStart::Now, "the first of a new row is free");
    }

    /// Two pods of a good recipe, killed at random ten times a second for a minute, often before their first
    /// answer.
    #[test]
    fn random_kills_never_quarantine_a_recipe_that_works() {
        let (mut restarts, mut dice, mut unproductive) = (Restarts::new(), 12345u64, 0);
        let mut longest = Duration::ZERO;
        for tick in 0..600 {
            let now = ms(tick * 100);
            dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let productive = (dice >> 33) % 10 < 6;
            unproductive += u64::from(!productive);
            restarts.died(now, productive, 1.0);
            match restarts.may_start(now) {
                MayStart::Now => {}
                MayStart::At(at) => longest = longest.max(at - now),
                MayStart::Quarantined(_) => panic!("quarantined at {now:?}"),
            }
            restarts.answered();
        }
        assert!(unproductive > 200, "{unproductive}");
        assert!(longest > Duration::ZERO && longest <= ms(2_000), "{longest:?}");
    }

    #[test]
    fn what_fails_to_start_beside_a_pod_that_answers_is_started_slowly() {
        let (mut restarts, mut now, mut starts) = (Restarts::new(), ms(0), 0);
        while now < ms(60_000) {
            restarts.died(now, false, 0.0);
            restarts.answered();
            match restarts.may_start(now) {
                MayStart::Now => {}
                MayStart::At(at) => {
                    assert!(at - now <= ms(RESTART_WAIT_BESIDE_MS));
                    now = at;
                }
                MayStart::Quarantined(_) => panic!("it works, if only just"),
            }
            starts += 1;
        }
        assert!((60..=130).contains(&starts), "{starts} starts in a minute");
    }

    #[test]
    fn pods_that_take_minutes_to_fail_are_quarantined_too() {
        let (mut restarts, mut now) = (Restarts::new(), ms(0));
        for count in 1..=RESTART_ROW_MAX {
            assert!(!restarts.is_quarantined(now), "after {count}");
            now += ms(2 * RESTART_WINDOW_MS);
            restarts.died(now, false, 1.0);
        }
        assert!(restarts.is_quarantined(now));
    }

    proptest! {
        /// Whatever happens: no wait exceeds the longest one, and a recipe whose pod answered is not
        /// quarantined.
        #[test]
        fn no_order_of_deaths_blocks_for_ever(events in prop::collection::vec((0u8..5, 0u64..40_000, 0.0f64..=1.0), 0..200)) {
            let (mut restarts, mut now) = (Restarts::new(), ms(0));
            for (what, later, jitter) in events {
                now += ms(later);
                match what {
                    0 => { restarts.answered(); prop_assert!(!restarts.is_quarantined(now)); }
                    1 => restarts.died(now, true, jitter),
                    _ => restarts.died(now, false, jitter),
                }
                match restarts.may_start(now) {
                    MayStart::Now => {}
                    MayStart::At(at) => prop_assert!(at > now && at - now <= ms(RESTART_WAIT_MAX_MS)),
                    MayStart::Quarantined(until) => prop_assert!(until > now && until - now <= ms(QUARANTINE_MAX_MS)),
                }
                prop_assert!(restarts.recent.len() <= RESTART_BUDGET);
            }
        }
    }
}
