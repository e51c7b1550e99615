//! Redirects: where a server's answer points, and whether Hob follows it.

use reqwest::{Response, StatusCode, Url, header::LOCATION};

use crate::model::manifest::source::is_loopback;

/// Where a redirect points; the error is for people.
pub(in crate::shelf) fn onward(url: &Url, response: &Response) -> Option<Result<Url, String>> {
    let status = response.status();
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !redirects.contains(&status) {
        return None;
    }
    let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
    Some(to.ok_or_else(|| format!("{} redirects ({status}) to no address", host(url))))
}

/// Whether a redirect may be followed; the error is for people.
pub(in crate::shelf) fn allowed(first: &Url, from: &Url, to: Url) -> Result<Url, String> {
    let local = is_loopback(&to);
    let is_open = match to.scheme() {
        // A stranger's server must not send us to services of this machine, under any scheme.
        "https" => !local || is_loopback(first),
        "http" => local && is_loopback(first) && from.scheme() == "http",
        _ => false,
    };
    match is_open && to.username().is_empty() && to.password().is_none() {
        true => Ok(to),
        false => Err(format!("{} redirects to {}, where this download may not go", host(from), host(&to))),
    }
}

/// A server as messages name it. The rest of an address from a redirect may hold a secret.
pub(in crate::shelf) fn host(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or("no host"))
}
