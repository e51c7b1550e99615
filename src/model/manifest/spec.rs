//! The declarations of a manifest about its glue, its pods and its models, as plain data.

use crate::model::{
    id::Digest,
    manifest::source::ModelSource,
    status::{
        machine::{LeverSpec, ResidencySpec},
        session::SessionSpec,
    },
};
use semver::VersionReq;
use std::collections::BTreeMap;

/// `[glue]`: the component `glue.wasm`.
#[derive(Debug)]
pub struct GlueSpec {
    /// Version of the world `hob:glue` for which it was built, e.g. `0.1`.
    pub world: String,
    /// Folder of its source, for `hob build`; not part of the bundle.
    pub source: String,
}

/// `[pod]`: the process that does the heavy work.
#[derive(Debug)]
pub struct PodSpec {
    pub runtime: Runtime,
    /// Time from spawn to `ready`, in milliseconds.
    pub start_timeout_ms: u64,
    pub pool: PoolSpec,
    /// Units of work (asks, or batches) that one pod runs at a time. Above 1, plain methods run in threads
    /// and `async` methods run as tasks.
    pub concurrency: u32,
    /// Threads that numeric libraries may use in each pod (OMP, OpenBLAS, MKL, torch). `None`: the pool
    /// shares this machine's cores.
    pub threads: Option<u32>,
    /// Additional environment variables of its pods.
    pub env: BTreeMap<String, String>,
    /// A Python file of the recipe that runs after `load` and before the first ask.
    pub warm_up: Option<String>,
    pub recycle: Recycle,
    /// Most memory of a pod with its children, in bytes; `None`: what the machine has.
    pub memory_bytes: Option<u64>,
    /// Most processes and threads of a pod.
    pub processes: Option<u64>,
    /// How much its processes yield to others, as a `nice` value: 0 (not at all) to 19.
    pub nice: u8,
    /// Modules of the environment that are imported once and shared by all pods.
    pub preload: Vec<String>,
    /// How its pods may be kept by name, if at all.
    pub session: Option<SessionSpec>,
    /// What its models need while they are loaded.
    pub residency: ResidencySpec,
    /// The setting that is lowered after memory ran out.
    pub lever: Option<LeverSpec>,
}

/// How many pods a recipe has.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSpec {
    /// Pods that are kept running once the recipe is in use.
    pub min: usize,
    /// Most pods; another one is started only while asks wait and no pod is free.
    pub max: usize,
    /// How long a pod beyond `min` is kept without work, in milliseconds.
    pub idle_timeout_ms: u64,
}

/// `[pod.recycle]`: when a pod is replaced although it works correctly. Checked between asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recycle {
    pub calls: Option<u64>,
    pub age_ms: Option<u64>,
    /// Memory that only the pod and its child processes hold, not files, in bytes.
    pub memory_bytes: Option<u64>,
}

/// How a pod is started.
#[derive(Debug)]
pub enum Runtime {
    /// `entry` is `module:Class` in the folder `pod/`; `lock` the hash-locked requirements.
    Python { entry: String, python: VersionReq, lock: Option<String> },
    /// `entry` is an executable file of the bundle that speaks the pod protocol.
    Executable { entry: String },
}

/// `[[model]]`: a large file, named by digest. In a recipe folder it is at `models/<name>`, unless `from`
/// says where to fetch it.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Its path in the folder in which pods find the models; [`ModelNames`](crate::model::ModelNames) says
    /// which paths are allowed.
    pub name: String,
    pub sha256: Digest,
    pub bytes: u64,
    /// `None`: the model is published beside the bundle.
    pub from: Option<ModelSource>,
}
