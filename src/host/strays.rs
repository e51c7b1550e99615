//! Names in `hob.toml` that no installed recipe has. Such an entry has no effect until a recipe of that name
//! is installed.

use std::fmt;

use super::Host;
use crate::{
    model::{Fault, RecipeName, nearest},
    shelf::{config::Config as File, store::lockfile::LockFile},
};

/// A name in `hob.toml` that no installed recipe has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stray {
    /// The table that has the name, such as `environments.recipes`.
    pub table: &'static str,
    pub name: RecipeName,
    /// The installed recipe that may have been meant.
    pub nearest: Option<RecipeName>,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hob.toml: no recipe of the name \"{}\" in [{}] is installed", self.name, self.table)?;
        self.nearest.as_ref().map_or(Ok(()), |nearest| write!(f, " (nearest: `{nearest}`)"))
    }
}

impl Host {
    /// Names of recipes in `hob.toml` that no installed recipe has.
    ///
    /// Errors: `invalid_config`.
    pub fn strays(&self) -> Result<Vec<Stray>, Fault> {
        let (file, lock) = (File::read(&self.0.home)?, LockFile::read(&self.0.home)?);
        let mut installed: Vec<String> = lock.entries().iter().map(|entry| entry.name.to_string()).collect();
        installed.extend(lock.damaged().iter().filter_map(|damaged| damaged.name.clone()));
        let stray = |table: &'static str, name: &RecipeName| {
            let word = name.to_string();
            if installed.contains(&word) {
                return None;
            }
            let nearest = nearest::among(&word, installed.iter().map(String::as_str)).and_then(|near| near.parse().ok());
            Some(Stray { table, name: name.clone(), nearest })
        };
        let wanted = file.recipes.keys().filter_map(|name| stray("recipes", name));
        let indexes = file.tools.indexes.recipes().filter_map(|name| stray("environments.recipes", name));
        // Folders get their grants by path, so a key that is no recipe name is skipped.
        let given = file.grants.keys().filter_map(|name| stray("grants", &name.parse().ok()?));
        Ok(wanted.chain(indexes).chain(given).collect())
    }
}
