//! The tables `[pod]` and `[permissions]` of a `recipe.toml`: how a pod runs and what it may reach.

use std::collections::BTreeMap;

use toml::Spanned;

use crate::model::{
    fault::Fault,
    grant::{KINDS, Permissions, is_free_variable},
    limits,
    manifest::{
        reader::Table,
        spec::{PodSpec, PoolSpec, Recycle, Runtime},
    },
    status::{
        machine::{LeverSpec, ResidencySpec},
        session::{Mode, SessionSpec},
    },
};

/// Reads `[pod]`.
pub(in crate::model) fn pod(table: &mut Table) -> Result<PodSpec, Fault> {
    let kind = kind(table)?;
    let entry = table.string("entry")?;
    let runtime = match kind {
        Kind::Python => {
            if !is_entry(entry.get_ref()) {
                return Err(table.fault(
                    &entry,
                    "entry",
                    format!(
                        "`{:.100}` is not an entry: wanted `module:Class`, e.g. `main:Pod` for the class `Pod` in `pod/main.py`",
                        entry.get_ref()
                    ),
                ));
            }
            let python = table.version_req("python")?.into_inner();
            let lock = match table.optional_string("lock")? {
                Some(lock) => Some(table.path(&lock, "lock")?),
                None => None,
            };
            Runtime::Python { entry: entry.into_inner(), python, lock }
        }
        Kind::Executable => Runtime::Executable { entry: table.path(&entry, "entry")? },
    };
    let start_timeout_ms = table.milliseconds("start_timeout_ms", limits::POD_START_DEFAULT_MS, limits::POD_START_MAX_MS)?;
    let max = table.optional_integer("max", 1, limits::POOL_PODS_MAX)?.unwrap_or(1);
    let min = table.optional_integer("min", 0, max)?.unwrap_or(0);
    let idle_timeout_ms = table.milliseconds("idle_timeout_ms", limits::POD_IDLE_DEFAULT_MS, limits::DEADLINE_MAX_MS)?;
    let concurrency = table.optional_integer("concurrency", 1, limits::POD_CONCURRENCY_MAX)?.unwrap_or(1) as u32;
    let threads = table.optional_integer("threads", 1, limits::POD_THREADS_MAX)?.map(|threads| threads as u32);
    let warm_up = match table.optional_string("warm_up")? {
        Some(file) if matches!(runtime, Runtime::Python { .. }) => Some(table.path(&file, "warm_up")?),
        Some(file) => return Err(table.fault(&file, "warm_up", "only a pod with `runtime = \"python\"` has a warm-up file")),
        None => None,
    };
    let env = variables(table, &runtime)?;
    let memory_bytes = table.optional_integer("memory_bytes", limits::POD_MEMORY_BYTES_MIN, u64::MAX)?;
    let processes = table.optional_integer("processes", 1, limits::POD_PROCESSES_MAX)?;
    let nice = table.optional_integer("nice", 0, limits::POD_NICE_MAX)?.unwrap_or(0) as u8;
    let preload = preload(table, &runtime)?;
    let session = session(table, concurrency)?;
    let residency = residency(table)?;
    let lever = lever(table)?;
    let recycle = match table.optional_table("recycle")? {
        Some(mut table) => {
            let recycle = Recycle {
                calls: table.optional_integer("calls", 1, u64::MAX)?,
                age_ms: table.optional_integer("age_ms", 1, limits::DEADLINE_MAX_MS * 365)?,
                memory_bytes: table.optional_integer("memory_bytes", 1 << 20, u64::MAX)?,
            };
            table.finish()?;
            recycle
        }
        None => Recycle::default(),
    };
    table.finish()?;
    let pool = PoolSpec { min: min as usize, max: max as usize, idle_timeout_ms };
    Ok(PodSpec {
        runtime,
        start_timeout_ms,
        pool,
        concurrency,
        threads,
        env,
        warm_up,
        recycle,
        memory_bytes,
        processes,
        nice,
        preload,
        session,
        residency,
        lever,
    })
}

enum Kind {
    Python,
    Executable,
}

/// Reads `runtime`. An invalid value is noted, and the rest is read as the kind that it resembles.
fn kind(table: &mut Table) -> Result<Kind, Fault> {
    let word = match table.string("runtime") {
        Ok(word) if word.get_ref() == "python" => return Ok(Kind::Python),
        Ok(word) if word.get_ref() == "executable" => return Ok(Kind::Executable),
        word => word,
    };
    let none = |word: Spanned<String>| {
        table.fault(&word, "runtime", format!("unknown runtime `{:.100}`: wanted `python` or `executable`", word.get_ref()))
    };
    table.noted(word.and_then(|word| Err::<(), _>(none(word))))?;
    match ["python", "lock"].into_iter().any(|key| table.has(key)) {
        true => Ok(Kind::Python),
        false => Ok(Kind::Executable),
    }
}

/// `[pod.session]`.
fn session(table: &mut Table, concurrency: u32) -> Result<Option<SessionSpec>, Fault> {
    let Some(mut table) = table.optional_table("session")? else { return Ok(None) };
    if concurrency > 1 {
        table.note_here("`[pod.session]` with `concurrency` above 1: a session's state is kept between two calls of it");
    }
    let word = match table.optional_string("mode")? {
        Some(word) => word,
        None => return Err(table.missing("mode", "`exclusive` or `shared`")),
    };
    let mode = match word.get_ref().as_str() {
        "exclusive" => Mode::Exclusive,
        "shared" => Mode::Shared,
        other => return Err(table.fault(&word, "mode", format!("`{other}` is no mode: wanted `exclusive` or `shared`"))),
    };
    let idle_timeout_ms = table.milliseconds("idle_timeout_ms", limits::SESSION_IDLE_DEFAULT_MS, limits::SESSION_TTL_MAX_MS)?;
    let ttl_ms = table.milliseconds("ttl_ms", limits::SESSION_TTL_DEFAULT_MS, limits::SESSION_TTL_MAX_MS)?;
    let interval = table.optional_integer("checkpoint_interval_ms", 0, limits::SESSION_TTL_MAX_MS)?;
    let checkpoint_interval_ms = interval.unwrap_or(limits::CHECKPOINT_INTERVAL_DEFAULT_MS);
    let least = limits::CHECKPOINT_INTERVAL_MIN_MS;
    if (1..least).contains(&checkpoint_interval_ms) {
        let why =
            format!("`checkpoint_interval_ms` of {checkpoint_interval_ms} is too often: wanted 0 (only when asked) or at least {least}");
        table.note_here(why);
    }
    let max = table.optional_integer("max", 1, limits::SESSIONS_MAX as u64)?.unwrap_or(limits::SESSION_COUNT_DEFAULT) as usize;
    table.finish()?;
    Ok(Some(SessionSpec { mode, idle_timeout_ms, ttl_ms, checkpoint_interval_ms, max }))
}

/// `[pod.residency]`.
fn residency(table: &mut Table) -> Result<ResidencySpec, Fault> {
    let Some(mut table) = table.optional_table("residency")? else { return Ok(ResidencySpec::default()) };
    let memory_bytes = table.optional_integer("memory_bytes", 1 << 20, u64::MAX >> 1)?;
    let gpu_bytes = table.optional_integer("gpu_bytes", 1 << 20, u64::MAX >> 1)?;
    let exclusive = table.boolean("exclusive", false)?;
    let keep_alive_ms = table.optional_integer("keep_alive_ms", 0, limits::DEADLINE_MAX_MS)?;
    if exclusive && gpu_bytes.is_none() {
        table.note_here("`exclusive` without `gpu_bytes`: it is a GPU that one has for oneself");
    }
    table.finish()?;
    Ok(ResidencySpec { memory_bytes, gpu_bytes, exclusive, keep_alive_ms })
}

/// `[pod.lever]`.
fn lever(table: &mut Table) -> Result<Option<LeverSpec>, Fault> {
    let Some(mut table) = table.optional_table("lever")? else { return Ok(None) };
    let name = table.string("name")?;
    if !is_identifier(name.get_ref()) {
        return Err(table.fault(&name, "name", format!("`{}` is not a lever's name: wanted e.g. `batch_size`", name.get_ref())));
    }
    let values = table.levers("values")?;
    if !(2..=limits::LEVER_VALUES_MAX).contains(&values.len()) {
        let why = format!("{} `values`: wanted 2 to {}, from what is wanted to what is bearable", values.len(), limits::LEVER_VALUES_MAX);
        table.note_here(why);
    }
    if let Some((at, _)) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value)) {
        table.note_here(format!("value {} of `values` is there twice", at + 1));
    }
    let at_load = match table.optional_string("at")? {
        None => false,
        Some(word) if word.get_ref() == "ask" => false,
        Some(word) if word.get_ref() == "load" => true,
        Some(word) => return Err(table.fault(&word, "at", format!("`{}`: wanted `ask` or `load`", word.get_ref()))),
    };
    table.finish()?;
    Ok(Some(LeverSpec { name: name.into_inner(), values, at_load }))
}

/// `[pod.env]`: plain text for variables that the recipe may choose.
fn variables(table: &mut Table, runtime: &Runtime) -> Result<BTreeMap<String, String>, Fault> {
    let Some(table) = table.optional_table("env")? else { return Ok(BTreeMap::new()) };
    let mut env = BTreeMap::new();
    for (name, value) in table.strings()? {
        if let Err(why) = is_free_variable(&name).map_err(str::to_owned).and_then(|()| heeded(&name, runtime)) {
            table.source.notes.add(table.fault(&value, &name, why));
        } else if value.get_ref().contains('\0') {
            // The kernel accepts no NUL: every start of a pod would fail.
            let why = "found a NUL in the text of a variable, which no process can be given";
            table.source.notes.add(table.fault(&value, &name, why));
        }
        if env.len() == limits::POD_VARIABLES_MAX {
            return Err(table.fault_here(format!("more than {} variables", limits::POD_VARIABLES_MAX)));
        }
        env.insert(name, value.into_inner());
    }
    Ok(env)
}

/// Checks whether a variable of that name takes effect in a pod: a Python pod gets its variables after its
/// interpreter has started, within the sandbox.
///
/// Errors: the reason, and what to use instead, for people.
fn heeded(name: &str, runtime: &Runtime) -> Result<(), String> {
    let instead = match name {
        _ if matches!(runtime, Runtime::Executable { .. }) => return Ok(()),
        "LANG" => "`locale.setlocale` in the pod (it starts with C.UTF-8)",
        _ if name.starts_with("LC_") => "`locale.setlocale` in the pod (it starts with C.UTF-8)",
        _ if name.starts_with("MALLOC_") => "`mallopt` of the C library by `ctypes` in the pod, as its first line",
        _ => return Ok(()),
    };
    Err(format!("`{name}` is read when a process starts, and a Python pod is given its variables after that: use {instead}"))
}

/// `preload`: modules of the environment, so only a pod with an environment may name some.
fn preload(table: &mut Table, runtime: &Runtime) -> Result<Vec<String>, Fault> {
    let mut modules: Vec<String> = Vec::new();
    for module in table.list("preload")? {
        if !matches!(runtime, Runtime::Python { lock: Some(_), .. }) {
            let why = "only a pod with `runtime = \"python\"` and `lock` has an environment to take modules from";
            table.source.notes.add_of("pod", table.fault(&module, "preload", why));
            break;
        }
        if !is_module(module.get_ref()) {
            let why = format!("`{}` is not a module's name: wanted e.g. `numpy` or `scipy.sparse`", module.get_ref());
            return Err(table.fault(&module, "preload", why));
        }
        if modules.contains(module.get_ref()) {
            return Err(table.fault(&module, "preload", format!("`{}` twice", module.get_ref())));
        }
        if modules.len() == limits::PRELOAD_MAX {
            return Err(table.fault(&module, "preload", format!("more than {} modules", limits::PRELOAD_MAX)));
        }
        modules.push(module.into_inner());
    }
    Ok(modules)
}

/// Reads `[permissions]`: what the pods of `pod` ask for.
pub(in crate::model) fn permissions(table: &mut Table, pod: Option<&PodSpec>) -> Result<Permissions, Fault> {
    let mut asked = Permissions::default();
    for kind in KINDS {
        // Reading one more than allowed reports the excess once.
        for value in table.list(kind)?.into_iter().take(limits::PERMISSIONS_MAX + 1) {
            let name = value.get_ref();
            let before = asked.clone();
            let added = asked.add(kind, name).map_err(|fault| fault.message).and_then(|()| match pod.filter(|_| kind == "env") {
                // A permission may be stated only once: two that mean the same are a slip that hides the
                // intention.
                _ if asked == before => Err(format!("`{name}` twice")),
                // One of the two would silently win.
                Some(pod) if pod.env.contains_key(name) => Err(format!("`{name}` is set by `[pod.env]` already")),
                Some(pod) => heeded(name, &pod.runtime),
                None => Ok(()),
            });
            if let Err(why) = added {
                table.source.notes.add(table.fault(&value, kind, why));
            }
        }
    }
    table.finish()?;
    Ok(asked)
}

fn is_entry(text: &str) -> bool {
    text.split_once(':').is_some_and(|(module, class)| is_module(module) && is_identifier(class))
}

fn is_module(text: &str) -> bool {
    text.split('.').all(is_identifier)
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c == '_' || c.is_alphanumeric())
}
