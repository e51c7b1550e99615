//! Compiles the Python sources of an environment that is being built, within a pod's sandbox.
//!
//! A keeper starts `hob_pod/compiling.py` as it starts a pod's executable: the same plan, namespaces,
//! Landlock, seccomp and proof, no network, and one writable folder. The interpreter is the machine's own. It
//! reads strangers' sources and runs none of them.

use crate::pod::spec;
use std::{os::fd::OwnedFd, path::Path, process::Stdio, time::Duration};

use bytes::BytesMut;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::Command,
    time::timeout,
};

use crate::{
    disk::{make, threads::blocking},
    model::{
        Code, Fault,
        limits::{BYTECODE_WORKERS_MAX, CONFINED_WORD_BYTES_MAX, EXIT_GRACE_MS, TOOL_TAIL_LINES},
    },
    pod::{sandbox::plan, spec::Program, wire::frame},
};

/// The sources to compile, and what compiles them.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The interpreter of the machine that will import the bytecode.
    pub interpreter: &'a Path,
    /// The folder with the packages: the only writable one.
    pub packages: &'a Path,
    /// An empty folder, used for nothing else.
    pub scratch: &'a Path,
    pub keeper: &'a Path,
    /// Layers of the sandbox to treat as unavailable.
    pub without: &'a [String],
    pub limit_ms: u64,
}

/// The result of a compilation.
#[derive(Debug, PartialEq, Eq)]
pub enum Compiled {
    /// All sources that can be compiled were compiled.
    Done,
    /// Nothing was compiled, because this machine lacks a layer of the sandbox; the text for people names it.
    Unconfined(String),
    /// The compilation began and did not complete; the text for people says why. Existing bytecode is
    /// complete.
    Failed(String),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum FirstWord {
    Confined {
        #[serde(default)]
        missing: Vec<String>,
    },
    Refused {
        layer: String,
        why: String,
    },
}

/// Compiles all sources. Dropping the future ends every process of the compilation.
///
/// Errors: `io`, `disk_full`, if no process could be started.
pub async fn compile(sources: &Sources<'_>) -> Result<Compiled, Fault> {
    let io = |error: std::io::Error| Fault::io("starting the compiler of Python sources", &error);
    let program = Program { base: sources.interpreter.to_owned(), python: sources.interpreter.to_owned(), site_packages: None };
    let (packages, keeper_file, scratch) = (sources.packages.to_owned(), sources.keeper.to_owned(), sources.scratch.to_owned());
    let without = sources.without.to_vec();
    let prepared = blocking(move || {
        // The path of a granted folder must have no links.
        let packages = packages.canonicalize().map_err(io)?;
        let plan = plan::compiler_plan(&program, &keeper_file, &scratch, &packages, &without)?;
        // The file that must not be readable within the sandbox.
        make::write(&spec::path_of(&scratch), b"nobody within reads this\n", make::PRIVATE_FILE).map_err(io)?;
        Ok((packages, plan))
    });
    let (packages, plan) = match prepared.await {
        Ok(prepared) => prepared,
        Err(fault) if fault.code == Code::SandboxUnavailable => return Ok(Compiled::Unconfined(fault.message)),
        Err(fault) => return Err(fault),
    };
    let sources = &Sources { packages: &packages, ..*sources };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(io)?;
    ours.set_nonblocking(true).map_err(io)?;
    let mut control = UnixStream::from_std(ours).map_err(io)?;
    let mut child = keeper(sources, theirs.into()).spawn().map_err(io)?;
    let running = Running(child.id().and_then(|id| Pid::from_raw(id as i32)));
    let stderr = child.stderr.take();
    let ended = async {
        let talk = async {
            send(&mut control, &plan).await?;
            let word = first_word(&mut control).await?;
            if matches!(word, FirstWord::Confined { .. }) {
                // A pod gets its variables once it is confined. A compiler that has ended by then needs none.
                let variables = br#"{"type":"variables","variables":{"PATH":"/usr/local/bin:/usr/bin:/bin","LANG":"C.UTF-8"}}"#;
                let _ = send(&mut control, variables).await;
            }
            Ok::<_, std::io::Error>(word)
        };
        let (word, said) = tokio::join!(talk, last_lines(stderr));
        (word, said, child.wait().await)
    };
    let Ok((word, said, status)) = timeout(Duration::from_millis(sources.limit_ms), ended).await else {
        drop(running);
        // The keeper ends all processes below it before it ends itself.
        let _ = timeout(Duration::from_millis(EXIT_GRACE_MS), child.wait()).await;
        return Ok(Compiled::Failed(format!("no end after {} ms", sources.limit_ms)));
    };
    running.was_waited_for();
    let status = status.map_err(io)?;
    let said = said.last().map_or(String::new(), |line| format!(": {line}"));
    Ok(match word {
        Ok(FirstWord::Confined { missing }) if missing.is_empty() => match status.success() {
            true => Compiled::Done,
            false => Compiled::Failed(format!("{status}{said}")),
        },
        Ok(FirstWord::Confined { missing }) => Compiled::Unconfined(missing.join(", ")),
        Ok(FirstWord::Refused { layer, why }) => Compiled::Unconfined(format!("{layer}: {why}")),
        Err(error) => Compiled::Failed(format!("{status}{said} ({error})")),
    })
}

fn keeper(sources: &Sources<'_>, control: OwnedFd) -> Command {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(BYTECODE_WORKERS_MAX);
    let flags = ["-I", "-S", "-B"];
    let mut command = Command::new(sources.interpreter);
    command.args(flags).arg(sources.keeper).arg("--host-pid").arg(std::process::id().to_string());
    command.args(["--title", "hob: compiling", "--confined", "--"]).arg(sources.interpreter).args(flags);
    command.arg(sources.keeper.with_file_name("compiling.py")).arg(sources.packages).arg(workers.to_string());
    command.env_clear().envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8")]);
    command.current_dir(sources.scratch).process_group(0);
    command.stdin(Stdio::from(control)).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A running keeper. On drop, it is told to end everything below it and itself, unless it was waited for.
struct Running(Option<Pid>);

impl Running {
    fn was_waited_for(mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may be gone already; that needs no report.
            let _ = kill_process(pid, Signal::QUIT);
        }
    }
}

async fn send(control: &mut UnixStream, json: &[u8]) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    frame::encode(&mut out, 0, json, std::iter::empty());
    control.write_all(&out).await
}

async fn first_word(control: &mut UnixStream) -> std::io::Result<FirstWord> {
    let mut header = [0; frame::HEADER_BYTES];
    control.read_exact(&mut header).await?;
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if length > CONFINED_WORD_BYTES_MAX {
        return Err(std::io::Error::other(format!("a first message of {length} bytes")));
    }
    let mut json = vec![0; length];
    control.read_exact(&mut json).await?;
    serde_json::from_slice(&json).map_err(std::io::Error::other)
}

/// Reads all output and returns its last lines.
async fn last_lines(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<String> {
    let Some(pipe) = pipe else { return Vec::new() };
    let log = std::sync::Arc::new(crate::pod::record::log::Log::default());
    crate::pod::record::log::drain(pipe, log.clone()).await;
    log.tail(TOOL_TAIL_LINES).into_iter().map(|line| line.text).collect()
}
