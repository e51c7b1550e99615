//! A pod that sends at full speed and reads nothing, and a caller that reads nothing: the server needs little
//! memory for them.
//!
//! These tests measure memory and descriptors of the whole process, so the server is a process of its own.
//! They drive each message of the pod protocol that a pod may send at will.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    besieged::narrow,
    compiling::most_memory,
    rig::{Rig, Signed, put, write_recipe},
    served::{Serving, general, request, stderr},
};

const MANIFEST: &str = "name = \"lab/loud\"\nversion = \"0.1.0\"\nlicense = \"Apache-2.0\"\nsummary = \"Floods its host\"\nhob = \"0.1\"\n\
    [pod]\nruntime = \"executable\"\nentry = \"pod/deaf_and_loud.py\"\nmax = 1\n";

const OPERATION: &str = "[operations.run]\nsummary = \"Floods\"\ninput = {}\noutput = {}\nstreaming = true\n";

/// A message, how often the pod sends it, whether its caller reads, and whether the pod ends for breaking the
/// protocol.
const FLOODS: &[(&str, u32, bool, bool)] = &[
    // Each message makes a descriptor of the host that waits for the pod; 15,000 are all that a host may
    // have.
    ("rooms", 15_000, true, true),
    ("refused rooms", 300_000, false, true),
    ("logs", 300, true, false),
    ("pongs", 20, true, false),
    ("progress", 300, true, false),
    ("progress", 300, false, false),
    ("large progress", 4, false, false),
    ("small chunks", 100_000, false, false),
    ("chunks", 60, false, false),
    ("chunks of many values", 4, true, false),
    ("padded chunks", 60, false, false),
    ("deep faults", 1, true, false),
    ("long lists", 3, true, true),
];

/// The same for a pod that counts its credit, within that credit.
const FLOODS_ON_CREDIT: &[(&str, u32, bool, bool)] =
    &[("progress", 300, false, false), ("padded chunks", 60, false, false), ("chunks", 2, false, false)];

/// A home with the loud recipe and a quiet one.
fn rig(environment: &str) -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    let (loud, quiet) = (signed.folder.path().join("loud"), signed.folder.path().join("quiet"));
    let open = signed.folder.path().join("open");
    fs::create_dir(&open).unwrap();
    put(&loud.join("recipe.toml"), format!("{MANIFEST}{environment}{OPERATION}[permissions]\nwrite = [{open:?}]\n").as_bytes());
    put(&loud.join("cases/one/input.json"), br#"{"operation": "run", "input": {}}"#);
    put(&loud.join("cases/one/output.json"), b"1");
    for file in ["deaf_and_loud.py", "raw.py"] {
        fs::create_dir_all(loud.join("pod")).unwrap();
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods").join(file), loud.join("pod").join(file)).unwrap();
    }
    write_recipe(&quiet, "lab/quiet", "0.1.0", "class Subject:\n    def run(self, input):\n        return input\n", "python = \">=3.9\"");
    signed.publish(&loud);
    signed.publish(&quiet);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/loud", "--grant"]).well();
    rig.hob(&["add", "lab/quiet"]).well();
    (rig, signed)
}

/// Bytes of memory and descriptors of a process.
fn held(pid: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (kilobytes << 10, fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

/// The text that the pod wrote when it had sent everything, or found that nothing more was taken; none if it
/// was ended before.
fn watch(serving: &mut Serving, file: &PathBuf, most: &mut (u64, usize), is_over: impl Fn() -> bool) -> String {
    let begun = Instant::now();
    loop {
        let (bytes, descriptors) = held(serving.child.id());
        *most = (most.0.max(bytes), most.1.max(descriptors));
        if let Ok(text) = fs::read_to_string(file) {
            return text;
        }
        if is_over() {
            return "ended".to_owned();
        }
        if begun.elapsed() > Duration::from_secs(60) {
            panic!("the pod never came to {}: {}", file.display(), stderr(&mut serving.child));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn floods(environment: &str, floods: &[(&str, u32, bool, bool)]) {
    let (rig, signed) = rig(environment);
    let mut serving = Serving::start(&rig, &[]);
    // Both pods exist, and the server has done everything once.
    let quiet = |serving: &Serving| {
        let answer = serving.ask("POST /v1/recipes/lab/quiet/run", br#"{"well": 1}"#);
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"well":1}"#), "{answer:?}");
    };
    quiet(&serving);
    for (at, (say, count, reads, ends)) in floods.iter().enumerate() {
        let file = signed.folder.path().join(format!("open/{at}"));
        let input = json!({ "say": say, "count": count, "file": file });
        let before = held(serving.child.id());
        let mut most = before;
        let mut stream = serving.connect();
        stream.write_all(&request("POST /v1/calls", &general("lab/loud", "run", &input))).unwrap();
        let reader = reads.then(|| {
            let mut stream = stream.try_clone().unwrap();
            std::thread::spawn(move || {
                let mut last = Vec::new();
                let mut piece = vec![0; 1 << 16];
                while let Ok(read @ 1..) = std::io::Read::read(&mut stream, &mut piece) {
                    last.extend_from_slice(&piece[..read]);
                    let from = last.len().saturating_sub(1 << 16);
                    last.drain(..from);
                }
                String::from_utf8_lossy(&last).into_owned()
            })
        });
        let said = watch(&mut serving, &file, &mut most, || reader.as_ref().is_some_and(|reader| reader.is_finished()));
        let (bytes, descriptors) = (most.0 - before.0, most.1 - before.1);
        println!("{say} ({}): {said}; {} MB and {descriptors} descriptors more", if *reads { "read" } else { "not read" }, bytes >> 20);
        assert!(bytes < 64 << 20, "{say}: {bytes} bytes more than before");
        assert!(descriptors < 70, "{say}: {descriptors} descriptors more than before");
        quiet(&serving);
        match reader {
            Some(reader) => {
                let last = reader.join().unwrap();
                assert_eq!(last.contains("protocol_violation"), *ends, "{say}: {said}: {last}");
            }
            // The pod is held back, by its caller or because it does not read; a caller that hangs up
            // releases it.
            None => assert!(!*ends || said.contains("stuck"), "{say}: {said}"),
        }
        drop(stream);
        // The next flood comes from a free pod, or from another one.
        let begun = Instant::now();
        while pods(&serving).iter().any(|pod| pod["recipe"] == "lab/loud" && pod["in_hand"] != 0) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{say}: {:?}", pods(&serving));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn pods(serving: &Serving) -> Vec<Value> {
    serving.ask("GET /v1/pods", b"").json().as_array().unwrap().clone()
}

#[test]
fn a_deaf_pod_and_a_deaf_caller_cost_the_host_little_memory_and_few_descriptors() {
    floods("", FLOODS);
}

#[test]
fn so_does_one_that_says_it_counts_its_credit() {
    floods("[pod.env]\nCREDIT = \"1\"\n", FLOODS_ON_CREDIT);
}

#[test]
fn a_recipe_that_holds_all_descriptors_it_can_get_leaves_another_one_and_the_host_theirs() {
    let (rig, _signed) = rig("");
    // Connections, callers' files and the reserve are subtracted first. The loud recipe gets half of the
    // rest, and is refused before its 64 regions.
    let mut serving = narrow(&rig, 512, &[]);
    let hoarded = serving.ask("POST /v1/calls", &general("lab/loud", "run", &json!({ "say": "hoard", "count": 60 })));
    let text = hoarded.body.lines().last().unwrap_or_default().to_owned();
    assert!(text.contains("room for a result was refused: `lab/loud` holds "), "it was refused nothing: {hoarded:?}");
    let told: Value = serde_json::from_str(&text).unwrap();
    let told = &told["output"];
    let (given, refused) = (told["region"].as_u64().unwrap_or_default(), told["no_room"].as_u64().unwrap_or_default());
    // As many connections as allowed, and more, of callers that say nothing.
    let silent: Vec<_> = (0..500).map(|_| serving.connect()).collect();
    let descriptors = held(serving.child.id()).1;
    println!("{given} regions given, {refused} refused; {descriptors} of 512 descriptors in use");
    assert!(given > 4 && refused > 4 && given + refused == 60, "{text}");
    assert!(descriptors > 100, "only {descriptors} descriptors are in use");
    // The quiet recipe gets a pod of its own.
    let answer = serving.ask("POST /v1/recipes/lab/quiet/run", br#"{"well": 1}"#);
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"well":1}"#), "{answer:?}");
    // A recipe that gets no pod is refused with this reason each time, and does not count as failing.
    for _ in 0..8 {
        let refused = serving.ask("POST /v1/recipes/lab/quiet/run\nx-hob-priority: bulk", br#"{"well": 1}"#);
        assert!(refused.status == 200 || refused.code() == "overloaded", "{refused:?}");
    }
    assert_eq!(serving.ask("GET /v1/health", b"").status, 200);
    rig.hob(&["status"]).well();
    assert!(pods(&serving).iter().any(|pod| pod["recipe"] == "lab/loud"), "it holds them still");
    // The end of a pod, and of everything.
    drop(silent);
    assert_eq!(serving.end(rustix::process::Signal::TERM, 60).code(), Some(0));
    let said = stderr(&mut serving.child);
    assert!(!said.contains("Too many open files"), "{said}");
}

#[test]
fn every_message_of_a_pod_is_flooded_or_comes_once() {
    let wire = include_str!("../../../src/pod/wire/messages.rs");
    let (_, parse) = wire.split_once("Ok(match kind.as_str() {").unwrap();
    let (parse, _) = parse.split_once("a message of unknown type").unwrap();
    let kinds: Vec<&str> =
        parse.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" =>").map(|(kind, _)| kind)).collect();
    assert!(kinds.len() > 15, "{kinds:?}");
    let pod = include_str!("../../pods/deaf_and_loud.py");
    // The other messages need no flood: a second one of these ends the pod (`state.rs`), as do a checkpoint
    // before the previous one was taken (`floods_checkpoints.py`), and a `back` for something not lent. A
    // second `caches` reports nothing new, and nothing of it is kept.
    let once = ["caches", "confined", "refused", "hello", "checkpoint", "closed", "started", "ready", "unloaded", "failed", "back"];
    for kind in kinds {
        assert!(
            once.contains(&kind) || pod.contains(&format!("\"type\": \"{kind}\"")) || pod.contains(&format!("\"type\":\"{kind}\"")),
            "{kind}"
        );
    }
}

/// One line of that many bytes without an end, in pieces as programs write them; then a complete line.
const ENDLESS: &str = "
import os
class Subject:
    def run(self, input):
        piece = memoryview(b'x' * (1 << 20))
        for _ in range(input):
            left = piece
            while left:
                left = left[os.write(1, left):]
        print()
        print('after', input)
        return input
";

/// The most memory that the server may need for any line: what a log keeps, and what waits in pipes and
/// buffers.
const LINE_BYTES_MAX: u64 = 24 << 20;

#[test]
fn a_line_that_does_not_end_costs_the_server_no_memory() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish(&rig.recipe("lab/endless", ENDLESS, "python = \">=3.9\""));
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/endless"]).well();
    let serving = Serving::start(&rig, &[]);
    let run = |megabytes: u32| {
        let answer = serving.ask("POST /v1/recipes/lab/endless/run", megabytes.to_string().as_bytes());
        assert_eq!((answer.status, answer.json()), (200, json!(megabytes)));
    };
    run(1);
    let before = most_memory(serving.child.id());
    run(50);
    let grown = most_memory(serving.child.id()).saturating_sub(before);
    assert!(grown < LINE_BYTES_MAX, "{grown} bytes more");
    let begun = Instant::now();
    while !rig.hob(&["logs", "lab/endless"]).well().contains("after 50") {
        assert!(begun.elapsed() < Duration::from_secs(60), "the line behind it is in no log");
        std::thread::sleep(Duration::from_millis(50));
    }
}
