//! Finds this process's control groups in two texts of the kernel.
//!
//! The functions are pure, so that a test has a fixture for each setup of a machine (one hierarchy, the old
//! ones, both; inside a container or not).

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

/// The folders of this process's own groups.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// In the unified hierarchy (v2): the folder, and the mount point of the hierarchy.
    pub unified: Option<(PathBuf, PathBuf)>,
    /// In the old hierarchies (v1) that limit memory and the number of processes.
    pub memory: Option<PathBuf>,
    pub pids: Option<PathBuf>,
}

/// Parses `/proc/self/cgroup` and `/proc/self/mountinfo`. A group that is not below a mount (one outside the
/// container) is left out.
pub(super) fn own(cgroup: &str, mountinfo: &str) -> Own {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
    let folder = |hierarchy: &str| {
        let group = group_of(cgroup, hierarchy)?;
        let mut fitting = mounts.iter().filter(|mount| mount.hierarchies.iter().any(|found| found == hierarchy));
        fitting.find_map(|mount| Some((mount.folder(group)?, mount.point.clone())))
    };
    let old = |controller| folder(controller).map(|(folder, _)| folder);
    Own { unified: folder(""), memory: old("memory"), pids: old("pids") }
}

/// The path of this process's group in the hierarchy that has this controller; the empty name means the
/// unified hierarchy.
fn group_of<'a>(cgroup: &'a str, hierarchy: &str) -> Option<&'a str> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        // A named hierarchy without controllers (`name=systemd`) limits nothing, and no caller asks for it.
        let fits = if hierarchy.is_empty() { number == "0" && names.is_empty() } else { names.split(',').any(|name| name == hierarchy) };
        fits.then_some(path)
    })
}

/// A mount of a hierarchy of control groups.
struct Mount {
    /// The part of the hierarchy that the mount shows.
    root: PathBuf,
    point: PathBuf,
    /// Its controllers; for the unified one, an empty name.
    hierarchies: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        // Between the sixth field and the dash there is any number of optional fields.
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let hierarchies = match kind.next()? {
            "cgroup2" => vec![String::new()],
            "cgroup" => kind.nth(1)?.split(',').map(str::to_owned).collect(),
            _ => return None,
        };
        Some(Mount { root: unescape(root), point: unescape(point), hierarchies })
    }

    /// The path at which this mount shows the group at `path` of the hierarchy, if it shows the group.
    fn folder(&self, path: &str) -> Option<PathBuf> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        // With `..` the kernel says that the group lies outside of this process's namespace. The kernel
        // appends ` (deleted)` to the path of a removed group.
        let is_inside = below.components().all(|part| matches!(part, Component::Normal(_))) && !path.ends_with(" (deleted)");
        is_inside.then(|| self.point.join(below)).map(|folder| folder.components().collect())
    }
}

/// Decodes a path as the kernel writes it: space, tab, newline and backslash are `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(own: Own) -> [Option<String>; 3] {
        [own.unified.map(|(folder, _)| folder), own.memory, own.pids].map(|path| path.map(|path| path.to_str().unwrap().to_owned()))
    }

    fn wanted(paths: [&str; 3]) -> [Option<String>; 3] {
        paths.map(|path| (!path.is_empty()).then(|| path.to_owned()))
    }

    #[test]
    fn own_groups_are_found_however_the_machine_is_set_up() {
        const OLD: &str = "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:15 - cgroup cgroup rw,memory\n\
            36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw shared:16 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
            39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        const BESIDE: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
        const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let old = "12:pids:/user.slice/x\n4:memory:/user.slice/y\n3:cpu,cpuacct:/\n1:name=systemd:/user.slice/z\n";
        let hybrid = format!("{old}0::/user.slice/z\n");
        let scope = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/hob.scope\n";
        let docker = "31 30 0:32 /docker/ab12 /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n\
            32 30 0:33 /docker/ab12 /sys/fs/cgroup/pids ro,nosuid master:16 - cgroup cgroup rw,pids\n";
        for (name, cgroup, mountinfo, paths) in [
            ("old", old, OLD.to_owned(), ["", "/sys/fs/cgroup/memory/user.slice/y", "/sys/fs/cgroup/pids/user.slice/x"]),
            (
                "hybrid",
                &hybrid,
                format!("{OLD}{BESIDE}"),
                ["/sys/fs/cgroup/unified/user.slice/z", "/sys/fs/cgroup/memory/user.slice/y", "/sys/fs/cgroup/pids/user.slice/x"],
            ),
            (
                "systemd",
                scope,
                UNIFIED.to_owned(),
                ["/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/hob.scope", "", ""],
            ),
            ("docker, unified, in a namespace", "0::/\n", UNIFIED.to_owned(), ["/sys/fs/cgroup", "", ""]),
            (
                "docker, old",
                "5:memory:/docker/ab12\n6:pids:/docker/ab12/x\n",
                docker.to_owned(),
                ["", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids/x"],
            ),
            ("docker, another's group", "5:memory:/docker/ab1\n6:pids:/\n", docker.to_owned(), ["", "", ""]),
            ("outside of the namespace", "0::/../other\n", UNIFIED.to_owned(), ["", "", ""]),
            ("removed", "0::/gone (deleted)\n", UNIFIED.to_owned(), ["", "", ""]),
            ("no mounts", &hybrid, "22 27 0:21 / /proc rw,relatime - proc proc rw\n".to_owned(), ["", "", ""]),
        ] {
            assert_eq!(at(own(cgroup, &mountinfo)), wanted(paths), "{name}");
        }
        let spaced = "30 23 0:26 / /mnt/a\\040b\\134c rw - cgroup2 none rw\n";
        assert_eq!(own("0::/x:y\n", spaced).unified, Some((PathBuf::from("/mnt/a b\\c/x:y"), PathBuf::from("/mnt/a b\\c"))));
    }

    #[test]
    fn odd_texts_are_no_group_and_no_panic() {
        for text in
            ["", "\n\n", ":", "::", "0::", "0", "x - cgroup2", "1 2 3 - cgroup", "1 2 3 / /x rw - cgroup c", "\\", "\\0", "\\999 - - -"]
        {
            assert_eq!(own(text, text), Own::default(), "{text}");
            let _ = unescape(text);
        }
    }
}
