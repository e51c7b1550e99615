//! Chooses the cache of library files with which a pod begins, and the key under which it is kept.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use serde_json::json;

use super::{HostState, parts::Parts};
use crate::{
    disk::open,
    model::{Digest, Fault, limits::CPUINFO_BYTES_MAX, manifest::spec::Runtime},
    pod::{Cache, Program},
    shelf::{
        blocking,
        environment::Environment,
        pod_caches::{self, Found},
    },
};

/// The cache with which a pod begins, and the key to fill it under; no key if nothing is to be filled.
///
/// Errors: `io`.
pub async fn of_pod(
    host: &Arc<HostState>,
    parts: &Parts,
    program: &Program,
    environment: Option<&Environment>,
) -> Result<(Cache, Option<Digest>), Fault> {
    let manifest = parts.recipe.manifest();
    if !matches!(manifest.pod.as_ref().map(|pod| &pod.runtime), Some(Runtime::Python { .. })) {
        return Ok((Cache::Unused, None));
    }
    let (home, name) = (host.home.clone(), manifest.name.clone());
    let recipe = match parts.recipe.is_unsigned() {
        // Libraries notice by themselves which of their files an edit has made stale.
        true => parts.recipe.folder().display().to_string(),
        false => parts.recipe.digest().hex(),
    };
    let environment = environment.map(|environment| environment.digest.hex());
    let (base, grants) = (program.base.clone(), json!(parts.grants.permissions));
    let (key, found) = blocking(move || {
        let key = Digest::of(json!(["pod cache 1", recipe, environment, base, grants, processor().hex()]).to_string().as_bytes());
        let found = pod_caches::find(&home, &name, key);
        Ok((key, found))
    })
    .await?;
    Ok(match found {
        Found::Files(folder) => (Cache::From(folder), None),
        Found::Empty => (Cache::Unused, None),
        Found::Nothing if parts.recipe.is_unsigned() && !host.forks => (Cache::Given, Some(key)),
        Found::Nothing => (Cache::Told, Some(key)),
    })
}

/// A digest of this machine's processor: compiled code may not run on another.
fn processor() -> Digest {
    static PROCESSOR: OnceLock<Digest> = OnceLock::new();
    *PROCESSOR.get_or_init(|| {
        let text = open::read_of_kernel(Path::new("/proc/cpuinfo"), CPUINFO_BYTES_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let says =
            |line: &&str| ["model name", "flags", "Features", "CPU implementer", "CPU part"].iter().any(|word| line.starts_with(word));
        // Only the first processor's lines: the others are the same but for their clock.
        let lines: Vec<&str> = text.split("\n\n").next().unwrap_or_default().lines().filter(says).collect();
        Digest::of([std::env::consts::ARCH, &lines.join("\n")].join("\n").as_bytes())
    })
}
