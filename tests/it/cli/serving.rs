//! `hob serve` and its clients: the output is the same as from a host of one's own, nothing of a call is left
//! when its caller is gone, and clients survive the server's end.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use hob::model::{Code, limits};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    calling::with_echo,
    rig::{Rig, Signed, processes_of, signal},
    served::{Serving, ask, general, request, wait_for, with_worker},
};

const NONE_RUNS: &str = "no host is running";
const NONE_RUNS_TEXT: &str = "no host is running: `hob serve` starts one";

/// Number of asks that the pods of the running server got; `None` if it has no pod.
fn asked(rig: &Rig) -> Option<u64> {
    let pods = rig.hob(&["pods", "--json"]);
    pods.well();
    let pods = pods.json();
    let asks = pods.as_array().unwrap().iter().map(|pod| pod["asks"].as_u64().unwrap());
    asks.reduce(|one, other| one + other)
}

#[track_caller]
fn none_left(rig: &Rig) {
    let begun = Instant::now();
    while !processes_of(&rig.home).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "left behind: {:?}", processes_of(&rig.home));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_call_through_the_server_says_what_a_call_in_a_host_of_its_own_says() {
    let (rig, _signed) = with_echo();
    let calls: &[&[&str]] = &[
        &["call", "hob/echo", "echo", r#"{"text": "hello"}"#],
        &["call", "hob/echo", "repeat", r#"{"text": "a", "count": 3}"#, "--stream"],
        &["call", "hob/echo", "repeat", r#"{"text": "a", "count": 3}"#, "--priority", "bulk"],
        &["call", "hob/echo", "echo", "{"],
        &["call", "hob/echo", "echo", "{}"],
        &["call", "hob/echo", "echo", "[18446744073709551616]"],
        &["call", "hob/echo", "nothing", "{}"],
        &["call", "hob/none", "echo", "{}"],
        &["call", "none@1", "echo", "{}"],
        &["call", "no name", "echo", "{}"],
        &["call", "hob/echo", "echo", "{}", "--deadline", "0ms"],
        &["call", "hob/echo", "echo", "{}", "--blob", "a=/nowhere"],
        &["call", "hob/echo", "echo", r#"{"text": ""}"#, "--out", "a=/nowhere"],
        &["call", "hob/echo", "sleep", r#"{"seconds": 60}"#, "--deadline", "1500ms"],
        &["call", "hob/echo", "echo", "{", "--json"],
    ];
    let alone: Vec<_> = calls.iter().map(|words| rig.hob(words)).collect();
    let serving = Serving::start(&rig, &[]);
    assert_eq!(asked(&rig), None, "no pod before the first call");
    for (words, alone) in calls.iter().zip(&alone) {
        let served = rig.hob(words);
        assert_eq!((served.exit, &served.stdout, &served.stderr), (alone.exit, &alone.stdout, &alone.stderr), "{words:?}");
    }
    let whole = rig.hob(&["call", "hob/echo", "echo", r#"{"text": "hello"}"#, "--json"]).json();
    assert_eq!((&whole["output"], &whole["recipe"], &whole["version"]), (&json!({ "length": 5 }), &json!("hob/echo"), &json!("0.1.0")));
    // One pod of the server did all the work; calls with `--one-shot` and calls of folders do not go to the
    // server.
    let before = asked(&rig);
    assert!(before.unwrap() >= 5, "{before:?}");
    let echo = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/echo");
    for words in [&["call", "hob/echo", "echo", r#"{"text": "a"}"#, "--one-shot"][..], &["call", echo, "echo", r#"{"text": "a"}"#]] {
        assert_eq!(rig.hob(words).json(), json!({ "length": 1 }));
    }
    assert_eq!(asked(&rig), before);
    let wrong = rig.hob(&["call", "hob/echo", "echo", "{}", "--priority", "high"]);
    assert!(wrong.exit == Some(2) && wrong.stderr.contains("`interactive`"), "{wrong:#?}");
    drop(serving);
}

#[test]
fn blobs_cross_the_socket_both_ways() {
    let (rig, _signed) = with_worker();
    let _serving = Serving::start(&rig, &[]);
    // Every byte value, and enough of them to come in many pieces.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let (given, turned) = (rig.folder.path().join("given"), rig.folder.path().join("turned"));
    fs::write(&given, &bytes).unwrap();
    let blob = format!("given={}", given.display());
    let words = ["call", "lab/worker", "run", r#"{"do": "turn"}"#, "--blob", &blob];
    let ran = rig.hob(&[&words[..], &["--out", &format!("turned={}", turned.display())]].concat());
    assert_eq!(ran.well(), r#"{"given":3000000}"#);
    assert!(fs::read(&turned).unwrap().iter().eq(bytes.iter().rev()), "the bytes are not the ones, turned");
    let kept = rig.hob(&words);
    assert!(kept.stderr.contains("`turned` (3000000 bytes) was not kept"), "{kept:#?}");
    assert!(asked(&rig).unwrap() >= 2, "the server ran them");
}

#[test]
fn whoever_hangs_up_cancels_the_call_down_to_the_worker() {
    let (rig, signed) = with_worker();
    let serving = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    let token = fs::read_to_string(serving.token.as_ref().unwrap()).unwrap();
    let mut workers = Vec::new();
    for way in ["plain", "plain over TCP", "general", "command line", "half a body"] {
        let folder = tempfile::tempdir_in(signed.folder.path().join("open")).unwrap();
        let (began, ended) = (folder.path().join("began"), folder.path().join("ended"));
        let input = json!({ "do": "wait", "folder": folder.path() });
        let plain = "POST /v1/recipes/lab/worker/run";
        let body = input.to_string().into_bytes();
        let hang_up: Box<dyn FnOnce()> = match way {
            "plain" => {
                let mut stream = serving.connect();
                stream.write_all(&request(plain, &body)).unwrap();
                Box::new(move || drop(stream))
            }
            "plain over TCP" => {
                let mut stream = serving.connect_tcp();
                stream.write_all(&request(&format!("{plain}\nauthorization: Bearer {token}"), &body)).unwrap();
                Box::new(move || drop(stream))
            }
            "general" => {
                let mut stream = serving.connect();
                stream.write_all(&request("POST /v1/calls", &general("lab/worker", "run", &input))).unwrap();
                Box::new(move || drop(stream))
            }
            "command line" => {
                let mut child = rig.command(&["call", "lab/worker", "run", &input.to_string()]).spawn().unwrap();
                Box::new(move || {
                    signal(child.id(), Signal::INT);
                    assert_eq!(child.wait().unwrap().code(), Some(9));
                })
            }
            _ => {
                // A request that did not arrive completely must have no effect.
                let mut stream = serving.connect();
                let bytes = request(plain, &body);
                stream.write_all(&bytes[..bytes.len() - 1]).unwrap();
                std::thread::sleep(Duration::from_millis(200));
                drop(stream);
                std::thread::sleep(Duration::from_millis(100));
                assert!(!began.exists());
                continue;
            }
        };
        wait_for(&began);
        workers.push(fs::read_to_string(&began).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        assert!(!ended.exists(), "{way}: it waits");
        hang_up();
        let took = wait_for(&ended);
        assert!(took < Duration::from_millis(limits::CANCEL_GRACE_MS), "{way}: the worker went on for {took:?}");
        // The next call is not affected.
        assert_eq!(serving.ask(plain, br#"{"next": 1}"#).json(), json!({ "next": 1 }), "{way}");
    }
    workers.dedup();
    assert_eq!(workers.len(), 1, "one worker took all of them, none was killed for it: {workers:?}");
}

#[test]
fn over_tcp_nothing_is_told_without_the_token() {
    let (rig, _signed) = with_echo();
    let serving = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    let path = serving.token.clone().unwrap();
    let token = fs::read_to_string(&path).unwrap();
    assert_eq!((token.len(), fs::metadata(&path).unwrap().permissions().mode() & 0o777), (64, 0o600));
    let tcp = |head: &str, body: &str| ask(serving.connect_tcp(), head, body.as_bytes()).unwrap();
    let other = "0".repeat(64);
    for head in ["GET /v1/health", "GET /v1/status", "GET /nothing", "POST /v1/calls", "POST /v1/recipes/hob/echo/echo"] {
        for shown in
            ["", &format!("\nauthorization: Bearer {other}"), &format!("\nauthorization: Basic {token}"), &format!("\nx-token: {token}")]
        {
            let answer = tcp(&format!("{head}{shown}"), "{}");
            assert_eq!((answer.status, &*answer.code()), (401, "unauthorized"), "{head}{shown}");
            assert!(answer.head.contains("www-authenticate: Bearer") && !answer.body.contains(rig.home.to_str().unwrap()), "{answer:?}");
        }
    }
    let with = format!("\nauthorization: Bearer {token}");
    assert_eq!(tcp(&format!("GET /v1/health{with}"), "").status, 200);
    let answer = tcp(&format!("POST /v1/recipes/hob/echo/echo{with}"), r#"{"text": "four"}"#);
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"length":4}"#));
    let answer = tcp(&format!("POST /v1/recipes/hob/echo/repeat{with}"), r#"{"text": "a", "count": 3}"#);
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"count":3}"#));
    assert!(answer.head.contains("x-hob-chunks-left: 3"), "{answer:?}");
    // The token is made once, and printed nowhere.
    let mut serving = serving;
    serving.end(Signal::TERM, 10);
    let mut said = String::new();
    serving.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    serving.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!said.contains(&token), "{said}");
    let again = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    assert_eq!(fs::read_to_string(again.token.as_ref().unwrap()).unwrap(), token);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(again.socket.parent().unwrap()), mode(&again.socket)), (0o700, 0o600));
    drop(again);
    rig.hob(&["serve", "--listen", "nowhere"]).refused(Code::Usage, &["nowhere", "127.0.0.1:8080"]);
}

#[test]
fn every_failure_over_http_is_a_fault_with_its_status() {
    let (rig, _signed) = with_echo();
    let serving = Serving::start(&rig, &[]);
    let call = "POST /v1/recipes/hob/echo/echo";
    let long = format!("{call}\ncontent-length: {}", limits::DOCUMENT_BYTES_MAX + 1);
    let endless = format!("{call}\ntransfer-encoding: chunked");
    let chunk = [format!("{:x}\r\n", limits::DOCUMENT_BYTES_MAX + 1).into_bytes(), vec![b' '; limits::DOCUMENT_BYTES_MAX + 1]].concat();
    let huge = format!("POST /v1/calls\ncontent-length: {}", limits::SERVE_CALL_BYTES_MAX + 1);
    let number = |call: &str| format!("{call}\nx-hob-deadline-ms: soon");
    let cases: Vec<(&str, &[u8], u16, &str)> = vec![
        ("GET /", b"", 404, "usage"),
        ("GET /v1/recipes", b"", 404, "usage"),
        ("PUT /v1/calls", b"", 405, "usage"),
        ("DELETE /v1/pods", b"", 405, "usage"),
        ("GET /v1/pods?recipe=x", b"", 400, "usage"),
        ("GET /v1/logs?lines=some", b"", 400, "usage"),
        ("GET /v1/logs?line=1", b"", 400, "usage"),
        (call, b"", 400, "invalid_json"),
        (call, b"{", 400, "invalid_json"),
        (call, b"\xff", 400, "invalid_json"),
        (call, b"{}", 422, "invalid_input"),
        (&long, b"", 413, "too_large"),
        (&endless, &chunk, 413, "too_large"),
        ("POST /v1/recipes/hob/echo/nothing", b"{}", 404, "operation_not_found"),
        ("POST /v1/recipes/hob/none/echo", b"{}", 404, "recipe_not_found"),
        ("POST /v1/recipes/Hob/..%2Fecho/echo", b"{}", 400, "usage"),
        ("POST /v1/recipes/hob/none/lift", b"", 404, "recipe_not_found"),
        ("POST /v1/recipes/hob/echo/echo\nx-hob-priority: high", b"{}", 400, "usage"),
        ("POST /v1/recipes/hob/echo/sleep\nx-hob-deadline-ms: 900", br#"{"seconds": 60}"#, 504, "deadline"),
        ("POST /v1/calls", b"[", 400, "invalid_json"),
        ("POST /v1/calls", b"[]", 400, "usage"),
        ("POST /v1/calls", br#"{"recipe": "hob/echo", "operation": "echo", "input": {}, "sessions": "x"}"#, 400, "usage"),
        ("POST /v1/calls", br#"{"recipe": "./echo", "operation": "echo", "input": {}}"#, 403, "unsigned"),
        ("POST /v1/calls", br#"{"recipe": "/echo", "operation": "echo", "input": {}}"#, 403, "unsigned"),
        (&huge, b"", 413, "too_large"),
    ];
    for (head, body, status, code) in &cases {
        let answer = serving.ask(head, body);
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{head}: {answer:?}");
        let fault = &answer.json()["fault"];
        let hint = fault["hint"].as_str().unwrap_or_default();
        let others = ["the operator's `hob ", "the author's `hob "].iter().fold(hint.to_owned(), |hint, theirs| hint.replace(theirs, ""));
        assert!(!others.contains("`hob ") && !others.contains("`--") && !others.contains("`Host::"), "{head}: {hint}");
    }
    // The same fault in the words of each door: over HTTP, and at the command line through the same server.
    let unknown = serving.ask("POST /v1/recipes/hob/echo/nothing", b"{}").json();
    assert_eq!(unknown["fault"]["hint"], "the operator's `hob show hob/echo` lists its operations with their schemas");
    assert_eq!(unknown["fault"]["hint_parts"][0], json!({ "do": "show", "of": ["hob/echo"] }));
    rig.hob(&["call", "hob/echo", "nothing", "{}"]).refused(Code::OperationNotFound, &["hint: `hob show hob/echo` lists its operations"]);
    let late = serving.ask("POST /v1/recipes/hob/echo/sleep\nx-hob-deadline-ms: 300", br#"{"seconds": 60}"#).json();
    assert!(
        late["fault"]["hint"]
            .as_str()
            .unwrap()
            .starts_with("give it more time with `x-hob-deadline-ms` (`deadline_ms` of `POST /v1/calls`) up to `deadline_ms` in"),
        "{late}"
    );
    let sleep = ["call", "hob/echo", "sleep", "{\"seconds\": 60}", "--deadline", "300ms"];
    rig.hob(&sleep)
        .refused(Code::Deadline, &["hint: give it more time with `--deadline TIME` up to `deadline_ms` in `[operations.sleep]`"]);
    let told = rig.hob(&[&sleep[..], &["--json"]].concat()).json();
    assert!(told["fault"]["hint"].as_str().unwrap().contains("`--deadline TIME`"), "{told}");
    assert_eq!(serving.ask(&number(call), br#"{"text": ""}"#).code(), "usage");
    // In a stream the fault is the last line.
    let answer = serving.ask("POST /v1/calls", &general("hob/echo", "repeat", &json!({ "text": "a", "count": 2 })));
    let lines: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!((events, &lines[2]["output"]), (vec!["chunk", "chunk", "outcome"], &json!({ "count": 2 })));
    let answer = serving.ask("POST /v1/calls", &general("hob/echo", "echo", &json!({})));
    assert_eq!(
        (answer.status, serde_json::from_str::<Value>(&answer.body).unwrap()["fault"]["code"].clone()),
        (200, json!("invalid_input"))
    );
    // Bytes that are not HTTP are refused too, and the server continues.
    let mut stream = serving.connect();
    stream.write_all(b"hello\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert_eq!(serving.ask(call, br#"{"text": "abc"}"#).body, r#"{"length":3}"#);
}

#[test]
fn a_killed_server_is_survived_and_there_is_never_more_than_one() {
    let (rig, _signed) = with_echo();
    let call = ["call", "hob/echo", "echo", r#"{"text": "hello"}"#];
    for _ in 0..2 {
        let mut serving = Serving::start(&rig, &[]);
        rig.hob(&call).well();
        assert_eq!(processes_of(&rig.home).len(), 3, "a keeper, the first process of a namespace and a worker");
        let pid = serving.child.id().to_string();
        rig.hob(&["serve"]).refused(Code::AlreadyServing, &["a server is running", &pid]);
        serving.end(Signal::KILL, 10);
        none_left(&rig);
        assert!(serving.socket.exists(), "what it left behind");
        rig.hob(&["pods"]).refused(Code::NotServing, &[NONE_RUNS]);
        assert_eq!(rig.hob(&call).well(), r#"{"length":5}"#, "in a host of its own");
    }
    // Five at once: one serves, the others report that.
    let mut children: Vec<_> = (0..5).map(|_| rig.command(&["serve"]).spawn().unwrap()).collect();
    let begun = Instant::now();
    let mut refused = 0;
    while refused < 4 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{refused} were refused");
        children.retain_mut(|child| match child.try_wait().unwrap() {
            None => true,
            Some(status) => {
                assert_eq!(status.code(), Some(i32::from(Code::AlreadyServing.exit())));
                refused += 1;
                false
            }
        });
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(children.len(), 1);
    assert!(children[0].try_wait().unwrap().is_none(), "one of them serves");
    rig.hob(&call).well();
    assert_eq!(asked(&rig), Some(1));
    signal(children[0].id(), Signal::INT);
    assert_eq!(children[0].wait().unwrap().code(), Some(0));
    none_left(&rig);
    assert!(!rig.home.join("state/serve/socket").exists());
}

#[test]
fn a_server_that_is_told_to_end_under_load_answers_all_who_came_and_leaves_nothing() {
    let (rig, _signed) = with_worker();
    let mut serving = Serving::start(&rig, &[]);
    let head = "POST /v1/recipes/lab/worker/run";
    serving.ask(head, b"{}");
    let (done, refused, told) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let socket = serving.socket.clone();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let (done, refused, told, socket) = (&done, &refused, &told, &socket);
            scope.spawn(move || {
                // Until the server is gone. An accepted client gets an answer.
                while let Ok(stream) = UnixStream::connect(socket) {
                    let body = json!({ "do": "sleep", "seconds": 0.004, "number": number });
                    let answer = ask(stream, head, body.to_string().as_bytes()).expect("an answer to each who connected");
                    match answer.status {
                        200 => assert_eq!(answer.json(), body),
                        status => {
                            let code = answer.code();
                            assert!(["shutting_down", "cancelled"].contains(&code.as_str()), "{status} {code}");
                            assert!(told.load(Ordering::SeqCst), "refused before the end");
                            refused.fetch_add(1, Ordering::SeqCst);
                            continue;
                        }
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while done.load(Ordering::SeqCst) < 100 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{done:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        told.store(true, Ordering::SeqCst);
        signal(serving.child.id(), Signal::TERM);
    });
    let ending = Instant::now();
    assert_eq!(serving.ended(20).code(), Some(0));
    println!("{done:?} done, {refused:?} refused, ended {:?} after its last caller", ending.elapsed());
    assert!(!serving.socket.exists());
    none_left(&rig);
}

#[test]
fn a_second_signal_ends_the_calls_that_a_first_one_waits_for_and_their_callers_are_told() {
    let (rig, signed) = with_worker();
    let mut serving = Serving::start(&rig, &[]);
    let folder = tempfile::tempdir_in(signed.folder.path().join("open")).unwrap();
    let input = json!({ "do": "wait", "folder": folder.path() });
    let child = rig.command(&["call", "lab/worker", "run", &input.to_string()]).spawn().unwrap();
    wait_for(&folder.path().join("began"));
    signal(serving.child.id(), Signal::TERM);
    std::thread::sleep(Duration::from_millis(1_000));
    assert!(serving.child.try_wait().unwrap().is_none(), "it waits for the call");
    assert!(!folder.path().join("ended").exists(), "the call goes on");
    // The server accepts nobody any more, so this call uses a host of its own.
    assert_eq!(rig.hob(&["call", "lab/worker", "run", "{}"]).well(), "{}");
    let sent = Instant::now();
    assert_eq!(serving.end(Signal::TERM, 20).code(), Some(0));
    assert!(sent.elapsed() < Duration::from_millis(limits::SHUTDOWN_MS + limits::SERVE_GOODBYE_MS), "{:?}", sent.elapsed());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error[") && !said.contains("error[io]"), "{said}");
    assert!(output.stdout.is_empty() && output.status.code() > Some(0), "{:?}", output.status);
    none_left(&rig);
}

#[test]
fn what_a_pod_prints_at_its_end_is_in_the_log() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let source = r#"
import atexit, logging, logging.handlers, sys
log = logging.getLogger("kept back")
log.setLevel(logging.INFO)
log.addHandler(logging.handlers.MemoryHandler(1000, target=logging.StreamHandler(sys.stderr)))
atexit.register(print, "good", "bye")
class Subject:
    def run(self, input):
        log.info("kept back: %s", input)
        return input
"#;
    for (name, more) in [("lab/replaced", "recycle = { calls = 1 }"), ("lab/stays", "")] {
        signed.publish(&rig.recipe(name, source, &format!("python = \">=3.9\"\n{more}")));
    }
    rig.trust(&signed.url(), &signed.repository);
    let mut serving = Serving::start(&rig, &[]);
    let told = |name: &str| {
        let lines = rig.hob(&["logs", name, "--json"]).json();
        let texts: Vec<String> = lines.as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect();
        ["good bye", "kept back: 7"].iter().all(|text| texts.iter().any(|line| line == text))
    };
    for name in ["lab/replaced", "lab/stays"] {
        rig.hob(&["add", name]).well();
        assert_eq!(rig.hob(&["call", name, "run", "7"]).well(), "7");
    }
    // One pod ends after its call, the other with its server.
    let begun = Instant::now();
    while !told("lab/replaced") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:#?}", rig.hob(&["logs"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!told("lab/stays"));
    assert!(serving.end(Signal::TERM, 60).success());
    assert!(told("lab/stays"), "{:#?}", rig.hob(&["logs"]));
}

#[test]
fn what_pods_said_is_in_the_log_also_of_one_that_crashed_and_the_crash_is_in_the_status() {
    let (rig, _signed) = with_worker();
    let _serving = Serving::start(&rig, &[]);
    let say = |text: &str| rig.hob(&["call", "lab/worker", "run", &json!({ "do": "say", "text": text }).to_string()]).json();
    let texts = |words: &[&str]| -> Vec<String> {
        let lines = rig.hob(&[&["logs", "--json"], words].concat()).json();
        lines.as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    };
    let first = say("good morning");
    assert_eq!(texts(&[]), ["good morning"]);
    let ran = rig.hob(&["call", "lab/worker", "run", r#"{"do": "crash"}"#, "--json"]);
    let fault = ran.json()["fault"].clone();
    assert_eq!((ran.exit, &fault["code"], &fault["detail"]["signal"]), (Some(6), &json!("crashed"), &json!(11)), "{ran:#?}");
    let dossier = fault["detail"]["dossier"].as_str().unwrap().to_owned();
    let second = say("good night");
    assert_ne!(first, second, "a new pod");

    let all = texts(&["lab/worker"]);
    let at = |text: &str| all.iter().position(|line| line == text).unwrap_or_else(|| panic!("no `{text}` in {all:#?}"));
    assert!(
        at("good morning") < at("[ended by signal 11 (SIGSEGV)]") && at("[ended by signal 11 (SIGSEGV)]") < at("good night"),
        "{all:#?}"
    );
    assert_eq!(all.iter().filter(|line| *line == "good morning").count(), 1);
    assert_eq!(texts(&["--lines", "1"]), ["good night"]);
    assert!(texts(&["hob/other"]).is_empty());
    let lines = rig.hob(&["logs", "--json"]).json();
    assert!(lines.as_array().unwrap().iter().any(|line| line["incarnation"] == dossier), "{dossier}: {lines}");
    assert!(rig.hob(&["logs"]).well().contains(" lab/worker good night"));

    let status = rig.hob(&["status", "--json"]).json();
    let pool = &status["pools"][0];
    assert_eq!((&pool["crashes"], &pool["asks_failed"], &pool["health"]), (&json!(1), &json!(1), &json!("good")), "{pool}");
    assert_eq!(pool["last_fault"]["code"], "crashed");
}

#[test]
fn a_one_shot_call_over_http_has_a_pod_of_its_own() {
    let (rig, _signed) = with_worker();
    let serving = Serving::start(&rig, &[]);
    let pid = |one_shot: bool| {
        let call = json!({ "recipe": "lab/worker", "operation": "run", "input": { "do": "say", "text": "" }, "one_shot": one_shot });
        let said = serving.ask("POST /v1/calls", call.to_string().as_bytes()).body;
        let outcome: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        outcome["output"].as_u64().unwrap_or_else(|| panic!("{said}"))
    };
    let warm = pid(false);
    let (first, second) = (pid(true), pid(true));
    assert!(first != warm && second != warm && first != second, "{warm} {first} {second}");
    assert_eq!(pid(false), warm);
    // They end after their answers.
    let begun = Instant::now();
    while [first, second].into_iter().any(|pid| crate::support::is_running(pid as u32)) {
        assert!(begun.elapsed() < Duration::from_secs(10), "a pod for one call stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server has loaded a recipe once; what runs later is compared with the installed files all the same.
#[test]
fn a_pod_that_starts_under_a_running_server_runs_what_was_installed() {
    let (rig, _signed) = with_worker();
    let serving = Serving::start(&rig, &[]);
    let call = |one_shot: bool| {
        let call = json!({ "recipe": "lab/worker", "operation": "run", "input": { "do": "say", "text": "" }, "one_shot": one_shot });
        let said = serving.ask("POST /v1/calls", call.to_string().as_bytes()).body;
        serde_json::from_str::<Value>(said.lines().last().unwrap()).unwrap()
    };
    let warm = call(false)["output"].clone();
    assert!(warm.is_u64() && call(true)["output"].is_u64());
    let folder = rig.hob(&["show", "lab/worker", "--json"]).json()["folder"].as_str().unwrap().to_owned();
    let file = std::path::Path::new(&folder).join("pod/subject.py");
    let good = fs::read(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, [&good[..], b"# altered\n"].concat()).unwrap();
    let refused = call(true);
    assert_eq!(refused["fault"]["code"], "shelf_altered", "{refused}");
    assert!(refused["fault"]["message"].as_str().unwrap().contains("`pod/subject.py`"), "{refused}");
    assert_eq!(call(false)["output"], warm, "what runs already is not ended for it");
    fs::write(&file, good).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    assert!(call(true)["output"].is_u64());
}

#[test]
fn a_misspelt_name_is_told_where_its_pods_and_lines_are_looked_for() {
    let (rig, _signed) = with_echo();
    let said = |words: &[&str], name: &str, empty: &str| {
        let ran = rig.hob(&[words, &[name]].concat());
        assert_eq!(ran.well(), empty);
        ran.stderr.contains(&format!("recipe `{name}` is not on the shelf")) && ran.stderr.contains("did you mean `hob/echo`?")
    };
    assert!(said(&["logs"], "hob/ecko", NONE_RUNS_TEXT) && !said(&["logs"], "hob/echo", NONE_RUNS_TEXT));
    rig.hob(&["pods", "hob/ecko"]).refused(Code::NotServing, &[]);
    let _serving = Serving::start(&rig, &[]);
    for (words, empty) in [("pods", "no pod is running"), ("logs", "no pod has printed anything")] {
        assert!(said(&[words], "hob/ecko", empty) && !said(&[words], "hob/echo", empty), "{words}");
        assert!(said(&[words, "--json"], "hob/ecko", "[]"), "{words}");
    }
    for words in [["show", "hob/ecko"], ["remove", "hob/ecko"]] {
        rig.hob(&words).refused(Code::RecipeNotFound, &["recipe `hob/ecko` is not on the shelf", "did you mean `hob/echo`?"]);
    }
}

#[test]
fn a_server_is_ready_while_calls_are_taken_and_lives_also_when_they_are_not() {
    let (rig, _signed) = with_echo();
    let serving = Serving::start(&rig, &[]);
    let ready = || serving.ask("GET /readyz", b"");
    assert_eq!((ready().status, ready().json()), (200, json!({ "ready": true })));
    let (config, whole) = (rig.home.join("hob.toml"), fs::read_to_string(rig.home.join("hob.toml")).unwrap());
    fs::write(&config, format!("{whole}\n[remotes\n")).unwrap();
    let (answer, call) = (ready(), serving.ask("POST /v1/recipes/hob/echo/echo", br#"{"text": "hello"}"#));
    assert_eq!((answer.status, answer.json()), (503, json!({ "ready": false, "why": "invalid_config" })));
    assert!(answer.head.to_lowercase().contains("\r\nretry-after: 1"), "{answer:?}");
    assert_eq!(call.json()["fault"]["code"], "invalid_config", "what it says is so");
    // The status tells it, with the reason and the next step.
    let health = serving.ask("GET /v1/health", b"");
    let told = health.json();
    assert_eq!((health.status, &told["healthy"], &told["accepts"]), (503, &json!(false), &json!(false)));
    assert_eq!(told["refused"]["code"], "invalid_config", "{told}");
    assert!(told["refused"]["message"].as_str().unwrap().contains("hob.toml") && told["refused"]["hint"].is_string(), "{told}");
    let status = rig.hob(&["status"]);
    assert!(status.well().contains("refusing all calls, not healthy\n"), "{status:?}");
    assert!(status.stdout.contains("refusing all calls as invalid_config: ") && status.stdout.contains("hob.toml"), "{status:?}");
    assert_eq!(rig.hob(&["status", "--json"]).json()["refused"]["code"], "invalid_config");
    // A service manager must not restart the server for that.
    assert_eq!(serving.ask("GET /livez", b"").status, 200);
    fs::write(&config, whole).unwrap();
    assert_eq!((serving.ask("GET /v1/health", b"").status, ready().status), (200, 200));
    rig.hob(&["call", "hob/echo", "echo", r#"{"text": "hello"}"#]).well();
}

#[test]
fn a_calls_own_deadline_holds_for_the_client_of_a_server_that_stands_still() {
    let (rig, _signed) = with_echo();
    let mut serving = Serving::start(&rig, &[]);
    let call = |more: &[&str]| rig.hob(&[&["call", "hob/echo", "echo", r#"{"text": "hello"}"#], more].concat());
    call(&["--deadline", "20s"]).well();
    signal(serving.child.id(), Signal::STOP);
    // The caller is told in time, not after the thirty seconds for a silent server.
    call(&["--deadline", "200ms"]).refused(Code::Deadline, &["within the call's 200 ms", "whether the call ran is not known"]);
    signal(serving.child.id(), Signal::CONT);
    // Longer than any clock runs.
    call(&["--deadline", "18446744073709551615ms"]).well();
    assert_eq!(serving.end(Signal::TERM, 60).code(), Some(0));
}

#[test]
fn pods_logs_and_status_are_told_as_json_and_as_text_and_that_none_runs_by_the_exit_code() {
    let (rig, _signed) = with_echo();
    for command in ["pods", "status"] {
        rig.hob(&[command]).refused(Code::NotServing, &[NONE_RUNS, "`hob serve`"]);
        let none = rig.hob(&[command, "--json"]);
        assert_eq!((none.exit, &none.json()["fault"]["code"]), (Some(3), &json!("not_serving")));
    }
    // Lines in files can be read without a server.
    assert_eq!(rig.hob(&["logs"]).well(), "no host is running: `hob serve` starts one");
    assert_eq!(rig.hob(&["logs", "--json"]).json(), json!([]));
    rig.hob(&["pods", "--lift", "hob/echo"]).well();
    let serving = Serving::start(&rig, &[]);
    assert_eq!(rig.hob(&["pods"]).well(), "no pod is running");
    rig.hob(&["call", "hob/echo", "echo", r#"{"text": "hello"}"#]).well();
    rig.hob(&["call", "hob/echo", "nothing", "{}"]);

    let pods = rig.hob(&["pods", "--json"]).json();
    assert_eq!((&pods[0]["recipe"], &pods[0]["asks"], pods.as_array().unwrap().len()), (&json!("hob/echo"), &json!(1), 1));
    let pid = pods[0]["pid"].as_u64().unwrap();
    assert!(processes_of(&rig.home).contains(&(pid as u32)), "{pod}", pod = pods[0]);
    assert_eq!(rig.hob(&["pods", "hob/other", "--json"]).json(), json!([]));
    assert_eq!(serving.ask("GET /v1/pods?recipe=hob%2Fecho", b"").json()[0]["pid"], pid);
    let text = rig.hob(&["pods", "hob/echo"]);
    let lines: Vec<&str> = text.well().lines().collect();
    assert!(lines[0].starts_with("RECIPE ") && lines[1].starts_with("hob/echo ") && lines[1].contains(&pid.to_string()), "{lines:?}");
    assert!(lines[0].contains("  BEGAN    SANDBOX  LAST FAULT") && lines[1].contains("  started  full     "), "{lines:?}");

    let status = rig.hob(&["status", "--json"]).json();
    assert_eq!((&status["pid"], &status["accepts"]), (&json!(serving.child.id()), &json!(true)));
    assert_eq!((&status["calls_done"], &status["calls_failed"]), (&json!(2), &json!(1)));
    assert_eq!(status["pools"][0]["pods"][0]["pid"], pid);
    let text = rig.hob(&["status"]);
    assert!(text.well().contains("taking calls, healthy\ncalls: 0 under way, 2 done, 1 of them failed\n"), "{text:?}");
    let health = serving.ask("GET /v1/health", b"");
    assert_eq!((health.status, &health.json()["healthy"]), (200, &json!(true)));
    assert!(rig.hob(&["logs", "hob/echo", "--lines", "5", "--json"]).json().is_array());
    rig.hob(&["pods", "--lift", "hob/echo"]).well();
    rig.hob(&["pods", "--lift", "hob/other"]).refused(Code::RecipeNotFound, &["hob/other"]);

    // With `--watch`: one document per second, until the reader is gone.
    let mut watch = rig.command(&["status", "--watch", "--json"]).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut up = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["up_ms"].as_u64().unwrap();
    let (first, second) = (up(), up());
    assert!((900..5_000).contains(&(second - first)), "{first} and {second}");
    drop(lines);
    let begun = Instant::now();
    while watch.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it goes on for nobody");
        std::thread::sleep(Duration::from_millis(20));
    }
}
