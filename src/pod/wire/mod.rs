//! The protocol between host and pod: frames, messages, and the sockets that carry them.

mod fault;
pub mod frame;
pub mod lane;
pub mod messages;
#[cfg(test)]
mod vectors;
