//! The files in `packaging/` for operators of `hob serve`: a unit, a profile of system calls, the files of an
//! image; and the messages for a service manager.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use super::rig::{Ran, Rig, run, signal};
use crate::sandbox::ordinary;

const OTHER: &str = "61779";

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap()
}

#[test]
fn the_unit_is_one_that_systemd_takes_and_has_nothing_that_takes_a_pods_walls() {
    let unit = read("packaging/systemd/hob.service");
    let page = read("docs/deploying.md");
    let takes = page.split("so that none start").nth(1).unwrap().split("## In a container").next().unwrap();
    let words: Vec<&str> = takes.split('`').filter(|word| word.ends_with('=')).collect();
    assert!(words.len() > 8, "{words:?}");
    for word in words.iter().chain(&["SystemCallFilter="]) {
        assert!(!unit.lines().any(|line| line.starts_with(word)), "{word}");
    }
    // The unit runs a command that the program has.
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/hob ")).unwrap();
    let rig = Rig::new();
    let help: Vec<&str> = start.split(' ').take(1).chain(["--help"]).collect();
    let said = rig.hob(&help);
    for option in start.split(' ').filter(|word| word.starts_with("--")) {
        assert!(said.well().contains(option), "{option}");
    }
    let at = rig.folder.path().join("hob.service");
    fs::write(&at, unit.replace("/usr/local/bin/hob", env!("CARGO_BIN_EXE_hob"))).unwrap();
    let Ok(verified) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&at).output() else {
        return println!("skipped: no systemd-analyze here");
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains("hob.service:"), "{said}");
}

/// Runs `hob doctor` as an ordinary user without capabilities, under the container's profile, perhaps with
/// further calls forbidden.
fn under_the_profile(folder: &Path, python: &Path, forbidden: &[&str]) -> Ran {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", OTHER, "--regid", OTHER, "--clear-groups", "--bounding-set", "-all", "--no-new-privs", "--"]).arg(python);
    command.arg(folder.join("profile.py")).arg(folder.join("seccomp.json"));
    if !forbidden.is_empty() {
        command.arg("--forbid").arg(forbidden.join(","));
    }
    command.arg("--").arg(folder.join("hob")).arg("doctor");
    command.env("HOB_HOME", folder.join("home")).env("HOB_PYTHON", python).env("HOME", folder).env_remove("HOB_LOG");
    command.current_dir("/").stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    run(command, b"")
}

#[test]
fn under_the_profile_of_a_container_pods_are_fully_confined_and_only_with_what_it_gives_back() {
    if !ordinary::is_root() {
        return println!("skipped: only root can become the user of a container");
    }
    let Some(python) = ordinary::python_for_all() else {
        return println!("skipped: no interpreter is open to every user of this machine");
    };
    let rig = Rig::new();
    let folder = rig.folder.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let other = OTHER.parse().ok();
    fs::create_dir(folder.join("home")).and_then(|()| chown(folder.join("home"), other, other)).unwrap();
    for (from, to) in [("packaging/container/seccomp.json", "seccomp.json"), ("tests/sandbox/profile.py", "profile.py")] {
        fs::copy(project(from), folder.join(to)).unwrap();
        fs::set_permissions(folder.join(to), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_hob"), folder.join("hob")).unwrap();
    let ran = under_the_profile(folder, &python, &["move_mount"]);
    assert!(ran.exit != Some(0) && ran.stderr.contains("sandbox_unavailable"), "the profile was not put on: {ran:#?}");
    let ran = under_the_profile(folder, &python, &[]);
    let forked = Command::new("unshare").args(["-U", "true"]).status().is_ok_and(|status| status.success());
    match forked {
        true => assert!(ran.well().contains("pods run fully confined"), "{ran:#?}"),
        false => println!("skipped: this machine gives nobody a user namespace"),
    }
}

#[test]
fn the_image_is_built_of_files_that_are_there_and_of_all_that_the_program_takes_in() {
    let kept: Vec<String> =
        read("packaging/container/Dockerfile.dockerignore").lines().filter_map(|line| line.strip_prefix('!')).map(str::to_owned).collect();
    assert!(kept.len() > 5, "{kept:?}");
    for path in &kept {
        assert!(project(path).exists(), "{path}");
    }
    let is_kept = |path: &str| kept.iter().any(|kept| path == kept || path.starts_with(&format!("{kept}/")));
    // The files that the manifest names, and those that sources include.
    let manifest = read("Cargo.toml");
    let named = manifest.lines().filter_map(|line| line.trim().strip_prefix("path = \"")?.strip_suffix('"'));
    let missing: Vec<&str> = named.filter(|path| !is_kept(path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let mut folders = vec![project("src")];
    let mut taken = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for rest in text.split("include_str!(\"").skip(1).chain(text.split("include_bytes!(\"").skip(1)) {
                let Some(there) = path.parent().unwrap().join(rest.split('"').next().unwrap()).canonicalize().ok() else { continue };
                let below = there.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
                taken += 1;
                assert!(is_kept(&below), "{} takes in {below}, which no image is built with", path.display());
            }
        }
    }
    assert!(taken > 20, "{taken}");
}

#[test]
fn a_service_manager_is_told_when_a_server_answers_reads_anew_and_ends() {
    let rig = Rig::new();
    let at = rig.folder.path().join("notify");
    let manager = UnixDatagram::bind(&at).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = || {
        let mut bytes = [0; 200];
        let count = manager.recv(&mut bytes).expect("a datagram");
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    };
    let mut command = rig.command(&["serve"]);
    let mut child = command.env("NOTIFY_SOCKET", &at).spawn().unwrap();
    assert_eq!(told(), "READY=1\n");
    // It is not ready before it answers.
    assert!(std::os::unix::net::UnixStream::connect(rig.home.join("state/serve/socket")).is_ok());
    signal(child.id(), Signal::HUP);
    let anew = told();
    let since =
        anew.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix('\n')).unwrap_or_else(|| panic!("{anew}"));
    assert!(since.parse::<u64>().is_ok_and(|micros| micros > 0), "{since}");
    assert_eq!(told(), "READY=1\n");
    signal(child.id(), Signal::TERM);
    assert_eq!(told(), "STOPPING=1\n");
    assert!(child.wait().unwrap().success());
    // A missing socket is reported, and delays nothing.
    let mut command = rig.command(&["serve"]);
    let mut child = command.env("NOTIFY_SOCKET", "@hob-test-nobody").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = lines.find_map(|line| line.ok().filter(|line| line.contains("NOTIFY_SOCKET")));
    assert!(said.as_ref().is_some_and(|line| line.contains("was not told")), "{said:?}");
    signal(child.id(), Signal::TERM);
    drop(lines);
    assert!(child.wait().unwrap().success());
}
