//! What a pod is to be: all that is needed to start one, and the paths that follow from it.

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
    /// The interpreter that runs, of the keeper too: a real one of the machine's, in a folder to which no
    /// recipe and no wheel writes.
    pub base: PathBuf,
    /// The one that the pod takes itself for, and with which it starts its children: the environment's, whose
    /// folder holds what its wheels put there. The same as `base` without an environment.
    pub python: PathBuf,
    /// Where the environment's packages lie; none for a pod without requirements.
    pub site_packages: Option<PathBuf>,
}

/// Something that must not go away while the pod lives, e.g. a lock on its environment.
pub type Keeps = Box<dyn std::fmt::Debug + Send + Sync>;

/// What is done with the folder in which a pod's libraries keep what they made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cache {
    /// Nothing.
    Unused,
    /// It begins with a copy of this folder.
    From(PathBuf),
    /// It is empty, and the pod says when that changes: [`Watcher::caches`](super::Watcher::caches).
    Told,
    /// It is empty, and the pod gives what is in it when it is asked.
    Given,
}

/// All that a pod needs to be started.
#[derive(Debug)]
pub struct Spec {
    pub recipe: Arc<Verified>,
    pub program: Program,
    /// The unpacked `keeper.py`.
    pub keeper: PathBuf,
    /// Who lends it files.
    pub clerk: Clerk,
    /// What its streams' callers have not taken, of all pods of this host.
    pub spools: Arc<Spools>,
    /// A folder of the pod's own; made at start, removed at the end.
    pub scratch: PathBuf,
    /// Where the dossier of its crash goes.
    pub dossiers: PathBuf,
    /// Who hears what it prints.
    pub printed: Printed,
    /// Layers of the sandbox to take for unavailable; nothing is let go of by that unless `grants` says so.
    pub without: Arc<[String]>,
    /// Names this pod among all pods ever.
    pub incarnation: String,
    /// What it may do beyond reading its own files.
    pub grants: Arc<Grants>,
    /// The session that it belongs to.
    pub session: Option<crate::pod::spec::Session>,
    /// What its libraries begin with, and what becomes of what they keep.
    pub cache: Cache,
    /// Its claim to memory for its models.
    pub claim: Option<crate::pod::residency::Claim>,
    /// Dropped when no process of the pod is left.
    pub keeps: Vec<Keeps>,
}

/// The session that a pod belongs to.
#[derive(Debug)]
pub struct Session {
    pub name: String,
    /// What it begins with.
    pub restore: Option<Restore>,
    pub keep: Box<dyn Keep>,
    /// Nothing was kept of it yet, and its state is wanted as soon as there may be one: after the first ask.
    pub keeps_first: bool,
}

/// A checkpoint to begin with.
#[derive(Debug)]
pub struct Restore {
    pub number: u64,
    pub bytes: u64,
    pub json: bool,
    /// Read by the pod, which sees no folder of the host's: lent by the clerk.
    pub file: OwnedFd,
}

/// Where the state of a session's pod goes.
pub trait Keep: Debug + Send + Sync {
    /// Takes a piece of a checkpoint; with the last, gives the checkpoint's number once it is kept for good.
    fn piece(&self, bytes: Bytes, last: bool, json: bool) -> BoxFuture<'static, Result<Option<u64>, Fault>>;
    /// The pod has no state to give, or could not give it.
    fn none(&self, why: Option<Fault>);
    /// The pod's `close` is over.
    fn closed(&self);
}

/// Where the record of the pod with this scratch folder lies.
pub fn path_of(scratch: &Path) -> PathBuf {
    scratch.with_extension("pod")
}

/// The name of a pod's control group, or how those of one host begin: an incarnation is its host's folder,
/// `-`, and a number.
pub fn group_of(incarnation: &str) -> String {
    format!("hob-{incarnation}")
}
