//! One recipe in use: its verified bytes, its compiled glue, its pod.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::sync::OnceCell;

use super::Inner;
use crate::{
    glue::Prepared,
    model::{Code, Fault, Verified},
    pod::{self, Pod, Program},
    shelf::lockfile::EnvironmentPin,
};

/// A recipe that was looked up, with what was made for it so far.
pub struct Entry {
    recipe: Arc<Verified>,
    /// The environment that the lock file names; none for a folder, or a recipe without requirements.
    environment: Option<EnvironmentPin>,
    prepared: OnceCell<Prepared>,
    /// The pod in use. The lock is held only to look.
    pod: Mutex<Option<Pod>>,
    /// Held while a pod is being started, so that two calls start one.
    starting: tokio::sync::Mutex<()>,
}

impl Entry {
    pub fn new(recipe: Verified, environment: Option<EnvironmentPin>) -> Entry {
        Entry {
            recipe: Arc::new(recipe),
            environment,
            prepared: OnceCell::new(),
            pod: Mutex::new(None),
            starting: tokio::sync::Mutex::new(()),
        }
    }

    pub fn recipe(&self) -> &Arc<Verified> {
        &self.recipe
    }

    pub fn environment(&self) -> Option<EnvironmentPin> {
        self.environment
    }

    /// The compiled glue; compiled at the first use and kept.
    pub async fn prepared(&self, host: &Arc<Inner>) -> Result<Prepared, Fault> {
        let prepared = self.prepared.get_or_try_init(|| async {
            let (host, recipe) = (host.clone(), self.recipe.clone());
            blocking(move || host.glue()?.compile(&recipe)).await
        });
        prepared.await.cloned()
    }

    /// The pod in use, if it is alive.
    pub fn pod(&self) -> Option<Pod> {
        self.last_pod().filter(Pod::is_alive)
    }

    /// The pod in use, or on its way out.
    pub fn last_pod(&self) -> Option<Pod> {
        self.pod.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
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
        let Interpreter { python, site_packages } = host.interpreter(&self.recipe, self.environment).await?;
        let incarnation = host.next_incarnation();
        let pod = Pod::spawn(pod::Spec {
            recipe: self.recipe.clone(),
            program: Program { python, site_packages },
            keeper: host.keeper.clone(),
            scratch: host.home.scratch().join(&incarnation),
            incarnation,
            start_timeout_ms: spec.start_timeout_ms,
        })?;
        *self.pod.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(pod.clone());
        Ok(Some(pod))
    }
}

/// Where a recipe's Python lies.
pub struct Interpreter {
    pub python: PathBuf,
    pub site_packages: Option<PathBuf>,
}

/// Runs blocking work off the async threads; a panic there is Hob's own fault, not a hang.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Fault::new(Code::Internal, format!("a background task ended early: {error}"))),
    }
}
