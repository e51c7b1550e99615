//! The records of pods, during their life and after: their output, and how they died.
//!
//! ```text
//!    pod's stdout, stderr --> log.rs    the last lines of one pod --> dossier.rs  how it ended, on the disk
//!                               |
//!                               v
//!                          printed.rs   every line of every pod, for followers --> log_files.rs  on the disk
//! ```
//!
//! `line.rs` is one line, with its time and the ask that was in hand.

pub mod dossier;
pub mod line;
pub mod log;
pub mod log_files;
pub mod printed;
