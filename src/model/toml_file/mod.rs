//! A TOML file that a person writes: its values by key, and faults that name line and key, what was found and
//! what is wanted.
//!
//! It reads `recipe.toml` and `hob.toml`, by hand rather than through serde, so that every fault has its
//! line. `model/manifest/keys.rs` defines the keys of the first, and `shelf/config` those of the second.

pub mod findings;

use std::borrow::Cow;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::model::{
    fault::{Code, Fault},
    nearest, shown,
};

/// The line of a byte of `text`, counted from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The dotted path of a key in the table at `path`; the path of the root is empty.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The value at a key of a table.
pub fn get<'t>(table: &'t DeTable<'t>, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
    table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
}

/// One file: its text, for line numbers; its name in faults; and the code of its faults.
#[derive(Debug, Clone, Copy)]
pub struct TomlFile<'a> {
    pub text: &'a str,
    pub what: &'a str,
    pub code: Code,
}

impl TomlFile<'_> {
    /// A fault at a byte of the file, with `line` and `key` in the detail. `key` is dotted; an empty one is
    /// left out.
    pub fn fault(&self, offset: usize, key: &str, message: impl AsRef<str>) -> Fault {
        let (line, key) = (line_of(self.text, offset), shown::dotted(key));
        let place = if key.is_empty() { String::new() } else { format!("{key}: ") };
        Fault::new(self.code, format!("{}:{line}: {place}{}", self.what, message.as_ref())).with("line", line).with("key", key)
    }

    /// The fault of a value that is not what is wanted at `key` of the table at `path`.
    pub fn wrong(&self, value: &Spanned<DeValue>, path: &str, key: &str, wanted: &str) -> Fault {
        let found = shown::found_toml(key, value.get_ref());
        self.fault(value.span().start, &join(path, key), format!("found {found}, wanted {wanted}"))
    }

    /// The fault of an unknown key; `nearest` in the detail is the key that was most likely meant.
    pub fn unknown(&self, name: &Spanned<Cow<str>>, path: &str, nearest: Option<&str>, message: impl AsRef<str>) -> Fault {
        let fault = self.fault(name.span().start, &join(path, name.get_ref()), message);
        fault.with("nearest", nearest).hint("correct the key, or remove it; a newer Hob may know it")
    }

    /// Refuses keys that are not among `known`.
    ///
    /// Errors: the first such key.
    pub fn only(&self, table: &DeTable, path: &str, known: &[&str]) -> Result<(), Fault> {
        let Some((name, _)) = table.iter().find(|(name, _)| !known.contains(&name.get_ref().as_ref())) else { return Ok(()) };
        let word = name.get_ref();
        let message = format!("this Hob knows no such key{}", nearest::instead(word, known));
        Err(self.unknown(name, path, nearest::among(word, known.iter().copied()), message))
    }

    /// Reads a value as text; `path` is the dotted path of its key.
    pub fn text<'t>(&self, value: &'t Spanned<DeValue<'t>>, path: &str) -> Result<&'t str, Fault> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            other => Err(self.fault(value.span().start, path, format!("found {}, wanted a string", shown::found_toml(path, other)))),
        }
    }

    /// The text at a key, and its offset.
    pub fn optional_text<'t>(&self, table: &'t DeTable<'t>, path: &str, key: &str) -> Result<Option<(&'t str, usize)>, Fault> {
        get(table, key).map(|value| Ok((self.text(value, &join(path, key))?, value.span().start))).transpose()
    }

    /// The boolean at a key.
    pub fn boolean(&self, table: &DeTable, path: &str, key: &str) -> Result<Option<bool>, Fault> {
        let read = |value: &Spanned<DeValue>| match value.get_ref() {
            DeValue::Boolean(word) => Ok(*word),
            _ => Err(self.wrong(value, path, key, "true or false")),
        };
        get(table, key).map(read).transpose()
    }

    /// The list at a key, and its offset. `wanted` says what it lists.
    pub fn list<'t>(&self, table: &'t DeTable<'t>, path: &str, key: &str, wanted: &str) -> Result<Option<(&'t DeArray<'t>, usize)>, Fault> {
        let read = |value: &'t Spanned<DeValue<'t>>| match value.get_ref() {
            DeValue::Array(items) => Ok((items, value.span().start)),
            _ => Err(self.wrong(value, path, key, wanted)),
        };
        get(table, key).map(read).transpose()
    }

    /// The table at a key, and its offset. `wanted` describes it.
    pub fn table<'t>(
        &self,
        table: &'t DeTable<'t>,
        path: &str,
        key: &str,
        wanted: &str,
    ) -> Result<Option<(&'t DeTable<'t>, usize)>, Fault> {
        get(table, key).map(|value| Ok((self.as_table(value, path, key, wanted)?, value.span().start))).transpose()
    }

    /// Reads a value as a table.
    pub fn as_table<'t>(&self, value: &'t Spanned<DeValue<'t>>, path: &str, key: &str, wanted: &str) -> Result<&'t DeTable<'t>, Fault> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.wrong(value, path, key, wanted)),
        }
    }
}
