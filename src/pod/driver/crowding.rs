//! Serves waiting callers while another caller of the same pod takes its chunks slowly.
//!
//! 1. While no other caller waits, a slow caller holds its pod back by the credit (`receiving.rs`).
//! 2. When others wait, the host keeps the slow caller's chunks, so that the pod can finish.
//! 3. When the host keeps too many chunks, the slow call ends.

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

use crate::{
    model::{
        Code, Fault, act, hint,
        limits::{STREAM_KEPT_BYTES_MAX, STREAM_SPILLED_BYTES_MAX, STREAM_UNREAD_MS},
    },
    pod::{
        driver::{
            Driver,
            state::{AskId, Event},
        },
        stream::Lent,
    },
};

impl Driver {
    /// Gives credit on behalf of callers that are behind, if others wait for this pod.
    pub(super) fn make_way(&mut self) {
        for ask in self.in_flight.ids() {
            // What is on the disk by now counts, whether anybody still waits or not.
            let granted = self.outlet(ask).map_or(0, |outlet| outlet.granted());
            if granted > 0 {
                self.say_credit(ask, granted);
            }
        }
        let mut behind = self.in_flight.ids();
        behind.retain(|ask| self.in_flight.is_behind(*ask));
        if behind.is_empty() || !self.is_crowded() {
            return;
        }
        for ask in behind {
            let (lent, taken) = self.lend(ask);
            if let Lent::Full(_) = lent {
                self.in_flight.await_reading(ask, Instant::now() + Duration::from_millis(STREAM_UNREAD_MS), taken);
            }
        }
    }

    /// Ends the calls that took nothing while too much is kept for them and others wait.
    pub(super) fn end_unread(&mut self, now: Instant) {
        for (ask, before) in self.in_flight.take_unread(now) {
            self.is_behind = true;
            if !self.is_crowded() {
                continue;
            }
            // Perhaps there is room again, by what others have taken.
            if let (Lent::Full(why), taken) = self.lend(ask)
                && taken == before
            {
                self.step(Event::Stalled(ask, why.unwrap_or_else(unread)));
            }
        }
    }

    /// Gives credit on behalf of one caller; also returns how many chunks that caller has taken.
    fn lend(&mut self, ask: AskId) -> (Lent, u64) {
        let (folder, shared) = (self.spec.scratch.parent().map_or_else(PathBuf::new, PathBuf::from), self.shared.clone());
        let Some(outlet) = self.outlet(ask) else { return (Lent::Weight(0), 0) };
        let taken = outlet.taken();
        let lent = outlet.lend(&folder, move || shared.tell_crowded());
        if let Lent::Weight(weight @ 1..) = lent {
            self.say_credit(ask, weight);
        }
        (lent, taken)
    }

    fn outlet(&self, ask: AskId) -> Option<&crate::pod::stream::Outlet> {
        self.in_flight.ticketed(ask)?.pending.chunks.as_ref()
    }

    /// Whether others wait: for a pod while none has room, or in this pod for their turn, or for its memory.
    fn is_crowded(&self) -> bool {
        self.in_flight.units() > self.rules.concurrency() || self.loading.is_yielding() || self.slot.is_crowded()
    }
}

fn unread() -> Fault {
    let text = format!(
        "the caller took no chunk for {STREAM_UNREAD_MS} ms, as many of its chunks are kept as may be ({STREAM_KEPT_BYTES_MAX} bytes in memory and \
         {STREAM_SPILLED_BYTES_MAX} on the disk, or what is left of the host's), and others wait for its pod"
    );
    Fault::new(Code::Unread, text).hint(hint![
        "read the stream as it comes, or ask for less; a recipe with more pods (",
        act::pods_max(),
        ") lets others wait less"
    ])
}
