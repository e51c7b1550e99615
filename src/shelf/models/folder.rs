//! The folder in which a recipe's pods find its models: each at its name, a plain file, and nothing else.
//!
//! On the rest of the shelf, models are identified by digest and shared (`mod.rs`). Programs, however, read
//! weights of several files by names that stand in those files. A hard link gives a model both names, so it
//! takes its space once; on a file system without hard links it is copied.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    disk::{make, open},
    model::{Fault, Home},
    shelf::{
        durable,
        files::{staging::Staging, tree::take_write},
        models::Identity,
    },
};

/// A model's name, and the file with its bytes.
pub(in crate::shelf) type Named<'a> = (&'a str, PathBuf);

/// The suffix of the name of an installed recipe's folder of models.
const END: &str = ".models";

/// The folder of models of an installed recipe that lies in `recipe`.
pub(in crate::shelf) fn beside(recipe: &Path) -> PathBuf {
    let mut path = recipe.as_os_str().to_owned();
    path.push(END);
    path.into()
}

/// The model files of all versions of a recipe that lie in `versions`, as far as they can be read.
pub(in crate::shelf) fn of_versions(versions: &Path) -> BTreeSet<Identity> {
    let folders = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let mut left: Vec<_> = folders(versions).into_iter().filter(|path| path.to_string_lossy().ends_with(END)).collect();
    let mut files = BTreeSet::new();
    while let Some(path) = left.pop() {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => left.extend(folders(&path)),
            Ok(found) => drop(files.insert((found.dev(), found.ino()))),
            Err(_) => {}
        }
    }
    files
}

/// The identity of a file, independent of its name.
pub(in crate::shelf) fn identity(path: &Path) -> io::Result<Identity> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// What is wrong with `folder` as the folder of these models, for people; does not read the bytes of the
/// files.
///
/// Errors: `NotFound` if there is no such folder.
pub(in crate::shelf) fn compare<'a>(folder: &Path, names: impl Iterator<Item = &'a str>) -> io::Result<Option<String>> {
    let mut wanted: BTreeSet<&str> = names.collect();
    let above: BTreeSet<&str> = wanted.iter().flat_map(|name| name.match_indices('/').map(|(at, _)| &name[..at])).collect();
    if !fs::symlink_metadata(folder)?.is_dir() {
        return Ok(Some("it is no folder".to_owned()));
    }
    let mut folders = vec![String::new()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(folder.join(&inner))? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let path = format!("{inner}{}", name.to_string_lossy());
            if kind.is_dir() && above.contains(path.as_str()) {
                folders.push(path + "/");
            } else if kind.is_dir() || !wanted.remove(path.as_str()) {
                return Ok(Some(format!("`{path}` is no model of the recipe")));
            } else if !kind.is_file() {
                return Ok(Some(format!("`{path}` is no plain file")));
            }
        }
    }
    Ok(wanted.first().map(|name| format!("`{name}` is missing")))
}

/// Whether `folder` holds exactly these models, each as the very same file.
pub(in crate::shelf) fn is_of(folder: &Path, models: &[Named]) -> bool {
    let names = models.iter().map(|(name, _)| *name);
    compare(folder, names).is_ok_and(|wrong| wrong.is_none()) && models.iter().all(|(name, file)| is_same(file, &folder.join(name)))
}

/// Whether two paths name one file.
fn is_same(one: &Path, other: &Path) -> bool {
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

/// Makes `folder`, which does not exist yet, with these models in it; the data is on the disk when this
/// returns. Everything is read-only except `folder` itself, which may have to be renamed.
fn build(folder: &Path, models: &[Named]) -> Result<(), Fault> {
    let mut folders = BTreeSet::from([folder.to_owned()]);
    make::new_folder(folder, make::FOLDER).map_err(|error| Fault::io(format!("making the folder {}", folder.display()), &error))?;
    for (name, file) in models {
        let to = folder.join(name);
        let failed = |error: io::Error| Fault::io(format!("putting model `{name}` into {}", folder.display()), &error);
        for above in to.ancestors().skip(1).take_while(|above| *above != folder) {
            folders.insert(above.to_owned());
        }
        to.parent().map_or(Ok(()), |above| make::folder(above, make::FOLDER)).map_err(failed)?;
        link(file, &to).map_err(failed)?;
    }
    let sealed = || -> io::Result<()> {
        for inner in folders.iter().rev() {
            durable::sync_folder(inner)?;
            if inner != folder {
                take_write(inner)?;
            }
        }
        Ok(())
    };
    sealed().map_err(|error| Fault::io(format!("making the folder {}", folder.display()), &error))
}

/// Gives a file a second name, or makes a copy of it.
fn link(file: &Path, to: &Path) -> io::Result<()> {
    let Err(why) = fs::hard_link(file, to) else { return Ok(()) };
    if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists | io::ErrorKind::StorageFull) {
        return Err(why);
    }
    // Reasons: another file system, one without links, too many links to one file, or a file of another user
    // that may not be linked to.
    tracing::warn!("{} is copied to {}, since it cannot be linked: {why}", file.display(), to.display());
    copy(file, to)
}

fn copy(file: &Path, to: &Path) -> io::Result<()> {
    let (mut from, mut copy) = (open::open(file)?, make::new_file(to, make::PRIVATE_FILE)?);
    // Takes no room where the file system can share it.
    if rustix::fs::ioctl_ficlone(&copy, &from).is_err() {
        io::copy(&mut from, &mut copy)?;
    }
    copy.set_permissions(fs::Permissions::from_mode(0o444))?;
    File::sync_all(&copy)
}

/// Makes the folder of an installed recipe at `place`, unless another process makes it meanwhile.
pub(in crate::shelf) fn make_at(home: &Home, place: &Path, models: &[Named]) -> Result<(), Fault> {
    let staging = Staging::new(home, "models")?;
    let made = staging.folder().join("models");
    build(&made, models)?;
    match renameat_with(CWD, &made, CWD, place, RenameFlags::NOREPLACE) {
        Ok(()) => settled(place),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
    .map_err(|error| Fault::io(format!("making the folder {}", place.display()), &error))
}

/// Moves a folder that was made elsewhere on the shelf to `place`, where nothing exists.
pub(in crate::shelf) fn move_to(made: &Path, place: &Path) -> Result<(), Fault> {
    let moved = || -> io::Result<()> {
        // For its parent to change, a folder must be writable itself.
        fs::set_permissions(made, fs::Permissions::from_mode(make::FOLDER))?;
        renameat_with(CWD, made, CWD, place, RenameFlags::NOREPLACE)?;
        settled(place)
    };
    moved().map_err(|error| Fault::io(format!("publishing {}", place.display()), &error))
}

/// [`make_at`], but replaces an existing folder: at any time either the old or the new one is there.
pub(in crate::shelf) fn replace_at(home: &Home, place: &Path, models: &[Named]) -> Result<(), Fault> {
    let staging = Staging::new(home, "models")?;
    let made = staging.folder().join("models");
    build(&made, models)?;
    let exchange = || -> io::Result<()> {
        // For its parent to change, a folder must be writable itself.
        fs::set_permissions(place, fs::Permissions::from_mode(make::FOLDER))?;
        renameat_with(CWD, &made, CWD, place, RenameFlags::EXCHANGE)?;
        settled(place)
    };
    exchange().map_err(|error| Fault::io(format!("replacing the folder {}", place.display()), &error))
}

fn settled(place: &Path) -> io::Result<()> {
    take_write(place)?;
    durable::sync_folder(place.parent().unwrap_or(place))
}

/// A folder of models that exists as long as its recipe folder is in use.
#[derive(Debug)]
pub(in crate::shelf) struct Lent {
    staging: Staging,
    of: Vec<Source>,
}

impl Lent {
    pub fn folder(&self) -> PathBuf {
        self.staging.folder().join("models")
    }
}

/// A model of a recipe folder, and the state of its file.
type Source = (String, PathBuf, (u64, u64, u64, i64, i64));

/// The folders of models by recipe folder; each stays the same as long as the author's files do.
#[derive(Debug, Default)]
pub(in crate::shelf) struct Folders(Mutex<HashMap<PathBuf, Weak<Lent>>>);

impl Folders {
    /// The folder with these models for the recipe folder `recipe`.
    pub fn of(&self, home: &Home, recipe: &Path, models: &[Named]) -> Result<Arc<Lent>, Fault> {
        let known = || self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of = models.iter().map(|(name, path)| state(name, path)).collect::<io::Result<Vec<_>>>();
        let of = of.map_err(|error| Fault::io(format!("reading the models of {}", recipe.display()), &error))?;
        let before = known().get(recipe).and_then(Weak::upgrade);
        if let Some(lent) = before.filter(|lent| lent.of == of)
            && compare(&lent.folder(), models.iter().map(|(name, _)| *name)).is_ok_and(|difference| difference.is_none())
        {
            return Ok(lent);
        }
        let staging = Staging::new(home, "models").or_else(|_| Staging::swept_below(&home.lent_models(), "models"))?;
        let lent = Lent { staging, of };
        build(&lent.folder(), models)?;
        take_write(&lent.folder()).map_err(|error| Fault::io(format!("making the folder {}", lent.folder().display()), &error))?;
        // Two calls may each have made one at the same time; each uses its own.
        let lent = Arc::new(lent);
        let mut known = known();
        known.retain(|_, lent| lent.strong_count() > 0);
        known.insert(recipe.to_owned(), Arc::downgrade(&lent));
        Ok(lent)
    }
}

/// The properties that change if an author writes to the file or replaces it; a new link to the file changes
/// none of them.
fn state(name: &str, path: &Path) -> io::Result<Source> {
    let found = fs::metadata(path)?;
    Ok((name.to_owned(), path.to_owned(), (found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name.replace('/', "-"));
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        path
    }

    #[test]
    fn what_is_in_it_is_the_models_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (home, names) = (Home::at(root.path().join("home")), ["a.bin", "onnx/deep/b.bin", "onnx/c.bin"]);
        let models: Vec<Named> = names.map(|name| (name, written(root.path(), name))).to_vec();
        let place = root.path().join("models");
        let difference = || compare(&place, names.into_iter()).unwrap();
        assert_eq!(compare(&place, names.into_iter()).unwrap_err().kind(), io::ErrorKind::NotFound);
        make_at(&home, &place, &models).unwrap();
        assert_eq!(difference(), None);
        for (name, file) in &models {
            assert!(is_same(file, &place.join(name)), "{name}");
        }
        for folder in [place.clone(), place.join("onnx"), place.join("onnx/deep")] {
            assert_eq!(fs::metadata(folder).unwrap().mode() & 0o777, 0o555);
        }
        make_at(&home, &place, &models).unwrap();

        let open = |folder: &Path| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        open(&place.join("onnx"));
        fs::write(place.join("onnx/planted.json"), "").unwrap();
        assert_eq!(difference().unwrap(), "`onnx/planted.json` is no model of the recipe");
        fs::remove_file(place.join("onnx/planted.json")).unwrap();
        fs::create_dir(place.join("onnx/empty")).unwrap();
        assert_eq!(difference().unwrap(), "`onnx/empty` is no model of the recipe");
        fs::remove_dir(place.join("onnx/empty")).unwrap();
        fs::rename(place.join("onnx/c.bin"), root.path().join("c")).unwrap();
        assert_eq!(difference().unwrap(), "`onnx/c.bin` is missing");
        std::os::unix::fs::symlink(root.path().join("c"), place.join("onnx/c.bin")).unwrap();
        assert_eq!(difference().unwrap(), "`onnx/c.bin` is no plain file");
        replace_at(&home, &place, &models).unwrap();
        assert_eq!((difference(), fs::metadata(&place).unwrap().mode() & 0o777), (None, 0o555));
        assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_linked_is_copied() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let file = written(other.path(), "a.bin");
        assert_ne!(fs::metadata(root.path()).unwrap().dev(), fs::metadata(&file).unwrap().dev(), "wanted two file systems");
        let place = root.path().join("models");
        make_at(&Home::at(root.path().join("home")), &place, &[("x/a.bin", file.clone())]).unwrap();
        let copy = place.join("x/a.bin");
        assert!(!is_same(&file, &copy) && fs::read(&copy).unwrap() == b"a.bin");
        assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o444);
    }

    #[test]
    fn a_recipe_folder_has_one_as_long_as_its_files_are_the_same() {
        let root = tempfile::tempdir().unwrap();
        let (home, folders) = (Home::at(root.path().join("home")), Folders::default());
        let models = [("a.bin", written(root.path(), "a.bin"))];
        let lent = folders.of(&home, root.path(), &models).unwrap();
        assert!(Arc::ptr_eq(&lent, &folders.of(&home, root.path(), &models).unwrap()));
        fs::remove_file(&models[0].1).unwrap();
        fs::write(&models[0].1, "other").unwrap();
        let next = folders.of(&home, root.path(), &models).unwrap();
        assert_eq!(fs::read(next.folder().join("a.bin")).unwrap(), b"other");
        // Earlier pods still read the file that they began with.
        assert_eq!(fs::read(lent.folder().join("a.bin")).unwrap(), b"a.bin");
        drop((lent, next));
        assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0);
    }
}
