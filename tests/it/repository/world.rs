//! A small repository with two publishers, a client's home, and functions that forge what a thief of keys
//! could sign.
//!
//! Attacks use it so that each consists of the few lines that differ.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use aws_lc_rs::signature::Ed25519KeyPair;
use hob::{
    author::{keys::Keys, pack::pack, publish::publish, repository},
    model::{Digest, Fault, Home, RecipeName, Silent},
    shelf::repository::{Client, Remote, Resolved, Trust},
};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const MODEL: &[u8] = b"weights, many of them";

pub struct World {
    pub folder: TempDir,
    pub repo: PathBuf,
    pub keys: Keys,
    pub now: Timestamp,
}

impl World {
    /// Publishes `hob/echo` 0.1.0 with glue and a model, and, by the publisher `alice`, `alice/shout` 0.1.0.
    pub async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let (repo, keys) = (folder.path().join("repo"), Keys::at(folder.path().join("keys")));
        let now = Timestamp::now();
        let made = repository::repo_init(&repo, &keys, now).await.unwrap();
        assert_eq!(made.fingerprint, Digest::of(&fs::read(&made.root).unwrap()));
        let world = World { folder, repo, keys, now };
        for publisher in ["hob", "alice"] {
            repository::add_publisher(&world.repo, &world.keys, publisher, None, now).await.unwrap();
        }
        world.publish("hob/echo", "0.1.0").await.unwrap();
        world.publish("alice/shout", "0.1.0").await.unwrap();
        world
    }

    pub async fn publish(&self, name: &str, version: &str) -> Result<hob::author::publish::Published, Fault> {
        let recipe = self.recipe(name, version);
        publish(&self.repo, &self.keys, &pack(&recipe).unwrap(), &recipe.join("models"), self.now, &Silent).await
    }

    pub fn recipe(&self, name: &str, version: &str) -> PathBuf {
        let folder = self.folder.path().join("recipes").join(name);
        write_recipe(&folder, name, version);
        folder
    }

    /// A home that trusts this repository's first root.
    pub async fn home(&self, name: &str) -> Home {
        let home = Home::at(self.folder.path().join(name));
        let root = fs::read(self.repo.join("metadata/1.root.json")).unwrap();
        Remote::pin(&home, "main", "/nowhere", Trust::Root(root)).await.unwrap();
        home
    }

    pub async fn client(&self, home: &Home) -> Client {
        open(home, self.repo.to_str().unwrap()).await
    }

    pub fn metadata(&self, file: &str) -> PathBuf {
        self.repo.join("metadata").join(file)
    }

    /// The current file of a role, e.g. `3.hob.json`.
    pub fn current(&self, role: &str) -> String {
        let latest = |role: &str| {
            let versions = fs::read_dir(self.repo.join("metadata")).unwrap().filter_map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.strip_suffix(&format!(".{role}.json")).and_then(|version| version.parse::<u64>().ok())
            });
            versions.max().unwrap()
        };
        if role == "timestamp" { "timestamp.json".to_owned() } else { format!("{}.{role}.json", latest(role)) }
    }

    /// Signs the next version of a targets role after `change`, and pins it: a thief of that role's key and
    /// the online key could publish this.
    pub fn forge(&self, role: &str, key: &str, change: impl FnOnce(&mut Value)) {
        let (file, bytes) = self.resign(role, key, |signed| {
            bump(signed);
            change(signed);
        });
        let version: u64 = file.split('.').next().unwrap().parse().unwrap();
        fs::write(self.metadata(&file), &bytes).unwrap();
        self.forge_snapshot(|signed| signed["meta"][format!("{role}.json")] = pin(version, &bytes));
    }

    pub fn forge_snapshot(&self, change: impl FnOnce(&mut Value)) {
        let (file, bytes) = self.resign("snapshot", "online", |signed| {
            bump(signed);
            change(signed);
        });
        let version: u64 = file.split('.').next().unwrap().parse().unwrap();
        fs::write(self.metadata(&file), &bytes).unwrap();
        self.forge_timestamp(|signed| {
            bump(signed);
            signed["meta"]["snapshot.json"] = pin(version, &bytes);
        });
    }

    pub fn forge_timestamp(&self, change: impl FnOnce(&mut Value)) {
        let (file, bytes) = self.resign("timestamp", "online", change);
        fs::write(self.metadata(&file), &bytes).unwrap();
    }

    fn resign(&self, role: &str, key: &str, change: impl FnOnce(&mut Value)) -> (String, Vec<u8>) {
        let file: Value = serde_json::from_slice(&fs::read(self.metadata(&self.current(role))).unwrap()).unwrap();
        let mut signed = file["signed"].clone();
        change(&mut signed);
        let key_file: Value = serde_json::from_slice(&fs::read(self.keys.path(key)).unwrap()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(&hex::decode(key_file["private"].as_str().unwrap()).unwrap()).unwrap();
        let bytes = sigstore_tuf::canonical_json::to_canonical_bytes(&signed).unwrap();
        let signature = json!({ "keyid": self.keys.load(key).unwrap().id().unwrap(), "sig": hex::encode(pair.sign(&bytes)) });
        let name = if role == "timestamp" { "timestamp.json".to_owned() } else { format!("{}.{role}.json", signed["version"]) };
        (name, serde_json::to_vec(&json!({ "signatures": [signature], "signed": signed })).unwrap())
    }

    /// A copy of the repository's current state.
    pub fn copy(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        copy(&self.repo, &to);
        to
    }
}

fn bump(signed: &mut Value) {
    signed["version"] = (signed["version"].as_u64().unwrap() + 1).into();
}

pub fn pin(version: u64, bytes: &[u8]) -> Value {
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": Digest::of(bytes).hex() } })
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

pub async fn open(home: &Home, url: &str) -> Client {
    Remote::open(home, "main", url).await.unwrap()
}

pub fn name(text: &str) -> RecipeName {
    text.parse().unwrap()
}

pub async fn resolve(client: &mut Client, recipe: &str) -> Result<Resolved, Fault> {
    client.resolve(&name(recipe), &hob::model::VersionRange::ANY).await
}

pub fn yesterday(now: Timestamp) -> String {
    let day = now.checked_sub(24.hours()).unwrap();
    Timestamp::from_second(day.as_second()).unwrap().to_string()
}

pub fn days_later(now: Timestamp, days: i64) -> Timestamp {
    now.checked_add((days * 24).hours()).unwrap()
}

/// Every file below `folder`, by relative path.
pub fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => drop(files.insert(path.strip_prefix(folder).unwrap().display().to_string(), fs::read(&path).unwrap())),
            }
        }
    }
    files
}

/// A recipe with one of everything.
pub fn write_recipe(folder: &Path, name: &str, version: &str) {
    let manifest = format!(
        r#"name = "{name}"
version = "{version}"
license = "Apache-2.0"
summary = "Gives back what it got"
capability = "echo@1"
hob = "0.1"

[glue]
world = "0.1"

[pod]
runtime = "python"
entry = "echo:Echo"
python = ">=3.9"
lock = "pod/requirements.lock"

[[model]]
name = "weights.bin"
sha256 = "{}"
bytes = {}

[operations.echo]
summary = "The input, again"
input = {{ type = "object", required = ["text"] }}
output = {{ type = "object" }}
"#,
        Digest::of(MODEL),
        MODEL.len()
    );
    let files: &[(&str, &[u8])] = &[
        ("recipe.toml", manifest.as_bytes()),
        ("glue.wasm", b"\0asm\x0d\0\x01\0 a component, for what a bundle cares"),
        ("pod/echo.py", b"class Echo:\n    def echo(self, text):\n        return {'text': text}\n"),
        ("pod/helpers/__init__.py", b""),
        ("pod/requirements.lock", b"numpy==2.3.1 \\\n    --hash=sha256:1111111111111111111111111111111111111111111111111111111111111111\n"),
        ("cases/hello/input.json", br#"{"operation": "echo", "input": {"text": "hello"}}"#),
        ("cases/hello/output.json", br#"{"text": "hello"}"#),
        ("README.md", b"# Echo\n"),
        ("LICENSE", b"Apache-2.0\n"),
        ("models/weights.bin", MODEL),
        // None of these may be in a bundle.
        ("pod/__pycache__/echo.pyc", b"stale"),
        ("pod/.venv/bin/python", b"not ours"),
        (".git/config", b"not ours"),
        ("glue/src/lib.rs", b"not ours"),
        ("notes.txt", b"not ours"),
    ];
    for (path, bytes) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
