//! What a service manager is told of a server, by the protocol of `sd_notify(3)`: that it answers, reads anew, ends.
//!
//! One datagram to the socket that `NOTIFY_SOCKET` names; nothing where it names none.

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
};

use rustix::time::{ClockId, clock_gettime};

use super::print;

/// Where a server is in its life.
#[derive(Debug, Clone, Copy)]
pub enum Now {
    /// Whoever connects is answered.
    Answers,
    /// SIGHUP came; [`Now::Answers`] says when that is done.
    ReadsAnew,
    Ends,
}

/// Tells the manager, if there is one. What cannot be told is said on standard error: the manager may take the server for one that never came up.
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

fn send(name: &OsStr, words: &str) -> io::Result<()> {
    // `@` stands for the zero byte that a name begins with which is no path.
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read holds no server up.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(words.as_bytes(), &address).map(|_| ())
}
