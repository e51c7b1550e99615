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
    /// Memory of a pod with its models, in bytes; counts until it was measured.
    pub memory_bytes: Option<u64>,
    /// Memory on one GPU, in bytes; none: it uses no GPU. Counts until it was measured.
    pub gpu_bytes: Option<u64>,
    /// Nobody else's model is on that GPU meanwhile.
    pub exclusive: bool,
    /// Unloaded after so long without work, in milliseconds; 0: at once; none: with the pod.
    pub keep_alive_ms: Option<u64>,
}

/// `[pod.lever]`: what is lowered when memory ran out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LeverSpec {
    pub name: String,
    /// From what is wanted to what is bearable: integers or texts.
    pub values: Vec<LeverValue>,
    /// It counts when the model is loaded, and not for each ask.
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

/// What pods may have of the machine: the operator's word (`[machine]` in `hob.toml`), or what holds without
/// it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineRules {
    /// For all pods together, in bytes; none: a share of what there is.
    pub memory_bytes: Option<u64>,
    /// Of each GPU, in bytes; none: a share of what it has.
    pub gpu_bytes: Option<u64>,
    /// The former is what the app that embeds the host says, and not the operator.
    pub memory_is_of_the_app: bool,
    /// The latter is.
    pub gpu_is_of_the_app: bool,
    /// One model at a time on each GPU, whatever recipes say.
    pub exclusive_gpus: bool,
    /// Recipes of which one at a time may have its models loaded, by the group's name.
    pub exclusive: BTreeMap<String, Vec<String>>,
    /// Recipes whose models stay once they are loaded.
    pub pinned: Vec<String>,
}

/// One GPU, as its driver tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gpu {
    /// What its driver calls it: for NVIDIA the UUID, which `CUDA_VISIBLE_DEVICES` takes.
    pub id: String,
    pub name: String,
    pub kind: GpuKind,
    pub bytes: u64,
    pub used_bytes: u64,
}

impl Gpu {
    /// One of which nothing is in use.
    pub fn new(id: impl Into<String>, name: impl Into<String>, kind: GpuKind, bytes: u64) -> Gpu {
        Gpu { id: id.into(), name: name.into(), kind, bytes, used_bytes: 0 }
    }
}

/// Whose driver it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GpuKind {
    Nvidia,
    Amd,
}

/// The memory that a pod was measured to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Footprint {
    pub memory_bytes: u64,
    #[serde(default)]
    pub gpu_bytes: u64,
    /// From `load` to `ready`, in milliseconds.
    #[serde(default)]
    pub load_ms: u64,
}

/// What pods may have of this machine, who has it, and who waits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MachineStatus {
    /// What all pods may have together, in bytes.
    pub memory_budget_bytes: u64,
    /// Of that, what those with a place count for.
    pub memory_claimed_bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuStatus>,
    pub residents: Vec<ResidentStatus>,
    /// Pods that wait for a place, the next one first.
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
    /// One model at a time.
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
    /// Groups and devices that it has for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclusive: Vec<String>,
    /// Never asked to go: by the operator's word, or because a session's state is in it.
    pub pinned: bool,
    /// Without work, in milliseconds; none while it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

/// Where a resident is in its stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ResidentState {
    Loading,
    Loaded,
    /// It was asked to go, and finishes what it has in hand; its memory is not back yet.
    Leaving,
}

/// A pod that waits for a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WaitingStatus {
    pub recipe: String,
    pub incarnation: String,
    /// The best class of what waits for it; none: it is only to be kept ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    pub since_ms: u64,
}

/// Something that happened to a resident: what never happens together can be read off these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResidencyEvent {
    /// Since the host was opened, in milliseconds.
    pub at_ms: u64,
    pub what: ResidencyChange,
    pub recipe: String,
    pub incarnation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// For whom it was asked to go.
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
    /// It was asked to go.
    Leaving,
    /// Its memory is back.
    Gone,
}
