//! One request for a model, or for the rest of one, to the place that its recipe names.
//!
//! Hubs serve files from other hosts than the one that was asked. So redirects may go further here than in
//! `repository/transport.rs` (the signed digest decides what the bytes are worth), but secrets must not go
//! with them. This module touches no file.

use crate::shelf::redirects::{allowed, host, onward};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    RequestBuilder, Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_RANGE,
        LAST_MODIFIED, RANGE, RETRY_AFTER,
    },
    redirect,
};
use tokio::time::timeout;

use crate::{
    model::{Code, Fault, StandIn, limits, manifest::source::is_loopback, stand_in::HEAD_BYTES},
    shelf::{models::sources::Place, repository::transport::chain},
};

/// Why a request brought nothing, or only a part.
#[derive(Debug)]
pub(in crate::shelf) enum Failure {
    /// A later try may succeed.
    Passing { why: String, wait: Option<Duration> },
    /// No later try will succeed.
    Final(Fault),
}

impl Failure {
    pub fn passing(why: String) -> Failure {
        Failure::Passing { why, wait: None }
    }
}

/// What to ask for.
#[derive(Debug, Clone, Copy)]
pub(in crate::shelf) struct Wanted<'a> {
    /// The whole file's length, as signed.
    pub bytes: u64,
    /// How many bytes are already here.
    pub have: u64,
    /// The server's name for the state of the file from which those bytes came.
    pub mark: Option<&'a str>,
    /// For people.
    pub what: &'a str,
}

/// The result of a request.
#[derive(Debug)]
pub(in crate::shelf) enum Answer {
    /// The file from its first byte.
    Whole(Body),
    /// The bytes that are missing.
    Rest(Body),
    /// Not the rest of the bytes that are here; the whole file has to be asked for.
    Other(&'static str),
}

/// The bytes, as they arrive.
#[derive(Debug)]
pub(in crate::shelf) struct Body {
    response: Response,
    stall: Duration,
    /// The server's name for this state of the file, if it is suitable for requesting the rest.
    pub mark: Option<String>,
}

impl Body {
    /// The next bytes; `None` at the end of the body, even if it ends too early.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match timeout(self.stall, self.response.chunk()).await {
            Err(_) => Err(Failure::passing(format!("no byte came for {} ms", self.stall.as_millis()))),
            Ok(Err(error)) => Err(Failure::passing(format!("the line broke: {}", chain(error)))),
            Ok(Ok(chunk)) => Ok(chunk),
        }
    }
}

/// Asks the place, and follows its redirects.
pub(in crate::shelf) async fn ask(place: &Place, wanted: &Wanted<'_>) -> Result<Answer, Failure> {
    let mut url = place.url.clone();
    for _ in 0..=limits::REDIRECTS_MAX {
        let response = send(place, &url, wanted).await?;
        match onward(&url, &response) {
            // A redirect may end on this machine only if the recipe's own address is on this machine.
            Some(next) => url = next.and_then(|next| allowed(&place.url, &url, next)).map_err(|why| refused(place, wanted, &why))?,
            None => return read(place, &url, wanted, response).await,
        }
    }
    Err(refused(place, wanted, &format!("it redirects more than {} times", limits::REDIRECTS_MAX)))
}

async fn send(place: &Place, url: &Url, wanted: &Wanted<'_>) -> Result<Response, Failure> {
    let request = with_headers(client(place, url)?.get(url.clone()), place, url, wanted);
    match timeout(place.patience.stall, request.send()).await {
        Err(_) => Err(Failure::passing(format!("{} did not answer within {} ms", host(url), place.patience.stall.as_millis()))),
        // The address of a redirect may be as secret as the token, so no message contains it.
        Ok(Err(error)) => Err(Failure::passing(format!("{} cannot be reached: {}", host(url), chain(error)))),
        Ok(Ok(response)) => Ok(response),
    }
}

fn with_headers(mut request: RequestBuilder, place: &Place, url: &Url, wanted: &Wanted<'_>) -> RequestBuilder {
    // Compressed bytes could be neither counted nor resumed.
    request = request.header(ACCEPT_ENCODING, "identity");
    if let Some(token) = &place.token
        && url.origin() == place.url.origin()
    {
        request = request.header(AUTHORIZATION, token.clone());
    }
    if wanted.have > 0 {
        request = request.header(RANGE, format!("bytes={}-", wanted.have));
        if let Some(mark) = wanted.mark {
            request = request.header(IF_RANGE, mark);
        }
    }
    request
}

fn client(place: &Place, url: &Url) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(place.patience.connect)
        .redirect(redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("hob/", env!("CARGO_PKG_VERSION")));
    // A proxy cannot reach this machine's own loopback.
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    let failed = |error| Fault::new(Code::Internal, format!("the http client cannot be made: {}", chain(error)));
    builder.build().map_err(|error| Failure::Final(failed(error)))
}

async fn read(place: &Place, url: &Url, wanted: &Wanted<'_>, response: Response) -> Result<Answer, Failure> {
    let status = response.status();
    let length = response.content_length();
    let mark = mark(response.headers());
    let body = |response, mark| Body { response, stall: place.patience.stall, mark };
    if let Some(packed) = text(response.headers(), &CONTENT_ENCODING).filter(|how| !how.trim().eq_ignore_ascii_case("identity"))
        && status.is_success()
    {
        let packed: String = packed.chars().take(32).collect();
        let why = format!("{} sends it packed (`content-encoding: {packed}`), which it was asked not to do", host(url));
        return Err(refused(place, wanted, &why));
    }
    match status {
        StatusCode::OK => match length {
            Some(length) if length != wanted.bytes => {
                let found = stand_in(body(response, None)).await;
                let what = found.map(|found| format!(" (it is {})", found.name())).unwrap_or_default();
                let sends = format!("{} sends {length} bytes; wanted {}{what}", host(url), wanted.bytes);
                let fault = other(wanted.what, &place.url, found, &sends);
                Err(Failure::Final(fault.with("found_bytes", length).with("wanted_bytes", wanted.bytes)))
            }
            _ => Ok(Answer::Whole(body(response, mark))),
        },
        StatusCode::PARTIAL_CONTENT if wanted.have > 0 => {
            let wanted_range = format!("bytes {}-{}/", wanted.have, wanted.bytes.saturating_sub(1));
            let total = text(response.headers(), &CONTENT_RANGE).and_then(|range| range.strip_prefix(&wanted_range));
            let is_rest = total.is_some_and(|total| total == "*" || total == wanted.bytes.to_string());
            match (is_rest, wanted.mark, &mark) {
                (false, ..) => Ok(Answer::Other("the server sent another part than was asked for")),
                (true, Some(before), Some(now)) if before != now => Ok(Answer::Other("the server has another file than before")),
                _ => Ok(Answer::Rest(body(response, mark))),
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE if wanted.have > 0 => Ok(Answer::Other("the server has a shorter file than before")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::Final(
            Fault::new(Code::ModelForbidden, format!("{}: {}", wanted.what, said(url, &response)))
                .with("status", status.as_u16())
                .hint(place.hint),
        )),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Failure::Final(
            Fault::new(Code::ModelMissing, format!("{}: there is no file: {}", wanted.what, said(url, &response)))
                .with("status", status.as_u16())
                .hint("it was moved or never there: tell the recipe's publisher"),
        )),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => Err(passing(url, &response)),
        status if status.is_server_error() => Err(passing(url, &response)),
        _ => Err(refused(place, wanted, &said(url, &response))),
    }
}

/// Identifies a wrong answer, if its first bytes tell.
async fn stand_in(mut body: Body) -> Option<StandIn> {
    let media_type = text(body.response.headers(), &CONTENT_TYPE).map(str::to_owned);
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES
        && let Ok(Some(chunk)) = body.chunk().await
    {
        head.extend_from_slice(&chunk[..chunk.len().min(HEAD_BYTES)]);
    }
    StandIn::of(&head, media_type.as_deref())
}

fn passing(url: &Url, response: &Response) -> Failure {
    // The header may also be a date; dates are ignored, because they would need a clock.
    let wait = text(response.headers(), &RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    Failure::Passing { why: said(url, response), wait }
}

/// E.g. `127.0.0.1:80 answered 401 Unauthorized (GatedRepo)`; the last word is the hub's own.
fn said(url: &Url, response: &Response) -> String {
    let word = text(response.headers(), &HeaderName::from_static("x-error-code"));
    let word = word.filter(|word| word.len() <= 64).map(|word| format!(" ({word})")).unwrap_or_default();
    format!("{} answered {}{word}", host(url), response.status())
}

fn refused(place: &Place, wanted: &Wanted<'_>, why: &str) -> Failure {
    Failure::Final(unreachable(wanted.what, &place.url, why))
}

/// The fault for bytes that differ from the signed ones; says what they are.
pub(in crate::shelf) fn other(what: &str, url: &Url, found: Option<StandIn>, why: &str) -> Fault {
    match found {
        Some(found) if found.is_no_file() => unreachable(what, url, why).hint(found.hint_of_fetch()),
        found => Fault::new(Code::Tampered, format!("{what} is not what its recipe names: {why}"))
            .hint(found.map_or("nothing of it was kept; try again, and tell the recipe's publisher if it remains", StandIn::hint_of_fetch)),
    }
}

/// The fault for a model whose place does not serve it.
pub(in crate::shelf) fn unreachable(what: &str, url: &Url, why: &str) -> Fault {
    Fault::new(Code::ModelUnreachable, format!("{what} cannot be fetched from {}: {why}", host(url)))
        .hint("check the network and try again: what was fetched is kept, and the next try goes on from there")
}

/// The server's name for this state of the file: a strong mark, as `If-Range` requires.
fn mark(headers: &HeaderMap) -> Option<String> {
    let strong = text(headers, &ETAG).filter(|tag| !tag.starts_with("W/"));
    let mark = strong.or_else(|| text(headers, &LAST_MODIFIED))?;
    (mark.len() <= limits::MODEL_MARK_BYTES_MAX).then(|| mark.to_owned())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_goes_to_any_safe_host_but_into_this_machine_only_from_within() {
        let may =
            |first: &str, from: &str, to: &str| allowed(&first.parse().unwrap(), &from.parse().unwrap(), to.parse().unwrap()).map(drop);
        let (web, here, there) = ("https://example.org/a", "http://127.0.0.1:1/a", "https://cdn.example.net/b?secret");
        assert!(may(web, web, there).is_ok() && may(here, here, there).is_ok() && may(here, here, "http://127.0.0.1:2/b").is_ok());
        for (first, from, to) in [
            (web, web, "http://cdn.example.net/b?secret"),
            (web, web, "http://127.0.0.1:2/b"),
            (web, web, "https://127.0.0.1:2/b"),
            (web, web, "https://localhost/b"),
            (here, there, "http://127.0.0.1:2/b"),
            (here, here, "http://example.org/b"),
            (web, web, "https://me:secret@cdn.example.net/b"),
            (web, web, "file:///etc/passwd"),
        ] {
            let why = may(first, from, to).unwrap_err();
            assert!(why.contains("may not go") && !why.contains("secret"), "{why}");
        }
    }
}
