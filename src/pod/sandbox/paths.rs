//! Paths within a pod's sandbox.

/// The scratch folder of a pod, started or forked, that has a root of its own. It is short wherever the
/// host's home lies: `multiprocessing` makes Unix sockets there, whose paths have at most 107 bytes.
pub const SCRATCH: &str = "/scratch";

/// The folder, in a root, with links to the interpreter of a pod that has no environment.
pub const PYTHON_LINKS: &str = "/.hob-bin";
