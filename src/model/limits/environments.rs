//! Bounds of environments: what the wheels of a recipe's lock may be, and what building them may take.

/// Bytes of one environment: twice the largest known one (torch, jax and tensorflow with the libraries of a
/// GPU).
pub const ENVIRONMENT_BYTES_MAX: u64 = 32 << 30;

/// Files and folders of one environment: ten times as many as torch with all its dependencies has.
pub const ENVIRONMENT_ENTRIES_MAX: usize = 400_000;

/// Longest path of a file within an environment, in bytes: five times the longest known one. With the folders
/// above it, in staging or in use, it stays well below the kernel's bound (4096), and so do files made beside
/// it.
pub const ENVIRONMENT_PATH_BYTES_MAX: usize = 1024;

/// Characters of a refused path that a message shows.
pub const ENVIRONMENT_PATH_SHOWN_CHARS: usize = 200;

/// Bytes that `uv` may write for one environment: each file once into its cache and once into the
/// environment.
pub const ENVIRONMENT_WRITTEN_BYTES_MAX: u64 = 2 * ENVIRONMENT_BYTES_MAX;

/// Memory of `uv` while it builds one environment, in bytes: six times what it took for torch with all its
/// dependencies (0.7 GB, most of it for parallel downloads, with 2 or 32 installing threads). `uv` reads a
/// wheel's metadata (`WHEEL`, `RECORD`, `entry_points.txt`) into memory, and a few hundred kilobytes of an
/// archive can unpack to gigabytes.
pub const ENVIRONMENT_MEMORY_BYTES_MAX: u64 = 4 << 30;

/// Between two checks of what a tool has written, in milliseconds: a fast disk takes a gigabyte or two in
/// between.
pub const TOOL_LOOK_MS: u64 = 500;

/// How long compiling the sources of one environment to bytecode may take, in milliseconds: ten times as long
/// as torch takes on one core.
pub const BYTECODE_MS: u64 = 900_000;

/// Processes that compile at the same time.
pub const BYTECODE_WORKERS_MAX: usize = 8;

/// Memory of each of them, in bytes: the largest generated sources take some hundred megabytes.
pub const BYTECODE_MEMORY_BYTES: u64 = 1 << 30;

/// Between two checks of the size of an environment that is being compiled, in milliseconds.
pub const BYTECODE_LOOK_MS: u64 = 2_000;

/// Package indexes that one list of `hob.toml` may name: each is queried for each package.
pub const PACKAGE_INDEXES_MAX: usize = 16;

/// Largest list of a wheel's files (its RECORD) that is read to find the wheel of a refused file, in bytes.
pub const WHEEL_RECORD_BYTES_MAX: u64 = 16 << 20;

/// Largest script of a wheel that is pointed at its environment's interpreter, in bytes; a larger one is a
/// program.
pub const SCRIPT_BYTES_MAX: u64 = 1 << 20;

/// Largest first message of a confined process, in bytes: it says what is missing, or why something was
/// refused.
pub const CONFINED_WORD_BYTES_MAX: usize = 64 << 10;

/// After a failed install each index is queried once more for one package; bounds on that query in
/// milliseconds and bytes of its page.
pub const INDEX_ANSWER_MS: u64 = 10_000;
pub const INDEX_PAGE_BYTES_MAX: u64 = 64 << 10;

/// Largest `.netrc` that is read, in bytes; `uv` looks there for users of indexes.
pub const NETRC_BYTES_MAX: u64 = 1 << 20;

/// Largest `requirements.lock`, in bytes.
pub const LOCK_BYTES_MAX: u64 = 4 << 20;

/// Environments that are built at the same time, unless one waits for too long.
pub const ENVIRONMENT_BUILDS_MAX: usize = 4;

/// How long a build waits for one of these slots, in milliseconds: a slow package index of other recipes may
/// occupy them all.
pub const ENVIRONMENT_TURN_MS: u64 = 10_000;

/// How long building one environment may take, in milliseconds: a multi-gigabyte torch over a slow line.
pub const ENVIRONMENT_BUILD_MS: u64 = 3_600_000;

/// How long an interpreter or `uv` may take to say what it is, in milliseconds.
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

/// How long fetching Hob's own `uv` (some 25 MB) may take, in milliseconds.
pub const UV_FETCH_MS: u64 = 900_000;

/// Age from which no build can still be using a file in the builds' cache, in milliseconds.
pub const ENVIRONMENT_STALE_MS: u64 = 2 * ENVIRONMENT_BUILD_MS;
