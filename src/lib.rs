//! Hob is a plugin host. A *recipe* is one signed bundle: a manifest, a piece of *glue* that runs as a
//! sandboxed WebAssembly component, and a *pod*, a Python program (or any executable) that does the heavy
//! work in a process of its own. The host fetches recipes from a signed repository, verifies every byte,
//! builds the pod's environment from a hash lock, and answers calls.
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
//! The root of the crate, [`blobs`], [`recipes`], [`status`], `http` and `authoring` are for apps, and change
//! only with the version; a test compares them with a list. `docs/embedding.md` says more. The rest of this
//! page is for people who work on Hob itself.
//!
//! # The rooms
//!
//! `docs/architecture.md` has diagrams: the layers, the processes, one call from door to model and back, the
//! life of a pod, which part owns which fact, and how to add something. Imports go downward only; a test
//! fails on any other.
//!
//! | room | is | begin with |
//! |---|---|---|
//! | [`door`], `door/http` | ways in: the command line, HTTP | `cli.rs`, `serving.rs` |
//! | [`host`] | the one object that doors and apps use | `run.rs`: one call, top to bottom |
//! | [`author`] | build, pack, sign, publish | `pack.rs` |
//! | [`shelf`] | what is installed on this machine | `store/mod.rs` |
//! | `shelf/config` | `hob.toml`: remotes, ranges, grants, settings | `mod.rs` |
//! | `shelf/repository` | the TUF client: what is signed, and by whom | `mod.rs` |
//! | `shelf/bundle` | a recipe as a file or a folder | `contents.rs` |
//! | `shelf/environment` | Python packages, built from a lock by `uv` | `building.rs` |
//! | `shelf/models` | model files: where from, where to | `fetching.rs` |
//! | `shelf/store`, `shelf/files` | publishing by one rename; locks, staging, trees | `store/load.rs` |
//! | [`glue`] | wasmtime: one call in one store | `imports.rs`: what a guest can call |
//! | [`pod`] | processes that do the heavy work | `mod.rs`: how its rooms hang together |
//! | `pod/pool` | the pods of one recipe, and the asks that wait | `schedule.rs`: who goes next |
//! | `pod/driver` | the task that owns one pod | `state.rs`: its life as a pure function |
//! | `pod/process` | starting, signalling and finding processes | `family.rs`: forked ones |
//! | `pod/sandbox` | what a pod may do | `plan.rs` |
//! | `pod/residency` | whose models are loaded | `policy.rs` |
//! | `pod/wire`, `pod/stream` | the protocol; chunks between pod and caller | `messages.rs` |
//! | `pod/record` | what pods print, and how they died | `dossier.rs` |
//! | [`disk`] | opening and making Hob's own files | `open.rs` |
//! | [`model`], `model/status` | plain data and pure rules; what a host tells | `fault.rs`, `call.rs` |
//! | `model/manifest`, `model/schema` | `recipe.toml`; JSON Schema and its cost | `manifest/mod.rs` |
//! | `model/limits` | every bound, by name | `mod.rs` |
//!
//! The contracts with other languages are `wit/glue.wit` (guests) and `docs/pod-protocol.md` (pods). The
//! Python side of the latter is `python/src/hob_pod`, which the binary carries.
//!
//! # What holds everywhere
//!
//! - `model` does no IO and reads no clock.
//! - Only checked bytes become [`model::Verified`]: bytes that the shelf compared with a signed index, or a
//!   folder that its author names. Only calls that passed catalogue and schema become [`model::Admitted`].
//!   `glue` takes nothing else.
//! - One task owns a pod's state; everyone else sends to it. No lock on data is held across an await. (Two
//!   gates are: starting a recipe's pod and looking for an interpreter happen once, while others wait for the
//!   result.)
//! - What a stranger's schema or document makes the host do has a proven cost. Work of more than some
//!   milliseconds runs on a thread where no other call waits, and which gives way to all others
//!   (`shelf/aside.rs`).
//! - Every channel, frame, queue, file and wait has a bound with a name, in [`model::limits`].
//! - A wasm store serves one call. A guest reaches what `glue/imports.rs` and `glue/wasi.rs` link, and
//!   nothing else.
//! - Dropping a call's future cancels it down to the worker. A pod gets its next ask only after it gave back
//!   the last.
//! - The death of the host ends every pod. A pod lives as long as somebody holds it or waits for it, and no
//!   longer.
//! - Results go to stdout and nothing else does. Only `door/print.rs` prints. (`cargo`, which `hob build`
//!   runs, writes to stderr itself.)
//! - No door has logic of its own.
//! - A pod may do what its recipe asks for *and* its operator gave. The command line and the crate can give;
//!   no door that serves others can.
//! - The sandbox is up, and forbidden acts were tried and denied, before a line of a recipe's or a wheel's
//!   code runs. Without a layer nothing starts, unless the operator allowed it for that recipe; then status
//!   shows it.
//! - There is no unsafe code in this crate.

// Code that only the program uses is part of the library as well.
#![cfg_attr(not(all(feature = "cli", feature = "serve")), allow(dead_code, unused_imports))]

// The properties in `fuzz/` refer to this crate by name, as the targets there do; the crate's own tests run
// the kept corpora against them.
#[cfg(test)]
extern crate self as hob;

#[cfg(not(target_os = "linux"))]
compile_error!("Hob runs on Linux alone: pods are confined by its namespaces, Landlock and seccomp, and no other system has these");

// Internals, for the `hob` program and the project's own tests. They are not kept stable for apps.
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
pub use shelf::environment::tools::Tools;
pub use shelf::{environment::indexes::Indexes, models::sources::Sources};

/// Blobs from files and streams, without reading them into memory.
#[cfg(target_os = "linux")]
pub mod blobs {
    pub use crate::{
        host::blobs::{from_file, from_open, from_reader, media_type_of, to_open},
        model::{OpenFile, Store, blob::Reader},
    };
}

/// Recipes on this machine: their installation, their permissions, and the trusted sources.
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

/// The status that a host reports: its calls, pods, sessions and memory.
#[cfg(target_os = "linux")]
pub mod status {
    pub use crate::{
        model::{
            ServeRules,
            status::{
                Class, Confinement, DamagedStatus, Health, HostStatus, LeverStatus, LogLine, MemoryBound, PodState, PodStatus, PoolStatus,
                Waiting, ZygoteState, ZygoteStatus, doctor, machine,
                session::{CheckpointStatus, Mode, SessionState, SessionStatus},
            },
        },
        pod::{AskInHand, Dossier, Ended, Heard, Line, Lines, Machine, Missed},
    };
}

/// A host over HTTP, in an app's own process. Needs the feature `serve`.
#[cfg(all(feature = "serve", target_os = "linux"))]
pub mod http {
    pub use crate::door::{
        http::token::Token,
        serving::{Listen, serve},
    };
}

/// Making and signing recipes. Needs the feature `author`.
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
