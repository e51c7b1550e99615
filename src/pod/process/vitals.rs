//! Reads what the kernel reports of a process: whether it is still the same one, its memory, its processor
//! time.
//!
//! The driver judges these numbers. Every read races against the process: a process that is gone is not
//! counted, and nothing here panics. Linux only.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    disk::open,
    model::limits::{GENERATIONS_MAX, KERNEL_TEXT_BYTES_MAX, VITALS_PROCESSES_MAX},
};

/// Memory in bytes that only `pid` and all processes below it hold: anonymous and shared memory, not files
/// that the kernel may drop.
///
/// This is a lower bound: processes beyond [`VITALS_PROCESSES_MAX`] are not counted. Pages that a fork still
/// shares with its parent count in both. With the keeper's number it covers all of a pod, including a child
/// that left its parents. `None` if there is no such process, or the kernel lists no children (built without
/// `CONFIG_PROC_CHILDREN`).
pub fn memory_bytes(pid: u32) -> Option<u64> {
    let own = resident_bytes(pid)?;
    Some(descendants(pid)?.into_iter().filter_map(resident_bytes).fold(own, u64::saturating_add))
}

/// Memory of `processes` in bytes, without files: private memory, and shared memory.
pub fn resident(processes: &[u32]) -> (u64, u64) {
    let both = processes.iter().filter_map(|pid| {
        let status = read(format!("/proc/{pid}/status"), KERNEL_TEXT_BYTES_MAX)?;
        parts_of(&String::from_utf8_lossy(&status))
    });
    both.fold((0, 0), |sum, one| (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1)))
}

/// `pid` and all below it: see [`memory_bytes`].
pub fn members(pid: u32) -> Option<Vec<u32>> {
    Stat::of(pid)?;
    Some(descendants(pid)?.into_iter().chain([pid]).collect())
}

/// Memory of this machine, in bytes.
pub fn machine_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)))
}

/// Bytes that a pod's private folders in memory hold; `folders` are paths as the pod sees them. `None` if
/// there is no such process, or the pod has no root of its own.
pub fn private_bytes<'a>(pid: u32, folders: impl IntoIterator<Item = &'a Path>) -> Option<u64> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let (ours, theirs) = (fs::metadata("/").ok()?.dev(), fs::metadata(&root).ok()?.dev());
    if ours == theirs {
        return None;
    }
    let held = folders.into_iter().filter_map(|folder| {
        let stat = rustix::fs::statvfs(root.join(folder.strip_prefix("/").ok()?)).ok()?;
        Some(stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize))
    });
    Some(held.fold(0, u64::saturating_add))
}

/// Number of processes: `pid` and all below it; a lower bound, see [`memory_bytes`]. `None` as there.
pub fn processes(pid: u32) -> Option<usize> {
    Stat::of(pid)?;
    Some(descendants(pid)?.len() + 1)
}

/// Processor time of `pid`, of its children that were waited for, and of all processes that run below it.
/// `None` as in [`memory_bytes`].
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let own = Stat::of(pid)?.ticks;
    let ticks = descendants(pid)?.into_iter().filter_map(Stat::of).fold(own, |sum, stat| sum.saturating_add(stat.ticks));
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks.saturating_mul(1_000) / per_second))
}

/// When `pid` was started, in clock ticks since boot. Together with the number it identifies one process for
/// as long as the machine is up. `None` if there is no such process, or it has ended and is not yet waited
/// for.
pub fn identity(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.start_ticks)
}

/// The scope in which process numbers are valid: this boot of the machine, and this process namespace (a
/// container has its own). `None` if the kernel does not say.
pub fn boot() -> Option<String> {
    let id = String::from_utf8(read("/proc/sys/kernel/random/boot_id", KERNEL_TEXT_BYTES_MAX)?).ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", id.trim(), namespace.display()))
}

/// Reads at most `max` bytes of a kernel text about a process.
pub(in crate::pod) fn read(path: impl AsRef<Path>, max: u64) -> Option<Vec<u8>> {
    open::read_of_kernel(path.as_ref(), max).ok()
}

/// The fields used here of `/proc/PID/stat` of a process that has not ended.
struct Stat {
    parent: u32,
    start_ticks: u64,
    /// User and system time: the process's own and that of the children that it waited for.
    ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        Stat::parse(&read(format!("/proc/{pid}/stat"), KERNEL_TEXT_BYTES_MAX)?)
    }

    fn parse(text: &[u8]) -> Option<Stat> {
        // The name is in parentheses and may hold anything, parentheses and spaces too. The third field comes
        // after it.
        let at = text.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> = std::str::from_utf8(&text[at + 1..]).ok()?.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok().map(|number| number.max(0) as u64);
        if matches!(fields.first(), None | Some(&("Z" | "X"))) {
            return None;
        }
        let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
        Some(Stat { parent: number(4)? as u32, start_ticks: number(22)?, ticks })
    }
}

fn resident_bytes(pid: u32) -> Option<u64> {
    let status = read(format!("/proc/{pid}/status"), KERNEL_TEXT_BYTES_MAX)?;
    resident_of(&String::from_utf8_lossy(&status))
}

/// `RssAnon` and `RssShmem`; a process that ended has neither.
fn resident_of(status: &str) -> Option<u64> {
    parts_of(status).map(|(own, shared)| own + shared)
}

fn parts_of(status: &str) -> Option<(u64, u64)> {
    let kilobytes = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    Some((kilobytes("RssAnon:")? << 10, kilobytes("RssShmem:")? << 10))
}

/// Whether `pid` descends from `ancestor`. Reads one process per generation.
pub fn is_below(pid: u32, ancestor: u32) -> bool {
    let mut at = pid;
    for _ in 0..GENERATIONS_MAX {
        match Stat::of(at).map(|stat| stat.parent) {
            Some(parent) if parent == ancestor => return true,
            Some(parent) if parent > 1 => at = parent,
            _ => return false,
        }
    }
    false
}

/// The process below `ancestor` that reports the number `said`: its number here, or its number in a process
/// namespace of its own.
pub fn named_below(said: u32, ancestor: u32) -> Option<u32> {
    let calls_itself = |pid: &u32| -> Option<bool> {
        let status = read(format!("/proc/{pid}/status"), KERNEL_TEXT_BYTES_MAX)?;
        let status = String::from_utf8_lossy(&status);
        // The numbers go from the reader's namespace down to the process's own; there are several if a
        // namespace lies between.
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        Some(numbers.split_ascii_whitespace().last()?.parse() == Ok(said))
    };
    if is_below(said, ancestor) && calls_itself(&said) != Some(false) {
        return Some(said);
    }
    descendants(ancestor)?.into_iter().find(|pid| calls_itself(pid) == Some(true))
}

/// All processes below `pid`, without `pid`.
fn descendants(pid: u32) -> Option<HashSet<u32>> {
    // This process's own file is checked first: that of another process is also missing when it has just
    // ended.
    fs::metadata("/proc/thread-self/children").ok()?;
    let mut found = HashSet::new();
    let mut unseen = vec![pid];
    while let Some(parent) = unseen.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let Some(text) = read(thread.path().join("children"), KERNEL_TEXT_BYTES_MAX) else { continue };
            // If the text was cut, its last, incomplete number is never reached: the bound on processes stops
            // the scan before it.
            let text = String::from_utf8_lossy(&text);
            for child in text.split_ascii_whitespace().filter_map(|word| word.parse().ok()) {
                if found.len() >= VITALS_PROCESSES_MAX {
                    return Some(found);
                }
                // A number that was reused meanwhile could lead back to a process that was visited.
                if child != pid && found.insert(child) {
                    unseen.push(child);
                }
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Child, Command, Stdio},
        time::Instant,
    };

    use super::*;

    /// Runs `source` in Python until it has printed a line.
    fn python(source: &str) -> (Child, String) {
        let mut child = Command::new("python3").args(["-I", "-c", source]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn memory_and_time_of_children_count() {
        const MEGABYTES: u64 = 64;
        let source = format!(
            "import os, time\nparent = os.getpid()\nif os.fork() == 0:\n    data = bytearray(b'x') * ({MEGABYTES} << 20)\n    \
             end = time.process_time() + 0.2\n    while time.process_time() < end: pass\n    print(os.getpid(), flush=True)\n    \
             while os.getppid() == parent: time.sleep(0.05)\n    os._exit(0)\ntime.sleep(60)\n"
        );
        let (child, line) = python(&source);
        let grandchild: u32 = line.trim().parse().unwrap();
        let own = resident_bytes(child.id()).unwrap();
        let all = memory_bytes(child.id()).unwrap();
        assert!(own < 32 << 20 && (MEGABYTES << 20..(MEGABYTES + 64) << 20).contains(&all), "{own} {all}");
        let time = cpu_time(child.id()).unwrap();
        assert!(time >= Duration::from_millis(190) && time < Duration::from_secs(5), "{time:?}");
        assert!(Stat::of(child.id()).unwrap().ticks < Stat::of(grandchild).unwrap().ticks, "it is the child that was busy");
        end(child);
    }

    #[test]
    fn who_ended_has_no_vitals_even_before_its_parent_asks() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let started = identity(pid).unwrap();
        assert_eq!(identity(pid), Some(started));
        assert!(memory_bytes(pid).is_some() && cpu_time(pid).is_some());
        child.kill().unwrap();
        let state = || read(format!("/proc/{pid}/stat"), 999).map(|text| String::from_utf8(text).unwrap());
        while !state().unwrap().contains(") Z") {
            std::thread::yield_now();
        }
        assert_eq!((identity(pid), memory_bytes(pid), cpu_time(pid)), (None, None, None));
        child.wait().unwrap();
        assert_eq!((identity(pid), memory_bytes(pid), cpu_time(pid)), (None, None, None));
    }

    #[test]
    fn odd_texts_are_no_number_and_no_panic() {
        let fields = "S 1 1 1 0 -1 4194560 1 0 0 0 10 20 30 40 20 0 1 0 777 1 1";
        let stat = Stat::parse(format!("9 (a) R 1) {fields}").as_bytes()).unwrap();
        assert_eq!((stat.start_ticks, stat.ticks), (777, 100));
        for text in
            ["", "9 (a", "9 (a)", "9 (a) S 1 1", "9 (a) Z 1 1 1 0 -1 4194560 1 0 0 0 10 20 30 40 20 0 1 0 777 1 1", "9 (a) S \u{ff}"]
        {
            assert!(Stat::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert_eq!(resident_of("Name:\tRssAnon:\nRssAnon:\t    8 kB\nRssFile:\t 90 kB\nRssShmem:\t    4 kB\n"), Some(12 << 10));
        assert_eq!(resident_of("Name:\tx\nState:\tZ (zombie)\n"), None);
        assert_eq!((identity(u32::MAX), memory_bytes(u32::MAX), cpu_time(u32::MAX)), (None, None, None));
        assert!(boot().is_some_and(|boot| boot.len() > 36 && boot == super::boot().unwrap()));
    }

    #[test]
    fn a_tree_that_changes_while_it_is_walked_is_measured() {
        let source = "import os, time\nprint(os.getpid(), flush=True)\nend = time.monotonic() + 3\nwhile time.monotonic() < end:\n    \
                      pid = os.fork()\n    if pid == 0: os._exit(0)\n    os.waitpid(pid, 0)\n";
        let (child, _) = python(source);
        let begun = Instant::now();
        let mut looks = 0;
        while begun.elapsed() < Duration::from_millis(500) {
            assert!(memory_bytes(child.id()).is_some() && cpu_time(child.id()).is_some());
            looks += 1;
        }
        assert!(looks > 10, "{looks}");
        end(child);
    }
}
