//! One connection: requests in, responses out, and every wait on the other side bounded.
//!
//! On hyper itself, because axum's own server neither ends a connection that stands still nor lets its owner do so.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, extract::Request, response::Response};
use hyper::{body::Incoming, rt, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Sleep, sleep},
};

use super::{refused, token::Token};
use crate::model::limits;

/// How requests of one way in (a socket, a port) are answered.
#[derive(Clone)]
pub struct Way {
    pub routes: Router,
    /// What a request must show, if anything.
    pub token: Option<Arc<Token>>,
    pub closing: watch::Receiver<bool>,
    pub patience: Patience,
}

/// How long a connection may stand still.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until a head is whole, and between two requests.
    pub head: Duration,
    /// Until some of what is written is taken.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { head: Duration::from_millis(limits::SERVE_HEAD_MS), write: Duration::from_millis(limits::SERVE_STALL_MS) }
    }
}

impl Way {
    /// Serves a connection until either side ends it. Dropping the future drops the call that it runs.
    pub async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        // Who knocked while the server was ending gets one answer, and soon.
        let is_late = *self.closing.borrow();
        let head = if is_late { Duration::from_millis(limits::SERVE_GOODBYE_MS) } else { self.patience.head };
        let (routes, token) = (TowerToHyperService::new(self.routes), self.token);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let refusal: Option<Response> =
                token.as_ref().and_then(|token| token.check(request.headers()).err()).map(|fault| refused(&fault));
            let answer = refusal.is_none().then(|| routes.call(request));
            async move {
                match (answer, refusal) {
                    (Some(answer), _) => answer.await,
                    (None, refusal) => Ok(refusal.unwrap_or_default()),
                }
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(head).keep_alive(!is_late);
        builder.max_header_size(limits::SERVE_HEAD_BYTES_MAX);
        let io = Patient { io: TokioIo::new(stream), patience: self.patience.write, stall: None };
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = closed(&mut self.closing), if !is_late => {
                // What was sent before the end was known is still answered: what is silent until then goes.
                match tokio::time::timeout(Duration::from_millis(limits::SERVE_LINGER_MS), connection.as_mut()).await {
                    Ok(ended) => ended,
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

/// Until the server is ending.
pub async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the server is gone altogether.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// A stream whose writes may stand still for so long and no longer. (Reads are bounded where it is known what is awaited.)
struct Patient<T> {
    io: TokioIo<T>,
    patience: Duration,
    stall: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    /// A write's result; while there is none, the time is kept.
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

impl<T: AsyncRead + Unpin> rt::Read for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: rt::ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> rt::Write for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.patiently(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
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
        let result = Pin::new(&mut self.io).poll_shutdown(context);
        self.patiently(context, result)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_caller_that_stands_still_is_hung_up_on() {
        let (closing, ending) = watch::channel(false);
        let routes = Router::new().route("/", get(|| async { "x".repeat(1 << 20) }));
        let patience = Patience { head: Duration::from_millis(300), write: Duration::from_millis(400) };
        let way = Way { routes, token: None, closing: ending, patience };
        // One sends half a head, one does not read its answer, one sends nothing between two requests.
        for (sent, wait) in [("GET / HT", patience.head), ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", patience.write), ("", patience.head)] {
            let (mut here, there) = duplex(1 << 10);
            here.write_all(sent.as_bytes()).await.unwrap();
            let begun = tokio::time::Instant::now();
            way.clone().serve(there).await;
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
            closing.send(true).unwrap();
        };
        tokio::join!(way.clone().serve(there), end);
        assert!(begun.elapsed() >= Duration::from_millis(100 + limits::SERVE_LINGER_MS), "it was not answered only, and then left");
        let mut answer = String::new();
        here.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.len() > 1 << 20);
        // Who knocks afterwards gets one answer.
        let (mut here, there) = duplex(1 << 22);
        here.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        way.serve(there).await;
        let mut answer = String::new();
        here.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 1);
    }
}
