//! What the kernel says of processes: who started whom, processor time, memory.
//!
//! Apart from the benchmarks because a server under measurement is a tree of processes, and every column is
//! counted alike.

// Each benchmark is a program of its own and uses the part that it needs.
#![allow(dead_code)]

use std::{collections::HashMap, fs, time::Duration};

/// What follows a process's name in its `stat`: state, parent, and so on. None when it is gone.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, a `)` too.
    Some(stat.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect())
}

pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Whether it can still do anything: neither gone nor waiting to be asked how it ended.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).and_then(|fields| fields.into_iter().next()).is_some_and(|state| state != "Z" && state != "X")
}

/// When a process was started, in ticks since boot: with its number, its identity.
pub fn started(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// `root` and all that descend from it, parents before children.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(parent) = parent(pid)
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut at) = (vec![root], 0);
    while at < found.len() {
        found.extend(children.remove(&found[at]).unwrap_or_default());
        at += 1;
    }
    found
}

/// Time on a processor so far of these processes together, to the nanosecond, threads that ended left out.
pub fn processor_time(pids: &[u32]) -> Duration {
    let of = |pid: &u32| -> u64 {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        threads
            .filter_map(|thread| {
                let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
                text.split_whitespace().next()?.parse::<u64>().ok()
            })
            .sum()
    };
    Duration::from_nanos(pids.iter().map(of).sum())
}

/// Memory of a process in MB: resident, and its share of that where pages are shared. Zero when it is gone.
pub fn memory(pid: u32) -> (f64, f64) {
    let [resident, share, _] = memory_parts(pid);
    (resident, share)
}

/// The same, and what it has for itself alone: the pages that its end would give back.
pub fn memory_parts(pid: u32) -> [f64; 3] {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0 / 1e6
    };
    [field("Rss:"), field("Pss:"), field("Private_Clean:") + field("Private_Dirty:")]
}

/// The most memory that a process had resident at a time since it began, or since [`forget_peak`], in MB.
pub fn peak(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0 / 1e6
}

/// From here on [`peak`] counts anew, from what is resident now.
pub fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("its own user may");
}
