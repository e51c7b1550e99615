//! The runner that a pod starts with: Python source, carried inside the binary.
//!
//! Each version is unpacked once into a folder named by its digest. Every start of a host compares the files
//! byte by byte, so that the first code in a pod is never what somebody left on the disk. Nothing else may
//! lie in that folder: Python would take bytecode or an extension module in place of the compared source.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    disk::{make, open},
    model::{Digest, Fault},
};

const FILES: &[(&str, &str)] = &[
    ("__init__.py", include_str!("../../../python/src/hob_pod/__init__.py")),
    ("apart.py", include_str!("../../../python/src/hob_pod/apart.py")),
    ("answers.py", include_str!("../../../python/src/hob_pod/answers.py")),
    ("asks.py", include_str!("../../../python/src/hob_pod/asks.py")),
    ("belonging.py", include_str!("../../../python/src/hob_pod/belonging.py")),
    ("blob.py", include_str!("../../../python/src/hob_pod/blob.py")),
    ("cache.py", include_str!("../../../python/src/hob_pod/cache.py")),
    ("channel.py", include_str!("../../../python/src/hob_pod/channel.py")),
    ("clerk.py", include_str!("../../../python/src/hob_pod/clerk.py")),
    ("compiling.py", include_str!("../../../python/src/hob_pod/compiling.py")),
    ("confine.py", include_str!("../../../python/src/hob_pod/confine.py")),
    ("control.py", include_str!("../../../python/src/hob_pod/control.py")),
    ("data.py", include_str!("../../../python/src/hob_pod/data.py")),
    ("doctor.py", include_str!("../../../python/src/hob_pod/doctor.py")),
    ("family.py", include_str!("../../../python/src/hob_pod/family.py")),
    ("ending.py", include_str!("../../../python/src/hob_pod/ending.py")),
    ("faults.py", include_str!("../../../python/src/hob_pod/faults.py")),
    ("gate.py", include_str!("../../../python/src/hob_pod/gate.py")),
    ("keeper.py", include_str!("../../../python/src/hob_pod/keeper.py")),
    ("guard.py", include_str!("../../../python/src/hob_pod/guard.py")),
    ("kernel.py", include_str!("../../../python/src/hob_pod/kernel.py")),
    ("lane.py", include_str!("../../../python/src/hob_pod/lane.py")),
    ("lockdown.py", include_str!("../../../python/src/hob_pod/lockdown.py")),
    ("mounts.py", include_str!("../../../python/src/hob_pod/mounts.py")),
    ("own.py", include_str!("../../../python/src/hob_pod/own.py")),
    ("proc.py", include_str!("../../../python/src/hob_pod/proc.py")),
    ("program.py", include_str!("../../../python/src/hob_pod/program.py")),
    ("regions.py", include_str!("../../../python/src/hob_pod/regions.py")),
    ("refused.py", include_str!("../../../python/src/hob_pod/refused.py")),
    ("residency.py", include_str!("../../../python/src/hob_pod/residency.py")),
    ("runner.py", include_str!("../../../python/src/hob_pod/runner.py")),
    ("serving.py", include_str!("../../../python/src/hob_pod/serving.py")),
    ("sessions.py", include_str!("../../../python/src/hob_pod/sessions.py")),
    ("slots.py", include_str!("../../../python/src/hob_pod/slots.py")),
    ("steps.py", include_str!("../../../python/src/hob_pod/steps.py")),
    ("stuck.py", include_str!("../../../python/src/hob_pod/stuck.py")),
    ("tables.py", include_str!("../../../python/src/hob_pod/tables.py")),
    ("tracebacks.py", include_str!("../../../python/src/hob_pod/tracebacks.py")),
    ("values.py", include_str!("../../../python/src/hob_pod/values.py")),
    ("wire.py", include_str!("../../../python/src/hob_pod/wire.py")),
    ("zygote.py", include_str!("../../../python/src/hob_pod/zygote.py")),
];

/// Prefix of the name of a file that is being written; such a file cannot be imported.
const HALF: &str = ".half-";

/// Unpacks the runner below `tools` unless it is there, and returns the path of its `keeper.py`.
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
    make::folder(&package, make::FOLDER).map_err(what)?;
    for entry in std::fs::read_dir(&package).map_err(what)?.flatten() {
        let name = entry.file_name();
        let is_ours = FILES.iter().any(|(file, _)| name == *file);
        if is_ours || name.as_encoded_bytes().starts_with(HALF.as_bytes()) {
            continue;
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
        match removed {
            // `NotFound`: another host removed it first.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(what(error)),
            _ => {}
        }
    }
    for (name, text) in FILES {
        let path = package.join(name);
        if open::read_of(&path, text.len() as u64).ok().as_deref() == Some(text.as_bytes()) {
            continue;
        }
        // The file is written beside and renamed, because another host may be starting a pod from this folder
        // now.
        let mut file = make::temporary(&package, HALF, make::FILE).map_err(what)?;
        file.write_all(text.as_bytes()).map_err(what)?;
        file.persist(&path).map_err(|error| what(error.error))?;
    }
    Ok(package.join("keeper.py"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_runner_lies_in_its_folder() {
        let tools = tempfile::tempdir().unwrap();
        let package = unpack(tools.path()).unwrap().parent().unwrap().to_owned();
        let names = || {
            let mut names: Vec<_> = std::fs::read_dir(&package).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let ours = names();
        assert_eq!(ours.len(), FILES.len());
        std::fs::create_dir(package.join("__pycache__")).unwrap();
        std::fs::write(package.join("__pycache__/asks.cpython-311.pyc"), "torn").unwrap();
        std::fs::write(package.join("asks.abi3.so"), "another's").unwrap();
        std::fs::write(package.join("asks.py"), "another's").unwrap();
        assert_ne!(names(), ours);
        unpack(tools.path()).unwrap();
        assert_eq!(names(), ours);
        assert!(FILES.iter().all(|(name, text)| std::fs::read_to_string(package.join(name)).unwrap() == *text));
    }
}
