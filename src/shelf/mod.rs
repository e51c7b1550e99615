//! Recipes on this machine: repository client, store, environments, models, lock.

pub mod bundle;
mod download;
pub mod durable;
pub mod environment;
mod files;
mod locks;
mod metadata_store;
mod process;
pub mod python;
pub mod rehearsal;
pub mod repository;
pub mod requirements;
mod resolve;
mod staging;
pub mod transport;
mod tree;
pub mod tuf;
pub mod unpack;
pub mod uv;
