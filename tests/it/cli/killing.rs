//! Several `hob add` at once, and `hob add` killed midway: the shelf is always the old one or the new one.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Child,
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};

use super::rig::{Rig, Signed, signal};
use crate::support::is_running;

const MODEL_BYTES: usize = 6 << 20;

/// A condition on a home.
type Sight = fn(&Path) -> bool;

/// The moment of a kill.
enum When {
    /// After this part of the duration of a whole install.
    After(f64),
    /// As soon as this line of progress is printed.
    Said(&'static str),
    /// As soon as the home meets this condition.
    Seen(Sight),
}

fn any(folder: PathBuf, wanted: impl Fn(&str) -> bool) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| entry.file_name().to_str().is_some_and(&wanted))
}

/// Starts `hob add lab/tiny` and kills it at that moment; returns whether it was still running, and what it
/// had printed.
fn kill(rig: &Rig, when: &When, whole: Duration) -> (bool, Vec<String>) {
    let mut child = rig.command(&["add", "lab/tiny"]).spawn().unwrap();
    let begun = Instant::now();
    let lines = listen(&mut child);
    let mut said = Vec::new();
    let mut ended = false;
    let now = |said: &[String]| match when {
        When::After(part) => begun.elapsed() >= whole.mul_f64(*part),
        When::Said(part) => said.iter().any(|line: &String| line.contains(part)),
        When::Seen(seen) => seen(&rig.home),
    };
    while !ended && !now(&said) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{said:?}");
        match lines.recv_timeout(Duration::from_micros(200)) {
            Ok(line) => said.push(line),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => ended = true,
        }
    }
    // A process that ended by itself is a zombie until it is waited for: the kill does nothing, and its
    // status shows that.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    (status.signal() == Some(9), said)
}

fn listen(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

/// Kills at that moment, and repeats until a kill comes before the end.
fn kill_in_time(rig: &Rig, when: When, whole: Duration, reset: impl Fn()) -> bool {
    let mut when = when;
    for _ in 0..15 {
        if kill(rig, &when, whole).0 {
            return true;
        }
        // The install was faster this time.
        if let When::After(part) = when {
            when = When::After(part * 0.8);
        }
        reset();
    }
    false
}

fn steps() -> Vec<(String, When)> {
    let mut all: Vec<(String, When)> = (1..=10).map(|part| (format!("after {part}/11"), When::After(f64::from(part) / 11.0))).collect();
    for line in ["fetching lab/tiny", "fetching model", "compiling the glue", "building the environment"] {
        all.push((format!("at `{line}`"), When::Said(line)));
    }
    let seen: [(&str, Sight); 7] = [
        ("the unpacked manifest", |home| {
            let staged = fs::read_dir(home.join("data/staging")).into_iter().flatten().flatten();
            staged.map(|entry| entry.path().join("recipe/recipe.toml")).any(|path| path.exists())
        }),
        ("half a model", |home| {
            let staged = fs::read_dir(home.join("data/staging")).into_iter().flatten().flatten();
            staged.map(|entry| entry.path().join("model")).any(|path| path.exists())
        }),
        ("the model", |home| any(home.join("data/models"), |name| name.len() == 64)),
        ("the environment", |home| any(home.join("data/environments"), |name| name.len() == 64)),
        ("half a `hob.toml`", |home| any(home.to_owned(), |name| name.starts_with(".half-"))),
        ("the recipe in its place", |home| any(home.join("data/recipes/lab/tiny"), |name| name.starts_with("0.2.0-"))),
        ("the new `hob.lock`", |home| fs::read_to_string(home.join("hob.lock")).is_ok_and(|text| text.contains("0.2.0"))),
    ];
    all.extend(seen.map(|(name, seen)| (format!("at {name}"), When::Seen(seen))));
    all
}

#[test]
fn kill_9_during_an_install_leaves_the_old_shelf_or_the_new_and_the_next_install_succeeds() {
    let signed = Signed::new();
    signed.publish_tiny("0.1.0", 1_000);
    let rig = Rig::new();
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/tiny"]).well();
    signed.publish_tiny("0.2.0", MODEL_BYTES);

    // From an empty home, and then from the version before.
    let remove = || drop(rig.hob(&["remove", "lab/tiny"]));
    let go_back = || {
        remove();
        rig.hob(&["add", "lab/tiny@=0.1.0"]).well();
        // Without a pin, which would stay.
        let wanted = fs::read_to_string(rig.home.join("hob.toml")).unwrap();
        fs::write(rig.home.join("hob.toml"), wanted.replace("=0.1.0", "*")).unwrap();
    };
    remove();
    let begun = Instant::now();
    rig.hob(&["add", "lab/tiny"]).well();
    let whole = begun.elapsed();

    let mut ends: BTreeMap<(bool, bool), u32> = BTreeMap::new();
    for (number, (what, when)) in steps().into_iter().enumerate() {
        let from_old = number % 3 == 2;
        let reset = || if from_old { go_back() } else { remove() };
        reset();
        let before = rig.installed();
        assert_eq!(before, if from_old { vec!["lab/tiny 0.1.0"] } else { vec![] });
        assert!(kill_in_time(&rig, when, whole, reset), "never killed while it ran: {what}");

        let after = rig.installed();
        let is_new = after == ["lab/tiny 0.2.0"];
        assert!(is_new || after == before, "{what}: {before:?}, then {after:?}");
        *ends.entry((from_old, is_new)).or_default() += 1;
        rig.hob(&["verify"]).well();
        rig.hob(&["add", "lab/tiny"]).well();
        assert_eq!(rig.installed(), ["lab/tiny 0.2.0"], "{what}");
        rig.hob(&["verify"]).well();
        assert!(
            fs::read_to_string(rig.home.join("hob.toml")).unwrap().contains("lab/tiny"),
            "{what}: hob.toml does not say what is wanted"
        );
        assert!(!any(rig.home.clone(), |name| name.starts_with(".half-")), "{what}: half a file stays");
    }
    println!(
        "killed {} times; (from the old version, new afterwards) = times: {ends:?}; a whole install takes {whole:?}",
        ends.values().sum::<u32>()
    );
    let answer = rig.hob(&["call", "lab/tiny", "echo", r#"{"text": "hello"}"#]);
    assert_eq!(answer.json()["bytes"], MODEL_BYTES, "{answer:#?}");
}

#[test]
fn two_installs_at_once_both_end_well_and_the_shelf_is_sound() {
    let signed = Signed::new();
    signed.publish_tiny("0.1.0", MODEL_BYTES);
    signed.publish_plain("lab/plain", "0.1.0");
    let rig = Rig::new();
    rig.trust(&signed.url(), &signed.repository);
    // The same recipe twice and another one, in processes that do not know of each other.
    let children: Vec<_> = ["lab/tiny", "lab/tiny", "lab/plain"].map(|name| rig.command(&["add", name, "--json"]).spawn().unwrap()).into();
    let mut fresh = BTreeMap::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let added: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        *fresh.entry((added["name"].to_string(), added["already"].as_bool().unwrap())).or_insert(0) += 1;
    }
    let name = |text: &str| format!("\"{text}\"");
    let wanted = [((name("lab/plain"), false), 1), ((name("lab/tiny"), false), 1), ((name("lab/tiny"), true), 1)];
    assert_eq!(fresh, BTreeMap::from(wanted), "one installed it, the other found it installed");
    assert_eq!(rig.installed(), ["lab/plain 0.1.0", "lab/tiny 0.1.0"]);
    rig.hob(&["verify"]).well();
    assert_eq!(fs::read_dir(rig.home.join("data/staging")).unwrap().count(), 0);
    rig.hob(&["call", "lab/tiny", "echo", r#"{"text": ""}"#]).well();
}

/// The index has a FIFO in place of a package's page, on which a tool waits for ever.
#[test]
fn an_install_that_is_killed_leaves_no_tool_at_work() {
    for with in [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP] {
        let (rig, signed) = (Rig::new(), Signed::new());
        signed.publish_tiny("0.1.0", 1_000);
        rig.trust(&signed.url(), &signed.repository);
        let page = rig.folder.path().join("index/six");
        fs::create_dir_all(&page).unwrap();
        mknodat(CWD, page.join("index.html"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let config = fs::read_to_string(rig.home.join("hob.toml")).unwrap();
        let index = format!("[environments]\nindex_urls = [\"file://{}\"]\n", rig.folder.path().join("index").display());
        fs::write(rig.home.join("hob.toml"), format!("{index}{config}")).unwrap();
        let mut child = rig.command(&["add", "lab/tiny"]).spawn().unwrap();
        let begun = Instant::now();
        // All processes that have this home among their variables, and the one of them that hangs.
        let at_work = || -> Vec<u32> {
            let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            let is_ours = |pid: &u32| {
                let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                String::from_utf8_lossy(&variables).contains(rig.home.to_str().unwrap()) && is_running(*pid)
            };
            all.filter(is_ours).collect()
        };
        let is_uv = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.ends_with("uv"));
        while !at_work().into_iter().any(is_uv) {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            assert!(begun.elapsed() < Duration::from_secs(60), "no tool: {:?}", at_work());
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(at_work().into_iter().any(is_uv), "it did not hang");
        signal(child.id(), with);
        assert_eq!(child.wait().unwrap().signal(), Some(with.as_raw()), "{with:?}");
        let begun = Instant::now();
        while !at_work().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{with:?}: {:?} is left", at_work());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
