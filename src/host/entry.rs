//! One recipe in use: its verified bytes, its compiled glue, its pods.

use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::OnceCell;

use super::Inner;
use crate::{
    glue::Prepared,
    model::{Code, Fault, Grants, Verified, recipe::PoolSpec},
    pod::{self, BoxFuture, Pool, Seat, Spawner, Watcher},
    shelf::{blocking, lockfile::EnvironmentPin},
};

/// A recipe that was looked up, with what was made for it so far.
pub struct Entry {
    recipe: Arc<Verified>,
    /// The environment that the lock file names; none for a folder, or a recipe without requirements.
    environment: Option<EnvironmentPin>,
    /// What its pods may do. When that changes, the entry is let go of, and its pods with it.
    grants: Arc<Grants>,
    prepared: OnceCell<Prepared>,
    pool: OnceLock<Pool>,
}

impl Entry {
    pub fn new(recipe: Verified, environment: Option<EnvironmentPin>, grants: Grants) -> Entry {
        Entry { recipe: Arc::new(recipe), environment, grants: Arc::new(grants), prepared: OnceCell::new(), pool: OnceLock::new() }
    }

    pub fn recipe(&self) -> &Arc<Verified> {
        &self.recipe
    }

    pub fn environment(&self) -> Option<EnvironmentPin> {
        self.environment
    }

    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// The compiled glue; compiled at the first use and kept.
    pub async fn prepared(&self, host: &Arc<Inner>) -> Result<Prepared, Fault> {
        let prepared = self.prepared.get_or_try_init(|| async {
            let (host, recipe) = (host.clone(), self.recipe.clone());
            blocking(move || host.glue()?.compile(&recipe)).await
        });
        prepared.await.cloned()
    }

    /// The recipe's pods; none for a recipe that is glue alone.
    pub fn pool(&self, host: &Arc<Inner>) -> Option<&Pool> {
        let spec = &self.recipe.manifest().pod.as_ref()?.pool;
        Some(self.pool.get_or_init(|| self.new_pool(host, spec.clone())))
    }

    /// A pool of its own for one call: its pod is fresh, and goes when the call is over.
    pub fn one_shot(&self, host: &Arc<Inner>) -> Option<Pool> {
        let spec = &self.recipe.manifest().pod.as_ref()?.pool;
        Some(self.new_pool(host, PoolSpec { min: 0, max: 1, ..spec.clone() }))
    }

    fn new_pool(&self, host: &Arc<Inner>, spec: PoolSpec) -> Pool {
        let concurrency = self.recipe.manifest().pod.as_ref().map_or(1, |pod| pod.concurrency);
        let (recipe, grants) = (self.recipe.clone(), self.grants.clone());
        let source = Source { host: Arc::downgrade(host), recipe, environment: self.environment, grants };
        let pool = Pool::new(self.recipe.clone(), spec, concurrency, Arc::new(source));
        host.pods.add(&pool);
        pool
    }
}

/// Makes pods of one recipe: environment from the shelf, process on this machine.
struct Source {
    /// Not kept: the host has the recipe, which has its pods.
    host: Weak<Inner>,
    recipe: Arc<Verified>,
    environment: Option<EnvironmentPin>,
    grants: Arc<Grants>,
}

impl Spawner for Source {
    fn spawn(&self, seat: Seat) -> BoxFuture<'_, Result<Watcher, Fault>> {
        Box::pin(async move {
            let host = self.host.upgrade().ok_or_else(|| Fault::new(Code::ShuttingDown, "the host is gone"))?;
            let (program, environment) = host.program(&self.recipe, self.environment).await?;
            host.pods.start(&host.home, seat, |folder, incarnation, scratch| pod::Spec {
                recipe: self.recipe.clone(),
                program,
                keeper: host.keeper.clone(),
                scratch: folder.to_owned(),
                dossiers: host.home.dossiers(),
                family: None,
                without: host.without.clone(),
                incarnation,
                grants: self.grants.clone(),
                // While a pod lives, nobody deletes the environment that it runs in, nor its folder.
                keeps: vec![Box::new(environment), Box::new(scratch)],
            })
        })
    }
}
