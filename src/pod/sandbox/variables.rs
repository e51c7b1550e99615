//! The environment variables that every pod has, each with its reason. A recipe's own and granted ones come
//! on top.
//!
//! A started pod and the zygote of forked pods must have the same variables: what a wheel reads at import
//! decides how it behaves in the pod.

use crate::pod::sandbox::paths;
use std::path::Path;

use crate::{
    model::manifest::spec::{PodSpec, Runtime},
    pod::{
        process::leftovers,
        spec::{Program, Spec},
    },
};

/// All variables of a process that is not confined (a keeper, the supervisor and the init of a family, the
/// doctor), but for marks that say whose it is. Variables decide which code a process loads as it starts, so
/// that nothing of a recipe's or of a grant's is among them.
pub(in crate::pod) const OUTSIDE: [(&str, &str); 2] = [("PATH", SYSTEM_PATH), ("LANG", "C.UTF-8")];

const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The same in every pod and every zygote.
const FIXED: [(&str, &str); 6] = [
    ("LANG", "C.UTF-8"),
    // Whom programs greet; `/etc/passwd` of the pod's root has the same name.
    ("USER", "pod"),
    ("LOGNAME", "pod"),
    // A recipe's folder and environment are checked file by file and must stay as they are.
    ("PYTHONDONTWRITEBYTECODE", "1"),
    // Each of these would start a thread as it is imported, and what has a thread cannot be forked:
    // onnxruntime to report to somebody whom no pod reaches, the jemalloc in pyarrow to give memory back in
    // the background (without it, it does so as memory is freed).
    ("ORT_DISABLE_TELEMETRY", "1"),
    ("JE_ARROW_MALLOC_CONF", "background_thread:false"),
];

/// Each names the scratch folder: what programs make of their own lies there, whatever they call it.
const PLACES: [&str; 4] = ["HOME", "TMPDIR", "XDG_RUNTIME_DIR", "HF_HOME"];

/// Where below it libraries keep what they made for their next start (`cache.py` has the same name), also
/// those that do not heed the first of these.
const CACHES: [(&str, &str); 3] =
    [("XDG_CACHE_HOME", ".cache"), ("TRITON_CACHE_DIR", ".cache/triton"), ("TORCHINDUCTOR_CACHE_DIR", ".cache/torchinductor")];

/// Numbers of threads of numeric libraries, each of which reads its own as it is loaded.
const THREADS: [&str; 4] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"];

/// What a program finds about its interpreter, its folders and its share of the machine. `scratch`: its
/// folder as it sees it. `python`: whether it is one in Python. `has_root`: whether it is in a root of its
/// own.
fn common(program: &Program, python: bool, has_root: bool, scratch: &Path, threads: u32) -> Vec<(&'static str, String)> {
    let mut variables: Vec<_> = FIXED.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    variables.extend(PLACES.iter().map(|name| (*name, scratch.display().to_string())));
    variables.extend(CACHES.iter().map(|(name, below)| (*name, scratch.join(below).display().to_string())));
    variables.extend(THREADS.iter().map(|name| (*name, threads.to_string())));
    // As a shell in which somebody said `activate`: `python3` is the pod's own, and what its packages
    // installed to be run is found.
    let bin = program.python.parent();
    let own = match &program.site_packages {
        _ if !python => None,
        Some(_) => bin.map(Path::to_owned),
        // The folder of a machine's interpreter may have another one under the name `python3`.
        None if has_root => Some(paths::PYTHON_LINKS.into()),
        None => bin.map(Path::to_owned),
    };
    variables.push(("PATH", own.map_or_else(|| SYSTEM_PATH.to_owned(), |own| format!("{}:{SYSTEM_PATH}", own.display()))));
    if python && program.site_packages.is_some() {
        variables.extend(bin.and_then(Path::parent).map(|folder| ("VIRTUAL_ENV", folder.display().to_string())));
    }
    variables
}

/// Environment variables of a pod, which is told them when it is confined: from scratch; of the host's only
/// those that it was granted. `scratch`: its folder as it sees it. `has_root`: whether it is in a root of its
/// own.
pub(in crate::pod) fn of_pod<'a>(spec: &'a Spec, scratch: &Path, has_root: bool) -> Vec<(&'a str, String)> {
    let pod = spec.recipe.manifest().pod.as_ref();
    let python = pod.is_none_or(|pod| matches!(pod.runtime, Runtime::Python { .. }));
    // Capped, and before any of these libraries is imported: two torch threads on two busy cores halve each
    // other.
    let mut variables: Vec<(&str, String)> = common(&spec.program, python, has_root, scratch, pod.map_or(1, threads));
    variables.push((leftovers::VARIABLE, spec.incarnation.clone()));
    variables.extend(pod.into_iter().flat_map(|pod| &pod.env).map(|(name, value)| (name.as_str(), value.clone())));
    // One that the host does not have, or that is not text, the pod does not have either.
    let granted = spec.grants.permissions.env.iter().map(|name| name.as_str());
    variables.extend(granted.filter_map(|name| Some((name, std::env::var(name).ok()?))));
    variables
}

/// Those of a zygote, which are what wheels read as they are imported. `own`: those that its recipe sets.
pub(in crate::pod) fn of_zygote<'a>(program: &Program, own: &'a [(String, String)]) -> Vec<(&'a str, String)> {
    // One thread each: numeric libraries that start more at their import could not be forked. Pods set their
    // own number.
    let mut variables: Vec<(&str, String)> = common(program, true, true, Path::new(paths::SCRATCH), 1);
    variables.extend(own.iter().map(|(name, value)| (name.as_str(), value.clone())));
    variables
}

/// Threads for the numeric libraries of one pod: the recipe's word, else the cores shared by all pods that
/// there may be.
pub(in crate::pod) fn threads(pod: &PodSpec) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    pod.threads.unwrap_or_else(|| (cores / pod.pool.max).max(1) as u32)
}
