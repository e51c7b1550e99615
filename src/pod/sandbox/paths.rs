//! Paths within a pod's sandbox.

/// Where a pod in a root of its own has its scratch folder, started or forked. Short, wherever the host's
/// home lies: the path of a Unix socket, which `multiprocessing` makes there, has 107 bytes at most.
pub const SCRATCH: &str = "/scratch";

/// The folder, in a root, of links to the interpreter of a pod that has no environment.
pub const PYTHON_LINKS: &str = "/.hob-bin";
