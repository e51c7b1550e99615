//! The wasm engine of a host: started with the first recipe that has glue, and what is compiled for it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio_util::task::TaskTracker;

use super::{GlueCompiler, HostState};
use crate::{
    glue::{Glue, Prepared},
    model::{Code, Fault, Home, Verified},
    shelf,
};

/// The engine, and the compilations under way.
pub struct Engine {
    glue: OnceLock<Glue>,
    /// Held while it is started: by one at a time.
    starting: Mutex<()>,
    compiler: GlueCompiler,
    /// Glue that is compiled for a call goes on without the call, and ends with the host.
    compiling: TaskTracker,
}

impl Engine {
    pub fn new(compiler: GlueCompiler) -> Engine {
        Engine { glue: OnceLock::new(), starting: Mutex::default(), compiler, compiling: TaskTracker::new() }
    }

    /// Waits until nothing is compiled any more; the host told what is compiled to end.
    pub async fn shutdown(&self) {
        self.compiling.close();
        self.compiling.wait().await;
    }

    /// The wasm engine. Blocking until it was started once; what the machine lacked for that it may have the
    /// next time.
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
    /// A recipe's glue, linked: read if it was compiled before, else compiled by another process. That goes
    /// on when the future is dropped, as the building of an environment does, so that a call with a short
    /// deadline leaves something to the next one.
    ///
    /// Errors: those of [`Glue::compile`]; `shutting_down`.
    pub(super) async fn prepare_glue(self: &Arc<Self>, recipe: &Arc<Verified>) -> Result<Prepared, Fault> {
        let (host, recipe) = (self.clone(), recipe.clone());
        let compiled = self.engine.compiling.spawn(async move {
            let engines = host.clone();
            shelf::blocking(move || engines.engine.glue(&engines.home).map(drop)).await?;
            tokio::select! {
                prepared = host.engine.glue(&host.home)?.compile(&recipe) => prepared,
                () = host.lifecycle.ended() => Err(Fault::new(Code::ShuttingDown, "the host ended while glue was compiled")),
            }
        });
        compiled.await.map_err(|error| Fault::new(Code::Internal, format!("compiling glue ended early: {error}")))?
    }
}
