//! Model files: stored by sha256, read-only, shared by all recipes that name the same bytes.
//!
//! Models are large, so they are handled apart from bundles:
//!
//! - One process downloads a model for all processes.
//! - A model is checked before the rename that publishes it.
//! - Each process checks a model once more before a pod may read it.

pub mod fetching;
pub mod folder;
pub mod origin;
pub mod sources;

use crate::disk::look;
use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::{
    disk::open,
    model::{Code, Digest, Fault, Home, StandIn, limits, progress},
};

use crate::shelf::{
    durable,
    files::{
        self,
        locks::{self, Held},
        staging::Staging,
    },
};

/// The state of a wanted model on the shelf.
#[derive(Debug)]
pub enum Claim {
    /// The model is there and was checked.
    Present(PathBuf),
    /// The model is missing: the holder of the right fetches it.
    Missing(FetchRight),
}

/// The right to fetch one model, and the place to put it. If dropped, it leaves nothing.
#[derive(Debug)]
pub struct FetchRight {
    home: Home,
    digest: Digest,
    bytes: u64,
    staging: Staging,
    _held: Held,
}

/// Path of the model with this digest.
pub fn place(home: &Home, digest: Digest) -> PathBuf {
    home.models().join(digest.hex())
}

/// The models on the shelf, whole or altered.
pub(super) fn all(home: &Home) -> Vec<Digest> {
    let entries = fs::read_dir(home.models()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn lock(home: &Home, digest: Digest) -> PathBuf {
    home.locks().join(format!("model-{}.lock", digest.short()))
}

/// The right to fetch this model, if nobody else holds it.
pub(super) fn try_lock(home: &Home, digest: Digest) -> Result<Option<Held>, Fault> {
    locks::try_acquire(&lock(home, digest))
}

/// Reports whether the model is there; if not, waits until nobody else fetches it and returns the right to
/// fetch.
///
/// A file of that name with other bytes counts as missing and is replaced.
pub async fn claim(home: &Home, digest: Digest, bytes: u64, progress: &progress::Shared) -> Result<Claim, Fault> {
    let held = locks::acquire(&lock(home, digest), "fetching the same model", progress).await?;
    let path = place(home, digest);
    let there = {
        let path = path.clone();
        super::blocking(move || Ok(look::is_there(&path)? && compare(&path, digest, bytes)?.is_none())).await?
    };
    if there {
        return Ok(Claim::Present(path));
    }
    let staging = Staging::new(home, "model")?;
    Ok(Claim::Missing(FetchRight { home: home.clone(), digest, bytes, staging, _held: held }))
}

impl FetchRight {
    /// Where to put the bytes; the file does not exist yet.
    pub fn part(&self) -> PathBuf {
        self.staging.folder().join("model")
    }

    /// Publishes the file at [`FetchRight::part`] after comparing it with the wanted digest and length.
    ///
    /// Errors: `tampered` for other bytes; then nothing is kept.
    pub fn keep(self) -> Result<PathBuf, Fault> {
        let part = self.part();
        if let Some(other) = compare(&part, self.digest, self.bytes)? {
            let fault = Fault::new(Code::Tampered, format!("model {}: {}", self.digest.short(), other.why));
            return Err(fault.hint("nothing was kept; fetch it again"));
        }
        self.keep_compared(&part)
    }

    /// Publishes a file that was just compared, from any path on the file system of the shelf.
    pub(super) fn keep_compared(self, part: &Path) -> Result<PathBuf, Fault> {
        let path = place(&self.home, self.digest);
        durable::make_folder(&self.home.models())?;
        let publish = || -> io::Result<()> {
            fs::set_permissions(part, fs::Permissions::from_mode(0o444))?;
            durable::sync_file(part)?;
            fs::rename(part, &path)?;
            durable::sync_folder(&self.home.models())
        };
        publish().map_err(|error| Fault::io(format!("publishing {}", path.display()), &error))?;
        Ok(path)
    }
}

/// Identifies a file that is not the wanted one.
struct Other {
    /// For people.
    why: String,
    is: Option<StandIn>,
}

/// Compares a file with the wanted size and digest; `None` if it is the wanted one.
///
/// Errors: `io` if the file could not be read.
fn compare(path: &Path, digest: Digest, bytes: u64) -> Result<Option<Other>, Fault> {
    let found = open::open_of(path, bytes).and_then(|mut file| files::digest_of(&mut file));
    let why = match found {
        Ok((found, _)) if found == digest => return Ok(None),
        Ok((found, _)) => format!("sha256 {found}, wanted {digest}"),
        Err(error) if look::is_about_the_file(&error) => error.to_string(),
        Err(error) => return Err(Fault::io(format!("reading {}", path.display()), &error)),
    };
    let is = files::stand_in(path).ok().flatten();
    let name = is.map(|is| format!("it is {}: ", is.name())).unwrap_or_default();
    Ok(Some(Other { why: name + &why, is }))
}

/// Checks that a model file exists, before anything is done with it.
///
/// Errors: `model_missing`.
pub(super) fn is_there(what: &str, path: &Path) -> Result<(), Fault> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Fault::new(Code::ModelMissing, format!("{what}: no file at {}", path.display())))
        }
        _ => Ok(()),
    }
}

/// The identity of a file, independent of its name: the numbers of its file system and of the file there.
pub(super) type Identity = (u64, u64);

/// Distinguishes states of a file without reading it: its length, and when its bytes and its status changed.
type Stamp = (u64, i64, i64, i64, i64);

/// Models that this process has checked. Each file is read once, whatever its names, and again only if it was
/// touched.
#[derive(Debug, Default)]
pub(super) struct Checked(Mutex<HashMap<Identity, (Stamp, Digest)>>);

impl Checked {
    /// Errors: `model_missing`, `shelf_altered`.
    pub fn check(&self, what: &str, path: &Path, digest: Digest, bytes: u64) -> Result<(), Fault> {
        is_there(what, path)?;
        let metadata = fs::metadata(path).map_err(|error| Fault::io(format!("reading {}", path.display()), &error))?;
        let identity = (metadata.dev(), metadata.ino());
        let stamp = (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
        // A panic elsewhere cannot leave the map half-written: entries are inserted whole.
        let known = || self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known().get(&identity) == Some(&(stamp, digest)) {
            return Ok(());
        }
        if let Some(other) = compare(path, digest, bytes)? {
            let fault = Fault::new(Code::ShelfAltered, format!("{what}: {} is not what it was: {}", path.display(), other.why));
            return Err(match other.is {
                Some(is) => fault.hint(is.hint_of_folder()),
                None => fault,
            });
        }
        let mut known = known();
        // In a long-lived process files come and go.
        if known.len() >= limits::MODELS_CHECKED_MAX {
            known.clear();
        }
        known.insert(identity, (stamp, digest));
        Ok(())
    }
}
