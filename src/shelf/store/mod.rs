//! The shelf: the installed recipes, and the transaction that changes them.
//!
//! 1. A bundle is unpacked in staging, checked and built there.
//! 2. One rename moves it to its place.
//! 3. Replacing `hob.lock` makes it *installed*.
//!
//! A crash before step 3 leaves rubbish. A crash after it leaves at most a `hob.toml` that does not name the
//! recipe yet. There is no other state in between.

pub mod load;
pub mod lockfile;
pub mod revoked;
mod write_guard;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub use write_guard::WriteGuard;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    disk::look,
    model::{Code, Digest, Fault, Home, Origin, RecipeName, Step, Verified, act, hint, limits, nearest, progress},
};

use crate::shelf::{
    blocking,
    bundle::{folder_view::FolderViews, index::Index, unpack::check_folder},
    config::{
        Wish,
        edit::{Edit, Prepared},
    },
    durable, environment,
    files::{
        self,
        staging::Staging,
        tree::{make_read_only, take_write},
    },
    models::{
        self, Checked,
        folder::{self, Folders},
    },
};
use lockfile::{LockEntry, LockFile};

/// The recipes on this machine. Reading needs no lock: every file that is read is replaced whole.
#[derive(Debug)]
pub struct Shelf {
    pub(super) home: Home,
    pub(super) checked: Checked,
    pub(super) model_folders: Folders,
    pub(super) folder_views: FolderViews,
}

impl Shelf {
    /// Errors: `invalid_config` if `hob.lock` cannot be read.
    pub fn open(home: Home) -> Result<Shelf, Fault> {
        LockFile::read(&home)?;
        Ok(Shelf { home, checked: Checked::default(), model_folders: Folders::default(), folder_views: FolderViews::default() })
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Does `work` while nobody else changes the shelf or `hob.toml`; reports once that it waits.
    ///
    /// `work` is no future, so it cannot wait for a server, a tool or a pod; others who want the lock wait at
    /// most for this machine's disk. If the future is dropped, work that has begun continues to its end.
    pub async fn write<T: Send + 'static>(
        &self,
        progress: &progress::Shared,
        work: impl FnOnce(&WriteGuard) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let guard = WriteGuard::acquire(&self.home, progress).await?;
        blocking(move || work(&guard)).await
    }

    /// A place in which to unpack one recipe. It needs no lock: nobody else writes there.
    pub fn stage(&self) -> Result<Staged, Fault> {
        Ok(Staged { home: self.home.clone(), staging: Staging::new(&self.home, "recipe")? })
    }

    /// Everything that is installed, by name. An entry of `hob.lock` that cannot be read is left out and
    /// logged.
    pub fn installed(&self) -> Result<Vec<LockEntry>, Fault> {
        let lock = LockFile::read(&self.home)?;
        for damaged in lock.damaged() {
            tracing::warn!("left out: {}", damaged.fault);
        }
        Ok(lock.entries().to_vec())
    }

    /// The installed recipe of that name.
    ///
    /// Errors: `recipe_not_found`, which lists the installed recipes.
    pub fn entry(&self, name: &RecipeName) -> Result<LockEntry, Fault> {
        let lock = LockFile::read(&self.home)?;
        if let Some(entry) = lock.get(name) {
            return Ok(entry.clone());
        }
        let damaged = lock.damaged().iter().find(|damaged| damaged.name.as_deref() == Some(&name.to_string()));
        Err(damaged.map_or_else(|| not_found(name, &lock), |damaged| damaged.fault.clone()))
    }

    /// Checks that a recipe of that name is installed, even if it is damaged. It is for readers of the
    /// recipe's traces, which have no shelf.
    ///
    /// Errors: `recipe_not_found`, which lists the installed recipes; `invalid_config`.
    pub fn is_known(home: &Home, name: &RecipeName) -> Result<(), Fault> {
        let lock = LockFile::read(home)?;
        let is_damaged = || lock.damaged().iter().any(|damaged| damaged.name.as_deref() == Some(&name.to_string()));
        if lock.get(name).is_some() || is_damaged() { Ok(()) } else { Err(not_found(name, &lock)) }
    }

    /// Compares the files of a loaded recipe once more with the installed ones. A recipe that was replaced or
    /// removed meanwhile passes: its users may continue to use it.
    ///
    /// Errors: `shelf_altered`, naming the first altered, missing or extra file; `io`.
    pub fn is_unaltered(&self, recipe: &Verified) -> Result<(), Fault> {
        let Origin::Signed { .. } = recipe.origin() else { return Ok(()) };
        let pinned = || Ok::<_, Fault>(LockFile::read(&self.home)?.get(&recipe.manifest().name).cloned());
        let Some(entry) = pinned()?.filter(|entry| entry.sha256 == recipe.digest()) else { return Ok(()) };
        match self.index(&entry).and_then(|index| check_folder(recipe.folder(), &index)) {
            // The recipe was removed or replaced during the check.
            Err(_) if pinned()?.as_ref() != Some(&entry) => Ok(()),
            looked => looked,
        }
    }

    /// Path of the files of an installed recipe.
    pub fn place(&self, entry: &LockEntry) -> PathBuf {
        place(&self.home, entry)
    }

    /// The signed index of an installed recipe.
    ///
    /// Errors: `shelf_altered` if it is gone or is not the one that `hob.lock` names.
    pub fn index(&self, entry: &LockEntry) -> Result<Index, Fault> {
        let path = index_place(&self.home, entry);
        let altered = |why: &str| {
            Fault::new(Code::ShelfAltered, format!("recipe `{}`: {} {why}", entry.name, path.display())).hint(hint![
                act::remove(&entry.name),
                " and ",
                act::add(&entry.name),
                " install it again"
            ])
        };
        let bytes = durable::read(&path, limits::TARGETS_BYTES_MAX)?.ok_or_else(|| altered("is missing"))?;
        if Digest::of(&bytes) != entry.index_sha256 {
            return Err(altered("was altered"));
        }
        let json = serde_json::from_slice(&bytes).map_err(|_| altered("is not JSON"))?;
        Index::read(json)
    }

    /// Records the operator's wish for an installed recipe that stays unchanged.
    pub fn wish(&self, guard: &WriteGuard, name: &RecipeName, wish: Wish) -> Result<(), Fault> {
        let mut edit = Edit::begin(&self.home, guard.config())?;
        edit.set_recipe(name, wish.range);
        edit.set_grants(&name.to_string(), wish.given);
        edit.write()
    }

    /// Removes all versions of the recipe from the shelf, with its grants, and with the environment and
    /// models that no other recipe uses. An environment that a process has open stays on the disk.
    ///
    /// On a full disk, even a shorter `hob.lock` does not fit beside the old one. So there the recipe's files
    /// are deleted first.
    pub async fn remove(&self, name: &RecipeName, progress: &progress::Shared) -> Result<LockEntry, Fault> {
        match self.take_off(name, progress).await {
            Err(fault) if fault.code == Code::DiskFull => {
                let (home, gone) = (self.home.clone(), name.clone());
                let entry = self.write(progress, move |_| make_room(&home, &gone)).await?;
                let done = match self.take_off(name, progress).await {
                    // Another process that found it half removed was faster.
                    Err(fault) if fault.code == Code::RecipeNotFound => Ok(entry),
                    done => done,
                };
                if done.is_ok() {
                    let _ = fs::remove_dir(half_removed(&self.home, name));
                }
                done
            }
            done => done,
        }
    }

    /// Continues removals that were killed halfway on a full disk. A removal that cannot be finished now is
    /// tried again by the next host.
    pub async fn finish_removals(&self, progress: &progress::Shared) {
        let home = self.home.clone();
        for name in blocking(move || Ok(all_half_removed(&home))).await.unwrap_or_default() {
            // The recipe was installed again since: only the mark of the removal is left.
            if !matches!(look::is_there(&self.home.recipes().join(name.publisher()).join(name.name())), Ok(false)) {
                let _ = files::remove_tree(&half_removed(&self.home, &name));
                continue;
            }
            match self.remove(&name, progress).await {
                Ok(_) => tracing::warn!(recipe = %name, "its removal was killed half-way, and is finished"),
                Err(fault) if fault.code == Code::RecipeNotFound => {}
                Err(fault) => {
                    tracing::info!(recipe = %name, "its removal was killed half-way, and cannot be finished now: {}", fault.message);
                    continue;
                }
            }
            let _ = files::remove_tree(&half_removed(&self.home, &name));
        }
    }

    async fn take_off(&self, name: &RecipeName, progress: &progress::Shared) -> Result<LockEntry, Fault> {
        let (home, name) = (self.home.clone(), name.clone());
        // The lock is held only to move things there; deleting gigabytes comes after it.
        let discard = {
            let home = home.clone();
            blocking(move || Staging::new(&home, "discard")).await?
        };
        let (entry, discard, in_use) = self
            .write(progress, move |guard| {
                let entry = unlist(&home, guard, &name)?;
                let in_use = give_back(&home, &entry, discard.folder())?;
                Ok((entry, discard, in_use))
            })
            .await?;
        if let Some(environment) = in_use {
            progress.step(Step::Note { text: format!("environment {} is in use and stays on the disk", environment.short()) });
        }
        blocking(move || {
            drop(discard);
            Ok(())
        })
        .await?;
        Ok(entry)
    }
}

/// Prefix of a recipe's folder from the moment when its removal on a full disk begins until `hob.lock` no
/// longer names the recipe. No recipe's name begins like this.
const HALF: &str = ".removed-";

fn half_removed(home: &Home, name: &RecipeName) -> PathBuf {
    home.recipes().join(name.publisher()).join(format!("{HALF}{}", name.name()))
}

/// Recipes whose removal began on a full disk and is not finished.
fn all_half_removed(home: &Home) -> Vec<RecipeName> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all = Vec::new();
    for publisher in entries(&home.recipes()) {
        let names = entries(&publisher.path()).filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix(HALF)?.to_owned()));
        all.extend(names.filter_map(|name| format!("{}/{name}", publisher.file_name().to_str()?).parse::<RecipeName>().ok()));
    }
    all
}

/// Deletes the files of a recipe that is to be removed; returns its entry. If the removal gets no further,
/// the folder's new name tells the next host ([`Shelf::finish_removals`]).
fn make_room(home: &Home, name: &RecipeName) -> Result<LockEntry, Fault> {
    let lock = LockFile::read(home)?;
    let entry = lock.get(name).cloned().ok_or_else(|| not_found(name, &lock))?;
    let (versions, half) = (home.recipes().join(name.publisher()).join(name.name()), half_removed(home, name));
    empty(&half)?;
    match fs::rename(&versions, &half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Fault::io(format!("removing {}", versions.display()), &error)),
        _ => {}
    }
    empty(&half)?;
    Ok(entry)
}

/// Deletes the content of a folder, but not the folder; a missing folder is no error.
fn empty(folder: &Path) -> Result<(), Fault> {
    fs::read_dir(folder).into_iter().flatten().flatten().try_for_each(|entry| files::remove_tree(&entry.path()))
}

/// Removes the recipe from `hob.lock` and `hob.toml`.
fn unlist(home: &Home, guard: &WriteGuard, name: &RecipeName) -> Result<LockEntry, Fault> {
    let mut config = Edit::begin(home, guard.config())?;
    let mut lock = LockFile::read(home)?;
    let Some(entry) = lock.remove(name) else { return Err(not_found(name, &lock)) };
    // This comes first, as a step of its own: a crash must not leave grants for the next recipe of that name.
    revoked::note(home, name, guard.config())?;
    if config.remove_grants(&name.to_string()) {
        config.write()?;
        config = Edit::begin(home, guard.config())?;
    }
    let config = match config.remove_recipe(name) {
        true => Some(config.prepare()?),
        false => None,
    };
    lock.write(home)?;
    config.map_or(Ok(()), Prepared::put)?;
    Ok(entry)
}

/// Moves everything that the recipe had and no installed recipe uses to `discard`; returns the environment
/// that had to stay because a process has it open.
fn give_back(home: &Home, entry: &LockEntry, discard: &Path) -> Result<Option<Digest>, Fault> {
    let lock = LockFile::read(home)?;
    let name = &entry.name;
    let moved = |from: &Path, to: &str| match fs::rename(from, discard.join(to)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::io(format!("removing {}", from.display()), &error)),
        _ => Ok(()),
    };
    let versions = home.recipes().join(name.publisher()).join(name.name());
    // Also the models of earlier versions: nothing else knows of them any more.
    let had = folder::of_versions(&versions);
    moved(&versions, "recipe")?;
    let is_named = |digest: Digest| lock.entries().iter().any(|other| other.models.iter().any(|other| other.sha256 == digest));
    let was_of = |digest: Digest| folder::identity(&models::place(home, digest)).is_ok_and(|file| had.contains(&file));
    let older = models::all(home).into_iter().filter(|digest| was_of(*digest));
    for digest in entry.models.iter().map(|model| model.sha256).chain(older).filter(|digest| !is_named(*digest)) {
        moved(&models::place(home, digest), &digest.hex())?;
    }
    match entry.environment {
        Some(pin) if !lock.entries().iter().any(|other| other.environment.is_some_and(|other| other.digest == pin.digest)) => {
            Ok((!environment::take_away(home, pin.digest, discard)?).then_some(pin.digest))
        }
        _ => Ok(None),
    }
}

fn not_found(name: &RecipeName, lock: &LockFile) -> Fault {
    let installed: Vec<String> = lock.entries().iter().map(|entry| entry.name.to_string()).collect();
    let names: Vec<String> = installed.iter().map(|name| format!("`{name}`")).collect();
    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let fault = Fault::new(Code::RecipeNotFound, format!("recipe `{name}` is not on the shelf (installed: {names})"));
    match nearest::among(&name.to_string(), installed.iter().map(String::as_str)) {
        Some(near) => fault.hint(hint![format!("did you mean `{near}`? Else "), act::add(name), " installs it"]),
        None => fault.hint(hint![act::add(name), " installs it"]),
    }
}

fn place(home: &Home, entry: &LockEntry) -> PathBuf {
    home.recipes().join(entry.name.publisher()).join(entry.name.name()).join(format!("{}-{}", entry.version, entry.sha256.short()))
}

fn index_place(home: &Home, entry: &LockEntry) -> PathBuf {
    let folder = place(home, entry);
    let mut name = folder.into_os_string();
    name.push(".index.json");
    name.into()
}

/// Makes the folder writable: the kernel requires that to move it to another parent.
fn make_writable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

/// A recipe on its way onto the shelf. If dropped before [`Staged::publish`], it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    pub(super) home: Home,
    staging: Staging,
}

impl Staged {
    /// Where to unpack the bundle; the folder does not exist yet.
    pub fn folder(&self) -> PathBuf {
        self.staging.folder().join("recipe")
    }

    /// Installs the unpacked files as `entry`, replacing the earlier `entry.name`. With a wish, `hob.toml`
    /// then names the recipe and its grants; a crash in between leaves `hob.toml` without them. Returns
    /// whether exactly these bytes were already in place.
    ///
    /// Errors: `shelf_altered` if the folder differs from `index`, `internal` if `index` is not the entry's;
    /// `disk_full`, `io`. On an error the shelf is unchanged.
    pub fn publish(self, guard: &WriteGuard, entry: LockEntry, index: &Index, wish: Option<Wish>) -> Result<bool, Fault> {
        let folder = self.folder();
        let index_bytes = serde_json::to_vec(index).map_err(|error| Fault::new(Code::Internal, format!("an index: {error}")))?;
        if Digest::of(&index_bytes) != entry.index_sha256 {
            return Err(Fault::new(Code::Internal, format!("the index of `{}` is not the one that its lock entry names", entry.name)));
        }
        check_folder(&folder, index)?;
        // All steps that can fail for reasons of their own come here, before anything has moved.
        let mut config = Edit::begin(&self.home, guard.config())?;
        let mut lock = LockFile::read(&self.home)?;
        let config = match wish {
            Some(wish) => {
                config.set_recipe(&entry.name, wish.range);
                config.set_grants(&entry.name.to_string(), wish.given);
                Some(config.prepare()?)
            }
            None => None,
        };

        let place = place(&self.home, &entry);
        let parent = place.parent().unwrap_or(&place).to_owned();
        durable::make_folder(&parent)?;
        files::replace(&index_place(&self.home, &entry), &index_bytes)?;
        self.put_models(&place, &entry)?;
        let moved = self.move_to(&folder, &place, &parent, index)?;
        lock.set(entry.clone());
        if let Err(fault) = lock.write(&self.home) {
            // The recipe is not installed, so the moved files are taken back; files that cannot be taken back
            // are rubbish that nothing names.
            match moved {
                Moved::Kept => {}
                Moved::Fresh => drop(make_writable(&place).and_then(|()| fs::rename(&place, &folder))),
                Moved::Exchanged => drop(exchange(&folder, &place)),
            }
            return Err(fault);
        }
        config.map_or(Ok(()), Prepared::put)?;
        Ok(matches!(moved, Moved::Kept))
    }

    /// Makes the folder of the recipe's models at its place, so that loading the recipe needs no write to the
    /// shelf.
    fn put_models(&self, place: &Path, entry: &LockEntry) -> Result<(), Fault> {
        let models: Vec<_> = entry.models.iter().map(|model| (model.name.as_str(), models::place(&self.home, model.sha256))).collect();
        if models.is_empty() {
            return Ok(());
        }
        let (staged, place) = (folder::beside(&self.folder()), folder::beside(place));
        match (look::is_there(&place)?, folder::is_of(&place, &models), folder::is_of(&staged, &models)) {
            (true, true, _) => Ok(()),
            (true, false, _) => folder::replace_at(&self.home, &place, &models),
            (false, _, true) => folder::move_to(&staged, &place),
            (false, _, false) => folder::make_at(&self.home, &place, &models),
        }
    }

    fn move_to(&self, folder: &Path, place: &Path, parent: &Path, index: &Index) -> Result<Moved, Fault> {
        // The same bytes are there already, perhaps in use: they stay.
        let is_there = look::is_there(place)?;
        if is_there && check_folder(place, index).is_ok() {
            return Ok(Moved::Kept);
        }
        let publish = || -> io::Result<Moved> {
            make_read_only(folder)?;
            let moved = match is_there {
                true => {
                    exchange(folder, place)?;
                    Moved::Exchanged
                }
                false => {
                    fs::rename(folder, place)?;
                    Moved::Fresh
                }
            };
            take_write(place)?;
            durable::sync_folder(parent)?;
            Ok(moved)
        };
        publish().map_err(|error| Fault::io(format!("publishing {}", place.display()), &error))
    }
}

/// How a recipe came to its place.
enum Moved {
    /// The same files were already there.
    Kept,
    /// Nothing was there.
    Fresh,
    /// Altered files were there; they lie in staging now.
    Exchanged,
}

/// Swaps two folders in one step: neither path is ever empty.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    make_writable(one)?;
    make_writable(other)?;
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}
