//! The shipped embedding recipe against sentence-transformers' own vectors, and what a call of it costs.
//!
//! `make test` builds the recipe's glue and model first; tests/reference/README.md says how the vectors were made.

use std::path::{Path, PathBuf};

use hob::{
    host::{Config, Host},
    model::{Call, Code, Home},
};
use serde_json::{Value, json};

fn recipe() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/sentence-embeddings");
    for built in ["glue.wasm", "models/all-MiniLM-L6-v2.onnx", "models/tokenizer.json"] {
        assert!(folder.join(built).is_file(), "{built} is not built: run `make test`, or `.make/recipes.sh target/debug/hob`");
    }
    folder
}

/// Environments are dear: the tests of a checkout share them, and the next run finds them.
async fn host() -> Host {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embeddings-home");
    Host::open(Config::new(Home::at(home))).await.unwrap()
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

    // A text alone gives the vector that it gives in a batch.
    let alone = host.call(embed(json!({ "text": texts[0]["text"] }))).await.unwrap();
    let alone = vector(&alone.output.value()["embeddings"][0]);
    assert!(cosine(&alone, &vector(&found[0])) >= 0.9999);
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
