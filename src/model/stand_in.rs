//! What comes or lies where a model's file should be, told by its first bytes: so that people hear what they have, and not only that it is wrong.
//!
//! Asked only of what is wrong already: a model may look like any of these.

/// So many first bytes tell.
pub const HEAD_BYTES: usize = 1_024;

/// What is known to be taken for a model's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// What Git LFS puts in place of a large file: its digest and length.
    LfsPointer,
    /// A page for people: to sign in, that there is no such file, of a network that wants a visit first.
    WebPage,
}

impl StandIn {
    /// What the first bytes of a file are of. `media_type`: what a server calls it.
    pub fn of(head: &[u8], media_type: Option<&str>) -> Option<StandIn> {
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
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
        }
    }

    /// The next step of an author in whose folder it lies.
    pub fn hint_of_folder(self) -> &'static str {
        match self {
            StandIn::LfsPointer => "`git lfs pull` in that folder fetches the file itself",
            StandIn::WebPage => "download the file again: what was saved is a page that a browser shows",
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
        for page in ["<!doctype html><title>", "\n <!DOCTYPE HTML PUBLIC>", "\u{feff}<html lang=de>", "<HTML>"] {
            assert_eq!(of(page), Some(StandIn::WebPage), "{page}");
        }
        assert_eq!(StandIn::of(b"<p>Log in", Some("text/html; charset=utf-8")), Some(StandIn::WebPage));
        for other in ["", "version", "GGUF\u{3}", "<?xml version='1.0'?>", "{}"] {
            assert_eq!(StandIn::of(other.as_bytes(), Some("application/octet-stream")), None, "{other}");
        }
    }
}
