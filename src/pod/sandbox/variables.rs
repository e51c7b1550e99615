//! The environment variables that every pod has, each with its reason. The recipe's own variables and the
//! granted ones are added to them.
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
/// doctor), apart from marks of ownership. Variables decide which code a process loads at its start, so none
/// of these comes from a recipe or a grant.
pub(in crate::pod) const OUTSIDE: [(&str, &str); 2] = [("PATH", SYSTEM_PATH), ("LANG", "C.UTF-8")];

const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The same in every pod and every zygote.
const FIXED: [(&str, &str); 6] = [
    ("LANG", "C.UTF-8"),
    // The name that programs show; `/etc/passwd` of the pod's root has the same name.
    ("USER", "pod"),
    ("LOGNAME", "pod"),
    // A recipe's folder and environment are checked file by file and must stay as they are.
    ("PYTHONDONTWRITEBYTECODE", "1"),
    // Each of these would start a thread on import, and a process with threads cannot be forked: onnxruntime
    // starts one to send reports, which no pod can; the jemalloc in pyarrow starts one to give memory back in
    // the background (without the thread it does so as memory is freed).
    ("ORT_DISABLE_TELEMETRY", "1"),
    ("JE_ARROW_MALLOC_CONF", "background_thread:false"),
];

/// Each names the scratch folder, where programs put files of their own.
const PLACES: [&str; 4] = ["HOME", "TMPDIR", "XDG_RUNTIME_DIR", "HF_HOME"];

/// Folders below it in which libraries keep what they made for their next start, including libraries that
/// ignore `XDG_CACHE_HOME`. `cache.py` has the same name.
const CACHES: [(&str, &str); 3] =
    [("XDG_CACHE_HOME", ".cache"), ("TRITON_CACHE_DIR", ".cache/triton"), ("TORCHINDUCTOR_CACHE_DIR", ".cache/torchinductor")];

/// Thread counts of numeric libraries; each library reads its own variable when it is loaded.
const THREADS: [&str; 4] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"];

/// Variables that tell a program its interpreter, its folders and its share of the machine. `scratch`: the
/// scratch folder as the program sees it. `python`: whether the program is in Python. `has_root`: whether it
/// has a root of its own.
fn common(program: &Program, python: bool, has_root: bool, scratch: &Path, threads: u32) -> Vec<(&'static str, String)> {
    let mut variables: Vec<_> = FIXED.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    variables.extend(PLACES.iter().map(|name| (*name, scratch.display().to_string())));
    variables.extend(CACHES.iter().map(|(name, below)| (*name, scratch.join(below).display().to_string())));
    variables.extend(THREADS.iter().map(|name| (*name, threads.to_string())));
    // As in a shell after `activate`: `python3` is the pod's own, and programs that its packages installed
    // are found.
    let bin = program.python.parent();
    let own = match &program.site_packages {
        _ if !python => None,
        Some(_) => bin.map(Path::to_owned),
        // The folder of a machine's interpreter may have a different one under the name `python3`.
        None if has_root => Some(paths::PYTHON_LINKS.into()),
        None => bin.map(Path::to_owned),
    };
    variables.push(("PATH", own.map_or_else(|| SYSTEM_PATH.to_owned(), |own| format!("{}:{SYSTEM_PATH}", own.display()))));
    if python && program.site_packages.is_some() {
        variables.extend(bin.and_then(Path::parent).map(|folder| ("VIRTUAL_ENV", folder.display().to_string())));
    }
    variables
}

/// Environment variables of a pod, which the pod gets once it is confined. The list starts empty; of the
/// host's variables it has only granted ones. `scratch`: the scratch folder as the pod sees it. `has_root`:
/// whether the pod has a root of its own.
pub(in crate::pod) fn of_pod<'a>(spec: &'a Spec, scratch: &Path, has_root: bool) -> Vec<(&'a str, String)> {
    let pod = spec.recipe.manifest().pod.as_ref();
    let python = pod.is_none_or(|pod| matches!(pod.runtime, Runtime::Python { .. }));
    // Capped before any of these libraries is imported: two torch threads on two busy cores halve each
    // other's speed.
    let mut variables: Vec<(&str, String)> = common(&spec.program, python, has_root, scratch, pod.map_or(1, threads));
    variables.push((leftovers::VARIABLE, spec.incarnation.clone()));
    variables.extend(pod.into_iter().flat_map(|pod| &pod.env).map(|(name, value)| (name.as_str(), value.clone())));
    // A variable that the host lacks, or that is not text, is left out.
    let granted = spec.grants.permissions.env.iter().map(|name| name.as_str());
    variables.extend(granted.filter_map(|name| Some((name, std::env::var(name).ok()?))));
    variables
}

/// Environment variables of a zygote, which wheels read on import. `own`: variables that its recipe sets.
pub(in crate::pod) fn of_zygote<'a>(program: &Program, own: &'a [(String, String)]) -> Vec<(&'a str, String)> {
    // One thread each: a numeric library that starts more on import could not be forked. Pods set their own
    // number.
    let mut variables: Vec<(&str, String)> = common(program, true, true, Path::new(paths::SCRATCH), 1);
    variables.extend(own.iter().map(|(name, value)| (name.as_str(), value.clone())));
    variables
}

/// Threads for the numeric libraries of one pod: the recipe's number, or the cores divided by the largest
/// number of pods.
pub(in crate::pod) fn threads(pod: &PodSpec) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    pod.threads.unwrap_or_else(|| (cores / pod.pool.max).max(1) as u32)
}
