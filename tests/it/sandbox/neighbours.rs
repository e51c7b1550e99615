//! Two recipes share an environment: nothing that one does to it is ever imported by the other.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use hob::model::Digest;
use serde_json::{Value, json};

use super::{
    acts::{find, hostile},
    ordinary,
};
use crate::support::{Rig, call};

/// Tries to change a module in every known way; reports the result of each.
const ATTACKER: &str = r#"
import errno, mmap, os, subprocess
class Subject:
    def run(self, input):
        six, packages, cache = input["six"], os.path.dirname(input["six"]), input["cache"]
        scratch = os.path.join(os.environ["TMPDIR"], "evil.py")
        with open(scratch, "w") as file:
            file.write("__version__ = 'evil'\n")
        def write(path):
            with open(path, "r+b") as file:
                file.write(b"__version__ = 'evil'\n")
        def chmod_and_write():
            os.chmod(six, 0o666)
            write(six)
        def unlink_and_make():
            os.unlink(six)
            with open(six, "x") as file:
                file.write("__version__ = 'evil'\n")
        def link_out():
            os.link(six, scratch + "-link")
            write(scratch + "-link")
        def by_descriptor():
            held = os.open(six, os.O_RDONLY)
            write(f"/proc/self/fd/{held}")
        def mapped(access):
            held = os.open(six, access)
            memory = mmap.mmap(os.open(f"/proc/self/fd/{held}", os.O_RDWR), 0, mmap.MAP_SHARED)
            memory[:4] = b"evil"
        def mapped_and_protected():
            import ctypes
            held = os.open(six, os.O_RDONLY)
            libc = ctypes.CDLL(None, use_errno=True)
            libc.mmap.restype = ctypes.c_void_p
            at = libc.mmap(None, 4096, 1, 1, held, 0)
            if libc.mprotect(ctypes.c_void_p(at), 4096, 3) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        def through_memory():
            import ctypes
            held = os.open(six, os.O_RDONLY)
            libc = ctypes.CDLL(None, use_errno=True)
            libc.mmap.restype = ctypes.c_void_p
            at = libc.mmap(None, 4096, 1, 1, held, 0)
            memory = os.open("/proc/self/mem", os.O_RDWR)
            os.pwrite(memory, b"evil", at)
        def drop(name):
            with open(os.path.join(packages, name), "x") as file:
                file.write("import sys; sys.modules['six'] = None\n")
        def compiled():
            os.makedirs(os.path.join(packages, "__pycache__"), exist_ok=True)
            with open(os.path.join(packages, "__pycache__", "six.cpython-311.pyc"), "wb") as file:
                file.write(b"evil")
        def swap():
            os.rename(packages, packages + "-old")
        ways = {
            "open": lambda: write(six), "chmod": chmod_and_write, "rename": lambda: os.rename(scratch, six),
            "replace": unlink_and_make, "link out": link_out, "link in": lambda: os.link(scratch, six + "-x"),
            "descriptor": by_descriptor, "mapping": lambda: mapped(os.O_RDWR), "mapping again": lambda: mapped(os.O_RDONLY),
            "mprotect": mapped_and_protected, "memory": through_memory, "truncate": lambda: os.truncate(six, 0),
            ".pth": lambda: drop("evil.pth"), "module": lambda: drop("sitecustomize.py"), "bytecode": compiled,
            "folder": swap, "cache": lambda: write(cache), "times": lambda: os.utime(six),
        }
        said = {}
        for name, way in ways.items():
            try:
                way()
                said[name] = "ALLOWED"
            except OSError as error:
                said[name] = errno.errorcode[error.errno]
        return said
"#;

const USER: &str = r#"
import six
class Subject:
    def run(self, input):
        return {"version": six.__version__, "file": six.__file__}
"#;

/// Every file below a folder with what is in it.
fn digests(folder: &Path) -> Vec<(String, Digest)> {
    let mut found: Vec<(String, Digest)> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => found.push((entry.path().display().to_string(), Digest::of(&fs::read(entry.path()).unwrap()))),
                _ => {}
            }
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn recipe(rig: &Rig, name: &str, source: &str) -> std::path::PathBuf {
    let recipe = hostile(rig, name, "");
    fs::write(recipe.join("pod/subject.py"), source).unwrap();
    recipe
}

#[tokio::test]
async fn one_pod_cannot_change_what_another_one_imports() {
    let rig = ordinary::rig().await;
    let name = rig.install(&recipe(&rig, "neighbour", USER)).await;
    let attacker = recipe(&rig, "attacker", ATTACKER);
    let home = rig.folder.path().join("home");
    let six = find(&home.join("data/environments"), "six.py").unwrap();
    let packages = six.parent().unwrap();
    let before = (digests(packages), fs::metadata(&six).unwrap().mtime_nsec());
    // The source of the links or copies of `uv`; if there is none, another file of the host.
    let cache = find(&home.join("cache"), "six.py").unwrap_or_else(|| home.join("hob.toml"));

    let said: Value = rig.host.call(call(&attacker, json!({"six": six, "cache": cache}))).await.unwrap().output.into_value();
    let ways = said.as_object().unwrap();
    assert_eq!(ways.len(), 18, "{said}");
    for (way, came) in ways {
        assert!(["EROFS", "EACCES", "EPERM", "EXDEV", "ENOENT", "EIO", "EFAULT"].contains(&came.as_str().unwrap()), "{way}: {said}");
    }

    assert_eq!((digests(packages), fs::metadata(&six).unwrap().mtime_nsec()), before);
    let answer = rig.host.call(call(Path::new(&name.to_string()), json!({}))).await.unwrap().output.into_value();
    assert_eq!(answer["file"], json!(six), "it is the environment that was attacked");
    assert_ne!(answer["version"], "evil");
    let reports = rig.host.verify(None).await.unwrap();
    assert!(!reports.is_empty() && reports.iter().all(|report| report.fault.is_none()), "{reports:?}");
    rig.close().await;
}

#[test]
fn nor_can_one_of_an_ordinary_user() {
    ordinary::once_more("sandbox::neighbours::one_pod_cannot_change_what_another_one_imports");
}
