//! Reads parts of a request before any work begins.

use axum::{
    extract::Request,
    http::{HeaderMap, Method},
};

use crate::model::{Code, Fault, address::unescaped};

/// Whether a request only asks for the server's health, which anyone may ask.
pub fn is_probe(method: &Method, path: &str) -> bool {
    [Method::GET, Method::HEAD].contains(method) && ["/livez", "/readyz"].contains(&path)
}

/// Whether a request only looks at the host; the server always has room for those.
pub fn is_look(method: &Method, path: &str) -> bool {
    *method == Method::GET && ["/v1/status", "/v1/health", "/v1/pods", "/v1/logs"].contains(&path)
}

/// The text of a header.
///
/// Errors: `usage` if it is not plain text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let text = headers.get(name).map(|value| value.to_str());
    text.transpose().map_err(|_| Fault::new(Code::Usage, format!("header `{name}` is not plain text")))
}

/// The values of these keys in the query of an address, with escapes such as `%2F` decoded.
///
/// Errors: `usage` for a key that is not among `known`.
pub fn query<const N: usize>(request: &Request, known: [&str; N]) -> Result<[Option<String>; N], Fault> {
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
    use axum::body::Body;

    use super::*;
    use crate::model::Code;

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
}
