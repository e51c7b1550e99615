//! Transfers bytes from a repository: a folder (`file:`) or static files over http(s). Every wait and every
//! size is bounded.
//!
//! The client (`mod.rs`) decides what the bytes are worth. Nothing here is trusted, and every failure here is
//! "not reached", "not there" or "too long".

use std::{error::Error, fmt, fs::File, io::Read, path::PathBuf, time::Duration};

use bytes::Bytes;
use reqwest::{
    StatusCode, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
    redirect,
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    disk::open,
    model::{
        Address, Code, Fault, Hint, StandIn, act,
        address::{is_path, shown_url},
        has_run_out, hint, limits,
        stand_in::HEAD_BYTES,
    },
    shelf::{
        blocking,
        redirects::{allowed, onward},
    },
};

/// How long a transport waits. The defaults are the bounds of `model/limits`; tests wait less.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Connecting.
    pub connect: Duration,
    /// Between two chunks of a body.
    pub stall: Duration,
    /// One metadata file, from the request to its last byte.
    pub metadata: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_millis(limits::HTTP_CONNECT_MS),
            stall: Duration::from_millis(limits::HTTP_STALL_MS),
            metadata: Duration::from_millis(limits::METADATA_FETCH_MS),
        }
    }
}

/// The longest time that the transfer of `bytes` bytes may take; bounded whatever size a stranger announces.
pub(in crate::shelf) fn longest(bytes: u64) -> Duration {
    let slow = Duration::from_millis(limits::DOWNLOAD_SLOW_MS);
    let at_first = slow.as_secs() * limits::DOWNLOAD_BYTES_PER_SECOND_MIN;
    let time = match bytes.checked_sub(at_first) {
        None => Duration::from_secs(bytes / limits::DOWNLOAD_BYTES_PER_SECOND_MIN),
        Some(rest) => slow + Duration::from_secs(rest / limits::DOWNLOAD_LONG_BYTES_PER_SECOND_MIN),
    };
    time.min(Duration::from_millis(limits::DOWNLOAD_MAX_MS))
}

/// The location of one repository.
pub struct Transport {
    base: Base,
    patience: Patience,
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_tuple("Transport").field(&self.place("")).finish()
    }
}

enum Base {
    Folder(PathBuf),
    Http { client: reqwest::Client, url: Url },
}

/// The stored form of an address: a path becomes a `file:` URL, which means the same in every working
/// directory.
///
/// Errors: `usage` for a path that no URL can carry.
pub fn address(url: &str) -> Result<Address, Fault> {
    if !is_path(url) {
        // A scheme may be written in any case; `hob.toml` has it in lower case.
        let plain = url.split_once(':').map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
        return Ok(match plain {
            Some((scheme, rest)) if ["http", "https", "file"].contains(&scheme.as_str()) => Address::new(format!("{scheme}:{rest}")),
            _ => Address::new(url),
        });
    }
    let absolute =
        std::path::absolute(url).map_err(|error| Fault::io(format!("finding {}", std::path::Path::new(url).display()), &error))?;
    let url =
        Url::from_file_path(&absolute).map_err(|()| Fault::new(Code::Usage, format!("{} is no path for a URL", absolute.display())))?;
    Ok(Address::new(String::from(url)))
}

impl Transport {
    /// For `file:` URLs, plain absolute or `./` paths, and http(s) URLs.
    ///
    /// Errors: `usage` for anything else.
    pub fn new(address: impl Into<Address>, patience: Patience) -> Result<Transport, Fault> {
        let address = address.into();
        let url = address.revealed();
        let wrong = |why: &str| {
            Fault::new(Code::Usage, format!("`{}` is not a repository's address: {why}", address.shown()))
                .hint("wanted `https://host/path`, `http://host/path`, `file:///path` or a path that starts with `/` or `./`")
        };
        if is_path(url) {
            return Ok(Transport { base: Base::Folder(url.into()), patience });
        }
        let mut parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(wrong("it has a query or a fragment, which no file below it could carry"));
        }
        match parsed.scheme() {
            "file" => match parsed.to_file_path() {
                Ok(path) => Ok(Transport { base: Base::Folder(path), patience }),
                Err(()) => Err(wrong("a `file:` address names a local path")),
            },
            "http" | "https" => {
                if !parsed.path().ends_with('/') {
                    parsed.set_path(&format!("{}/", parsed.path()));
                }
                Ok(Transport { base: Base::Http { client: client(&parsed, patience)?, url: parsed }, patience })
            }
            // The scheme is not named: the text before the first colon may be a user's name.
            _ => Err(wrong("it begins with none of `https:`, `http:` and `file:`")),
        }
    }

    /// The location of the file at this relative path, for messages.
    pub fn place(&self, path: &str) -> String {
        match &self.base {
            Base::Folder(folder) => folder.join(path).display().to_string(),
            Base::Http { url, .. } => format!("{}{path}", shown_url(url)),
        }
    }

    /// The whole of one metadata file; `None` if the repository has no file of that name.
    ///
    /// Errors: `repository_unreachable`; `metadata_invalid` if it is longer than `max` bytes.
    pub async fn metadata(&self, file: &str, max: u64) -> Result<Option<Vec<u8>>, Fault> {
        let path = format!("metadata/{file}");
        let end = Instant::now() + self.patience.metadata;
        let late =
            |_| unreachable(&self.place(&path), &format!("`{file}` did not arrive whole within {} ms", self.patience.metadata.as_millis()));
        let Some(mut body) = timeout_at(end, self.open(&path, end)).await.map_err(late)?? else { return Ok(None) };
        let mut bytes = Vec::new();
        while let Some(chunk) = timeout_at(end, body.chunk()).await.map_err(late)?? {
            if (bytes.len() + chunk.len()) as u64 > max {
                return Err(Fault::new(
                    Code::MetadataInvalid,
                    format!("`{file}` at {} is longer than the {max} bytes that it may have", body.place),
                )
                .with("file", file)
                .hint("what answers there is not a sound repository: check the address of the remote"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let head = &bytes[..bytes.len().min(HEAD_BYTES)];
        let found = StandIn::of_text(head, None);
        if found.is_some() || !head.trim_ascii_start().starts_with(b"{") {
            body.looked_at(head, found)?;
        }
        Ok(Some(bytes))
    }

    /// Opens the file at this relative path; `None` if it does not exist. `end`: the time by which all of it
    /// must have arrived.
    ///
    /// Errors: `repository_unreachable`.
    pub async fn open(&self, path: &str, end: Instant) -> Result<Option<Body>, Fault> {
        let place = self.place(path);
        match &self.base {
            Base::Folder(folder) => {
                match std::fs::metadata(folder) {
                    Ok(metadata) if metadata.is_dir() => {}
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unread(&place, &error)),
                    _ => return Err(unreachable(&place, &format!("there is no folder {}", folder.display()))),
                }
                let found = folder.join(path);
                // Checked before opening: opening a pipe would wait for its writer.
                match std::fs::metadata(&found) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(unread(&place, &error)),
                    Ok(metadata) if !metadata.is_file() => return Err(unreachable(&place, "it is not a plain file")),
                    Ok(_) => {}
                }
                let file = found.canonicalize().and_then(|found| open::open(&found)).map_err(|error| unread(&place, &error))?;
                Ok(Some(Body { source: Source::File(Some(file)), place, stall: self.patience.stall }))
            }
            Base::Http { client, url } => {
                // Object stores read `+` in a path as a space; every server reads `%2B` alike.
                let asked = url.join(&path.replace('+', "%2B")).map_err(|error| unreachable(&place, &error.to_string()))?;
                let mut tries = 1;
                loop {
                    let response = self.asked(client, url, asked.clone(), path, &place).await?;
                    let status = response.status();
                    match status {
                        // With 203, a proxy changed the answer; the bytes tell how.
                        StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => {
                            return Ok(Some(Body { source: Source::Http(response), place, stall: self.patience.stall }));
                        }
                        // Object stores answer 403 for missing files when listing is forbidden.
                        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => return Ok(None),
                        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
                            if tries < limits::REPOSITORY_TRIES_MAX && Instant::now() + pause(&response) < end =>
                        {
                            tokio::time::sleep(pause(&response)).await;
                            tries += 1;
                        }
                        status if tries > 1 => return Err(unreachable(&place, &format!("it answered {status}, {tries} times"))),
                        StatusCode::UNAUTHORIZED
                        | StatusCode::PROXY_AUTHENTICATION_REQUIRED
                        | StatusCode::NETWORK_AUTHENTICATION_REQUIRED => {
                            return Err(unreachable(&place, &format!("it answered {status}")).hint(refused(status)));
                        }
                        status if status.is_success() => {
                            return Err(unreachable(&place, &format!("it answered {status}, with which no file comes")));
                        }
                        status => return Err(unreachable(&place, &format!("it answered {status}"))),
                    }
                }
            }
        }
    }

    /// Sends the request and follows redirects. For a target, a redirect may lead to any host, because the
    /// signed digest decides what the bytes are worth. For metadata, only the repository itself vouches for
    /// freshness, so a redirect must stay on the repository's host.
    async fn asked(&self, client: &reqwest::Client, base: &Url, mut url: Url, path: &str, place: &str) -> Result<reqwest::Response, Fault> {
        for _ in 0..=limits::REDIRECTS_MAX {
            let sent = timeout(self.patience.stall, client.get(url.clone()).send()).await;
            let response = sent
                .map_err(|_| unreachable(place, &format!("no answer within {} ms", self.patience.stall.as_millis())))?
                .map_err(|error| unreachable(place, &chain(error)))?;
            let Some(next) = onward(&url, &response) else { return Ok(response) };
            let next = next.map_err(|why| unreachable(place, &why))?;
            let is_own = next.origin() == base.origin();
            if !is_own && next.scheme() == "https" && base.scheme() == "http" && next.host_str() == base.host_str() {
                let why = "it redirects to the same host over `https:`".to_owned();
                return Err(unreachable(place, &why).hint("the repository has moved: give the remote's address with `https:`"));
            }
            if !is_own && !path.starts_with("targets/") {
                let to = next.host_str().unwrap_or("no host");
                return Err(unreachable(place, &format!("it redirects to another host, `{to}`, which the operator never named")));
            }
            url = match is_own {
                // Only this remote's own user and password are sent.
                true => {
                    let mut next = next;
                    let _ = next.set_username(base.username());
                    let _ = next.set_password(base.password());
                    next
                }
                false => allowed(base, &url, next).map_err(|why| unreachable(place, &why))?,
            };
        }
        Err(unreachable(place, &format!("more than {} redirects", limits::REDIRECTS_MAX)))
    }
}

/// The time that a server asks clients to wait, within bounds.
fn pause(response: &reqwest::Response) -> Duration {
    let asked = response.headers().get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok()).unwrap_or(1);
    Duration::from_secs(asked).min(Duration::from_millis(limits::REPOSITORY_PAUSE_MAX_MS))
}

fn client(url: &Url, patience: Patience) -> Result<reqwest::Client, Fault> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(patience.connect)
        .redirect(redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("hob/", env!("CARGO_PKG_VERSION")));
    // A proxy cannot reach this machine's own loopback.
    if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| Fault::new(Code::Internal, format!("the http client cannot be made: {}", chain(error))))
}

/// The bytes of one file, as they arrive.
#[derive(Debug)]
pub struct Body {
    source: Source,
    /// Where it comes from, for messages.
    pub place: String,
    stall: Duration,
}

#[derive(Debug)]
enum Source {
    /// `None` while a blocking thread reads.
    File(Option<File>),
    Http(reqwest::Response),
}

impl Body {
    /// Checks the first bytes of an answer that is not the wanted file. The answer is refused if it is known
    /// to be of another kind: the kind in `found`, or the kind that the server says.
    ///
    /// Errors: `repository_unreachable`, which names the kind.
    pub(in crate::shelf) fn looked_at(&self, head: &[u8], found: Option<StandIn>) -> Result<(), Fault> {
        let header = |name| match &self.source {
            Source::Http(response) => response.headers().get(name).and_then(|kind| kind.to_str().ok()),
            Source::File(_) => None,
        };
        let kind = header(CONTENT_TYPE);
        if let Some(how) = header(CONTENT_ENCODING).map(str::trim).filter(|how| !how.is_empty() && !how.eq_ignore_ascii_case("identity")) {
            let how: String = how.chars().take(32).collect();
            let why = format!("it comes compressed (`content-encoding: {how}`), which nobody asked for");
            return Err(unreachable(&self.place, &why).hint(StandIn::Gzip.hint_of_repository()));
        }
        // A media type alone says little: some servers have one for all files.
        let found = found.or_else(|| StandIn::of(head, kind).filter(|_| head.trim_ascii_start().starts_with(b"<")));
        match found {
            None => Ok(()),
            Some(found) => {
                Err(unreachable(&self.place, &format!("what answers there is {}", found.name())).hint(found.hint_of_repository()))
            }
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// Errors: `repository_unreachable` for a broken or stalled line.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        match &mut self.source {
            Source::File(open) => {
                let Some(mut file) = open.take() else { return Ok(None) };
                let read = blocking(move || {
                    let mut bytes = Vec::with_capacity(limits::COPY_CHUNK_BYTES);
                    Ok(file.by_ref().take(limits::COPY_CHUNK_BYTES as u64).read_to_end(&mut bytes).map(|_| (file, bytes)))
                });
                let (file, bytes) = read.await?.map_err(|error| unread(&self.place, &error))?;
                *open = Some(file);
                Ok((!bytes.is_empty()).then(|| bytes.into()))
            }
            Source::Http(response) => timeout(self.stall, response.chunk())
                .await
                .map_err(|_| unreachable(&self.place, &format!("no byte came for {} ms", self.stall.as_millis())))?
                .map_err(|error| unreachable(&self.place, &chain(error))),
        }
    }
}

/// A fault about a file of a repository on this machine; if the machine has run out of something, the
/// repository is not to blame.
fn unread(place: &str, error: &std::io::Error) -> Fault {
    match has_run_out(error) {
        true => Fault::io(format!("reading {place}"), error),
        false => unreachable(place, &error.to_string()),
    }
}

/// The next step if a server asks for credentials.
fn refused(status: StatusCode) -> Hint {
    match status {
        StatusCode::UNAUTHORIZED => {
            hint![
                "it wants a user and a password: they stand in the remote's address (`https://user:password@host/path`), with which ",
                act::remote_add("NAME"),
                " names it anew"
            ]
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            "the proxy of this network wants a user and a password: see the variable that names it (HTTPS_PROXY, HTTP_PROXY)".into()
        }
        _ => "this network wants you to sign in first: open any `http:` address in a browser, then try again".into(),
    }
}

fn unreachable(place: &str, why: &str) -> Fault {
    Fault::new(Code::RepositoryUnreachable, format!("{place} cannot be read: {why}"))
        .hint("check the address and the network, then try again; what is installed goes on working")
}

/// An error with its causes, because reqwest's own text stops at "error sending request". Omits the address,
/// which may contain a password or, after a redirect, a token.
pub(in crate::shelf) fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_size_that_a_stranger_announces_makes_a_fetch_long() {
        for (bytes, seconds) in [
            (0, 0),
            (4_096_000, 1_000),
            (3_600 * 4_096, 3_600),
            (3_600 * 4_096 + 65_536_000, 4_600),
            (1_000_000_000, 18_633),
            (limits::MODEL_BYTES_MAX, 86_400),
            (u64::MAX, 86_400),
        ] {
            assert_eq!(longest(bytes).as_secs(), seconds, "{bytes}");
        }
    }
}
