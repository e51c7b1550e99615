//! Callers that read their stream slowly or not at all, while others wait for the only pod.
//!
//! (In `blobs.rs` nobody else waits, and a slow caller holds its producer back.)

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use hob::{
    host::Running,
    model::{Code, Event},
};
use serde_json::json;

use crate::support::{Rig, call, host_at, within};

/// Yields as many chunks as asked, of that size, and writes how far it came. `blobs`: none, or a blob each,
/// of which every hundredth, or `all`, is too large for a frame. Any other input is returned.
const STREAMS: &str = "
import os, time, hob_pod
class Subject:
    def run(self, input):
        while input == 'hold' and not os.path.exists(os.path.join(OPEN, 'go')):
            time.sleep(0.01)
        return self.stream(*input) if isinstance(input, list) else input
    def stream(self, count, size, blobs):
        n = 0
        try:
            while n < count:
                n += 1
                with open(os.path.join(OPEN, 'count'), 'w') as file:
                    file.write(str(n))
                chunk = {'n': n, 'pad': 'x' * size}
                times = 75_000 if blobs == 'all' else 1 << 18 if n % 100 == 0 else 50
                yield (chunk, {'b': hob_pod.Blob(n.to_bytes(4, 'big') * times, 'x/y')}) if blobs else chunk
        finally:
            with open(os.path.join(OPEN, 'stopped'), 'w') as file:
                file.write(str(n))
        return 'end'
";

fn count(rig: &Rig) -> u64 {
    std::fs::read_to_string(rig.open().join("count")).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn source(folder: &Path) -> String {
    format!("OPEN = {:?}\n{STREAMS}", folder.display().to_string())
}

fn streams(rig: &Rig, name: &str) -> PathBuf {
    rig.pool(name, &source(&rig.open()), "max = 1", "streaming = true")
}

/// Bytes in nameless files below that folder which this process has open.
fn on_disk(folder: &Path) -> u64 {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let ours =
        open.filter(|path| std::fs::read_link(path).is_ok_and(|to| to.starts_with(folder) && to.to_string_lossy().ends_with("(deleted)")));
    let found = ours.filter_map(|path| std::fs::metadata(path).ok());
    found.inspect(|found| assert_eq!(found.mode() & 0o777, 0o600, "its owner's alone")).map(|found| found.blocks() * 512).sum()
}

/// Reads all chunks of a stream, each as it was sent, and its answer.
async fn hear(mut running: Running, chunks: u64, size: usize, blobs: &str) {
    for wanted in 1..=chunks {
        let Some(Event::Chunk { data, blobs: found }) = running.next().await else { panic!("chunk {wanted} is missing") };
        assert_eq!((&data["n"], data["pad"].as_str().map(str::len)), (&json!(wanted), Some(size)));
        let times = if blobs == "all" {
            75_000
        } else if wanted % 100 == 0 {
            1 << 18
        } else {
            50
        };
        let bytes = (wanted as u32).to_be_bytes().repeat(times);
        assert_eq!(found.len(), usize::from(!blobs.is_empty()));
        assert!(found.iter().all(|blob| blob.bytes(u64::MAX).unwrap() == bytes[..]), "the blob of chunk {wanted}");
    }
    assert!(running.next().await.is_none());
    assert_eq!(running.outcome().await.unwrap().output.value(), "end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_reader_holds_the_only_pod_from_nobody_and_loses_nothing() {
    let rig = Rig::new().await;
    let recipe = streams(&rig, "heard");
    // In memory; in memory and on disk; and with more blobs than a pod may have in shared memory at once.
    for (chunks, size, blobs, spills) in
        [(700, 10_000, "", false), (3_000, 10_000, "", true), (2_500, 10_000, "some", true), (200, 10, "all", true)]
    {
        let running = rig.host.start(call(&recipe, json!([chunks, size, blobs])));
        within(60, "the stream begins", || count(&rig) >= 3).await;
        assert!(count(&rig) < 300, "{} chunks while nobody waits", count(&rig));
        let outcome = rig.host.call(call(&recipe, json!("next"))).await.unwrap();
        assert_eq!((outcome.output.value(), count(&rig), rig.host.pods().len()), (&json!("next"), chunks, 1));
        assert_eq!(on_disk(rig.folder.path()) > 0, spills, "{chunks} chunks, {} bytes on the disk", on_disk(rig.folder.path()));
        // Nobody has read a chunk so far.
        hear(running, chunks, size, blobs).await;
        within(60, "nothing is left on the disk", || on_disk(rig.folder.path()) == 0).await;
        std::fs::remove_file(rig.open().join("count")).unwrap();
    }
    rig.close().await;
}

/// Each stream keeps less than one may; together they keep more than all may in memory.
#[tokio::test(flavor = "multi_thread")]
async fn deaf_readers_together_are_kept_within_the_hosts_memory_and_go_on_by_the_disk() {
    const STREAMS: u64 = 30;
    const CHUNKS: u64 = 150;
    let rig = Rig::new().await;
    let recipe = rig.pool("many", &source(&rig.open()), &format!("max = 1\nconcurrency = {STREAMS}"), "streaming = true");
    let running: Vec<Running> = (0..STREAMS).map(|_| rig.host.start(call(&recipe, json!([CHUNKS, 100_000, ""])))).collect();
    within(60, "all streams are in hand", || rig.host.pods().iter().any(|pod| pod.in_hand as u64 == STREAMS)).await;
    assert_eq!(on_disk(rig.folder.path()), 0);
    // Each stream that ends leaves its pod to one of these calls, and one call always waits.
    let waiting: Vec<Running> = (0..=STREAMS).map(|_| rig.host.start(call(&recipe, json!("hold")))).collect();
    within(60, "all streams end in the pod", || rig.host.status().pools.iter().any(|pool| pool.asks_done == STREAMS)).await;
    let kept = STREAMS * CHUNKS * 100_000;
    let spilled = on_disk(rig.folder.path());
    // Beside the kept chunks, each stream may send its credit.
    let in_memory = (256 << 20) + STREAMS * (4 << 20);
    assert!(spilled > kept - in_memory && spilled < kept / 2, "{spilled} of {kept} bytes on the disk");
    for running in running {
        hear(running, CHUNKS, 100_000, "").await;
    }
    std::fs::write(rig.open().join("go"), "").unwrap();
    for waiting in waiting {
        waiting.outcome().await.unwrap();
    }
    within(60, "nothing is left on the disk", || on_disk(rig.folder.path()) == 0).await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_reader_of_too_much_ends_alone_when_others_wait() {
    let rig = Rig::new().await;
    let recipe = streams(&rig, "unheard");
    let mut running = rig.host.start(call(&recipe, json!([u32::MAX, 100_000, ""])));
    within(60, "the stream begins", || count(&rig) > 0).await;
    let outcome = rig.host.call(call(&recipe, json!("next"))).await.unwrap();
    assert_eq!(outcome.output.value(), "next");
    assert!((2_700..3_200).contains(&count(&rig)), "{} chunks of 100 kB in 272 MiB", count(&rig));
    assert!(on_disk(rig.folder.path()) > 240 << 20, "{} bytes on the disk", on_disk(rig.folder.path()));
    let mut read = 0;
    while let Some(event) = running.next().await {
        read += 1;
        assert!(matches!(event, Event::Chunk { data, .. } if data["n"] == read), "chunk {read}");
    }
    let fault = running.outcome().await.unwrap_err();
    assert!(fault.code == Code::Unread && fault.message.contains("others wait for its pod"), "{fault}");
    assert!(read > 2_600, "what was kept is still given");
    // A stream whose caller leaves also frees the pod, and leaves nothing on the disk.
    let running = rig.host.start(call(&recipe, json!([u32::MAX, 1_000, ""])));
    std::fs::remove_file(rig.open().join("stopped")).unwrap();
    within(60, "the stream begins again", || count(&rig) < 100).await;
    let (host, next) = (rig.host.clone(), call(&recipe, json!("last")));
    let next = tokio::spawn(async move { host.call(next).await });
    within(60, "its chunks are kept on the disk", || on_disk(rig.folder.path()) > 0).await;
    drop(running);
    within(60, "the worker stops", || rig.open().join("stopped").exists()).await;
    assert_eq!(next.await.unwrap().unwrap().output.value(), "last");
    assert_eq!(rig.host.pods().len(), 1, "by themselves: no pod was killed");
    within(60, "nothing is left on the disk", || on_disk(rig.folder.path()) == 0).await;
    rig.close().await;
}

/// A file system in memory, gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Option<Disk> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256m,mode=755", "none"]).arg(&at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Disk(at))
    }

    /// Leaves room for this many bytes.
    fn leave(&self, bytes: u64) {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        let size = (space.f_blocks - space.f_bfree) * space.f_frsize + bytes;
        let resized = Command::new("mount").arg("-o").arg(format!("remount,size={size}")).arg(&self.0).status().unwrap();
        assert!(resized.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_deaf_readers_call_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path().join("home")) else {
        return println!("skipped: a tmpfs cannot be mounted here");
    };
    let host = host_at(folder.path()).await;
    let rig = Rig { folder, host };
    let recipe = streams(&rig, "full");
    rig.host.call(call(&recipe, json!("first"))).await.unwrap();
    disk.leave(8 << 20);
    let mut running = rig.host.start(call(&recipe, json!([u32::MAX, 100_000, ""])));
    within(60, "the stream begins", || count(&rig) > 0).await;
    assert_eq!(rig.host.call(call(&recipe, json!("next"))).await.unwrap().output.value(), "next");
    let mut read = 0;
    while let Some(event) = running.next().await {
        read += 1;
        assert!(matches!(event, Event::Chunk { data, .. } if data["n"] == read), "chunk {read}");
    }
    let fault = running.outcome().await.unwrap_err();
    assert!(fault.code == Code::DiskFull && fault.message.contains("the chunks that a caller has not taken"), "{fault}");
    assert!((160..400).contains(&read), "{read} chunks of 100 kB in memory and in 8 MiB");
    assert_eq!(rig.host.pods().len(), 1, "the pod goes on");
    // With room again, the next deaf reader loses nothing.
    within(60, "the space is given back", || on_disk(rig.folder.path()) == 0).await;
    disk.leave(64 << 20);
    let running = rig.host.start(call(&recipe, json!([400, 100_000, ""])));
    within(60, "the stream begins", || count(&rig) < 100).await;
    assert_eq!(rig.host.call(call(&recipe, json!("last"))).await.unwrap().output.value(), "last");
    hear(running, 400, 100_000, "").await;
    rig.close().await;
}

/// The pod does not count its credit: it is not read while its chunks find no room.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_credit_is_held_by_a_deaf_reader_from_nobody_either() {
    let rig = Rig::new().await;
    let recipe = rig.hostile_with("without_credit.py", "max = 1", "streaming = true");
    const CHUNKS: u64 = 400;
    let mut running = rig.host.start(call(&recipe, json!({ "chunks": CHUNKS, "bytes": 100_000 })));
    within(60, "the stream begins", || rig.fired("without_credit.py").is_some()).await;
    let next = rig.host.call(call(&recipe, json!({ "chunks": 0 }))).await.unwrap();
    assert_eq!(next.output.value(), &json!({ "sent": 0 }));
    assert!(on_disk(rig.folder.path()) > 16 << 20, "{} bytes on the disk", on_disk(rig.folder.path()));
    for wanted in 0..CHUNKS {
        let Some(Event::Chunk { data, .. }) = running.next().await else { panic!("chunk {wanted} is missing") };
        assert_eq!((&data["n"], data["pad"].as_str().map(str::len)), (&json!(wanted), Some(100_000)));
    }
    assert_eq!(running.outcome().await.unwrap().output.value(), &json!({ "sent": CHUNKS }));
    rig.close().await;
}

/// Two calls share a session, and so its one pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_reader_in_a_session_holds_it_from_nobody_who_shares_it() {
    let rig = Rig::new().await;
    let session = "session = { mode = \"shared\" }";
    let recipe = rig.pool("shared", &source(&rig.open()), session, "session = true\nstreaming = true");
    let in_session = |input| call(&recipe, input).in_session("a");
    let running = rig.host.start(in_session(json!([400, 100_000, ""])));
    within(60, "the stream begins", || count(&rig) > 0).await;
    assert_eq!(rig.host.call(in_session(json!("next"))).await.unwrap().output.value(), "next");
    assert!(on_disk(rig.folder.path()) > 16 << 20, "{} bytes on the disk", on_disk(rig.folder.path()));
    hear(running, 400, 100_000, "").await;
    rig.close().await;
}
