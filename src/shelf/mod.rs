//! Recipes on this machine: repository client, store, environments, models, lock.

pub mod environment;
mod files;
mod locks;
mod process;
pub mod python;
pub mod requirements;
mod staging;
mod tree;
pub mod uv;
