//! The pods that this host started, including those of forgotten recipes.
//!
//! The catalogue forgets a recipe that was changed or removed, but the pods of that recipe end only after
//! their last ask.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{HostState, parts::Parts};
use crate::{
    model::{
        Digest, Fault, Home, Verified,
        limits::SHUTDOWN_MS,
        status::{LogLine, PodStatus, PoolStatus},
    },
    pod::{self, Family, Pool, Printed, Program, Slot, Spec, Watcher, WeakPool},
    shelf::{environment::Environment, files::scratch::Scratch},
};

/// Ends processes that killed hosts left running, and deletes their files on disk. Blocking.
///
/// A failure here does not keep a host from opening: it is logged, and the next start tries again.
pub fn reap_leftovers(home: &Home) {
    let may_delete = |folder: &Path| {
        let reaped = pod::reap(folder);
        if !reaped.killed.is_empty() {
            tracing::info!(processes = ?reaped.killed, "ended what a killed host had left running");
        }
        if !reaped.left.is_empty() {
            tracing::warn!(processes = ?reaped.left, folder = %folder.display(), "what a killed host left running could not be ended");
        }
        reaped.is_done()
    };
    if let Err(fault) = Scratch::sweep(home, may_delete) {
        tracing::warn!("what a killed host left could not be deleted: {fault}");
    }
}

/// Tracks every pod that is not over. The lock is held only to look, and to start a pod.
pub struct Pods {
    state: Mutex<PodsState>,
    printed: Printed,
    observers: &'static [Observer],
}

/// Called for every started pod, at once. An observer returns soon and does its work in a task of its own.
pub type Observer = fn(&Arc<HostState>, &Started);

/// A pod that was just started.
pub struct Started {
    pub parts: Parts,
    pub watcher: Watcher,
    /// The ingredients of a zygote for it; `None` for a pod that was forked, or that gives its cache.
    pub may_be_forked: Option<(Program, Option<Environment>)>,
    /// The key under which its libraries' files may be kept; `None` if nothing is to be kept.
    pub cache: Option<Digest>,
}

#[derive(Default)]
struct PodsState {
    pools: Vec<WeakPool>,
    watchers: Vec<Watcher>,
    started: u64,
    /// The parent of the pods' own folders; made for the first pod, deleted after the last.
    scratch: Option<Arc<Scratch>>,
    /// Shutdown has begun: no pool accepts asks any more.
    closing: bool,
    /// No pod is started any more, because shutdown would not know of it and could not stop it.
    closed: bool,
}

impl Pods {
    pub fn new(printed: Printed, observers: &'static [Observer]) -> Pods {
        Pods { state: Mutex::default(), printed, observers }
    }

    /// Calls the observers for a pod that was started.
    pub fn tell_started(&self, host: &Arc<HostState>, started: &Started) {
        self.observers.iter().for_each(|observer| observer(host, started));
    }

    /// The output of all pods.
    pub fn printed(&self) -> &Printed {
        &self.printed
    }

    /// Delivers everything that pods of that recipe printed so far.
    pub fn catch_up(&self, recipe: &str) {
        let watchers = self.state().watchers.clone();
        watchers.iter().filter(|watcher| watcher.recipe() == recipe).for_each(Watcher::catch_up);
    }

    fn state(&self) -> MutexGuard<'_, PodsState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Tracks that pool from now on.
    pub fn add(&self, pool: &Pool) {
        let mut state = self.state();
        state.pools.retain(|pool| pool.upgrade().is_some());
        state.pools.push(pool.downgrade());
        if state.closing {
            pool.refuse_all();
        }
    }

    /// Starts the pod that `spec` describes. `spec` is given the pod's own folder, its name, and the value
    /// that keeps that folder.
    ///
    /// Errors: `shutting_down` once the host shuts down; `io`, `disk_full`.
    pub fn start(
        &self,
        home: &Home,
        slot: Slot,
        family: Option<&Family>,
        spec: impl FnOnce(&Path, String, Arc<Scratch>) -> Spec,
    ) -> Result<Watcher, Fault> {
        let mut state = self.state();
        if state.closed {
            return Err(Fault::ending("host", "starts no pod any more"));
        }
        let scratch = match &state.scratch {
            Some(scratch) => scratch.clone(),
            None => state.scratch.insert(Arc::new(Scratch::new(home)?)).clone(),
        };
        state.watchers.retain(|watcher| !watcher.is_over());
        state.started += 1;
        let number = state.started.to_string();
        let folder = scratch.folder().join(&number);
        let watcher = pod::spawn(spec(&folder, format!("{}-{number}", scratch.name()), scratch.clone()), slot, family)?;
        state.watchers.push(watcher.clone());
        Ok(watcher)
    }

    fn pools(&self) -> Vec<Pool> {
        self.state().pools.iter().filter_map(WeakPool::upgrade).collect()
    }

    /// A pool of exactly this verification of that recipe.
    pub fn pool_of(&self, recipe: &Arc<Verified>) -> Option<Pool> {
        self.pools().into_iter().find(|pool| pool.is_of(recipe))
    }

    /// Every pool in use, with its pods.
    pub fn pool_statuses(&self) -> Vec<PoolStatus> {
        self.pools().iter().map(Pool::status).collect()
    }

    /// Lifts cooldowns and refused inputs of that recipe; returns whether any pool of that recipe is in use.
    pub fn lift(&self, recipe: &str) -> bool {
        let pools: Vec<Pool> = self.pools().into_iter().filter(|pool| pool.recipe() == recipe).collect();
        pools.iter().for_each(Pool::lift);
        !pools.is_empty()
    }

    /// Every pod that is not over, including those of forgotten recipes.
    pub fn statuses(&self) -> Vec<PodStatus> {
        let watchers = self.state().watchers.clone();
        watchers.iter().filter(|watcher| !watcher.is_over()).map(Watcher::status).collect()
    }

    /// The last lines of each pod that is not over.
    pub fn logs(&self, lines: usize) -> Vec<LogLine> {
        let watchers = self.state().watchers.clone();
        watchers.iter().flat_map(|watcher| watcher.log(lines)).collect()
    }

    /// Closes all pools: accepted asks may finish until `until`. Then starts no more pods, stops all, and
    /// waits until none of their processes is left.
    pub async fn shutdown(&self, until: Instant) {
        self.state().closing = true;
        let mut closing = tokio::task::JoinSet::new();
        for pool in self.pools() {
            closing.spawn(async move { pool.close(until).await });
        }
        closing.join_all().await;
        let watchers = {
            let mut state = self.state();
            state.closed = true;
            state.scratch = None;
            state.watchers.clone()
        };
        let mut stops = tokio::task::JoinSet::new();
        for watcher in watchers {
            stops.spawn(async move {
                // `stop` has a time limit of its own; only a process that the kernel cannot kill outlasts it.
                if timeout(Duration::from_millis(SHUTDOWN_MS), watcher.stop()).await.is_err() {
                    let pod = watcher.status();
                    tracing::warn!(recipe = %pod.recipe, pid = pod.pid, "a pod outlived SIGKILL and is left to the kernel");
                }
            });
        }
        stops.join_all().await;
    }
}
