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
    /// Units of work (asks, or batches) that one pod runs at a time: above 1, plain methods run in threads
    /// and `async` ones as tasks.
    pub concurrency: u32,
    /// Threads that numeric libraries may use in each pod (OMP, OpenBLAS, MKL, torch); none: this machine's
    /// cores shared by the pool.
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

/// `[[model]]`: a large file, named by digest; in a recipe folder it lies at `models/<name>`, unless `from`
/// says where it is fetched.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Its path in the folder that pods find the models in ([`ModelNames`](crate::model::ModelNames) says
    /// what that may be).
    pub name: String,
    pub sha256: Digest,
    pub bytes: u64,
    /// `None`: it is published beside the bundle.
    pub from: Option<ModelSource>,
}
