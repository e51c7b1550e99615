//! Ways in: words to a call, an outcome to words.
//!
//! No door has logic of its own: what one can do, every door can do, through `host`. Nothing outside
//! `print.rs` prints.

mod calling;
pub mod cli;
mod client;
mod granting;
mod http;
mod lines;
mod looking;
mod print;
mod serve;
mod socket;
mod words;
