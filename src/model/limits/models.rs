//! Bounds of fetching a model from the place that its recipe names.

/// Longest name of a `[[model]]`, in bytes: also the longest that common file systems take for one file.
pub const MODEL_NAME_BYTES_MAX: usize = 255;

/// Most parts of such a name: the file's own and those of the folders above it.
pub const MODEL_NAME_PARTS_MAX: usize = 8;

/// Model files of which one process remembers that it read them; beyond, it reads them again.
pub const MODELS_CHECKED_MAX: usize = 65_536;

/// Longest `from` of a `[[model]]`, in bytes; and of an address that a message shows.
pub const MODEL_FROM_BYTES_MAX: usize = 2_048;

/// Tries in a row that bring a model no further; the next failure is the fetch's.
pub const MODEL_TRIES_MAX: u32 = 6;

/// So many bytes beyond all that was there before make a try one that brought the model further: so the bytes
/// of the model bound the tries.
pub const MODEL_ADVANCE_BYTES: u64 = 1 << 20;

/// Wait before the second try, in milliseconds; doubles with each further one that brought nothing.
pub const MODEL_RETRY_MIN_MS: u64 = 250;

/// Longest such wait, whatever the server asks for, in milliseconds.
pub const MODEL_RETRY_MAX_MS: u64 = 15_000;

/// What a fetch may take beyond the time of its bytes at the slowest rate that is borne, in milliseconds: for
/// tries that fail.
pub const MODEL_FETCH_SLACK_MS: u64 = 300_000;

/// A half-fetched model that was not written to for so long is rubbish, in milliseconds: two weeks.
pub const MODEL_PARTIAL_KEPT_MS: u64 = 14 * 86_400_000;

/// What is noted beside a half-fetched model, in bytes.
pub const MODEL_NOTE_BYTES_MAX: u64 = 16 << 10;

/// Longest mark by which a server names the state of a file (`ETag`, `Last-Modified`), in bytes; one that is
/// longer is not used.
pub const MODEL_MARK_BYTES_MAX: usize = 1_024;

/// A token file, in bytes.
pub const HUB_TOKEN_BYTES_MAX: u64 = 4 << 10;

/// Most models that one recipe may declare: the largest that are published come in some hundred files.
pub const MODELS_MAX: usize = 1_024;

/// Largest model file, in bytes.
pub const MODEL_BYTES_MAX: u64 = 256 << 30;
