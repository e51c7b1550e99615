//! One recipe in use: its verified bytes, its compiled glue, its pods.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OnceCell, Semaphore};

use super::{
    HostState,
    parts::Parts,
    source::{InSession, Trial, new_pool, trial_pool},
};
use crate::{
    glue::Prepared,
    model::{Code, Fault, Grants, Verified, manifest::spec::PoolSpec, status::ZygoteStatus},
    pod::{Family, Pool},
    shelf::{aside, store::lockfile::EnvironmentPin},
};

/// A recipe that was looked up, with everything made for it so far.
pub struct Entry {
    parts: Parts,
    prepared: OnceCell<Prepared>,
    pool: OnceLock<Pool>,
    /// Allows one long check of this recipe at a time.
    checks: Arc<Semaphore>,
}

impl Entry {
    pub fn new(recipe: Verified, environment: Option<EnvironmentPin>, grants: Grants) -> Entry {
        let parts = Parts { recipe: Arc::new(recipe), environment, grants: Arc::new(grants), forkable: Arc::default() };
        Entry { parts, prepared: OnceCell::new(), pool: OnceLock::new(), checks: Arc::new(Semaphore::new(1)) }
    }

    /// The same recipe with one pod forked from that zygote, to try whether the pod answers.
    pub fn on_trial(host: &Arc<HostState>, parts: &Parts, family: Family) -> Entry {
        Entry::with_pool(parts, new_pool(host, parts, trial_pool(), Trial::Forked(family), None))
    }

    /// The same recipe with one pod that only its host asks, to collect what its libraries keep.
    pub fn that_gives_its_cache(host: &Arc<HostState>, parts: &Parts) -> Entry {
        Entry::with_pool(parts, new_pool(host, parts, trial_pool(), Trial::GivesCache, None))
    }

    fn with_pool(parts: &Parts, pool: Pool) -> Entry {
        Entry { parts: parts.clone(), prepared: OnceCell::new(), pool: OnceLock::from(pool), checks: Arc::new(Semaphore::new(1)) }
    }

    pub fn recipe(&self) -> &Arc<Verified> {
        &self.parts.recipe
    }

    pub fn environment(&self) -> Option<EnvironmentPin> {
        self.parts.environment
    }

    pub fn grants(&self) -> &Grants {
        &self.parts.grants
    }

    /// How its pods are started; `None` for a recipe that preloads nothing, or that was not examined yet.
    pub fn zygote(&self) -> Option<ZygoteStatus> {
        self.parts.forkable.status(&self.parts.recipe)
    }

    /// The compiled glue, read at the first use and kept. An install compiles it beforehand; for a folder, or
    /// if the cache was emptied, another process compiles it now.
    pub async fn prepared(&self, host: &Arc<HostState>) -> Result<Prepared, Fault> {
        self.prepared.get_or_try_init(|| host.prepare_glue(&self.parts.recipe)).await.cloned()
    }

    /// Checks something of this recipe against a schema. A short check runs here. A `long` check runs on a
    /// thread of its own: one at a time for each recipe, and a few for the host. The proven cost of the
    /// schema bounds it, even if the future is dropped.
    pub async fn check<T: Send + 'static>(
        &self,
        host: &HostState,
        long: bool,
        check: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        if !long {
            return check();
        }
        let closed = |_| Fault::new(Code::Internal, "nothing is checked any more");
        // The recipe's permit first: a check that waits for it holds no permit of the host.
        let own = self.checks.clone().acquire_owned().await.map_err(closed)?;
        let all = host.checks.clone().acquire_owned().await.map_err(closed)?;
        aside(move || {
            let _held = (own, all);
            check()
        })
        .await
    }

    /// The recipe's pool; `None` for a recipe that has only glue.
    pub fn pool(&self, host: &Arc<HostState>) -> Option<&Pool> {
        let spec = &self.parts.recipe.manifest().pod.as_ref()?.pool;
        Some(self.pool.get_or_init(|| new_pool(host, &self.parts, spec.clone(), Trial::No, None)))
    }

    /// A separate pool for a session: one pod, for as long as the session keeps it.
    pub fn session_pool(&self, host: &Arc<HostState>, session: InSession) -> Pool {
        let spec = self.parts.recipe.manifest().pod.as_ref().map(|pod| pod.pool.clone());
        let spec = PoolSpec { min: 0, max: 1, idle_timeout_ms: spec.map_or(1, |spec| spec.idle_timeout_ms) };
        new_pool(host, &self.parts, spec, Trial::No, Some(session))
    }

    /// A separate pool for one call: its pod is fresh, and ends with the call.
    pub fn one_shot(&self, host: &Arc<HostState>) -> Option<Pool> {
        let spec = &self.parts.recipe.manifest().pod.as_ref()?.pool;
        Some(new_pool(host, &self.parts, PoolSpec { min: 0, max: 1, ..spec.clone() }, Trial::No, None))
    }
}
