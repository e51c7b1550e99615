//! Bounds of a pod's life: the stop ladder, signs of life, its end, and what the kernel reports of its
//! processes.

/// How long a cancelled ask may take to answer before its pod is killed, in milliseconds.
pub const CANCEL_GRACE_MS: u64 = 2_000;

/// Stop ladder: how long a draining pod may take to exit by itself, in milliseconds. Exit handlers of a
/// Python program have two seconds of it (`END_S` in `hob_pod/ending.py`).
pub const DRAIN_GRACE_MS: u64 = 3_000;

/// Stop ladder: from SIGTERM to SIGKILL, in milliseconds.
pub const TERM_GRACE_MS: u64 = 1_000;

/// Stop ladder: how long the keeper may take to find its process tree empty after SIGKILL, in milliseconds.
pub const KILL_GRACE_MS: u64 = 2_000;

/// Stop ladder: how long a pod that hangs has to print its stack before it is killed, in milliseconds.
pub const STACK_GRACE_MS: u64 = 200;

/// A busy pod that is silent for this long is pinged, in milliseconds; an idle pod is never pinged.
pub const PING_MS: u64 = 5_000;

/// How long a busy pod may neither send nor compute before it is killed, in milliseconds: longer than a disk
/// or a lock makes good code wait.
pub const SILENCE_MS: u64 = 15_000;

/// Between two checks of a pod's memory, in milliseconds.
pub const MEMORY_LOOK_MS: u64 = 1_000;

/// How long the end of a process may lag behind the end of its sockets or pipes, in milliseconds.
pub const EXIT_GRACE_MS: u64 = 500;

/// How long the report of a process's end may lag behind its end in the kernel, in milliseconds: its keeper
/// must get a core first.
pub const EXIT_LATE_MS: u64 = 10_000;

/// How long a host that shuts down lets accepted calls finish, in milliseconds.
pub const SHUTDOWN_DRAIN_MS: u64 = 10_000;

/// Longest such wait that an app may ask for: thirty years.
pub const DRAIN_MAX_MS: u64 = 30 * 365 * 24 * 3_600_000;

/// How long ending all pods of a host may take, in milliseconds: the whole stop ladder, for all at once.
pub const SHUTDOWN_MS: u64 = DRAIN_GRACE_MS + STACK_GRACE_MS + TERM_GRACE_MS + 2 * KILL_GRACE_MS + 2 * EXIT_GRACE_MS;

/// How often a host checks whether its operator changed the permissions of recipes, in milliseconds: a pod
/// that lost a permission ends within this time.
pub const GRANTS_LOOK_MS: u64 = 1_000;

/// Largest text of the kernel about a process that is read for its vitals, in bytes.
pub const KERNEL_TEXT_BYTES_MAX: u64 = 64 << 10;

/// Most generations between a pod's process and its keeper.
pub const GENERATIONS_MAX: usize = 64;

/// Processes of one pod that are counted for its vitals.
pub const VITALS_PROCESSES_MAX: usize = 1_024;

/// Page size of a pod, in bytes: the smallest that can be mapped.
pub const POD_PAGE_BYTES: u64 = 4_096;

/// How long ending the processes that a pod left after its keeper may take, in milliseconds; then they are
/// reported and no longer awaited.
pub const LEFTOVERS_MS: u64 = 2_000;

/// Quick checks for new processes after each full scan.
pub const LEFTOVERS_QUICK_LOOKS: u32 = 20;

/// Between two quick checks for what a pod left, in microseconds.
pub const LEFTOVERS_PAUSE_US: u64 = 250;

/// Scans in a row without a find after which nothing is taken to be left: a process that is just starting a
/// program has no marks.
pub const LEFTOVERS_QUIET_ROUNDS: u32 = 2;

/// Largest environment or mappings of one process, in bytes: more than the kernel allows a program to start
/// with.
pub const PROCESS_TEXT_BYTES_MAX: u64 = 8 << 20;

/// Largest record of a live pod, in bytes of JSON.
pub const POD_RECORD_BYTES_MAX: u64 = 16 << 10;
