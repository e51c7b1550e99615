//! The context in which a manifest is read: its name in faults, its edition, and the folder of its recipe's
//! files.

use crate::model::{
    edition::Edition,
    fault::{Code, Fault},
};

/// Returns the bytes of a file of the recipe, by its path in the recipe.
pub type Files<'a> = &'a (dyn Fn(&str) -> Result<Vec<u8>, Fault> + Sync);

/// How a manifest is read.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// Names the manifest in faults.
    pub what: &'a str,
    pub edition: Edition,
    /// Returns the files in which its schemas may be. Of one file at most
    /// [`SCHEMA_FILES_BYTES_MAX`](crate::model::limits::SCHEMA_FILES_BYTES_MAX) bytes are taken.
    pub file: Files<'a>,
}

impl<'a> Reading<'a> {
    /// Reads a manifest alone, without its files.
    pub fn alone(what: &'a str) -> Reading<'a> {
        Reading {
            what,
            edition: Edition::Current,
            file: &|_| Err(Fault::new(Code::InvalidRecipe, "there are no files beside this manifest")),
        }
    }
}
