//! The services that all pods of a host share: the keeper program, the clerk that lends files, the spools of
//! large results.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::WithinWalls;
use crate::pod::{Clerk, Spools};

/// The services with which every pod is started.
pub struct PodServices {
    /// The unpacked keeper program of pods.
    keeper: PathBuf,
    /// Lends files to pods.
    clerk: Clerk,
    spools: Arc<Spools>,
    /// Layers of the sandbox to treat as unavailable.
    without: Arc<[String]>,
}

impl PodServices {
    pub fn new(keeper: PathBuf, without: Arc<[String]>) -> PodServices {
        PodServices { clerk: Clerk::new(&keeper, &without), keeper, spools: Arc::default(), without }
    }

    pub fn keeper(&self) -> &Path {
        &self.keeper
    }

    pub fn clerk(&self) -> &Clerk {
        &self.clerk
    }

    pub fn spools(&self) -> &Arc<Spools> {
        &self.spools
    }

    pub fn without(&self) -> &Arc<[String]> {
        &self.without
    }

    /// Compiles Python sources in the sandbox that these pods have.
    pub fn compiler(&self) -> WithinWalls {
        WithinWalls { keeper: self.keeper.clone(), without: self.without.clone() }
    }
}
