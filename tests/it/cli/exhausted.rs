//! A process with few descriptors or processes left: a fault of the machine that names the limit, at every
//! step, never a panic and never advice to weaken the sandbox; the next call succeeds.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    process::{Command, Stdio},
};

use super::rig::{Ran, Rig, run};
use crate::sandbox::ordinary;

/// A user of this test alone, because the limit counts all processes of a user.
const OTHER: u32 = 61_790;
const ECHO: &str = "class Subject:\n    def run(self, input):\n        return input\n";

/// Whether the run succeeded; any failure must be the machine's fault.
#[track_caller]
fn went(ran: &Ran, limit: &str) -> bool {
    assert!(!ran.stderr.contains("panicked"), "{limit}: {ran:#?}");
    if ran.exit == Some(0) {
        return true;
    }
    assert_eq!(ran.exit, Some(8), "{limit}: {ran:#?}");
    assert!(ran.stderr.contains("error[io]: ") && ran.stderr.contains("`ulimit -"), "{limit}: {ran:#?}");
    assert!(!ran.stderr.contains("--reduced"), "{limit}: {ran:#?}");
    false
}

fn limited(limit: &str, command: &Command) -> Command {
    let mut limited = Command::new("bash");
    limited.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "bash"]).arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("HOB_LOG");
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    limited
}

#[test]
fn too_few_descriptors_are_named_at_whatever_step_they_are_missed() {
    let rig = Rig::new();
    let folder = rig.recipe("lab/echo", ECHO, "python = \">=3.9\"");
    let call = rig.command(&["call", folder.to_str().unwrap(), "run", "{}"]);
    let (mut failed, mut well) = (0, 0);
    for count in (4..30).step_by(2).chain([36, 48, 64, 96, 128]) {
        match went(&run(limited(&format!("-n {count}"), &call), b""), &format!("{count} descriptors")) {
            true => well += 1,
            false => failed += 1,
        }
    }
    assert!(failed > 4 && well > 0, "{failed} failed, {well} went");
    rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]).well();
}

#[test]
fn too_few_processes_are_named_at_whatever_step_they_are_missed() {
    if !ordinary::is_root() {
        return println!("skipped: only root can call as a user who has no other processes");
    }
    let Some(python) = ordinary::python_for_all() else {
        return println!("skipped: no interpreter is open to every user of this machine");
    };
    let rig = Rig::new();
    let folder = rig.recipe("lab/echo", ECHO, "python = \">=3.9\"");
    fs::set_permissions(rig.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (program, home) = (rig.folder.path().join("hob"), rig.folder.path().join("theirs"));
    fs::copy(env!("CARGO_BIN_EXE_hob"), &program).unwrap();
    fs::create_dir(&home).unwrap();
    chown(&home, Some(OTHER), Some(OTHER)).unwrap();
    let mut call = Command::new(&program);
    call.args(["call", folder.to_str().unwrap(), "run", "{}"]);
    call.env("HOB_HOME", &home).env("HOB_PYTHON", python).env("HOME", &home);
    // A child of another test, started meanwhile, may have the file open for writing.
    while Command::new(&program).arg("--version").output().is_err() {}
    let user = OTHER.to_string();
    let (mut failed, mut well) = (0, 0);
    for count in (1..12).chain([20, 40]) {
        // The limit applies to the user, so it is set by a process that may still become that user.
        let mut command = limited(&format!("-u {count}"), &call);
        let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut as_other = Command::new("setpriv");
        as_other.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--", "bash"]).args(words).current_dir("/");
        as_other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("HOB_LOG");
        as_other.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command = as_other;
        let ran = run(command, b"");
        if ran.stderr.contains("error[sandbox_unavailable]") && failed == 0 {
            return println!("skipped: {}", ran.stderr);
        }
        match went(&ran, &format!("{count} processes")) {
            true => well += 1,
            false => failed += 1,
        }
    }
    assert!(failed > 1 && well > 0, "{failed} failed, {well} went");
}
