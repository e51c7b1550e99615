//! What a driver says to its pod.
//!
//! Apart from `driver.rs`, which decides nothing about bytes: here messages become frames, and frames bytes on the sockets.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use tokio::time::Instant;

use super::{
    driver::Driver,
    frame,
    handle::Reply,
    process,
    state::{AskId, Event},
    wire::{self, Control, PROTOCOL},
};
use crate::model::{
    Code, Fault,
    limits::{CHECKPOINT_BYTES_MAX, CHECKPOINT_PIECE_BYTES_MAX, FRAME_BYTES_MAX},
    recipe::Runtime,
};

impl Driver {
    pub(super) fn say(&mut self, message: &Control) {
        frame::encode(self.control.out(), 0, &wire::control(message), std::iter::empty());
    }

    pub(super) fn say_load(&mut self) {
        self.say(&Control::Load);
    }
    pub(super) fn say_ping(&mut self) {
        self.pings += 1;
        self.say(&Control::Ping { seq: self.pings });
    }
    pub(super) fn say_cancel(&mut self, ask: AskId) {
        self.say(&Control::Cancel { ask });
    }
    pub(super) fn say_drain(&mut self) {
        self.say(&Control::Drain);
    }
    pub(super) fn say_exit(&mut self) {
        self.say(&Control::Exit);
    }

    pub(super) fn send_start(&mut self) {
        let manifest = self.spec.recipe.manifest().clone();
        let version = manifest.version.to_string();
        let name = manifest.name.to_string();
        let digest = self.spec.recipe.digest().hex();
        let folder = self.spec.recipe.folder().display().to_string();
        let scratch = self.process.scratch(&self.spec).display().to_string();
        let site_packages = self.spec.program.site_packages.as_ref().map(|path| path.display().to_string());
        let models: Vec<(String, String)> =
            self.spec.recipe.models().iter().map(|model| (model.name.clone(), model.path.display().to_string())).collect();
        let entry = match manifest.pod.as_ref().map(|pod| &pod.runtime) {
            Some(Runtime::Python { entry, .. } | Runtime::Executable { entry }) => entry.as_str(),
            None => "",
        };
        let operations: BTreeMap<_, _> = manifest
            .operations()
            .map(|operation| {
                (operation.name.as_str(), wire::OperationWire { streaming: operation.streaming, batch: operation.batch.is_some() })
            })
            .collect();
        let session = self.spec.session.as_ref().map(|session| wire::SessionWire {
            name: &session.name,
            piece_bytes_max: CHECKPOINT_PIECE_BYTES_MAX,
            checkpoint_bytes_max: CHECKPOINT_BYTES_MAX,
            restore: session.restore.as_ref().map(|restore| wire::RestoreWire {
                number: restore.number,
                bytes: restore.bytes,
                json: restore.json,
            }),
        });
        let start = Control::Start(Box::new(wire::Start {
            protocol: PROTOCOL,
            incarnation: &self.spec.incarnation,
            frame_bytes_max: FRAME_BYTES_MAX,
            recipe: &name,
            version: &version,
            digest: &digest,
            folder: &folder,
            entry,
            site_packages: site_packages.as_deref(),
            scratch: &scratch,
            models: models.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect(),
            concurrency: self.rules.concurrency as u32,
            warm_up: manifest.pod.as_ref().and_then(|pod| pod.warm_up.as_deref()),
            operations,
            session,
        }));
        let start = wire::control(&start);
        if self.data.is_none() && self.spec.session.as_ref().is_some_and(|session| session.restore.is_some()) {
            return self.step(Event::Violation("cannot take the checkpoint that it is to begin with: it has no `fds`".into()));
        }
        frame::encode(self.control.out(), 0, &start, std::iter::empty());
        // The data lane travels with the first byte of this message.
        self.start_descriptor = self.data.is_some();
    }

    /// Sends the asks of a unit as one frame. What cannot be sent is answered here: for the pod it never was.
    pub(super) fn send_unit(&mut self, first: AskId) {
        let Some(asks) = self.running.get(&first).map(|running| running.asks) else { return };
        match self.encoded(first, asks) {
            Ok(()) => {
                self.shared.asks.fetch_add(asks as u64, Ordering::Relaxed);
                // Lines belong to the eldest ask: it is what runs, unless the pod runs several at a time.
                if self.running.len() == 1 {
                    self.shared.log.attribute_to(first);
                }
            }
            Err(fault) => {
                for ask in first..first + asks as u64 {
                    match asks {
                        // The pod has no part in it.
                        1 => self.finish(ask, Reply::Fault(fault.clone())),
                        // Together they are too much: they go in halves.
                        _ => self.last = Some((Err(fault.clone()), true)),
                    }
                    self.step(Event::Answer(ask));
                }
                self.last = None;
            }
        }
    }

    fn encoded(&mut self, first: AskId, asks: usize) -> Result<(), Fault> {
        let now = Instant::now();
        let asked = self.hands.range(first..first + asks as u64);
        let asked: Vec<_> = asked.filter_map(|(ask, hand)| Some((*ask, &hand.placed.as_ref()?.pending.request))).collect();
        let Some((_, request)) = asked.first() else { return Ok(()) };
        let left = |deadline: Instant| deadline.saturating_duration_since(now).as_millis() as u64;
        let digest = self.spec.recipe.digest().hex();
        let (incarnation, operation) = (&self.spec.incarnation, &request.operation);
        let json = match operation.batch {
            None => wire::ask(incarnation, &digest, &operation.name, &request.input, left(request.deadline), &request.blobs)?,
            Some(_) => {
                let items =
                    asked.iter().map(|(ask, request)| wire::Item { ask: *ask, left_ms: left(request.deadline), input: &request.input });
                let items: Vec<_> = items.collect();
                wire::batch(incarnation, &digest, &operation.name, &items)?
            }
        };
        let blobs = request.blobs.iter().map(|blob| &blob.bytes[..]);
        let bytes = json.len() + blobs.clone().map(<[u8]>::len).sum::<usize>();
        if bytes > FRAME_BYTES_MAX {
            let text = format!("the ask is {bytes} bytes with its blobs; at most {FRAME_BYTES_MAX} are carried");
            return Err(Fault::new(Code::TooLarge, text).hint("send less at once"));
        }
        frame::encode(self.data.as_mut().unwrap_or(&mut self.control).out(), first, &json, blobs);
        Ok(())
    }

    /// Writes what the sockets take now.
    pub(super) fn flush(&mut self) {
        if self.start_descriptor && self.control.has_output() {
            let Some(descriptor) = self.process.data_theirs.take() else { return };
            let bytes = self.control.out().split().freeze();
            let restored = self.restored_file();
            let descriptors: Vec<_> = std::iter::once(&descriptor).chain(&restored).collect();
            match process::send_with_descriptors(self.control.stream(), &bytes, &descriptors) {
                Ok(count) => {
                    self.start_descriptor = false;
                    self.control.out().extend_from_slice(&bytes[count..]);
                }
                Err(error) => {
                    self.control.out().extend_from_slice(&bytes);
                    // A full socket: the next round tries again. Anything else shows as a closed lane.
                    match error.kind() {
                        std::io::ErrorKind::WouldBlock => self.process.data_theirs = Some(descriptor),
                        _ => self.start_descriptor = false,
                    }
                    return;
                }
            }
        }
        self.control.flush();
        if let Some(data) = &mut self.data {
            data.flush();
        }
    }
}
