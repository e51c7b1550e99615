//! Administers a signed repository of static files: makes one, adds a publisher, re-signs, changes a key.
//!
//! Every step has the same shape (see `Step`):
//!
//! 1. Change roles in memory.
//! 2. Sign them.
//! 3. Let a client that knows the present state load the result.
//! 4. Write the files.
//!
//! `timestamp.json` is the only file that is ever replaced, after all files that it vouches for. So a step
//! that is interrupted at any file leaves a repository that clients load, and the step can be repeated.

use crate::disk::look;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    keys::{Keys, SigningKey, check_public, key_id, public_key},
    signed::{Role, pin},
};
use crate::{
    model::{Code, Digest, Fault, act, hint, id::is_name, limits, shown},
    shelf::{
        durable,
        files::locks::{self, Held},
        repository::rehearsal::rehearse,
    },
};

/// Key files: `root` and `targets` stay offline, `online` signs snapshot and timestamp.
const ROOT: &str = "root";
const TARGETS: &str = "targets";
const ONLINE: &str = "online";

/// Names that no publisher may have, because they are roles or key files.
const RESERVED: [&str; 6] = [ROOT, TARGETS, ONLINE, "snapshot", "timestamp", "security"];

/// A new repository.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Initialised {
    /// SHA-256 of `1.root.json`, for `hob remote add --fingerprint`.
    pub fingerprint: Digest,
    /// Path of `1.root.json`.
    pub root: PathBuf,
    /// Warnings for the maintainer.
    pub warnings: Vec<String>,
}

/// Makes a repository in `dir`, with keys from `keys`; missing keys are made there.
///
/// Errors: `already_published` if there is one, `key_invalid`, `io`.
pub async fn repo_init(dir: &Path, keys: &Keys, now: Timestamp) -> Result<Initialised, Fault> {
    let _lock = lock(dir).await?;
    let metadata = dir.join("metadata");
    let first = metadata.join("1.root.json");
    if look::is_there(&metadata.join("timestamp.json"))? {
        return Err(Fault::new(Code::AlreadyPublished, format!("{} is a repository already", dir.display()))
            .hint(hint![act::repo_refresh(), " signs it again; a new repository needs an empty folder"]));
    }
    let (root_key, targets_key, online_key) =
        (keys.load_or_generate(ROOT)?, keys.load_or_generate(TARGETS)?, keys.load_or_generate(ONLINE)?);
    let mut root = Role::new("root", now, limits::OFFLINE_ROLE_DAYS)?;
    root.signed.insert("consistent_snapshot".into(), true.into());
    for (role, key) in [("root", &root_key), ("targets", &targets_key), ("snapshot", &online_key), ("timestamp", &online_key)] {
        give_key(&mut root, role, key)?;
    }
    let root = root.sign(&[&root_key])?;

    let mut targets = Role::new("targets", now, limits::OFFLINE_ROLE_DAYS)?;
    targets.object(&["targets"])?;
    targets.object(&["delegations", "keys"])?;
    targets.object(&["delegations"])?.insert("roles".into(), json!([]));
    let mut snapshot = Role::new("snapshot", now, limits::SNAPSHOT_DAYS)?;
    let targets_file = targets.sign(&[&targets_key])?;
    snapshot.object(&["meta"])?.insert("targets.json".into(), pin(1, &targets_file));
    let snapshot_file = snapshot.sign(&[&online_key])?;
    let mut timestamp = Role::new("timestamp", now, limits::TIMESTAMP_DAYS)?;
    timestamp.object(&["meta"])?.insert("snapshot.json".into(), pin(1, &snapshot_file));
    let timestamp_file = timestamp.sign(&[&online_key])?;

    durable::make_folder(&metadata)?;
    durable::make_folder(&dir.join("targets"))?;
    let fingerprint = Digest::of(&root);
    let files = BTreeMap::from([
        ("1.root.json".to_owned(), root),
        ("1.targets.json".to_owned(), targets_file),
        ("1.snapshot.json".to_owned(), snapshot_file),
    ]);
    commit(&metadata, files, timestamp_file, now, &[]).await?;
    Ok(Initialised {
        fingerprint,
        root: first,
        warnings: vec![format!(
            "one root key of one ({}) signs this repository: who gets it owns every client, and who loses it can never change a key again; \
             keep `root` and `targets` offline, with a copy",
            keys.path(ROOT).display()
        )],
    })
}

fn give_key(root: &mut Role, role: &str, key: &SigningKey) -> Result<(), Fault> {
    let id = key.id()?;
    root.object(&["keys"])?.insert(id.clone(), public_key(&key.public()));
    root.object(&["roles"])?.insert(role.into(), json!({ "keyids": [id], "threshold": 1 }));
    Ok(())
}

/// Names the publisher that may sign `name/*/*`. Without `public_key` the publisher's key is taken from
/// `keys` (or made there), and signs an empty role at once. With `public_key`, the publisher's first publish
/// makes the role.
///
/// Returns the key's id. Errors: `usage` for the name, `already_published` if the publisher has another key,
/// `key_invalid`.
pub async fn add_publisher(dir: &Path, keys: &Keys, name: &str, public: Option<&str>, now: Timestamp) -> Result<String, Fault> {
    if !is_name(name) || RESERVED.contains(&name) {
        return Err(Fault::new(
            Code::Usage,
            format!("`{name}` is not a publisher's name: wanted a-z, 0-9 and `-`, and none of {}", shown::keys(RESERVED.iter().copied())),
        ));
    }
    let mut step = Step::begin(dir, keys, now).await?;
    let own = match public {
        Some(_) => None,
        None => Some(keys.load_or_generate(name)?),
    };
    let public = match (public, &own) {
        (Some(public), _) => check_public(public)?,
        (None, Some(key)) => key.public(),
        (None, None) => return Err(Fault::new(Code::Internal, "neither a public nor an own key")),
    };
    let id = key_id(&public)?;
    if let Some(there) = step.publisher_keys(name)? {
        return match there == [id.clone()] {
            true => Ok(id),
            false => Err(Fault::new(Code::AlreadyPublished, format!("publisher `{name}` is there already, with key {}", there.join(", ")))
                .hint("every host holds updates of a publisher whose key changes: choose another name, or make a new repository")),
        };
    }
    let targets_key = keys.load(TARGETS)?;
    step.targets.object(&["delegations", "keys"])?.insert(id.clone(), public_key(&public));
    let role = json!({ "name": name, "keyids": [id], "threshold": 1, "terminating": true, "paths": [format!("{name}/*/*")] });
    match step.targets.object(&["delegations"])?.entry("roles").or_insert_with(|| json!([])) {
        Value::Array(roles) => roles.push(role),
        _ => return Err(Fault::new(Code::MetadataInvalid, "`delegations.roles` of the repository's targets is not an array")),
    }
    step.targets.renew(now, limits::OFFLINE_ROLE_DAYS)?;
    let (targets, version) = (step.targets.sign(&[&targets_key])?, step.targets.version()?);
    step.put(TARGETS, version, targets)?;
    let mut touched = Vec::new();
    if let Some(key) = own {
        let mut role = Role::new("targets", now, limits::OFFLINE_ROLE_DAYS)?;
        role.object(&["targets"])?;
        step.put(name, 1, role.sign(&[&key])?)?;
        touched.push(name);
    }
    step.finish(&touched).await?;
    Ok(id)
}

/// Re-signs snapshot and timestamp, so that clients keep trusting what has not changed.
///
/// Returns what is due soon. Errors: `key_invalid`, and the faults that a client would report about the
/// result.
pub async fn refresh(dir: &Path, keys: &Keys, now: Timestamp) -> Result<Vec<String>, Fault> {
    let step = Step::begin(dir, keys, now).await?;
    let mut warnings = Vec::new();
    for (file, role) in step.offline()? {
        let days = (role.expires()?.as_second() - now.as_second()) / 86_400;
        if days < limits::ROLE_DUE_DAYS {
            warnings.push(format!("`{file}` expires in {days} days, on {}: its key has to sign it again", role.expires()?));
        }
    }
    step.finish(&[]).await?;
    Ok(warnings)
}

/// Replaces the online key by a new one: routinely, or after it was lost. Clients then forget the version
/// numbers of the old key, which repairs a repository whose stolen key signed version 18446744073709551615.
pub async fn rotate_online(dir: &Path, keys: &Keys, now: Timestamp) -> Result<String, Fault> {
    let mut step = Step::begin(dir, keys, now).await?;
    let root_key = keys.load(ROOT)?;
    let old = step.online.id()?;
    let new = keys.load_or_generate_next(ONLINE)?;
    let id = new.id()?;
    for role in ["snapshot", "timestamp"] {
        give_key(&mut step.root, role, &new)?;
    }
    step.root.object(&["keys"])?.remove(&old);
    step.root.renew(now, limits::OFFLINE_ROLE_DAYS)?;
    let version = step.root.version()?;
    let file = step.root.sign(&[&root_key])?;
    step.files.insert(format!("{version}.root.json"), file);
    // Snapshot and timestamp are signed by both keys, and so valid under the old root and the new one: the
    // repository can be loaded at every moment.
    step.also = Some(new);
    step.finish(&[]).await?;
    keys.promote(ONLINE)?;
    Ok(id)
}

/// One change of a repository, from its lock to its last file.
pub(super) struct Step {
    dir: PathBuf,
    now: Timestamp,
    root: Role,
    pub targets: Role,
    snapshot: Role,
    timestamp: Role,
    online: SigningKey,
    /// The online key that is on its way in.
    also: Option<SigningKey>,
    /// New metadata files, by name.
    files: BTreeMap<String, Vec<u8>>,
    _lock: Held,
}

impl Step {
    /// Locks the repository and reads its present state.
    pub async fn begin(dir: &Path, keys: &Keys, now: Timestamp) -> Result<Step, Fault> {
        if !look::is_there(&dir.join("metadata/timestamp.json"))? {
            return Err(Fault::new(Code::Usage, format!("{} is not a repository: there is no `metadata/timestamp.json`", dir.display()))
                .hint(hint![act::repo_init(), " makes one"]));
        }
        let lock = lock(dir).await?;
        let metadata = dir.join("metadata");
        let mut version = 1;
        while metadata.join(format!("{}.root.json", version + 1)).is_file() {
            version += 1;
        }
        let root = read(&metadata, &format!("{version}.root.json"))?;
        let timestamp = read(&metadata, "timestamp.json")?;
        let snapshot = read(&metadata, &format!("{}.snapshot.json", pinned(&timestamp, "snapshot.json")?))?;
        let targets = read(&metadata, &format!("{}.targets.json", pinned(&snapshot, "targets.json")?))?;
        if let Some(next) = keys.load_next(ONLINE)?
            && root.names_key("timestamp", &next.id()?)
        {
            // A rotation was interrupted after the new root was published; this completes it.
            keys.promote(ONLINE)?;
        }
        let online = keys.load(ONLINE)?;
        Ok(Step { dir: dir.to_owned(), now, root, targets, snapshot, timestamp, online, also: None, files: BTreeMap::new(), _lock: lock })
    }

    /// Key ids of a publisher; `None` if the repository has no such publisher.
    pub fn publisher_keys(&self, name: &str) -> Result<Option<Vec<String>>, Fault> {
        let roles = self.targets.signed.get("delegations").and_then(|delegations| delegations.get("roles")).and_then(Value::as_array);
        let found = roles.into_iter().flatten().find(|role| role.get("name").and_then(Value::as_str) == Some(name));
        Ok(found.map(|role| {
            let ids = role.get("keyids").and_then(Value::as_array);
            ids.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        }))
    }

    /// The names of all publishers.
    pub fn publishers(&self) -> Vec<String> {
        let roles = self.targets.signed.get("delegations").and_then(|delegations| delegations.get("roles")).and_then(Value::as_array);
        roles.into_iter().flatten().filter_map(|role| role.get("name").and_then(Value::as_str)).map(str::to_owned).collect()
    }

    /// The role of a publisher; `None` before its first publish.
    pub fn publisher(&self, name: &str) -> Result<Option<Role>, Fault> {
        match self.snapshot.signed.get("meta").and_then(|meta| meta.get(format!("{name}.json"))) {
            None => Ok(None),
            Some(_) => {
                read(&self.dir.join("metadata"), &format!("{}.{name}.json", pinned(&self.snapshot, &format!("{name}.json"))?)).map(Some)
            }
        }
    }

    /// Root, targets and every publisher's role, with their files.
    fn offline(&self) -> Result<Vec<(String, Role)>, Fault> {
        let mut all = vec![
            (format!("{}.root.json", self.root.version()?), self.root.clone()),
            (format!("{}.targets.json", self.targets.version()?), self.targets.clone()),
        ];
        for name in self.publishers() {
            if let Some(role) = self.publisher(&name)? {
                all.push((format!("{}.{name}.json", role.version()?), role));
            }
        }
        Ok(all)
    }

    /// Adds a signed targets role to the step.
    pub fn put(&mut self, role: &str, version: u64, bytes: Vec<u8>) -> Result<(), Fault> {
        self.snapshot.object(&["meta"])?.insert(format!("{role}.json"), pin(version, &bytes));
        self.files.insert(format!("{version}.{role}.json"), bytes);
        Ok(())
    }

    /// Signs snapshot and timestamp, rehearses as a client of the present state, and writes. `touched` names
    /// the publishers whose roles the rehearsal must reach.
    pub async fn finish(mut self, touched: &[&str]) -> Result<(), Fault> {
        let keys: Vec<_> = std::iter::once(&self.online).chain(&self.also).collect();
        self.snapshot.renew(self.now, limits::SNAPSHOT_DAYS)?;
        let (snapshot, version) = (self.snapshot.sign(&keys)?, self.snapshot.version()?);
        self.timestamp.renew(self.now, limits::TIMESTAMP_DAYS)?;
        self.timestamp.object(&["meta"])?.insert("snapshot.json".into(), pin(version, &snapshot));
        let timestamp = self.timestamp.sign(&keys)?;
        self.files.insert(format!("{version}.snapshot.json"), snapshot);
        commit(&self.dir.join("metadata"), self.files, timestamp, self.now, touched).await
    }
}

fn read(metadata: &Path, file: &str) -> Result<Role, Fault> {
    let bytes = durable::read(&metadata.join(file), limits::TARGETS_BYTES_MAX)?
        .ok_or_else(|| Fault::new(Code::MetadataInvalid, format!("`{file}` is missing in {}", metadata.display())))?;
    Role::read(&bytes, file)
}

fn pinned(role: &Role, file: &str) -> Result<u64, Fault> {
    let version = role.signed.get("meta").and_then(|meta| meta.get(file)).and_then(|meta| meta.get("version")).and_then(Value::as_u64);
    version.ok_or_else(|| Fault::new(Code::MetadataInvalid, format!("the repository's metadata does not pin `{file}`")))
}

/// Allows one writer at a time, across processes.
async fn lock(dir: &Path) -> Result<Held, Fault> {
    locks::acquire_briefly(&dir.join(".lock"), "writing the same repository").await
}

/// Rehearses, then writes: roles, snapshot, `timestamp.json`, and a new root last.
async fn commit(
    metadata: &Path,
    files: BTreeMap<String, Vec<u8>>,
    timestamp: Vec<u8>,
    now: Timestamp,
    touched: &[&str],
) -> Result<(), Fault> {
    let mut all = files;
    all.insert("timestamp.json".into(), timestamp);
    rehearse(metadata, all.clone(), now, touched).await?;
    let mut ordered: Vec<_> = all.into_iter().collect();
    ordered.sort_by_key(|(file, _)| match file.split_once('.') {
        Some(("timestamp", _)) => 2,
        Some((_, "snapshot.json")) => 1,
        // Clients find a root by counting up, so a later root is in force from the moment it exists.
        Some((version, "root.json")) if version != "1" => 3,
        _ => 0,
    });
    for (file, bytes) in ordered {
        durable::replace(&metadata.join(file), &bytes)?;
    }
    Ok(())
}
