//! One connection of a pod: one request in, one tunnel or answer out, and nothing after it.
//!
//! It uses hyper in both directions. Forwarding a request as text is how requests get smuggled; here the
//! request is parsed and written anew.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    client,
    ext::ReasonPhrase,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue},
    server,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::copy_bidirectional,
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    model::{
        grant::Endpoint,
        limits::{
            EGRESS_ADDRESSES_MAX, EGRESS_CONNECT_MS, EGRESS_HEAD_BYTES_MAX, EGRESS_HEAD_MS, EGRESS_IDLE_MS, EGRESS_INFORMATIONAL_MAX,
            EGRESS_LOOKUP_MS,
        },
    },
    pod::{
        process::holdings::Holder,
        sandbox::egress::{
            address,
            ledger::Ledger,
            resolve::Resolve,
            target::{self, Denied},
            watched::{Clock, Watched},
        },
    },
};

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// How long each part of a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Of the head of a request, from the first byte to the last.
    pub head: Duration,
    pub lookup: Duration,
    /// Of connecting, for all addresses of one name together.
    pub connect: Duration,
    /// Of silence: without a byte in either direction.
    pub idle: Duration,
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

/// The state that the connections of one pod share.
pub(super) struct Proxy<R> {
    pub allowed: BTreeSet<Endpoint>,
    pub recipe: String,
    pub holder: Holder,
    pub resolver: R,
    pub patience: Patience,
    pub ledger: Arc<Ledger>,
}

/// The far side of a connection.
#[derive(Default)]
struct Beyond {
    tunnel: Option<(OnUpgrade, Watched<TcpStream>)>,
    /// Moves the bytes of a forwarded request.
    carrier: Option<AbortOnDropHandle<()>>,
}

/// One connection, as its request sees it.
#[derive(Clone)]
struct Connection {
    clock: Clock,
    beyond: Arc<Mutex<Beyond>>,
}

impl Connection {
    fn beyond(&self) -> std::sync::MutexGuard<'_, Beyond> {
        self.beyond.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notifies when a request got more answers of the kind `1xx` (an answer is to come) than any server has
/// reason to send.
fn early_answers(request: &mut Request<Incoming>) -> Arc<Notify> {
    let (count, told) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let too_many = told.clone();
    hyper::ext::on_informational(request, move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == EGRESS_INFORMATIONAL_MAX {
            too_many.notify_one();
        }
    });
    told
}

impl<R: Resolve> Proxy<R> {
    /// Serves a connection until either side ends it or it stalls. Dropping the future drops all of it.
    pub async fn serve(self: Arc<Self>, stream: TcpStream) {
        let connection = Connection { clock: Clock::start(), beyond: Arc::default() };
        let clock = connection.clock.clone();
        let patience = self.patience.idle;
        tokio::select! {
            () = self.converse(stream, connection) => {}
            () = clock.still(patience) => tracing::debug!("a pod's connection stood still and was closed"),
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, connection: Connection) {
        // Small pieces in a tunnel are often questions and answers, which must not wait.
        let _ = stream.set_nodelay(true);
        let (recipe, patience) = (self.recipe.clone(), self.patience);
        let service = service_fn(|request: Request<Incoming>| {
            let (proxy, connection) = (self.clone(), connection.clone());
            async move {
                let is_tunnel = request.method() == Method::CONNECT;
                let mut answer = match proxy.answer(request, &connection).await {
                    Ok(answer) => answer,
                    Err(denied) => proxy.deny(denied),
                };
                // One request per connection: later bytes are not read.
                if !is_tunnel || !answer.status().is_success() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let mut builder = server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(patience.head).max_header_size(EGRESS_HEAD_BYTES_MAX);
        // A client that closed its sending side still gets the answer.
        builder.half_close(true);
        let io = TokioIo::new(connection.clock.watch(stream));
        if let Err(error) = builder.serve_connection(io, service).with_upgrades().await {
            tracing::debug!(recipe, "a pod's connection ended: {error}");
        }
        let tunnel = connection.beyond().tunnel.take();
        if let Some((upgrade, mut there)) = tunnel
            && let Ok(here) = upgrade.await
            && let Err(error) = copy_bidirectional(&mut TokioIo::new(here), &mut there).await
        {
            tracing::debug!(recipe, "a pod's tunnel ended: {error}");
        }
    }

    async fn answer(&self, request: Request<Incoming>, connection: &Connection) -> Result<Answer, Denied> {
        let endpoint = target::wanted(request.method(), request.uri(), request.headers())?;
        target::check(&endpoint, &self.allowed, &self.recipe)?;
        let there = connection.clock.watch(self.connect(&endpoint).await?);
        if request.method() == Method::CONNECT {
            connection.beyond().tunnel = Some((hyper::upgrade::on(request), there));
            return Ok(Response::new(Empty::new().map_err(|never| match never {}).boxed()));
        }
        self.forward(request, there, &endpoint, connection).await
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        there: Watched<TcpStream>,
        endpoint: &Endpoint,
        connection: &Connection,
    ) -> Result<Answer, Denied> {
        let failed = |error: hyper::Error| Denied::failed(format!("`{endpoint}` gave no answer: {error}"));
        let (mut parts, body) = request.into_parts();
        target::onward(&mut parts.headers, endpoint)?;
        parts.uri = target::path(&parts.uri)?;
        parts.version = Version::HTTP_11;
        // What hyper noted about the incoming request (spelling, an upgrade) does not apply to the outgoing
        // one.
        parts.extensions.clear();
        let mut builder = client::conn::http1::Builder::new();
        builder.max_buf_size(EGRESS_HEAD_BYTES_MAX);
        let (mut sender, carrier) = builder.handshake(TokioIo::new(there)).await.map_err(failed)?;
        let carrier = tokio::spawn(async move {
            if let Err(error) = carrier.await {
                tracing::debug!("a forwarded request ended: {error}");
            }
        });
        connection.beyond().carrier = Some(AbortOnDropHandle::new(carrier));
        let mut request = Request::from_parts(parts, body);
        let too_many = early_answers(&mut request);
        let (mut parts, body) = tokio::select! {
            // The limit counts even if the final answer comes at the same moment.
            biased;
            () = too_many.notified() => {
                let text = format!("`{endpoint}` answered more than {EGRESS_INFORMATIONAL_MAX} times that an answer is to come");
                return Err(Denied::failed(text));
            }
            answer = sender.send_request(request) => answer.map_err(failed)?.into_parts(),
        };
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Denied::failed(format!("`{endpoint}` changes the protocol, which nobody asked of it")));
        }
        target::homeward(&mut parts.headers);
        parts.version = Version::HTTP_11;
        Ok(Response::from_parts(parts, body.boxed()))
    }

    /// A connection to one of the addresses of `endpoint` that may be connected to.
    async fn connect(&self, endpoint: &Endpoint) -> Result<TcpStream, Denied> {
        let found = self.addresses(endpoint).await?;
        let mut refused = None;
        let mut checked = Vec::new();
        for address in found.into_iter().take(EGRESS_ADDRESSES_MAX) {
            match address::check(endpoint, address.ip(), &self.allowed) {
                Ok(()) => checked.push(address),
                Err(kind) => refused = Some((address, kind)),
            }
        }
        // A non-public address in an answer does not block the others; it is just never connected to.
        if checked.is_empty() {
            return Err(match refused {
                Some((address, kind)) => Denied::refused(self.special(endpoint, address, kind)),
                None => Denied::failed(format!("`{endpoint}` has no address")),
            });
        }
        let until = Instant::now() + self.patience.connect;
        let mut denied = Denied::late(format!("`{endpoint}` did not take a connection in {:?}", self.patience.connect));
        for (at, address) in checked.iter().enumerate() {
            // A dead address leaves the addresses after it their share of the time.
            let share = until.saturating_duration_since(Instant::now()) / u32::try_from(checked.len() - at).unwrap_or(1);
            match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => denied = Denied::failed(format!("no connection to `{endpoint}`: {error}")),
                Err(_) => {}
            }
        }
        Err(denied)
    }

    async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Denied> {
        if let Ok(address) = endpoint.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, endpoint.port)]);
        }
        let resolved: Result<io::Result<_>, _> = timeout(self.patience.lookup, self.resolver.resolve(endpoint)).await;
        match resolved {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(Denied::failed(format!("the name of `{endpoint}` was not found: {error}"))),
            Err(_) => Err(Denied::late(format!("the name of `{endpoint}` was not found in {:?}", self.patience.lookup))),
        }
    }

    fn special(&self, endpoint: &Endpoint, address: SocketAddr, kind: &str) -> String {
        let literal = Endpoint { host: address.ip().to_string(), port: endpoint.port };
        let recipe = &self.recipe;
        format!(
            "`{endpoint}` was granted to `{recipe}`, but it leads to `{}`, which is {kind}: grant the address itself as well; next: hob \
             grant {recipe} network={literal}",
            address.ip()
        )
    }

    fn deny(&self, denied: Denied) -> Answer {
        match denied.status == StatusCode::FORBIDDEN {
            true => self.ledger.note(&denied.text),
            false => tracing::debug!(recipe = self.recipe, "a pod's request failed: {}", denied.text),
        }
        let mut answer = Response::new(Full::new(format!("{}\n", denied.text).into()).map_err(|never| match never {}).boxed());
        *answer.status_mut() = denied.status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        // No client in use reads the body of a refused `CONNECT`, but each of them shows the reason phrase
        // after the status code.
        if let Ok(reason) = ReasonPhrase::try_from(denied.text.into_bytes()) {
            answer.extensions_mut().insert(reason);
        }
        answer
    }
}
