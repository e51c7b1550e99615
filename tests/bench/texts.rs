//! What is embedded: the same sentences in every column.
//!
//! Apart from the benchmarks because two of them use it.

/// Words of sentences; which make sense is nothing to the model's speed.
const WORDS: &[&str] = &[
    "a", "river", "bends", "past", "the", "mill", "where", "grain", "was", "once", "ground", "for", "every", "village", "between", "hills",
    "and", "sea", "while", "boats", "carry", "salt", "wool", "timber", "to", "harbours", "that", "sleep", "in", "winter",
];

/// As many as the callers, each of 8 to 20 words.
pub fn texts() -> Vec<String> {
    let text = |at: usize| {
        let words: Vec<&str> = (0..8 + at * 5 % 13).map(|word| WORDS[(at * 11 + word * 7) % WORDS.len()]).collect();
        words.join(" ")
    };
    (0..64).map(text).collect()
}
