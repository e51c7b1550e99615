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

/// A whole host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostStatus {
    /// Of Hob.
    pub version: String,
    pub pid: u32,
    /// Since the host was opened, in milliseconds.
    pub up_ms: u64,
    /// Whether it takes calls; `false` once it shuts down, and while `hob.toml` cannot be read.
    pub accepts: bool,
    /// Why it takes none: what each call is refused with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Fault>,
    /// Calls that are not over.
    pub calls_running: u64,
    pub calls_done: u64,
    /// Of the ones that are done.
    pub calls_failed: u64,
    pub pools: Vec<PoolStatus>,
    /// Installed recipes that could not be loaded when they were last wanted. Others go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedStatus>,
    /// Of recipes that preload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zygotes: Vec<ZygoteStatus>,
    /// Who has what of this machine's memory.
    #[serde(default)]
    pub machine: MachineStatus,
}

impl HostStatus {
    /// Whether every recipe in use can answer.
    pub fn is_healthy(&self) -> bool {
        self.accepts && self.damaged.is_empty() && self.pools.iter().all(|pool| pool.health == Health::Good)
    }
}

/// An installed recipe whose files are not what was installed, or that this Hob does not take.
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
    /// The last asks ended by a fault of the pod, or its last start failed.
    Failing,
    /// Nothing is started until `retry_after`.
    Quarantined,
}

/// The pods of one recipe, and what waits for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolStatus {
    pub recipe: String,
    /// The session whose pod it has; none where it has the pods of all other calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub version: String,
    pub health: Health,
    /// Milliseconds until a pod may be started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Waiting asks, by class.
    pub waiting: Waiting,
    pub pods_max: usize,
    /// Where its lever is, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lever: Option<LeverStatus>,
    pub asks_done: u64,
    /// Asks that ended by a fault of the pod.
    pub asks_failed: u64,
    /// Asks that a pod had begun and that are run again: it ended, their batch was too much for it, or its
    /// memory ran out.
    pub asks_repeated: u64,
    /// Pods that ended without being asked to.
    pub crashes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<Fault>,
    pub pods: Vec<PodStatus>,
}

/// What is lowered when memory runs out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeverStatus {
    pub name: String,
    pub value: serde_json::Value,
    /// How often; `hob pods --lift` takes it back.
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
    /// Wholly, and proved at its start.
    Full,
    /// As far as the drivers of a GPU allow: they are large, and reached by device files.
    Gpu,
    /// Without what its operator let it do without.
    Reduced,
}

/// What is around a pod, as proved at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Confinement {
    pub class: Class,
    /// What it had to do without, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Who holds it to its memory.
    #[serde(default)]
    pub memory: MemoryBound,
}

/// Who holds a pod to its memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MemoryBound {
    /// The kernel, by a control group.
    Group,
    /// The host, which looks several times a second.
    #[default]
    Watched,
}

/// How the pods of a recipe that preloads come to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ZygoteStatus {
    pub recipe: String,
    pub state: ZygoteState,
    /// Why its pods are started and not forked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Pods that were forked from it so far, by all recipes that share it.
    pub forked: u64,
    /// Those that are not over.
    pub pods: usize,
    /// The process that stands for it and its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// See [`ZygoteStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ZygoteState {
    /// It imports, or its first pod answers a case; pods are started meanwhile.
    Booting,
    /// Pods are forked from it.
    Ready,
    /// It ended; the next pod is started, and a new one with it.
    Gone,
    /// Pods are started.
    Unforkable,
}

/// What a pod does. People and JSON see its word, and it compares with that: `pod.state == "busy"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PodState {
    /// Its environment is prepared; there is no process yet.
    Provisioning,
    /// Its process starts.
    Starting,
    /// Its models are not loaded.
    Empty,
    Loading,
    /// It lets go of its models.
    Unloading,
    /// Its models are loaded, and it has nothing in hand.
    Ready,
    /// It has asks in hand.
    Busy,
    /// It finishes what it has in hand and takes nothing more.
    Draining,
    /// It was told to end.
    Stopping,
    /// Its process is gone.
    Dead,
}

impl PodState {
    /// Its word.
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

/// One pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PodStatus {
    pub recipe: String,
    pub version: String,
    pub state: PodState,
    /// In that state, in milliseconds.
    pub since_ms: u64,
    /// Since it was spawned, in milliseconds.
    pub age_ms: u64,
    /// The process that does the work, once it said hello.
    pub pid: Option<u32>,
    pub incarnation: String,
    /// Its own and its child processes', in bytes; none where it cannot be read.
    pub memory_bytes: Option<u64>,
    /// Asks that were sent to it.
    pub asks: u64,
    /// Asks in hand.
    pub in_hand: usize,
    /// Forked from a zygote, not started.
    #[serde(default)]
    pub forked: bool,
    /// None until its sandbox is around it: before that nothing of its recipe runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Confinement>,
    /// The last fault that it answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<Fault>,
}

impl PodStatus {
    /// One of which there is no more yet than that it was begun.
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
    /// The ask in hand when it came, 0 for none.
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
