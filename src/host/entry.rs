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

/// A recipe that was looked up, with what was made for it so far.
pub struct Entry {
    parts: Parts,
    prepared: OnceCell<Prepared>,
    pool: OnceLock<Pool>,
    /// Its one long check at a time.
    checks: Arc<Semaphore>,
}

impl Entry {
    pub fn new(recipe: Verified, environment: Option<EnvironmentPin>, grants: Grants) -> Entry {
        let parts = Parts { recipe: Arc::new(recipe), environment, grants: Arc::new(grants), forkable: Arc::default() };
        Entry { parts, prepared: OnceCell::new(), pool: OnceLock::new(), checks: Arc::new(Semaphore::new(1)) }
    }

    /// The same recipe with one pod that is forked from that zygote: to see whether it answers.
    pub fn on_trial(host: &Arc<HostState>, parts: &Parts, family: Family) -> Entry {
        Entry::with_pool(parts, new_pool(host, parts, trial_pool(), Trial::Forked(family), None))
    }

    /// The same recipe with one pod that nobody but its host asks for anything, for what its libraries keep.
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

    /// How its pods come to be; none for a recipe that preloads nothing, or was not asked yet.
    pub fn zygote(&self) -> Option<ZygoteStatus> {
        self.parts.forkable.status(&self.parts.recipe)
    }

    /// The compiled glue, read at the first use and kept. An install had it compiled; of a folder, or where
    /// the cache was emptied, another process compiles it now.
    pub async fn prepared(&self, host: &Arc<HostState>) -> Result<Prepared, Fault> {
        self.prepared.get_or_try_init(|| host.prepare_glue(&self.parts.recipe)).await.cloned()
    }

    /// Checks something of this recipe's against a schema: a short check here, a `long` one on a thread where
    /// nobody else waits, one of a recipe and few of a host at a time. It ends by the cost that was proved of
    /// the schema, also when the future is dropped.
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
        // The recipe's first: who waits for that one has nothing of the host's.
        let own = self.checks.clone().acquire_owned().await.map_err(closed)?;
        let all = host.checks.clone().acquire_owned().await.map_err(closed)?;
        aside(move || {
            let _held = (own, all);
            check()
        })
        .await
    }

    /// The recipe's pods; none for a recipe that is glue alone.
    pub fn pool(&self, host: &Arc<HostState>) -> Option<&Pool> {
        let spec = &self.parts.recipe.manifest().pod.as_ref()?.pool;
        Some(self.pool.get_or_init(|| new_pool(host, &self.parts, spec.clone(), Trial::No, None)))
    }

    /// A pool of its own for a session: one pod, for as long as the session keeps it.
    pub fn session_pool(&self, host: &Arc<HostState>, session: InSession) -> Pool {
        let spec = self.parts.recipe.manifest().pod.as_ref().map(|pod| pod.pool.clone());
        let spec = PoolSpec { min: 0, max: 1, idle_timeout_ms: spec.map_or(1, |spec| spec.idle_timeout_ms) };
        new_pool(host, &self.parts, spec, Trial::No, Some(session))
    }

    /// A pool of its own for one call: its pod is fresh, and goes when the call is over.
    pub fn one_shot(&self, host: &Arc<HostState>) -> Option<Pool> {
        let spec = &self.parts.recipe.manifest().pod.as_ref()?.pool;
        Some(new_pool(host, &self.parts, PoolSpec { min: 0, max: 1, ..spec.clone() }, Trial::No, None))
    }
}
