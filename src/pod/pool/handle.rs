//! The callers' handle on a pool: they send asks, read its status, and end it.

use std::sync::{Arc, Weak};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    model::{
        Code, Fault, Verified,
        limits::FAILING_ENDS_MIN,
        manifest::spec::PoolSpec,
        status::{self, Health, PodStatus, PoolStatus},
    },
    pod::{
        pool::{
            PoolShared,
            ask::{Ask, Pending, Request, digest},
            member::Member,
            poison::Tally,
            refusals::{ending, overdue},
            restarts::MayStart,
            schedule::{Group, Waiting},
            spawner::Spawner,
            watcher::PodShared,
        },
        stream,
    },
};

/// The pods of one recipe. Cloning shares them; once the last clone and the last ask are dropped, the pods
/// finish and exit.
#[derive(Clone)]
pub struct Pool(pub(super) Arc<PoolShared>);

/// A handle on a pool that does not keep it alive.
#[derive(Clone)]
pub struct WeakPool(Weak<PoolShared>);

impl Pool {
    /// An empty pool: the first ask starts the first pod. Must be used within a tokio runtime.
    pub fn new(recipe: Arc<Verified>, spec: PoolSpec, concurrency: u32, spawner: Arc<dyn Spawner>) -> Pool {
        Pool(PoolShared::new(recipe, spec, concurrency as usize, spawner))
    }

    /// Sends a request. It waits for its turn; if no pod has room and the pool may grow, a pod is started.
    ///
    /// Errors: `overloaded` and `cooling_down` (both with `retry_after`), `poison_request`, `shutting_down`;
    /// `invalid_input` for blobs of an operation that goes in batches.
    pub fn ask(&self, request: Request) -> Result<Ask, Fault> {
        let pool = &self.0;
        if request.operation.batch.is_some() && !request.blobs.is_empty() {
            let text = format!("`{}` takes its asks in batches, which carry no blobs", request.operation.name);
            return Err(Fault::new(Code::InvalidInput, text).hint("send the data within the input"));
        }
        let (now, priority) = (pool.now(), request.priority);
        let waiting = Waiting {
            priority,
            arrived: now,
            deadline: pool.at(request.deadline),
            group: request.operation.batch.is_some().then(|| Group { operation: request.operation.clone(), cost: request.cost, cohort: 0 }),
        };
        let (sender, chunks) = match request.operation.streaming {
            true => Some(stream::stream()).unzip(),
            false => (None, None),
        };
        let (end, receiver) = oneshot::channel();
        // Not under the lock: inputs may be large.
        let digest = pool.has_suspects().then(|| digest(&request));
        let ticket = pool.change(|change| {
            let now = change.now;
            if change.state.closed {
                return Err(ending());
            }
            if let Some(digest) = digest {
                if let Some(after) = change.state.poison.check(&digest, now) {
                    return Err(pool.poisoned(&request.operation.name, after));
                }
                pool.note_suspects(change.state);
            }
            pool.check_cooling(change.state, now, waiting.deadline)?;
            change.state.used = true;
            let late = change.state.schedule.shed(now);
            change.refuse(late, overdue());
            let pending =
                Pending { request, chunks: sender, end, tally: Tally::default(), begun: 0, ran: false, lowered: false, gave: false };
            let pushed = change.state.schedule.push(pending, waiting).map_err(|refused| {
                drop(refused.item);
                Fault::new(Code::Overloaded, format!("{} asks wait for `{}` already", refused.waiting, pool.name()))
                    .hint("call again after `retry_after` milliseconds: that is how long the queue takes to move at its present pace")
                    .retry_after(refused.retry_after)
            });
            pool.dispatch(change);
            change.state.tell_outranked(priority);
            pushed
        })?;
        Ok(Ask::new(pool.clone(), ticket, chunks, receiver))
    }

    /// Starts a pod ahead of the first ask, if there is none; from then on `min` pods are kept.
    pub fn warm(&self) {
        self.0.change(|change| {
            if !(change.state.closed || (change.state.used && !change.state.members.is_empty())) {
                change.state.used = true;
                self.0.grow(change, true);
            }
        });
    }

    /// Completes when a pod of the pool is ready.
    ///
    /// Errors: the fault of the last pod that ended or could not be started, if there is one before that.
    pub async fn ready(&self) -> Result<(), Fault> {
        loop {
            let changed = self.0.changed();
            {
                let state = self.0.lock();
                if state.members.iter().any(Member::is_serving) {
                    return Ok(());
                }
                if let Some(fault) = &state.last_fault {
                    return Err(fault.clone());
                }
            }
            changed.await;
        }
    }

    /// Forgets failures: the next ask starts a pod at once, and inputs that ended a pod are tried again.
    pub fn lift(&self) {
        self.0.change(|change| {
            let state = &mut *change.state;
            state.restarts.lift();
            state.poison.clear();
            (state.failing, state.fallback, state.hopeless) = (0, 0, None);
            self.0.note_suspects(change.state);
            self.0.dispatch(change);
        });
    }

    /// Reads each pod's memory from the system.
    pub fn status(&self) -> PoolStatus {
        let pool = &self.0;
        // Before the lock: with this pool, this may be the last reference to a session that ends.
        let session = pool.spawner.session();
        let state = pool.lock();
        let now = pool.now();
        let (health, retry_after) = match state.restarts.may_start(now) {
            MayStart::Quarantined(until) => (Health::Quarantined, Some(until)),
            // Nothing failed: there was no room for a pod.
            MayStart::At(at) if state.failing == 0 => (Health::Good, Some(at)),
            MayStart::At(at) => (Health::Failing, Some(at)),
            MayStart::Now if state.failing >= FAILING_ENDS_MIN => (Health::Failing, None),
            MayStart::Now => (Health::Good, None),
        };
        let [interactive, normal, bulk] = state.schedule.counts();
        let (recipe, version) = (pool.name(), pool.recipe.manifest().version.to_string());
        let members: Vec<_> = state.members.iter().map(|member| (member.since(), member.watcher().cloned())).collect();
        let mut status = PoolStatus {
            recipe,
            session,
            version,
            health,
            retry_after: retry_after.map(|at| at.saturating_sub(now).as_millis() as u64),
            waiting: status::Waiting { interactive, normal, bulk },
            pods_max: pool.spec.max,
            lever: pool.fallback_status(state.fallback),
            asks_done: state.done,
            asks_failed: state.failed,
            asks_repeated: state.repeated,
            crashes: state.crashes,
            last_fault: state.last_fault.clone(),
            pods: Vec::new(),
        };
        drop(state);
        status.pods = members
            .into_iter()
            .map(|(since, watcher)| match watcher {
                Some(watcher) => watcher.status(),
                None => PodStatus::provisioning(&status.recipe, &status.version, since.elapsed().as_millis() as u64),
            })
            .collect();
        status
    }

    /// `publisher/name` of the recipe.
    pub fn recipe(&self) -> String {
        self.0.name()
    }

    /// Whether this is the pool of that very recipe.
    pub fn is_of(&self, recipe: &Arc<Verified>) -> bool {
        Arc::ptr_eq(&self.0.recipe, recipe)
    }

    /// From now on every ask is refused.
    pub fn refuse_all(&self) {
        self.0.lock().closed = true;
    }

    /// Takes no new asks. Returns when all accepted asks are over, or at `until`: then asks that still wait
    /// end as `shutting_down`.
    pub async fn close(&self, until: Instant) {
        let pool = &self.0;
        self.refuse_all();
        loop {
            let changed = pool.changed();
            let is_quiet = pool.lock().is_quiet();
            if is_quiet || timeout_at(until, changed).await.is_err() {
                break;
            }
        }
        pool.change(|change| change.refuse_all(ending()));
    }

    pub fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0))
    }

    /// Requests the state of the running pods; returns whether there is one.
    pub fn want_checkpoint(&self) -> bool {
        self.tell_all(|shared| shared.request_checkpoint())
    }

    /// Whether no pod is running or being started.
    pub fn is_empty(&self) -> bool {
        self.0.lock().members.is_empty()
    }

    /// Tells the running pods that their session is closed; returns whether there is one.
    pub fn want_close(&self) -> bool {
        self.tell_all(|shared| shared.request_close())
    }

    fn tell_all(&self, tell: impl Fn(&PodShared)) -> bool {
        let state = self.0.lock();
        let serving = state.members.iter().filter(|member| member.is_serving()).filter_map(|member| member.watcher());
        serving.map(|watcher| tell(&watcher.shared)).count() > 0
    }

    /// Takes no new asks, ends the waiting ones, and returns when no process of its pods is left.
    pub async fn end(&self) {
        self.close(Instant::now()).await;
        let watchers: Vec<_> = self.0.lock().members.iter().filter_map(|member| member.watcher().cloned()).collect();
        for watcher in watchers {
            watcher.stop().await;
        }
    }
}

impl WeakPool {
    pub fn upgrade(&self) -> Option<Pool> {
        self.0.upgrade().map(Pool)
    }
}
