//! Counts what calls cost: entries into wasm, frames to a pod.
//!
//! Counts are exact where timings vary, so tests hold the promise of few crossings by these records.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::Serialize;
use tokio::sync::Notify;

use super::HostState;
use crate::{
    glue::pods::Crossings,
    model::{Call, Code, limits::JOURNAL_CALLS_MAX},
};

/// One finished call.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Record {
    pub recipe: String,
    pub operation: String,
    /// Entries into wasm.
    pub wasm_entries: u64,
    /// Host functions that the glue called.
    pub host_calls: u64,
    /// Asks sent to the pod.
    pub frames_sent: u64,
    /// Chunks and answers received from the pod.
    pub frames_received: u64,
    pub wall_ms: f64,
    /// The code of its fault, if it failed.
    pub fault: Option<Code>,
}

impl Record {
    pub(super) fn begin(call: &Call) -> Record {
        Record {
            recipe: call.recipe.to_string(),
            operation: call.operation.clone(),
            wasm_entries: 0,
            host_calls: 0,
            frames_sent: 0,
            frames_received: 0,
            wall_ms: 0.0,
            fault: None,
        }
    }
    pub(super) fn count_glue(&mut self, crossings: &Crossings) {
        self.wasm_entries = crossings.wasm_entries;
        self.host_calls = crossings.host_calls;
    }
    pub(super) fn count_frames(&mut self, (sent, received): (u64, u64)) {
        self.frames_sent = sent;
        self.frames_received = received;
    }
}

/// A running call, for the journal. If it is dropped before its end, it is recorded as cancelled, so that
/// every call has a record.
pub(super) struct Recording {
    host: Arc<HostState>,
    begun: Instant,
    pub record: Record,
    over: bool,
}

impl Recording {
    pub fn begin(host: &Arc<HostState>, call: &Call) -> Recording {
        host.journal.running.fetch_add(1, Ordering::Relaxed);
        Recording { host: host.clone(), begun: Instant::now(), record: Record::begin(call), over: false }
    }

    pub fn end(mut self, fault: Option<Code>) {
        self.record.fault = fault;
        self.over = true;
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.over {
            self.record.fault = Some(Code::Cancelled);
        }
        self.record.wall_ms = self.begun.elapsed().as_secs_f64() * 1e3;
        self.host.journal.push(self.record.clone());
    }
}

/// The latest calls, in memory.
#[derive(Debug, Default)]
pub struct Journal {
    records: Mutex<VecDeque<Record>>,
    running: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    /// Notified when a call is over.
    over: Notify,
}

impl Journal {
    fn push(&self, record: Record) {
        self.running.fetch_sub(1, Ordering::Release);
        self.done.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(record.fault.is_some()), Ordering::Relaxed);
        tracing::debug!(recipe = %record.recipe, operation = %record.operation, wall_ms = record.wall_ms, fault = record.fault.map(Code::name), "call");
        let mut records = self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if records.len() >= JOURNAL_CALLS_MAX {
            records.pop_front();
        }
        records.push_back(record);
        drop(records);
        self.over.notify_waiters();
    }

    /// Returns when no call is running.
    pub async fn quiet(&self) {
        loop {
            let over = self.over.notified();
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            over.await;
        }
    }

    /// Numbers of calls since the host was opened: running, finished, and failed among the finished.
    pub fn counts(&self) -> (u64, u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.running), count(&self.done), count(&self.failed))
    }

    /// The remembered calls, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter().cloned().collect()
    }
}
