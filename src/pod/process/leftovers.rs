//! Finds and ends the processes that a pod left running when its keeper could not end them. It finds them by
//! the marks that they inherited.
//!
//! The keeper knows its tree by parents. Once the keeper is killed, a process that left its session has no
//! known parent, and only its marks say where it came from. There are three marks, because each can be lost:
//!
//! - The environment variable [`VARIABLE`]: every program that is started inherits it.
//! - The mapping of the pod's page: every fork inherits it, even if the program overwrites its environment
//!   with the title that `ps` shows.
//! - The pod's root among the mounts: a program that removes the other two marks on purpose keeps this one.
//!   In a sandbox with namespaces no process can get out of these mounts.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{
    model::limits::{LEFTOVERS_MS, LEFTOVERS_PAUSE_US, LEFTOVERS_QUICK_LOOKS, LEFTOVERS_QUIET_ROUNDS, PROCESS_TEXT_BYTES_MAX},
    pod::process::{page, vitals},
};

/// Environment variable of every pod; its value is the pod's incarnation.
pub const VARIABLE: &str = "HOB_POD";

/// Ends every process of the pod of this incarnation, including its keeper; returns how many it killed. It is
/// for a pod whose keeper was killed. It blocks for at most [`LEFTOVERS_MS`] and one scan of all processes.
///
/// This process itself is never ended, whatever marks it has.
pub fn end_leftovers(incarnation: &str) -> usize {
    end([incarnation]).killed.len()
}

/// Numbers of the processes that were found.
#[derive(Debug, Default)]
pub(in crate::pod) struct Ended {
    pub killed: BTreeSet<u32>,
    /// Marked processes that the last scan could not kill: they run as another user, or the kernel cannot end
    /// them.
    pub left: BTreeSet<u32>,
}

/// Ends every process of these pods.
pub(in crate::pod) fn end<'a>(incarnations: impl IntoIterator<Item = &'a str>) -> Ended {
    let marks: Vec<Mark> = incarnations.into_iter().map(Mark::new).collect();
    let mut ended = Ended::default();
    if marks.is_empty() {
        return ended;
    }
    let until = Instant::now() + Duration::from_millis(LEFTOVERS_MS);
    let mut quiet_rounds = 0;
    loop {
        let round = one_round(&marks);
        ended.killed.extend(&round.killed);
        ended.left = round.left;
        let nothing_to_wait_for = round.killed.is_empty() && !ended.left.is_empty();
        quiet_rounds = if round.killed.is_empty() { quiet_rounds + 1 } else { 0 };
        if nothing_to_wait_for || quiet_rounds >= LEFTOVERS_QUIET_ROUNDS {
            return ended;
        }
        if Instant::now() >= until {
            ended.left.extend(round.killed);
            ended.killed.retain(|pid| !ended.left.contains(pid));
            return ended;
        }
    }
}

/// Scans all processes once, then scans the new ones many times quickly.
///
/// The first scan is slow enough that a process can fork a child and end before its turn, again and again.
/// The others only list the processes, so a new process is met before it ends.
fn one_round(marks: &[Mark]) -> Ended {
    let (mut round, mut strangers) = (Ended::default(), HashSet::new());
    for number in 0..=LEFTOVERS_QUICK_LOOKS {
        if number > 0 {
            sleep(Duration::from_micros(LEFTOVERS_PAUSE_US));
        }
        kill_marked(marks, &mut strangers, &mut round);
    }
    round
}

/// Sends SIGKILL to every process with a mark that is not among the strangers; a process without a mark
/// becomes a stranger.
fn kill_marked(marks: &[Mark], strangers: &mut HashSet<u32>, round: &mut Ended) {
    // Each entry is judged while the folder is read: processes that were made meanwhile come at its end.
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() || strangers.contains(&pid) || round.killed.contains(&pid) {
            continue;
        }
        if !is_marked(pid, marks) {
            strangers.insert(pid);
            continue;
        }
        let Some(handle) = Pid::from_raw(pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { continue };
        // The mark is checked again with the handle open: now the handle reaches the process that carries the
        // mark, or none.
        if !is_marked(pid, marks) {
            continue;
        }
        match pidfd_send_signal(&handle, Signal::KILL) {
            Ok(()) => round.killed.insert(pid),
            Err(Errno::SRCH) => continue,
            Err(_) => round.left.insert(pid),
        };
    }
}

/// The marks of the processes of one pod.
struct Mark {
    variable: Vec<u8>,
    mapping: Vec<u8>,
    mount: Option<Vec<u8>>,
}

impl Mark {
    fn new(incarnation: &str) -> Mark {
        let mapping = format!("/{}", page::file_name(incarnation)).into_bytes();
        // `host::pods` names both this way, and `hob_pod/mounts.py` names the root that it mounts this way.
        let mount = incarnation.rsplit_once('-').map(|(host, number)| format!("hob:{host}/{number}").into_bytes());
        Mark { variable: format!("{VARIABLE}={incarnation}").into_bytes(), mapping, mount }
    }

    fn is_in_environment(&self, text: &[u8]) -> bool {
        text.split(|byte| *byte == 0).any(|variable| variable == self.variable)
    }

    /// Searches the lines of `/proc/PID/maps`, each of which ends with the path of the mapped file.
    fn is_in_mappings(&self, text: &[u8]) -> bool {
        let mut lines = text.split(|byte| *byte == b'\n');
        lines.any(|line| line.strip_suffix(b" (deleted)").unwrap_or(line).ends_with(&self.mapping))
    }

    /// Searches the lines of `/proc/PID/mountinfo`, whose second word after a `-` is the mounted source.
    fn is_in_mounts(&self, text: &[u8]) -> bool {
        let Some(mount) = &self.mount else { return false };
        let mut lines = text.split(|byte| *byte == b'\n');
        lines.any(|line| line.split(|byte| *byte == b' ').skip_while(|word| *word != b"-").nth(2) == Some(mount))
    }
}

/// Whether a process has one of the marks. A process that may not be read belongs to another user.
fn is_marked(pid: u32, marks: &[Mark]) -> bool {
    let process = format!("/proc/{pid}");
    match carries(&process, marks) {
        Some(marked) => marked,
        // A process without memory has ended, belongs to the kernel, or its first thread ended before the
        // others.
        None => {
            let threads = fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten();
            threads.into_iter().any(|thread| carries(&thread.path().to_string_lossy(), marks) == Some(true))
        }
    }
}

/// Whether a thread or process has one of the marks; `None` if it has no memory.
fn carries(process: &str, marks: &[Mark]) -> Option<bool> {
    let environment = vitals::read(format!("{process}/environ"), PROCESS_TEXT_BYTES_MAX)?;
    if marks.iter().any(|mark| mark.is_in_environment(&environment)) {
        return Some(true);
    }
    let mappings = vitals::read(format!("{process}/maps"), PROCESS_TEXT_BYTES_MAX)?;
    if mappings.is_empty() {
        return None;
    }
    if marks.iter().any(|mark| mark.is_in_mappings(&mappings)) {
        return Some(true);
    }
    let mounts = vitals::read(format!("{process}/mountinfo"), PROCESS_TEXT_BYTES_MAX).unwrap_or_default();
    Some(marks.iter().any(|mark| mark.is_in_mounts(&mounts)))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        os::unix::process::ExitStatusExt,
        process::{Child, Command, Stdio},
    };

    use super::*;
    use crate::pod::process::page::Page;

    /// Returns a name that no other test on this machine has.
    fn unique(name: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        format!("{name}{}", folder.path().file_name().unwrap().to_string_lossy().replace('.', "-"))
    }

    /// Runs `source` in Python until it has printed a line.
    fn python(source: &str, variable: Option<&str>, arguments: &[&str]) -> (Child, String) {
        let mut command = Command::new("python3");
        command.args(["-I", "-c", source]).args(arguments).stdout(Stdio::piped());
        match variable {
            Some(incarnation) => command.env(VARIABLE, incarnation),
            None => command.env_remove(VARIABLE),
        };
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line)
    }

    fn is_running(pid: u32) -> bool {
        vitals::identity(pid).is_some()
    }

    #[test]
    fn only_processes_of_exactly_that_pod_are_ended() {
        let incarnation = unique("exact");
        let longer = format!("{incarnation}0");
        let sleeper = "import time\nprint(flush=True)\ntime.sleep(20)";
        let (mut ours, _) = python(sleeper, Some(&incarnation), &[]);
        // This one has a similar name, and the mark only in an argument.
        let (mut other, _) = python(sleeper, Some(&longer), &[&format!("{VARIABLE}={incarnation}")]);
        assert_eq!(end_leftovers(&incarnation), 1);
        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        assert!(is_running(other.id()), "a stranger was killed");
        assert_eq!(end_leftovers(&incarnation), 0);
        assert_eq!(end_leftovers(&longer), 1);
        other.wait().unwrap();
    }

    #[test]
    fn who_left_session_and_parents_is_found_and_who_forks_meanwhile_too() {
        let incarnation = unique("chain");
        // A grandchild that left the session, and one that forks a child and ends, again and again; for 20 s
        // at most, in case the test fails.
        let source = "import os, time\nend = time.monotonic() + 20\nif os.fork() == 0:\n    os.setsid()\n    os.dup2(os.open(os.devnull, os.O_RDWR), 1)\n    \
                      if os.fork() == 0:\n        time.sleep(20)\n        os._exit(0)\n    while time.monotonic() < end:\n        \
                      time.sleep(0.001)\n        if os.fork() != 0: os._exit(0)\n    os._exit(0)\nprint(flush=True)\ntime.sleep(20)";
        let (mut child, _) = python(source, Some(&incarnation), &[]);
        sleep(Duration::from_millis(100));
        let ended = end([&*incarnation]);
        child.wait().unwrap();
        assert!(ended.killed.len() >= 3 && ended.left.is_empty(), "{ended:?}");
        sleep(Duration::from_millis(50));
        assert_eq!(end_leftovers(&incarnation), 0, "one handed on behind the look");
    }

    #[test]
    fn who_overwrote_its_environment_is_known_by_the_page() {
        let incarnation = unique("title");
        let folder = tempfile::tempdir().unwrap();
        let page = Page::create(folder.path(), &incarnation).unwrap();
        let source = "import mmap, sys, time\nfile = open(sys.argv[1], 'r+b')\npage = mmap.mmap(file.fileno(), 4096)\nfile.close()\n\
                      print(flush=True)\ntime.sleep(20)";
        // This process never had the variable, which looks the same as having overwritten it.
        let (mut child, _) = python(source, None, &[&page.path().unwrap().display().to_string()]);
        drop(page);
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
        assert!(maps.contains(".page (deleted)"), "the mark outlives the file");
        assert_eq!(end_leftovers(&format!("{incarnation}0")), 0);
        assert_eq!(end_leftovers(&incarnation), 1);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_process_whose_first_thread_ended_is_found() {
        let incarnation = unique("thread");
        let source = "import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(20,)).start()\nprint(flush=True)\n\
                      ctypes.CDLL(None).syscall(ctypes.c_long(int(__import__('sys').argv[1])), 0)";
        // SYS_exit, which ends one thread.
        let number = if cfg!(target_arch = "x86_64") { "60" } else { "93" };
        let (mut child, _) = python(source, Some(&incarnation), &[number]);
        let until = Instant::now() + Duration::from_secs(5);
        while !fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap().contains(") Z") {
            assert!(Instant::now() < until, "its first thread does not end");
            sleep(Duration::from_millis(5));
        }
        assert!(child.try_wait().unwrap().is_none(), "it runs on");
        assert_eq!(end_leftovers(&incarnation), 1);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn marks_are_read_exactly() {
        let mark = Mark::new("host-a-1");
        assert!(mark.is_in_environment(b"A=1\0HOB_POD=host-a-1\0") && mark.is_in_environment(b"HOB_POD=host-a-1"));
        for text in [&b""[..], b"HOB_POD=host-a-10\0", b"XHOB_POD=host-a-1\0", b"A=HOB_POD=host-a-1\0", b"HOB_POD=host-a-1\n\0"] {
            assert!(!mark.is_in_environment(text), "{text:?}");
        }
        let line = "7f0000000000-7f0000001000 rw-s 00000000 fe:00 42 ";
        for (path, found) in [
            ("/x/host-a-1.page", true),
            ("/x/host-a-1.page (deleted)", true),
            ("/x/a-host-a-1.page", false),
            ("/x/host-a-1.page.x", false),
            ("/x/host-a-10.page", false),
        ] {
            assert_eq!(mark.is_in_mappings(format!("{line}/lib.so\n{line}{path}\n{line}\n").as_bytes()), found, "{path}");
        }
        for (root, found) in
            [("hob:host-a/1", true), ("hob:host-a/10", false), ("hob:ghost-a/1", false), ("host-a/1", false), ("hob", false)]
        {
            let text = format!("40 30 0:40 / /tmp/hob:host-a/1 rw shared:1 - tmpfs hob rw\n41 30 0:41 / / rw - tmpfs {root} rw\n");
            assert_eq!(mark.is_in_mounts(text.as_bytes()), found, "{root}");
        }
    }
}
