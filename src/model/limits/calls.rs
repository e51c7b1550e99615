//! Bounds of calls: their documents, their deadlines, and how many the journal remembers.

/// Largest input or output document of a call, in bytes of JSON. Larger data travels as a blob.
pub const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// Default deadline of a call whose operation names none, in milliseconds: long enough for a cold start with
/// a large model.
pub const DEADLINE_DEFAULT_MS: u64 = 120_000;

/// Longest deadline that a manifest or a caller may ask for, in milliseconds: one day.
pub const DEADLINE_MAX_MS: u64 = 86_400_000;

/// Most calls that the journal in memory remembers.
pub const JOURNAL_CALLS_MAX: usize = 1_000;
