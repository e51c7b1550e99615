//! `hob serve`: a host that lives, its ways in, and how it ends.
//!
//! Apart from `http`, which answers requests: here is what happens once per server.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    http::{
        self,
        connection::{Patience, Way, closed},
        token::Token,
    },
    print, socket,
};
use crate::{
    disk::open,
    host::Host,
    model::{Code, Fault, Home, limits},
    shelf::durable,
};

/// Serves `host` until a signal ends it: at the socket of `home`, and where else it is told to.
///
/// Errors: `already_serving`; `usage` for an address that is none; `key_invalid` for a token that others can read; `io`.
pub async fn serve(host: &Host, home: &Home, listen: Option<&str>, unix: Option<&Path>, json: bool) -> Result<(), Fault> {
    // From here on a signal is a wish to end in order.
    let mut ending = Ending::new()?;
    let _alone = alone(home)?;
    let mut files = Vec::new();
    let mut doors = Vec::new();
    for path in [Some(home.socket()), unix.map(Path::to_owned)].into_iter().flatten() {
        let listening = socket::listen(&path).await?;
        files.push(listening.file);
        doors.push((Listener::Unix(listening.listener), None));
    }
    let mut address = None;
    if let Some(wanted) = listen {
        let token = Arc::new(Token::at(&home.token())?);
        let listener = bind(wanted).await?;
        address = listener.local_addr().ok();
        doors.push((Listener::Tcp(listener), Some(token)));
    }

    let (close, closing) = watch::channel(false);
    let routes = http::routes(Arc::new(http::Server::new(host.clone(), closing.clone())));
    let mut loops = JoinSet::new();
    let mut rooms = Vec::new();
    for (listener, token) in doors {
        let way = Way { routes: routes.clone(), token, closing: closing.clone(), patience: Patience::default() };
        let room = Arc::new(Semaphore::new(limits::SERVE_CONNECTIONS_MAX));
        rooms.push(room.clone());
        loops.spawn(accept(listener, way, room));
    }
    announce(home, unix, address, json);
    let warming = host.clone();
    let warming = tokio::spawn(async move { warming.warm().await });

    ending.wished().await;
    warming.abort();
    // No path to here any more; who is here already, or knocked before, is answered.
    drop(files);
    let _ = close.send(true);
    while loops.join_next().await.is_some() {}
    let all_left = async {
        for room in &rooms {
            let _ = room.acquire_many(limits::SERVE_CONNECTIONS_MAX as u32).await;
        }
    };
    let mut all_left = std::pin::pin!(all_left);
    let is_empty = tokio::select! {
        () = all_left.as_mut() => true,
        () = sleep(Duration::from_millis(limits::SERVE_DRAIN_MS)) => false,
        () = ending.wished() => false,
    };
    // What still runs had its time, and ends with a fault, which its caller is told.
    host.shutdown_within(Duration::ZERO).await;
    if !is_empty {
        let _ = timeout(Duration::from_millis(limits::SERVE_GOODBYE_MS), all_left).await;
    }
    Ok(())
}

/// SIGTERM and SIGINT.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    fn new() -> Result<Ending, Fault> {
        let listen = |kind| signal(kind).map_err(|error| Fault::io("listening for signals", &error));
        Ok(Ending { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn wished(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The lock that one server of a home holds while it lives, in a folder that only its owner may enter.
fn alone(home: &Home) -> Result<File, Fault> {
    let (folder, path) = (home.serve(), home.serve_lock());
    let failed = |what: &str, error: &std::io::Error| Fault::io(format!("{what} {}", folder.display()), error);
    durable::make_private_folder(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(|error| failed("closing the folder", &error))?;
    let mut file = open::open_to_write(&path).map_err(|error| failed("locking in", &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = String::from_utf8(open::read(&path, limits::TOKEN_FILE_BYTES_MAX).unwrap_or_default()).unwrap_or_default();
            let holder = if holder.is_empty() { String::new() } else { format!(" (pid {})", holder.trim()) };
            return Err(Fault::new(Code::AlreadyServing, format!("a server is running for {}{holder}", home.config().display()))
                .hint("`hob status` asks it; SIGTERM ends it in order"));
        }
        Err(TryLockError::Error(error)) => return Err(failed("locking in", &error)),
    }
    // For people who meet the lock.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

async fn bind(address: &str) -> Result<TcpListener, Fault> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => Fault::new(Code::Usage, format!("`--listen {address}`: {error}"))
            .hint("wanted an address and a port, e.g. `127.0.0.1:8080`, or port 0 for a free one"),
        _ => Fault::io(format!("listening on {address}"), &error),
    })
}

fn announce(home: &Home, unix: Option<&Path>, address: Option<std::net::SocketAddr>, json: bool) {
    let (socket, token) = (home.socket(), address.map(|_| home.token()));
    if json {
        let address = address.map(|address| address.to_string());
        return print::result(
            &json!({ "pid": std::process::id(), "socket": socket, "unix": unix, "listen": address, "token": token }).to_string(),
        );
    }
    print::note(&format!("serving at {}", socket.display()));
    if let Some(unix) = unix {
        print::note(&format!("  and at {}", unix.display()));
    }
    if let (Some(address), Some(token)) = (address, token) {
        print::note(&format!("  and on http://{address}, for requests with the token in {}", token.display()));
        if !address.ip().is_loopback() {
            print::note("  warning: other machines reach this address, and what is sent to it, the token too, is not encrypted");
        }
    }
}

/// A way in.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Takes connections until the server ends, and then those that had knocked before.
async fn accept(listener: Listener, way: Way, room: Arc<Semaphore>) {
    let mut closing = way.closing.clone();
    loop {
        let ended = tokio::select! {
            biased;
            () = closed(&mut closing) => true,
            () = accept_one(&listener, &way, &room) => false,
        };
        if ended {
            break;
        }
    }
    let wait = Duration::from_millis(limits::SERVE_LINGER_MS);
    while timeout(wait, accept_one(&listener, &way, &room)).await.is_ok() {}
}

/// Takes one connection, once there is room for it. Dropped between two, nothing is lost.
async fn accept_one(listener: &Listener, way: &Way, room: &Arc<Semaphore>) {
    // Nobody closes it.
    let Ok(permit) = room.clone().acquire_owned().await else { return };
    let way = way.clone();
    let taken = match listener {
        Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
            tokio::spawn(async move {
                way.serve(stream).await;
                drop(permit);
            });
        }),
        Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
            // An answer is one write: waiting for more of it would only be waiting.
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                way.serve(stream).await;
                drop(permit);
            });
        }),
    };
    if let Err(error) = taken {
        // Mostly too many open files: the next one may be lucky, but not at once.
        tracing::warn!("a connection was not taken: {error}");
        sleep(Duration::from_millis(limits::SERVE_LINGER_MS)).await;
    }
}
