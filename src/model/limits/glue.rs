//! Bounds of glue: memory, time and calls of one run, and what compiling and caching a component may take.

/// Linear memory of one glue instance, in bytes.
pub const GLUE_MEMORY_BYTES_MAX: usize = 64 << 20;

/// Table elements of one glue instance.
pub const GLUE_TABLE_ELEMENTS_MAX: usize = 20_000;

/// Wasm stack of one glue instance, in bytes.
pub const GLUE_STACK_BYTES_MAX: usize = 512 << 10;

/// Stack of the fiber on which glue and the host functions that it calls run, in bytes: above the wasm stack.
pub const GLUE_FIBER_STACK_BYTES: usize = 1 << 20;

/// CPU time inside the guest for one call, in milliseconds; waiting for a pod is not counted.
pub const GLUE_CPU_MS: u64 = 1_000;

/// Period of the epoch ticker, in milliseconds: the granularity of the guest's CPU budget.
pub const GLUE_TICK_MS: u64 = 10;

/// Bytes that the host may copy for one host call of glue ("hostcall fuel").
pub const GLUE_HOSTCALL_BYTES_MAX: usize = 16 << 20;

/// Host calls in one glue run.
pub const GLUE_HOST_CALLS_MAX: u64 = 100_000;

/// Log lines of one glue run; further ones are counted, not kept.
pub const GLUE_LOG_LINES_MAX: usize = 200;

/// Longest log line of glue, in bytes; the rest is cut.
pub const GLUE_LOG_LINE_BYTES_MAX: usize = 4 << 10;

/// Last bytes of each of stdout and stderr of a glue run that are kept for its fault: a long traceback.
/// Earlier bytes are counted.
pub const GLUE_OUTPUT_BYTES_MAX: usize = 64 << 10;

/// How long fetching a tool that builds glue in a script language (some 17 MB each) may take, in
/// milliseconds.
pub const GLUE_TOOL_FETCH_MS: u64 = 900_000;

/// How long building glue in a script language may take, in milliseconds: Python takes 6 s on an idle
/// machine.
pub const GLUE_SCRIPT_BUILD_MS: u64 = 300_000;

/// Random bytes that glue may request in one host call: a large count costs the guest nothing.
pub const GLUE_RANDOM_BYTES_MAX: usize = 64 << 10;

/// Largest `detail` of a fault of a glue run, in bytes of JSON: the guest's own, its last log lines and both
/// outputs.
pub const GLUE_FAULT_DETAIL_BYTES_MAX: usize = 512 << 10;

/// Asks that one glue run may have open at once.
pub const GLUE_ASKS_MAX: usize = 64;

/// Most concurrent glue instances; `/proc/sys/vm/max_map_count` may allow fewer.
pub const GLUE_INSTANCES_MAX: u32 = 512;

/// Memory mappings that one pooled instance costs (measured, see GLUE notes in `glue/engine.rs`).
pub const GLUE_MAPPINGS_PER_INSTANCE: u32 = 6;

/// Largest glue component, in bytes: StarlingMonkey and CPython guests are 12 to 18 MB.
pub const GLUE_COMPONENT_BYTES_MAX: u64 = 64 << 20;

/// Private memory of the process that compiles one glue component, in bytes: CPython guests of 18 MB need 430
/// MB.
pub const GLUE_COMPILE_MEMORY_BYTES: u64 = 1536 << 20;

/// Processor time of that process, in seconds: those guests need 10.
pub const GLUE_COMPILE_CPU_S: u64 = 120;

/// How long that process may take, in milliseconds: on a busy machine a multiple of its processor time.
pub const GLUE_COMPILE_MS: u64 = 300_000;

/// Threads of that process: each holds the code that it compiles.
pub const GLUE_COMPILE_THREADS: usize = 4;

/// Files that that process may have open.
pub const GLUE_COMPILE_FILES: u64 = 64;

/// Such processes that one host runs at once.
pub const GLUE_COMPILES_AT_ONCE: usize = 2;

/// Machine code of one component with its metadata, in bytes: a host holds twice that while it reads it.
/// CPython guests have 35 MB.
pub const GLUE_CODE_BYTES_MAX: usize = 128 << 20;

/// Largest file with that code, in bytes: compressed, it takes a third.
pub const GLUE_COMPILED_BYTES_MAX: u64 = 64 << 20;

/// Compression level of that file: wasmtime's own level for a new one.
pub const GLUE_CODE_COMPRESSION: i32 = 3;

/// All such files of one home, in bytes; above that, the least recently read ones are removed.
pub const GLUE_CACHE_BYTES_MAX: u64 = 1 << 30;

/// Linear memories of one glue component, and tables of one: as many as script engines need and a pooled
/// instance holds.
pub const GLUE_MEMORIES_MAX: u32 = 4;
/// See [`GLUE_MEMORIES_MAX`].
pub const GLUE_TABLES_MAX: u32 = 4;

/// Core instances inside one glue component: CPython guests need 38, QuickJS 13.
pub const GLUE_CORE_INSTANCES_MAX: u32 = 40;

/// Bytes of a used instance that stay resident for the next call, if the kernel can tell which pages were
/// written.
pub const GLUE_KEEP_RESIDENT_BYTES: usize = 4 << 20;

/// Used instances that are kept warm: times the bytes above, the most that an idle host holds.
pub const GLUE_WARM_SLOTS_MAX: u32 = 16;

/// Ticks without a guest after which the epoch ticker sleeps.
pub const GLUE_IDLE_TICKS_MAX: u32 = 100;

/// Blob bytes that one glue run may hold at once, built by itself or received from the pod.
pub const GLUE_BLOB_BYTES_MAX: usize = 64 << 20;

/// Handles (blobs, builders, asks) that one glue run may hold at once.
pub const GLUE_HANDLES_MAX: usize = 4_096;

/// Age from which no compiler can still be writing a half-compiled file, in milliseconds.
pub const GLUE_STALE_MS: u64 = 2 * GLUE_COMPILE_MS;
