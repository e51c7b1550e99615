//! How much a word is like one that is known: the one place that compares names letter by letter, which costs the product of their lengths.

use super::limits::NEAREST_BYTES_MAX;

/// From 0 for nothing in common to 1 for the same. Nobody mistypes a name that is longer than [`NEAREST_BYTES_MAX`]: that one is like nothing.
pub fn likeness(word: &str, known: &str) -> f64 {
    match word.len() > NEAREST_BYTES_MAX || known.len() > NEAREST_BYTES_MAX {
        true => 0.0,
        false => strsim::jaro_winkler(word, known),
    }
}

/// The one of the names that `word` may have been meant to be.
pub fn among<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likely = known.into_iter().map(|known| (likeness(word, known), known)).filter(|(likeness, _)| *likeness >= MEANT);
    likely.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// As much alike as a word and the same with a letter wrong.
const MEANT: f64 = 0.85;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_letter_wrong_is_meant_and_another_one_is_not() {
        let known = ["hob/echo", "lab/torch", "lab/touch"];
        assert_eq!((among("hob/ecko", known), among("lab/torhc", known)), (Some("hob/echo"), Some("lab/torch")));
        assert_eq!((among("me/greeter", known), among("x", [])), (None, None));
    }

    #[test]
    fn long_names_are_like_nothing() {
        assert!(likeness("pasword", "password") > 0.9 && likeness("a", "z") == 0.0);
        let long = "a".repeat(NEAREST_BYTES_MAX + 1);
        assert_eq!((likeness(&long, &long), likeness(&long[1..], &long[1..])), (0.0, 1.0));
    }
}
