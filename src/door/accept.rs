//! Accepts connections: each is accepted at once, another leaves for it if needed, and none waits in the
//! kernel.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    handing::{Carrier, Files},
    http::{
        connection::{Way, closed},
        room::Room,
    },
};
use crate::model::{ServeRules, limits};

/// A listener.
pub enum Listener {
    /// With permits for files that are handed over it.
    Unix(UnixListener, Arc<Semaphore>),
    /// With the rules that name the proxies.
    Tcp(TcpListener, Arc<RwLock<ServeRules>>),
}

impl Listener {
    /// The address that a connection from `peer` counts for; `None` for a Unix socket and for a proxy.
    fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let Listener::Tcp(_, rules) = self else { return None };
        let rules = rules.read().unwrap_or_else(PoisonError::into_inner);
        let peer = peer.to_canonical();
        (!rules.proxies.contains(&peer)).then_some(peer)
    }
}

/// Accepts connections until the server ends; then those that already wait, until none comes for a moment,
/// and for a limited time however many still come.
pub async fn accept(listener: Listener, way: Way, room: Arc<Room>) {
    let (mut closing, mut row) = (way.closing.clone(), 0);
    loop {
        let ended = tokio::select! {
            biased;
            () = closed(&mut closing) => true,
            () = accept_one(&listener, &way, &room, &mut row) => false,
        };
        if ended {
            break;
        }
    }
    let (moment, end) = (Duration::from_millis(limits::SERVE_LINGER_MS), Instant::now() + Duration::from_millis(limits::SERVE_KNOCKERS_MS));
    let knockers = async { while timeout(moment, accept_one(&listener, &way, &room, &mut row)).await.is_ok() {} };
    let _ = timeout_at(end, knockers).await;
}

/// Accepts one connection. It may be dropped while it waits; no connection is lost. `row`: the number
/// accepted without a turn for other tasks.
async fn accept_one(listener: &Listener, way: &Way, room: &Arc<Room>, row: &mut usize) {
    let taken = match listener {
        Listener::Unix(unix, files) => unix.accept().await.map(|(stream, _)| {
            let (way, slot) = (way.clone(), room.enter(None));
            // If the socket's mode ever let another user in, only bytes would be accepted from that user, no
            // files.
            let own = rustix::process::geteuid().as_raw();
            let is_own = stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0);
            match is_own {
                true => {
                    let files = Files::within(files.clone());
                    tokio::spawn(way.serve(Carrier::new(stream, files.clone()), slot, Some(files)));
                }
                false => drop(tokio::spawn(way.serve(stream, slot, None))),
            }
        }),
        Listener::Tcp(tcp, _) => tcp.accept().await.map(|(stream, peer)| {
            // An answer is one write, so waiting for more bytes would only delay it.
            let _ = stream.set_nodelay(true);
            let (way, slot) = (way.clone(), room.enter(listener.counted(peer.ip())));
            tokio::spawn(way.serve(stream, slot, None));
        }),
    };
    match taken {
        Ok(()) => {
            *row += 1;
            // Each connection runs once before another can send it away: the oldest stranger leaves, and a
            // row is a quarter of the strangers.
            if *row >= room.row() {
                *row = 0;
                tokio::task::yield_now().await;
            }
            room.settled().await;
        }
        Err(error) => {
            // Mostly too many open files: a connection that sent nothing so far leaves for the next one.
            tracing::warn!("a connection was not taken: {error}");
            room.make_way();
            sleep(Duration::from_millis(limits::SERVE_LINGER_MS)).await;
        }
    }
}
