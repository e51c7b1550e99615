//! How urgent a call is.

use crate::model::fault::{Code, Fault};
use serde::Deserialize;
use serde::Serialize;

/// The order in which waiting work is served. Lower classes still get their turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Priority {
    /// A person waits for the result.
    Interactive,
    #[default]
    Normal,
    /// Nobody waits for it: indexing, migration, evaluation.
    Bulk,
}

impl Priority {
    /// All classes, in the order in which they are served.
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
