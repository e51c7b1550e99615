//! Bounds of `hob serve`: who may hold a connection, for how long, and how long shutting down takes.

use super::{DOCUMENT_BYTES_MAX, FRAME_BYTES_MAX, GLUE_BLOB_BYTES_MAX};

/// Threads of a server, at most; fewer on a machine with fewer cores. The work is the pods': more threads
/// would only pass it around.
pub const SERVE_THREADS_MAX: usize = 8;

/// Connections that each way into a server has at a time, and more than [`SERVE_CALLS_MAX`]; fewer where the
/// process may have few open files. The next one gets one of [`SERVE_RESERVE_MAX`].
pub const SERVE_CONNECTIONS_MAX: usize = 2_048;

/// Of these, connections that showed no complete and allowed request yet: the oldest goes for the next one.
pub const SERVE_STRANGERS_MAX: usize = 512;

/// Connections that the kernel keeps until the server takes them, over TCP; it keeps fewer where
/// `net.core.somaxconn` is lower.
pub const SERVE_BACKLOG: i32 = 65_535;

/// Connections that are taken in a row before those that were taken get a turn; no more than a quarter of the
/// strangers that there may be.
pub const SERVE_ROW_MAX: usize = 32;

/// What came from a stranger before it is sent away is read and heard within this time, in milliseconds: the
/// kernel has it already.
pub const SERVE_HEARD_MS: u64 = 200;

/// Share of [`SERVE_STRANGERS_MAX`] that one address may have once all of it is taken, in percent: beyond
/// that its own oldest goes first.
pub const SERVE_PEER_PERCENT: usize = 25;

/// Connections beyond [`SERVE_CONNECTIONS_MAX`] that each way in keeps for those who look (`/livez`,
/// `/readyz`, `hob status`), and to tell all others `overloaded`.
pub const SERVE_RESERVE_MAX: usize = 64;

/// From the first byte of such a connection to a whole head, in milliseconds.
pub const SERVE_RESERVE_MS: u64 = 2_000;

/// Open files that a server asks the system for, where it may have as many: connections of its ways in, and
/// what pods take.
pub const SERVE_FILES: u64 = 65_536;

/// Share of the open files that the connections of all ways in may take together, in percent; the rest is for
/// pods and the shelf.
pub const SERVE_FILES_PERCENT: usize = 50;

/// Listed proxies: load balancers in front of one server.
pub const SERVE_PROXIES_MAX: usize = 64;

/// Calls that a server runs at a time, over all its ways in; the next is refused as `overloaded`.
pub const SERVE_CALLS_MAX: usize = 768;

/// What a caller is told to wait when a server has too many calls under way, in milliseconds: most calls are
/// shorter.
pub const SERVE_RETRY_MS: u64 = 1_000;

/// The head of a request from its first byte to its last, and a connection between two requests, in
/// milliseconds.
pub const SERVE_HEAD_MS: u64 = 30_000;

/// From the beginning of a connection to its first complete and allowed request, in milliseconds: a stranger
/// has no more time.
pub const SERVE_STRANGER_MS: u64 = 10_000;

/// After an answer that was given before the request was read to its end: how long a further byte of it may
/// take, and all that is discarded, in milliseconds. Closing at once would take the answer back from who is
/// still sending.
pub const SERVE_DISCARD_PAUSE_MS: u64 = 1_000;
/// See [`SERVE_DISCARD_PAUSE_MS`].
pub const SERVE_DISCARD_MS: u64 = 5_000;
/// See [`SERVE_DISCARD_PAUSE_MS`]; in bytes.
pub const SERVE_DISCARD_BYTES_MAX: usize = SERVE_CALL_BYTES_MAX;

/// Largest head of a request, and of what is read of a connection at once, in bytes.
pub const SERVE_HEAD_BYTES_MAX: usize = 64 << 10;

/// The body of a request from its first byte to its last, in milliseconds.
pub const SERVE_BODY_MS: u64 = 60_000;

/// How long a body that is here may take to be read, in milliseconds, before its call begins and its deadline
/// counts.
pub const SERVE_READ_MS: u64 = 30_000;

/// A caller that takes no byte of its answer for so long is hung up on, in milliseconds.
pub const SERVE_STALL_MS: u64 = 30_000;

/// Largest general call: a document, and a frame's worth of blobs in base64, with the words around them, in
/// bytes.
pub const SERVE_CALL_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + FRAME_BYTES_MAX / 3 * 4 + (64 << 10);

/// Open files that one connection may have handed in and not taken yet, and that go with one message: some
/// answers' worth of blobs.
pub const HANDED_FILES_MAX: usize = 64;

/// What is read at once of a connection that carries files, in bytes.
pub const HANDED_READ_BYTES_MAX: usize = 64 << 10;

/// Files of its callers that a server holds, of all connections and calls; fewer where the process may have
/// few open files.
pub const SERVE_FILES_IN_MAX: usize = 1_024;

/// Share of the open files that those may take, in percent.
pub const SERVE_FILES_IN_PERCENT: usize = 12;

/// Blobs of results that a server has copied into files and not handed over yet, in bytes, of all calls; the
/// next one waits. Each counts as [`SERVE_FILE_OUT_BYTES_MIN`] at least, so that their number is bounded too.
pub const SERVE_FILES_OUT_BYTES_MAX: u64 = 32 << 30;
/// See [`SERVE_FILES_OUT_BYTES_MAX`].
pub const SERVE_FILE_OUT_BYTES_MIN: u64 = 32 << 20;

/// Results that a server copies into files at the same time: a slow disk must not take the threads that
/// others need.
pub const SERVE_COPIES_AT_ONCE: usize = 4;

/// Bodies above this size in bytes wait for room among [`SERVE_BODIES_BYTES_MAX`].
pub const SERVE_BODY_SMALL_BYTES: usize = 64 << 10;

/// What the larger bodies of all requests may hold in memory together, in bytes.
pub const SERVE_BODIES_BYTES_MAX: usize = 256 << 20;

/// How long a body waits for that room, in milliseconds; then its caller is told `overloaded`.
pub const SERVE_BODY_WAIT_MS: u64 = 5_000;

/// A general call that has nothing to tell says so with an empty line, in milliseconds.
pub const SERVE_BEAT_MS: u64 = 5_000;

/// After so long without a byte of a call, the command line takes the server for dead, in milliseconds.
pub const SERVE_SILENCE_MS: u64 = 30_000;

/// Largest line of a general call's answer, in bytes: an output, and the blobs that one glue run may hold, in
/// base64.
pub const SERVE_LINE_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + GLUE_BLOB_BYTES_MAX / 3 * 4 + (1 << 20);

/// How long after a call's own deadline the command line waits for the server's word on it, in milliseconds.
pub const SERVE_LATE_MS: u64 = 500;

/// Connecting to a server whose queue of connections is full, in milliseconds.
pub const SERVE_CONNECT_MS: u64 = 2_000;

/// An answer about pods, logs or status, in milliseconds.
pub const SERVE_LOOK_MS: u64 = 5_000;

/// How long the command line waits for `/livez` of a server that was silent, in milliseconds.
pub const SERVE_LIVEZ_MS: u64 = 2_000;

/// What a caller was not told of a fault, as it stands in the server's log, in bytes.
pub const SERVE_WITHHELD_LOG_BYTES_MAX: usize = 16 << 10;

/// After SIGTERM, for how long connections that were already under way to the server are taken, in
/// milliseconds.
pub const SERVE_KNOCKERS_MS: u64 = 1_000;

/// After SIGTERM, how long the calls under way may take to end by themselves, in milliseconds.
pub const SERVE_DRAIN_MS: u64 = 10_000;

/// After the pods of an ending server are gone, how long its last answers may take to be written, in
/// milliseconds.
pub const SERVE_GOODBYE_MS: u64 = 2_000;

/// How long an ending server still listens to what was sent before its end was known, in milliseconds; and
/// its pause after a connection that could not be taken.
pub const SERVE_LINGER_MS: u64 = 200;

/// From a second signal to the end of the process, in milliseconds, whatever still runs in it: each step of
/// an end in order has its time.
pub const SERVE_HURRIED_END_MS: u64 =
    SERVE_KNOCKERS_MS + super::CHECKPOINT_GOODBYE_MS + super::SHUTDOWN_MS + SERVE_GOODBYE_MS + RUNTIME_END_MS + 2_000;

/// From the first signal to the end of the process, in milliseconds, whatever still runs in it.
pub const SERVE_END_MS: u64 = SERVE_DRAIN_MS + SERVE_HURRIED_END_MS;

/// Descriptors that the runtime of a command takes when it is made, and a few more.
pub const RUNTIME_FILES: usize = 8;

/// How long work that blocks a thread may hold up the end of a command, in milliseconds.
pub const RUNTIME_END_MS: u64 = 2_000;

/// The token file of a server, in bytes.
pub const TOKEN_FILE_BYTES_MAX: u64 = 256;

/// Characters of a token that an app brings itself, at least: below that it can be guessed; and at most.
pub const TOKEN_CHARS_MIN: usize = 32;

pub const TOKEN_CHARS_MAX: usize = 256;

/// Longest path of a Unix socket, in bytes: what the kernel's address holds, without the closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Refused callers that are told to come back one behind the other; those after them come all at once.
pub const SENT_AWAY_MAX: usize = 16_384;

/// How long a service manager whose queue is full is waited for.
pub const NOTIFY_WAIT_MS: u64 = 500;
