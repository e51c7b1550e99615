//! Bounds, in bytes, of messages that wait between a host, a pod and a caller; the sender chooses the size of
//! a message.

/// Bytes that may wait for a pod on one of its lanes, not counting asks. While more waits, the host reads
/// nothing from the pod: all these bytes answer its messages.
pub const LANE_WAITING_BYTES_MAX: usize = 1 << 20;

/// Descriptors that may wait for a pod on one of its lanes; each uses one of the host's own.
pub const LANE_WAITING_DESCRIPTORS_MAX: usize = 16;

/// How long a pod may leave that much unread, in milliseconds: longer than a busy machine delays its control
/// thread.
pub const LANE_WAITING_MS: u64 = 5_000;

/// Largest progress report that a caller gets, in bytes of JSON.
pub const PROGRESS_BYTES_MAX: usize = 64 << 10;

/// Events (progress, chunks, logs) that wait for a slow caller; beyond that its pod is held back.
pub const CALL_EVENTS_MAX: usize = 64;

/// Bytes that those events may hold together, of JSON and of blobs; a single larger chunk waits alone.
pub const CALL_EVENTS_BYTES_MAX: usize = 1 << 20;

/// Most names in a list that a pod sends, such as its features.
pub const POD_NAMES_MAX: usize = 256;

/// Most numbers in a list that a pod sends: the asks of as many units as it may run, each with the largest
/// batch.
pub const POD_NUMBERS_MAX: usize = 1 << 18;

/// A blob of a frame below this size in bytes is copied out, so that it does not keep a whole read buffer in
/// memory.
pub const BLOB_COPY_BYTES_MAX: usize = 16 << 10;

/// Bytes of JSON and blobs that are kept in memory for a stream whose caller is slow while others wait for
/// its pod; later ones go to the disk.
pub const STREAM_KEPT_BYTES_MAX: u64 = 16 << 20;

/// Bytes that are kept in memory for all streams of a host together; above that, every stream's next chunks
/// go to the disk.
pub const STREAMS_KEPT_BYTES_MAX: u64 = 256 << 20;

/// Bytes that a chunk, and each of its blobs, counts beside its data: its bookkeeping.
pub const CHUNK_KEPT_BYTES: u64 = 256;

/// Bytes that one stream may have on the disk, including blobs that were read from there and are still held.
pub const STREAM_SPILLED_BYTES_MAX: u64 = 256 << 20;

/// Bytes that all streams of a host may have on the disk together.
pub const STREAMS_SPILLED_BYTES_MAX: u64 = 2 << 30;

/// Bytes of a stream that are read back from the disk at once; a single larger chunk is read alone.
pub const SPILL_READ_BYTES_MAX: u64 = 1 << 20;

/// Streams of a host that write to or read from the disk at the same time: a slow disk must not take the
/// threads that other work needs.
pub const SPILLS_AT_ONCE: usize = 4;

/// Block size of the disk, in bytes: a large blob begins and ends at a multiple of it, so that its blocks can
/// be given back by themselves.
pub const SPILL_BLOCK_BYTES: u64 = 4 << 10;

/// How long a caller may take nothing from a stream with that much kept while others wait for its pod, in
/// milliseconds; then its call ends.
pub const STREAM_UNREAD_MS: u64 = 2_000;

/// Largest frame (JSON and binary tail together) on either lane of a pod, in bytes. Announced to the pod in
/// `start`.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// A frame that claims more than this many bytes is not skipped: reading that much to stay in sync is itself
/// the attack.
pub const FRAME_SKIP_BYTES_MAX: usize = 256 << 20;

/// Frames that one lane may bring before all other work that waits for the pod gets its turn.
pub const FRAMES_PER_TURN_MAX: usize = 64;

/// Such turns of a lane whose pod has ended: far more than its socket can hold, yet bounded.
pub const LAST_WORDS_TURNS_MAX: usize = 4_096;
