//! The way out for a pod that was granted network names: an HTTP proxy that listens in the pod's own network namespace.
//!
//! Apart from the pod's driver, because what a pod sends here is an attacker's: this half of Hob reads it, decides by name and by
//! address, and carries bytes, and it knows nothing else of the pod. The pod's namespace has no other way out; what is refused here
//! is refused. `target.rs` says what a request wants, `address.rs` which addresses nobody gets by name, `proxy.rs` serves a
//! connection, `watched.rs` sees it stand still.

mod address;
mod proxy;
mod resolve;
mod target;
#[cfg(test)]
mod tests;
mod watched;

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::TcpListener as Listener,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    model::{
        grant::Endpoint,
        limits::{
            EGRESS_ACCEPT_PAUSE_MS, EGRESS_CONNECT_MS, EGRESS_CONNECTIONS_MAX, EGRESS_FILES, EGRESS_HEAD_MS, EGRESS_IDLE_MS,
            EGRESS_LOOKUP_MS, EGRESS_REFUSALS_MAX,
        },
    },
    pod::process::holdings::Holder,
};
use proxy::Proxy;
use resolve::{Resolve, System};

/// A pod's way out. Dropped, it ends: no connection of the pod is left, and no new one is taken.
pub(in crate::pod) struct Egress {
    ledger: Arc<Ledger>,
    _accepting: AbortOnDropHandle<()>,
}

/// How long each part of a connection may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// The head of a request, from the first byte to the last.
    head: Duration,
    lookup: Duration,
    /// All addresses of one name together.
    connect: Duration,
    /// Without a byte in either direction.
    idle: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            head: Duration::from_millis(EGRESS_HEAD_MS),
            lookup: Duration::from_millis(EGRESS_LOOKUP_MS),
            connect: Duration::from_millis(EGRESS_CONNECT_MS),
            idle: Duration::from_millis(EGRESS_IDLE_MS),
        }
    }
}

impl Egress {
    /// Serves what comes in at `listener`, a listening TCP socket of the pod's namespace, for the pods of `recipe`.
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
        // It came over a socket from the pod's side, so it is looked at before it is believed.
        let is_tcp = matches!(sockopt::socket_domain(&listener)?, AddressFamily::INET | AddressFamily::INET6)
            && sockopt::socket_type(&listener)? == SocketType::STREAM;
        if !is_tcp || !sockopt::socket_acceptconn(&listener)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the pod's way out is not a listening TCP socket"));
        }
        let listener = Listener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let ledger = Arc::new(Ledger { recipe: recipe.clone(), kept: Mutex::default() });
        let holder = Holder::of(&recipe);
        let proxy = Arc::new(Proxy { allowed, recipe, holder, resolver, patience, ledger: ledger.clone() });
        Ok(Egress { ledger, _accepting: AbortOnDropHandle::new(runtime.spawn(accept(listener, proxy))) })
    }

    /// The last few refusals, the latest last, each once: for the fault of a call whose pod could not get out.
    pub(in crate::pod) fn refusals(&self) -> Vec<String> {
        self.ledger.kept().texts.iter().cloned().collect()
    }

    /// How many requests were refused so far.
    pub(in crate::pod) fn refused(&self) -> u64 {
        self.ledger.kept().count
    }
}

/// Takes connections for as long as it is polled. They are tasks of this one's set, so that they end with it.
async fn accept<R: Resolve>(listener: TcpListener, proxy: Arc<Proxy<R>>) {
    let room = Arc::new(Semaphore::new(EGRESS_CONNECTIONS_MAX));
    let (mut connections, mut is_short) = (JoinSet::new(), false);
    loop {
        // The next connection waits in the kernel until one of these is over: a pod that opens thousands holds up itself.
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

/// What was refused to one pod.
struct Ledger {
    recipe: String,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    texts: VecDeque<String>,
    count: u64,
    /// Refusals that were not kept already: those after the first few are traced more quietly, or a pod could fill the host's log.
    new: usize,
}

impl Ledger {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, text: &str) {
        let mut kept = self.kept();
        kept.count = kept.count.saturating_add(1);
        let known = kept.texts.iter().position(|known| known == text);
        match known {
            // A pod that tries again and again must not push out what else was refused.
            Some(at) => drop(kept.texts.remove(at)),
            None => kept.new = kept.new.saturating_add(1),
        }
        if kept.texts.len() == EGRESS_REFUSALS_MAX {
            kept.texts.pop_front();
        }
        kept.texts.push_back(text.to_owned());
        let loud = known.is_none() && kept.new <= EGRESS_REFUSALS_MAX;
        drop(kept);
        match loud {
            true => tracing::warn!(recipe = self.recipe, "refused to a pod: {text}"),
            false => tracing::debug!(recipe = self.recipe, "refused to a pod: {text}"),
        }
    }
}
