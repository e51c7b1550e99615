//! Addresses of repositories and package indexes, into which people write passwords and tokens.
//!
//! One rule covers all of them: only [`Address::shown`] is printed, logged or put into a fault.

use std::{borrow::Cow, fmt};

use percent_encoding::percent_decode_str;
use url::Url;

/// The text that replaces a hidden part.
const HIDDEN: &str = "***";

/// Shorter secrets are not searched for in a tool's output: they are part of too many words.
const SECRET_BYTES_MIN: usize = 4;

/// An address as its operator typed it. It has no `Display` and no `Serialize`, so that it cannot get into a
/// text by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    pub fn new(text: impl Into<String>) -> Address {
        Address(text.into())
    }

    /// As it was typed, with its secrets: to ask the server, and to keep it in `hob.toml`.
    pub fn revealed(&self) -> &str {
        &self.0
    }

    /// For people and programs: without user, password, query and fragment.
    pub fn shown(&self) -> String {
        shown(&self.0)
    }

    /// Whether the address is suitable for a package index: tools must take it as one word among others.
    #[doc(hidden)]
    pub fn fit_for_an_index(&self) -> Result<(), Unfit> {
        match Url::parse(&self.0) {
            Ok(url) if ["https", "http", "file"].contains(&url.scheme()) && !url.cannot_be_a_base() => {}
            _ => return Err(Unfit::NoUrl),
        }
        if self.0.contains(char::is_whitespace) { Err(Unfit::WhiteSpace) } else { Ok(()) }
    }

    /// `text` of a tool that was given this address, without the address's secrets.
    #[doc(hidden)]
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.replace(&self.0, &self.shown());
        for secret in secrets(&self.0) {
            text = text.replace(&secret, HIDDEN);
        }
        text
    }
}

/// Why an address does not suit a package index; the text continues a sentence about the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    NoUrl,
    WhiteSpace,
}

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Unfit::NoUrl => "is not a URL: wanted https://, http:// or file:///",
            Unfit::WhiteSpace => "has white space in it: in a URL that is written `%20`",
        })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "Address({})", self.shown())
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Address {
        Address::new(text)
    }
}

impl From<&String> for Address {
    fn from(text: &String) -> Address {
        Address::new(text)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Address {
        address.clone()
    }
}

/// Whether the text is a path on this machine, which has no secrets.
pub fn is_path(text: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| text.starts_with(start))
}

/// An address without user, password, query and fragment. A text that is not an address is shown without
/// everything that could be one of these.
fn shown(text: &str) -> String {
    if is_path(text) {
        return text.to_owned();
    }
    match Url::parse(text) {
        Ok(url) if !url.cannot_be_a_base() => shown_url(&url),
        _ => {
            let (start, rest) = match text.rsplit_once('@') {
                // The user and the password are in this part: after `//`, or from the start.
                Some((before, rest)) => {
                    (before.split_once("//").map_or(String::new(), |(scheme, _)| format!("{scheme}//")) + HIDDEN + "@", rest)
                }
                None => (String::new(), text),
            };
            match rest.find(['?', '#']) {
                Some(at) => format!("{start}{}{}{HIDDEN}", &rest[..at], &rest[at..=at]),
                None => format!("{start}{rest}"),
            }
        }
    }
}

/// `shown` for an address that is already parsed.
pub fn shown_url(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(url.query().map(|_| HIDDEN));
    plain.set_fragment(None);
    let has_user = !url.username().is_empty() || url.password().is_some();
    // Neither call fails if there was one.
    let _ = plain.set_password(None);
    let _ = plain.set_username("");
    match has_user {
        true => plain.as_str().replacen("://", &format!("://{HIDDEN}@"), 1),
        false => plain.into(),
    }
}

/// The parts of an address that must not be shown, longest first, both as typed and with escapes decoded.
fn secrets(text: &str) -> Vec<String> {
    let Ok(url) = Url::parse(text) else { return Vec::new() };
    let mut secrets = Vec::new();
    match url.password() {
        // Some services take a token as the user name, and a fixed word as the password.
        Some(password) => secrets.extend([format!("{}:{password}", url.username()), password.to_owned(), url.username().to_owned()]),
        // A token in place of the user name.
        None => secrets.push(url.username().to_owned()),
    }
    if let Some(query) = url.query() {
        secrets.push(query.to_owned());
        secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        secrets.extend(query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned())));
    }
    let plain: Vec<String> = secrets.iter().map(|secret| unescaped_lossy(secret)).collect();
    secrets.extend(plain);
    secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    secrets
}

/// Decodes `%41` to `A`. A malformed escape stays, and bytes that are not UTF-8 become U+FFFD.
fn unescaped_lossy(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Decodes a text that must be well escaped; `None` if it is not, or is not UTF-8.
pub fn unescaped(text: &str) -> Option<String> {
    // The library lets invalid escapes through.
    let is_escape = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    let is_well_escaped = text.split('%').skip(1).all(is_escape);
    is_well_escaped.then(|| percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results of Hob's former decoders, except for `%+f`, which is not an escape and was treated as one.
    #[test]
    fn escapes_are_undone_as_they_always_were() {
        for (text, strict, lossy) in [
            ("", Some(""), ""),
            ("plain", Some("plain"), "plain"),
            ("hob%2Fecho", Some("hob/echo"), "hob/echo"),
            ("hob%2fecho", Some("hob/echo"), "hob/echo"),
            ("a+b", Some("a+b"), "a+b"),
            ("%41%42", Some("AB"), "AB"),
            ("100%25", Some("100%"), "100%"),
            ("%C3%A9", Some("é"), "é"),
            ("é", Some("é"), "é"),
            ("%", None, "%"),
            ("%2", None, "%2"),
            ("%zz", None, "%zz"),
            ("%4z", None, "%4z"),
            ("%ff", None, "\u{fffd}"),
            ("%%41", None, "%A"),
            ("%€", None, "%€"),
            ("a%00b", Some("a\0b"), "a\0b"),
            ("%C3", None, "\u{fffd}"),
            ("%+f", None, "%+f"),
        ] {
            assert_eq!((unescaped(text).as_deref(), unescaped_lossy(text).as_str()), (strict, lossy), "{text}");
        }
    }

    #[test]
    fn what_is_secret_in_an_address_is_not_shown() {
        for (text, wanted) in [
            ("https://example.org/repo/", "https://example.org/repo/"),
            ("file:///srv/repo", "file:///srv/repo"),
            ("./some where/@repo", "./some where/@repo"),
            ("https://me:secret@example.org:8443/repo", "https://***@example.org:8443/repo"),
            ("https://secret@example.org/@scope/repo", "https://***@example.org/@scope/repo"),
            ("https://example.org/repo?token=secret#secret", "https://example.org/repo?***"),
            ("https://:secret@example.org/", "https://***@example.org/"),
            // Texts that are not addresses, or look like another kind.
            ("https://me:sec/ret@example.org/repo", "https://***@example.org/repo"),
            ("https://me:secret@exa mple.org/?secret", "https://***@exa mple.org/?***"),
            ("me:secret@example.org/repo", "***@example.org/repo"),
            ("ftp://me:secret@example.org/x", "ftp://***@example.org/x"),
            ("secret@", "***@"),
        ] {
            let address = Address::new(text);
            assert_eq!(address.shown(), wanted, "{text}");
            assert!(!format!("{address:?}").contains("secret"), "{address:?}");
            assert_eq!(address.revealed(), text);
        }
    }

    #[test]
    fn what_a_tool_printed_of_an_address_is_scrubbed() {
        let address = Address::new("https://me:p%40ss-word@example.org/simple?key=tok%2Fen&a=1");
        for said in [
            "error at https://me:p%40ss-word@example.org/simple?key=tok%2Fen&a=1/six/",
            "error at https://me:p%40ss-word@example.org/simple/six/",
            "wrong password `p@ss-word` and key tok/en or tok%2Fen",
        ] {
            let scrubbed = address.scrub(said);
            assert!(!["p@ss", "p%40ss", "tok/en", "tok%2Fen"].iter().any(|secret| scrubbed.contains(secret)), "{scrubbed}");
        }
        assert_eq!(Address::new("https://a@example.org/").scrub("a fault at /a"), "a fault at /a");
    }
}
