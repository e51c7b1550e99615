//! Glue that takes much to compile: at install, in a folder that is called, and under a server that others
//! call.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hob::{
    host::{Config, Host},
    model::{Call, Code, Home},
};
use serde_json::json;

use super::{
    rig::{Rig, Signed, component, put, run, signal},
    served::Serving,
};
use crate::support::is_running;

const ECHO: &str = include_str!("../../guests/echo.wat");

/// A recipe with only glue: its module is the echo's, with more functions.
fn recipe(folder: &Path, name: &str, more: &str) -> PathBuf {
    let folder = folder.join(name.replace('/', "-"));
    let manifest = format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\nlicense = \"Apache-2.0\"\nsummary = \"For a test\"\nhob = \"0.1\"\n\n[glue]\nworld = \"0.1\"\n\n\
         [operations.run]\nsummary = \"Runs\"\ninput = {{}}\noutput = {{}}\n"
    );
    put(&folder.join("recipe.toml"), manifest.as_bytes());
    let module = ECHO.trim_end().strip_suffix(')').unwrap();
    put(&folder.join("glue.wasm"), &component(&format!("{module}\n{more})")));
    put(&folder.join("cases/one/input.json"), br#"{"operation": "run", "input": {"text": "a"}}"#);
    put(&folder.join("cases/one/output.json"), br#"{"text": "a"}"#);
    folder
}

/// One function with so many branches.
fn branches(count: usize) -> String {
    format!(
        "(func (param i32) (result i32) (local i32) {} local.get 1)",
        "local.get 0 if local.get 1 i32.const 3 i32.add local.set 1 end ".repeat(count)
    )
}

/// So many functions.
fn functions(count: usize) -> String {
    "(func (param i32) (result i32) local.get 0 i32.const 1 i32.add)\n".repeat(count)
}

/// Runs a command with a resource limit, as a shell sets it; its children have the same limit.
fn within(rig: &Rig, limit: &str, words: &[&str]) -> Command {
    let plain = rig.command(words);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit {limit}; exec \"$0\" \"$@\"")).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(rig.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Processes that compile into a folder of this home.
fn compilers(rig: &Rig) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_one = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        words.contains("\0compile-glue\0") && words.contains(rig.home.to_str().unwrap())
    };
    all.filter(is_one).filter(|pid| is_running(*pid)).collect()
}

/// Asserts that compiling left nothing: no process and no folder.
#[track_caller]
fn nothing_is_left(rig: &Rig) {
    assert_eq!(compilers(rig), [0; 0]);
    let entries = fs::read_dir(rig.home.join("cache/wasmtime")).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = entries.filter(|name| name.to_string_lossy().starts_with("compiling-")).collect();
    assert_eq!(left.len(), 0, "{left:?}");
}

/// The peak memory of a process, in bytes.
pub fn most_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// Begins like a component, and is none.
const HALF: &[u8] = b"\0asm\x0d\0\x01\0 and no more";

#[tokio::test]
async fn a_file_that_is_no_glue_is_refused_before_it_is_published_as_a_call_refuses_it() {
    let (rig, signed) = (Rig::new(), Signed::new());
    rig.trust(&signed.url(), &signed.repository);
    let module = wat::parse_str("(module)").unwrap();
    let other = wat::parse_str("(component)").unwrap();
    for (name, bytes, says) in [
        ("junk", &b"junk"[..], "is text, wanted a binary wasm component"),
        ("empty", b"", "is an empty file"),
        ("binary", b"\x01\x02\xff\xfe", "is not wasm"),
        ("module", &module, "is a core wasm module, wanted a component"),
        ("half", HALF, "is not a component that this Hob can run"),
        ("other", &other, "does not export the function `run` of hob:glue"),
    ] {
        let folder = recipe(signed.folder.path(), &format!("lab/{name}"), "");
        put(&folder.join("glue.wasm"), bytes);
        let (at, repository, keys) = (folder.to_str().unwrap(), signed.repository.to_str().unwrap(), signed.keys.to_str().unwrap());
        for words in [&["pack", at][..], &["publish", at, "--repo", repository, "--keys", keys], &["call", at, "run", "{}"]] {
            let ran = rig.hob(words);
            ran.refused(Code::GlueIncompatible, &[&format!("the glue of `lab/{name}` {says}")]);
        }
        assert!(fs::read_dir(rig.folder.path()).unwrap().all(|entry| entry.unwrap().path().extension().is_none_or(|end| end != "hob")));
        assert!(!signed.repository.join(format!("targets/lab/{name}")).exists());
        // A publisher may publish it all the same.
        signed.publish_unchecked(&folder).await;
        rig.hob(&["add", &format!("lab/{name}")]).refused(Code::GlueIncompatible, &[says]);
    }
    rig.assert_empty();
    nothing_is_left(&rig);
    // Only the glue was at fault.
    let folder = recipe(signed.folder.path(), "lab/good", "");
    rig.hob(&["pack", folder.to_str().unwrap()]).well();
}

#[tokio::test]
async fn glue_that_takes_too_much_to_compile_ends_with_its_compiler_and_is_not_installed() {
    let (rig, signed) = (Rig::new(), Signed::new());
    rig.trust(&signed.url(), &signed.repository);
    let many = recipe(signed.folder.path(), "lab/many", &functions(100_000));
    let branched = recipe(signed.folder.path(), "lab/branched", &branches(60_000));
    // 100 MB of memory, a few seconds of processor time: less than Hob's own limits, so that the test is
    // short.
    for (folder, name, limit, says) in [(&many, "lab/many", "-d 100000", "memory"), (&branched, "lab/branched", "-t 3", "processor time")] {
        // Published without the author's checks, which would take long.
        signed.publish_unchecked(folder).await;
        for words in [&["add", name][..], &["call", folder.to_str().unwrap(), "run", "{}"]] {
            let ran = run(within(&rig, limit, words), b"");
            ran.refused(Code::GlueLimit, &[&format!("compiling the glue of `{name}` takes more"), says]);
            nothing_is_left(&rig);
        }
    }
    rig.assert_empty();
    // Neither shelf nor machine was at fault: with Hob's own limits the same recipe is installed, and called.
    rig.hob(&["add", "lab/many"]).well();
    assert_eq!(rig.hob(&["call", "lab/many", "run", "[7]"]).well(), "[7]");
    nothing_is_left(&rig);
}

#[test]
fn a_server_does_not_grow_with_glue_that_is_compiled_for_it() {
    let (rig, signed) = (Rig::new(), Signed::new());
    rig.trust(&signed.url(), &signed.repository);
    for (name, more) in [("lab/small", ""), ("lab/many", &functions(100_000)), ("lab/branched", &branches(10_000))] {
        signed.publish(&recipe(signed.folder.path(), name, more));
        rig.hob(&["add", name]).well();
    }
    let server = Serving::start(&rig, &[]);
    let call = |name: &str, deadline: &str| rig.hob(&["call", name, "run", "[7]", "--deadline", deadline]);
    assert_eq!(call("lab/small", "60s").well(), "[7]");
    let before = most_memory(server.child.id());
    // The cache was emptied: the server has everything compiled again.
    let modules = rig.home.join("cache/wasmtime/modules");
    empty(&modules);
    // The first call ends before its glue is compiled. The compilation continues, and the next call waits
    // only for the rest of it.
    call("lab/branched", "100ms").refused(Code::Deadline, &["100 ms"]);
    for name in ["lab/branched", "lab/many"] {
        assert_eq!(call(name, "60s").well(), "[7]");
    }
    assert!(modules.is_dir(), "it was the server that had it compiled");
    // The kernel's counters are slightly out of step: the growth may come out slightly negative.
    let grown = most_memory(server.child.id()).saturating_sub(before);
    // 21 MB of machine code are unpacked and mapped; compiling them took more than ten times as much memory.
    assert!(grown < 128 << 20, "the server grew by {grown} bytes");
    nothing_is_left(&rig);
}

/// Deletes a cache; its user may write to it shortly after an answer.
fn empty(cache: &Path) {
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = fs::remove_dir_all(cache) {
        assert!(error.kind() == ErrorKind::DirectoryNotEmpty && Instant::now() < end, "{}: {error}", cache.display());
    }
}

#[tokio::test]
async fn a_compiler_ends_with_the_host_that_was_killed() {
    let rig = Rig::new();
    let dear = recipe(rig.folder.path(), "lab/branched", &branches(60_000));
    let mut host = rig.command(&["call", dear.to_str().unwrap(), "run", "{}"]).spawn().unwrap();
    crate::support::within(60, "its glue is compiled", || !compilers(&rig).is_empty()).await;
    signal(host.id(), rustix::process::Signal::KILL);
    host.wait().unwrap();
    crate::support::within(60, "nobody compiles any more", || compilers(&rig).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_a_hob_program_runs_what_is_installed_and_is_told_how_to_compile() {
    let (rig, signed) = (Rig::new(), Signed::new());
    rig.trust(&signed.url(), &signed.repository);
    signed.publish(&recipe(signed.folder.path(), "lab/small", ""));
    rig.hob(&["add", "lab/small"]).well();
    let host = Host::open(Config::new(Home::at(&rig.home)).with_hob("/nowhere/hob")).await.unwrap();
    let call = || host.call(Call::new("lab/small", "run", json!([7])).unwrap());
    assert_eq!(call().await.unwrap().output.text(), "[7]");
    host.shutdown().await;

    // The cache was emptied.
    empty(&rig.home.join("cache/wasmtime"));
    let host = Host::open(Config::new(Home::at(&rig.home)).with_hob("/nowhere/hob")).await.unwrap();
    let fault = host.call(Call::new("lab/small", "run", json!([7])).unwrap()).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidConfig);
    assert!(fault.message.contains("/nowhere/hob") && fault.hint.unwrap().contains("Config::with_hob"));
    host.shutdown().await;
    let host = Host::open(Config::new(Home::at(&rig.home)).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
    assert_eq!(host.call(Call::new("lab/small", "run", json!([7])).unwrap()).await.unwrap().output.text(), "[7]");
    host.shutdown().await;
    nothing_is_left(&rig);
}

#[test]
fn a_hob_does_not_compile_for_another_version_and_needs_a_host() {
    let rig = Rig::new();
    let into = rig.folder.path().to_str().unwrap();
    let ran = rig.hob(&["compile-glue", "9.9.9", "whole", into]);
    assert_eq!(ran.well(), format!(r#"{{"other_version":"{}"}}"#, env!("CARGO_PKG_VERSION")));
    let version = env!("CARGO_PKG_VERSION");
    // The compiler sends no component, or one of another length than announced.
    for sent in [&b""[..], &[255; 8], b"\0\0\0\0\0\0\0\x09short"] {
        let ran = rig.hob_reading(&["compile-glue", version, "bounded", into], sent);
        assert!(ran.well().contains("reading the component"), "{ran:?}");
    }
    assert!(!rig.hob(&["--help"]).well().contains("compile-glue"));
}
