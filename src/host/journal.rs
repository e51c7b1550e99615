//! What calls cost, counted: how often wasm was entered, how many frames went to a pod.
//!
//! A count never flakes as a timing does, so the promise of few crossings is tested on these records.

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use serde::Serialize;

use crate::{
    glue::Crossings,
    model::{Call, Code, limits::JOURNAL_CALLS_MAX},
};

/// One call that is over.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    pub recipe: String,
    pub operation: String,
    /// Entries into wasm.
    pub wasm_entries: u64,
    /// Host functions that the glue called.
    pub host_calls: u64,
    /// Asks sent to the pod.
    pub frames_sent: u64,
    /// Chunks and answers received from it.
    pub frames_received: u64,
    pub wall_ms: f64,
    /// How it failed, if it did.
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
    pub(super) fn end(&mut self, wall: Duration, fault: Option<Code>) {
        self.wall_ms = wall.as_secs_f64() * 1e3;
        self.fault = fault;
    }
}

/// The last calls, in memory.
#[derive(Debug, Default)]
pub struct Journal {
    records: Mutex<VecDeque<Record>>,
}

impl Journal {
    pub(super) fn push(&self, record: Record) {
        tracing::debug!(recipe = %record.recipe, operation = %record.operation, wall_ms = record.wall_ms, fault = record.fault.map(Code::name), "call");
        let mut records = self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if records.len() >= JOURNAL_CALLS_MAX {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// The remembered calls, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter().cloned().collect()
    }
}
