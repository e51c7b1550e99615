//! Recipes on this machine: repository client, store, environments, models, lock.

pub mod bundle;
pub mod config;
mod download;
pub mod durable;
pub mod environment;
mod files;
pub mod load;
pub mod lockfile;
mod locks;
mod metadata_store;
pub mod models;
mod process;
pub mod python;
pub mod rehearsal;
pub mod repository;
pub mod requirements;
mod resolve;
mod staging;
pub mod store;
pub mod transport;
mod tree;
pub mod tuf;
pub mod unpack;
pub mod uv;
