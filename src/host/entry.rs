//! One recipe in use: its verified bytes, its compiled glue, its pod.

use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use super::Inner;
use crate::{
    glue::Prepared,
    model::{Fault, Verified},
    pod::{self, Pod},
    shelf::{blocking, lockfile::EnvironmentPin},
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
    fn pod(&self) -> Option<Pod> {
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
        let (program, environment) = host.program(&self.recipe, self.environment).await?;
        let pod = host.pods.start(&host.home, |folder, incarnation, scratch| pod::Spec {
            recipe: self.recipe.clone(),
            program,
            keeper: host.keeper.clone(),
            scratch: folder.to_owned(),
            incarnation,
            start_timeout_ms: spec.start_timeout_ms,
            // While a pod lives, nobody deletes the environment that it runs in, nor its folder.
            keeps: vec![Box::new(environment), Box::new(scratch)],
        })?;
        *self.pod.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(pod.clone());
        Ok(Some(pod))
    }
}
