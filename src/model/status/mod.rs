//! What a running host reports of itself: pods, pools, calls, log lines.
//!
//! The same types cross a socket to `hob pods` and `hob status` and are read back there, so they are separate
//! from `host`.

pub mod doctor;
pub mod machine;
pub mod report;
pub mod session;

use serde::{Deserialize, Serialize};

use crate::model::fault::Fault;
use machine::MachineStatus;

/// The status of a whole host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostStatus {
    /// The version of Hob.
    pub version: String,
    pub pid: u32,
    /// Time since the host was opened, in milliseconds.
    pub up_ms: u64,
    /// Whether it takes calls; `false` from its shutdown on, and while `hob.toml` cannot be read.
    pub accepts: bool,
    /// Why it takes none: the fault with which each call is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Fault>,
    /// Calls that have not ended.
    pub calls_running: u64,
    pub calls_done: u64,
    /// Ended calls that failed.
    pub calls_failed: u64,
    pub pools: Vec<PoolStatus>,
    /// Installed recipes that failed to load when they were last wanted. Others keep working.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedStatus>,
    /// The zygotes of recipes that preload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zygotes: Vec<ZygoteStatus>,
    /// How this machine's memory is divided.
    #[serde(default)]
    pub machine: MachineStatus,
}

impl HostStatus {
    /// Whether every recipe in use can answer.
    pub fn is_healthy(&self) -> bool {
        self.accepts && self.damaged.is_empty() && self.pools.iter().all(|pool| pool.health == Health::Good)
    }
}

/// An installed recipe whose files differ from what was installed, or that this Hob does not accept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DamagedStatus {
    pub recipe: String,
    pub fault: Fault,
}

/// Whether a recipe answers, judged by its real calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Health {
    Good,
    /// The last asks failed because of the pod, or its last start failed.
    Failing,
    /// No pod is started until `retry_after`.
    Quarantined,
}

/// The pods of one recipe, and the asks that wait for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolStatus {
    pub recipe: String,
    /// The session of its pod; `None` for the pods of all other calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub version: String,
    pub health: Health,
    /// Milliseconds until another pod may be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Waiting asks, by class.
    pub waiting: Waiting,
    pub pods_max: usize,
    /// The position of its lever, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lever: Option<LeverStatus>,
    pub asks_done: u64,
    /// Asks that failed because of the pod.
    pub asks_failed: u64,
    /// Asks that a pod had started and that are run again: the pod ended, their batch was too large for it,
    /// or its memory ran out.
    pub asks_repeated: u64,
    /// Pods that ended without being told to.
    pub crashes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<Fault>,
    pub pods: Vec<PodStatus>,
}

/// The setting that is lowered when memory runs out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeverStatus {
    pub name: String,
    pub value: serde_json::Value,
    /// How often it was lowered; `hob pods --lift` resets it.
    pub lowered: usize,
}

/// Waiting asks, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Waiting {
    pub interactive: usize,
    pub normal: usize,
    pub bulk: usize,
}

/// How a pod is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Class {
    /// Fully, and proved at its start.
    Full,
    /// As far as GPU drivers allow, which are large and reached through device files.
    Gpu,
    /// Without the layers that its operator allowed to be missing.
    Reduced,
}

/// The sandbox of a pod, as proved at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Confinement {
    pub class: Class,
    /// Missing layers, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What bounds its memory.
    #[serde(default)]
    pub memory: MemoryBound,
}

/// What bounds a pod's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MemoryBound {
    /// The kernel, by a control group.
    Group,
    /// The host, which checks several times a second.
    #[default]
    Watched,
}

/// The zygote of a recipe that preloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ZygoteStatus {
    pub recipe: String,
    pub state: ZygoteState,
    /// Why its pods are started and not forked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Pods forked from it so far, for all recipes that share it.
    pub forked: u64,
    /// Those pods that are still running.
    pub pods: usize,
    /// The supervisor process of the zygote and its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// See [`ZygoteStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ZygoteState {
    /// It imports, or its first pod runs a case; pods are started directly meanwhile.
    Booting,
    /// Pods are forked from it.
    Ready,
    /// It ended; the next pod is started directly, and a new zygote with it.
    Gone,
    /// Pods are started directly.
    Unforkable,
}

/// The state of a pod. People and JSON see its name, and it compares with that: `pod.state == "busy"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PodState {
    /// Its environment is being prepared; there is no process yet.
    Provisioning,
    /// Its process starts.
    Starting,
    /// Its models are not loaded.
    Empty,
    Loading,
    /// It unloads its models.
    Unloading,
    /// Its models are loaded, and no ask is running.
    Ready,
    /// It runs asks.
    Busy,
    /// It finishes its running asks and takes no more.
    Draining,
    /// It was told to end.
    Stopping,
    /// Its process has ended.
    Dead,
}

impl PodState {
    /// The name of the state.
    pub fn name(self) -> &'static str {
        match self {
            PodState::Provisioning => "provisioning",
            PodState::Starting => "starting",
            PodState::Empty => "empty",
            PodState::Loading => "loading",
            PodState::Unloading => "unloading",
            PodState::Ready => "ready",
            PodState::Busy => "busy",
            PodState::Draining => "draining",
            PodState::Stopping => "stopping",
            PodState::Dead => "dead",
        }
    }
}

impl std::fmt::Display for PodState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

impl PartialEq<str> for PodState {
    fn eq(&self, word: &str) -> bool {
        self.name() == word
    }
}

impl PartialEq<&str> for PodState {
    fn eq(&self, word: &&str) -> bool {
        self.name() == *word
    }
}

/// The status of one pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PodStatus {
    pub recipe: String,
    pub version: String,
    pub state: PodState,
    /// Time in that state, in milliseconds.
    pub since_ms: u64,
    /// Time since it was spawned, in milliseconds.
    pub age_ms: u64,
    /// The process that does the work, once it has said hello.
    pub pid: Option<u32>,
    pub incarnation: String,
    /// Memory of the pod and its child processes, in bytes; `None` if it cannot be read.
    pub memory_bytes: Option<u64>,
    /// Asks that were sent to it.
    pub asks: u64,
    /// Asks that it runs.
    pub in_hand: usize,
    /// Whether it was forked from a zygote.
    #[serde(default)]
    pub forked: bool,
    /// `None` until it is in its sandbox; before that, nothing of its recipe runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Confinement>,
    /// The last fault with which it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<Fault>,
}

impl PodStatus {
    /// The status of a pod that has only been requested.
    pub(crate) fn provisioning(recipe: &str, version: &str, since_ms: u64) -> PodStatus {
        PodStatus {
            recipe: recipe.to_owned(),
            version: version.to_owned(),
            state: PodState::Provisioning,
            since_ms,
            age_ms: since_ms,
            pid: None,
            incarnation: String::new(),
            memory_bytes: None,
            asks: 0,
            in_hand: 0,
            forked: false,
            sandbox: None,
            last_fault: None,
        }
    }
}

/// One line that a pod printed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    pub recipe: String,
    pub incarnation: String,
    /// The running ask at that time; 0 for none.
    pub ask: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_pod_is_one_word_in_json_in_text_and_in_comparisons() {
        let words = ["provisioning", "starting", "empty", "loading", "unloading", "ready", "busy", "draining", "stopping", "dead"];
        for word in words {
            let state: PodState = serde_json::from_value(word.into()).unwrap();
            assert_eq!((state.name(), state.to_string().as_str()), (word, word));
            assert!(state == word && state == *word.to_owned() && state != "other");
            assert_eq!(serde_json::to_value(state).unwrap(), word);
        }
        assert!(serde_json::from_value::<PodState>("asleep".into()).is_err());
    }
}
