//! Resolves a granted name to addresses; a test can replace it with a name server that lies.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
};

use tokio::sync::Semaphore;

use crate::{
    disk::threads::start,
    model::{
        grant::Endpoint,
        limits::{EGRESS_ADDRESSES_MAX, EGRESS_LOOKUPS_MAX},
    },
};

/// Finds the addresses of a name. The proxy asks once for a connection, so that it connects to the address
/// that it checked.
pub(super) trait Resolve: Send + Sync + 'static {
    fn resolve(&self, endpoint: &Endpoint) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// The machine's own resolver.
pub(super) struct System {
    lookups: Arc<Semaphore>,
}

impl Default for System {
    fn default() -> System {
        System { lookups: Arc::new(Semaphore::new(EGRESS_LOOKUPS_MAX)) }
    }
}

impl Resolve for System {
    async fn resolve(&self, endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
        let permit = self.lookups.clone().acquire_owned().await.map_err(io::Error::other)?;
        let Endpoint { host, port } = endpoint.clone();
        // The C library's lookup cannot be cancelled: an abandoned lookup keeps its thread. So it keeps its
        // permit as well, or a name server that does not answer would fill the host's threads.
        let lookup = start(move || {
            let _permit = permit;
            Ok((host.as_str(), port).to_socket_addrs()?.take(EGRESS_ADDRESSES_MAX).collect())
        });
        lookup.map_err(io::Error::other)?.await.unwrap_or_else(|| Err(io::Error::other("the lookup ended early")))
    }
}
