//! What must hold whatever a stranger sends: one file for each fuzz target, each with one function `holds`.
//!
//! Apart from the targets, so that the host's own tests can hold the kept corpora against the same properties
//! without a fuzzer. A property panics when it does not hold; nothing in here is input to anything else.

pub mod bundle;
pub mod call_lines;
pub mod glue_fault;
pub mod home_files;
pub mod manifest;
pub mod tuf_metadata;
pub mod wire_frames;
