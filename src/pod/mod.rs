//! The pods of recipes: Python (or other) processes that the host spawns, feeds and supervises.
//!
//! `pool/` is what the host holds of a recipe's pods: asks go in there, and the pure policies `pool/schedule.rs` (who goes next, what goes
//! together), `pool/restarts.rs` and `pool/poison.rs` say how. `driver/` owns one pod and performs what `driver/state.rs` decides; `driver/sending.rs` and `driver/ending.rs`
//! are its first and its last words. `wire/frame.rs` and `wire/messages.rs` say what is on the sockets, `process/` starts and signals, `record/log.rs` keeps what
//! the process prints, `record/printed.rs` tells it, `record/log_files.rs` writes it down. What outlives a pod, or must find it again: `process/page.rs`, `process/registry.rs`, `record/dossier.rs`; `process/vitals.rs` reads what the kernel says, `process/unseen.rs`
//! counts the memory that no mapping shows. What a caller has not taken of a stream waits in `stream/`, and in `stream/spill.rs` on the disk; `driver/crowding.rs` says when.
//! What a pod is given of the machine: `sandbox/egress.rs` is its way out to the network names that it was granted, `sandbox/clerk.rs` lends it files, `sandbox/devices.rs` names those of a
//! GPU, `sandbox/cgroup.rs` holds it to its memory, `process/holdings.rs` a recipe to its part of the host's descriptors; `residency/policy.rs` decides whose models are loaded, `residency/` asks and tells it, `residency/machine.rs` says what there is. What is around it: `sandbox/plan.rs` and `sandbox/seccomp.rs` say what it may do, `process/family.rs` has the pods that are
//! forked rather than started, `compiling.rs` has sources compiled within the same walls, `doctor.rs` finds out what the machine can do of all that.

pub mod compiling;
pub mod doctor;
mod driver;
mod pool;
mod process;
mod record;
mod residency;
mod sandbox;
pub mod spec;
mod stream;
mod wire;

/// For `crate::fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::pod::wire::{
        frame::{Decoded, Decoder, Frame, HEADER_BYTES, encode},
        messages::FromPod,
    };
}

pub use driver::spawn;
pub use pool::ask::Reply;
pub use pool::ask::Request;
pub use pool::slot::Slot;
pub use pool::{Ask, watcher::Watcher};
pub use pool::{BoxFuture, Pool, Spawner, WeakPool};
pub use process::family::{Boot, Family};
pub use process::holdings::{Kept, keep_for_callers, kept_for_callers, open_files, raise_open_files};
pub use process::registry::reap;
pub use process::runner::unpack as unpack_runner;
pub use record::dossier::{AskInHand, Dossier, Ended, list as dossiers};
pub use record::line::Line;
pub use record::log_files::past as past_lines;
pub use record::printed::{Heard, Lines, Missed, Printed};
pub use residency::machine::{Machine, ThisMachine};
pub use residency::{Budget, Claim};
pub use sandbox::clerk::Clerk;
pub use spec::{Cache, Keeps, Program, Spec};
pub use spec::{Keep, Restore, Session};
pub use stream::spill::Spools;
pub use wire::messages::{GIVE_CACHE, Payload};
