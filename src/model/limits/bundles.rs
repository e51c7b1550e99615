//! Bounds on what a recipe folder holds, and which of it goes into a bundle.

/// Longest path inside a bundle, in bytes: what a ustar header holds without extensions, in its two fields.
pub const BUNDLE_PATH_BYTES_MAX: usize = 255;

/// The same for Hob 0.1.0, which read the first field alone.
pub const BUNDLE_PATH_BYTES_FIRST: usize = 100;

/// Files and folders of a recipe folder that are looked at to find those that are packed.
pub const PACK_ENTRIES_MAX: usize = 100_000;

/// Files and folders that are named when they are left behind, or refused.
pub const PACK_NAMED_MAX: usize = 20;

/// So many of the last lines that a pod printed during a case are shown where it failed.
pub const CASE_LINES_MAX: usize = 20;
/// Of why a case failed, in a fault that tells of all.
pub const CASE_WHY_CHARS_MAX: usize = 300;
/// Failed cases that a fault names one by one, where there are too many to tell of all.
pub const CASES_TOLD_MAX: usize = 60;

/// Patterns of `files` in a manifest.
pub const FILES_PATTERNS_MAX: usize = 64;

/// One pattern, in bytes.
pub const PATH_PATTERN_BYTES_MAX: usize = 255;

/// Parts of one pattern.
pub const PATH_PATTERN_PARTS_MAX: usize = 32;

/// Largest `.hobignore`, in bytes.
pub const IGNORE_FILE_BYTES_MAX: u64 = 64 << 10;

/// Most patterns of a `.hobignore`.
pub const IGNORE_PATTERNS_MAX: usize = 1000;

/// Steps of holding all patterns of a recipe against all that its folder, or its bundle, holds: about a
/// second of one core.
pub const PATTERN_STEPS_MAX: u64 = 200_000_000;

/// Of a text of a failed call of a recipe folder, how much of its end is searched for files that stayed
/// behind.
pub const BEHIND_TEXT_BYTES_MAX: usize = 16 << 10;

/// Places that are looked at for what such texts name.
pub const BEHIND_PLACES_MAX: usize = 64;

/// Largest bundle in bytes. Models are published beside it, so a bundle is source, glue and cases.
pub const BUNDLE_BYTES_MAX: u64 = 64 << 20;

/// Most files in one bundle.
pub const BUNDLE_FILES_MAX: usize = 4096;

/// Characters of a name that are looked at when it is asked whether what stands at it may be a secret.
pub const SECRET_NAME_CHARS_MAX: usize = 256;

/// Bytes past the signed length that are still read of a bundle: enough to name an extra file in it.
pub const BUNDLE_SURPLUS_BYTES: u64 = 1 << 20;
