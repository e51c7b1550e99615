//! Records of live pods on disk, one beside each pod's folder: for the next host, if this one is killed
//! together with its keepers.
//!
//! `leftovers.rs` ends processes by their marks. This file reads and writes the records, and decides whether
//! they still mean anything.

use crate::pod::spec::group_of;
use std::{
    fs,
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use crate::{
    disk::{make, open},
    model::{
        Fault,
        limits::{EXIT_GRACE_MS, POD_RECORD_BYTES_MAX},
    },
    pod::{
        process::{leftovers, vitals},
        sandbox::cgroup::cgroups,
    },
};

/// The record of one pod, written before its first process starts, and again when the keeper is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub incarnation: String,
    pub recipe: String,
    /// The boot and namespace in which the process numbers below are valid: see [`vitals::boot`].
    pub boot: String,
    pub host: Process,
    pub keeper: Option<Process>,
}

/// A process, distinguished from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// See [`vitals::identity`].
    pub start_ticks: u64,
}

impl Process {
    /// `None` if there is no such process (any more).
    pub fn of(pid: u32) -> Option<Process> {
        vitals::identity(pid).map(|start_ticks| Process { pid, start_ticks })
    }

    fn is_running(&self) -> bool {
        vitals::identity(self.pid) == Some(self.start_ticks)
    }

    /// A handle to exactly this process; `None` if it ended.
    fn open(&self) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid as i32)?, PidfdFlags::empty()).ok()?;
        // The process is checked with the handle open, so the handle reaches the process that was checked.
        self.is_running().then_some(handle)
    }
}

impl Record {
    /// The record of a pod of this process whose keeper is not started yet.
    pub fn new(incarnation: &str, recipe: &str) -> Record {
        let pid = std::process::id();
        Record {
            incarnation: incarnation.to_owned(),
            recipe: recipe.to_owned(),
            boot: vitals::boot().unwrap_or_default(),
            host: Process::of(pid).unwrap_or(Process { pid, start_ticks: 0 }),
            keeper: None,
        }
    }
}

/// Creates or replaces a record in one step. It is not synced to the disk: after a power cut there is nothing
/// left to end.
///
/// Errors: `io`, `disk_full`.
pub fn record(path: &Path, record: &Record) -> Result<(), Fault> {
    let written = || {
        let mut half = make::temporary(path.parent().unwrap_or(Path::new(".")), ".half-", make::PRIVATE_FILE)?;
        half.write_all(&serde_json::to_vec(record)?)?;
        half.persist(path).map(drop).map_err(|error| error.error)
    };
    written().map_err(|error: std::io::Error| Fault::io(format!("writing {}", path.display()), &error))
}

/// Deletes a record: no process of its pod is left.
pub fn forget(path: &Path) {
    // A record that cannot be deleted names a pod of which no process can be found any more.
    let _ = fs::remove_file(path);
}

/// The result of ending the pods of a dead host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// Processes that were killed.
    pub killed: Vec<u32>,
    /// Processes that could not be killed; their records stay for another try.
    pub left: Vec<u32>,
    /// Number of records of a host that still runs, whether or not it holds its lock; their pods are not
    /// touched.
    pub living: usize,
}

impl Reaped {
    /// Whether the folder is no longer needed.
    pub fn is_done(&self) -> bool {
        self.left.is_empty() && self.living == 0
    }
}

/// Ends all processes of the pods whose records lie in `folder`, the folder of a dead host; removes their
/// control groups, and deletes the records.
///
/// Blocking: two scans of all processes if there are records, seconds if something resists. Records from
/// before the last boot, or from another container, are only deleted: their process numbers may belong to
/// other processes now.
pub fn reap(folder: &Path) -> Reaped {
    let mut reaped = Reaped::default();
    let boot = vitals::boot().unwrap_or_default();
    let mut dead: Vec<(PathBuf, Record)> = Vec::new();
    for (path, record) in records(folder) {
        if record.boot != boot {
            forget(&path);
        } else if record.host.is_running() {
            // On some network file systems a lock does not hold; that must not cost a live pod.
            reaped.living += 1;
        } else {
            dead.push((path, record));
        }
    }
    reaped.killed = end_keepers(dead.iter().filter_map(|(_, record)| record.keeper));
    let ended = leftovers::end(dead.iter().map(|(_, record)| &*record.incarnation));
    reaped.killed.extend(&ended.killed);
    reaped.left.extend(&ended.left);
    if reaped.left.is_empty() {
        dead.iter().for_each(|(path, _)| forget(path));
        // A living host still makes groups of that name. The sweep runs only if a pod of this boot was killed
        // with its host.
        if reaped.living == 0
            && !dead.is_empty()
            && let Some(host) = folder.file_name().and_then(|name| name.to_str())
        {
            cgroups().sweep(&group_of(&format!("{host}-")));
        }
    }
    reaped
}

/// The readable records of a folder.
fn records(folder: &Path) -> Vec<(PathBuf, Record)> {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "pod"));
    let read = |path: PathBuf| {
        let record = serde_json::from_slice(&open::read(&path, POD_RECORD_BYTES_MAX).ok()?).ok()?;
        Some((path, record))
    };
    paths.filter_map(read).collect()
}

/// Lets keepers end their trees, and ends those keepers that do not; returns the numbers of all keepers that
/// existed.
fn end_keepers(keepers: impl Iterator<Item = Process>) -> Vec<u32> {
    let mut running: Vec<(u32, OwnedFd)> = keepers.filter_map(|keeper| Some((keeper.pid, keeper.open()?))).collect();
    let pids = running.iter().map(|(pid, _)| *pid).collect();
    for (_, handle) in &running {
        // A keeper knows its tree better than any mark does. The keeper of a dead host already ends its tree.
        let _ = pidfd_send_signal(handle, Signal::QUIT);
    }
    let until = Instant::now() + Duration::from_millis(EXIT_GRACE_MS);
    while !running.is_empty() && Instant::now() < until {
        let wait = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let mut first = [PollFd::new(&running[0].1, PollFlags::IN)];
        let _ = poll(&mut first, Some(&wait));
        running.retain(|(_, handle)| !has_ended(handle));
    }
    for (_, handle) in &running {
        let _ = pidfd_send_signal(handle, Signal::KILL);
    }
    pids
}

fn has_ended(handle: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&now)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::pod::spec::path_of;

    fn sleeper(incarnation: &str) -> Child {
        let child = Command::new("sleep").arg("20").env(leftovers::VARIABLE, incarnation).spawn().unwrap();
        // Until the program runs, the child has the environment of this process.
        let until = Instant::now() + Duration::from_secs(5);
        while !fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap().starts_with("sleep") {
            assert!(Instant::now() < until, "`sleep` does not start");
        }
        child
    }

    fn is_over(child: &mut Child) -> bool {
        child.try_wait().unwrap().is_some()
    }

    /// A record as a dead host would have left it.
    fn of_dead_host(incarnation: &str) -> Record {
        let record = Record::new(incarnation, "test/pod");
        Record { host: Process { start_ticks: record.host.start_ticks + 1, ..record.host }, ..record }
    }

    #[test]
    fn a_record_is_replaced_whole_read_back_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(&folder.path().join("7"));
        let keeper = Process::of(std::process::id());
        assert!(keeper.is_some_and(|keeper| keeper.is_running() && keeper.open().is_some()));
        let before = Record::new("host-a-7", "test/pod");
        record(&path, &before).unwrap();
        record(&path, &Record { keeper, ..before.clone() }).unwrap();
        assert_eq!(records(folder.path()), [(path.clone(), Record { keeper, ..before.clone() })]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        forget(&path);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let fault = record(&folder.path().join("missing/7.pod"), &before).unwrap_err();
        assert!(fault.code == crate::model::Code::Io && fault.message.contains("missing/7.pod"), "{fault:?}");
    }

    #[test]
    fn pods_of_a_dead_host_are_ended_and_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let unique = at("").display().to_string().replace(['/', '.'], "-");
        let name = |name: &str| format!("{unique}{name}");
        let mut pods = ["dead", "living", "boot"].map(|pod| sleeper(&name(pod)));
        let (mut keeper, mut later) = (sleeper("none"), sleeper("none"));

        let known = Process::of(keeper.id());
        record(&at("dead.pod"), &Record { keeper: known, ..of_dead_host(&name("dead")) }).unwrap();
        // The keeper's number now belongs to another process.
        let taken = Process::of(later.id()).map(|process| Process { start_ticks: process.start_ticks - 1, ..process });
        record(&at("taken.pod"), &Record { keeper: taken, ..of_dead_host(&name("taken")) }).unwrap();
        record(&at("living.pod"), &Record { keeper: taken, ..Record::new(&name("living"), "test/pod") }).unwrap();
        // A record from before the machine was started: every number in it may belong to another process.
        let stranger = Process::of(later.id());
        record(&at("boot.pod"), &Record { boot: "another".into(), keeper: stranger, ..of_dead_host(&name("boot")) }).unwrap();
        fs::write(at("torn.pod"), "{\"incarnation\":").unwrap();

        let reaped = reap(folder.path());
        let mut killed = reaped.killed.clone();
        killed.sort_unstable();
        let mut wanted = vec![pods[0].id(), keeper.id()];
        wanted.sort_unstable();
        assert_eq!((killed, reaped.left.len(), reaped.living, reaped.is_done()), (wanted, 0, 1, false));
        pods[0].wait().unwrap();
        keeper.wait().unwrap();
        assert!(!is_over(&mut pods[1]) && !is_over(&mut pods[2]) && !is_over(&mut later), "a stranger was killed");
        let left = |name: &str| at(name).exists();
        assert_eq!(["dead.pod", "taken.pod", "living.pod", "boot.pod"].map(left), [false, false, true, false]);

        forget(&at("living.pod"));
        assert!(reap(folder.path()).is_done() && reap(&at("missing")).is_done());
        for child in pods[1..].iter_mut().chain([&mut later]) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
