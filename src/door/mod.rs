//! Ways in: words to a call, an outcome to words.
//!
//! No door has logic of its own: what one can do, every door can do, through `host`. Nothing outside
//! `print.rs` prints.

mod accept;
mod calling;
pub mod cli;
mod client;
mod compile_glue;
mod doctor;
mod ending;
mod granting;
mod handing;
mod http;
mod lines;
mod looking;
mod machine;
mod manual;
mod notify;
mod print;
mod serve;
mod sessions;
mod socket;
mod starting;
mod testing;
#[cfg(test)]
mod tests;
mod words;

/// For `crate::fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::lines::{CallBody, Line, Lines, event_line, last_line};
}
