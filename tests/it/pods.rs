//! Pods through the host: the real runner, the real keeper, and a set of misbehaving pods.

mod answers;
mod endings;
mod languages;
mod misdeeds;
mod orderly;
mod readers;
