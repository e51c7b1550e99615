//! Fills the caches of a recipe's pods, with which later pods begin.
//!
//! Libraries keep things that they make in their first seconds, such as compiled functions and lists of
//! fonts. Without a cache, each pod makes them anew. The steps:
//!
//! 1. A pod reports that its libraries keep something.
//! 2. Another pod, which never had an ask of a caller, loads, warms up and answers a case of the recipe.
//! 3. The files that this second pod kept are the cache with which all later pods begin.
//!
//! So no data of one caller reaches another. The pod of a recipe folder has only one caller, its author: its
//! cache is taken from that pod itself.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::{HostState, entry::Entry, parts::Parts, pods::Started, zygotes};
use crate::{
    model::{
        Code, Digest, Fault, Operation, Priority, RecipeName, events,
        limits::{CALL_EVENTS_BYTES_MAX, POD_CACHE_FILL_MS},
        progress::Step,
        schema::Schema,
    },
    pod::{self, Pool, Reply, Request, Watcher},
    shelf::{
        blocking,
        pod_caches::{self, Listed},
    },
};

/// The state of caches in this host.
#[derive(Default)]
pub struct Caches {
    /// Keys of caches that were filled, or are being filled.
    begun: Mutex<HashSet<Digest>>,
    /// Pods of a short-lived host: before the host ends, it looks at what their libraries keep.
    noted: Mutex<Vec<Noted>>,
    /// Allows one filling at a time.
    filling: tokio::sync::Mutex<()>,
}

/// A pod whose libraries may keep something.
struct Noted {
    parts: Parts,
    key: Digest,
    watcher: Watcher,
}

/// Looks at what that pod's libraries keep: at once if the host is long-lived, else before the host ends.
pub fn observe(host: &Arc<HostState>, started: &Started) {
    let Started { parts, watcher, .. } = started;
    let Some(key) = started.cache else { return };
    if !host.forks {
        let mut noted = host.caches.noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        return noted.push(Noted { parts: parts.clone(), key, watcher: watcher.clone() });
    }
    let (host, parts, watcher) = (Arc::downgrade(host), parts.clone(), watcher.clone());
    tokio::spawn(async move {
        if watcher.caches().await
            && let Some(host) = Weak::upgrade(&host)
        {
            fill(&host, &parts, key).await;
        }
    });
}

/// Fills the caches that the pods of a host that is about to end asked for.
pub async fn before_end(host: &Arc<HostState>) {
    let noted = std::mem::take(&mut *host.caches.noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    for Noted { parts, key, watcher } in noted {
        if parts.recipe.is_unsigned() {
            let Some(pool) = host.pods.pool_of(&parts.recipe).filter(|_| watcher.was_ready() && !watcher.is_over()) else { continue };
            let content = timeout(Duration::from_millis(POD_CACHE_FILL_MS), content_of(&pool)).await;
            if let Ok(content) = content
                && let Err(why) = kept(host, &parts.recipe.manifest().name, key, content).await
            {
                tracing::warn!(recipe = %parts.recipe.manifest().name, "what its libraries compiled is not kept: {why}");
            }
            continue;
        }
        // The pod has no more work; messages that it sent before its end have been received.
        watcher.stop().await;
        if watcher.caches().await {
            let text = format!("keeping what the libraries of {} compiled, for its next pods", parts.recipe.manifest().name);
            host.progress.step(Step::Note { text });
            fill(host, &parts, key).await;
        }
    }
}

/// Fills a cache from a pod made for it, unless that has begun already. A failure is logged, and remembered
/// for a day.
async fn fill(host: &Arc<HostState>, parts: &Parts, key: Digest) {
    if !host.caches.begun.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(key) {
        return;
    }
    let _one = host.caches.filling.lock().await;
    let name = &parts.recipe.manifest().name;
    let (home, recipe) = (host.home.clone(), name.clone());
    // Without a claim, two hosts would each start a pod for the same files.
    let _claimed = match blocking(move || pod_caches::claim(&home, &recipe, key)).await {
        Ok(Some(held)) => held,
        Ok(None) => return,
        Err(why) => return tracing::warn!(recipe = %name, "what its libraries compiled is not kept: {why}"),
    };
    let made = timeout(Duration::from_millis(POD_CACHE_FILL_MS), async {
        let trial = Arc::new(Entry::that_gives_its_cache(host, parts));
        // The answer does not matter: what the libraries compiled is the same.
        drop(zygotes::try_case(host, parts, &trial).await?);
        let pool = trial.pool(host).ok_or("no pod")?;
        content_of(pool).await
    });
    let content = made.await.unwrap_or_else(|_| Err(format!("not within {POD_CACHE_FILL_MS} ms")));
    match kept(host, name, key, content).await {
        Ok(files) => tracing::info!(recipe = %name, files, "its next pods begin with what libraries compiled"),
        // The next host tries again, or this one tomorrow.
        Err(why) => tracing::warn!(recipe = %name, "what its libraries compiled is not kept: {why}"),
    }
    if !parts.recipe.is_unsigned() {
        forget_of_removed(host, name).await;
    }
}

/// Deletes a cache that was kept while its recipe was removed. The check comes after the writing, because a
/// removal deletes caches once the recipe is no longer installed.
async fn forget_of_removed(host: &Arc<HostState>, name: &RecipeName) {
    let (inner, name) = (host.clone(), name.clone());
    let gone = blocking(move || match inner.shelf.entry(&name) {
        Err(fault) if fault.code == Code::RecipeNotFound => pod_caches::remove(&inner.home, &name),
        _ => Ok(()),
    });
    if let Err(fault) = gone.await {
        tracing::warn!("{}", fault.message);
    }
}

/// Puts the content that a pod gave on the shelf, or the reason why it gave none; returns the number of
/// files.
async fn kept(host: &Arc<HostState>, name: &RecipeName, key: Digest, content: Result<pod::Payload, String>) -> Result<usize, String> {
    if host.lifecycle.is_closing() && content.is_err() {
        return Err("the host ends".to_owned());
    }
    let (home, name) = (host.home.clone(), name.clone());
    let done = blocking(move || {
        let read = content.and_then(|payload| Ok((listed(&payload.json)?, payload.blobs)));
        let kept = read.and_then(|(files, blobs)| {
            let blob = blobs.first().ok_or("the list of files came without them")?;
            pod_caches::keep(&home, &name, key, &files, blob).map(|()| files.len()).map_err(|fault| fault.message)
        });
        if let Err(why) = &kept {
            pod_caches::keep_failure(&home, &name, key, why)?;
        }
        Ok(kept)
    });
    done.await.map_err(|fault| fault.message)?
}

fn listed(json: &str) -> Result<Vec<Listed>, String> {
    #[derive(Deserialize)]
    struct Given {
        #[serde(default)]
        files: Vec<Listed>,
        too_large: Option<String>,
    }
    let given: Given = serde_json::from_str(json).map_err(|error| format!("what it gave is no list of files: {error}"))?;
    given.too_large.map_or(Ok(given.files), Err)
}

/// Asks a pod for the content of its cache folder.
async fn content_of(pool: &Pool) -> Result<pod::Payload, String> {
    let operation = Operation {
        name: pod::GIVE_CACHE.to_owned(),
        summary: String::new(),
        input: Schema::anything(),
        output: Schema::anything(),
        streaming: false,
        deadline_ms: POD_CACHE_FILL_MS,
        idempotent: false,
        progress_interval_ms: None,
        session: false,
        blobs: Default::default(),
        batch: None,
    };
    let (events, _dropped) = events::channel(CALL_EVENTS_BYTES_MAX);
    let mut ask = pool
        .ask(Request {
            operation: Arc::new(operation),
            input: "null".to_owned(),
            cost: 1,
            blobs: Vec::new(),
            deadline: Instant::now() + Duration::from_millis(POD_CACHE_FILL_MS),
            priority: Priority::Bulk,
            events,
        })
        .map_err(|fault| fault.message)?;
    match ask.next().await {
        Some(Reply::Answer(payload)) => Ok(payload),
        Some(Reply::Fault(fault)) => Err(fault.message),
        Some(Reply::Chunk(_)) | None => Err(Fault::new(Code::Internal, "no answer").message),
    }
}
