//! The protocol between host and pod. `docs/pod-protocol.md` is the contract.
//!
//! ```text
//!    driver -- Control, ask --> messages.rs --> frame.rs --> lane.rs --> socket
//!    driver <-- FromPod ------- messages.rs <-- frame.rs <-- lane.rs <-- socket
//! ```
//!
//! - `lane.rs`: a socket that sends and reads whole frames, with descriptors.
//! - `frame.rs`: lengths, the ask's number, JSON, a binary tail.
//! - `messages.rs`: types, and the parser that refuses what is unknown, missing or contradictory.
//! - `fault.rs`: what a pod may claim in a fault.
//! - `vectors.rs`: tests against the bytes that the Python side reads too.

mod fault;
pub mod frame;
pub mod lane;
pub mod messages;
#[cfg(test)]
mod vectors;
