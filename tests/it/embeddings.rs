//! The shipped embedding recipe: its vectors against those of sentence-transformers, and the cost of a call.
//!
//! `make test` builds the recipe's glue and model first; tests/reference/README.md says how the vectors were
//! made.

use std::path::{Path, PathBuf};

use hob::{
    host::{Config, Host},
    model::{
        Call, Code, Home,
        status::{Class, ZygoteState},
    },
};
use serde_json::{Value, json};

fn recipe() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/sentence-embeddings");
    for built in ["glue.wasm", "models/all-MiniLM-L6-v2.onnx", "models/tokenizer.json"] {
        assert!(folder.join(built).is_file(), "{built} is not built: run `make test`, or `.make/recipes.sh target/debug/hob`");
    }
    folder
}

/// Building environments takes long: the tests of a checkout share them, and the next run reuses them.
async fn host() -> Host {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embeddings-home");
    Host::open(Config::new(Home::at(home)).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap()
}

fn embed(input: Value) -> Call {
    Call::new(&recipe().display().to_string(), "embed", input).unwrap()
}

fn vector(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

#[tokio::test]
async fn embeddings_are_those_of_sentence_transformers() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/minilm.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let texts = reference["texts"].as_array().unwrap();
    assert!(texts.len() >= 20);
    let input: Vec<&Value> = texts.iter().map(|entry| &entry["text"]).collect();

    let host = host().await;
    let outcome = host.call(embed(json!({ "texts": input }))).await.unwrap();
    let output = outcome.output.value();
    assert_eq!(output["dimensions"], 384);
    assert_eq!(output["model"], "all-MiniLM-L6-v2");
    let found = output["embeddings"].as_array().unwrap();
    assert_eq!(found.len(), texts.len());
    let mut least = f64::MAX;
    for (found, entry) in found.iter().zip(texts) {
        let (found, wanted) = (vector(found), vector(&entry["vector"]));
        assert_eq!((found.len(), wanted.len()), (384, 384));
        let cosine = cosine(&found, &wanted);
        assert!(cosine >= 0.9999, "{cosine} for {}", entry["text"]);
        least = least.min(cosine);
    }
    println!("{} texts, least cosine {least:.9}", texts.len());

    // A text alone gives the same vector as in a batch.
    let alone = host.call(embed(json!({ "text": texts[0]["text"] }))).await.unwrap();
    let alone = vector(&alone.output.value()["embeddings"][0]);
    assert!(cosine(&alone, &vector(&found[0])) >= 0.9999);
    host.shutdown().await;
}

#[tokio::test]
async fn a_forked_pod_gives_what_a_started_one_gives_without_any_permission() {
    let host = host().await;
    let input =
        json!({ "texts": ["a cat", "naïve café, Ångström, Straße", "The stock market fell sharply."], "similarity_to": "a kitten" });
    let started = host.call(embed(input.clone())).await.unwrap().output.into_value();
    // The canary pod may or may not be there as well.
    let pod = host.pods().into_iter().find(|pod| !pod.forked).unwrap();
    let sandbox = pod.sandbox.unwrap();
    assert_eq!((sandbox.class, sandbox.missing), (Class::Full, Vec::new()));

    for _ in 0..1200 {
        match &host.status().zygotes[0] {
            zygote if zygote.state == ZygoteState::Booting => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            zygote => {
                assert_eq!(zygote.state, ZygoteState::Ready, "{zygote:?}");
                break;
            }
        }
    }
    let before = host.status().zygotes[0].forked;
    let forked = host.call(embed(input).one_shot()).await.unwrap().output.into_value();
    assert_eq!(host.status().zygotes[0].forked, before + 1);
    assert_eq!(forked, started);
    host.shutdown().await;
}

#[tokio::test]
async fn a_call_enters_wasm_once_and_crosses_to_the_pod_once_each_way() {
    let host = host().await;
    let outcome = host.call(embed(json!({ "texts": ["a cat", "a dog"], "similarity_to": "a kitten" }))).await.unwrap();
    let similarities = vector(&outcome.output.value()["similarities"]);
    assert!(similarities[0] > similarities[1], "{similarities:?}");
    let records = host.journal();
    let record = &records[0];
    assert_eq!((record.wasm_entries, record.frames_sent, record.frames_received), (1, 1, 1), "{record:?}");
    host.shutdown().await;
}

#[tokio::test]
async fn calls_made_at_once_get_their_own_vectors() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/minilm.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let host = host().await;
    let mut calls = tokio::task::JoinSet::new();
    for entry in reference["texts"].as_array().unwrap() {
        let (host, entry) = (host.clone(), entry.clone());
        calls.spawn(async move {
            let outcome = host.call(embed(json!({ "text": entry["text"] }))).await.unwrap();
            let embeddings = outcome.output.value()["embeddings"].as_array().unwrap().clone();
            assert_eq!(embeddings.len(), 1);
            let cosine = cosine(&vector(&embeddings[0]), &vector(&entry["vector"]));
            assert!(cosine >= 0.9999, "{cosine} for {}", entry["text"]);
        });
    }
    assert!(calls.join_all().await.len() > 20);
    host.shutdown().await;
}

/// The host chooses which callers' asks share a batch, so this test also calls the class directly.
#[tokio::test]
async fn the_pods_class_keeps_callers_of_a_batch_apart() {
    let host = host().await;
    host.call(embed(json!({ "text": "there is an environment now" }))).await.unwrap();
    host.shutdown().await;
    let environments = Home::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("embeddings-home")).environments();
    let folders = std::fs::read_dir(environments).unwrap().map(|entry| entry.unwrap().path());
    // A changed lock leaves the environment of the old lock behind.
    let newest = folders.filter(|path| path.is_dir()).max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = std::env::join_paths([root.join("python/src"), recipe().join("pod")]).unwrap();
    let mut command = tokio::process::Command::new(newest.join("bin/python"));
    command.arg(root.join("tests/it/embedder_batches.py")).arg(recipe().join("models")).arg(root.join("tests/reference/minilm.json"));
    command.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1").env("OMP_NUM_THREADS", "1");
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Ran 6 tests"), "{said}");
}

#[tokio::test]
async fn wrong_input_is_refused_before_anything_runs() {
    let host = host().await;
    for (input, pointer) in [
        (json!({}), "/"),
        (json!({ "texts": [] }), "/"),
        (json!({ "texts": ["a", 3] }), "/"),
        (json!({ "texts": ["a"], "colour": 1 }), "/"),
    ] {
        let fault = host.call(embed(input.clone())).await.unwrap_err();
        assert_eq!(fault.code, Code::InvalidInput, "{input}");
        assert!(fault.detail["violations"][0]["pointer"].as_str().unwrap().starts_with(pointer), "{input}: {fault:?}");
    }
    assert!(host.pods().is_empty(), "no pod was started for them");
    host.shutdown().await;
}
