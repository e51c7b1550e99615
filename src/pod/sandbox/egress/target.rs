//! Determines from a request's head where the request wants to go, and whether that name was granted. Pure.
//!
//! Two readers could read one request differently. So a head that could be read in two ways is refused. The
//! proxy connects to the checked target, and names the same target to the server.

use std::collections::BTreeSet;

use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER},
    header::{TRANSFER_ENCODING, UPGRADE},
    http::uri::Scheme,
};

use crate::model::{grant::Endpoint, limits::NAMED_IN_MESSAGE_MAX};

/// Longest piece of a request that a message repeats, in bytes; enough to show that a name is too long.
const SHOWN_BYTES: usize = 80;

/// Why a request is not carried.
#[derive(Debug)]
pub(super) struct Denied {
    pub status: StatusCode,
    /// One line, for people.
    pub text: String,
}

impl Denied {
    /// Refused by the rules; the operator may change that.
    pub fn refused(text: String) -> Denied {
        Denied { status: StatusCode::FORBIDDEN, text }
    }

    fn malformed(text: impl Into<String>) -> Denied {
        Denied { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    pub fn failed(text: String) -> Denied {
        Denied { status: StatusCode::BAD_GATEWAY, text }
    }

    pub fn late(text: String) -> Denied {
        Denied { status: StatusCode::GATEWAY_TIMEOUT, text }
    }
}

/// The name and port that a request names, in the form that grants have.
pub(super) fn wanted(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Endpoint, Denied> {
    if headers.get_all(HOST).iter().count() > 1 {
        return Err(Denied::malformed("the request has more than one `Host`"));
    }
    let authority = match (uri.authority(), uri.scheme()) {
        (Some(authority), None) if method == Method::CONNECT => {
            let has_body = headers.contains_key(TRANSFER_ENCODING) || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
            if has_body {
                return Err(Denied::malformed("`CONNECT` with a body: what follows the head belongs to the tunnel"));
            }
            authority
        }
        (Some(authority), Some(scheme)) if method != Method::CONNECT && *scheme == Scheme::HTTP => authority,
        (_, Some(scheme)) if method != Method::CONNECT && *scheme == Scheme::HTTPS => {
            return Err(Denied::malformed("`https` goes through a proxy by `CONNECT HOST:PORT`"));
        }
        _ => {
            let wanted = "this is a proxy: wanted `CONNECT HOST:PORT`, or a request for `http://HOST[:PORT]/...`";
            return Err(Denied::malformed(format!("{wanted}, found `{method} {}`", shown(&uri.to_string()))));
        }
    };
    let wrong = || Denied::malformed(format!("`{}` is not a host and a port, e.g. `api.example.com:443`", shown(authority.as_str())));
    // Parsed here and not by `port_u16`, which silently ignores an invalid port. A user's name is refused: it
    // makes one name look like another.
    let port = authority.as_str().strip_prefix(authority.host()).ok_or_else(wrong)?;
    let port = match port {
        "" | ":" if method != Method::CONNECT => ":80",
        port => port,
    };
    format!("{}{port}", authority.host()).parse().map_err(|_| wrong())
}

/// The path and query of a request as they are sent on: with a leading `/`, whatever stood between them and
/// the name.
///
/// Errors: never for an address that hyper parsed.
pub(super) fn path(uri: &Uri) -> Result<Uri, Denied> {
    let text = uri.path_and_query().map_or("", |path| path.as_str());
    let text = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    text.parse().map_err(|_| Denied::malformed(format!("`{}` is no path", shown(&text))))
}

/// Whether an endpoint was granted, by its name and port.
pub(super) fn check(endpoint: &Endpoint, allowed: &BTreeSet<Endpoint>, recipe: &str) -> Result<(), Denied> {
    if allowed.contains(endpoint) {
        return Ok(());
    }
    let mut granted: Vec<String> = allowed.iter().take(NAMED_IN_MESSAGE_MAX).map(|endpoint| format!("`{endpoint}`")).collect();
    if allowed.len() > granted.len() {
        granted.push(format!("{} more", allowed.len() - granted.len()));
    }
    let granted = if granted.is_empty() { "nothing".to_owned() } else { granted.join(", ") };
    Err(Denied::refused(format!(
        "`{endpoint}` was not granted to `{recipe}` (granted: {granted}); next: name it in `network` of its recipe.toml, then hob grant \
         {recipe} network={endpoint}"
    )))
}

/// A piece of a request in the form in which a message may show it.
fn shown(text: &str) -> String {
    let plain: String = text.chars().take(SHOWN_BYTES).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    if plain.len() < text.len() { format!("{plain}...") } else { plain }
}

/// Headers that are for the next hop only, in both directions.
const HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Replaces the headers of a request by those that go on to `endpoint`, whatever `Host` they named.
///
/// Errors: never for an endpoint that was parsed.
pub(super) fn onward(headers: &mut HeaderMap, endpoint: &Endpoint) -> Result<(), Denied> {
    strip(headers);
    // The sender of the forwarded body states its length again, as it was read, so that two readers cannot
    // differ about it. And the body is not held back for a `100 Continue`.
    for name in [CONTENT_LENGTH, EXPECT] {
        headers.remove(name);
    }
    let text = endpoint.to_string();
    let host = text.strip_suffix(":80").unwrap_or(&text);
    let host = HeaderValue::from_str(host).map_err(|_| Denied::malformed("this name is no `Host`"))?;
    headers.insert(HOST, host);
    Ok(())
}

/// Replaces the headers of a response by those that go back to the pod.
pub(super) fn homeward(headers: &mut HeaderMap) {
    // A length beside chunks allows two readings. Alone it stays, because the answer to `HEAD` has a length
    // and no body.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip(headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<String, StatusCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let uri = uri.parse::<Uri>().map_err(|_| StatusCode::IM_A_TEAPOT)?;
        wanted(&method.parse().unwrap(), &uri, &map).map(|endpoint| endpoint.to_string()).map_err(|denied| denied.status)
    }

    #[test]
    fn a_request_names_one_place_in_one_way() {
        for (method, uri, place) in [
            ("CONNECT", "API.Example.com:443", "api.example.com:443"),
            ("CONNECT", "api.example.com.:443", "api.example.com:443"),
            ("CONNECT", "[::0001]:443", "[::1]:443"),
            ("GET", "http://api.example.com/x", "api.example.com:80"),
            ("GET", "http://api.example.com:/x", "api.example.com:80"),
            ("POST", "http://API.example.com:8080", "api.example.com:8080"),
            ("HEAD", "http://127.0.0.1:8080/?http://other/", "127.0.0.1:8080"),
        ] {
            assert_eq!(read(method, uri, &[("host", "other.example")]).as_deref(), Ok(place), "{method} {uri}");
        }
        for (method, uri) in [
            ("CONNECT", "api.example.com"),
            ("CONNECT", "api.example.com:0"),
            ("CONNECT", "api.example.com:65536"),
            ("CONNECT", "a@api.example.com:443"),
            ("CONNECT", "http://api.example.com:443/"),
            ("CONNECT", "/x"),
            ("GET", "/x"),
            ("GET", "*"),
            ("GET", "api.example.com:80"),
            ("GET", "https://api.example.com/"),
            ("GET", "ftp://api.example.com/"),
            ("GET", "http://a:b@api.example.com/"),
            ("GET", "http://api.example.com:99999/"),
            ("GET", "http://127.1/"),
            ("GET", "http://0x7f000001/"),
            ("GET", "http://[fe80::1%25eth0]/"),
            ("GET", "http://a%2eb/"),
        ] {
            assert!(matches!(read(method, uri, &[]), Err(StatusCode::BAD_REQUEST | StatusCode::IM_A_TEAPOT)), "{method} {uri}");
        }
        let twice = [("host", "a.example"), ("host", "a.example")];
        assert_eq!(read("GET", "http://a.example/", &twice), Err(StatusCode::BAD_REQUEST));
        for (header, taken) in
            [(("content-length", "5"), false), (("transfer-encoding", "chunked"), false), (("content-length", "0"), true)]
        {
            assert_eq!(read("CONNECT", "a.example:443", &[header]).is_ok(), taken, "{header:?}");
        }
    }

    #[test]
    fn a_path_begins_with_a_slash() {
        for (uri, expected) in [
            ("http://a.example:80", "/"),
            ("http://a.example:80#x", "/"),
            ("http://a.example/#x", "/"),
            ("http://a.example?q=1", "/?q=1"),
            ("http://a.example/b?q=1#x", "/b?q=1"),
        ] {
            let Ok(uri) = uri.parse::<Uri>() else { panic!("{uri}") };
            assert_eq!(path(&uri).unwrap().to_string(), expected, "{uri}");
            assert_eq!(path(&uri).unwrap().path_and_query().map(|path| path.as_str()), Some(expected), "{uri}");
        }
    }

    #[test]
    fn what_was_granted_is_a_name_with_its_port() {
        let allowed: BTreeSet<Endpoint> = ["a.example:443", "127.0.0.1:80"].iter().map(|text| text.parse().unwrap()).collect();
        let may = |text: &str| check(&text.parse().unwrap(), &allowed, "acme/x");
        assert!(may("a.example:443").is_ok() && may("127.0.0.1:80").is_ok());
        for text in ["a.example:80", "b.a.example:443", "example:443", "127.0.0.1:81", "[::ffff:127.0.0.1]:80", "localhost:80"] {
            let denied = may(text).unwrap_err();
            assert_eq!(denied.status, StatusCode::FORBIDDEN);
            for part in [text, "acme/x", "`a.example:443`", "hob grant acme/x network="] {
                assert!(denied.text.contains(part), "{}", denied.text);
            }
        }
        assert!(check(&"a:1".parse().unwrap(), &BTreeSet::new(), "acme/x").unwrap_err().text.contains("granted: nothing"));
        let many = (1..=100).map(|port| Endpoint { host: "a.example".into(), port }).collect();
        assert!(check(&"b:1".parse().unwrap(), &many, "acme/x").unwrap_err().text.contains("88 more"));
    }

    #[test]
    fn what_is_shown_of_a_request_is_short_and_plain() {
        assert_eq!(shown("a\u{7}b\u{e9}"), "a?b?...");
        assert_eq!(shown(&"x".repeat(500)).len(), SHOWN_BYTES + 3);
        assert_eq!(shown("/x"), "/x");
    }
}
