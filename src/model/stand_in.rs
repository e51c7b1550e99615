//! Recognises, by its first bytes, content that came in place of a file of another kind, so that people learn
//! what they have, and not only that it is wrong. Also decodes texts that people write, in the encoding that
//! their editor chose.
//!
//! Use it only for files that are already known to be wrong: a model may look like any of these.

use super::{Code, Fault};

/// How many first bytes of a file are examined.
pub const HEAD_BYTES: usize = 1_024;

/// Content that is known to be mistaken for the wanted file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// The pointer file that Git LFS puts in place of a large file: its digest and length.
    LfsPointer,
    /// A web page: a login form, an error page, or the page of a network that requires a login.
    WebPage,
    /// Content compressed by a server or a tool without being asked to.
    Gzip,
    /// Text in UTF-16, as some shells write it.
    Utf16,
    /// A text with a byte order mark from an editor or a tool, where exact bytes are needed.
    Marked,
    /// An empty file.
    Empty,
}

impl StandIn {
    /// Recognises the first bytes of a file. `media_type`: the type that a server states.
    pub fn of(head: &[u8], media_type: Option<&str>) -> Option<StandIn> {
        if head.is_empty() {
            return Some(StandIn::Empty);
        }
        if head.starts_with(b"\x1f\x8b") {
            return Some(StandIn::Gzip);
        }
        if is_utf16(head) {
            return Some(StandIn::Utf16);
        }
        let text = head.strip_prefix(MARK.as_bytes()).unwrap_or(head).trim_ascii_start();
        if begins(text, "version https://git-lfs.github.com/spec/") {
            return Some(StandIn::LfsPointer);
        }
        let is_said =
            media_type.map(str::trim_start).is_some_and(|kind| begins(kind.as_bytes(), "text/html") || begins(kind.as_bytes(), XHTML));
        (is_page(text) || is_said).then_some(StandIn::WebPage)
    }

    /// The same for a text that is needed byte for byte, so that a byte order mark is wrong too.
    pub fn of_text(head: &[u8], media_type: Option<&str>) -> Option<StandIn> {
        StandIn::of(head, media_type).or_else(|| head.starts_with(MARK.as_bytes()).then_some(StandIn::Marked))
    }

    /// Whether such content is never a file of a recipe. The other kinds may be the wanted file, in another
    /// form.
    pub fn is_no_file(self) -> bool {
        matches!(self, StandIn::LfsPointer | StandIn::WebPage | StandIn::Empty)
    }

    /// The name for messages.
    pub fn name(self) -> &'static str {
        match self {
            StandIn::LfsPointer => "a Git LFS pointer in place of the file",
            StandIn::WebPage => "a web page in place of the file",
            StandIn::Gzip => "gzip-compressed",
            StandIn::Utf16 => "text in UTF-16",
            StandIn::Marked => "text with a byte order mark before it",
            StandIn::Empty => "empty",
        }
    }

    /// The next step for a fetch from the address in a recipe.
    pub fn hint_of_fetch(self) -> &'static str {
        match self {
            StandIn::LfsPointer => {
                "the recipe's publisher has to name where the file itself is (on the hub `hf:owner/name@revision:path`, which is `/resolve/` and not `/raw/`)"
            }
            StandIn::WebPage => {
                "open the address in a browser: this network or that server may want you to sign in; else tell the recipe's publisher"
            }
            StandIn::Gzip | StandIn::Utf16 | StandIn::Marked => "tell the recipe's publisher: it is not the file that the recipe names",
            StandIn::Empty => "try again, and tell the recipe's publisher if it remains: nothing is there where the recipe names a file",
        }
    }

    /// The next step for a fetch from a repository.
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
            StandIn::Utf16 | StandIn::Marked => "the repository's maintainer has to put the files there byte for byte",
            StandIn::Empty => {
                "try again, and tell the repository's maintainer if it remains: an upload that was cut off leaves such a file"
            }
        }
    }

    /// The next step for a caller that sent it in place of JSON.
    pub fn hint_of_sender(self) -> &'static str {
        match self {
            StandIn::Gzip => "send it as it is: no body is taken compressed",
            StandIn::Utf16 => "send it in UTF-8; in PowerShell `[Text.Encoding]::UTF8.GetBytes($text)` makes it so",
            StandIn::Empty => "wanted one JSON document, e.g. `{\"text\": \"hello\"}`",
            StandIn::LfsPointer | StandIn::WebPage | StandIn::Marked => "look at what wrote it: wanted one JSON document in UTF-8",
        }
    }

    /// The next step for an author in whose folder it is.
    pub fn hint_of_folder(self) -> &'static str {
        match self {
            StandIn::LfsPointer => "`git lfs pull` in that folder fetches the file itself",
            StandIn::WebPage => "download the file again: what was saved is a page that a browser shows",
            StandIn::Gzip => "`gunzip` unpacks it",
            StandIn::Utf16 => "save it as UTF-8; in older PowerShell `>` writes UTF-16, and `| Out-File -Encoding utf8` does not",
            StandIn::Marked => "save it as UTF-8 without BOM, or fetch it again byte for byte",
            StandIn::Empty => "it has no byte: make or fetch it again",
        }
    }
}

/// A byte order mark, which some editors put before a text.
const MARK: &str = "\u{feff}";

/// The media type of web pages in XML.
const XHTML: &str = "application/xhtml";

fn begins(text: &[u8], with: &str) -> bool {
    text.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with.as_bytes()))
}

/// UTF-16 with its mark, or Latin letters without one: those have a NUL beside each.
fn is_utf16(head: &[u8]) -> bool {
    let letter = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    match *head {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] => letter(a) && letter(b),
        _ => false,
    }
}

/// Whether a text begins like a web page, after an XML declaration and comments.
fn is_page(mut text: &[u8]) -> bool {
    loop {
        let (open, close): (&str, &[u8]) = match text {
            [b'<', b'?', ..] => ("<?", b"?>"),
            [b'<', b'!', b'-', b'-', ..] => ("<!--", b"-->"),
            _ => return begins(text, "<!doctype html") || begins(text, "<html"),
        };
        let Some(end) = text[open.len()..].windows(close.len()).position(|part| part == close) else { return false };
        text = text[open.len() + end + close.len()..].trim_ascii_start();
    }
}

/// Why bytes are not a text.
#[derive(Debug, PartialEq)]
pub struct NoText {
    /// Continues a sentence about the bytes, e.g. "is text in UTF-16; wanted UTF-8".
    pub why: String,
    /// The next step for the author of the bytes, if one is known.
    pub next: Option<&'static str>,
}

impl NoText {
    /// The fault about `what`; `next`: the step if no better one is known.
    pub fn fault(self, code: Code, what: &str) -> Fault {
        let fault = Fault::new(code, format!("{what} {}", self.why));
        match self.next {
            Some(next) => fault.hint(next),
            None => fault,
        }
    }
}

/// A text that people or their tools wrote: UTF-8, without the byte order mark of some editors.
///
/// Errors: the kind of content, also for a web page or a Git LFS pointer, which are UTF-8 too.
pub fn text(bytes: Vec<u8>) -> Result<String, NoText> {
    match StandIn::of(&bytes[..bytes.len().min(HEAD_BYTES)], None) {
        // The reader of an empty text says what is missing.
        None | Some(StandIn::Empty) => {}
        Some(found) => {
            return Err(NoText { why: format!("is {}; wanted text in UTF-8", found.name()), next: Some(found.hint_of_folder()) });
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => match text.strip_prefix(MARK) {
            Some(rest) if rest.starts_with(MARK) => {
                Err(NoText { why: "begins with two byte order marks".to_owned(), next: Some("save it as UTF-8 without BOM") })
            }
            Some(rest) => Ok(rest.to_owned()),
            None => Ok(text),
        },
        Err(error) => {
            Err(NoText { why: format!("is not UTF-8 (at byte {})", error.utf8_error().valid_up_to()), next: Some("save it as UTF-8") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        let of = |head: &str| StandIn::of(head.as_bytes(), None);
        assert_eq!(of("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"), Some(StandIn::LfsPointer));
        for page in [
            "<!doctype html><title>",
            "\n <!DOCTYPE HTML PUBLIC>",
            "\u{feff}<html lang=de>",
            "<HTML>",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Strict//EN\">",
            "<?xml version='1.0'?><?xml-stylesheet href='a'?><!-- > --> <html xmlns='x'>",
            "<!-- a portal -->\n<html>",
        ] {
            assert_eq!(of(page), Some(StandIn::WebPage), "{page}");
        }
        for kind in ["text/html; charset=utf-8", " TEXT/HTML", "application/xhtml+xml"] {
            assert_eq!(StandIn::of(b"<p>Log in", Some(kind)), Some(StandIn::WebPage), "{kind}");
        }
        assert_eq!(StandIn::of(b"\x1f\x8b\x08\0", None), Some(StandIn::Gzip));
        for utf16 in [&b"\xff\xfe{\0"[..], b"\xfe\xff\0{", b"{\0\"\0", b"\0{\0\n"] {
            assert_eq!(StandIn::of(utf16, None), Some(StandIn::Utf16), "{utf16:?}");
        }
        assert_eq!((of("\u{feff}{}"), of("")), (None, Some(StandIn::Empty)));
        assert_eq!(StandIn::of_text("\u{feff}{}".as_bytes(), None), Some(StandIn::Marked));
        assert_eq!(StandIn::of_text("\u{feff}<html>".as_bytes(), None), Some(StandIn::WebPage));
        for other in
            ["version", "GGUF\u{3}\0\0\0", "<?xml version='1.0'?><svg>", "<?xml", "<!-- <html>", "{}", "a\0\u{1}\0", "\u{2}\0\u{1}\0"]
        {
            assert_eq!(StandIn::of(other.as_bytes(), Some("application/octet-stream")), None, "{other}");
        }
    }

    #[test]
    fn a_text_loses_its_mark_and_what_is_none_is_named() {
        assert_eq!(text("\u{feff}{}".into()), Ok("{}".to_owned()));
        assert_eq!((text("a\u{feff}".into()), text(Vec::new())), (Ok("a\u{feff}".to_owned()), Ok(String::new())));
        let why = |bytes: &[u8]| text(bytes.to_vec()).unwrap_err().why;
        for utf16 in [&b"\xff\xfea\0"[..], b"a\0b\0\n\0", b"\0a\0b"] {
            assert_eq!(why(utf16), "is text in UTF-16; wanted text in UTF-8");
        }
        assert_eq!(why(b"\x1f\x8b\x08"), "is gzip-compressed; wanted text in UTF-8");
        assert_eq!(why(b"<html>"), "is a web page in place of the file; wanted text in UTF-8");
        assert_eq!(why(b"version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer in place of the file; wanted text in UTF-8");
        assert_eq!(why(b"ab\xe9"), "is not UTF-8 (at byte 2)");
    }
}
