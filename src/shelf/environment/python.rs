//! Finds an absolute Python interpreter in a recipe's range.
//!
//! A recipe without a lock needs only the interpreter, so this is separate from environments. Names can lie
//! (shims, wrappers, virtual environments). So each candidate is run once and asked what it is, and its
//! answer names the real file.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use semver::{Version, VersionReq};
use serde::Deserialize;
use tokio::process::Command;

use crate::model::{Code, Fault, act, exhausted_in, hint, limits};

use crate::shelf::process::{self, Silent};

/// Minor versions of Python 3 that Hob looks for on PATH as `python3.N`, beside `python3`.
const MINORS: std::ops::RangeInclusive<u32> = 9..=14;

/// An interpreter that ran and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    /// The real file: no shim, no symlink, not inside a virtual environment.
    pub executable: PathBuf,
    pub version: Version,
    /// Its own description of its build (`sys.version`).
    pub build: String,
    /// Platform and binary interface, e.g. `linux-x86_64 cpython-311-x86_64-linux-gnu`.
    pub platform: String,
}

impl Python {
    /// The folder of packages in an environment of this interpreter, e.g. `lib/python3.11/site-packages`.
    pub fn packages(&self) -> PathBuf {
        let abi = self.platform.split(' ').nth(1).unwrap_or("");
        let name = if abi.starts_with("pypy") { "pypy" } else { "python" };
        // The tag of an interpreter without the global lock ends with `t`, e.g.
        // `cpython-313t-x86_64-linux-gnu`.
        let threads = abi.split('-').nth(1).is_some_and(|tag| tag.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('t'));
        let threads = if threads { "t" } else { "" };
        PathBuf::from(format!("lib/{name}{}.{}{threads}/site-packages", self.version.major, self.version.minor))
    }
}

/// The script by which a candidate describes itself. It runs on Python 3.3 and later; it reads no site and no
/// environment.
const PROBE: &str = r#"import json, sys, sysconfig
print(json.dumps({
    "executable": getattr(sys, "_base_executable", None) or sys.executable,
    "version": list(sys.version_info),
    "build": sys.version,
    "platform": "%s %s" % (sysconfig.get_platform(), sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag),
}))"#;

#[derive(Deserialize)]
struct Answer {
    executable: PathBuf,
    version: (u64, u64, u64, String, u64),
    build: String,
    platform: String,
}

/// The first interpreter within `wanted`: only `explicit` if given, else `python3` and `python3.14` down to
/// `python3.9` on PATH.
///
/// Errors: `python_missing`, which lists what was found and what was wanted; `io` if this machine has no
/// resources left to ask an interpreter.
pub async fn find(wanted: &VersionReq, explicit: Option<&Path>) -> Result<Python, Fault> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(wanted, explicit, &path).await
}

/// [`find`] with the search path as an argument.
pub async fn find_in(wanted: &VersionReq, explicit: Option<&Path>, path: &OsStr) -> Result<Python, Fault> {
    let candidates = match explicit {
        Some(path) => vec![path.to_owned()],
        None => candidates(path),
    };
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for candidate in candidates {
        match probe(&candidate).await {
            Ok(python) if wanted.matches(&python.version) => return Ok(python),
            Ok(python) => {
                if !seen.contains(&python.executable) {
                    found.push(format!("{} ({})", python.executable.display(), python.version));
                    seen.push(python.executable);
                }
            }
            Err(Silent::Exhausted(fault)) => return Err(fault),
            Err(Silent::Other(why)) => found.push(format!("{} ({why})", candidate.display())),
        }
    }
    let place = match explicit {
        Some(_) => "the configured interpreter is the only one that is tried",
        None => "looked for `python3` and `python3.N` on PATH",
    };
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    Err(Fault::new(Code::PythonMissing, format!("no Python in the range {wanted}: {place}; found {found}"))
        .hint(hint![format!("install a Python in the range {wanted}, or name one with "), act::hob_python(), " or ", act::python_path()])
        .with("wanted", wanted.to_string()))
}

/// Files on `path` that look like Python 3, best first, each once.
fn candidates(path: &OsStr) -> Vec<PathBuf> {
    let names = std::iter::once("python3".to_owned()).chain(MINORS.rev().map(|minor| format!("python3.{minor}")));
    let mut candidates: Vec<PathBuf> = Vec::new();
    for name in names {
        for folder in std::env::split_paths(path) {
            let file = folder.join(&name);
            // A relative entry would mean another interpreter in every working directory.
            if folder.is_absolute() && file.is_file() && !candidates.contains(&file) {
                candidates.push(file);
            }
        }
    }
    candidates
}

/// Asks one candidate what it is.
async fn probe(candidate: &Path) -> Result<Python, Silent> {
    if !candidate.is_absolute() {
        return Err("not an absolute path".to_owned().into());
    }
    let mut command = Command::new(candidate);
    command.args(["-I", "-S", "-c", PROBE]).stdin(Stdio::null());
    // Version managers choose by the working directory. The same recipe must get the same interpreter in
    // every directory.
    command.current_dir("/");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PYTHON")) {
        command.env_remove(name);
    }
    let silent = |error: std::io::Error, why: String| Silent::after(&error, candidate, why);
    let ran = process::run(command, limits::PROBE_MS, |_| ()).await;
    let ran = ran.map_err(|error| {
        let why = format!("cannot be run: {error}");
        silent(error, why)
    })?;
    if !ran.succeeded() {
        if let Some(error) = ran.tail.iter().rev().find_map(|line| exhausted_in(line)) {
            return Err(silent(error, String::new()));
        }
        // A version manager says what is wrong first, a traceback says it last.
        let mut lines = ran.tail.iter().filter(|line| !line.is_empty());
        let said = lines.next().and_then(|first| if first.starts_with("Traceback") { lines.next_back() } else { Some(first) });
        let said = said.map(|line| format!(": {line}")).unwrap_or_default();
        return Err(format!("{}{said}", ran.end(limits::PROBE_MS)).into());
    }
    let answer: Answer = serde_json::from_str(ran.stdout.trim()).map_err(|_| "does not answer as Python 3 does".to_owned())?;
    let (major, minor, patch, level, _) = answer.version;
    let mut version = Version::new(major, minor, patch);
    if level != "final" {
        version.pre = semver::Prerelease::new(&level).map_err(|error| error.to_string())?;
    }
    // The real file is kept: a later upgrade of `python3` in place must not put another minor version under
    // an environment.
    let executable = answer.executable.canonicalize().map_err(|error| {
        let why = format!("{}: {error}", answer.executable.display());
        silent(error, why)
    })?;
    Ok(Python { executable, version, build: answer.build.replace('\n', " "), platform: answer.platform })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_packages_lie_depends_on_the_kind_of_interpreter() {
        let table = [
            ("3.11.7", "linux-x86_64 cpython-311-x86_64-linux-gnu", "lib/python3.11/site-packages"),
            ("3.13.1", "linux-x86_64 cpython-313t-x86_64-linux-gnu", "lib/python3.13t/site-packages"),
            ("3.10.2", "linux-x86_64 pypy310-pp73-x86_64-linux-gnu", "lib/pypy3.10/site-packages"),
            ("3.9.0", "linux-x86_64 cpython-39", "lib/python3.9/site-packages"),
        ];
        for (version, platform, packages) in table {
            let python = Python {
                executable: "/usr/bin/python3".into(),
                version: version.parse().unwrap(),
                build: String::new(),
                platform: platform.to_owned(),
            };
            assert_eq!(python.packages(), Path::new(packages));
        }
    }
}
