//! Tells a service manager, by the protocol of `sd_notify(3)`, that a server answers, reloads or ends.
//!
//! It sends one datagram to the socket that `NOTIFY_SOCKET` names (a path, or `@` and an abstract name).
//! Without that variable it sends nothing. A failure is noted, and the server goes on.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};

use super::print;
use crate::model::limits::NOTIFY_WAIT_MS;

/// The phase of a server's life.
#[derive(Debug, Clone, Copy)]
pub enum Now {
    /// Connections get answers.
    Answers,
    /// SIGHUP came; [`Now::Answers`] tells when the settings are read.
    ReadsAnew,
    Ends,
}

/// Tells the manager, if there is one. A failure goes to standard error, because the manager may believe that
/// the server never started.
pub fn tell(now: Now) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&name, &words(now)) {
        print::note(&format!("the service manager at NOTIFY_SOCKET ({}) was not told: {error}", name.display()));
    }
}

fn words(now: Now) -> String {
    match now {
        Now::Answers => "READY=1\n".into(),
        Now::ReadsAnew => {
            let at = clock_gettime(ClockId::Monotonic);
            format!("RELOADING=1\nMONOTONIC_USEC={}\n", at.tv_sec.saturating_mul(1_000_000).saturating_add(at.tv_nsec / 1_000))
        }
        Now::Ends => "STOPPING=1\n".into(),
    }
}

/// The address of the manager's socket.
///
/// Errors: a description of the name, if no socket of this machine can have it.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::Unsupported, why));
    match name.as_bytes() {
        // `@` stands for the zero byte with which an abstract name begins.
        [b'@'] => refused("it is `@` without a name after it".to_owned()),
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(name),
        bytes => match String::from_utf8_lossy(bytes).split_once(':').map(|(kind, _)| kind.to_owned()) {
            Some(kind) if ["vsock", "vsock-stream", "vsock-dgram", "vsock-seqpacket"].contains(&kind.as_str()) => {
                refused(format!("this Hob does not speak `{kind}:`, by which a virtual machine tells its host; wanted a path or `@name`"))
            }
            _ => refused("it is neither an absolute path nor `@name`".to_owned()),
        },
    }
}

fn send(name: &OsStr, words: &str) -> io::Result<()> {
    let address = address(name)?;
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not block the server.
    socket.set_nonblocking(true)?;
    // A connected socket is writable when the manager's queue has room.
    socket.connect_addr(&address)?;
    let until = Instant::now() + Duration::from_millis(NOTIFY_WAIT_MS);
    loop {
        match socket.send(words.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = format!("its queue is full, and it took nothing for {NOTIFY_WAIT_MS} ms");
            return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
        }
        let mut room = [PollFd::new(&socket, PollFlags::OUT)];
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut room, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn fill(manager: &UnixDatagram, at: &OsStr) -> usize {
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        filler.connect_addr(&manager.local_addr().unwrap()).unwrap();
        let many = (0..10_000).take_while(|_| filler.send(b"x").is_ok()).count();
        assert!((1..10_000).contains(&many), "nothing fills the queue of {}", at.display());
        many
    }

    #[test]
    fn a_manager_is_told_at_a_path_and_at_a_name_that_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").into_os_string();
        let abstract_name = format!("@hob-test-{}-notify", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&abstract_name.as_bytes()[1..]).unwrap();
        for (name, manager) in [
            (path.clone(), UnixDatagram::bind(&path).unwrap()),
            (abstract_name.into(), UnixDatagram::bind_addr(&abstract_address).unwrap()),
        ] {
            send(&name, "READY=1\n").unwrap();
            let mut bytes = [0; 20];
            let count = manager.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..count], b"READY=1\n");
        }
    }

    #[test]
    fn a_manager_with_a_full_queue_is_waited_for_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").into_os_string();
        let manager = UnixDatagram::bind(&path).unwrap();
        let many = fill(&manager, &path);
        let why = send(&path, "READY=1\n").unwrap_err();
        assert!(why.to_string().contains("its queue is full"), "{why}");
        // One that comes round to reading is told.
        let reader = thread::spawn(move || {
            let mut bytes = [0; 20];
            (0..=many).map(|_| manager.recv(&mut bytes).map(|count| bytes[..count].to_vec()).unwrap()).last()
        });
        send(&path, "READY=1\n").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b"READY=1\n");
    }

    #[test]
    fn what_is_no_socket_of_this_machine_is_refused_by_its_name() {
        for (name, says) in [
            ("vsock:2:1234", "`vsock:`"),
            ("vsock-stream:2:1234", "`vsock-stream:`"),
            ("vsock-dgram:2:1234", "`vsock-dgram:`"),
            ("@", "without a name"),
            ("run/notify", "neither an absolute path nor"),
            ("http://x", "neither an absolute path nor"),
        ] {
            let why = send(OsStr::new(name), "READY=1\n").unwrap_err();
            assert!(why.to_string().contains(says), "{name}: {why}");
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(send(OsStr::new(&long), "READY=1\n").is_err() && send(OsStr::new("/nowhere/notify"), "READY=1\n").is_err());
    }
}
