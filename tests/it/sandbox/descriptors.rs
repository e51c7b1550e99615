//! Every descriptor that a pod ever gets: the acts that it allows, and that the file behind it stays
//! unchanged.
//!
//! These acts (`tests/sandbox/descriptors.py`) need no names of files.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use hob::{
    host::blobs,
    model::{Blob, Call, Code, Permissions, limits::LENT_COPY_BYTES_MAX, status::ZygoteState},
};
use serde_json::{Value, json};

use super::{acts::hostile, ordinary};
use crate::support::{Rig, call, processes_below, within};

fn program() -> String {
    include_str!("../../sandbox/descriptors.py").replace("class Pod", "class Subject")
}

const MIB: usize = 1 << 20;

/// A lock on a lent file is visible to others who ask for one; no other act remains.
const LENT: &[&str] = &["lock"];

/// The acts that a pod can do on memory that it shares only with its host.
const OWN: &[&str] = &[
    "mode",
    "mode by name",
    "owner",
    "times",
    "times by name",
    "attribute",
    "attribute by name",
    "flags",
    "open to write",
    "open to read and write",
    "mapping to run",
    "lock",
];

/// The acts that a descriptor allows.
fn allowed(said: &Value) -> Vec<String> {
    let said = said.as_object().unwrap();
    assert!(said.len() > 20, "{said:?}");
    said.iter().filter(|(_, came)| *came == "ALLOWED").map(|(name, _)| name.clone()).collect()
}

fn assert_no_more(what: &str, said: &Value, most: &[&str]) {
    let beyond: Vec<_> = allowed(said).into_iter().filter(|name| !most.contains(&name.as_str())).collect();
    assert!(beyond.is_empty(), "{what}: a pod could {beyond:?}: {said}");
}

/// A file, and everything about it that could be changed.
struct Own {
    path: PathBuf,
    before: String,
}

impl Own {
    fn new(folder: &Path, name: &str, size: usize) -> Own {
        let path = folder.join(name);
        fs::write(&path, name[..1].repeat(size)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let before = Own::look(&path);
        Own { path, before }
    }

    fn look(path: &Path) -> String {
        let metadata = fs::metadata(path).unwrap();
        let mut room = [0; 256];
        let attributes = rustix::fs::listxattr(path, &mut room[..]).unwrap_or(0);
        let bytes = fs::read(path).unwrap();
        let is_whole = bytes.iter().all(|byte| *byte == bytes[0]);
        format!(
            "{:o} {}:{} {} bytes, {is_whole}, {} links, {attributes} of attributes, changed {}.{} {}.{}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.len(),
            metadata.nlink(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        )
    }

    fn assert_untouched(&self) {
        assert_eq!(Own::look(&self.path), self.before, "{}", self.path.display());
    }
}

/// Hands blobs of every kind to a pod, and checks its report of them.
async fn hand_over(rig: &Rig, call: Call, how: &str) -> Value {
    let folder = rig.folder.path();
    let (large, small) = (Own::new(folder, "large", 5 * MIB), Own::new(folder, "small", 300 << 10));
    let piped = vec![b'p'; 5 * MIB];
    let of = |own: &Own| blobs::from_file(own.path.file_name().unwrap().to_str().unwrap(), "x/y", &own.path).unwrap();
    let given = vec![
        of(&large),
        of(&small),
        blobs::from_reader("piped", "x/y", &mut &piped[..]).unwrap(),
        Blob::new("memory", "x/y", vec![b'm'; 5 * MIB]),
    ];
    let mut call = call.with_blobs(given);
    call.input = json!({"room": true}).into();
    let said = rig.host.call(call).await.unwrap().output.into_value();
    println!("{how}: {said:#}");
    assert_eq!(said["names"], json!({"large": "l", "small": "s", "piped": "p", "memory": "m"}));
    for name in ["l", "p"] {
        assert_no_more(&format!("{how}, a file that was lent ({name})"), &said["lent"][name], LENT);
        assert_eq!(allowed(&said["lent"][name]), LENT, "the acts were tried on what is there");
    }
    for name in ["s", "m"] {
        assert_no_more(&format!("{how}, memory ({name})"), &said["lent"][name], OWN);
    }
    // The pod may write to the room for a result, which keeps its size.
    let room = [OWN, &["write", "mapping to write"]].concat();
    for result in said["results"].as_array().unwrap() {
        assert_no_more(&format!("{how}, room for a result"), result, &room);
    }
    assert_eq!(said["results"].as_array().unwrap().len(), 1);
    for kind in said["held"].as_object().unwrap().keys() {
        assert!(["socket", "pipe", "device", "other"].contains(&kind.as_str()), "{how}: a pod holds a {kind}: {said}");
    }
    for device in said["held"]["device"].as_array().unwrap() {
        assert_eq!(device[0], "/dev/null");
        let most = ["write", "open to write", "open to read and write", "open emptied", "lock"];
        assert_no_more(&format!("{how}, the null device"), &device[1], &most);
    }
    large.assert_untouched();
    small.assert_untouched();
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_started_pod_is_handed_it_can_only_read() {
    let rig = ordinary::rig().await;
    let recipe = rig.python("handed", &program(), false);
    hand_over(&rig, call(&recipe, json!({})), "started").await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forked_pod_is_handed_it_can_only_read() {
    let rig = ordinary::rig().await;
    let recipe = hostile(&rig, "handed", "max = 3\npreload = [\"six\"]");
    fs::write(recipe.join("pod/subject.py"), program()).unwrap();
    rig.host.call(call(&recipe, json!({}))).await.unwrap();
    let ready = || rig.host.status().zygotes.first().is_some_and(|zygote| zygote.state == ZygoteState::Ready);
    within(60, "pods can be forked", ready).await;
    let before = rig.host.status().zygotes[0].forked;
    hand_over(&rig, call(&recipe, json!({})).one_shot(), "forked").await;
    assert!(rig.host.status().zygotes[0].forked > before);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_that_a_pod_begins_with_it_can_only_read() {
    let rig = ordinary::rig().await;
    let recipe = rig.pool("handed", &program(), "session = { mode = \"exclusive\" }", "session = true");
    let in_session = |input| call(&recipe, input).in_session("a");
    let first = rig.host.call(in_session(json!({}))).await.unwrap().output.into_value();
    assert_eq!(first["restored"], json!([]));
    let word = recipe.display().to_string().parse().unwrap();
    rig.host.checkpoint_session(&word, "a").await.unwrap().unwrap();
    rig.host.call(in_session(json!({"die": true}))).await.unwrap_err();
    let kept = large_files(&rig.folder.path().join("home/state"));
    assert_eq!(kept.len(), 1, "{kept:?}");
    let own = Own { before: Own::look(&kept[0]), path: kept[0].clone() };
    let said = rig.host.call(in_session(json!({}))).await.unwrap().output.into_value();
    let restored = said["restored"].as_array().unwrap();
    assert_eq!(restored.len(), 1, "{said}");
    assert_no_more("a checkpoint", &restored[0], LENT);
    own.assert_untouched();
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_file_can_be_lent_a_copy_is_up_to_a_bound() {
    let rig = ordinary::rig_without(&["namespaces"]).await;
    let recipe = rig.python("handed", &program(), false);
    rig.host.grant(&recipe.to_str().unwrap().parse().unwrap(), Permissions::default(), true).await.unwrap();
    let large = Own::new(rig.folder.path(), "large", 5 * MIB);
    let with = |path: &Path| call(&recipe, json!({})).with_blobs(vec![blobs::from_file("large", "x/y", path).unwrap()]);
    let said = rig.host.call(with(&large.path)).await.unwrap().output.into_value();
    assert_no_more("a copy", &said["lent"]["l"], OWN);
    large.assert_untouched();
    // The file is sparse, so nobody has to write it.
    let larger = rig.folder.path().join("larger");
    fs::File::create(&larger).unwrap().set_len(LENT_COPY_BYTES_MAX + 1).unwrap();
    let fault = rig.host.call(with(&larger)).await.unwrap_err();
    assert!(fault.code == Code::TooLarge && fault.message.contains("cannot be lent"), "{fault:?}");
    rig.close().await;
}

fn clerks(rig: &Rig) -> Vec<u32> {
    let is_clerk = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("clerk.py"));
    processes_below(rig.folder.path()).into_iter().filter(is_clerk).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_lends_to_all_and_another_takes_its_place() {
    let rig = ordinary::rig().await;
    let recipe = rig.pool("handed", &program(), "max = 2", "");
    let large = Own::new(rig.folder.path(), "large", 5 * MIB);
    let lent = || async {
        let blobs = vec![blobs::from_file("large", "x/y", &large.path).unwrap()];
        let said = rig.host.call(call(&recipe, json!({})).with_blobs(blobs)).await.unwrap().output.into_value();
        assert_eq!(allowed(&said["lent"]["l"]), LENT);
    };
    assert_eq!(clerks(&rig), [0; 0], "none without need");
    lent().await;
    let first = clerks(&rig);
    lent().await;
    assert_eq!((first.len(), &clerks(&rig)), (1, &first));
    let pid = rustix::process::Pid::from_raw(first[0] as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    within(60, "it is gone", || clerks(&rig).is_empty()).await;
    // The first call after the clerk's end gets a copy; later calls are lent the file.
    let blobs = vec![blobs::from_file("large", "x/y", &large.path).unwrap()];
    rig.host.call(call(&recipe, json!({})).with_blobs(blobs)).await.unwrap();
    lent().await;
    assert_eq!(clerks(&rig).len(), 1);
    large.assert_untouched();
    rig.close().await;
}

/// The files below a folder that are large enough to be lent.
fn large_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => found.extend(large_files(&entry.path())),
            metadata if metadata.is_file() && metadata.len() > 4 << 20 => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

#[test]
fn the_checkpoint_that_a_pod_of_an_ordinary_user_begins_with_it_can_only_read() {
    ordinary::once_more("sandbox::descriptors::the_checkpoint_that_a_pod_begins_with_it_can_only_read");
}

#[test]
fn what_a_started_pod_of_an_ordinary_user_is_handed_it_can_only_read() {
    ordinary::once_more("sandbox::descriptors::what_a_started_pod_is_handed_it_can_only_read");
}

#[test]
fn what_a_forked_pod_of_an_ordinary_user_is_handed_it_can_only_read() {
    ordinary::once_more("sandbox::descriptors::what_a_forked_pod_is_handed_it_can_only_read");
}
