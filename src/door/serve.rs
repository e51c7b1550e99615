//! `hob serve`: a host that lives, its ways in, and how it ends.
//!
//! Apart from `http`, which answers requests: here is what happens once per server.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    accept::{Listener, accept},
    ending::Ending,
    http::{
        self,
        audience::Audience,
        connection::{Entry, Patience, Terms, Way},
        room::{Bounds, Room},
        token::Token,
    },
    notify::{self, Now},
    print, socket,
};
use crate::{
    disk::open,
    host::Host,
    model::{Code, Fault, Home, ServeRules, act, hint, limits},
    pod,
    shelf::{blocking, durable},
};

/// Serves `host` until a signal ends it: at the socket of `home`, and where else it is told to.
///
/// Errors: `already_serving`; `usage` for an address that is none; `key_invalid` for a token that others can read; `invalid_config`; `io`.
pub async fn serve(host: &Host, home: &Home, listen: Option<&str>, unix: Option<&Path>, json: bool) -> Result<(), Fault> {
    let ending = Ending::new()?;
    let _alone = alone(home)?;
    let rules = Arc::new(RwLock::new(host.serve_rules()?));
    let mut files = Vec::new();
    let mut doors = Vec::new();
    let count = pod::raise_open_files();
    let handed = (count as usize * limits::SERVE_FILES_IN_PERCENT / 100).min(limits::SERVE_FILES_IN_MAX);
    pod::keep_for_callers(count.saturating_mul(limits::SERVE_FILES_PERCENT as u64) / 100 + handed as u64);
    let handed = Arc::new(Semaphore::new(handed));
    for path in [Some(home.socket()), unix.map(Path::to_owned)].into_iter().flatten() {
        let listening = socket::listen(&path).await?;
        files.push(listening.file);
        doors.push((Listener::Unix(listening.listener, handed.clone()), Entry::Own));
    }
    let (mut address, mut terms) = (None, None);
    if let Some(wanted) = listen {
        let token = Arc::new(Token::at(&home.token())?);
        let shown = Arc::new(RwLock::new(Terms { token, audience: audience(home, &read(&rules)) }));
        terms = Some(shown.clone());
        let listener = bind(wanted).await?;
        address = listener.local_addr().ok();
        doors.push((Listener::Tcp(listener, rules.clone()), Entry::Shown(shown)));
    }

    let (close, closing) = watch::channel(false);
    let routes = http::routes(Arc::new(http::Server::new(host.clone(), closing.clone())));
    let mut loops = JoinSet::new();
    let mut rooms = Vec::new();
    let bounds = Bounds::of(count, doors.len());
    for (listener, entry) in doors {
        let way = Way { routes: routes.clone(), entry, closing: closing.clone(), patience: Patience::default() };
        let room = Room::new(bounds);
        rooms.push(room.clone());
        loops.spawn(accept(listener, way, room));
    }
    announce(home, unix, address, json);
    notify::tell(Now::Answers);
    let warming = host.clone();
    let warming = tokio::spawn(async move { warming.warm().await });

    loop {
        tokio::select! {
            () = ending.wished(1) => break,
            () = ending.anew() => {
                notify::tell(Now::ReadsAnew);
                read_anew(host, home, &rules, terms.as_deref()).await;
                notify::tell(Now::Answers);
            }
        }
    }
    let begun = Instant::now();
    notify::tell(Now::Ends);
    warming.abort();
    // No path to here any more; who is here already, or knocked before, is answered.
    drop(files);
    let _ = close.send(true);
    let all_left = async {
        while loops.join_next().await.is_some() {}
        for room in &rooms {
            room.emptied().await;
        }
    };
    let mut all_left = std::pin::pin!(all_left);
    let is_empty = tokio::select! {
        () = all_left.as_mut() => true,
        () = sleep_until(begun + Duration::from_millis(limits::SERVE_DRAIN_MS)) => false,
        () = ending.wished(2) => false,
    };
    // What still runs had its time, and ends with a fault, which its caller is told.
    host.shutdown_within(Duration::ZERO).await;
    if !is_empty {
        let _ = timeout_at(Instant::now() + Duration::from_millis(limits::SERVE_GOODBYE_MS), all_left).await;
    }
    Ok(())
}

fn read(rules: &RwLock<ServeRules>) -> ServeRules {
    rules.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What holders of the token are told.
fn audience(home: &Home, rules: &ServeRules) -> Audience {
    match rules.details {
        true => Audience::Operator,
        false => Audience::caller(home),
    }
}

/// Reads token and `hob.toml` anew. What cannot be read is said, and stays as it was.
async fn read_anew(host: &Host, home: &Home, rules: &RwLock<ServeRules>, terms: Option<&RwLock<Terms>>) {
    let (looking, place) = (host.clone(), home.token());
    let read_rules = blocking(move || looking.read_anew()).await;
    let read_token = match terms {
        Some(_) => blocking(move || Token::at(&place)).await.map(Some),
        None => Ok(None),
    };
    let stays = |what: &str, fault: &Fault| print::note(&format!("{what} was not read anew and stays as it was: {fault}"));
    match read_rules {
        Ok(found) => *rules.write().unwrap_or_else(PoisonError::into_inner) = found,
        Err(fault) => stays("hob.toml", &fault),
    }
    let token = read_token.unwrap_or_else(|fault| {
        stays("the token", &fault);
        None
    });
    if let Some(terms) = terms {
        let audience = audience(home, &read(rules));
        let mut terms = terms.write().unwrap_or_else(PoisonError::into_inner);
        *terms = Terms { token: token.map_or_else(|| terms.token.clone(), Arc::new), audience };
    }
    print::note("SIGHUP: hob.toml and the token were looked at anew");
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
                .hint(hint![act::status(), " asks it; SIGTERM ends it in order"]));
        }
        Err(TryLockError::Error(error)) => return Err(failed("locking in", &error)),
    }
    // For people who meet the lock.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

async fn bind(address: &str) -> Result<TcpListener, Fault> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        // Whoever finds the kernel's queue full is not told so, and knocks again after a second.
        rustix::net::listen(&listener, limits::SERVE_BACKLOG)?;
        Ok(listener)
    };
    bound.await.map_err(|error: std::io::Error| match error.kind() {
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

#[cfg(test)]
mod tests {
    use tokio::{net::TcpStream, time::timeout};

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
        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody takes them: whoever is not kept knocks in vain.
        let mut kept = Vec::new();
        for at in 0..count {
            let knock = timeout(Duration::from_secs(60), TcpStream::connect(address)).await;
            kept.push(knock.unwrap_or_else(|_| panic!("only {at} are kept")).unwrap());
        }
    }
}
