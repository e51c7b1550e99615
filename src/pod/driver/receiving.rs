//! Reads what the pod sends: bytes become messages, and messages become events.
//!
//! The loop in `task.rs` decides what is read when.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::{
    model::{
        Blob, Fault,
        limits::{FRAMES_PER_TURN_MAX, LAST_WORDS_TURNS_MAX, POD_MISSING_CHARS_MAX, POD_MISSING_MAX, PROGRESS_BYTES_MAX},
        manifest::spec::Runtime,
        status::{Class, Confinement, MemoryBound},
    },
    pod::{
        driver::{
            Driver,
            features::Features,
            in_flight::Said,
            lanes::Which,
            state::{AskId, Event, State},
        },
        process::starting::grouped,
        sandbox::{egress::Egress, granted, plan, refused},
        wire::{
            frame::Decoded,
            lane::Read,
            messages::{FromPod, PROTOCOL, Payload},
        },
    },
};

impl Driver {
    /// Reads from a lane, but only so much that everything else gets its turn.
    pub(super) fn read(&mut self, which: Which) {
        for _ in 0..FRAMES_PER_TURN_MAX {
            if self.state == State::Dead || !self.lanes.hears(which) {
                return;
            }
            let Some(read) = self.lanes.read(which) else { return };
            if !self.received(read) {
                return;
            }
        }
        // More may be in the decoder already, for which the socket will not become readable.
        self.lanes.note_unfinished(which);
    }

    /// Handles one item that was read; returns false if there is nothing more to read now.
    fn received(&mut self, read: Read) -> bool {
        match read {
            Read::Dry => return false,
            Read::Closed => {
                self.lanes.note_closed(Instant::now());
                return false;
            }
            Read::Broken(text) => {
                self.step(Event::Violation(format!("sent what cannot be read: {text}")));
                self.lanes.note_broken();
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
        self.clocks.note_message(Instant::now());
        match message {
            // Whatever it was at: what it had in hand ends with that.
            FromPod::Refused { layer, why } if layer == refused::RAN_OUT && self.is_confined() => {
                self.step(Event::Excess(refused::unavailable(&self.spec.recipe, &layer, &clip(&why))));
            }
            FromPod::Confined { .. } | FromPod::Refused { .. }
                if self.is_confined() || self.state != (State::Starting { hello: false }) =>
            {
                self.step(Event::Violation("spoke of its sandbox again".into()));
            }
            FromPod::Confined { missing, way_out } => self.confined(missing, way_out),
            FromPod::Refused { layer, why } => {
                let fault = match layer.as_str() {
                    "grants" => {
                        let why: String = why.chars().take(POD_MISSING_CHARS_MAX).collect();
                        granted::not_data(&self.spec.recipe.manifest().name.to_string(), &why)
                    }
                    _ => refused::unavailable(&self.spec.recipe, &clip(&layer), &clip(&why)),
                };
                self.step(Event::Failed(self.with_tail(fault, 0)));
            }
            _ if !self.is_confined() => self.step(Event::Violation("spoke before it was confined".into())),
            FromPod::Hello { protocol, features, pid, .. } => {
                if !(protocol[0]..=protocol[1]).contains(&PROTOCOL) {
                    let text = format!("speaks protocol {} to {}, this host speaks {PROTOCOL}", protocol[0], protocol[1]);
                    return self.step(Event::Violation(text));
                }
                let is_runner = matches!(self.spec.recipe.manifest().pod.as_ref().map(|pod| &pod.runtime), Some(Runtime::Python { .. }));
                self.features = Features::new(&features, is_runner && self.page.path().is_some());
                if !self.features.takes_descriptors() {
                    self.lanes.share_socket();
                    self.process.data_theirs = None;
                }
                // It will be signalled and measured: a number of somebody else's is none.
                self.shared.pid.store(self.process.pod_pid(pid).unwrap_or(0), Ordering::Release);
                match self.process.is_forked() {
                    true if self.state == (State::Starting { hello: false }) => self.sandbox.await_pid(),
                    _ => self.step(Event::Hello),
                }
            }
            FromPod::Started { unloads } => {
                self.loading.set_unloads(unloads);
                self.step(Event::Started);
            }
            FromPod::Ready => self.step(Event::Ready),
            FromPod::Unloaded => self.step(Event::Unloaded),
            FromPod::Caches => self.shared.caches.send_modify(|caches| *caches = true),
            FromPod::Failed(fault) => {
                let fault = self.could_not_load(fault);
                let fault = self.with_tail(fault, 0);
                self.step(Event::Failed(fault));
            }
            // An older one may not know of the asks that this one was to tell of.
            FromPod::Pong { seq, asks } if self.lanes.is_last_ping(seq) => self.step(Event::Pong(asks)),
            FromPod::Pong { .. } => {}
            FromPod::Room { .. } | FromPod::Back { .. } | FromPod::Dropped { .. } if !self.features.shares_memory() => {
                self.step(Event::Violation("spoke of regions, which it cannot have".into()));
            }
            FromPod::Room { bytes } => self.make_room(bytes),
            FromPod::Back { regions } => match self.regions.back(&regions) {
                Ok(forget) => self.say_forget(&forget),
                Err(text) => self.step(Event::Violation(text)),
            },
            FromPod::Dropped { regions } => {
                if let Err(text) = self.regions.dropped(&regions) {
                    self.step(Event::Violation(text));
                }
            }
            FromPod::Log { level, message } => self.shared.log.push(&format!("{}: {message}", clip(&level))),
            FromPod::Checkpoint(said) => self.heard_checkpoint(said),
            FromPod::Progress { ask, data } if data.len() > PROGRESS_BYTES_MAX => {
                self.note_progress(ask);
                let bytes = data.len();
                self.shared.log.push(&format!("[a report of progress of {bytes} bytes was not told: at most {PROGRESS_BYTES_MAX} are]"));
                self.step(Event::Partial(ask, Said::Nothing));
            }
            FromPod::Progress { ask, data } => {
                self.note_progress(ask);
                self.step(Event::Partial(ask, Said::Progress(data)));
            }
            FromPod::Chunk { ask, mut payload } => {
                if self.in_flight.ticketed(ask).is_some_and(|ticketed| !ticketed.pending.request.operation.streaming) {
                    return self.step(Event::Violation("sent a chunk for an operation that does not stream".into()));
                }
                if let Err(text) = self.found(&mut payload) {
                    return self.step(Event::Violation(format!("sent a chunk with a blob {text}")));
                }
                if self.features.heeds_credit() && self.in_flight.exceeds_credit(ask, payload.weight()) {
                    return self.step(Event::Violation(format!("sent more chunks of ask {ask} than it was given credit for")));
                }
                self.note_progress(ask);
                self.step(Event::Partial(ask, Said::Chunk(payload)));
            }
            FromPod::Answer { ask, incarnation, mut result, whole_batch } => {
                if incarnation != self.spec.incarnation {
                    let text = format!("answered as incarnation `{}`, it is `{}`", clip(&incarnation), self.spec.incarnation);
                    return self.step(Event::Violation(text));
                }
                if let Some(Err(text)) = result.as_mut().ok().map(|payload| self.found(payload)) {
                    return self.step(Event::Violation(format!("answered with a blob {text}")));
                }
                self.step(Event::Answer(ask, Said::Answer { result, whole_batch }));
            }
        }
    }

    /// Finds the blobs that the pod says are in regions.
    ///
    /// The error says what is wrong with one.
    fn found(&mut self, payload: &mut Payload) -> Result<(), String> {
        for (place, blob) in std::mem::take(&mut payload.regions) {
            if !self.features.shares_memory() {
                return Err("in a region, which it cannot have".to_owned());
            }
            let store = self.regions.take(blob.region, blob.bytes)?;
            payload.blobs.insert(place, Blob::stored(blob.name, blob.media_type, store));
        }
        Ok(())
    }

    /// Whether the pod is confined; no message of it counts before.
    pub(super) fn is_confined(&self) -> bool {
        self.shared.confinement.get().is_some()
    }

    /// Handles the message that the sandbox is complete. The process that becomes the pod sends it before any
    /// line of the pod's own code runs.
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
        if missing.iter().any(|text| text.starts_with(plan::NAMESPACES)) {
            self.process.has_no_root();
        }
        let _ = self.shared.confinement.set(Confinement { class, missing, memory: MemoryBound::Watched });
        self.say_variables();
        if let Some(number) = way_out
            && let Err(error) = self.open_way_out(number)
        {
            let fault = Fault::io(format!("opening the way to the network for `{}`", self.spec.recipe.manifest().name), &error);
            self.step(Event::Failed(fault));
        }
    }

    /// Starts answering the pod's proxy.
    fn open_way_out(&mut self, number: i32) -> std::io::Result<()> {
        let listener = self.process.take_from_keeper(number)?;
        let allowed = self.spec.grants.permissions.network.clone();
        self.sandbox.serve_network(Egress::serve(listener, allowed, self.spec.recipe.manifest().name.to_string())?);
        Ok(())
    }

    /// A forked pod has its process number: it gets its control group and its start message.
    pub(super) fn pid_known(&mut self) {
        self.sandbox.pid_known();
        let Some(pid) = self.process.pod_pid(0) else { return };
        self.shared.pid.store(pid, Ordering::Release);
        self.sandbox.begin_grouping(grouped(&self.spec, pid));
        self.step(Event::Hello);
    }

    fn note_progress(&mut self, ask: AskId) {
        self.in_flight.heard(ask, self.clocks.last_message());
    }

    /// Reads what the pod sent before it ended: an answer in the socket still counts.
    ///
    /// If a chunk before the answer finds no room, the answer stays unread, because a result with a gap is no
    /// result.
    pub(super) fn read_last_words(&mut self) {
        for which in [Which::Data, Which::Control] {
            self.lanes.note_unfinished(which);
            // There is nobody to be told anything.
            self.lanes.give_up();
            // Bounded: something that escaped with a socket may never stop talking.
            for _ in 0..LAST_WORDS_TURNS_MAX {
                if self.lanes.take_unfinished().next().is_none() || self.state == State::Dead {
                    break;
                }
                self.read(which);
                self.flush();
            }
        }
        let torn = self.lanes.is_mid_frame();
        if torn && self.in_flight.count() > 0 && !self.end.is_blamed() {
            self.shared.log.push("[the pod ended in the middle of a frame]");
        }
    }

    pub(super) fn deliver(&mut self, ask: AskId, part: Said) {
        match part {
            Said::Chunk(payload) => {
                if let Some(payload) = self.give(ask, payload) {
                    self.lanes.hold_back(ask, payload);
                }
            }
            // A caller that is behind sees fewer, and holds up nobody.
            Said::Progress(data) => {
                if let Some(ticketed) = self.in_flight.ticketed(ask) {
                    ticketed.pending.request.events.progress(data);
                }
            }
            Said::Nothing | Said::Answer { .. } => {}
        }
    }

    /// Gives a caller the chunk that it had no room for, if it has room now or is gone.
    pub(super) fn give_undelivered(&mut self) {
        let Some((ask, payload)) = self.lanes.take_undelivered() else { return };
        match self.give(ask, payload) {
            Some(payload) => self.lanes.hold_back(ask, payload),
            None => self.resume_reading(),
        }
    }

    /// Gives a caller a chunk, or returns the chunk. Only a pod that ignores its credit can have sent more
    /// than there is room for; then the host stops reading from it.
    fn give(&mut self, ask: AskId, payload: Payload) -> Option<Payload> {
        let weight = payload.weight();
        if self.in_flight.exceeds_credit(ask, weight) {
            return Some(payload);
        }
        self.in_flight.owe(ask, weight);
        if let Some(chunks) = &self.in_flight.ticketed(ask)?.pending.chunks {
            chunks.give(payload, &self.spec.spools);
        }
        self.is_behind |= self.in_flight.is_behind(ask);
        None
    }
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
