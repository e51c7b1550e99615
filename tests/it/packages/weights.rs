//! Models of several files, read by the usual packages: from a recipe folder, from a signed repository and
//! from a server like the hub, in started and in forked pods.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hob::{
    author::{keys::Keys, pack::pack, publish::publish, repository},
    host::{Config, Consent, Host},
    model::{Digest, Home, RecipeName, Silent},
    shelf::{models::sources::Sources, repository::Trust},
};
use serde_json::{Value, json};

use super::{alone, to, without_preload, zygote};
use crate::models::server::{Reply, Server};

const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

/// `x * [2, 3] + [10, 20]`, in two forms of three files each.
fn models() -> Vec<(&'static str, Vec<u8>)> {
    let weights = [2f32, 3.0].map(f32::to_le_bytes).concat();
    let bias = [10f32, 20.0].map(f32::to_le_bytes).concat();
    let shard = |name: &str, bytes: &[u8]| {
        let head = json!({ name: { "dtype": "F32", "shape": [2], "data_offsets": [0, bytes.len()] } }).to_string();
        [&(head.len() as u64).to_le_bytes(), head.as_bytes(), bytes].concat()
    };
    let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let index = json!({ "metadata": { "total_size": 16 }, "weight_map": { "w": first, "b": second } }).to_string();
    vec![
        ("model-00001-of-00002.safetensors", shard("w", &weights)),
        ("model-00002-of-00002.safetensors", shard("b", &bias)),
        ("model.safetensors.index.json", index.into_bytes()),
        ("onnx/data/bias.bin", bias),
        ("onnx/model.onnx", onnx()),
        ("onnx/model.onnx_data", weights),
    ]
}

/// A network whose tensors lie in `model.onnx_data` and `data/bias.bin` beside it, as the `onnx` package
/// would write it.
fn onnx() -> Vec<u8> {
    let external = |name: &str, file: &str| {
        let location = [text(1, "location"), text(2, file)].concat();
        [number(1, 2), number(2, FLOAT), text(8, name), message(13, &location), number(14, EXTERNAL)].concat()
    };
    let value = |name: &str| {
        let shape = message(1, &number(1, 2));
        [text(1, name), message(2, &message(1, &[number(1, FLOAT), message(2, &shape)].concat()))].concat()
    };
    let node = |of: [&str; 3], operator: &str| [text(1, of[0]), text(1, of[1]), text(2, of[2]), text(4, operator)].concat();
    let graph = [
        message(1, &node(["x", "w", "scaled"], "Mul")),
        message(1, &node(["scaled", "b", "y"], "Add")),
        text(2, "scale and shift"),
        message(5, &external("w", "model.onnx_data")),
        message(5, &external("b", "data/bias.bin")),
        message(11, &value("x")),
        message(12, &value("y")),
    ];
    [number(1, 8), message(7, &graph.concat()), message(8, &number(2, 13))].concat()
}

/// The most calls that are made in started pods before one is forked.
const CALLS_MAX: usize = 100;

const FLOAT: u64 = 1;
const EXTERNAL: u64 = 1;

/// A field of a protocol buffer, as are the two functions below.
fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn message(field: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn text(field: u64, text: &str) -> Vec<u8> {
    message(field, text.as_bytes())
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The recipe with its models, which lie in its folder or on the hub.
fn recipe(below: &Path, name: &str, from_hub: bool) -> PathBuf {
    let (source, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/weights"), below.join(name));
    fs::create_dir_all(folder.join("pod")).unwrap();
    let mut manifest = fs::read_to_string(source.join("recipe.toml")).unwrap().replace("test/weights", &format!("test/{name}"));
    for (model, bytes) in models() {
        let (sha256, length) = (Digest::of(&bytes), bytes.len());
        manifest.push_str(&format!("\n[[model]]\nname = \"{model}\"\nsha256 = \"{sha256}\"\nbytes = {length}\n"));
        if from_hub {
            manifest.push_str(&format!("from = \"hf:lab/net@{REVISION}:in a folder/{model}\"\n"));
            continue;
        }
        let place = folder.join("models").join(model);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, bytes).unwrap();
    }
    fs::write(folder.join("recipe.toml"), manifest).unwrap();
    for file in ["weights.py", "requirements.in", "requirements.lock"] {
        fs::copy(source.join("pod").join(file), folder.join("pod").join(file)).unwrap();
    }
    let case = folder.join("cases/one");
    fs::create_dir_all(&case).unwrap();
    fs::write(case.join("input.json"), json!({ "operation": "infer", "input": { "x": [1, 2] } }).to_string()).unwrap();
    fs::write(case.join("output.json"), wanted().to_string()).unwrap();
    folder
}

fn wanted() -> Value {
    let files: Vec<_> = models().into_iter().map(|(name, _)| name).collect();
    json!({ "onnx": [12.0, 26.0], "sharded": [12.0, 26.0], "files": files })
}

/// A server like the hub: it serves a file at `/REPOSITORY/resolve/REVISION/PATH`, with its folders if it has
/// some.
fn hub() -> Server {
    Server::new(|seen, _| {
        let asked = seen.path.strip_prefix(&format!("/lab/net/resolve/{REVISION}/in%20a%20folder/"));
        let found = models().into_iter().find(|(name, _)| asked == Some(name));
        found.map_or_else(|| Reply::new(404, &[], b""), |(_, bytes)| Reply::new(200, &["etag: \"1\""], &bytes))
    })
}

/// Building environments takes long: the next run reuses this one.
async fn host(hub: &Server) -> Host {
    let home = Home::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("weights-home"));
    let endpoint = hub.url.clone();
    let sources = Sources::from_variables(|name| (name == "HF_ENDPOINT").then(|| endpoint.clone().into()));
    let host = Host::open(Config::new(home).with_hob(env!("CARGO_BIN_EXE_hob")).with_sources(sources)).await.unwrap();
    // The leftovers of an interrupted run.
    for entry in host.installed().unwrap() {
        host.remove(&entry.name).await.unwrap();
    }
    for remote in host.remotes().unwrap() {
        host.remove_remote(&remote.name).await.unwrap();
    }
    host
}

#[tokio::test]
async fn models_of_several_files_are_read_by_their_own_packages() {
    let (hub, place) = (hub(), tempfile::tempdir().unwrap());
    let host = host(&hub).await;
    let x = json!({ "x": [1, 2] });

    let folder = recipe(place.path(), "weights", false);
    let plain = place.path().join("plain");
    fs::create_dir(&plain).unwrap();
    without_preload(&folder, &plain);
    fs::rename(folder.join("models"), plain.join("models")).unwrap();
    assert_eq!(alone(&host, to(&plain, "infer", x.clone())).await, (wanted(), false));
    fs::rename(plain.join("models"), folder.join("models")).unwrap();
    host.call(to(&folder, "infer", x.clone())).await.unwrap();
    zygote(&host).await;
    assert_eq!(alone(&host, to(&folder, "infer", x.clone())).await, (wanted(), true));

    let of_hub = recipe(place.path(), "weights-of-hub", true);
    let (repo, keys, now) = (place.path().join("repo"), Keys::at(place.path().join("keys")), jiff::Timestamp::now());
    let made = repository::repo_init(&repo, &keys, now).await.unwrap();
    repository::add_publisher(&repo, &keys, "test", None, now).await.unwrap();
    for recipe in [&folder, &of_hub] {
        publish(&repo, &keys, &pack(recipe).unwrap(), &recipe.join("models"), now, &Silent).await.unwrap();
    }
    host.add_remote("main", repo.to_str().unwrap(), Trust::Fingerprint(made.fingerprint.to_string())).await.unwrap();
    // One after the other: models that the first one brought must not be there for the second.
    for (name, asked_of_hub) in [("test/weights", 0), ("test/weights-of-hub", models().len())] {
        let name: RecipeName = name.parse().unwrap();
        host.add(&name, Some(&hob::model::VersionRange::ANY), None, &Consent::Required).await.unwrap();
        let call = hob::model::Call::new(&name.to_string(), "infer", x.clone()).unwrap();
        // The first pod starts a zygote, and does not wait for it.
        let (mut found, mut forked) = alone(&host, call.clone()).await;
        zygote(&host).await;
        for _ in 0..CALLS_MAX {
            assert_eq!(found, wanted(), "{name}");
            if forked {
                break;
            }
            (found, forked) = alone(&host, call.clone()).await;
        }
        assert!(forked, "{name}: no pod was forked");
        assert!(host.verify(Some(&name)).await.unwrap().iter().all(|report| report.fault.is_none()));
        assert_eq!(hub.seen().len(), asked_of_hub, "{name}");
        host.remove(&name).await.unwrap();
        assert_eq!(fs::read_dir(Path::new(env!("CARGO_TARGET_TMPDIR")).join("weights-home/data/models")).unwrap().count(), 0);
    }
    host.shutdown().await;
}
