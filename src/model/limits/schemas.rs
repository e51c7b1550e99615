//! Bounds of the cost of checking a document against a schema. A unit is the work of one keyword at one
//! place, or of one state of a pattern on one byte: a tenth of a nanosecond to 6 ns, as measured.

/// Most that one check may cost, in units: three seconds at the dearest. A document is at most as large as
/// its schema's rate allows within it.
pub const SCHEMA_UNITS_MAX: u64 = 512 << 20;

/// Every operation takes documents up to this size, in bytes: a schema that costs more per byte than that
/// allows is refused.
pub const SCHEMA_DOCUMENT_BYTES_MIN: usize = 16 << 10;

/// A check that costs at most so many units is made where the call is: a few milliseconds. Longer ones go to
/// a thread where nobody waits.
pub const SCHEMA_INLINE_UNITS: u64 = 1 << 20;

/// A mismatch that costs at most so many units to describe is described in full, place by place, in units.
pub const SCHEMA_LISTED_UNITS: u64 = 512 << 10;

/// Places where a document differs from its schema that one fault names.
pub const SCHEMA_VIOLATIONS_MAX: usize = 10;

/// What the JSON files of one manifest's schemas may have together, in bytes.
pub const SCHEMA_FILES_BYTES_MAX: u64 = 1 << 20;

/// Words of a schema that are not taken, of which one reading tells; also of the warnings about an installed
/// recipe.
pub const SCHEMA_FINDINGS_MAX: usize = 16;

/// Longest pointer or expectation of such a place, in bytes; the rest is cut.
pub const SCHEMA_VIOLATION_BYTES_MAX: usize = 1 << 10;

/// Characters of a text that was found which a message shows.
pub const SHOWN_TEXT_CHARS_MAX: usize = 60;

/// Keys of an object that was found which a message names.
pub const SHOWN_KEYS_MAX: usize = 8;

/// Characters of a key's name that a message shows.
pub const SHOWN_NAME_CHARS_MAX: usize = 40;

/// Alternatives of a schema (`anyOf`, `oneOf`) that a message tells.
pub const SHOWN_ALTERNATIVES_MAX: usize = 4;

/// Schemas that may be at work inside each other at once: each takes a few hundred bytes of a thread's stack.
pub const SCHEMA_CHAIN_MAX: usize = 1_024;

/// The stack on which a manifest is read, with its schemas, in bytes: a few times what the longest of these
/// chains takes in a build without optimisation. Only what is used of it is taken.
pub const MANIFEST_STACK_BYTES: usize = 16 << 20;

/// Parts of a schema that are looked at for one value of a document, to find where it says `integer`.
pub const SCHEMA_PLACES_MAX: usize = 64;

/// Nodes of one schema, each counted as often as compiling meets it.
pub const SCHEMA_NODES_MAX: u64 = 64 << 10;

/// Steps of finding out what a schema costs.
pub const SCHEMA_PROOF_STEPS_MAX: usize = 1 << 20;

/// A JSON text up to this size is read where it is, in bytes: a few milliseconds. A longer one is read where
/// nobody else waits.
pub const READ_HERE_BYTES_MAX: usize = 256 << 10;

/// Longer texts that a process reads at a time.
pub const READS_AT_ONCE: usize = 4;

/// How far reading and checking of long texts gives way to everything else on the machine, as so much
/// niceness more than the host's own. Not all the way: where pods keep every core busy, it still gets a
/// thirtieth of one.
pub const ASIDE_NICE: i32 = 15;

/// What the values of one document may take in memory, in bytes.
pub const DOCUMENT_VALUES_BYTES_MAX: usize = 128 << 20;

/// What one value of a document takes, in bytes.
pub const JSON_VALUE_BYTES: usize = 32;

/// What an object takes beside its value, in bytes: room for eleven keys and their values.
pub const JSON_OBJECT_BYTES: usize = 632;

/// Depth of a document: where the JSON reader stops.
pub const DOCUMENT_DEPTH_MAX: usize = 128;

/// Longest pattern of a schema, in bytes: reading one takes time that grows with the square of it.
pub const PATTERN_BYTES_MAX: usize = 4 << 10;

/// Sum of the squares of the lengths of one schema's patterns: eight of the longest, or thousands of the
/// usual.
pub const PATTERN_SQUARES_MAX: u64 = 8 * (PATTERN_BYTES_MAX * PATTERN_BYTES_MAX) as u64;

/// What the patterns of one schema may take together once compiled, in bytes.
pub const PATTERNS_COMPILED_BYTES_MAX: u64 = 16 << 20;

/// What one compiled pattern may take, in bytes, by the engine's own count.
pub const PATTERN_COMPILED_BYTES_MAX: usize = 10 << 20;

/// The cache of states that one pattern may fill while it matches, in bytes, by the engine's own count.
pub const PATTERN_CACHE_BYTES_MAX: usize = 2 << 20;

/// Checks that a host makes at a time on threads of their own; a recipe has one of them.
pub const SCHEMA_CHECKS_AT_ONCE: usize = 4;

/// Longest name, in bytes, that is compared letter by letter with others, to find the one that was meant.
pub const NEAREST_BYTES_MAX: usize = 100;

/// Keys of a document that are compared with a missing one.
pub const NEAREST_KEYS_MAX: usize = 200;

/// What the pointers to all places of a schema take together, in bytes, were each written out: many places
/// below long names are much.
pub const SCHEMA_POINTERS_BYTES_MAX: u64 = 8 << 20;
