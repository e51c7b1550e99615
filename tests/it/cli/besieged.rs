//! Strangers that connect to `hob serve`, and callers without the token: what they can do to others, and what
//! they are told.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use hob::model::{Code, limits};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    rig::{Rig, signal},
    served::{Answer, Serving, ask, general, request, wait_for, with_worker},
};

const RUN: &str = "POST /v1/recipes/lab/worker/run";

fn token(serving: &Serving) -> String {
    fs::read_to_string(serving.token.as_ref().unwrap()).unwrap()
}

/// Sends one request over TCP.
#[track_caller]
fn tcp(serving: &Serving, head: &str, body: &[u8]) -> Answer {
    ask(serving.connect_tcp(), head, body).unwrap_or_else(|| panic!("no answer to {head}"))
}

fn with(head: &str, token: &str) -> String {
    format!("{head}\nauthorization: Bearer {token}")
}

/// A server that may have only so many open files.
pub fn narrow(rig: &Rig, files: u32, words: &[&str]) -> Serving {
    let whole = rig.command(&[&["serve", "--json"], words].concat());
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]).arg(whole.get_program()).args(whole.get_args());
    command.current_dir(rig.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in whole.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Serving::started(command)
}

/// Whether the server has closed the connection.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false).unwrap();
    !read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn silent_strangers_give_way_to_whoever_says_something() {
    let (rig, _signed) = with_worker();
    // Of 512 files the two listeners may use half: 95 connections each, 47 of them for strangers, and those
    // that are just closing.
    let serving = narrow(&rig, 512, &["--listen", "127.0.0.1:0"]);
    let token = token(&serving);
    let silent: Vec<TcpStream> = (0..300)
        .map(|number| {
            let mut stream = serving.connect_tcp();
            // Half of them send half a head.
            if number % 2 == 0 {
                stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n").unwrap();
            }
            stream
        })
        .collect();
    for round in 0..5 {
        let answer = tcp(&serving, &with(RUN, &token), format!("{{\"round\": {round}}}").as_bytes());
        assert_eq!((answer.status, answer.json()), (200, json!({ "round": round })));
    }
    for path in ["/livez", "/readyz"] {
        let answer = tcp(&serving, &format!("GET {path}"), b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        // Without the token nothing else is told, also for paths that resemble these.
        for other in [format!("POST {path}"), format!("GET {path}/"), format!("GET {path}?x=/v1/status")] {
            let status = tcp(&serving, &other, b"").status;
            assert!(status == 401 || (status == 200 && other.contains('?')), "{other}: {status}");
        }
    }
    assert_eq!(tcp(&serving, "GET /readyz", b"").json(), json!({ "ready": true }));
    rig.hob(&["status"]).well();
    let gone = silent.iter().filter(|stream| is_closed(stream)).count();
    println!("{gone} of {} silent ones were closed", silent.len());
    assert!(gone >= silent.len() - 64, "only {gone} gave way");
    assert!(is_closed(&silent[0]), "the oldest is among them");
}

#[test]
fn a_server_whose_every_connection_is_at_work_says_so_and_can_still_be_looked_at() {
    let (rig, _signed) = with_worker();
    // 47 connections for each listener, and 8 in reserve.
    let serving = narrow(&rig, 256, &["--listen", "127.0.0.1:0"]);
    let token = token(&serving);
    // Callers that show the token and send their body slowly.
    let mut working = Vec::new();
    let refused = loop {
        let mut stream = serving.connect_tcp();
        let bytes = request(&with(RUN, &token), b"{}");
        stream.write_all(&bytes[..bytes.len() - 1]).unwrap();
        working.push(stream);
        if working.len() >= 64 {
            let answer = tcp(&serving, &with(RUN, &token), b"{}");
            if answer.status != 200 {
                break answer;
            }
        }
        assert!(working.len() < 300, "the room is never full");
    };
    assert_eq!((refused.status, refused.code().as_str()), (429, "overloaded"), "{refused:?}");
    assert!(refused.head.contains("retry-after: 1") && refused.head.contains("connection: close"), "{refused:?}");
    // Silent strangers take nothing from the reserve of others.
    let _silent: Vec<TcpStream> = (0..100).map(|_| serving.connect_tcp()).collect();
    for _ in 0..3 {
        assert_eq!(tcp(&serving, "GET /livez", b"").status, 200);
        assert_eq!(tcp(&serving, "GET /readyz", b"").status, 503);
        assert_eq!(tcp(&serving, &with("GET /v1/health", &token), b"").status, 200);
        assert_eq!(tcp(&serving, RUN, b"{}").status, 401);
        assert_eq!(tcp(&serving, &with(RUN, &token), b"{}").code(), "overloaded");
        rig.hob(&["status"]).well();
    }
    // The callers at work were left alone, and finished ones make room. (A busy machine may have read the
    // first ones too late.)
    let answered = working.drain(..64).filter_map(|mut stream| {
        let mut said = String::new();
        stream.write_all(b"}").and_then(|()| stream.read_to_string(&mut said)).ok()?;
        (said.starts_with("HTTP/1.1 200 ") && said.ends_with("{}")).then_some(())
    });
    let answered = answered.count();
    assert!(answered >= 32, "{answered} of 64");
    drop(working);
    let begun = Instant::now();
    while tcp(&serving, &with(RUN, &token), b"{}").status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it stays full");
    }
    assert_eq!(tcp(&serving, "GET /readyz", b"").status, 200);
}

#[test]
fn an_answer_that_is_given_before_the_request_was_read_arrives() {
    let (rig, _signed) = with_worker();
    let serving = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    let token = token(&serving);
    let body = vec![b' '; 1 << 20];
    let (nothing, wrong) = ("POST /nothing", format!("{RUN}\nx-hob-priority: high"));
    let huge = format!("{RUN}\ncontent-length: {}", limits::DOCUMENT_BYTES_MAX + 1);
    let mut lost = Vec::new();
    for _ in 0..20 {
        for (head, shown, status) in [(RUN, false, 401), (nothing, true, 404), (&wrong, true, 400), (&huge, true, 413)] {
            let head = if shown { with(head, &token) } else { head.to_owned() };
            let mut stream = serving.connect_tcp();
            let sent = stream.write_all(&request(&head, &body));
            let mut said = Vec::new();
            let read = stream.read_to_end(&mut said);
            let said = String::from_utf8_lossy(&said).into_owned();
            // The answer must be whole, and the connection must end after it.
            if sent.is_err() || read.is_err() || !said.starts_with(&format!("HTTP/1.1 {status} ")) || !said.ends_with('}') {
                lost.push(format!("TCP {status}: {sent:?} {read:?} {said}"));
            }
        }
        for (head, status) in [(nothing, 404), (&wrong, 400), (&huge, 413), ("POST /v1/recipes/lab/none/lift", 404)] {
            let mut stream = serving.connect();
            let sent = stream.write_all(&request(head, &body));
            let mut said = Vec::new();
            let read = stream.read_to_end(&mut said);
            let said = String::from_utf8_lossy(&said).into_owned();
            if sent.is_err() || read.is_err() || !said.starts_with(&format!("HTTP/1.1 {status} ")) || !said.ends_with('}') {
                lost.push(format!("Unix {status}: {sent:?} {read:?} {said}"));
            }
        }
    }
    assert_eq!(lost, [""; 0], "{} of 160 lost", lost.len());
    // A client without the token has one request per connection.
    let mut stream = serving.connect_tcp();
    let two = b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(two).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert_eq!((said.matches("HTTP/1.1 401").count(), said.contains("connection: close")), (1, true), "{said}");
}

#[test]
fn clients_that_keep_knocking_do_not_keep_a_server_from_its_end() {
    let (rig, _signed) = with_worker();
    let mut serving = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    let (address, token) = (serving.address.clone().unwrap(), token(&serving));
    let (told, is_over, knocks) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let status = std::thread::scope(|scope| {
        for number in 0..6 {
            let (address, token, told, is_over, knocks) = (&address, &token, &told, &is_over, &knocks);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let Ok(mut stream) = TcpStream::connect(address) else { continue };
                    if told.load(Ordering::SeqCst) {
                        knocks.fetch_add(1, Ordering::SeqCst);
                    }
                    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                    let head = if number % 2 == 0 { with("GET /v1/health", token) } else { "GET /v1/health".to_owned() };
                    let _ = stream.write_all(&request(&head, b""));
                    let _ = stream.read(&mut [0; 1_024]);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        told.store(true, Ordering::SeqCst);
        signal(serving.child.id(), Signal::TERM);
        let begun = Instant::now();
        let mut status = None;
        while status.is_none() && begun.elapsed() < Duration::from_secs(60) {
            status = serving.child.try_wait().unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::SeqCst);
        println!("ended {:?} after SIGTERM, {} knocks after it", begun.elapsed(), knocks.load(Ordering::SeqCst));
        status
    });
    assert!(knocks.load(Ordering::SeqCst) > 0, "nobody knocked after the signal");
    // The server ends in order, not by the timer that ends hanging servers.
    assert_eq!(status.expect("it goes on for ever").code(), Some(0));
}

#[test]
fn two_signals_end_a_server_at_work_for_a_caller_who_takes_nothing() {
    let (rig, signed) = with_worker();
    let mut serving = Serving::start(&rig, &[]);
    let folder = tempfile::tempdir_in(signed.folder.path().join("open")).unwrap();
    let mut stream = serving.connect();
    let input = json!({ "do": "wait", "folder": folder.path() });
    stream.write_all(&request("POST /v1/calls", &general("lab/worker", "run", &input))).unwrap();
    wait_for(&folder.path().join("began"));
    signal(serving.child.id(), Signal::TERM);
    signal(serving.child.id(), Signal::INT);
    std::thread::sleep(Duration::from_millis(100));
    signal(serving.child.id(), Signal::TERM);
    assert_eq!(serving.ended(60).code(), Some(0));
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    assert!(said.contains("\"event\":\"fault\""), "its caller was told: {said}");
}

#[test]
fn sighup_reads_token_and_settings_anew_and_calls_go_on() {
    let (rig, _signed) = with_worker();
    let mut serving = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    let mut log = BufReader::new(serving.child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let (place, old) = (serving.token.clone().unwrap(), token(&serving));
    let new = "ab".repeat(32);
    let config = rig.home.join("hob.toml");
    let before = fs::read_to_string(&config).unwrap();
    let mut open = serving.connect_tcp();
    open.write_all(&request(&with(RUN, &old), br#"{"do": "sleep", "seconds": 3}"#)).unwrap();
    // The connection was accepted before the token changed.
    let begun = Instant::now();
    while tcp(&serving, &with("GET /v1/status", &old), b"").json()["calls_running"] != 1 {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    fs::write(&place, &new).unwrap();
    let shows = |token: &str| tcp(&serving, &with("GET /v1/status", token), b"").status;
    assert_eq!((shows(&old), shows(&new)), (200, 401), "not before it is told to");
    signal(serving.child.id(), Signal::HUP);
    let until = |token: &str, status: u16| {
        let begun = Instant::now();
        while shows(token) != status {
            assert!(begun.elapsed() < Duration::from_secs(30), "SIGHUP changed nothing");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    until(&new, 200);
    assert_eq!(shows(&old), 401);
    let mut said = String::new();
    open.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "the open call went on: {said}");

    let fails = || {
        let body = tcp(&serving, &with(RUN, &new), br#"{"do": "raise"}"#).body;
        serde_json::from_str::<Value>(&body).unwrap()["fault"].clone()
    };
    assert!(fails()["detail"]["traceback"].is_null());
    fs::write(&config, format!("{before}\n[serve]\ndetails = true\n")).unwrap();
    signal(serving.child.id(), Signal::HUP);
    let begun = Instant::now();
    while fails()["detail"]["traceback"].is_null() {
        assert!(begun.elapsed() < Duration::from_secs(30), "details were not read anew");
    }
    // A file that cannot be read is reported, and the token read before stays valid.
    let mut after_hangup = |says: &str| {
        signal(serving.child.id(), Signal::HUP);
        let mut told = String::new();
        loop {
            let line = log.next().unwrap_or_else(|| panic!("no `{says}`: {told}"));
            told += &line;
            if line == format!("SIGHUP: {says} read anew") {
                return told;
            }
        }
    };
    fs::write(&place, "no token").unwrap();
    let told = after_hangup("hob.toml was");
    assert!(told.contains("the token was not read anew and stays as it was") && told.contains("wanted 64 hex digits"), "{told}");
    assert_eq!(
        (shows(&new), fs::read_to_string(&place).unwrap().as_str()),
        (200, "no token"),
        "the old one holds, and what somebody wrote stays"
    );
    fs::write(&config, "[serve]\ndetials = true\n").unwrap();
    fs::write(&place, &new).unwrap();
    fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let told = after_hangup("nothing was");
    assert!(told.contains("hob.toml was not read anew and stays as it was") && told.contains("detials"), "{told}");
    assert!(told.contains("the token was not read anew and stays as it was") && told.contains("mode 644"), "{told}");
    assert_eq!(shows(&new), 200, "the old token holds");
    fs::write(&config, &before).unwrap();
    assert_eq!(serving.end(Signal::TERM, 60).code(), Some(0));
    // No server starts with a malformed token, and none overwrites it.
    fs::write(&place, "no token").unwrap();
    fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    rig.hob(&["serve", "--listen", "127.0.0.1:0"]).refused(Code::KeyInvalid, &["holds no token", "or delete it"]);
    assert_eq!(fs::read_to_string(&place).unwrap(), "no token");
}

/// Runs a server on a terminal of its own: first a hang-up while the terminal exists, then one for which the
/// terminal is closed.
const ON_A_TERMINAL: &str = r#"
import os, pty, signal, sys, time
folder = sys.argv[1]
pid, terminal = pty.fork()
if pid == 0:
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.execv(sys.argv[2], sys.argv[2:])
def until(name, text):
    for _ in range(3000):
        try:
            if text in open(os.path.join(folder, name)).read():
                return
        except OSError:
            pass
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    raise SystemExit(f"no {text} in {name}: " + open(os.path.join(folder, "err")).read())
until("out", "}")
os.kill(pid, signal.SIGHUP)
until("err", "read anew")
assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it ended though its terminal is there"
os.close(terminal)
for _ in range(6000):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        print(os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.01)
else:
    os.kill(pid, signal.SIGKILL)
    print("it goes on")
"#;

#[test]
fn a_server_whose_terminal_is_gone_ends_in_order() {
    let rig = Rig::new();
    let folder = tempfile::tempdir().unwrap();
    let words = ["-c", ON_A_TERMINAL, folder.path().to_str().unwrap(), env!("CARGO_BIN_EXE_hob"), "serve", "--json"];
    assert_eq!(rig.python(&words, b"").well(), "0");
    assert!(!rig.home.join("state/serve/socket").exists());
}

#[test]
fn over_tcp_a_caller_gets_the_message_and_the_operator_the_rest() {
    let (rig, _signed) = with_worker();
    let mut serving = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    let token = token(&serving);
    let home = rig.home.to_str().unwrap();
    let raise = br#"{"do": "raise"}"#;
    let crash = br#"{"do": "crash"}"#;
    let mut answers = vec![
        tcp(&serving, &with(RUN, &token), raise),
        tcp(&serving, &with("POST /v1/calls", &token), &general("lab/worker", "run", &json!({ "do": "raise" }))),
        tcp(&serving, &with(RUN, &token), crash),
        tcp(&serving, &with("POST /v1/calls", &token), &general("lab/worker", "run", &json!({ "do": "crash" }))),
    ];
    assert_eq!(answers[0].code(), "recipe_failed");
    let fault = answers[0].json()["fault"].clone();
    assert!(fault["message"].as_str().unwrap().contains("RuntimeError: went wrong in [path]"), "{fault}");
    assert_eq!((&fault["detail"]["type"], fault["detail"]["reference"].is_string()), (&json!("RuntimeError"), true), "{fault}");
    let last = |answer: &Answer| serde_json::from_str::<Value>(answer.body.lines().last().unwrap()).unwrap()["fault"].clone();
    assert_eq!(last(&answers[1])["message"], fault["message"]);
    assert_eq!(answers[2].json()["fault"]["detail"]["signal"], 11, "{:?}", answers[2]);
    for head in ["GET /v1/status", "GET /v1/pods", "GET /v1/health", "GET /v1/sessions", "GET /v1/logs", "GET /nothing"] {
        answers.push(tcp(&serving, &with(head, &token), b""));
    }
    assert_eq!(answers[8].status, 403, "{:?}", answers[8]);
    for answer in &answers {
        let text = format!("{answer:?}");
        for secret in ["planted", "subject.py", "Traceback", "traceback", home] {
            assert!(!text.contains(secret), "`{secret}` over TCP: {text}");
        }
    }
    // The same over the socket, for the server's own user.
    let own = serving.ask(RUN, raise).json()["fault"].clone();
    assert!(own["detail"]["traceback"].as_str().unwrap().contains("planted") && own["message"].as_str().unwrap().contains(home), "{own}");
    assert!(serving.ask("GET /v1/logs", b"").body.contains("planted in the log"));
    assert_eq!(serving.end(Signal::TERM, 60).code(), Some(0));
    let mut log = String::new();
    serving.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let reference = fault["detail"]["reference"].as_str().unwrap();
    let line = log.lines().find(|line| line.contains(reference)).unwrap_or_else(|| panic!("no {reference} in {log}"));
    assert!(line.contains("planted") && line.contains("Traceback"), "{line}");
}

#[test]
fn a_result_commands_no_terminal_and_is_the_same_document() {
    let (rig, _signed) = with_worker();
    let input = json!({ "\u{9b}2J": "\u{202e}txt.exe\u{7f}\u{85}\u{200b}\u{e0041}", "joined": "👩\u{200d}🔬 grüße" });
    let ran = rig.hob(&["call", "lab/worker", "run", &input.to_string()]);
    let printed = ran.well();
    for c in ['\u{9b}', '\u{202e}', '\u{7f}', '\u{85}', '\u{200b}', '\u{e0041}'] {
        assert!(!printed.contains(c), "{c:?} is printed raw: {printed:?}");
    }
    assert!(printed.contains("👩\u{200d}🔬 grüße"));
    assert_eq!(ran.json(), input);
    let whole = rig.hob(&["call", "lab/worker", "run", &input.to_string(), "--json"]);
    assert!(!whole.stdout.contains('\u{9b}') && whole.json()["output"] == input, "{whole:?}");
    // What pods print is shown by `hob logs`, as text and as JSON.
    let _serving = Serving::start(&rig, &[]);
    rig.hob(&["call", "lab/worker", "run", &json!({ "do": "say", "text": "\u{1b}[2J\u{9b}2J here" }).to_string()]).well();
    for words in [&["logs"][..], &["logs", "--json"]] {
        let ran = rig.hob(words);
        assert!(ran.well().contains("\\u001b[2J\\u009b2J here") || ran.well().contains("here"), "{ran:?}");
        assert!(!ran.stdout.contains('\u{1b}') && !ran.stdout.contains('\u{9b}'), "{ran:?}");
    }
    let refused = rig.hob(&["call", "lab/worker", "\u{9b}2J", "{}"]);
    refused.refused(Code::OperationNotFound, &["\\u{9b}2J"]);
}
