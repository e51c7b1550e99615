//! Ways in: words to a call, an outcome to words.
