//! Callers that read their stream slowly or not at all, while others wait for the only pod.
//!
//! Apart from `blobs.rs`, where nobody else waits: there a slow caller holds its producer back.

use hob::model::{Code, Event};
use serde_json::json;

use crate::support::{Rig, call, within};

/// Yields as many chunks as asked, of that size, each with a blob if asked, and says how far it came. Anything but such a list it gives back.
const STREAMS: &str = "
import os, hob_pod
class Subject:
    def run(self, input):
        return self.stream(*input) if isinstance(input, list) else input
    def stream(self, count, size, blobs):
        n = 0
        try:
            while n < count:
                n += 1
                with open(os.path.join(OPEN, 'count'), 'w') as file:
                    file.write(str(n))
                chunk = {'n': n, 'pad': 'x' * size}
                yield (chunk, {'b': hob_pod.Blob(n.to_bytes(4, 'big') * (1 << 18 if n % 100 == 0 else 50), 'x/y')}) if blobs else chunk
        finally:
            with open(os.path.join(OPEN, 'stopped'), 'w') as file:
                file.write(str(n))
        return 'end'
";

fn count(rig: &Rig) -> u64 {
    std::fs::read_to_string(rig.open().join("count")).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn streams(rig: &Rig, name: &str) -> std::path::PathBuf {
    let source = format!("OPEN = {:?}\n{STREAMS}", rig.open().display().to_string());
    rig.pool(name, &source, "max = 1", "streaming = true")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_reader_holds_the_only_pod_from_nobody_and_loses_nothing() {
    let rig = Rig::new().await;
    let recipe = streams(&rig, "heard");
    const CHUNKS: u64 = 700;
    for blobs in [false, true] {
        let mut running = rig.host.start(call(&recipe, json!([CHUNKS, 10_000, blobs])));
        within(20, "the stream begins", || count(&rig) >= 40).await;
        assert!(count(&rig) < 300, "{} chunks while nobody waits", count(&rig));
        let outcome = rig.host.call(call(&recipe, json!("next"))).await.unwrap();
        assert_eq!((outcome.output.value(), count(&rig), rig.host.pods().len()), (&json!("next"), CHUNKS, 1));
        // Nobody has read a chunk so far.
        for wanted in 1..=CHUNKS {
            let Some(Event::Chunk { data, blobs: found }) = running.next().await else { panic!("chunk {wanted} is missing") };
            assert_eq!((&data["n"], data["pad"].as_str().map(str::len)), (&json!(wanted), Some(10_000)));
            let bytes = (wanted as u32).to_be_bytes().repeat(if wanted % 100 == 0 { 1 << 18 } else { 50 });
            assert_eq!(found.len(), usize::from(blobs));
            assert!(found.iter().all(|blob| blob.bytes(u64::MAX).unwrap() == bytes[..]), "the blob of chunk {wanted}");
        }
        assert!(running.next().await.is_none());
        assert_eq!(running.outcome().await.unwrap().output.value(), "end");
        std::fs::remove_file(rig.open().join("count")).unwrap();
    }
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_reader_of_too_much_ends_alone_when_others_wait() {
    let rig = Rig::new().await;
    let recipe = streams(&rig, "unheard");
    let mut running = rig.host.start(call(&recipe, json!([u32::MAX, 100_000, false])));
    within(20, "the stream begins", || count(&rig) > 0).await;
    let outcome = rig.host.call(call(&recipe, json!("next"))).await.unwrap();
    assert_eq!(outcome.output.value(), "next");
    assert!(count(&rig) < 400, "{} chunks of 100 kB", count(&rig));
    let mut read = 0;
    while let Some(event) = running.next().await {
        read += 1;
        assert!(matches!(event, Event::Chunk { data, .. } if data["n"] == read), "chunk {read}");
    }
    let fault = running.outcome().await.unwrap_err();
    assert!(fault.code == Code::Unread && fault.message.contains("others wait for its pod"), "{fault}");
    // One whose caller goes away leaves the pod to others as well.
    let running = rig.host.start(call(&recipe, json!([u32::MAX, 100, false])));
    std::fs::remove_file(rig.open().join("stopped")).unwrap();
    within(20, "the stream begins again", || count(&rig) < 100).await;
    let (host, next) = (rig.host.clone(), call(&recipe, json!("last")));
    let next = tokio::spawn(async move { host.call(next).await });
    within(20, "its chunks are kept", || count(&rig) > 500).await;
    drop(running);
    within(5, "the worker stops", || rig.open().join("stopped").exists()).await;
    assert_eq!(next.await.unwrap().unwrap().output.value(), "last");
    assert_eq!(rig.host.pods().len(), 1, "by themselves: no pod was killed");
    rig.close().await;
}
