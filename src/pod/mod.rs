//! The pods of recipes: Python (or other) processes that the host spawns, feeds and supervises.
//!
//! `pool.rs` is what the host holds of a recipe's pods: asks go in there, and the pure policies `schedule.rs` (who goes next, what goes
//! together), `restarts.rs` and `poison.rs` say how. `driver.rs` owns one pod and performs what `state.rs` decides; `sending.rs` and `burial.rs`
//! are its first and its last words. `frame.rs` and `wire.rs` say what is on the sockets, `process.rs` starts and signals, `log.rs` keeps what
//! the process prints, `printed.rs` tells it, `log_files.rs` writes it down. What outlives a pod, or must find it again: `page.rs`, `registry.rs`, `dossier.rs`; `vitals.rs` reads what the kernel says, `unseen.rs`
//! counts the memory that no mapping shows. What a caller has not taken of a stream waits in `spool.rs`, and in `spill.rs` on the disk; `crowding.rs` says when.
//! What a pod is given of the machine: `egress.rs` is its way out to the network names that it was granted, `clerk.rs` lends it files, `devices.rs` names those of a
//! GPU, `cgroup.rs` holds it to its memory, `holdings.rs` a recipe to its part of the host's descriptors; `residency.rs` decides whose models are loaded, `tenancy.rs` asks and tells it, `machine.rs` says what there is. What is around it: `confine.rs` and `seccomp.rs` say what it may do, `family.rs` has the pods that are
//! forked rather than started, `compiling.rs` has sources compiled within the same walls, `doctor.rs` finds out what the machine can do of all that.

mod answering;
mod book;
mod burial;
mod cgroup;
mod claims;
mod clerk;
mod clocks;
pub mod compiling;
mod confine;
mod crowding;
mod devices;
pub mod doctor;
mod dossier;
mod driver;
mod egress;
mod family;
mod frame;
mod granted;
mod handle;
mod hands;
mod holdings;
mod lane;
mod leftovers;
mod log;
mod log_files;
pub mod machine;
mod page;
mod poison;
mod pool;
mod printed;
mod process;
mod receiving;
mod refusals;
mod refused;
mod regions;
mod registry;
mod residency;
mod residing;
mod restarts;
mod runner;
mod schedule;
mod seat;
mod seccomp;
mod sending;
mod sessions;
mod settings;
mod spill;
mod spool;
mod starting;
mod state;
mod tenancy;
mod unseen;
mod variables;
#[cfg(test)]
mod vectors;
mod vitals;
mod waits;
mod wire;
mod wire_fault;

/// For `crate::fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::{
        frame::{Decoded, Decoder, Frame, HEADER_BYTES, encode},
        wire::FromPod,
    };
}

pub use clerk::Clerk;
pub use dossier::{AskInHand, Dossier, Ended, list as dossiers};
pub use driver::spawn;
pub use family::{Boot, Family};
pub use handle::{Ask, Reply, Request, Watcher};
pub use holdings::{Kept, keep_for_callers, kept_for_callers, open_files, raise_open_files};
pub use log::Line;
pub use log_files::past as past_lines;
pub use machine::{Machine, ThisMachine};
pub use pool::{BoxFuture, Pool, Spawner, WeakPool};
pub use printed::{Heard, Lines, Missed, Printed};
pub use process::{Cache, Keeps, Program, Spec};
pub use registry::reap;
pub use runner::unpack as unpack_runner;
pub use seat::Seat;
pub use sessions::{Keep, Restore, Session};
pub use spill::Spools;
pub use tenancy::{Places, Tenant};
pub use wire::{GIVE_CACHE, Payload};
