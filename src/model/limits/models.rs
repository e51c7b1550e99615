//! Bounds of fetching a model from the place that its recipe names.

/// Longest name of a `[[model]]`, in bytes: common file systems allow no longer file names.
pub const MODEL_NAME_BYTES_MAX: usize = 255;

/// Most parts of such a name: the file name and the folders above it.
pub const MODEL_NAME_PARTS_MAX: usize = 8;

/// Model files for which one process remembers that it verified them; further ones are read again.
pub const MODELS_CHECKED_MAX: usize = 65_536;

/// Longest `from` of a `[[model]]`, and of an address that a message shows, in bytes.
pub const MODEL_FROM_BYTES_MAX: usize = 2_048;

/// Tries in a row that bring a model no further; one more failure ends the fetch.
pub const MODEL_TRIES_MAX: u32 = 6;

/// A try counts as progress if it brings at least this many bytes beyond the furthest point before; so the
/// size of the model bounds the tries.
pub const MODEL_ADVANCE_BYTES: u64 = 1 << 20;

/// Wait before the second try, in milliseconds; doubles with each further try without progress.
pub const MODEL_RETRY_MIN_MS: u64 = 250;

/// Longest such wait, whatever the server asks for, in milliseconds.
pub const MODEL_RETRY_MAX_MS: u64 = 15_000;

/// Time that a fetch may take beyond the time of its bytes at the slowest allowed rate, in milliseconds: for
/// tries that fail.
pub const MODEL_FETCH_SLACK_MS: u64 = 300_000;

/// A partly fetched model that was not written to for this long is deleted, in milliseconds: two weeks.
pub const MODEL_PARTIAL_KEPT_MS: u64 = 14 * 86_400_000;

/// Largest note beside a partly fetched model, in bytes.
pub const MODEL_NOTE_BYTES_MAX: u64 = 16 << 10;

/// Longest mark by which a server names the state of a file (`ETag`, `Last-Modified`), in bytes; a longer one
/// is not used.
pub const MODEL_MARK_BYTES_MAX: usize = 1_024;

/// Largest token file, in bytes.
pub const HUB_TOKEN_BYTES_MAX: u64 = 4 << 10;

/// Most models that one recipe may declare: the largest published ones come in some hundred files.
pub const MODELS_MAX: usize = 1_024;

/// Largest model file, in bytes.
pub const MODEL_BYTES_MAX: u64 = 256 << 30;
