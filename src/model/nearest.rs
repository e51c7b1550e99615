//! Finds the known word that an unknown word was probably meant to be. Only this module compares names letter
//! by letter, which costs the product of their lengths.

use super::{limits::NEAREST_BYTES_MAX, shown};

/// The least likeness from which a known word is offered in place of another; a less similar word would
/// mislead.
const MISSPELT: f64 = 0.85;

/// Likeness from 0 for nothing in common to 1 for equal. A name longer than [`NEAREST_BYTES_MAX`] is no typo:
/// its likeness is 0.
fn likeness(word: &str, known: &str) -> f64 {
    if word.len() > NEAREST_BYTES_MAX || known.len() > NEAREST_BYTES_MAX {
        return 0.0;
    }
    // Recipes of one publisher begin alike; the two parts are compared separately.
    if let (Some((word, word_rest)), Some((known, known_rest))) = (word.split_once('/'), known.split_once('/')) {
        return likeness(word, known).min(likeness(word_rest, known_rest));
    }
    // Other tools have the same word with one more: `extra_index_urls`.
    let is_part =
        |whole: &str, part: &str| part.len() > 3 && (whole.ends_with(&format!("_{part}")) || whole.starts_with(&format!("{part}_")));
    let (word, known) = (word.to_ascii_lowercase(), known.to_ascii_lowercase());
    // One typo is a large part of a short word.
    let is_slip = word.len() > 2 && known.len() > 2 && strsim::osa_distance(&word, &known) == 1;
    match is_part(&word, &known) || is_part(&known, &word) || is_slip {
        true => MISSPELT.max(strsim::jaro_winkler(&word, &known)),
        false => strsim::jaro_winkler(&word, &known),
    }
}

/// Whether `known` may have been meant by `word`.
pub fn is_near(word: &str, known: &str) -> bool {
    likeness(word, known) >= MISSPELT
}

/// The known word most likely meant by `word`, if one is near enough.
pub fn among<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let alike = known.into_iter().map(|known| (likeness(word, known), known)).filter(|(likeness, _)| *likeness >= MISSPELT);
    alike.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// The end of a message about an unknown key: the key that was meant, or else the keys that exist.
pub fn instead(word: &str, known: &[&str]) -> String {
    match among(word, known.iter().copied()) {
        Some(known) => format!("; nearest known key: `{known}`"),
        None if known.is_empty() => String::new(),
        None => format!("; known here: {}", shown::keys(known.iter().copied())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_letter_wrong_is_meant_and_another_one_is_not() {
        let known = ["hob/echo", "lab/torch", "lab/touch"];
        assert_eq!((among("hob/ecko", known), among("lab/torhc", known)), (Some("hob/echo"), Some("lab/torch")));
        assert_eq!((among("me/greeter", known), among("x", [])), (None, None));
        assert_eq!((among("me/nope", ["me/punycode"]), among("lab/echo", ["lab/eval"])), (None, None));
    }

    #[test]
    fn a_word_that_is_near_was_meant_and_no_other() {
        let known = ["memory_bytes", "path", "index_urls", "license", "ttl_ms", "in"];
        for (word, meant) in [
            ("licence", Some("license")),
            ("LICENSE", Some("license")),
            ("memory", Some("memory_bytes")),
            ("ttl", Some("ttl_ms")),
            ("extra_index_urls", Some("index_urls")),
            ("inn", Some("in")),
            ("paht", Some("path")),
            ("apth", Some("path")),
            ("file", None),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(among(word, known), meant, "{word}");
        }
        assert_eq!(instead("paht", &known), "; nearest known key: `path`");
        assert_eq!(instead("file", &["path", "x"]), "; known here: `path`, `x`");
        assert_eq!(instead("file", &[]), "");
    }

    #[test]
    fn long_names_are_like_nothing() {
        assert!(likeness("pasword", "password") > 0.9 && likeness("a", "z") == 0.0);
        let long = "a".repeat(NEAREST_BYTES_MAX + 1);
        assert_eq!((likeness(&long, &long), likeness(&long[1..], &long[1..])), (0.0, 1.0));
    }
}
