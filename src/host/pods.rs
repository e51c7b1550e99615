//! The pods that this host started, whatever became of the recipes that they were started for.
//!
//! Apart from the catalogue, which forgets a recipe that was changed or removed: its pod is over only after its last ask.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    model::{Code, Fault, Home, limits::SHUTDOWN_MS},
    pod::{Pod, Snapshot, Spec, Watcher},
    shelf::scratch::Scratch,
};

/// Looks at every pod that is not over. The lock is held only to look, and to start one.
#[derive(Debug, Default)]
pub struct Pods {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    watchers: Vec<Watcher>,
    started: u64,
    /// Where the pods' own folders lie; made for the first pod, deleted after the last.
    scratch: Option<Arc<Scratch>>,
    /// Shutdown has begun: what it does not know of, it could not stop.
    closed: bool,
}

impl Pods {
    /// Starts the pod that `spec` describes, given a folder of its own, its name, and what keeps that folder.
    ///
    /// Errors: `cancelled` once the host shuts down; `io`, `disk_full`.
    pub fn start(&self, home: &Home, spec: impl FnOnce(&Path, String, Arc<Scratch>) -> Spec) -> Result<Pod, Fault> {
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if known.closed {
            return Err(Fault::new(Code::Cancelled, "the host is shutting down and starts no pod any more"));
        }
        let scratch = match &known.scratch {
            Some(scratch) => scratch.clone(),
            None => known.scratch.insert(Arc::new(Scratch::new(home)?)).clone(),
        };
        known.watchers.retain(|watcher| !watcher.is_over());
        known.started += 1;
        let number = known.started.to_string();
        let folder = scratch.folder().join(&number);
        let pod = Pod::spawn(spec(&folder, format!("{}-{number}", scratch.name()), scratch.clone()))?;
        known.watchers.push(pod.watcher());
        Ok(pod)
    }

    /// Every pod that is not over.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.watchers.iter().filter(|watcher| !watcher.is_over()).map(Watcher::snapshot).collect()
    }

    /// Starts none from now on, stops all, and waits until no process of theirs is left.
    pub async fn shutdown(&self) {
        let watchers = {
            let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            known.closed = true;
            known.scratch = None;
            known.watchers.clone()
        };
        let mut stops = tokio::task::JoinSet::new();
        for watcher in watchers {
            stops.spawn(async move {
                // The ladder has an end of its own; only a process that the kernel cannot kill outlasts it.
                if timeout(Duration::from_millis(SHUTDOWN_MS), watcher.stop()).await.is_err() {
                    let pod = watcher.snapshot();
                    tracing::warn!(recipe = %pod.recipe, pid = pod.pid, "a pod outlived SIGKILL and is left to the kernel");
                }
            });
        }
        stops.join_all().await;
    }
}
