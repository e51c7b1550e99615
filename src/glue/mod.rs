//! One call of glue: wasmtime, the world `hob:glue`, its caps.
//!
//! Independent of shelf and pods: bytes come as a [`Verified`], asks go out through [`Pods`], which `host`
//! implements. A run has an instance, a store and budgets of its own and leaves nothing behind; dropping its
//! future cancels it. Read [`Prepared::run`] first.

pub mod caps;
mod check;
mod compiling;
mod crash;
mod engine;
pub mod handles;
mod imports;
mod output;
pub mod pods;
mod run;
pub mod small;
#[cfg(test)]
mod tests;
mod ticker;
mod wasi;
mod world;

/// Entry points for `crate::fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::{crash::said, world::hob::glue::faults::Fault as GuestFault};
}

use pods::{Crossings, Pods};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use wasmtime::{
    Engine, Store,
    component::{Component, HasSelf, Linker},
};

pub(crate) use self::compiling::{compile as compile_here, confine, receive};
pub use self::{
    compiling::{Compiled, Compiler, Job},
    engine::Reservation,
    wasi::SOCKETS_UNUSED,
};
use crate::{
    disk::{self, threads::blocking},
    model::{Admitted, Blob, Code, Digest, Document, Fault, Manifest, RecipeName, Verified, act, events, hint, limits},
};
use engine::Engines;
use output::Said;
use run::Run;
use small::{Random, Seed};
use ticker::Ticker;
use wasi::Wasi;

/// The result of a run that succeeded.
#[derive(Debug)]
pub struct Response {
    /// Not yet checked against the operation's schema.
    pub output: Document,
    pub blobs: Vec<Blob>,
    pub crossings: Crossings,
}

/// Runs all glue on this machine. One per process.
pub struct Glue(Arc<Inner>);

struct Inner {
    engines: Engines,
    ticker: Ticker,
    room: Semaphore,
    compiler: Arc<dyn Compiler>,
    compiles: Semaphore,
    /// Held while compiled code is read: a counter tells what was found, so only one read may run.
    reads: Mutex<()>,
}

/// The result of reading compiled code.
enum Read {
    There(Component),
    /// The code must be compiled, for engines of this kind.
    Missing(Reservation),
}

/// Glue to be compiled and linked.
#[derive(Clone)]
struct Unlinked {
    manifest: Arc<Manifest>,
    component: Bytes,
    /// Identifies the recipe to callers.
    recipe: Digest,
}

/// A recipe's glue, compiled and linked. Cloning shares it.
#[derive(Clone)]
pub struct Prepared {
    glue: Arc<Inner>,
    pre: Arc<world::GluePre<Run>>,
    wasi: Wasi,
    recipe: Digest,
}

impl Glue {
    /// Starts the engines. Compiled code is kept in `compile_cache`, which is made for this user only;
    /// `compiler` compiles missing code, in another process.
    ///
    /// Errors: `io` for the folder or the ticker's thread, `internal` if wasmtime refuses its settings.
    pub fn open(compile_cache: &Path, compiler: Arc<dyn Compiler>) -> Result<Glue, Fault> {
        Glue::with(engine::open(compile_cache)?, compiler)
    }

    fn with(engines: Engines, compiler: Arc<dyn Compiler>) -> Result<Glue, Fault> {
        let all = engines.pooled.iter().map(|(engine, _)| engine).chain([&engines.on_demand]);
        let ticker = Ticker::start(all.map(Engine::weak).collect())?;
        let room = Semaphore::new(engines.instances as usize);
        let compiles = Semaphore::new(limits::GLUE_COMPILES_AT_ONCE);
        Ok(Glue(Arc::new(Inner { engines, ticker, room, compiler, compiles, reads: Mutex::default() })))
    }

    /// Links a recipe's glue. If it is not compiled yet, another process compiles it: within tens of
    /// milliseconds for Rust glue, and seconds for a script engine. Dropping the future ends that process.
    /// Needs a tokio runtime with time and IO.
    ///
    /// Errors: `glue_incompatible`; `glue_limit` for glue whose compilation exceeds
    /// [`limits::GLUE_COMPILE_CPU_S`] or the bounds beside it; those of the [`Compiler`].
    pub async fn compile(&self, recipe: &Arc<Verified>) -> Result<Prepared, Fault> {
        let (manifest, recipe_digest) = (recipe.manifest().clone(), recipe.digest());
        let none = || Fault::new(Code::Internal, format!("asked to compile the glue of `{}`, which has none", manifest.name));
        let component = recipe.glue().cloned().ok_or_else(none)?;
        self.prepare(&Unlinked { manifest, component, recipe: recipe_digest }).await
    }

    /// Checks whether this Hob accepts `component` as glue: it is compiled and linked as by
    /// [`Glue::compile`]. It cannot be run, because it is not verified.
    ///
    /// Errors: as [`Glue::compile`].
    pub async fn check(&self, manifest: &Arc<Manifest>, component: Bytes) -> Result<(), Fault> {
        let recipe = Digest::of(&component);
        self.prepare(&Unlinked { manifest: manifest.clone(), component, recipe }).await.map(drop)
    }

    async fn prepare(&self, recipe: &Unlinked) -> Result<Prepared, Fault> {
        if let Some(prepared) = self.load(recipe).await?.0 {
            return Ok(prepared);
        }
        let _turn = self.0.compiles.acquire().await.map_err(|_| Fault::new(Code::Internal, "glue was shut down"))?;
        // Once for the pool, and once more for a component that does not fit it.
        for _ in 0..2 {
            // Another task may have compiled it meanwhile.
            match self.load(recipe).await? {
                (Some(prepared), _) => return Ok(prepared),
                (None, reservation) => self.compile_apart(recipe, reservation).await?,
            }
        }
        match self.load(recipe).await? {
            (Some(prepared), _) => Ok(prepared),
            (None, _) => {
                Err(Fault::new(Code::Internal, format!("the glue of `{}` was compiled for another Hob than this", recipe.manifest.name))
                    .hint("the `hob` program that compiles and this host are of the same version, and built with the same wasmtime?"))
            }
        }
    }

    /// Reads and links compiled code, on a thread that may block. Without such code it returns the missing
    /// reservation.
    async fn load(&self, recipe: &Unlinked) -> Result<(Option<Prepared>, Reservation), Fault> {
        let (glue, recipe) = (Glue(self.0.clone()), recipe.clone());
        // wasmtime's message may contain names from the component.
        blocking(move || glue.link(&recipe).map_err(output::bounded)).await
    }

    /// Compiles in another process, and moves the result to where it is read.
    async fn compile_apart(&self, recipe: &Unlinked, reservation: Reservation) -> Result<(), Fault> {
        let (name, component) = (&recipe.manifest.name, &recipe.component);
        let cache = self.0.engines.cache.directory();
        let place = cache.to_owned();
        let into = blocking(move || {
            disk::make::temporary_folder(&place, compiling::INTO, 12)
                .map_err(|error| Fault::io(format!("making a folder in {}", place.display()), &error))
        })
        .await?;
        // The path of wasmtime's own folder contains no link.
        let job = Job { component, reservation, into: into.path() };
        match self.0.compiler.compile(job).await? {
            Compiled::Refused(why) => Err(broken(name, why)),
            Compiled::TooMuch(of) => Err(Fault::new(Code::GlueLimit, format!("compiling the glue of `{name}` takes {of}"))
                .hint("nothing of it is kept; smaller functions, and fewer of them, take less")),
            Compiled::Done => {
                let (glue, recipe) = (Glue(self.0.clone()), recipe.clone());
                let placed = blocking(move || {
                    let cache = glue.0.engines.cache.directory();
                    compiling::place(into.path(), cache, glue.engine(reservation), &recipe.component)?;
                    compiling::sweep(cache);
                    Ok(())
                });
                placed.await
            }
        }
    }

    /// An engine that reads code compiled for this reservation.
    fn engine(&self, reservation: Reservation) -> &Engine {
        let engines = &self.0.engines;
        engines.pooled.as_ref().filter(|(_, its)| *its == reservation).map_or(&engines.on_demand, |(engine, _)| engine)
    }

    fn link(&self, recipe: &Unlinked) -> Result<(Option<Prepared>, Reservation), Fault> {
        let (manifest, bytes) = (&recipe.manifest, &recipe.component);
        check::bytes(manifest, bytes)?;
        let engines = &self.0.engines;
        let mut unfit = None;
        let mut found = None;
        if let Some((engine, reservation)) = &engines.pooled {
            match self.read(engine, *reservation, bytes) {
                Ok(Read::Missing(reservation)) => return Ok((None, reservation)),
                Ok(Read::There(component)) => found = Some((engine, component)),
                Err(error) => unfit = Some(error),
            }
        }
        let broken = |error: wasmtime::Error| broken(&manifest.name, format!("{error:#}"));
        let (engine, component) = match found {
            Some(found) => found,
            None => match self.read(&engines.on_demand, Reservation::Bounded, bytes).map_err(broken)? {
                Read::Missing(reservation) => return Ok((None, reservation)),
                Read::There(component) => (&engines.on_demand, component),
            },
        };
        if let Some(error) = unfit {
            tracing::warn!("the glue of `{}` does not fit the pool, its instances are made on demand: {error:#}", manifest.name);
        }
        let wasi = check::shape(manifest, bytes, &component, engine)?;
        let mut linker = Linker::new(engine);
        world::Glue::add_to_linker::<Run, HasSelf<Run>>(&mut linker, |run| run).map_err(broken)?;
        if wasi != Wasi::No {
            wasi::link(&mut linker, wasi).map_err(broken)?;
        }
        let pre = linker.instantiate_pre(&component).map_err(broken)?;
        check::signature(manifest, &pre)?;
        let pre = world::GluePre::new(pre).map_err(broken)?;
        let prepared = Prepared { glue: self.0.clone(), pre: Arc::new(pre), wasi, recipe: recipe.recipe };
        Ok((Some(prepared), Reservation::Bounded))
    }

    /// Reads compiled code from the cache, and nothing else: the engine has no compiler, and fails if there
    /// is nothing to read.
    fn read(&self, engine: &Engine, reservation: Reservation, bytes: &[u8]) -> wasmtime::Result<Read> {
        let _one = self.0.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.0.engines.cache.cache_hits();
        match Component::from_binary(engine, bytes) {
            Ok(component) => Ok(Read::There(component)),
            Err(_) if self.0.engines.cache.cache_hits() == before => Ok(Read::Missing(reservation)),
            // The code was there, and does not fit this engine.
            Err(error) => Err(error),
        }
    }
}

fn broken(recipe: &RecipeName, why: String) -> Fault {
    Fault::new(Code::GlueIncompatible, format!("the glue of `{recipe}` is not a component that this Hob can run: {why}"))
        .hint(hint![act::build("FOLDER"), " makes the component from the recipe's glue source"])
}

impl Prepared {
    /// Runs one call in an instance of its own. Dropping the future ends the guest and drops its open asks.
    ///
    /// Chunks and log lines go to `events`. Needs a tokio runtime with time.
    ///
    /// Errors: `glue_crashed` (with causes, last log lines and printed output in the detail), `glue_limit`
    /// (names the cap), `deadline`, `cancelled` (the receiver of `events` is gone), `too_large` and
    /// `invalid_output` for the guest's output, a fault of the pod if the guest passes it on, and the guest's
    /// own faults.
    pub async fn run(&self, call: &Admitted, pods: Arc<dyn Pods>, events: events::Sender, deadline: Instant) -> Result<Response, Fault> {
        if call.recipe().digest() != self.recipe {
            return Err(Fault::new(Code::Internal, "a call was handed to the glue of another recipe"));
        }
        let late = |_| {
            let (recipe, operation) = (&call.recipe().manifest().name, &call.operation().name);
            Fault::new(Code::Deadline, format!("`{operation}` of `{recipe}` was not done within its {} ms", call.deadline_ms()))
        };
        let said = (self.wasi != Wasi::No).then(Said::default);
        let told = call.wants_logs().then(|| events.clone());
        let result = match timeout_at(deadline, self.run_undisturbed(call, pods, events, deadline, said.as_ref())).await {
            Ok(result) => result,
            Err(passed) => Err(late(passed)),
        };
        match (said, result) {
            (Some(said), Ok(response)) => {
                said.log(&call.recipe().manifest().name, told.as_ref());
                Ok(response)
            }
            (Some(said), Err(fault)) => Err(output::bounded(said.attach(fault))),
            (None, result) => result.map_err(output::bounded),
        }
    }

    async fn run_undisturbed(
        &self,
        call: &Admitted,
        pods: Arc<dyn Pods>,
        events: events::Sender,
        deadline: Instant,
        said: Option<&Said>,
    ) -> Result<Response, Fault> {
        // Dropped last, after the store has returned its instance.
        let _room = self.glue.room.acquire().await.map_err(|_| Fault::new(Code::Internal, "glue was shut down"))?;
        let manifest = call.recipe().manifest();
        let running = self.glue.ticker.run();
        let mut store = Store::new(self.pre.engine(), Run::new(manifest.clone(), call.operation().clone(), pods, events, running));
        store.data_mut().seed = said.map(|said| Seed { said: said.clone(), random: Random::new(self.recipe, call.input().text()) });
        store.limiter(|run| run);
        store.set_hostcall_fuel(limits::GLUE_HOSTCALL_BYTES_MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(Run::tick);
        match self.enter(&mut store, call, deadline).await {
            Ok(Ok(response)) => finish(store.data_mut(), response),
            Ok(Err(fault)) => Err(crash::returned(store.data_mut(), fault)),
            Err(error) => Err(crash::trapped(store.data(), error)),
        }
    }

    /// Instantiates and runs.
    async fn enter(
        &self,
        store: &mut Store<Run>,
        call: &Admitted,
        deadline: Instant,
    ) -> wasmtime::Result<Result<world::Response, world::Fault>> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let run = store.data_mut();
        let blobs = call.blobs().iter().map(|blob| run.lend(blob.clone())).collect::<wasmtime::Result<_>>()?;
        let (name, version) = (&run.manifest.name, &run.manifest.version);
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        // Names and versions contain nothing that needs escaping.
        let meta = format!(r#"{{"recipe":"{name}","version":"{version}","deadline_ms":{left}}}"#);
        let operation = run.operation.name.clone();
        run.crossings.wasm_entries += 1;
        let request = world::Request { operation, input: call.input().text().to_owned(), blobs, meta };
        instance.call_run(store, &request).await
    }
}

fn finish(run: &mut Run, response: world::Response) -> Result<Response, Fault> {
    // WASI's calls are counted at a point where nothing can be refused.
    run.within_host_calls().map_err(|error| crash::trapped(run, error))?;
    let what = format!("output of the glue of `{}`", run.manifest.name);
    let output = Document::parse(response.output, &what).map_err(Fault::of_recipe)?;
    let blobs = run.take(response.blobs).map_err(|error| crash::trapped(run, error))??;
    Ok(Response { output, blobs, crossings: run.crossings })
}
