//! One Python (or other) process: wire, state machine, driver.
//!
//! `handle.rs` is what the host holds, `state.rs` decides, `driver.rs` acts, `frame.rs` and `wire.rs` say what is on the sockets,
//! `process.rs` starts and signals, `log.rs` keeps what the process prints.

mod driver;
mod frame;
mod handle;
mod lane;
mod log;
#[allow(dead_code)]
mod poison;
mod process;
#[allow(dead_code)]
mod restarts;
mod runner;
#[allow(dead_code)]
mod schedule;
mod state;
#[cfg(test)]
mod vectors;
mod waits;
mod wire;

pub use handle::{Ask, Pod, Reply, Request, Snapshot, Watcher};
pub use process::{Keeps, Program, Spec};
pub use runner::unpack as unpack_runner;
pub use wire::Payload;
