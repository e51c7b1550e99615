//! What is known of a recipe in use before anything was made for it.

use std::sync::Arc;

use super::forking::Forkable;
use crate::{
    model::{Grants, Verified},
    shelf::store::lockfile::EnvironmentPin,
};

/// What is known of a recipe before anything was made for it.
#[derive(Clone)]
pub struct Parts {
    pub recipe: Arc<Verified>,
    /// The environment that the lock file names; none for a folder, or a recipe without requirements.
    pub environment: Option<EnvironmentPin>,
    /// What its pods may do. When that changes, the entry is let go of, and its pods with it.
    pub grants: Arc<Grants>,
    /// Whether its pods are forked, and from what.
    pub forkable: Arc<Forkable>,
}
