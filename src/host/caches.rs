//! Who fills the caches of a recipe's pods, and which pods begin with one.
//!
//! Libraries keep what they made in their first seconds: compiled functions, lists of fonts. Without this each pod makes it anew. A pod
//! says when its libraries keep something; then another one, which no caller ever asked for anything, loads, warms up and answers
//! a case of the recipe, and what that one has kept is what all later pods begin with. So nothing of one caller reaches another.
//! A folder's pod has one caller, its author: what it has kept is taken from itself.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{
    Inner,
    entry::{Entry, Parts},
    zygotes,
};
use crate::{
    disk::open,
    model::{
        Code, Digest, Fault, Operation, Priority, RecipeName, events,
        limits::{CALL_EVENTS_BYTES_MAX, CPUINFO_BYTES_MAX, POD_CACHE_FILL_MS},
        manifest::spec::Runtime,
        progress::Step,
        schema::Schema,
    },
    pod::{self, Cache, Pool, Program, Reply, Request, Watcher},
    shelf::{
        blocking,
        environment::Environment,
        pod_caches::{self, Found, Listed},
    },
};

/// What this host knows of caches.
#[derive(Default)]
pub struct Caches {
    /// Keys of those that were filled, or are being filled.
    begun: Mutex<HashSet<Digest>>,
    /// Pods of a host that does not live long: what they keep is looked at before it ends.
    noted: Mutex<Vec<Noted>>,
    /// One is filled at a time.
    filling: tokio::sync::Mutex<()>,
}

/// A pod whose libraries perhaps keep something.
struct Noted {
    parts: Parts,
    key: Digest,
    watcher: Watcher,
}

/// What a pod is to begin with, and under which key; no key where nothing is to be done about it.
///
/// Errors: `io`.
pub async fn of_pod(
    host: &Arc<Inner>,
    parts: &Parts,
    program: &Program,
    environment: Option<&Environment>,
) -> Result<(Cache, Option<Digest>), Fault> {
    let manifest = parts.recipe.manifest();
    if !matches!(manifest.pod.as_ref().map(|pod| &pod.runtime), Some(Runtime::Python { .. })) {
        return Ok((Cache::Unused, None));
    }
    let (home, name) = (host.home.clone(), manifest.name.clone());
    let recipe = match parts.recipe.is_unsigned() {
        // Libraries see for themselves which of their files an edit has made stale.
        true => parts.recipe.folder().display().to_string(),
        false => parts.recipe.digest().hex(),
    };
    let environment = environment.map(|environment| environment.digest.hex());
    let (base, grants) = (program.base.clone(), json!(parts.grants.permissions));
    let (key, found) = blocking(move || {
        let key = Digest::of(json!(["pod cache 1", recipe, environment, base, grants, processor().hex()]).to_string().as_bytes());
        let found = pod_caches::find(&home, &name, key);
        Ok((key, found))
    })
    .await?;
    Ok(match found {
        Found::Files(folder) => (Cache::From(folder), None),
        Found::Empty => (Cache::Unused, None),
        Found::Nothing if parts.recipe.is_unsigned() && !host.forks => (Cache::Given, Some(key)),
        Found::Nothing => (Cache::Told, Some(key)),
    })
}

/// What this machine's processor is: compiled code may run on no other.
fn processor() -> Digest {
    static PROCESSOR: OnceLock<Digest> = OnceLock::new();
    *PROCESSOR.get_or_init(|| {
        let text = open::read_of_kernel(Path::new("/proc/cpuinfo"), CPUINFO_BYTES_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let says =
            |line: &&str| ["model name", "flags", "Features", "CPU implementer", "CPU part"].iter().any(|word| line.starts_with(word));
        // Of the first one: the others are like it, and each has a clock of its own.
        let lines: Vec<&str> = text.split("\n\n").next().unwrap_or_default().lines().filter(says).collect();
        Digest::of([std::env::consts::ARCH, &lines.join("\n")].join("\n").as_bytes())
    })
}

/// Looks at what that pod's libraries keep: at once where the host lives long, else before it ends.
pub fn look_after(host: &Arc<Inner>, parts: &Parts, key: Digest, watcher: &Watcher) {
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

/// Fills what the pods of a host that is about to end showed a need for.
pub async fn before_end(host: &Arc<Inner>) {
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
        // It has nothing more to do; what it said before its end was heard.
        watcher.stop().await;
        if watcher.caches().await {
            let text = format!("keeping what the libraries of {} compiled, for its next pods", parts.recipe.manifest().name);
            host.progress.step(Step::Note { text });
            fill(host, &parts, key).await;
        }
    }
}

/// Fills a cache from a pod of its own, unless that was begun. A failure is said in the log, and kept for a day.
async fn fill(host: &Arc<Inner>, parts: &Parts, key: Digest) {
    if !host.caches.begun.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(key) {
        return;
    }
    let _one = host.caches.filling.lock().await;
    let name = &parts.recipe.manifest().name;
    let (home, recipe) = (host.home.clone(), name.clone());
    // Two hosts would start a pod each for the same files.
    let _claimed = match blocking(move || pod_caches::claim(&home, &recipe, key)).await {
        Ok(Some(held)) => held,
        Ok(None) => return,
        Err(why) => return tracing::warn!(recipe = %name, "what its libraries compiled is not kept: {why}"),
    };
    let made = timeout(Duration::from_millis(POD_CACHE_FILL_MS), async {
        let trial = Arc::new(Entry::that_gives_its_cache(host, parts));
        // What its libraries compiled is the same, whatever it answered.
        drop(zygotes::try_case(host, parts, &trial).await?);
        let pool = trial.pool(host).ok_or("no pod")?;
        content_of(pool).await
    });
    let content = made.await.unwrap_or_else(|_| Err(format!("not within {POD_CACHE_FILL_MS} ms")));
    match kept(host, name, key, content).await {
        Ok(files) => tracing::info!(recipe = %name, files, "its next pods begin with what libraries compiled"),
        // By the next host, or tomorrow.
        Err(why) => tracing::warn!(recipe = %name, "what its libraries compiled is not kept: {why}"),
    }
    if !parts.recipe.is_unsigned() {
        forget_of_removed(host, name).await;
    }
}

/// What was kept while its recipe was removed goes too. Looked at afterwards: a removal deletes caches when the recipe is not installed any more.
async fn forget_of_removed(host: &Arc<Inner>, name: &RecipeName) {
    let (inner, name) = (host.clone(), name.clone());
    let gone = blocking(move || match inner.shelf.entry(&name) {
        Err(fault) if fault.code == Code::RecipeNotFound => pod_caches::remove(&inner.home, &name),
        _ => Ok(()),
    });
    if let Err(fault) = gone.await {
        tracing::warn!("{}", fault.message);
    }
}

/// Puts what a pod gave on the shelf, or why it gave nothing; gives how many files there are.
async fn kept(host: &Arc<Inner>, name: &RecipeName, key: Digest, content: Result<pod::Payload, String>) -> Result<usize, String> {
    if host.closing.load(std::sync::atomic::Ordering::Acquire) && content.is_err() {
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

/// What a pod's cache folder holds, asked of the pod.
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
