//! One connection: requests in, responses out, with a time limit on every wait for the other side.
//!
//! It uses hyper directly, because axum's own server neither ends a stalled connection nor lets its owner do
//! so.

use crate::door::http::{answers, requests};
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, header::CONNECTION},
};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    rt,
    server::conn::http1,
    service::Service as _,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::net::{SendFlags, send};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::watch,
    time::{Sleep, sleep, timeout},
};

use crate::{
    door::{
        handing::{Carrier, Files},
        http::{audience::Audience, room::Slot, server::Phase, token::Token},
    },
    model::{Fault, limits},
};

/// How requests at one listener (a socket, a port) are answered.
#[derive(Clone)]
pub struct Way {
    pub routes: Router,
    pub entry: Entry,
    pub closing: watch::Receiver<Phase>,
    pub patience: Patience,
}

/// Who may send requests to a listener, and what they may read.
#[derive(Clone)]
pub enum Entry {
    /// Every client that reaches it is the server's own user.
    Own,
    /// Clients that show the token. The terms may change while the server runs.
    Shown(Arc<RwLock<Terms>>),
}

/// See [`Entry::Shown`].
#[derive(Clone)]
pub struct Terms {
    pub token: Arc<Token>,
    pub audience: Audience,
}

impl Entry {
    /// The audience of a request, if it is authorized.
    ///
    /// Errors: `unauthorized`.
    fn audience(&self, request: &Request<Incoming>) -> Result<Audience, Fault> {
        let Entry::Shown(terms) = self else { return Ok(Audience::Operator) };
        let Terms { token, audience } = terms.read().unwrap_or_else(PoisonError::into_inner).clone();
        token.check(request.headers()).map(|()| audience)
    }
}

/// How long a connection may stall.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until its first complete and authorized request.
    pub stranger: Duration,
    /// Until a request head is complete, and between two requests.
    pub head: Duration,
    /// Until the other side takes some of the written bytes.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            stranger: Duration::from_millis(limits::SERVE_STRANGER_MS),
            head: Duration::from_millis(limits::SERVE_HEAD_MS),
            write: Duration::from_millis(limits::SERVE_STALL_MS),
        }
    }
}

impl Heard for Carrier {
    fn waits(&self) -> bool {
        self.stream().waits()
    }

    fn part(&self, words: &[u8]) {
        self.stream().part(words);
    }
}

/// A stream that can ask the kernel whether unread bytes wait, perhaps before the runtime knows of them.
pub trait Heard: AsyncRead + AsyncWrite + Unpin {
    fn waits(&self) -> bool;

    /// Writes these bytes, or as many as are taken at once.
    fn part(&self, words: &[u8]);
}

impl Heard for TcpStream {
    fn waits(&self) -> bool {
        rustix::io::ioctl_fionread(self).is_ok_and(|bytes| bytes > 0)
    }

    fn part(&self, words: &[u8]) {
        // Write directly: the runtime may not know yet that the stream is writable.
        let _ = send(self, words, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

impl Heard for UnixStream {
    fn waits(&self) -> bool {
        rustix::io::ioctl_fionread(self).is_ok_and(|bytes| bytes > 0)
    }

    fn part(&self, words: &[u8]) {
        // Write directly: the runtime may not know yet that the stream is writable.
        let _ = send(self, words, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

impl Way {
    /// Serves a connection until either side ends it. Dropping the future drops the call that it runs.
    /// `files` are handed over beside the connection, if it can carry any.
    pub async fn serve(self, stream: impl Heard, slot: Slot, files: Option<Files>) {
        let mut closing = self.closing.clone();
        tokio::select! {
            biased;
            () = gone(&mut closing) => tracing::debug!("a connection ended with its server"),
            () = self.served(stream, slot, files) => {}
        }
    }

    async fn served(mut self, stream: impl Heard, slot: Slot, files: Option<Files>) {
        // A client that connected while the server was ending gets one answer, within a short time.
        let is_late = *self.closing.borrow() >= Phase::Closing;
        let head = if is_late { Duration::from_millis(limits::SERVE_GOODBYE_MS) } else { self.patience.head };
        let stranger = if slot.in_reserve { Duration::from_millis(limits::SERVE_RESERVE_MS) } else { self.patience.stranger };
        let (slot, unread, unheard) = (Arc::new(slot), Arc::new(AtomicBool::new(false)), Arc::<Unheard>::default());
        let (routes, entry) = (TowerToHyperService::new(self.routes), self.entry);
        let (guest, incomplete) = (slot.clone(), unread.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            incomplete.store(!request.body().is_end_stream(), Ordering::Release);
            let (method, path) = (request.method(), request.uri().path());
            let (is_probe, is_look) = (requests::is_probe(method, path), requests::is_look(method, path));
            let audience = match is_probe {
                true => Ok(Audience::Operator),
                false => entry.audience(&request),
            };
            // Unauthorized requests, and those for which there is no room, are answered here.
            let answer = match &audience {
                Err(fault) => Err(answers::refused(fault)),
                Ok(_) if guest.in_reserve && !is_look && !is_probe => Err(answers::refused(&answers::overfull())),
                Ok(audience) => {
                    if !is_probe {
                        guest.mark_busy();
                    }
                    let (mut parts, body) = request.into_parts();
                    parts.extensions.insert(audience.clone());
                    parts.extensions.insert(answers::IsFull(guest.in_reserve));
                    parts.extensions.insert(answers::Beside(files.clone()));
                    Ok(routes.call(Request::from_parts(parts, Asked { body, incomplete: incomplete.clone() })))
                }
            };
            // Such connections get one answer only, as do probes, which need no token.
            let ends = is_probe || guest.in_reserve || answer.is_err();
            let (guest, files, audience) = (guest.clone(), files.clone(), audience.unwrap_or(Audience::Operator));
            async move {
                let answer = match answer {
                    Ok(answer) => answer.await?,
                    Err(answer) => answer,
                };
                // Files that came with this request and were not taken must not go to the next one.
                if let Some(files) = files {
                    files.forget();
                }
                let mut response = answers::said(answer, &audience);
                if ends {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|body| Answer { body, guest: (!ends).then_some(guest) }))
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(head).keep_alive(!is_late);
        builder.max_header_size(limits::SERVE_HEAD_BYTES_MAX);
        let io = Patient {
            io: TokioIo::new(stream),
            patience: self.patience.write,
            stall: None,
            unread,
            unheard: unheard.clone(),
            discard: Discard::default(),
        };
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let no_stranger = async {
            sleep(stranger).await;
            match slot.is_stranger() {
                true => {}
                false => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            // Look at arrived bytes before closing the connection.
            biased;
            ended = connection.as_mut() => ended,
            () = no_stranger => return tracing::debug!("a connection showed no request and was closed"),
            () = slot.told_to_go() => {
                unheard.looks.store(true, Ordering::Relaxed);
                let heard = poll_fn(|context| {
                    unheard.waits.store(false, Ordering::Relaxed);
                    match connection.as_mut().poll(context) {
                        Poll::Ready(ended) => Poll::Ready(Some(ended)),
                        Poll::Pending if slot.is_stranger() && unheard.waits.load(Ordering::Relaxed) => Poll::Pending,
                        Poll::Pending => Poll::Ready(None),
                    }
                });
                if let Ok(Some(_)) = timeout(Duration::from_millis(limits::SERVE_HEARD_MS), heard).await {
                    return;
                }
                if slot.is_stranger() {
                    // A request may be on its way: answer when to retry.
                    unheard.parts.store(true, Ordering::Relaxed);
                    return tracing::debug!("a connection showed no request and was closed for another one");
                }
                // If a request has begun at this moment, it is answered.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = closed(&mut self.closing), if !is_late => {
                // Requests sent before the client knew of the end are still answered; then silent connections
                // close.
                match timeout(Duration::from_millis(limits::SERVE_LINGER_MS), connection.as_mut()).await {
                    Ok(ended) => ended,
                    Err(_) if slot.is_stranger() => return,
                    Err(_) => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended: {error}");
        }
    }
}

/// The body of a request, which records when it was read to its end.
struct Asked {
    body: Incoming,
    incomplete: Arc<AtomicBool>,
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.incomplete.store(false, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, which reports when it is over.
struct Answer {
    body: Body,
    /// `None` if the connection ends with this answer.
    guest: Option<Arc<Slot>>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(guest) = &self.guest {
            guest.mark_idle();
        }
    }
}

/// Returns when the server is closing.
pub async fn closed(closing: &mut watch::Receiver<Phase>) {
    // An error means that the server is gone.
    let _ = closing.wait_for(|phase| *phase >= Phase::Closing).await;
}

/// Returns when the server is gone.
async fn gone(closing: &mut watch::Receiver<Phase>) {
    while closing.changed().await.is_ok() {}
}

/// A stream with a time limit on stalled writes, which reads what the other side still sends before it
/// closes. If it closed at once, a client that is still sending would lose an early answer. (The limits on
/// other reads are set by the readers, which know what they wait for.)
struct Patient<T: Heard> {
    io: TokioIo<T>,
    patience: Duration,
    stall: Option<Pin<Box<Sleep>>>,
    /// Bytes of a request arrived that nobody has read to the end.
    unread: Arc<AtomicBool>,
    unheard: Arc<Unheard>,
    discard: Discard,
}

/// For a connection that is to close: whether unread bytes of it arrived.
#[derive(Default)]
struct Unheard {
    /// Ask the kernel for unread bytes.
    looks: AtomicBool,
    waits: AtomicBool,
    /// On close, send `answers::parting` if nothing was written yet.
    parts: AtomicBool,
    was_answered: AtomicBool,
}

impl<T: Heard> Drop for Patient<T> {
    fn drop(&mut self) {
        if self.unheard.parts.load(Ordering::Relaxed) && !self.unheard.was_answered.load(Ordering::Relaxed) {
            self.io.inner().part(answers::parting());
        }
    }
}

/// The progress of a stream's close.
#[derive(Default)]
struct Discard {
    is_shut: bool,
    bytes: usize,
    /// The time limits for the next byte, and for all bytes.
    waits: Option<[Pin<Box<Sleep>>; 2]>,
}

impl<T: Heard> Patient<T> {
    /// Passes a write's result on; while it is pending, enforces the time limit.
    fn patiently<R>(&mut self, context: &mut Context<'_>, result: Poll<std::io::Result<R>>) -> Poll<std::io::Result<R>> {
        if result.is_ready() {
            self.stall = None;
            return result;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        match stall.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: Heard> Patient<T> {
    /// Reads further bytes until the other side is done or a limit is reached.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let after = |ms| Box::pin(sleep(Duration::from_millis(ms)));
        let waits = self.discard.waits.get_or_insert_with(|| [after(limits::SERVE_DISCARD_PAUSE_MS), after(limits::SERVE_DISCARD_MS)]);
        let mut scratch = [0; 16 << 10];
        while self.discard.bytes < limits::SERVE_DISCARD_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(self.io.inner_mut()).poll_read(context, &mut buffer);
            match (read, buffer.filled().len()) {
                (Poll::Ready(Ok(())), 1..) => {
                    self.discard.bytes += buffer.filled().len();
                    let pause = Duration::from_millis(limits::SERVE_DISCARD_PAUSE_MS);
                    waits[0].as_mut().reset(tokio::time::Instant::now() + pause);
                }
                (Poll::Ready(_), _) => return Poll::Ready(()),
                (Poll::Pending, _) => {
                    let is_over = waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready());
                    return if is_over { Poll::Ready(()) } else { Poll::Pending };
                }
            }
            if waits[1].is_elapsed() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<T: Heard> rt::Read for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: rt::ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_ready() {
            // Unread until a whole request was made of it.
            self.unread.store(true, Ordering::Release);
        } else if self.unheard.looks.load(Ordering::Relaxed) {
            self.unheard.waits.store(self.io.inner().waits(), Ordering::Relaxed);
        }
        read
    }
}

impl<T: Heard> rt::Write for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.unheard.was_answered.store(true, Ordering::Relaxed);
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.patiently(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.unheard.was_answered.store(true, Ordering::Relaxed);
        let result = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.patiently(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(context);
        self.patiently(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if !self.discard.is_shut {
            let result = Pin::new(&mut self.io).poll_shutdown(context);
            ready!(self.patiently(context, result))?;
            self.discard.is_shut = true;
        }
        if self.unread.load(Ordering::Acquire) {
            ready!(self.poll_discard(context));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{
        super::room::{Bounds, Room},
        *,
    };

    impl Heard for tokio::io::DuplexStream {
        fn waits(&self) -> bool {
            false
        }

        fn part(&self, _words: &[u8]) {}
    }

    #[tokio::test]
    async fn a_request_that_has_come_is_answered_although_its_caller_was_sent_away_before_anybody_looked() {
        let (_close, closing) = watch::channel(Phase::Open);
        let routes = Router::new().route("/", get(|| async { "heard" }));
        let way = Way { routes, entry: Entry::Own, closing, patience: Patience::default() };
        let room = Room::new(Bounds { connections: 8, strangers: 4, peer: 4, reserve: 2 });
        // One has sent its request, one half of it, one nothing. In one thread the runtime hears of none of
        // them before they are sent away.
        let parting = std::str::from_utf8(answers::parting()).unwrap();
        assert!(parting.starts_with("HTTP/1.1 429 ") && parting.contains("\r\nretry-after: 1\r\n") && parting.contains("\"overloaded\""));
        for (sent, told) in [("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "heard"), ("GET / HT", parting), ("", parting)] {
            let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
            std::io::Write::write_all(&mut here, sent.as_bytes()).unwrap();
            let slot = room.enter(None);
            let others: Vec<Slot> = (0..4).map(|_| room.enter(None)).collect();
            there.set_nonblocking(true).unwrap();
            timeout(Duration::from_secs(60), way.clone().serve(tokio::net::UnixStream::from_std(there).unwrap(), slot, None))
                .await
                .unwrap();
            let mut said = String::new();
            std::io::Read::read_to_string(&mut here, &mut said).unwrap();
            assert!(said.ends_with(told) && (told == "heard" || said == told), "`{sent}`: `{said}`");
            drop(others);
        }
    }

    #[tokio::test]
    async fn a_caller_that_stands_still_is_hung_up_on() {
        let (closing, ending) = watch::channel(Phase::Open);
        let routes = Router::new().route("/", get(|| async { "x".repeat(1 << 20) }));
        let patience = Patience { head: Duration::from_millis(300), write: Duration::from_millis(400), ..Patience::default() };
        let way = Way { routes, entry: Entry::Own, closing: ending, patience };
        let room = Room::new(Bounds::of(1_024, 1));
        // One sends half a head, one does not read its answer, one sends nothing between two requests.
        for (sent, wait) in [("GET / HT", patience.head), ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", patience.write), ("", patience.head)] {
            let (mut here, there) = duplex(1 << 10);
            here.write_all(sent.as_bytes()).await.unwrap();
            let begun = tokio::time::Instant::now();
            way.clone().serve(there, room.enter(None), None).await;
            let waited = begun.elapsed();
            assert!((wait..wait + Duration::from_millis(2_000)).contains(&waited), "`{sent}`: {waited:?}");
        }
        // A server that ends sends the idle away, long before their time.
        let way = Way { patience: Patience::default(), ..way };
        let (mut here, there) = duplex(1 << 22);
        here.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let begun = tokio::time::Instant::now();
        let end = async {
            sleep(Duration::from_millis(100)).await;
            closing.send(Phase::Closing).unwrap();
        };
        tokio::join!(way.clone().serve(there, room.enter(None), None), end);
        assert!(begun.elapsed() >= Duration::from_millis(100 + limits::SERVE_LINGER_MS), "it was not answered only, and then left");
        let mut answer = String::new();
        here.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.len() > 1 << 20);
        // Who knocks afterwards gets one answer.
        let (mut here, there) = duplex(1 << 22);
        here.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        way.serve(there, room.enter(None), None).await;
        let mut answer = String::new();
        here.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 1);
    }
}
