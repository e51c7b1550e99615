//! Recipes on this machine: repository client, store, environments, models, lock.

pub mod bundle;
mod download;
pub mod durable;
mod metadata_store;
pub mod rehearsal;
pub mod repository;
mod resolve;
pub mod transport;
pub mod tuf;
pub mod unpack;
