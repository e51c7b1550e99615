//! Compiles glue by running a `hob` program: a process with limits that serves the engines of glue.
//!
//! The program is a `hob` of exactly this version. It is never the executable of an app that embeds the
//! crate: that executable has no such command, and would do something unknown.

use std::{
    ffi::OsStr,
    io::ErrorKind,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt, net::UnixStream, process::Command};

use crate::{
    glue::{Compiled, Compiler, Job, pods::BoxFuture},
    model::{Code, Fault, Hint, act, exhausted_in, hint, limits},
    shelf::process::{self, Ran},
};

/// The command of that program; the door has it, and hides it from help.
pub const COMMAND: &str = "compile-glue";

/// The program's answer, as JSON on standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The program's version, which is not the requested one.
    OtherVersion(String),
    Compiled(Compiled),
    Fault(String),
}

/// Compiles glue by running a `hob` program.
#[derive(Debug, Clone, Default)]
pub struct GlueCompiler {
    /// `None`: the first one on PATH.
    program: Option<PathBuf>,
}

impl GlueCompiler {
    /// With the `hob` program at that path.
    pub fn of(program: impl Into<PathBuf>) -> GlueCompiler {
        GlueCompiler { program: Some(program.into()) }
    }

    fn program(&self) -> Result<PathBuf, Fault> {
        let found = match &self.program {
            Some(program) => program.is_file().then(|| program.clone()),
            None => on_path(std::env::var_os("PATH").as_deref()),
        };
        found.ok_or_else(|| {
            let text = match &self.program {
                Some(program) => format!("there is glue to compile, and no `hob` program at {}", program.display()),
                None => "there is glue to compile, and no `hob` program on PATH".to_owned(),
            };
            Fault::new(Code::InvalidConfig, text).hint(next())
        })
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn next() -> Hint {
    hint![
        format!(
            "an app that embeds Hob has glue compiled by a `hob` of version {VERSION}: name it with `Config::with_hob`, put it on PATH, or have "
        ),
        "its ",
        act::program_add("RECIPE"),
        " install the recipe into the same home beforehand"
    ]
}

/// The first `hob` in an absolute folder of a list of folders in the format of PATH.
fn on_path(path: Option<&OsStr>) -> Option<PathBuf> {
    let folders = std::env::split_paths(path?).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join("hob")).find(|program| program.is_file())
}

impl Compiler for GlueCompiler {
    fn compile<'a>(&'a self, job: Job<'a>) -> BoxFuture<'a, Result<Compiled, Fault>> {
        Box::pin(async move {
            let program = self.program()?;
            let starting = |error: std::io::Error| Fault::io(format!("compiling glue with {}", program.display()), &error);
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(starting)?;
            ours.set_nonblocking(true).map_err(starting)?;
            let mut ours = UnixStream::from_std(ours).map_err(starting)?;
            let ran = process::run(command(&program, &job, theirs.into()), limits::GLUE_COMPILE_MS, |line| {
                tracing::debug!("compiling glue: {line}")
            });
            let send = async {
                let sent = async {
                    ours.write_all(&(job.component.len() as u64).to_be_bytes()).await?;
                    ours.write_all(job.component).await
                };
                match sent.await {
                    // Keep the socket open while the caller waits: when it closes, the program ends.
                    Ok(()) => std::future::pending().await,
                    // A program that ends early does not read everything; its exit status says why.
                    Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                        std::future::pending().await
                    }
                    Err(error) => error,
                }
            };
            let ran = tokio::select! {
                ran = ran => ran.map_err(starting)?,
                error = send => return Err(starting(error)),
            };
            became(&program, &ran)
        })
    }
}

fn command(program: &Path, job: &Job, stdin: std::os::fd::OwnedFd) -> Command {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(limits::GLUE_COMPILE_THREADS);
    let mut command = Command::new(program);
    command.arg0("hob").args([COMMAND, VERSION, job.reservation.name()]).arg(job.into);
    command.env_clear().env("LANG", "C.UTF-8").env("RAYON_NUM_THREADS", threads.to_string());
    command.current_dir(job.into).stdin(Stdio::from(stdin));
    command
}

/// Maps the end of the program to the result for the glue.
fn became(program: &Path, ran: &Ran) -> Result<Compiled, Fault> {
    let said = ran.tail.join("\n");
    let another = |found: &str| {
        let text = format!("{} does not compile glue for this Hob: found {found}, wanted version {VERSION}", program.display());
        Fault::new(Code::InvalidConfig, text).hint(next()).with("stderr", ran.tail.clone())
    };
    if ran.succeeded() {
        return match serde_json::from_str(&ran.stdout) {
            Ok(Answer::Compiled(compiled)) => Ok(compiled),
            Ok(Answer::OtherVersion(version)) => Err(another(&format!("version {version}"))),
            Ok(Answer::Fault(text)) => Err(match exhausted_in(&text) {
                Some(error) => Fault::io("compiling glue", &error).with("why", text),
                None => Fault::new(Code::Io, format!("compiling glue: {text}"))
                    .hint(format!("see whether there is room where {} keeps compiled glue", program.display())),
            }),
            Err(error) => Err(another(&format!("no answer of it ({error})"))),
        };
    }
    let Some(status) = ran.status else {
        return Ok(Compiled::TooMuch(format!("more than {} ms", limits::GLUE_COMPILE_MS)));
    };
    let signal = status.signal();
    // The program starts its threads first, with hardly any memory in use: such an error is a lack of the
    // machine, not of the glue.
    if let Some(error) = exhausted_in(&said).filter(|error| error.raw_os_error() != Some(libc::ENOMEM)) {
        return Err(Fault::io("compiling glue", &error).with("why", said));
    }
    match signal {
        Some(libc::SIGXCPU) => {
            Ok(Compiled::TooMuch(format!("more processor time than it is given ({} s at most)", limits::GLUE_COMPILE_CPU_S)))
        }
        Some(libc::SIGXFSZ) => Ok(Compiled::TooMuch(format!("a file of more than {} bytes", limits::GLUE_COMPILED_BYTES_MAX))),
        Some(libc::SIGKILL) => Err(Fault::new(Code::Io, "the process that compiles glue was killed")
            .hint(hint!["this machine may be short of memory: see the kernel's log, and ", act::again()])),
        _ if said.contains("memory allocation of") || exhausted_in(&said).is_some() => {
            Ok(Compiled::TooMuch(format!("more memory than it is given ({} bytes at most)", limits::GLUE_COMPILE_MEMORY_BYTES)))
        }
        // The program could run, so it failed on its input.
        Some(_) => Ok(Compiled::Refused(format!("its compiler ended with {status}: {said}"))),
        None if status.code() == Some(101) => Ok(Compiled::Refused(format!("its compiler ended with {status}: {said}"))),
        None => Err(another(&format!("{status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hob_on_path_is_one_in_an_absolute_folder() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("hob");
        let path = |text: &str| on_path(Some(OsStr::new(text)));
        let own = folder.path().to_str().unwrap();
        assert_eq!(path(own), None);
        std::fs::write(&program, "").unwrap();
        assert_eq!(path(&format!(".:bin::/nowhere:{own}")), Some(program));
        assert_eq!(path(".:bin:"), None);
        assert_eq!(on_path(None), None);
    }

    #[tokio::test]
    async fn a_program_that_is_missing_or_another_one_is_named_with_the_ways_to_have_it() {
        let folder = tempfile::tempdir().unwrap();
        let older = folder.path().join("hob");
        std::fs::write(&older, "#!/bin/sh\necho '{\"other_version\":\"0.0.9\"}'\n").unwrap();
        std::fs::set_permissions(&older, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let job = Job { component: b"", reservation: crate::glue::Reservation::Bounded, into: folder.path() };
        for (program, says) in [
            ("/nowhere/hob", "no `hob` program at /nowhere/hob"),
            ("/bin/true", "no answer of it"),
            ("/bin/false", "exit status: 1"),
            (older.to_str().unwrap(), "found version 0.0.9"),
        ] {
            let fault = GlueCompiler::of(program).compile(job).await.unwrap_err();
            assert_eq!(fault.code, Code::InvalidConfig);
            assert!(fault.message.contains(says), "{fault:?}");
            let hint = fault.hint.unwrap();
            assert!(["Config::with_hob", "PATH", "hob add", VERSION].iter().all(|way| hint.contains(way)), "{hint}");
        }
    }
}
