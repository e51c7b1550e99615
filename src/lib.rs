//! Hob is a plugin host. A *recipe* is one signed bundle: a manifest, a piece of *glue* that runs as a sandboxed
//! WebAssembly component, and a *pod*, a Python program (or any executable) that does the heavy work in a process of its
//! own. The host fetches recipes from a signed repository, verifies every byte, builds the pod's environment from a hash
//! lock, and answers calls.
//!
//! # An app
//!
//! ```no_run
//! use hob::{Call, Config, Fault, Host};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize)]
//! struct Texts<'a> {
//!     texts: &'a [&'a str],
//!     similarity_to: &'a str,
//! }
//!
//! #[derive(Deserialize)]
//! struct Ranked {
//!     similarities: Vec<f32>,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Fault> {
//!     let host = Host::open(Config::from_environment()?).await?;
//!     let texts = ["Refunds are paid within five days.", "The cat slept all afternoon."];
//!     let call = Call::new("hob/sentence-embeddings", "embed", Texts { texts: &texts, similarity_to: "Where is my money?" })?;
//!     let ranked: Ranked = host.call_typed(call).await?;
//!     for (text, similarity) in texts.iter().zip(ranked.similarities) {
//!         println!("{similarity:.2}  {text}");
//!     }
//!     host.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! ```toml
//! [dependencies]
//! hob = { path = "../hob", default-features = false }   # without the `hob` program and its server
//! serde = { version = "1", features = ["derive"] }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//!
//! # Without this glue is slow in debug builds: wasmtime would be compiled unoptimised.
//! [profile.dev.package."*"]
//! opt-level = 2
//! ```
//!
//! What is at the root of the crate, and in [`blobs`], [`recipes`], [`status`], `http` and `authoring`, is for apps, and changes with the version alone; a test holds it against a
//! list. `docs/embedding.md` says more. The rest of this page is for whoever works on Hob itself.
//!
//! # The map
//!
//! ```text
//! door      ways in: words become a Call, an Outcome becomes words
//!   |
//! host      the one object that doors and apps talk to            author    build, pack, publish, repositories
//!   |                                                                |
//!   +-- shelf    repositories, bundles, environments, models  <------+
//!   +-- glue     wasmtime: one call in one store              <------+      shelf, glue and pod are blind to each other
//!   +-- pod      pools of processes, their queue and their ends       |
//!   |                                                                |
//! disk      Hob's own files: opened, made, and whose they are <------+
//!   |                                                                |
//! model     plain data and pure rules                         <------+
//! ```
//!
//! Imports go downward only; a test reads the sources and fails on any other.
//!
//! | layer | look here first |
//! |---|---|
//! | [`door`] | `cli.rs`: a function per command; `words.rs`: what may be said; `print.rs`: the one place that prints; `serving.rs`, `accept.rs`, `http/`: a server, from its start to its end; `serve.rs`, `ending.rs`: the program's, which signals end; `client.rs`: the command line's way to one; `handing.rs`: files beside the bytes of a Unix socket |
//! | [`host`] | `run.rs`: a call; `lease.rs`: glue meets pod; `catalogue.rs`: which recipe; `pods.rs`: what runs; `zygotes.rs`: which pods are forked; `caches.rs`: what libraries keep for the next pod; `doctor.rs`: what this machine can do; `install.rs`: the shelf's changes; `compiler.rs`: the process that compiles glue; `grants.rs`: what a recipe may do |
//! | [`author`] | `build.rs`, `script.rs`, `pack.rs`, `publish.rs`: from a folder to a signed bundle; `repository.rs`, `keys.rs`, `signed.rs`: a repository and its roles |
//! | [`shelf`] | `store.rs`: what is installed, in one rename; `load.rs`: from files to [`model::Verified`]; `repository.rs`, `tuf.rs`: whom to believe; `environment.rs`, `building.rs`, `unbuilt.rs`, `inert.rs`: Python by `uv`, why not, and what its packages may be; `home.rs`: whether a home is to be believed; `fetching.rs`, `origin.rs`, `sources.rs`: models from where their recipes say; `model_folder.rs`: the one folder in which pods find them |
//! | [`glue`] | `run.rs`: budgets of one run; `imports.rs`: what a guest may call; `wasi.rs`: what a script's engine gets besides; `engine.rs`: slots and settings; `compiling.rs`: compiled elsewhere, and found here; `crash.rs`: traps as faults |
//! | [`pod`] | `pool.rs`: a recipe's pods and who waits for them; `schedule.rs`: who is next; `state.rs`: a pod's life as a pure function; `driver.rs`: the task that acts on it; `burial.rs`: its end; `restarts.rs`, `poison.rs`: what is not tried again; `wire.rs`, `frame.rs`: the protocol; `spool.rs`, `crowding.rs`, `spill.rs`: streams whose callers are slow; `clerk.rs`: files that pods are lent; `compiling.rs`: bytecode of new environments; `confine.rs`, `settings.rs`, `variables.rs`, `seccomp.rs`: what is around a pod; `family.rs`: pods forked from a zygote; `egress.rs`: granted names on the network; `cgroup.rs`: memory; `residency.rs`, `tenancy.rs`, `residing.rs`, `machine.rs`: whose models are loaded |
//! | [`disk`] | `open.rs`: the one way to read a file of Hob's; `make.rs`: folders and files with their modes; `owner.rs`: who may write to a home |
//! | [`model`] | `fault.rs`: every failure and its exit code; `limits.rs`: every bound; `recipe.rs`: the manifest; `grant.rs`: permissions, and the one function that decides; `call.rs`: from words to proof; `schema.rs`, `schema_key.rs`: what a document may be, and what checking it costs at most; `edition.rs`: what is read as an older Hob read it; `blob_spec.rs`, `operation_name.rs`: the rest of an operation's interface |
//!
//! The contracts with other languages are `wit/glue.wit` (guests) and `docs/pod-protocol.md` (pods); the Python side of the
//! latter is `python/src/hob_pod`, which the binary carries.
//!
//! # Where to start reading
//!
//! `host/run.rs` is one call, top to bottom: find the recipe, admit the call, lease a pod while the glue is made ready, run,
//! check the output. Then `pod/driver/state.rs` for how a pod lives and dies, and `host/install.rs` (`Host::add`) for how a recipe
//! gets here. [`host::Host`] shows how an app embeds all of it.
//!
//! # What holds everywhere
//!
//! - `model` does no IO and reads no clock.
//! - Only bytes that were checked become [`model::Verified`] (by `shelf`: against a signed index, or a folder's author by
//!   name), and only calls that passed catalogue and schema become [`model::Admitted`]. `glue` takes nothing else.
//! - One task owns a pod's state; everyone else sends to it. No lock on data is held across an await. (Two gates are:
//!   starting a recipe's pod and looking for an interpreter happen once, while others wait for the result.)
//! - What a stranger's schema or document makes the host do has a proven cost; what takes longer than some milliseconds is done where nobody else waits,
//!   on a thread that gives way to all others (`shelf/aside.rs`).
//! - Every channel, frame, queue, file and wait has a bound with a name, in [`model::limits`].
//! - A wasm store serves one call. What a guest can reach is what `glue/imports.rs` and `glue/wasi.rs` link, and nothing of the system.
//! - Dropping a call's future cancels it down to the worker; a pod gets its next ask only after it gave back the last one.
//! - The death of the host ends every pod; a pod lives as long as somebody holds it or waits for it, and no longer.
//! - Results go to stdout and nothing else does; nothing outside `door/print.rs` prints. (`cargo`, which `hob build` runs,
//!   speaks for itself on stderr.)
//! - No door has logic of its own.
//! - What a pod may do is what its recipe asks for *and* its operator gave. The command line and the crate can give; no door that serves
//!   others can.
//! - No line of a recipe's or a wheel's code runs before the sandbox is around it and forbidden acts were tried and denied; without a layer nothing
//!   starts, unless the operator said so for that recipe, and then it is shown.
//! - There is no unsafe code in this crate.

// What the program alone uses is part of the library all the same.
#![cfg_attr(not(all(feature = "cli", feature = "serve")), allow(dead_code, unused_imports))]

// The properties in `fuzz/` name this crate as the targets there do, and its own tests hold the kept corpora against them.
#[cfg(test)]
extern crate self as hob;

#[cfg(not(target_os = "linux"))]
compile_error!("Hob runs on Linux alone: pods are confined by its namespaces, Landlock and seccomp, and no other system has these");

// The inside, for the `hob` program and the project's own tests: nothing below is kept for apps, and it moves as it must.
#[cfg(all(feature = "author", target_os = "linux"))]
#[doc(hidden)]
pub mod author;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod disk;
#[cfg(all(any(feature = "cli", feature = "serve"), target_os = "linux"))]
#[doc(hidden)]
pub mod door;
#[cfg(any(all(test, feature = "cli"), feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod glue;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod host;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod model;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod pod;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod shelf;

#[cfg(target_os = "linux")]
pub use host::{Config, Host, Limits, Record, Running};
#[cfg(target_os = "linux")]
pub use model::{
    Address, Blame, Blob, Call, Code, Digest, Document, Door, Event, Fault, Hint, Home, Outcome, Priority, Progress, RecipeName, RecipeRef,
    Report, Silent, Step, VersionRange,
};
#[cfg(target_os = "linux")]
pub use semver::Version;
#[cfg(target_os = "linux")]
pub use shelf::environment::Tools;
pub use shelf::{environment::indexes::Indexes, models::sources::Sources};

/// Bytes beside a call: of files and streams, without taking them into memory.
#[cfg(target_os = "linux")]
pub mod blobs {
    pub use crate::{
        host::blobs::{from_file, from_open, from_reader, media_type_of, to_open},
        model::{OpenFile, Store, blob::Reader},
    };
}

/// Recipes on this machine: installing them, what they may do, and whom they are believed from.
#[cfg(target_os = "linux")]
pub mod recipes {
    pub use crate::{
        host::{Added, Asked, Consent, Granted, Revoke, Shown, Stray},
        model::{
            Edition, Grants, ModelSource, Permissions,
            grant::{Device, Endpoint, PlainPath, Variable},
        },
        shelf::{
            config::RemoteEntry,
            repository::{ModelTarget, Pinned, Trust},
            store::{
                load::Report as Verification,
                lockfile::{EnvironmentPin, LockEntry, LockedModel},
            },
        },
    };
}

/// What a host tells of itself: its calls, pods, sessions and memory.
#[cfg(target_os = "linux")]
pub mod status {
    pub use crate::{
        model::{
            ServeRules,
            status::{
                Class, Confinement, DamagedStatus, Health, HostStatus, LeverStatus, LogLine, MemoryBound, PodStatus, PoolStatus, Waiting,
                ZygoteState, ZygoteStatus, doctor, machine,
                session::{CheckpointStatus, Mode, SessionState, SessionStatus},
            },
        },
        pod::{AskInHand, Dossier, Ended, Heard, Line, Lines, Machine, Missed},
    };
}

/// A host over HTTP, in an app's own process: with the feature `serve`.
#[cfg(all(feature = "serve", target_os = "linux"))]
pub mod http {
    pub use crate::door::{
        http::token::Token,
        serving::{Listen, serve},
    };
}

/// Making and signing recipes: with the feature `author`.
#[cfg(all(feature = "author", target_os = "linux"))]
pub mod authoring {
    pub use crate::author::{
        build::{build, fetch_models},
        keys::{Keys, SigningKey},
        pack::{Packed, pack},
        publish::{Published, publish},
        repository::{Initialised, add_publisher, refresh, repo_init, rotate_online},
    };
    pub use crate::shelf::bundle::contents::Left;
    pub use jiff::Timestamp;
}
