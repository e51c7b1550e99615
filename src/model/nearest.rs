//! How much a word is like one that is known: the one place that compares names letter by letter, which costs the product of their lengths.

use super::limits::NEAREST_BYTES_MAX;

/// From 0 for nothing in common to 1 for the same. Nobody mistypes a name that is longer than [`NEAREST_BYTES_MAX`]: that one is like nothing.
pub fn likeness(word: &str, known: &str) -> f64 {
    match word.len() > NEAREST_BYTES_MAX || known.len() > NEAREST_BYTES_MAX {
        true => 0.0,
        false => strsim::jaro_winkler(word, known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_like_nothing() {
        assert!(likeness("pasword", "password") > 0.9 && likeness("a", "z") == 0.0);
        let long = "a".repeat(NEAREST_BYTES_MAX + 1);
        assert_eq!((likeness(&long, &long), likeness(&long[1..], &long[1..])), (0.0, 1.0));
    }
}
