//! Measures memory that a pod holds without mapping it: files without a name (memfds), shared memory without
//! a name, and data that waits in sockets and pipes.
//!
//! It is measured only where no control group counts it. Where `/proc` gives no number, the kernel's maximum
//! is assumed: a pod with a few sockets is charged nothing for them, one with thousands is charged for each
//! as if it were full. A descriptor within a message on its way through a socket cannot be seen at all;
//! `SECURITY.md` says so.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use crate::{
    model::limits::{
        POD_CHANNELS_FREE, POD_PIPE_BYTES, SOCKET_BYTES_DEFAULT, SOCKET_OVERHEAD_BYTES, UNSEEN_DESCRIPTORS_MAX, UNSEEN_MAPS_BYTES_MAX,
    },
    pod::process::vitals,
};

/// A file without a name: its device and inode.
type File = (u64, u64);

/// The unmapped memory that was found of a pod.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// Files without a name, with the bytes of each, or the most that it may have.
    files: HashMap<File, u64>,
    /// Sockets and pipes, with the most that each may hold.
    channels: HashMap<File, u64>,
    /// Number of descriptors beyond [`UNSEEN_DESCRIPTORS_MAX`], which were not inspected.
    more: u64,
}

impl Unseen {
    /// Inspects these processes. Bounded: beyond [`UNSEEN_DESCRIPTORS_MAX`], each descriptor counts as a full
    /// socket.
    pub fn of(processes: &[u32]) -> Unseen {
        let mut found = Unseen::default();
        let mut looked = 0;
        for pid in processes {
            for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
                looked += 1;
                if looked > UNSEEN_DESCRIPTORS_MAX {
                    found.more += 1;
                    continue;
                }
                // A descriptor that was closed meanwhile is not counted.
                let Ok(what) = fs::metadata(entry.path()) else { continue };
                let key = (what.dev(), what.ino());
                let kind = what.file_type();
                if kind.is_socket() {
                    found.channels.insert(key, socket_bytes());
                } else if kind.is_fifo() {
                    found.channels.insert(key, POD_PIPE_BYTES);
                } else if kind.is_file() && fs::read_link(entry.path()).is_ok_and(|path| path.to_string_lossy().starts_with("/memfd:")) {
                    found.files.insert(key, what.blocks().saturating_mul(512));
                }
            }
        }
        // Files that are mapped and have no open descriptor any more: the kernel does not tell how many bytes
        // they have, so all that was mapped counts.
        let mut mapped: HashMap<File, u64> = HashMap::new();
        for pid in processes {
            let maps = vitals::read(format!("/proc/{pid}/maps"), UNSEEN_MAPS_BYTES_MAX).unwrap_or_default();
            for (file, end) in String::from_utf8_lossy(&maps).lines().filter_map(mapping) {
                let known = mapped.entry(file).or_default();
                *known = end.max(*known);
            }
        }
        for (file, bytes) in mapped {
            found.files.entry(file).or_insert(bytes);
        }
        found
    }

    /// Removes the files that this process also has open: they are regions of blobs, which have bounds of
    /// their own.
    pub fn without_ours(mut self) -> Unseen {
        let ours: HashSet<File> = fs::read_dir("/proc/self/fd")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| fs::metadata(entry.path()).ok())
            .map(|what| (what.dev(), what.ino()))
            .collect();
        self.files.retain(|file, _| !ours.contains(file));
        self
    }

    /// Bytes of files without a name.
    pub fn file_bytes(&self) -> u64 {
        self.files.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// The most that sockets and pipes hold, except those that every program has.
    pub fn channel_bytes(&self) -> u64 {
        let mut all: Vec<u64> = self.channels.values().copied().collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let seen = all.iter().skip(POD_CHANNELS_FREE).fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        seen.saturating_add(self.more.saturating_mul(socket_bytes()))
    }
}

/// The most that a socket holds. A pod cannot ask for more: `sandbox/seccomp.rs` refuses that.
fn socket_bytes() -> u64 {
    static BYTES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = vitals::read("/proc/sys/net/core/wmem_default", 64).unwrap_or_default();
        let set = String::from_utf8_lossy(&text).trim().parse().unwrap_or(SOCKET_BYTES_DEFAULT);
        set + SOCKET_OVERHEAD_BYTES
    })
}

/// Parses a line of `/proc/PID/maps`: returns the file without a name, and where in it the mapping ends.
fn mapping(line: &str) -> Option<(File, u64)> {
    // 7f00-7f01 rw-s 00001000 00:01 1234      /memfd:name (deleted)
    let mut words = line.split_ascii_whitespace();
    let (range, _, offset, device, inode, path) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let is_nameless = path.starts_with("/memfd:") || (path == "/dev/zero" && words.next() == Some("(deleted)"));
    if !is_nameless {
        return None;
    }
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = range.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    let device = rustix::fs::makedev(hex(major)? as u32, hex(minor)? as u32);
    Some(((device, inode.parse().ok()?), hex(offset)?.saturating_add(hex(end)?.checked_sub(hex(start)?)?)))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    const MEGABYTE: u64 = 1 << 20;

    /// The findings for a Python process that ran this source.
    fn seen(source: &str) -> Unseen {
        let source = format!("import mmap, os, socket, time\n{source}\nprint(flush=True)\ntime.sleep(60)\n");
        let mut child = Command::new("python3").args(["-I", "-c", &source]).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let seen = Unseen::of(&[child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        seen
    }

    #[test]
    fn what_no_mapping_shows_is_counted_once() {
        let nothing = seen("");
        assert_eq!((nothing.file_bytes(), nothing.channel_bytes()), (0, 0));
        let fill = "f = os.memfd_create('x')\nos.posix_fallocate(f, 0, 64 << 20)\n";
        let held = seen(&format!("{fill}g = os.dup(f)\nm = mmap.mmap(f, 64 << 20)\n")).file_bytes();
        assert!((64 * MEGABYTE..66 * MEGABYTE).contains(&held), "{held}");
        // A sparse file counts only with its allocated blocks.
        let sparse = seen("f = os.memfd_create('x')\nos.ftruncate(f, 1 << 40)\nm = mmap.mmap(f, 1 << 30)\n").file_bytes();
        assert!(sparse < MEGABYTE, "{sparse}");
        // This file is mapped without a descriptor, and this process has touched none of its pages.
        let mapped = seen(&format!("{fill}m = mmap.mmap(f, 64 << 20)\nos.close(f)\n")).file_bytes();
        assert_eq!(mapped, 64 * MEGABYTE);
        let anonymous = seen("m = mmap.mmap(-1, 32 << 20)\n").file_bytes();
        assert!((32 * MEGABYTE..34 * MEGABYTE).contains(&anonymous), "{anonymous}");
    }

    #[test]
    fn sockets_and_pipes_count_past_what_every_program_has() {
        assert_eq!(seen("kept = [socket.socketpair() for _ in range(16)]\n").channel_bytes(), 0);
        let many = seen("kept = [socket.socketpair() for _ in range(200)]\n").channel_bytes();
        assert!(many >= 300 * SOCKET_OVERHEAD_BYTES, "{many}");
        let pipes = seen("kept = [os.pipe() for _ in range(200)]\n").channel_bytes();
        assert!((100 * POD_PIPE_BYTES..200 * POD_PIPE_BYTES).contains(&pipes), "{pipes}");
    }

    #[test]
    fn odd_lines_are_no_mapping() {
        let good = "7f0000-7f2000 rw-s 00001000 00:01 1234                     /memfd:x y (deleted)";
        assert_eq!(mapping(good), Some(((rustix::fs::makedev(0, 1), 1234), 0x3000)));
        for bad in [
            "",
            "7f-80",
            "x-y rw-s 0 00:01 1 /memfd:x",
            "80-7f rw-s 0 00:01 1 /memfd:x",
            "7f-80 rw-p 0 08:01 1 /usr/lib/x",
            "7f-80 rw-p 0 0:1 1 /dev/zero",
        ] {
            assert_eq!(mapping(bad), None, "{bad}");
        }
    }
}
