//! Bounds of starting pods again: waits, the budget of failures, quarantine, and inputs that end pods.

/// Ends of pods without a good answer in between, from which a recipe counts as failing.
pub const FAILING_ENDS_MIN: u32 = 3;

/// How many ends a pod that never became ready counts among those.
pub const UNUSED_START_ENDS: u32 = 3;

/// How often an ask of an idempotent operation may be started, whatever ends its pods.
pub const ASK_BEGUN_MAX: u32 = 5;

/// First wait before a pod is started again after two pods ended without an answer, in milliseconds; doubles
/// with each further one.
pub const RESTART_WAIT_MIN_MS: u64 = 250;

/// Longest such wait, in milliseconds.
pub const RESTART_WAIT_MAX_MS: u64 = 30_000;

/// Longest such wait while other pods of the recipe answer, in milliseconds. It is not 0, because a pod that
/// fails to start beside them may fail for ever.
pub const RESTART_WAIT_BESIDE_MS: u64 = 1_000;

/// Pods that may end without an answer within [`RESTART_WINDOW_MS`]; the last of them causes the quarantine.
pub const RESTART_BUDGET: usize = 6;

/// The window of that budget, in milliseconds.
pub const RESTART_WINDOW_MS: u64 = 60_000;

/// Pods that may end in a row without an answer, however far apart: the budget for pods that take minutes to
/// fail.
pub const RESTART_ROW_MAX: u32 = 8;

/// First quarantine of a recipe, in milliseconds; doubles each time the trial after it fails.
pub const QUARANTINE_MIN_MS: u64 = 30_000;

/// Longest quarantine, in milliseconds.
pub const QUARANTINE_MAX_MS: u64 = 600_000;

/// Pods that an input may crash before it counts as a poison request.
pub const POISON_CRASHES: u8 = 2;

/// Pods that may end in any way on one input. More than crashes, because a SIGKILL may come from outside and
/// then says nothing about the input.
pub const POISON_ENDS: u8 = 4;

/// How long an input is remembered after it ended a pod, in milliseconds.
pub const POISON_MS: u64 = 600_000;

/// Inputs that are remembered; beyond that the oldest is forgotten.
pub const POISON_INPUTS_MAX: usize = 1_024;
