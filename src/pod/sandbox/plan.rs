//! The plan of a pod's sandbox: what the pod may see, read, write and call. It is the first message that the
//! pod gets.
//!
//! The host makes it from the recipe, from its operator's grants ([`Grants`]) and from what every pod needs
//! of a system. Python code carries it out (`hob_pod/confine.py`, `mounts.py`, `lockdown.py`). A pod has
//! nothing that is not in its plan.

use crate::pod::sandbox::paths::{PYTHON_LINKS, SCRATCH};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde::Serialize;

use crate::{
    model::{
        Code, Fault, Grants, Permissions, Verified, act,
        grant::Device,
        hint,
        limits::{
            BYTECODE_MEMORY_BYTES, FAMILY_FOLDER_BYTES, GRANT_COVERED_MAX, GRANT_ENTRIES_MAX, GRANT_LOOK_MAX_S, POD_DESCRIPTORS_MAX,
            POD_MEMORY_PERCENT, POD_PROCESSES_DEFAULT, POD_QUEUE_BYTES_MAX, POD_SCRATCH_BYTES, POD_SIGNALS_MAX,
        },
        manifest::spec::PodSpec,
    },
    pod::{
        process::vitals,
        sandbox::{
            devices::Gpu,
            granted,
            refused::{unavailable, word},
            seccomp::{self, Who},
            settings::{self, CERTIFICATES, Found, SETTINGS},
        },
        spec::{Cache, Program, Spec},
    },
};

/// Folders with the programs and libraries of a system.
const PROGRAMS: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// Files of /proc that a pod reads besides its own: about the machine, not about other processes.
const KERNEL: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/vmstat",
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys",
];

const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// A file in the pod's root that no rule allows it to read: the pod tests Landlock on it.
const PLANTED: &str = "/.hob-planted";

/// The name of this layer in a pod's list of missing layers.
pub const NAMESPACES: &str = "namespaces";

/// How a pod's process is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum How {
    /// By a keeper, in the host's process namespace.
    Started,
    /// From a zygote, in the process namespace of its family.
    Forked,
}

#[derive(Serialize)]
struct Plan<'a> {
    r#type: &'static str,
    scratch: &'a Path,
    reduced: bool,
    without: &'a [String],
    gpu: bool,
    /// Whether the pod gets a `/proc` of its own if possible; it does not if the machine's `/proc`, or a
    /// process in it, was granted.
    own_proc: bool,
    way_out: bool,
    ungranted: granted::Lacking,
    view: View<'a>,
    paths: Paths,
    filters: &'a [String],
    limits: Limits,
    proof: Proof<'a>,
}

#[derive(Serialize)]
struct View<'a> {
    base: &'a Path,
    read: Vec<PathBuf>,
    /// {path: other}: what is mounted in the place of a path of `read`.
    instead: BTreeMap<PathBuf, PathBuf>,
    /// {folder: other}: where a pod without a root of its own finds the content of that folder.
    elsewhere: BTreeMap<PathBuf, PathBuf>,
    write: Vec<PathBuf>,
    granted: Vec<PathBuf>,
    devices: Vec<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
    private: BTreeMap<PathBuf, u64>,
    files: BTreeMap<&'static str, String>,
    data: Data,
}

/// Bounds of the search of a granted folder for what is not data.
#[derive(Serialize)]
struct Data {
    covered_max: u64,
    entries_max: u64,
    seconds_max: u64,
}

const DATA: Data = Data { covered_max: GRANT_COVERED_MAX, entries_max: GRANT_ENTRIES_MAX, seconds_max: GRANT_LOOK_MAX_S };

#[derive(Serialize)]
struct Paths {
    read: Vec<PathBuf>,
    execute: Vec<PathBuf>,
    write: Vec<PathBuf>,
    device: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Limits {
    processes: u64,
    data_bytes: u64,
    file_bytes: u64,
    descriptors: u64,
    signals: u64,
    queue_bytes: u64,
    nice: u8,
}

impl Limits {
    /// Bounds on what the kernel counts for the host's user, or hands out from the host's share.
    fn shared() -> Limits {
        Limits {
            processes: 0,
            data_bytes: 0,
            file_bytes: 0,
            descriptors: descriptors(),
            signals: POD_SIGNALS_MAX,
            queue_bytes: POD_QUEUE_BYTES_MAX,
            nice: 0,
        }
    }
}

/// Most descriptors of a process of a pod. The kernel lets a process send a descriptor while fewer are in
/// transit for its user than the process may have. Pods get half of what the host may have, so they never use
/// up what the host needs to start another pod.
fn descriptors() -> u64 {
    let host = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    (host / 2).clamp(1, POD_DESCRIPTORS_MAX)
}

#[derive(Serialize)]
struct Proof<'a> {
    secret: PathBuf,
    planted: &'static str,
    folder: &'a Path,
    host: u32,
}

/// The part of a plan that is the same for all pods of this machine.
struct System {
    folders: Vec<PathBuf>,
    settings: Found,
    certificates: Found,
    kernel: Vec<PathBuf>,
    devices: Vec<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
    /// For a pod, for a pod with a network, for a zygote.
    filters: Result<[Vec<String>; 3], String>,
}

fn system() -> &'static System {
    static SYSTEM: OnceLock<System> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let mut links = BTreeMap::new();
        let mut there = |paths: &[&str]| -> Vec<PathBuf> {
            let paths = paths.iter().map(PathBuf::from).filter(|path| path.exists());
            // A link is recreated as a link: `/bin` is `/usr/bin` in the pod too.
            let (linked, real): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_symlink());
            links.extend(
                linked.into_iter().filter_map(|path| Some((fs::read_link(&path).ok()?, path))).map(|(target, path)| (path, target)),
            );
            real
        };
        let (folders, kernel, devices) = (there(PROGRAMS), there(KERNEL), there(DEVICES));
        let [settings, certificates] = [SETTINGS, CERTIFICATES].map(|list| settings::find(list, &folders));
        let hex = |who| -> Result<Vec<String>, String> { Ok(seccomp::programs(who)?.iter().map(hex::encode).collect()) };
        let filters = hex(Who::Pod).and_then(|pod| Ok([pod, hex(Who::PodWithNetwork)?, hex(Who::Zygote)?]));
        System { folders, settings, certificates, kernel, devices, links, filters }
    })
}

impl System {
    /// Links of every root.
    fn links(&self) -> BTreeMap<PathBuf, PathBuf> {
        self.links.iter().chain(&self.settings.links).map(|(path, target)| (path.clone(), target.clone())).collect()
    }
}

/// The process that a plan is for.
struct Subject<'a> {
    name: String,
    recipe: Option<&'a Verified>,
    /// The folder from which its code is read.
    folder: &'a Path,
    /// The folder that is mounted in its place.
    seen: Option<&'a Path>,
    /// The folder of its models.
    models: Option<&'a Path>,
    cache: Option<&'a Path>,
    pod: Option<&'a PodSpec>,
    /// The memory that its processes must stay below, in bytes, if known.
    memory: Option<u64>,
    grants: &'a Grants,
    program: &'a Program,
    keeper: &'a Path,
    scratch: &'a Path,
    without: &'a [String],
}

/// The first message to a pod, as JSON.
///
/// Errors: `sandbox_unavailable` if there is no filter for this kind of processor, `invalid_config` for a
/// granted path that cannot be given ([`granted::check`]).
pub fn plan(spec: &Spec, how: How) -> Result<Vec<u8>, Fault> {
    let manifest = spec.recipe.manifest();
    let subject = Subject {
        name: manifest.name.to_string(),
        recipe: Some(&spec.recipe),
        folder: spec.recipe.folder(),
        seen: spec.recipe.seen(),
        models: spec.recipe.models_folder(),
        cache: match &spec.cache {
            Cache::From(folder) => Some(folder),
            _ => None,
        },
        pod: manifest.pod.as_ref(),
        memory: manifest.pod.as_ref().and_then(|pod| pod.memory_bytes),
        grants: &spec.grants,
        program: &spec.program,
        keeper: &spec.keeper,
        scratch: &spec.scratch,
        without: &spec.without,
    };
    plan_of(&subject, how)
}

/// The plan of a pod without recipe, model or grant, which tests what this machine can do. `folder`: its
/// scratch folder.
///
/// Errors: `sandbox_unavailable`.
pub fn trial_plan(program: &Program, keeper: &Path, folder: &Path, without: &[String]) -> Result<Vec<u8>, Fault> {
    let subject = Subject {
        name: "a trial".to_owned(),
        recipe: None,
        folder: keeper.parent().unwrap_or(keeper),
        seen: None,
        models: None,
        cache: None,
        pod: None,
        memory: None,
        grants: &Grants::default(),
        program,
        keeper,
        scratch: folder,
        without,
    };
    plan_of(&subject, How::Started)
}

/// The plan of the process that compiles the sources in `packages`, the only folder of the machine that it
/// can write to. `folder`: its scratch folder.
///
/// Errors: `sandbox_unavailable`.
pub fn compiler_plan(program: &Program, keeper: &Path, folder: &Path, packages: &Path, without: &[String]) -> Result<Vec<u8>, Fault> {
    let written = packages.to_str().unwrap_or_default().parse().map_err(|why: Fault| Fault::new(Code::SandboxUnavailable, why.message))?;
    let permissions = Permissions { write: BTreeSet::from([written]), ..Permissions::default() };
    let subject = Subject {
        name: "the compiler of Python sources".to_owned(),
        recipe: None,
        folder: keeper.parent().unwrap_or(keeper),
        seen: None,
        models: None,
        cache: None,
        pod: None,
        memory: Some(BYTECODE_MEMORY_BYTES),
        grants: &Grants { permissions, reduced: false },
        program,
        keeper,
        scratch: folder,
        without,
    };
    plan_of(&subject, How::Started)
}

fn plan_of(subject: &Subject, how: How) -> Result<Vec<u8>, Fault> {
    let system = system();
    let pod = subject.pod;
    let granted = &subject.grants.permissions;
    let network = !granted.network.is_empty();
    let gpu = granted.devices.contains(&Device::Gpu);
    let filters = system.filters.as_ref().map_err(|why| match subject.recipe {
        Some(recipe) => unavailable(recipe, "seccomp", why),
        None => Fault::new(Code::SandboxUnavailable, format!("seccomp: {why}")),
    })?;

    let mut programs = system.folders.clone();
    programs.extend(above(&subject.program.base, 2));
    if subject.program.site_packages.is_some() {
        programs.extend(above(&subject.program.python, 2));
    }
    programs.push(subject.folder.to_owned());
    let mut read: Vec<PathBuf> = above(subject.keeper, 2).into_iter().collect();
    read.extend(subject.models.map(Path::to_owned));
    read.extend(subject.cache.map(Path::to_owned));
    read.extend(system.settings.paths.iter().cloned());
    let mut links = system.links();
    if network {
        read.extend(system.certificates.paths.iter().cloned());
        links.extend(system.certificates.links.clone());
    }
    if subject.program.site_packages.is_none() {
        links.extend(["python", "python3"].map(|name| (Path::new(PYTHON_LINKS).join(name), subject.program.base.clone())));
    }
    read.extend(granted.read.iter().map(|path| path.as_path().to_owned()));
    let write: Vec<PathBuf> = granted.write.iter().map(|path| path.as_path().to_owned()).collect();
    if let Some(recipe) = subject.recipe {
        granted::check(&subject.name, &word(recipe), granted)?;
    }

    // A pod may never change its own code, whatever was granted.
    let is_own = |path: &&PathBuf| subject.seen.is_some() && path.starts_with(subject.folder);
    if let Some(path) = write.iter().filter(is_own).find(|path| !is_place(subject, path)) {
        let text = format!("`{}` was granted to write to {}, where files of the recipe itself are", subject.name, path.display());
        let revoke = act::revoke(subject.recipe.map_or_else(|| subject.name.clone(), word), format!("write={}", path.display()));
        let hint = hint!["grant a folder that has no file of the bundle in it, and take this one back with ", revoke];
        return Err(Fault::new(Code::InvalidConfig, text).hint(hint));
    }

    let mut view_read: Vec<PathBuf> = programs.iter().chain(&read).cloned().collect();
    view_read.extend(["/proc", "/sys/devices/system"].map(PathBuf::from).into_iter().filter(|path| path.exists()));
    let mut view_write = write.clone();
    let mut devices = system.devices.clone();
    if gpu {
        let found = Gpu::find();
        devices.extend(found.iter().flat_map(|gpu| gpu.devices.iter().cloned()));
        let drivers: Vec<PathBuf> = found.into_iter().flat_map(|gpu| gpu.read).collect();
        view_read.extend(drivers.iter().cloned());
        programs.extend(drivers);
        // Drivers name their threads there; Landlock decides what else may be written.
        view_read.retain(|path| path != Path::new("/proc"));
        view_write.push("/proc".into());
    }
    // Removes paths below another: they come with it.
    let mut view_read = outermost(view_read);
    if subject.seen.is_some() {
        // Another folder is mounted in its place, so paths within the recipe's folder have to be added
        // themselves.
        view_read.retain(|path| path != subject.folder);
        view_read.push(subject.folder.to_owned());
        view_read.extend(subject.models.filter(|models| models.starts_with(subject.folder)).map(Path::to_owned));
        view_read.extend(granted.read.iter().map(|path| path.as_path().to_owned()).filter(|path| is_place(subject, path)));
    }
    // These folders are memory: none is larger than the memory that the pod may have.
    let scratch_bytes = POD_SCRATCH_BYTES.min(memory_bytes(pod));
    let private = ["/tmp", "/dev/shm", SCRATCH].map(PathBuf::from).into_iter();
    read.extend(system.kernel.iter().cloned());
    read.extend(["/sys/devices/system"].map(PathBuf::from).into_iter().filter(|path| path.exists()));
    read.extend(files().into_keys().filter(|path| *path != PLANTED).map(PathBuf::from));

    let plan = Plan {
        r#type: "confine",
        scratch: subject.scratch,
        reduced: subject.grants.reduced,
        without: subject.without,
        gpu,
        own_proc: !granted.read.iter().chain(&granted.write).any(|path| shows_processes(path.as_path())),
        way_out: network,
        ungranted: subject.recipe.map(|recipe| granted::Lacking::of(recipe, &word(recipe), granted)).unwrap_or_default(),
        view: View {
            base: subject.scratch,
            read: view_read,
            instead: subject.seen.map(|seen| (subject.folder.to_owned(), seen.to_owned())).into_iter().collect(),
            elsewhere: subject
                .recipe
                .map(|recipe| (subject.folder.to_owned(), folder_without_root(recipe, granted).to_owned()))
                .filter(|(folder, place)| folder != place)
                .into_iter()
                .collect(),
            write: view_write,
            granted: granted.read.iter().chain(&granted.write).map(|path| path.as_path().to_owned()).collect(),
            devices: devices.clone(),
            links,
            private: private.map(|path| (path, scratch_bytes)).collect(),
            files: files(),
            data: DATA,
        },
        paths: Paths { read, execute: programs, write, device: devices },
        filters: &filters[usize::from(network)],
        limits: Limits {
            processes: processes(pod),
            // Above the limit that is watched, and below the machine's end, so that one excessive allocation
            // fails at once.
            data_bytes: subject.memory.map_or(0, |bytes| bytes.saturating_add(bytes / 4).saturating_add(256 << 20)),
            file_bytes: scratch_bytes,
            nice: pod.map_or(0, |pod| pod.nice),
            ..Limits::shared()
        },
        proof: Proof {
            secret: crate::pod::spec::path_of(subject.scratch),
            planted: PLANTED,
            folder: subject.program.site_packages.as_deref().unwrap_or(subject.folder),
            host: match how {
                How::Started => std::process::id(),
                // The init of its family: the host's other processes have no number in that namespace.
                How::Forked => 1,
            },
        },
    };
    serde_json::to_vec(&plan).map_err(|error| {
        Fault::new(Code::Io, format!("a pod of `{}` was not started: {error}", subject.name)).hint(hint![
            "put ",
            act::hob_home(),
            ", the recipe and Python below folders whose names are UTF-8"
        ])
    })
}

/// The two plans of a family whose folder is `base`, as JSON: what its init builds for the zygote, and what
/// confines the zygote.
///
/// The zygote sees the environment and the system, and nothing of a recipe. Its rules apply to its pods too,
/// and each pod adds its own.
///
/// Errors: `sandbox_unavailable`.
pub fn family_plans(program: &Program, keeper: &Path, base: &Path, without: &[String]) -> Result<[Vec<u8>; 2], Fault> {
    let system = system();
    let filters = system.filters.as_ref().map_err(|why| Fault::new(Code::SandboxUnavailable, format!("no zygote: {why}")))?;
    let mut read = system.folders.clone();
    read.extend(above(&program.base, 2));
    read.extend(above(&program.python, 2));
    read.extend(above(keeper, 2));
    read.extend(system.settings.paths.iter().cloned());
    read.extend(["/proc", "/sys/devices/system"].map(PathBuf::from).into_iter().filter(|path| path.exists()));
    let plan = |kind| Plan {
        r#type: kind,
        scratch: Path::new("/tmp"),
        reduced: false,
        without,
        gpu: false,
        own_proc: true,
        way_out: false,
        ungranted: granted::Lacking::default(),
        view: View {
            base,
            read: outermost(read.clone()),
            instead: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            write: Vec::new(),
            granted: Vec::new(),
            devices: system.devices.clone(),
            links: system.links(),
            private: ["/tmp", "/dev/shm", "/pods", SCRATCH].map(|path| (path.into(), FAMILY_FOLDER_BYTES)).into(),
            files: files(),
            data: DATA,
        },
        paths: Paths {
            read: system.kernel.clone(),
            execute: vec!["/".into()],
            write: vec!["/pods".into()],
            device: system.devices.iter().cloned().chain(["/pods".into()]).collect(),
        },
        filters: &filters[2],
        limits: Limits::shared(),
        proof: Proof {
            secret: base.into(),
            planted: "",
            folder: program.site_packages.as_deref().or(keeper.parent()).unwrap_or(keeper),
            host: 1,
        },
    };
    let bytes = |kind| serde_json::to_vec(&plan(kind)).map_err(|error| Fault::new(Code::Io, format!("no zygote: {error}")));
    Ok([bytes("family")?, bytes("zygote")?])
}

/// The made-up files of a pod's root.
fn files() -> BTreeMap<&'static str, String> {
    let mut files = settings::made(SCRATCH);
    files.insert(PLANTED, "no rule allows this to be read\n".to_owned());
    files
}

/// Most memory of a pod, with all its processes, in bytes.
pub fn memory_bytes(pod: Option<&PodSpec>) -> u64 {
    pod.and_then(|pod| pod.memory_bytes).unwrap_or_else(|| {
        static MACHINE: OnceLock<u64> = OnceLock::new();
        MACHINE.get_or_init(vitals::machine_memory_bytes) / 100 * POD_MEMORY_PERCENT
    })
}

/// Most processes and threads of a pod.
pub fn processes(pod: Option<&PodSpec>) -> u64 {
    pod.and_then(|pod| pod.processes).unwrap_or(POD_PROCESSES_DEFAULT)
}

/// The folder `levels` above a path; `None` if that is the root.
fn above(path: &Path, levels: usize) -> Option<PathBuf> {
    let folder = path.ancestors().nth(levels)?;
    (folder.components().count() > 1).then(|| folder.to_owned())
}

/// Whether a granted path lies in the recipe folder and holds no packed file, so that it is mounted as it
/// lies on the disk.
fn is_place(subject: &Subject, path: &Path) -> bool {
    let Some((seen, inner)) = subject.seen.zip(path.strip_prefix(subject.folder).ok()) else { return false };
    let place = seen.join(inner);
    match fs::read_dir(&place) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => place.metadata().map_or(true, |file| file.len() == 0),
    }
}

/// The folder in which a pod without a root of its own finds the files of its recipe: the folder of their
/// copies. A pod that was granted a path within the recipe folder gets the folder on the disk instead,
/// because the granted files are not beside the copies.
pub fn folder_without_root<'a>(recipe: &'a Verified, granted: &Permissions) -> &'a Path {
    let folder = recipe.folder();
    let is_within = granted.read.iter().chain(&granted.write).any(|path| path.as_path().starts_with(folder));
    recipe.seen().filter(|_| !is_within).unwrap_or(folder)
}

/// Whether a path is all of `/proc`, or a process in it.
fn shows_processes(path: &Path) -> bool {
    let of_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let proc = Path::new("/proc");
    proc.starts_with(path) || path.strip_prefix(proc).is_ok_and(|inner| inner.iter().next().is_some_and(of_process))
}

/// Sorts the paths and removes duplicates, and paths that lie below another.
fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths.dedup();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !kept.iter().any(|outer| path.starts_with(outer)) {
            kept.push(path);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_others_come_with_them() {
        let paths = ["/usr/local", "/usr", "/a/b", "/usr", "/usr-x", "/a"].map(PathBuf::from).to_vec();
        assert_eq!(outermost(paths), ["/a", "/usr", "/usr-x"].map(PathBuf::from));
        assert_eq!(above(Path::new("/opt/python/bin/python3"), 2), Some("/opt/python".into()));
        // An interpreter at the top must not give the pod the whole machine.
        assert_eq!(above(Path::new("/bin/python3"), 2), None);
    }

    #[test]
    fn who_was_granted_processes_is_given_those_of_the_machine() {
        for path in ["/", "/proc", "/proc/1", "/proc/4711/net"] {
            assert!(shows_processes(Path::new(path)), "{path}");
        }
        for path in ["/procs", "/proc/diskstats", "/proc/sys/kernel", "/proc/self/status", "/data/proc"] {
            assert!(!shows_processes(Path::new(path)), "{path}");
        }
    }
}
