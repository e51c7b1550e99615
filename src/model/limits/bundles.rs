//! Bounds on what a recipe folder holds, and which of it goes into a bundle.

/// Longest path inside a bundle, in bytes: the two fields of a ustar header hold this much without
/// extensions.
pub const BUNDLE_PATH_BYTES_MAX: usize = 255;

/// Longest path for Hob 0.1.0, in bytes, which read the first field alone.
pub const BUNDLE_PATH_BYTES_FIRST: usize = 100;

/// Files and folders of a recipe folder that packing scans to find those to pack.
pub const PACK_ENTRIES_MAX: usize = 100_000;

/// Files and folders that a message names as left behind or refused.
pub const PACK_NAMED_MAX: usize = 20;

/// Last lines that a pod printed during a case, which are shown if the case fails.
pub const CASE_LINES_MAX: usize = 20;
/// Characters of the reason why a case failed, in a fault that names all cases.
pub const CASE_WHY_CHARS_MAX: usize = 300;
/// Failed cases that a fault names one by one, if there are too many to name all.
pub const CASES_TOLD_MAX: usize = 60;

/// Patterns of `files` in a manifest.
pub const FILES_PATTERNS_MAX: usize = 64;

/// Longest pattern, in bytes.
pub const PATH_PATTERN_BYTES_MAX: usize = 255;

/// Most parts of one pattern.
pub const PATH_PATTERN_PARTS_MAX: usize = 32;

/// Largest `.hobignore`, in bytes.
pub const IGNORE_FILE_BYTES_MAX: u64 = 64 << 10;

/// Most patterns of a `.hobignore`.
pub const IGNORE_PATTERNS_MAX: usize = 1000;

/// Steps of matching all patterns of a recipe against all entries of its folder or bundle: about a second of
/// one core.
pub const PATTERN_STEPS_MAX: u64 = 200_000_000;

/// How much of the end of a text of a failed call of a recipe folder is searched for the names of files that
/// stayed behind, in bytes.
pub const BEHIND_TEXT_BYTES_MAX: usize = 16 << 10;

/// Paths that are looked up for names found in such texts.
pub const BEHIND_PLACES_MAX: usize = 64;

/// Largest bundle in bytes. Models are published beside it, so a bundle is source, glue and cases.
pub const BUNDLE_BYTES_MAX: u64 = 64 << 20;

/// Most files in one bundle.
pub const BUNDLE_FILES_MAX: usize = 4096;

/// Characters of a name that are examined to decide whether its value may be a secret.
pub const SECRET_NAME_CHARS_MAX: usize = 256;

/// Bytes past the signed length that are still read from a bundle: enough to name an extra file in it.
pub const BUNDLE_SURPLUS_BYTES: u64 = 1 << 20;
