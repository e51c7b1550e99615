//! The first inputs of every fuzz target, made from real things: the recipes here, the byte vectors of the
//! protocol, a bundle that was packed and a repository that was signed.
//! `cargo test --lib write_the_seeds -- --ignored` writes them anew.
//!
//! Apart from the properties, because it is the one thing here that knows what good input looks like.

use std::{fs, path::Path};

use hob::{
    author::pack::pack,
    fuzzing::door::{CallBody, event_line, last_line},
    model::{Blob, Code, Digest, Document, Event, Fault, Manifest, Outcome},
    shelf::bundle::index::Index,
};
use serde_json::{Value, json};

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
}

/// One of every key that a manifest may have.
const EVERYTHING: &str = r##"name = "hob/echo"
version = "0.1.0"
license = "Apache-2.0"
summary = "One of everything"
capability = "echo@1"
hob = "0.1"

[glue]
world = "0.1"
source = "glue"

[pod]
runtime = "python"
entry = "echo:Echo"
python = ">=3.9"
lock = "pod/requirements.lock"
start_timeout_ms = 1000
min = 1
max = 2
idle_timeout_ms = 1000
concurrency = 2
threads = 1
warm_up = "pod/warm.py"
env = { OMP_NUM_THREADS = "1" }

[pod.recycle]
calls = 5
age_ms = 1000
memory_bytes = 1048576

[[model]]
name = "weights.bin"
sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
bytes = 21

[[model]]
name = "fetched.bin"
sha256 = "2222222222222222222222222222222222222222222222222222222222222222"
bytes = 22
from = "https://example.org/models/ä.bin?version=3"

[[model]]
name = "of-the-hub.bin"
sha256 = "3333333333333333333333333333333333333333333333333333333333333333"
bytes = 23
from = "hf:owner/name@refs/pr/1:onnx/model.onnx"

[operations.echo]
summary = "The input, again"
streaming = false
deadline_ms = 1000
idempotent = true
progress_interval_ms = 1000
batch = { items = 8, wait_ms = 2, cost = "/text", cost_max = 100 }
output = { type = ["object", "null"], minProperties = 0, additionalProperties = { "$ref" = "#/$defs/t" }, "$defs" = { t = { type = "string", pattern = "^a+b*$", maxLength = 9 } } }

[operations.echo.input]
type = "object"
required = ["text"]
properties.text = { type = "string", minLength = 1, format = "uri" }
properties.texts = { type = "array", items = { type = "number", minimum = 1e3 }, uniqueItems = true, contains = { const = 1 } }
allOf = [{ if = { required = ["a"] }, then = { not = { type = "null" } } }]
"##;

const HOB_TOML: &str = r#"[[remote]]
name = "main"
url = "https://recipes.example/repo"

[recipes]
"hob/ocr" = "=1.2.3"   # pinned

[python]
path = "/usr/bin/python3"

[uv]
path = "/opt/uv"

[environments]
index_url = "https://example.org/simple"
"#;

const HOB_LOCK: &str = r#"version = 1

[[recipe]]
name = "hob/echo"
version = "0.1.0"
remote = "main"
publisher = "hob"
key_ids = ["b", "a"]
sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
index_sha256 = "2222222222222222222222222222222222222222222222222222222222222222"

[recipe.environment]
digest = "3333333333333333333333333333333333333333333333333333333333333333"
tree = "4444444444444444444444444444444444444444444444444444444444444444"

[[recipe.model]]
name = "weights.bin"
sha256 = "5555555555555555555555555555555555555555555555555555555555555555"
bytes = 21
"#;

#[test]
#[ignore = "writes fuzz/corpus/*/seed-*"]
fn write_the_seeds() {
    manifests();
    frames();
    bundles();
    repositories();
    words();
}

fn manifests() {
    Manifest::parse(EVERYTHING, "recipe.toml").unwrap();
    put("manifest", "everything", EVERYTHING);
    for recipe in ["echo", "sentence-embeddings"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(recipe).join("recipe.toml")).unwrap();
        put("manifest", recipe, text);
    }
    let executable =
        EVERYTHING.replace("runtime = \"python\"", "runtime = \"executable\"").replace("entry = \"echo:Echo\"", "entry = \"pod/echo\"");
    let executable: String = executable
        .lines()
        .filter(|line| !["python =", "lock =", "warm_up ="].iter().any(|key| line.starts_with(key)))
        .map(|line| format!("{line}\n"))
        .collect();
    Manifest::parse(&executable, "recipe.toml").unwrap();
    put("manifest", "executable", executable);
    put("home_files", "config", HOB_TOML);
    put("home_files", "config-inline", "remote = [{ name = \"a\", url = \"file:/x\" }]\nrecipes = { \"a/b\" = \"^1\" }\n");
    put("home_files", "lock", HOB_LOCK);
    put("home_files", "lock-empty", "version = 1\n");
}

fn frames() {
    let vectors: Value = serde_json::from_str(include_str!("../tests/vectors/frames.json")).unwrap();
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let mut all = Vec::new();
    for (kind, key) in [("good", "frame"), ("bad", "frame"), ("streams", "bytes")] {
        for (at, vector) in vectors[kind].as_array().unwrap().iter().enumerate() {
            let frame = bytes(&vector[key]);
            // The maximum that the protocol announces, and cuts of 5 and 7 bytes.
            put("wire_frames", &format!("{kind}-{at}"), [&[3, 2, 5, 7][..], &frame].concat());
            if kind == "good" {
                all.extend_from_slice(&frame);
            }
        }
    }
    put("wire_frames", "all", [&[1, 3, 1, 16, 40][..], &all].concat());
}

/// Name, kind, content, and a size that is not the content's.
type Entry<'a> = (&'a [u8], u8, &'a [u8], Option<&'a [u8; 12]>);

/// The recipe `recipes/echo` without its glue, which would be most of the bytes.
fn bundles() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/echo");
    copy(&source, folder.path());
    let manifest = fs::read_to_string(folder.path().join("recipe.toml")).unwrap();
    let table: toml::Table = toml::from_str(&manifest).unwrap();
    let without: toml::Table = table.into_iter().filter(|(key, _)| key != "glue").collect();
    fs::write(folder.path().join("recipe.toml"), toml::to_string(&without).unwrap()).unwrap();
    let packed = pack(folder.path()).unwrap();
    put("bundle", "echo", [&[0][..], &packed.bytes].concat());
    put("bundle", "echo-index", [&[2][..], &packed.bytes, &serde_json::to_vec(&packed.index).unwrap()].concat());
    Index::read(serde_json::to_value(&packed.index).unwrap()).unwrap();
    let small = |entries: &[Entry]| {
        let mut bytes = vec![1];
        for (path, kind, content, size) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..path.len()].copy_from_slice(path);
            header.set_entry_type(tar::EntryType::new(*kind));
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            if *kind == b'1' || *kind == b'2' {
                header.set_link_name("../../recipe.toml").unwrap();
            }
            if let Some(size) = size {
                header.as_old_mut().size = **size;
            }
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(1 + (bytes.len() - 1).next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    };
    put("bundle", "two", small(&[(b"README.md", b'0', b"read", None), (b"pod/a.py", b'0', b"a = 1", None)]));
    put("bundle", "none", small(&[]));
    put("bundle", "symlink", small(&[(b"pod/a", b'2', b"", None), (b"pod/a/x", b'0', b"x", None)]));
    put("bundle", "hard-link", small(&[(b"pod/a", b'1', b"", None)]));
    put("bundle", "upwards", small(&[(b"pod/../../recipe.toml", b'0', b"x", None)]));
    put("bundle", "twice", small(&[(b"pod/a", b'0', b"x", None), (b"pod/a", b'0', b"y", None)]));
    put("bundle", "file-and-folder", small(&[(b"pod/a", b'0', b"x", None), (b"pod/a/b", b'0', b"y", None)]));
    put("bundle", "long-name", small(&[(b"././@LongLink", b'L', b"pod/../../../x\0", None), (b"pod/a", b'0', b"x", None)]));
    put("bundle", "pax", small(&[(b"pax", b'x', b"30 path=../../../recipe.toml.x\n", None), (b"pod/a", b'0', b"x", None)]));
    put("bundle", "sparse", small(&[(b"pod/a", b'S', b"x", None)]));
    put("bundle", "lying-size", small(&[(b"pod/a", b'0', b"x", Some(b"77777777777\0"))]));
    put("bundle", "huge-size", small(&[(b"pod/a", b'0', b"x", Some(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"))]));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true if entry.file_name() != "glue" => copy(&entry.path(), &to.join(entry.file_name())),
            true => {}
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// The shape of what `hob repo init` and `hob publish` sign, under the one key of the target.
fn repositories() {
    let (id, key) = super::properties::tuf_metadata::key();
    let head = |kind: &str, version: u64| json!({ "_type": kind, "spec_version": "1.0.31", "version": version, "expires": "2034-01-01T00:00:00Z" });
    let with = |mut value: Value, key: &str, more: Value| {
        value[key] = more;
        value
    };
    let timestamp = with(head("timestamp", 1), "meta", json!({ "snapshot.json": { "version": 1 } }));
    let snapshot = with(head("snapshot", 1), "meta", json!({ "targets.json": { "version": 1 }, "hob.json": { "version": 1 } }));
    let role = json!({ "name": "hob", "keyids": [id], "threshold": 1, "terminating": true, "paths": ["hob/*/*"] });
    let delegations = json!({ "keys": { id.clone(): key }, "roles": [role] });
    let targets = with(with(head("targets", 1), "targets", json!({})), "delegations", delegations);
    let custom = json!({
        "name": "hob/echo", "version": "0.1.0", "hob": "^0.1", "summary": "Echo", "license": "Apache-2.0", "capability": "echo@1",
        "published": "2029-01-01T00:00:00Z",
        "models": [{ "name": "weights.bin", "sha256": Digest::of(b"w").hex(), "bytes": 1 }],
        "files": { "recipe.toml": { "sha256": Digest::of(b"m").hex(), "bytes": 1, "executable": false }, "pod/a.py": { "sha256": Digest::of(b"p").hex(), "bytes": 1, "executable": true } },
    });
    let bundle = json!({ "length": 2048, "hashes": { "sha256": Digest::of(b"b").hex() }, "custom": custom });
    let model = json!({ "length": 1, "hashes": { "sha256": Digest::of(b"w").hex() } });
    let listed = json!({ "hob/echo/0.1.0.hob": bundle, format!("hob/echo/{}.model", Digest::of(b"w").hex()): model });
    let publisher = with(with(head("targets", 1), "targets", listed), "custom", json!({}));
    let joined = |parts: &[&Value]| parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n===\n");
    put("tuf_metadata", "good", joined(&[&timestamp, &snapshot, &targets, &publisher]));
    let expired = with(timestamp.clone(), "expires", json!("2029-01-01T00:00:00Z"));
    put("tuf_metadata", "expired", joined(&[&expired, &snapshot, &targets, &publisher]));
    put("tuf_metadata", "no-publisher", joined(&[&timestamp, &snapshot, &targets]));
    put("tuf_metadata", "raw", "{\"signatures\":[],\"signed\":{\"_type\":\"timestamp\"}}\n===\nno JSON");
    let mut two = publisher.clone();
    two["targets"]["hob/echo/0.2.0.hob"] = two["targets"]["hob/echo/0.1.0.hob"].clone();
    two["targets"]["hob/echo/0.2.0.hob"]["custom"]["version"] = "0.2.0".into();
    two["targets"]["hob/echo/0.2.0.hob"]["custom"]["hob"] = ">=9".into();
    put("tuf_metadata", "two-versions", joined(&[&timestamp, &snapshot, &targets, &two]));
}

fn words() {
    put("glue_fault", "known", "out_of_memory\0no room\0use less\0{\"bytes\":1}");
    put("glue_fault", "unknown", "tampered\0\0\0[1, 2.5, {\"a\": null}]");
    put("glue_fault", "odd", "A b\0x\0\0no JSON");
    put("glue_fault", "empty", "");
    let input = Document::parse("{\"text\": \"hello\", \"n\": [1e2, -3]}", "input").unwrap();
    let blob = Blob::new("audio", "audio/wav", vec![0, 10, 255]);
    let mut call = CallBody::of("hob/echo", "echo", &input).unwrap();
    call.carry(std::slice::from_ref(&blob), None).unwrap();
    put("call_lines", "call", serde_json::to_vec(&call).unwrap());
    put(
        "call_lines",
        "call-all",
        r#"{"recipe":"a/b","operation":"c","input":1,"deadline_ms":5,"priority":"bulk","one_shot":true,"blobs":[{"name":"b","media_type":"text/plain","base64":"AAo="}]}"#,
    );
    let mut outcome = Outcome::new("hob/echo", "0.1.0", input, vec![blob]);
    outcome.wall_ms = 1.5;
    let lines = [
        event_line(&Event::Progress { data: json!({ "done": 1 }) }, None).unwrap(),
        event_line(&Event::Chunk { data: json!("a").into(), blobs: outcome.blobs.clone() }, None).unwrap(),
        event_line(&Event::Log { level: "info".into(), message: "two\nlines".into() }, None).unwrap(),
        b"\n".to_vec(),
        last_line(&Ok(outcome), |fault| fault, None),
    ];
    put("call_lines", "answer", lines.concat());
    put("call_lines", "fault", last_line(&Err(Fault::new(Code::Overloaded, "full").hint("wait").with("n", 1)), |fault| fault, None));
}
