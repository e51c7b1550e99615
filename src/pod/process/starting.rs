//! Starts a pod's process, by a fork if possible, else by a spawn, and sets its limits in the kernel.
//!
//! `driver/` owns the process from then on; this file has only the steps that happen once, before.

use crate::pod::{sandbox::cgroup::cgroups, spec};
use std::path::Path;

use crate::{
    disk::threads::{Work, certainly},
    model::{Code, Fault},
    pod::{
        process::{Process, family::Family},
        sandbox::{
            cgroup::Group,
            plan::{self, How},
        },
        spec::Spec,
    },
};

/// Forks the pod's process from `family`, or spawns it if no zygote can fork it. For a spawned pod it also
/// returns the plan, which the caller must send to the pod.
pub(in crate::pod) fn started(spec: &Spec, family: Option<&Family>, page: Option<&Path>) -> Result<(Process, Option<Vec<u8>>), Fault> {
    if let Some(family) = family {
        let plan = plan::plan(spec, How::Forked)?;
        let plan = serde_json::from_slice(&plan).map_err(|error| Fault::new(Code::Internal, format!("a plan that is no JSON: {error}")))?;
        match Process::fork(spec, family, page, plan) {
            Ok(process) => return Ok((process, None)),
            Err(fault) => tracing::warn!("a pod is started, not forked: {fault}"),
        }
    }
    // The plan comes before the spawn: if there can be no plan, nothing is started.
    let plan = plan::plan(spec, How::Started)?;
    Ok((Process::spawn(spec, page)?, Some(plan)))
}

/// Puts `pid`, with every process that it will start, into a control group of its own; `None` if this machine
/// allows no group. The work runs in the background, because the kernel may take twenty milliseconds to move
/// a process.
pub(in crate::pod) fn grouped(spec: &Spec, pid: u32) -> Option<Grouping> {
    let cgroups = cgroups();
    if !cgroups.limits_memory() && !cgroups.limits_processes() {
        return None;
    }
    let pod = spec.recipe.manifest().pod.as_ref();
    // One process more, because the first process of the namespace is not the pod's own.
    let (name, memory, processes) = (spec::group_of(&spec.incarnation), plan::memory_bytes(pod), plan::processes(pod) + 1);
    Some(certainly(move || {
        let made = || {
            let group = cgroups.make(&name, Some(memory), Some(processes))?;
            group.add(pid)?;
            Ok(group)
        };
        made().inspect_err(|error: &std::io::Error| tracing::warn!("a pod is watched, and nothing in the kernel bounds it: {error}")).ok()
    }))
}

/// A control group that is being made.
pub(in crate::pod) type Grouping = Work<Option<Group>>;
