//! Hob's own files: how they are opened and made, and who may own them.
//!
//! - `open.rs`: the one function that opens a file of Hob's to read it, and the one that opens a lock.
//! - `make.rs`: the functions that make a folder or a file; each sets the mode and leaves nothing to the
//!   umask.
//! - `durable.rs`: files that survive a power cut whole.
//! - `lock.rs`: the one type that holds a lock between processes.
//! - `look.rs`: what is at a path, and whether an error tells something about a file.
//! - `owner.rs`: who may write to Hob's folders, checked at each start.
//! - `threads.rs`: blocking work, on threads where nothing waits for it.
//!
//! A test reads the sources and fails if other code opens a file or makes a folder without a reason.

pub mod durable;
pub mod lock;
pub mod look;
pub mod make;
pub mod open;
pub mod owner;
pub mod threads;
