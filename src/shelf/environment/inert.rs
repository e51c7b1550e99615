//! Checks that a tree of packages holds only what packages may hold: code for `site-packages`, scripts for
//! `bin/`, data for the rest.
//!
//! `uv` made the tree from strangers' wheels, and none of its code has run. The check refuses files that Hob
//! or Python would read as their own (`pyvenv.cfg`, an interpreter, a second standard library), and
//! everything that is neither a file nor a folder. [`check`] is a pure function over the result of [`look`].

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::{
    disk::open,
    model::limits::{self, ENVIRONMENT_BYTES_MAX, ENVIRONMENT_ENTRIES_MAX, ENVIRONMENT_PATH_BYTES_MAX},
};

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shelf) struct Entry {
    /// Relative to the tree.
    pub path: PathBuf,
    pub kind: Kind,
    pub mode: u32,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shelf) enum Kind {
    Folder,
    File,
    Link(PathBuf),
    /// A device, a FIFO or a socket.
    Special,
}

/// Why a tree is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shelf) struct Refused {
    pub path: PathBuf,
    pub why: String,
}

/// The largest size that a tree may have.
#[derive(Debug, Clone, Copy)]
pub(in crate::shelf) struct Most {
    pub entries: usize,
    pub bytes: u64,
}

impl Most {
    pub const ENVIRONMENT: Most = Most { entries: ENVIRONMENT_ENTRIES_MAX, bytes: ENVIRONMENT_BYTES_MAX };
}

/// Lists the entries below `tree`; at most one entry more than a tree may have. Follows no link.
pub(in crate::shelf) fn look(tree: &Path, most: Most) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut left = vec![tree.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let metadata = match fs::symlink_metadata(&path) {
                // A file that is being replaced.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found?,
            };
            let kind = match metadata.file_type() {
                kind if kind.is_dir() => Kind::Folder,
                kind if kind.is_file() => Kind::File,
                kind if kind.is_symlink() => Kind::Link(fs::read_link(&path)?),
                _ => Kind::Special,
            };
            let bytes = if kind == Kind::File { metadata.len() } else { 0 };
            let relative = path.strip_prefix(tree).unwrap_or(&path).to_owned();
            if kind == Kind::Folder {
                left.push(path);
            }
            entries.push(Entry { path: relative, kind, mode: metadata.mode(), bytes });
            if entries.len() > most.entries {
                return Ok(entries);
            }
        }
    }
    Ok(entries)
}

/// Refuses `entries` that exceed the limits.
pub(in crate::shelf) fn weigh(entries: &[Entry], most: Most) -> Result<(), Refused> {
    let refused = |why: String| Err(Refused { path: PathBuf::new(), why });
    if entries.len() > most.entries {
        return refused(format!("it has more than {} files and folders", most.entries));
    }
    if let Some(longest) = entries.iter().find(|entry| entry.path.as_os_str().len() > ENVIRONMENT_PATH_BYTES_MAX) {
        let why = format!("its path has {} bytes; at most {ENVIRONMENT_PATH_BYTES_MAX} are taken", longest.path.as_os_str().len());
        return Err(Refused { path: longest.path.clone(), why });
    }
    let bytes = entries.iter().fold(0u64, |sum, entry| sum.saturating_add(entry.bytes));
    if bytes > most.bytes {
        return refused(format!("it has {bytes} bytes; at most {} are taken", most.bytes));
    }
    Ok(())
}

/// Checks that all of a tree is inert. `packages`: the folder of its packages, e.g.
/// `lib/python3.11/site-packages`.
pub(in crate::shelf) fn check(entries: &[Entry], packages: &Path, most: Most) -> Result<(), Refused> {
    weigh(entries, most)?;
    entries.iter().try_for_each(|entry| {
        let path = &entry.path;
        let why = match &entry.kind {
            // The only link that Hob makes before `uv` begins: some interpreters use that folder name.
            Kind::Link(target) if path == Path::new("lib64") && target == Path::new("lib") => return Ok(()),
            Kind::Link(target) => Some(format!("it is a link, to {}", target.display())),
            Kind::Special => Some("it is neither a file nor a folder".to_owned()),
            // A new folder may inherit its group and the set-group-id bit from the folder above: a wheel did
            // not cause that.
            Kind::Folder if entry.mode & 0o5000 != 0 => Some(format!("its mode is {:o}", entry.mode & 0o7777)),
            Kind::File if entry.mode & 0o7000 != 0 => Some(format!("its mode is {:o}", entry.mode & 0o7777)),
            Kind::File | Kind::Folder => reserved(path, packages, entry.kind == Kind::Folder).map(str::to_owned),
        };
        why.map_or(Ok(()), |why| Err(Refused { path: path.clone(), why }))
    })
}

/// Why a package may have nothing of this name; `None` if it may. Names are compared without regard to case,
/// as some file systems do.
fn reserved(path: &Path, packages: &Path, is_folder: bool) -> Option<&'static str> {
    if path.starts_with(packages) || (is_folder && packages.starts_with(path)) {
        return None;
    }
    let text = path.as_os_str().as_bytes().to_ascii_lowercase();
    let mut parts = text.split(|byte| *byte == b'/');
    let [first, second, third] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let interpreter = |name: &[u8]| name.starts_with(b"python") || name.starts_with(b"pypy");
    match first {
        b"pyvenv.cfg" => Some("Python reads there what its environment is"),
        b".lock" => Some("it is the lock of the installer"),
        b"lib64" | b"lib32" | b"libx32" => Some("it is another name of `lib`"),
        b"lib" if second.is_empty() => Some("it is the folder of libraries"),
        b"lib" if [b"site-packages".as_slice(), b"dist-packages"].contains(&third) => Some("it is a second folder of packages"),
        b"lib" if interpreter(second) => Some("it is where an interpreter has its standard library"),
        b"bin" if second.is_empty() && !is_folder => Some("it is the folder of scripts"),
        b"bin" if interpreter(second) => Some("it is the name of an interpreter"),
        b"bin" if second.starts_with(b"activate") || second.starts_with(b"deactivate") => Some("it is what turns an environment on"),
        b"bin" if [b"pybuilddir.txt".as_slice(), b"modules", b"pyvenv.cfg"].contains(&second) => {
            Some("Python reads there where its standard library is")
        }
        b"pybuilddir.txt" | b"modules" => Some("Python reads there where its standard library is"),
        _ => None,
    }
}

/// The name and version of the wheel that owns a file, as the wheels themselves say: for people who look for
/// the culprit.
pub(in crate::shelf) fn wheel_of(tree: &Path, packages: &Path, path: &Path) -> Option<String> {
    let above: PathBuf = packages.components().map(|_| "..").collect();
    let named = path.strip_prefix(packages).map_or_else(|_| above.join(path), Path::to_owned);
    let named = named.to_str()?;
    for entry in fs::read_dir(tree.join(packages)).ok()?.flatten() {
        let name = entry.file_name().to_str()?.to_owned();
        let Some(wheel) = name.strip_suffix(".dist-info") else { continue };
        let record = entry.path().join("RECORD");
        let has = |line: &str| line.trim_start_matches('"').strip_prefix(named).is_some_and(|rest| rest.starts_with([',', '"', '/']));
        let text = open::read(&record, limits::WHEEL_RECORD_BYTES_MAX).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if text.is_some_and(|text| text.lines().any(has)) {
            return Some(wheel.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: &str = "lib/python3.11/site-packages";
    const MOST: Most = Most { entries: 10, bytes: 1000 };

    fn file(path: &str) -> Entry {
        Entry { path: path.into(), kind: Kind::File, mode: 0o100_644, bytes: 1 }
    }

    fn folder(path: &str) -> Entry {
        Entry { kind: Kind::Folder, mode: 0o040_755, bytes: 0, ..file(path) }
    }

    fn refused(entry: Entry) -> Option<String> {
        let path = entry.path.clone();
        check(&[folder("lib"), entry], Path::new(PACKAGES), MOST).err().map(|refused| {
            assert_eq!(refused.path, path);
            refused.why
        })
    }

    #[test]
    fn packages_scripts_and_data_pass() {
        let inert = [
            "lib/python3.11/site-packages/evil.pth",
            "lib/python3.11/site-packages/python3/pyvenv.cfg",
            "bin/isympy",
            "bin/pip3.11",
            "bin/2to3",
            "share/man/man1/isympy.1",
            "etc/jupyter/python.json",
            "include/python3.11/greenlet/greenlet.h",
            "lib/libtbb.so.12",
            "lib/cmake/x.cmake",
            "LICENSE",
        ];
        for path in inert {
            assert_eq!(refused(file(path)), None, "{path}");
        }
        for path in ["lib", "lib/python3.11", PACKAGES, "bin", "share", "lib/python3.11/site-packages/six"] {
            assert_eq!(refused(folder(path)), None, "{path}");
        }
        assert_eq!(refused(Entry { kind: Kind::Link("lib".into()), ..file("lib64") }), None);
    }

    #[test]
    fn what_python_or_hob_would_take_for_its_own_is_refused() {
        let names = [
            "pyvenv.cfg",
            "PyVenv.cfg",
            ".lock",
            "bin",
            "lib",
            "lib64",
            "lib/python3.11",
            "lib/python3.11/site-packages.pth",
            "lib/python3.11/encodings/__init__.py",
            "lib/python3.11/os.py",
            "lib/python3.12/site-packages/six.py",
            "lib/python311.zip",
            "lib/python3/dist-packages/x.py",
            "lib/pypy3.11/x.py",
            "lib/aaa/site-packages/x.py",
            "lib/zzz/Site-Packages",
            "lib/aaa/dist-packages/x.py",
            "lib64/python3.11/encodings/__init__.py",
            "bin/python",
            "bin/python3",
            "bin/python3.11",
            "bin/Python3",
            "bin/python3.11._pth",
            "bin/activate",
            "bin/activate.fish",
            "bin/Activate.ps1",
            "bin/activate_this.py",
            "bin/deactivate.bat",
            "bin/pyvenv.cfg",
            "bin/pybuilddir.txt",
            "bin/Modules/Setup.local",
            "pybuilddir.txt",
            "Modules/Setup.local",
        ];
        for path in names {
            assert!(refused(file(path)).is_some(), "{path}");
        }
        for path in ["bin/python3", "lib/python3.11/encodings", "lib/python3.12", "lib64", "pyvenv.cfg"] {
            assert!(refused(folder(path)).is_some(), "{path}");
        }
    }

    #[test]
    fn links_devices_and_set_ids_are_refused_wherever_they_lie() {
        for at in ["share/x", "bin/x", "lib/python3.11/site-packages/x", "lib64"] {
            for target in ["/etc/passwd", "../..", "x", "/lib"] {
                assert!(refused(Entry { kind: Kind::Link(target.into()), ..file(at) }).unwrap().contains("a link"), "{at} -> {target}");
            }
            assert!(refused(Entry { kind: Kind::Special, ..file(at) }).is_some());
        }
        for mode in [0o4755, 0o2755, 0o1644, 0o6777] {
            assert!(refused(Entry { mode: 0o100_000 | mode, ..file("share/x") }).unwrap().contains(&format!("{mode:o}")));
        }
        assert_eq!(refused(Entry { mode: 0o042_755, ..folder("share") }), None);
        assert!(refused(Entry { mode: 0o044_755, ..folder("share") }).is_some());
    }

    #[test]
    fn more_than_an_environment_may_hold_is_refused() {
        let check = |entries: &[Entry]| check(entries, Path::new(PACKAGES), MOST).map_err(|refused| refused.why);
        assert_eq!(check(&vec![file("share/x"); 10]), Ok(()));
        assert!(check(&vec![file("share/x"); 11]).unwrap_err().contains("more than 10"));
        assert!(check(&[file("share/x"), Entry { bytes: 1000, ..file("share/y") }]).unwrap_err().contains("1001 bytes"));
        let long = format!("lib/{}", "d/".repeat(510));
        assert_eq!(check(&[file(&long)]), Ok(()));
        assert!(check(&[file(&format!("{long}long"))]).unwrap_err().contains("1028 bytes"));
        assert!(check(&vec![Entry { bytes: u64::MAX, ..file("share/y") }; 3]).is_err());
    }

    #[test]
    fn a_tree_is_seen_as_it_is_and_its_wheel_is_named() {
        let root = tempfile::tempdir().unwrap();
        let packages = root.path().join(PACKAGES);
        fs::create_dir_all(packages.join("evil-1.0.dist-info")).unwrap();
        fs::write(packages.join("evil-1.0.dist-info/RECORD"), "evil.py,sha256=x,1\n../../../pyvenv.cfg,sha256=y,3\n").unwrap();
        fs::write(root.path().join("pyvenv.cfg"), "abc").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", packages.join("link")).unwrap();
        let found = look(root.path(), MOST).unwrap();
        let at = |path: &str| found.iter().find(|entry| entry.path == Path::new(path)).unwrap();
        assert_eq!((at("pyvenv.cfg").bytes, &at("pyvenv.cfg").kind), (3, &Kind::File));
        assert_eq!(at("lib/python3.11/site-packages/link").kind, Kind::Link("/etc/passwd".into()));
        let wheel = |path: &str| wheel_of(root.path(), Path::new(PACKAGES), Path::new(path));
        assert_eq!(wheel("pyvenv.cfg").as_deref(), Some("evil-1.0"));
        assert_eq!(wheel("lib/python3.11/site-packages/evil.py").as_deref(), Some("evil-1.0"));
        assert_eq!(wheel("share/x"), None);
        assert_eq!(look(root.path(), Most { entries: 2, bytes: 1 }).unwrap().len(), 3);
    }
}
