//! Bounds, in bytes, of messages that wait between a host, a pod and a caller; the sender chooses the size of
//! a message.

/// What may wait for a pod on one of its lanes, in bytes, asks not counted. While more does, nothing is read
/// of it: all of that are answers to what it said.
pub const LANE_WAITING_BYTES_MAX: usize = 1 << 20;

/// Descriptors that may wait for a pod on one of its lanes; each is one of the host's own.
pub const LANE_WAITING_DESCRIPTORS_MAX: usize = 16;

/// How long a pod may leave so much unread, in milliseconds: longer than a busy machine keeps its control
/// thread from running.
pub const LANE_WAITING_MS: u64 = 5_000;

/// Largest report of progress that is told to a caller, in bytes of JSON.
pub const PROGRESS_BYTES_MAX: usize = 64 << 10;

/// Events (progress, chunks, logs) that wait for a caller that reads slowly; then its pod is held back.
pub const CALL_EVENTS_MAX: usize = 64;

/// What those events may hold together, in bytes of JSON and of blobs; a single larger chunk waits alone.
pub const CALL_EVENTS_BYTES_MAX: usize = 1 << 20;

/// Most names in a list that a pod sends, such as its features.
pub const POD_NAMES_MAX: usize = 256;

/// Most numbers in a list that a pod sends: the asks of as many units as it may run, each of the largest
/// batch.
pub const POD_NUMBERS_MAX: usize = 1 << 18;

/// A blob of a frame below this size in bytes is copied out of it: it must not keep a whole read buffer in
/// memory.
pub const BLOB_COPY_BYTES_MAX: usize = 16 << 10;

/// What is kept in memory of a stream whose caller is slow while others wait for its pod, in bytes of JSON
/// and of blobs; what comes after goes to the disk.
pub const STREAM_KEPT_BYTES_MAX: u64 = 16 << 20;

/// What is kept in memory of all streams of a host together, in bytes; over it, every stream's next chunks go
/// to the disk.
pub const STREAMS_KEPT_BYTES_MAX: u64 = 256 << 20;

/// What a chunk counts among these beside its data, and each of its blobs: what holds it, in bytes.
pub const CHUNK_KEPT_BYTES: u64 = 256;

/// What one stream may have on the disk, in bytes, with the blobs that were read from there and are still
/// held.
pub const STREAM_SPILLED_BYTES_MAX: u64 = 256 << 20;

/// What all streams of a host may have on the disk together, in bytes.
pub const STREAMS_SPILLED_BYTES_MAX: u64 = 2 << 30;

/// How much of a stream is read back from the disk at once, in bytes; a single larger chunk is read alone.
pub const SPILL_READ_BYTES_MAX: u64 = 1 << 20;

/// Streams of a host that write to the disk or read from it at the same time: a slow disk must not take the
/// threads that others need.
pub const SPILLS_AT_ONCE: usize = 4;

/// What a disk gives back whole, in bytes: a large blob begins and ends at a multiple of it, so that its
/// space is its own.
pub const SPILL_BLOCK_BYTES: u64 = 4 << 10;

/// How long a caller may take nothing of a stream of which so much is kept while others wait for its pod, in
/// milliseconds; then its call ends.
pub const STREAM_UNREAD_MS: u64 = 2_000;

/// Largest frame (JSON and binary tail together) on either lane of a pod, in bytes. Announced to the pod in
/// `start`.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// A frame that claims more than this is not skipped: reading that much to stay in sync is itself the attack.
pub const FRAME_SKIP_BYTES_MAX: usize = 256 << 20;

/// Frames that one lane may bring before everything else that waits for the pod gets its turn.
pub const FRAMES_PER_TURN_MAX: usize = 64;

/// Such turns of a lane whose pod is gone: far more than its socket can hold, and not for ever.
pub const LAST_WORDS_TURNS_MAX: usize = 4_096;
