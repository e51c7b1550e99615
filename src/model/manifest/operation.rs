//! One operation of a recipe: its contract, with the schemas compiled once.

use crate::model::hint::{act, hint};
use serde_json::{Value, json};

use crate::model::{
    fault::{Code, Fault},
    id::RecipeName,
    manifest::blobs::BlobSpecs,
    schema::Schema,
};

/// The contract of one operation.
#[derive(Debug)]
pub struct Operation {
    pub name: String,
    pub summary: String,
    pub input: Schema,
    pub output: Schema,
    /// Whether it may give chunks before its answer. A chunk from another operation is a protocol violation.
    pub streaming: bool,
    /// Budget of one call in milliseconds, unless the caller gives less.
    pub deadline_ms: u64,
    /// Whether running it twice with the same input does no harm. Only then is an ask that may have started
    /// sent again after a crash.
    pub idempotent: bool,
    /// An ask without progress or a chunk for this long has stalled, in milliseconds. `None`: only the
    /// deadline ends it.
    pub progress_interval_ms: Option<u64>,
    /// Whether it runs only in a session.
    pub session: bool,
    /// The blobs of its input, and those of its answer.
    pub blobs: [BlobSpecs; 2],
    /// How asks of several callers go to a pod together.
    pub batch: Option<Batch>,
}

/// One side of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Input,
    Output,
}

impl Part {
    pub const ALL: [Part; 2] = [Part::Input, Part::Output];

    /// The key of this side in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Part::Input => "input",
            Part::Output => "output",
        }
    }

    /// The declared blobs of this side.
    pub fn blobs(self, operation: &Operation) -> &BlobSpecs {
        match self {
            Part::Input => &operation.blobs[0],
            Part::Output => &operation.blobs[1],
        }
    }

    /// The schema of this side.
    pub fn of(self, operation: &Operation) -> &Schema {
        match self {
            Part::Input => &operation.input,
            Part::Output => &operation.output,
        }
    }
}

impl Operation {
    /// The contract as JSON, for display. `blobs` is present if any are declared, `batch` if the operation
    /// has one.
    pub fn shown(&self) -> Value {
        let mut shown = json!({
            "name": self.name, "summary": self.summary, "session": self.session, "streaming": self.streaming,
            "deadline_ms": self.deadline_ms, "input": self.input.source(), "output": self.output.source(),
        });
        if let Some(batch) = &self.batch {
            shown["batch"] = json!({ "items": batch.items, "wait_ms": batch.wait_ms });
        }
        if self.blobs.iter().any(BlobSpecs::are_declared) {
            shown["blobs"] = json!({ "in": Part::Input.blobs(self), "out": Part::Output.blobs(self) });
        }
        shown
    }

    /// Checks that the operation may run outside a session.
    ///
    /// Errors: `session_required`.
    pub fn check_is_free(&self, recipe: &RecipeName) -> Result<(), Fault> {
        match self.session {
            false => Ok(()),
            true => Err(Fault::new(Code::SessionRequired, format!("`{}` of `{recipe}` runs in a session only", self.name)).hint(hint![
                "name one by ",
                act::session(),
                ", which opens it if it is new"
            ])),
        }
    }
}

/// `[operations.<name>.batch]`: what the host may put into one batch. Only idempotent operations have it,
/// because a failing batch is run again in halves until only the failing item is left.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Most items in one batch.
    pub items: usize,
    /// How long the first item may wait for others while a pod is free, in milliseconds; with 0 it never
    /// waits.
    pub wait_ms: u64,
    /// Bound on the sum of the items' costs.
    pub cost: Option<BatchCost>,
}

/// The cost of an item in a batch, read from its input.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchCost {
    /// JSON pointer into the input: a number counts as itself, a text as its number of characters, an array
    /// as its number of items; anything else counts as 1.
    pub of: String,
    /// The most that one batch may cost. An item that costs more goes alone.
    pub max: u64,
}

impl BatchCost {
    /// The cost of one input, at least 1.
    pub fn cost(&self, input: &Value) -> u64 {
        let cost = match input.pointer(&self.of) {
            Some(Value::Number(number)) => number.as_f64().map_or(1, |number| number.max(1.0) as u64),
            Some(Value::String(text)) => text.chars().count() as u64,
            Some(Value::Array(items)) => items.len() as u64,
            _ => 1,
        };
        cost.max(1)
    }
}
