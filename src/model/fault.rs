//! A fault: one failure, with the party to blame and the next step; and the one table that maps it to every
//! door.

use crate::model::text::{cut, said};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hint::{self, Door, Hint};
use super::limits::{FAULT_DETAIL_BYTES_MAX, FAULT_DETAIL_DEPTH_MAX, FAULT_ENTRY_BYTES_MAX, FAULT_MESSAGE_BYTES_MAX};

/// The party that has to act to make the failure go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Blame {
    Caller,
    Recipe,
    Pod,
    Repository,
    Machine,
    Hob,
}

/// One row of the fault table: a code, and the value that each door gives for it.
struct Row {
    code: Code,
    name: &'static str,
    blame: Blame,
    exit: u8,
    http: u16,
    mcp: i32,
    retryable: bool,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $blame:ident exit $exit:literal http $http:literal mcp $mcp:literal $(retry $retry:literal)?;)*) => {
        /// What went wrong, as a name on which scripts may rely.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $variant,)* }

        const TABLE: &[Row] = &[$(Row {
            code: Code::$variant, name: $name, blame: Blame::$blame,
            exit: $exit, http: $http, mcp: $mcp, retryable: codes!(@retry $($retry)?),
        },)*];
    };
    (@retry) => { false };
    (@retry $retry:literal) => { $retry };
}

// Exit codes: 2 usage and input, 3 not found, 4 recipe or manifest, 5 trust, 6 pod, 7 glue, 8 machine, 9
// time, 10 busy, 70 Hob itself.
codes! {
    /// The command line or request is malformed.
    Usage "usage" Caller exit 2 http 400 mcp -32602;
    /// Input is not JSON, or not JSON that Hob carries (NaN, lone surrogates, integers past 64 bits).
    InvalidJson "invalid_json" Caller exit 2 http 400 mcp -32602;
    /// Input does not match the operation's schema.
    InvalidInput "invalid_input" Caller exit 2 http 422 mcp -32602;
    /// The operation runs in a session, and the call names none.
    SessionRequired "session_required" Caller exit 2 http 422 mcp -32602;
    /// An input, output, frame or file exceeds its bound.
    TooLarge "too_large" Caller exit 2 http 413 mcp -32602;
    /// The shelf has no such recipe.
    RecipeNotFound "recipe_not_found" Caller exit 3 http 404 mcp -32602;
    /// The recipe has no such operation.
    OperationNotFound "operation_not_found" Caller exit 3 http 404 mcp -32602;
    /// There is no such session.
    SessionNotFound "session_not_found" Caller exit 3 http 404 mcp -32602;
    /// The repository has no such recipe, version or target.
    NotInRepository "not_in_repository" Caller exit 3 http 404 mcp -32602;
    /// `hob.toml` has no such remote.
    RemoteNotFound "remote_not_found" Caller exit 3 http 404 mcp -32602;
    /// No server is running for this home.
    NotServing "not_serving" Caller exit 3 http 503 mcp -32603 retry true;
    /// `recipe.toml` is wrong: the message has line and key, `detail.findings` has further mistakes.
    InvalidManifest "invalid_manifest" Recipe exit 4 http 422 mcp -32603;
    /// The recipe folder lacks something that its manifest names.
    InvalidRecipe "invalid_recipe" Recipe exit 4 http 422 mcp -32603;
    /// A recipe's output is not JSON that Hob carries, or does not match the operation's schema.
    InvalidOutput "invalid_output" Recipe exit 4 http 502 mcp -32603;
    /// A recipe's case ended differently than it says.
    CaseFailed "case_failed" Recipe exit 4 http 500 mcp -32603;
    /// `hob build` failed to make the glue component.
    BuildFailed "build_failed" Recipe exit 4 http 500 mcp -32603;
    /// `hob.toml` or `hob.lock` cannot be read.
    InvalidConfig "invalid_config" Caller exit 4 http 500 mcp -32603;
    /// The bytes are not those that a trusted role signed.
    Tampered "tampered" Repository exit 5 http 502 mcp -32603;
    /// A bundle's files differ from its signed index.
    BundleInvalid "bundle_invalid" Repository exit 5 http 502 mcp -32603;
    /// Repository metadata is older than metadata already seen.
    Rollback "rollback" Repository exit 5 http 502 mcp -32603;
    /// Repository metadata is past its expiry.
    MetadataExpired "metadata_expired" Repository exit 5 http 502 mcp -32603;
    /// Repository metadata has too few valid signatures, or is malformed.
    MetadataInvalid "metadata_invalid" Repository exit 5 http 502 mcp -32603;
    /// A publisher's signing keys are not those from when the recipe was installed.
    PublisherKeyChanged "publisher_key_changed" Repository exit 5 http 502 mcp -32603;
    /// The root's fingerprint is not the one that the operator named.
    FingerprintMismatch "fingerprint_mismatch" Repository exit 5 http 502 mcp -32603;
    /// The repository cannot be reached.
    RepositoryUnreachable "repository_unreachable" Repository exit 5 http 503 mcp -32603 retry true;
    /// The address that a recipe names for a model cannot be reached, or does not answer like a file server.
    ModelUnreachable "model_unreachable" Repository exit 5 http 503 mcp -32603 retry true;
    /// The address that a recipe names for a model requires access rights.
    ModelForbidden "model_forbidden" Caller exit 5 http 403 mcp -32603;
    /// Saved trust state cannot be read; Hob fails closed.
    StateUnreadable "state_unreadable" Machine exit 5 http 500 mcp -32603;
    /// A name or version is already published, with other bytes.
    AlreadyPublished "already_published" Caller exit 5 http 409 mcp -32603;
    /// A key is missing or does not belong to the role it should sign for.
    KeyInvalid "key_invalid" Caller exit 5 http 403 mcp -32603;
    /// The call names a recipe folder where only signed recipes may run.
    Unsigned "unsigned" Caller exit 5 http 403 mcp -32602;
    /// The recipe asks for permissions about which the operator has not been asked.
    ConsentRequired "consent_required" Caller exit 5 http 403 mcp -32602;
    /// The request does not show the server's token.
    Unauthorized "unauthorized" Caller exit 5 http 401 mcp -32602;
    /// The recipe's own code answered with an error (Python exception, glue fault).
    RecipeFailed "recipe_failed" Recipe exit 6 http 500 mcp -32603;
    /// The pod's code could not be imported or constructed.
    ImportFailed "import_failed" Recipe exit 6 http 500 mcp -32603;
    /// A Python package is missing from the environment.
    DependencyMissing "dependency_missing" Recipe exit 6 http 500 mcp -32603;
    /// A model file is missing.
    ModelMissing "model_missing" Recipe exit 6 http 500 mcp -32603;
    /// Memory ran out in the pod.
    OutOfMemory "out_of_memory" Machine exit 6 http 507 mcp -32603;
    /// The recipe's code tried something that its sandbox forbids.
    SandboxDenied "sandbox_denied" Recipe exit 6 http 403 mcp -32603;
    /// The pod's process ended during the call.
    Crashed "crashed" Pod exit 6 http 502 mcp -32603;
    /// The ask gave no progress for longer than its recipe declares, or the whole pod stopped responding.
    Stalled "stalled" Pod exit 6 http 504 mcp -32603;
    /// This input ended its pod more than once; it is not tried again.
    PoisonRequest "poison_request" Recipe exit 6 http 422 mcp -32603;
    /// The pod did not become ready in time.
    StartTimeout "start_timeout" Pod exit 6 http 504 mcp -32603;
    /// The state of a session was lost with its pod, and no checkpoint restores it.
    SessionLost "session_lost" Pod exit 6 http 410 mcp -32603;
    /// The pod broke the wire protocol.
    ProtocolViolation "protocol_violation" Pod exit 6 http 502 mcp -32603;
    /// The glue component cannot be linked: it imports something that Hob does not offer.
    GlueIncompatible "glue_incompatible" Recipe exit 7 http 500 mcp -32603;
    /// The glue trapped.
    GlueCrashed "glue_crashed" Recipe exit 7 http 502 mcp -32603;
    /// The glue hit a cap (memory, CPU, host calls, output).
    GlueLimit "glue_limit" Recipe exit 7 http 502 mcp -32603;
    /// There is no usable Python interpreter in the recipe's range.
    PythonMissing "python_missing" Machine exit 8 http 500 mcp -32603;
    /// There is no usable `uv`.
    UvMissing "uv_missing" Machine exit 8 http 500 mcp -32603;
    /// `uv` could not build the environment.
    EnvironmentFailed "environment_failed" Machine exit 8 http 500 mcp -32603;
    /// This machine cannot confine a pod as required.
    SandboxUnavailable "sandbox_unavailable" Machine exit 8 http 500 mcp -32603;
    /// Files on the shelf differ from what was installed.
    ShelfAltered "shelf_altered" Machine exit 5 http 500 mcp -32603;
    /// Another user may write to Hob's own files.
    HomeUnsafe "home_unsafe" Machine exit 5 http 500 mcp -32603;
    /// The device has no space left.
    DiskFull "disk_full" Machine exit 8 http 507 mcp -32603;
    /// Any other failure of the operating system.
    Io "io" Machine exit 8 http 500 mcp -32603;
    /// The call's deadline passed.
    Deadline "deadline" Caller exit 9 http 504 mcp -32603 retry true;
    /// The caller did not read its stream while others waited for the pod.
    Unread "unread" Caller exit 9 http 504 mcp -32603;
    /// The caller cancelled the call.
    Cancelled "cancelled" Caller exit 9 http 499 mcp -32800;
    /// Too much work is waiting.
    Overloaded "overloaded" Machine exit 10 http 429 mcp -32603 retry true;
    /// The session is working for another call, or is open in another host.
    SessionBusy "session_busy" Caller exit 10 http 409 mcp -32603 retry true;
    /// The recipe, or this home, has as many sessions as it may have.
    SessionsFull "sessions_full" Machine exit 10 http 429 mcp -32603 retry true;
    /// The recipe's pods failed repeatedly; the next one starts later.
    CoolingDown "cooling_down" Pod exit 10 http 503 mcp -32603 retry true;
    /// Another server of the same home is running.
    AlreadyServing "already_serving" Caller exit 10 http 409 mcp -32603;
    /// The host is shutting down and takes no more work.
    ShuttingDown "shutting_down" Machine exit 10 http 503 mcp -32603 retry true;
    /// A bug in Hob itself.
    Internal "internal" Hob exit 70 http 500 mcp -32603;
}

impl Code {
    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.code == self).expect("every code has a row: both come from one macro")
    }
    /// The code's name for scripts, e.g. `recipe_not_found`.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// Exit code of the command line.
    pub fn exit(self) -> u8 {
        self.row().exit
    }
    /// HTTP status.
    pub fn http(self) -> u16 {
        self.row().http
    }
    /// MCP (JSON-RPC) error code.
    pub fn mcp(self) -> i32 {
        self.row().mcp
    }
    /// All codes, in table order.
    pub fn all() -> impl Iterator<Item = Code> {
        TABLE.iter().map(|row| row.code)
    }
    /// The code of that name.
    pub fn parse(name: &str) -> Option<Code> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.code)
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Code::parse(&name).ok_or_else(|| serde::de::Error::custom(format!("unknown fault code `{name}`")))
    }
}

/// A failure, as every door shows it.
///
/// `message` names the thing, what was found and what was wanted; `hint` is the next step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(from = "Written", into = "Written")]
#[error("{message}")]
#[non_exhaustive]
pub struct Fault {
    pub code: Code,
    pub blame: Blame,
    pub message: String,
    /// Reads as a text; [`Hint::worded`] words it for another door.
    pub hint: Option<Hint>,
    pub retryable: bool,
    /// Milliseconds until a retry makes sense.
    pub retry_after: Option<u64>,
    pub detail: Value,
}

/// A fault as JSON.
#[derive(Serialize, Deserialize)]
struct Written {
    code: Code,
    blame: Blame,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The result of [`Hint::data`], so that a door can reword the hint.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    hint_parts: Value,
    #[serde(default)]
    retryable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    detail: Value,
}

impl From<Fault> for Written {
    fn from(fault: Fault) -> Written {
        let Fault { code, blame, message, hint, retryable, retry_after, detail } = fault;
        let hint_parts = hint.as_ref().and_then(Hint::data).unwrap_or_default();
        Written { code, blame, message, hint: hint.map(|hint| hint.to_string()), hint_parts, retryable, retry_after, detail }
    }
}

impl From<Written> for Fault {
    fn from(written: Written) -> Fault {
        let Written { code, blame, message, hint, hint_parts, retryable, retry_after, detail } = written;
        Fault {
            code,
            blame,
            message: said(&message),
            hint: hint.map(|words| Hint::read(words, hint_parts)),
            retryable,
            retry_after,
            detail,
        }
    }
}

impl Fault {
    /// A fault with the blame and retryability from the table. Messages, hints and details are bounded
    /// wherever they are made, because an error may quote text of any length from an untrusted source.
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        let row = code.row();
        Fault {
            code,
            blame: row.blame,
            message: said(&message.into()),
            hint: None,
            retryable: row.retryable,
            retry_after: None,
            detail: Value::Null,
        }
    }

    /// The fault of something that is shutting down, `host` or `server`; `what` says what it no longer does,
    /// as in `takes no more calls`.
    pub(crate) fn ending(of: &str, what: &str) -> Fault {
        Fault::new(Code::ShuttingDown, format!("the {of} is ending and {what}")).hint("call again when it was started anew")
    }

    /// Sets the next step: a text that is true at every door, or a [`Hint`] with actions.
    pub fn hint(mut self, hint: impl Into<Hint>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault, with its hint worded for this door.
    pub fn worded(mut self, door: Door) -> Fault {
        self.hint = self.hint.map(|hint| hint.worded(door));
        hint::word(&mut self.detail, door);
        self
    }

    /// Sets when a retry makes sense; rounded up to a millisecond.
    pub fn retry_after(mut self, left: std::time::Duration) -> Fault {
        self.retry_after = Some(left.as_micros().div_ceil(1_000) as u64);
        self
    }

    /// Overrides the blame that the table gives.
    pub fn blame(mut self, blame: Blame) -> Fault {
        self.blame = blame;
        self
    }

    /// Turns the fault of a document into one of the recipe whose code made it: `invalid_json`, which blames
    /// a caller, becomes `invalid_output`.
    #[doc(hidden)]
    pub fn of_recipe(mut self) -> Fault {
        if self.code == Code::InvalidJson {
            self.code = Code::InvalidOutput;
            self.hint = Some("what a recipe's code gives is JSON in UTF-8 without NaN, lone surrogates and integers past 64 bits".into());
        }
        self.blame(Blame::Recipe)
    }

    /// Adds one entry to `detail`. If the entry is too long, each long text in it is shortened; if that is
    /// not enough, the entry is dropped and counted.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Fault {
        if !self.detail.is_object() {
            self.detail = Value::Object(Default::default());
        }
        let mut value = value.into();
        let bytes = match &value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            value => value.to_string().len(),
        };
        if bytes > FAULT_ENTRY_BYTES_MAX {
            shorten(&mut value);
            if value.to_string().len() > FAULT_ENTRY_BYTES_MAX {
                value = serde_json::json!({ "detail_dropped_bytes": bytes });
            }
        }
        self.detail[key] = value;
        self
    }

    /// A fault in the words of a recipe's own code, pod or glue: `code` if it is one of `allowed`, else
    /// `recipe_failed` with that code in `detail.code`. So no recipe can blame the repository or Hob.
    #[doc(hidden)]
    pub fn foreign(code: &str, message: String, hint: Option<String>, detail: Value, allowed: &[Code]) -> Fault {
        let known = Code::parse(code).filter(|code| allowed.contains(code));
        let mut fault = Fault::new(known.unwrap_or(Code::RecipeFailed), message);
        if let Some(hint) = hint.filter(|hint| !hint.is_empty()) {
            fault = fault.hint(hint);
        }
        fault.detail = bounded(hint::without_actions(detail));
        match known {
            Some(_) => fault,
            None => fault.with("code", cut(code.to_owned(), FAULT_MESSAGE_BYTES_MAX)),
        }
    }

    /// Whether the fault says that the machine, or this process's share of it, has run out of something; then
    /// nothing else is wrong.
    pub fn is_exhaustion(&self) -> bool {
        matches!(self.code, Code::Io | Code::DiskFull) && exhausted_in(&self.message).is_some()
    }

    /// A failure of the operating system while doing `what`; a full disk gets its own code.
    #[doc(hidden)]
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Fault {
        // EDQUOT is 122 on every Linux architecture and has no ErrorKind that is stable everywhere.
        if error.kind() == std::io::ErrorKind::StorageFull || error.kind() == std::io::ErrorKind::QuotaExceeded {
            return Fault::new(Code::DiskFull, format!("{what}: {error}")).hint(hint::full_disk("nothing was changed"));
        }
        let fault = Fault::new(Code::Io, format!("{what}: {error}"));
        match exhausted(error) {
            Some(next) => fault.hint(next),
            None => fault,
        }
    }
}

/// The next step if the machine, or this process's share of it, has run out of something; `None` for any
/// other error. Matches by number, which is the same on every Linux that Hob runs on: few of these errors
/// have a kind.
fn exhausted(error: &std::io::Error) -> Option<&'static str> {
    // Libraries wrap the error with a path, and the wrapped error has no number.
    let number = error.raw_os_error().or_else(|| exhausted_in(&error.to_string())?.raw_os_error())?;
    Some(match number {
        11 => {
            "this user or this machine may have no more processes or threads, or no memory left for one: end some, or let the user have more \
             (`ulimit -u`), and run it again"
        }
        12 => "this machine has no memory left for it: close programs that hold much, and run it again",
        23 => "this machine has as many open files as it may have (`sysctl fs.file-max`): close programs that hold many, and run it again",
        30 => "it lies on a file system that is mounted read-only: mount it writable, or move what is to be written (HOB_HOME, TMPDIR)",
        24 => "this process has as many open files as it may have: let it have more (`ulimit -n`), and run it again",
        109 => {
            "too many descriptors of this user are on their way between processes: let the user have more (`ulimit -n`), and run it again"
        }
        _ => return None,
    })
}

/// Whether the error says that the machine, or this process's share of it, has run out of something; then
/// nothing else is known.
pub fn has_run_out(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| EXHAUSTED.contains(&number)) || exhausted_in(&error.to_string()).is_some()
}

/// The error of an exhausted machine that a text of a Hob process or a library contains.
pub fn exhausted_in(text: &str) -> Option<std::io::Error> {
    os_error_in(text).filter(|error| error.raw_os_error().is_some_and(|number| EXHAUSTED.contains(&number)))
}

/// Errors that mean that something has run out, or is read-only.
const EXHAUSTED: [i32; 8] = [11, 12, 23, 24, 28, 30, 109, 122];

/// The operating system's error in a text: in Rust's or Python's notation, or, for the errors of exhaustion,
/// in the C library's words.
pub fn os_error_in(text: &str) -> Option<std::io::Error> {
    let numbered = ["(os error ", "[Errno ", "Os { code: "].iter().find_map(|before| {
        let (_, rest) = text.split_once(before)?;
        rest[..rest.find([')', ']', ','])?].parse().ok()
    });
    let named = || {
        let no_thread = text.contains("can't start new thread").then_some(EXHAUSTED[0]);
        no_thread.or_else(|| EXHAUSTED.into_iter().find(|number| text.contains(words(*number).as_str())))
    };
    numbered.or_else(named).map(std::io::Error::from_raw_os_error)
}

/// The C library's words for an error.
fn words(number: i32) -> String {
    let shown = std::io::Error::from_raw_os_error(number).to_string();
    shown.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The `detail`, or only its size in bytes if it is too long, or nested so deeply that a reader of the fault
/// would refuse all of it. For details from an untrusted source.
pub fn bounded(detail: Value) -> Value {
    let bytes = detail.to_string().len();
    match bytes <= FAULT_DETAIL_BYTES_MAX && !is_deeper(&detail, FAULT_DETAIL_DEPTH_MAX) {
        true => detail,
        false => serde_json::json!({ "detail_dropped_bytes": bytes }),
    }
}

fn is_deeper(value: &Value, than: usize) -> bool {
    let Some(left) = than.checked_sub(1) else { return value.is_array() || value.is_object() };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper(item, left)),
        Value::Object(entries) => entries.values().any(|entry| is_deeper(entry, left)),
        _ => false,
    }
}

/// Keeps the beginning and the end of each long text: one names the thing, the other says what happened to
/// it.
fn shorten(value: &mut Value) {
    const HALF: usize = FAULT_MESSAGE_BYTES_MAX / 2;
    match value {
        Value::String(text) if text.len() > 2 * HALF => {
            let (head, tail) = (text.floor_char_boundary(HALF), text.ceil_char_boundary(text.len() - HALF));
            *text = format!("{} [{} bytes left out] {}", &text[..head], tail - head, &text[tail..]);
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(entries) => entries.values_mut().for_each(shorten),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_unique_name_and_a_nonzero_exit_code() {
        let mut names: Vec<_> = Code::all().map(Code::name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(Code::all().all(|code| code.exit() > 0 && code.http() >= 400 && code.mcp() < 0));
    }

    #[test]
    fn what_a_recipe_says_of_itself_is_bounded_and_blames_nobody_else() {
        let long = "ä".repeat(FAULT_MESSAGE_BYTES_MAX);
        let detail = Value::from("x".repeat(FAULT_DETAIL_BYTES_MAX + 1));
        let fault = Fault::foreign("tampered", long.clone(), Some(long.clone()), detail, &[Code::OutOfMemory]);
        assert_eq!((fault.code, fault.blame), (Code::RecipeFailed, Blame::Recipe));
        assert_eq!(fault.detail["code"], "tampered");
        assert!(fault.message.len() <= FAULT_MESSAGE_BYTES_MAX && fault.hint.unwrap().len() <= FAULT_MESSAGE_BYTES_MAX);
        assert!(Fault::foreign(&long, String::new(), None, Value::Null, &[]).detail.to_string().len() < FAULT_MESSAGE_BYTES_MAX + 20);
        assert_eq!(Fault::foreign("out_of_memory", String::new(), None, Value::Null, &[Code::OutOfMemory]).code, Code::OutOfMemory);
    }

    #[test]
    fn a_fault_is_bounded_whoever_makes_it() {
        let long = "ä".repeat(4 << 20);
        let fault =
            Fault::new(Code::InvalidInput, long.clone()).hint(long.clone()).with("texts", vec![long]).with("keys", vec![0; 1 << 20]);
        assert!(serde_json::to_string(&fault).unwrap().len() < 4 * FAULT_MESSAGE_BYTES_MAX);
        assert_eq!(fault.detail["keys"], serde_json::json!({ "detail_dropped_bytes": (2 << 20) + 1 }));
        assert!(fault.detail["texts"][0].as_str().is_some_and(|text| text.ends_with('ä') && text.contains("bytes left out")));
    }

    #[test]
    fn a_detail_that_no_reader_of_the_fault_would_take_is_dropped_and_counted() {
        let nested = |depth: usize| (0..depth).fold(Value::Null, |inner, _| serde_json::json!({ "in": inner }));
        assert_eq!(bounded(nested(FAULT_DETAIL_DEPTH_MAX)), nested(FAULT_DETAIL_DEPTH_MAX));
        let dropped = bounded(nested(FAULT_DETAIL_DEPTH_MAX + 1));
        assert_eq!(dropped["detail_dropped_bytes"], nested(FAULT_DETAIL_DEPTH_MAX + 1).to_string().len());
        // As deep as a pod's JSON can be, and then inside the frame and line of every door.
        let fault = Fault::foreign("out_of_memory", String::new(), None, nested(127), &[Code::OutOfMemory]);
        assert_eq!(serde_json::from_str::<Fault>(&serde_json::to_string(&fault).unwrap()).unwrap(), fault);
        assert!(bounded(Value::from("x".repeat(FAULT_DETAIL_BYTES_MAX)))["detail_dropped_bytes"].is_u64());
        assert_eq!(bounded(Value::Null), Value::Null);
    }

    #[test]
    fn what_has_run_out_is_known_by_number_and_by_words() {
        for (text, wanted) in [
            ("reading x: Too many open files (os error 24) at path \"y\"", Some(24)),
            ("OSError: [Errno 23] Too many open files in system: 'x'", Some(23)),
            ("error while loading shared libraries: libc.so.6: Cannot allocate memory", Some(12)),
            ("RuntimeError: can't start new thread", Some(11)),
            ("Permission denied (os error 13)", None),
            ("[Errno many] of them", None),
        ] {
            assert_eq!(exhausted_in(text).and_then(|error| error.raw_os_error()), wanted, "{text}");
        }
        assert_eq!(os_error_in("Permission denied (os error 13)").and_then(|error| error.raw_os_error()), Some(13));
        // A library that adds the path drops the number from its error.
        let wrapped = std::io::Error::other(std::io::Error::from_raw_os_error(24).to_string());
        assert!(Fault::io("writing x", &wrapped).hint.is_some_and(|hint| hint.contains("`ulimit -n`")));
    }

    #[test]
    fn a_fault_survives_json() {
        let fault = Fault::new(Code::Crashed, "pod ended").hint("see the log").with("signal", 9);
        let text = serde_json::to_string(&fault).unwrap();
        assert!(text.contains(r#""code":"crashed""#) && text.contains(r#""blame":"pod""#), "{text}");
        assert_eq!(serde_json::from_str::<Fault>(&text).unwrap(), fault);
    }
}
