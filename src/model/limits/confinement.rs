//! Bounds of a pod's surroundings: its share of the machine, its proxy to the network, and the zygote from
//! which it may be forked.

/// Memory of a pod that declares no `memory_bytes`, in percent of the machine's: a runaway ends its own pod,
/// not the host.
pub const POD_MEMORY_PERCENT: u64 = 75;

/// Between two checks of the memory of a pod that no control group bounds, while it works and while it is
/// idle, in milliseconds.
pub const MEMORY_WATCH_MS: u64 = 250;
/// See [`MEMORY_WATCH_MS`].
pub const MEMORY_WATCH_IDLE_MS: u64 = 30_000;

/// Descriptors of a pod that one memory check counts; each one beyond counts as a full socket.
pub const UNSEEN_DESCRIPTORS_MAX: usize = 4_096;

/// Bytes of `/proc/PID/maps` that one memory check reads: as many mappings as the kernel allows by default.
pub const UNSEEN_MAPS_BYTES_MAX: u64 = 8 << 20;

/// Sockets and pipes of a pod that are not counted, where no control group counts its memory: ordinary
/// programs have this many.
pub const POD_CHANNELS_FREE: usize = 64;

/// Bytes that a pipe of a pod may hold. It may ask for more, up to 64 MiB for all pipes of the host's user.
pub const POD_PIPE_BYTES: u64 = 64 << 10;

/// Most bytes that a socket holds if the kernel does not say.
pub const SOCKET_BYTES_DEFAULT: u64 = 212_992;

/// How far the last message that a socket accepts may exceed its bound, in bytes.
pub const SOCKET_OVERHEAD_BYTES: u64 = 64 << 10;

/// Processes and threads of a pod that declares no `processes`.
pub const POD_PROCESSES_DEFAULT: u64 = 1_024;

/// Size of each of a pod's private folders in memory (its scratch folder, /tmp, /dev/shm), in bytes.
pub const POD_SCRATCH_BYTES: u64 = 1 << 30;

/// Size of each of a zygote's private folders in memory, in bytes: its pods have their own.
pub const FAMILY_FOLDER_BYTES: u64 = 64 << 20;

/// What the imports of a zygote may leave in its folders, which is copied into the folders of each of its
/// pods: entries and bytes. A font cache has some hundred KiB.
pub const ZYGOTE_LEFT_ENTRIES_MAX: u64 = 1_000;
/// See [`ZYGOTE_LEFT_ENTRIES_MAX`].
pub const ZYGOTE_LEFT_BYTES_MAX: u64 = 16 << 20;

/// Files and folders of the machine's settings that a host scans at once before it gives them to pods;
/// entries beyond are not given.
pub const SETTINGS_ENTRIES_MAX: usize = 10_000;

/// Longest message to or from the init process of a zygote, in bytes.
pub const FAMILY_PACKET_BYTES_MAX: usize = 128 << 10;

/// From the start of a zygote to its readiness, in milliseconds: time for the imports of the largest wheels
/// on a busy machine.
pub const ZYGOTE_BOOT_MS: u64 = 120_000;

/// How long a zygote without pods is kept, in milliseconds; then it ends and frees its memory.
pub const ZYGOTE_IDLE_MS: u64 = 600_000;

/// How long a recipe's case may take on the first forked pod, before others are forked, in milliseconds.
pub const ZYGOTE_CANARY_MS: u64 = 120_000;

/// Most sandbox layers that a pod may name as missing, and the most characters of each text.
pub const POD_MISSING_MAX: usize = 16;
/// See [`POD_MISSING_MAX`].
pub const POD_MISSING_CHARS_MAX: usize = 200;

/// Connections that one pod may have through its way out at a time; further ones wait in the kernel.
pub const EGRESS_CONNECTIONS_MAX: usize = 64;

/// Largest head of a request that a pod sends out, or of its answer, in bytes: what servers accept, with some
/// room for long cookies.
pub const EGRESS_HEAD_BYTES_MAX: usize = 64 << 10;

/// Answers of the kind `1xx` that a server may send a pod before its final answer: one is usual; each is read
/// and dropped.
pub const EGRESS_INFORMATIONAL_MAX: usize = 16;

/// How long the head of a request from a pod may take, from its first byte to its last, in milliseconds: it
/// comes from the same machine.
pub const EGRESS_HEAD_MS: u64 = 10_000;

/// How long resolving a name for a pod may take, in milliseconds: two tries of a usual resolver.
pub const EGRESS_LOOKUP_MS: u64 = 10_000;

/// Concurrent lookups of one pod, including those for which it no longer waits: each holds a thread.
pub const EGRESS_LOOKUPS_MAX: usize = 8;

/// Addresses of one name that are tried.
pub const EGRESS_ADDRESSES_MAX: usize = 16;

/// How long connecting for a pod may take, with all addresses of the name together, in milliseconds.
pub const EGRESS_CONNECT_MS: u64 = 10_000;

/// How long a pod's connection may be without a byte in either direction, in milliseconds: a model behind an
/// API may think for minutes.
pub const EGRESS_IDLE_MS: u64 = 300_000;

/// Refusals of one pod that are kept for its faults; beyond that the oldest is dropped.
pub const EGRESS_REFUSALS_MAX: usize = 8;

/// The pause after a pod's connection that could not be accepted, in milliseconds.
pub const EGRESS_ACCEPT_PAUSE_MS: u64 = 100;

/// Entries of one folder of devices, or of the files that belong to them, that a pod is given: more GPUs than
/// any machine has.
pub const GPU_FILES_MAX: usize = 256;

/// Longest name of a control group, in bytes: a home, a host and a pod fit.
pub const CGROUP_NAME_BYTES_MAX: usize = 64;

/// Tries to remove a control group whose last process is ending.
pub const CGROUP_REMOVE_TRIES: u32 = 20;

/// Between two such tries, in milliseconds.
pub const CGROUP_REMOVE_PAUSE_MS: u64 = 5;

/// Control groups of ended hosts that one sweep removes.
pub const CGROUPS_SWEPT_MAX: usize = 1_024;

/// How long all trials of `hob doctor` in a Python process may take, in milliseconds: five trials of at most
/// five seconds each.
pub const DOCTOR_TRIAL_MS: u64 = 30_000;

/// How long making a zygote without a wheel may take, to test whether it works, in milliseconds: it takes
/// some hundred.
pub const DOCTOR_ZYGOTE_MS: u64 = 20_000;

/// Largest answer of that Python process, and of its standard error, in bytes: ten acts and their reasons.
pub const DOCTOR_ANSWER_BYTES_MAX: u64 = 256 << 10;

/// Descriptors of each process of a pod, and of those in transit between processes. A host that may have
/// fewer than twice as many gives half of its own.
pub const POD_DESCRIPTORS_MAX: u64 = 4_096;

/// Descriptors of the host that a pod takes beside its regions: two lanes with both their ends during its
/// start, two pipes, its process, its locks.
pub const POD_FILES: u64 = 10;

/// Descriptors of the host that a pod's connection to the network takes: both sides.
pub const EGRESS_FILES: u64 = 2;

/// Share of its descriptors that a host reserves for itself, whatever recipes and callers take, in percent;
/// and the least and greatest number of these.
pub const FILES_RESERVE_PERCENT: u64 = 12;
/// See [`FILES_RESERVE_PERCENT`].
pub const FILES_RESERVE_MIN: u64 = 48;
/// See [`FILES_RESERVE_PERCENT`].
pub const FILES_RESERVE_MAX: u64 = 256;

/// Pending signals of a pod's processes: the kernel keeps some thousands for all processes of a user.
pub const POD_SIGNALS_MAX: u64 = 1_024;

/// Bytes that a pod's kernel message queues hold: a user has 800 KiB for all.
pub const POD_QUEUE_BYTES_MAX: u64 = 64 << 10;

/// Sockets, FIFOs and devices of a granted folder that are masked for a pod; a folder with more is not a data
/// folder.
pub const GRANT_COVERED_MAX: u64 = 256;

/// Entries of a granted folder, with everything below, that are searched for such files at each start of a
/// pod: some seconds' work.
pub const GRANT_ENTRIES_MAX: u64 = 2_000_000;

/// Longest such search, in seconds.
pub const GRANT_LOOK_MAX_S: u64 = 15;
