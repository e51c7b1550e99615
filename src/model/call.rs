//! A call, from the caller's request to the proof that it may run, and its result.

use crate::model::priority::Priority;
use std::{sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::model::{
    blob::Blob,
    document::Document,
    fault::{Code, Fault},
    hint::{act, hint},
    id::RecipeRef,
    limits::{BLOBS_MAX, DEADLINE_MAX_MS, DOCUMENT_BYTES_MAX},
    manifest::{
        Manifest,
        operation::{Operation, Part},
    },
    status::{report::Report, session},
    verified::Verified,
};

/// What a caller asks for.
///
/// ```
/// use std::time::Duration;
/// use hob::{Call, Priority};
///
/// let call = Call::new("embeddings@1", "embed", serde_json::json!({ "texts": ["one", "two"] }))?
///     .with_deadline(Duration::from_secs(20))
///     .with_priority(Priority::Bulk);
/// assert_eq!(call.deadline(), Some(Duration::from_secs(20)));
/// # Ok::<(), hob::Fault>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    pub recipe: RecipeRef,
    pub operation: String,
    pub input: Document,
    pub blobs: Vec<Blob>,
    /// Budget in milliseconds; `None` means the operation's own budget, which is also the upper bound.
    /// [`Call::deadline`] returns the same value.
    #[doc(hidden)]
    pub deadline_ms: Option<u64>,
    pub priority: Priority,
    /// Runs in a fresh pod that is ended after the call, for debugging.
    pub one_shot: bool,
    /// The name of its session; the session is opened if it does not exist.
    pub session: Option<String>,
    /// Whether the call also gets the lines printed meanwhile, as [`Event::Printed`].
    pub logs: bool,
}

impl Call {
    /// A call without blobs, with the operation's own deadline. `recipe` is a recipe's name
    /// (`publisher/name`), a capability that one installed recipe provides (`embeddings@1`), or a recipe
    /// folder (`./recipe`, `/srv/recipe`); `input` is any value that `serde` can serialize.
    ///
    /// Errors: `usage` if `recipe` is none of these; `invalid_json` and `too_large` for the input.
    pub fn new(recipe: &str, operation: &str, input: impl Serialize) -> Result<Call, Fault> {
        Ok(Call {
            recipe: recipe.parse()?,
            operation: operation.to_owned(),
            input: Document::of(&input, "input")?,
            blobs: Vec::new(),
            deadline_ms: None,
            priority: Priority::default(),
            one_shot: false,
            session: None,
            logs: false,
        })
    }

    /// Sets the deadline. The operation's own deadline still bounds it; a fraction of a millisecond is
    /// rounded up.
    pub fn with_deadline(mut self, deadline: Duration) -> Call {
        self.deadline_ms = Some(u64::try_from(deadline.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
        self
    }

    /// The deadline, if one was set.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline_ms.map(Duration::from_millis)
    }

    /// Sets the priority with which the call waits for a pod.
    pub fn with_priority(mut self, priority: Priority) -> Call {
        self.priority = priority;
        self
    }

    /// Adds a blob.
    pub fn with_blob(mut self, blob: Blob) -> Call {
        self.blobs.push(blob);
        self
    }

    /// Adds several blobs.
    pub fn with_blobs(mut self, blobs: impl IntoIterator<Item = Blob>) -> Call {
        self.blobs.extend(blobs);
        self
    }

    /// Runs the call in the session of that name, which is opened if it does not exist.
    pub fn in_session(mut self, name: impl Into<String>) -> Call {
        self.session = Some(name.into());
        self
    }

    /// Runs the call in a fresh pod that is ended after it, for debugging.
    pub fn one_shot(mut self) -> Call {
        self.one_shot = true;
        self
    }

    /// Also delivers the lines printed meanwhile, as [`Event::Printed`].
    pub fn with_logs(mut self) -> Call {
        self.logs = true;
        self
    }

    /// The operation that the call names.
    ///
    /// Errors: `operation_not_found`, which lists the recipe's operations and names the recipe as the caller
    /// did.
    pub(crate) fn operation_in<'m>(&self, manifest: &'m Manifest) -> Result<&'m Arc<Operation>, Fault> {
        let found = manifest.operation(&self.operation);
        found.map_err(|fault| fault.hint(hint![act::show(&self.recipe), " lists its operations with their schemas"]))
    }

    /// Budget of the whole call for that operation, in milliseconds.
    ///
    /// Errors: `usage` for a budget of 0.
    #[doc(hidden)]
    pub fn budget_ms(&self, operation: &Operation) -> Result<u64, Fault> {
        match self.deadline_ms {
            Some(0) => Err(Fault::new(Code::Usage, "a deadline of 0 ms leaves no time to run")
                .hint("give at least 1 ms, or leave the deadline out: the operation has its own")),
            Some(asked) => Ok(asked.min(operation.deadline_ms).min(DEADLINE_MAX_MS)),
            None => Ok(operation.deadline_ms),
        }
    }
}

/// A call that passed the checks against the recipe and its schemas. Only [`Admitted::admit`] makes one, and
/// it is pure.
#[derive(Debug, Clone)]
pub struct Admitted {
    recipe: Arc<Verified>,
    operation: Arc<Operation>,
    input: Document,
    blobs: Vec<Blob>,
    deadline_ms: u64,
    priority: Priority,
    one_shot: bool,
    session: Option<String>,
    logs: bool,
}

impl Admitted {
    /// Checks `call` against `recipe`, which the caller of this function looked up.
    ///
    /// Errors: `operation_not_found` (lists the operations), `invalid_input` (with JSON pointers),
    /// `too_large`; `session_required`; `usage` for a session where none is possible.
    pub fn admit(recipe: Arc<Verified>, call: Call) -> Result<Admitted, Fault> {
        let manifest = recipe.manifest();
        let operation = call.operation_in(manifest)?.clone();
        // An app that embeds the crate may have made the document from a value, whose size nobody checked.
        if call.input.text().len() > DOCUMENT_BYTES_MAX {
            return Err(Fault::new(
                Code::TooLarge,
                format!("input is {} bytes of JSON; at most {DOCUMENT_BYTES_MAX} are carried", call.input.text().len()),
            )
            .hint(hint!["pass large data as a blob, by ", act::blob()]));
        }
        let checked =
            operation.input.check(&call.input, &format!("input of `{}` of `{}`", operation.name, manifest.name), Code::InvalidInput);
        checked.map_err(|fault| fault.hint(hint![act::show(&call.recipe), " tells the schema of the input"]))?;
        let declared = Part::Input.blobs(&operation).check(
            &call.blobs,
            &format!("input of `{}` of `{}`", operation.name, manifest.name),
            Code::InvalidInput,
        );
        declared.map_err(|fault| fault.hint(hint![act::show(&call.recipe), " tells which blobs it takes"]))?;
        if call.blobs.len() > BLOBS_MAX {
            return Err(Fault::new(
                Code::TooLarge,
                format!("the call carries {} blobs; at most {BLOBS_MAX} are carried", call.blobs.len()),
            ));
        }
        check_session(manifest, &operation, call.session.as_deref(), call.one_shot)?;
        let deadline_ms = call.budget_ms(&operation)?;
        let (priority, one_shot) = (call.priority, call.one_shot);
        let Call { input, blobs, session, logs, .. } = call;
        let input = operation.input.with_integers(input);
        Ok(Admitted { operation, input, blobs, deadline_ms, priority, one_shot, session, logs, recipe })
    }

    pub fn recipe(&self) -> &Arc<Verified> {
        &self.recipe
    }
    pub fn operation(&self) -> &Arc<Operation> {
        &self.operation
    }
    pub fn input(&self) -> &Document {
        &self.input
    }
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }
    /// Budget of the whole call in milliseconds.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }
    pub fn priority(&self) -> Priority {
        self.priority
    }
    /// Whether it runs in a fresh pod of its own.
    pub fn is_one_shot(&self) -> bool {
        self.one_shot
    }
    /// Whether it also gets the lines printed meanwhile.
    pub fn wants_logs(&self) -> bool {
        self.logs
    }
    /// The name of its session.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }
}

/// Checks that the call may name that session, or none.
fn check_session(manifest: &Manifest, operation: &Operation, session: Option<&str>, one_shot: bool) -> Result<(), Fault> {
    let Some(name) = session else { return operation.check_is_free(&manifest.name) };
    if one_shot {
        return Err(Fault::new(Code::Usage, "a call of a session with a pod of its own: a session is a pod that is kept")
            .hint("leave out the session, or the wish for a pod of its own"));
    }
    if !manifest.keeps_sessions() {
        return Err(Fault::new(Code::Usage, format!("`{}` keeps no sessions: its manifest has no `[pod.session]`", manifest.name))
            .hint("call it without a session"));
    }
    session::check_name(name)
}

/// An event during a call; events come in order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The pod's own report of its progress: any JSON object. [`Event::report`] reads it.
    Progress { data: Value },
    /// A part of a streaming operation's result.
    Chunk { data: Document, blobs: Vec<Blob> },
    /// A line that the glue logged.
    Log { level: String, message: String },
    /// A line that a pod of the recipe, or its glue, printed while it worked for this call or for none; or a
    /// note that lines were left out. Only calls that set [`Call::logs`] get these.
    Printed { text: String },
}

impl Event {
    /// The progress report, if this is a progress event.
    pub fn report(&self) -> Option<Report<'_>> {
        match self {
            Event::Progress { data } => Some(Report::of(data)),
            Event::Chunk { .. } | Event::Log { .. } | Event::Printed { .. } => None,
        }
    }
}

/// The result of a call that succeeded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    pub output: Document,
    pub blobs: Vec<Blob>,
    /// The recipe that answered, as `publisher/name`.
    pub recipe: String,
    pub version: String,
    /// Whether the recipe ran from a folder in unsigned dev mode.
    pub unsigned: bool,
    /// Time from admission to outcome, in milliseconds; [`Outcome::took`] returns the same.
    pub wall_ms: f64,
}

impl Outcome {
    /// An outcome of a signed recipe that took no time: for tests of code that reads outcomes.
    pub fn new(recipe: impl Into<String>, version: impl Into<String>, output: Document, blobs: Vec<Blob>) -> Outcome {
        Outcome { output, blobs, recipe: recipe.into(), version: version.into(), unsigned: false, wall_ms: 0.0 }
    }

    /// Reads the output as a type of the app.
    ///
    /// Errors: `usage` if the output has another shape; the message says where.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        self.output.read(&format!("the output of `{}` {}", self.recipe, self.version))
    }

    /// Time from admission to outcome.
    pub fn took(&self) -> Duration {
        Duration::from_secs_f64(self.wall_ms.max(0.0) / 1_000.0)
    }
}
