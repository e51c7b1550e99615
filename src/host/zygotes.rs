//! Zygotes: which recipes have their pods forked, and why others do not.
//!
//! A pod never waits for a zygote. Pods are started until a zygote is ready *and* a pod forked from it has
//! answered one of the recipe's own cases as the case says. A failure on the way is logged once and
//! remembered, and pods are started as before.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{HostState, blobs, entry::Entry, forking::Verdict, journal::Record, parts::Parts, pods::Started, run};
use crate::{
    model::{
        Blame, Blob, Call, Code, Event, Fault, Verified,
        case::{Case, End},
        events,
        limits::{CALL_EVENTS_BYTES_MAX, DOCUMENT_BYTES_MAX, SHUTDOWN_MS, ZYGOTE_CANARY_MS, ZYGOTE_IDLE_MS},
    },
    pod::{Boot, Family, Program},
    shelf::{blocking, durable, environment::Environment, files::scratch::Scratch},
};

/// All zygotes of a host, by program, preloads and variables: recipes that agree in these share a zygote.
#[derive(Default)]
pub struct Zygotes {
    state: Mutex<ZygotesState>,
    /// Notified when a zygote has booted, or failed to.
    booted: Notify,
}

#[derive(Default)]
struct ZygotesState {
    by_key: HashMap<String, Zygote>,
    /// Every zygote that was started, until none of its processes is left.
    families: Vec<Family>,
    closed: bool,
}

#[derive(Debug, Clone)]
enum Zygote {
    Booting,
    Ready(Family),
    /// This host does not try again; the text is the reason, for people.
    Unforkable(String),
}

impl Zygote {
    fn can_fork(&self) -> bool {
        matches!(self, Zygote::Ready(family) if family.can_fork())
    }
}

/// Finds out in the background whether pods of this recipe may be forked, unless that is known. It waits
/// until the started pod is ready, so that the pod has the machine for itself. A pod that was forked, or that
/// gives its cache, is ignored.
pub fn observe(host: &Arc<HostState>, started: &Started) {
    let Started { parts, watcher: first, .. } = started;
    let Some((program, environment)) = started.may_be_forked.clone() else { return };
    let preload = parts.recipe.manifest().pod.as_ref().map_or(&[][..], |pod| &pod.preload);
    if preload.is_empty() || !host.forks || !parts.forkable.ask() {
        return;
    }
    // A pod with a network or a device has more of the machine than a zygote can pass on.
    let granted = &parts.grants.permissions;
    if !granted.network.is_empty() || !granted.devices.is_empty() || parts.grants.reduced {
        let why = "its pods have a network, a device or a reduced sandbox, which a zygote cannot pass on";
        parts.forkable.set(Verdict::Starts(why.to_owned()));
        return;
    }
    let (host, parts, first) = (Arc::downgrade(host), parts.clone(), first.clone());
    tokio::spawn(async move {
        first.ready().await;
        let verdict = find_out(&host, &parts, program, environment).await;
        let name = &parts.recipe.manifest().name;
        parts.forkable.set(match verdict {
            Ok(family) => {
                tracing::info!(recipe = %name, "pods are forked from a zygote from now on");
                Verdict::Forks(family)
            }
            Err(why) => {
                tracing::warn!(recipe = %name, "pods are started and not forked: {why}");
                Verdict::Starts(why)
            }
        });
    });
}

async fn find_out(host: &Weak<HostState>, parts: &Parts, program: Program, environment: Option<Environment>) -> Result<Family, String> {
    let host = host.upgrade().ok_or("the host is gone")?;
    let family = host.zygotes.get(&host, &parts.recipe, program, environment).await?;
    canary(&host, parts, &family).await.map_err(|why| format!("a forked pod did not answer a case as it should: {why}"))?;
    Ok(family)
}

impl Zygotes {
    fn state(&self) -> MutexGuard<'_, ZygotesState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The zygote for this recipe's environment, preloads and variables; booted if there is none.
    async fn get(
        &self,
        host: &Arc<HostState>,
        recipe: &Verified,
        program: Program,
        environment: Option<Environment>,
    ) -> Result<Family, String> {
        let pod = recipe.manifest().pod.as_ref().ok_or("no pod")?;
        let variables: Vec<(String, String)> = pod.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let key = format!("{:?} {:?} {variables:?}", program, pod.preload);
        let _booting = loop {
            let booted = self.booted.notified();
            let found = {
                let mut state = self.state();
                let found = state.by_key.get(&key).cloned();
                if !matches!(&found, Some(Zygote::Booting | Zygote::Unforkable(_))) && !found.as_ref().is_some_and(Zygote::can_fork) {
                    state.by_key.insert(key.clone(), Zygote::Booting);
                    // The guard's drop ends `Booting` for others that wait, however the boot ends.
                    break Booting { zygotes: self, key: key.clone() };
                }
                found
            };
            match found {
                Some(Zygote::Ready(family)) => return Ok(family),
                Some(Zygote::Unforkable(why)) => return Err(why),
                // Another recipe boots the same zygote.
                Some(Zygote::Booting) | None => booted.await,
            }
        };
        let booted = boot(host, &program, pod.preload.as_slice(), variables, environment).await;
        let (zygote, result) = match booted {
            Ok(family) => (Zygote::Ready(family.clone()), Ok(family)),
            Err(why) => (Zygote::Unforkable(why.clone()), Err(why)),
        };
        self.state().by_key.insert(key, zygote);
        if result.is_ok() {
            tokio::spawn(drop_unused(Arc::downgrade(host)));
        }
        result
    }

    /// Ends every zygote, and waits until no process of them is left. Their pods are over by then.
    pub async fn shutdown(&self) {
        let families = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.families)
        };
        families.iter().for_each(Family::close);
        for family in families {
            // Only a process that the kernel cannot kill outlasts it.
            let _ = timeout(Duration::from_millis(SHUTDOWN_MS), family.gone()).await;
        }
    }
}

/// Removes the `Booting` entry on drop, unless the result of the boot replaced it.
struct Booting<'a> {
    zygotes: &'a Zygotes,
    key: String,
}

impl Drop for Booting<'_> {
    fn drop(&mut self) {
        let mut state = self.zygotes.state();
        if matches!(state.by_key.get(&self.key), Some(Zygote::Booting)) {
            state.by_key.remove(&self.key);
        }
        drop(state);
        self.zygotes.booted.notify_waiters();
    }
}

async fn boot(
    host: &Arc<HostState>,
    program: &Program,
    preload: &[String],
    variables: Vec<(String, String)>,
    environment: Option<Environment>,
) -> Result<Family, String> {
    let home = host.home.clone();
    let scratch = blocking(move || Scratch::new(&home)).await.map_err(|fault| fault.message)?;
    let boot = Boot {
        program,
        keeper: host.pod_services.keeper(),
        folder: scratch.folder().to_owned(),
        preload,
        variables,
        without: host.pod_services.without(),
        keeps: vec![Box::new(environment), Box::new(scratch)],
    };
    let (family, ready) = Family::start(boot)?;
    {
        let mut state = host.zygotes.state();
        state.families.retain(|family| !family.is_gone());
        state.families.push(family.clone());
        if state.closed {
            family.close();
        }
    }
    let ready = ready.await;
    if ready.is_err() {
        family.close();
    }
    ready.map(|()| family)
}

/// Drops zygotes that have had no pod for long, to free their memory.
async fn drop_unused(host: Weak<HostState>) {
    let mut unused: HashMap<String, (u64, Duration)> = HashMap::new();
    let pause = Duration::from_millis(ZYGOTE_IDLE_MS / 10);
    loop {
        tokio::time::sleep(pause).await;
        let Some(host) = host.upgrade() else { return };
        let mut state = host.zygotes.state();
        state.families.retain(|family| !family.is_gone());
        state.by_key.retain(|key, zygote| {
            let Zygote::Ready(family) = zygote else { return true };
            let (forked, pods) = family.counts();
            let (before, idle) = unused.entry(key.clone()).or_insert((forked, Duration::ZERO));
            *idle = if pods == 0 && *before == forked { *idle + pause } else { Duration::ZERO };
            *before = forked;
            if *idle >= Duration::from_millis(ZYGOTE_IDLE_MS) {
                family.close();
            }
            family.can_fork()
        });
        if !state.by_key.values().any(|zygote| matches!(zygote, Zygote::Ready(_))) {
            return;
        }
    }
}

/// Checks that a forked pod answers a case of the recipe as the case says.
///
/// Errors: a text for people, with the case and the difference.
async fn canary(host: &Arc<HostState>, parts: &Parts, family: &Family) -> Result<(), String> {
    let trial = Arc::new(Entry::on_trial(host, parts, family.clone()));
    match try_case(host, parts, &trial).await? {
        Tried::AsItSays => Ok(()),
        // A started pod may answer the same, and then the case is wrong. That is not known here, so pods are
        // started as before.
        Tried::Otherwise(why) => Err(why),
    }
}

/// The result of trying a case.
pub enum Tried {
    AsItSays,
    /// The pod answered, or failed by its own fault, but not as the case says; the text is the difference.
    Otherwise(String),
}

/// Has a pod of `trial` answer the first case of the recipe that ends in an answer; without such a case, the
/// pod has to become ready. Takes at most [`ZYGOTE_CANARY_MS`].
///
/// Errors: a text for people, if the attempt failed for a reason outside the recipe.
pub async fn try_case(host: &Arc<HostState>, parts: &Parts, trial: &Arc<Entry>) -> Result<Tried, String> {
    let recipe = parts.recipe.clone();
    let case = blocking(move || Ok(first_case(&recipe))).await.ok().flatten();
    let tried = async {
        let Some((case, blobs)) = case else { return becomes_ready(host, trial).await.map(|()| Tried::AsItSays) };
        let mut call = Call::new(&parts.recipe.manifest().name.to_string(), &case.operation, case.input.clone())?;
        call.blobs = blobs;
        // This record stays out of the journal, because no caller made the call.
        let mut record = Record::begin(&call);
        let (events, mut dropped) = events::channel(CALL_EVENTS_BYTES_MAX);
        // One chunk more than the case has is enough to show that the number differs.
        let most = match &case.end {
            End::Answer { chunks: Some(chunks), .. } => chunks.len() + 1,
            _ => 0,
        };
        let mut chunks = Vec::new();
        let mut take = |event: Event| {
            if let (Event::Chunk { data, .. }, true) = (event, chunks.len() < most) {
                chunks.push(data.into_value());
            }
        };
        let mut running = std::pin::pin!(run::run_admitted(host, trial, call, events, Instant::now(), &mut record));
        let done = loop {
            tokio::select! {
                biased;
                Some(event) = dropped.recv() => take(event),
                done = &mut running => break done,
            }
        };
        // Events that were sent before the end.
        while let Ok(Some(event)) = timeout(Duration::ZERO, dropped.recv()).await {
            take(event);
        }
        let differs = match &done {
            Ok(outcome) => case.differs(Ok(outcome.output.value()), &chunks),
            Err(fault) if matches!(fault.blame, Blame::Pod | Blame::Machine | Blame::Hob) || fault.code == Code::Deadline => {
                return Err(fault.clone());
            }
            Err(fault) => case.differs(Err(fault), &chunks),
        };
        Ok(differs.map_or(Tried::AsItSays, |why| Tried::Otherwise(format!("case `{}`: {why}", case.name))))
    };
    match timeout(Duration::from_millis(ZYGOTE_CANARY_MS), tried).await {
        Err(_) => Err(format!("not within {ZYGOTE_CANARY_MS} ms")),
        Ok(tried) => tried.map_err(|fault: Fault| fault.message),
    }
}

async fn becomes_ready(host: &Arc<HostState>, trial: &Entry) -> Result<(), Fault> {
    let Some(pool) = trial.pool(host) else { return Ok(()) };
    pool.warm();
    pool.ready().await
}

/// The first case, by name, that ends in an answer and needs no session, with its blobs.
fn first_case(recipe: &Verified) -> Option<(Case, Vec<Blob>)> {
    let mut cases: Vec<_> = std::fs::read_dir(recipe.folder().join("cases")).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    cases.sort();
    cases.into_iter().find_map(|folder| {
        let name = folder.file_name()?.to_str()?;
        let read = |file: &str| durable::read(&folder.join(file), DOCUMENT_BYTES_MAX as u64);
        let case = Case::read(name, &read).ok()?.ok().filter(|case| matches!(case.end, End::Answer { .. }))?;
        if recipe.manifest().operation(&case.operation).ok()?.session {
            return None;
        }
        let file = |(name, file): (&String, &String)| {
            let path = folder.join(file);
            blobs::from_file(name.as_str(), blobs::media_type_of(&path), &path).ok()
        };
        let blobs: Option<Vec<_>> = case.blobs.iter().map(file).collect();
        Some((case, blobs?))
    })
}
