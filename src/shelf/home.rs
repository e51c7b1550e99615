//! The first look at a home, before anything in it is believed: nobody else may write to it.

use super::config::Config;
use crate::{
    disk::{make, owner::Writers},
    model::{Fault, Home},
};

/// Checks who may write to the home's folders, to those above them, and to its two files; gives the home with the group that
/// `hob.toml` lets write too. Makes the folders of state and cache, which are their owner's alone.
///
/// Nobody but their owner and root may write to `hob.toml`, `hob.lock` and their folder, whatever `hob.toml` says: who could would
/// be able to let in anybody.
///
/// Errors: `home_unsafe` with the command that mends it; `invalid_config`, `io`.
pub fn trusted(home: Home) -> Result<Home, Fault> {
    let alone = Writers::new(None);
    alone.check_with_above(home.config())?;
    // Through a link, which is how some machines put a configuration in its place.
    alone.check_with_above(&home.config_file())?;
    alone.check(&home.lock_file())?;
    let group = Config::read(&home)?.group;
    let home = home.shared_with(group);
    let writers = Writers::new(group);
    let [data, cache, state] = home.roots();
    for folder in [data, cache, state] {
        writers.check_with_above(folder)?;
    }
    // What lies in these runs: in pods, or as the host's own machine code.
    for folder in [home.uv_cache(), home.pod_caches(), home.compile_cache()] {
        writers.check_with_above(&folder)?;
    }
    // That of `uv` too: what its umask would be is not Hob's to say.
    let of_uv = home.uv_cache();
    for folder in [cache, state, of_uv.as_path()] {
        // Where they cannot be made, whoever needs them says so.
        if make::folder(folder, make::PRIVATE_FOLDER).is_ok() && group.is_none() {
            let _ = make::close(folder);
        }
    }
    Ok(home)
}

/// Looks at everything in the home. Blocking, for as long as it is large.
///
/// Errors: as [`trusted`], for the first file found.
pub fn check_all(home: &Home) -> Result<(), Fault> {
    Writers::new(None).check(&home.config_file())?;
    let writers = Writers::new(home.group());
    home.roots().iter().try_for_each(|folder| writers.check_tree(folder))
}
