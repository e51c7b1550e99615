//! The interface through which the shelf has an environment's sources compiled.

use std::{path::Path, pin::Pin};

use crate::model::Fault;

/// Compiles the sources of a new environment to bytecode in a place where none of their code can have an
/// effect.
///
/// The host implements it with the sandbox of a pod, which the shelf does not know.
pub trait Compiler: std::fmt::Debug + Send + Sync {
    /// Compiles the files in `packages`, for `interpreter`. `scratch` is an empty folder for this run alone.
    /// Dropping the future ends it.
    ///
    /// Returns, for people, why there is no bytecode or only part of it. That is no error: the sources are
    /// then compiled at their import.
    fn compile<'a>(&'a self, interpreter: &'a Path, packages: &'a Path, scratch: &'a Path) -> Compiling<'a>;
}

/// See [`Compiler::compile`].
pub type Compiling<'a> = Pin<Box<dyn Future<Output = Result<Option<String>, Fault>> + Send + 'a>>;
