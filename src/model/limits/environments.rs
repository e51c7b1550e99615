//! Bounds of environments: what the wheels of a recipe's lock may be, and what building them may take.

/// Bytes of one environment: twice the largest that we know of (torch, jax and tensorflow with the libraries
/// of a GPU).
pub const ENVIRONMENT_BYTES_MAX: u64 = 32 << 30;

/// Files and folders of one environment: ten times as many as torch with all that it needs.
pub const ENVIRONMENT_ENTRIES_MAX: usize = 400_000;

/// The path of a file within an environment, in bytes: five times the longest that we know of. With the
/// folders above it, in staging or where it is used, it stays well below what the kernel takes (4096), and so
/// does what is made beside it.
pub const ENVIRONMENT_PATH_BYTES_MAX: usize = 1024;

/// How much of a path is shown when it is refused, in characters.
pub const ENVIRONMENT_PATH_SHOWN_CHARS: usize = 200;

/// What `uv` may write for one environment, in bytes: each file once into its cache and once into the
/// environment.
pub const ENVIRONMENT_WRITTEN_BYTES_MAX: u64 = 2 * ENVIRONMENT_BYTES_MAX;

/// Memory of `uv` while it builds one environment, in bytes: six times what it took for torch with all that
/// it needs (0.7 GB, most of it for downloads at the same time, with 2 or 32 installing threads). It reads
/// whole what a wheel says of itself (`WHEEL`, `RECORD`, `entry_points.txt`), which a few hundred kilobytes
/// of an archive can make to gigabytes.
pub const ENVIRONMENT_MEMORY_BYTES_MAX: u64 = 4 << 30;

/// Between two looks at what a tool has written, in milliseconds: a fast disk takes a gigabyte or two in
/// between.
pub const TOOL_LOOK_MS: u64 = 500;

/// Compiling the sources of one environment to bytecode, in milliseconds: ten times as long as torch takes on
/// one core.
pub const BYTECODE_MS: u64 = 900_000;

/// Processes that compile at a time.
pub const BYTECODE_WORKERS_MAX: usize = 8;

/// Memory of each of them, in bytes: the largest generated sources take some hundred megabytes.
pub const BYTECODE_MEMORY_BYTES: u64 = 1 << 30;

/// Between two looks at the size of an environment that is being compiled, in milliseconds.
pub const BYTECODE_LOOK_MS: u64 = 2_000;

/// Package indexes that one list of `hob.toml` may name: each is asked for each package.
pub const PACKAGE_INDEXES_MAX: usize = 16;

/// Largest list of a wheel's files (its RECORD) that is read to say which wheel a refused file is of, in
/// bytes.
pub const WHEEL_RECORD_BYTES_MAX: u64 = 16 << 20;

/// Largest script of a wheel that is pointed at its environment's interpreter, in bytes; a larger one is a
/// program.
pub const SCRIPT_BYTES_MAX: u64 = 1 << 20;

/// Largest first message of a confined process, in bytes: what is missing, or why it was refused.
pub const CONFINED_WORD_BYTES_MAX: usize = 64 << 10;

/// After an install failed each index is asked once more for one package: so long at most, in milliseconds,
/// and so many bytes of its page.
pub const INDEX_ANSWER_MS: u64 = 10_000;
pub const INDEX_PAGE_BYTES_MAX: u64 = 64 << 10;

/// A `.netrc`, in which `uv` looks for users of indexes.
pub const NETRC_BYTES_MAX: u64 = 1 << 20;

/// Largest `requirements.lock`, in bytes.
pub const LOCK_BYTES_MAX: u64 = 4 << 20;

/// Environments that are built at a time, unless one waits for too long.
pub const ENVIRONMENT_BUILDS_MAX: usize = 4;

/// How long a build waits for one of these places, in milliseconds: strangers whose package index drips may
/// have them all.
pub const ENVIRONMENT_TURN_MS: u64 = 10_000;

/// Building one environment, in milliseconds: a multi-gigabyte torch over a slow line.
pub const ENVIRONMENT_BUILD_MS: u64 = 3_600_000;

/// Asking an interpreter or `uv` what it is, in milliseconds.
pub const PROBE_MS: u64 = 20_000;

/// Output of a probed program that is kept, in bytes; the rest is read and dropped.
pub const TOOL_OUTPUT_BYTES_MAX: usize = 64 << 10;

/// After a tool has exited, how long its pipes are still read, in milliseconds: a grandchild may hold them
/// open for ever.
pub const TOOL_PIPE_GRACE_MS: u64 = 500;

/// Lines of a tool's standard error that are attached to a fault.
pub const TOOL_TAIL_LINES: usize = 30;

/// A package index that sends no byte for this long has stalled, in milliseconds. Longer than
/// [`HTTP_STALL_MS`](super::HTTP_STALL_MS): mirrors that fetch on demand are slow to begin.
pub const PACKAGE_INDEX_STALL_MS: u64 = 180_000;

/// Fetching our own `uv` (some 25 MB), in milliseconds.
pub const UV_FETCH_MS: u64 = 900_000;

/// Age of a file in the builds' cache that no build can be at work on any more, in milliseconds.
pub const ENVIRONMENT_STALE_MS: u64 = 2 * ENVIRONMENT_BUILD_MS;
