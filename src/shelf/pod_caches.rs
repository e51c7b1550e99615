//! Caches that libraries in a recipe's pods keep for the recipe's later pods: compiled code, lists of fonts.
//!
//! A pod that works for no call fills a cache once. The cache never changes after that: each pod begins with
//! a copy. A damaged or missing cache only costs time.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    disk::{make, owner::Writers},
    model::{
        Blob, Code, Digest, Fault, Home, RecipeName,
        limits::{
            POD_CACHE_ABOUT_BYTES_MAX, POD_CACHE_BYTES_MAX, POD_CACHE_FILES_MAX, POD_CACHE_PATH_BYTES_MAX, POD_CACHE_RETRY_MS,
            POD_CACHES_BYTES_MAX, POD_CACHES_OF_RECIPE_MAX,
        },
    },
    shelf::{
        durable,
        files::{
            self,
            locks::{self, Held},
            staging::Staging,
        },
    },
};

/// The state of a cache.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// It was never filled.
    Nothing,
    /// It was filled and is empty, or could not be filled.
    Empty,
    /// The folder with its files.
    Files(PathBuf),
}

/// A file of a cache, as its pod names it.
#[derive(Debug, Deserialize)]
pub struct Listed {
    pub path: String,
    pub bytes: u64,
}

/// The record that is kept beside the files of a cache.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    files: usize,
    bytes: u64,
    /// Why the cache is empty, if that is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

const ABOUT: &str = "about.json";
const FILES: &str = "files";

/// Looks for the recipe's cache with this key. Blocking.
pub fn find(home: &Home, recipe: &RecipeName, key: Digest) -> Found {
    let above = folder_of(home, recipe);
    let folder = above.join(key.hex());
    if let Err(why) = is_ours(home, &above, &folder) {
        tracing::warn!(%recipe, "what its libraries compiled is not used, and not made anew: {why}");
        return Found::Empty;
    }
    match read(&folder) {
        Some(About { files: 0, why: Some(_), .. }) if age(&folder).is_none_or(|age| age > Duration::from_millis(POD_CACHE_RETRY_MS)) => {
            Found::Nothing
        }
        Some(About { files: 0, .. }) => Found::Empty,
        Some(_) => Found::Files(folder.join(FILES)),
        None => Found::Nothing,
    }
}

/// The right to fill this cache; none if another host has it, or has filled the cache meanwhile. Blocking.
///
/// Errors: `io`.
pub fn claim(home: &Home, recipe: &RecipeName, key: Digest) -> Result<Option<Held>, Fault> {
    let held = locks::try_acquire(&home.locks().join(format!("cache-{}.lock", key.short())))?;
    Ok(held.filter(|_| find(home, recipe, key) == Found::Nothing))
}

/// Checks that nobody else can have put files there that pods would run.
fn is_ours(home: &Home, above: &Path, folder: &Path) -> Result<(), String> {
    for place in [above.parent().unwrap_or(above), above, folder] {
        match fs::symlink_metadata(place) {
            Ok(found) if !found.is_dir() => return Err(format!("{} is no folder", place.display())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("{}: {error}", place.display())),
        }
        Writers::new(home.group()).check(place).map_err(|fault| fault.message)?;
    }
    Writers::new(home.group()).check_tree(folder).map_err(|fault| fault.message)
}

/// Keeps the files that a pod gave, instead of the earlier ones; `content` has the bytes of the files, one
/// after the other. Blocking.
///
/// Errors: `invalid_output` for a list that no cache may have, `io`, `disk_full`.
pub fn keep(home: &Home, recipe: &RecipeName, key: Digest, listed: &[Listed], content: &Blob) -> Result<(), Fault> {
    check(listed, content.size()).map_err(|why| Fault::new(Code::InvalidOutput, format!("the cache of `{recipe}`: {why}")))?;
    let bytes = listed.iter().map(|file| file.bytes).sum();
    put(home, recipe, key, &About { files: listed.len(), bytes, why: None }, |folder| {
        let mut reader = content.reader();
        for file in listed {
            let path = folder.join(&file.path);
            make::folder(path.parent().unwrap_or(folder), make::PRIVATE_FOLDER)?;
            let copied = io::copy(&mut io::Read::take(&mut reader, file.bytes), &mut make::new_file(&path, make::PRIVATE_FILE)?)?;
            if copied != file.bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    })?;
    prune(home, recipe);
    Ok(())
}

/// Records that a cache could not be filled; Hob does not try again for a day. Blocking.
pub fn keep_failure(home: &Home, recipe: &RecipeName, key: Digest, why: &str) -> Result<(), Fault> {
    let why = why.chars().take(POD_CACHE_ABOUT_BYTES_MAX as usize / 16).collect();
    put(home, recipe, key, &About { files: 0, bytes: 0, why: Some(why) }, |_| Ok(()))
}

/// Deletes all caches of a recipe. Blocking.
pub fn remove(home: &Home, recipe: &RecipeName) -> Result<(), Fault> {
    let folder = folder_of(home, recipe);
    match fs::symlink_metadata(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => files::remove_tree(&folder),
    }
}

/// Checks that a pod's list names plain files within a folder, each once, within the bounds, with `bytes`
/// bytes in total.
fn check(listed: &[Listed], bytes: u64) -> Result<(), String> {
    if listed.len() > POD_CACHE_FILES_MAX || bytes > POD_CACHE_BYTES_MAX {
        return Err(format!("{} files of {bytes} bytes; at most {POD_CACHE_FILES_MAX} of {POD_CACHE_BYTES_MAX} are kept", listed.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut sum = 0u64;
    for file in listed {
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
        if file.path.len() > POD_CACHE_PATH_BYTES_MAX || !file.path.split('/').all(is_plain) || !seen.insert(&file.path) {
            return Err(format!("{:?} is no path of a file in it", file.path.chars().take(200).collect::<String>()));
        }
        sum = sum.saturating_add(file.bytes);
    }
    match sum == bytes {
        true => Ok(()),
        false => Err(format!("its files are said to have {sum} bytes; {bytes} came")),
    }
}

fn put(home: &Home, recipe: &RecipeName, key: Digest, about: &About, fill: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Fault> {
    let io = |error: io::Error| Fault::io(format!("keeping the cache of `{recipe}`"), &error);
    let above = folder_of(home, recipe);
    make::folder(&above, make::PRIVATE_FOLDER).map_err(io)?;
    let staging = Staging::below(&half_done(home), "cache")?;
    let (made, place) = (staging.folder().join("cache"), above.join(key.hex()));
    make::new_folder(&made, make::PRIVATE_FOLDER).map_err(io)?;
    make::new_folder(&made.join(FILES), make::PRIVATE_FOLDER).map_err(io)?;
    fill(&made.join(FILES)).map_err(io)?;
    durable::create(&made.join(ABOUT), &serde_json::to_vec(about).expect("numbers and text become JSON"), make::PRIVATE_FILE)?;
    if fs::rename(&made, &place).is_err() {
        // A cache is there: another host made it meanwhile, or it records a failure.
        files::remove_tree(&place)?;
        fs::rename(&made, &place).map_err(io)?;
    }
    Ok(())
}

/// Deletes the oldest caches: of the recipe beyond the number kept per recipe, and of all recipes beyond the
/// total of bytes. A cache that cannot be deleted stays.
fn prune(home: &Home, recipe: &RecipeName) {
    for (folder, _) in newest_first(caches_in(&folder_of(home, recipe))).into_iter().skip(POD_CACHES_OF_RECIPE_MAX) {
        let _ = files::remove_tree(&folder);
    }
    let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = below(home.pod_caches()).flat_map(below).flat_map(|recipe| caches_in(&recipe));
    let mut bytes = 0u64;
    for (folder, about) in newest_first(all.collect()) {
        bytes = bytes.saturating_add(about.bytes);
        if bytes > POD_CACHES_BYTES_MAX {
            let _ = files::remove_tree(&folder);
        }
    }
    let _ = crate::shelf::files::staging::sweep(&half_done(home), |_| true);
}

fn caches_in(recipe: &Path) -> Vec<(PathBuf, About)> {
    let entries = fs::read_dir(recipe).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), read(&entry.path())?))).collect()
}

fn newest_first(mut caches: Vec<(PathBuf, About)>) -> Vec<(PathBuf, About)> {
    caches.sort_by_key(|(folder, _)| age(folder));
    caches
}

fn age(cache: &Path) -> Option<Duration> {
    let made = fs::metadata(cache.join(ABOUT)).and_then(|about| about.modified()).ok()?;
    Some(SystemTime::now().duration_since(made).unwrap_or_default())
}

fn read(cache: &Path) -> Option<About> {
    let bytes = durable::read(&cache.join(ABOUT), POD_CACHE_ABOUT_BYTES_MAX).ok()??;
    serde_json::from_slice(&bytes).ok()
}

/// The folder in which caches are made; no publisher has this name.
fn half_done(home: &Home) -> PathBuf {
    home.pod_caches().join(".half")
}

fn folder_of(home: &Home, recipe: &RecipeName) -> PathBuf {
    home.pod_caches().join(recipe.publisher()).join(recipe.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(files: &[(&str, u64)]) -> Vec<Listed> {
        files.iter().map(|(path, bytes)| Listed { path: (*path).to_owned(), bytes: *bytes }).collect()
    }

    fn blob(bytes: &[u8]) -> Blob {
        Blob::new("files", "application/octet-stream", bytes.to_vec())
    }

    #[test]
    fn what_is_kept_is_found_by_its_key_and_goes_with_its_recipe() {
        let root = tempfile::tempdir().unwrap();
        let (home, recipe, other) = (Home::at(root.path()), "a/b".parse().unwrap(), "a/c".parse().unwrap());
        let key = Digest::of(b"key");
        assert_eq!(find(&home, &recipe, key), Found::Nothing);
        remove(&home, &recipe).unwrap();
        keep(&home, &recipe, key, &listed(&[("numba/f.nbi", 3), ("fonts.json", 2)]), &blob(b"abcde")).unwrap();
        keep(&home, &other, key, &[], &blob(b"")).unwrap();
        let Found::Files(folder) = find(&home, &recipe, key) else { panic!("not found") };
        assert_eq!(fs::read(folder.join("numba/f.nbi")).unwrap(), b"abc");
        assert_eq!(fs::read(folder.join("fonts.json")).unwrap(), b"de");
        assert_eq!(find(&home, &recipe, Digest::of(b"another")), Found::Nothing);
        assert_eq!(find(&home, &other, key), Found::Empty);
        // A failure is known for a day, and gives way to a cache.
        keep_failure(&home, &recipe, key, "no").unwrap();
        assert_eq!(find(&home, &recipe, key), Found::Empty);
        let about = home.pod_caches().join("a/b").join(key.hex()).join(ABOUT);
        let yesterday = SystemTime::now() - Duration::from_millis(POD_CACHE_RETRY_MS) - Duration::from_secs(1);
        fs::File::options().write(true).open(about).unwrap().set_modified(yesterday).unwrap();
        assert_eq!(find(&home, &recipe, key), Found::Nothing);
        keep(&home, &recipe, key, &listed(&[("f", 1)]), &blob(b"x")).unwrap();
        assert!(matches!(find(&home, &recipe, key), Found::Files(_)));
        // The newest caches of a recipe are kept.
        for more in 0..3u8 {
            keep(&home, &recipe, Digest::of(&[more]), &listed(&[("f", 1)]), &blob(b"x")).unwrap();
        }
        assert_eq!(fs::read_dir(home.pod_caches().join("a/b")).unwrap().count(), POD_CACHES_OF_RECIPE_MAX);
        remove(&home, &recipe).unwrap();
        assert_eq!(find(&home, &recipe, Digest::of(&[2])), Found::Nothing);
        assert_eq!(find(&home, &other, key), Found::Empty);
    }

    #[test]
    fn a_list_that_leaves_its_folder_or_its_bounds_is_refused_and_nothing_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let (home, recipe, key) = (Home::at(root.path()), "a/b".parse().unwrap(), Digest::of(b"key"));
        let long = "a".repeat(POD_CACHE_PATH_BYTES_MAX + 1);
        for path in ["../x", "/etc/x", "a//b", "", ".", "a/../../x", "a/", "a\nb", &long] {
            let fault = keep(&home, &recipe, key, &listed(&[(path, 1)]), &blob(b"x")).unwrap_err();
            assert_eq!(fault.code, Code::InvalidOutput, "{path:?}: {fault}");
        }
        for (files, bytes) in
            [(vec![("a", 1), ("a", 1)], 2), (vec![("a", 2)], 1), (vec![("a", 1)], 2), (vec![("a", u64::MAX), ("b", 2)], 1)]
        {
            keep(&home, &recipe, key, &listed(&files), &blob(&vec![0; bytes])).unwrap_err();
        }
        // Two paths collide: one is a file where the other has a folder.
        keep(&home, &recipe, key, &listed(&[("a", 1), ("a/b", 1)]), &blob(b"xy")).unwrap_err();
        assert_eq!(find(&home, &recipe, key), Found::Nothing);
        assert!(!root.path().join("cache/x").exists() && !root.path().join("x").exists());
    }

    #[test]
    fn one_host_fills_a_cache_at_a_time_and_none_what_is_filled() {
        let root = tempfile::tempdir().unwrap();
        let (home, recipe, key) = (Home::at(root.path()), "a/b".parse().unwrap(), Digest::of(b"key"));
        let first = claim(&home, &recipe, key).unwrap();
        assert!(first.is_some() && claim(&home, &recipe, key).unwrap().is_none());
        assert!(claim(&home, &recipe, Digest::of(b"other")).unwrap().is_some());
        drop(first);
        assert!(claim(&home, &recipe, key).unwrap().is_some());
        keep(&home, &recipe, key, &[], &blob(b"")).unwrap();
        assert!(claim(&home, &recipe, key).unwrap().is_none());
    }

    #[test]
    fn what_others_can_write_to_or_a_link_is_not_used_and_not_made_anew() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let root = tempfile::tempdir().unwrap();
        let (home, recipe) = (Home::at(root.path()), "a/b".parse().unwrap());
        let key = Digest::of(b"key");
        let kept = || {
            keep(&home, &recipe, key, &listed(&[("f", 3)]), &blob(b"abc")).unwrap();
            let Found::Files(folder) = find(&home, &recipe, key) else { panic!("not found") };
            folder
        };
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let folder = kept();
        for place in [folder.parent().unwrap(), &folder_of(&home, &recipe), folder_of(&home, &recipe).parent().unwrap()] {
            mode(place, 0o777);
            assert_eq!(find(&home, &recipe, key), Found::Empty, "{}", place.display());
            mode(place, 0o700);
        }
        // A file that others may write to, in folders that they may enter.
        for place in [folder.parent().unwrap(), &folder] {
            mode(place, 0o755);
        }
        mode(&folder.join("f"), 0o666);
        assert_eq!(find(&home, &recipe, key), Found::Empty);
        mode(&folder.join("f"), 0o600);
        assert!(matches!(find(&home, &recipe, key), Found::Files(_)));
        let (above, elsewhere) = (folder_of(&home, &recipe), root.path().join("elsewhere"));
        fs::rename(&above, &elsewhere).unwrap();
        symlink(&elsewhere, &above).unwrap();
        assert_eq!(find(&home, &recipe, key), Found::Empty);
    }
}
