//! One operation of a recipe: its contract, with the schemas compiled once.

use std::fmt;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::{
    document::Document,
    fault::{Code, Fault},
    recipe::Manifest,
};

/// A JSON Schema (draft 2020-12), compiled.
pub struct Schema {
    source: Value,
    validator: Validator,
}

impl Schema {
    /// Compiles `source`. The error is one line, for the manifest reader to place.
    pub fn compile(source: Value) -> Result<Schema, String> {
        // Patterns in time that grows with the text alone. What an engine that goes back and tries again takes, a recipe could make as long as
        // it likes, on every call and in the host; what only such an engine can match (look-around, back-references) is refused here.
        let options = jsonschema::draft202012::options().with_pattern_options(PatternOptions::regex());
        let validator = options.build(&source).map_err(|error| {
            let pointer = error.instance_path().to_string();
            match pointer.is_empty() {
                true => format!("not a JSON Schema: {error}"),
                false => format!("not a JSON Schema at `{pointer}`: {error}"),
            }
        })?;
        Ok(Schema { source, validator })
    }

    /// The schema as written.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Checks `document`; a mismatch is `code` and lists each place as a JSON pointer with what was expected.
    pub fn check(&self, document: &Document, what: &str, code: Code) -> Result<(), Fault> {
        if self.validator.is_valid(document.value()) {
            return Ok(());
        }
        let violations: Vec<Value> = self
            .validator
            .iter_errors(document.value())
            .take(10)
            .map(|error| {
                // Without the instance's own text: it may be megabytes, and it is the caller's already.
                let place = match error.instance_path().to_string() {
                    root if root.is_empty() => "/".to_owned(),
                    pointer => pointer,
                };
                let expected = error.masked().to_string();
                serde_json::json!({ "pointer": place, "expected": expected, "schema": error.schema_path().to_string() })
            })
            .collect();
        let first = &violations[0];
        let more = match violations.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        Err(Fault::new(
            code,
            format!(
                "{what} does not match the schema at `{}`: {}{more}",
                first["pointer"].as_str().unwrap_or("/"),
                first["expected"].as_str().unwrap_or("")
            ),
        )
        .with("violations", violations))
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// What one operation promises.
#[derive(Debug)]
pub struct Operation {
    pub name: String,
    pub summary: String,
    pub input: Schema,
    pub output: Schema,
    /// Whether it may give chunks before its answer. A chunk from an operation that says no is a protocol violation.
    pub streaming: bool,
    /// Budget of one call in milliseconds, unless the caller gives less.
    pub deadline_ms: u64,
    /// Whether running it twice with the same input does no harm: only then is an ask that may have begun sent again after a crash.
    pub idempotent: bool,
    /// An ask that gives neither progress nor a chunk for so long has stalled, in milliseconds; none: only the deadline ends it.
    pub progress_interval_ms: Option<u64>,
    /// Whether it runs in a session and nowhere else.
    pub session: bool,
    /// How asks of several callers go to a pod together.
    pub batch: Option<Batch>,
}

impl Operation {
    /// Whether it may run outside a session.
    ///
    /// Errors: `session_required`.
    pub fn check_is_free(&self, manifest: &Manifest) -> Result<(), Fault> {
        match self.session {
            false => Ok(()),
            true => Err(Fault::new(Code::SessionRequired, format!("`{}` of `{}` runs in a session only", self.name, manifest.name))
                .hint("name one: `hob call ... --session NAME` opens it if it is new")),
        }
    }
}

/// `[operations.<name>.batch]`: what the host may put into one batch. Only idempotent operations have it, because a failing batch is run
/// again in halves until only the item that fails is left.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Most items in one batch.
    pub items: usize,
    /// How long the first item may wait for others while a pod is free, in milliseconds; 0: it never waits.
    pub wait_ms: u64,
    /// Bound on the sum of the items' costs.
    pub cost: Option<BatchCost>,
}

/// What an item of a batch costs, read from its input.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchCost {
    /// JSON pointer into the input: a number counts as itself, a text by its characters, an array by its items; anything else as 1.
    pub of: String,
    /// Most that one batch may cost. An item that costs more goes alone.
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
