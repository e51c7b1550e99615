//! Checks who may write to Hob's folders: only its user and root.
//!
//! A user who can write to a home can put a runner, a recipe or a grant there. So Hob checks these before it
//! trusts them: the home's folders and those above them, its two files, the runner, and the recipe and the
//! environment in use. A group that the operator names in `hob.toml` may write too, but not to `hob.toml`
//! itself, nor to its folder.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::OnceLock,
};

use super::open;
use crate::model::{
    Code, Fault, act, hint,
    limits::{ACCOUNTS_BYTES_MAX, HOME_LINKS_MAX},
};

/// The users and groups that may write.
#[derive(Debug, Clone, Copy)]
pub struct Writers {
    user: u32,
    /// The group that the operator allowed.
    group: Option<u32>,
}

impl Writers {
    /// This process's user and root, and `group` if given.
    pub fn new(group: Option<u32>) -> Writers {
        Writers { user: rustix::process::geteuid().as_raw(), group }
    }

    /// Checks one path without following a link. A missing path passes.
    ///
    /// Errors: `home_unsafe`, with the command that fixes it; `io`.
    pub fn check(&self, path: &Path) -> Result<(), Fault> {
        match fs::symlink_metadata(path) {
            Ok(found) => self.judge(path, &found, Place::Own),
            Err(error) if is_nothing(&error) => Ok(()),
            Err(error) => Err(failed(path, &error)),
        }
    }

    /// Checks `path`, through links, and every folder above it and above each link. A missing path passes.
    ///
    /// Errors: as [`Writers::check`].
    pub fn check_with_above(&self, path: &Path) -> Result<(), Fault> {
        let mut left: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(part) = left.pop_front() {
            match Path::new(&part).components().next() {
                Some(Component::RootDir) => at = PathBuf::from("/"),
                Some(Component::ParentDir) => {
                    at.pop();
                }
                Some(Component::Normal(name)) => at.push(name),
                _ => continue,
            }
            let found = match fs::symlink_metadata(&at) {
                Ok(found) => found,
                Err(error) if is_nothing(&error) => return Ok(()),
                Err(error) => return Err(failed(&at, &error)),
            };
            let place = if left.is_empty() { Place::Own } else { Place::Above };
            self.judge(&at, &found, place)?;
            if found.is_symlink() {
                links += 1;
                if links > HOME_LINKS_MAX {
                    return Err(failed(path, &rustix::io::Errno::LOOP.into()));
                }
                let target = fs::read_link(&at).map_err(|error| failed(&at, &error))?;
                at.pop();
                for part in target.components().rev() {
                    left.push_front(part.as_os_str().to_owned());
                }
            }
        }
        Ok(())
    }

    /// Checks `folder` and everything below it. Blocking; a large tree takes long.
    ///
    /// Errors: as [`Writers::check`], for the first one found.
    pub fn check_tree(&self, folder: &Path) -> Result<(), Fault> {
        self.check(folder)?;
        if fs::symlink_metadata(folder).is_ok_and(|found| found.mode() & 0o011 == 0) {
            return Ok(());
        }
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // What goes meanwhile, and what is not a folder at all.
                Err(error) if is_nothing(&error) => continue,
                Err(error) => return Err(failed(&folder, &error)),
            };
            for entry in entries {
                let path = entry.map_err(|error| failed(&folder, &error))?.path();
                match fs::symlink_metadata(&path) {
                    Ok(found) => {
                        self.judge(&path, &found, Place::Own)?;
                        // What nobody else can enter holds nothing that anybody else can reach.
                        if found.is_dir() && found.mode() & 0o011 != 0 {
                            folders.push(path);
                        }
                    }
                    Err(error) if is_nothing(&error) => {}
                    Err(error) => return Err(failed(&path, &error)),
                }
            }
        }
        Ok(())
    }

    fn judge(&self, path: &Path, found: &Metadata, place: Place) -> Result<(), Fault> {
        let owner_is_good = [self.user, 0].contains(&found.uid()) || (place == Place::Above && unmapped_user() == Some(found.uid()));
        // A link's own mode says nothing.
        let mode = if found.is_symlink() { 0 } else { found.mode() };
        // In a folder like /tmp only the owner of an entry can replace it.
        let is_sticky = place == Place::Above && mode & 0o1000 != 0;
        let others = mode & 0o002 != 0 && !is_sticky;
        let group = mode & 0o020 != 0 && !is_sticky && !self.may_write(path, found.gid());
        if owner_is_good && !others && !group {
            return Ok(());
        }
        let (wanted, named) = (self.user, quoted(path));
        let mut mend = Vec::new();
        let mut why = Vec::new();
        if !owner_is_good {
            why.push(format!(
                "it belongs to user {}, wanted {}",
                found.uid(),
                if wanted == 0 { "0".into() } else { format!("{wanted} or 0") }
            ));
            mend.push(format!("chown {wanted} {named}"));
        }
        if others || group {
            let who = match (group, others) {
                (true, true) => format!("its group {} and everybody", found.gid()),
                (true, false) => format!("its group {}", found.gid()),
                _ => "everybody".to_owned(),
            };
            why.push(format!("{who} can write to it (mode {:04o})", mode & 0o7777));
            mend.push(format!("chmod {}-w {named}", if group { "go" } else { "o" }));
        }
        let mended = hint!["see what others may have put there, then ", act::shell(mend.join(" && "))];
        let next = match group && !others {
            true => mended.and("; ", hint![act::group(), " can allow a group that may"]),
            false => mended,
        };
        Err(Fault::new(Code::HomeUnsafe, format!("{} is not safe to use: {}", path.display(), why.join("; ")))
            .hint(next)
            .with("path", path.display().to_string())
            .with("mode", format!("{:04o}", found.mode() & 0o7777))
            .with("user", found.uid())
            .with("group", found.gid()))
    }

    /// Whether members of `group` may write to `path` as its owner may.
    fn may_write(&self, path: &Path, group: u32) -> bool {
        // With an access list the group's bits are the most that anybody on the list has.
        let has_list = rustix::fs::lgetxattr(path, "system.posix_acl_access", &mut [0u8; 0][..]).is_ok();
        // Root's group is for root, and for containers whose user is anybody at all in it.
        !has_list && (group == 0 || self.group == Some(group) || is_alone_in(self.user, group))
    }
}

/// The relation of a path to the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A part of the home.
    Own,
    /// A folder that contains the home.
    Above,
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn failed(path: &Path, error: &io::Error) -> Fault {
    Fault::io(format!("looking at whose {} is", path.display()), error)
}

/// A path quoted for a shell.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@=:,".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// The user id that this user namespace shows for files of users that it does not have; `None` if it has all.
fn unmapped_user() -> Option<u32> {
    static USER: OnceLock<Option<u32>> = OnceLock::new();
    *USER.get_or_init(|| {
        let text = |path: &str| String::from_utf8(open::read_of_kernel(Path::new(path), ACCOUNTS_BYTES_MAX).ok()?).ok();
        let map = text("/proc/self/uid_map")?;
        let has_all = map.split_ascii_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"];
        if has_all { None } else { text("/proc/sys/kernel/overflowuid")?.trim().parse().ok() }
    })
}

/// Whether `group` has no member but `user`: many systems make a group with each user's own name.
fn is_alone_in(user: u32, group: u32) -> bool {
    let (Some(passwd), Some(groups)) = (accounts("/etc/passwd"), accounts("/etc/group")) else { return false };
    only_member(&passwd, &groups, user, group)
}

fn only_member(passwd: &str, groups: &str, user: u32, group: u32) -> bool {
    let number = |field: Option<&str>| field.and_then(|field| field.parse::<u32>().ok());
    let mut names = Vec::new();
    for line in passwd.lines() {
        let fields: Vec<_> = line.split(':').collect();
        if number(fields.get(3).copied()) == Some(group) {
            if number(fields.get(2).copied()) != Some(user) {
                return false;
            }
            names.push(fields[0]);
        }
    }
    let members = groups
        .lines()
        .filter(|line| number(line.split(':').nth(2)) == Some(group))
        .flat_map(|line| line.split(':').nth(3).unwrap_or("").split(',').map(str::trim).filter(|name| !name.is_empty()));
    !names.is_empty() && members.into_iter().all(|name| names.contains(&name))
}

/// The number of a group, from its name or its number.
pub fn group_of(word: &str) -> Option<u32> {
    if let Ok(number) = word.parse() {
        return Some(number);
    }
    let groups = accounts("/etc/group")?;
    let line = groups.lines().find(|line| line.split(':').next() == Some(word))?;
    line.split(':').nth(2)?.parse().ok()
}

fn accounts(path: &str) -> Option<String> {
    // Of the system, which may have a link there.
    let real = Path::new(path).canonicalize().ok()?;
    String::from_utf8(open::read(&real, ACCOUNTS_BYTES_MAX).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_write_to_is_refused_with_the_command_that_mends_it() {
        let root = tempfile::tempdir().unwrap();
        let (above, home) = (root.path().join("above"), root.path().join("above/my home"));
        fs::create_dir_all(&home).unwrap();
        chmod(&above, 0o755);
        chmod(&home, 0o700);
        let writers = Writers::new(None);
        writers.check_with_above(&home).unwrap();
        writers.check_with_above(&home.join("not/yet")).unwrap();
        let refused = |says: &str, mend: &str| {
            let fault = writers.check_with_above(&home).unwrap_err();
            assert_eq!(fault.code, Code::HomeUnsafe);
            assert!(fault.message.contains(says), "{}", fault.message);
            assert!(fault.hint.as_deref().unwrap().contains(mend), "{:?}", fault.hint);
        };
        chmod(&home, 0o702);
        refused("everybody can write to it (mode 0702)", &format!("chmod o-w '{}'", home.display()));
        // Sticky is enough for a folder above, and not for the home.
        chmod(&home, 0o1777);
        refused("(mode 1777)", "chmod");
        chmod(&home, 0o700);
        chmod(&above, 0o1777);
        writers.check_with_above(&home).unwrap();
        chmod(&above, 0o777);
        refused("above is not safe to use", "chmod");
        chmod(&above, 0o755);
        // Through a link: what it leads to, and the folder that the link lies in.
        let link = root.path().join("link");
        symlink(&home, &link).unwrap();
        writers.check_with_above(&link).unwrap();
        chmod(&home, 0o707);
        writers.check_with_above(&link).unwrap_err();
        chmod(&home, 0o755);
        fs::write(home.join("file"), "").unwrap();
        writers.check_tree(&root.path().join("above")).unwrap();
        chmod(&home.join("file"), 0o646);
        assert!(writers.check_tree(&above).unwrap_err().message.contains("file is not safe"));
        // In a closed folder nobody else can reach it.
        chmod(&home, 0o700);
        writers.check_tree(&above).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        assert_eq!(writers.check_with_above(&root.path().join("loop")).unwrap_err().code, Code::Io);
    }

    #[test]
    fn a_group_of_one_is_its_user_and_another_is_not() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001:::\neve:x:1002:100:::\n";
        let groups = "root:x:0:\nann:x:1000:\nbob:x:1001:bob,ann\nusers:x:100:ann\n";
        assert!(only_member(passwd, groups, 1000, 1000));
        assert!(!only_member(passwd, groups, 1001, 1001), "ann is in it as well");
        assert!(!only_member(passwd, groups, 1000, 100), "eve is in it as well");
        assert!(!only_member(passwd, groups, 1000, 4242), "nobody knows who is in it");
        assert_eq!((group_of("0"), group_of("root"), group_of("no such group")), (Some(0), Some(0), None));
    }
}
