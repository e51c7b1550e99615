//! The pods of recipes: processes that the host starts, feeds, confines and supervises.
//!
//! ```text
//!    host ── asks ──> pool/ ── units ──> driver/ ── frames ──> wire/ ──> the pod
//!     ^                 ^                  |  ^                             |
//!     |                 |                  |  +──── frames ── wire/ <───────+
//!     |                 |                  +──> process/     started, forked, signalled, found again
//!     |                 |                  +──> sandbox/     what is around it
//!     |                 |                  +──> residency/   whether its models may be loaded
//!     |                 |                  +──> record/      what it prints, how it ended
//!     |                 +── how it ended ──+
//!     +── chunks ── stream/ <──────────────+
//! ```
//!
//! - `pool/`: the pods of one recipe and the asks that wait for them.
//! - `driver/`: the task that owns one pod.
//! - `spec.rs`: the description of a pod.
//! - `replan.rs`: the timer of the policies in `pool/` and `residency/`.
//! - `compiling.rs`: compiles the sources of an environment within a pod's sandbox.
//! - `doctor.rs`: tries which bounds of pods this machine enforces.

pub mod compiling;
pub mod doctor;
mod driver;
mod pool;
mod process;
mod record;
mod replan;
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
pub use pool::{BoxFuture, Pool, Spawner, WeakPool};
pub use pool::{ask::Ask, watcher::Watcher};
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
