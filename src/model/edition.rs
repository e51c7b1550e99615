//! Editions of the manifest: a rule that a newer Hob adds does not break recipes that were installed before.

use serde::{Deserialize, Serialize};

use crate::model::fault::{Code, Fault};

/// How a manifest is read. `hob.lock` keeps that of each recipe, as a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
#[non_exhaustive]
pub enum Edition {
    /// Of a recipe that was installed before `format` and `$schema` meant anything: neither is held, and what
    /// would be refused today is a warning.
    #[default]
    Older,
    /// What is packed, published, installed and run from a folder today.
    Current,
}

impl Edition {
    /// Whether it is the first: `hob.lock` says nothing of it.
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
