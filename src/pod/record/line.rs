//! One line that a pod printed, as it is kept and reported.

use crate::model::status::LogLine;
use serde::Deserialize;
use serde::Serialize;

/// One kept line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Line {
    /// The ask in hand when the line came, 0 for none.
    pub ask: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub text: String,
}

impl Line {
    /// The line as it is shown, with the pod that printed it.
    pub fn of(self, recipe: &str, incarnation: &str) -> LogLine {
        let (recipe, incarnation) = (recipe.to_owned(), incarnation.to_owned());
        LogLine { recipe, incarnation, ask: self.ask, at_ms: self.at_ms, text: self.text }
    }
}
