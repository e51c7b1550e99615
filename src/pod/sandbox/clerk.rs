//! Gives a pod access to a file: the one function that decides how, and the process (the clerk) that it asks.
//!
//! A pod runs as the host's user. With the host's own descriptor it could change the file's mode, times and
//! attributes, run it, or reopen it for writing. So the pod gets a descriptor through a separate mount that
//! is read-only and noexec ([`Clerk::lend`]). Only a process with a mount namespace can make that mount: the
//! clerk (`hob_pod/clerk.py`). One clerk serves all pods of a host; it starts with the first large file and
//! ends with the host. If there can be no clerk, or the file has no name, the pod gets a copy in sealed
//! memory.

use std::{
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{FileExt, MetadataExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketFlags, SocketType, recvmsg,
        send, socketpair,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use serde::Deserialize;

use crate::model::{
    Code, Fault, OpenFile, act, hint,
    limits::{CLERK_ANSWER_MS, CLERK_PACKET_BYTES_MAX, COPY_CHUNK_BYTES, LENT_BYTES_MIN, LENT_COPY_BYTES_MAX},
};

/// Lends files to pods. Cloning shares the process.
#[derive(Debug, Clone)]
pub struct Clerk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The unpacked `keeper.py`; the clerk's program lies beside it.
    keeper: PathBuf,
    desk: Mutex<Desk>,
}

#[derive(Debug)]
enum Desk {
    /// None started yet, or the last one ended.
    Empty,
    Open(Connection),
    /// This machine cannot have one; says why.
    Never(String),
}

#[derive(Debug)]
struct Connection {
    child: Child,
    socket: OwnedFd,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    Open,
    Unable { why: String },
    Lent,
    Refused { why: String },
}

impl Clerk {
    /// Starts nothing. `without`: layers of the sandbox to treat as unavailable.
    pub fn new(keeper: &Path, without: &[String]) -> Clerk {
        let desk = match without.iter().any(|layer| layer == "namespaces") {
            true => Desk::Never("namespaces were made unavailable".to_owned()),
            false => Desk::Empty,
        };
        Clerk(Arc::new(Shared { keeper: keeper.to_owned(), desk: Mutex::new(desk) }))
    }

    /// A descriptor of a file for a pod: it reads the first `size` bytes, and gives no way to the file
    /// itself. Blocking.
    ///
    /// A small file is copied, because that costs less; so is a file that cannot be lent. `python`: an
    /// interpreter of the machine's own, which runs the clerk. `what` names the file in faults.
    ///
    /// Errors: `io`; `too_large` for a file that cannot be lent and is too large to be copied.
    pub fn lend(&self, python: &Path, file: &OpenFile, size: u64, what: &str) -> Result<OwnedFd, Fault> {
        let failed = |error: io::Error| Fault::io(format!("lending {what} to a pod"), &error);
        if size < LENT_BYTES_MIN {
            return copied(&file.file, size).map_err(failed);
        }
        if file.lent.get().is_none() {
            match self.ask(python, &file.file) {
                // If another thread was faster, its descriptor is the same.
                Ok(lent) => drop(file.lent.set(lent)),
                Err(why) if size <= LENT_COPY_BYTES_MAX => {
                    tracing::debug!("{what} is copied for a pod: {why}");
                    return copied(&file.file, size).map_err(failed);
                }
                Err(why) => {
                    let text = format!(
                        "{what} has {size} bytes and cannot be lent to a pod: {why}; at most {LENT_COPY_BYTES_MAX} bytes are copied instead"
                    );
                    return Err(Fault::new(Code::TooLarge, text).hint(hint![
                        "hand in a file by its name, on a disk of this machine; ",
                        act::doctor(),
                        " says whether there are namespaces, which lending needs"
                    ]));
                }
            }
        }
        let lent = file.lent.get().ok_or_else(|| failed(io::Error::other("it was lent and is gone")))?;
        // Each pod has its own read position and locks.
        read_only(lent).map_err(failed)
    }

    /// Ends the process for good. Blocking.
    pub fn close(&self) {
        *self.0.desk.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Desk::Never("the host is ending".to_owned());
    }

    /// A descriptor through a mount of the file's own.
    ///
    /// The error says why there is none, for people.
    fn ask(&self, python: &Path, file: &File) -> Result<File, String> {
        let text = |error: io::Error| error.to_string();
        let metadata = file.metadata().map_err(text)?;
        let named = Named::find(file, metadata.nlink()).map_err(|error| format!("it has no name ({error})"))?;
        let path = named.path.to_str().ok_or("its name is not UTF-8")?;
        let wanted = serde_json::json!({ "path": path, "device": metadata.dev(), "inode": metadata.ino() }).to_string();
        let mut desk = self.0.desk.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if matches!(*desk, Desk::Empty) {
            *desk = match Connection::open(python, &self.0.keeper) {
                Ok(connection) => Desk::Open(connection),
                Err(Closed::Never(why)) => Desk::Never(why),
                Err(Closed::Now(error)) => return Err(format!("the clerk was not started: {error}")),
            };
        }
        let connection = match &*desk {
            Desk::Open(connection) => connection,
            Desk::Never(why) => return Err(why.clone()),
            Desk::Empty => return Err("there is no clerk".to_owned()),
        };
        let lent = connection.ask(wanted.as_bytes()).unwrap_or_else(|error| {
            // The clerk ended or was killed: a new one lends the next file.
            *desk = Desk::Empty;
            Err(format!("the clerk gave no answer: {error}"))
        })?;
        drop(desk);
        let lent = File::from(lent);
        // Not trusted: checks that it is this file, and that the descriptor can only read.
        let found = lent.metadata().map_err(text)?;
        let mount = rustix::fs::fstatvfs(&lent).map_err(|error| text(error.into()))?.f_flag;
        let mode = rustix::fs::fcntl_getfl(&lent).map_err(|error| text(error.into()))? & OFlags::ACCMODE;
        let walls = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOEXEC | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
        match (found.dev(), found.ino()) == (metadata.dev(), metadata.ino()) && mount.contains(walls) && mode == OFlags::RDONLY {
            true => Ok(lent),
            false => Err("what the clerk gave is not that file to read alone".to_owned()),
        }
    }
}

/// Why there is no clerk: now, or on this machine at all.
enum Closed {
    Now(io::Error),
    Never(String),
}

impl Connection {
    /// Starts the process and waits until it reports success or failure.
    fn open(python: &Path, keeper: &Path) -> Result<Connection, Closed> {
        let made = || -> io::Result<(Connection, Said)> {
            let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            set_socket_timeout(&ours, Timeout::Recv, Some(Duration::from_millis(CLERK_ANSWER_MS)))?;
            let child = Command::new(python)
                .args(["-I", "-S", "-B"])
                .arg(keeper.with_file_name("clerk.py"))
                .arg(std::process::id().to_string())
                .env_clear()
                .env("LANG", "C.UTF-8")
                .current_dir("/")
                .process_group(0)
                .stdin(Stdio::from(theirs))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            let connection = Connection { child, socket: ours };
            let (said, _) = connection.hear()?;
            Ok((connection, said))
        };
        match made().map_err(Closed::Now)? {
            (connection, Said::Open) => Ok(connection),
            (_, Said::Unable { why }) => Err(Closed::Never(format!("there are no namespaces here: {why}"))),
            _ => Err(Closed::Now(io::Error::other("it began with something else"))),
        }
    }

    /// The lent descriptor, or why it is refused. The outer error is of the conversation, which is then over.
    fn ask(&self, wanted: &[u8]) -> io::Result<Result<OwnedFd, String>> {
        send(&self.socket, wanted, SendFlags::NOSIGNAL)?;
        match self.hear()? {
            (Said::Lent, Some(lent)) => Ok(Ok(lent)),
            (Said::Refused { why }, _) => Ok(Err(why)),
            _ => Err(io::Error::other("it answered something else")),
        }
    }

    fn hear(&self) -> io::Result<(Said, Option<OwnedFd>)> {
        let mut bytes = vec![0; CLERK_PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [io::IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let lent = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        if received.bytes == 0 || received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((serde_json::from_slice(&bytes[..received.bytes])?, lent))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The clerk holds nothing that needs cleaning up.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A name by which another process can open a file.
struct Named {
    path: PathBuf,
    /// The name was made for this alone.
    ours: bool,
}

impl Named {
    /// The file's name; for a file without one (`O_TMPFILE`), a name that lasts as long as this value.
    fn find(file: &File, links: u64) -> io::Result<Named> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = std::fs::read_link(&by_number)?;
        if links > 0 {
            return Ok(Named { path, ours: false });
        }
        let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
        let path = folder.join(format!(".hob-lent-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed)));
        rustix::fs::linkat(CWD, &by_number, CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
        Ok(Named { path, ours: true })
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if self.ours {
            // No other process knows the name.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Copies the first `size` bytes of a file into sealed memory; returns a read-only descriptor.
fn copied(file: &File, size: u64) -> io::Result<OwnedFd> {
    let memory = memory(size)?;
    let mut piece = vec![0; COPY_CHUNK_BYTES.min(size as usize)];
    let mut at = 0;
    while at < size {
        let wanted = (size - at).min(piece.len() as u64) as usize;
        file.read_exact_at(&mut piece[..wanted], at)?;
        memory.write_all_at(&piece[..wanted], at)?;
        at += wanted as u64;
    }
    rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    read_only(&memory)
}

/// Memory of `bytes` bytes that may be sealed and is never executed.
pub(in crate::pod) fn memory(bytes: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 have no flag that forbids execution.
    let made =
        rustix::fs::memfd_create("hob-blob", flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| rustix::fs::memfd_create("hob-blob", flags))?;
    rustix::fs::ftruncate(&made, bytes)?;
    Ok(File::from(made))
}

/// Another descriptor of the same file that can only read, with a position of its own.
pub(in crate::pod) fn read_only(file: &File) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
