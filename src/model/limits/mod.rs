//! Every bound in Hob, by name, with its unit last and the reason beside it.
//!
//! A queue, frame, file or wait that is not bounded by a constant of this folder is a bug. There is a file
//! for each room. Names are unique among all files, so that code says `limits::AGE_MS`, whichever file has
//! it:
//!
//! - `blobs.rs`: bytes that travel beside a document
//! - `bundles.rs`: recipe folders and bundles
//! - `caches.rs`: what libraries in pods keep for the next pod
//! - `calls.rs`: documents, deadlines, the journal
//! - `confinement.rs`: what is around a pod, and zygotes
//! - `environments.rs`: Python environments and the tools that build them
//! - `faults.rs`: what a fault says
//! - `glue.rs`: runs of glue, compiling it
//! - `home.rs`: looking at a home
//! - `lanes.rs`: frames, and what waits between a host, a pod and a caller
//! - `logs.rs`: what pods print, crash dossiers
//! - `manifest.rs`: `recipe.toml`
//! - `models.rs`: models and fetching them
//! - `pods.rs`: a pod's life and its end
//! - `queue.rs`: asks that wait for a pod, batches
//! - `repositories.rs`: fetching from repositories, their roles
//! - `residency.rs`: loaded models and memory
//! - `restarts.rs`: starts after failures, quarantine, poison inputs
//! - `schemas.rs`: checking a document against a schema
//! - `serve.rs`: `hob serve`
//! - `sessions.rs`: sessions
//! - `shelf.rs`: locks and files of the shelf, `hob.toml`
//! - `terminal.rs`: the command line

mod blobs;
mod bundles;
mod caches;
mod calls;
mod confinement;
mod environments;
mod faults;
mod glue;
mod home;
mod lanes;
mod logs;
mod manifest;
mod models;
mod pods;
mod queue;
mod repositories;
mod residency;
mod restarts;
mod schemas;
mod serve;
mod sessions;
mod shelf;
mod terminal;

pub use blobs::*;
pub use bundles::*;
pub use caches::*;
pub use calls::*;
pub use confinement::*;
pub use environments::*;
pub use faults::*;
pub use glue::*;
pub use home::*;
pub use lanes::*;
pub use logs::*;
pub use manifest::*;
pub use models::*;
pub use pods::*;
pub use queue::*;
pub use repositories::*;
pub use residency::*;
pub use restarts::*;
pub use schemas::*;
pub use serve::*;
pub use sessions::*;
pub use shelf::*;
pub use terminal::*;
