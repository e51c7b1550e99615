//! Checks whether the granted files of a pod can be given now, and words the faults for its caller: a granted
//! file that cannot be given, or a file that was not granted.
//!
//! These are problems of the paths that an operator named. None of them is a missing sandbox layer, and a
//! weaker sandbox would not solve any.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    model::{Code, Fault, Hint, Permissions, Verified, act, grant::KINDS, hint, limits::NAMED_IN_MESSAGE_MAX},
    pod::sandbox::paths::SCRATCH,
};

/// The permissions that the recipe asks for and was not granted, by the act that fails without them. A pod
/// builds the next step of a failure from them. Each is the recipe and the permissions as commands take them,
/// or `None` if all were granted.
#[derive(Default, Serialize)]
pub struct Lacking {
    network: Option<String>,
    files: Option<String>,
    env: Option<String>,
    /// For a failure whose act is unknown.
    any: Option<String>,
    /// Paths of `files`: by them a pod tells a file that was not granted from a missing one. A pod has a
    /// `/tmp` of its own.
    places: Vec<String>,
    variables: Vec<String>,
}

impl Lacking {
    /// `word`: the recipe as commands take it.
    pub fn of(recipe: &Verified, word: &str, granted: &Permissions) -> Lacking {
        let lacks = recipe.manifest().permissions.without(granted);
        let step = |kinds: &[&str]| {
            let values = |kind: &&str| lacks.of_kind(kind).into_iter().map(|value| format!("{kind}={value}")).collect::<Vec<_>>();
            let lacking: Vec<String> = kinds.iter().flat_map(values).collect();
            let is_plain = lacking.iter().all(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || "=.:/[]-_".contains(c)));
            let words = match lacking.len() {
                0 => return None,
                1..=NAMED_IN_MESSAGE_MAX if is_plain => lacking.join(" "),
                _ => "--all".to_owned(),
            };
            Some(format!("{word} {words}"))
        };
        let all = |kinds: &[&str]| kinds.iter().flat_map(|kind| lacks.of_kind(kind)).collect();
        Lacking {
            network: step(&["network"]),
            files: step(&["read", "write"]),
            env: step(&["env"]),
            any: step(&KINDS),
            places: all(&["read", "write"]),
            variables: all(&["env"]),
        }
    }
}

/// Checks every granted path. `name`: the recipe, for people; `word`: how its operator names it to commands.
///
/// Errors: `invalid_config`, which names the path.
pub fn check(name: &str, word: &str, granted: &Permissions) -> Result<(), Fault> {
    for (kind, path) in granted.read.iter().map(|path| ("read", path)).chain(granted.write.iter().map(|path| ("write", path))) {
        let path = path.as_path();
        let take_back = hint!["take it back with ", act::revoke(word, format!("{kind}={}", path.display()))];
        let refused = |why: String, first: &str| {
            Err(Fault::new(Code::InvalidConfig, format!("`{name}` was granted {kind}={}{why}", path.display()))
                .hint(Hint::from(first).and("", take_back.clone())))
        };
        if path == Path::new(SCRATCH) {
            return refused(", where each pod has a folder of its own".to_owned(), "grant the folders below it that are needed, and ");
        }
        let own = |place: &Path| if place == path { "it".to_owned() } else { place.display().to_string() };
        return match look(path) {
            Ok(()) => continue,
            Err(Wrong::Gone(place)) if place == path => refused(", which is not there".to_owned(), "make it, or "),
            Err(Wrong::Gone(place)) => refused(format!(", which is not there: nor is {}", place.display()), "make it, or "),
            Err(Wrong::Link(place, target)) => refused(
                format!(
                    ", and {} is a symbolic link to {}: what a link leads to is not granted, since whoever can write there may turn it",
                    own(&place),
                    target.display()
                ),
                "have the real folder or file there, or ask for it by its real path in the recipe and grant that; ",
            ),
            Err(Wrong::File(place)) => {
                refused(format!(", and {} is a file where a folder is to be", own(&place)), "put the folder in its place, or ")
            }
            Err(Wrong::NoData(place)) => refused(
                format!(", and {} is neither a file nor a folder", own(&place)),
                "grant the folder below it that has the files, and ",
            ),
            Err(Wrong::Unseen(place, why)) => refused(
                format!(", and {} cannot be looked at: {why}", own(&place)),
                "let the user that runs Hob pass through the folders above it, or ",
            ),
        };
    }
    Ok(())
}

/// The fault for the caller of a pod whose granted paths are not data, or have changed since the check.
pub fn not_data(name: &str, why: &str) -> Fault {
    Fault::new(Code::InvalidConfig, format!("a pod of `{name}` was not started, because of what it was granted: {why}"))
        .hint(hint!["grant the folder below it that has the files, and take this one back with ", act::revoke(name, "KEY=VALUE")])
}

/// What is wrong, and at which place on the way to the path.
enum Wrong {
    Gone(PathBuf),
    Link(PathBuf, PathBuf),
    File(PathBuf),
    NoData(PathBuf),
    Unseen(PathBuf, io::Error),
}

/// Checks from the top down, as the keeper opens the path: no link is followed.
fn look(path: &Path) -> Result<(), Wrong> {
    let mut places: Vec<&Path> = path.ancestors().collect();
    places.reverse();
    for place in places {
        let kind = match place.symlink_metadata() {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Wrong::Gone(place.to_owned())),
            Err(error) => return Err(Wrong::Unseen(place.to_owned(), error)),
        };
        match () {
            () if kind.is_dir() => {}
            () if kind.is_symlink() => return Err(Wrong::Link(place.to_owned(), fs::read_link(place).unwrap_or_default())),
            () if kind.is_file() && place == path => {}
            () if kind.is_file() => return Err(Wrong::File(place.to_owned())),
            () => return Err(Wrong::NoData(place.to_owned())),
        }
    }
    Ok(())
}
