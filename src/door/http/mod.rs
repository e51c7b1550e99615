//! HTTP: requests become calls, outcomes and faults become responses.
//!
//! The routes and what all of them share; `calls.rs` runs calls, `status.rs` tells of the host, `connection.rs` carries
//! requests in, `room.rs` says who has a connection, `audience.rs` who is told what. Every failure, of whatever kind, is a fault as JSON with the status of the fault table.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use audience::Audience;

use crate::{
    door::handing::Files,
    host::Host,
    model::{Code, Fault, address::unescaped, limits, printable::printable_json},
};

pub mod audience;
mod body;
mod calls;
pub mod connection;
mod handed;
pub mod room;
mod sessions;
mod status;
pub mod token;

/// How far a server is in its life. One whose sender is gone has no connections any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Open,
    /// It takes no connections and begins no calls.
    Closing,
    /// Calls that still run had their time, and end.
    Over,
}

/// What all connections of a server share.
pub struct Server {
    host: Host,
    /// From [`Phase::Closing`] on no call is begun any more.
    closing: watch::Receiver<Phase>,
    calls: Arc<Semaphore>,
    /// Room for large bodies, in KiB.
    bodies: Arc<Semaphore>,
    leaving: handed::Leaving,
}

impl Server {
    pub fn new(host: Host, closing: watch::Receiver<Phase>) -> Server {
        let calls = Arc::new(Semaphore::new(limits::SERVE_CALLS_MAX));
        Server { host, closing, calls, bodies: Arc::new(Semaphore::new(limits::SERVE_BODIES_BYTES_MAX >> 10)), leaving: Default::default() }
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow() >= Phase::Closing
    }

    /// Room for one more call, given back on drop.
    ///
    /// Errors: `shutting_down`, `overloaded`.
    fn admit(&self) -> Result<OwnedSemaphorePermit, Fault> {
        if self.is_closing() {
            return Err(shutting_down("the server is ending and begins no call any more"));
        }
        let full = |_| overloaded(format!("{} calls are under way, the most that run at once", limits::SERVE_CALLS_MAX));
        self.calls.clone().try_acquire_owned().map_err(full)
    }
}

fn shutting_down(message: &str) -> Fault {
    Fault::new(Code::ShuttingDown, message).hint("call again when it was started anew")
}

/// All routes. They are held against docs/serve.md by a test.
pub fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/v1/recipes/{publisher}/{name}/{operation}", post(calls::plain))
        .route("/v1/recipes/{publisher}/{name}/lift", post(status::lift))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/recipes/{publisher}/{name}/sessions/{session}/open", post(sessions::open))
        .route("/v1/recipes/{publisher}/{name}/sessions/{session}/checkpoint", post(sessions::checkpoint))
        .route("/v1/recipes/{publisher}/{name}/sessions/{session}/touch", post(sessions::touch))
        .route("/v1/recipes/{publisher}/{name}/sessions/{session}/close", post(sessions::close))
        .route("/v1/calls", post(calls::general))
        .route("/v1/calls", get(handed::bounds))
        .route("/v1/pods", get(status::pods))
        .route("/v1/status", get(status::status))
        .route("/v1/logs", get(status::logs))
        .route("/v1/health", get(status::health))
        .route("/livez", get(status::livez))
        .route("/readyz", get(status::readyz))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(server)
}

async fn unknown(request: Request) -> Response {
    let fault = Fault::new(Code::Usage, format!("there is nothing at {}", request.uri().path()));
    refused_as(StatusCode::NOT_FOUND, &fault.hint("docs/serve.md lists the routes"))
}

async fn wrong_method(State(_): State<Arc<Server>>, request: Request) -> Response {
    let fault = Fault::new(Code::Usage, format!("{} does not take {}", request.uri().path(), request.method()));
    refused_as(StatusCode::METHOD_NOT_ALLOWED, &fault.hint("calls are POST, looking is GET; docs/serve.md lists the routes"))
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What Hob itself says, until it is known to whom. See [`said`].
#[derive(Clone)]
struct Said(Value);

/// Whether the room was full when this request's connection came.
#[derive(Clone, Copy)]
pub struct IsFull(pub bool);

/// The files that can be handed over beside a request and its answer: none over TCP.
#[derive(Clone)]
pub struct Beside(pub Option<Files>);

fn response(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// A value as the whole body, once it is known who reads it.
fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_value(value) {
        Ok(value) => {
            let mut response = response(status, Body::empty());
            if status == StatusCode::SERVICE_UNAVAILABLE {
                // Until something knows better.
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(limits::SERVE_RETRY_MS.div_ceil(1_000)));
            }
            response.extensions_mut().insert(Said(value));
            response
        }
        Err(error) => refused(&Fault::new(Code::Internal, format!("an answer cannot be written: {error}"))),
    }
}

/// A fault, with the status that the fault table gives it.
pub fn refused(fault: &Fault) -> Response {
    refused_as(StatusCode::from_u16(fault.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), fault)
}

fn refused_as(status: StatusCode, fault: &Fault) -> Response {
    let mut response = answer(status, &json!({ "fault": fault }));
    if let Some(retry_after) = fault.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.div_ceil(1_000)));
    }
    if fault.code == Code::Unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A response as `audience` reads it: the one place where Hob's own words become bytes. A recipe's output is in it already.
pub fn said(mut response: Response, audience: &Audience) -> Response {
    if let Some(Said(value)) = response.extensions_mut().remove() {
        let text = printable_json(&audience.told(value).to_string()).into_owned();
        // The router has said how long the empty body is.
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        *response.body_mut() = Body::from(text);
    }
    response
}

/// Whether a request asks how the server does, which whoever comes may know: no more than that.
pub fn is_probe(method: &Method, path: &str) -> bool {
    [Method::GET, Method::HEAD].contains(method) && ["/livez", "/readyz"].contains(&path)
}

/// Whether a request only looks at the host, which there is always room for.
pub fn is_look(method: &Method, path: &str) -> bool {
    *method == Method::GET && ["/v1/status", "/v1/health", "/v1/pods", "/v1/logs"].contains(&path)
}

/// All connections are at work.
pub fn overfull() -> Fault {
    overloaded("all connections of the server are at work".to_owned())
}

/// What a connection that goes for another one is told, as bytes: its request may be on its way.
pub fn parting() -> &'static [u8] {
    static WORDS: OnceLock<String> = OnceLock::new();
    WORDS
        .get_or_init(|| {
            let fault = overloaded("the connection went for another one before a whole request had come over it".to_owned());
            let body = json!({ "fault": fault }).to_string();
            let (status, wait) = (fault.code.http(), limits::SERVE_RETRY_MS.div_ceil(1_000));
            format!(
                "HTTP/1.1 {status} Too Many Requests\r\ncontent-type: application/json\r\nretry-after: {wait}\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )
        })
        .as_bytes()
}

fn overloaded(message: String) -> Fault {
    let mut fault = Fault::new(Code::Overloaded, message).hint("call again a little later");
    fault.retry_after = Some(limits::SERVE_RETRY_MS);
    fault
}

/// The text of a header.
///
/// Errors: `usage` when it is not plain text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let text = headers.get(name).map(|value| value.to_str());
    text.transpose().map_err(|_| Fault::new(Code::Usage, format!("header `{name}` is not plain text")))
}

/// The value of a word in the query of an address, with `%2F` and the like undone.
///
/// Errors: `usage` for a word that is not among `known`.
fn query<const N: usize>(request: &Request, known: [&str; N]) -> Result<[Option<String>; N], Fault> {
    let mut found = [const { None }; N];
    for pair in request.uri().query().unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
        let (word, value) = pair.split_once('=').unwrap_or((pair, ""));
        let at = known.iter().position(|known| *known == word).ok_or_else(|| {
            Fault::new(Code::Usage, format!("`{word}` in the address is not known here (there is: {})", known.join(", ")))
        })?;
        let wrong = || Fault::new(Code::Usage, format!("`{value}` in the address is not well escaped"));
        found[at] = Some(unescaped(value).ok_or_else(wrong)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_the_address_are_unescaped_and_known() {
        let request = |address: &str| Request::builder().uri(address).body(Body::empty()).unwrap();
        let words = |address: &str| query(&request(address), ["recipe", "lines"]);
        assert_eq!(words("/v1/logs?recipe=hob%2Fecho&lines=3").unwrap(), [Some("hob/echo".to_owned()), Some("3".to_owned())]);
        assert_eq!(words("/v1/logs?").unwrap(), [None, None]);
        for bad in ["/v1/logs?recipe=%2", "/v1/logs?recipe=%zz", "/v1/logs?recipe=%ff", "/v1/logs?line=3", "/v1/logs?recipe=%€"] {
            let Ok(request) = Request::builder().uri(bad).body(Body::empty()) else { continue };
            assert_eq!(query(&request, ["recipe", "lines"]).unwrap_err().code, Code::Usage, "{bad}");
        }
    }

    /// Of names that strangers chose, in whatever is told: a terminal that shows the bytes obeys none of them.
    #[tokio::test]
    async fn what_is_told_commands_no_terminal() {
        let strange = "a\u{202e}b\u{9b}31m";
        let told = json!({ "recipe": strange, strange: [strange] });
        for (response, same) in
            [(answer(StatusCode::OK, &told), Some(told)), (refused(&Fault::new(Code::Io, strange).with("file", strange)), None)]
        {
            let bytes = axum::body::to_bytes(said(response, &Audience::Operator).into_body(), 1 << 20).await.unwrap();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            assert!(text.contains("u202e") && !text.contains(crate::model::printable::commands), "{text:?}");
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(same.as_ref().unwrap_or(&read), &read);
            assert!(same.is_some() || read["fault"]["detail"]["file"] == strange, "data stays what it is: {read}");
        }
    }

    #[test]
    fn a_fault_has_its_status_and_says_when_to_come_back() {
        let mut fault = Fault::new(Code::Overloaded, "full");
        fault.retry_after = Some(1_001);
        let response = refused(&fault);
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &HeaderValue::from_static("2")));
        assert_eq!(refused(&Fault::new(Code::Cancelled, "gone")).status().as_u16(), 499);
        // Whatever is not to be had now says when to ask again.
        let unavailable: Vec<_> = Code::all().filter(|code| code.http() == 503).collect();
        assert!(unavailable.len() > 3);
        for code in unavailable {
            assert_eq!(refused(&Fault::new(code, "not now")).headers()["retry-after"], HeaderValue::from_static("1"), "{code:?}");
        }
        let answer = answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false }));
        assert_eq!(answer.headers()["retry-after"], HeaderValue::from_static("1"));
    }
}
