//! Bounds of sessions: their number, their lifetime, and the size of what they keep.

/// Longest name of a session, in bytes.
pub const SESSION_NAME_BYTES_MAX: usize = 64;

/// Most sessions of one home, live and parked: opening a session reads the folder of each.
pub const SESSIONS_MAX: usize = 256;

/// Sessions of one recipe, unless its manifest says otherwise.
pub const SESSION_COUNT_DEFAULT: u64 = 8;

/// A session is parked after this long without a call, in milliseconds, unless the manifest says otherwise.
pub const SESSION_IDLE_DEFAULT_MS: u64 = 600_000;

/// A session is closed after this long without a call or a touch, in milliseconds, unless the manifest says
/// otherwise.
pub const SESSION_TTL_DEFAULT_MS: u64 = 86_400_000;

/// Longest such time that a manifest may ask for, in milliseconds: 30 days.
pub const SESSION_TTL_MAX_MS: u64 = 30 * 86_400_000;

/// Between two checkpoints of a session that is called, in milliseconds, unless the manifest says otherwise.
pub const CHECKPOINT_INTERVAL_DEFAULT_MS: u64 = 30_000;

/// Shortest such time that a manifest may ask for, in milliseconds: each checkpoint is synced to the disk.
pub const CHECKPOINT_INTERVAL_MIN_MS: u64 = 20;

/// Largest checkpoint, in bytes: it is read into the pod's memory in one piece.
pub const CHECKPOINT_BYTES_MAX: u64 = 256 << 20;

/// A checkpoint comes in pieces of at most this many bytes, each acknowledged before the next: the host never
/// holds more of it.
pub const CHECKPOINT_PIECE_BYTES_MAX: usize = 4 << 20;

/// Checkpoints that are kept of a session: if the newest is damaged, the one before is used.
pub const CHECKPOINTS_KEPT: usize = 2;

/// How long a request for a checkpoint waits for it, in milliseconds.
pub const CHECKPOINT_WAIT_MS: u64 = 30_000;

/// How long a host that shuts down waits for the checkpoints of all its sessions, in milliseconds.
pub const CHECKPOINT_GOODBYE_MS: u64 = 5_000;

/// How long the method `close` of a session's pod may take, in milliseconds.
pub const SESSION_CLOSE_MS: u64 = 2_000;

/// Between two checks of a live session, in milliseconds.
pub const SESSION_LOOK_MS: u64 = 1_000;

/// Between two searches for expired parked sessions, in milliseconds.
pub const SESSION_SWEEP_MS: u64 = 60_000;

/// Largest `session.json`, in bytes.
pub const SESSION_FILE_BYTES_MAX: u64 = 64 << 10;
