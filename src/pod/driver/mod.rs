//! The task that owns one pod. No other task touches the pod.
//!
//! ```text
//!                 task.rs   one loop waits for everything at once
//!                    |      (what callers and the pool want, both lanes, the process, the next wait)
//!     events         v
//!   receiving.rs -> state.rs  decides, without IO or clock
//!   clocks.rs        |
//!   loading.rs       v
//!   checkpoints.rs  task.rs   acts: sending.rs to the pod, answering.rs to callers, ending.rs at the end
//! ```
//!
//! `lanes.rs`, `in_flight.rs`, `regions.rs`, `loading.rs`, `checkpoints.rs`, `clocks.rs`, `features.rs`,
//! `bounds.rs` and `ending.rs` each own a part of what is known. Other files use the methods of that part.

mod answering;
mod bounds;
pub mod checkpoints;
mod clocks;
mod crowding;
mod ending;
mod features;
mod in_flight;
mod lanes;
mod loading;
mod receiving;
mod regions;
mod sending;
pub mod state;
mod task;
mod waits;

use std::sync::Arc;

use crate::pod::{
    pool::{slot::Slot, watcher::PodShared},
    process::{Process, page::Page},
    spec::Spec,
};
use bounds::Sandbox;
use checkpoints::Checkpoints;
use clocks::Clocks;
use ending::End;
use features::Features;
use in_flight::{InFlight, Said};
use lanes::Lanes;
use loading::Loading;
use regions::Regions;
use state::{Action, Rules, State};
pub use task::spawn;

/// One pod, as its task owns it.
pub(super) struct Driver {
    spec: Spec,
    process: Process,
    page: Page,
    slot: Slot,
    shared: Arc<PodShared>,
    rules: Rules,
    state: State,
    /// The actions of the last step; empty between steps, and kept for its capacity.
    actions: Vec<Action<Said>>,
    lanes: Lanes,
    features: Features,
    in_flight: InFlight,
    regions: Regions,
    loading: Loading,
    checkpoints: Checkpoints,
    clocks: Clocks,
    sandbox: Sandbox,
    end: End,
    /// The pool may have work, and this pod has room for it.
    wants_work: bool,
    /// A caller may be behind while others wait; to be checked.
    is_behind: bool,
}
