//! The keys of `recipe.toml`: their meaning, and the values that each accepts.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use semver::{Version, VersionReq};
use toml::{Spanned, de::DeTable};

use crate::model::{
    fault::{Code, Fault},
    grant::Permissions,
    id::RecipeName,
    limits,
    manifest::{
        Manifest,
        blobs::blobs,
        operation::{Batch, BatchCost, Operation},
        operation_name,
        pod::{permissions, pod},
        reader::{Source, Table, check},
        reading::Reading,
        spec::{GlueSpec, ModelSpec},
    },
    model_name::ModelNames,
    path_pattern::PathPattern,
    toml_file::{
        TomlFile,
        findings::{self, Needed},
        line_of,
    },
};

impl Manifest {
    pub(super) fn read(text: &str, reading: Reading) -> Result<Manifest, Fault> {
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
            let file = TomlFile { text, what, code: Code::InvalidManifest };
            Manifest::of(table, &Source { file, reading, extent, notes, schema_bytes: Cell::default() })
        })
    }

    /// Reads the whole file as a table.
    ///
    /// Errors: a mistake that prevents reading the rest; others are noted.
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
}

pub fn is_capability(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, major)| {
        crate::model::id::is_name(name) && !major.is_empty() && major.len() < 6 && major.bytes().all(|byte| byte.is_ascii_digit())
    })
}

pub fn files(root: &mut Table, hob: &VersionReq) -> Result<Vec<PathPattern>, Fault> {
    // An older Hob refuses the key, whatever its value is.
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

pub fn newer(key: &str, hob: &VersionReq) -> String {
    format!("Hob {WIDER_SINCE} is the first that knows `{key}`, and `hob = \"{hob}\"` names an older one: wanted e.g. `>=0.1.1, <0.2`")
}

/// The first Hob that takes `files`, and the places and paths that they may name.
pub const WIDER_SINCE: Version = Version::new(0, 1, 1);

/// Whether a version range excludes every Hob before [`WIDER_SINCE`].
pub fn names_wider(hob: &VersionReq) -> bool {
    !hob.matches(&Version::new(0, 1, 0))
}

pub fn glue(table: &mut Table) -> Result<GlueSpec, Fault> {
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

pub fn models(root: &mut Table) -> Result<Vec<ModelSpec>, Fault> {
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
        // Some programs print the digest in upper case; the signed form is lower case.
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

pub fn operations(source: &Source, root: &mut Table, hob: &VersionReq, sessions: bool) -> Result<BTreeMap<String, Arc<Operation>>, Fault> {
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

pub fn batch(table: &mut Table) -> Result<Option<Batch>, Fault> {
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

/// Mandatory keys, with valid values.
pub const NEEDED: &[Needed] = &[
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
