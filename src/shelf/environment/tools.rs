//! The programs and package indexes that build environments, as the operator names them.

use crate::shelf::environment::indexes::Indexes;
use std::ffi::OsString;
use std::path::PathBuf;

/// Which tools to use; `None` means: look for one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tools {
    /// An absolute Python interpreter.
    pub python: Option<PathBuf>,
    /// An absolute `uv`.
    pub uv: Option<PathBuf>,
    /// The package indexes to ask.
    pub indexes: Indexes,
}

impl Tools {
    /// Uses only this interpreter, by its absolute path.
    pub fn with_python(mut self, path: impl Into<PathBuf>) -> Tools {
        self.python = Some(path.into());
        self
    }

    /// Uses only this `uv`, by its absolute path.
    pub fn with_uv(mut self, path: impl Into<PathBuf>) -> Tools {
        self.uv = Some(path.into());
        self
    }

    /// Uses these package indexes instead of all that `hob.toml` names.
    pub fn with_indexes(mut self, indexes: Indexes) -> Tools {
        self.indexes = indexes;
        self
    }

    /// `self` with the settings of `above` taking precedence.
    pub fn overridden_by(self, above: Tools) -> Tools {
        let indexes = if above.indexes.is_empty() { self.indexes } else { above.indexes };
        Tools { python: above.python.or(self.python), uv: above.uv.or(self.uv), indexes }
    }

    /// `self` (from `hob.toml`) with HOB_PYTHON and HOB_UV taking precedence.
    pub fn with_variables(mut self) -> Tools {
        let named = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
        self.python = named("HOB_PYTHON").or(self.python);
        self.uv = named("HOB_UV").or(self.uv);
        self
    }
}
