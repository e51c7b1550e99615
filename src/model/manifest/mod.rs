//! `recipe.toml`: everything that can be known about a recipe without running it.
//!
//! - `reader.rs` reads tables key by key; `toml_file` reports every error at once.
//! - `keys.rs` defines each key; `pod.rs`, `blobs.rs`, `operation_name.rs`, `schema_key.rs` and `source.rs`
//!   define some of them.
//! - `spec.rs` and `operation.rs` hold the result.
//!
//! A key that this host does not know *or cannot enforce* is refused: no key may parse and do nothing.

pub mod blobs;
mod keys;
pub mod operation;
pub mod operation_name;
mod pod;
mod reader;
pub mod reading;
pub mod schema_key;
pub mod source;
pub mod spec;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use semver::{Version, VersionReq};

use crate::model::{
    edition::Edition,
    fault::{Code, Fault},
    grant::Permissions,
    hint::{act, hint},
    id::RecipeName,
    limits,
    path_pattern::PathPattern,
    schema::Schema,
};
use operation::{Operation, Part};
use reading::Reading;
use spec::{GlueSpec, ModelSpec, PodSpec};

pub use keys::{WIDER_SINCE, names_wider};
/// The next step of most manifest faults.
pub use reader::check as correct_the_manifest;

/// A recipe's declaration, checked.
#[derive(Debug)]
pub struct Manifest {
    pub name: RecipeName,
    pub version: Version,
    pub license: String,
    pub summary: String,
    /// A named contract that several recipes may provide, e.g. `embeddings@1`. `hob show` prints it, and
    /// `hob call` accepts it in place of a recipe.
    pub capability: Option<String>,
    /// Versions of Hob that may run it.
    pub hob: VersionReq,
    /// Files that go into the bundle beside those that always do.
    pub files: Vec<PathPattern>,
    pub glue: Option<GlueSpec>,
    pub pod: Option<PodSpec>,
    /// Permissions that its pods ask for beyond their own files; they have none of them unless the operator
    /// grants them.
    pub permissions: Permissions,
    pub models: Vec<ModelSpec>,
    /// The edition in which the manifest was read.
    pub edition: Edition,
    operations: BTreeMap<String, Arc<Operation>>,
}

impl Manifest {
    /// Reads a manifest. `what` names the file in faults.
    ///
    /// It reads on a thread of its own: the depth of an untrusted schema is bounded, but not by the caller's
    /// stack, which a schema of that depth almost fills in an app's debug build.
    ///
    /// Errors: `invalid_manifest`, with `line` and `key` in `detail`, and `findings` if there are several;
    /// `io` if no thread can be started.
    pub fn parse(text: &str, what: &str) -> Result<Manifest, Fault> {
        Manifest::parse_with(text, &Reading::alone(what))
    }

    /// [`Manifest::parse`] with the files of the recipe, in the edition in which it was installed.
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

    /// The operation of that name.
    ///
    /// Errors: `operation_not_found`, which lists the recipe's operations.
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

    /// What today's Hob would refuse or enforce, but does not, because an older Hob installed the recipe. At
    /// most [`limits::SCHEMA_FINDINGS_MAX`] warnings.
    pub fn warnings(&self) -> Vec<String> {
        let findings = self.schemas().flat_map(|(place, schema)| {
            schema.warnings().iter().map(move |found| format!("{place}{}: {}", found.pointer.replace('/', "."), found.what))
        });
        findings.take(limits::SCHEMA_FINDINGS_MAX).collect()
    }

    /// The words of its schemas that are for readers only and are not enforced, each with its place.
    pub fn not_held(&self) -> Vec<String> {
        let words = self.schemas().flat_map(|(place, schema)| {
            schema.not_held().iter().map(move |(pointer, word)| format!("{place}{}: {word}", pointer.replace('/', ".")))
        });
        words.collect()
    }

    /// The JSON files that contain its schemas, each with the keys that name it.
    pub fn schema_files(&self) -> impl Iterator<Item = (String, &str)> {
        self.schemas().filter_map(|(key, schema)| Some((key, schema.file()?)))
    }

    fn schemas(&self) -> impl Iterator<Item = (String, &Schema)> {
        let parts = self.operations().flat_map(|operation| Part::ALL.map(|part| (operation, part)));
        parts.map(|(operation, part)| (format!("operations.{}.{}", operation.name, part.name()), part.of(operation)))
    }
}
