//! A pod's models: when they are loaded and released, and what the driver tells the memory budget about it.
//!
//! This belongs to the driver's loop: loading and unloading happen beside the asks, and only between them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{
        Code, Fault, Priority,
        limits::{MEMORY_LOOK_MS, POD_START_DEFAULT_MS},
        status::machine::{Gpu, LeverValue},
    },
    pod::{
        driver::{
            Driver,
            state::{Event, State},
        },
        pool::watcher::{Mailbox, PodShared},
        process::vitals,
        residency::Claim,
        spec::Spec,
        wire::messages::{Control, GpuWire},
    },
};

/// The driver's state of its pod's claim on memory.
pub(super) struct Loading {
    /// `None` if nothing shares out the machine's memory.
    claim: Option<Claim>,
    /// The pod can release its models and stay.
    unloads: bool,
    /// Another pod is to get its memory: it takes no more asks.
    yields: bool,
    /// It has loaded before.
    loaded_before: bool,
    /// Its models are released; whether their memory is free again is not known yet.
    awaits_memory: bool,
    /// Memory was requested because there was work.
    had_work: bool,
    /// Loading has begun and not ended.
    is_loading: bool,
    /// There will never be enough memory for it.
    is_refused: bool,
    /// Asks wait, for other asks to batch with or for room.
    work_waits: bool,
    /// The memory that it held before it loaded, in bytes.
    empty_bytes: u64,
    load_began: Instant,
    /// The rest of its time to start.
    time_left: Option<Duration>,
    /// Its full time to load, for loading again.
    start_timeout: Duration,
    /// How long its models stay loaded without work.
    keep_alive: Option<Duration>,
    keep_until: Option<Instant>,
    gpu: Option<Gpu>,
    memory_looked: Instant,
    /// The value of the out-of-memory fallback with which it was loaded.
    fallback: usize,
}

impl Loading {
    /// Takes the claim out of `spec`; `shared` is notified of the memory.
    pub fn new(spec: &mut Spec, shared: &Arc<PodShared>) -> Loading {
        let claim = spec.claim.take();
        if let Some(claim) = &claim {
            claim.attach(shared);
        }
        let pod = spec.recipe.manifest().pod.as_ref();
        let pinned = spec.session.is_some() || claim.as_ref().is_some_and(Claim::is_pinned);
        let keep_alive = pod.and_then(|pod| pod.residency.keep_alive_ms).filter(|_| !pinned);
        Loading {
            claim,
            unloads: false,
            yields: false,
            loaded_before: false,
            awaits_memory: false,
            had_work: false,
            is_loading: false,
            is_refused: false,
            work_waits: false,
            empty_bytes: 0,
            load_began: Instant::now(),
            time_left: None,
            start_timeout: Duration::from_millis(pod.map_or(POD_START_DEFAULT_MS, |pod| pod.start_timeout_ms)),
            keep_alive: keep_alive.map(Duration::from_millis),
            keep_until: None,
            gpu: None,
            memory_looked: Instant::now(),
            fallback: 0,
        }
    }

    pub fn is_pinned(&self) -> bool {
        self.claim.as_ref().is_some_and(Claim::is_pinned)
    }

    /// Another pod is to get its memory: it takes no more asks.
    pub fn is_yielding(&self) -> bool {
        self.yields
    }

    /// There will never be enough memory for it.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// The pod has said whether it can release its models and stay.
    pub fn set_unloads(&mut self, unloads: bool) {
        self.unloads = unloads;
    }

    /// Whether asks wait, for other asks to batch with or for room.
    pub fn set_work_waits(&mut self, work_waits: bool) {
        self.work_waits = work_waits;
    }

    // Time.

    /// Keeps what is left of the time to start while the pod waits for memory.
    pub fn set_time_left(&mut self, left: Option<Duration>) {
        self.time_left = left;
    }

    /// How long loading may take; waiting for memory does not count.
    pub fn time_to_load(&mut self) -> Duration {
        self.time_left.take().filter(|_| !self.loaded_before).unwrap_or(self.start_timeout)
    }

    /// Until when its models stay loaded without work, if there is such a time.
    pub fn keep_until(&self) -> Option<Instant> {
        self.keep_until
    }

    /// Whether its models stayed loaded without work for as long as they are kept; true once.
    pub fn take_keep_over(&mut self, now: Instant) -> bool {
        self.keep_until.take_if(|at| *at <= now).is_some()
    }

    /// It has no work from now on.
    fn begin_keep(&mut self, now: Instant) {
        self.keep_until = self.keep_alive.map(|keep| now + keep);
    }

    // Loading and releasing.

    /// Memory is granted, on this GPU if it needs one. Returns false if the pod cannot load there: a process
    /// is bound to the first GPU that it used.
    fn granted(&mut self, gpu: &Option<Gpu>, now: Instant) -> bool {
        // By its name: what is in use of it changes.
        let is_same = gpu.as_ref().map(|gpu| &gpu.id) == self.gpu.as_ref().map(|gpu| &gpu.id);
        if self.loaded_before && !is_same {
            return false;
        }
        self.gpu = gpu.clone();
        self.yields = false;
        self.load_began = now;
        if let Some(claim) = &mut self.claim {
            claim.report_loading();
        }
        true
    }

    /// Its models are being loaded from now on, with this value of the out-of-memory fallback.
    fn begin(&mut self, fallback: usize) {
        self.is_loading = true;
        self.fallback = fallback;
    }

    /// Its models are loaded; the process `pid` holds `memory` bytes.
    fn loaded(&mut self, pid: u32, memory: Option<u64>, now: Instant) {
        (self.loaded_before, self.is_loading) = (true, false);
        self.memory_looked = now;
        if let Some(claim) = &mut self.claim {
            claim.report_loaded(pid, memory, now - self.load_began);
        }
        self.begin_keep(now);
    }

    /// Whether the memory that it holds is to be measured again.
    fn looks_at_memory(&mut self, now: Instant) -> bool {
        let looks = self.claim.is_some() && now - self.memory_looked >= Duration::from_millis(MEMORY_LOOK_MS);
        if looks {
            self.memory_looked = now;
        }
        looks
    }

    /// Its memory is free, or is about to be.
    pub fn end(&mut self) {
        self.claim = None;
    }
}

impl Driver {
    /// The pod has started, without models.
    pub(super) fn ask_to_load(&mut self) {
        self.loading.empty_bytes = self.memory().unwrap_or(0);
        self.clocks.begin_idle(Instant::now());
        self.request_memory();
    }

    fn memory(&self) -> Option<u64> {
        vitals::memory_bytes(self.shared.pid.load(Ordering::Acquire))
    }

    /// Requests memory for the waiting work. The first request needs no work: somebody started this pod.
    fn request_memory(&mut self) {
        if self.state != State::Empty || self.loading.awaits_memory {
            return;
        }
        let waits = self.slot.await_memory();
        let Some(claim) = &mut self.loading.claim else { return self.step(Event::MayLoad) };
        // Without work it is only somebody's wish to have one ready, and that for once.
        if waits.is_none() && (self.loading.loaded_before || self.loading.had_work) {
            claim.withdraw();
            // Woken for what somebody else took.
            return self.slot.report_asleep();
        }
        self.loading.had_work |= waits.is_some();
        if let Err(fault) = claim.request(waits) {
            self.loading.is_refused = true;
            self.step(Event::Failed(fault));
        }
    }

    /// Handles a notification about its memory.
    pub(super) fn heed_memory(&mut self, mailbox: &Mailbox) {
        if mailbox.work {
            self.request_memory();
        }
        if let Some(gpu) = &mailbox.memory_grant
            && self.state == State::Empty
        {
            if !self.loading.granted(gpu, Instant::now()) {
                return self.retire();
            }
            self.clocks.end_idle();
            self.step(Event::MayLoad);
        }
        if mailbox.memory_reclaimed {
            self.yield_memory();
        }
        match mailbox.memory_back {
            Some(true) => {
                self.loading.awaits_memory = false;
                if let Some(claim) = &mut self.loading.claim {
                    claim.report_unloaded();
                }
                self.request_memory();
            }
            // The last resort: with its end all comes back.
            Some(false) => {
                tracing::info!(recipe = %self.spec.recipe.manifest().name, "a pod kept the memory of what it unloaded, and goes");
                self.loading.awaits_memory = false;
                self.retire();
            }
            None => {}
        }
    }

    /// The current value of the recipe's out-of-memory fallback; 0 if there is none.
    pub(super) fn fallback(&self) -> usize {
        match self.spec.recipe.manifest().pod.as_ref().is_some_and(|pod| pod.lever.is_some()) {
            true => self.slot.fallback().unwrap_or(0),
            false => 0,
        }
    }

    pub(super) fn fallback_value(&self, at: usize) -> Option<&LeverValue> {
        self.spec.recipe.manifest().pod.as_ref()?.lever.as_ref()?.values.get(at)
    }

    /// The value with which an ask runs: the value at loading, if the fallback is for loading.
    pub(super) fn fallback_for_asks(&self) -> usize {
        if self.fallback_is_for_loading() { self.loading.fallback } else { self.fallback() }
    }

    /// Whether memory ran out while loading, and the next pod should load with less.
    pub(super) fn can_load_less(&self, fault: &Fault) -> bool {
        fault.code == Code::OutOfMemory && self.loading.is_loading && self.fallback_is_for_loading() && self.lower(self.loading.fallback)
    }

    /// The fault of a failed load; if memory ran out and there is a fallback for that, it says that the next
    /// pod tries with less.
    pub(super) fn could_not_load(&self, fault: Fault) -> Fault {
        if !self.can_load_less(&fault) {
            return fault;
        }
        tracing::info!(recipe = %self.spec.recipe.manifest().name, "memory ran out while loading: the lever is lowered");
        loads_less()
    }

    pub(super) fn say_load(&mut self) {
        let gpu = self.loading.gpu.clone();
        let gpu = gpu.as_ref().map(|gpu| GpuWire { id: &gpu.id, kind: gpu.kind });
        self.loading.begin(self.fallback());
        let lever = self.fallback_value(self.loading.fallback).cloned();
        let lever = lever.as_ref();
        match self.loading.loaded_before {
            false => self.say(&Control::Load { lever, gpu }),
            // By then its main thread listens on the data lane.
            true => self.say_on_data(&Control::Load { lever, gpu }),
        }
    }

    /// The models are loaded.
    pub(super) fn loaded(&mut self) {
        let (pid, memory) = (self.shared.pid.load(Ordering::Acquire), self.memory());
        self.loading.loaded(pid, memory, Instant::now());
    }

    /// Reports the best class of the asks in hand and of those that wait for the pod.
    pub(super) fn report_busy(&mut self, class: Option<Priority>) {
        let Some(claim) = &mut self.loading.claim else { return };
        claim.report_work(class);
        if !self.in_flight.is_empty() {
            self.loading.keep_until = None;
        }
    }

    /// The pod has no ask in hand any more.
    pub(super) fn report_idle(&mut self, now: Instant) {
        self.loading.begin_keep(now);
        if self.loading.yields {
            return self.release_memory();
        }
        if self.loading.looks_at_memory(now)
            && let Some(memory) = self.memory()
            && let Some(claim) = &self.loading.claim
        {
            claim.report_memory(memory);
        }
    }

    /// There was no work for as long as its models are kept.
    pub(super) fn not_kept_alive(&mut self) {
        // After what waits it rests again. One that cannot unload, and that `min` keeps, stays.
        if !self.in_flight.is_empty() || self.loading.work_waits || !matches!(self.state, State::Serving(_)) {
            return;
        }
        if self.loading.unloads {
            self.yield_memory();
        } else if self.slot.may_idle_out() {
            self.retire();
        }
    }

    /// The pod takes no more asks; other pods of its recipe serve the waiting ones.
    fn yield_memory(&mut self) {
        if matches!(self.state, State::Serving(_)) {
            self.loading.yields = true;
            // A caller that reads slowly must not keep it from others.
            self.is_behind = true;
            self.slot.report_yielding();
            self.release_memory();
        }
    }

    /// Releases its models if it has no ask in hand: by unloading, or by ending.
    fn release_memory(&mut self) {
        if !matches!(self.state, State::Serving(_)) || !self.in_flight.is_empty() {
            return;
        }
        self.loading.keep_until = None;
        if let Some(claim) = &self.loading.claim {
            claim.report_leaving();
        }
        match self.loading.unloads && self.spec.session.is_none() {
            true => {
                self.slot.report_asleep();
                self.step(Event::Unload);
            }
            false => self.retire(),
        }
    }

    /// The models are released.
    pub(super) fn emptied(&mut self) {
        self.loading.yields = false;
        self.clocks.begin_idle(Instant::now());
        let Some(claim) = &self.loading.claim else { return self.request_memory() };
        self.loading.awaits_memory = true;
        let back = claim.await_memory_back(self.shared.pid.load(Ordering::Acquire), self.loading.empty_bytes);
        let shared = self.shared.clone();
        tokio::spawn(async move { shared.report_memory_back(back.await) });
    }
}

/// The fault of a pod that ends because it could not load: nobody is to blame, the next one loads with less.
pub(super) fn loads_less() -> Fault {
    Fault::new(Code::ShuttingDown, "memory ran out while loading, and the next pod loads with less")
}
