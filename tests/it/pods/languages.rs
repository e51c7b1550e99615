//! Pods that are not Python: compiled for the machine, and run by an interpreter that `env` finds. Each was
//! written from the page of the protocol alone.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use hob::model::Code;
use serde_json::{Value, json};

use crate::cli::rig::{Rig, Signed, put};

/// A recipe folder whose pod is the program that `place` puts at the given path.
fn recipe(below: &Path, name: &str, place: impl Fn(&Path)) -> PathBuf {
    let folder = below.join(name);
    let text = "{ type = \"object\", required = [\"text\"], properties = { text = { type = \"string\" } } }";
    let operation =
        |name: &str, more: &str| format!("[operations.{name}]\nsummary = \"For a test\"\n{more}input = {text}\noutput = {text}\n");
    let manifest = format!(
        "name = \"lab/{name}\"\nversion = \"0.1.0\"\nlicense = \"Apache-2.0\"\nsummary = \"For a test\"\nhob = \"0.1\"\n\n\
         [pod]\nruntime = \"executable\"\nentry = \"pod/program\"\n\n{}{}{}",
        operation("shout", ""),
        operation("spell", "streaming = true\n"),
        operation("crash", "")
    );
    put(&folder.join("recipe.toml"), manifest.as_bytes());
    put(&folder.join("cases/one/input.json"), br#"{"operation": "shout", "input": {"text": "a"}}"#);
    put(&folder.join("cases/one/output.json"), br#"{"text": "A"}"#);
    fs::create_dir_all(folder.join("pod")).unwrap();
    let program = folder.join("pod/program");
    place(&program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Checks that it answers, streams, crashes and is started again: as a folder, and installed.
fn serves(name: &str, place: impl Fn(&Path)) {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = recipe(rig.folder.path(), name, place);
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    let installed = format!("lab/{name}");
    rig.hob(&["add", &installed]).well();
    for recipe in [folder.to_str().unwrap(), &installed] {
        let call = |operation: &str, more: &[&str]| rig.hob(&[&["call", recipe, operation, r#"{"text":"hob"}"#], more].concat());
        assert_eq!(call("shout", &[]).well(), r#"{"text":"HOB"}"#);
        let streamed = call("spell", &["--stream"]);
        let lines: Vec<Value> = streamed.well().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let letter = |letter: &str| json!({ "chunk": { "letter": letter } });
        assert_eq!(lines, [letter("H"), letter("O"), letter("B"), json!({ "text": "HOB" })]);
        let crashed = call("crash", &["--json"]);
        let fault = &crashed.json()["fault"];
        assert_eq!((crashed.exit, &fault["detail"]["signal"]), (Some(i32::from(Code::Crashed.exit())), &json!(6)), "{crashed:#?}");
        let log = fault["detail"]["log"].as_array().unwrap_or_else(|| panic!("{fault}"));
        assert!(log.contains(&json!("about to crash")), "{fault}");
    }
}

fn kit(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods").join(file)
}

/// Whether that program can be run.
fn has(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok_and(|ran| ran.status.success());
    if !is_there {
        println!("SKIPPED: this machine has no `{program}`");
    }
    is_there
}

#[test]
fn a_program_in_c_is_a_pod() {
    if !has("cc") {
        return;
    }
    serves("compiled", |program| {
        let made = Command::new("cc").args(["-O1", "-o"]).arg(program).arg(kit("spells.c")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert!(fs::read(program).unwrap().starts_with(b"\x7fELF"));
    });
}

#[test]
fn a_program_of_an_interpreter_that_env_finds_is_a_pod() {
    if !has("node") {
        return;
    }
    serves("interpreted", |program| {
        fs::copy(kit("spells.js"), program).unwrap();
    });
}
