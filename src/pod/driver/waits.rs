//! The lengths of the driver's waits.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    model::limits::{DRAIN_GRACE_MS, KILL_GRACE_MS, POD_START_DEFAULT_MS, STACK_GRACE_MS, TERM_GRACE_MS, UNLOAD_MS},
    pod::driver::state::Timer,
};

/// The length of a wait of the state machine; `stacks`: whether the pod can print its stacks.
pub fn wait(timer: Timer, stacks: bool) -> Duration {
    Duration::from_millis(match timer {
        Timer::Load => POD_START_DEFAULT_MS,
        Timer::Unload => UNLOAD_MS,
        Timer::Stack if stacks => STACK_GRACE_MS,
        Timer::Stack => 0,
        Timer::Drain => DRAIN_GRACE_MS,
        Timer::Term => TERM_GRACE_MS,
        Timer::Kill => KILL_GRACE_MS,
    })
}

/// Longer than any wait of a driver.
const NEVER: Duration = Duration::from_secs(86_400);

/// A time that never comes, for a wait that is not active.
pub fn far() -> Instant {
    Instant::now() + NEVER
}
