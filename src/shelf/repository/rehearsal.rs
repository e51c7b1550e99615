//! Checks whether a client that knows the current repository would load the repository that is about to
//! replace it.
//!
//! The publishing side may upload a step only if this check succeeds: signing programs also sign repositories
//! that no client can load.

use crate::disk::look;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use sigstore_tuf::{Error, MemoryStore, Repository, Updater, transport::FetchFuture};

use crate::{
    model::{Code, Fault, limits},
    shelf::{
        durable,
        repository::{
            resolve::probe,
            tuf::{self, Seen},
        },
    },
};

/// Metadata files on disk with other files laid over them.
struct Overlaid {
    folder: PathBuf,
    over: Arc<BTreeMap<String, Vec<u8>>>,
    seen: Arc<Seen>,
}

impl Repository for Overlaid {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        self.seen.asked(name);
        let found = match self.over.get(name) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => durable::read(&self.folder.join(name), max_length)
                .map_err(|fault| Error::transport_with_source(fault.message.clone(), fault)),
        };
        let found = match found {
            Ok(Some(bytes)) if bytes.len() as u64 > max_length => {
                Err(Error::transport(format!("{name} is longer than {max_length} bytes")))
            }
            other => other,
        };
        if matches!(found, Ok(Some(_))) {
            self.seen.came(name);
        }
        Box::pin(async move { found })
    }
    fn fetch_target<'a>(&'a self, path: &'a str, _max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move { Err(Error::transport(format!("{path}: a rehearsal reads metadata only"))) })
    }
}

/// Loads `folder` (metadata files) as it is, then with `over` laid over it, then the roles of `publishers`.
///
/// Errors: those of a client, as `metadata_invalid`, `metadata_expired` or `rollback`, naming the file.
pub async fn rehearse(folder: &Path, over: BTreeMap<String, Vec<u8>>, now: Timestamp, publishers: &[&str]) -> Result<(), Fault> {
    let first = "1.root.json";
    let root = match over.get(first) {
        Some(bytes) => bytes.clone(),
        None => durable::read(&folder.join(first), limits::ROOT_BYTES_MAX)?
            .ok_or_else(|| Fault::new(Code::Usage, format!("there is no `{first}` in {}: not a repository", folder.display())))?,
    };
    let memory = Arc::new(MemoryStore::new());
    let seen = Arc::new(Seen::default());
    let load = |over: Arc<BTreeMap<String, Vec<u8>>>| -> Result<Updater, Fault> {
        let overlaid = Overlaid { folder: folder.to_owned(), over, seen: seen.clone() };
        Ok(Updater::new(overlaid, &root)
            .map_err(|error| Fault::new(Code::MetadataInvalid, format!("`{first}` is not valid: {error}")))?
            .with_config(tuf::config())
            .with_store(memory.clone()))
    };
    let refused = |stage: &str, error: Error, updater: &Updater| {
        let mut fault = tuf::fault(error, "rehearsal", &seen, updater.trusted());
        fault.message = fault.message.replacen("remote `rehearsal`", stage, 1);
        fault
    };
    if look::is_there(&folder.join("timestamp.json"))? {
        let mut before = load(Arc::default())?;
        // Without a clock: a writer must also be able to re-sign expired metadata.
        if let Err(error) = before.refresh(Timestamp::MIN).await {
            return Err(refused("the repository as it lies there cannot be loaded by any client", error, &before));
        }
    }
    let stage = "refused, because a client of the repository could not load the result";
    let mut after = load(Arc::new(over))?;
    if let Err(error) = after.refresh(now).await {
        return Err(refused(stage, error, &after));
    }
    for publisher in publishers {
        if let Err(error) = after.get_target_info(&probe(publisher), now).await {
            return Err(refused(stage, error, &after));
        }
        if after.trusted().targets_role(publisher).is_none() {
            return Err(Fault::new(Code::MetadataInvalid, format!("{stage}: the role of `{publisher}` is not reached by its delegation")));
        }
    }
    Ok(())
}
