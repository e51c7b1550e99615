//! One recipe in use: its verified bytes, its compiled glue, its pods.

use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::{OnceCell, Semaphore};

use super::{
    Inner, caches,
    sessions::Live,
    zygotes::{self, Forkable},
};
use crate::{
    glue::Prepared,
    model::{Code, Fault, Grants, Verified, manifest::spec::PoolSpec, status::ZygoteStatus},
    pod::{self, BoxFuture, Cache, Family, Pool, Slot, Spawner, Watcher},
    shelf::{aside, blocking, store::lockfile::EnvironmentPin},
};

/// A recipe that was looked up, with what was made for it so far.
pub struct Entry {
    parts: Parts,
    prepared: OnceCell<Prepared>,
    pool: OnceLock<Pool>,
    /// Its one long check at a time.
    checks: Arc<Semaphore>,
}

/// What is known of a recipe before anything was made for it.
#[derive(Clone)]
pub struct Parts {
    pub recipe: Arc<Verified>,
    /// The environment that the lock file names; none for a folder, or a recipe without requirements.
    environment: Option<EnvironmentPin>,
    /// What its pods may do. When that changes, the entry is let go of, and its pods with it.
    pub grants: Arc<Grants>,
    /// Whether its pods are forked, and from what.
    pub forkable: Arc<Forkable>,
}

impl Entry {
    pub fn new(recipe: Verified, environment: Option<EnvironmentPin>, grants: Grants) -> Entry {
        let parts = Parts { recipe: Arc::new(recipe), environment, grants: Arc::new(grants), forkable: Arc::default() };
        Entry { parts, prepared: OnceCell::new(), pool: OnceLock::new(), checks: Arc::new(Semaphore::new(1)) }
    }

    /// The same recipe with one pod that is forked from that zygote: to see whether it answers.
    pub fn on_trial(host: &Arc<Inner>, parts: &Parts, family: Family) -> Entry {
        Entry::with_pool(parts, new_pool(host, parts, zygotes::trial_pool(), Trial::Forked(family), None))
    }

    /// The same recipe with one pod that nobody but its host asks for anything, for what its libraries keep.
    pub fn that_gives_its_cache(host: &Arc<Inner>, parts: &Parts) -> Entry {
        Entry::with_pool(parts, new_pool(host, parts, zygotes::trial_pool(), Trial::GivesCache, None))
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

    /// The compiled glue, read at the first use and kept. An install had it compiled; of a folder, or where the cache was emptied, another
    /// process compiles it now.
    pub async fn prepared(&self, host: &Arc<Inner>) -> Result<Prepared, Fault> {
        self.prepared.get_or_try_init(|| host.prepare_glue(&self.parts.recipe)).await.cloned()
    }

    /// Checks something of this recipe's against a schema: a short check here, a `long` one on a thread where nobody else waits, one of a recipe
    /// and few of a host at a time. It ends by the cost that was proved of the schema, also when the future is dropped.
    pub async fn check<T: Send + 'static>(
        &self,
        host: &Inner,
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
    pub fn pool(&self, host: &Arc<Inner>) -> Option<&Pool> {
        let spec = &self.parts.recipe.manifest().pod.as_ref()?.pool;
        Some(self.pool.get_or_init(|| new_pool(host, &self.parts, spec.clone(), Trial::No, None)))
    }

    /// A pool of its own for a session: one pod, for as long as the session keeps it.
    pub fn session_pool(&self, host: &Arc<Inner>, session: Weak<Live>) -> Pool {
        let spec = self.parts.recipe.manifest().pod.as_ref().map(|pod| pod.pool.clone());
        let spec = PoolSpec { min: 0, max: 1, idle_timeout_ms: spec.map_or(1, |spec| spec.idle_timeout_ms) };
        new_pool(host, &self.parts, spec, Trial::No, Some(session))
    }

    /// A pool of its own for one call: its pod is fresh, and goes when the call is over.
    pub fn one_shot(&self, host: &Arc<Inner>) -> Option<Pool> {
        let spec = &self.parts.recipe.manifest().pod.as_ref()?.pool;
        Some(new_pool(host, &self.parts, PoolSpec { min: 0, max: 1, ..spec.clone() }, Trial::No, None))
    }
}

/// What is tried with a pool's pods.
enum Trial {
    No,
    /// They are forked from this zygote, whatever is known of it.
    Forked(Family),
    /// They are started, and give what their libraries keep.
    GivesCache,
}

/// A pool for a recipe.
fn new_pool(host: &Arc<Inner>, parts: &Parts, spec: PoolSpec, trial: Trial, session: Option<Weak<Live>>) -> Pool {
    let concurrency = parts.recipe.manifest().pod.as_ref().map_or(1, |pod| pod.concurrency);
    let source = Source { host: Arc::downgrade(host), parts: parts.clone(), trial, session };
    let pool = Pool::new(parts.recipe.clone(), spec, concurrency, Arc::new(source));
    host.pods.add(&pool);
    pool
}

/// Makes pods of one recipe: environment from the shelf, process on this machine.
struct Source {
    /// Not kept: the host has the recipe, which has its pods.
    host: Weak<Inner>,
    parts: Parts,
    trial: Trial,
    /// Not kept either: it has the pool.
    session: Option<Weak<Live>>,
}

impl Spawner for Source {
    fn session(&self) -> Option<String> {
        self.session.as_ref()?.upgrade().map(|live| live.identity().name.clone())
    }

    fn spawn(&self, slot: Slot) -> BoxFuture<'_, Result<Watcher, Fault>> {
        Box::pin(async move {
            let host = self.host.upgrade().ok_or_else(|| Fault::new(Code::ShuttingDown, "the host is gone"))?;
            let parts = &self.parts;
            let (shelf, recipe) = (host.clone(), parts.recipe.clone());
            // The recipe's own files are what was installed, however long ago it was loaded. An environment is as large as torch: `verify` reads it.
            blocking(move || shelf.shelf.is_unaltered(&recipe)).await?;
            let (program, environment) = host.program(&parts.recipe, parts.environment).await?;
            let session = match &self.session {
                Some(session) => {
                    let gone = || Fault::new(Code::SessionNotFound, "the session is gone");
                    Some(session.upgrade().ok_or_else(gone)?.incarnate(&host.clerk, &program).await?)
                }
                None => None,
            };
            if parts.recipe.manifest().pod.as_ref().is_some_and(|pod| pod.residency.gpu_bytes.is_some()) {
                let memory = host.memory.clone();
                blocking(move || {
                    memory.look_for_gpus();
                    Ok(())
                })
                .await?;
            }
            let (family, gives_cache) = match &self.trial {
                Trial::No => (parts.forkable.family(), false),
                Trial::Forked(family) => (Some(family.clone()), false),
                Trial::GivesCache => (None, true),
            };
            let (cache, key) = match gives_cache {
                true => (Cache::Given, None),
                false => caches::of_pod(&host, parts, &program, environment.as_ref()).await?,
            };
            let starts = (family.is_none() && !gives_cache).then(|| (program.clone(), environment.clone()));
            let watcher = host.pods.start(&host.home, slot, family.as_ref(), |folder, incarnation, scratch| pod::Spec {
                claim: Some(host.memory.register(parts.recipe.manifest(), parts.recipe.digest(), &incarnation, session.is_some())),
                recipe: parts.recipe.clone(),
                program,
                keeper: host.keeper.clone(),
                clerk: host.clerk.clone(),
                spools: host.spools.clone(),
                scratch: folder.to_owned(),
                dossiers: host.home.dossiers(),
                printed: host.pods.printed().clone(),
                without: host.without.clone(),
                incarnation,
                grants: parts.grants.clone(),
                session,
                cache,
                // While a pod lives, nobody deletes the environment that it runs in, nor its folder.
                keeps: vec![Box::new(environment), Box::new(scratch)],
            })?;
            // A session's pod has its state: a host that is about to end does not end it for what its libraries compiled.
            if let Some(key) = key.filter(|_| host.forks || self.session.is_none()) {
                caches::look_after(&host, parts, key, &watcher);
            }
            if let Some((program, environment)) = starts {
                // This pod is started. Perhaps the next one need not be.
                zygotes::consider(&host, parts, program, environment, &watcher);
            }
            Ok(watcher)
        })
    }
}
