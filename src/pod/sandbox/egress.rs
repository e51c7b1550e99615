//! The network access of a pod that was granted network names: an HTTP proxy that listens in the pod's own
//! network namespace.
//!
//! Everything that a pod sends here may come from an attacker. This part of Hob reads it, decides by name and
//! by address, and carries bytes; it knows nothing else about the pod. The pod's namespace has no other way
//! out.
//!
//! - `target.rs` determines what a request wants.
//! - `address.rs` lists the addresses that nobody gets by name.
//! - `proxy.rs` serves a connection.
//! - `watched.rs` notices when a connection stalls.

mod address;
mod ledger;
mod proxy;
mod resolve;
mod target;
#[cfg(test)]
mod tests;
mod watched;

use std::{collections::BTreeSet, io, net::TcpListener as Listener, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    model::{
        grant::Endpoint,
        limits::{EGRESS_ACCEPT_PAUSE_MS, EGRESS_CONNECTIONS_MAX, EGRESS_FILES},
    },
    pod::process::holdings::Holder,
};
use ledger::Ledger;
use proxy::{Patience, Proxy};
use resolve::{Resolve, System};

/// The network access of a pod. Drop ends all its connections and accepts no new one.
pub(in crate::pod) struct Egress {
    ledger: Arc<Ledger>,
    _accepting: AbortOnDropHandle<()>,
}

impl Egress {
    /// Serves the connections at `listener`, a listening TCP socket of the pod's namespace, for the pods of
    /// `recipe`.
    ///
    /// Errors: `listener` is something else, or there is no tokio runtime here.
    pub(in crate::pod) fn serve(listener: OwnedFd, allowed: BTreeSet<Endpoint>, recipe: String) -> io::Result<Egress> {
        Egress::start(listener, allowed, recipe, System::default(), Patience::default())
    }

    fn start(
        listener: OwnedFd,
        allowed: BTreeSet<Endpoint>,
        recipe: String,
        resolver: impl Resolve,
        patience: Patience,
    ) -> io::Result<Egress> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        // The descriptor came over a socket from the pod's side, so it is checked before use.
        let is_tcp = matches!(sockopt::socket_domain(&listener)?, AddressFamily::INET | AddressFamily::INET6)
            && sockopt::socket_type(&listener)? == SocketType::STREAM;
        if !is_tcp || !sockopt::socket_acceptconn(&listener)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the pod's way out is not a listening TCP socket"));
        }
        let listener = Listener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let ledger = Arc::new(Ledger::of(&recipe));
        let holder = Holder::of(&recipe);
        let proxy = Arc::new(Proxy { allowed, recipe, holder, resolver, patience, ledger: ledger.clone() });
        Ok(Egress { ledger, _accepting: AbortOnDropHandle::new(runtime.spawn(accept(listener, proxy))) })
    }

    /// The last few refusals, latest last, each once: for the fault of a call whose pod was refused.
    pub(in crate::pod) fn refusals(&self) -> Vec<String> {
        self.ledger.texts()
    }

    /// How many requests were refused so far.
    pub(in crate::pod) fn refused(&self) -> u64 {
        self.ledger.count()
    }
}

/// Accepts connections for as long as it is polled. Its connections are tasks of its own set, so they end
/// with it.
async fn accept<R: Resolve>(listener: TcpListener, proxy: Arc<Proxy<R>>) {
    let room = Arc::new(Semaphore::new(EGRESS_CONNECTIONS_MAX));
    let (mut connections, mut is_short) = (JoinSet::new(), false);
    loop {
        // The next connection waits in the kernel until one of these ends: a pod that opens thousands only
        // delays itself.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let share = match proxy.holder.take(EGRESS_FILES) {
            Ok(share) => share,
            Err(short) => {
                if !std::mem::replace(&mut is_short, true) {
                    tracing::warn!("{}", short.fault("connections of a pod wait").message);
                }
                tokio::time::sleep(Duration::from_millis(EGRESS_ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        is_short = false;
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let proxy = proxy.clone();
                connections.spawn(async move {
                    let _held = (permit, share);
                    proxy.serve(stream).await;
                });
            }
            Err(error) => {
                tracing::debug!("a pod's connection could not be taken: {error}");
                tokio::time::sleep(Duration::from_millis(EGRESS_ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}
