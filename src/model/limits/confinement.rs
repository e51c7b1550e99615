//! Bounds of a pod's surroundings: its share of the machine, its proxy to the network, and the zygote from
//! which it may be forked.

/// Memory of a pod that declares no `memory_bytes`, in percent of the machine's: a runaway takes its own pod
/// down, not the host.
pub const POD_MEMORY_PERCENT: u64 = 75;

/// Between two looks at the memory of a pod that no control group bounds, while it works and while it is
/// idle, in milliseconds.
pub const MEMORY_WATCH_MS: u64 = 250;
/// See [`MEMORY_WATCH_MS`].
pub const MEMORY_WATCH_IDLE_MS: u64 = 30_000;

/// Descriptors of a pod that one look at its memory counts; each one past it counts as a full socket.
pub const UNSEEN_DESCRIPTORS_MAX: usize = 4_096;

/// Bytes of `/proc/PID/maps` that one look reads: as many mappings as the kernel allows by default.
pub const UNSEEN_MAPS_BYTES_MAX: u64 = 8 << 20;

/// Sockets and pipes of a pod that count nothing, where no control group counts its memory: those that
/// ordinary programs have.
pub const POD_CHANNELS_FREE: usize = 64;

/// What a pipe of a pod may hold, in bytes. It may ask for more, up to 64 MiB for all pipes of the host's
/// user.
pub const POD_PIPE_BYTES: u64 = 64 << 10;

/// What a socket holds at most where the kernel does not say, in bytes.
pub const SOCKET_BYTES_DEFAULT: u64 = 212_992;

/// What the last message that a socket takes may go past its bound, in bytes.
pub const SOCKET_OVERHEAD_BYTES: u64 = 64 << 10;

/// Processes and threads of a pod that declares no `processes`.
pub const POD_PROCESSES_DEFAULT: u64 = 1_024;

/// Each of a pod's private folders in memory (its scratch folder, /tmp, /dev/shm), in bytes.
pub const POD_SCRATCH_BYTES: u64 = 1 << 30;

/// Each of a zygote's private folders in memory, in bytes: its pods have their own.
pub const FAMILY_FOLDER_BYTES: u64 = 64 << 20;

/// What the imports of a zygote may leave in its folders, to be copied into those of each of its pods:
/// entries and bytes. A cache of fonts has some hundred KiB.
pub const ZYGOTE_LEFT_ENTRIES_MAX: u64 = 1_000;
/// See [`ZYGOTE_LEFT_ENTRIES_MAX`].
pub const ZYGOTE_LEFT_BYTES_MAX: u64 = 16 << 20;

/// Files and folders of the machine's settings that a host looks at once, before it gives them to pods; what
/// lies past it is not given.
pub const SETTINGS_ENTRIES_MAX: usize = 10_000;

/// Longest message to or from the head of a family, in bytes.
pub const FAMILY_PACKET_BYTES_MAX: usize = 128 << 10;

/// From the start of a zygote to its readiness, in milliseconds: the imports of the largest wheels on a busy
/// machine.
pub const ZYGOTE_BOOT_MS: u64 = 120_000;

/// A zygote that had no pod for so long goes, and its memory with it, in milliseconds.
pub const ZYGOTE_IDLE_MS: u64 = 600_000;

/// Between two looks at whether a zygote, or its first pod, is ready, in milliseconds.
pub const ZYGOTE_LOOK_MS: u64 = 20;

/// A recipe's case on a forked pod, before others are forked, in milliseconds.
pub const ZYGOTE_CANARY_MS: u64 = 120_000;

/// Layers of its sandbox that a pod names as missing, and the length of each text in characters.
pub const POD_MISSING_MAX: usize = 16;
/// See [`POD_MISSING_MAX`].
pub const POD_MISSING_CHARS_MAX: usize = 200;

/// Connections that one pod has through its way out at a time; the next one waits in the kernel until one is
/// over.
pub const EGRESS_CONNECTIONS_MAX: usize = 64;

/// Largest head of a request that a pod sends out, or of the answer to it, in bytes: what servers take, and
/// some room for long cookies.
pub const EGRESS_HEAD_BYTES_MAX: usize = 64 << 10;

/// Answers of the kind `1xx` that a server may send a pod before its answer proper: one is usual, and each is
/// read and dropped.
pub const EGRESS_INFORMATIONAL_MAX: usize = 16;

/// The head of a request from a pod, from its first byte to its last, in milliseconds: it comes from the same
/// machine.
pub const EGRESS_HEAD_MS: u64 = 10_000;

/// Finding the addresses of a name for a pod, in milliseconds: two tries of a usual resolver.
pub const EGRESS_LOOKUP_MS: u64 = 10_000;

/// Lookups of one pod under way at a time, those that it no longer waits for too: each holds a thread.
pub const EGRESS_LOOKUPS_MAX: usize = 8;

/// Addresses of one name that are tried.
pub const EGRESS_ADDRESSES_MAX: usize = 16;

/// Connecting for a pod, all addresses of the name together, in milliseconds.
pub const EGRESS_CONNECT_MS: u64 = 10_000;

/// A pod's connection without a byte in either direction, in milliseconds: a model behind an API may think
/// for minutes.
pub const EGRESS_IDLE_MS: u64 = 300_000;

/// Refusals of one pod that are kept for its faults; the oldest goes.
pub const EGRESS_REFUSALS_MAX: usize = 8;

/// The pause after a pod's connection that could not be taken, in milliseconds.
pub const EGRESS_ACCEPT_PAUSE_MS: u64 = 100;

/// Names of one folder of devices, or of what belongs to them, that are given to a pod: more GPUs than any
/// machine has.
pub const GPU_FILES_MAX: usize = 256;

/// Longest name of a control group, in bytes: a home, a host and a pod fit.
pub const CGROUP_NAME_BYTES_MAX: usize = 64;

/// Tries to remove a control group whose last process is just going.
pub const CGROUP_REMOVE_TRIES: u32 = 20;

/// Between two such tries, in milliseconds.
pub const CGROUP_REMOVE_PAUSE_MS: u64 = 5;

/// Control groups of ended hosts that one look removes.
pub const CGROUPS_SWEPT_MAX: usize = 1_024;

/// All that `hob doctor` tries in a Python process, in milliseconds: five trials, none of which may take
/// longer than five seconds.
pub const DOCTOR_TRIAL_MS: u64 = 30_000;

/// Making a zygote without a wheel, to see whether one can be, in milliseconds: it takes some hundred.
pub const DOCTOR_ZYGOTE_MS: u64 = 20_000;

/// Largest answer of that Python process, and of what it says on standard error, in bytes: ten acts and their
/// reasons.
pub const DOCTOR_ANSWER_BYTES_MAX: u64 = 256 << 10;

/// Descriptors of each process of a pod, and of those on their way between processes; on a host that may have
/// fewer than twice as many: half of its own.
pub const POD_DESCRIPTORS_MAX: u64 = 4_096;

/// Descriptors of the host that a pod takes beside its regions: two lanes with both their ends while it
/// starts, two pipes, its process, its locks.
pub const POD_FILES: u64 = 10;

/// Descriptors of the host that a pod's connection to the network takes: both sides.
pub const EGRESS_FILES: u64 = 2;

/// Share of its descriptors that a host keeps for itself, whatever recipes and callers take, in percent, and
/// how many these are at least and at most.
pub const FILES_RESERVE_PERCENT: u64 = 12;
/// See [`FILES_RESERVE_PERCENT`].
pub const FILES_RESERVE_MIN: u64 = 48;
/// See [`FILES_RESERVE_PERCENT`].
pub const FILES_RESERVE_MAX: u64 = 256;

/// Signals that wait for a pod's processes: the kernel keeps some thousands for all of a user.
pub const POD_SIGNALS_MAX: u64 = 1_024;

/// What a pod's message queues of the kernel hold, in bytes: 800 KiB are for all of a user.
pub const POD_QUEUE_BYTES_MAX: u64 = 64 << 10;

/// Sockets, FIFOs and devices of a granted folder that are covered for a pod; a folder with more is none of
/// data.
pub const GRANT_COVERED_MAX: u64 = 256;

/// Entries of a granted folder, with all that is below, that are looked through for them at each start of a
/// pod: some seconds' work.
pub const GRANT_ENTRIES_MAX: u64 = 2_000_000;

/// The longest such look, in seconds.
pub const GRANT_LOOK_MAX_S: u64 = 15;
