//! The machine's memory for models, a recipe's need of it, and a host's report of who holds how much.
//!
//! `pod/residency/policy.rs` decides; these are the types it uses, and they cross a socket to `hob status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Priority;

/// `[pod.residency]`: what a recipe's models need while they are loaded.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ResidencySpec {
    /// Memory of a pod with its models, in bytes; counts until the pod is measured.
    pub memory_bytes: Option<u64>,
    /// Memory on one GPU, in bytes; counts until it is measured. `None`: the recipe uses no GPU.
    pub gpu_bytes: Option<u64>,
    /// Whether no other model may be on that GPU meanwhile.
    pub exclusive: bool,
    /// How long models stay loaded without work, in milliseconds; 0: they are unloaded at once; `None`: they
    /// stay as long as the pod.
    pub keep_alive_ms: Option<u64>,
}

/// `[pod.lever]`: the setting that is lowered after memory ran out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LeverSpec {
    pub name: String,
    /// From the preferred value to the lowest acceptable one: integers or texts.
    pub values: Vec<LeverValue>,
    /// Whether the setting takes effect when the model is loaded, and not for each ask.
    pub at_load: bool,
}

/// One value of a lever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum LeverValue {
    Number(u64),
    Text(String),
}

/// How much of the machine pods may have: the operator's setting (`[machine]` in `hob.toml`), or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineRules {
    /// For all pods together, in bytes; `None`: a share of what there is.
    pub memory_bytes: Option<u64>,
    /// For each GPU, in bytes; `None`: a share of what it has.
    pub gpu_bytes: Option<u64>,
    /// Whether the app that embeds the host set `memory_bytes`, and not the operator.
    pub memory_is_of_the_app: bool,
    /// Whether the app set `gpu_bytes`.
    pub gpu_is_of_the_app: bool,
    /// Whether each GPU has one model at a time, whatever recipes say.
    pub exclusive_gpus: bool,
    /// Groups of recipes of which only one at a time may have its models loaded, by the group's name.
    pub exclusive: BTreeMap<String, Vec<String>>,
    /// Recipes whose models stay loaded.
    pub pinned: Vec<String>,
}

/// One GPU, as its driver reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gpu {
    /// The driver's identifier: for NVIDIA the UUID, which `CUDA_VISIBLE_DEVICES` takes.
    pub id: String,
    pub name: String,
    pub kind: GpuKind,
    pub bytes: u64,
    pub used_bytes: u64,
}

impl Gpu {
    /// A GPU with no memory in use.
    pub fn new(id: impl Into<String>, name: impl Into<String>, kind: GpuKind, bytes: u64) -> Gpu {
        Gpu { id: id.into(), name: name.into(), kind, bytes, used_bytes: 0 }
    }
}

/// The vendor of a GPU's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GpuKind {
    Nvidia,
    Amd,
}

/// The measured memory of a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Footprint {
    pub memory_bytes: u64,
    #[serde(default)]
    pub gpu_bytes: u64,
    /// Time from `load` to `ready`, in milliseconds.
    #[serde(default)]
    pub load_ms: u64,
}

/// How much of this machine pods may have, which pods have it, and which wait.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MachineStatus {
    /// Most bytes that all pods may have together.
    pub memory_budget_bytes: u64,
    /// The part of it that the pods with a place count for, in bytes.
    pub memory_claimed_bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuStatus>,
    pub residents: Vec<ResidentStatus>,
    /// Pods that wait for a place, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingStatus>,
    /// The last events, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<ResidencyEvent>,
}

/// One GPU in a [`MachineStatus`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GpuStatus {
    #[serde(flatten)]
    pub gpu: Gpu,
    pub budget_bytes: u64,
    pub claimed_bytes: u64,
    /// Whether the GPU has one model at a time.
    pub exclusive: bool,
}

/// A pod with a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResidentStatus {
    pub recipe: String,
    pub incarnation: String,
    pub state: ResidentState,
    pub memory_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    #[serde(default)]
    pub gpu_bytes: u64,
    /// Groups and devices that it has exclusively.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclusive: Vec<String>,
    /// Never evicted: the operator pinned it, or it holds a session's state.
    pub pinned: bool,
    /// How long it has been without work, in milliseconds; `None` while it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

/// The stage of a resident's stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ResidentState {
    Loading,
    Loaded,
    /// It was asked to leave, and finishes its running asks; its memory is not back yet.
    Leaving,
}

/// A pod that waits for a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WaitingStatus {
    pub recipe: String,
    pub incarnation: String,
    /// The highest class of the work that waits for it; `None`: it is only to be kept ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    pub since_ms: u64,
}

/// An event of a resident. The events show which residents are never loaded together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResidencyEvent {
    /// Time since the host was opened, in milliseconds.
    pub at_ms: u64,
    pub what: ResidencyChange,
    pub recipe: String,
    pub incarnation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// The resident for which it was asked to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_by: Option<String>,
}

/// See [`ResidencyEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ResidencyChange {
    /// It may load.
    Loading,
    Loaded,
    /// It was asked to leave.
    Leaving,
    /// Its memory is back.
    Gone,
}
