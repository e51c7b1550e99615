//! Blobs of any size through a real pod, and misuse of them.

use std::{path::Path, sync::Arc};

use hob::{
    host::blobs,
    model::{Blob, Code, Event, Fault, Outcome, Store},
};
use serde_json::{Value, json};

use crate::support::{Rig, call, within};

const MIB: usize = 1 << 20;

/// Returns a copy of each blob, and the length and media type that the pod saw.
const ECHO: &str = "
import hob_pod
class Subject:
    def run(self, input, blobs):
        back = {}
        for name, blob in blobs.items():
            assert blob.data.readonly
            out = hob_pod.Blob.empty(len(blob), media_type=blob.media_type)
            out.data[:] = blob.data
            back[name] = out
        return {name: [len(blob), blob.media_type] for name, blob in blobs.items()}, back
";

async fn run(rig: &Rig, recipe: &Path, input: Value, blobs: Vec<Blob>) -> Result<Outcome, Fault> {
    let mut call = call(recipe, input);
    call.blobs = blobs;
    rig.host.call(call).await
}

fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|at| ((at / 7 + seed) % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_any_size_and_kind_come_back_as_they_went() {
    let rig = Rig::new().await;
    let recipe = rig.python("echo", ECHO, false);
    let folder = tempfile::tempdir().unwrap();
    // Twice: the second round uses regions that were used before.
    for round in 0..2 {
        for size in [0, 1, 200 << 10, 300 << 10, 3 * MIB, 20 * MIB] {
            let (memory, disk, read) = (bytes(size, round), bytes(size, round + 1), bytes(size, round + 2));
            let file = folder.path().join("disk.png");
            std::fs::write(&file, &disk).unwrap();
            let given = vec![
                Blob::new("memory", "x/y", memory.clone()),
                blobs::from_file("disk", blobs::media_type_of(&file), &file).unwrap(),
                blobs::from_reader("read", "x/z", &mut &read[..]).unwrap(),
            ];
            let outcome = run(&rig, &recipe, json!({}), given).await.unwrap();
            let seen = json!({ "memory": [size, "x/y"], "disk": [size, "image/png"], "read": [size, "x/z"] });
            assert_eq!(outcome.output.value(), &seen);
            for (blob, wanted) in outcome.blobs.iter().zip([&memory, &disk, &read]) {
                assert_eq!(blob.store().is_some(), size > 256 << 10, "{size}");
                assert!(blob.bytes(u64::MAX).unwrap() == wanted[..], "{} of {size} bytes", blob.name);
            }
        }
    }
    assert_eq!(rig.host.pods().len(), 1, "and all of it by one pod");
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_outlives_its_pod_and_is_not_overwritten_while_somebody_holds_it() {
    let rig = Rig::new().await;
    let recipe = rig.python("echo", ECHO, false);
    let mut held = Vec::new();
    for seed in 0..5 {
        let outcome = run(&rig, &recipe, json!({}), vec![Blob::new("x", "y", bytes(2 * MIB, seed))]).await.unwrap();
        held.push(outcome.blobs.into_iter().next().unwrap());
    }
    rig.host.clone().shutdown().await;
    for (seed, blob) in held.iter().enumerate() {
        assert!(blob.bytes(u64::MAX).unwrap() == bytes(2 * MIB, seed)[..], "{seed}");
    }
    rig.close().await;
}

/// A store that fails in the middle, as a failing disk does, or a file that is cut meanwhile.
#[derive(Debug)]
struct BreaksOff;

impl Store for BreaksOff {
    fn size(&self) -> u64 {
        4 * MIB as u64
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> std::io::Result<usize> {
        match at < 2 * MIB as u64 {
            true => Ok(into.len()),
            false => Err(std::io::Error::other("the disk is gone")),
        }
    }
    fn mark(&self) -> [u64; 4] {
        [7; 4]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_cannot_be_read_fails_its_own_call_alone() {
    let rig = Rig::new().await;
    let recipe = rig.python("echo", ECHO, false);
    for _ in 0..3 {
        let fault = run(&rig, &recipe, json!({}), vec![Blob::stored("x", "y", Arc::new(BreaksOff))]).await.unwrap_err();
        assert!(fault.code == Code::Io && fault.message.contains("the disk is gone"), "{fault}");
        run(&rig, &recipe, json!({}), vec![Blob::new("x", "y", bytes(4 * MIB, 1))]).await.unwrap();
    }
    assert_eq!(rig.host.pods().len(), 1);
    rig.close().await;
}

/// Misuses of blobs, for a class that the real runner runs: the messages bypass the runner's own checks.
const MISDEEDS: &str = r#"
import gc, os, threading, mmap
import hob_pod
from hob_pod import asks, regions, wire

def answer(blobs, **more):
    server = next(thing for thing in gc.get_objects() if type(thing).__name__ == "Server")
    work = asks.current()
    message = {"type": "answer", "incarnation": server._incarnation, "output": "sent", "blobs": blobs, **more}
    server.lane.send(wire.encode(work.ask, message))

def blob(region, size):
    return {"name": "x", "media_type": "y", "bytes": size, "region": region}

def fired(name):
    with open(os.path.join(OPEN, name), "w") as file:
        file.write("fired")

class Subject:
    def run(self, input):
        return getattr(self, input["misdeed"])(1 << 20)

    def resizes(self, size):
        region = regions.regions.room(size)
        descriptor, found = os.dup(region._descriptor), []
        for wanted in (1, 64 << 20):
            try:
                os.ftruncate(descriptor, wanted)
                found.append("done")
            except PermissionError:
                found.append("denied")
        fired("resizes")
        region.view(size)[:] = b"a" * size
        regions.regions.sent(region)
        answer([blob(region.number, size)])
        return found

    def scribbles(self, size):
        region = regions.regions.room(size)
        view = region.view(size)
        def scribble():
            n = 0
            while True:
                n = (n + 1) % 251
                view[:] = bytes([n]) * size
        threading.Thread(target=scribble, daemon=True).start()
        fired("scribbles")
        regions.regions.sent(region)
        answer([blob(region.number, size)])

    def sends_twice(self, size):
        region = regions.regions.room(size)
        fired("sends_twice")
        answer([blob(region.number, size), blob(region.number, size)])

    def sends_what_it_was_lent(self, size):
        fired("sends_what_it_was_lent")
        answer([blob(77, size)])

    def sends_more_than_there_is(self, size):
        region = regions.regions.room(size)
        fired("sends_more_than_there_is")
        answer([blob(region.number, region.size + 1)])

    def sends_more_than_can_be_counted(self, size):
        region = regions.regions.room(size)
        fired("sends_more_than_can_be_counted")
        answer([blob(region.number, (1 << 64) - 1)])

    def gives_back_what_it_has_not(self, size):
        fired("gives_back_what_it_has_not")
        regions.regions._send({"type": "back", "regions": [5]})
        threading.Event().wait(20)

    def lets_go_of_what_it_has_not(self, size):
        fired("lets_go_of_what_it_has_not")
        regions.regions._send({"type": "dropped", "regions": [5]})
        threading.Event().wait(20)

    def wants_the_moon(self, size):
        fired("wants_the_moon")
        refused = 0
        for wanted in (1 << 62, (1 << 64) - 1, *[1 << 20] * 100):
            try:
                regions.regions.room(wanted)
            except hob_pod.Fault:
                refused += 1
        return refused
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_does_to_its_blobs_is_a_typed_fault_or_its_own_affair() {
    let rig = Rig::new().await;
    let open = rig.open();
    let source = format!("OPEN = {:?}\n{MISDEEDS}", open.display().to_string());
    let good = rig.python("echo", ECHO, false);
    let violations = [
        ("sends_twice", "was not given back"),
        ("sends_what_it_was_lent", "none for results"),
        ("sends_more_than_there_is", "which has 1048576"),
        ("sends_more_than_can_be_counted", "which has 1048576"),
        ("gives_back_what_it_has_not", "gave back region 5"),
        ("lets_go_of_what_it_has_not", "let go of region 5"),
    ];
    for (misdeed, says) in violations {
        let recipe = rig.python(misdeed, &source, false);
        let fault = run(&rig, &recipe, json!({ "misdeed": misdeed }), vec![]).await.unwrap_err();
        assert!(open.join(misdeed).exists(), "{misdeed} never happened");
        assert!(fault.code == Code::ProtocolViolation && fault.message.contains(says), "{misdeed}: {fault}");
        run(&rig, &good, json!({}), vec![Blob::new("x", "y", bytes(MIB, 3))]).await.unwrap();
    }
    // The region's size is sealed: the pod gets an error, and the host reads the bytes that exist. (The
    // runner answers a second time, which is a violation.)
    let recipe = rig.python("resizes", &source, false);
    let outcome = run(&rig, &recipe, json!({ "misdeed": "resizes" }), vec![]).await.unwrap();
    assert!(open.join("resizes").exists());
    assert!(outcome.blobs[0].bytes(u64::MAX).unwrap() == vec![b'a'; MIB][..]);
    // A reader meanwhile gets the announced number of bytes, whatever they are.
    let recipe = rig.python("scribbles", &source, false);
    let outcome = run(&rig, &recipe, json!({ "misdeed": "scribbles" }), vec![]).await.unwrap();
    assert!(open.join("scribbles").exists());
    for _ in 0..50 {
        assert_eq!(outcome.blobs[0].bytes(u64::MAX).unwrap().len(), MIB);
    }
    let recipe = rig.python("wants_the_moon", &source, false);
    let outcome = run(&rig, &recipe, json!({ "misdeed": "wants_the_moon" }), vec![]).await.unwrap();
    assert_eq!(outcome.output.value(), &json!(2 + 100 - 64), "64 regions and not one more");
    run(&rig, &good, json!({}), vec![Blob::new("x", "y", bytes(MIB, 3))]).await.unwrap();
    rig.close().await;
}

/// Yields without end, and writes how far it came.
const ENDLESS: &str = "
import os, threading
class Subject:
    def run(self, input):
        if input == 'quick':
            return 'quick'
        return self.endless()
    def endless(self):
        n = 0
        try:
            while True:
                n += 1
                with open(os.path.join(OPEN, 'count'), 'w') as file:
                    file.write(str(n))
                yield {'n': n, 'pad': 'x' * 10000}
        finally:
            with open(os.path.join(OPEN, 'stopped'), 'w') as file:
                file.write(str(n))
";

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_holds_up_its_own_stream_and_nothing_else() {
    let rig = Rig::new().await;
    let open = rig.open();
    let source = format!("OPEN = {:?}\n{ENDLESS}", open.display().to_string());
    let recipe = rig.pool("endless", &source, "concurrency = 2", "streaming = true");
    let mut running = rig.host.start(call(&recipe, json!("endless")));
    let count = || std::fs::read_to_string(open.join("count")).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // The caller takes nothing: the buffers on the way fill up, and then the pod waits.
    let mut last = (0, std::time::Instant::now());
    within(60, "the producer pauses", || {
        let now = count();
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        now > 0 && last.1.elapsed().as_millis() > 700
    })
    .await;
    let paused = count();
    assert!(paused < 300, "{paused} chunks for nobody");
    // The same pod answers other calls meanwhile.
    for _ in 0..20 {
        let outcome = rig.host.call(call(&recipe, json!("quick"))).await.unwrap();
        assert_eq!(outcome.output.value(), "quick");
    }
    assert_eq!((rig.host.pods().len(), count()), (1, paused));
    // The stream goes on, without a gap, once the caller takes chunks.
    for wanted in 1..=500 {
        match running.next().await {
            Some(Event::Chunk { data, .. }) => assert_eq!(data["n"], wanted),
            other => panic!("{other:?}"),
        }
    }
    // The stream stops once it has no caller.
    drop(running);
    within(60, "the worker stops", || open.join("stopped").exists()).await;
    rig.host.call(call(&recipe, json!("quick"))).await.unwrap();
    assert_eq!(rig.host.pods().len(), 1, "by itself: it was not killed");
    rig.close().await;
}

/// The peak memory, in bytes, of the program in a call with this file as input and output.
fn peak_of_call(rig: &Rig, recipe: &Path, file: &Path, out: &Path) -> u64 {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hob"))
        .args(["call", &recipe.display().to_string(), "run", "{}", "--one-shot"])
        .args(["--blob", &format!("x={}", file.display()), "--out", &format!("x={}", out.display())])
        .env("HOB_HOME", rig.folder.path().join("home"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (mut peak, status) = (0, format!("/proc/{}/status", child.id()));
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(peak, |kib| kib << 10).max(peak);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    assert!(ended.success(), "{ended}");
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_in_and_out_leaves_the_hosts_memory_as_it_is() {
    let rig = Rig::new().await;
    let recipe = rig.python("echo", ECHO, false);
    let (file, out) = (rig.folder.path().join("in"), rig.folder.path().join("out"));
    std::fs::write(&file, "small").unwrap();
    let idle = peak_of_call(&rig, &recipe, &file, &out);
    let size = 1 << 30;
    // A sparse file: its holes read as zeros, which nobody has to write first.
    let large = std::fs::File::create(&file).unwrap();
    large.set_len(size).unwrap();
    for at in [0, size / 2 + 3, size - 4] {
        std::os::unix::fs::FileExt::write_all_at(&large, b"mark", at).unwrap();
    }
    let peak = peak_of_call(&rig, &recipe, &file, &out);
    println!("the host's peak: {} MiB with 5 bytes, {} MiB with 1 GiB in and out", idle >> 20, peak >> 20);
    assert!(peak < idle + (64 << 20), "{peak} with 1 GiB, {idle} with 5 bytes");
    let copied = std::fs::File::open(&out).unwrap();
    assert_eq!(copied.metadata().unwrap().len(), size);
    for at in [0, size / 2 + 3, size - 4] {
        let mut mark = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&copied, &mut mark, at).unwrap();
        assert_eq!(&mark, b"mark");
    }
    rig.close().await;
}
