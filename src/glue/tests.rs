//! Tests of glue, correct and faulty, each through the functions that `host` uses.
//!
//! They are inside the crate because only `shelf` may make a [`Verified`], and these guests come from no
//! shelf. Each guest is a core module in `tests/guests`, made a component here as `hob build` does it. All
//! tests share one [`Glue`], and a call of another component on it follows every faulty guest.

use std::{
    collections::HashSet,
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::*;
use crate::{
    glue::pods::{Ask, AskEvent, BoxFuture, Crossings, Pods},
    model::{Blame, Call, Event, Manifest, Origin, verified::Models},
};

const WIT: &str = include_str!("../../wit/glue.wit");

/// A world with another `run`.
const OTHER_RUN: &str = "package hob:glue@0.1.0; world glue { export run: func() -> result<u8>; }";

macro_rules! guest {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/", $name, ".wat"))
    };
}

// After the macro, which they use.
mod caps;
mod wasi;

/// Compiles in this process, which hosts never do, and counts.
#[derive(Default)]
struct Here(AtomicUsize);

impl Compiler for Here {
    fn compile<'a>(&'a self, job: Job<'a>) -> BoxFuture<'a, Result<Compiled, Fault>> {
        self.0.fetch_add(1, SeqCst);
        Box::pin(async move { compile_here(job) })
    }
}

impl Glue {
    /// For tests that are not async.
    fn compile_here(&self, recipe: &Arc<Verified>) -> Result<Prepared, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (glue, recipe) = (Glue(self.0.clone()), recipe.clone());
        // On a thread of its own, because an async test may already run here.
        std::thread::spawn(move || runtime.block_on(glue.compile(&recipe))).join().unwrap()
    }
}

/// One engine for all tests: damage by one guest shows in another test.
fn glue() -> &'static Glue {
    static GLUE: OnceLock<(Glue, tempfile::TempDir)> = OnceLock::new();
    &GLUE
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            (Glue::open(folder.path(), Arc::<Here>::default()).unwrap(), folder)
        })
        .0
}

fn component(wat: &str, wit: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("glue.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("glue")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

fn recipe_of(glue: Vec<u8>, world: &str) -> Arc<Verified> {
    let operation = |name: &str, streaming| {
        format!("[operations.{name}]\nsummary = \"x\"\ninput = true_\noutput = true_\nstreaming = {streaming}\n")
            .replace("true_", "{ title = \"anything\" }")
    };
    let manifest = format!(
        "name = \"test/guest\"\nversion = \"1.2.3\"\nlicense = \"Apache-2.0\"\nsummary = \"x\"\nhob = \"0.1\"\n[glue]\nworld = \"{world}\"\n{}",
        ["plain", "tampered", "invalid_input", "internal"].map(|name| operation(name, false)).join("") + &operation("stream", true)
    );
    let digest = Digest::of(&glue);
    let manifest = Arc::new(Manifest::parse(&manifest, "recipe.toml").unwrap());
    let origin = Origin::Unsigned { folder: "guest".into() };
    Arc::new(Verified::attest(manifest, "guest".into(), Some(glue.into()), Models::default(), digest, origin))
}

fn recipe(wat: &str) -> Arc<Verified> {
    recipe_of(component(wat, WIT), "0.1")
}

/// Pods that answer every ask with the same events, each after the same wait, and count the live asks.
struct Script {
    events: Vec<Result<AskEvent, Fault>>,
    wait: Duration,
    alive: Arc<AtomicUsize>,
    seen: std::sync::Mutex<Vec<(String, Value)>>,
}

struct ScriptedAsk {
    events: VecDeque<Result<AskEvent, Fault>>,
    wait: Duration,
    alive: Arc<AtomicUsize>,
}

impl Drop for ScriptedAsk {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
    }
}

impl Ask for ScriptedAsk {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<AskEvent>, Fault>> {
        Box::pin(async {
            sleep(self.wait).await;
            self.events.pop_front().transpose()
        })
    }
}

impl Pods for Script {
    fn start<'a>(&'a self, operation: &'a str, arguments: Document, _blobs: Vec<Blob>) -> BoxFuture<'a, Result<Box<dyn Ask>, Fault>> {
        Box::pin(async move {
            self.alive.fetch_add(1, SeqCst);
            self.seen.lock().unwrap().push((operation.to_owned(), arguments.into_value()));
            let ask: Box<dyn Ask> =
                Box::new(ScriptedAsk { events: self.events.clone().into(), wait: self.wait, alive: self.alive.clone() });
            Ok(ask)
        })
    }
}

fn script(wait_ms: u64, events: Vec<Result<AskEvent, Fault>>) -> Arc<Script> {
    Arc::new(Script { events, wait: Duration::from_millis(wait_ms), alive: Arc::default(), seen: Default::default() })
}

fn answer(data: Value) -> Result<AskEvent, Fault> {
    Ok(AskEvent::Answer { data: Document::from(data), blobs: Vec::new() })
}

fn chunk(data: Value) -> Result<AskEvent, Fault> {
    Ok(AskEvent::Chunk { data: Document::from(data), blobs: Vec::new() })
}

fn admit(recipe: &Arc<Verified>, operation: &str, blobs: Vec<Blob>) -> Admitted {
    let call = Call { blobs, ..Call::new("test/guest", operation, json!({"text": "hi"})).unwrap() };
    Admitted::admit(recipe.clone(), call).unwrap()
}

fn soon(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Runs one call with a caller that reads every event.
async fn run_on(glue: &Glue, recipe: &Arc<Verified>, operation: &str, pods: Arc<Script>) -> (Result<Response, Fault>, Vec<Event>) {
    let (sender, mut receiver) = events::channel(limits::CALL_EVENTS_BYTES_MAX);
    let reader = tokio::spawn(async move {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        events
    });
    let prepared = glue.compile_here(recipe).unwrap();
    let result = prepared.run(&admit(recipe, operation, Vec::new()), pods, sender, soon(20_000)).await;
    (result, reader.await.unwrap())
}

async fn run(wat: &str, operation: &str, pods: Arc<Script>) -> (Result<Response, Fault>, Vec<Event>) {
    run_on(glue(), &recipe(wat), operation, pods).await
}

/// Checks that a call of another component still works.
async fn siblings_are_well(glue: &Glue) {
    let (result, _) = run_on(glue, &recipe(guest!("pass")), "plain", script(0, vec![answer(json!({"n": 1}))])).await;
    assert_eq!(result.unwrap().output.value(), &json!({"n": 1}));
}

/// Runs a guest that must fail with `code`, and with `words` where a user looks.
async fn fails(wat: &str, operation: &str, code: Code, words: &str) -> Fault {
    let pods = script(0, vec![answer(json!(1))]);
    let (result, _) = run(wat, operation, pods.clone()).await;
    let fault = result.expect_err(words);
    assert_eq!(fault.code, code, "{fault:?}");
    assert!(fault.message.contains(words), "{}", fault.message);
    assert_eq!(pods.alive.load(SeqCst), 0, "an ask outlived its run");
    siblings_are_well(glue()).await;
    fault
}

#[tokio::test]
async fn a_guest_that_behaves_gets_its_answer_through() {
    let pods = script(0, vec![chunk(json!("part")), answer(json!({"n": [1, 2.5, "x"]}))]);
    let (result, events) = run(guest!("pass"), "plain", pods.clone()).await;
    let response = result.unwrap();
    assert_eq!(response.output.value(), &json!({"n": [1, 2.5, "x"]}));
    assert!(events.is_empty(), "a chunk that the glue reads is the glue's");
    assert_eq!(*pods.seen.lock().unwrap(), [("plain".to_owned(), json!({"text": "hi"}))]);
    assert_eq!(pods.alive.load(SeqCst), 0);
    // start, next twice, drop of the call
    let crossings = Crossings { wasm_entries: 1, host_calls: 4, asks: 1, ..Default::default() };
    assert_eq!(response.crossings, crossings);
}

#[tokio::test]
async fn blobs_pass_by_handle_and_can_be_read_and_made() {
    let recipe = recipe(guest!("copies_blob"));
    let prepared = glue().compile_here(&recipe).unwrap();
    let blob = Blob::new("in", "audio/wav", vec![1u8, 2, 3, 4]);
    let (sender, _receiver) = events::channel(1);
    let call = admit(&recipe, "plain", vec![blob]);
    let response = prepared.run(&call, script(0, vec![]), sender, soon(5_000)).await.unwrap();
    assert_eq!(response.blobs, [Blob::new("copy", "audio/wav", vec![2u8, 3, 4])]);

    let recipe = self::recipe(guest!("echo"));
    let prepared = glue().compile_here(&recipe).unwrap();
    let blob = Blob::new("in", "audio/wav", vec![7u8; 100_000]);
    let (sender, _receiver) = events::channel(1);
    let call = admit(&recipe, "plain", vec![blob.clone()]);
    let response = prepared.run(&call, script(0, vec![]), sender, soon(5_000)).await.unwrap();
    assert_eq!(response.blobs, [blob]);
    assert_eq!(response.crossings.host_calls, 0, "a blob that is only passed on costs nothing");
}

#[tokio::test]
async fn spinning_ends_at_the_cpu_budget() {
    let started = Instant::now();
    let fault = fails(guest!("spin"), "plain", Code::GlueLimit, "CPU time: 1000 ms").await;
    assert_eq!(fault.detail["cap"], "CPU time");
    assert!(started.elapsed() >= Duration::from_millis(limits::GLUE_CPU_MS / 2), "{:?}", started.elapsed());
    fails(guest!("spin_after_call"), "plain", Code::GlueLimit, "CPU time").await;
}

#[tokio::test]
async fn waiting_for_the_pod_costs_no_cpu_budget() {
    // 130 waits of 12 ms, each across a tick: 1.5 s and far more ticks than the budget.
    let ticks = limits::GLUE_CPU_MS / limits::GLUE_TICK_MS;
    let mut events: Vec<_> = (0..ticks * 13 / 10).map(|n| chunk(json!(n))).collect();
    events.push(answer(json!("done")));
    let started = Instant::now();
    let (result, _) = run(guest!("pass"), "plain", script(12, events.clone())).await;
    assert_eq!(result.unwrap().output.value(), "done");
    assert!(started.elapsed() > Duration::from_millis(limits::GLUE_CPU_MS), "the test waited too little to show anything");
}

#[tokio::test]
async fn a_spinning_guest_leaves_its_thread_to_others() {
    let spinning = tokio::spawn(run(guest!("spin"), "plain", script(0, vec![])));
    sleep(Duration::from_millis(50)).await;
    // One thread for both: this only finishes if the guest yields.
    siblings_are_well(glue()).await;
    assert!(!spinning.is_finished());
    assert_eq!(spinning.await.unwrap().0.unwrap_err().code, Code::GlueLimit);
}

#[tokio::test]
async fn memory_and_tables_are_capped() {
    let fault = fails(guest!("memory_bomb"), "plain", Code::GlueLimit, "memory: 67108864 bytes").await;
    assert_eq!(fault.detail["cap"], "memory");
    let fault = fails(guest!("table_bomb"), "plain", Code::GlueLimit, "table elements: 20000").await;
    assert_eq!(fault.detail["cap"], "table elements");
}

#[tokio::test]
async fn crashes_say_why() {
    fails(guest!("recursion"), "plain", Code::GlueCrashed, "ran out of stack").await;
    fails(guest!("underflow"), "plain", Code::GlueCrashed, "ran out of stack").await;
    fails(guest!("start_trap"), "plain", Code::GlueCrashed, "unreachable").await;
    fails(guest!("lying_output"), "plain", Code::GlueCrashed, "failed").await;
    let fault = fails(guest!("trap"), "plain", Code::GlueCrashed, "unreachable").await;
    assert_eq!(fault.detail["log"], json!(["error: about to fail"]));
    assert!(!fault.detail["causes"].as_array().unwrap().is_empty());
    assert_eq!(fault.blame, Blame::Recipe);
}

#[tokio::test]
async fn output_is_bounded_and_is_json() {
    let fault = fails(guest!("huge_output"), "plain", Code::TooLarge, "5242880 bytes").await;
    assert_eq!(fault.blame, Blame::Recipe);
    fails(guest!("giant_output"), "plain", Code::GlueLimit, "bytes per host call").await;
    let fault = fails(guest!("bad_output"), "plain", Code::InvalidOutput, "output of the glue of `test/guest` is not valid JSON").await;
    assert_eq!(fault.blame, Blame::Recipe);
}

#[tokio::test]
async fn host_calls_handles_asks_and_blobs_are_capped() {
    let fault = fails(guest!("log_flood"), "plain", Code::GlueLimit, "host calls: 100000").await;
    assert_eq!(fault.detail["log"].as_array().unwrap().len(), limits::FAULT_TAIL_LINES);
    fails(guest!("ask_bomb"), "plain", Code::GlueLimit, "asks: 64 open at once").await;
    fails(guest!("handle_bomb"), "plain", Code::GlueLimit, "handles: 4096").await;
    fails(guest!("blob_bomb"), "plain", Code::GlueLimit, "blob bytes: 67108864").await;
    fails(guest!("large_blob"), "plain", Code::TooLarge, "a blob of 25165824 bytes").await;
}

#[tokio::test]
async fn log_lines_reach_the_caller_and_what_is_too_much_is_counted() {
    let (result, events) = run(guest!("talks"), "plain", script(0, vec![])).await;
    let crossings = result.unwrap().crossings;
    assert_eq!(crossings.log_lines, limits::GLUE_LOG_LINES_MAX as u64);
    let lost = limits::GLUE_LOG_LINES_MAX - events.len();
    assert_eq!(crossings.log_lines_dropped, (300 - limits::GLUE_LOG_LINES_MAX + lost) as u64);
    assert!(events.len() >= limits::CALL_EVENTS_MAX);
    assert_eq!(events[0], Event::Log { level: "info".into(), message: "again".into() });
}

#[tokio::test]
async fn chunks_come_from_streaming_operations_only() {
    let (result, events) = run(guest!("emits"), "stream", script(0, vec![])).await;
    assert_eq!(result.unwrap().crossings.chunks, 1);
    assert_eq!(events, [Event::Chunk { data: json!({"text": "hi"}).into(), blobs: Vec::new() }]);

    let fault = fails(guest!("emits"), "plain", Code::ProtocolViolation, "`plain` is not a streaming one").await;
    assert_eq!(fault.blame, Blame::Recipe);
}

#[tokio::test]
async fn forwarding_streams_without_waking_the_guest() {
    let mut script_events: Vec<_> = (0..200).map(|n| chunk(json!(n))).collect();
    script_events.push(answer(json!("end")));
    let (result, events) = run(guest!("forwards"), "stream", script(0, script_events)).await;
    let response = result.unwrap();
    assert_eq!(response.output.value(), "end");
    assert_eq!((response.crossings.chunks, response.crossings.host_calls), (200, 2));
    let wanted: Vec<_> = (0..200).map(|n| Event::Chunk { data: json!(n).into(), blobs: Vec::new() }).collect();
    assert_eq!(events, wanted);

    // A pod that streams although the operation does not.
    let (result, _) = run(guest!("forwards"), "plain", script(0, vec![chunk(json!(1)), answer(json!(2))])).await;
    assert_eq!(result.unwrap_err().code, Code::ProtocolViolation);
    // A pod that ends without an answer.
    let (result, _) = run(guest!("forwards"), "stream", script(0, vec![])).await;
    assert!(result.unwrap_err().message.contains("ended without an answer"));
}

#[tokio::test]
async fn a_caller_who_went_away_cancels() {
    let recipe = recipe(guest!("emits"));
    let (sender, receiver) = events::channel(1);
    drop(receiver);
    let prepared = glue().compile_here(&recipe).unwrap();
    let result = prepared.run(&admit(&recipe, "stream", Vec::new()), script(0, vec![]), sender, soon(5_000)).await;
    assert_eq!(result.unwrap_err().code, Code::Cancelled);
}

#[tokio::test]
async fn a_slow_caller_holds_the_pod_back() {
    let pods = script(0, (0..50).map(|n| chunk(json!(n))).chain([answer(json!("end"))]).collect());
    let recipe = recipe(guest!("forwards"));
    let (sender, mut receiver) = events::channel(1);
    let prepared = glue().compile_here(&recipe).unwrap();
    let call = admit(&recipe, "stream", Vec::new());
    let running = tokio::spawn(async move { prepared.run(&call, pods, sender, soon(5_000)).await });
    sleep(Duration::from_millis(50)).await;
    assert!(!running.is_finished(), "50 chunks cannot fit a channel of one");
    let mut count = 0;
    while receiver.recv().await.is_some() {
        count += 1;
    }
    assert_eq!(count, 50);
    assert_eq!(running.await.unwrap().unwrap().output.value(), "end");
}

#[tokio::test]
async fn a_dropped_or_late_run_lets_go_of_its_asks() {
    let recipe = recipe(guest!("pass"));
    let prepared = glue().compile_here(&recipe).unwrap();
    let call = admit(&recipe, "plain", Vec::new());

    let pods = script(60_000, vec![answer(json!(1))]);
    let (sender, _receiver) = events::channel(1);
    let late = prepared.run(&call, pods.clone(), sender, soon(50)).await.unwrap_err();
    assert_eq!(late.code, Code::Deadline);
    assert!(late.message.contains("`plain` of `test/guest`"), "{}", late.message);
    assert_eq!(pods.alive.load(SeqCst), 0, "the deadline left an ask behind");

    let pods = script(60_000, vec![answer(json!(1))]);
    let (sender, _receiver) = events::channel(1);
    let mut running = Box::pin(prepared.run(&call, pods.clone(), sender, soon(60_000)));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut running).await.is_err());
    assert_eq!(pods.alive.load(SeqCst), 1);
    drop(running);
    assert_eq!(pods.alive.load(SeqCst), 0, "a dropped run left an ask behind");
    siblings_are_well(glue()).await;
}

#[tokio::test]
async fn a_pods_fault_passes_through_glue_with_all_its_detail() {
    let crashed = Fault::new(Code::Crashed, "the pod died").hint("see the log").with("signal", 9);
    let crashed = Fault { retry_after: Some(250), ..crashed };
    let (result, _) = run(guest!("pass"), "plain", script(0, vec![Err(crashed.clone())])).await;
    assert_eq!(result.unwrap_err(), crashed);
    let (result, _) = run(guest!("forwards"), "stream", script(0, vec![Err(crashed.clone())])).await;
    assert_eq!(result.unwrap_err(), crashed);
}

#[tokio::test]
async fn a_guest_may_fail_but_not_blame_others() {
    for (operation, code) in [("tampered", Code::RecipeFailed), ("internal", Code::RecipeFailed), ("invalid_input", Code::InvalidInput)] {
        let fault = fails(guest!("blames"), operation, code, "it was not me").await;
        assert_eq!(fault.detail["tries"], 3);
        match code {
            Code::RecipeFailed => assert_eq!((fault.detail["code"].as_str(), fault.blame), (Some(operation), Blame::Recipe)),
            _ => assert!(fault.detail.get("code").is_none()),
        }
    }
}

#[tokio::test]
async fn only_declared_operations_reach_the_pod() {
    let fault = fails(guest!("undeclared"), "plain", Code::OperationNotFound, "no operation `format_disk`").await;
    assert_eq!(fault.blame, Blame::Recipe);
}

#[test]
fn what_is_not_glue_for_this_hob_is_said_before_linking() {
    let pass = guest!("pass");
    let bump = |version: &str| component(&pass.replace("@0.1.0", version), &WIT.replace("@0.1.0", version));
    let grown = component(
        &guest!("trap").replace("@0.1.0", "@0.1.7").replace("(memory", "(import \"hob:glue/log@0.1.7\" \"flush\" (func $flush)) (memory"),
        &WIT.replace("@0.1.0", "@0.1.7")
            .replace("write: func(level: string, message: string);", "write: func(level: string, message: string);\nflush: func();"),
    );
    let binary = |wat: &str| wat::parse_str(wat).unwrap();
    let changed = component(pass, &WIT.replace("kind: string,\n", "kind: list<u8>,\n"));
    let table: Vec<(Vec<u8>, &str, &str)> = vec![
        (Vec::new(), "0.1", "is an empty file"),
        (pass.into(), "0.1", "is text"),
        (binary(guest!("echo")), "0.1", "is a core wasm module"),
        (b"\x7fELF\x02\x01\x01\0".into(), "0.1", "precompiled"),
        (b"\0asm\x0e\0\x01\0".into(), "0.1", "a version that this Hob does not know"),
        (vec![0xff; 20], "0.1", "is not wasm"),
        (b"\0asm\x0d\0\x01\0garbage".into(), "0.1", "is not a component that this Hob can run"),
        (bump("@0.1.0"), "0.2", "is built for hob:glue 0.2, this Hob has hob:glue 0.1.0"),
        (bump("@0.2.0"), "0.1", "needs hob:glue 0.2, this Hob has hob:glue 0.1.0"),
        (bump("@0.1.0-beta"), "0.1", "needs the pre-release hob:glue 0.1.0-beta"),
        (bump(""), "0.1", "without a version"),
        (grown, "0.1", "needs the function `flush` of hob:glue/log@0.1.7"),
        (changed, "0.1", "hob:glue/pod"),
        (binary(guest!("needs_sockets")), "0.1", "needs wasi:sockets/network@0.2.0, which Hob does not offer"),
        (binary("(component (import \"print\" (func)))"), "0.1", "needs print, which Hob does not offer"),
        (
            component("(module (memory (export \"memory\") 1) (func (export \"run\") (result i32) (i32.const 0)))", OTHER_RUN),
            "0.1",
            "exports a `run` that is not",
        ),
        (binary("(component)"), "0.1", "does not export the function `run`"),
        (component(&guest!("echo").replace("\"memory\") 8", "\"memory\") 2000"), WIT), "0.1", "needs 2000 pages of memory"),
    ];
    for (bytes, world, says) in table {
        let fault = glue().compile_here(&recipe_of(bytes, world)).map(drop).expect_err(says);
        assert_eq!(fault.code, Code::GlueIncompatible, "{says}");
        assert!(fault.message.contains(says) && fault.message.contains("`test/guest`"), "{}", fault.message);
        // Each only once, however many interfaces lack it.
        let needs: Vec<&str> = fault.message.split_once(" needs ").map_or(Vec::new(), |(_, needs)| needs.split("; ").collect());
        assert!(needs.iter().collect::<HashSet<_>>().len() == needs.len(), "{}", fault.message);
    }
}

#[tokio::test]
async fn glue_of_a_later_patch_runs() {
    let bytes = component(&guest!("pass").replace("@0.1.0", "@0.1.7"), &WIT.replace("@0.1.0", "@0.1.7"));
    let (result, _) = run_on(glue(), &recipe_of(bytes, "0.1"), "plain", script(0, vec![answer(json!(5))])).await;
    assert_eq!(result.unwrap().output.value(), 5);
}

#[test]
fn what_is_checked_is_what_the_world_says() {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("glue.wit", WIT).unwrap();
    let mut wanted: Vec<(String, Vec<String>)> = resolve.packages[package]
        .interfaces
        .iter()
        .map(|(name, id)| (name.clone(), resolve.interfaces[*id].functions.keys().cloned().collect()))
        .collect();
    let mut offered: Vec<(String, Vec<String>)> =
        check::OFFERED.iter().map(|(name, functions)| (name.to_string(), functions.iter().map(ToString::to_string).collect())).collect();
    for list in [&mut wanted, &mut offered] {
        list.iter_mut().for_each(|(_, functions)| functions.sort());
        list.sort();
    }
    assert_eq!(offered, wanted);
    assert_eq!(resolve.packages[package].name.version.as_ref().unwrap().to_string(), "0.1.0");
    assert_eq!(world::VERSION, (0, 1, 0));
}

#[tokio::test]
async fn without_a_pool_everything_works_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let engines = Engines { pooled: None, instances: 2, ..engine::open(folder.path()).unwrap() };
    let glue = Glue::with(engines, Arc::<Here>::default()).unwrap();
    let (result, _) = run_on(&glue, &recipe(guest!("memory_bomb")), "plain", script(0, vec![])).await;
    assert_eq!(result.unwrap_err().code, Code::GlueLimit);
    let (result, _) = run_on(&glue, &recipe(guest!("spin")), "plain", script(0, vec![])).await;
    assert_eq!(result.unwrap_err().code, Code::GlueLimit);
    siblings_are_well(&glue).await;
}

#[tokio::test]
async fn a_component_that_does_not_fit_the_pool_runs_on_demand() {
    // More globals than a pooled instance has room for.
    let globals = "(global (mut i64) (i64.const 0))".repeat(80_000);
    let recipe = recipe(&guest!("echo").replace("(memory", &format!("{globals} (memory")));
    let prepared = glue().compile_here(&recipe).unwrap();
    assert!(glue().0.engines.pooled.is_some(), "this machine should have a pool");
    assert!(Engine::same(prepared.pre.engine(), &glue().0.engines.on_demand));
    let (result, _) = run_on(glue(), &recipe, "plain", script(0, vec![])).await;
    assert_eq!(result.unwrap().output.value(), &json!({"text": "hi"}));
}

#[tokio::test]
async fn core_instances_are_capped() {
    let many = "(core instance (instantiate 1))".repeat(limits::GLUE_CORE_INSTANCES_MAX as usize + 1);
    let bytes = component(guest!("echo"), WIT);
    // The same component with more instances than allowed, all empty (its own module is number 0).
    let extra = wat::parse_str(format!("(component (core module) (core module) {many})")).unwrap();
    let bytes = [&bytes[..], &extra[8..]].concat();
    let (result, _) = run_on(glue(), &recipe_of(bytes, "0.1"), "plain", script(0, vec![])).await;
    let fault = result.unwrap_err();
    assert_eq!((fault.code, fault.detail["cap"].as_str()), (Code::GlueLimit, Some("core instances")), "{fault:?}");
    siblings_are_well(glue()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_instances_wait_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let engines = Engines { instances: 3, ..engine::open(folder.path()).unwrap() };
    let glue = Glue::with(engines, Arc::<Here>::default()).unwrap();
    let recipe = recipe(guest!("pass"));
    let prepared = glue.compile_here(&recipe).unwrap();
    let pods = script(5, vec![answer(json!(1))]);
    let calls: Vec<_> = (0..30)
        .map(|_| {
            let (prepared, pods, call) = (prepared.clone(), pods.clone(), admit(&recipe, "plain", Vec::new()));
            tokio::spawn(async move { prepared.run(&call, pods, events::channel(1).0, soon(10_000)).await })
        })
        .collect();
    let mut most = 0;
    for call in calls {
        // Checked continuously: between the end of one and the start of the next there may be none.
        while !call.is_finished() {
            most = most.max(pods.alive.load(SeqCst));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        call.await.unwrap().unwrap();
    }
    assert!((1..=3).contains(&most), "{most} at once");
}

#[tokio::test]
async fn a_call_does_not_run_on_another_recipes_glue() {
    let (one, other) = (recipe(guest!("pass")), recipe(guest!("echo")));
    let prepared = glue().compile_here(&one).unwrap();
    let result = prepared.run(&admit(&other, "plain", Vec::new()), script(0, vec![]), events::channel(1).0, soon(1_000)).await;
    assert_eq!(result.unwrap_err().code, Code::Internal);
}

#[tokio::test]
async fn an_idle_ticker_sleeps_and_wakes_for_the_next_call() {
    let folder = tempfile::tempdir().unwrap();
    let glue = Glue::open(folder.path(), Arc::<Here>::default()).unwrap();
    let asleep = || glue.0.ticker.is_asleep();
    for _ in 0..2 {
        let patience = Duration::from_millis(limits::GLUE_TICK_MS * u64::from(limits::GLUE_IDLE_TICKS_MAX) * 5);
        let until = Instant::now() + patience;
        while !asleep() && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        assert!(asleep(), "no call for {patience:?}, and it still ticks");
        let (result, _) = run_on(&glue, &recipe(guest!("spin")), "plain", script(0, vec![])).await;
        assert_eq!(result.unwrap_err().code, Code::GlueLimit);
        assert!(!asleep());
    }
}
