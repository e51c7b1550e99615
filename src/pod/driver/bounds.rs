//! The host's side of a pod's sandbox: its control group, and the task that answers its proxy.

use crate::pod::{
    process::starting::Grouping,
    sandbox::{
        cgroup::{Group, cgroups},
        egress::Egress,
    },
};

/// The driver's handles on its pod's sandbox.
pub(super) struct Sandbox {
    /// The pod's control group, if this machine allows one.
    group: Option<Group>,
    /// The control group while it is being made.
    grouping: Option<Grouping>,
    /// The plan that the keeper gets once it is in its group.
    plan: Option<Vec<u8>>,
    /// Answers the pod's proxy, if names on the network were granted.
    egress: Option<Egress>,
    /// The pod's first message came before its process number; the pod is told to start once the number is
    /// known.
    awaits_pid: bool,
}

impl Sandbox {
    pub fn new(grouping: Option<Grouping>, plan: Option<Vec<u8>>) -> Sandbox {
        Sandbox { group: None, grouping, plan, egress: None, awaits_pid: false }
    }

    // The control group.

    pub fn is_grouping(&self) -> bool {
        self.grouping.is_some()
    }

    /// Waits until the group that is being made is there, or cannot be made. Cancel-safe.
    pub async fn grouped(&mut self) {
        self.group = match &mut self.grouping {
            Some(grouping) => grouping.await.flatten(),
            None => std::future::pending().await,
        };
        self.grouping = None;
    }

    /// A forked pod, whose process number is known from now on, is being put into a group.
    pub fn begin_grouping(&mut self, grouping: Option<Grouping>) {
        self.grouping = grouping;
    }

    /// Whether the kernel holds the pod to its memory.
    pub fn limits_memory(&self) -> bool {
        self.group.is_some() && cgroups().limits_memory()
    }

    /// If the kernel killed a process of the group for its memory: the most that the group held in bytes;
    /// `most` if that is not known.
    pub fn killed_for_memory(&self, most: u64) -> Option<u64> {
        let group = self.group.as_ref()?;
        group.memory_events().filter(|kills| *kills > 0)?;
        Some(group.peak().unwrap_or(most))
    }

    /// Kills every process of the group.
    pub fn kill_group(&self) {
        if let Some(group) = &self.group {
            let _ = group.kill();
        }
    }

    /// Takes the group to remove it.
    pub fn take_group(&mut self) -> Option<Group> {
        self.group.take()
    }

    // The start.

    /// Takes the plan that the keeper gets now.
    pub fn take_plan(&mut self) -> Option<Vec<u8>> {
        self.plan.take()
    }

    pub fn await_pid(&mut self) {
        self.awaits_pid = true;
    }

    /// Whether the pod's start waits for its process number.
    pub fn awaits_pid(&self) -> bool {
        self.awaits_pid
    }

    pub fn pid_known(&mut self) {
        self.awaits_pid = false;
    }

    // The network.

    pub fn serve_network(&mut self, egress: Egress) {
        self.egress = Some(egress);
    }

    /// The last few requests that the pod's proxy refused, each once, and how many it refused in all. `None`
    /// if it refused none.
    pub fn refusals(&self) -> Option<(Vec<String>, u64)> {
        let egress = self.egress.as_ref()?;
        let texts = egress.refusals();
        (!texts.is_empty()).then(|| (texts, egress.refused()))
    }
}
