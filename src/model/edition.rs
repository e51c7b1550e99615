//! Editions of the manifest: a rule that a newer Hob adds does not break recipes that were installed before.

use serde::{Deserialize, Serialize};

use crate::model::fault::{Code, Fault};

/// The edition in which a manifest is read. `hob.lock` stores that of each recipe, as a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
#[non_exhaustive]
pub enum Edition {
    /// For recipes installed before Hob enforced `format` and `$schema`: neither is enforced, and what would
    /// be refused today is a warning.
    #[default]
    Older,
    /// For recipes that are packed, published, installed, or run from a folder today.
    Current,
}

impl Edition {
    /// Whether this is the first edition, which `hob.lock` does not state.
    pub fn is_older(&self) -> bool {
        *self == Edition::Older
    }
}

impl From<Edition> for u32 {
    fn from(edition: Edition) -> u32 {
        match edition {
            Edition::Older => 1,
            Edition::Current => 2,
        }
    }
}

impl TryFrom<u32> for Edition {
    type Error = Fault;

    fn try_from(number: u32) -> Result<Edition, Fault> {
        match number {
            1 => Ok(Edition::Older),
            2 => Ok(Edition::Current),
            _ => Err(Fault::new(Code::Usage, format!("edition {number}; this Hob knows 1 and 2: update Hob"))),
        }
    }
}
