//! Bounds of `hob serve`: who may hold a connection, for how long, and how long shutting down takes.

use super::{DOCUMENT_BYTES_MAX, FRAME_BYTES_MAX, GLUE_BLOB_BYTES_MAX};

/// Most threads of a server; fewer on a machine with fewer cores. Pods do the work, so more threads would
/// only pass it around.
pub const SERVE_THREADS_MAX: usize = 8;

/// Connections that each way into a server has at a time, and more than [`SERVE_CALLS_MAX`]; fewer if the
/// process may have few open files. Further connections use one of [`SERVE_RESERVE_MAX`].
pub const SERVE_CONNECTIONS_MAX: usize = 2_048;

/// How many of these may have shown no complete and allowed request yet; beyond that the oldest of them is
/// closed for the next one.
pub const SERVE_STRANGERS_MAX: usize = 512;

/// TCP connections that the kernel keeps until the server accepts them; fewer if `net.core.somaxconn` is
/// lower.
pub const SERVE_BACKLOG: i32 = 65_535;

/// Connections that are accepted in a row before the accepted ones get a turn; no more than a quarter of the
/// strangers that there may be.
pub const SERVE_ROW_MAX: usize = 32;

/// How long the bytes of a stranger are still read and answered before the server closes its connection, in
/// milliseconds: the kernel has these bytes already.
pub const SERVE_HEARD_MS: u64 = 200;

/// Share of [`SERVE_STRANGERS_MAX`] that one address may have once all of it is used, in percent; beyond that
/// the address's own oldest connection is closed first.
pub const SERVE_PEER_PERCENT: usize = 25;

/// Connections beyond [`SERVE_CONNECTIONS_MAX`] that each way in reserves for status requests (`/livez`,
/// `/readyz`, `hob status`), and to answer all others with `overloaded`.
pub const SERVE_RESERVE_MAX: usize = 64;

/// How long such a connection may take from its first byte to a complete head, in milliseconds.
pub const SERVE_RESERVE_MS: u64 = 2_000;

/// Open files that a server requests from the system, if it may have as many: for the connections of its ways
/// in, and for pods.
pub const SERVE_FILES: u64 = 65_536;

/// Share of the open files that the connections of all ways in may use together, in percent; the rest is for
/// pods and the shelf.
pub const SERVE_FILES_PERCENT: usize = 50;

/// Most proxies that may be listed: load balancers in front of one server.
pub const SERVE_PROXIES_MAX: usize = 64;

/// Calls that a server runs at a time, over all its ways in; further ones are refused as `overloaded`.
pub const SERVE_CALLS_MAX: usize = 768;

/// The `retry_after` of a server with too many running calls, in milliseconds: most calls are shorter.
pub const SERVE_RETRY_MS: u64 = 1_000;

/// How long the head of a request may take from its first byte to its last, and how long a connection may
/// idle between two requests, in milliseconds.
pub const SERVE_HEAD_MS: u64 = 30_000;

/// How long a connection may take from its start to its first complete and allowed request, in milliseconds:
/// strangers have no more time.
pub const SERVE_STRANGER_MS: u64 = 10_000;

/// After an answer that was sent before the request was read to its end, the rest of the request is read and
/// discarded: the longest wait for its next byte, and for all of it, in milliseconds. Closing at once would
/// destroy the answer before a client that is still sending reads it.
pub const SERVE_DISCARD_PAUSE_MS: u64 = 1_000;
/// See [`SERVE_DISCARD_PAUSE_MS`].
pub const SERVE_DISCARD_MS: u64 = 5_000;
/// See [`SERVE_DISCARD_PAUSE_MS`]; in bytes.
pub const SERVE_DISCARD_BYTES_MAX: usize = SERVE_CALL_BYTES_MAX;

/// Largest head of a request, and most bytes that are read from a connection at once.
pub const SERVE_HEAD_BYTES_MAX: usize = 64 << 10;

/// How long the body of a request may take from its first byte to its last, in milliseconds.
pub const SERVE_BODY_MS: u64 = 60_000;

/// How long parsing a received body may take, in milliseconds, before its call begins and its deadline
/// counts.
pub const SERVE_READ_MS: u64 = 30_000;

/// A caller that takes no byte of its answer for this long is disconnected, in milliseconds.
pub const SERVE_STALL_MS: u64 = 30_000;

/// Largest general call, in bytes: a document, and a frame's worth of blobs in base64, with the surrounding
/// JSON.
pub const SERVE_CALL_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + FRAME_BYTES_MAX / 3 * 4 + (64 << 10);

/// Open files that one connection may have handed in that no call has taken yet, and most files of one
/// message: the blobs of some answers.
pub const HANDED_FILES_MAX: usize = 64;

/// Bytes that are read at once from a connection that carries files.
pub const HANDED_READ_BYTES_MAX: usize = 64 << 10;

/// Files of callers that a server holds, of all connections and calls; fewer if the process may have few open
/// files.
pub const SERVE_FILES_IN_MAX: usize = 1_024;

/// Share of the open files that those files may use, in percent.
pub const SERVE_FILES_IN_PERCENT: usize = 12;

/// Bytes of result blobs that a server has copied into files and not handed over yet, over all calls; further
/// ones wait. Each counts as at least [`SERVE_FILE_OUT_BYTES_MIN`], so that their number is bounded too.
pub const SERVE_FILES_OUT_BYTES_MAX: u64 = 32 << 30;
/// See [`SERVE_FILES_OUT_BYTES_MAX`].
pub const SERVE_FILE_OUT_BYTES_MIN: u64 = 32 << 20;

/// Results that a server copies into files at the same time: a slow disk must not take the threads that other
/// work needs.
pub const SERVE_COPIES_AT_ONCE: usize = 4;

/// Bodies above this size in bytes wait for room among [`SERVE_BODIES_BYTES_MAX`].
pub const SERVE_BODY_SMALL_BYTES: usize = 64 << 10;

/// Bytes that the larger bodies of all requests may hold in memory together.
pub const SERVE_BODIES_BYTES_MAX: usize = 256 << 20;

/// How long a body waits for that room, in milliseconds; then its caller gets `overloaded`.
pub const SERVE_BODY_WAIT_MS: u64 = 5_000;

/// A general call without an event sends an empty line this often, in milliseconds.
pub const SERVE_BEAT_MS: u64 = 5_000;

/// After this long without a byte of a call, the command line considers the server dead, in milliseconds.
pub const SERVE_SILENCE_MS: u64 = 30_000;

/// Largest line of a general call's answer, in bytes: an output, and the blobs that one glue run may hold, in
/// base64.
pub const SERVE_LINE_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + GLUE_BLOB_BYTES_MAX / 3 * 4 + (1 << 20);

/// How long after a call's own deadline the command line waits for the server's answer, in milliseconds.
pub const SERVE_LATE_MS: u64 = 500;

/// How long connecting to a server with a full connection queue may take, in milliseconds.
pub const SERVE_CONNECT_MS: u64 = 2_000;

/// How long an answer about pods, logs or status may take, in milliseconds.
pub const SERVE_LOOK_MS: u64 = 5_000;

/// How long the command line waits for `/livez` of a server that was silent, in milliseconds.
pub const SERVE_LIVEZ_MS: u64 = 2_000;

/// Bytes of the part of a fault that was withheld from a caller, as written to the server's log.
pub const SERVE_WITHHELD_LOG_BYTES_MAX: usize = 16 << 10;

/// How long after SIGTERM a server still accepts connections that were already on their way, in milliseconds.
pub const SERVE_KNOCKERS_MS: u64 = 1_000;

/// How long after SIGTERM the running calls may take to end by themselves, in milliseconds.
pub const SERVE_DRAIN_MS: u64 = 10_000;

/// How long the last answers may take to be written after the pods of a stopping server have ended, in
/// milliseconds.
pub const SERVE_GOODBYE_MS: u64 = 2_000;

/// How long a stopping server still reads what was sent before its shutdown was known, in milliseconds; and
/// its pause after a connection that could not be accepted.
pub const SERVE_LINGER_MS: u64 = 200;

/// Longest time from a second signal to the end of the process, in milliseconds, whatever still runs in it:
/// the sum of the steps of an orderly shutdown.
pub const SERVE_HURRIED_END_MS: u64 =
    SERVE_KNOCKERS_MS + super::CHECKPOINT_GOODBYE_MS + super::SHUTDOWN_MS + SERVE_GOODBYE_MS + RUNTIME_END_MS + 2_000;

/// Longest time from the first signal to the end of the process, in milliseconds, whatever still runs in it.
pub const SERVE_END_MS: u64 = SERVE_DRAIN_MS + SERVE_HURRIED_END_MS;

/// Descriptors that the runtime of a command takes at its start, with some to spare.
pub const RUNTIME_FILES: usize = 8;

/// How long blocking work may delay the end of a command, in milliseconds.
pub const RUNTIME_END_MS: u64 = 2_000;

/// Largest token file of a server, in bytes.
pub const TOKEN_FILE_BYTES_MAX: u64 = 256;

/// Fewest and most characters of a token that an app provides itself: a shorter one could be guessed.
pub const TOKEN_CHARS_MIN: usize = 32;

pub const TOKEN_CHARS_MAX: usize = 256;

/// Longest path of a Unix socket, in bytes: what the kernel's address holds, without the closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Refused callers that get successive `retry_after` times; further ones all get the last.
pub const SENT_AWAY_MAX: usize = 16_384;

/// How long to wait for a service manager with a full queue, in milliseconds.
pub const NOTIFY_WAIT_MS: u64 = 500;
