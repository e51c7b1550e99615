//! Models that are loaded and unloaded: real pods on a simulated machine, so that each test chooses the
//! memory and the GPUs.

mod gpu;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hob::{
    host::{Config, Host},
    model::{
        Call, Code, Home, Priority,
        status::machine::{Gpu, GpuKind, ResidencyChange, ResidencyEvent, ResidentState},
    },
    pod::Machine,
};
use serde_json::{Value, json};

use crate::support::{Rig, call, inner_number, is_running, within};

const GB: u64 = 1 << 30;

/// A machine of numbers. It does not say how much of its GPUs a process holds.
struct MadeUp {
    memory: u64,
    gpus: usize,
    /// Counts the queries of its GPUs: each query finds another amount in use.
    looks: AtomicU64,
}

impl Machine for MadeUp {
    fn memory_bytes(&self) -> u64 {
        self.memory
    }

    fn gpus(&self) -> Vec<Gpu> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let gpu = |at: usize| {
            let mut gpu = Gpu::new(format!("GPU-{at}"), "Made up", GpuKind::Nvidia, 10 * GB);
            gpu.used_bytes = looks;
            gpu
        };
        (0..self.gpus).map(gpu).collect()
    }

    fn gpu_bytes_of(&self, _: u32, _: &Gpu) -> Option<u64> {
        None
    }
}

/// A host on such a machine; `machine` has the lines of `[machine]` in its `hob.toml`.
async fn rig(memory: u64, gpus: usize, machine: &str) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("home")).unwrap();
    std::fs::write(folder.path().join("home/hob.toml"), format!("[machine]\n{machine}\n")).unwrap();
    let host = host_on(folder.path(), memory, gpus).await;
    Rig { folder, host }
}

async fn host_on(folder: &Path, memory: u64, gpus: usize) -> Host {
    let config = Config::new(Home::at(folder.join("home"))).with_hob(env!("CARGO_BIN_EXE_hob")).with_machine(Arc::new(MadeUp {
        memory,
        gpus,
        looks: AtomicU64::new(0),
    }));
    Host::open(config).await.unwrap()
}

/// Holds MEGABYTES once it is loaded, and unloads as UNLOAD says. Works for `ms`, and returns its pid, its
/// loads and its GPU.
const MODEL: &str = r#"
import os, time
import hob_pod

class Subject:
    loads = 0

    def load(self, models):
        open_folder = "OPEN"
        while os.path.exists(os.path.join(open_folder, "hold-NAME")):
            open(os.path.join(open_folder, "loading-NAME"), "w").close()
            time.sleep(0.01)
        self.data = bytearray(os.urandom(1)) * (MEGABYTES << 20)
        self.loads += 1

    UNLOAD

    def run(self, input):
        time.sleep(input.get("ms", 0) / 1000)
        assert len(self.data) == MEGABYTES << 20
        return {"pid": os.getpid(), "loads": self.loads, "gpu": hob_pod.gpu(), "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
"#;

const UNLOADS: &str = "def unload(self):\n        self.data = None";

/// A recipe of that class, with the lines of `[pod.residency]`.
fn model(rig: &Rig, name: &str, megabytes: u64, unload: &str, residency: &str) -> PathBuf {
    let open = rig.open().display().to_string();
    let source = MODEL.replace("OPEN", &open).replace("NAME", name).replace("MEGABYTES", &megabytes.to_string());
    rig.pool(name, &source.replace("UNLOAD", unload), &format!("residency = {{ {residency} }}"), "deadline_ms = 60000")
}

async fn who(rig: &Rig, recipe: &Path) -> Value {
    rig.run(recipe, json!({})).await.unwrap().output.into_value()
}

fn with(recipe: &Path, priority: Priority, ms: u64) -> Call {
    call(recipe, json!({ "ms": ms })).with_priority(priority)
}

/// The loaded models, as `hob status` shows them.
fn loaded(rig: &Rig) -> Vec<String> {
    let residents = rig.host.status().machine.residents;
    residents.into_iter().filter(|resident| resident.state == ResidentState::Loaded).map(|resident| resident.recipe).collect()
}

fn of(events: &[ResidencyEvent], what: ResidencyChange) -> Vec<&str> {
    events.iter().filter(|event| event.what == what).map(|event| &*event.recipe).collect()
}

/// Asserts from the journal of residency that never two pods held memory at once, from `Loading` until
/// `Gone`.
fn never_two_at_once(events: &[ResidencyEvent]) {
    let mut there: BTreeMap<&str, &str> = BTreeMap::new();
    for event in events {
        match event.what {
            ResidencyChange::Loading => {
                assert!(there.is_empty(), "{} came while there was {there:?}: {events:#?}", event.recipe);
                there.insert(&event.incarnation, &event.recipe);
            }
            ResidencyChange::Gone => assert!(there.remove(&*event.incarnation).is_some(), "{event:?} was not there"),
            _ => assert!(there.contains_key(&*event.incarnation), "{event:?}"),
        }
    }
}

#[tokio::test]
async fn two_recipes_on_one_device_take_turns_interactive_first_and_bulk_goes_on_by_itself() {
    let rig = rig(8 * GB, 1, "exclusive_gpus = true").await;
    let bulk = model(&rig, "bulk", 20, UNLOADS, "gpu_bytes = 1073741824");
    let interactive = model(&rig, "interactive", 20, "pass", "gpu_bytes = 1073741824");

    // Forty bulk calls wait at once; now and then comes an interactive one.
    let mut works = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (host, call) = (rig.host.clone(), with(&bulk, Priority::Bulk, 100));
        works.spawn(async move { host.call(call).await.unwrap().output.into_value() });
    }
    within(60, "the bulk work is at work", || rig.host.status().pools.iter().any(|pool| pool.asks_done >= 3)).await;
    let mut left_behind = Vec::new();
    for _ in 0..3 {
        let done_before = done(&rig, "test/bulk");
        let answer = rig.host.call(with(&interactive, Priority::Interactive, 10)).await.unwrap().output.into_value();
        assert_eq!((&answer["gpu"], &answer["visible"]), (&json!("GPU-0"), &json!("GPU-0")), "it is told which device is its own");
        let done_after = done(&rig, "test/bulk");
        assert!(done_after < 40, "somebody who waits is not served after all the bulk work");
        left_behind.push(done_after - done_before);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let answers: Vec<Value> = works.join_all().await;
    assert_eq!(answers.len(), 40, "what was paused goes on by itself, and nothing is lost");
    let pids: std::collections::BTreeSet<u64> = answers.iter().map(|answer| answer["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids.len(), 1, "it unloads and loads in the same process");

    let events = rig.host.residency_events();
    never_two_at_once(&events);
    // At most the ask in hand was finished before the interactive call had its turn. At first its process had
    // to be started too, which takes as long as the machine takes.
    assert!(left_behind[1..].iter().all(|asks| *asks <= 2), "{left_behind:?}");
    let loads = of(&events, ResidencyChange::Loaded);
    let (bulk_loads, interactive_loads) = (loads.iter().filter(|name| **name == "test/bulk").count(), loads.len());
    // Bulk loads at most three times: at the start, and once after each turn of the other. Not once for each
    // ask.
    assert!((2..=4).contains(&bulk_loads) && interactive_loads <= 8, "{loads:?}");
    let asked = events.iter().find(|event| event.what == ResidencyChange::Leaving).unwrap();
    assert_eq!((&*asked.recipe, asked.wanted_by.as_deref()), ("test/bulk", Some("test/interactive")));
    rig.close().await;
}

#[tokio::test]
async fn two_rows_of_ordinary_calls_take_turns_and_not_a_load_for_each_ask() {
    let rig = rig(8 * GB, 1, "exclusive_gpus = true").await;
    // One pod stays and unloads, the other can only end.
    let recipes = [("stays", UNLOADS), ("goes", "pass")].map(|(name, unload)| model(&rig, name, 5, unload, "gpu_bytes = 1073741824"));
    let begun = std::time::Instant::now();
    let rows = recipes.map(|recipe| {
        let host = rig.host.clone();
        tokio::spawn(async move {
            for _ in 0..60 {
                host.call(with(&recipe, Priority::Normal, 30)).await.unwrap();
            }
        })
    });
    for row in rows {
        row.await.unwrap();
    }
    let events = rig.host.residency_events();
    never_two_at_once(&events);
    let loads = of(&events, ResidencyChange::Loaded).len();
    // A turn lasts at least the hold of one second.
    let turns = begun.elapsed().as_secs() as usize + 2;
    assert!(loads <= turns && loads >= 2, "{loads} loads in {turns} turns");
    rig.close().await;
}

/// The waiting call is for another recipe, and the stream's own pool needs no further pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_reader_keeps_the_place_of_its_pod_from_no_other_recipe() {
    let rig = rig(8 * GB, 1, "exclusive_gpus = true").await;
    let source =
        "class Subject:\n    def run(self, input):\n        for n in range(input):\n            yield {'n': n, 'pad': 'x' * 100_000}\n";
    let deaf = rig.pool("deaf", source, "residency = { gpu_bytes = 1073741824 }", "streaming = true\ndeadline_ms = 60000");
    let other = model(&rig, "other", 5, UNLOADS, "gpu_bytes = 1073741824");
    let mut running = rig.host.start(call(&deaf, json!(300)));
    within(60, "the stream is at work", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    assert_eq!(who(&rig, &other).await["loads"], json!(1));
    for wanted in 0..300 {
        let Some(hob::model::Event::Chunk { data, .. }) = running.next().await else { panic!("chunk {wanted} is missing") };
        assert_eq!(data["n"], wanted);
    }
    running.outcome().await.unwrap();
    never_two_at_once(&rig.host.residency_events());
    rig.close().await;
}

#[tokio::test]
async fn whoever_waits_for_a_place_in_vain_takes_it_from_nobody() {
    let rig = rig(8 * GB, 1, "exclusive_gpus = true").await;
    let bulk = model(&rig, "bulk", 5, UNLOADS, "gpu_bytes = 1073741824");
    let other = model(&rig, "other", 5, UNLOADS, "gpu_bytes = 1073741824");
    let running = rig.host.start(with(&bulk, Priority::Bulk, 4_000));
    within(60, "the bulk work is at work", || loaded(&rig) == ["test/bulk"]).await;
    // Its caller does not wait for the end of the ask.
    let late = with(&other, Priority::Interactive, 0).with_deadline(std::time::Duration::from_millis(1_500));
    assert_eq!(rig.host.call(late).await.unwrap_err().code, Code::Deadline);
    running.outcome().await.unwrap();
    assert_eq!(who(&rig, &bulk).await["loads"], json!(2), "it had been asked to go, which is not taken back");
    assert!(!of(&rig.host.residency_events(), ResidencyChange::Loaded).contains(&"test/other"), "nobody had work for it");
    rig.close().await;
}

/// Makes a call in a task of its own.
fn spawned(rig: &Rig, call: Call) -> tokio::task::JoinHandle<Result<hob::model::Outcome, hob::model::Fault>> {
    let host = rig.host.clone();
    tokio::spawn(async move { host.call(call).await })
}

#[tokio::test]
async fn what_waits_behind_bulk_work_of_its_own_recipe_keeps_the_place_against_others() {
    let rig = rig(8 * GB, 1, "exclusive_gpus = true").await;
    let [mixed, other] = ["mixed", "other"].map(|name| model(&rig, name, 5, UNLOADS, "gpu_bytes = 1073741824"));
    // Longer than a model's hold: from then on a call of a higher class gets the memory at the next end of an
    // ask.
    let bulk = spawned(&rig, with(&mixed, Priority::Bulk, 3_000));
    within(60, "the bulk work is at work", || rig.host.pods().iter().any(|pod| pod.in_hand == 1)).await;
    let interactive = spawned(&rig, with(&mixed, Priority::Interactive, 10));
    within(60, "it waits", || rig.host.status().pools.iter().any(|pool| pool.waiting.interactive == 1)).await;
    let normal = spawned(&rig, with(&other, Priority::Normal, 10));
    within(60, "the other waits for the place", || !rig.host.status().machine.waiting.is_empty()).await;
    assert!(!bulk.is_finished(), "all wait for the bulk work");
    let answer = interactive.await.unwrap().unwrap().output.into_value();
    assert_eq!(
        answer["loads"],
        1,
        "somebody at a screen does not wait until the model went and came back: {:#?}",
        rig.host.residency_events()
    );
    bulk.await.unwrap().unwrap();
    normal.await.unwrap().unwrap();
    let loads = rig.host.residency_events();
    assert_eq!(of(&loads, ResidencyChange::Loaded), ["test/mixed", "test/other"]);
    rig.close().await;
}

fn done(rig: &Rig, recipe: &str) -> u64 {
    rig.host.status().pools.iter().filter(|pool| pool.recipe == recipe).map(|pool| pool.asks_done).sum()
}

#[tokio::test]
async fn the_least_recently_used_goes_pinned_ones_stay_and_others_answer_meanwhile() {
    let rig = rig(8 * GB, 0, "memory_bytes = 420000000\npinned = [\"test/pinned\"]").await;
    let names = ["pinned", "old", "newer", "large"];
    let recipes = names.map(|name| model(&rig, name, 60, UNLOADS, "memory_bytes = 100000000"));
    let [pinned, old, newer, large] = &recipes;
    for recipe in [pinned, newer, old] {
        who(&rig, recipe).await;
    }
    // `newer` is used again, so `old` is now the least recently used.
    who(&rig, newer).await;
    assert_eq!(loaded(&rig), ["test/pinned", "test/newer", "test/old"]);

    // Four models fit into the budget as measured, but not as declared below: this one has to wait until one
    // is unloaded.
    let text = std::fs::read_to_string(large.join("recipe.toml")).unwrap();
    std::fs::write(large.join("recipe.toml"), text.replace("100000000", "220000000")).unwrap();
    std::fs::write(rig.open().join("hold-large"), "").unwrap();
    let (host, loading) = (rig.host.clone(), call(large, json!({})));
    let waits = tokio::spawn(async move { host.call(loading).await });
    let at_it = rig.open().join("loading-large");
    within(60, "it loads", || at_it.exists()).await;
    assert_eq!(loaded(&rig), ["test/pinned", "test/newer"], "the least recently used had to go, and no more than that");
    let status = rig.host.status().machine;
    assert!(status.residents.iter().any(|resident| resident.recipe == "test/large" && resident.state == ResidentState::Loading));
    assert!(status.memory_claimed_bytes <= status.memory_budget_bytes && status.memory_budget_bytes == 420_000_000, "{status:?}");

    // While this model loads, the loaded ones answer; the loading does not end before the test says so.
    for recipe in [pinned, newer, pinned] {
        assert_eq!(who(&rig, recipe).await["loads"], 1);
    }
    assert!(!waits.is_finished());
    std::fs::remove_file(rig.open().join("hold-large")).unwrap();
    waits.await.unwrap().unwrap();

    // And back: `newer` was used after `large`, which was measured to be smaller than declared.
    who(&rig, newer).await;
    assert_eq!(who(&rig, old).await["loads"], 2, "the process stayed, its model did not");
    assert_eq!(who(&rig, pinned).await["loads"], 1, "pinned ones are never asked to go");
    let events = rig.host.residency_events();
    let leaving = of(&events, ResidencyChange::Leaving);
    assert_eq!(leaving[0], "test/old");
    assert!(!leaving.contains(&"test/pinned"), "{leaving:?}");
    rig.close().await;
}

#[tokio::test]
async fn memory_that_does_not_come_back_comes_back_with_the_end_of_its_pod() {
    let rig = rig(8 * GB, 0, "exclusive = { one = [\"test/honest\", \"test/keeps\", \"test/without\"] }").await;
    let honest = model(&rig, "honest", 100, UNLOADS, "memory_bytes = 100000000");
    let keeps = model(&rig, "keeps", 100, "def unload(self):\n        pass", "memory_bytes = 100000000");
    let without = model(&rig, "without", 100, "pass", "memory_bytes = 100000000");
    let pid = |answer: Value| answer["pid"].as_u64().unwrap() as u32;
    let first = [pid(who(&rig, &honest).await), pid(who(&rig, &keeps).await), pid(who(&rig, &without).await)];
    assert!(is_running(first[0]), "it unloaded and stays");
    let held = rig.host.pods().into_iter().find(|pod| pod.recipe == "test/honest").unwrap();
    assert!(held.state == "empty" && held.memory_bytes.unwrap() < 64 << 20, "{held:?}");
    within(60, "the one that kept its memory is gone", || !is_running(first[1])).await;

    let second = who(&rig, &honest).await;
    assert_eq!((second["loads"].as_u64(), pid(second)), (Some(2), first[0]));
    within(60, "one that cannot unload went", || !is_running(first[2])).await;
    assert_ne!(pid(who(&rig, &keeps).await), first[1]);
    never_two_at_once(&rig.host.residency_events());
    let status = rig.host.status();
    assert!(status.pools.iter().all(|pool| pool.crashes == 0), "none of them failed: {status:?}");
    rig.close().await;
}

#[tokio::test]
async fn without_work_a_model_stays_for_as_long_as_its_recipe_says() {
    let rig = rig(8 * GB, 0, "").await;
    let at_once = model(&rig, "at-once", 100, UNLOADS, "keep_alive_ms = 0");
    let soon = model(&rig, "soon", 100, "pass", "keep_alive_ms = 300");
    let stays = model(&rig, "stays", 10, UNLOADS, "");
    who(&rig, &stays).await;
    let pid = who(&rig, &at_once).await["pid"].as_u64().unwrap() as u32;
    within(60, "it unloads at once", || {
        rig.host.pods().iter().any(|pod| pod.pid.and_then(inner_number) == Some(pid) && pod.state == "empty")
    })
    .await;
    assert_eq!(who(&rig, &at_once).await["loads"], 2);
    let pid = who(&rig, &soon).await["pid"].as_u64().unwrap() as u32;
    within(60, "one that cannot unload goes", || !is_running(pid)).await;
    assert_eq!(who(&rig, &stays).await["loads"], 1);
    rig.close().await;
}

#[tokio::test]
async fn what_can_never_be_had_is_said_with_its_numbers() {
    let rig = rig(8 * GB, 1, "memory_bytes = 1000000000\npinned = [\"test/pinned\"]").await;
    who(&rig, &model(&rig, "pinned", 100, "pass", "")).await;
    for (name, residency, says) in [
        ("huge", "memory_bytes = 2000000000", "take 2000000000 bytes of memory; all pods together may have 1000000000"),
        ("wide", "gpu_bytes = 10737418240", "take 10737418240 bytes on a GPU; the largest of this machine has 9663676"),
    ] {
        let recipe = model(&rig, name, 1, UNLOADS, residency);
        let fault = rig.run(&recipe, json!({})).await.unwrap_err();
        assert!(fault.code == Code::OutOfMemory && fault.message.contains(says), "{fault}");
    }
    rig.close().await;
    let rig = self::rig(8 * GB, 0, "").await;
    let fault = rig.run(&model(&rig, "lost", 1, "pass", "gpu_bytes = 1048576"), json!({})).await.unwrap_err();
    assert!(fault.code == Code::OutOfMemory && fault.message.contains("want a GPU, and this machine has none"), "{fault}");
    rig.close().await;
}

/// A claim that can never fit refuses asks, and starts no pods: it is not tried again and again, however many
/// pods are to be kept ready.
#[tokio::test]
async fn a_place_that_can_never_be_had_starts_no_pods_for_ever_and_hangs_no_call() {
    let rig = rig(8 * GB, 0, "memory_bytes = 1000000000").await;
    for min in [1, 2] {
        let name = format!("never{min}");
        let starts = rig.open().join(format!("starts-{min}"));
        let source = format!(
            "open({:?}, 'a').write('x')\nclass Subject:\n    def run(self, input):\n        return input\n",
            starts.display().to_string()
        );
        let pod = format!("min = {min}\nmax = {min}\nresidency = {{ memory_bytes = 2000000000 }}");
        let recipe = rig.pool(&name, &source, &pod, "deadline_ms = 30000");
        // First all calls at once, then one after the other.
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (host, call) = (rig.host.clone(), call(&recipe, json!({})));
            calls.spawn(async move { host.call(call).await });
        }
        let mut ends = calls.join_all().await;
        for _ in 0..20 {
            ends.push(rig.run(&recipe, json!({})).await);
        }
        for end in ends {
            let fault = end.unwrap_err();
            assert!(fault.code == Code::OutOfMemory && fault.message.contains("take 2000000000 bytes"), "{fault}");
        }
        let count = std::fs::read_to_string(&starts).unwrap_or_default().len();
        assert!((1..=4).contains(&count), "{count} pods were started for 24 calls");
        let pools = rig.host.status().pools;
        let pool = pools.iter().find(|pool| pool.recipe == format!("test/{name}")).unwrap();
        assert_eq!(pool.health, hob::model::status::Health::Quarantined, "{pool:?}");
        assert_eq!(pool.last_fault.as_ref().map(|fault| fault.code), Some(Code::OutOfMemory));
    }
    rig.close().await;
}

#[tokio::test]
async fn what_was_measured_counts_for_the_next_host() {
    let rig = rig(8 * GB, 0, "").await;
    let recipe = model(&rig, "measured", 150, "pass", "memory_bytes = 5000000000");
    who(&rig, &recipe).await;
    let claimed = |host: &Host| host.status().machine.memory_claimed_bytes;
    let first = claimed(&rig.host);
    assert!((150 << 20..300 << 20).contains(&first), "{first}");
    rig.host.shutdown().await;
    // As declared it would not fit; it is loaded by its measured size.
    let host = host_on(rig.folder.path(), GB, 0).await;
    host.call(call(&recipe, json!({}))).await.unwrap();
    host.shutdown().await;
    // It is not refused for having taken more than pods may have, because it ran.
    std::fs::write(rig.folder.path().join("home/hob.toml"), {
        let text = std::fs::read_to_string(rig.folder.path().join("home/hob.toml")).unwrap();
        text.replace("[machine]\n", "[machine]\nmemory_bytes = 100000000\n")
    })
    .unwrap();
    let host = host_on(rig.folder.path(), GB, 0).await;
    host.call(call(&recipe, json!({}))).await.unwrap();
    host.shutdown().await;
    // If the file cannot be read, only the measured sizes are lost.
    let file = rig.folder.path().join("home/state/footprints.json");
    assert!(std::fs::read_to_string(&file).unwrap().contains("memory_bytes"));
    std::fs::write(&file, "{").unwrap();
    let host = host_on(rig.folder.path(), GB, 0).await;
    let fault = host.call(call(&recipe, json!({}))).await.unwrap_err();
    assert_eq!(fault.code, Code::OutOfMemory, "{fault}");
    host.shutdown().await;
}

#[tokio::test]
async fn an_unload_that_fails_or_hangs_costs_its_pod_and_no_call() {
    let rig = rig(8 * GB, 0, "exclusive = { one = [\"test/raises\", \"test/hangs\", \"test/other\"] }").await;
    let raises = model(&rig, "raises", 1, "def unload(self):\n        raise RuntimeError(\"no\")", "");
    let hangs = model(&rig, "hangs", 1, "def unload(self):\n        open(\"OPEN/hangs\", \"w\").close()\n        time.sleep(60)", "");
    let source = std::fs::read_to_string(hangs.join("pod/subject.py")).unwrap();
    std::fs::write(hangs.join("pod/subject.py"), source.replace("OPEN", &rig.open().display().to_string())).unwrap();
    let other = model(&rig, "other", 1, UNLOADS, "");
    let pid = who(&rig, &raises).await["pid"].as_u64().unwrap() as u32;
    who(&rig, &other).await;
    assert!(!is_running(pid));
    // The slot is free before the dossier is on the disk.
    within(60, "its author is told", || rig.host.dossiers().iter().any(|dossier| dossier.recipe == "test/raises")).await;
    let pid = who(&rig, &hangs).await["pid"].as_u64().unwrap() as u32;
    who(&rig, &other).await;
    assert!(!is_running(pid) && rig.open().join("hangs").exists(), "it hung, and was ended");
    assert!(who(&rig, &raises).await["pid"].is_u64(), "it is called again as if nothing had been");
    never_two_at_once(&rig.host.residency_events());
    rig.close().await;
}
