//! Taking connections: everybody is let in at once, whoever must go for that goes, and nobody waits in the
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

/// A way in.
pub enum Listener {
    /// With the room for files that are handed over it.
    Unix(UnixListener, Arc<Semaphore>),
    /// With the rules that say which addresses are proxies.
    Tcp(TcpListener, Arc<RwLock<ServeRules>>),
}

impl Listener {
    /// The address that counts for somebody who came from there.
    fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let Listener::Tcp(_, rules) = self else { return None };
        let rules = rules.read().unwrap_or_else(PoisonError::into_inner);
        let peer = peer.to_canonical();
        (!rules.proxies.contains(&peer)).then_some(peer)
    }
}

/// Takes connections until the server ends, and then those that had knocked before: until none comes for a
/// moment, and no longer than a while, however many go on knocking.
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

/// Takes one connection. Dropped between two, nothing is lost. `row`: how many were taken without a turn for
/// others.
async fn accept_one(listener: &Listener, way: &Way, room: &Arc<Room>, row: &mut usize) {
    let taken = match listener {
        Listener::Unix(unix, files) => unix.accept().await.map(|(stream, _)| {
            let (way, seat) = (way.clone(), room.enter(None));
            // Should the socket's mode ever let somebody else in, nothing is taken of them but bytes.
            let own = rustix::process::geteuid().as_raw();
            let is_own = stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0);
            match is_own {
                true => {
                    let files = Files::within(files.clone());
                    tokio::spawn(way.serve(Carrier::new(stream, files.clone()), seat, Some(files)));
                }
                false => drop(tokio::spawn(way.serve(stream, seat, None))),
            }
        }),
        Listener::Tcp(tcp, _) => tcp.accept().await.map(|(stream, peer)| {
            // An answer is one write: waiting for more of it would only be waiting.
            let _ = stream.set_nodelay(true);
            let (way, seat) = (way.clone(), room.enter(listener.counted(peer.ip())));
            tokio::spawn(way.serve(stream, seat, None));
        }),
    };
    match taken {
        Ok(()) => {
            *row += 1;
            // Each is heard once before another can send it away: the oldest of the strangers goes, and a row
            // is a quarter of them.
            if *row >= room.row() {
                *row = 0;
                tokio::task::yield_now().await;
            }
            room.settled().await;
        }
        Err(error) => {
            // Mostly too many open files: whoever said nothing so far goes for the next one.
            tracing::warn!("a connection was not taken: {error}");
            room.make_way();
            sleep(Duration::from_millis(limits::SERVE_LINGER_MS)).await;
        }
    }
}
