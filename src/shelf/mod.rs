//! Recipes on this machine: repository client, store, environments, models, lock.

pub mod config;
pub mod environment;
mod files;
pub mod lockfile;
mod locks;
pub mod models;
mod process;
pub mod python;
pub mod requirements;
mod staging;
mod tree;
pub mod uv;
