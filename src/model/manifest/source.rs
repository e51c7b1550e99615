//! `from` of a `[[model]]`: the source of its bytes if they are not published beside the bundle.
//!
//! A signed target contains it too, so it is separate from the manifest. It does not affect trust: the bytes
//! from there are compared with the digest that the recipe names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::model::{
    address::{Address, shown_url},
    fault::{Code, Fault},
    limits,
};

/// Where the bytes of a model come from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum ModelSource {
    /// An `https:` address, or an `http:` one on this machine's loopback.
    Web(Url),
    /// `hf:OWNER/NAME@REVISION:PATH`: a file of a repository on the Hugging Face Hub, or on the host that
    /// HF_ENDPOINT names instead.
    Hub { repository: String, revision: String, path: String },
}

impl ModelSource {
    /// The source exactly as the manifest says it, with its query. `Display` is for people.
    pub fn exact(&self) -> String {
        match self {
            ModelSource::Web(url) => url.as_str().to_owned(),
            ModelSource::Hub { .. } => self.to_string(),
        }
    }
}

/// The expected form, for people.
const WANTED: &str = "wanted `https://host/path`, or `hf:owner/name@revision:path/in/the/repository`";

impl FromStr for ModelSource {
    /// `usage`.
    type Err = Fault;

    fn from_str(text: &str) -> Result<ModelSource, Fault> {
        source(text).map_err(|why| Fault::new(Code::Usage, why).hint(WANTED))
    }
}

fn source(text: &str) -> Result<ModelSource, String> {
    let short = |text: &str| match text.len() <= limits::MODEL_FROM_BYTES_MAX {
        true => Ok(()),
        false => Err(format!("{} bytes; at most {} are taken", text.len(), limits::MODEL_FROM_BYTES_MAX)),
    };
    short(text)?;
    match text.strip_prefix("hf:") {
        Some(rest) => hub(rest).map_err(|why| format!("`{text}`: {why}")),
        None => {
            let url = web(text).map_err(|why| format!("`{}`: {why}", Address::new(text).shown()))?;
            // The canonical form must be short too: it escapes letters that an address cannot have.
            short(url.as_str())?;
            Ok(ModelSource::Web(url))
        }
    }
}

fn web(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}: {WANTED}"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err("`http:` to another machine is open to everybody on the way: wanted `https:`".into()),
        "file" => return Err("a file of this machine is on no other: put it into the recipe folder's `models/`, without `from`".into()),
        other => return Err(format!("`{other}:` is not fetched from: {WANTED}")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it carries a name or a password, which everybody could read in the recipe".into());
    }
    match url.fragment() {
        Some(_) => Err("it has a fragment, which no server is ever sent".into()),
        None => Ok(url),
    }
}

/// Whether an address leads to this machine itself, as far as it says so: loopback, in any spelling, and the
/// unspecified address, which the kernel treats as loopback. Names are not resolved.
pub fn is_loopback(url: &Url) -> bool {
    let is_own = |address: std::net::Ipv4Addr| address.is_loopback() || address.is_unspecified();
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => is_own(address),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified() || address.to_ipv4_mapped().is_some_and(is_own),
        None => false,
    }
}

fn hub(text: &str) -> Result<ModelSource, String> {
    let Some((repository, rest)) = text.split_once('@') else {
        return Err(format!("it names no revision: {WANTED}; a commit is best, which never moves"));
    };
    let (revision, path) = rest.split_once(':').ok_or_else(|| format!("it names no file: {WANTED}"))?;
    let is_word = |part: &str| {
        !part.is_empty() && !part.starts_with(['.', '-']) && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    // The earliest models on the Hub have no owner.
    if !(repository.split('/').all(is_word) && repository.split('/').count() <= 2) {
        return Err(format!("`{repository}` is no repository: {WANTED}"));
    }
    if !revision.split('/').all(is_word) {
        return Err(format!("`{revision}` is no revision, e.g. a commit, a tag or `refs/pr/1`"));
    }
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(|c| c.is_control() || c == '\\');
    match path.split('/').all(is_part) {
        true => Ok(ModelSource::Hub { repository: repository.into(), revision: revision.into(), path: path.into() }),
        false => Err(format!("`{path}` is no path inside a repository")),
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            // The query of a fetch may contain a token, so messages do not show it.
            ModelSource::Web(url) => formatter.write_str(&shown_url(url)),
            ModelSource::Hub { repository, revision, path } => write!(formatter, "hf:{repository}@{revision}:{path}"),
        }
    }
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl TryFrom<String> for ModelSource {
    type Error = Fault;
    fn try_from(text: String) -> Result<ModelSource, Fault> {
        text.parse()
    }
}

impl From<ModelSource> for String {
    fn from(source: ModelSource) -> String {
        source.exact()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stand_there_is_read_and_written_the_same() {
        for text in [
            "https://example.org/models/a.bin?version=3",
            "http://127.0.0.1:8080/a.bin",
            "http://localhost/a.bin",
            "http://[::1]/a.bin",
            "hf:owner/name@0123456789abcdef0123456789abcdef01234567:onnx/model.onnx",
            "hf:gpt2@main:config.json",
            "hf:owner/name@refs/pr/1:a b.bin",
        ] {
            assert_eq!(text.parse::<ModelSource>().unwrap().exact(), text);
        }
    }

    #[test]
    fn what_may_not_stand_there_says_why() {
        for (text, why) in [
            ("http://example.org/a.bin", "wanted `https:`"),
            ("http://127.0.0.1.example.org/a.bin", "wanted `https:`"),
            ("http://10.0.0.1/a.bin", "wanted `https:`"),
            ("file:///etc/passwd", "on no other"),
            ("ftp://example.org/a", "`ftp:` is not fetched from"),
            ("models/a.bin", "wanted `https://host/path`"),
            ("https://me:secret@example.org/a", "a name or a password"),
            ("https://example.org/a#b", "a fragment"),
            ("hf:owner/name:a.bin", "names no revision"),
            ("hf:owner/name@main", "names no file"),
            ("hf:owner/name@:a.bin", "is no revision"),
            ("hf:owner/name@../x:a.bin", "is no revision"),
            ("hf:a/b/c@main:a.bin", "is no repository"),
            ("hf:../b@main:a.bin", "is no repository"),
            ("hf:owner/name@main:../a.bin", "is no path"),
            ("hf:owner/name@main:/a.bin", "is no path"),
        ] {
            let found = text.parse::<ModelSource>().unwrap_err();
            assert!(found.message.contains(why), "{text}: {found}");
        }
        let long = format!("https://example.org/{}", "a".repeat(limits::MODEL_FROM_BYTES_MAX));
        assert!(long.parse::<ModelSource>().unwrap_err().message.contains("at most 2048"));
        let grows = format!("https://example.org/{}", "ä".repeat(limits::MODEL_FROM_BYTES_MAX / 4));
        assert!(grows.parse::<ModelSource>().unwrap_err().message.contains("at most 2048"));
    }
}
