//! The one object that doors and apps use: calls, what is installed, pods, sessions, the journal.
//!
//! ```text
//!    run.rs  one call, top to bottom: start here
//!      |-- catalogue.rs --> entry.rs   which recipe; its compiled glue and its pool
//!      |-- sessions.rs                 a pod that is kept by name
//!      |-- lease.rs                    glue meets pods
//!      +-- journal.rs                  what is counted of it
//!    install.rs, grants.rs             what changes the shelf and hob.toml
//!    pods.rs, zygotes.rs, caches.rs    all pods that run; which are forked; what libraries keep
//!    compiler.rs                       the process that compiles glue
//!    status.rs, doctor.rs, printing.rs what is told of all this
//! ```

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;

use crate::{
    disk::{owner::Writers, threads},
    glue::{Glue, Prepared},
    model::{Call, Code, Event, Fault, Home, Outcome, RecipeName, RecipeRef, Verified, events, limits, progress},
    pod,
    shelf::{self, environment::tools::Tools, models::sources::Sources, store::Shelf},
};

pub mod blobs;
mod caches;
mod catalogue;
pub(crate) mod compiler;
mod compiling;
mod config;
mod doctor;
mod editions;
mod entry;
mod footprints;
mod grants;
mod install;
mod journal;
mod lease;
mod pods;
mod printing;
mod run;
mod sessions;
mod status;
mod strays;
mod zygotes;

pub use compiler::GlueCompiler;
pub use compiling::WithinWalls;
pub use config::{Config, Limits};
pub use grants::{Consent, Granted, Revoke};
pub use install::{Added, Asked, Shown};
pub use journal::Record;
pub use printing::past_logs;
pub use strays::Stray;

/// A plugin host. Cloning shares it.
///
/// ```no_run
/// use hob::{Call, Config, Fault, Host};
///
/// #[tokio::main]
/// async fn main() -> Result<(), Fault> {
///     let host = Host::open(Config::from_environment()?).await?;
///     let input = serde_json::json!({ "text": "hello" });
///     let outcome = host.call(Call::new("hob/sentence-embeddings", "embed", input)?).await?;
///     println!("{} numbers", outcome.output.value()["embeddings"][0].as_array().map_or(0, Vec::len));
///     host.shutdown().await;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Host(Arc<Inner>);

/// What all parts of a host share.
pub(crate) struct Inner {
    opened: std::time::Instant,
    /// The runtime that it was opened in.
    runtime: tokio::runtime::Handle,
    limits: Limits,
    home: Home,
    tools: Tools,
    /// The places that recipes name for models.
    sources: Sources,
    progress: progress::Shared,
    shelf: Shelf,
    /// The wasm engine, started with the first recipe that has glue.
    glue: std::sync::OnceLock<Glue>,
    /// Held while it is started: by one at a time.
    starts_glue: std::sync::Mutex<()>,
    compiler: GlueCompiler,
    /// Glue that is compiled for a call goes on without the call, and ends with the host.
    compiles: tokio_util::task::TaskTracker,
    ending: tokio_util::sync::CancellationToken,
    catalogue: catalogue::Catalogue,
    journal: journal::Journal,
    /// The unpacked keeper of pods.
    keeper: std::path::PathBuf,
    /// Lends files to pods.
    clerk: pod::Clerk,
    pods: pods::Pods,
    spools: Arc<pod::Spools>,
    /// Who may have models loaded.
    memory: pod::Budget,
    zygotes: zygotes::Zygotes,
    caches: caches::Caches,
    sessions: sessions::Sessions,
    /// It lives long enough for a zygote to be worth its while.
    forks: bool,
    /// Layers of the sandbox to take for unavailable.
    without: Arc<[String]>,
    /// Long checks against schemas, of all recipes: half the cores, so that what others wait for goes on.
    checks: Arc<tokio::sync::Semaphore>,
    /// It takes no calls any more.
    closing: AtomicBool,
    /// Interpreters that were found, by the range that was asked for: each costs a process to ask.
    pythons: std::sync::Mutex<std::collections::HashMap<String, Arc<tokio::sync::OnceCell<crate::shelf::environment::python::Python>>>>,
}

impl Inner {
    /// A recipe's glue, linked: read if it was compiled before, else compiled by another process. That goes on when the future is dropped,
    /// as the building of an environment does, so that a call with a short deadline leaves something to the next one.
    ///
    /// Errors: those of [`Glue::compile`]; `shutting_down`.
    async fn prepare_glue(self: &Arc<Self>, recipe: &Arc<Verified>) -> Result<Prepared, Fault> {
        let (host, recipe) = (self.clone(), recipe.clone());
        let compiled = self.compiles.spawn(async move {
            let engines = host.clone();
            shelf::blocking(move || engines.glue().map(drop)).await?;
            tokio::select! {
                prepared = host.glue()?.compile(&recipe) => prepared,
                () = host.ending.cancelled() => Err(Fault::new(Code::ShuttingDown, "the host ended while glue was compiled")),
            }
        });
        compiled.await.map_err(|error| Fault::new(Code::Internal, format!("compiling glue ended early: {error}")))?
    }

    /// The wasm engine. Blocking until it was started once; what the machine lacked for that it may have the next time.
    fn glue(&self) -> Result<&Glue, Fault> {
        let _one = match self.glue.get() {
            Some(glue) => return Ok(glue),
            None => self.starts_glue.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        };
        if self.glue.get().is_none() {
            let _ = self.glue.set(Glue::open(&self.home.compile_cache(), Arc::new(self.compiler.clone()))?);
        }
        self.glue.get().ok_or_else(|| Fault::new(Code::Internal, "the engine of glue is gone"))
    }
}

/// Refuses a runtime that was made without timers or without IO.
fn has_drivers() -> Result<(), Fault> {
    // Tokio has no question for this: it panics where one would be used, and says so on standard error.
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
    /// Opens the shelf, and ends what killed hosts of this home left; no pod is started, no wasm compiled and no network touched.
    ///
    /// Errors: `usage` outside of a tokio runtime, or in one without timers or IO, and for [`Limits`] within which nothing runs; `home_unsafe` while somebody else may write to this home;
    /// `invalid_config`, `state_unreadable`, `io`.
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
            Ok(Host(Arc::new(Inner {
                opened: std::time::Instant::now(),
                runtime,
                limits: config.limits,
                home,
                tools,
                sources: config.sources,
                progress: config.progress,
                shelf,
                glue: Default::default(),
                starts_glue: Default::default(),
                compiler: config.compiler,
                compiles: Default::default(),
                ending: Default::default(),
                catalogue: Default::default(),
                journal: Default::default(),
                clerk: pod::Clerk::new(&keeper, &config.without),
                keeper,
                pods: pods::Pods::new(pod::Printed::new(logs)),
                spools: Default::default(),
                memory,
                zygotes: Default::default(),
                caches: Default::default(),
                sessions: Default::default(),
                forks: config.forks,
                without: config.without,
                checks: Arc::new(tokio::sync::Semaphore::new(checks_at_once())),
                closing: Default::default(),
                pythons: Default::default(),
            })))
        });
        let host: Host = opened.await?;
        host.0.shelf.finish_removals(&host.0.progress).await;
        tokio::spawn(catalogue::watch(Arc::downgrade(&host.0)));
        tokio::spawn(sessions::watch(Arc::downgrade(&host.0)));
        tokio::spawn(footprints::watch(Arc::downgrade(&host.0)));
        Ok(host)
    }

    /// Runs a call to its end; chunks and progress are dropped, so that of a streaming operation only what it returns is here.
    /// [`Host::call_with`] and [`Host::start`] give them.
    ///
    /// Dropping the future cancels the call down to the worker.
    pub async fn call(&self, call: Call) -> Result<Outcome, Fault> {
        shelf::runtime()?;
        let (events, mut dropped) = self.events();
        let drain = async {
            while dropped.recv().await.is_some() {}
            std::future::pending().await
        };
        // Not until all senders are gone: a pod that is busy with others may hold one for long.
        tokio::select! {
            outcome = run::run(&self.0, call, events) => outcome,
            never = drain => never,
        }
    }

    /// Runs a call to its end, and reads its output as a type of the app's. [`Host::call`] gives blobs as well, and says who answered.
    ///
    /// ```no_run
    /// # async fn f(host: hob::Host) -> Result<(), hob::Fault> {
    /// #[derive(serde::Serialize)]
    /// struct Texts<'a> { texts: &'a [&'a str] }
    /// #[derive(serde::Deserialize)]
    /// struct Embeddings { embeddings: Vec<Vec<f32>> }
    ///
    /// let texts = Texts { texts: &["one", "two"] };
    /// let found: Embeddings = host.call_typed(hob::Call::new("hob/sentence-embeddings", "embed", texts)?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Errors: those of the call; `usage` where the output is of another shape.
    pub async fn call_typed<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<T, Fault> {
        self.call(call).await?.read()
    }

    /// Starts a call: a stream of events, then the outcome. Dropping it cancels the call down to the worker.
    pub fn start(&self, call: Call) -> Running {
        let (sender, events) = self.events();
        let host = self.0.clone();
        // Of the host's own runtime: this may be called on a thread that has none.
        let task = self.0.runtime.spawn(async move { run::run(&host, call, sender).await });
        Running { events, outcome: None, task }
    }

    fn events(&self) -> (events::Sender, events::Receiver) {
        events::channel(self.0.limits.events_bytes.unwrap_or(limits::CALL_EVENTS_BYTES_MAX))
    }

    /// Runs a call to its end, and gives each of its events to `on_event`, in order and one at a time; all were given when the outcome comes.
    ///
    /// `on_event` runs on a thread where it may take its time and block: while it does, this call is one whose caller is slow, and nothing else
    /// waits. Its chunks are held back in the pod, and of progress it gets the latest. For many small chunks [`Host::start`] costs less.
    ///
    /// Dropping the future cancels the call down to the worker; `on_event` is let finish with the event that it has, and gets no more. A
    /// panic in it is one of this future, which cancels the call as well.
    ///
    /// ```no_run
    /// use hob::{Call, Fault, Host};
    ///
    /// async fn embed(host: &Host, texts: &[&str]) -> Result<(), Fault> {
    ///     let call = Call::new("hob/sentence-embeddings", "embed", serde_json::json!({ "texts": texts }))?;
    ///     let outcome = host
    ///         .call_with(call, |event| {
    ///             if let Some(report) = event.report() {
    ///                 println!("{report}, {:.0} %", report.share().unwrap_or(0.0) * 100.0); // 32 of 100 texts, 32 %
    ///             }
    ///         })
    ///         .await?;
    ///     println!("done in {:.0} ms", outcome.wall_ms);
    ///     Ok(())
    /// }
    /// ```
    pub async fn call_with(&self, call: Call, mut on_event: impl FnMut(Event) + Send + 'static) -> Result<Outcome, Fault> {
        let mut running = self.start(call);
        while let Some(event) = running.next().await {
            let given = threads::start(move || {
                on_event(event);
                on_event
            });
            let ended = || Fault::new(Code::Internal, "the runtime ended during a call");
            on_event = given?.panicking().await.ok_or_else(ended)?;
        }
        running.outcome().await
    }

    /// What was called lately.
    pub fn journal(&self) -> Vec<Record> {
        self.0.journal.records()
    }

    /// What a caller's word for a recipe means: a name, a folder, or a capability that one installed recipe provides. A recipe that is named need
    /// not be there.
    ///
    /// Errors: `usage`, `recipe_not_found` when nothing provides the capability or several recipes do; the provider's own fault when it is damaged.
    pub async fn resolve(&self, word: &str) -> Result<RecipeRef, Fault> {
        self.settled(&word.parse()?).await
    }

    /// With the recipe that provides it in place of a capability.
    pub(super) async fn settled(&self, recipe: &RecipeRef) -> Result<RecipeRef, Fault> {
        match recipe {
            RecipeRef::Capability(word) => Ok(RecipeRef::Name(self.0.catalogue.provider(&self.0, word).await?)),
            RecipeRef::Name(_) | RecipeRef::Folder(_) => Ok(recipe.clone()),
        }
    }

    /// The same where only what is installed makes sense.
    ///
    /// Errors: those of [`Host::resolve`]; `usage` for a folder.
    pub async fn resolve_name(&self, word: &str) -> Result<RecipeName, Fault> {
        match self.resolve(word).await? {
            RecipeRef::Name(name) => Ok(name),
            RecipeRef::Folder(_) | RecipeRef::Capability(_) => word.parse(),
        }
    }

    /// Keeps what libraries in pods compiled, for the next host of this home: to be called when all calls are over, before
    /// [`Host::shutdown`]. Where pods may be forked a host does so by itself. It takes as long as a pod needs to load once more,
    /// the first time that a version of a recipe is called; else nothing. Dropping the future leaves it undone.
    pub async fn keep_caches(&self) {
        caches::before_end(&self.0).await;
    }

    /// Takes no more calls, lets the accepted ones finish (for 10 s at most, or as long as [`Limits::with_drain`] says), stops every pod and waits
    /// until no process of theirs is left.
    pub async fn shutdown(&self) {
        self.shutdown_within(self.drain()).await;
    }

    /// How long accepted calls have to finish when it ends.
    pub(crate) fn drain(&self) -> Duration {
        self.0.limits.drain.unwrap_or(Duration::from_millis(limits::SHUTDOWN_DRAIN_MS))
    }

    /// Where its files lie.
    pub(crate) fn home(&self) -> &Home {
        &self.0.home
    }

    /// [`Host::shutdown`] that lets accepted calls finish for so long at most; what is not done then ends as `shutting_down`.
    pub async fn shutdown_within(&self, drain: Duration) {
        self.0.closing.store(true, Ordering::Release);
        // `Duration::MAX` is how an app says "as long as it takes", and no clock goes so far.
        let until = tokio::time::Instant::now() + drain.min(Duration::from_millis(limits::DRAIN_MAX_MS));
        // A call may have more asks to make: pools are open to it until it is over.
        let _ = tokio::time::timeout_at(until, self.0.journal.quiet()).await;
        self.0.ending.cancel();
        self.0.compiles.close();
        self.0.compiles.wait().await;
        // What sessions have outlives their pods.
        self.0.sessions.keep_all().await;
        self.0.pods.shutdown(until).await;
        self.0.sessions.end().await;
        self.0.zygotes.shutdown().await;
        let (clerk, printed) = (self.0.clerk.clone(), self.0.pods.printed().clone());
        let _ = shelf::blocking(move || {
            clerk.close();
            printed.close();
            Ok(())
        })
        .await;
        footprints::save(&self.0).await;
    }
}

/// A call under way.
pub struct Running {
    events: events::Receiver,
    task: tokio::task::JoinHandle<Result<Outcome, Fault>>,
    outcome: Option<Result<Outcome, Fault>>,
}

impl Running {
    /// The next event; `None` when the outcome is all that is left.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    /// The outcome; events not taken are dropped.
    pub async fn outcome(mut self) -> Result<Outcome, Fault> {
        while self.next().await.is_some() {}
        match self.outcome.take() {
            Some(outcome) => outcome,
            None => joined((&mut self.task).await),
        }
    }

    fn poll_event(&mut self, context: &mut Context) -> Poll<Option<Event>> {
        if self.outcome.is_none()
            && let Poll::Ready(outcome) = Pin::new(&mut self.task).poll(context)
        {
            self.outcome = Some(joined(outcome));
            // Nothing comes after the outcome, whoever still holds a sender: a pod that is busy with others may for long.
            self.events.close();
        }
        self.events.poll_recv(context)
    }
}

fn joined(outcome: Result<Result<Outcome, Fault>, tokio::task::JoinError>) -> Result<Outcome, Fault> {
    outcome.unwrap_or_else(|error| Err(Fault::new(Code::Internal, format!("a call ended early: {error}"))))
}

impl Stream for Running {
    type Item = Event;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(context)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
