//! Hob, a plugin host.

pub mod author;
pub mod door;
pub mod glue;
pub mod host;
pub mod model;
pub mod pod;
pub mod shelf;
