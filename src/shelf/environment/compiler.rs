//! The compiler of an environment's sources, as the shelf asks for it.

use std::{path::Path, pin::Pin};

use crate::model::Fault;

/// Has the sources of a new environment compiled to bytecode, where no line of them can do anything.
///
/// The host implements it with the walls of a pod, which the shelf does not know.
pub trait Compiler: std::fmt::Debug + Send + Sync {
    /// Compiles what lies in `packages`, for `interpreter`. `scratch`: an empty folder for this alone.
    /// Dropping the future ends it.
    ///
    /// What is given is why there is no bytecode, or not all of it, for people. That is no error: sources are
    /// compiled at their import then.
    fn compile<'a>(&'a self, interpreter: &'a Path, packages: &'a Path, scratch: &'a Path) -> Compiling<'a>;
}

/// See [`Compiler::compile`].
pub type Compiling<'a> = Pin<Box<dyn Future<Output = Result<Option<String>, Fault>> + Send + 'a>>;
