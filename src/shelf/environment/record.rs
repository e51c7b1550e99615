//! The record of an environment's files, which is kept beside it.

use std::path::PathBuf;

use crate::{
    model::{Digest, Home},
    shelf::files::tree::Tree,
};

/// How environments are made, as the first line of their records and a part of their names says.
/// One that was made in another way is not used.
/// Builds of the first way ran code of the wheels.
pub(super) const WAY: &str = "hob environment 2";

/// Where the record of that environment is.
pub(super) fn record_file(home: &Home, digest: Digest) -> PathBuf {
    home.environments().join(format!("{digest}.tree"))
}

/// What is kept of the files of an environment.
pub(super) fn record_text(tree: &Tree) -> String {
    format!("{WAY}\n{}", tree.text())
}
