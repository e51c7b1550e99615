//! The doors: ways into Hob that turn words into a call, and an outcome into words.
//!
//! No door has logic of its own: what one can do, every door can do, through `host`. Only `print.rs` prints.

#[cfg(feature = "serve")]
mod accept;
#[cfg(feature = "serve")]
pub mod http;
#[cfg(feature = "serve")]
pub mod serving;

mod handing;
mod lines;
mod socket;

#[cfg(feature = "cli")]
mod args;
#[cfg(feature = "cli")]
mod calling;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
mod client;
#[cfg(feature = "cli")]
mod compile_glue;
#[cfg(feature = "cli")]
mod doctor;
#[cfg(feature = "cli")]
mod inspect;
#[cfg(feature = "cli")]
mod machine;
#[cfg(feature = "cli")]
mod manual;
#[cfg(feature = "cli")]
mod permissions;
#[cfg(feature = "cli")]
mod print;
#[cfg(feature = "cli")]
mod sessions;
#[cfg(feature = "cli")]
mod starting;
#[cfg(feature = "cli")]
mod testing;
#[cfg(all(test, feature = "cli"))]
mod tests;

#[cfg(all(feature = "cli", feature = "serve"))]
mod ending;
#[cfg(all(feature = "cli", feature = "serve"))]
mod notify;
#[cfg(all(feature = "cli", feature = "serve"))]
mod serve;
pub mod table;

/// For `crate::fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::lines::{CallBody, Line, Lines, event_line, last_line};
}
