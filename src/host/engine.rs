//! The wasm engine of a host, started with the first recipe that has glue, and its running compilations.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio_util::task::TaskTracker;

use super::{GlueCompiler, HostState};
use crate::{
    glue::{Glue, Prepared},
    model::{Code, Fault, Home, Verified},
    shelf,
};

/// The engine, and the running compilations.
pub struct Engine {
    glue: OnceLock<Glue>,
    /// Held while the engine is started, by one task at a time.
    starting: Mutex<()>,
    compiler: GlueCompiler,
    /// Compilations: one that a call started continues without the call, and ends with the host.
    compiling: TaskTracker,
}

impl Engine {
    pub fn new(compiler: GlueCompiler) -> Engine {
        Engine { glue: OnceLock::new(), starting: Mutex::default(), compiler, compiling: TaskTracker::new() }
    }

    /// Waits until no compilation runs; the host has told them to end.
    pub async fn shutdown(&self) {
        self.compiling.close();
        self.compiling.wait().await;
    }

    /// The wasm engine. Blocking until it was started once. If the start fails for lack of resources, the
    /// next use tries again.
    fn glue(&self, home: &Home) -> Result<&Glue, Fault> {
        let _one = match self.glue.get() {
            Some(glue) => return Ok(glue),
            None => self.starting.lock().unwrap_or_else(PoisonError::into_inner),
        };
        if self.glue.get().is_none() {
            let _ = self.glue.set(Glue::open(&home.compile_cache(), Arc::new(self.compiler.clone()))?);
        }
        self.glue.get().ok_or_else(|| Fault::new(Code::Internal, "the engine of glue is gone"))
    }
}

impl HostState {
    /// A recipe's linked glue: read if it was compiled before, else compiled by another process. Compiling
    /// continues when the future is dropped, as the building of an environment does, so that the next call
    /// profits even if this one's deadline was short.
    ///
    /// Errors: those of [`Glue::compile`]; `shutting_down`.
    pub(super) async fn prepare_glue(self: &Arc<Self>, recipe: &Arc<Verified>) -> Result<Prepared, Fault> {
        let (host, recipe) = (self.clone(), recipe.clone());
        let compiled = self.engine.compiling.spawn(async move {
            let engines = host.clone();
            shelf::blocking(move || engines.engine.glue(&engines.home).map(drop)).await?;
            tokio::select! {
                prepared = host.engine.glue(&host.home)?.compile(&recipe) => prepared,
                () = host.lifecycle.ended() => Err(Fault::ending("host", "compiles no glue")),
            }
        });
        compiled.await.map_err(|error| Fault::new(Code::Internal, format!("compiling glue ended early: {error}")))?
    }
}
