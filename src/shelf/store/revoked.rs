//! When a grant was last revoked from a recipe. An install whose operator agreed to permissions before that
//! must not give them.
//!
//! `hob.toml` cannot tell: a grant that is revoked during an install was not in the file yet.

use std::path::PathBuf;

use crate::{
    model::{Digest, Fault, Home, RecipeName, limits},
    shelf::{config::edit::ConfigGuard, durable, files},
};

/// The time of the last revocation for a recipe; two marks are equal if nothing was revoked in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(Option<Vec<u8>>);

fn place(home: &Home, recipe: &RecipeName) -> PathBuf {
    home.locks().join(format!("revoked-{}", Digest::of(recipe.to_string().as_bytes()).short()))
}

/// The mark as of now.
pub fn mark(home: &Home, recipe: &RecipeName) -> Result<Mark, Fault> {
    Ok(Mark(durable::read(&place(home, recipe), limits::REVOKED_MARK_BYTES_MAX)?))
}

/// Records a revocation. Call it before changing `hob.toml`: a crash in between refuses one install too many,
/// and grants nothing.
pub fn note(home: &Home, recipe: &RecipeName, _guard: &ConfigGuard) -> Result<(), Fault> {
    let now = format!("{} {}\n", jiff::Timestamp::now().as_nanosecond(), std::process::id());
    files::replace(&place(home, recipe), now.as_bytes())
}
