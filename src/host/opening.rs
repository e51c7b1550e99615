//! Opening and shutdown of a host.

use std::{sync::Arc, time::Duration};

use super::{
    Config, Host, HostState, caches, catalogue, compiling, engine::Engine, footprints, lifecycle::Lifecycle, pod_services::PodServices,
    pods, programs::Programs, sessions, zygotes,
};
use crate::{
    disk::owner::Writers,
    model::{Code, Fault, limits},
    pod,
    shelf::{self, store::Shelf},
};

/// Called for each pod that was started, in this order.
const OBSERVERS: &[pods::Observer] = &[caches::observe, zygotes::observe];

/// Refuses a runtime that was built without timers or without IO.
fn has_drivers() -> Result<(), Fault> {
    // Tokio cannot be asked for this: using a missing driver panics, and prints to standard error.
    let timers = std::panic::catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO)));
    let sockets = std::panic::catch_unwind(|| drop(tokio::net::UnixDatagram::unbound()));
    match (timers, sockets) {
        (Ok(()), Ok(())) => Ok(()),
        (timers, _) => {
            let lacks = if timers.is_err() { "timers (`enable_time`)" } else { "IO (`enable_io`)" };
            Err(Fault::new(Code::Usage, format!("the tokio runtime that this host is opened in was built without {lacks}"))
                .hint("build it with `tokio::runtime::Builder::enable_all()`, or use `#[tokio::main]`"))
        }
    }
}

fn checks_at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, limits::SCHEMA_CHECKS_AT_ONCE))
}

impl Host {
    /// Opens the shelf, and ends what killed hosts of this home left. It starts no pod, compiles no wasm and
    /// uses no network.
    ///
    /// Errors: `usage` outside of a tokio runtime, in a runtime without timers or IO, and for [`Limits`]
    /// within which nothing runs; `home_unsafe` if another user may write to this home; `invalid_config`,
    /// `state_unreadable`, `io`.
    pub async fn open(config: Config) -> Result<Host, Fault> {
        let runtime = shelf::runtime()?;
        has_drivers()?;
        config.limits.check()?;
        let opened = shelf::blocking(move || {
            let home = shelf::home::trusted(config.home)?;
            let shelf = Shelf::open(home.clone())?;
            pods::reap_leftovers(&home);
            let keeper = compiling::runner_of(&home)?;
            let runner = keeper.parent().unwrap_or(&keeper);
            let writers = Writers::new(home.group());
            writers.check_with_above(runner).and_then(|()| writers.check_tree(runner))?;
            let hob_toml = crate::shelf::config::Config::read(&home)?;
            let logs = home.logs();
            let tools = hob_toml.tools.overridden_by(config.tools);
            let memory = pod::Budget::new(config.machine, config.limits.within(hob_toml.machine), footprints::read(&home));
            Ok(Host(Arc::new(HostState {
                lifecycle: Lifecycle::begin(),
                runtime,
                limits: config.limits,
                home,
                programs: Programs::new(tools),
                sources: config.sources,
                progress: config.progress,
                shelf,
                engine: Engine::new(config.compiler),
                catalogue: Default::default(),
                journal: Default::default(),
                pod_services: PodServices::new(keeper, config.without),
                pods: pods::Pods::new(pod::Printed::new(logs), OBSERVERS),
                memory,
                zygotes: Default::default(),
                caches: Default::default(),
                sessions: Default::default(),
                forks: config.forks,
                checks: Arc::new(tokio::sync::Semaphore::new(checks_at_once())),
            })))
        });
        let host: Host = opened.await?;
        host.0.shelf.finish_removals(&host.0.progress).await;
        tokio::spawn(catalogue::watch(Arc::downgrade(&host.0)));
        tokio::spawn(sessions::watch(Arc::downgrade(&host.0)));
        tokio::spawn(footprints::watch(Arc::downgrade(&host.0)));
        Ok(host)
    }

    /// Keeps what libraries in pods compiled, for the next host of this home. Call it when all calls are
    /// over, before [`Host::shutdown`]. A host that may fork pods does this by itself. The first time that a
    /// version of a recipe is called, it takes as long as a pod needs to load once more; after that, no time.
    /// Dropping the future leaves the work undone.
    pub async fn keep_caches(&self) {
        caches::before_end(&self.0).await;
    }

    /// Takes no more calls, lets accepted calls finish (for 10 s at most, or as long as
    /// [`Limits::with_drain`] says), stops every pod, and waits until none of their processes is left.
    pub async fn shutdown(&self) {
        self.shutdown_within(self.drain()).await;
    }

    /// How long accepted calls may run on when the host shuts down.
    pub(crate) fn drain(&self) -> Duration {
        self.0.limits.drain.unwrap_or(Duration::from_millis(limits::SHUTDOWN_DRAIN_MS))
    }

    /// [`Host::shutdown`] with another limit for accepted calls; calls that are not done by then end as
    /// `shutting_down`.
    pub async fn shutdown_within(&self, drain: Duration) {
        self.0.lifecycle.close();
        // An app says "as long as it takes" with `Duration::MAX`, which would overflow the clock.
        let until = tokio::time::Instant::now() + drain.min(Duration::from_millis(limits::DRAIN_MAX_MS));
        // A running call may send more asks, so pools stay open to it until it is over.
        let _ = tokio::time::timeout_at(until, self.0.journal.quiet()).await;
        self.0.lifecycle.end();
        self.0.engine.shutdown().await;
        // The state of sessions outlives their pods.
        self.0.sessions.keep_all().await;
        self.0.pods.shutdown(until).await;
        self.0.sessions.end().await;
        self.0.zygotes.shutdown().await;
        let (clerk, printed) = (self.0.pod_services.clerk().clone(), self.0.pods.printed().clone());
        let _ = shelf::blocking(move || {
            clerk.close();
            printed.close();
            Ok(())
        })
        .await;
        footprints::save(&self.0).await;
    }
}
