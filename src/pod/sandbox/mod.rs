//! The sandbox of a pod: what it may see, read, write, call and use.
//!
//! ```text
//!    plan.rs  the plan, which the keeper carries out (hob_pod/confine.py)
//!      <- granted.rs    folders and files that were granted
//!      <- settings.rs   settings of the system, docs/sandbox.md lists them
//!      <- devices.rs    device files of GPUs
//!      <- seccomp.rs    filters of system calls
//!    variables.rs  the environment, told when the walls stand
//!    cgroup.rs     memory and processes, held by the kernel
//!    egress.rs     granted names on the network, through a proxy
//!    clerk.rs      files of callers, lent to be read
//!    refused.rs    the fault where a layer cannot be had
//! ```
//!
//! The Python side (`python/src/hob_pod/lockdown.py`) applies the plan and then tries acts that must fail.

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
