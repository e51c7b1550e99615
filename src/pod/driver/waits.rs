//! The waits of the driver's loop: for a lane, and for a slow caller that has room again.
//!
//! Each of them may be dropped halfway and started again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    model::limits::{DRAIN_GRACE_MS, KILL_GRACE_MS, POD_START_DEFAULT_MS, STACK_GRACE_MS, TERM_GRACE_MS, UNLOAD_MS},
    pod::{
        driver::state::{AskId, Timer},
        wire::{lane::Lane, messages::Payload},
    },
};

/// A chunk that waits for a slow caller; while there is one, the data lane is not read.
pub struct Undelivered {
    pub ask: AskId,
    pub payload: Payload,
}

pub async fn readable(lane: Option<&Lane>) {
    match lane {
        Some(lane) if !lane.is_closed() => {
            let _ = lane.stream().readable().await;
        }
        _ => std::future::pending().await,
    }
}

pub async fn writable(control: &Lane, data: Option<&Lane>) {
    let data = async {
        match data.filter(|lane| lane.has_output()) {
            Some(lane) => drop(lane.stream().writable().await),
            None => std::future::pending().await,
        }
    };
    let control = async {
        match control.has_output() {
            true => drop(control.stream().writable().await),
            false => std::future::pending().await,
        }
    };
    tokio::select! { _ = data => {}, _ = control => {} }
}

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
