//! The sessions of a host: which exist, how a call enters one, and how all of them end.
//!
//! A live session is a pool with at most one pod, held under the session's name. A parked session is only its
//! folder on disk. A parked session comes back in the same way whether this host parked it, a host that
//! ended, or one that was killed. `live.rs` has a session while it lives.

mod live;

use crate::disk::look;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use tokio::time::sleep;

pub use live::{Ending, Live, SessionSlot};

use super::{Host, HostState, entry::Entry};
use crate::{
    model::{
        Admitted, Code, Fault, Home, RecipeRef, act, events, hint,
        limits::{CHECKPOINT_WAIT_MS, SESSION_SWEEP_MS},
        status::session::{CheckpointStatus, Mode, SessionState, SessionStatus, check_name},
    },
    shelf::{
        blocking,
        files::locks,
        sessions::{self as disk, Damaged, Found, Identity},
    },
};

/// The live sessions of a host.
#[derive(Default)]
pub struct Sessions {
    live: Mutex<HashMap<Key, Arc<Live>>>,
    /// Held to open or park a session: only its holder makes a session live or drops one.
    gate: tokio::sync::Mutex<()>,
}

/// The key of a session in the map of live sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    recipe: String,
    folder: Option<PathBuf>,
    name: String,
}

impl Key {
    fn of(identity: &Identity) -> Key {
        Key { recipe: identity.recipe.clone(), folder: identity.folder.clone(), name: identity.name.clone() }
    }
}

/// The identity of the session that has that name, of a recipe.
fn identity(entry: &Entry, name: &str) -> Identity {
    let recipe = entry.recipe();
    let folder = recipe.is_unsigned().then(|| recipe.folder().to_owned());
    Identity { recipe: recipe.manifest().name.to_string(), folder, name: name.to_owned() }
}

/// Enters the session that a call names; returns the call's slot in it, or `None` for a call that names no
/// session.
///
/// Errors: `session_busy`, `session_lost`, `sessions_full`, `io`, `disk_full`.
pub async fn enter(
    host: &Arc<HostState>,
    entry: &Arc<Entry>,
    call: &Admitted,
    events: &events::Sender,
) -> Result<Option<SessionSlot>, Fault> {
    let Some(name) = call.session() else { return Ok(None) };
    // A session may be parked right after it was found; then look it up again.
    loop {
        let live = host.sessions.live(host, entry, name, true).await?;
        if let Some(seated) = live.enter(events)? {
            return Ok(Some(seated));
        }
        tokio::task::yield_now().await;
    }
}

impl Sessions {
    fn map(&self) -> MutexGuard<'_, HashMap<Key, Arc<Live>>> {
        self.live.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn all(&self) -> Vec<Arc<Live>> {
        self.map().values().cloned().collect()
    }

    fn get(&self, identity: &Identity) -> Option<Arc<Live>> {
        self.map().get(&Key::of(identity)).cloned()
    }

    /// The session of that name, made live if it is not. `may_make`: a session that does not exist yet is
    /// made.
    ///
    /// Errors: as [`enter`]; `session_not_found`.
    async fn live(&self, host: &Arc<HostState>, entry: &Arc<Entry>, name: &str, may_make: bool) -> Result<Arc<Live>, Fault> {
        let identity = identity(entry, name);
        if let Some(live) = self.get(&identity).filter(|live| live.is_of(entry) && !live.is_leaving()) {
            return Ok(live);
        }
        let _gate = self.gate.lock().await;
        // A session that is still leaving was not dropped completely: what it kept is on disk.
        if let Some(live) = self.get(&identity) {
            if live.is_of(entry) && !live.is_leaving() {
                return Ok(live);
            }
            // The recipe or its permissions changed: the session continues in a pod of the new ones.
            if live.is_at_work() {
                return Err(live.busy("is at work in a pod of the recipe as it was before"));
            }
            self.drop_live(host, &live, Ending::Whatever).await?;
        }
        let live = self.open(host, entry, identity, may_make).await?;
        self.map().insert(Key::of(live.identity()), live.clone());
        Live::tend(&live, host);
        Ok(live)
    }

    async fn open(&self, host: &Arc<HostState>, entry: &Arc<Entry>, identity: Identity, may_make: bool) -> Result<Arc<Live>, Fault> {
        let _moment = moment(&host.home).await?;
        let (home, entry_too) = (host.home.clone(), entry.clone());
        let session = blocking(move || {
            let manifest = entry_too.recipe().manifest();
            let (version, name) = (&manifest.version, &manifest.name);
            let spec = manifest.pod.as_ref().and_then(|pod| pod.session.as_ref());
            let spec =
                spec.ok_or_else(|| Fault::new(Code::Usage, format!("`{name}` keeps no sessions: its manifest has no `[pod.session]`")))?;
            let mut all = disk::all(&home)?;
            // Sessions whose time is over make room.
            let over: Vec<Found> = all.found.extract_if(.., |found| found.is_over(disk::now_ms()) && !found.live).collect();
            over.into_iter().for_each(delete);
            match all.found.iter().position(|found| found.record.identity == identity) {
                Some(at) => {
                    let mut session = all.found.remove(at).take()?;
                    match session.restore(version) {
                        Ok(_) => {}
                        Err(fault) => {
                            // Delete only a session without checkpoints; one that has some could still be
                            // restored.
                            if session.record().checkpoints.is_empty() {
                                session.delete()?;
                            }
                            return Err(fault);
                        }
                    }
                    session.declare(version, spec)?;
                    Ok(session)
                }
                None => match disk::damaged_of(&home, &identity)? {
                    // The name belongs to a damaged session, which nobody can restore.
                    Some(damaged) => Err(damaged.fault()),
                    None if may_make => disk::Session::make(&home, identity, version.clone(), spec, &all.whole()?),
                    None => Err(not_found(&identity)),
                },
            }
        });
        Ok(Live::new(host, entry, session.await?))
    }

    /// Ends the pod of a live session and drops the session. The caller holds the gate.
    async fn drop_live(&self, host: &Arc<HostState>, live: &Arc<Live>, ending: Ending) -> Result<(), Fault> {
        match ending {
            // A call entered the session meanwhile.
            Ending::Parked if !live.park().await? => return Ok(()),
            Ending::Parked => {}
            Ending::Whatever => {
                live.leave();
                if let Err(fault) = live.last_checkpoint().await {
                    tracing::warn!("{} is parked as it was last kept: {fault}", live.title());
                }
            }
            Ending::Closed => {
                live.leave();
                live.say_goodbye().await;
            }
        }
        live.pool().end().await;
        self.map().remove(&Key::of(live.identity()));
        let Some(kept) = live.take_kept().await else { return Ok(()) };
        if matches!(ending, Ending::Closed) {
            let _moment = moment(&host.home).await?;
            blocking(move || kept.delete()).await?;
        }
        Ok(())
    }

    /// Drops a session on behalf of the task that tends it.
    pub async fn park(&self, host: &Arc<HostState>, live: &Arc<Live>, ending: Ending) -> Result<(), Fault> {
        let _gate = self.gate.lock().await;
        match self.get(live.identity()).is_some_and(|now| Arc::ptr_eq(&now, live)) {
            true => self.drop_live(host, live, ending).await,
            false => Ok(()),
        }
    }

    /// Makes all sessions keep their state, all at once, each within a time limit.
    pub async fn keep_all(&self) {
        let mut keeping = tokio::task::JoinSet::new();
        for live in self.all() {
            keeping.spawn(async move {
                if let Err(fault) = live.last_checkpoint().await {
                    tracing::warn!("{} is left as it was last kept: {fault}", live.title());
                }
            });
        }
        keeping.join_all().await;
    }

    /// Drops every session. Their pods are over by now.
    pub async fn end(&self) {
        let all: Vec<Arc<Live>> = self.map().drain().map(|(_, live)| live).collect();
        for live in all {
            live.leave();
            drop(live.take_kept().await);
        }
    }
}

async fn moment(home: &Home) -> Result<locks::Held, Fault> {
    locks::acquire_briefly(&disk::lock_path(home), "looking at sessions").await
}

fn delete(found: Found) {
    let identity = found.record.identity.clone();
    if let Err(fault) = found.take().and_then(disk::Session::delete) {
        tracing::warn!("the session `{}` of `{}` is over and stays: {fault}", identity.name, identity.recipe);
    }
}

fn not_found(identity: &Identity) -> Fault {
    Fault::new(Code::SessionNotFound, format!("`{}` has no session `{}`", identity.recipe, identity.name))
        .hint(hint![act::sessions(), " lists those that there are"])
}

/// Deletes parked sessions whose time is over, at intervals, for as long as the host exists.
pub async fn watch(host: Weak<HostState>) {
    loop {
        sleep(Duration::from_millis(SESSION_SWEEP_MS)).await;
        let Some(host) = host.upgrade() else { return };
        if let Err(fault) = sweep(&host.home).await {
            tracing::warn!("sessions whose time is over stay for now: {fault}");
        }
    }
}

async fn sweep(home: &Home) -> Result<(), Fault> {
    if !look::is_there(&home.sessions())? {
        return Ok(());
    }
    let _moment = moment(home).await?;
    let home = home.clone();
    blocking(move || {
        let now = disk::now_ms();
        disk::all(&home)?.found.into_iter().filter(|found| !found.live && found.is_over(now)).for_each(delete);
        Ok(())
    })
    .await
}

impl Host {
    /// All sessions of this home, including those of other hosts.
    pub async fn sessions(&self) -> Result<Vec<SessionStatus>, Fault> {
        let home = self.0.home.clone();
        let (found, damaged) = blocking(move || Ok((disk::all(&home)?.whole()?, disk::damaged(&home)?))).await?;
        let status = |found: Found| {
            let live = self.0.sessions.get(&found.record.identity);
            shown(&found, live.as_deref())
        };
        Ok(found.into_iter().map(status).chain(damaged.iter().map(shown_damaged)).collect())
    }

    /// Opens a session and starts its pod; a session that is open already stays open. A call that names a
    /// session does the same.
    ///
    /// Errors: those of finding a recipe; `usage`, `session_busy`, `session_lost`, `sessions_full`, `io`,
    /// `disk_full`, `shutting_down`.
    pub async fn open_session(&self, recipe: &RecipeRef, name: &str) -> Result<SessionStatus, Fault> {
        check_name(name)?;
        let entry = self.entry_to_open(recipe).await?;
        let live = self.0.sessions.live(&self.0, &entry, name, true).await?;
        live.pool().warm();
        self.shown(live.identity()).await
    }

    /// Makes a session keep its state now; returns its last checkpoint. For a parked session, that is the
    /// checkpoint on disk.
    ///
    /// Errors: `session_not_found`, `session_busy` when another host has it, `usage` when its pod has no
    /// state to give, and any fault that kept the pod from giving it.
    pub async fn checkpoint_session(&self, recipe: &RecipeRef, name: &str) -> Result<Option<CheckpointStatus>, Fault> {
        let identity = self.identity(recipe, name).await?;
        if let Some(live) = self.0.sessions.get(&identity) {
            return live.checkpoint(Duration::from_millis(CHECKPOINT_WAIT_MS)).await;
        }
        let found = self.found(&identity).await?;
        let last = found.record.checkpoints.last().map(|kept| kept.status.clone());
        self.held(found).await.map(|_| last)
    }

    /// Restarts the timeouts of a session, as a call does.
    ///
    /// Errors: `session_not_found`, `session_busy` when another host has it.
    pub async fn touch_session(&self, recipe: &RecipeRef, name: &str) -> Result<SessionStatus, Fault> {
        let identity = self.identity(recipe, name).await?;
        match self.0.sessions.get(&identity) {
            Some(live) => live.touch(),
            None => {
                let mut session = self.held(self.found(&identity).await?).await?;
                session.used(false).map_err(|error| Fault::io("touching a session", &error))?;
            }
        }
        self.shown(&identity).await
    }

    /// Ends a session for good: its calls, its pod and its kept state.
    ///
    /// Errors: `session_not_found`, `session_busy` when another host has it, `io`.
    pub async fn close_session(&self, recipe: &RecipeRef, name: &str) -> Result<(), Fault> {
        if let Some(damaged) = self.damaged(recipe, name).await? {
            let _moment = moment(&self.0.home).await?;
            return blocking(move || damaged.delete()).await;
        }
        let identity = self.identity(recipe, name).await?;
        if let Some(live) = self.0.sessions.get(&identity) {
            return self.0.sessions.park(&self.0, &live, Ending::Closed).await;
        }
        let _moment = moment(&self.0.home).await?;
        let found = self.found(&identity).await?;
        blocking(move || found.take()?.delete()).await
    }

    async fn entry_to_open(&self, recipe: &RecipeRef) -> Result<Arc<Entry>, Fault> {
        self.0.lifecycle.check_open("opens no session any more")?;
        self.0.catalogue.find(&self.0, recipe).await
    }

    /// The damaged session of that name, unless this host has it live: a live session rewrites its record.
    async fn damaged(&self, recipe: &RecipeRef, name: &str) -> Result<Option<Damaged>, Fault> {
        check_name(name)?;
        let (word, home, name) = (self.settled(recipe).await?, self.0.home.clone(), name.to_owned());
        let damaged = blocking(move || {
            Ok(match &word {
                RecipeRef::Name(recipe) => disk::damaged_of(&home, &Identity { recipe: recipe.to_string(), folder: None, name })?,
                RecipeRef::Folder(folder) => {
                    let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
                    let is_it = |identity: &Identity| identity.name == name && identity.folder.as_ref() == Some(&folder);
                    disk::damaged(&home)?.into_iter().find(|damaged| damaged.identity.as_ref().is_some_and(is_it))
                }
                // `settled` replaced capabilities above.
                RecipeRef::Capability(_) => None,
            })
        });
        let is_live = |identity: &Identity| self.0.sessions.get(identity).is_some();
        Ok(damaged.await?.filter(|damaged| !damaged.identity.as_ref().is_some_and(is_live)))
    }

    /// Works without the recipe, so that a session whose recipe is gone can be closed.
    async fn identity(&self, recipe: &RecipeRef, name: &str) -> Result<Identity, Fault> {
        check_name(name)?;
        if let Some(damaged) = self.damaged(recipe, name).await? {
            return Err(damaged.fault());
        }
        let (word, home) = (self.settled(recipe).await?, self.0.home.clone());
        let name = name.to_owned();
        blocking(move || {
            let folder = match &word {
                RecipeRef::Folder(folder) => Some(folder.canonicalize().unwrap_or_else(|_| folder.clone())),
                RecipeRef::Name(_) | RecipeRef::Capability(_) => None,
            };
            let is_it = |found: &Found| {
                let identity = &found.record.identity;
                identity.name == name && identity.folder == folder && (folder.is_some() || identity.recipe == word.to_string())
            };
            let all = disk::all(&home)?;
            match all.found.iter().find(|found| is_it(found)) {
                Some(found) => Ok(found.record.identity.clone()),
                None => all.whole().and(Err(not_found(&Identity { recipe: word.to_string(), folder, name: name.clone() }))),
            }
        })
        .await
    }

    async fn found(&self, identity: &Identity) -> Result<Found, Fault> {
        let (home, wanted) = (self.0.home.clone(), identity.clone());
        blocking(move || {
            let mut all = disk::all(&home)?;
            match all.found.iter().position(|found| found.record.identity == wanted) {
                Some(at) => Ok(all.found.swap_remove(at)),
                None => all.whole().and(Err(not_found(&wanted))),
            }
        })
        .await
    }

    async fn held(&self, found: Found) -> Result<disk::Session, Fault> {
        let _moment = moment(&self.0.home).await?;
        blocking(move || found.take()).await
    }

    async fn shown(&self, identity: &Identity) -> Result<SessionStatus, Fault> {
        let found = self.found(identity).await?;
        Ok(shown(&found, self.0.sessions.get(identity).as_deref()))
    }
}

fn shown_damaged(damaged: &Damaged) -> SessionStatus {
    let idle_ms = disk::now_ms().saturating_sub(damaged.used_ms);
    let identity = damaged.identity.as_ref();
    SessionStatus {
        recipe: identity.map_or("?", |identity| &identity.recipe).to_owned(),
        folder: identity.and_then(|identity| Some(identity.folder.as_ref()?.display().to_string())),
        name: identity.map_or_else(|| damaged.folder_name(), |identity| identity.name.clone()),
        version: "?".to_owned(),
        mode: Mode::Exclusive,
        state: SessionState::Damaged,
        running: 0,
        age_ms: idle_ms,
        idle_ms,
        calls: damaged.calls,
        checkpoint: None,
        checkpoint_fault: Some(damaged.fault()),
    }
}

fn shown(found: &Found, live: Option<&Live>) -> SessionStatus {
    let (record, now) = (&found.record, disk::now_ms());
    SessionStatus {
        recipe: record.identity.recipe.clone(),
        folder: record.identity.folder.as_ref().map(|folder| folder.display().to_string()),
        name: record.identity.name.clone(),
        version: record.version.to_string(),
        mode: record.mode,
        state: if found.live { SessionState::Live } else { SessionState::Parked },
        running: live.map_or(0, Live::running),
        age_ms: now.saturating_sub(record.made_ms),
        idle_ms: now.saturating_sub(found.used_ms),
        calls: found.calls,
        checkpoint: record.checkpoints.last().map(|kept| kept.status.clone()),
        checkpoint_fault: live.and_then(Live::checkpoint_fault),
    }
}
