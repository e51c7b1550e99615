//! One recipe in use: its verified bytes, its compiled glue, its pod.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::sync::OnceCell;

use super::Inner;
use crate::{
    glue::Prepared,
    model::{Code, Fault, Verified, recipe::Runtime},
    pod::{self, Pod, Program},
    shelf,
};

/// A recipe that was looked up, with what was made for it so far.
pub struct Entry {
    recipe: Arc<Verified>,
    prepared: OnceCell<Prepared>,
    /// The pod in use. The lock is held only to look.
    pod: Mutex<Option<Pod>>,
    /// Held while a pod is being started, so that two calls start one.
    starting: tokio::sync::Mutex<()>,
}

impl Entry {
    pub fn new(recipe: Verified) -> Entry {
        Entry { recipe: Arc::new(recipe), prepared: OnceCell::new(), pod: Mutex::new(None), starting: tokio::sync::Mutex::new(()) }
    }

    pub fn recipe(&self) -> &Arc<Verified> {
        &self.recipe
    }

    /// The compiled glue; compiled at the first use and kept.
    pub async fn prepared(&self, host: &Arc<Inner>) -> Result<Prepared, Fault> {
        let prepared = self.prepared.get_or_try_init(|| async {
            let (host, recipe) = (host.clone(), self.recipe.clone());
            blocking(move || host.glue.compile(&recipe)).await
        });
        prepared.await.cloned()
    }

    /// The pod in use, if it is alive.
    pub fn pod(&self) -> Option<Pod> {
        self.pod.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone().filter(Pod::is_alive)
    }

    /// The recipe's pod, started if there is none; `None` for a recipe without one.
    ///
    /// It may still be on its way to ready: what is sent to it waits.
    pub async fn start_pod(&self, host: &Arc<Inner>) -> Result<Option<Pod>, Fault> {
        let Some(spec) = &self.recipe.manifest().pod else { return Ok(None) };
        if let Some(pod) = self.pod() {
            return Ok(Some(pod));
        }
        let _starting = self.starting.lock().await;
        if let Some(pod) = self.pod() {
            return Ok(Some(pod));
        }
        let program = self.program(host).await?;
        let incarnation = host.next_incarnation();
        let pod = Pod::spawn(pod::Spec {
            recipe: self.recipe.clone(),
            program,
            keeper: host.keeper.clone(),
            scratch: host.home.scratch().join(&incarnation),
            incarnation,
            start_timeout_ms: spec.start_timeout_ms,
        })?;
        *self.pod.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(pod.clone());
        Ok(Some(pod))
    }

    /// The interpreter and environment of the pod: built now if the shelf does not have it.
    async fn program(&self, host: &Arc<Inner>) -> Result<Program, Fault> {
        let environment = host.environment(&self.recipe).await?;
        Ok(Program { python: environment.python, site_packages: environment.site_packages })
    }
}

/// Where a recipe's Python lies.
pub struct Interpreter {
    pub python: PathBuf,
    pub site_packages: Option<PathBuf>,
}

impl Inner {
    /// Finds the interpreter that a recipe wants, and builds its environment unless it is there.
    ///
    /// Errors: `python_missing`, `uv_missing`, `environment_failed`, `disk_full`.
    pub(super) async fn environment(&self, recipe: &Arc<Verified>) -> Result<Interpreter, Fault> {
        let (range, lock) = match recipe.manifest().pod.as_ref().map(|pod| &pod.runtime) {
            Some(Runtime::Python { python, lock, .. }) => (Some(python), lock.as_ref()),
            // The keeper is a Python program whatever the pod is.
            Some(Runtime::Executable { .. }) | None => (None, None),
        };
        let _ = (range, lock);
        Err(Fault::new(Code::Internal, "wired when the shelf is merged"))
    }
}

/// Runs blocking work off the async threads; a panic there is Hob's own fault, not a hang.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Fault::new(Code::Internal, format!("a background task ended early: {error}"))),
    }
}
