//! Sessions: their declaration in a manifest, their names, and a host's report of one.
//!
//! A session is a pod of its own that is kept by name, with a checkpoint of its state that outlives the pod.

use serde::{Deserialize, Serialize};

use crate::model::{
    fault::{Code, Fault},
    limits::SESSION_NAME_BYTES_MAX,
};

/// `[pod.session]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionSpec {
    pub mode: Mode,
    /// How long its pod is kept without a call, in milliseconds; its state is saved first.
    pub idle_timeout_ms: u64,
    /// How long a session stays open without a call or a touch, in milliseconds.
    pub ttl_ms: u64,
    /// Time between two checkpoints of a session that is called, in milliseconds; 0: only on request.
    pub checkpoint_interval_ms: u64,
    /// Most sessions of the recipe at a time.
    pub max: usize,
}

/// Which calls may enter a session that is running one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// None.
    Exclusive,
    /// Any: calls wait for their turn.
    Shared,
}

/// Checks a session's name.
///
/// Errors: `usage`.
pub fn check_name(name: &str) -> Result<(), Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let good = !name.is_empty() && name.len() <= SESSION_NAME_BYTES_MAX && !name.starts_with('.') && name.chars().all(plain);
    match good {
        true => Ok(()),
        false => Err(Fault::new(
            Code::Usage,
            format!("`{}` is not a session's name", name.chars().take(SESSION_NAME_BYTES_MAX).collect::<String>()),
        )
        .hint(format!("wanted at most {SESSION_NAME_BYTES_MAX} of A-Z, a-z, 0-9, `-`, `_` and `.`, not `.` at first"))),
    }
}

/// The status of one session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionStatus {
    /// `publisher/name`.
    pub recipe: String,
    /// The folder of an unsigned recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    pub name: String,
    pub version: String,
    pub mode: Mode,
    pub state: SessionState,
    /// Running calls.
    pub running: usize,
    /// Time since it was opened, in milliseconds.
    pub age_ms: u64,
    /// Time since its last call or touch, in milliseconds.
    pub idle_ms: u64,
    /// Calls that succeeded.
    pub calls: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointStatus>,
    /// Why the last checkpoint failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_fault: Option<Fault>,
}

/// See [`SessionStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SessionState {
    /// A host has it open: this one, or another.
    Live,
    /// It is only on the disk.
    Parked,
    /// Its record on the disk cannot be read: it is lost, and closing it frees its name.
    Damaged,
}

/// A stored checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CheckpointStatus {
    pub number: u64,
    pub bytes: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Calls that had succeeded by then.
    pub calls: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "box-1_2.x", &"n".repeat(SESSION_NAME_BYTES_MAX)] {
            check_name(good).unwrap();
        }
        for bad in ["", ".hidden", "a/b", "ä", "a b", &"n".repeat(SESSION_NAME_BYTES_MAX + 1)] {
            assert_eq!(check_name(bad).unwrap_err().code, Code::Usage, "{bad}");
        }
    }
}
