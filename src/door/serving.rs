//! A server over HTTP, for `hob serve` and for apps ([`serve`]): where it listens, which connections it has,
//! and how it ends.
//!
//! `http` answers the requests; here is what happens once per server.

use std::{
    fs,
    future::Future,
    io::{self, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    disk::{
        durable,
        lock::{self, Held},
        open,
    },
    door::{
        accept::{Listener, accept},
        http::{
            self,
            audience::Audience,
            connection::{Entry, Patience, Terms, Way},
            room::{Bounds, Room},
            server::{self, Phase},
            token::Token,
        },
        socket,
    },
    host::Host,
    model::{Code, Fault, Home, ServeRules, act, hint, limits},
    pod, shelf,
};

/// The places where a server listens. All of them together may use half of the files that the process may
/// have open (`ulimit -n`).
///
/// ```no_run
/// # fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use hob::http::{Listen, Token};
///
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?; // port 0: a free one, which `listener.local_addr()` tells
/// let token = Token::at("/var/lib/my-app/token".as_ref())?;
/// let listen = Listen::new().at_socket("/run/my-app/hob.socket").on(listener, token);
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct Listen {
    home: bool,
    sockets: Vec<PathBuf>,
    ports: Vec<(TcpListener, Token)>,
}

impl Listen {
    /// No place yet.
    pub fn new() -> Listen {
        Listen::default()
    }

    /// Listens at the socket of the host's home, as `hob serve` does: `hob call`, `hob status`, `hob pods`
    /// and `hob logs` of this user find it there. A home has one server at a time.
    pub fn at_home(mut self) -> Listen {
        self.home = true;
        self
    }

    /// Listens at a Unix socket, which is made for this user alone (mode 0600) and removed with the server. A
    /// socket left there by a killed server is replaced. Every client that reaches it is trusted, and may
    /// hand over files.
    pub fn at_socket(mut self, path: impl Into<PathBuf>) -> Listen {
        self.sockets.push(path.into());
        self
    }

    /// Listens over TCP, for requests with `authorization: Bearer TOKEN`. Requests and answers are not
    /// encrypted, nor is the token.
    pub fn on(mut self, listener: TcpListener, token: Token) -> Listen {
        self.ports.push((listener, token));
        self
    }
}

/// Serves `host` over HTTP until `end` resolves: the routes of `hob serve`, which `docs/serve.md` lists.
///
/// Then:
///
/// 1. The listeners close; clients that wait get `shutting_down`.
/// 2. Running calls have as long as [`Limits::with_drain`](crate::Limits::with_drain) says (else 10 s).
/// 3. Calls that still run end as `shutting_down`, which their callers are told.
///
/// The host goes on; the app calls [`Host::shutdown`] after this. Dropping the future closes every connection
/// at once, which cancels their calls.
///
/// ```no_run
/// # async fn f(host: hob::Host, token: hob::http::Token) -> Result<(), Box<dyn std::error::Error>> {
/// use hob::http::{self, Listen};
///
/// let listener = std::net::TcpListener::bind("127.0.0.1:8080")?;
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let server = tokio::spawn({
///     let host = host.clone();
///     async move { http::serve(&host, Listen::new().on(listener, token), async { drop(stopped.await) }).await }
/// });
/// // ...
/// drop(stop);
/// server.await??;
/// host.shutdown().await;
/// # Ok(()) }
/// ```
///
/// Errors: `usage` outside of a tokio runtime, or without a place to listen at; `already_serving` if another
/// server holds the home or the socket; `invalid_config`; `io`.
pub async fn serve(host: &Host, listen: Listen, end: impl Future<Output = ()>) -> Result<(), Fault> {
    shelf::runtime()?;
    let _alone = listen.home.then(|| alone(host.home())).transpose()?;
    let mut server = Serving::start(host, listen).await?;
    end.await;
    server.close();
    if timeout(host.drain(), server.emptied()).await.is_err() {
        server.cut();
        let _ = timeout(Duration::from_millis(limits::SERVE_GOODBYE_MS), server.emptied()).await;
    }
    Ok(())
}

/// A running server. Dropping it closes all its connections.
pub(super) struct Serving {
    phase: watch::Sender<Phase>,
    loops: JoinSet<()>,
    rooms: Vec<Arc<Room>>,
    /// The files of its Unix sockets.
    files: Vec<socket::SocketFile>,
    rules: Arc<RwLock<ServeRules>>,
    /// The terms of each port.
    terms: Vec<Arc<RwLock<Terms>>>,
    _kept: pod::Kept,
}

impl Serving {
    /// Starts to accept connections. A server of the home already holds the home's lock ([`alone`]).
    ///
    /// Errors: `usage` without a place to listen at; `already_serving`; `invalid_config`; `io`.
    pub(super) async fn start(host: &Host, listen: Listen) -> Result<Serving, Fault> {
        let sockets: Vec<_> = listen.home.then(|| host.home().socket()).into_iter().chain(listen.sockets).collect();
        if sockets.is_empty() && listen.ports.is_empty() {
            let fault = Fault::new(Code::Usage, "the server is to listen nowhere");
            return Err(fault.hint("name a place: the home, a socket, or a port"));
        }
        let rules = Arc::new(RwLock::new(host.serve_rules()?));
        // Subtract what other servers of this process have reserved already.
        let files = pod::open_files().now.saturating_sub(pod::kept_for_callers());
        let handed = (files as usize * limits::SERVE_FILES_IN_PERCENT / 100).min(limits::SERVE_FILES_IN_MAX);
        let kept = pod::keep_for_callers(files.saturating_mul(limits::SERVE_FILES_PERCENT as u64) / 100 + handed as u64);
        let handed = Arc::new(Semaphore::new(handed));
        let (mut doors, mut socket_files, mut terms) = (Vec::new(), Vec::new(), Vec::new());
        for path in sockets {
            let listening = socket::listen(&path).await?;
            socket_files.push(listening.file);
            doors.push((Listener::Unix(listening.listener, handed.clone()), Entry::Own));
        }
        for (listener, token) in listen.ports {
            let shown = Arc::new(RwLock::new(Terms { token: Arc::new(token), audience: audience(host.home(), &read(&rules)) }));
            terms.push(shown.clone());
            let listener = taken(listener).map_err(|error| Fault::io("taking the listener", &error))?;
            doors.push((Listener::Tcp(listener, rules.clone()), Entry::Shown(shown)));
        }

        let (phase, closing) = watch::channel(Phase::Open);
        let routes = http::routes(Arc::new(server::Server::new(host.clone(), closing.clone())));
        let (mut loops, mut rooms) = (JoinSet::new(), Vec::new());
        let bounds = Bounds::of(files, doors.len());
        for (listener, entry) in doors {
            let way = Way { routes: routes.clone(), entry, closing: closing.clone(), patience: Patience::default() };
            let room = Room::new(bounds);
            rooms.push(room.clone());
            loops.spawn(accept(listener, way, room));
        }
        Ok(Serving { phase, loops, rooms, files: socket_files, rules, terms, _kept: kept })
    }

    /// Applies new rules, and the audience that follows from them; with `token`, every port gets that token.
    pub(super) fn set(&self, home: &Home, rules: Option<ServeRules>, token: Option<Arc<Token>>) {
        if let Some(found) = rules {
            *self.rules.write().unwrap_or_else(PoisonError::into_inner) = found;
        }
        let audience = audience(home, &read(&self.rules));
        for terms in &self.terms {
            let mut terms = terms.write().unwrap_or_else(PoisonError::into_inner);
            *terms = Terms { token: token.clone().unwrap_or_else(|| terms.token.clone()), audience: audience.clone() };
        }
    }

    /// Closes the listeners and starts no more calls. Connections that exist, or that waited to be accepted,
    /// still get answers.
    pub(super) fn close(&mut self) {
        self.files.clear();
        self.phase.send_replace(Phase::Closing);
    }

    /// Returns when no connection is left. It may be dropped and awaited again.
    pub(super) async fn emptied(&mut self) {
        while self.loops.join_next().await.is_some() {}
        for room in &self.rooms {
            room.emptied().await;
        }
    }

    /// Ends running calls as `shutting_down`.
    fn cut(&self) {
        self.phase.send_replace(Phase::Over);
    }
}

/// The listener, handed to the runtime, with the longest possible queue.
fn taken(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    // A client that finds the kernel's queue full gets no error, and retries after a second.
    rustix::net::listen(&listener, limits::SERVE_BACKLOG)?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn read(rules: &RwLock<ServeRules>) -> ServeRules {
    rules.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The audience of token holders.
fn audience(home: &Home, rules: &ServeRules) -> Audience {
    match rules.details {
        true => Audience::Operator,
        false => Audience::caller(home),
    }
}

/// The lock that the one server of a home holds while it lives, in a folder that only its owner may enter.
///
/// Errors: `already_serving`; `io`.
pub(super) fn alone(home: &Home) -> Result<Held, Fault> {
    let (folder, path) = (home.serve(), home.serve_lock());
    let failed = |what: &str, error: &std::io::Error| Fault::io(format!("{what} {}", folder.display()), error);
    durable::make_own_private_folder(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(|error| failed("closing the folder", &error))?;
    let held = open::open_to_write(&path).and_then(lock::try_exclusive).map_err(|error| failed("locking in", &error))?;
    let Some(held) = held else {
        let holder = String::from_utf8(open::read(&path, limits::TOKEN_FILE_BYTES_MAX).unwrap_or_default()).unwrap_or_default();
        let holder = if holder.is_empty() { String::new() } else { format!(" (pid {})", holder.trim()) };
        return Err(Fault::new(Code::AlreadyServing, format!("a server is running for {}{holder}", home.config().display()))
            .hint(hint![act::status(), " asks it; SIGTERM ends it in order"]));
    };
    // The process id, for people who find the lock.
    let _ = held.set_len(0).and_then(|()| write!(&*held, "{}", std::process::id()));
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn more_can_knock_at_once_than_a_usual_queue_holds() {
        // What an address gets by default; the kernel takes one more.
        const USUAL: usize = 1_024;
        let most = open::read_of_kernel(Path::new("/proc/sys/net/core/somaxconn"), 64).unwrap();
        let most: usize = String::from_utf8(most).unwrap().trim().parse().unwrap();
        let count = USUAL + 200;
        if most < count || pod::raise_open_files() < 2 * count as u64 {
            // Not to be had on this machine.
            return;
        }
        let listener = taken(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody takes them: whoever is not kept knocks in vain.
        let mut kept = Vec::new();
        for at in 0..count {
            let knock = timeout(Duration::from_secs(60), TcpStream::connect(address)).await;
            kept.push(knock.unwrap_or_else(|_| panic!("only {at} are kept")).unwrap());
        }
    }
}
