//! Tests control groups: those of this machine if it allows them, and a made-up unified hierarchy for what
//! differs there.
//!
//! If this machine has no control groups for us, a test prints what is missing and passes. `describe`, which
//! `hob doctor` shows, names the same cause.

use std::process::{Child, Command, Stdio};

use crate::pod::sandbox::cgroup::*;

/// Makes and removes groups as the unified hierarchy does. A file that is not made here is one that the
/// kernel lacks.
const MADE_UP: Kernel = Kernel {
    make: |path| {
        fs::create_dir(path)?;
        for file in ["cgroup.procs", "cgroup.kill", "memory.max", "memory.swap.max", "memory.peak", "pids.max"] {
            fs::write(path.join(file), "")?;
        }
        fs::write(path.join("memory.events"), "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 9\n")
    },
    remove: |path| match fs::read_to_string(path.join("cgroup.procs"))?.is_empty() {
        true => fs::remove_dir_all(path),
        false => Err(io::ErrorKind::ResourceBusy.into()),
    },
    is_handed_over: |_| true,
};

/// A hierarchy with a group `above/own`, and the controllers that each of the two has and hands on.
fn hierarchy(above: [&str; 2], own: [&str; 2]) -> (tempfile::TempDir, text::Own) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("above/own");
    fs::create_dir_all(&folder).unwrap();
    for (folder, [has, hands_on]) in [(folder.parent().unwrap(), above), (&folder, own)] {
        fs::write(folder.join("cgroup.controllers"), has).unwrap();
        fs::write(folder.join("cgroup.subtree_control"), hands_on).unwrap();
        fs::write(folder.join("cgroup.procs"), "").unwrap();
    }
    let own = text::Own { unified: Some((folder, root.path().to_owned())), ..text::Own::default() };
    (root, own)
}

#[test]
fn the_unified_hierarchy_is_used_where_it_was_handed_over() {
    const BOTH: [&str; 2] = ["cpu memory pids", "memory pids"];
    let place = |groups: &Cgroups| groups.memory.as_ref().map(|place| place.folder.clone()).ok();
    // Below the own group, if that hands on already.
    let (root, own) = hierarchy(["", ""], BOTH);
    let groups = Cgroups::among(own, MADE_UP);
    assert_eq!(place(&groups), Some(root.path().join("above/own")));
    assert!(groups.limits_memory() && groups.limits_processes());
    assert_eq!(groups.describe(), "memory: yes (control groups v2), processes: yes (control groups v2), end at once: yes");
    // A group that has a controller and does not hand it on is made to.
    let (root, own) = hierarchy(["", ""], ["memory pids", "        pids"]);
    assert_eq!(place(&Cgroups::among(own, MADE_UP)), Some(root.path().join("above/own")));
    assert_eq!(fs::read_to_string(root.path().join("above/own/cgroup.subtree_control")).unwrap(), "+memory pids");
    // Beside the own group, if the group above was handed over; otherwise not, and never around a limit on
    // the own group.
    let (root, own) = hierarchy(BOTH, ["", ""]);
    let not_ours = Kernel { is_handed_over: |_| false, ..MADE_UP };
    assert_eq!(place(&Cgroups::among(own, MADE_UP)), Some(root.path().join("above")));
    let (_root, own) = hierarchy(BOTH, ["", ""]);
    let groups = Cgroups::among(own, not_ours);
    assert!(place(&groups).is_none() && groups.describe().contains("has no controller `memory`"), "{}", groups.describe());
    let (root, own) = hierarchy(BOTH, ["", ""]);
    fs::write(root.path().join("above/own/memory.max"), "1000\n").unwrap();
    assert_eq!(place(&Cgroups::among(own, MADE_UP)), None);
    // Never above the part of the hierarchy that this process sees.
    let (root, mut own) = hierarchy(BOTH, ["", ""]);
    own.unified = Some((root.path().join("above/own"), root.path().join("above/own")));
    assert_eq!(place(&Cgroups::among(own, MADE_UP)), None);
    // A group that refuses a limit does not count, and no probe is left.
    let (root, own) = hierarchy(["", ""], BOTH);
    let useless = Kernel { make: |path| fs::create_dir(path).and_then(|()| fs::write(path.join("cgroup.procs"), "")), ..MADE_UP };
    let groups = Cgroups::among(own, useless);
    assert!(!groups.limits_memory() && groups.describe().contains("writing `memory.max`"), "{}", groups.describe());
    assert!(fs::read_dir(root.path().join("above/own")).unwrap().all(|entry| entry.unwrap().file_type().unwrap().is_file()));
}

#[test]
fn a_group_of_the_unified_hierarchy_is_one_folder_with_every_limit() {
    let (root, own) = hierarchy(["", ""], ["memory pids", "memory pids"]);
    let groups = Cgroups::among(own, MADE_UP);
    let folder = root.path().join("above/own/hob-a-1");
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    let group = groups.make("hob-a-1", Some(64 << 20), Some(32)).unwrap();
    assert_eq!([read("memory.max"), read("memory.swap.max"), read("pids.max")], ["67108864", "0", "32"]);
    assert_eq!((group.memory_events(), group.peak()), (Some(2), None));
    fs::write(folder.join("memory.peak"), "4096\n").unwrap();
    assert_eq!((group.peak(), group.kill().unwrap(), read("cgroup.kill").as_str()), (Some(4096), true, "1"));
    assert_eq!(groups.make("hob-a-1", None, None).err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
    assert!(folder.exists(), "the group of that name is another's");
    // Without limits the group only counts. With a process in it, it stays; `sweep` removes it once the
    // process is gone.
    let unlimited = groups.make("hob-a-2", None, None).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("above/own/hob-a-2/memory.max")).unwrap(), "");
    group.add(4711).unwrap();
    assert_eq!(read("cgroup.procs"), "4711");
    drop((group, unlimited));
    assert_eq!((groups.sweep("hob-a-"), folder.exists()), (0, true));
    fs::write(folder.join("cgroup.procs"), "").unwrap();
    let other = groups.make("hob-b-1", None, None).unwrap();
    assert_eq!((groups.sweep(""), groups.sweep("hob-a-"), groups.sweep("hob-a-"), folder.exists()), (0, 1, 0, false));
    assert!(other.folders.iter().all(|folder| folder.exists()));
}

#[test]
fn what_cannot_be_a_group_or_a_limit_is_an_error() {
    let (root, own) = hierarchy(["", ""], ["pids", "pids"]);
    let groups = Cgroups::among(own, MADE_UP);
    for name in ["", ".", "..", "a/b", "/a", "memory.max", "a b", "\u{e4}", &"x".repeat(CGROUP_NAME_BYTES_MAX + 1)] {
        assert_eq!(groups.make(name, None, None).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput), "{name}");
    }
    assert!(groups.make("a", None, Some(0)).is_err());
    // A requested limit is enforced, or no group is made.
    let error = groups.make("a", Some(1 << 20), Some(8)).err().unwrap();
    assert!(error.kind() == io::ErrorKind::Unsupported && error.to_string().contains("has no controller `memory`"), "{error}");
    assert!(!root.path().join("above/own/a").exists());
    let group = groups.make("a", None, Some(8)).unwrap();
    assert!(group.add(0).is_err());
    assert_eq!((group.memory_events(), group.peak()), (None, None));
    let none = Cgroups::among(text::Own::default(), MADE_UP);
    assert!(!none.limits_memory() && !none.limits_processes() && none.describe().contains("no control groups are mounted"));
    let group = none.make("a", None, None).unwrap();
    assert!(group.add(std::process::id()).is_ok() && !group.kill().unwrap());
}

#[test]
fn a_group_that_others_may_write_only_by_leave_is_told_from_one_that_was_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(is_handed_over(folder.path()), !is_root);
    let marked = |value: &[u8]| rustix::fs::setxattr(folder.path(), "user.delegate", value, rustix::fs::XattrFlags::empty()).is_ok();
    // Not every file system keeps such marks; their absence says nothing about the file system of control
    // groups.
    if marked(b"0") {
        assert_eq!(is_handed_over(folder.path()), !is_root);
        assert!(marked(b"1") && is_handed_over(folder.path()));
    }
}

/// The groups of this machine, if it has those that the test needs.
fn here(needs: impl Fn(&Cgroups) -> bool) -> Option<Cgroups> {
    let groups = Cgroups::find();
    if needs(&groups) {
        return Some(groups);
    }
    println!("not tested here: {}", groups.describe());
    None
}

/// A name that no other test has, in this run or another.
fn name(what: &str) -> String {
    format!("hob-test-{}-{what}", std::process::id())
}

/// A running Python, which runs `source` once a line came in. (The program `python3` may be a script that
/// forks first.)
fn python(source: &str) -> Child {
    let source = format!("import os, sys, time\nprint('up', flush=True)\nsys.stdin.readline()\n{source}");
    let mut command = Command::new("python3");
    command.args(["-I", "-c", &source]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut up = [0; 3];
    io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    child
}

/// Puts the process into `group`, lets it run to its end, and returns whether it succeeded and what it
/// printed.
fn run(mut child: Child, group: &Group) -> (bool, String) {
    group.add(child.id()).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn a_process_past_its_groups_memory_is_killed_and_counted() {
    const LIMIT: u64 = 64 << 20;
    let Some(groups) = here(Cgroups::limits_memory) else { return };
    let group = groups.make(&name("memory"), Some(LIMIT), None).unwrap();
    let folders = group.folders.clone();
    assert!(!folders.is_empty() && folders.iter().all(|folder| folder.is_dir()));
    let modest = run(python("data = bytearray(b'x') * (16 << 20)\nprint('fits')"), &group);
    assert_eq!((modest, group.memory_events()), ((true, "fits".to_owned()), Some(0)));
    let greedy = run(python("data = bytearray(b'x') * (512 << 20)\nprint('took it all')"), &group);
    assert_eq!((greedy, group.memory_events()), ((false, String::new()), Some(1)));
    let peak = group.peak().unwrap();
    assert!((LIMIT / 2..=LIMIT).contains(&peak), "{peak}");
    drop(group);
    assert!(!folders.iter().any(|folder| folder.exists()));
}

#[test]
fn a_fork_past_its_groups_number_of_processes_fails() {
    let Some(groups) = here(Cgroups::limits_processes) else { return };
    let group = groups.make(&name("processes"), None, Some(5)).unwrap();
    let source = "count = 1\nwhile count < 50:\n    try: pid = os.fork()\n    except OSError as error:\n        print(count, error.errno)\n        \
                  break\n    if pid == 0:\n        sys.stdin.read()\n        os._exit(0)\n    count += 1\n";
    let (_, printed) = run(python(source), &group);
    assert_eq!(printed, format!("5 {}", rustix::io::Errno::AGAIN.raw_os_error()));
}

#[test]
fn a_group_ends_at_once_and_is_swept_when_its_host_could_not() {
    let Some(groups) = here(|groups| groups.end.is_some()) else { return };
    let mut group = groups.make(&name("end"), None, None).unwrap();
    // The process and its child, which left the session and ignores SIGTERM.
    let source = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nif os.fork() == 0: os.setsid()\nprint('up', flush=True)\n\
                  time.sleep(60)\n";
    let mut child = python(source);
    group.add(child.id()).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut up = [0; 6];
    io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    let processes = || fs::read_to_string(group.end.as_ref().unwrap().folder.join("cgroup.procs")).unwrap().lines().count();
    assert_eq!((&up, processes()), (b"up\nup\n", 2));
    assert_eq!(groups.sweep(&name("end")), 0, "there are processes in it");
    assert!(group.kill().unwrap());
    child.wait().unwrap();
    // What a killed host leaves: folders that no process removes.
    let folders = group.folders.clone();
    group.kernel.remove = |_| Ok(());
    drop(group);
    assert!(folders.iter().all(|folder| folder.exists()));
    for _ in 0..CGROUP_REMOVE_TRIES {
        groups.sweep(&name("end"));
        std::thread::sleep(Duration::from_millis(CGROUP_REMOVE_PAUSE_MS));
    }
    assert!(!folders.iter().any(|folder| folder.exists()));
}
