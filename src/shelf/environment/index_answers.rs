//! Asks the package indexes about one package after an install failed, and reports what each answered.
//!
//! `uv` skips an index that refuses, or that answers with a sign-in page, and then says that no index has the
//! package. Only the user whom such an index asks for something can act. So each index is asked once more,
//! and the fault names it.

use std::time::Duration;

use reqwest::{Response, StatusCode, Url, header::CONTENT_TYPE, redirect};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    disk::open,
    model::{Address, Fault, Hint, StandIn, act, hint, limits, manifest::source::is_loopback, stand_in::HEAD_BYTES},
    shelf::{blocking, repository::transport::chain},
};

/// What one index answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shelf) enum Answer {
    /// Its page for the package.
    Page,
    /// It has no package of that name.
    Nothing,
    /// It asks for credentials, or does not serve this client.
    Refuses(StatusCode),
    /// Something else instead of a page for the package.
    Other(StandIn),
    /// An answer that says nothing about the package; the text is for people.
    Unknown(String),
}

/// One index, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shelf) struct Answered {
    /// Without its secrets.
    pub index: String,
    pub answer: Answer,
}

impl Answered {
    /// For people, e.g. `https://a/simple answers 401 Unauthorized`.
    pub fn told(&self) -> String {
        let said = match &self.answer {
            Answer::Page => "has a page of it".to_owned(),
            Answer::Nothing => "has no package of that name".to_owned(),
            Answer::Refuses(status) => format!("answers {status}"),
            Answer::Other(StandIn::WebPage) => "answers with a web page that lists no files".to_owned(),
            Answer::Other(found) => format!("answers what is {}", found.name()),
            Answer::Unknown(why) => why.clone(),
        };
        format!("{} {said}", self.index)
    }

    /// The next step, if this index may have the package that the others lack.
    pub fn next(&self) -> Option<Hint> {
        let index = &self.index;
        match &self.answer {
            Answer::Page | Answer::Nothing | Answer::Unknown(_) => None,
            Answer::Refuses(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => Some(PROXY.into()),
            Answer::Refuses(StatusCode::NETWORK_AUTHENTICATION_REQUIRED) => Some(NETWORK.into()),
            // `shown_url` shows secrets this way.
            Answer::Refuses(_) if index.contains("://***@") => {
                Some(hint![format!("{index} does not take the user and the password in its address: correct them in "), act::index_urls()])
            }
            Answer::Refuses(_) => Some(hint![
                format!("{index} wants a user and a password: write them into its address in "),
                act::index_urls(),
                ", as in `https://user:password@host/simple`"
            ]),
            Answer::Other(StandIn::WebPage) => Some(hint![
                format!("open {index} in a browser: this network or that server may want you to sign in; else correct it in "),
                act::index_urls(),
                ", where an index often ends in `/simple`"
            ]),
            Answer::Other(_) => Some(hint![format!("what answers at {index} is no package index: correct it in "), act::index_urls()]),
        }
    }
}

/// Adds the answers of the indexes to a fault about `package`; also returns the next step, if an index
/// withholds something.
pub(in crate::shelf) fn told(fault: Fault, package: &str, answers: &[Answered]) -> (Fault, Option<Hint>) {
    if answers.is_empty() {
        return (fault, None);
    }
    let told: Vec<String> = answers.iter().map(Answered::told).collect();
    let message = format!("{}\nasked for {package}: {}", fault.message, told.join("; "));
    (Fault { message, ..fault }.with("answers", told), answers.iter().find_map(Answered::next))
}

/// The next step if a proxy refuses.
pub(in crate::shelf) const PROXY: &str =
    "the proxy of this network wants a user and a password: see the variables that name it (HTTPS_PROXY, HTTP_PROXY)";

/// The next step if a network refuses.
pub(in crate::shelf) const NETWORK: &str = "this network wants you to sign in first: open any `http:` address in a browser, then try again";

/// Asks all indexes at once for the page of the package, for at most [`limits::INDEX_ANSWER_MS`].
pub(in crate::shelf) async fn ask(indexes: &[Address], package: &str) -> Vec<Answered> {
    let end = Instant::now() + Duration::from_millis(limits::INDEX_ANSWER_MS);
    let asked: Vec<_> = indexes
        .iter()
        .map(|index| {
            let (url, package) = (index.revealed().to_owned(), package.to_owned());
            let one =
                async move { timeout_at(end, one(&url, &package)).await.unwrap_or_else(|_| Answer::Unknown("does not answer".to_owned())) };
            (index.shown(), tokio::spawn(one))
        })
        .collect();
    let mut answers = Vec::new();
    for (index, task) in asked {
        let answer = task.await.unwrap_or_else(|_| Answer::Unknown("was not asked".to_owned()));
        answers.push(Answered { index, answer });
    }
    answers
}

async fn one(index: &str, package: &str) -> Answer {
    let Ok(mut url) = Url::parse(index) else { return Answer::Unknown("has no address".to_owned()) };
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().push(package).push("");
    }
    if url.scheme() == "file" {
        let Ok(page) = url.to_file_path() else { return Answer::Unknown("is no path".to_owned()) };
        let read = blocking(move || Ok(open::read_of_user(&page.join("index.html"), limits::INDEX_PAGE_BYTES_MAX)));
        return match read.await {
            Ok(Ok(bytes)) => of_page(&bytes, None),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Answer::Nothing,
            Ok(Err(error)) => Answer::Unknown(format!("cannot be read: {error}")),
            Err(fault) => Answer::Unknown(fault.message),
        };
    }
    let has_user = !url.username().is_empty() || url.password().is_some();
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::limited(limits::REDIRECTS_MAX))
        .referer(false)
        .user_agent(concat!("hob/", env!("CARGO_PKG_VERSION")));
    // A proxy cannot reach this machine's own loopback.
    if is_loopback(&url) {
        builder = builder.no_proxy();
    }
    let asked = match builder.build() {
        Ok(client) => client.get(url.clone()).header("accept", "text/html").send().await,
        Err(error) => Err(error),
    };
    let mut response = match asked {
        Ok(response) => response,
        Err(error) => return Answer::Unknown(format!("cannot be reached: {}", chain(error))),
    };
    match response.status() {
        StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => {
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
            match first_bytes(&mut response).await {
                Ok(bytes) => of_page(&bytes, kind.as_deref()),
                Err(why) => Answer::Unknown(why),
            }
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => Answer::Nothing,
        // `uv` reads credentials for this host from a file that Hob does not read, so it is unknown what `uv`
        // was told.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !has_user && is_in_netrc(url.host_str().unwrap_or_default()).await => {
            Answer::Unknown("was not asked again: its user is in `.netrc`".to_owned())
        }
        status @ (StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED
        | StatusCode::NETWORK_AUTHENTICATION_REQUIRED) => Answer::Refuses(status),
        StatusCode::NO_CONTENT => Answer::Other(StandIn::Empty),
        status => Answer::Unknown(format!("answers {status}")),
    }
}

/// The first bytes of a page, as many as Hob inspects.
async fn first_bytes(response: &mut Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let stall = Duration::from_millis(limits::HTTP_STALL_MS);
    while (bytes.len() as u64) < limits::INDEX_PAGE_BYTES_MAX {
        match timeout(stall, response.chunk()).await {
            Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => return Err(format!("breaks off: {}", chain(error))),
            Err(_) => return Err("sends nothing more".to_owned()),
        }
    }
    Ok(bytes)
}

/// Classifies a page. A page is about the package if it names a file, or says in an index's words that it has
/// none.
fn of_page(bytes: &[u8], media_type: Option<&str>) -> Answer {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let words = [".whl", ".tar.gz", ".zip", "pypi:repository-version", "links for ", "simple index", "\"files\""];
    if words.iter().any(|word| text.contains(word)) {
        return Answer::Page;
    }
    match StandIn::of(&bytes[..bytes.len().min(HEAD_BYTES)], media_type) {
        Some(found) => Answer::Other(found),
        None => Answer::Unknown("answers something that is no page".to_owned()),
    }
}

async fn is_in_netrc(host: &str) -> bool {
    let Some(home) = std::env::var_os("HOME") else { return false };
    let path = std::path::Path::new(&home).join(".netrc");
    let read = blocking(move || Ok(open::read(&path, limits::NETRC_BYTES_MAX).unwrap_or_default())).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&read);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    words.contains(&"default") || words.windows(2).any(|pair| pair[0] == "machine" && pair[1] == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_a_package_names_a_file_or_speaks_as_an_index_does() {
        for page in [
            "<a href='six-1.17.0-py2.py3-none-any.whl'>six</a>",
            "<!DOCTYPE html><html><body><a href=\"../six-1.0.TAR.GZ#sha256=0\">",
            "<!DOCTYPE html><html><head><meta name=\"pypi:repository-version\" content=\"1.0\">",
            "<html><title>Links for six</title>",
            "{\"files\": [], \"meta\": {}}",
        ] {
            assert_eq!(of_page(page.as_bytes(), Some("text/html")), Answer::Page, "{page}");
        }
        let other = |text: &str, kind| of_page(text.as_bytes(), kind);
        assert_eq!(other("<html><form action=/login>", None), Answer::Other(StandIn::WebPage));
        assert_eq!(other("<?xml version='1.0'?><html>", None), Answer::Other(StandIn::WebPage));
        assert_eq!(other("Sign in", Some("text/html")), Answer::Other(StandIn::WebPage));
        assert_eq!(other("", Some("text/html")), Answer::Other(StandIn::Empty));
        assert!(matches!(other("Sign in", Some("text/plain")), Answer::Unknown(_)));
    }
}
