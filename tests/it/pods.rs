//! Pods through the host: the real runner, the real keeper, and a kit of misdeeds.

mod answers;
mod endings;
mod languages;
mod misdeeds;
mod orderly;
mod readers;
