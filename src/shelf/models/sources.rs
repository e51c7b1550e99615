//! Resolves the places that recipes name for their models to addresses, and chooses the credentials for them.
//!
//! The one secret of model fetching lies here: a token goes into one header for one server, and nowhere else.

use std::{ffi::OsString, fmt, path::PathBuf};

use reqwest::{Url, header::HeaderValue};

use crate::{
    model::{Address, Code, Fault, ModelSource, RecipeName, address::shown_url, limits, manifest::source::is_loopback, stand_in},
    shelf::{durable, repository::transport::Patience},
};

/// The target of `hf:` unless HF_ENDPOINT names another.
const HUB: &str = "https://huggingface.co";

/// How models are fetched from the places that their recipes name.
#[derive(Clone, Default)]
pub struct Sources {
    endpoint: Option<String>,
    token: Option<String>,
    token_file: Option<PathBuf>,
    patience: Patience,
}

/// One file at one server.
pub(in crate::shelf) struct Place {
    pub url: Url,
    /// Sent only to the server of `url`.
    pub token: Option<HeaderValue>,
    pub patience: Patience,
    /// What to do if a server does not give the file.
    pub hint: &'static str,
}

/// Whether a recipe from the repository at `remote` may send its operator's host to `source`. Services of the
/// host's own machine are reachable only for recipes that also came from that machine; otherwise a stranger's
/// recipe could query any of them.
///
/// Errors: `bundle_invalid`.
pub fn may_name(recipe: &RecipeName, source: &ModelSource, remote: &Address) -> Result<(), Fault> {
    let is_near = |url: &Url| url.scheme() == "file" || is_loopback(url);
    match source {
        ModelSource::Web(url) if is_loopback(url) && !Url::parse(remote.revealed()).is_ok_and(|remote| is_near(&remote)) => {
            let text = format!("`{recipe}` names a place on this machine for a model, {source}, but comes from {}", remote.shown());
            Err(Fault::new(Code::BundleInvalid, text).hint("its publisher has to name a place that others can reach"))
        }
        _ => Ok(()),
    }
}

impl Sources {
    /// Reads HF_ENDPOINT, HF_TOKEN and HF_TOKEN_PATH, HF_HOME, XDG_CACHE_HOME or HOME, as other programs of
    /// that hub do. Opens no file before a model is fetched.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Sources {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.trim().is_empty());
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = || path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let home = || path("HF_HOME").or_else(|| Some(cache()?.join("huggingface")));
        Sources {
            endpoint: text("HF_ENDPOINT"),
            token: text("HF_TOKEN"),
            token_file: path("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token"))),
            patience: Patience::default(),
        }
    }

    /// Waits as long as `patience` says.
    #[doc(hidden)]
    pub fn with_patience(mut self, patience: Patience) -> Sources {
        self.patience = patience;
        self
    }

    /// The address of the file.
    ///
    /// Errors: `invalid_config` for an invalid HF_ENDPOINT or a token that no header can carry; `io`.
    pub(in crate::shelf) fn place(&self, source: &ModelSource) -> Result<Place, Fault> {
        let patience = self.patience;
        let (repository, revision, path) = match source {
            ModelSource::Hub { repository, revision, path } => (repository, revision, path),
            ModelSource::Web(url) => {
                return Ok(Place { url: url.clone(), token: None, patience, hint: "the recipe's publisher has to name another place" });
            }
        };
        let mut url = self.endpoint()?;
        let not_a_base = || Fault::new(Code::Internal, format!("{source} has no address"));
        let mut parts = url.path_segments_mut().map_err(|()| not_a_base())?;
        // Each part is escaped as one part: a revision may contain slashes.
        parts.pop_if_empty().extend(repository.split('/')).push("resolve").push(revision).extend(path.split('/'));
        drop(parts);
        let token = self.token()?;
        let hint = match &token {
            None => {
                "if it is private or gated, set HF_TOKEN to a token of an account that may read it; else the recipe names what is not there"
            }
            Some(_) => {
                "the token that was shown may not read it: accept the model's terms, or set HF_TOKEN to a token of an account that may"
            }
        };
        Ok(Place { url, token, patience, hint })
    }

    fn endpoint(&self) -> Result<Url, Fault> {
        let text = self.endpoint.as_deref().unwrap_or(HUB);
        // The text itself is left out: an address may contain a password, which a log would show.
        let wrong = |why: &str| {
            Fault::new(Code::InvalidConfig, format!("HF_ENDPOINT is not an address to fetch from: {why}"))
                .hint("wanted `https://host`, or `http:` on this machine's own loopback; without HF_ENDPOINT it is the public hub")
        };
        let url = Url::parse(text.trim()).map_err(|error| wrong(&error.to_string()))?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(wrong("`http:` to another machine would show it the token in the open")),
            other => return Err(wrong(&format!("`{other}:` is not fetched from"))),
        }
        match url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none() {
            true => Ok(url),
            false => Err(wrong("it has a name, a password, a query or a fragment")),
        }
    }

    fn token(&self) -> Result<Option<HeaderValue>, Fault> {
        let (token, place) = match (&self.token, &self.token_file) {
            (Some(token), _) => (token.clone(), "HF_TOKEN".to_owned()),
            (None, Some(path)) => match durable::read(path, limits::HUB_TOKEN_BYTES_MAX)? {
                Some(bytes) => {
                    let what = path.display().to_string();
                    (stand_in::text(bytes).map_err(|wrong| wrong.fault(Code::InvalidConfig, &what))?, what)
                }
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let token = token.trim();
        if token.is_empty() {
            return Ok(None);
        }
        let header = match token.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => HeaderValue::from_str(&format!("Bearer {token}")).ok(),
            false => None,
        };
        let mut header = header.ok_or_else(|| {
            Fault::new(Code::InvalidConfig, format!("{place} holds no token: wanted one word of visible ASCII"))
                .hint("correct it, or take it away: without a token what is public is still fetched")
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// Omits the secrets of its address; its token prints as `Sensitive`.
impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("Place").field("url", &shown_url(&self.url)).field("token", &self.token).finish_non_exhaustive()
    }
}

/// Omits the token: a host may print this when it shows its own state.
impl fmt::Debug for Sources {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "...");
        formatter.debug_struct("Sources").field("token", &token).field("token_file", &self.token_file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sources(variables: &[(&str, &str)]) -> Sources {
        Sources::from_variables(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    fn place(variables: &[(&str, &str)]) -> Place {
        sources(variables).place(&"hf:o/n@refs/pr/1:a b/c.bin".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_file_of_the_hub_has_an_address_at_the_endpoint() {
        assert_eq!(place(&[]).url.as_str(), "https://huggingface.co/o/n/resolve/refs%2Fpr%2F1/a%20b/c.bin");
        for endpoint in ["https://mirror.example.org/hub", "https://mirror.example.org/hub/"] {
            let found = place(&[("HF_ENDPOINT", endpoint)]).url;
            assert_eq!(found.as_str(), "https://mirror.example.org/hub/o/n/resolve/refs%2Fpr%2F1/a%20b/c.bin");
        }
        for wrong in ["http://example.org", "ftp://example.org", "example.org", "https://me:secret@example.org", "https://example.org/?a"] {
            let fault = sources(&[("HF_ENDPOINT", wrong)]).place(&"hf:o/n@main:a".parse().unwrap()).unwrap_err();
            assert!(fault.code == Code::InvalidConfig && !fault.message.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn only_what_comes_from_this_machine_names_places_on_it() {
        let may = |source: &str, remote: &str| may_name(&"a/b".parse().unwrap(), &source.parse().unwrap(), &remote.into());
        let here = "http://127.0.0.1:8080/a";
        for (source, remote) in [
            (here, "file:///srv/repository"),
            (here, "http://localhost:80/"),
            ("https://example.org/a", "https://recipes.example.org"),
            ("hf:o/n@main:a", "https://recipes.example.org"),
        ] {
            may(source, remote).unwrap();
        }
        for source in [here, "https://localhost/a", "http://[::1]/a"] {
            let fault = may(source, "https://recipes.example.org/").unwrap_err();
            assert!(fault.code == Code::BundleInvalid && fault.message.contains(source), "{fault}");
        }
    }

    #[test]
    fn the_token_is_the_variable_or_the_file_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        fs::create_dir_all(folder.path().join(".cache/huggingface")).unwrap();
        fs::write(folder.path().join("token"), "of-hf-home\n").unwrap();
        fs::write(folder.path().join(".cache/huggingface/token"), "of-home\n").unwrap();
        let token = |variables: &[(&str, &str)]| place(variables).token.map(|header| header.to_str().unwrap().to_owned());
        assert_eq!(token(&[("HOME", home)]).unwrap(), "Bearer of-home");
        assert_eq!(token(&[("HOME", home), ("HF_HOME", home)]).unwrap(), "Bearer of-hf-home");
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " given ")]).unwrap(), "Bearer given");
        assert_eq!((token(&[("HF_HOME", "/nowhere")]), token(&[])), (None, None));
        let secret = sources(&[("HF_TOKEN", "hf_secret")]);
        assert!(
            !format!("{secret:?}").contains("hf_secret") && !format!("{:?}", place(&[("HF_TOKEN", "hf_secret")])).contains("hf_secret")
        );
        let fault = sources(&[("HF_TOKEN", "two words")]).place(&"hf:o/n@main:a".parse().unwrap()).unwrap_err();
        assert!(fault.code == Code::InvalidConfig && !fault.message.contains("two words"), "{fault}");
        // A server that is not the hub never gets the token.
        assert!(secret.place(&"https://example.org/a".parse().unwrap()).unwrap().token.is_none());
    }
}
