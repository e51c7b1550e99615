//! `recipe.toml`: all there is to know about a recipe without running anything.
//!
//! What the keys mean stands here; `manifest_reader.rs` reads them. A key that this host does not know
//! *or cannot enforce* is refused: no key may parse and do nothing.

use super::hint::{act, hint};
use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use semver::{Version, VersionReq};
use toml::{Spanned, de::DeTable};

pub use super::manifest_reader::not_toml;
use super::{
    blob_spec::blobs,
    edition::Edition,
    fault::{Code, Fault},
    grant::Permissions,
    id::{Digest, RecipeName},
    limits,
    machine::{LeverSpec, ResidencySpec},
    manifest_reader::{Source, Table, check, line_of},
    model_name::ModelNames,
    operation::{Batch, BatchCost, Operation},
    operation_name,
    path_pattern::PathPattern,
    pod_table::{permissions, pod},
    schema_key::Reading,
    session::SessionSpec,
    source::ModelSource,
};

/// What most complaints about a manifest have its author do.
pub use super::manifest_reader::check as correct_the_manifest;

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
    /// Errors: `invalid_manifest`, with `line` and `key` in `detail`; `io` where no thread is to be had.
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
        let Reading { what, edition, .. } = reading;
        let document = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            Fault::new(Code::InvalidManifest, format!("{what}:{line}: {}", not_toml(text, error.message(), error.span())))
                .with("line", line)
                .hint(check())
        })?;
        let source = Source { text, reading, schema_bytes: Cell::default() };
        let mut root = Table::new(&source, "", document.get_ref(), 0);

        let name = root.string("name")?;
        let name: RecipeName = name.get_ref().parse().map_err(|fault: Fault| source.fault(&name, "name", fault.message))?;
        let version = root.string("version")?;
        let version = Version::parse(version.get_ref())
            .map_err(|error| source.fault(&version, "version", format!("`{}` is not a version: {error}", version.get_ref())))?;
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
                return Err(table.fault_here("permissions without `[pod]`: glue can have none, so nothing would use them".into()));
            }
            Some(mut table) => permissions(&mut table, pod.as_ref())?,
            None => Permissions::default(),
        };
        let models = models(&mut root)?;
        let sessions = pod.as_ref().is_some_and(|pod| pod.session.is_some());
        let operations = operations(&source, &mut root, &hob, pod.is_some() || glue.is_some(), sessions)?;
        root.finish()?;
        Ok(Manifest { name, version, license, summary, capability, hob, files, glue, pod, permissions, models, edition, operations })
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
    for text in root.list("files")? {
        files.push(PathPattern::parse(text.get_ref()).map_err(|why| root.fault(&text, "files", why))?);
        if files.len() > limits::FILES_PATTERNS_MAX {
            return Err(root.fault_here(format!("more than {} patterns in `files`", limits::FILES_PATTERNS_MAX)));
        }
    }
    Ok(files)
}

fn is_capability(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, major)| {
        super::id::is_name(name) && !major.is_empty() && major.len() < 6 && major.bytes().all(|byte| byte.is_ascii_digit())
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
    for mut table in root.tables("model")? {
        let name = table.string("name")?;
        names.take(name.get_ref()).map_err(|why| table.fault(&name, "name", why))?;
        let sha256 = table.string("sha256")?;
        // As some programs print it; what is signed has the one form.
        let digest = sha256.get_ref().to_ascii_lowercase().parse().map_err(|fault: Fault| table.fault(&sha256, "sha256", fault.message))?;
        let bytes = table.integer("bytes")?;
        if *bytes.get_ref() > limits::MODEL_BYTES_MAX {
            return Err(table.fault(&bytes, "bytes", format!("{} bytes; at most {} are taken", bytes.get_ref(), limits::MODEL_BYTES_MAX)));
        }
        let from = match table.optional_string("from")? {
            Some(from) => Some(from.get_ref().parse().map_err(|why: String| table.fault(&from, "from", why))?),
            None => None,
        };
        table.finish()?;
        models.push(ModelSpec { name: name.into_inner(), sha256: digest, bytes: bytes.into_inner(), from });
        if models.len() > limits::MODELS_MAX {
            return Err(root.fault_here(format!("more than {} models", limits::MODELS_MAX)));
        }
    }
    Ok(models)
}

fn operations(
    source: &Source,
    root: &mut Table,
    hob: &VersionReq,
    runnable: bool,
    sessions: bool,
) -> Result<BTreeMap<String, Arc<Operation>>, Fault> {
    let Some(mut table) = root.optional_table("operations")? else {
        return Err(root.fault_here("no operation: wanted at least one table `[operations.<name>]`".into()));
    };
    if !runnable {
        return Err(root.fault_here("neither `[pod]` nor `[glue]`: nothing could answer a call".into()));
    }
    let mut operations = BTreeMap::new();
    for (name, mut table) in table.rest()? {
        operation_name::check(&name, operations.keys(), source.reading.edition).map_err(|why| table.fault_here(why))?;
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
            return Err(table.fault_here(
                "`batch` without `idempotent = true`: a failing batch is run again in halves, so each item may run more than once".into(),
            ));
        }
        if operation.batch.is_some() && operation.blobs.iter().any(|side| side.declared().next().is_some()) {
            return Err(table.fault_here("`batch` with `blobs`: a batch carries none".into()));
        }
        if operation.batch.is_some() && operation.streaming {
            return Err(table.fault_here("`batch` with `streaming = true`: a batch gives one result for each item and no chunks".into()));
        }
        if operation.session && !sessions {
            return Err(table.fault_here("`session = true` without `[pod.session]`: there are no sessions for it to run in".into()));
        }
        table.finish()?;
        operations.insert(name, Arc::new(operation));
    }
    if operations.is_empty() || operations.len() > limits::OPERATIONS_MAX {
        return Err(source.fault_at(
            table.start,
            "operations",
            format!("{} operations; wanted 1 to {}", operations.len(), limits::OPERATIONS_MAX),
        ));
    }
    Ok(operations)
}

fn batch(table: &mut Table) -> Result<Option<Batch>, Fault> {
    let Some(mut table) = table.optional_table("batch")? else { return Ok(None) };
    let items = table.optional_integer("items", 2, limits::BATCH_ITEMS_MAX)?;
    let items = items.ok_or_else(|| table.fault_here(format!("`items` is missing: wanted 2 to {}", limits::BATCH_ITEMS_MAX)))? as usize;
    let wait_ms = table.optional_integer("wait_ms", 0, limits::BATCH_WAIT_MAX_MS)?.unwrap_or(0);
    let of = table.optional_string("cost")?;
    let max = table.optional_integer("cost_max", 1, u64::MAX)?;
    let cost = match (of, max) {
        (None, None) => None,
        (Some(of), Some(max)) if of.get_ref().starts_with('/') => Some(BatchCost { of: of.into_inner(), max }),
        (Some(of), Some(_)) => return Err(table.fault(&of, "cost", "not a JSON pointer into the input: wanted e.g. `/text`")),
        _ => return Err(table.fault_here("`cost` and `cost_max` go together".into())),
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"name = "hob/echo"
version = "0.1.0"
license = "Apache-2.0"
summary = "Gives back what it got"
hob = "0.1"

[pod]
runtime = "python"
entry = "echo:Echo"
python = ">=3.9"

[operations.echo]
summary = "The input, again"
input = { type = "object" }
output = { type = "object" }
"#;

    #[test]
    fn a_good_manifest_reads() {
        let manifest = Manifest::parse(GOOD, "recipe.toml").unwrap();
        assert_eq!(manifest.name.to_string(), "hob/echo");
        assert_eq!(manifest.operations().count(), 1);
        assert_eq!(manifest.operation("echo").unwrap().deadline_ms, limits::DEADLINE_DEFAULT_MS);
        let fault = manifest.operation("ecko").unwrap_err();
        assert_eq!(fault.code, Code::OperationNotFound);
        assert!(fault.message.contains("`echo`"), "{}", fault.message);
    }

    /// (what is replaced, by what, the line, what the message must say)
    #[test]
    fn each_mistake_names_line_and_key() {
        let table: &[(&str, &str, usize, &str)] = &[
            ("hob/echo", "hob echo", 1, "name: `hob echo` is not a recipe name"),
            ("\"0.1.0\"", "\"1\"", 2, "version: `1` is not a version"),
            ("license = \"Apache-2.0\"", "license = 3", 3, "license: found 3, wanted a string"),
            ("license = \"Apache-2.0\"\n", "", 1, "license: missing"),
            ("license", "licence", 3, "nearest known key: `license`"),
            ("hob = \"0.1\"", "hob = \"99\"", 5, "the recipe wants Hob ^99, this is Hob"),
            ("hob = \"0.1\"", "hob = \"0.1\"\ntimeout = 3", 6, "this Hob knows no key `timeout` at the top level"),
            ("python = ", "snake = ", 7, "pod.python: missing"),
            ("python = ", "pyhton = ", 10, "nearest known key: `python`"),
            ("[pod]", "[pod]\nlokc = \"x\"", 8, "nearest known key: `lock`"),
            ("[pod]", "[pod]\nlock = \"../x\"", 8, "pod.lock: `../x` is not a path inside the recipe"),
            ("[pod]", "[pod]\nstart_timeout_ms = 0", 8, "found 0, wanted 1 to"),
            ("[pod]", "[pod]\nstart_timeout_ms = -5", 8, "found -5"),
            ("echo:Echo", "echo", 9, "pod.entry: `echo` is not an entry"),
            ("\"python\"", "\"ruby\"", 8, "unknown runtime `ruby`"),
            ("[operations.echo]", "[operations.echo]\nbitch = 3", 13, "knows no key `bitch`"),
            ("[operations.echo]", "[operations.echo]\nbatch = 3", 13, "operations.echo.batch: found 3, wanted a table"),
            ("[operations.echo]", "[operations.echo]\nbatch = { items = 8 }", 12, "`batch` without `idempotent = true`"),
            ("[operations.echo]", "[operations.echo]\nidempotent = true\nbatch = { wait_ms = 8 }", 14, "`items` is missing"),
            ("[operations.echo]", "[operations.echo]\nidempotent = true\nbatch = { items = 8, cost = \"/x\" }", 14, "go together"),
            ("[operations.echo]", "[operations.echo]\nprogress_interval_ms = 0", 13, "found 0, wanted 1 to"),
            ("[operations.echo]", "[operations.echo]\nsession = true", 12, "`session = true` without `[pod.session]`"),
            ("[pod]", "[pod]\nsession = {}", 8, "pod.session.mode: missing"),
            ("[pod]", "[pod]\nsession = { mode = \"open\" }", 8, "pod.session.mode: `open` is no mode"),
            ("[pod]", "[pod]\nsession = { mode = \"shared\", max = 0 }", 8, "pod.session.max: found 0, wanted 1 to 256"),
            ("[pod]", "[pod]\nsession = { mode = \"shared\", ttl = 3 }", 8, "nearest known key: `ttl_ms`"),
            (
                "[pod]",
                "[pod]\nsession = { mode = \"shared\", checkpoint_interval_ms = 5 }",
                8,
                "`checkpoint_interval_ms` of 5 is too often",
            ),
            ("[pod]", "[pod]\nconcurrency = 2\nsession = { mode = \"shared\" }", 9, "`concurrency` above 1"),
            ("[pod]", "[pod]\nresidency = { exclusive = true }", 8, "`exclusive` without `gpu_bytes`"),
            ("[pod]", "[pod]\nresidency = { gpu_byte = 5 }", 8, "nearest known key: `gpu_bytes`"),
            ("[pod]", "[pod]\nresidency = { memory_bytes = 5 }", 8, "pod.residency.memory_bytes: found 5, wanted 1048576 to"),
            ("[pod]", "[pod]\nlever = { name = \"a-b\", values = [2, 1] }", 8, "`a-b` is not a lever's name"),
            ("[pod]", "[pod]\nlever = { name = \"a\", values = [2] }", 8, "1 `values`: wanted 2 to"),
            ("[pod]", "[pod]\nlever = { name = \"a\", values = [2, 1, 2] }", 8, "value 3 of `values` is there twice"),
            ("[pod]", "[pod]\nlever = { name = \"a\", values = [2.5, 1] }", 8, "wanted a list of integers of 0 or more, or texts"),
            ("[pod]", "[pod]\nlever = { name = \"a\", values = [2, 1], at = \"call\" }", 8, "`call`: wanted `ask` or `load`"),
            ("[pod]", "[[model]]\nname = \"../x\"\n[pod]", 8, "model.name: `../x` is not a model's name"),
            ("[pod]", "[[model]]\nname = \"a/b\"\nsha256 = \"x\"\n[pod]", 9, "model.sha256: `x` is not a SHA-256"),
            ("[pod]", "[pod]\nmin = 2", 8, "pod.min: found 2, wanted 0 to 1"),
            ("[pod]", "[pod]\nmax = 0", 8, "pod.max: found 0, wanted 1 to"),
            ("[pod]", "[pod]\nenv = { LD_PRELOAD = \"x\" }", 8, "LD_PRELOAD: this variable is the host's"),
            ("[pod]", "[pod]\nenv = { X = \"a\\u0000\" }", 8, "pod.env.X: found a NUL"),
            ("[pod]", "[pod]\nenv = { LC_ALL = \"x\" }", 8, "LC_ALL: `LC_ALL` is read when a process starts"),
            ("[pod]", "[pod]\nenv = { MALLOC_ARENA_MAX = \"1\" }", 8, "use `mallopt` of the C library"),
            ("[pod]", "[pod]\nenv = { X = 3 }", 8, "pod.env.X: found 3, wanted a string"),
            ("[pod]", "[pod]\nrecycle = { cals = 3 }", 8, "nearest known key: `calls`"),
            ("[pod]", "[pod]\nmemory_bytes = 1048576", 8, "pod.memory_bytes: found 1048576, wanted 16777216 to"),
            ("[pod]", "[pod]\nprocesses = 0", 8, "pod.processes: found 0, wanted 1 to 4096"),
            ("[pod]", "[pod]\nnice = -5", 8, "pod.nice: found -5"),
            ("[pod]", "[pod]\nnice = 20", 8, "pod.nice: found 20, wanted 0 to 19"),
            ("[pod]", "[pod]\npreload = [\"numpy\"]", 8, "pod.preload: only a pod with `runtime = \"python\"` and `lock`"),
            ("[pod]", "[pod]\nlock = \"x\"\npreload = [\"a-b\"]", 9, "pod.preload: `a-b` is not a module's name"),
            ("[pod]", "[pod]\nlock = \"x\"\npreload = [\n\"a\",\n\"a\"]", 11, "pod.preload: `a` twice"),
            ("[pod]", "[pod]\nlock = \"x\"\npreload = \"numpy\"", 9, "pod.preload: found the text \"numpy\", wanted a list of strings"),
            ("[pod]", "[permissions]\nnetwork = [\n\"a:1\",\n\"b\"]\n[pod]", 10, "permissions.network: `b` is not a network name"),
            ("[pod]", "[permissions]\nread = [\"/a\", 3]\n[pod]", 8, "permissions.read: found 3, wanted a list of strings"),
            ("[pod]", "[permissions]\nwrite = [\"x\"]\n[pod]", 8, "permissions.write: `x` is not a path to grant"),
            ("[pod]", "[permissions]\nenv = [\"PATH\"]\n[pod]", 8, "permissions.env: `PATH`: this variable is the host's"),
            ("[pod]", "[permissions]\ndevices = [\"tpu\"]\n[pod]", 8, "permissions.devices: there is no device `tpu`"),
            ("[pod]", "[permissions]\nnetwrok = [\"a:1\"]\n[pod]", 8, "nearest known key: `network`"),
            ("[pod]", "[permissions]\nenv = [\"A\"]\n[pod]\nenv = { A = \"x\" }", 8, "permissions.env: `A` is set by `[pod.env]`"),
            ("[pod]", "[permissions]\nenv = [\"A\", \"A\"]\n[pod]", 8, "permissions.env: `A` twice"),
            ("input = { type", "input = { tpye", 14, "nearest known key: `type`"),
            ("input = { type = \"object\" }", "input = { type = \"objekt\" }", 14, "operations.echo.input.type: not a JSON Schema"),
            (
                "input = { type = \"object\" }",
                "input = { pattern = \"^(?=a)(a|aa)+\\\\1$\" }",
                14,
                "operations.echo.input.pattern: not a JSON Schema",
            ),
            ("[operations.echo]", "[operation.echo]", 1, "no operation"),
            ("[pod]", "[pod", 7, "not TOML"),
            ("[pod]", "[pod]\n[pod]", 8, "duplicate key `pod`"),
        ];
        for (from, to, line, says) in table {
            assert!(GOOD.contains(from), "{from}");
            let fault = Manifest::parse(&GOOD.replacen(from, to, 1), "recipe.toml").expect_err(to);
            assert_eq!(fault.code, Code::InvalidManifest);
            assert!(fault.message.contains(says), "{to}: {}", fault.message);
            assert!(fault.message.starts_with(&format!("recipe.toml:{line}:")), "{to}: {}", fault.message);
            assert_eq!(fault.detail["line"], *line);
        }
    }

    #[test]
    fn what_a_pod_asks_for_is_read() {
        let asks = "[permissions]\nnetwork = [\"API.example:443\"]\nread = [\"/data/\"]\nwrite = [\"/out\"]\nenv = [\"TOKEN\"]\ndevices = [\"gpu\"]\n\n\
            [pod]\nlock = \"x\"\npreload = [\"numpy\", \"os.path\"]\nmemory_bytes = 16777216\nprocesses = 4096\nnice = 19";
        let manifest = Manifest::parse(&GOOD.replacen("[pod]", asks, 1), "recipe.toml").unwrap();
        let words = ["network=api.example:443", "read=/data", "write=/out", "env=TOKEN", "devices=gpu"];
        assert_eq!(manifest.permissions.words(), words);
        let pod = manifest.pod.unwrap();
        assert_eq!((pod.memory_bytes, pod.processes, pod.nice), (Some(16 << 20), Some(4096), 19));
        assert_eq!(pod.preload, ["numpy", "os.path"]);

        let plain = Manifest::parse(GOOD, "recipe.toml").unwrap();
        assert!(plain.permissions.is_empty());
        let pod = plain.pod.unwrap();
        assert_eq!((pod.memory_bytes, pod.processes, pod.nice, pod.preload), (None, None, 0, Vec::new()));
    }

    #[test]
    fn lists_are_bounded_and_glue_alone_has_no_permissions() {
        let read = |text: &str| Manifest::parse(&GOOD.replacen("[pod]", text, 1), "recipe.toml").unwrap_err().message;
        let many = |count: usize| (0..count).map(|n| format!("\"m{n}\"")).collect::<Vec<_>>().join(", ");
        let preload = format!("[pod]\nlock = \"x\"\npreload = [{}]", many(limits::PRELOAD_MAX + 1));
        assert!(read(&preload).contains("pod.preload: more than 32 modules"));
        let env = format!("[permissions]\nenv = [{}]\n[pod]", many(limits::PERMISSIONS_MAX + 1));
        assert!(read(&env).contains("permissions.env: more than 64 of one kind"));
        let (pod, operations) = (GOOD.find("[pod]").unwrap(), GOOD.find("[operations").unwrap());
        let glue = format!("{}[glue]\nworld = \"0.1\"\n[permissions]\nenv = [\"A\"]\n{}", &GOOD[..pod], &GOOD[operations..]);
        let fault = Manifest::parse(&glue, "recipe.toml").unwrap_err();
        assert!(fault.message.contains("permissions without `[pod]`") && fault.detail["line"] == 9, "{fault}");
    }

    #[test]
    fn a_path_stays_inside() {
        for bad in ["", "/x", "a//b", "../x", "a/../b", "a/./b", "a\\b", "a\0b", "a/"] {
            assert!(!is_inner_path(bad), "{bad:?}");
        }
        assert!(is_inner_path("pod/requirements.lock"));
    }

    #[test]
    fn a_manifest_with_the_longest_chain_of_schemas_is_read_from_any_thread() {
        let levels = limits::SCHEMA_CHAIN_MAX / 2 - 3;
        let level = |at: usize| format!("l{at} = {{ allOf = [{{ \"$ref\" = \"#/$defs/l{}\" }}] }}\n", at + 1);
        let defs: String = (0..levels).map(level).collect();
        let operations = GOOD.find("[operations").unwrap();
        let head = &GOOD[..operations];
        let text = format!(
            "{head}[operations.deep]\nsummary = \"s\"\noutput = {{}}\n[operations.deep.input]\n\"$ref\" = \"#/$defs/l0\"\n\
             [operations.deep.input.\"$defs\"]\n{defs}l{levels} = {{ type = \"string\" }}\n"
        );
        let read = move || Manifest::parse(&text, "recipe.toml").map(|manifest| manifest.operations.len());
        let read = std::thread::Builder::new().stack_size(256 << 10).spawn(read).unwrap().join().unwrap();
        assert_eq!(read.unwrap(), 1);
    }
}
