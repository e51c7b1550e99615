//! `hob.lock`: the installed recipes, by digest and signer. An install takes effect at the instant at which
//! this file is replaced.
//!
//! Only Hob writes it, so it is written whole and sorted: the same shelf gives the same bytes, and a diff
//! shows how two machines differ.

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::model::{Code, Digest, Edition, Fault, Home, RecipeName, act, hint, limits, stand_in};

use crate::shelf::{durable, files};

/// Version of the file's format.
const FORMAT: u32 = 1;

/// One installed recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LockEntry {
    pub name: RecipeName,
    pub version: Version,
    /// The remote that it came from.
    pub remote: String,
    /// The delegated role that signed it.
    pub publisher: String,
    /// Key ids of the publisher at install time, sorted: an update is held when they change.
    pub key_ids: Vec<String>,
    /// Digest of the bundle.
    pub sha256: Digest,
    /// Digest of the index of its files.
    pub index_sha256: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentPin>,
    /// The edition in which its manifest is read: the one at its install.
    #[serde(default, skip_serializing_if = "Edition::is_older")]
    pub edition: Edition,
    #[serde(default, rename = "model", skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<LockedModel>,
}

/// The environment that was built for a recipe on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EnvironmentPin {
    /// Its name: digest of what it was built from.
    pub digest: Digest,
    /// Digest of the record of its files.
    pub tree: Digest,
}

/// A model file of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LockedModel {
    pub name: String,
    pub sha256: Digest,
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    #[serde(default, rename = "recipe", skip_serializing_if = "Vec::is_empty")]
    recipes: Vec<LockEntry>,
}

/// The file as read: an error in one entry does not affect the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(rename = "version")]
    _version: u32,
    #[serde(default, rename = "recipe")]
    recipes: Vec<toml::Spanned<toml::Table>>,
}

#[derive(Deserialize)]
struct Format {
    version: u32,
}

/// Everything that is installed, sorted by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LockFile {
    entries: Vec<LockEntry>,
    damaged: Vec<DamagedEntry>,
}

/// An entry that cannot be read. While there is one, the file is not written, because a write would lose that
/// entry unnoticed.
#[derive(Debug, Clone, PartialEq)]
pub struct DamagedEntry {
    /// The recipe's name, if it can be determined.
    pub name: Option<String>,
    pub fault: Fault,
}

impl LockFile {
    /// Reads this home's file; a missing file is an empty shelf.
    ///
    /// Errors: `invalid_config`.
    pub fn read(home: &Home) -> Result<LockFile, Fault> {
        let path = home.lock_file();
        let Some(bytes) = durable::read(&path, limits::CONFIG_BYTES_MAX)? else { return Ok(LockFile::default()) };
        let what = path.display().to_string();
        let text = stand_in::text(bytes).map_err(|wrong| wrong.fault(Code::InvalidConfig, &what))?;
        LockFile::parse(&text, &what)
    }

    /// Reads a lock file. `what` names it in faults.
    pub fn parse(text: &str, what: &str) -> Result<LockFile, Fault> {
        let wrong = |at: Option<usize>, message: &str| {
            let line = at.map_or(1, |at| text[..text.floor_char_boundary(at)].matches('\n').count() + 1);
            Fault::new(Code::InvalidConfig, format!("{what}:{line}: {message}"))
                .hint(hint![
                    "the file is Hob's own: take it back from a copy, or delete it and run ",
                    act::add("RECIPE"),
                    " for each recipe that is wanted"
                ])
                .with("line", line)
        };
        let fault = |error: toml::de::Error| wrong(error.span().map(|span| span.start), error.message());
        // The format is checked first: a newer file would fail on its first new key, with a misleading fault.
        let format: Format = toml::from_str(text).map_err(fault)?;
        if format.version != FORMAT {
            return Err(Fault::new(
                Code::InvalidConfig,
                format!("{what}: format {}; this Hob reads and writes format {FORMAT}", format.version),
            )
            .hint("update Hob"));
        }
        let read: Read = toml::from_str(text).map_err(fault)?;
        let mut file = LockFile::default();
        for table in read.recipes {
            let at = table.span().start;
            let table = table.into_inner();
            let name = table.get("name").and_then(toml::Value::as_str).map(str::to_owned);
            match LockEntry::deserialize(table) {
                Ok(entry) => file.entries.push(entry),
                Err(error) => {
                    let shown = name.as_deref().map_or_else(|| "a recipe".to_owned(), |name| format!("recipe `{name:.100}`"));
                    file.damaged.push(DamagedEntry { name, fault: wrong(Some(at), &format!("{shown}: {}", error.message())) });
                }
            }
        }
        file.sort();
        if let Some(twice) = file.entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Fault::new(Code::InvalidConfig, format!("{what}: `{}` is there twice", twice[0].name)));
        }
        Ok(file)
    }

    /// The file's text.
    pub fn text(&self) -> Result<String, Fault> {
        let text = toml::to_string(&Text { version: FORMAT, recipes: self.entries.clone() })
            .map_err(|error| Fault::new(Code::Internal, format!("hob.lock cannot be written: {error}")))?;
        Ok(format!("# Written by hob; what is wanted stands in hob.toml.\n{text}"))
    }

    /// Replaces the file in one step.
    ///
    /// Errors: `invalid_config` while an entry cannot be read, `too_large` if the result could not be read
    /// back.
    pub(in crate::shelf) fn write(&self, home: &Home) -> Result<(), Fault> {
        if let Some(damaged) = self.damaged.first() {
            return Err(damaged.fault.clone());
        }
        let (path, text) = (home.lock_file(), self.text()?);
        files::can_be_read(&path, text.len(), limits::CONFIG_BYTES_MAX)?;
        files::replace(&path, text.as_bytes())
    }

    pub fn entries(&self) -> &[LockEntry] {
        &self.entries
    }

    /// The entries that cannot be read.
    pub fn damaged(&self) -> &[DamagedEntry] {
        &self.damaged
    }

    /// The entry of that recipe.
    pub fn get(&self, name: &RecipeName) -> Option<&LockEntry> {
        self.entries.iter().find(|entry| &entry.name == name)
    }

    /// Adds the entry, in place of an older one of the same recipe.
    pub fn set(&mut self, entry: LockEntry) {
        self.remove(&entry.name);
        self.entries.push(entry);
        self.sort();
    }

    /// Removes the recipe's entry.
    pub fn remove(&mut self, name: &RecipeName) -> Option<LockEntry> {
        let at = self.entries.iter().position(|entry| &entry.name == name)?;
        Some(self.entries.remove(at))
    }

    fn sort(&mut self) {
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in &mut self.entries {
            entry.key_ids.sort();
            entry.models.sort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::at(root.path());
        let model = |at: usize| LockedModel { name: format!("{at:0255}"), sha256: Digest::of(b""), bytes: 1 };
        let entry = |name: &str| LockEntry {
            name: name.parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            remote: "main".to_owned(),
            publisher: "lab".to_owned(),
            key_ids: Vec::new(),
            sha256: Digest::of(b""),
            index_sha256: Digest::of(b""),
            environment: None,
            edition: Edition::Current,
            models: (0..limits::MODELS_MAX).map(model).collect(),
        };
        let mut lock = LockFile::default();
        let written = (0..64).find_map(|at| {
            lock.set(entry(&format!("lab/n{at}")));
            lock.write(&home).err().map(|fault| (at, fault))
        });
        let (count, fault) = written.expect("so many recipes are too much for the file");
        assert!(count > 4 && fault.code == Code::TooLarge && fault.message.contains("hob.lock would have"), "{count} {fault}");
        assert_eq!(LockFile::read(&home).unwrap().entries().len(), count);
    }
}
