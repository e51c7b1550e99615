//! Compiles glue in a process of its own, never in the host's.
//!
//! A compiler that reads untrusted bytes takes time and memory that their author chose. So the engines of a
//! host have no compiler at all (`engine.rs`): they read wasmtime's own cache, and a [`Compiler`] makes what
//! the cache lacks. That is another process, which:
//!
//! 1. bounds itself ([`confine`]), and ends if it exceeds a bound;
//! 2. compiles into an empty folder ([`compile`]), and does nothing else.
//!
//! The host then moves the result to where wasmtime looks for it ([`place`]). wasmtime compares what it reads
//! there with its own version and settings and this processor; code that does not match counts as missing.

use std::{
    hash::{Hash, Hasher},
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, component::Component};

use crate::{
    disk::make,
    glue::{
        engine::{self, Reservation},
        output,
        pods::BoxFuture,
    },
    model::{Code, Fault, limits},
};

/// One component to compile.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    pub component: &'a [u8],
    /// The one engine setting on which compiled code depends.
    pub reservation: Reservation,
    /// An empty folder for the result.
    pub into: &'a Path,
}

/// The result of compiling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compiled {
    /// The result is in the folder.
    Done,
    /// The component cannot be compiled; the reason.
    Refused(String),
    /// Compiling exceeds a bound; which one.
    TooMuch(String),
}

/// Compiles glue outside of this process.
pub trait Compiler: Send + Sync {
    /// Compiles one component. Dropping the future ends the process.
    ///
    /// Errors: the compiler program is missing, or could not be started.
    fn compile<'a>(&'a self, job: Job<'a>) -> BoxFuture<'a, Result<Compiled, Fault>>;
}

/// Limits this process permanently to what compiling may take: memory, processor time, files, no memory dump,
/// no new privileges.
///
/// Errors: any limit that the kernel refuses.
pub fn confine() -> std::io::Result<()> {
    let bounds = [
        (Resource::Data, limits::GLUE_COMPILE_MEMORY_BYTES),
        (Resource::Cpu, limits::GLUE_COMPILE_CPU_S),
        (Resource::Fsize, limits::GLUE_COMPILED_BYTES_MAX),
        (Resource::Nofile, limits::GLUE_COMPILE_FILES),
        (Resource::Core, 0),
    ];
    for (resource, most) in bounds {
        // The parent process may have set lower limits.
        let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = match resource {
            // At the soft limit of processor time the process gets a signal that says so; at the hard limit
            // it is killed.
            Resource::Cpu => Rlimit { current: Some(most.min(allowed.saturating_sub(1))), maximum: Some(allowed.min(most + 1)) },
            _ => Rlimit { current: Some(most.min(allowed)), maximum: Some(most.min(allowed)) },
        };
        setrlimit(resource, limit)?;
    }
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Reads a component as the host sends it: its length, then its bytes.
///
/// Errors: `io`, also for a length above the bound.
pub fn receive(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    if length > limits::GLUE_COMPONENT_BYTES_MAX {
        return Err(std::io::Error::other(format!("a component of {length} bytes")));
    }
    let mut component = vec![0; length as usize];
    from.read_exact(&mut component)?;
    Ok(component)
}

/// Compiles into the job's folder, in this process.
///
/// Errors: `io`, `internal`.
pub fn compile(job: Job) -> Result<Compiled, Fault> {
    let engine = engine::compiling(job.reservation, job.into)?;
    Ok(match Component::from_binary(&engine, job.component) {
        Ok(component) => {
            let range = component.image_range();
            let image = range.end as usize - range.start as usize;
            match image > limits::GLUE_CODE_BYTES_MAX {
                true => Compiled::TooMuch(format!("{image} bytes of machine code, more than {}", limits::GLUE_CODE_BYTES_MAX)),
                false => Compiled::Done,
            }
        }
        Err(error) if format!("{error:#}").contains("os error 12") => {
            Compiled::TooMuch(format!("more memory than it is given ({} bytes at most)", limits::GLUE_COMPILE_MEMORY_BYTES))
        }
        // wasmtime's message may contain names from the component.
        Err(error) => Compiled::Refused(output::cut(format!("{error:#}"))),
    })
}

/// Moves the compiled code from `from` to where `engine` looks for it in `cache`.
///
/// Errors: `io`, also if `from` is not what [`compile`] leaves.
pub fn place(from: &Path, cache: &Path, engine: &Engine, component: &[u8]) -> Result<(), Fault> {
    let failed = |error: std::io::Error| Fault::io(format!("keeping compiled glue in {}", cache.display()), &error);
    let unknown = || {
        Fault::new(Code::Io, format!("the compiler of glue kept nothing of what it compiled, in {}", from.display()))
            .hint("see that there is room for it and that it may be written to, and run it again")
    };
    let modules = from.join("modules");
    let found = only(&modules).and_then(|version| match version {
        Some(version) => Ok(only(&modules.join(&version))?.map(|compiled| (version, compiled))),
        None => Ok(None),
    });
    let Ok(Some((version, compiled))) = found else {
        // wasmtime does not report what it could not write; another attempt shows the reason.
        make::write(&from.join("again"), component, make::PRIVATE_FILE).map_err(failed)?;
        return Err(unknown());
    };
    let found = std::fs::symlink_metadata(modules.join(&version).join(&compiled)).map_err(failed)?;
    if !found.is_file() || found.len() > limits::GLUE_COMPILED_BYTES_MAX {
        return Err(unknown());
    }
    let folder = cache.join("modules").join(&version);
    make::folder(&cache.join("modules"), make::PRIVATE_FOLDER).map_err(failed)?;
    make::folder(&folder, make::PRIVATE_FOLDER).map_err(failed)?;
    std::fs::rename(modules.join(&version).join(&compiled), folder.join(key(engine, component))).map_err(failed)
}

/// The only entry of a folder, except for wasmtime's statistics.
fn only(folder: &Path) -> std::io::Result<Option<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(limits::GLUE_COMPILE_FILES as usize) {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".stats") && !name.contains(".wip-") {
            names.push(name);
        }
    }
    Ok(match <[String; 1]>::try_from(names) {
        Ok([name]) => Some(name),
        Err(_) => None,
    })
}

/// The name under which an engine of this wasmtime looks for compiled code: a digest of its settings, the
/// bytes, and two things that Hob's components do not have. If wasmtime changes the name, the code is not
/// found, and nothing worse happens.
fn key(engine: &Engine, component: &[u8]) -> String {
    struct Name(Sha256);
    impl Hasher for Name {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut name = Name(Sha256::new());
    (engine.precompile_compatibility_hash(), component, None::<&[u8]>, None::<&str>).hash(&mut name);
    URL_SAFE_NO_PAD.encode(name.0.finalize())
}

/// Makes room in `cache`: if the total is above the bound, the least recently read files are removed. Code
/// that is still needed is compiled again.
pub fn sweep(cache: &Path) {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let old = Duration::from_millis(limits::GLUE_STALE_MS);
    let changed = |path: &Path| std::fs::symlink_metadata(path).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    // Folders left by killed hosts; the next sweep retries those that cannot be deleted now.
    for left in
        entries(cache).iter().filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(INTO.as_bytes())))
    {
        if changed(left).elapsed().is_ok_and(|age| age > old) {
            let _ = std::fs::remove_dir_all(left);
        }
    }
    let files = entries(&cache.join("modules")).iter().flat_map(|folder| entries(folder)).collect::<Vec<PathBuf>>();
    let counted = |path: &Path| path.with_file_name(format!("{}.stats", path.file_name().unwrap_or_default().to_string_lossy()));
    let compiled = files.iter().filter(|path| path.extension().is_none());
    let mut compiled: Vec<_> = compiled
        .map(|path| {
            let bytes = std::fs::symlink_metadata(path).map_or(0, |found| found.len());
            (changed(path).max(changed(&counted(path))), bytes, path)
        })
        .collect();
    let mut total: u64 = compiled.iter().map(|(_, bytes, _)| bytes).sum();
    if total <= limits::GLUE_CACHE_BYTES_MAX {
        return;
    }
    compiled.sort();
    for (_, bytes, path) in compiled {
        if total <= limits::GLUE_CACHE_BYTES_MAX / 4 * 3 {
            return;
        }
        let _ = std::fs::remove_file(path);
        let _ = std::fs::remove_file(counted(path));
        total -= bytes;
    }
}

/// Prefix of the folders into which components are compiled.
pub const INTO: &str = "compiling-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_has_a_bound_and_what_was_not_read_for_longest_goes() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("modules/wasmtime");
        std::fs::create_dir_all(&folder).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(1_000_000);
        let make = |name: &str, bytes: u64| {
            let file = std::fs::File::create(folder.join(name)).unwrap();
            file.set_len(bytes).unwrap();
            file.set_modified(long_ago).unwrap();
        };
        let most = limits::GLUE_CACHE_BYTES_MAX;
        make("read", most / 2);
        std::fs::write(folder.join("read.stats"), "").unwrap();
        make("unread", most / 2);
        make("unread.stats", 0);
        std::fs::create_dir(cache.path().join("compiling-now")).unwrap();
        let there = || ["read", "unread", "unread.stats"].map(|name| folder.join(name).exists());
        sweep(cache.path());
        assert_eq!(there(), [true; 3]);
        make("more", 1);
        sweep(cache.path());
        assert_eq!(there(), [true, false, false]);
        assert!(cache.path().join("compiling-now").exists());
    }

    #[test]
    fn a_component_is_received_within_its_bound() {
        let sent = |length: u64, bytes: &[u8]| receive(&mut [&length.to_be_bytes(), bytes].concat().as_slice());
        assert_eq!(sent(3, b"abcd").unwrap(), b"abc");
        assert!(sent(3, b"ab").is_err());
        assert!(sent(limits::GLUE_COMPONENT_BYTES_MAX + 1, b"").unwrap_err().to_string().contains("a component of"));
    }
}
