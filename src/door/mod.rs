//! Ways in: words to a call, an outcome to words.
//!
//! No door has logic of its own: what one can do, every door can do, through `host`. Nothing outside
//! `print.rs` prints.

pub mod cli;
mod print;
mod words;
