//! How fast a pool works, as measured: how long a unit takes, and how fast a full queue moves.
//!
//! `schedule.rs` uses it to tell a refused caller when to come back, and how many units may be sent ahead.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::model::{
    limits::{AHEAD_UNITS_MAX, AHEAD_WORK_US, RETRY_AFTER_MAX_MS, RETRY_AFTER_MIN_MS, RETRY_AFTER_UNMEASURED_MS},
    manifest::operation::Operation,
};

/// Share of a new sample in the service time if the sample is longer: one slow unit stops the sending ahead
/// at once.
const SLOWER_SHARE: f64 = 0.25;

/// Its share if the sample is shorter: trust comes back slowly.
const FASTER_SHARE: f64 = 1.0 / 16.0;

/// Share of the drain rate's sums that is kept at each unit: the sums span about 64 units, more than the pods
/// that end theirs together.
const DRAIN_KEPT: f64 = 1.0 - 1.0 / 64.0;

/// A unit that ended well.
#[derive(Debug, Clone)]
pub struct Served {
    pub operation: Arc<Operation>,
    /// Time in the pod, without the wait there behind earlier units.
    pub service: Duration,
    /// Number of asks.
    pub items: usize,
}

/// The measures of one pool.
#[derive(Debug, Default)]
pub struct Pace {
    /// Moving average of a unit's time in the pod, in microseconds.
    service_us: Option<f64>,
    /// The same for each operation of the recipe.
    by_operation: HashMap<String, f64>,
    /// When a unit last ended, if asks have waited ever since: only then the time between two ends shows how
    /// fast the queue moves.
    since: Option<Duration>,
    /// Fading sums over such times: their length in microseconds, and the asks that ended.
    drain_us: f64,
    drained: f64,
}

impl Pace {
    /// A unit ended; `waits`: others wait.
    pub fn done(&mut self, now: Duration, served: &Served, waits: bool) {
        let sample = micros(served.service);
        self.service_us = Some(self.service_us.map_or(sample, |known| averaged(known, sample)));
        match self.by_operation.get_mut(&served.operation.name) {
            Some(known) => *known = averaged(*known, sample),
            None => drop(self.by_operation.insert(served.operation.name.clone(), sample)),
        }
        if let Some(since) = self.since {
            self.drain_us = self.drain_us * DRAIN_KEPT + micros(now.saturating_sub(since));
            self.drained = self.drained * DRAIN_KEPT + served.items as f64;
        }
        self.since = waits.then_some(now);
    }

    /// Nothing waits any more: the time from now on says nothing about the queue's pace.
    pub fn ran_empty(&mut self) {
        self.since = None;
    }

    /// Whether the queue's pace is known.
    pub fn is_measured(&self) -> bool {
        self.drained > 0.0
    }

    /// How long until the queue likely has room for the `place`-th refused caller: one service time, because
    /// the unit that ends next may have only just begun, and then the time in which `place` asks end.
    pub fn retry_after(&self, place: usize) -> Duration {
        let Some(service_us) = self.service_us.filter(|_| self.is_measured()) else {
            return Duration::from_millis(RETRY_AFTER_UNMEASURED_MS);
        };
        let wait_us = service_us + self.drain_us / self.drained * place as f64;
        Duration::from_micros(wait_us.clamp(RETRY_AFTER_MIN_MS as f64 * 1e3, RETRY_AFTER_MAX_MS as f64 * 1e3) as u64)
    }

    /// Whether units of that operation end so soon that a unit behind them loses nothing; false for an
    /// operation that was never measured.
    pub fn is_tiny(&self, operation: &str) -> bool {
        self.by_operation.get(operation).is_some_and(|service_us| *service_us <= AHEAD_WORK_US as f64)
    }

    /// Units that a pod may have beyond those it works on: as many as end before a caller would notice.
    pub fn ahead(&self) -> usize {
        let Some(service_us) = self.service_us else { return 0 };
        ((AHEAD_WORK_US as f64 / service_us.max(1.0)) as usize).min(AHEAD_UNITS_MAX)
    }
}

fn averaged(known: f64, sample: f64) -> f64 {
    known + (sample - known) * if sample > known { SLOWER_SHARE } else { FASTER_SHARE }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    fn done(pace: &mut Pace, now: Duration, service: Duration, items: usize, waits: bool) {
        pace.done(now, &Served { operation: crate::pod::pool::schedule::tests::operation(1, 0, 0), service, items }, waits);
    }

    #[test]
    fn only_tiny_units_are_sent_ahead() {
        let mut pace = Pace::default();
        assert_eq!(pace.ahead(), 0, "unmeasured");
        for (service, ahead) in [(0, 32), (5, 32), (20, 25), (100, 5), (300, 1), (501, 0), (5_000_000, 0)] {
            pace = Pace::default();
            done(&mut pace, us(0), us(service), 1, false);
            assert_eq!(pace.ahead(), ahead, "{service} us");
        }
        // A slow one among tiny ones stops the sending ahead at once, and trust comes back.
        pace = Pace::default();
        (0..100).for_each(|_| done(&mut pace, us(0), us(20), 1, false));
        assert_eq!(pace.ahead(), 25);
        done(&mut pace, us(0), us(10_000), 1, false);
        assert_eq!(pace.ahead(), 0);
        (0..100).for_each(|_| done(&mut pace, us(0), us(20), 1, false));
        assert!(pace.ahead() > 10, "{}", pace.ahead());
    }

    #[test]
    fn each_operation_is_known_for_its_own_time() {
        let mut pace = Pace::default();
        assert!(!pace.is_tiny("embed"), "unmeasured");
        done(&mut pace, us(0), us(50), 1, false);
        assert!(pace.is_tiny("embed") && !pace.is_tiny("train"));
        done(&mut pace, us(0), us(50_000), 1, false);
        assert!(!pace.is_tiny("embed"));
    }

    #[test]
    fn idle_time_is_not_the_queues_pace() {
        let mut pace = Pace::default();
        assert_eq!(pace.retry_after(1), Duration::from_millis(1_000));
        // One ask a second, and none of them waits: the pace of a full queue stays unknown.
        for second in 0..100 {
            done(&mut pace, us(second * 1_000_000), us(50_000), 1, false);
        }
        assert_eq!(pace.retry_after(1), Duration::from_millis(1_000));
        // One every 50 ms while others wait, then a pause of an hour.
        for step in 0..100 {
            done(&mut pace, us(200_000_000 + step * 50_000), us(50_000), 1, true);
        }
        pace.ran_empty();
        done(&mut pace, us(3_600_000_000), us(50_000), 1, true);
        let wait = pace.retry_after(1);
        assert!((us(99_000)..us(101_000)).contains(&wait), "{wait:?}");
        let wait = pace.retry_after(10);
        assert!((us(549_000)..us(551_000)).contains(&wait), "{wait:?}");
    }

    #[test]
    fn pods_that_end_together_and_batches_count_in_full() {
        let mut pace = Pace::default();
        // 8 pods end batches of 32 together, every 100 ms: 2560 a second.
        for round in 0..50 {
            (0..8).for_each(|_| done(&mut pace, us(round * 100_000), us(100_000), 32, true));
        }
        let wait = pace.retry_after(2_560).as_secs_f64();
        assert!((0.9..1.3).contains(&wait), "{wait}");
    }

    #[test]
    fn a_wait_is_neither_too_short_nor_too_long() {
        let mut pace = Pace::default();
        (0..10).for_each(|step| done(&mut pace, us(step), us(1), 1, true));
        assert_eq!(pace.retry_after(1), Duration::from_millis(10));
        (0..10).for_each(|step| done(&mut pace, us(step * 600_000_000), us(600_000_000), 1, true));
        assert_eq!(pace.retry_after(1), Duration::from_millis(60_000));
    }
}
