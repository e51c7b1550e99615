//! What comes or lies where a file of some kind should be, told by its first bytes: so that people hear what they have, and not only that it is
//! wrong. And the texts that people write, whose encoding is a matter of their editor.
//!
//! Asked only of what is wrong already: a model may look like any of these.

use super::{Code, Fault};

/// So many first bytes tell.
pub const HEAD_BYTES: usize = 1_024;

/// What is known to be taken for another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// What Git LFS puts in place of a large file: its digest and length.
    LfsPointer,
    /// A page for people: to sign in, that there is no such file, of a network that wants a visit first.
    WebPage,
    /// Compressed by a server or a tool that nobody asked to.
    Gzip,
    /// Text as some shells write it, two bytes a letter.
    Utf16,
}

impl StandIn {
    /// What the first bytes of a file are of. `media_type`: what a server calls it.
    pub fn of(head: &[u8], media_type: Option<&str>) -> Option<StandIn> {
        match head {
            [0x1f, 0x8b, ..] => return Some(StandIn::Gzip),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some(StandIn::Utf16),
            _ => {}
        }
        let head = head.strip_prefix(MARK.as_bytes()).unwrap_or(head).trim_ascii_start();
        let begins = |text: &str| head.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text.as_bytes()));
        if begins("version https://git-lfs.github.com/spec/") {
            return Some(StandIn::LfsPointer);
        }
        let is_page =
            begins("<!doctype html") || begins("<html") || media_type.is_some_and(|kind| kind.trim_start().starts_with("text/html"));
        is_page.then_some(StandIn::WebPage)
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            StandIn::LfsPointer => "a Git LFS pointer in place of the file",
            StandIn::WebPage => "a web page in place of the file",
            StandIn::Gzip => "gzip-compressed",
            StandIn::Utf16 => "text in UTF-16",
        }
    }

    /// The next step of who fetches from a recipe's place.
    pub fn hint_of_fetch(self) -> &'static str {
        match self {
            StandIn::LfsPointer => {
                "the recipe's publisher has to name where the file itself is (on the hub `hf:owner/name@revision:path`, which is `/resolve/` and not `/raw/`)"
            }
            StandIn::WebPage => {
                "open the address in a browser: this network or that server may want you to sign in; else tell the recipe's publisher"
            }
            StandIn::Gzip | StandIn::Utf16 => "tell the recipe's publisher: it is not the file that the recipe names",
        }
    }

    /// The next step of who fetches from a repository.
    pub fn hint_of_repository(self) -> &'static str {
        match self {
            StandIn::LfsPointer => {
                "the repository's maintainer has to put the files themselves there, not what Git LFS puts in their place"
            }
            StandIn::WebPage => {
                "open the address in a browser: this network may want you to sign in, or the host answers with a page for what is not there, where \
                 it has to answer 404; else check the address of the remote"
            }
            StandIn::Gzip => "its server has to send `metadata` and `targets` as they are: turn compression off for them",
            StandIn::Utf16 => "the repository's maintainer has to put the files there byte for byte",
        }
    }

    /// The next step of an author in whose folder it lies.
    pub fn hint_of_folder(self) -> &'static str {
        match self {
            StandIn::LfsPointer => "`git lfs pull` in that folder fetches the file itself",
            StandIn::WebPage => "download the file again: what was saved is a page that a browser shows",
            StandIn::Gzip => "`gunzip` unpacks it",
            StandIn::Utf16 => "save it as UTF-8; in older PowerShell `>` writes UTF-16, and `| Out-File -Encoding utf8` does not",
        }
    }
}

/// A byte order mark, which some editors put before a text.
const MARK: &str = "\u{feff}";

/// What is wrong with bytes that should be a text.
#[derive(Debug, PartialEq)]
pub struct NoText {
    /// In words that go on after what it is, e.g. "is text in UTF-16; wanted UTF-8".
    pub why: String,
    /// The next step of who wrote it, if one is known.
    pub next: Option<&'static str>,
}

impl NoText {
    /// As a fault about `what`; `next`: the step where nothing better is known.
    pub fn fault(self, code: Code, what: &str) -> Fault {
        let fault = Fault::new(code, format!("{what} {}", self.why));
        match self.next {
            Some(next) => fault.hint(next),
            None => fault,
        }
    }
}

/// A text that people or their tools wrote: UTF-8, less the mark that some editors put before it.
///
/// Errors: what it is instead.
pub fn text(bytes: Vec<u8>) -> Result<String, NoText> {
    let other = |found: StandIn| NoText { why: format!("is {}; wanted text in UTF-8", found.name()), next: Some(found.hint_of_folder()) };
    // Latin letters in UTF-16 are UTF-8 too, with a NUL beside each.
    if matches!(bytes[..], [1..=127, 0, 1..=127, 0, ..] | [0, 1..=127, 0, 1..=127, ..]) {
        return Err(other(StandIn::Utf16));
    }
    match String::from_utf8(bytes) {
        Ok(text) => match text.strip_prefix(MARK) {
            Some(rest) if rest.starts_with(MARK) => {
                Err(NoText { why: "begins with two byte order marks".to_owned(), next: Some("save it as UTF-8 without BOM") })
            }
            Some(rest) => Ok(rest.to_owned()),
            None => Ok(text),
        },
        Err(error) => Err(match StandIn::of(error.as_bytes(), None) {
            Some(found) => other(found),
            None => NoText { why: format!("is not UTF-8 (at byte {})", error.utf8_error().valid_up_to()), next: Some("save it as UTF-8") },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        let of = |head: &str| StandIn::of(head.as_bytes(), None);
        assert_eq!(of("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"), Some(StandIn::LfsPointer));
        for page in ["<!doctype html><title>", "\n <!DOCTYPE HTML PUBLIC>", "\u{feff}<html lang=de>", "<HTML>"] {
            assert_eq!(of(page), Some(StandIn::WebPage), "{page}");
        }
        assert_eq!(StandIn::of(b"<p>Log in", Some("text/html; charset=utf-8")), Some(StandIn::WebPage));
        assert_eq!(StandIn::of(b"\x1f\x8b\x08\0", None), Some(StandIn::Gzip));
        assert_eq!(StandIn::of(b"\xff\xfe{\0", None), Some(StandIn::Utf16));
        for other in ["", "version", "GGUF\u{3}", "<?xml version='1.0'?>", "{}"] {
            assert_eq!(StandIn::of(other.as_bytes(), Some("application/octet-stream")), None, "{other}");
        }
    }

    #[test]
    fn a_text_loses_its_mark_and_what_is_none_is_named() {
        assert_eq!(text("\u{feff}{}".into()), Ok("{}".to_owned()));
        assert_eq!(text("a\u{feff}".into()), Ok("a\u{feff}".to_owned()));
        let why = |bytes: &[u8]| text(bytes.to_vec()).unwrap_err().why;
        for utf16 in [&b"\xff\xfea\0"[..], b"a\0b\0\n\0", b"\0a\0b"] {
            assert_eq!(why(utf16), "is text in UTF-16; wanted text in UTF-8");
        }
        assert_eq!(why(b"\x1f\x8b\x08"), "is gzip-compressed; wanted text in UTF-8");
        assert_eq!(why(b"ab\xe9"), "is not UTF-8 (at byte 2)");
    }
}
