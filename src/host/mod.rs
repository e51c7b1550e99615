//! The one object that doors and apps use: calls, what is installed, pods, sessions, the journal.
//!
//! ```text
//!    run.rs  one call, top to bottom: start here
//!      |-- catalogue.rs --> entry.rs   which recipe; its compiled glue and its pool
//!      |-- sessions.rs                 a pod that is kept by name
//!      |-- lease.rs                    glue meets pods
//!      +-- journal.rs                  counts for each call
//!    calls.rs, opening.rs              methods for apps: call, open, shut down
//!    install.rs, grants.rs             changes of the shelf and of hob.toml
//!    source.rs --> programs.rs         makes a pod; its interpreter and environment
//!    pods.rs, zygotes.rs, caches.rs    all pods that run; which are forked; what libraries keep
//!    engine.rs, compiler.rs            the wasm engine; the process that compiles glue
//!    status.rs, doctor.rs, printing.rs reports about all this
//! ```

use std::sync::Arc;

use crate::{
    model::{Home, progress},
    pod,
    shelf::{models::sources::Sources, store::Shelf},
};

pub mod blobs;
mod caches;
mod call_context;
mod calls;
mod catalogue;
pub(crate) mod compiler;
mod compiling;
mod config;
mod doctor;
mod editions;
mod engine;
mod entry;
mod footprints;
mod forking;
mod grants;
mod handle;
mod install;
mod journal;
mod lease;
mod lifecycle;
mod opening;
mod parts;
mod pod_cache;
mod pod_services;
mod pods;
mod printing;
mod programs;
mod run;
mod sessions;
mod source;
mod status;
mod strays;
mod zygotes;

pub use calls::Running;
pub use compiler::GlueCompiler;
pub use compiling::WithinWalls;
pub use config::{Config, Limits};
pub use grants::{Consent, Granted, Revoke};
pub use handle::Host;
pub use install::{Added, Asked, Shown};
pub use journal::Record;
pub use printing::past_logs;
pub use strays::Stray;

/// The state that all parts of a host share.
pub(crate) struct HostState {
    lifecycle: lifecycle::Lifecycle,
    /// The runtime in which the host was opened.
    runtime: tokio::runtime::Handle,
    limits: Limits,
    home: Home,
    programs: programs::Programs,
    /// The sources that recipes name for their models.
    sources: Sources,
    progress: progress::Shared,
    shelf: Shelf,
    engine: engine::Engine,
    catalogue: catalogue::Catalogue,
    journal: journal::Journal,
    pod_services: pod_services::PodServices,
    pods: pods::Pods,
    /// Decides which pods may load their models.
    memory: pod::Budget,
    zygotes: zygotes::Zygotes,
    caches: caches::Caches,
    sessions: sessions::Sessions,
    /// The host lives long enough for zygotes to pay off.
    forks: bool,
    /// Permits for long schema checks of all recipes: half the cores, so that other work goes on.
    checks: Arc<tokio::sync::Semaphore>,
}
