//! The interface by which slow steps (downloads, environment builds, compiling) report to a door what they
//! do.

use std::sync::Arc;

/// An event of a slow operation. `label` is for people; `total` and `done` are in bytes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// A step begins, e.g. `building environment for hob/echo`.
    Started { label: String, total_bytes: Option<u64> },
    /// That many more bytes of the step are done.
    Advanced { label: String, done_bytes: u64 },
    /// The step has ended.
    Finished { label: String },
    /// Something worth a line, outside any step.
    Note { text: String },
}

/// Receives [`Step`]s. Doors implement it; layers below only call it.
pub trait Progress: Send + Sync {
    fn step(&self, step: Step);
}

/// Drops every step.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _step: Step) {}
}

/// Shared progress receiver.
pub type Shared = Arc<dyn Progress>;
