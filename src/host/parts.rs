//! The facts about a recipe in use that are known before anything is made for it.

use std::sync::Arc;

use super::forking::Forkable;
use crate::{
    model::{Grants, Verified},
    shelf::store::lockfile::EnvironmentPin,
};

/// The facts about a recipe that are known before anything is made for it.
#[derive(Clone)]
pub struct Parts {
    pub recipe: Arc<Verified>,
    /// The environment that the lock file names; `None` for a folder, or a recipe without requirements.
    pub environment: Option<EnvironmentPin>,
    /// The permissions of its pods. When they change, the entry is dropped, and its pods with it.
    pub grants: Arc<Grants>,
    /// Whether its pods are forked, and from what.
    pub forkable: Arc<Forkable>,
}
