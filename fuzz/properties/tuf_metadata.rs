//! A repository whose every role is hostile: what a client makes of it is a recipe within all bounds or a
//! fault of the repository's, and its own home holds its own state and nothing else.
//!
//! Input: the `signed` parts of metadata files, with a line `===` between them. They are signed here with the
//! key of the one root, because a signature stops a mutation before it means anything; what is no JSON, or
//! says itself who signed it, lies there as it came. Each goes under the name that its own type and version
//! give it, the second `targets` as the publisher's.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use hob::{
    model::{Code, Digest, Fault, Home, RecipeName, VersionRange, limits, path_pattern::is_inner_path},
    shelf::repository::{Client, Remote, Resolved, Trust, tuf::canonical},
};
use jiff::Timestamp;
use semver::Version;
use serde_json::{Value, json};

/// The whole of what a client of the repository asks of it in this test: any version of this.
const RECIPE: &str = "hob/echo";

struct Signer {
    pair: Ed25519KeyPair,
    key: Value,
    id: String,
    root: Vec<u8>,
}

/// One key for every role, always the same, so that kept inputs go on meaning what they meant.
fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(|| {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed of 32 bytes");
        let key = json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": hex::encode(pair.public_key().as_ref()) } });
        let id = Digest::of(&canonical(&key).expect("no floats")).hex();
        let mut signer = Signer { pair, key, id, root: Vec::new() };
        signer.root = signer.sign(&signer.root_of(1)).expect("no floats");
        signer
    })
}

impl Signer {
    fn root_of(&self, version: u64) -> Value {
        let role = json!({ "keyids": [self.id], "threshold": 1 });
        let roles = json!({ "root": role, "timestamp": role, "snapshot": role, "targets": role });
        json!({
            "_type": "root", "spec_version": "1.0.31", "version": version, "expires": "2035-01-01T00:00:00Z", "consistent_snapshot": true,
            "keys": { self.id.clone(): self.key }, "roles": roles,
        })
    }

    fn sign(&self, signed: &Value) -> Option<Vec<u8>> {
        let bytes = canonical(signed).ok()?;
        let signature = json!({ "keyid": self.id, "sig": hex::encode(self.pair.sign(&bytes)) });
        serde_json::to_vec(&json!({ "signatures": [signature], "signed": signed })).ok()
    }
}

/// The key of every role and its id: what a seed has to name.
pub fn key() -> (String, Value) {
    (signer().id.clone(), signer().key.clone())
}

pub fn holds(bytes: &[u8]) {
    thread_local! {
        static RUNTIME: RefCell<tokio::runtime::Runtime> =
            RefCell::new(tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
    }
    let world = tempfile::Builder::new().prefix("hob-fuzz-").tempdir().expect("a folder");
    lay_out(&world.path().join("repo/metadata"), bytes);
    RUNTIME.with_borrow(|runtime| runtime.block_on(visit(world.path())));
}

fn lay_out(folder: &Path, bytes: &[u8]) {
    fs::create_dir_all(folder).expect("a folder");
    let names = ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.hob.json", "2.root.json"];
    let parts: Vec<&[u8]> = split(bytes);
    let mut targets = 0;
    for (part, name) in parts.iter().zip(names) {
        let value = serde_json::from_slice::<Value>(part).ok().filter(|value| value.is_object() && value.get("signatures").is_none());
        let Some(signed) = value else {
            fs::write(folder.join(name), part).expect("a file");
            continue;
        };
        let version = signed["version"].as_u64().unwrap_or(1);
        let name = match signed["_type"].as_str() {
            Some("timestamp") => "timestamp.json".to_owned(),
            Some("targets") if targets > 0 => format!("{version}.hob.json"),
            Some("targets") => {
                targets += 1;
                format!("{version}.targets.json")
            }
            Some(kind @ ("root" | "snapshot")) => format!("{version}.{kind}.json"),
            _ => name.to_owned(),
        };
        // Floats have no canonical form: such a file nobody can sign.
        let file = signer().sign(&signed).unwrap_or_else(|| part.to_vec());
        fs::write(folder.join(name), file).expect("a file");
    }
}

fn split(bytes: &[u8]) -> Vec<&[u8]> {
    const BETWEEN: &[u8] = b"\n===\n";
    let mut parts = Vec::new();
    let mut left = bytes;
    while let Some(at) = left.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        parts.push(&left[..at]);
        left = &left[at + BETWEEN.len()..];
    }
    parts.push(left);
    parts
}

async fn visit(world: &Path) {
    let home = Home::at(world.join("home"));
    let repo = world.join("repo");
    Remote::pin(&home, "main", repo.to_str().expect("UTF-8"), Trust::Root(signer().root.clone())).await.expect("a good root");
    let first = ask(&home, &repo).await;
    // Asked again, by a client that remembers what it was told: nothing was changed there, so nothing is
    // older than it was.
    let again = ask(&home, &repo).await;
    match (&first, &again) {
        (Ok(first), Ok(again)) => assert_eq!(first.sha256, again.sha256),
        (Err(first), Err(again)) => assert_eq!(first, again),
        (first, again) => panic!("at first {first:?}, and then {again:?}"),
    }
    let mut files: Vec<PathBuf> = Vec::new();
    let mut left = vec![world.join("home")];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { left.push(path) } else { files.push(path.strip_prefix(world).expect("below").to_owned()) }
        }
    }
    files.sort();
    let own = ["home/data/remotes/main/root.json", "home/data/remotes/main/trust.json", "home/state/locks/remote-main.lock"];
    assert_eq!(files, own.map(PathBuf::from), "more than its own state");
}

async fn ask(home: &Home, repo: &Path) -> Result<Resolved, Fault> {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
    let name: RecipeName = RECIPE.parse().expect("a name");
    let mut client: Client =
        Remote::open(home, "main", repo.to_str().expect("UTF-8")).await.expect("the state that it saved itself").at(now);
    let listing = client.list(None).await;
    let resolved = client.resolve(&name, &VersionRange::ANY).await;
    let fault = match resolved {
        Ok(resolved) => {
            sound(&resolved, &name);
            let listing = listing.expect("what resolves is listed");
            assert!(listing.recipes.iter().any(|listed| listed.name == name && listed.versions.contains(&resolved.version)));
            return Ok(resolved);
        }
        Err(fault) => fault,
    };
    let expected = [Code::MetadataInvalid, Code::MetadataExpired, Code::Rollback, Code::RepositoryUnreachable, Code::NotInRepository];
    for fault in listing.err().iter().chain([&fault]) {
        assert!(expected.contains(&fault.code), "{fault:?}");
        assert!(fault.message.starts_with("remote `main`") && fault.hint.is_some(), "{fault:?}");
    }
    Err(fault)
}

/// What an install takes for granted of a target that was chosen.
fn sound(resolved: &Resolved, name: &RecipeName) {
    let ours = Version::parse("0.1.0").expect("a version");
    assert!(resolved.name == *name && resolved.publisher == "hob" && resolved.target == format!("{RECIPE}/{}.hob", resolved.version));
    assert!(resolved.hob.matches(&ours) && resolved.bytes <= limits::BUNDLE_BYTES_MAX && !resolved.key_ids.is_empty());
    assert!(resolved.index.len() <= limits::BUNDLE_FILES_MAX);
    assert!(resolved.index.files().all(|(path, _)| is_inner_path(path)));
    assert!(resolved.index.files().map(|(_, file)| u128::from(file.bytes)).sum::<u128>() <= u128::from(limits::BUNDLE_BYTES_MAX));
    // Fetched before the manifest is read, so bounded by themselves.
    assert!(resolved.models.len() <= limits::MODELS_MAX, "{} models", resolved.models.len());
    for model in &resolved.models {
        assert!(model.bytes <= limits::MODEL_BYTES_MAX, "a model of {} bytes", model.bytes);
    }
}
