//! Bounds of the texts of a fault.

use super::GLUE_FAULT_DETAIL_BYTES_MAX;

/// Lines of a pod's output that are attached to a fault.
pub const FAULT_TAIL_LINES: usize = 20;

/// Largest `detail` of a fault that comes from glue or a pod, in bytes of JSON.
pub const FAULT_DETAIL_BYTES_MAX: usize = 64 << 10;

/// Largest entry of any fault's `detail`, in bytes of JSON: as much as a run of glue may report.
pub const FAULT_ENTRY_BYTES_MAX: usize = GLUE_FAULT_DETAIL_BYTES_MAX;

/// Deepest nesting of such a `detail`: JSON readers stop at 128 levels, and a fault is carried inside other
/// documents.
pub const FAULT_DETAIL_DEPTH_MAX: usize = 32;

/// Largest `message` and `hint` of a fault that comes from glue or a pod, in bytes; the rest is cut.
pub const FAULT_MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Most texts and actions in one hint.
pub const HINT_PARTS_MAX: usize = 32;

/// Versions, recipes or publishers that one list in a message names.
pub const NAMED_IN_MESSAGE_MAX: usize = 12;
