//! The record of an environment's files, kept beside the environment.

use std::path::PathBuf;

use crate::{
    model::{Digest, Home},
    shelf::files::tree::Tree,
};

/// The way in which environments are made: the first line of their records, and a part of their names. An
/// environment that was made in another way is not used. Builds of the first way ran code of the wheels.
pub(super) const WAY: &str = "hob environment 2";

/// Path of the record of an environment.
pub(super) fn record_file(home: &Home, digest: Digest) -> PathBuf {
    home.environments().join(format!("{digest}.tree"))
}

/// The text of the record of an environment's files.
pub(super) fn record_text(tree: &Tree) -> String {
    format!("{WAY}\n{}", tree.text())
}
