//! The work that a pod reports: its driver writes it without a lock, and it is read when another pod waits
//! for memory.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::pod::residency::policy::Rank;

/// One word: microseconds since the budget was made (asks take less than a millisecond), the class of the
/// last work, the class of the current work.
#[derive(Debug, Default)]
pub(super) struct Work(AtomicU64);

impl Work {
    pub fn set(&self, now: Duration, work: Rank) {
        let worked = if work > 0 { work } else { self.get().1 };
        self.0.store((now.as_micros() as u64) << 4 | u64::from(worked) << 2 | u64::from(work), Ordering::SeqCst);
    }

    pub fn get(&self) -> (Duration, Rank, Rank) {
        let word = self.0.load(Ordering::SeqCst);
        (Duration::from_micros(word >> 4), (word >> 2 & 3) as Rank, (word & 3) as Rank)
    }
}
