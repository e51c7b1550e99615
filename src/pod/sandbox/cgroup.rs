//! Control groups: the limits (memory, processes) that this machine lets Hob set on a pod, and a way to end
//! all its processes at once.
//!
//! - The sandbox works without them. Making groups needs a permission that most users do not have, so Hob
//!   finds out what can be enforced by doing it once, and says it in words.
//! - `text.rs` finds this process's own groups. New groups are made below those, so that every limit on Hob
//!   applies to its pods too.
//! - In the unified hierarchy (v2), a group that limits its children may hold no processes itself, and the
//!   host is in its own group. So new groups lie below the own group only if it is the machine's root group.
//!   Otherwise they lie beside it, if its parent was delegated: with `DelegateSubgroup=` of a service, or a
//!   user's own manager. The old hierarchies (v1) have no such rule.

#[cfg(test)]
mod tests;
mod text;

use std::sync::OnceLock;
use std::{
    collections::BTreeSet,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    model::limits::{
        CGROUP_NAME_BYTES_MAX, CGROUP_REMOVE_PAUSE_MS, CGROUP_REMOVE_TRIES, CGROUPS_SWEPT_MAX, KERNEL_TEXT_BYTES_MAX,
        PROCESS_TEXT_BYTES_MAX,
    },
    pod::process::vitals,
};

/// The folders in which this process may make control groups.
pub(in crate::pod) struct Cgroups {
    /// Errors: why this machine cannot limit it, for people.
    memory: Result<Place, String>,
    processes: Result<Place, String>,
    /// The folder whose groups can be ended at once.
    end: Option<Place>,
    kernel: Kernel,
}

/// A folder to make groups in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    version: Version,
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V1,
    V2,
}

/// The acts of the kernel that a test folder does not have: the kernel makes a new group with its files, and
/// removes it with them. A test replaces these acts.
#[derive(Clone, Copy)]
struct Kernel {
    make: fn(&Path) -> io::Result<()>,
    remove: fn(&Path) -> io::Result<()>,
    /// Whether a group that this process is not in was handed over to it.
    is_handed_over: fn(&Path) -> bool,
}

const KERNEL: Kernel = Kernel { make: |path| fs::create_dir(path), remove: |path| fs::remove_dir(path), is_handed_over };

/// A user other than root can write only to folders that were handed over. For root, the service manager
/// marks the folders that it leaves alone.
fn is_handed_over(folder: &Path) -> bool {
    let is_marked = |name: &str| {
        let mut value = [0; 8];
        rustix::fs::getxattr(folder, name, &mut value[..]).is_ok_and(|length| value[..length] == *b"1")
    };
    !rustix::process::geteuid().is_root() || is_marked("user.delegate") || is_marked("trusted.delegate")
}

impl Cgroups {
    /// Finds the folders by making groups and removing them again. Blocking, for some milliseconds.
    pub(in crate::pod) fn find() -> Cgroups {
        let read = |path| vitals::read(path, PROCESS_TEXT_BYTES_MAX).unwrap_or_default();
        let (cgroup, mountinfo) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
        Cgroups::among(text::own(&String::from_utf8_lossy(&cgroup), &String::from_utf8_lossy(&mountinfo)), KERNEL)
    }

    fn among(own: text::Own, kernel: Kernel) -> Cgroups {
        let unified = own.unified.as_ref().map(|(folder, mount)| Unified::find(folder, mount, kernel));
        let old = |folder: Option<PathBuf>, file: &str, unified: Option<Result<Place, String>>| match (folder, unified) {
            (_, Some(Ok(place))) => Ok(place),
            (Some(folder), unified) => {
                let place = Place { version: Version::V1, folder };
                match place.prove(file, kernel) {
                    Ok(()) => Ok(place),
                    Err(error) => Err([unified.and_then(Result::err), Some(error)].into_iter().flatten().collect::<Vec<_>>().join("; ")),
                }
            }
            (None, Some(Err(error))) => Err(error),
            (None, None) => Err("no control groups are mounted that this process is in".into()),
        };
        Cgroups {
            memory: old(own.memory, Version::V1.memory_file(), unified.as_ref().map(|unified| unified.memory.clone())),
            processes: old(own.pids, PROCESSES_FILE, unified.as_ref().map(|unified| unified.processes.clone())),
            end: unified.and_then(|unified| unified.end),
            kernel,
        }
    }

    /// Whether the memory of a group can be limited.
    pub(in crate::pod) fn limits_memory(&self) -> bool {
        self.memory.is_ok()
    }

    /// Whether the number of a group's processes can be limited.
    pub(in crate::pod) fn limits_processes(&self) -> bool {
        self.processes.is_ok()
    }

    /// The limits that can be enforced, in words.
    pub(in crate::pod) fn describe(&self) -> String {
        let words = |place: &Result<Place, String>| match place {
            Ok(place) => format!("yes (control groups {})", place.version.name()),
            Err(why) => format!("no ({why})"),
        };
        let end = self.end.as_ref().map_or("no", |_| "yes");
        format!("memory: {}, processes: {}, end at once: {end}", words(&self.memory), words(&self.processes))
    }

    /// Makes a group with this name, with these limits from the start. Swap counts as memory: a pod must not
    /// wear out the disk instead.
    ///
    /// Errors: `Unsupported` if a requested limit cannot be enforced, `AlreadyExists` if the name is taken.
    pub(in crate::pod) fn make(&self, name: &str, memory_bytes: Option<u64>, processes: Option<u64>) -> io::Result<Group> {
        let wrong = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        if !is_name(name) {
            return Err(wrong(format!("`{name}` is not a name for a control group: wanted letters, digits, `-` and `_`")));
        }
        if memory_bytes == Some(0) || processes == Some(0) {
            return Err(wrong("a control group with a limit of nothing holds no pod".into()));
        }
        let enforced = |place: &Result<Place, String>, what: &str, limit: Option<u64>| match (place, limit) {
            (Err(why), Some(_)) => Err(io::Error::new(io::ErrorKind::Unsupported, format!("{what} cannot be limited: {why}"))),
            _ => Ok(()),
        };
        enforced(&self.memory, "memory", memory_bytes)?;
        enforced(&self.processes, "the number of processes", processes)?;
        let within = |place: &Place| Place { version: place.version, folder: place.folder.join(name) };
        let memory = self.memory.as_ref().ok().map(within);
        let end = self.end.as_ref().map(within);
        // The group owns each folder as soon as the folder exists, so that a group that cannot be finished is
        // removed again.
        let mut group = Group { folders: Vec::new(), memory: memory.clone(), end, kernel: self.kernel };
        for place in self.places() {
            let folder = place.folder.join(name);
            (self.kernel.make)(&folder)?;
            group.folders.push(folder);
        }
        if let (Some(place), Some(bytes)) = (memory, memory_bytes) {
            place.limit_memory(bytes)?;
        }
        if let (Ok(place), Some(count)) = (&self.processes, processes) {
            write(&within(place).folder.join(PROCESSES_FILE), &count.to_string())?;
        }
        Ok(group)
    }

    /// Removes empty groups whose names begin with `prefix`: those that a killed host left. `prefix` must
    /// name that host, because a group that was just made is empty as well.
    ///
    /// Returns how many groups were removed.
    pub(in crate::pod) fn sweep(&self, prefix: &str) -> usize {
        // An empty prefix would remove everybody's groups.
        if !is_name(prefix) {
            return 0;
        }
        let mut removed = BTreeSet::new();
        for place in self.places() {
            let Ok(entries) = fs::read_dir(&place.folder) else { continue };
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            for name in names.filter(|name| name.starts_with(prefix)).take(CGROUPS_SWEPT_MAX) {
                // The kernel refuses if the group has processes, or further groups.
                if remove(&place.folder.join(&name), self.kernel) {
                    removed.insert(name);
                }
            }
        }
        removed.len()
    }

    /// The folders that a group is made of, each once; in the unified hierarchy one folder has everything.
    fn places(&self) -> BTreeSet<&Place> {
        self.memory.iter().chain(&self.processes).chain(&self.end).collect()
    }
}

/// The file of a group that limits the number of its processes; it has one name in both versions.
const PROCESSES_FILE: &str = "pids.max";

impl Version {
    fn name(self) -> &'static str {
        match self {
            Version::V1 => "v1",
            Version::V2 => "v2",
        }
    }

    fn memory_file(self) -> &'static str {
        match self {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        }
    }
}

impl Place {
    /// Makes a group, checks that the group has `file` and accepts a limit there, and removes the group.
    ///
    /// Errors: why not, for people.
    fn prove(&self, file: &str, kernel: Kernel) -> Result<(), String> {
        static PROBES: AtomicU64 = AtomicU64::new(0);
        let name = format!("hob-probe-{}-{}", std::process::id(), PROBES.fetch_add(1, Ordering::Relaxed));
        let probe = self.folder.join(name);
        let why = |act: &str, error: io::Error| format!("{act} below `{}`: {error}", self.folder.display());
        // In the unified hierarchy, a process that moves another must also be able to write this file, of the
        // common ancestor of both groups.
        if self.version == Version::V2 {
            fs::OpenOptions::new().write(true).open(self.folder.join("cgroup.procs")).map_err(|error| why("moving processes", error))?;
        }
        (kernel.make)(&probe).map_err(|error| why("making a group", error))?;
        let value = if file == END_FILE { "1" } else { "1073741824" };
        let value = if file == PROCESSES_FILE { "64" } else { value };
        let taken = write(&probe.join(file), value).and_then(|()| fs::OpenOptions::new().write(true).open(probe.join("cgroup.procs")));
        remove(&probe, kernel);
        taken.map(drop).map_err(|error| why(&format!("writing `{file}`"), error))
    }

    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.to_string();
        write(&self.folder.join(self.version.memory_file()), &bytes)?;
        // The old hierarchy limits the sum of memory and swap, and only after memory alone was limited. A
        // kernel without accounting of swap has neither file.
        let swap = match self.version {
            Version::V1 => write(&self.folder.join("memory.memsw.limit_in_bytes"), &bytes),
            Version::V2 => write(&self.folder.join("memory.swap.max"), "0"),
        };
        match swap {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            swap => swap,
        }
    }
}

/// The file of a group that ends all its processes; unified hierarchy, since Linux 5.14.
const END_FILE: &str = "cgroup.kill";

/// What the unified hierarchy offers. All of it is in one folder, because a process is in one group of this
/// hierarchy.
struct Unified {
    memory: Result<Place, String>,
    processes: Result<Place, String>,
    end: Option<Place>,
}

impl Unified {
    /// The better one of the own group and the group above it, if that was handed over.
    fn find(own: &Path, mount: &Path, kernel: Kernel) -> Unified {
        let below = Unified::at(own, kernel);
        let above = own.parent().filter(|parent| own != mount && parent.starts_with(mount) && (kernel.is_handed_over)(parent));
        // Beside the own group, a pod would escape a limit that an operator set on Hob's group.
        let is_unlimited = || matches!(text_of(&own.join("memory.max")).as_deref(), None | Some("max"));
        match above {
            Some(parent) if below.worth() < 2 && is_unlimited() => {
                let above = Unified::at(parent, kernel);
                if above.worth() > below.worth() { above } else { below }
            }
            _ => below,
        }
    }

    fn worth(&self) -> usize {
        usize::from(self.memory.is_ok()) + usize::from(self.processes.is_ok())
    }

    fn at(folder: &Path, kernel: Kernel) -> Unified {
        let place = Place { version: Version::V2, folder: folder.to_owned() };
        let controlled = |controller: &str, file: &str| {
            hand_out(folder, controller)?;
            place.prove(file, kernel).map(|()| place.clone())
        };
        Unified {
            memory: controlled("memory", Version::V2.memory_file()),
            processes: controlled("pids", PROCESSES_FILE),
            end: place.prove(END_FILE, kernel).is_ok().then(|| place.clone()),
        }
    }
}

/// Enables a controller of `folder` for the groups below it.
fn hand_out(folder: &Path, controller: &str) -> Result<(), String> {
    let has = |file: &str| text_of(&folder.join(file)).is_some_and(|text| text.split_ascii_whitespace().any(|word| word == controller));
    if has("cgroup.subtree_control") {
        return Ok(());
    }
    if !has("cgroup.controllers") {
        return Err(format!("`{}` has no controller `{controller}`", folder.display()));
    }
    write(&folder.join("cgroup.subtree_control"), &format!("+{controller}")).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => format!(
            "`{}` has processes of its own and so may not limit groups below it; a service with `Delegate=yes` and \
             `DelegateSubgroup=host` may",
            folder.display()
        ),
        _ => format!("handing on `{controller}` below `{}`: {error}", folder.display()),
    })
}

/// A group of a pod. Drop removes its folders, which the kernel allows once the last process is gone.
pub(in crate::pod) struct Group {
    folders: Vec<PathBuf>,
    memory: Option<Place>,
    end: Option<Place>,
    kernel: Kernel,
}

impl Group {
    /// Moves a process with all its threads into the group; processes that it starts later are in the group
    /// as well.
    pub(in crate::pod) fn add(&self, pid: u32) -> io::Result<()> {
        // To the kernel, 0 is the writing process: the host.
        if pid == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "0 is no process to put into a control group"));
        }
        self.folders.iter().try_for_each(|folder| write(&folder.join("cgroup.procs"), &pid.to_string()))
    }

    /// How many processes of the group the kernel killed because the group's memory was full. `None`: not
    /// counted.
    pub(in crate::pod) fn memory_events(&self) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let file = match memory.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = text_of(&memory.folder.join(file))?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }

    /// Peak memory of the group in bytes, including files in the page cache. `None`: not counted (v2 before
    /// Linux 5.19).
    pub(in crate::pod) fn peak(&self) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let file = match memory.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        };
        text_of(&memory.folder.join(file))?.parse().ok()
    }

    /// Kills all processes of the group at once, so that no new process can escape. Returns false if this
    /// machine cannot do that.
    pub(in crate::pod) fn kill(&self) -> io::Result<bool> {
        match &self.end {
            Some(end) => write(&end.folder.join(END_FILE), "1").map(|()| true),
            None => Ok(false),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            remove(folder, self.kernel);
        }
    }
}

/// Removes the folder of a group; returns whether it is gone. A killed process stays in the group until it is
/// completely gone, shortly after its parent was told of its end.
fn remove(folder: &Path, kernel: Kernel) -> bool {
    for at in 1..=CGROUP_REMOVE_TRIES {
        match (kernel.remove)(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && at < CGROUP_REMOVE_TRIES => {
                std::thread::sleep(Duration::from_millis(CGROUP_REMOVE_PAUSE_MS));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("the control group `{}` stays for the next start to remove: {error}", folder.display());
                return false;
            }
            _ => return true,
        }
    }
    false
}

/// Whether this is the name of one folder: not a file of the kernel's (those have dots), and no way up.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= CGROUP_NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Writes once, as the kernel requires, to an existing file: only the kernel makes these files.
fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn text_of(path: &Path) -> Option<String> {
    vitals::read(path, KERNEL_TEXT_BYTES_MAX).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The control groups that this machine allows; determined once.
pub(in crate::pod) fn cgroups() -> &'static Cgroups {
    static CGROUPS: OnceLock<Cgroups> = OnceLock::new();
    CGROUPS.get_or_init(Cgroups::find)
}
