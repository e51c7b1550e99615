//! Recipes on this machine: repository client, store, environments, models, lock.

pub mod bundle;
pub mod durable;
mod download;
mod metadata_store;
mod rehearsal;
pub mod repository;
mod resolve;
pub mod transport;
mod tuf;
pub mod unpack;
