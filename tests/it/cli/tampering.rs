//! One byte of signed content is changed: `hob add` refuses it by the name of the file, and installs nothing.
//!
//! The whole program stands between the changed byte and the shelf.

use std::{fs, path::Path};

use hob::{author::keys::Keys, author::repository as writer, model::Code};
use jiff::ToSpan;

use super::rig::{LOCK, Rig, Signed, TINY, current, glue, put, target, url, write_recipe, write_tiny};
use crate::repository::server::Server;

/// Flips bit 0 of the middle byte of `part` in the file.
fn flip(file: &Path, part: &[u8]) {
    let good = fs::read(file).unwrap();
    let at = good.windows(part.len()).position(|window| window == part).expect("the part is in the file") + part.len() / 2;
    let mut bytes = good.clone();
    bytes[at] ^= 1;
    fs::remove_file(file).unwrap();
    fs::write(file, &bytes).unwrap();
    let found = fs::read(file).unwrap();
    assert_eq!(found.iter().zip(&good).filter(|(a, b)| a != b).count(), 1, "exactly one byte is another");
    assert_eq!(found.len(), good.len());
}

/// Puts a bundle of the same recipe with other files in place of the signed one.
fn replace_bundle(repository: &Path, change: impl FnOnce(&Path)) {
    let rig = Rig::new();
    let folder = rig.folder.path().join("tiny");
    write_tiny(&folder, "0.1.0", MODEL_BYTES);
    change(&folder);
    let bundle = target(repository, "lab/tiny", ".0.1.0.hob");
    let good = fs::read(&bundle).unwrap();
    fs::remove_file(&bundle).unwrap();
    rig.hob(&["pack", folder.to_str().unwrap(), "--output", bundle.to_str().unwrap()]).well();
    assert_ne!(fs::read(&bundle).unwrap(), good, "another bundle");
}

const MODEL_BYTES: usize = 5_000;

/// A change of the repository, the file that the fault must name, and its code.
type Misdeed = (&'static str, Box<dyn Fn(&Path)>, &'static str, Code);

fn misdeeds() -> Vec<Misdeed> {
    let mut all: Vec<Misdeed> = Vec::new();
    let manifest = "summary = \"One of everything\"".as_bytes().to_vec();
    let case = br#"{"operation": "echo", "input": {"text": "hello"}}"#.to_vec();
    for (file, part) in [
        ("glue.wasm", glue().to_vec()),
        ("pod/tiny.py", TINY.into()),
        ("recipe.toml", manifest),
        ("pod/requirements.lock", LOCK.into()),
        ("cases/hello/input.json", case),
    ] {
        all.push((file, Box::new(move |at| flip(&target(at, "lab/tiny", ".0.1.0.hob"), &part)), file, Code::BundleInvalid));
    }
    for (role, name) in [
        ("root", "2.root.json"),
        ("timestamp", "timestamp.json"),
        ("snapshot", ".snapshot.json"),
        ("targets", ".targets.json"),
        ("lab", ".lab.json"),
    ] {
        let flipped = move |at: &Path| {
            let file = current(at, role);
            flip(&file, &fs::read(&file).unwrap());
        };
        all.push((role, Box::new(flipped), name, Code::MetadataInvalid));
    }
    all.push((
        "an extra file",
        Box::new(|at| replace_bundle(at, |folder| put(&folder.join("pod/more.py"), b"import os\n"))),
        "pod/more.py",
        Code::BundleInvalid,
    ));
    let missing = |at: &Path| replace_bundle(at, |folder| fs::remove_file(folder.join("README.md")).unwrap());
    all.push(("a missing file", Box::new(missing), "README.md", Code::BundleInvalid));
    let altered = |at: &Path| replace_bundle(at, |folder| put(&folder.join("pod/tiny.py"), b"class Tiny:\n    pass\n"));
    all.push(("an altered file", Box::new(altered), "pod/tiny.py", Code::BundleInvalid));
    let weights = |at: &Path| {
        let file = target(at, "lab/tiny", ".model");
        flip(&file, &fs::read(&file).unwrap());
    };
    all.push(("a model", Box::new(weights), "weights.bin", Code::Tampered));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_byte_or_one_file_more_or_less_is_refused_by_name_and_nothing_is_installed() {
    let signed = Signed::new();
    signed.publish_tiny("0.1.0", MODEL_BYTES);
    signed.rotate().await;
    for (number, (what, misdeed, named, code)) in misdeeds().into_iter().enumerate() {
        let bad = signed.copy(&number.to_string());
        misdeed(&bad);
        let server = Server::serve(bad.clone()).await;
        for url in [url(&bad), server.url.clone()] {
            let rig = Rig::new();
            rig.trust(&url, &bad);
            let ran = rig.hob(&["add", "lab/tiny"]);
            assert_eq!(ran.exit, Some(5), "{what}: {ran:#?}");
            ran.refused(code, &[named]);
            assert!(ran.stderr.lines().any(|line| line.starts_with("error[") && line.contains(named)), "{what}: {ran:#?}");
            rig.assert_empty();
        }
    }
    // The unchanged repository is accepted over the same transports, so the refusals are due to the changes.
    let server = Server::serve(signed.repository.clone()).await;
    for url in [signed.url(), server.url.clone()] {
        let rig = Rig::new();
        rig.trust(&url, &signed.repository);
        rig.hob(&["add", "lab/tiny"]).well();
        assert_eq!(rig.installed(), ["lab/tiny 0.1.0"]);
        let answer = rig.hob(&["call", "lab/tiny", "echo", r#"{"text": "hello"}"#]);
        answer.well();
        assert_eq!(answer.json(), serde_json::json!({ "text": "hello", "six": "1.17.0", "bytes": MODEL_BYTES }));
    }
}

#[test]
fn a_flipped_first_root_is_refused_where_it_is_pinned() {
    let signed = Signed::new();
    let first = signed.repository.join("metadata/1.root.json");
    flip(&first, &fs::read(&first).unwrap());
    let rig = Rig::new();
    let by_fingerprint = rig.hob(&["remote", "add", "main", &signed.url(), "--fingerprint", &signed.fingerprint]);
    by_fingerprint.refused(Code::FingerprintMismatch, &["`1.root.json`", &signed.fingerprint]);
    let by_file = rig.hob(&["remote", "add", "main", &signed.url(), "--root", first.to_str().unwrap()]);
    by_file.refused(Code::MetadataInvalid, &["remote `main`", "root"]);
    assert_eq!((by_fingerprint.exit, by_file.exit), (Some(5), Some(5)));
    assert_eq!(rig.hob(&["remote", "list", "--json"]).json(), serde_json::json!([]));
    assert_eq!(fs::read_dir(rig.home.join("data/remotes")).into_iter().flatten().count(), 0, "nothing is pinned");
}

#[test]
fn an_older_timestamp_than_was_seen_is_refused_by_name() {
    let signed = Signed::new();
    signed.publish_plain("lab/plain", "0.1.0");
    let timestamp = signed.repository.join("metadata/timestamp.json");
    let older = fs::read(&timestamp).unwrap();
    signed.refresh();
    assert_ne!(fs::read(&timestamp).unwrap(), older, "there is a newer one");
    let rig = Rig::new();
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/plain"]).well();
    rig.hob(&["remove", "lab/plain"]).well();
    fs::write(&timestamp, &older).unwrap();
    let ran = rig.hob(&["add", "lab/plain"]);
    ran.refused(Code::Rollback, &["`timestamp.json`", "older"]);
    assert_eq!(ran.exit, Some(5));
    assert_eq!(rig.installed(), [""; 0]);
    assert_eq!(fs::read_dir(rig.home.join("data/staging")).unwrap().count(), 0);
    assert!(!rig.home.join("data/recipes/lab/plain").exists());
}

#[tokio::test]
async fn an_expired_repository_is_refused_and_what_is_installed_goes_on_working() {
    let folder = tempfile::tempdir().unwrap();
    let (old, keys) = (folder.path().join("old"), Keys::at(folder.path().join("keys")));
    let past = jiff::Timestamp::now().checked_sub((24 * 60).hours()).unwrap();
    writer::repo_init(&old, &keys, past).await.unwrap();
    writer::add_publisher(&old, &keys, "lab", None, past).await.unwrap();
    let recipe = folder.path().join("plain");
    write_recipe(&recipe, "lab/plain", "0.1.0", "class Subject:\n    def run(self, input):\n        return input\n", "python = \">=3.9\"");
    let packed = hob::author::pack::pack(&recipe).unwrap();
    hob::author::publish::publish(&old, &keys, &packed, &recipe.join("models"), past, &hob::model::Silent).await.unwrap();
    let rig = Rig::new();
    rig.trust(&url(&old), &old);
    let refused = rig.hob(&["add", "lab/plain"]);
    refused.refused(Code::MetadataExpired, &["`timestamp.json`", "expired since"]);
    assert_eq!(refused.exit, Some(5));
    rig.assert_empty();

    // Signed again, it installs; expired again, it does not affect calls.
    let timestamp = old.join("metadata/timestamp.json");
    let expired = fs::read(&timestamp).unwrap();
    writer::refresh(&old, &keys, jiff::Timestamp::now()).await.unwrap();
    rig.hob(&["add", "lab/plain"]).well();
    fs::write(&timestamp, expired).unwrap();
    assert_eq!(rig.hob(&["call", "lab/plain", "run", "[1]"]).well(), "[1]");
}
