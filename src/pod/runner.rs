//! The runner that a pod starts with: Python source, carried inside the binary.
//!
//! Unpacked once per version into a folder named by its digest, and compared byte by byte at every
//! start of a host: what runs first in a pod is never what somebody left on the disk.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::model::{Digest, Fault};

const FILES: &[(&str, &str)] = &[
    ("__init__.py", include_str!("../../python/src/hob_pod/__init__.py")),
    ("asks.py", include_str!("../../python/src/hob_pod/asks.py")),
    ("blob.py", include_str!("../../python/src/hob_pod/blob.py")),
    ("control.py", include_str!("../../python/src/hob_pod/control.py")),
    ("faults.py", include_str!("../../python/src/hob_pod/faults.py")),
    ("keeper.py", include_str!("../../python/src/hob_pod/keeper.py")),
    ("runner.py", include_str!("../../python/src/hob_pod/runner.py")),
    ("serving.py", include_str!("../../python/src/hob_pod/serving.py")),
    ("wire.py", include_str!("../../python/src/hob_pod/wire.py")),
];

/// Puts the runner below `tools` unless it is there, and gives the path of its `keeper.py`.
///
/// Errors: `io`, `disk_full`.
pub fn unpack(tools: &Path) -> Result<PathBuf, Fault> {
    let mut hasher = Sha256::new();
    for (name, text) in FILES {
        hasher.update(name.as_bytes());
        hasher.update([0]);
        hasher.update(text.as_bytes());
    }
    let root = tools.join(format!("runner-{}", Digest::finish(hasher).short()));
    let package = root.join("hob_pod");
    let what = |error: std::io::Error| Fault::io(format!("unpacking the pod runner into {}", package.display()), &error);
    std::fs::create_dir_all(&package).map_err(what)?;
    for (name, text) in FILES {
        let path = package.join(name);
        if std::fs::read(&path).ok().as_deref() == Some(text.as_bytes()) {
            continue;
        }
        // Written beside and renamed: another host may be starting a pod from this folder now.
        let file = tempfile::NamedTempFile::new_in(&package).map_err(what)?;
        std::fs::write(file.path(), text).map_err(what)?;
        file.persist(&path).map_err(|error| what(error.error))?;
    }
    Ok(package.join("keeper.py"))
}
