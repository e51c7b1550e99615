//! Bounds of the cost of checking a document against a schema. A unit is the work of one keyword at one
//! place, or of one state of a pattern on one byte: a tenth of a nanosecond to 6 ns, as measured.

/// Most that one check may cost, in units: three seconds at the most expensive. The rate of a schema decides
/// how large a document may be within it.
pub const SCHEMA_UNITS_MAX: u64 = 512 << 20;

/// Every operation takes documents up to this size, in bytes: a schema that costs too much per byte for that
/// is refused.
pub const SCHEMA_DOCUMENT_BYTES_MIN: usize = 16 << 10;

/// A check that costs at most this many units runs on the caller's thread: a few milliseconds. Longer ones
/// run on a thread on which nothing else waits.
pub const SCHEMA_INLINE_UNITS: u64 = 1 << 20;

/// A mismatch that costs at most this many units to describe is described in full, place by place.
pub const SCHEMA_LISTED_UNITS: u64 = 512 << 10;

/// Places where a document differs from its schema that one fault names.
pub const SCHEMA_VIOLATIONS_MAX: usize = 10;

/// Bytes that the JSON files of one manifest's schemas may have together.
pub const SCHEMA_FILES_BYTES_MAX: u64 = 1 << 20;

/// Unsupported words of a schema that one reading reports; also the number of warnings about an installed
/// recipe.
pub const SCHEMA_FINDINGS_MAX: usize = 16;

/// Longest pointer or expectation of such a place, in bytes; the rest is cut.
pub const SCHEMA_VIOLATION_BYTES_MAX: usize = 1 << 10;

/// Characters of a found text that a message shows.
pub const SHOWN_TEXT_CHARS_MAX: usize = 60;

/// Keys of a found object that a message names.
pub const SHOWN_KEYS_MAX: usize = 8;

/// Characters of a key's name that a message shows.
pub const SHOWN_NAME_CHARS_MAX: usize = 40;

/// Alternatives of a schema (`anyOf`, `oneOf`) that a message lists.
pub const SHOWN_ALTERNATIVES_MAX: usize = 4;

/// Schemas that may be active inside each other at once: each takes a few hundred bytes of a thread's stack.
pub const SCHEMA_CHAIN_MAX: usize = 1_024;

/// The stack on which a manifest is read, with its schemas, in bytes: a few times what the longest of these
/// chains takes in a build without optimisation. Only the used part takes memory.
pub const MANIFEST_STACK_BYTES: usize = 16 << 20;

/// Parts of a schema that are searched for one value of a document, to find where the schema says `integer`.
pub const SCHEMA_PLACES_MAX: usize = 64;

/// Nodes of one schema, each counted as often as compiling meets it.
pub const SCHEMA_NODES_MAX: u64 = 64 << 10;

/// Steps of calculating the cost of a schema.
pub const SCHEMA_PROOF_STEPS_MAX: usize = 1 << 20;

/// A JSON text up to this size in bytes is read on the caller's thread: a few milliseconds. A longer one is
/// read on a thread on which nothing else waits.
pub const READ_HERE_BYTES_MAX: usize = 256 << 10;

/// Longer texts that a process reads at the same time.
pub const READS_AT_ONCE: usize = 4;

/// How much niceness the threads that read and check long texts add to the host's own, so that they yield to
/// everything else on the machine. Not the maximum: where pods keep every core busy, such a thread still gets
/// a thirtieth of one.
pub const ASIDE_NICE: i32 = 15;

/// Bytes that the values of one document may take in memory.
pub const DOCUMENT_VALUES_BYTES_MAX: usize = 128 << 20;

/// Bytes that one value of a document takes.
pub const JSON_VALUE_BYTES: usize = 32;

/// Bytes that an object takes beside its value: room for eleven keys and their values.
pub const JSON_OBJECT_BYTES: usize = 632;

/// Depth of a document: where the JSON reader stops.
pub const DOCUMENT_DEPTH_MAX: usize = 128;

/// Longest pattern of a schema, in bytes: the time to read one grows with the square of its length.
pub const PATTERN_BYTES_MAX: usize = 4 << 10;

/// Sum of the squares of the lengths of one schema's patterns: eight of the longest, or thousands of usual
/// ones.
pub const PATTERN_SQUARES_MAX: u64 = 8 * (PATTERN_BYTES_MAX * PATTERN_BYTES_MAX) as u64;

/// Bytes that the compiled patterns of one schema may take together.
pub const PATTERNS_COMPILED_BYTES_MAX: u64 = 16 << 20;

/// Bytes that one compiled pattern may take, by the engine's own count.
pub const PATTERN_COMPILED_BYTES_MAX: usize = 10 << 20;

/// Bytes of the cache of states that one pattern may fill while it matches, by the engine's own count.
pub const PATTERN_CACHE_BYTES_MAX: usize = 2 << 20;

/// Checks that a host runs at the same time on threads of their own; a recipe has at most one of them.
pub const SCHEMA_CHECKS_AT_ONCE: usize = 4;

/// Longest name, in bytes, that is compared letter by letter with others to find the intended one.
pub const NEAREST_BYTES_MAX: usize = 100;

/// Keys of a document that are compared with a missing one.
pub const NEAREST_KEYS_MAX: usize = 200;

/// Bytes that the pointers to all places of a schema would take together if each were written out: many
/// places below long names add up.
pub const SCHEMA_POINTERS_BYTES_MAX: u64 = 8 << 20;
