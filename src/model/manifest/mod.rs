//! `recipe.toml`: all there is to know about a recipe without running anything.
//!
//! What the keys mean stands here; `reader.rs` reads them. A key that this host does not know
//! *or cannot enforce* is refused: no key may parse and do nothing.

use crate::model::hint::{act, hint};
use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use semver::{Version, VersionReq};
use toml::{Spanned, de::DeTable};

use crate::model::{
    edition::Edition,
    fault::{Code, Fault},
    grant::Permissions,
    id::{Digest, RecipeName},
    limits,
    model_name::ModelNames,
    path_pattern::PathPattern,
    status::{
        machine::{LeverSpec, ResidencySpec},
        session::SessionSpec,
    },
};
use blobs::blobs;
use findings::Needed;
use operation::{Batch, BatchCost, Operation};
use pod::{permissions, pod};
use reader::{Source, Table, check, line_of};
use schema_key::Reading;
use source::ModelSource;

/// What most complaints about a manifest have its author do.
pub use reader::check as correct_the_manifest;

/// A recipe's declaration, checked.
#[derive(Debug)]
pub struct Manifest {
    pub name: RecipeName,
    pub version: Version,
    pub license: String,
    pub summary: String,
    /// A named contract that several recipes may provide, e.g. `embeddings@1`; `hob show` prints it and `hob call` accepts it in place of a recipe.
    pub capability: Option<String>,
    /// Versions of Hob that may run it.
    pub hob: VersionReq,
    /// What goes into the bundle beside what always does.
    pub files: Vec<PathPattern>,
    pub glue: Option<GlueSpec>,
    pub pod: Option<PodSpec>,
    /// What its pods ask for beyond their own files; without the operator's word they have none of it.
    pub permissions: Permissions,
    pub models: Vec<ModelSpec>,
    /// How it was read.
    pub edition: Edition,
    operations: BTreeMap<String, Arc<Operation>>,
}

/// `[glue]`: the component `glue.wasm`.
#[derive(Debug)]
pub struct GlueSpec {
    /// Version of the world `hob:glue` that it was built for, e.g. `0.1`.
    pub world: String,
    /// Folder of its source, for `hob build`; not part of a bundle.
    pub source: String,
}

/// `[pod]`: the process that does the heavy work.
#[derive(Debug)]
pub struct PodSpec {
    pub runtime: Runtime,
    /// From spawn to `ready`, in milliseconds.
    pub start_timeout_ms: u64,
    pub pool: PoolSpec,
    /// Units of work (asks, or batches) that one pod runs at a time: above 1, plain methods run in threads and `async` ones as tasks.
    pub concurrency: u32,
    /// Threads that numeric libraries may use in each pod (OMP, OpenBLAS, MKL, torch); none: this machine's cores shared by the pool.
    pub threads: Option<u32>,
    /// More environment variables of its pods.
    pub env: BTreeMap<String, String>,
    /// A Python file of the recipe that runs after `load` and before the first ask.
    pub warm_up: Option<String>,
    pub recycle: Recycle,
    /// Most memory of a pod with its children, in bytes; none: what the machine has.
    pub memory_bytes: Option<u64>,
    /// Most processes and threads of a pod.
    pub processes: Option<u64>,
    /// How much its processes yield to others, as `nice` counts: 0 (not at all) to 19.
    pub nice: u8,
    /// Modules of the environment that are imported once and shared by all pods.
    pub preload: Vec<String>,
    /// Whether, and how, its pods may be kept by name.
    pub session: Option<SessionSpec>,
    /// What its models need while they are loaded.
    pub residency: ResidencySpec,
    /// What is lowered when memory ran out.
    pub lever: Option<LeverSpec>,
}

/// How many pods a recipe has.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSpec {
    /// Pods that are kept once the recipe is in use.
    pub min: usize,
    /// Most pods; a further one is started only while asks wait and none is free.
    pub max: usize,
    /// After so long without work a pod beyond `min` goes, in milliseconds.
    pub idle_timeout_ms: u64,
}

/// `[pod.recycle]`: when a pod is replaced although nothing is wrong with it. Checked between asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recycle {
    pub calls: Option<u64>,
    pub age_ms: Option<u64>,
    /// Memory of its own of the pod and its child processes, in bytes.
    pub memory_bytes: Option<u64>,
}

/// What starts a pod.
#[derive(Debug)]
pub enum Runtime {
    /// `entry` is `module:Class` in the folder `pod/`; `lock` the hash-locked requirements.
    Python { entry: String, python: VersionReq, lock: Option<String> },
    /// `entry` is an executable file of the bundle that speaks the pod protocol.
    Executable { entry: String },
}

/// `[[model]]`: a large file, named by digest; in a recipe folder it lies at `models/<name>`, unless `from` says where it is fetched.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Its path in the folder that pods find the models in ([`ModelNames`] says what that may be).
    pub name: String,
    pub sha256: Digest,
    pub bytes: u64,
    /// `None`: it is published beside the bundle.
    pub from: Option<ModelSource>,
}

impl Manifest {
    /// Reads a manifest. `what` names the file in faults.
    ///
    /// On a thread of its own: how deep a stranger's schema leads is bounded, but not by the stack of whoever asks, which in an app's debug build is
    /// all but full of it.
    ///
    /// Errors: `invalid_manifest`, with `line` and `key` in `detail`, and `findings` if there are several; `io` where no thread is to be had.
    pub fn parse(text: &str, what: &str) -> Result<Manifest, Fault> {
        Manifest::parse_with(text, &Reading::alone(what))
    }

    /// The same with the files of its recipe, in the edition in which it was installed.
    ///
    /// Errors: as [`Manifest::parse`].
    pub fn parse_with(text: &str, reading: &Reading) -> Result<Manifest, Fault> {
        let what = reading.what;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("hob manifest".to_owned()).stack_size(limits::MANIFEST_STACK_BYTES);
            match thread.spawn_scoped(scope, || Manifest::read(text, *reading)) {
                Ok(reading) => {
                    reading.join().unwrap_or_else(|_| Err(Fault::new(Code::Internal, format!("{what}: reading it ended early"))))
                }
                Err(error) => Err(Fault::io(format!("starting a thread to read {what}"), &error)),
            }
        })
    }

    fn read(text: &str, reading: Reading) -> Result<Manifest, Fault> {
        let what = reading.what;
        if text.trim().is_empty() {
            return Err(Fault::new(Code::InvalidManifest, format!("{what}:1: found an empty file, wanted a recipe's manifest"))
                .with("line", 1)
                .hint(check()));
        }
        let parsed = findings::parse(text, |offset, why| {
            let line = line_of(text, offset);
            Fault::new(Code::InvalidManifest, format!("{what}:{line}: {why}")).with("line", line).hint(check())
        })?;
        findings::all(parsed, text, NEEDED, |table, extent, notes| {
            Manifest::of(table, &Source { text, reading, extent, notes, schema_bytes: Cell::default() })
        })
    }

    /// Of the whole file as a table.
    ///
    /// Errors: what keeps the rest from being read; what does not is noted.
    fn of(table: &DeTable, source: &Source) -> Result<Manifest, Fault> {
        let mut root = Table::new(source, "", table, 0);

        let name = root.string("name")?;
        let name: RecipeName = name.get_ref().parse().map_err(|fault: Fault| source.fault(&name, "name", fault.message))?;
        let version = root.string("version")?;
        let version = Version::parse(version.get_ref()).map_err(|error| {
            source.fault(
                &version,
                "version",
                format!("`{:.100}` is not a version ({error}): wanted `MAJOR.MINOR.PATCH`, e.g. `0.1.0`", version.get_ref()),
            )
        })?;
        let license = root.string("license")?.into_inner();
        let summary = root.string("summary")?.into_inner();
        let capability = root.optional_string("capability")?;
        if let Some(capability) = &capability
            && !is_capability(capability.get_ref())
        {
            return Err(source.fault(
                capability,
                "capability",
                format!("`{}` is not a capability: wanted `name@major`, e.g. `embeddings@1`", capability.get_ref()),
            ));
        }
        let capability = capability.map(Spanned::into_inner);
        let hob = root.version_req("hob")?;
        let ours = Version::parse(env!("CARGO_PKG_VERSION")).expect("Cargo checks our own version");
        if !hob.get_ref().matches(&ours) {
            return Err(source
                .fault(&hob, "hob", format!("the recipe wants Hob {}, this is Hob {ours}", hob.get_ref()))
                .with("other_hob", true)
                .hint("update Hob, or install a version of the recipe that names this Hob"));
        }
        let files = files(&mut root, hob.get_ref())?;
        let hob = hob.into_inner();

        let glue = match root.optional_table("glue")? {
            Some(mut table) => Some(glue(&mut table)?),
            None => None,
        };
        let pod = match root.optional_table("pod")? {
            Some(mut table) => Some(pod(&mut table)?),
            None => None,
        };
        let permissions = match root.optional_table("permissions")? {
            Some(table) if pod.is_none() => {
                let why = "permissions without `[pod]`: glue can have none, so nothing would use them";
                source.notes.add_of("", table.fault_here(why.into()));
                Permissions::default()
            }
            Some(mut table) => permissions(&mut table, pod.as_ref())?,
            None => Permissions::default(),
        };
        let models = models(&mut root)?;
        let sessions = pod.as_ref().is_some_and(|pod| pod.session.is_some());
        if pod.is_none() && glue.is_none() {
            root.note_here(
                "neither `[pod]` nor `[glue]`: nothing could answer a call; wanted e.g. `[pod]` with `runtime`, `entry` and `python`",
            );
        }
        let operations = operations(source, &mut root, &hob, sessions)?;
        root.finish()?;
        Ok(Manifest {
            name,
            version,
            license,
            summary,
            capability,
            hob,
            files,
            glue,
            pod,
            permissions,
            models,
            edition: source.reading.edition,
            operations,
        })
    }

    /// The operation of that name.
    ///
    /// Errors: `operation_not_found`, which says what there is.
    pub fn operation(&self, name: &str) -> Result<&Arc<Operation>, Fault> {
        self.operations.get(name).ok_or_else(|| {
            let names: Vec<_> = self.operations.keys().map(|name| format!("`{name}`")).collect();
            Fault::new(Code::OperationNotFound, format!("recipe `{}` has no operation `{name}` (it has: {})", self.name, names.join(", ")))
                .hint(hint![act::show(&self.name), " lists its operations with their schemas"])
        })
    }

    /// Whether its pods may be kept by name.
    pub fn keeps_sessions(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.session.is_some())
    }

    /// All operations, by name.
    pub fn operations(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.operations.values()
    }
}

/// Keys that have to be there, with values that are good there.
const NEEDED: &[Needed] = &[
    ("pod.lever.name", "\"a\""),
    ("pod.lever.values", "[2, 1]"),
    ("pod.session.mode", "\"shared\""),
    ("pod.runtime", "\"python\""),
    ("pod.entry", "\"a:B\""),
    ("pod.python", "\">=3.9\""),
    ("glue.world", "\"0.1\""),
    ("name", "\"a/b\""),
    ("version", "\"0.1.0\""),
    ("license", "\"a\""),
    ("summary", "\"a\""),
    ("hob", "\">=0.1.1\""),
    ("operations", "{ a = { summary = \"a\", input = {}, output = {} } }"),
    ("operations.*.summary", "\"a\""),
    ("operations.*.input", "{}"),
    ("operations.*.output", "{}"),
];

/// The first Hob that takes `files`, and the places and paths that they may name.
pub const WIDER_SINCE: Version = Version::new(0, 1, 1);

/// Whether a range leaves out every Hob before that.
pub fn names_wider(hob: &VersionReq) -> bool {
    !hob.matches(&Version::new(0, 1, 0))
}

fn newer(key: &str, hob: &VersionReq) -> String {
    format!("Hob {WIDER_SINCE} is the first that knows `{key}`, and `hob = \"{hob}\"` names an older one: wanted e.g. `>=0.1.1, <0.2`")
}

fn files(root: &mut Table, hob: &VersionReq) -> Result<Vec<PathPattern>, Fault> {
    // An older Hob refuses the key, whatever is in it.
    if !names_wider(hob) {
        root.without("files", || newer("files", hob))?;
    }
    let mut files = Vec::new();
    for (at, text) in root.list("files")?.into_iter().enumerate() {
        if at == limits::FILES_PATTERNS_MAX {
            return Err(root.fault_here(format!("more than {} patterns in `files`", limits::FILES_PATTERNS_MAX)));
        }
        if root.source.notes.are_full() {
            break;
        }
        match PathPattern::parse(text.get_ref()) {
            Ok(pattern) => files.push(pattern),
            Err(why) => root.source.notes.add(root.fault(&text, "files", why)),
        }
    }
    Ok(files)
}

fn is_capability(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, major)| {
        crate::model::id::is_name(name) && !major.is_empty() && major.len() < 6 && major.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn glue(table: &mut Table) -> Result<GlueSpec, Fault> {
    let world = table.string("world")?;
    let parts: Vec<_> = world.get_ref().split('.').collect();
    if !(parts.len() == 2 && parts.iter().all(|part| part.parse::<u32>().is_ok())) {
        return Err(table.fault(
            &world,
            "world",
            format!("`{}` is not a world version: wanted `major.minor`, e.g. `0.1`", world.get_ref()),
        ));
    }
    let folder = table.optional_string("source")?;
    let folder = match folder {
        Some(folder) => table.path(&folder, "source")?,
        None => "glue".to_owned(),
    };
    table.finish()?;
    Ok(GlueSpec { world: world.into_inner(), source: folder })
}

fn models(root: &mut Table) -> Result<Vec<ModelSpec>, Fault> {
    let (mut models, mut names): (Vec<ModelSpec>, _) = (Vec::new(), ModelNames::default());
    for (at, mut table) in root.tables("model")?.into_iter().enumerate() {
        if at == limits::MODELS_MAX {
            return Err(root.fault_here(format!("more than {} models", limits::MODELS_MAX)));
        }
        if root.source.notes.are_full() {
            break;
        }
        let read = table.string("name").and_then(|name| match names.take(name.get_ref()) {
            Ok(()) => Ok(name.into_inner()),
            Err(why) => Err(table.fault(&name, "name", why)),
        });
        let name = table.noted(read)?;
        // As some programs print it; what is signed has the one form.
        let read = table.string("sha256").and_then(|sha256| {
            let digest = sha256.get_ref().to_ascii_lowercase().parse();
            digest.map_err(|fault: Fault| table.fault(&sha256, "sha256", fault.message))
        });
        let digest = table.noted(read)?;
        let read = table.integer("bytes").and_then(|bytes| match *bytes.get_ref() {
            taken if taken <= limits::MODEL_BYTES_MAX => Ok(taken),
            more => Err(table.fault(&bytes, "bytes", format!("{more} bytes; at most {} are taken", limits::MODEL_BYTES_MAX))),
        });
        let bytes = table.noted(read)?;
        let read = table.optional_string("from").and_then(|from| match from {
            Some(from) => from.get_ref().parse().map(Some).map_err(|why: Fault| table.fault(&from, "from", why.message)),
            None => Ok(None),
        });
        let from = table.noted(read)?.flatten();
        table.finish()?;
        if let (Some(name), Some(sha256), Some(bytes)) = (name, digest, bytes) {
            models.push(ModelSpec { name, sha256, bytes, from });
        }
    }
    Ok(models)
}

fn operations(source: &Source, root: &mut Table, hob: &VersionReq, sessions: bool) -> Result<BTreeMap<String, Arc<Operation>>, Fault> {
    let Some(mut table) = root.optional_table("operations")? else {
        let missing = Err::<(), _>(root.missing("operations", "at least one table `[operations.<name>]`"));
        return root.noted(missing).map(|_| BTreeMap::new());
    };
    let mut operations = BTreeMap::new();
    for (name, mut table) in table.rest()? {
        if source.notes.are_full() {
            break;
        }
        if let Err(why) = operation_name::check(&name, operations.keys(), source.reading.edition) {
            source.notes.add(table.fault_here(why));
        }
        if !names_wider(hob) {
            table.without("blobs", || newer("blobs", hob))?;
        }
        let operation = Operation {
            summary: table.string("summary")?.into_inner(),
            input: table.schema("input")?,
            output: table.schema("output")?,
            streaming: table.boolean("streaming", false)?,
            deadline_ms: table.milliseconds("deadline_ms", limits::DEADLINE_DEFAULT_MS, limits::DEADLINE_MAX_MS)?,
            idempotent: table.boolean("idempotent", false)?,
            progress_interval_ms: table.optional_integer("progress_interval_ms", 1, limits::DEADLINE_MAX_MS)?,
            session: table.boolean("session", false)?,
            blobs: blobs(&mut table)?,
            batch: batch(&mut table)?,
            name: name.clone(),
        };
        if operation.batch.is_some() && !operation.idempotent {
            table.note_here(
                "`batch` without `idempotent = true`: a failing batch is run again in halves, so each item may run more than once",
            );
        }
        if operation.batch.is_some() && operation.blobs.iter().any(|side| side.declared().next().is_some()) {
            table.note_here("`batch` with `blobs`: a batch carries none");
        }
        if operation.batch.is_some() && operation.streaming {
            table.note_here("`batch` with `streaming = true`: a batch gives one result for each item and no chunks");
        }
        if operation.session && !sessions {
            let why = "`session = true` without `[pod.session]`: there are no sessions for it to run in";
            source.notes.add_of("pod", table.fault_here(why.into()));
        }
        table.finish()?;
        operations.insert(name, Arc::new(operation));
    }
    if (operations.is_empty() || operations.len() > limits::OPERATIONS_MAX) && !source.notes.are_full() {
        table.note_here(format!("{} operations; wanted 1 to {}", operations.len(), limits::OPERATIONS_MAX));
    }
    Ok(operations)
}

fn batch(table: &mut Table) -> Result<Option<Batch>, Fault> {
    let Some(mut table) = table.optional_table("batch")? else { return Ok(None) };
    let items = table.optional_integer("items", 2, limits::BATCH_ITEMS_MAX)?;
    if items.is_none() {
        table.note_here(format!("`items` is missing: wanted 2 to {}", limits::BATCH_ITEMS_MAX));
    }
    let items = items.unwrap_or(2) as usize;
    let wait_ms = table.optional_integer("wait_ms", 0, limits::BATCH_WAIT_MAX_MS)?.unwrap_or(0);
    let of = table.optional_string("cost")?;
    let max = table.optional_integer("cost_max", 1, u64::MAX)?;
    let cost = match (of, max) {
        (None, None) => None,
        (Some(of), Some(max)) if of.get_ref().starts_with('/') => Some(BatchCost { of: of.into_inner(), max }),
        (Some(of), Some(_)) => return Err(table.fault(&of, "cost", "not a JSON pointer into the input: wanted e.g. `/text`")),
        _ => {
            table.note_here("`cost` and `cost_max` go together");
            None
        }
    };
    table.finish()?;
    Ok(Some(Batch { items, wait_ms, cost }))
}

/// Whether `path` is relative, plain and stays inside a recipe: no `..`, no empty part, no backslash, no NUL.
pub fn is_inner_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= limits::BUNDLE_PATH_BYTES_MAX
        && !path.bytes().any(|byte| byte == b'\\' || byte < 0x20 || byte == 0x7f)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

pub mod blobs;
pub mod findings;
pub mod operation;
pub mod operation_name;
mod pod;
mod reader;
pub mod schema_key;
pub mod source;
#[cfg(test)]
mod tests;
