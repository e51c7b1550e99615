//! The last trusted state of one repository on this machine: the pinned root, and one state file that is
//! replaced whole.
//!
//! - Losing this state loses rollback protection, so an unreadable file is an error. The TUF library skips a
//!   cached file that it cannot read; a torn file would then let a repository serve old metadata.
//! - There is one file for all roles. A timestamp saved without its snapshot (after a crash or a failed fetch
//!   between the two) would remove the minimum version of every publisher's role.

use crate::disk::look;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use sigstore_tuf::{MetadataStore, TrustedMetadataSet};

use crate::{
    model::{Code, Digest, Fault, act, hint, limits},
    shelf::durable,
};

/// The file of the pinned root, in a remote's folder.
pub(in crate::shelf) const PINNED: &str = "root.json";
/// The file of the state, in a remote's folder.
pub(in crate::shelf) const STATE: &str = "trust.json";

/// Roles whose last trusted file sets the minimum for the next one, in the order in which they vouch for each
/// other.
const ROLES: [&str; 3] = ["timestamp.json", "snapshot.json", "targets.json"];

/// Trust in one repository, as saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shelf) struct TrustState {
    folder: PathBuf,
    /// The root that the operator pinned.
    pub pinned: Vec<u8>,
    saved: Saved,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// Root version under which the three roles were verified; 0 before the first refresh.
    verified_with: u64,
    /// `root_history/N.root.json` of the roots after the pinned one, and the [`ROLES`].
    files: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    sha256: Digest,
    state: Saved,
}

impl Saved {
    fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("strings and a number are JSON"))
    }
}

impl TrustState {
    /// The state right after pinning. Nothing is written.
    pub fn pinned(folder: &Path, root: &[u8]) -> TrustState {
        TrustState { folder: folder.to_owned(), pinned: root.to_vec(), saved: Saved::default() }
    }

    /// Reads and checks what was saved for the remote of that name.
    ///
    /// Errors: `remote_not_found` when it was never pinned, `state_unreadable` naming the file.
    pub fn load(folder: &Path, remote: &str) -> Result<TrustState, Fault> {
        let Some(pinned) =
            durable::read(&folder.join(PINNED), limits::ROOT_BYTES_MAX).map_err(|fault| unread(fault, remote, &folder.join(PINNED)))?
        else {
            return Err(match look::is_there(&folder.join(STATE))? {
                true => unreadable(remote, &folder.join(PINNED), "it is missing"),
                false => Fault::new(Code::RemoteNotFound, format!("no root is pinned for the remote `{remote}`")).hint(hint![
                    act::remote_add_root(remote),
                    " or ",
                    act::remote_add(remote),
                    " pins one"
                ]),
            });
        };
        let place = folder.join(STATE);
        let refused = |why: &str| unreadable(remote, &place, why);
        let text = durable::read(&place, limits::TRUST_STATE_BYTES_MAX)
            .map_err(|fault| unread(fault, remote, &place))?
            .ok_or_else(|| refused("it is missing, though the remote was pinned"))?;
        let sealed: Sealed = serde_json::from_slice(&text).map_err(|error| refused(&format!("it does not parse: {error}")))?;
        if sealed.state.digest() != sealed.sha256 {
            return Err(refused("its content is not what was written"));
        }
        let state = TrustState { folder: folder.to_owned(), pinned, saved: sealed.state };
        state.verify().map_err(|(file, why)| refused(&format!("`{file}` in it does not verify: {why}")))?;
        Ok(state)
    }

    /// Walks the saved chain as a client does, but without a clock: an expired file still sets a minimum
    /// version.
    fn verify(&self) -> Result<(), (String, String)> {
        let wrong = |file: &str, error: sigstore_tuf::Error| (file.to_owned(), error.to_string());
        let mut trusted = TrustedMetadataSet::from_root(&self.pinned).map_err(|error| wrong(PINNED, error))?;
        let mut walked = 0;
        loop {
            if trusted.root().version == self.saved.verified_with {
                let mut lower = trusted.clone();
                let always = jiff::Timestamp::MIN;
                for role in ROLES {
                    let bytes = self.saved.files.get(role).ok_or_else(|| (role.to_owned(), "it is missing".to_owned()))?.as_bytes();
                    match role {
                        "timestamp.json" => lower.update_timestamp(bytes, always),
                        "snapshot.json" => lower.update_snapshot(bytes, always),
                        _ => lower.update_targets(bytes, always).map(|_| ()),
                    }
                    .map_err(|error| wrong(role, error))?;
                }
            }
            let name = format!("root_history/{}.root.json", trusted.root().version.saturating_add(1));
            let Some(root) = self.saved.files.get(&name) else { break };
            trusted.update_root(root.as_bytes()).map_err(|error| wrong(&name, error))?;
            walked += 1;
        }
        let roles = self.saved.files.keys().filter(|name| ROLES.contains(&name.as_str())).count();
        match self.saved.verified_with {
            0 if roles > 0 => Err((ROLES[0].to_owned(), "no root is named for it".to_owned())),
            with if with > trusted.root().version => Err((format!("{with}.root.json"), "it is missing".to_owned())),
            _ if walked + roles != self.saved.files.len() => Err(("root_history".to_owned(), "the chain has a gap".to_owned())),
            _ => Ok(()),
        }
    }

    /// Whether the repository had this publisher at the last refresh; `None` if it was never refreshed.
    pub fn had_publisher(&self, publisher: &str) -> Option<bool> {
        // It was verified when it was loaded.
        let targets: serde_json::Value = serde_json::from_str(self.saved.files.get("targets.json")?).ok()?;
        let roles = targets["signed"]["delegations"]["roles"].as_array();
        Some(roles.is_some_and(|roles| roles.iter().any(|role| role["name"] == publisher)))
    }

    /// The files that the TUF library may read and write during one refresh.
    pub fn session(&self) -> Session {
        Session { files: Mutex::new(self.saved.files.iter().map(|(name, text)| (name.clone(), text.clone().into_bytes())).collect()) }
    }

    /// Takes over what a refresh learned. New roots count even if the rest failed, because the old root
    /// signed them. The roles count only all together: `verified_with` is the root's version after success.
    pub fn absorb(&mut self, session: &Session, verified_with: Option<u64>) -> bool {
        let before = self.saved.clone();
        let own = TrustedMetadataSet::from_root(&self.pinned).map_or(0, |trusted| trusted.root().version);
        for (name, bytes) in session.lock().iter() {
            let later = name
                .strip_prefix("root_history/")
                .and_then(|file| file.strip_suffix(".root.json"))
                .and_then(|version| version.parse::<u64>().ok());
            let wanted = match later {
                Some(version) => version > own,
                None => verified_with.is_some() && ROLES.contains(&name.as_str()),
            };
            if let (true, Ok(text)) = (wanted, String::from_utf8(bytes.clone())) {
                self.saved.files.insert(name.clone(), text);
            }
        }
        if let Some(version) = verified_with {
            self.saved.verified_with = version;
        }
        self.saved != before
    }

    /// Writes the state in one step.
    pub fn save(&self) -> Result<(), Fault> {
        let sealed = Sealed { sha256: self.saved.digest(), state: self.saved.clone() };
        let text = serde_json::to_vec_pretty(&sealed).expect("strings and numbers are JSON");
        durable::replace(&self.folder.join(STATE), &text)
    }
}

/// A fault about a file that could not be read. If the system refused the read, the file may be intact; then
/// a backup or a new pin would not help.
fn unread(fault: Fault, remote: &str, place: &Path) -> Fault {
    match fault.code {
        Code::Io | Code::DiskFull => fault,
        _ => unreadable(remote, place, &fault.message),
    }
}

fn unreadable(remote: &str, place: &Path, why: &str) -> Fault {
    Fault::new(Code::StateUnreadable, format!("the saved trust in remote `{remote}` cannot be used: {}: {why}", place.display()))
        .with("file", place.display().to_string())
        .hint(hint![
            format!("restore {} from a backup; or, after asking the repository's maintainer for the current root, ", place.display()),
            act::remote_remove(remote),
            " and ",
            act::remote_add(remote),
            " pin it anew"
        ])
}

/// Files of one refresh, held in memory until it succeeds.
#[derive(Debug)]
pub(in crate::shelf) struct Session {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Session {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // Each change is one insert: a panic elsewhere leaves nothing half-done.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetadataStore for Session {
    fn load(&self, name: &str) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        Ok(self.lock().get(name).cloned())
    }
    fn store(&self, name: &str, bytes: &[u8]) -> sigstore_tuf::Result<()> {
        self.lock().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
}
