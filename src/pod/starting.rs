//! How a pod's process comes to be: forked where that may be, else started; and what bounds it in the kernel.
//!
//! Apart from `driver.rs`, which owns the process from then on: here is only what is done once, before there is anything to own.

use std::{path::Path, sync::OnceLock};

use super::{
    cgroup::{Cgroups, Group},
    confine::{self, How},
    process::{Process, Spec},
    registry,
};
use crate::model::{Code, Fault};

/// Forks its process, or starts it where there is no zygote that would; then it has to be told its plan.
pub(super) fn started(spec: &Spec, page: Option<&Path>) -> Result<(Process, Option<Vec<u8>>), Fault> {
    if let Some(family) = &spec.family {
        let plan = confine::plan(spec, How::Forked)?;
        let plan = serde_json::from_slice(&plan).map_err(|error| Fault::new(Code::Internal, format!("a plan that is no JSON: {error}")))?;
        match Process::fork(spec, family, page, plan) {
            Ok(process) => return Ok((process, None)),
            Err(fault) => tracing::warn!("a pod is started, not forked: {fault}"),
        }
    }
    // First: where there can be none, there is nothing to start.
    let plan = confine::plan(spec, How::Started)?;
    Ok((Process::spawn(spec, page)?, Some(plan)))
}

/// The control group of a pod, with all that its process will start in it; none where this machine lets us make none.
pub(super) fn bounded(spec: &Spec, process: &Process) -> Result<Option<Group>, Fault> {
    let cgroups = cgroups();
    if !cgroups.limits_memory() && !cgroups.limits_processes() {
        return Ok(None);
    }
    let pod = spec.recipe.manifest().pod.as_ref();
    let made = || {
        let group =
            cgroups.make(&registry::group_of(&spec.incarnation), Some(confine::memory_bytes(pod)), Some(confine::processes(pod)))?;
        // A forked pod's number comes later; what it is to be is not told to it before.
        if let Some(keeper) = process.keeper_pid().filter(|_| !process.is_forked()) {
            group.add(keeper)?;
        }
        Ok(Some(group))
    };
    made().map_err(|error| Fault::io("making a control group", &error))
}

/// What this machine lets us bound in the kernel; found out once.
pub(super) fn cgroups() -> &'static Cgroups {
    static CGROUPS: OnceLock<Cgroups> = OnceLock::new();
    CGROUPS.get_or_init(Cgroups::find)
}
