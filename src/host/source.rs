//! Makes the pods of a recipe: environment from the shelf, process on this machine.

use std::{
    path::Path,
    sync::{Arc, Weak},
};

use super::{HostState, parts::Parts, pod_cache, pods::Started};
use crate::{
    disk::threads::certainly,
    model::{Code, Fault, limits::ZYGOTE_CANARY_MS, manifest::spec::PoolSpec},
    pod::{self, BoxFuture, Cache, Clerk, Family, Pool, Program, Slot, Spawner, Watcher},
    shelf::{blocking, files::scratch::Scratch},
};

/// The view of a session that the source of its pods has.
pub trait SessionOfPods: Send + Sync {
    fn name(&self) -> String;

    /// What the session's next pod begins with.
    ///
    /// Errors: `session_lost`, with its calls and checkpoints in `detail`; as [`Clerk::lend`].
    fn incarnate<'a>(self: Arc<Self>, clerk: &'a Clerk, program: &'a Program) -> BoxFuture<'a, Result<pod::Session, Fault>>;
}

/// Weak, because the session owns its pool.
pub type InSession = Weak<dyn SessionOfPods>;

/// What a pool's pods are tried for.
pub enum Trial {
    No,
    /// The pods are forked from this zygote, even if it is not known to work for the recipe.
    Forked(Family),
    /// The pods are started, and give the files that their libraries keep.
    GivesCache,
}

/// A pool for a recipe.
pub fn new_pool(host: &Arc<HostState>, parts: &Parts, spec: PoolSpec, trial: Trial, session: Option<InSession>) -> Pool {
    let concurrency = parts.recipe.manifest().pod.as_ref().map_or(1, |pod| pod.concurrency);
    let source = Source { host: Arc::downgrade(host), parts: parts.clone(), trial, session };
    let pool = Pool::new(parts.recipe.clone(), spec, concurrency, Arc::new(source));
    host.pods.add(&pool);
    pool
}

/// Makes pods of one recipe: environment from the shelf, process on this machine.
struct Source {
    /// Weak, because the host owns the recipe, which owns its pods.
    host: Weak<HostState>,
    parts: Parts,
    trial: Trial,
    /// Weak too, because the session owns the pool.
    session: Option<InSession>,
}

impl Spawner for Source {
    fn session(&self) -> Option<String> {
        self.session.as_ref()?.upgrade().map(|session| session.name())
    }

    fn spawn(&self, slot: Slot) -> BoxFuture<'_, Result<Watcher, Fault>> {
        Box::pin(async move {
            let host = self.host.upgrade().ok_or_else(|| Fault::ending("host", "starts no pod"))?;
            let parts = &self.parts;
            let (shelf, recipe) = (host.clone(), parts.recipe.clone());
            // Verify that the recipe's own files are still those of the install; the recipe may have been
            // loaded long ago. The environment can be gigabytes, so only `verify` reads it.
            blocking(move || shelf.shelf.is_unaltered(&recipe)).await?;
            let (program, environment) = host.program(&parts.recipe, parts.environment).await?;
            let session = match &self.session {
                Some(session) => {
                    let gone = || Fault::new(Code::SessionNotFound, "the session is gone");
                    Some(session.upgrade().ok_or_else(gone)?.incarnate(host.pod_services.clerk(), &program).await?)
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
                false => pod_cache::of_pod(&host, parts, &program, environment.as_ref()).await?,
            };
            let may_be_forked = (family.is_none() && !gives_cache).then(|| (program.clone(), environment.clone()));
            let (starting, parts_of_pod) = (host.clone(), parts.clone());
            let spec = move |folder: &Path, incarnation: String, scratch: Arc<Scratch>| pod::Spec {
                claim: Some(starting.memory.register(
                    parts_of_pod.recipe.manifest(),
                    parts_of_pod.recipe.digest(),
                    &incarnation,
                    session.is_some(),
                )),
                recipe: parts_of_pod.recipe.clone(),
                program,
                keeper: starting.pod_services.keeper().to_owned(),
                clerk: starting.pod_services.clerk().clone(),
                spools: starting.pod_services.spools().clone(),
                scratch: folder.to_owned(),
                dossiers: starting.home.dossiers(),
                printed: starting.pods.printed().clone(),
                without: starting.pod_services.without().clone(),
                incarnation,
                grants: parts_of_pod.grants.clone(),
                session,
                cache,
                // While the pod lives, nobody deletes its environment or its folder.
                keeps: vec![Box::new(environment), Box::new(scratch)],
            };
            // A start reads grants, writes files and starts a process, so it runs on a thread that drives no
            // calls.
            let host_of_pod = host.clone();
            let started = certainly(move || host_of_pod.pods.start(&host_of_pod.home, slot, family.as_ref(), spec)).panicking().await;
            let watcher = started.unwrap_or_else(|| Err(Fault::ending("host", "starts no pod")))?;
            // A session's pod has the session's state: a host that is about to end must not end it to collect
            // compiled files.
            let cache = key.filter(|_| host.forks || self.session.is_none());
            host.pods.tell_started(&host, &Started { parts: parts.clone(), watcher: watcher.clone(), may_be_forked, cache });
            Ok(watcher)
        })
    }
}

/// The pool of a pod that is tried.
pub fn trial_pool() -> PoolSpec {
    PoolSpec { min: 0, max: 1, idle_timeout_ms: ZYGOTE_CANARY_MS }
}
