//! A pod's process: how it is started, signalled, waited for and found again.
//!
//! ```text
//!    starting.rs --> Process::spawn --> keeper --> pod          one keeper for each pod
//!               \--> Process::fork  --> family.rs --> zygote --> pod, pod, ...
//!    while it lives:   vitals.rs, unseen.rs   the kernel's numbers about its memory
//!                      page.rs                what it has begun, readable after its death
//!                      holdings.rs            its recipe's part of the host's descriptors
//!    after a kill:     registry.rs            records of live pods on the disk, for the next host
//!                      leftovers.rs           processes that are found by their marks
//! ```
//!
//! The host never forks (no `pre_exec`: that would copy its page tables). It spawns the keeper: a small
//! Python process, in a group of its own, that forks into the runner (`runner.rs` unpacks both). The keeper
//! ends the whole tree when the host or the pod dies.

pub mod family;
pub mod holdings;
pub mod leftovers;
pub mod page;
pub mod registry;
pub mod runner;
pub mod starting;
pub mod unseen;
pub mod vitals;

use crate::pod::spec::Spec;
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::Stdio,
};

use rustix::process::{Pid, Signal};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
};

use crate::{
    disk::make,
    model::{Fault, manifest::spec::Runtime},
    pod::{driver::state::Ending, sandbox::variables},
};
use family::{Family, Member};

/// A pod's process and its connections.
pub struct Process {
    body: Body,
    /// Whether the pod is in a root of its own, as far as is known.
    has_root: bool,
    control: Option<UnixStream>,
    data: Option<UnixStream>,
    /// The pod's end of the data lane, until it is sent to the pod.
    pub data_theirs: Option<OwnedFd>,
    /// The pod's output: pipes that do not block.
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// The process between the pod and the host.
enum Body {
    /// The pod's own keeper, which is a child of this process and ends with the pod's exit status.
    Kept { child: Child, group: Pid },
    /// The init of the pod's family.
    Forked(Member),
}

impl Process {
    /// Spawns the keeper.
    ///
    /// Errors: `io` (no such interpreter, no further process allowed, no scratch folder).
    pub fn spawn(spec: &Spec, page: Option<&Path>) -> Result<Process, Fault> {
        let what = |error: &std::io::Error| Fault::io(format!("starting a pod of `{}`", spec.recipe.manifest().name), error);
        make::folder(&spec.scratch, make::PRIVATE_FOLDER).map_err(|error| what(&error))?;
        Process::spawn_in_scratch(spec, page).map_err(|error| {
            let _ = std::fs::remove_dir(&spec.scratch);
            what(&error)
        })
    }

    fn spawn_in_scratch(spec: &Spec, page: Option<&Path>) -> std::io::Result<Process> {
        let (control, control_theirs) = std::os::unix::net::UnixStream::pair()?;
        let (data, data_theirs) = std::os::unix::net::UnixStream::pair()?;
        let mut command = Command::new(&spec.program.base);
        // - `-I`: no variables, no user site, no script folder.
        // - `-S`: no site-packages before the sandbox is up.
        // - `-B`: no bytecode beside the runner. Nothing compares that bytecode, and a full disk would leave
        //   it torn for good.
        command.args(["-I", "-S", "-B"]).arg(&spec.keeper).arg("--host-pid").arg(std::process::id().to_string());
        command.arg("--title").arg(format!("hob: {}", spec.recipe.manifest().name));
        if let Some(page) = page {
            command.arg("--page").arg(page);
        }
        command.arg("--confined");
        if let Some(Runtime::Executable { entry }) = spec.recipe.manifest().pod.as_ref().map(|pod| &pod.runtime) {
            command.arg("--").arg(spec.recipe.folder().join(entry));
        }
        let ((stdout, stdout_theirs), (stderr, stderr_theirs)) = (output()?, output()?);
        let child = command
            .env_clear()
            .envs(variables::OUTSIDE)
            // All descendants inherit it: if keeper and host are killed, it finds the processes that left the
            // tree.
            .env(leftovers::VARIABLE, &spec.incarnation)
            // For people who look at processes: the pod's folder.
            .env("HOB_SCRATCH", &spec.scratch)
            .current_dir(&spec.scratch)
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(control_theirs)))
            .stdout(Stdio::from(stdout_theirs))
            .stderr(Stdio::from(stderr_theirs))
            .spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32)).expect("a child that was not waited for has an id");
        Ok(Process {
            has_root: true,
            control: Some(watched(control)?),
            data: Some(watched(data)?),
            data_theirs: Some(data_theirs.into()),
            stdout: Some(stdout),
            stderr: Some(stderr),
            body: Body::Kept { child, group },
        })
    }

    /// Forks the pod from a zygote. `plan`: its confinement.
    ///
    /// Errors: `io` if the family accepts no (more) orders; the pod can then still be started.
    pub fn fork(spec: &Spec, family: &Family, page: Option<&Path>, plan: &serde_json::value::RawValue) -> Result<Process, Fault> {
        let what = |error: std::io::Error| Fault::io(format!("forking a pod of `{}`", spec.recipe.manifest().name), &error);
        let made = || -> std::io::Result<Process> {
            let (control, control_theirs) = std::os::unix::net::UnixStream::pair()?;
            let (data, data_theirs) = std::os::unix::net::UnixStream::pair()?;
            let ((stdout, stdout_theirs), (stderr, stderr_theirs)) = (output()?, output()?);
            let theirs = [OwnedFd::from(control_theirs), stdout_theirs, stderr_theirs];
            let member = family.fork(spec, page, plan, &theirs)?;
            Ok(Process {
                has_root: true,
                control: Some(watched(control)?),
                data: Some(watched(data)?),
                data_theirs: Some(data_theirs.into()),
                stdout: Some(stdout),
                stderr: Some(stderr),
                body: Body::Forked(member),
            })
        };
        made().map_err(what)
    }

    /// Whether it was forked from a zygote.
    pub fn is_forked(&self) -> bool {
        matches!(self.body, Body::Forked(_))
    }

    /// The two sockets of the lanes; can be taken once.
    pub fn take_streams(&mut self) -> Option<(UnixStream, UnixStream)> {
        self.control.take().zip(self.data.take())
    }

    /// Waits for the keeper: when it is gone, so is every process below it. Cancel-safe.
    pub async fn ended(&mut self) -> Ending {
        use std::os::unix::process::ExitStatusExt;
        let child = match &mut self.body {
            Body::Kept { child, .. } => child,
            Body::Forked(member) => return member.over().await,
        };
        match child.wait().await {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ending::Code(code),
                (None, Some(signal)) => Ending::Signal(signal),
                (None, None) => Ending::Code(-1),
            },
            // Other code in this process reaped the child: it is gone, and how it ended is unknown.
            Err(_) => Ending::Code(-1),
        }
    }

    /// Sends SIGTERM to the pod and its children; the keeper ignores it.
    pub fn terminate(&self) {
        match &self.body {
            Body::Kept { .. } => self.signal_group(Signal::TERM),
            Body::Forked(member) => member.terminate(),
        }
    }

    /// Tells the keeper to kill every process of the tree, and then itself.
    pub fn kill(&self) {
        match &self.body {
            Body::Kept { group, .. } if self.is_running() => drop(rustix::process::kill_process(*group, Signal::QUIT)),
            Body::Kept { .. } => {}
            Body::Forked(member) => member.kill(),
        }
    }

    /// Asks the pod to print its stacks.
    pub fn dump_stacks(&self, pid: u32) {
        if let Body::Forked(member) = &self.body {
            return member.signal(Signal::USR1);
        }
        // While the keeper lives it has not reaped the pod, so the number is the pod's.
        if let Some(pid) = Pid::from_raw(pid as i32).filter(|_| self.keeper_pid().is_some_and(|keeper| vitals::is_below(pid, keeper))) {
            let _ = rustix::process::kill_process(pid, Signal::USR1);
        }
    }

    /// Sends SIGKILL to every process left in the group, including the keeper.
    pub fn kill_group(&self) {
        match &self.body {
            Body::Kept { .. } => self.signal_group(Signal::KILL),
            // SIGKILL also goes to the pod directly, in case the init does not obey.
            Body::Forked(member) => {
                member.kill();
                member.signal(Signal::KILL);
            }
        }
    }

    fn signal_group(&self, signal: Signal) {
        // The group's number stays the keeper's as long as the keeper was not reaped.
        if let Body::Kept { group, .. } = &self.body
            && self.is_running()
        {
            let _ = rustix::process::kill_process_group(*group, signal);
        }
    }

    /// The process number of the keeper, or of the supervisor of the pod's family. `None` once that process
    /// was waited for.
    pub fn keeper_pid(&self) -> Option<u32> {
        match &self.body {
            Body::Kept { child, .. } => child.id(),
            Body::Forked(member) => member.supervisor_pid(),
        }
    }

    /// The pod's own process number as this host sees it. `said` is the number that the pod itself reports;
    /// it is accepted if it can be true. In a family, where processes have other numbers, it is ignored.
    pub fn pod_pid(&self, said: u32) -> Option<u32> {
        match &self.body {
            Body::Kept { child, .. } => vitals::named_below(said, child.id()?),
            Body::Forked(member) => member.pid(),
        }
    }

    /// Waits until the pod's process number is known. Cancel-safe.
    pub fn pid_known(&self) -> impl Future<Output = ()> + use<> {
        let handle = match &self.body {
            Body::Kept { .. } => None,
            Body::Forked(member) => Some(member.pid_handle()),
        };
        async move {
            if let Some(handle) = handle {
                handle.wait().await;
            }
        }
    }

    /// The number of the process at which counting of the pod's memory starts.
    pub fn top_pid(&self) -> Option<u32> {
        match &self.body {
            // The keeper, so that a child that left its parents counts too.
            Body::Kept { child, .. } => child.id(),
            Body::Forked(member) => member.pid(),
        }
    }

    /// Records that the pod has no root of its own and sees the host's file system.
    pub fn has_no_root(&mut self) {
        self.has_root = false;
    }

    /// Whether the pod is in a root of its own.
    pub fn has_root(&self) -> bool {
        self.has_root
    }

    /// The scratch folder as the pod sees it.
    pub fn scratch<'a>(&self, spec: &'a Spec) -> &'a Path {
        match self.has_root {
            true => Path::new(crate::pod::sandbox::paths::SCRATCH),
            false => &spec.scratch,
        }
    }

    /// Takes a descriptor out of the keeper.
    pub fn take_from_keeper(&self, number: i32) -> std::io::Result<OwnedFd> {
        use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
        let Body::Kept { group, .. } = &self.body else {
            return Err(std::io::Error::other("a pod of a zygote has no keeper"));
        };
        let keeper = pidfd_open(*group, PidfdFlags::empty())?;
        Ok(pidfd_getfd(keeper, number, PidfdGetfdFlags::empty())?)
    }

    fn is_running(&self) -> bool {
        matches!(&self.body, Body::Kept { child, .. } if child.id().is_some())
    }
}

/// Makes a pipe for a process's output; the reader's end does not block.
fn output() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

fn watched(stream: std::os::unix::net::UnixStream) -> std::io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Sends as many of `bytes` as fit, with `descriptors` (two at most) attached to the first of them.
pub fn send_with_descriptors(stream: &UnixStream, bytes: &[u8], descriptors: &[&OwnedFd]) -> std::io::Result<usize> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    stream.try_io(tokio::io::Interest::WRITABLE, || {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "the space is for two descriptors");
        Ok(sendmsg(stream, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
    })
}
