//! Sends messages to the pod: messages become frames, and frames become bytes on the sockets.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    disk::threads::certainly,
    model::{
        Code, Fault,
        limits::{
            BLOB_FRAME_BYTES_MAX, CHECKPOINT_BYTES_MAX, CHECKPOINT_PIECE_BYTES_MAX, CHUNK_CREDIT, FRAME_BYTES_MAX, LANE_WAITING_BYTES_MAX,
            LANE_WAITING_DESCRIPTORS_MAX, LANE_WAITING_MS, POD_CACHE_BYTES_MAX, POD_CACHE_FILES_MAX,
        },
        manifest::{operation::Part, spec::Runtime},
    },
    pod::{
        driver::{
            Driver,
            in_flight::Said,
            regions::{BlobPlan, Copying, New},
            state::{AskId, Event},
        },
        pool::ask::Reply,
        sandbox::{plan, variables},
        spec::Cache,
        wire::{
            frame,
            messages::{self, Control, PROTOCOL},
        },
    },
};

impl Driver {
    pub(super) fn say(&mut self, message: &Control) {
        frame::encode(self.lanes.control().out(), 0, &messages::control(message), std::iter::empty());
    }

    pub(super) fn say_ping(&mut self) {
        let seq = self.lanes.next_ping();
        self.say(&Control::Ping { seq });
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

    pub(super) fn say_variables(&mut self) {
        let variables = variables::of_pod(&self.spec, self.process.scratch(&self.spec), self.process.has_root());
        let message = messages::control(&Control::Variables { variables: variables.into_iter().collect() });
        frame::encode(self.lanes.control().out(), 0, &message, std::iter::empty());
    }

    pub(super) fn send_start(&mut self) {
        let manifest = self.spec.recipe.manifest().clone();
        let version = manifest.version.to_string();
        let name = manifest.name.to_string();
        let digest = self.spec.recipe.digest().hex();
        let folder = match self.process.has_root() {
            true => self.spec.recipe.folder(),
            false => plan::folder_without_root(&self.spec.recipe, &self.spec.grants.permissions),
        };
        let folder = folder.display().to_string();
        let scratch = self.process.scratch(&self.spec).display().to_string();
        let site_packages = self.spec.program.site_packages.as_ref().map(|path| path.display().to_string());
        let python = self.spec.program.python.display().to_string();
        let models: Vec<(String, String)> =
            self.spec.recipe.models().iter().map(|model| (model.name.clone(), model.path.display().to_string())).collect();
        let models_folder = self.spec.recipe.models_folder().map(|path| path.display().to_string());
        let entry = match manifest.pod.as_ref().map(|pod| &pod.runtime) {
            Some(Runtime::Python { entry, .. } | Runtime::Executable { entry }) => entry.as_str(),
            None => "",
        };
        let operations: BTreeMap<_, _> = manifest
            .operations()
            .map(|operation| {
                let blobs = Part::Input.blobs(operation).declared().next().is_some();
                let wire = messages::OperationWire { streaming: operation.streaming, batch: operation.batch.is_some(), blobs };
                (operation.name.as_str(), wire)
            })
            .collect();
        let session = self.spec.session.as_ref().map(|session| messages::SessionWire {
            name: &session.name,
            piece_bytes_max: CHECKPOINT_PIECE_BYTES_MAX,
            checkpoint_bytes_max: CHECKPOINT_BYTES_MAX,
            restore: session.restore.as_ref().map(|restore| messages::RestoreWire {
                number: restore.number,
                bytes: restore.bytes,
                json: restore.json,
            }),
        });
        let cache = match &self.spec.cache {
            Cache::Unused => None,
            cache => Some(messages::CacheWire {
                from: match cache {
                    Cache::From(folder) => folder.to_str(),
                    _ => None,
                },
                tells: *cache == Cache::Told,
                gives: *cache == Cache::Given,
                bytes_max: POD_CACHE_BYTES_MAX,
                files_max: POD_CACHE_FILES_MAX,
            }),
        };
        let start = Control::Start(Box::new(messages::Start {
            protocol: PROTOCOL,
            incarnation: &self.spec.incarnation,
            bounds: messages::BoundsWire {
                frame_bytes_max: FRAME_BYTES_MAX,
                blob_frame_bytes_max: BLOB_FRAME_BYTES_MAX,
                chunk_credit: CHUNK_CREDIT,
            },
            recipe: messages::RecipeWire { name: &name, version: &version, digest: &digest, folder: &folder, entry },
            paths: messages::PathsWire {
                site_packages: site_packages.as_deref(),
                python: &python,
                scratch: &scratch,
                models: models.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect(),
                models_folder: models_folder.as_deref(),
            },
            concurrency: self.rules.concurrency() as u32,
            warm_up: manifest.pod.as_ref().and_then(|pod| pod.warm_up.as_deref()),
            operations,
            glue: manifest.glue.is_some(),
            session,
            cache,
        }));
        let start = messages::control(&start);
        if self.lanes.is_sharing_socket() && self.spec.session.as_ref().is_some_and(|session| session.restore.is_some()) {
            return self.step(Event::Violation("cannot take the checkpoint that it is to begin with: it has no `fds`".into()));
        }
        // The data lane travels with the first byte of this message.
        if let Some(descriptor) = self.process.data_theirs.take() {
            self.lanes.control().attach(descriptor);
            if let Some(restored) = self.restored_file() {
                self.lanes.control().attach(restored);
            }
        }
        frame::encode(self.lanes.control().out(), 0, &start, std::iter::empty());
    }

    /// Sends the asks of a unit as one frame, once its blobs are where the pod finds them. An ask that cannot
    /// be sent is answered here; the pod never hears of it.
    pub(super) fn send_unit(&mut self, first: AskId) {
        match self.plan_blobs(first) {
            Ok(mut plan) => {
                let copies = plan.take_copies();
                // Gigabytes are not copied on the loop that looks after the pod.
                let copying = (!copies.is_empty()).then(|| certainly(move || Copying::run_all(copies)));
                self.in_flight.queue(first, plan, copying);
                self.send_outgoing();
            }
            Err(fault) => self.unsent(first, fault),
        }
    }

    /// Sends the units that no longer wait for anything, in order: a pod begins asks in the order of their
    /// numbers.
    fn send_outgoing(&mut self) {
        while let Some((first, plan)) = self.in_flight.next_to_send() {
            self.send_now(first, plan);
        }
    }

    /// The blobs of the first waiting unit are in place, or cannot be put there.
    pub(super) fn copied(&mut self, result: Result<Vec<New>, Fault>) {
        if let Some((first, plan, fault)) = self.in_flight.end_copying(result) {
            self.regions.undo(&plan);
            self.unsent(first, fault);
        }
        self.send_outgoing();
    }

    fn send_now(&mut self, first: AskId, plan: BlobPlan) {
        let Some(asks) = self.in_flight.asks_of(first) else { return };
        if self.in_flight.requests(first).next().is_none() {
            // Everybody left while it was got ready.
            self.regions.undo(&plan);
            return asks.for_each(|ask| self.step(Event::Answer(ask, Said::Nothing)));
        }
        match self.encoded(first, plan.regions()) {
            Ok((json, blobs)) => {
                plan.into_new().into_iter().for_each(|new| self.say_region(new, false));
                let blobs = blobs.iter().map(|bytes| &bytes[..]);
                self.lanes.for_asks().put_ask(|out| frame::encode(out, first, &json, blobs));
                self.shared.asks.fetch_add(asks.end - asks.start, Ordering::Relaxed);
                self.attribute_lines();
            }
            Err(fault) => {
                self.regions.undo(&plan);
                self.unsent(first, fault);
            }
        }
    }

    /// Ends the asks of an unsent unit with `fault`; the pod is not involved.
    fn unsent(&mut self, first: AskId, fault: Fault) {
        let Some(asks) = self.in_flight.asks_of(first) else { return };
        let is_batch = self.in_flight.is_batch(first);
        for ask in asks {
            let answer = match is_batch {
                false => {
                    self.reply(ask, Reply::Fault(fault.clone()));
                    Said::Nothing
                }
                // Together they are too much: they go in halves.
                true => Said::Answer { result: Err(fault.clone()), whole_batch: true },
            };
            self.step(Event::Answer(ask, answer));
        }
    }

    /// Plans the blobs of a unit: they go into regions if they are large and the pod supports regions.
    fn plan_blobs(&mut self, first: AskId) -> Result<BlobPlan, Fault> {
        let request = self.in_flight.ticketed(first).map(|ticketed| &ticketed.pending.request);
        match request {
            Some(request) if self.features.shares_memory() && !request.blobs.is_empty() => self.regions.plan(&request.blobs),
            _ => Ok(BlobPlan::default()),
        }
    }

    /// The JSON of a unit, and the blobs that go in its frame.
    fn encoded(&self, first: AskId, regions: &[Option<u64>]) -> Result<(Vec<u8>, Vec<Bytes>), Fault> {
        let now = Instant::now();
        let asked: Vec<_> = self.in_flight.requests(first).collect();
        let Some((_, request)) = asked.first() else { return Err(Fault::new(Code::Internal, "nobody waits for what is sent")) };
        let left = |deadline: Instant| deadline.saturating_duration_since(now).as_millis() as u64;
        let digest = self.spec.recipe.digest().hex();
        let lever = self.fallback_value(self.in_flight.fallback_of(first).unwrap_or(0));
        let (incarnation, operation) = (&self.spec.incarnation, &request.operation);
        let blobs = request.blobs.iter().zip(regions.iter().copied().chain(std::iter::repeat(None)));
        let in_frame: u64 = blobs.clone().filter(|(_, region)| region.is_none()).map(|(blob, _)| blob.size()).sum();
        let json = match operation.batch {
            None => messages::ask(incarnation, &digest, &operation.name, &request.input, left(request.deadline), lever, blobs.clone()),
            Some(_) => {
                let items =
                    asked.iter().map(|(ask, request)| messages::Item { ask: *ask, left_ms: left(request.deadline), input: &request.input });
                let items: Vec<_> = items.collect();
                messages::batch(incarnation, &digest, &operation.name, lever, &items)
            }
        };
        let bytes = json.len() as u64 + in_frame;
        if bytes > FRAME_BYTES_MAX as u64 {
            let text = format!("the ask is {bytes} bytes with its blobs; at most {FRAME_BYTES_MAX} are carried");
            return Err(Fault::new(Code::TooLarge, text).hint("send less at once"));
        }
        let blobs = blobs.filter(|(_, region)| region.is_none()).map(|(blob, _)| blob.bytes(FRAME_BYTES_MAX as u64));
        Ok((json, blobs.collect::<Result<_, _>>()?))
    }

    fn say_region(&mut self, new: New, write: bool) {
        let (message, descriptor) = new.into_message(write);
        self.lanes.control().attach(descriptor);
        self.say(&message);
    }

    /// The pod wants room for a result.
    pub(super) fn make_room(&mut self, bytes: u64) {
        match self.regions.room(bytes) {
            Ok(new) => self.say_region(new, true),
            Err(fault) => self.say(&Control::NoRoom { why: &fault.message }),
        }
    }

    pub(super) fn say_forget(&mut self, regions: &[u64]) {
        regions.iter().for_each(|region| self.say(&Control::Forget { region: *region }));
    }

    /// Nobody holds that result any more.
    pub(super) fn region_freed(&mut self, region: u64) {
        match self.regions.freed(region) {
            true => self.say(&Control::Free { region }),
            false => self.say(&Control::Forget { region }),
        }
    }

    /// Tells the pod how much of an ask's output was taken.
    pub(super) fn say_credit(&mut self, ask: AskId, chunks: u32) {
        if !self.in_flight.pay(ask, chunks) {
            return;
        }
        if self.features.heeds_credit() {
            self.say(&Control::Credit { ask, chunks });
        }
        self.give_undelivered();
    }

    /// Writes as much as the sockets accept now.
    pub(super) fn flush(&mut self) {
        let asks_waited = self.lanes.asks_wait();
        self.lanes.flush();
        self.wants_work |= asks_waited && !self.lanes.asks_wait();
        if let Some(error) = self.lanes.take_refused() {
            let name = &self.spec.recipe.manifest().name;
            let fault = Fault::io(format!("this machine did not let the host send to a pod of `{name}`, which was ended"), &error);
            self.step(Event::Excess(fault));
        }
        if self.lanes.watch_backlog(Instant::now()) {
            self.resume_reading();
        }
    }

    /// Ends a pod that has left too much unread for too long.
    pub(super) fn is_deaf(&mut self) {
        let (bytes, descriptors) = self.lanes.waiting();
        let text = format!(
            "left {bytes} bytes and {descriptors} descriptors unread for {LANE_WAITING_MS} ms, while it went on to ask for more; at most \
             {LANE_WAITING_BYTES_MAX} bytes and {LANE_WAITING_DESCRIPTORS_MAX} descriptors may wait"
        );
        self.step(Event::Violation(text));
    }
}
