//! Every bound in Hob, by name, with its unit last and the reason beside it.
//!
//! A queue, frame, file or wait that is not bounded by a constant of this file is a bug.

mod blobs;
mod bundles;
mod caches;
mod confinement;
mod environments;
mod home;
mod lanes;
mod logs;
mod models;
mod residency;
mod schemas;
mod serve;
mod sessions;

pub use blobs::*;
pub use bundles::*;
pub use caches::*;
pub use confinement::*;
pub use environments::*;
pub use home::*;
pub use lanes::*;
pub use logs::*;
pub use models::*;
pub use residency::*;
pub use schemas::*;
pub use serve::*;
pub use sessions::*;

/// Largest input or output document of a call, in bytes of JSON. Larger data travels as a blob.
pub const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// Largest frame (JSON and binary tail together) on either lane of a pod, in bytes. Announced to the pod in `start`.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// A frame that claims more than this is not skipped: reading that much to stay in sync is itself the attack.
pub const FRAME_SKIP_BYTES_MAX: usize = 256 << 20;

/// Frames that one lane may bring before everything else that waits for the pod gets its turn.
pub const FRAMES_PER_TURN_MAX: usize = 64;

/// Such turns of a lane whose pod is gone: far more than its socket can hold, and not for ever.
pub const LAST_WORDS_TURNS_MAX: usize = 4_096;

/// Largest `recipe.toml`, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 10;

/// Most operations that one recipe may declare.
pub const OPERATIONS_MAX: usize = 64;

/// Most models that one recipe may declare: the largest that are published come in some hundred files.
pub const MODELS_MAX: usize = 1_024;

/// Largest bundle in bytes. Models are published beside it, so a bundle is source, glue and cases.
pub const BUNDLE_BYTES_MAX: u64 = 64 << 20;

/// Most files in one bundle.
pub const BUNDLE_FILES_MAX: usize = 4096;

/// Largest model file, in bytes.
pub const MODEL_BYTES_MAX: u64 = 256 << 30;

/// Largest `requirements.lock`, in bytes.
pub const LOCK_BYTES_MAX: u64 = 4 << 20;

/// Most blobs that one call, ask, chunk or answer may carry.
pub const BLOBS_MAX: usize = 16;

/// Default deadline of a call whose operation names none, in milliseconds: long enough for a cold start with a large model.
pub const DEADLINE_DEFAULT_MS: u64 = 120_000;

/// Longest deadline that a manifest or a caller may ask for, in milliseconds: one day.
pub const DEADLINE_MAX_MS: u64 = 86_400_000;

/// From spawn to `ready`, in milliseconds, unless the manifest says otherwise: covers importing torch on a slow disk.
pub const POD_START_DEFAULT_MS: u64 = 60_000;

/// Longest start that a manifest may ask for, in milliseconds.
pub const POD_START_MAX_MS: u64 = 3_600_000;

/// How long a cancelled ask may take to answer before its pod is killed, in milliseconds.
pub const CANCEL_GRACE_MS: u64 = 2_000;

/// Stop ladder: how long a draining pod may take to exit by itself, in milliseconds. What a Python program registered for its end has two seconds of
/// it (`END_S` in `hob_pod/ending.py`).
pub const DRAIN_GRACE_MS: u64 = 3_000;

/// Stop ladder: from SIGTERM to SIGKILL, in milliseconds.
pub const TERM_GRACE_MS: u64 = 1_000;

/// Stop ladder: how long the keeper may take to find its process tree empty after SIGKILL, in milliseconds.
pub const KILL_GRACE_MS: u64 = 2_000;

/// Stop ladder: how long a pod that hangs has to print where, before it is killed, in milliseconds.
pub const STACK_GRACE_MS: u64 = 200;

/// After so long without a word a busy pod is asked whether it lives, in milliseconds; an idle pod is never asked.
pub const PING_MS: u64 = 5_000;

/// How long a busy pod may neither speak nor compute before it is killed, in milliseconds: longer than a disk or a lock makes good code wait.
pub const SILENCE_MS: u64 = 15_000;

/// Between two looks at a pod's memory, in milliseconds.
pub const MEMORY_LOOK_MS: u64 = 1_000;

/// Ends of pods without a good answer in between from which a recipe counts as failing.
pub const FAILING_ENDS_MIN: u32 = 3;

/// What a pod that never became ready counts among those.
pub const UNUSED_START_ENDS: u32 = 3;

/// How often an ask of an idempotent operation may be begun, whatever ends its pods.
pub const ASK_BEGUN_MAX: u32 = 5;

/// How long the end of a process may lag behind the end of its sockets or pipes, in milliseconds.
pub const EXIT_GRACE_MS: u64 = 500;

/// How long the end of a process that the kernel has as ended may be told late, in milliseconds: its keeper has to be given a core first.
pub const EXIT_LATE_MS: u64 = 10_000;

/// How long a host that shuts down lets accepted calls finish, in milliseconds.
pub const SHUTDOWN_DRAIN_MS: u64 = 10_000;

/// Longest such wait that an app may ask for: thirty years.
pub const DRAIN_MAX_MS: u64 = 30 * 365 * 24 * 3_600_000;

/// Ending all pods of a host, in milliseconds: the whole stop ladder, for all at once.
pub const SHUTDOWN_MS: u64 = DRAIN_GRACE_MS + STACK_GRACE_MS + TERM_GRACE_MS + 2 * KILL_GRACE_MS + 2 * EXIT_GRACE_MS;

/// Asks that may wait for the pods of one recipe; the next is refused as `overloaded`.
pub const POD_QUEUE_MAX: usize = 1_024;

/// Share of that queue which bulk asks may fill, in percent: there is room left for somebody who waits at a screen.
pub const BULK_QUEUE_PERCENT: usize = 75;

/// Most pods of one recipe that a manifest may ask for.
pub const POOL_PODS_MAX: u64 = 64;

/// Most units that a manifest may let one pod run at a time.
pub const POD_CONCURRENCY_MAX: u64 = 256;

/// Most threads that a manifest may give the numeric libraries of a pod.
pub const POD_THREADS_MAX: u64 = 256;

/// Least memory that a manifest may limit a pod to, in bytes: below it the interpreter itself does not start.
pub const POD_MEMORY_BYTES_MIN: u64 = 16 << 20;

/// Most processes and threads that a manifest may let one pod have: a machine has 32,768 by default, for everybody.
pub const POD_PROCESSES_MAX: u64 = 4_096;

/// Most that a manifest may have a pod yield to others: where the kernel's scale ends.
pub const POD_NICE_MAX: u64 = 19;

/// Most modules that a manifest may have imported ahead of time; what these import in turn is not counted.
pub const PRELOAD_MAX: usize = 32;

/// Most permissions of one kind that a recipe may ask for, or be given.
pub const PERMISSIONS_MAX: usize = 64;

/// Longest answer to a question on a terminal, in bytes: what a terminal hands over as one line.
pub const ANSWER_BYTES_MAX: u64 = 4_096;

/// How often a host looks whether its operator changed what recipes may do, in milliseconds: a pod that lost a permission goes as soon.
pub const GRANTS_LOOK_MS: u64 = 1_000;

/// Longest host name of a permission, in bytes: what names may have at all.
pub const ENDPOINT_NAME_BYTES_MAX: usize = 253;

/// Most environment variables that a manifest may add.
pub const POD_VARIABLES_MAX: usize = 64;

/// How long a pod without work is kept, in milliseconds, unless the manifest says otherwise.
pub const POD_IDLE_DEFAULT_MS: u64 = 300_000;

/// Most items of one batch.
pub const BATCH_ITEMS_MAX: u64 = 1_024;

/// Longest wait for more items that a manifest may ask for, in milliseconds.
pub const BATCH_WAIT_MAX_MS: u64 = 10_000;

/// Characters of a pod's report of its progress that the command line shows.
pub const REPORT_CHARS_MAX: usize = 200;

/// Least time between two such reports where each is a line of its own, in milliseconds.
pub const REPORT_LINE_MS: u64 = 1_000;

/// Lines of a pod's output kept for fault reports.
pub const LOG_LINES_MAX: usize = 1_000;

/// Longest kept line of a pod's output, in bytes; the rest of the line is counted, not kept.
pub const LOG_LINE_BYTES_MAX: usize = 4 << 10;

/// Lines of a pod's output that are attached to a fault.
pub const FAULT_TAIL_LINES: usize = 20;

/// Largest `detail` of a fault that comes from glue or a pod, in bytes of JSON.
pub const FAULT_DETAIL_BYTES_MAX: usize = 64 << 10;

/// Largest entry of any fault's `detail`, in bytes of JSON: what a run of glue may tell.
pub const FAULT_ENTRY_BYTES_MAX: usize = GLUE_FAULT_DETAIL_BYTES_MAX;

/// Deepest nesting of such a `detail`: readers of JSON give up at 128 levels, and a fault is carried inside other documents.
pub const FAULT_DETAIL_DEPTH_MAX: usize = 32;

/// Linear memory of one glue instance, in bytes.
pub const GLUE_MEMORY_BYTES_MAX: usize = 64 << 20;

/// Table elements of one glue instance.
pub const GLUE_TABLE_ELEMENTS_MAX: usize = 20_000;

/// Wasm stack of one glue instance, in bytes.
pub const GLUE_STACK_BYTES_MAX: usize = 512 << 10;

/// Stack of the fiber that glue and the host functions it calls run on, in bytes: above the wasm stack.
pub const GLUE_FIBER_STACK_BYTES: usize = 1 << 20;

/// CPU time inside the guest for one call, in milliseconds; waiting for a pod is not counted.
pub const GLUE_CPU_MS: u64 = 1_000;

/// Epoch ticker period, in milliseconds: the grain of the guest-CPU budget.
pub const GLUE_TICK_MS: u64 = 10;

/// Bytes that the host may copy for one host call of glue ("hostcall fuel").
pub const GLUE_HOSTCALL_BYTES_MAX: usize = 16 << 20;

/// Host calls in one glue run.
pub const GLUE_HOST_CALLS_MAX: u64 = 100_000;

/// Log lines of one glue run; what follows is counted, not kept.
pub const GLUE_LOG_LINES_MAX: usize = 200;

/// Longest log line of glue, in bytes; the rest is cut.
pub const GLUE_LOG_LINE_BYTES_MAX: usize = 4 << 10;

/// Bytes of each of stdout and stderr of a glue run that are kept for its fault: a long traceback. What came before is counted.
pub const GLUE_OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Fetching a tool that builds glue in a script language (some 17 MB each), in milliseconds.
pub const GLUE_TOOL_FETCH_MS: u64 = 900_000;

/// Building glue in a script language, in milliseconds: Python takes 6 s on an idle machine.
pub const GLUE_SCRIPT_BUILD_MS: u64 = 300_000;

/// Random bytes that glue may ask for in one host call: a count costs the guest nothing.
pub const GLUE_RANDOM_BYTES_MAX: usize = 64 << 10;

/// Largest `detail` of a fault of a glue run, in bytes of JSON: the guest's own, its last log lines and both outputs.
pub const GLUE_FAULT_DETAIL_BYTES_MAX: usize = 512 << 10;

/// Asks that one glue run may have open at once.
pub const GLUE_ASKS_MAX: usize = 64;

/// Concurrent glue instances, at most; `/proc/sys/vm/max_map_count` may allow fewer.
pub const GLUE_INSTANCES_MAX: u32 = 512;

/// Memory mappings that one pooled instance costs (measured, see GLUE notes in `glue/engine.rs`).
pub const GLUE_MAPPINGS_PER_INSTANCE: u32 = 6;

/// Largest glue component, in bytes: StarlingMonkey and CPython guests are 12 to 18 MB.
pub const GLUE_COMPONENT_BYTES_MAX: u64 = 64 << 20;

/// Private memory of the process that compiles one glue component, in bytes: CPython guests of 18 MB need 430 MB.
pub const GLUE_COMPILE_MEMORY_BYTES: u64 = 1536 << 20;

/// Processor time of that process, in seconds: those guests need 10.
pub const GLUE_COMPILE_CPU_S: u64 = 120;

/// How long it may take, in milliseconds: on a busy machine a multiple of its processor time.
pub const GLUE_COMPILE_MS: u64 = 300_000;

/// Threads of it: each holds what it is compiling.
pub const GLUE_COMPILE_THREADS: usize = 4;

/// Files that it may have open.
pub const GLUE_COMPILE_FILES: u64 = 64;

/// Such processes of one host at once.
pub const GLUE_COMPILES_AT_ONCE: usize = 2;

/// Machine code of one component with what belongs to it, in bytes: a host holds twice that while it reads it. CPython guests have 35 MB.
pub const GLUE_CODE_BYTES_MAX: usize = 128 << 20;

/// The file with it, in bytes: a third of that, packed.
pub const GLUE_COMPILED_BYTES_MAX: u64 = 64 << 20;

/// How hard that file is packed: wasmtime's own measure for a new one.
pub const GLUE_CODE_COMPRESSION: i32 = 3;

/// All such files of one home, in bytes: above that, those not read for longest go.
pub const GLUE_CACHE_BYTES_MAX: u64 = 1 << 30;

/// Linear memories of one glue component, and tables of one: what script engines need, and what a pooled instance holds.
pub const GLUE_MEMORIES_MAX: u32 = 4;
/// See [`GLUE_MEMORIES_MAX`].
pub const GLUE_TABLES_MAX: u32 = 4;

/// Core instances inside one glue component: CPython guests need 38, QuickJS 13.
pub const GLUE_CORE_INSTANCES_MAX: u32 = 40;

/// Bytes of a used instance that stay resident for the next call, where the kernel can tell which pages were written.
pub const GLUE_KEEP_RESIDENT_BYTES: usize = 4 << 20;

/// Used instances kept warm: with the one above, what an idle host may hold at most.
pub const GLUE_WARM_SLOTS_MAX: u32 = 16;

/// Ticks without a guest after which the epoch ticker sleeps.
pub const GLUE_IDLE_TICKS_MAX: u32 = 100;

/// Blob bytes that one glue run may hold at once, built by itself or got from the pod.
pub const GLUE_BLOB_BYTES_MAX: usize = 64 << 20;

/// Handles (blobs, builders, asks) that one glue run may hold at once.
pub const GLUE_HANDLES_MAX: usize = 4_096;

/// Largest `message` and `hint` of a fault that comes from glue or a pod, in bytes; the rest is cut.
pub const FAULT_MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Mistakes in one TOML file that a fault names. To find each, the file may be read once more, without the schemas in it.
pub const FINDINGS_MAX: usize = 20;

/// Characters of a name that are looked at when it is asked whether what stands at it may be a secret.
pub const SECRET_NAME_CHARS_MAX: usize = 256;

/// Texts and actions in one hint.
pub const HINT_PARTS_MAX: usize = 32;

/// Connecting to a repository, in milliseconds.
pub const HTTP_CONNECT_MS: u64 = 5_000;

/// A download that brings no byte for this long has stalled, in milliseconds.
pub const HTTP_STALL_MS: u64 = 30_000;

/// One metadata file of a repository from first byte to last, in milliseconds: a drip-feeder loses.
pub const METADATA_FETCH_MS: u64 = 30_000;

/// A repository's `root`, `timestamp`, `snapshot` and `targets` files, in bytes.
pub const ROOT_BYTES_MAX: u64 = 512_000;
/// See [`ROOT_BYTES_MAX`].
pub const TIMESTAMP_BYTES_MAX: u64 = 16_384;
/// See [`ROOT_BYTES_MAX`].
pub const SNAPSHOT_BYTES_MAX: u64 = 2_000_000;
/// See [`ROOT_BYTES_MAX`].
pub const TARGETS_BYTES_MAX: u64 = 5_000_000;

/// Root rotations that one refresh follows.
pub const ROOT_ROTATIONS_MAX: u32 = 256;

/// One whole refresh of a repository's metadata, in milliseconds: a chain of roots has as many files as [`ROOT_ROTATIONS_MAX`] allows.
pub const REFRESH_MS: u64 = 300_000;

/// How often a refresh begins again because another process refreshed the same remote meanwhile.
pub const REFRESH_TRIES: u32 = 4;

/// How often an install fetches its models again because a removal took one away before it was installed.
pub const INSTALL_TRIES: u32 = 3;

/// What is noted when a permission is taken back, in bytes.
pub const REVOKED_MARK_BYTES_MAX: u64 = 256;

/// Environments that are built at a time, unless one waits for too long.
pub const ENVIRONMENT_BUILDS_MAX: usize = 4;

/// How long a build waits for one of these places, in milliseconds: strangers whose package index drips may have them all.
pub const ENVIRONMENT_TURN_MS: u64 = 10_000;

/// Building one environment, in milliseconds: a multi-gigabyte torch over a slow line.
pub const ENVIRONMENT_BUILD_MS: u64 = 3_600_000;

/// Waiting for another process that holds a lock of the shelf, in milliseconds.
pub const LOCK_WAIT_MS: u64 = 3_600_000;

/// Asking an interpreter or `uv` what it is, in milliseconds.
pub const PROBE_MS: u64 = 20_000;

/// How often a reader of the shelf begins again because an install changed what it was reading.
pub const SHELF_READ_TRIES: u32 = 3;

/// Output of a probed program that is kept, in bytes; the rest is read and dropped.
pub const TOOL_OUTPUT_BYTES_MAX: usize = 64 << 10;

/// After a tool has exited, how long its pipes are still read, in milliseconds: a grandchild may hold them open for ever.
pub const TOOL_PIPE_GRACE_MS: u64 = 500;

/// Lines of a tool's standard error that are attached to a fault.
pub const TOOL_TAIL_LINES: usize = 30;

/// A package index that sends no byte for this long has stalled, in milliseconds. Longer than [`HTTP_STALL_MS`]: mirrors that fetch on demand are slow to begin.
pub const PACKAGE_INDEX_STALL_MS: u64 = 180_000;

/// Fetching our own `uv` (some 25 MB), in milliseconds.
pub const UV_FETCH_MS: u64 = 900_000;

/// Largest `hob.toml` or `hob.lock`, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Calls remembered by the journal in memory.
pub const JOURNAL_CALLS_MAX: usize = 1_000;

/// Bytes past the signed length that are still read of a bundle: enough to name an extra file in it.
pub const BUNDLE_SURPLUS_BYTES: u64 = 1 << 20;

/// Slowest download of a bundle or a model that is borne on average, in bytes per second: a drip-feeder loses.
pub const DOWNLOAD_BYTES_PER_SECOND_MIN: u64 = 4 << 10;

/// What a download may take at that rate, in milliseconds; what is left then must come faster.
pub const DOWNLOAD_SLOW_MS: u64 = 3_600_000;

/// Slowest rate of what is left, in bytes per second: half a megabit.
pub const DOWNLOAD_LONG_BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// Longest fetch of one bundle or model, in milliseconds, whatever its size: one day. What came of a model is kept for the next try.
pub const DOWNLOAD_MAX_MS: u64 = 86_400_000;

/// One read of a local file that is copied or hashed, in bytes.
pub const COPY_CHUNK_BYTES: usize = 1 << 20;

/// Redirects that one request follows: all on one host, unless it is for a model that a recipe names a place for.
pub const REDIRECTS_MAX: usize = 4;

/// How often a file of a repository is asked for while its server says that it is busy.
pub const REPOSITORY_TRIES_MAX: usize = 4;

/// How long it is left alone between two of these, whatever it asks for, in milliseconds.
pub const REPOSITORY_PAUSE_MAX_MS: u64 = 10_000;

/// Waiting for another process that refreshes the same remote or writes the same repository, in milliseconds.
pub const REPOSITORY_LOCK_WAIT_MS: u64 = 120_000;

/// Between two looks at a lock that another process holds, in milliseconds.
pub const LOCK_POLL_MS: u64 = 20;

/// How long a lock that is only tried may be held by a process that is just being started, in milliseconds.
pub const LOCK_SETTLE_MS: u64 = 500;

/// Saved trust state of one remote, in bytes: the longest root chain and the three roles below, as JSON text.
pub const TRUST_STATE_BYTES_MAX: u64 = 320 << 20;

/// Publishers whose roles one listing of a whole remote reads.
pub const LISTED_PUBLISHERS_MAX: usize = 64;

/// Versions, recipes or publishers that one "there is" in a message names.
pub const NAMED_IN_MESSAGE_MAX: usize = 12;

/// A key file, in bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 4 << 10;

/// How long a repository's root, targets and publisher roles are valid, in days.
pub const OFFLINE_ROLE_DAYS: i64 = 365;

/// How long a repository's snapshot is valid, in days.
pub const SNAPSHOT_DAYS: i64 = 30;

/// How long a repository's timestamp is valid, in days: re-signed weekly.
pub const TIMESTAMP_DAYS: i64 = 14;

/// Days before its end from which an offline role is reported as due.
pub const ROLE_DUE_DAYS: i64 = 60;

/// Any one text of the kernel about a process that is read for its vitals, in bytes.
pub const KERNEL_TEXT_BYTES_MAX: u64 = 64 << 10;

/// Generations between a pod's process and its keeper.
pub const GENERATIONS_MAX: usize = 64;

/// Processes of one pod that are counted for its vitals.
pub const VITALS_PROCESSES_MAX: usize = 1_024;

/// The page of a pod, in bytes: the smallest that can be mapped.
pub const POD_PAGE_BYTES: u64 = 4_096;

/// Crash dossiers kept in one home; the oldest goes.
pub const DOSSIERS_MAX: usize = 100;

/// Largest crash dossier, in bytes of JSON; the first lines of its log go.
pub const DOSSIER_BYTES_MAX: usize = 256 << 10;

/// A half-written dossier this old has nobody who writes it, in milliseconds.
pub const DOSSIER_HALF_MS: u64 = 60_000;

/// Lines of a pod's output that its crash dossier keeps.
pub const DOSSIER_LINES: usize = 100;

/// Asks in hand that a crash dossier names when it would be too large.
pub const DOSSIER_ASKS_MAX: usize = 256;

/// How long an ask of a lower class waits before its age counts, in milliseconds: below that, one of a higher class never waits for it.
pub const AGE_MS: u64 = 1_000;

/// Units in a row that may pass over a class with an aged ask; the next one is that ask's. So a lower class keeps a ninth of the pods.
pub const PASSED_OVER_MAX: u32 = 8;

/// Asks that do not fit into a batch (by cost) and are looked past for smaller ones.
pub const BATCH_MISFITS_MAX: usize = 32;

/// Share of an ask's time that it may spend waiting for others of its batch, in percent: what a recipe's wait may not cost it is its deadline.
pub const BATCH_WAIT_PERCENT: u32 = 25;

/// Work that may be sent to a busy pod ahead of its turn, in microseconds: hides the way there and back, and dies with the pod.
pub const AHEAD_WORK_US: u64 = 500;

/// Units that may be sent ahead, however tiny they are.
pub const AHEAD_UNITS_MAX: usize = 32;

/// Shortest `retry_after` of a full queue, in milliseconds.
pub const RETRY_AFTER_MIN_MS: u64 = 10;

/// Longest `retry_after` of a full queue, in milliseconds.
pub const RETRY_AFTER_MAX_MS: u64 = 60_000;

/// `retry_after` of a full queue while nothing is measured, in milliseconds.
pub const RETRY_AFTER_UNMEASURED_MS: u64 = 1_000;

/// First wait before a pod is started again after two pods ended without an answer, in milliseconds; doubles with each further one.
pub const RESTART_WAIT_MIN_MS: u64 = 250;

/// Longest such wait, in milliseconds.
pub const RESTART_WAIT_MAX_MS: u64 = 30_000;

/// Longest such wait while other pods of the recipe answer, in milliseconds: not none, for what fails to start beside them may fail for ever.
pub const RESTART_WAIT_BESIDE_MS: u64 = 1_000;

/// Pods that may end without an answer within [`RESTART_WINDOW_MS`]: the last one of them brings the quarantine.
pub const RESTART_BUDGET: usize = 6;

/// The window of that budget, in milliseconds.
pub const RESTART_WINDOW_MS: u64 = 60_000;

/// Pods that may end in a row without an answer however far apart: the budget for pods that take minutes to fail.
pub const RESTART_ROW_MAX: u32 = 8;

/// First quarantine of a recipe, in milliseconds; doubles each time that the trial after it fails.
pub const QUARANTINE_MIN_MS: u64 = 30_000;

/// Longest quarantine, in milliseconds.
pub const QUARANTINE_MAX_MS: u64 = 600_000;

/// Pods that an input may crash; then it is a poison request.
pub const POISON_CRASHES: u8 = 2;

/// Pods that may end in any way on one input. More than crashes, because a SIGKILL may come from outside and say nothing of the input.
pub const POISON_ENDS: u8 = 4;

/// How long an input is remembered after it ended a pod, in milliseconds.
pub const POISON_MS: u64 = 600_000;

/// Inputs remembered; the oldest is forgotten for a further one.
pub const POISON_INPUTS_MAX: usize = 1_024;

/// Ending what a pod left after its keeper, in milliseconds: then it is reported, not waited for.
pub const LEFTOVERS_MS: u64 = 2_000;

/// Quick looks at new processes after each look at all.
pub const LEFTOVERS_QUICK_LOOKS: u32 = 20;

/// Between two quick looks for what a pod left, in microseconds.
pub const LEFTOVERS_PAUSE_US: u64 = 250;

/// Rounds of looks that find nothing before nothing is taken to be left: a process that is just starting a program has no marks.
pub const LEFTOVERS_QUIET_ROUNDS: u32 = 2;

/// The environment or the mappings of one process, in bytes: more than the kernel lets a program start with.
pub const PROCESS_TEXT_BYTES_MAX: u64 = 8 << 20;

/// The record of a live pod, in bytes of JSON.
pub const POD_RECORD_BYTES_MAX: u64 = 16 << 10;

/// Between two looks of `--watch`, in milliseconds.
pub const WATCH_MS: u64 = 1_000;

/// Lines that `hob logs` shows when nothing else is asked for.
pub const LOGS_DEFAULT_LINES: usize = 100;

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
