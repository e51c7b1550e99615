//! Models that name their origin: real `hob` processes fetch them from a real server that misbehaves.

mod folder;
mod hub;
mod interrupted;
mod refused;
pub mod scene;
pub mod server;
mod shared;
