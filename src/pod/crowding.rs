//! What a driver does for those who wait while a caller of its pod takes its chunks slowly.
//!
//! Apart from `receiving.rs`, which keeps to the credit: while nobody waits, a slow caller holds its pod back. When others do, its chunks are kept
//! by the host so that the pod comes to its end; and when there are too many, the call ends.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{
    driver::Driver,
    spool::Outlet,
    state::{AskId, Event},
};
use crate::model::{
    Code, Fault,
    limits::{CHUNK_CREDIT, STREAM_KEPT_BYTES_MAX, STREAM_UNREAD_MS},
};

impl Driver {
    /// The pool tells only who has a stream that others wait.
    pub(super) fn note_streams(&self) {
        self.shared.streams.store(self.running.values().any(|running| running.operation.streaming), Ordering::Release);
    }

    /// Gives credit in the place of callers that are behind, if others wait for this pod.
    pub(super) fn make_way(&mut self) {
        let behind: Vec<AskId> = self.hands.iter().filter(|(_, hand)| hand.owed >= CHUNK_CREDIT / 2).map(|(ask, _)| *ask).collect();
        if behind.is_empty() || !self.is_crowded() {
            return;
        }
        for ask in behind {
            let Some(hand) = self.hands.get_mut(&ask) else { continue };
            let Some(outlet) = hand.placed.as_ref().and_then(|placed| placed.pending.chunks.as_ref()) else { continue };
            if outlet.is_full() {
                let taken = outlet.taken();
                hand.unread.get_or_insert_with(|| (Instant::now() + Duration::from_millis(STREAM_UNREAD_MS), taken));
                continue;
            }
            let weight = outlet.lend();
            if weight > 0 {
                self.say_credit(ask, weight);
            }
        }
    }

    /// Ends the calls that took nothing while too much is kept for them and others wait.
    pub(super) fn end_unread(&mut self, now: Instant) {
        let due = |(ask, hand): (&AskId, &mut super::hands::Hand)| Some((*ask, hand.unread.take_if(|(at, _)| *at <= now)?.1));
        let due: Vec<(AskId, u64)> = self.hands.iter_mut().filter_map(due).collect();
        for (ask, before) in due {
            let full = |outlet: &Outlet| outlet.is_full() && outlet.taken() == before;
            let outlet = self.hands.get(&ask).and_then(|hand| hand.placed.as_ref()?.pending.chunks.as_ref());
            match outlet.is_some_and(full) && self.is_crowded() {
                true => self.step(Event::Stalled(ask, unread())),
                false => self.is_behind = true,
            }
        }
    }

    /// Whether others wait for a pod and none has room, or wait in this one for their turn.
    fn is_crowded(&self) -> bool {
        self.running.len() > self.rules.concurrency || self.seat.is_crowded()
    }
}

fn unread() -> Fault {
    let text = format!(
        "the caller took no chunk for {STREAM_UNREAD_MS} ms, as many of its chunks are kept as may be ({STREAM_KEPT_BYTES_MAX} bytes), and others wait for its pod"
    );
    Fault::new(Code::Unread, text)
        .hint("read the stream as it comes, or ask for less; a recipe with more pods (`max` in `[pod.pool]`) lets others wait less")
}
