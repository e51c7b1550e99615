//! A family: a zygote that has imported an environment's wheels, and the pods that are forked from it.
//!
//! This file has the one connection to the init above many pods; `hob_pod/family.py` draws the process tree.
//! When something goes wrong, the host relies only on the kernel's guarantee: when the init ends, every
//! process of its family has ended.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    process::{Signal, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    io::Interest,
    net::UnixDatagram,
    process::{Child, Command},
    sync::{SetOnce, oneshot, watch},
    time::timeout,
};

use crate::{
    model::limits::{
        EXIT_GRACE_MS, FAMILY_PACKET_BYTES_MAX, FAULT_TAIL_LINES, KERNEL_TEXT_BYTES_MAX, LAST_WORDS_TURNS_MAX, ZYGOTE_BOOT_MS,
        ZYGOTE_LEFT_BYTES_MAX, ZYGOTE_LEFT_ENTRIES_MAX,
    },
    pod::{
        driver::state::Ending,
        record::log::{self, Log},
        sandbox::{
            plan,
            variables::{self, OUTSIDE, threads},
        },
        spec::{Keeps, Program, Spec},
    },
};

/// The inputs of a zygote.
#[derive(Debug)]
pub struct Boot<'a> {
    pub program: &'a Program,
    /// The unpacked `keeper.py`; the family's program lies beside it.
    pub keeper: &'a Path,
    /// The zygote's own folder, which must exist and be empty.
    pub folder: PathBuf,
    /// Modules to import.
    pub preload: &'a [String],
    /// Variables that the zygote's recipe sets; wheels read them at import.
    pub variables: Vec<(String, String)>,
    pub without: &'a [String],
    /// Dropped when no process of the family is left.
    pub keeps: Vec<Keeps>,
}

/// A zygote that may be forked, with its pods. Cloning shares it. It ends when the last clone and the last
/// pod are gone.
#[derive(Debug, Clone)]
pub struct Family(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    /// A SOCK_SEQPACKET socket, which preserves packet boundaries. The type `UnixDatagram` is used only for
    /// its readiness.
    channel: Arc<UnixDatagram>,
    state: Arc<Mutex<FamilyState>>,
    next: AtomicU64,
    supervisor_pid: Option<u32>,
    /// True when the supervisor has ended and was waited for: no process of the family is left.
    gone: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct FamilyState {
    members: HashMap<u64, MemberState>,
    /// The zygote is gone: no more pods are forked.
    closed: bool,
    forked: u64,
}

#[derive(Debug)]
struct MemberState {
    pid_handle: Arc<SetOnce<PidHandle>>,
    over: oneshot::Sender<Ending>,
}

#[derive(Debug)]
pub(in crate::pod) struct PidHandle {
    handle: OwnedFd,
    /// The process number as this host sees it.
    pid: u32,
}

/// One pod of a family.
#[derive(Debug)]
pub(in crate::pod) struct Member {
    family: Arc<Connection>,
    id: u64,
    pid_handle: Arc<SetOnce<PidHandle>>,
    over: oneshot::Receiver<Ending>,
    ending: Option<Ending>,
}

/// The most files and bytes that the imports of a zygote may leave behind for its pods.
#[derive(Serialize)]
struct Left {
    entries: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ToInit<'a> {
    Boot { plan: &'a RawValue, zygote_plan: &'a RawValue, preload: &'a [String], left: Left, site_packages: Option<String>, python: String },
    Fork { id: u64, plan: &'a RawValue, title: String, threads: u32, page: Option<String> },
    Signal { id: u64, number: i32 },
    Kill { id: u64 },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum FromInit {
    Ready {
        seconds: f64,
    },
    Unforkable {
        why: String,
    },
    Forked {
        id: u64,
    },
    /// The status as from wait(2); `None` for a pod that was never forked.
    Over {
        id: u64,
        status: Option<i32>,
    },
    Closed,
}

impl Family {
    /// Starts a zygote. The returned future completes when the zygote may be forked. Must be called within a
    /// tokio runtime.
    ///
    /// Errors, of the function and of the future: a text for people that says why pods of this environment
    /// are started and not forked.
    pub fn start(boot: Boot<'_>) -> Result<(Family, impl Future<Output = Result<(), String>> + use<>), String> {
        let io = |error: std::io::Error| format!("starting a zygote: {error}");
        let plans = plan::family_plans(boot.program, boot.keeper, &boot.folder, boot.without).map_err(|fault| fault.message)?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|error| io(error.into()))?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|error| io(error.into()))?;
        let mut command = Command::new(&boot.program.base);
        command.args(["-I", "-S", "-B"]).arg(boot.keeper.with_file_name("family.py"));
        command.arg("--host-pid").arg(std::process::id().to_string()).args(["--title", "hob: zygote of wheels, once it is one"]);
        let mut child = command
            .env_clear()
            .envs(OUTSIDE)
            // For people who look at processes: the family's folder.
            .env("HOB_FAMILY", &boot.folder)
            .current_dir(&boot.folder)
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io)?;
        let said = Arc::new(Log::default());
        let draining = child.stderr.take().map(|pipe| tokio::spawn(log::drain(pipe, said.clone())));
        let (gone_sender, gone) = watch::channel(false);
        let channel = Arc::new(UnixDatagram::from_std(ours.into()).map_err(io)?);
        let state = Arc::new(Mutex::new(FamilyState::default()));
        let (ready_sender, ready) = oneshot::channel();
        let supervisor_pid = child.id();
        let family =
            Family(Arc::new(Connection { channel: channel.clone(), state: state.clone(), next: AtomicU64::new(1), supervisor_pid, gone }));
        tokio::spawn(listen(channel, state, child, ready_sender, gone_sender, boot.keeps));

        let [plan, zygote_plan] = &plans;
        let raw = |plan: &'_ [u8]| -> Result<Box<RawValue>, String> { serde_json::from_slice(plan).map_err(|error| error.to_string()) };
        let (plan, zygote_plan) = (raw(plan)?, raw(zygote_plan)?);
        let variables = variables::of_zygote(boot.program, &boot.variables);
        let message = ToInit::Boot {
            plan: &plan,
            zygote_plan: &zygote_plan,
            preload: boot.preload,
            left: Left { entries: ZYGOTE_LEFT_ENTRIES_MAX, bytes: ZYGOTE_LEFT_BYTES_MAX },
            site_packages: boot.program.site_packages.as_ref().map(|path| path.display().to_string()),
            python: boot.program.python.display().to_string(),
        };
        let variables = in_memory(&variables.into_iter().collect()).map_err(io)?;
        family.0.send(&message, &[variables.as_fd()]).map_err(io)?;
        let preload = boot.preload.to_vec();
        let becomes_ready = async move {
            match timeout(Duration::from_millis(ZYGOTE_BOOT_MS), ready).await {
                Ok(Ok(Ok(seconds))) => {
                    tracing::info!(seconds, ?preload, "a zygote is ready");
                    Ok(())
                }
                Ok(Ok(Err(why))) => Err(why),
                Ok(Err(_)) => {
                    // The zygote's end may be known before its last output was read.
                    if let Some(draining) = draining {
                        let _ = timeout(Duration::from_millis(EXIT_GRACE_MS), draining).await;
                    }
                    let lines: Vec<String> = said.tail(FAULT_TAIL_LINES).into_iter().map(|line| line.text).collect();
                    Err(format!("the zygote ended: {}", lines.last().map_or("it said nothing", String::as_str)))
                }
                Err(_) => Err(format!("the zygote was not ready within {ZYGOTE_BOOT_MS} ms")),
            }
        };
        Ok((family, becomes_ready))
    }

    /// Ends the family with all its pods.
    pub fn close(&self) {
        self.0.state().closed = true;
        self.0.hang_up();
    }

    /// Whether no process of the family is left.
    pub fn is_gone(&self) -> bool {
        *self.0.gone.borrow() || self.0.gone.has_changed().is_err()
    }

    /// Waits until no process of the family is left.
    pub async fn gone(&self) {
        let _ = self.0.gone.clone().wait_for(|gone| *gone).await;
    }

    /// Whether pods can still be forked from it.
    pub fn can_fork(&self) -> bool {
        !self.0.state().closed && !*self.0.gone.borrow()
    }

    /// The number of pods that were forked from this zygote so far, and the number of those that are not
    /// over.
    pub fn counts(&self) -> (u64, usize) {
        let state = self.0.state();
        (state.forked, state.members.len())
    }

    /// The process number of the family's supervisor: when that process is gone, all others of the family
    /// are.
    pub fn supervisor_pid(&self) -> Option<u32> {
        self.0.supervisor_pid
    }

    /// Orders one pod from the init. `theirs`: the pod's control lane, standard output and standard error.
    pub(in crate::pod) fn fork(&self, spec: &Spec, page: Option<&Path>, plan: &RawValue, theirs: &[OwnedFd]) -> std::io::Result<Member> {
        let connection = &self.0;
        let id = connection.next.fetch_add(1, Ordering::Relaxed);
        let (sender, over) = oneshot::channel();
        let pid_handle = Arc::new(SetOnce::new());
        {
            let mut state = connection.state();
            if state.closed {
                return Err(std::io::Error::other("its zygote is gone"));
            }
            state.members.insert(id, MemberState { pid_handle: pid_handle.clone(), over: sender });
        }
        let message = ToInit::Fork {
            id,
            plan,
            title: format!("hob: {}", spec.recipe.manifest().name),
            threads: spec.recipe.manifest().pod.as_ref().map_or(1, threads),
            page: page.map(|page| page.display().to_string()),
        };
        let handles: Vec<BorrowedFd> = theirs.iter().map(AsFd::as_fd).collect();
        if let Err(error) = connection.send(&message, &handles) {
            connection.state().members.remove(&id);
            return Err(error);
        }
        connection.state().forked += 1;
        Ok(Member { family: connection.clone(), id, pid_handle, over, ending: None })
    }
}

impl Drop for Connection {
    /// No clone and no pod is left: closing the socket ends the init, and with it the whole family.
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl Connection {
    fn hang_up(&self) {
        let _ = rustix::net::shutdown(self.channel.as_fd(), rustix::net::Shutdown::Both);
    }

    fn state(&self) -> MutexGuard<'_, FamilyState> {
        locked(&self.state)
    }

    /// Sends one packet without waiting: an init that accepts nothing counts as ended.
    fn send(&self, message: &ToInit, handles: &[BorrowedFd]) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > FAMILY_PACKET_BYTES_MAX {
            return Err(std::io::Error::other(format!("an order of {} bytes", bytes.len())));
        }
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !handles.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(handles)), "the space is for three descriptors");
        }
        sendmsg(self.channel.as_fd(), &[std::io::IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

fn locked(state: &Mutex<FamilyState>) -> MutexGuard<'_, FamilyState> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Reads messages of the init until its end, then tells every remaining pod that it is over.
async fn listen(
    channel: Arc<UnixDatagram>,
    state: Arc<Mutex<FamilyState>>,
    mut child: Child,
    ready: oneshot::Sender<Result<f64, String>>,
    gone: watch::Sender<bool>,
    keeps: Vec<Keeps>,
) {
    let mut ready = Some(ready);
    loop {
        tokio::select! {
            readable = channel.readable() => {
                if readable.is_err() {
                    break;
                }
                match channel.try_io(Interest::READABLE, || receive(channel.as_fd())) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Ok(Some((message, handle))) => heard(&state, message, handle, &mut ready),
                    Ok(None) | Err(_) => break,
                }
            }
            _ = child.wait() => break,
        }
    }
    // The init's end may be known before its last messages were read.
    for _ in 0..LAST_WORDS_TURNS_MAX {
        let Ok(Some((message, handle))) = receive(channel.as_fd()) else { break };
        heard(&state, message, handle, &mut ready);
    }
    // Closed as `hang_up` does, because nobody can order anything from here on.
    let _ = rustix::net::shutdown(channel.as_fd(), rustix::net::Shutdown::Both);
    let _ = child.wait().await;
    let left: Vec<MemberState> = {
        let mut state = locked(&state);
        state.closed = true;
        state.members.drain().map(|(_, member)| member).collect()
    };
    // The kernel sent SIGKILL to all of them when process 1 of their namespace ended.
    for member in left {
        let _ = member.over.send(Ending::Signal(9));
    }
    drop(keeps);
    let _ = gone.send(true);
}

fn heard(state: &Mutex<FamilyState>, message: FromInit, handle: Option<OwnedFd>, ready: &mut Option<oneshot::Sender<Result<f64, String>>>) {
    match message {
        FromInit::Ready { seconds } => drop(ready.take().map(|ready| ready.send(Ok(seconds)))),
        FromInit::Unforkable { why } => {
            locked(state).closed = true;
            drop(ready.take().map(|ready| ready.send(Err(why))));
        }
        FromInit::Forked { id } => {
            if let Some(handle) = handle
                && let Some(pid) = pid_of(handle.as_fd())
                && let Some(member) = locked(state).members.get(&id)
            {
                let _ = member.pid_handle.set(PidHandle { handle, pid });
            }
        }
        FromInit::Over { id, status } => {
            let member = locked(state).members.remove(&id);
            if let Some(member) = member {
                let _ = member.over.send(status.map_or(Ending::NeverBegan, ending));
            }
        }
        FromInit::Closed => locked(state).closed = true,
    }
}

/// A file in memory that holds `variables` as JSON, positioned at its start. Supervisor and init pass it on
/// to the zygote, which reads it once it is confined.
fn in_memory(variables: &HashMap<&str, String>) -> std::io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let mut file = std::fs::File::from(rustix::fs::memfd_create("hob-variables", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(variables)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// Decodes a status of wait(2).
fn ending(status: i32) -> Ending {
    match status & 0x7f {
        0 => Ending::Code(status >> 8 & 0xff),
        signal => Ending::Signal(signal),
    }
}

/// Receives one packet; `None` at the end.
fn receive(channel: BorrowedFd) -> std::io::Result<Option<(FromInit, Option<OwnedFd>)>> {
    let mut bytes = vec![0; FAMILY_PACKET_BYTES_MAX];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(channel, &mut [std::io::IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let handle = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut handles) => handles.next(),
        _ => None,
    });
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(std::io::Error::other("a packet of the init was cut"));
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, handle)))
}

/// Returns the number, in this process's namespace, of the process behind a pidfd.
fn pid_of(handle: BorrowedFd) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let info =
        String::from_utf8(crate::pod::process::vitals::read(format!("/proc/self/fdinfo/{}", handle.as_raw_fd()), KERNEL_TEXT_BYTES_MAX)?)
            .ok()?;
    let pid: i64 = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

impl Member {
    /// Waits until no process of the pod is left. Cancel-safe.
    pub async fn over(&mut self) -> Ending {
        if self.ending.is_none() {
            // The sender is lost only with the runtime.
            self.ending = Some((&mut self.over).await.unwrap_or(Ending::Signal(9)));
        }
        self.ending.unwrap_or(Ending::Signal(9))
    }

    /// Set when the init has sent the pod's pidfd.
    pub fn pid_handle(&self) -> Arc<SetOnce<PidHandle>> {
        self.pid_handle.clone()
    }

    /// The pod's process number; `None` until the init has sent the pidfd.
    pub fn pid(&self) -> Option<u32> {
        self.pid_handle.get().map(|handle| handle.pid)
    }

    pub fn supervisor_pid(&self) -> Option<u32> {
        self.family.supervisor_pid
    }

    /// Sends the signal only to the pod's own process.
    pub fn signal(&self, signal: Signal) {
        if let Some(handle) = self.pid_handle.get() {
            let _ = pidfd_send_signal(&handle.handle, signal);
        }
    }

    /// Sends SIGTERM to the pod's group.
    pub fn terminate(&self) {
        let _ = self.family.send(&ToInit::Signal { id: self.id, number: 15 }, &[]);
    }

    /// Sends SIGKILL to every process of the pod.
    pub fn kill(&self) {
        if self.family.send(&ToInit::Kill { id: self.id }, &[]).is_err() {
            self.signal(Signal::KILL);
        }
    }
}
