//! The data of a call, with a server and without: files that are handed over the server's socket, by honest
//! callers and by others.

use std::{
    fs::{self, File},
    io::{IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use hob::model::{Code, limits};
use rustix::{
    fs::{CWD, FileType, MemfdFlags, Mode, OFlags},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg},
};
use serde_json::{Value, json};

use super::{
    rig::{Rig, Signed, write_recipe},
    served::{Answer, Serving, ask, request, wait_for},
};

const MB: usize = 1_000_000;

/// Returns twice its input, waits on demand, or returns it in chunks.
const SUBJECT: &str = r#"import pathlib, time, zlib
import hob_pod
class Subject:
    def run(self, input, blobs):
        if "began" in input:
            pathlib.Path(input["began"]).write_text("")
            while not pathlib.Path(input["go"]).exists():
                time.sleep(0.002)
        data = b"".join(bytes(blob.data) for blob in blobs.values())
        told = {"bytes": len(data), "sum": zlib.crc32(data)}
        if input.get("twice"):
            return told, {"twice": hob_pod.Blob(data + data, "application/x-twice")}
        return told

    def flow(self, input):
        for number in range(input["count"]):
            yield number, {"part": hob_pod.Blob(bytes([number]) * input["bytes"])}
        return "end"
"#;

fn with_subject() -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    let (folder, open) = (signed.folder.path().join("subject"), signed.folder.path().join("open"));
    fs::create_dir(&open).unwrap();
    write_recipe(&folder, "lab/hands", "0.1.0", SUBJECT, &format!("python = \">=3.9\"\n[permissions]\nwrite = [{open:?}]"));
    let manifest = folder.join("recipe.toml");
    let flow = "\n[operations.flow]\nsummary = \"Flows\"\ninput = {}\noutput = {}\nstreaming = true\n";
    fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + flow).unwrap();
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/hands", "--grant"]).well();
    fs::create_dir(rig.folder.path().join("handed")).unwrap();
    (rig, signed)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| ((at / 7) % 251) as u8).collect()
}

/// A call with blobs in the given files, with these sizes.
fn body(input: &Value, blobs: &[u64]) -> Vec<u8> {
    let blobs: Vec<Value> = blobs.iter().enumerate().map(|(at, bytes)| json!({ "name": format!("b{at}"), "file_bytes": bytes })).collect();
    json!({ "recipe": "lab/hands", "operation": "run", "input": input, "blobs": blobs }).to_string().into_bytes()
}

fn hand(stream: &UnixStream, files: &[OwnedFd], bytes: &[u8]) {
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(&files)));
    assert!(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap() > 0);
}

/// Hands over files with the first byte of a call that announces `said` of them.
fn call(serving: &Serving, files: &[OwnedFd], said: &str, body: &[u8]) -> Answer {
    let mut stream = serving.connect();
    let bytes = request(&format!("POST /v1/calls\nx-hob-files: {said}"), body);
    hand(&stream, files, &bytes[..1]);
    stream.write_all(&bytes[1..]).unwrap();
    answer(stream)
}

fn answer(stream: UnixStream) -> Answer {
    // Writes are ignored here: the request was already sent.
    struct Rest(UnixStream);
    impl Read for Rest {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(into)
        }
    }
    impl Write for Rest {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    ask(Rest(stream), "", b"").expect("a whole answer")
}

fn last(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(answer.body.lines().last().unwrap()).unwrap()
}

fn open(path: &Path, flags: OFlags) -> OwnedFd {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).unwrap()
}

/// The folder for files that are handed over.
fn place(rig: &Rig) -> PathBuf {
    rig.folder.path().join("handed")
}

/// The number of files of that folder that the server has open.
fn held(serving: &Serving, folder: &Path) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", serving.child.id())).unwrap();
    open.filter(|entry| fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|place| place.starts_with(folder))).count()
}

#[test]
fn a_call_carries_the_same_with_a_server_and_without_one() {
    let (rig, _signed) = with_subject();
    let (given, twice) = (place(&rig).join("given"), rig.folder.path().join("twice"));
    let all = bytes(36 * MB);
    fs::write(&given, &all).unwrap();
    let wanted = [&all[..], &all[..]].concat();
    let mut answers = Vec::new();
    let blob = format!("b={}", given.display());
    let words = ["call", "lab/hands", "run", r#"{"twice": true}"#, "--blob", &blob, "--out", &format!("twice={}", twice.display())];
    let mut serving = None;
    for with_server in [false, true] {
        if with_server {
            serving = Some(Serving::start(&rig, &[]));
        }
        let ran = rig.hob(&words);
        answers.push(ran.well().to_owned());
        assert!(fs::read(&twice).unwrap() == wanted, "with a server: {with_server}");
        fs::remove_file(&twice).unwrap();
        // The caller reads a pipe to its end, whichever process runs the call.
        let piped = ["call", "lab/hands", "run", "{}", "--blob", "b=/dev/stdin"];
        let mut command = rig.command(&piped);
        command.stdin(File::open(&given).unwrap());
        answers.push(super::rig::run(command, b"").well().to_owned());
    }
    assert_eq!((&answers[0], &answers[1]), (&answers[2], &answers[3]));
    assert!(answers[0].starts_with(r#"{"bytes":36000000,"#), "{answers:?}");
    let serving = serving.unwrap();
    assert!(super::served::ask(serving.connect(), "GET /v1/pods", b"").unwrap().body.contains("lab/hands"), "the server ran them");
    // The server keeps nothing of it open.
    assert_eq!(held(&serving, &place(&rig)), 0);
}

#[test]
fn each_way_in_tells_its_bounds_before_the_work() {
    let (rig, _signed) = with_subject();
    let serving = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    let bearer = format!("authorization: Bearer {}", fs::read_to_string(serving.token.as_ref().unwrap()).unwrap().trim());
    let bounds = |files: usize, bytes: u64| {
        json!({
            "call_bytes": limits::SERVE_CALL_BYTES_MAX, "answer_blob_bytes": limits::GLUE_BLOB_BYTES_MAX, "blobs": limits::BLOBS_MAX,
            "files": files, "file_bytes": bytes,
        })
    };
    assert_eq!(serving.ask("GET /v1/calls", b"").json(), bounds(16, limits::BLOB_BYTES_MAX));
    let tcp = |head: &str, body: &[u8]| ask(serving.connect_tcp(), &format!("{head}\n{bearer}"), body).unwrap();
    assert_eq!(tcp("GET /v1/calls", b"").json(), bounds(0, 0));
    // In base64, the answer begins with as much as it can hold; a larger result is refused with the way in
    // which it would fit.
    let large = json!({ "recipe": "lab/hands", "operation": "flow", "input": { "count": 1, "bytes": 72 * MB } }).to_string();
    let answer = tcp("POST /v1/calls", large.as_bytes());
    assert!(answer.head.contains(&format!("x-hob-blob-bytes-max: {}", limits::GLUE_BLOB_BYTES_MAX)), "{answer:?}");
    let fault = &last(&answer)["fault"];
    assert_eq!(fault["code"], "too_large");
    assert!(fault["hint"].as_str().unwrap().contains("GET /v1/calls"), "{fault}");
    let huge = tcp(&format!("POST /v1/calls\ncontent-length: {}", limits::SERVE_CALL_BYTES_MAX + 1), b"");
    assert!(huge.code() == "too_large" && huge.body.contains("GET /v1/calls"), "{huge:?}");
    // No file crosses a network.
    let refused = tcp("POST /v1/calls\nx-hob-files: 0", &body(&json!({}), &[]));
    assert!(refused.status == 400 && refused.body.contains("Unix socket"), "{refused:?}");
    let refused = tcp("POST /v1/calls", &body(&json!({}), &[5]));
    assert!(refused.status == 400 && refused.body.contains("did not come"), "{refused:?}");
}

#[test]
fn what_is_no_plain_file_to_be_read_is_refused_and_the_server_goes_on() {
    let (rig, _signed) = with_subject();
    let serving = Serving::start(&rig, &[]);
    let at = |name: &str| place(&rig).join(name);
    fs::write(at("plain"), bytes(300 << 10)).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let memory = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
    File::from(memory.try_clone().unwrap()).write_all_at(&bytes(300 << 10), 0).unwrap();
    let plain = |flags| open(&at("plain"), flags);
    let cases = [
        (open(&place(&rig), OFlags::RDONLY), "a folder"),
        (open(&at("fifo"), OFlags::RDWR), "a pipe"),
        (socket.into(), "a socket"),
        (open(Path::new("/dev/zero"), OFlags::RDONLY), "a device"),
        (plain(OFlags::WRONLY), "not open to be read"),
        (plain(OFlags::PATH), "`O_PATH`"),
        (open(&at("fifo"), OFlags::PATH), "a pipe"),
    ];
    for (file, found) in cases {
        let refused = call(&serving, &[file], "1", &body(&json!({}), &[300 << 10]));
        assert!(refused.status == 400 && refused.code() == "usage" && refused.body.contains(found), "{found}: {refused:?}");
    }
    // A file that was cut after its length was announced.
    let cut = call(&serving, &[plain(OFlags::RDONLY)], "1", &body(&json!({}), &[301 << 10]));
    assert!(cut.code() == "io" && cut.body.contains("307200 bytes; 308224"), "{cut:?}");
    let past = call(&serving, &[plain(OFlags::RDONLY)], "1", &body(&json!({}), &[limits::BLOB_BYTES_MAX + 1]));
    assert!(["io", "too_large"].contains(&past.code().as_str()), "{past:?}");
    // A real file is accepted, however it was opened.
    for file in [plain(OFlags::RDONLY), plain(OFlags::RDWR), memory] {
        let answer = call(&serving, &[file], "1", &body(&json!({}), &[300 << 10]));
        assert_eq!(last(&answer)["output"]["bytes"], 300 << 10, "{answer:?}");
    }
    assert_eq!(held(&serving, &place(&rig)), 0);
}

#[test]
fn files_are_as_many_as_was_said_and_of_their_own_request() {
    let (rig, _signed) = with_subject();
    let serving = Serving::start(&rig, &[]);
    let path = place(&rig).join("plain");
    fs::write(&path, bytes(1 << 20)).unwrap();
    let files = |count: usize| (0..count).map(|_| open(&path, OFlags::RDONLY)).collect::<Vec<_>>();
    let input = json!({});
    for (handed, said, blobs, code, part) in [
        (0, "1", 1, "usage", "says 1 files; 0 came"),
        (2, "1", 1, "usage", "says 1 files; 2 came"),
        (1, "1", 0, "usage", "1 of the files that came are of no blob"),
        (1, "1", 2, "usage", "`b1` is in a file that did not come"),
        (0, "0", 1, "usage", "did not come"),
        (1, "one", 1, "usage", "`one` is no number"),
        (17, "17", 17, "too_large", "17 files"),
        (65, "16", 16, "too_large", "more than 64"),
        (200, "16", 16, "too_large", "more than 64"),
    ] {
        let refused = call(&serving, &files(handed), said, &body(&input, &vec![10; blobs]));
        assert!(refused.code() == code && refused.body.contains(part), "{handed} said to be {said}: {refused:?}");
    }
    let both = json!({ "recipe": "lab/hands", "operation": "run", "input": 1, "blobs": [{ "name": "b", "base64": "", "file_bytes": 1 }] });
    let refused = call(&serving, &files(1), "1", both.to_string().as_bytes());
    assert!(refused.code() == "usage" && refused.body.contains("wanted one of them"), "{refused:?}");
    // Files of another connection are out of reach; files of another request on the same connection are
    // closed with that request.
    let mut other = serving.connect();
    hand(&other, &files(1), b"G");
    let refused = call(&serving, &[], "1", &body(&input, &[10]));
    assert!(refused.body.contains("0 came"), "{refused:?}");
    other.write_all(b"ET /v1/calls HTTP/1.1\r\nhost: hob\r\n\r\n").unwrap();
    let mut begun = [0; 12];
    other.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    other.write_all(&request("POST /v1/calls\nx-hob-files: 1", &body(&input, &[10]))).unwrap();
    let mut rest = String::new();
    other.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("says 1 files; 0 came"), "{rest}");
    // A caller that hangs up in the middle leaves nothing.
    for sent in [&b"P"[..], b"POST /v1/calls HTTP/1.1\r\nhost: hob\r\nx-hob-files: 16\r\ncontent-length: 500\r\n\r\n{"] {
        let stream = serving.connect();
        hand(&stream, &files(16), sent);
        within(&serving, &place(&rig), 16);
        drop(stream);
        within(&serving, &place(&rig), 0);
    }
    let answer = call(&serving, &files(16), "16", &body(&input, &[1 << 20; 16]));
    assert_eq!(last(&answer)["output"]["bytes"], 16 << 20, "{answer:?}");
    within(&serving, &place(&rig), 0);
}

/// Waits until the server holds this many files of a folder.
#[track_caller]
fn within(serving: &Serving, folder: &Path, count: usize) {
    let begun = std::time::Instant::now();
    while held(serving, folder) != count {
        assert!(begun.elapsed().as_secs() < 30, "{} are open, not {count}", held(serving, folder));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_that_calls_fault_alone() {
    let (rig, signed) = with_subject();
    let serving = Serving::start(&rig, &[]);
    let place = signed.folder.path().join("open");
    let (began, go, file) = (place.join("began"), place.join("go"), rig.folder.path().join("cut"));
    fs::write(&file, bytes(36 * MB)).unwrap();
    let handed = [open(&file, OFlags::RDONLY)];
    let input = json!({ "began": began, "go": go });
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| call(&serving, &handed, "1", &body(&input, &[36 * MB as u64])));
        wait_for(&began);
        File::options().write(true).open(&file).unwrap().set_len(4_096).unwrap();
        fs::write(&go, "").unwrap();
        call.join().unwrap()
    });
    let fault = &last(&answer)["fault"];
    // A pod that was lent the file dies by the cut; a pod with a copy, where nothing can be lent, does not
    // see it.
    match fault.is_object() {
        true => assert_eq!(fault["code"], "crashed", "{fault}"),
        false => assert_eq!(last(&answer)["output"]["bytes"], 36 * MB),
    }
    fs::write(&file, bytes(5 * MB)).unwrap();
    let blob = format!("b={}", file.display());
    assert!(rig.hob(&["call", "lab/hands", "run", "{}", "--blob", &blob]).well().starts_with(r#"{"bytes":5000000,"#));
}

#[test]
fn large_chunks_are_handed_over_in_their_order_and_small_ones_stay_in_their_lines() {
    let (rig, _signed) = with_subject();
    let serving = Serving::start(&rig, &[]);
    let flow = |bytes: usize, head: &str| {
        let mut stream = serving.connect();
        let input = json!({ "count": 100, "bytes": bytes });
        let body = json!({ "recipe": "lab/hands", "operation": "flow", "input": input }).to_string();
        stream.write_all(&request(&format!("POST /v1/calls{head}"), body.as_bytes())).unwrap();
        let (mut text, mut files) = (Vec::new(), Vec::new());
        loop {
            let mut piece = [0; 4_096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(&stream, &mut [IoSliceMut::new(&mut piece)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
            for message in control.drain() {
                let RecvAncillaryMessage::ScmRights(handed) = message else { panic!("something else") };
                files.extend(handed);
            }
            match received.bytes {
                0 => break,
                count => text.extend_from_slice(&piece[..count]),
            }
        }
        (String::from_utf8(text).unwrap(), files)
    };
    let (text, files) = flow(1 << 20, "\nx-hob-files: 0");
    assert!(text.contains("\"event\":\"outcome\""), "{}", text.lines().last().unwrap());
    assert_eq!((text.matches("\"file_bytes\":1048576").count(), text.contains("base64"), files.len()), (100, false, 100));
    for (number, file) in files.into_iter().enumerate() {
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes).unwrap_or_default();
        // If the file still has its content, that is complete.
        assert!(bytes.is_empty() || bytes == vec![number as u8; 1 << 20], "{number}");
    }
    for (bytes, head) in [(1_000, "\nx-hob-files: 0"), (300 << 10, "")] {
        let (text, files) = flow(bytes, head);
        assert!(text.contains("\"event\":\"outcome\""), "{}", &text[text.len() - 600..]);
        assert_eq!((text.matches("\"base64\":").count(), text.contains("file_bytes"), files.len()), (100, false, 0), "{bytes}");
    }
}

#[test]
fn a_server_that_knows_nothing_of_files_is_sent_base64_and_what_is_too_large_is_said_before() {
    let (rig, _signed) = with_subject();
    let serving = Serving::start(&rig, &[]);
    let socket = serving.socket.clone();
    drop(serving);
    let _ = fs::remove_file(&socket);
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let file = rig.folder.path().join("given");
    let served = std::thread::spawn(move || {
        let mut bodies = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            let mut piece = [0; 64 << 10];
            let refusal = json!({ "fault": { "code": "usage", "blame": "caller", "message": "/v1/calls does not take GET" } }).to_string();
            let mut asked = false;
            loop {
                let count = stream.read(&mut piece).unwrap();
                heard.extend_from_slice(&piece[..count]);
                let text = String::from_utf8_lossy(&heard).into_owned();
                if !asked && text.contains("\r\n\r\n") {
                    assert!(text.starts_with("GET /v1/calls "), "{text}");
                    let head = format!("HTTP/1.1 405 No\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", refusal.len());
                    stream.write_all((head + &refusal).as_bytes()).unwrap();
                    asked = true;
                    heard.clear();
                }
                let whole = text.split_once("\r\n\r\n").filter(|_| text.starts_with("POST")).is_some_and(|(head, body)| {
                    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
                    length == Some(body.len())
                });
                if whole || count == 0 {
                    if whole {
                        let line = "{\"event\":\"outcome\",\"output\":7,\"recipe\":\"a/b\",\"version\":\"0.1.0\"}\n";
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", line.len());
                        stream.write_all((head + line).as_bytes()).unwrap();
                    }
                    bodies.push(text);
                    break;
                }
            }
        }
        bodies
    });
    let blob = format!("b={}", file.display());
    let words = ["call", "lab/hands", "run", "{}", "--blob", &blob];
    fs::write(&file, bytes(MB)).unwrap();
    assert_eq!(rig.hob(&words).well(), "7");
    fs::write(&file, bytes(36 * MB)).unwrap();
    rig.hob(&words).refused(Code::TooLarge, &["base64", "older version", "--one-shot"]);
    let bodies = served.join().unwrap();
    assert!(bodies[0].starts_with("POST") && bodies[0].contains("\"base64\":\"") && !bodies[0].contains("file_bytes"));
    assert!(!bodies[1].contains("POST"), "nothing was sent");
}
