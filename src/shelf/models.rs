//! Model files: by sha256, read-only, shared by all recipes that name the same bytes.
//!
//! Apart from bundles, because they are large: downloaded once across processes, checked before the rename that
//! publishes them, and checked again once per process before a pod may read them.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::{
    disk::open,
    model::{Code, Digest, Fault, Home, progress},
};

use super::{
    durable, files,
    locks::{self, Held},
    staging::Staging,
};

/// A model that is wanted on the shelf.
#[derive(Debug)]
pub enum Claim {
    /// It is there, and was checked.
    Present(PathBuf),
    /// It is not: the holder of the slot is the one who fetches it.
    Missing(Slot),
}

/// The right to fetch one model, and the place to put it. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Slot {
    home: Home,
    digest: Digest,
    bytes: u64,
    staging: Staging,
    _held: Held,
}

/// Where the model of that digest lies.
pub fn place(home: &Home, digest: Digest) -> PathBuf {
    home.models().join(digest.hex())
}

fn lock(home: &Home, digest: Digest) -> PathBuf {
    home.locks().join(format!("model-{}.lock", digest.short()))
}

/// The right to fetch that model, if nobody has it.
pub(super) fn try_lock(home: &Home, digest: Digest) -> Result<Option<Held>, Fault> {
    locks::try_acquire(&lock(home, digest))
}

/// Says whether the model is there; if not, waits until nobody else fetches it and gives the right to.
///
/// A file of that name with other bytes counts as missing: it is replaced.
pub async fn claim(home: &Home, digest: Digest, bytes: u64, progress: &progress::Shared) -> Result<Claim, Fault> {
    let held = locks::acquire(&lock(home, digest), "fetching the same model", progress).await?;
    let path = place(home, digest);
    let there = {
        let path = path.clone();
        super::blocking(move || Ok(path.exists() && compare(&path, digest, bytes).is_ok())).await?
    };
    if there {
        return Ok(Claim::Present(path));
    }
    let staging = Staging::new(home, "model")?;
    Ok(Claim::Missing(Slot { home: home.clone(), digest, bytes, staging, _held: held }))
}

impl Slot {
    /// Where to put the bytes; there is no file yet.
    pub fn part(&self) -> PathBuf {
        self.staging.folder().join("model")
    }

    /// Publishes the file at [`Slot::part`], after comparing it with what was wanted.
    ///
    /// Errors: `tampered` for other bytes; then nothing is kept.
    pub fn keep(self) -> Result<PathBuf, Fault> {
        let part = self.part();
        compare(&part, self.digest, self.bytes).map_err(|why| {
            Fault::new(Code::Tampered, format!("model {}: {why}", self.digest.short())).hint("nothing was kept; fetch it again")
        })?;
        self.keep_compared(&part)
    }

    /// Publishes a file that was just compared with what was wanted, from wherever it lies on the file system of the shelf.
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

/// Holds a file against size and digest; the error is for people.
fn compare(path: &Path, digest: Digest, bytes: u64) -> Result<(), String> {
    let mut file = open::open_of(path, bytes).map_err(|error| error.to_string())?;
    let (found, _) = files::digest_of(&mut file).map_err(|error| error.to_string())?;
    match found == digest {
        true => Ok(()),
        false => Err(format!("sha256 {found}, wanted {digest}")),
    }
}

/// What tells one state of a file from another without reading it.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// Models that this process has checked: each is read once, and again only when the file was touched.
#[derive(Debug, Default)]
pub(super) struct Checked(Mutex<HashMap<PathBuf, (Stamp, Digest)>>);

impl Checked {
    /// Errors: `model_missing`, `shelf_altered`.
    pub fn check(&self, what: &str, path: &Path, digest: Digest, bytes: u64) -> Result<(), Fault> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Fault::new(Code::ModelMissing, format!("{what}: no file at {}", path.display())));
            }
            Err(error) => return Err(Fault::io(format!("reading {}", path.display()), &error)),
        };
        let stamp = (
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        // A panic elsewhere cannot leave the map half-written: entries are inserted whole.
        let known = || self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known().get(path) == Some(&(stamp, digest)) {
            return Ok(());
        }
        compare(path, digest, bytes)
            .map_err(|why| Fault::new(Code::ShelfAltered, format!("{what}: {} is not what it was: {why}", path.display())))?;
        known().insert(path.to_owned(), (stamp, digest));
        Ok(())
    }
}
