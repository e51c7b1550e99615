//! The host's side of a pod's sandbox: its control group, and the task that answers its proxy.

use crate::pod::{
    process::starting::Grouping,
    sandbox::{cgroup::Group, egress::Egress},
};

/// The driver's handles on its pod's sandbox.
pub(super) struct Sandbox {
    /// The pod's control group, if this machine allows one.
    pub group: Option<Group>,
    /// The control group while it is being made.
    pub grouping: Option<Grouping>,
    /// The plan that the keeper gets once it is in its group.
    pub plan: Option<Vec<u8>>,
    /// Answers the pod's proxy, if names on the network were granted.
    pub egress: Option<Egress>,
    /// The pod's first message came before its process number; the pod is told to start once the number is
    /// known.
    pub awaits_pid: bool,
}

impl Sandbox {
    pub fn new(grouping: Option<Grouping>, plan: Option<Vec<u8>>) -> Sandbox {
        Sandbox { group: None, grouping, plan, egress: None, awaits_pid: false }
    }

    /// Waits for a group that is being made. Cancel-safe.
    pub async fn grouped(grouping: &mut Option<Grouping>) -> Option<Group> {
        let group = match grouping {
            Some(grouping) => grouping.await.flatten(),
            None => std::future::pending().await,
        };
        *grouping = None;
        group
    }
}
