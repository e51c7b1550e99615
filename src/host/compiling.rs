//! Compiles the Python sources of new environments for the shelf, in the sandbox that pods have.

use std::{path::Path, path::PathBuf, sync::Arc};

use crate::{
    model::{Code, Fault, Home, limits::BYTECODE_MS},
    pod::{
        self,
        compiling::{Compiled, Sources, compile},
    },
    shelf::environment::compiler::{Compiler, Compiling},
};

/// A compiler that is confined as pods are; it can write only to the folder of the environment's packages.
#[derive(Debug, Clone)]
pub struct WithinWalls {
    pub(super) keeper: PathBuf,
    /// Layers of the sandbox to treat as unavailable: if one is missing, nothing is compiled.
    pub(super) without: Arc<[String]>,
}

impl WithinWalls {
    /// With the runner of that home, which is unpacked there if it is missing. Blocking.
    ///
    /// Errors: `io`, `disk_full`.
    pub fn of(home: &Home, without: Arc<[String]>) -> Result<WithinWalls, Fault> {
        Ok(WithinWalls { keeper: runner_of(home)?, without })
    }
}

/// The runner of a home, which is unpacked there if it is missing. If this user may not write to the
/// installed tools (as after an update of Hob, in a home that belongs to root), the runner goes into the
/// user's own cache. Blocking.
///
/// Errors: `io`, `disk_full`.
pub(super) fn runner_of(home: &Home) -> Result<PathBuf, Fault> {
    match pod::unpack_runner(&home.tools()) {
        Err(fault) if fault.code == Code::Io => pod::unpack_runner(&home.own_tools()).map_err(|_| fault),
        unpacked => unpacked,
    }
}

impl Compiler for WithinWalls {
    fn compile<'a>(&'a self, interpreter: &'a Path, packages: &'a Path, scratch: &'a Path) -> Compiling<'a> {
        Box::pin(async move {
            let sources = Sources { interpreter, packages, scratch, keeper: &self.keeper, without: &self.without, limit_ms: BYTECODE_MS };
            Ok(match compile(&sources).await? {
                Compiled::Done => None,
                Compiled::Unconfined(why) => Some(format!("nothing is compiled outside of a sandbox, which cannot be had here: {why}")),
                Compiled::Failed(why) => Some(why),
            })
        })
    }
}
