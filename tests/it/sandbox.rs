//! Attacks on the sandbox: each test really tries what a pod must not do, in started and in forked pods, as
//! root and as an ordinary user.
//!
//! The attacks target other files, processes and pods. The hostile programs are in `tests/sandbox`.

mod acts;
mod bombs;
mod counts;
mod data;
mod descriptors;
mod granted;
mod kernels;
mod layers;
mod neighbours;
pub mod ordinary;
mod sight;
mod surroundings;
mod variables;
mod victim;
