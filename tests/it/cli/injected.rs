//! Exhaustion of machine resources at the system calls of a call, an install and a server:
//! `tests/injected/run.py` lets one after the other fail.
//!
//! The default suite injects into a share of the first and last uses of each system call. In `make soak`,
//! HOB_INJECTED_EACH says into how many uses of each system call, and each run picks other ones.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use super::rig::{glue, tools};

#[track_caller]
fn injected(words: &[&str], home: &std::path::Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/injected/run.py");
    let each = env::var("HOB_INJECTED_EACH");
    let how: Vec<&str> = match &each {
        Ok(each) => vec!["--each", each],
        Err(_) => vec!["--each", "0", "--share", "40", "--seed", "1"],
    };
    let mut command = Command::new(&tools().0);
    command.arg(script).args(words).args(how).env("HOB_TEST_HOB", env!("CARGO_BIN_EXE_hob")).env("TMPDIR", home);
    command.env("HOB_PYTHON", &tools().0).env_remove("HOB_HOME").env_remove("HOB_LOG").stdin(Stdio::null());
    let ran = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}");
    said
}

/// Whether the injector knows this machine's numbers of system calls.
fn is_known() -> bool {
    let is_known = cfg!(target_arch = "x86_64");
    if !is_known {
        println!("skipped: the numbers of system calls are those of x86-64");
    }
    is_known
}

#[test]
fn whatever_a_call_finds_exhausted_is_named_and_nothing_is_left_of_it() {
    if is_known() {
        let folder = tempfile::tempdir().unwrap();
        for scenario in ["call", "session"] {
            let said = injected(&[scenario], folder.path());
            assert!(said.contains(" injected, 0 wrong"), "{said}");
        }
    }
}

#[test]
fn whatever_an_install_or_a_server_finds_exhausted_is_named_and_the_next_goes() {
    if is_known() {
        let folder = tempfile::tempdir().unwrap();
        let component = folder.path().join("glue.wasm");
        fs::write(&component, glue()).unwrap();
        for scenario in ["add", "serve"] {
            let said = injected(&[scenario, "--glue", component.to_str().unwrap()], folder.path());
            assert!(said.contains(" injected, 0 wrong"), "{said}");
        }
    }
}

#[test]
fn a_fault_that_was_not_injected_is_no_proof() {
    if is_known() {
        // The injector really injects: the error arrives.
        let folder = tempfile::tempdir().unwrap();
        let (outcome, made) = (folder.path().join("outcome"), folder.path().join("made"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/injected/injector.py");
        let mut command = Command::new(&tools().0);
        command.arg(script).arg(&outcome).args(["mkdir", "EDQUOT", "1", "--", "mkdir"]).arg(&made).env("LC_ALL", "C");
        let ran = command.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && said.contains("Disk quota exceeded") && !made.exists(), "{said}");
        let found: serde_json::Value = serde_json::from_slice(&fs::read(&outcome).unwrap()).unwrap();
        assert_eq!((&found["injected"]["call"], &found["counts"]["mkdir EDQUOT"]), (&"mkdir".into(), &1.into()), "{found}");
    }
}
