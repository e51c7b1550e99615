//! The proof that bytes may run: signed by a trusted role, or the author's own folder and named as such.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::model::{id::Digest, manifest::Manifest};

/// The trust with which a recipe runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A delegated publisher of a remote signed the bundle.
    Signed {
        remote: String,
        publisher: String,
        /// Key ids of the publisher at install time.
        key_ids: Vec<String>,
    },
    /// A recipe folder, run by its author: dev mode.
    Unsigned { folder: PathBuf },
}

/// A model file that was checked against the manifest's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// The manifest's name for it.
    pub name: String,
    /// Its path, in the folder of all models.
    pub path: PathBuf,
    pub digest: Digest,
}

/// A recipe's models: all in one folder that holds nothing else, each a plain file at its name.
#[derive(Debug, Default)]
pub struct Models {
    /// `None` for a recipe without models.
    pub folder: Option<PathBuf>,
    pub files: Vec<ModelFile>,
    /// Keeps the folder until the last user of the recipe is done; `None` if the folder is permanent.
    pub held: Option<Arc<dyn fmt::Debug + Send + Sync>>,
}

/// A recipe whose every byte was checked. Only `shelf` makes one: `Verified::attest` is its one constructor,
/// and `tests/it/tidy.rs` fails if another layer calls it.
#[derive(Debug)]
pub struct Verified {
    manifest: Arc<Manifest>,
    folder: PathBuf,
    glue: Option<Bytes>,
    models: Models,
    digest: Digest,
    origin: Origin,
    /// The folder that pods see at `folder`, if it is another one; and the handle that keeps it.
    seen: Option<(PathBuf, Arc<dyn std::fmt::Debug + Send + Sync>)>,
}

impl Verified {
    /// Only `shelf` may call this, after the check.
    ///
    /// `folder` holds the recipe's files; `glue` is the component's bytes *as they were checked*, kept so
    /// that nothing is read twice; `digest` names the bundle (dev mode: the folder's content).
    pub(crate) fn attest(
        manifest: Arc<Manifest>,
        folder: PathBuf,
        glue: Option<Bytes>,
        models: Models,
        digest: Digest,
        origin: Origin,
    ) -> Verified {
        Verified { manifest, folder, glue, models, digest, origin, seen: None }
    }

    /// The same recipe, whose pods see another folder in place of its own.
    pub(crate) fn seen_as(self, folder: PathBuf, held: Arc<dyn std::fmt::Debug + Send + Sync>) -> Verified {
        Verified { seen: Some((folder, held)), ..self }
    }

    /// The folder that pods see at [`Verified::folder`], if it is another one.
    pub fn seen(&self) -> Option<&Path> {
        self.seen.as_ref().map(|(folder, _)| folder.as_path())
    }

    /// A recipe that was never checked, because it never runs: for tests of code that only passes it on.
    #[cfg(test)]
    pub(crate) fn on_paper(manifest: Manifest) -> Verified {
        let origin = Origin::Unsigned { folder: PathBuf::new() };
        Verified {
            manifest: Arc::new(manifest),
            folder: PathBuf::new(),
            glue: None,
            models: Models::default(),
            digest: Digest::of(b""),
            origin,
            seen: None,
        }
    }

    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }
    /// The folder of the recipe's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// The glue component's bytes.
    pub fn glue(&self) -> Option<&Bytes> {
        self.glue.as_ref()
    }
    pub fn models(&self) -> &[ModelFile] {
        &self.models.files
    }
    /// The folder that holds the models, and nothing else; `None` without models.
    pub fn models_folder(&self) -> Option<&Path> {
        self.models.folder.as_deref()
    }
    pub fn digest(&self) -> Digest {
        self.digest
    }
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
    /// Whether it runs in unsigned dev mode.
    pub fn is_unsigned(&self) -> bool {
        matches!(self.origin, Origin::Unsigned { .. })
    }
}
