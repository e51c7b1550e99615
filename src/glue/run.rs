//! The state of one run of glue: its handles, its counters, its caps.
//!
//! It is the data of the run's wasm store. Dropping it drops the handles, and with them every ask that is
//! still open. (Only Rust's own drop runs then, not the drop of the WIT, so cancelling must depend on it.)

use crate::glue::{
    caps::limit,
    handles::{Builder, Counted, HeldBlob, OpenAsk},
    small,
};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::BytesMut;

use wasmtime::{
    ResourceLimiter, StoreContextMut, UpdateDeadline,
    component::{Resource, ResourceTable},
};

use crate::{
    glue::{
        pods::{Crossings, Pods},
        ticker::Running,
        world::hob::glue::{blobs::Named, faults},
    },
    model::{Blame, Blob, Code, Fault, Manifest, Operation, events, limits},
};

/// State of one run.
pub struct Run {
    pub table: ResourceTable,
    pub manifest: Arc<Manifest>,
    pub operation: Arc<Operation>,
    pub pods: Arc<dyn Pods>,
    pub events: events::Sender,
    pub crossings: Crossings,
    /// The last lines that the guest logged, for a crash report.
    pub log_tail: VecDeque<String>,
    /// Asks that have not ended.
    pub asks_open: usize,
    /// `None` until the guest uses WASI.
    pub wasi: Option<Box<small::Small>>,
    /// The data from which `wasi` is made; `None` for glue that cannot use WASI.
    pub seed: Option<small::Seed>,
    /// Faults that the guest was given, to recognise one that it passes on.
    given: VecDeque<Fault>,
    running: Running,
    blob_bytes: Arc<AtomicUsize>,
    memory_bytes: usize,
    table_elements: usize,
    ticks_left: u64,
    /// Whether the epoch advanced while the host waited: then the next tick is not the guest's.
    waited: bool,
}

impl Run {
    pub fn new(manifest: Arc<Manifest>, operation: Arc<Operation>, pods: Arc<dyn Pods>, events: events::Sender, running: Running) -> Run {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::GLUE_HANDLES_MAX);
        Run {
            table,
            manifest,
            operation,
            pods,
            events,
            crossings: Crossings::default(),
            log_tail: VecDeque::new(),
            asks_open: 0,
            wasi: None,
            seed: None,
            given: VecDeque::new(),
            running,
            blob_bytes: Arc::default(),
            memory_bytes: 0,
            table_elements: 0,
            ticks_left: limits::GLUE_CPU_MS / limits::GLUE_TICK_MS,
            waited: false,
        }
    }

    /// Counts one call from the guest to the host.
    pub fn enter(&mut self) -> wasmtime::Result<()> {
        self.crossings.host_calls += 1;
        self.within_host_calls()
    }

    /// Whether the guest's calls to the host are within their bound.
    pub fn within_host_calls(&self) -> wasmtime::Result<()> {
        match self.crossings.host_calls <= limits::GLUE_HOST_CALLS_MAX {
            true => Ok(()),
            false => Err(limit(&self.manifest, "host calls", None, limits::GLUE_HOST_CALLS_MAX, "in one call").into()),
        }
    }

    /// Called on every tick that finds the guest running. The epoch also advances during a wait in the host,
    /// which does not count against the guest.
    pub fn tick(mut context: StoreContextMut<Run>) -> wasmtime::Result<UpdateDeadline> {
        let run = context.data_mut();
        run.within_host_calls()?;
        if std::mem::take(&mut run.waited) {
            return Ok(UpdateDeadline::Continue(1));
        }
        match run.ticks_left {
            0 => Err(limit(&run.manifest, "CPU time", None, limits::GLUE_CPU_MS, "ms inside the guest").into()),
            _ => {
                run.ticks_left -= 1;
                // tokio's own yield also gives its timers and sockets a turn; a plain one starves them for 61
                // polls.
                Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
            }
        }
    }

    /// Ticks so far, for [`Run::waited_since`] after a wait.
    pub fn ticks(&self) -> u64 {
        self.running.ticks()
    }

    /// Notes that the host waited since `ticks`: that time is not the guest's.
    pub fn waited_since(&mut self, ticks: u64) {
        self.waited |= self.running.ticks() != ticks;
    }

    /// Gives `fault` to the guest, and remembers it in full: the world's record cannot carry all of it.
    pub fn give(&mut self, fault: Fault) -> faults::Fault {
        let given = faults::Fault {
            code: fault.code.name().to_owned(),
            message: fault.message.clone(),
            hint: fault.hint.as_deref().unwrap_or_default().to_owned(),
            detail: if fault.detail.is_null() { String::new() } else { fault.detail.to_string() },
        };
        if self.given.len() == limits::GLUE_ASKS_MAX {
            self.given.pop_front();
        }
        self.given.push_back(fault);
        given
    }

    /// The fault that the guest was given and now passes on.
    pub fn given(&mut self, code: &str, message: &str) -> Option<Fault> {
        let place = self.given.iter().rposition(|fault| fault.code.name() == code && fault.message == message)?;
        self.given.remove(place)
    }

    /// A handle for a blob of the caller, whose bytes are in memory anyway.
    pub fn lend(&mut self, blob: Blob) -> wasmtime::Result<Named> {
        let name = blob.name.clone();
        Ok(Named { name, blob: self.push(HeldBlob { blob, _counted: None })? })
    }

    /// A handle for a blob that is held for the guest, e.g. from a pod's answer.
    pub fn hold(&mut self, blob: Blob) -> wasmtime::Result<Named> {
        let mut counted = Counted { total: self.blob_bytes.clone(), bytes: 0 };
        // A blob that is stored elsewhere takes none of the host's memory.
        counted.add(blob.in_memory().map_or(0, bytes::Bytes::len), &self.manifest)?;
        let name = blob.name.clone();
        Ok(Named { name, blob: self.push(HeldBlob { blob, _counted: Some(counted) })? })
    }

    /// A blob builder.
    pub fn builder(&mut self, media_type: String) -> wasmtime::Result<Resource<Builder>> {
        let counted = Counted { total: self.blob_bytes.clone(), bytes: 0 };
        self.push(Builder { media_type, bytes: BytesMut::new(), counted })
    }

    /// Appends to a blob builder; the guest handles `Ok(Err(..))`.
    pub fn append(&mut self, builder: &Resource<Builder>, bytes: &[u8]) -> wasmtime::Result<Result<(), faults::Fault>> {
        let target = self.table.get_mut(builder)?;
        let size = target.bytes.len() + bytes.len();
        if size > limits::FRAME_BYTES_MAX {
            let message = format!("a blob of {size} bytes; at most {} are carried", limits::FRAME_BYTES_MAX);
            return Ok(Err(self.give(Fault::new(Code::TooLarge, message).blame(Blame::Recipe))));
        }
        target.counted.add(bytes.len(), &self.manifest)?;
        target.bytes.extend_from_slice(bytes);
        Ok(Ok(()))
    }

    /// The finished blob of a builder.
    pub fn finish(&mut self, builder: Resource<Builder>) -> wasmtime::Result<Resource<HeldBlob>> {
        let Builder { media_type, bytes, counted } = self.table.delete(builder)?;
        let blob = Blob::new("", media_type, bytes.freeze());
        self.push(HeldBlob { blob, _counted: Some(counted) })
    }

    /// Takes blobs from the guest; the inner `Err` if there are too many.
    pub fn take(&mut self, named: Vec<Named>) -> wasmtime::Result<Result<Vec<Blob>, Fault>> {
        let count = named.len();
        let mut blobs = Vec::with_capacity(count.min(limits::BLOBS_MAX));
        for Named { name, blob } in named {
            let HeldBlob { blob, .. } = self.table.delete(blob)?;
            if blobs.len() < limits::BLOBS_MAX {
                blobs.push(blob.named(name));
            }
        }
        if count > limits::BLOBS_MAX {
            let message =
                format!("the glue of `{}` sends {count} blobs at once; at most {} are carried", self.manifest.name, limits::BLOBS_MAX);
            return Ok(Err(Fault::new(Code::TooLarge, message).blame(Blame::Recipe)));
        }
        Ok(Ok(blobs))
    }

    /// Stores an entry and returns its handle.
    pub fn push<T: Send + 'static>(&mut self, entry: T) -> wasmtime::Result<Resource<T>> {
        self.table
            .push(entry)
            .map_err(|_| limit(&self.manifest, "handles", None, limits::GLUE_HANDLES_MAX, "blobs, builders and asks held at once").into())
    }

    /// Closes an ask that the guest dropped, or that ended.
    pub fn close(&mut self, ask: &mut OpenAsk) {
        if ask.0.take().is_some() {
            self.asks_open -= 1;
        }
    }
}

/// Refusing with an error rather than `false` makes growth trap with Hob's message, in every language.
impl ResourceLimiter for Run {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes + desired.saturating_sub(current);
        if total > limits::GLUE_MEMORY_BYTES_MAX {
            return Err(limit(&self.manifest, "memory", total, limits::GLUE_MEMORY_BYTES_MAX, "bytes").into());
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements + desired.saturating_sub(current);
        if total > limits::GLUE_TABLE_ELEMENTS_MAX {
            return Err(limit(&self.manifest, "table elements", total, limits::GLUE_TABLE_ELEMENTS_MAX, "in all tables").into());
        }
        self.table_elements = total;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn instances(&self) -> usize {
        limits::GLUE_CORE_INSTANCES_MAX as usize
    }
    fn tables(&self) -> usize {
        limits::GLUE_TABLES_MAX as usize
    }
    fn memories(&self) -> usize {
        limits::GLUE_MEMORIES_MAX as usize
    }
}
