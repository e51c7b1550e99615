//! The context in which a manifest is read: its name in faults, its edition, and the folder of its recipe's
//! files.

use crate::model::{
    edition::Edition,
    fault::{Code, Fault},
};

/// Gives the bytes of a file of the recipe, by its path in it.
pub type Files<'a> = &'a (dyn Fn(&str) -> Result<Vec<u8>, Fault> + Sync);

/// How a manifest is read.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// Names the manifest in faults.
    pub what: &'a str,
    pub edition: Edition,
    /// Where the files are that its schemas may be in. At most
    /// [`SCHEMA_FILES_BYTES_MAX`](crate::model::limits::SCHEMA_FILES_BYTES_MAX) are taken of one.
    pub file: Files<'a>,
}

impl<'a> Reading<'a> {
    /// Of a manifest alone, without its files.
    pub fn alone(what: &'a str) -> Reading<'a> {
        Reading {
            what,
            edition: Edition::Current,
            file: &|_| Err(Fault::new(Code::InvalidRecipe, "there are no files beside this manifest")),
        }
    }
}
