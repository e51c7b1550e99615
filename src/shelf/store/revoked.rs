//! When something was last taken back from a recipe. An install whose operator agreed to permissions before
//! that must not give them.
//!
//! Apart from `config/grants.rs`, because `hob.toml` cannot tell: what is taken back while it is being
//! installed was not in there yet.

use std::path::PathBuf;

use crate::{
    model::{Digest, Fault, Home, RecipeName, limits},
    shelf::{config::edit::ConfigGuard, durable, files},
};

/// The last time that something was taken back from a recipe; two are equal when nothing was in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(Option<Vec<u8>>);

fn place(home: &Home, recipe: &RecipeName) -> PathBuf {
    home.locks().join(format!("revoked-{}", Digest::of(recipe.to_string().as_bytes()).short()))
}

/// The last time until now.
pub fn mark(home: &Home, recipe: &RecipeName) -> Result<Mark, Fault> {
    Ok(Mark(durable::read(&place(home, recipe), limits::REVOKED_MARK_BYTES_MAX)?))
}

/// Now something is taken back. Before the change of `hob.toml`: a crash in between refuses one install too
/// many, and gives nothing.
pub fn note(home: &Home, recipe: &RecipeName, _guard: &ConfigGuard) -> Result<(), Fault> {
    let now = format!("{} {}\n", jiff::Timestamp::now().as_nanosecond(), std::process::id());
    files::replace(&place(home, recipe), now.as_bytes())
}
