//! The walls of a pod: what it may see, read, write, call and use, and what tells whether this machine can hold it to that.

pub mod cgroup;
pub mod clerk;
pub mod devices;
pub mod egress;
pub mod granted;
pub mod paths;
pub mod plan;
pub mod refused;
mod seccomp;
mod settings;
pub mod variables;
