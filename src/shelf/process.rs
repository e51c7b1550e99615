//! Runs a tool (an interpreter probe, `uv`, `pip`) to its end, within bounds, and never leaves it running.
//!
//! A tool is a short program that Hob waits for, unlike a pod. Its process group dies with the future that
//! waits for it, so a cancelled or timed-out install leaves no process working in a folder that is being
//! deleted.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use crate::{
    disk::{open, threads::certainly},
    model::{Fault, has_run_out, limits},
};

/// Why a tool did not say what it is.
pub(crate) enum Silent {
    /// The machine had no resources left to ask the tool.
    Exhausted(Fault),
    /// For people.
    Other(String),
}

impl Silent {
    /// The reason behind an error of asking `tool`; `why` is for people.
    pub fn after(error: &io::Error, tool: &Path, why: String) -> Silent {
        match has_run_out(error) {
            true => Silent::Exhausted(Fault::io(format!("asking {} what it is", tool.display()), error)),
            false => Silent::Other(why),
        }
    }

    /// The machine's fault, or the fault that `told` makes from the reason.
    pub fn fault(self, told: impl FnOnce(String) -> Fault) -> Fault {
        match self {
            Silent::Exhausted(fault) => fault,
            Silent::Other(why) => told(why),
        }
    }

    /// The answer of a tool; `None` if the tool is unsuitable.
    ///
    /// Errors: the machine's, if it had no resources left to ask the tool.
    pub fn unless_exhausted<T>(asked: Result<T, Silent>) -> Result<Option<T>, Fault> {
        match asked {
            Ok(answer) => Ok(Some(answer)),
            Err(Silent::Exhausted(fault)) => Err(fault),
            Err(Silent::Other(_)) => Ok(None),
        }
    }
}

impl From<String> for Silent {
    fn from(why: String) -> Silent {
        Silent::Other(why)
    }
}

/// How a tool ended.
pub(crate) struct Ran {
    /// `None`: it still ran at the limit, or wrote too much, and was killed with its children.
    pub status: Option<ExitStatus>,
    /// The first [`limits::TOOL_OUTPUT_BYTES_MAX`] bytes of standard output.
    pub stdout: String,
    /// The last lines of standard error.
    pub tail: Vec<String>,
    /// It wrote more than allowed, and was killed with its children.
    pub overflowed: bool,
}

impl Ran {
    /// Whether it exited with 0.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The end as a fault names it, e.g. `exit status: 2`.
    pub fn end(&self, limit_ms: u64) -> String {
        match self.status {
            Some(status) => status.to_string(),
            None if self.overflowed => "it wrote more than it may".to_owned(),
            None => format!("no end after {limit_ms} ms"),
        }
    }

    /// Whether it ended because it did not get the memory that it wanted.
    pub fn out_of_memory(&self) -> bool {
        self.tail.iter().any(|line| line.contains("memory allocation of") || line.contains("os error 12"))
    }

    /// Whether it failed because the disk is full.
    pub fn disk_full(&self) -> bool {
        self.tail
            .iter()
            .any(|line| line.contains("No space left on device") || line.contains("os error 28") || line.contains("Disk quota exceeded"))
    }
}

/// The process group of a running tool; dropping it before the tool's end kills the group.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may be gone already; that needs no report.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The program that starts a tool which ends with this process, however this process ends. A shell cannot ask
/// the kernel for that; an interpreter can.
const ENDS_WITH_US: &str = "\
import ctypes, os, sys
parent, program = int(sys.argv[1]), sys.argv[2]
if ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0) != 0:
    sys.exit(f'prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}')
if os.getppid() != parent:
    sys.exit('whoever wanted this is gone')
try:
    os.execv(program, sys.argv[2:])
except OSError as error:
    sys.exit(f'{program}: {error}')
";

/// A command for `program` that the kernel kills when this process is gone, so that a killed install leaves
/// nothing running. For tools that may take long; it costs the start of an interpreter.
pub(super) fn that_ends_with_us(python: &Path, program: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-I", "-S", "-c", ENDS_WITH_US]).arg(std::process::id().to_string()).arg(program);
    command
}

/// Runs `command` in a process group of its own for at most `limit_ms`; `line` sees each line of standard
/// error.
///
/// Standard input is closed unless the caller set it. Dropping the future kills the group.
pub(crate) async fn run(command: Command, limit_ms: u64, line: impl FnMut(&str) + Send) -> io::Result<Ran> {
    run_within(command, limit_ms, Most { written: u64::MAX, memory: None }, line).await
}

/// The resources that a tool may use while it reads strangers' data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    /// About so many bytes written to files, pipes and everything else together. Only its own process is
    /// inspected, every [`limits::TOOL_LOOK_MS`].
    pub written: u64,
    /// So many bytes of memory of its own, as a limit of the kernel. A request beyond it fails, which ends
    /// most tools.
    pub memory: Option<u64>,
}

/// [`run`] for a tool that may use at most `most`.
pub(super) async fn run_within(mut command: Command, limit_ms: u64, most: Most, line: impl FnMut(&str) + Send) -> io::Result<Ran> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn()?;
    let pid = child.id();
    let mut group = Group(pid.and_then(|id| Pid::from_raw(id as i32)));
    if let (Some(pid), Some(memory)) = (group.0, most.memory) {
        let limit = Rlimit { current: Some(memory), maximum: Some(memory) };
        match prlimit(Some(pid), Resource::Data, limit) {
            // It may have ended already.
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());

    let output = Mutex::new(Vec::new());
    let tail = Mutex::new(VecDeque::new());
    let mut overflowed = false;
    let status = {
        let reading = async { tokio::join!(keep_start(stdout, &output), keep_tail(stderr, &tail, line)) };
        let mut reading = std::pin::pin!(reading);
        let ended = async {
            let mut drained = false;
            let status = loop {
                tokio::select! {
                    _ = &mut reading, if !drained => drained = true,
                    status = child.wait() => break status,
                }
            };
            if !drained {
                let _ = tokio::time::timeout(Duration::from_millis(limits::TOOL_PIPE_GRACE_MS), &mut reading).await;
            }
            status
        };
        tokio::select! {
            status = ended => Some(status),
            () = tokio::time::sleep(Duration::from_millis(limit_ms)) => None,
            () = overflow(pid, most.written) => {
                overflowed = true;
                None
            }
        }
    };
    let status = match status {
        Some(status) => {
            group.0 = None;
            Some(status?)
        }
        None => None,
    };
    drop(group);
    Ok(Ran {
        status,
        stdout: String::from_utf8_lossy(&output.into_inner().unwrap_or_default()).into_owned(),
        tail: tail.into_inner().unwrap_or_default().into(),
        overflowed,
    })
}

/// Completes when the process has written more than `most` bytes; never completes if the process cannot be
/// inspected.
async fn overflow(pid: Option<u32>, most: u64) {
    let Some(pid) = pid.filter(|_| most < u64::MAX) else { return std::future::pending().await };
    loop {
        tokio::time::sleep(Duration::from_millis(limits::TOOL_LOOK_MS)).await;
        let path = std::path::PathBuf::from(format!("/proc/{pid}/io"));
        let read = certainly(move || open::read_of_kernel(&path, limits::KERNEL_TEXT_BYTES_MAX)).await;
        let text = read.and_then(Result::ok).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let written = text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok());
        if written.is_some_and(|written| written > most) {
            return;
        }
    }
}

async fn keep_start(pipe: Option<impl AsyncRead + Unpin>, kept: &Mutex<Vec<u8>>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        if let Ok(mut kept) = kept.lock() {
            let room = limits::TOOL_OUTPUT_BYTES_MAX - kept.len();
            kept.extend_from_slice(&buffer[..count.min(room)]);
        }
    }
}

async fn keep_tail(pipe: Option<impl AsyncRead + Unpin>, tail: &Mutex<VecDeque<String>>, mut each: impl FnMut(&str)) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 4096];
    let mut current = Vec::new();
    let mut end_line = |current: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(current).trim_end().to_owned();
        current.clear();
        if text.is_empty() {
            return;
        }
        each(&text);
        if let Ok(mut tail) = tail.lock() {
            if tail.len() == limits::TOOL_TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(text);
        }
    };
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        for byte in &buffer[..count] {
            match byte {
                b'\n' | b'\r' => end_line(&mut current),
                // The rest of an endless line is dropped.
                _ if current.len() < limits::LOG_LINE_BYTES_MAX => current.push(*byte),
                _ => {}
            }
        }
    }
    end_line(&mut current);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    fn alive(pid: &str) -> bool {
        // A zombie counts as gone: it runs nothing.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    }

    #[tokio::test]
    async fn output_is_kept_within_bounds() {
        let mut seen = 0;
        let ran = run(shell("head -c 200000 /dev/zero | tr '\\0' x; seq 1 100 >&2; exit 3"), 10_000, |_| seen += 1).await.unwrap();
        assert_eq!(ran.status.unwrap().code(), Some(3));
        assert_eq!(ran.stdout.len(), limits::TOOL_OUTPUT_BYTES_MAX);
        assert_eq!((seen, ran.tail.len(), ran.tail.last().unwrap().as_str()), (100, limits::TOOL_TAIL_LINES, "100"));
    }

    #[tokio::test]
    async fn a_tool_past_its_limit_dies_with_its_children() {
        let ran = run(shell("sleep 300 & echo $!; sleep 300"), 300, |_| ()).await.unwrap();
        assert!(ran.status.is_none());
        let child = ran.stdout.trim().to_owned();
        assert!(!child.is_empty());
        for _ in 0..100 {
            if !alive(&child) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("process {child} outlived its tool");
    }

    #[tokio::test]
    async fn a_tool_that_fills_the_disk_dies_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        // The pieces are small: at the disk's full speed the file would reach the limit below before the
        // first check. That limit is for machines where this test fails.
        let piece = "x".repeat(1000);
        let endless = format!("sleep 300 & echo $!; while :; do echo {piece}; done >> {}/full", folder.path().display());
        let limited = format!("ulimit -f 4194304; {endless}");
        let ran = run_within(shell(&limited), 60_000, Most { written: 64 << 20, memory: None }, |_| ()).await.unwrap();
        assert!(ran.overflowed && ran.status.is_none(), "{}", ran.end(60_000));
        assert_eq!(ran.end(60_000), "it wrote more than it may");
        let child = ran.stdout.trim().to_owned();
        for _ in 0..100 {
            if !alive(&child) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("process {child} outlived its tool");
    }

    #[tokio::test]
    async fn a_grandchild_that_holds_the_pipe_does_not_hold_the_end_back() {
        let began = std::time::Instant::now();
        let ran = run(shell("sleep 5 & exit 0"), 60_000, |_| ()).await.unwrap();
        assert!(ran.succeeded() && began.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn a_tool_gets_no_more_memory_than_it_may_have() {
        // `tr` keeps nothing of an endless line; `sort` wants all of it in memory.
        let most = Most { written: u64::MAX, memory: Some(64 << 20) };
        let ran = run_within(shell("sleep 0.2; head -c 500000000 /dev/zero | sort >/dev/null"), 60_000, most, |_| ()).await.unwrap();
        assert!(!ran.succeeded(), "{:?}", ran.status);
        assert!(ran.tail.iter().any(|line| line.contains("memory")), "{:?}", ran.tail);
    }
}
