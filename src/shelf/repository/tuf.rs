//! The adapter to the TUF library: gives the library Hob's transport, and turns its errors into faults that
//! name the file.
//!
//! Besides this file, only `mod.rs`, `metadata_store.rs` and `rehearsal.rs` name the library, so that it can
//! be replaced. The library says which *role* failed; an operator needs the *file*, so the transport
//! remembers the last file that was fetched.

use std::sync::{Arc, Mutex, PoisonError};

use sigstore_tuf::{Error, Repository, TrustedMetadataSet, UpdaterConfig, transport::FetchFuture};

use crate::{
    model::{Code, Fault, act, hint, limits},
    shelf::repository::transport::Transport,
};

/// The bytes that a signature covers.
///
/// Errors: `internal` for a value with floats, which no role has.
pub fn canonical(value: &serde_json::Value) -> Result<Vec<u8>, Fault> {
    sigstore_tuf::canonical_json::to_canonical_bytes(value).map_err(|error| Fault::new(Code::Internal, format!("canonical JSON: {error}")))
}

/// Hob's bounds as the library's configuration.
pub(in crate::shelf) fn config() -> UpdaterConfig {
    let mut config = UpdaterConfig::default();
    config.root_max_length = limits::ROOT_BYTES_MAX;
    config.timestamp_max_length = limits::TIMESTAMP_BYTES_MAX;
    config.snapshot_max_length = limits::SNAPSHOT_BYTES_MAX;
    config.targets_max_length = limits::TARGETS_BYTES_MAX;
    config.max_root_rotations = limits::ROOT_ROTATIONS_MAX;
    config
}

/// The files that a refresh asked for.
#[derive(Debug, Default)]
pub(in crate::shelf) struct Seen {
    asked: Mutex<(String, String)>,
}

impl Seen {
    pub fn asked(&self, file: &str) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).0 = file.to_owned();
    }
    pub fn came(&self, file: &str) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).1 = file.to_owned();
    }
    fn last(&self) -> (String, String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Hob's transport, for the library. Targets never come through it: Hob streams and diagnoses them itself.
pub(in crate::shelf) struct Watched {
    pub transport: Arc<Transport>,
    pub seen: Arc<Seen>,
}

impl Repository for Watched {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move {
            self.seen.asked(name);
            let found = self.transport.metadata(name, max_length).await.map_err(|fault| {
                // The fault rides along as the source and is taken out again below.
                Error::transport_with_source(fault.message.clone(), fault)
            })?;
            if found.is_some() {
                self.seen.came(name);
            }
            Ok(found)
        })
    }
    fn fetch_target<'a>(&'a self, path: &'a str, _max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move { Err(Error::transport(format!("{path}: targets are not fetched through the library"))) })
    }
}

/// The library's error as a fault that names the file and the next step.
pub(in crate::shelf) fn fault(error: Error, remote: &str, seen: &Seen, trusted: &TrustedMetadataSet) -> Fault {
    let (asked, came) = seen.last();
    let about = |code: Code, file: &str, message: String| Fault::new(code, format!("remote `{remote}`: {message}")).with("file", file);
    match error {
        Error::Transport { source: Some(source), message } => match source.downcast::<Fault>() {
            Ok(mut fault) => {
                fault.message = format!("remote `{remote}`: {}", fault.message);
                *fault
            }
            Err(source) => about(Code::RepositoryUnreachable, &asked, format!("{message}: {source}")),
        },
        Error::Transport { source: None, .. } if asked == "timestamp.json" => {
            about(Code::RepositoryUnreachable, &asked, "there is no `metadata/timestamp.json` at its address".to_owned())
                .hint("check the address of the remote: it is the folder that holds `metadata` and `targets`")
        }
        Error::Transport { source: None, message } if asked == came => {
            about(Code::MetadataInvalid, &asked, format!("after `{asked}`: {message}"))
                .hint("the repository's maintainer has to look at its chain of roots")
        }
        Error::Transport { source: None, .. } => {
            about(Code::MetadataInvalid, &asked, format!("`{asked}` is missing, though signed metadata names it"))
                .hint("the repository is incomplete, perhaps in the middle of an upload: try again in a minute")
        }
        Error::Expired { role, expires } => {
            let file = file_of(&role, trusted);
            about(Code::MetadataExpired, &file, format!("`{file}` has been expired since {expires}"))
                .with("expired", expires.to_string())
                .hint(hint![
                    "what is installed goes on working; its maintainer has to sign it again (",
                    act::repo_refresh(),
                    "); check this machine's clock too"
                ])
        }
        Error::Rollback { role, trusted, new } => about(
            Code::Rollback,
            &came,
            format!("`{came}` is older than what was already seen: {role} is at version {new}, seen was {trusted}"),
        )
        .with("seen", trusted)
        .with("found", new)
        .hint(ATTACK),
        Error::BadRootVersion { trusted, new } => {
            about(Code::MetadataInvalid, &came, format!("`{came}` says it is version {new}; wanted {}", trusted.saturating_add(1)))
                .hint(ATTACK)
        }
        Error::IntegrityMismatch(message) if message.starts_with("snapshot removes") => {
            about(Code::Rollback, &came, format!("`{came}` is older than what was already seen: {message}")).hint(ATTACK)
        }
        Error::ThresholdNotMet { role, found, threshold } => {
            about(Code::MetadataInvalid, &came, format!("`{came}` has {found} valid signatures of the role `{role}`; wanted {threshold}"))
                .hint(ATTACK)
        }
        Error::IntegrityMismatch(message) => {
            about(Code::MetadataInvalid, &came, format!("`{came}` is not the file that was signed: {message}")).hint(ATTACK)
        }
        Error::Json(error) => about(Code::MetadataInvalid, &came, format!("`{came}` is malformed: {error}")).hint(ATTACK),
        other => about(Code::MetadataInvalid, &came, format!("`{came}` is not valid: {other}")).hint(ATTACK),
    }
}

const ATTACK: &str = "nothing was changed here; a mirror that is damaged, stale or hostile does this: try again later or from another place, and tell the repository's maintainer";

/// The name under which the role's current file lies in the repository.
pub(in crate::shelf) fn file_of(role: &str, trusted: &TrustedMetadataSet) -> String {
    let version = match role {
        "timestamp" => return "timestamp.json".to_owned(),
        "root" => Some(trusted.root().version),
        "snapshot" => trusted.timestamp().and_then(|timestamp| timestamp.snapshot_meta()).map(|meta| meta.version),
        other => trusted.snapshot().and_then(|snapshot| snapshot.meta.get(&format!("{other}.json"))).map(|meta| meta.version),
    };
    match version {
        Some(version) => format!("{version}.{role}.json"),
        None => format!("{role}.json"),
    }
}
