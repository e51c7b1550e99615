//! Responses: values and faults as JSON, with the status of the fault table.

use std::sync::OnceLock;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::audience::Audience;
use crate::{
    door::handing::Files,
    model::{Code, Fault, limits, printable::printable_json},
};

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Hob's own words in a response, until the audience is known. See [`said`].
#[derive(Clone)]
pub struct Said(Value);

/// Whether the room was full when the connection of this request arrived.
#[derive(Clone, Copy)]
pub struct IsFull(pub bool);

/// The files that can be handed over beside a request and its answer; `None` over TCP.
#[derive(Clone)]
pub struct Beside(pub Option<Files>);

pub fn response(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// A value as the whole body; the body is written once the audience is known.
pub fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_value(value) {
        Ok(value) => {
            let mut response = response(status, Body::empty());
            if status == StatusCode::SERVICE_UNAVAILABLE {
                // The default; a route may set a better time.
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(limits::SERVE_RETRY_MS.div_ceil(1_000)));
            }
            response.extensions_mut().insert(Said(value));
            response
        }
        Err(error) => refused(&Fault::new(Code::Internal, format!("an answer cannot be written: {error}"))),
    }
}

/// A fault, with its status in the fault table.
pub fn refused(fault: &Fault) -> Response {
    refused_as(StatusCode::from_u16(fault.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), fault)
}

pub fn refused_as(status: StatusCode, fault: &Fault) -> Response {
    let mut response = answer(status, &json!({ "fault": fault }));
    if let Some(retry_after) = fault.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.div_ceil(1_000)));
    }
    if fault.code == Code::Unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A response as `audience` may read it: the only place where Hob's own words become bytes. The output of a
/// recipe is in the response already.
pub fn said(mut response: Response, audience: &Audience) -> Response {
    if let Some(Said(value)) = response.extensions_mut().remove() {
        let text = printable_json(&audience.told(value).to_string()).into_owned();
        // The router has set the length of the empty body.
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        *response.body_mut() = Body::from(text);
    }
    response
}

/// The fault if all connections are at work.
pub fn overfull() -> Fault {
    overloaded("all connections of the server are at work".to_owned())
}

/// The response, as bytes, for a connection that is closed to make room: its request may be on the way.
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

pub fn overloaded(message: String) -> Fault {
    let mut fault = Fault::new(Code::Overloaded, message).hint("call again a little later");
    fault.retry_after = Some(limits::SERVE_RETRY_MS);
    fault
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Of names that strangers chose, in whatever is told: a terminal that shows the bytes obeys none of
    /// them.
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
