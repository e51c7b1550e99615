//! Describes a pod: all that is needed to start one, and the paths that follow from it.

use crate::{
    model::{Fault, Grants, Verified},
    pod::{pool::BoxFuture, record::printed::Printed, sandbox::clerk::Clerk, stream::spill::Spools},
};
use bytes::Bytes;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// What runs the pod.
#[derive(Debug, Clone)]
pub struct Program {
    /// The interpreter that runs, also for the keeper: a real one of the machine, in a folder to which no
    /// recipe and no wheel writes.
    pub base: PathBuf,
    /// The interpreter that the pod believes to run, and with which it starts its children: that of the
    /// environment, in whose folder its wheels put their files. Without an environment, the same as `base`.
    pub python: PathBuf,
    /// The folder of the environment's packages; `None` for a pod without requirements.
    pub site_packages: Option<PathBuf>,
}

/// Something that must not go away while the pod lives, e.g. a lock on its environment.
pub type Keeps = Box<dyn std::fmt::Debug + Send + Sync>;

/// The use of the folder in which a pod's libraries keep files for later pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cache {
    /// The pod does not use it.
    Unused,
    /// The folder begins with a copy of this folder.
    From(PathBuf),
    /// The folder begins empty, and the pod reports when that changes:
    /// [`Watcher::caches`](super::Watcher::caches).
    Told,
    /// The folder begins empty, and the pod gives its files when it is asked.
    Given,
}

/// All that a pod needs to be started.
#[derive(Debug)]
pub struct Spec {
    pub recipe: Arc<Verified>,
    pub program: Program,
    /// The unpacked `keeper.py`.
    pub keeper: PathBuf,
    /// Lends files to the pod.
    pub clerk: Clerk,
    /// The chunks that callers of streams have not taken yet, of all pods of this host.
    pub spools: Arc<Spools>,
    /// A folder of the pod's own; made at start, removed at the end.
    pub scratch: PathBuf,
    /// The folder for the dossier if the pod crashes.
    pub dossiers: PathBuf,
    /// Receives what the pod prints.
    pub printed: Printed,
    /// Layers of the sandbox to treat as unavailable; the pod starts without them only if `grants` allow it.
    pub without: Arc<[String]>,
    /// The pod's name, unique among all pods ever.
    pub incarnation: String,
    /// What the pod may do beyond reading its own files.
    pub grants: Arc<Grants>,
    /// The session that the pod belongs to.
    pub session: Option<crate::pod::spec::Session>,
    /// What the libraries' cache begins with, and what becomes of its files.
    pub cache: Cache,
    /// The pod's claim to memory for its models.
    pub claim: Option<crate::pod::residency::Claim>,
    /// Dropped when no process of the pod is left.
    pub keeps: Vec<Keeps>,
}

/// The session that a pod belongs to.
#[derive(Debug)]
pub struct Session {
    pub name: String,
    /// The checkpoint to begin with.
    pub restore: Option<Restore>,
    pub keep: Box<dyn Keep>,
    /// True while nothing was kept of the session: then the host wants its state as soon as there may be one,
    /// after the first ask.
    pub keeps_first: bool,
}

/// A checkpoint to begin with.
#[derive(Debug)]
pub struct Restore {
    pub number: u64,
    pub bytes: u64,
    pub json: bool,
    /// The file that the pod reads. The clerk lends it, because the pod sees no folder of the host.
    pub file: OwnedFd,
}

/// Receives the state of a session's pod.
pub trait Keep: Debug + Send + Sync {
    /// Takes a piece of a checkpoint. After the last piece, returns the checkpoint's number once it is kept
    /// for good.
    fn piece(&self, bytes: Bytes, last: bool, json: bool) -> BoxFuture<'static, Result<Option<u64>, Fault>>;
    /// The pod has no state to give, or could not give it.
    fn none(&self, why: Option<Fault>);
    /// The pod's `close` is over.
    fn closed(&self);
}

/// The path of the record of the pod with this scratch folder.
pub fn path_of(scratch: &Path) -> PathBuf {
    scratch.with_extension("pod")
}

/// The name of a pod's control group. For one host's folder and `-`, the prefix of the names of all its
/// groups: an incarnation is its host's folder, `-`, and a number.
pub fn group_of(incarnation: &str) -> String {
    format!("hob-{incarnation}")
}
