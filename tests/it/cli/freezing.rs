//! The freeze corpus: schemas, patterns and inputs made to keep the host's own threads busy for ever, against
//! a server that others use.
//!
//! One half has no proof of its bound and is refused: when the author packs it, at install if a publisher
//! skipped the check, and at load if an older Hob installed it. The other half is as expensive as a proof
//! allows. The tests count the calls of others that were answered meanwhile; times are only printed.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hob::author::pack::pack;
use rustix::process::Signal;
use serde_json::{Map, Value, json};

use super::{
    damaged::installed_with,
    hostile::{Den, archive, indexed},
    rig::{Rig, Signed, put, url, write_recipe},
    served::Serving,
};

/// `l0` to `l60`, each made of two ways to the next.
fn two_ways(level: impl Fn(Value) -> Value) -> Value {
    let mut defs: Map<String, Value> =
        (0..60).map(|at| (format!("l{at}"), level(json!({ "$ref": format!("#/$defs/l{}", at + 1) })))).collect();
    defs.insert("l60".into(), json!({ "type": "string", "minLength": 3 }));
    json!({ "$ref": "#/$defs/l0", "$defs": defs })
}

/// Schemas without a proof.
fn frozen() -> Vec<(&'static str, Value)> {
    let nested = |depth: usize, inner: Value, level: fn(Value) -> Value| (0..depth).fold(inner, |inner, _| level(inner));
    vec![
        ("anyOf of two, 60 levels", two_ways(|next| json!({ "anyOf": [next, next] }))),
        ("oneOf of two, 60 levels", two_ways(|next| json!({ "oneOf": [next, next] }))),
        ("allOf of two, 60 levels", two_ways(|next| json!({ "allOf": [next, next] }))),
        ("if and then, 60 levels", two_ways(|next| json!({ "if": next, "then": next }))),
        ("items and contains, 60 levels", two_ways(|next| json!({ "items": next, "contains": next }))),
        ("two patterns for a key, 60 levels", two_ways(|next| json!({ "patternProperties": { "a": next, ".": next } }))),
        (
            "unevaluatedProperties, 20 levels",
            nested(20, json!({ "properties": { "a": true } }), |inner| json!({ "allOf": [inner], "unevaluatedProperties": false })),
        ),
        (
            "unevaluatedItems, 20 levels",
            nested(20, json!({ "prefixItems": [true] }), |inner| json!({ "anyOf": [inner], "unevaluatedItems": false })),
        ),
        (
            "a turn that visits twice",
            json!({ "anyOf": [{ "properties": { "a": { "$ref": "#" } } }, { "properties": { "a": { "$ref": "#" } } }] }),
        ),
        ("a turn that goes nowhere", json!({ "allOf": [{ "$ref": "#" }] })),
        ("a count of 40,000", json!({ "pattern": "[ab]*a[ab]{40000}c" })),
        ("counts of counts", json!({ "pattern": "((a{100}){100}){100}" })),
    ]
}

/// Schemas with a proof, each with an input that is as expensive as possible.
fn dear() -> Vec<(&'static str, Value, String)> {
    let list = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
    let keys = |count: usize| format!("{{{}}}", (0..count).map(|at| format!("\"key{at}\":{at}")).collect::<Vec<_>>().join(","));
    let brackets: Vec<_> = (0..1 << 13)
        .map(|bits: usize| {
            format!("[{}]", (0..13).map(|bit| if bits >> bit & 1 == 1 { "[[1]]" } else { "[1]" }).collect::<Vec<_>>().join(","))
        })
        .collect();
    let anything = json!({ "anyOf": [{ "type": "number" }, { "type": "array", "items": { "$ref": "#" } }, { "type": "object", "additionalProperties": { "$ref": "#" } }] });
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let names: Map<String, Value> = (0..16).map(|at| (format!("name{at}"), json!({ "type": "string" }))).collect();
    let pattern = json!({ "pattern": "[ab]*a[ab]{3000}c" });
    vec![
        ("3,000 states, all of the text that is taken", pattern.clone(), format!("\"{}\"", "ab".repeat(20_000))),
        ("3,000 states, 4 MB", pattern, format!("\"{}\"", "ab".repeat(2_000_000))),
        (
            "letters of all languages, 200 times",
            json!({ "pattern": "^[\\p{L}\\p{N} .,-]{1,200}$" }),
            format!("\"{}\"", "aä".repeat(50_000)),
        ),
        ("items that hash alike", json!({ "uniqueItems": true }), format!("[{}]", brackets.join(","))),
        ("a million equal items", json!({ "uniqueItems": true }), list("1", 1_000_000)),
        (
            "a million mismatches of alternatives",
            json!({ "items": { "anyOf": [{ "type": "string" }, { "type": "null" }] } }),
            list("1", 1_000_000),
        ),
        ("anything, 100 deep", anything.clone(), list(&deep, 1_000)),
        ("anything, wrong at the bottom", anything, list(&deep.replace('1', "\"x\""), 1_000)),
        ("too deep for JSON", json!({}), format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000))),
        ("a million empty lists", json!({}), list("[]", 1_000_000)),
        ("200,000 wrong keys", json!({ "type": "object", "additionalProperties": false }), keys(200_000)),
        (
            "100,000 long keys against ten patterns",
            json!({ "patternProperties": (0..10).map(|at| (format!("k.*{at}$"), json!(true))).collect::<Map<_, _>>() }),
            keys(100_000),
        ),
        ("16 names, empty objects", json!({ "items": { "properties": names, "additionalProperties": false } }), list("{}", 300_000)),
        (
            "unevaluated, two levels",
            json!({ "items": { "allOf": [{ "allOf": [{ "properties": { "a": true } }], "properties": { "b": true }, "unevaluatedProperties": { "type": "string" } }], "unevaluatedProperties": false } }),
            list("{\"a\":1,\"b\":2}", 50_000),
        ),
        (
            "a thousand lists to compare with",
            json!({ "items": { "enum": (0..1_000).map(|at| json!([1, 2, at])).collect::<Vec<_>>() } }),
            list("[1,2,\"x\"]", 6_000),
        ),
        ("contains what is not there", json!({ "contains": { "type": "string" } }), list("1", 1_000_000)),
        ("an integer past 64 bits at the end", json!({}), format!("[{}99999999999999999999]", "1,".repeat(1_000_000))),
        (
            "oneOf of twenty",
            json!({ "items": { "oneOf": (0..20).map(|at| json!({ "properties": { "a": { "const": at } }, "required": ["a"] })).collect::<Vec<_>>() } }),
            list("{\"a\":19}", 100_000),
        ),
    ]
}

/// A manifest whose operations have these schemas for their input.
fn manifest<'a>(name: &str, schemas: impl Iterator<Item = (String, &'a Value)>) -> String {
    let operations: Map<String, Value> =
        schemas.map(|(name, schema)| (name, json!({ "summary": "Says that it ran", "input": schema, "output": {} }))).collect();
    let manifest = json!({ "name": name, "version": "0.1.0", "license": "Apache-2.0", "summary": "Freezes", "hob": "0.1",
        "pod": { "runtime": "python", "entry": "subject:Subject", "python": ">=3.9" }, "operations": operations });
    toml::to_string(&manifest).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_without_a_proof_is_refused_by_its_place_at_the_desk_and_at_install() {
    let den = Den::new().await;
    let rig = Rig::new();
    rig.trust(&url(&den.world.repo), &den.world.repo);
    for (at, (what, schema)) in frozen().iter().enumerate() {
        let text = manifest("hob/plain", [("run".to_owned(), schema)].into_iter());
        let folder = rig.folder.path().join(format!("frozen-{at}"));
        write_recipe(&folder, "hob/plain", "0.1.0", "class Subject:\n    pass\n", "python = \">=3.9\"");
        put(&folder.join("recipe.toml"), text.as_bytes());
        let fault = pack(&folder).unwrap_err();
        assert_eq!(fault.code.name(), "invalid_manifest", "{what}: {fault}");
        assert!(
            fault.message.contains("operations.run.input") && fault.message.contains(": the cost of checking is not bounded at `/"),
            "{what}: {fault}"
        );
        assert!(fault.message.len() < 1_000 && fault.hint.is_some(), "{what}: {fault}");
        if at % 4 != 0 {
            continue;
        }
        // A folder that is called, and a publisher who packs without `hob pack`.
        let called = rig.hob(&["call", folder.to_str().unwrap(), "run", "1"]);
        called.refused(hob::model::Code::InvalidManifest, &["the cost of checking is not bounded"]);
        let mut files = den.honest.clone();
        files.iter_mut().find(|file| file.name == b"recipe.toml").unwrap().content = text.into_bytes();
        den.sign(&archive(&files), &indexed(&files));
        rig.hob(&["add", "hob/plain"]).refused(hob::model::Code::InvalidManifest, &["the cost of checking is not bounded"]);
        rig.assert_empty();
    }
}

/// The result of a POST to a recipe.
#[derive(Debug)]
struct Came {
    status: u16,
    code: String,
    ms: f64,
}

fn call(serving: &Serving, recipe: &str, operation: &str, input: &str, deadline_ms: u64) -> Came {
    let begun = Instant::now();
    let answer = serving.ask(&format!("POST /v1/recipes/{recipe}/{operation}\nx-hob-deadline-ms: {deadline_ms}"), input.as_bytes());
    let code = if answer.status == 200 { String::new() } else { answer.code() };
    assert!(answer.body.len() < 64 << 10, "a fault of {} bytes", answer.body.len());
    Came { status: answer.status, code, ms: begun.elapsed().as_secs_f64() * 1e3 }
}

#[test]
fn nothing_of_the_freeze_corpus_keeps_a_server_from_answering_others_or_from_ending() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let dear = dear();
    let operations: Vec<_> = (0..dear.len()).map(|at| format!("op{at}")).collect();
    let methods: String = operations.iter().map(|name| format!("    def {name}(self, input):\n        return 1\n")).collect();
    for (name, pod) in [
        ("lab/plain", "class Subject:\n    def run(self, input):\n        return input\n"),
        ("lab/frozen", "class Subject:\n    pass\n"),
        ("lab/dear", ""),
        ("lab/free", ""),
    ] {
        let folder = signed.folder.path().join(name.replace('/', "-"));
        write_recipe(&folder, name, "0.1.0", pod, "python = \">=3.9\"");
        if pod.is_empty() {
            let any = json!({});
            let schemas = operations.iter().cloned().zip(dear.iter().map(|(_, schema, _)| if name == "lab/free" { &any } else { schema }));
            put(&folder.join("recipe.toml"), manifest(name, schemas).as_bytes());
            put(&folder.join("pod/subject.py"), format!("class Subject:\n{methods}").as_bytes());
            fs::remove_dir_all(folder.join("cases")).unwrap();
            put(&folder.join("cases/one/input.json"), br#"{"operation": "op9", "input": []}"#);
            put(&folder.join("cases/one/output.json"), b"1");
        }
        signed.publish(&folder);
    }
    rig.trust(&signed.url(), &signed.repository);
    for name in ["lab/plain", "lab/frozen", "lab/dear", "lab/free"] {
        rig.hob(&["add", name]).well();
    }
    let text = manifest("lab/frozen", [("run".to_owned(), &frozen()[0].1)].into_iter());
    installed_with(&rig, "lab/frozen", &text);

    let serving = Arc::new(Mutex::new(Serving::start(&rig, &[])));
    let share = || {
        let serving = serving.lock().unwrap();
        Serving { child: std::process::Command::new("true").spawn().unwrap(), socket: serving.socket.clone(), address: None, token: None }
    };
    // On a machine with few cores, the kernel's sharing lets the hostile recipe's own pod and its caller slow
    // down everybody. The server's own part is measured with both on separate cores, which takes minutes.
    let apart = Apart(std::env::var_os("HOB_SOAK_ROUNDS").is_some());
    // The calls of an unrelated caller while `meanwhile` runs: their times in milliseconds, sorted.
    let others = |meanwhile: &mut dyn FnMut()| -> Vec<f64> {
        let (over, others) = (Arc::new(AtomicBool::new(false)), share());
        let ended = over.clone();
        let somebody = std::thread::spawn(move || {
            apart.keep(0, rustix::thread::gettid().as_raw_pid());
            let mut answered = Vec::new();
            while !ended.load(Ordering::Acquire) {
                let came = call(&others, "lab/plain", "run", "1", 60_000);
                assert_eq!(came.status, 200, "{came:?}");
                answered.push(came.ms);
            }
            answered
        });
        meanwhile();
        over.store(true, Ordering::Release);
        let mut answered = somebody.join().unwrap();
        answered.sort_by(f64::total_cmp);
        answered
    };
    let caller = share();
    let mut told = Vec::new();
    apart.keep(1, rustix::thread::gettid().as_raw_pid());
    for thread in fs::read_dir(format!("/proc/{}/task", serving.lock().unwrap().child.id())).unwrap() {
        apart.keep(0, thread.unwrap().file_name().to_str().unwrap().parse().unwrap());
    }
    let begun = |name: &str, operation: &str| {
        call(&caller, name, operation, "1", 60_000);
        for pod in caller.ask("GET /v1/pods", b"").json().as_array().unwrap().iter().filter(|pod| pod["recipe"] == name) {
            apart.keep(u8::from(name != "lab/plain"), pod["pid"].as_i64().unwrap() as i32);
        }
    };
    begun("lab/plain", "run");
    assert_eq!(call(&caller, "lab/plain", "run", "1", 60_000).status, 200);
    let idle = others(&mut || std::thread::sleep(Duration::from_secs(1)));
    // The cost of any two busy programs to others, which is not the server's.
    let mut busy = [(); 2].map(|()| std::process::Command::new("python3").args(["-c", "while True: pass"]).spawn().unwrap());
    busy.iter().for_each(|program| apart.keep(1, program.id() as i32));
    let crowded = others(&mut || std::thread::sleep(Duration::from_secs(1)));
    for program in &mut busy {
        program.kill().unwrap();
        program.wait().unwrap();
    }
    begun("lab/free", "op9");
    // The same documents without a check: the cost of carrying them, with the work of their pod.
    let free = others(&mut || {
        for (at, (.., input)) in dear.iter().enumerate() {
            call(&caller, "lab/free", &format!("op{at}"), input, 20_000);
        }
    });
    begun("lab/dear", "op9");
    let beside = others(&mut || {
        for (at, (what, _, input)) in dear.iter().enumerate() {
            let came = call(&caller, "lab/dear", &format!("op{at}"), input, 20_000);
            assert_ne!(came.code, "deadline", "{what}: {came:?}");
            assert_ne!(came.code, "internal", "{what}: {came:?}");
            told.push(format!("{what}: {} {} in {:.0} ms", came.status, came.code, came.ms));
        }
    });
    assert!(beside.len() >= dear.len(), "only {} calls of others were answered beside {} of these", beside.len(), dear.len());
    println!("{}", told.join("\n"));
    for (when, answered) in [
        ("idle", &idle),
        ("beside two busy programs", &crowded),
        ("beside these documents, unchecked", &free),
        ("beside the corpus", &beside),
    ] {
        let part = |percent: usize| answered[(answered.len() * percent / 100).min(answered.len() - 1)];
        println!("others {when}: {} calls, median {:.2} ms, p99 {:.2} ms", answered.len(), part(50), part(99));
    }
    // A check that takes longer than its call may: the call ends.
    let cut = call(&caller, "lab/dear", "op0", &dear[0].2, 20);
    assert_eq!((cut.status, cut.code.as_str()), (504, "deadline"));
    // A recipe that an older Hob installed is refused by itself.
    let frozen = call(&caller, "lab/frozen", "run", "1", 20_000);
    assert_eq!(frozen.code, "invalid_manifest");
    let health = caller.ask("GET /v1/health", b"");
    assert!(health.body.contains("damaged") && health.body.contains("lab/frozen"), "{health:?}");

    // The server ends on request, whatever runs.
    let busy: Vec<_> = [0, 3, 6]
        .into_iter()
        .map(|at| {
            let (caller, input) = (share(), dear[at].2.clone());
            std::thread::spawn(move || call(&caller, "lab/dear", &format!("op{at}"), &input, 20_000))
        })
        .collect();
    while caller.ask("GET /v1/status", b"").json()["calls_running"].as_u64().unwrap() == 0 && busy.iter().any(|call| !call.is_finished()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(serving.lock().unwrap().end(Signal::TERM, 30).success());
    busy.into_iter().for_each(|call| drop(call.join()));
}

/// Keeps processes on separate cores, if true.
#[derive(Clone, Copy)]
struct Apart(bool);

impl Apart {
    fn keep(self, core: u8, thread: i32) {
        if self.0 {
            let mut command = std::process::Command::new("taskset");
            command.args(["-cp", &core.to_string(), &thread.to_string()]).stdout(std::process::Stdio::null());
            assert!(command.status().unwrap().success(), "{thread} was not kept to core {core}");
        }
    }
}
