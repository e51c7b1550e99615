//! Checks a home before anything in it is trusted: nobody else may write to it.

use std::{
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};

use super::config::Config;
use crate::{
    disk::{
        make,
        owner::{Writers, quoted},
    },
    model::{Code, Digest, Fault, Home, act, has_run_out, hint},
};

/// Moves the state and the cache of a home to a folder of this user below `TMPDIR`, each if its own folder
/// does not exist and cannot be made, or lies on a read-only file system. So recipes installed in an image
/// with a read-only root can run. The next process of this user finds the same folder, so it is shared as a
/// home is. A folder whose state cannot be determined stays where it is.
pub fn placed(home: Home) -> Home {
    let below = elsewhere(&home);
    let home = if is_closed(home.state()) { home.with_state(below.join("state")) } else { home };
    if is_closed(home.cache()) { home.with_cache(below.join("cache")) } else { home }
}

/// This user's folder for a home; every spelling of the home's path gives the same folder.
fn elsewhere(home: &Home) -> PathBuf {
    let temporary = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute()).unwrap_or_else(|| "/tmp".into());
    let config = home.config().canonicalize().unwrap_or_else(|_| home.config().to_owned());
    temporary.join(format!("hob-{}-{}", rustix::process::geteuid().as_raw(), Digest::of(config.as_os_str().as_bytes()).short()))
}

/// Whether the folder cannot be made, or stays unwritable whatever its mode is set to.
fn is_closed(folder: &Path) -> bool {
    let Some(there) = folder.ancestors().find(|path| !matches!(path.try_exists(), Ok(false))) else { return false };
    if statvfs(there).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return true;
    }
    // An existing folder has an owner, which may not be this user: `trusted` checks that.
    there != folder && there.is_dir() && accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_err()
}

/// Refuses a home whose paths are not folders.
///
/// Errors: `invalid_config`; `io` if the machine has no resources left to look.
pub fn are_folders(home: &Home) -> Result<(), Fault> {
    let mut other = None;
    for path in home.folders().into_iter().flat_map(Path::ancestors) {
        match std::fs::metadata(path) {
            Ok(found) if !found.is_dir() => {
                other = Some(path);
                break;
            }
            Err(error) if has_run_out(&error) => return Err(Fault::io(format!("looking at {}", path.display()), &error)),
            // The folder does not exist yet, or this user may not enter it: the step that makes or opens it
            // reports that.
            _ => {}
        }
    }
    let Some(other) = other else { return Ok(()) };
    let text = format!("{} is no folder, and Hob's files are to lie in {}", other.display(), home.config().display());
    Err(Fault::new(Code::InvalidConfig, text).hint(hint![
        "name a folder with ",
        act::hob_home(),
        ", which need not be there yet, or move that file away"
    ]))
}

/// Refuses a folder that another user made for itself.
///
/// Errors: `home_unsafe`, with the command that fixes it.
fn may_enter(folder: &Path) -> Result<(), Fault> {
    let Ok(found) = std::fs::symlink_metadata(folder) else { return Ok(()) };
    let own = rustix::process::geteuid().as_raw();
    if found.uid() == own || accessat(CWD, folder, Access::READ_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok() {
        return Ok(());
    }
    let text =
        format!("{} belongs to user {}, and user {own} may not enter it: a command of that user made it", folder.display(), found.uid());
    let give = act::shell(format!("chown -R {own} {}", quoted(folder)));
    Err(Fault::new(Code::HomeUnsafe, text).hint(hint![
        "where this home is to be used by this user, ",
        give,
        ", run by root, gives it that folder; else run as that user, or name a home of your own with ",
        act::hob_home()
    ]))
}

/// Checks who may write to the home's folders, to those above them, and to its two files; returns the home
/// with the group that `hob.toml` allows to write. Makes the folders of state and cache, accessible to their
/// owner only.
///
/// Only their owner and root may write to `hob.toml`, `hob.lock` and their folder, whatever `hob.toml` says:
/// a user with write access could admit anybody. A home to which nobody can write gets its state and cache
/// elsewhere ([`placed`]).
///
/// Errors: `home_unsafe`, with the command that fixes it; `invalid_config`, `io`.
pub fn trusted(home: Home) -> Result<Home, Fault> {
    are_folders(&home)?;
    let alone = Writers::new(None);
    alone.check_with_above(home.config())?;
    // The path may go through a link: some machines put their configuration in place that way.
    alone.check_with_above(&home.config_file())?;
    alone.check(&home.lock_file())?;
    let group = Config::read(&home)?.group;
    let home = placed(home.shared_with(group));
    let writers = Writers::new(group);
    let [data, cache, state] = home.roots();
    if home.is_elsewhere() {
        // The folder is made before it is checked. Where everybody may make folders, nobody else can replace
        // it after that.
        let folder = elsewhere(&home);
        let other = "name a folder with TMPDIR that this user can write to, or that nobody else can";
        make::folder(&folder, make::PRIVATE_FOLDER).map_err(|error| {
            Fault::io(format!("making {}, since {} cannot be written to", folder.display(), home.config().display()), &error).hint(other)
        })?;
        // Where everybody may make folders, anybody can have made it first: its user cannot fix that.
        writers.check(&folder).map_err(|fault| fault.hint(other))?;
    }
    for folder in [data, cache, state] {
        writers.check_with_above(folder)?;
    }
    [cache, state].into_iter().try_for_each(may_enter)?;
    // Files in these folders are run: in pods, or as the host's own machine code.
    for folder in [home.uv_cache(), home.pod_caches(), home.compile_cache(), home.own_tools()] {
        writers.check_with_above(&folder)?;
    }
    // Also the cache of `uv`: Hob does not control the umask of `uv`.
    let of_uv = home.uv_cache();
    for folder in [cache, state, of_uv.as_path()] {
        // If a folder cannot be made, the step that needs it reports that.
        if make::folder(folder, make::PRIVATE_FOLDER).is_ok() && group.is_none() {
            let _ = make::close(folder);
        }
    }
    Ok(home)
}

/// Checks everything in the home. Blocking; a large home takes long.
///
/// Errors: as [`trusted`], for the first file found.
pub fn check_all(home: &Home) -> Result<(), Fault> {
    Writers::new(None).check(&home.config_file())?;
    let writers = Writers::new(home.group());
    home.roots().iter().try_for_each(|folder| writers.check_tree(folder))
}
