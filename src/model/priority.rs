//! How urgent a call is.

use crate::model::fault::{Code, Fault};
use serde::Deserialize;
use serde::Serialize;

/// Who goes first when work waits. Lower classes still get their turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Priority {
    /// Somebody waits at a screen.
    Interactive,
    #[default]
    Normal,
    /// Nobody waits: indexing, migration, evaluation.
    Bulk,
}

impl Priority {
    /// All classes, first served first.
    pub const ALL: [Priority; 3] = [Priority::Interactive, Priority::Normal, Priority::Bulk];

    pub fn name(self) -> &'static str {
        match self {
            Priority::Interactive => "interactive",
            Priority::Normal => "normal",
            Priority::Bulk => "bulk",
        }
    }
}

impl std::str::FromStr for Priority {
    type Err = Fault;

    /// Errors: `usage`.
    fn from_str(text: &str) -> Result<Priority, Fault> {
        Priority::ALL
            .into_iter()
            .find(|priority| priority.name() == text)
            .ok_or_else(|| Fault::new(Code::Usage, format!("`{text}` is not a priority: wanted `interactive`, `normal` or `bulk`")))
    }
}
