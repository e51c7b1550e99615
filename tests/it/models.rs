//! Models that say where they come from: fetched by real `hob` processes from a real server that does not
//! mean well.

mod folder;
mod hub;
mod interrupted;
mod refused;
pub mod scene;
pub mod server;
mod shared;
