//! The sandbox, attacked: what a pod is not to do is tried for real, by pods that were started and pods that
//! were forked, as root and as an ordinary user.
//!
//! Apart from `pods`, whose pods harm nobody but their callers: here it is other files, processes and pods
//! that must come to no harm. What is tried lies in `tests/sandbox`.

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
