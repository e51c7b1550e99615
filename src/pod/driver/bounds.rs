//! What is around a pod on the host's side: its control group, and what answers its proxy.

use crate::pod::{
    process::starting::Grouping,
    sandbox::{cgroup::Group, egress::Egress},
};

/// What a driver holds of its pod's sandbox.
pub(super) struct Sandbox {
    /// What bounds it in the kernel, where this machine lets us.
    pub group: Option<Group>,
    /// That group, while it is being made.
    pub grouping: Option<Grouping>,
    /// What its keeper is told once it is in its group.
    pub plan: Option<Vec<u8>>,
    /// Answers its proxy, if names on the network were granted.
    pub egress: Option<Egress>,
    /// Its first word came before its number: it is told to start when that is known.
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
