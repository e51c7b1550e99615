//! What a driver hears from its pod.
//!
//! Apart from `driver.rs`, which decides what is read when: here bytes become messages, and messages events.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{
    confine,
    driver::Driver,
    egress::Egress,
    frame::Decoded,
    hands::{Silence, Which},
    lane::{Lane, Read},
    starting::grouped,
    state::{AskId, Event, State},
    waits::Undelivered,
    wire::{FromPod, PROTOCOL},
};
use crate::model::{
    self, Fault,
    limits::{EXIT_GRACE_MS, FRAMES_PER_TURN_MAX, LAST_WORDS_TURNS_MAX, POD_MISSING_CHARS_MAX, POD_MISSING_MAX},
    recipe::Runtime,
    status::{Class, Confinement},
};

impl Driver {
    /// Reads what a lane has, but only so much that everything else gets its turn.
    pub(super) fn read(&mut self, which: Which) {
        for _ in 0..FRAMES_PER_TURN_MAX {
            if self.state == State::Dead || (self.undelivered.is_some() && self.carries_data(which)) {
                return;
            }
            let lane = match (which, &mut self.data) {
                (Which::Control, _) => &mut self.control,
                (Which::Data, Some(data)) => data,
                (Which::Data, None) => return,
            };
            let read = lane.read();
            if !self.received(read) {
                return;
            }
        }
        // More may be in the decoder already, for which the socket will not become readable.
        self.unfinished.add(which);
    }

    /// Whether chunks and answers come on that lane: only such a lane is held back by a slow caller.
    pub(super) fn carries_data(&self, which: Which) -> bool {
        matches!(which, Which::Data) || self.data.is_none()
    }

    /// Handles one thing read; false when there is nothing more to read now.
    fn received(&mut self, read: Read) -> bool {
        match read {
            Read::Dry => return false,
            Read::Closed => {
                // A process that is just ending closes its sockets first: give its end a moment to arrive.
                self.lane_closed_at.get_or_insert(Instant::now() + Duration::from_millis(EXIT_GRACE_MS));
                return false;
            }
            Read::Broken(text) => {
                self.step(Event::Violation(format!("sent what cannot be read: {text}")));
                self.lane_closed_at = None;
                return false;
            }
            Read::Frame(Decoded::Oversize { ask, bytes }) => self.step(Event::Oversize(ask, bytes)),
            Read::Frame(Decoded::Frame(frame)) => match FromPod::parse(&frame) {
                Ok(message) => self.heard(message),
                Err(text) => self.step(Event::Violation(format!("sent {text}"))),
            },
        }
        true
    }

    fn heard(&mut self, message: FromPod) {
        if self.silence.looks > 0 {
            self.silence = Silence::default();
        }
        self.heard = Instant::now();
        match message {
            FromPod::Confined { .. } | FromPod::Refused { .. }
                if self.is_confined() || self.state != (State::Starting { hello: false }) =>
            {
                self.step(Event::Violation("spoke of its sandbox again".into()));
            }
            FromPod::Confined { missing, way_out } => self.confined(missing, way_out),
            FromPod::Refused { layer, why } => {
                let fault = confine::unavailable(&self.spec.recipe, &clip(&layer), &clip(&why));
                self.step(Event::Failed(self.with_tail(fault, 0)));
            }
            _ if !self.is_confined() => self.step(Event::Violation("spoke before it was confined".into())),
            FromPod::Hello { protocol, features, pid, .. } => {
                if !(protocol[0]..=protocol[1]).contains(&PROTOCOL) {
                    let text = format!("speaks protocol {} to {}, this host speaks {PROTOCOL}", protocol[0], protocol[1]);
                    return self.step(Event::Violation(text));
                }
                let has = |wanted: &str| features.iter().any(|feature| feature == wanted);
                if !has("fds") {
                    self.data = None;
                    self.process.data_theirs = None;
                }
                // What only the runner can do is not believed of anything else: by a page that nobody writes, nothing was ever begun.
                let is_runner = matches!(self.spec.recipe.manifest().pod.as_ref().map(|pod| &pod.runtime), Some(Runtime::Python { .. }));
                self.keeps_page = is_runner && has("page") && self.page.path().is_some();
                self.dumps_stacks = has("stack");
                // It will be signalled and measured: a number of somebody else's is none.
                self.shared.pid.store(self.process.pod_pid(pid).unwrap_or(0), Ordering::Release);
                match self.process.is_forked() {
                    true if self.state == (State::Starting { hello: false }) => self.awaits_birth = true,
                    _ => self.step(Event::Hello),
                }
            }
            FromPod::Started => self.step(Event::Started),
            FromPod::Ready => self.step(Event::Ready),
            FromPod::Failed(fault) => {
                let fault = self.with_tail(fault, 0);
                self.step(Event::Failed(fault));
            }
            // An older one may not know of the asks that this one was to tell of.
            FromPod::Pong { seq, asks } if seq == self.pings => self.step(Event::Pong(asks)),
            FromPod::Pong { .. } => {}
            FromPod::Log { level, message } => self.shared.log.push(&format!("{}: {message}", clip(&level))),
            FromPod::Checkpoint(said) => self.heard_checkpoint(said),
            FromPod::Progress { ask, .. } => {
                self.note_progress(ask);
                self.partial = Some(message);
                self.step(Event::Partial(ask));
            }
            FromPod::Chunk { ask, .. } => {
                let hand = self.hands.get(&ask).and_then(|hand| hand.placed.as_ref());
                if hand.is_some_and(|placed| !placed.pending.request.operation.streaming) {
                    return self.step(Event::Violation("sent a chunk for an operation that does not stream".into()));
                }
                self.note_progress(ask);
                self.partial = Some(message);
                self.step(Event::Partial(ask));
            }
            FromPod::Answer { ask, incarnation, result, whole_batch } => {
                if incarnation != self.spec.incarnation {
                    let text = format!("answered as incarnation `{}`, it is `{}`", clip(&incarnation), self.spec.incarnation);
                    return self.step(Event::Violation(text));
                }
                self.last = Some((result, whole_batch));
                self.step(Event::Answer(ask));
                self.last = None;
            }
        }
    }

    /// Nothing that a pod says counts before.
    fn is_confined(&self) -> bool {
        self.shared.confinement.get().is_some()
    }

    /// The sandbox is around it, said by what is to become the pod, before a line of its own code.
    fn confined(&mut self, missing: Vec<String>, way_out: Option<i32>) {
        let cut = |text: String| text.chars().take(POD_MISSING_CHARS_MAX).collect();
        let missing: Vec<String> = missing.into_iter().take(POD_MISSING_MAX).map(cut).collect();
        if !missing.is_empty() && !self.spec.grants.reduced {
            return self.step(Event::Violation("does without a part of its sandbox, which nobody allowed".into()));
        }
        let class = match self.spec.grants.permissions.devices.is_empty() {
            _ if !missing.is_empty() => Class::Reduced,
            true => Class::Full,
            false => Class::Gpu,
        };
        let _ = self.shared.confinement.set(Confinement { class, missing });
        if let Some(number) = way_out
            && let Err(error) = self.open_way_out(number)
        {
            let fault = Fault::io(format!("opening the way to the network for `{}`", self.spec.recipe.manifest().name), &error);
            self.step(Event::Failed(fault));
        }
    }

    /// Answers the pod's proxy from here on.
    fn open_way_out(&mut self, number: i32) -> std::io::Result<()> {
        let listener = self.process.take_from_keeper(number)?;
        let allowed = self.spec.grants.permissions.network.clone();
        self.egress = Some(Egress::serve(listener, allowed, self.spec.recipe.manifest().name.to_string())?);
        Ok(())
    }

    /// A forked pod has its number: it gets its group, and is told what it is to be.
    pub(super) fn born(&mut self) {
        self.awaits_birth = false;
        let Some(pid) = self.process.pod_pid(0) else { return };
        self.shared.pid.store(pid, Ordering::Release);
        self.grouping = grouped(&self.spec, pid);
        self.step(Event::Hello);
    }

    fn note_progress(&mut self, ask: AskId) {
        if let Some(hand) = self.hands.get_mut(&ask) {
            hand.heard = self.heard;
        }
    }

    /// What the pod sent before it ended still counts: an answer in the socket is an answer.
    ///
    /// Unless a chunk before it finds no room: then the answer stays unread, because a result with a hole is none.
    pub(super) fn read_last_words(&mut self) {
        for which in [Which::Data, Which::Control] {
            self.unfinished.add(which);
            // Bounded: something that escaped with a socket may never stop talking.
            for _ in 0..LAST_WORDS_TURNS_MAX {
                if matches!(self.undelivered, Some(Undelivered::Progress(..))) {
                    self.undelivered = None;
                    self.unfinished.add(which);
                }
                if self.unfinished.take().next().is_none() || self.state == State::Dead {
                    break;
                }
                self.read(which);
            }
        }
        let torn = self.control.is_mid_frame() || self.data.as_ref().is_some_and(Lane::is_mid_frame);
        if torn && !self.hands.is_empty() && self.blame.is_none() {
            self.shared.log.push("[the pod ended in the middle of a frame]");
        }
    }

    pub(super) fn deliver_partial(&mut self, ask: AskId) {
        let Some(pending) = self.hands.get_mut(&ask).and_then(|hand| hand.placed.as_mut()).map(|placed| &mut placed.pending) else {
            return;
        };
        pending.gave |= matches!(self.partial, Some(FromPod::Chunk { .. }));
        self.undelivered = match (self.partial.take(), &pending.chunks) {
            (Some(FromPod::Chunk { payload, .. }), Some(chunks)) => match chunks.try_send(payload) {
                Err(tokio::sync::mpsc::error::TrySendError::Full(payload)) => Some(Undelivered::Chunk(chunks.clone(), payload)),
                _ => None,
            },
            (Some(FromPod::Progress { data, .. }), _) => match pending.request.events.try_send(model::Event::Progress { data }) {
                Err(tokio::sync::mpsc::error::TrySendError::Full(model::Event::Progress { data })) => {
                    Some(Undelivered::Progress(pending.request.events.clone(), data))
                }
                _ => None,
            },
            _ => None,
        };
    }
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
