//! Reads the tables of a `recipe.toml` key by key: a key that no reader asked for is refused, and errors are
//! collected.

use std::{borrow::Cow, cell::Cell};

use crate::model::hint::{Hint, act, hint};
use semver::VersionReq;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::model::{
    fault::Fault,
    limits::FINDINGS_MAX,
    manifest::reading::Reading,
    nearest,
    path_pattern::is_inner_path,
    shown,
    status::machine::LeverValue,
    toml_file::{
        self, TomlFile,
        findings::{Extent, Notes},
    },
};

/// The next step of most manifest faults.
pub fn check() -> Hint {
    hint!["correct that line of the manifest; ", act::pack(), " checks the whole recipe before anything is published"]
}

/// The manifest being read, and the mistakes noted in it.
pub(in crate::model) struct Source<'a> {
    pub file: TomlFile<'a>,
    pub reading: Reading<'a>,
    pub extent: Extent,
    /// Mistakes that do not prevent reading on.
    pub notes: &'a Notes,
    /// Bytes read from JSON files so far.
    pub schema_bytes: Cell<u64>,
}

impl Source<'_> {
    pub(in crate::model) fn fault<T>(&self, at: &Spanned<T>, key: &str, message: impl Into<String>) -> Fault {
        self.fault_at(at.span().start, key, message.into())
    }
    pub(in crate::model) fn fault_at(&self, offset: usize, key: &str, message: String) -> Fault {
        self.file.fault(offset, key, message).hint(check())
    }
}

/// One TOML table being read. It remembers which keys were read, so that the others can be refused.
pub(in crate::model) struct Table<'s, 'a> {
    pub source: &'s Source<'a>,
    /// Dotted path for messages; empty at the root.
    path: String,
    table: &'s DeTable<'s>,
    pub start: usize,
    known: Vec<&'static str>,
}

impl<'s, 'a> Table<'s, 'a> {
    pub(in crate::model) fn new(source: &'s Source<'a>, path: &str, table: &'s DeTable<'s>, start: usize) -> Self {
        Table { source, path: path.to_owned(), table, start, known: Vec::new() }
    }

    pub(in crate::model) fn key(&self, key: &str) -> String {
        toml_file::join(&self.path, key)
    }

    pub(in crate::model) fn fault<T>(&self, at: &Spanned<T>, key: &str, message: impl Into<String>) -> Fault {
        self.source.fault(at, &self.key(key), message)
    }

    pub(in crate::model) fn fault_here(&self, message: String) -> Fault {
        let key = if self.path.is_empty() { "recipe" } else { &self.path };
        self.source.fault_at(self.start, key, message)
    }

    pub(in crate::model) fn has(&self, key: &str) -> bool {
        toml_file::get(self.table, key).is_some()
    }

    /// The value that was read; `None` after a mistake, which is noted.
    ///
    /// Errors: the mistake, if another key was written in place of this one.
    pub(in crate::model) fn noted<T>(&self, read: Result<T, Fault>) -> Result<Option<T>, Fault> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(fault) if fault.detail.get("nearest").is_some() => Err(fault),
            Err(fault) => {
                self.source.notes.add(fault);
                Ok(None)
            }
        }
    }

    /// Notes a mistake in the table as a whole, without stopping the reader.
    pub(in crate::model) fn note_here(&self, message: impl Into<String>) {
        self.source.notes.add_of(&self.path, self.fault_here(message.into()));
    }

    pub(in crate::model) fn get(&mut self, key: &'static str) -> Option<&'s Spanned<DeValue<'s>>> {
        self.known.push(key);
        toml_file::get(self.table, key)
    }

    pub(in crate::model) fn wrong(&self, value: &Spanned<DeValue>, key: &str, wanted: &str) -> Fault {
        self.source.file.wrong(value, &self.path, key, wanted).hint(check())
    }

    pub(in crate::model) fn optional_string(&mut self, key: &'static str) -> Result<Option<Spanned<String>>, Fault> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.get_ref() {
                DeValue::String(text) if !text.trim().is_empty() => Ok(Some(Spanned::new(value.span(), text.to_string()))),
                DeValue::String(_) => Err(self.source.fault(value, &self.key(key), "found an empty string, wanted text")),
                _ => Err(self.wrong(value, key, "a string")),
            },
        }
    }

    pub(in crate::model) fn string(&mut self, key: &'static str) -> Result<Spanned<String>, Fault> {
        match self.optional_string(key)? {
            Some(text) => Ok(text),
            None => Err(self.missing(key, "a string")),
        }
    }

    /// The fault of a missing key. If a similar key was written, that key is the mistake.
    pub(in crate::model) fn missing(&self, key: &'static str, wanted: &str) -> Fault {
        let written = || self.table.iter().map(|(name, _)| name).filter(|name| !self.known.contains(&name.get_ref().as_ref()));
        let near = nearest::among(key, written().map(|name| name.get_ref().as_ref()));
        let misspelt = written().find(|name| match near {
            Some(near) => near == name.get_ref(),
            None => is_meant(name.get_ref(), key),
        });
        match misspelt {
            Some(name) => unknown_key(self.source, name, &self.path, &[key]),
            None => {
                let path = self.key(key);
                let example = EXAMPLES.iter().find(|(known, _)| *known == path);
                let example = example.map(|(_, value)| format!(", e.g. `{key} = {value}`")).unwrap_or_default();
                self.source.fault_at(self.start, &path, format!("missing: wanted {wanted}{example}"))
            }
        }
    }

    pub(in crate::model) fn version_req(&mut self, key: &'static str) -> Result<Spanned<VersionReq>, Fault> {
        let text = self.string(key)?;
        let req = VersionReq::parse(text.get_ref()).map_err(|error| {
            self.source.fault(
                &text,
                &self.key(key),
                format!("`{}` is not a version range ({error}): wanted e.g. `>=3.11, <3.15`", text.get_ref()),
            )
        })?;
        Ok(Spanned::new(text.span(), req))
    }

    pub(in crate::model) fn integer(&mut self, key: &'static str) -> Result<Spanned<u64>, Fault> {
        let Some(value) = self.get(key) else {
            return Err(self.missing(key, "an integer"));
        };
        match value.get_ref() {
            DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Ok(Spanned::new(value.span(), number)),
                Err(_) => Err(self.wrong(value, key, "an integer of 0 or more")),
            },
            _ => Err(self.wrong(value, key, "an integer")),
        }
    }

    pub(in crate::model) fn milliseconds(&mut self, key: &'static str, default: u64, max: u64) -> Result<u64, Fault> {
        if !self.has(key) {
            self.known.push(key);
            return Ok(default);
        }
        let found = self.integer(key)?;
        match *found.get_ref() {
            value if (1..=max).contains(&value) => Ok(value),
            value => Err(self.source.fault(&found, &self.key(key), format!("found {value}, wanted 1 to {max} milliseconds"))),
        }
    }

    /// An integer between `min` and `max`, if the key is there.
    pub(in crate::model) fn optional_integer(&mut self, key: &'static str, min: u64, max: u64) -> Result<Option<u64>, Fault> {
        if !self.has(key) {
            self.known.push(key);
            return Ok(None);
        }
        let found = self.integer(key)?;
        match *found.get_ref() {
            value if (min..=max).contains(&value) => Ok(Some(value)),
            value => Err(self.source.fault(&found, &self.key(key), format!("found {value}, wanted {min} to {max}"))),
        }
    }

    /// Refuses a key, whatever its value.
    pub(in crate::model) fn without(&self, key: &'static str, why: impl FnOnce() -> String) -> Result<(), Fault> {
        match toml_file::get(self.table, key) {
            Some(value) => Err(self.source.fault(value, &self.key(key), why())),
            None => Ok(()),
        }
    }

    /// A list of strings; empty if the key is missing.
    pub(in crate::model) fn list(&mut self, key: &'static str) -> Result<Vec<Spanned<String>>, Fault> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let DeValue::Array(items) = value.get_ref() else { return Err(self.wrong(value, key, "a list of strings")) };
        let read = items.iter().map(|item| match item.get_ref() {
            DeValue::String(text) => Ok(Spanned::new(item.span(), text.to_string())),
            _ => Err(self.wrong(item, key, "a list of strings")),
        });
        read.collect()
    }

    /// A list of integers and texts; empty if the key is missing.
    pub(in crate::model) fn levers(&mut self, key: &'static str) -> Result<Vec<LeverValue>, Fault> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let what = "a list of integers of 0 or more, or texts";
        let DeValue::Array(items) = value.get_ref() else { return Err(self.wrong(value, key, what)) };
        let read = items.iter().map(|item| match item.get_ref() {
            DeValue::String(text) => Ok(LeverValue::Text(text.to_string())),
            DeValue::Integer(number) => {
                u64::from_str_radix(number.as_str(), number.radix()).map(LeverValue::Number).map_err(|_| self.wrong(item, key, what))
            }
            _ => Err(self.wrong(item, key, what)),
        });
        read.collect()
    }

    /// Every entry as text, for tables whose keys are names.
    pub(in crate::model) fn strings(&self) -> Result<Vec<(String, Spanned<String>)>, Fault> {
        let read = self.table.iter().map(|(name, value)| match value.get_ref() {
            DeValue::String(text) => Ok((name.get_ref().to_string(), Spanned::new(value.span(), text.to_string()))),
            _ => Err(self.wrong(value, name.get_ref(), "a string")),
        });
        read.collect()
    }

    pub(in crate::model) fn boolean(&mut self, key: &'static str, default: bool) -> Result<bool, Fault> {
        self.known.push(key);
        let read = self.source.file.boolean(self.table, &self.path, key);
        Ok(read.map_err(|fault| fault.hint(check()))?.unwrap_or(default))
    }

    /// A relative path that stays inside the recipe.
    pub(in crate::model) fn path(&self, text: &Spanned<String>, key: &str) -> Result<String, Fault> {
        match is_inner_path(text.get_ref()) {
            true => Ok(text.get_ref().clone()),
            false => Err(self.source.fault(text, &self.key(key), format!("`{}` is not a path inside the recipe", text.get_ref()))),
        }
    }

    pub(in crate::model) fn optional_table(&mut self, key: &'static str) -> Result<Option<Table<'s, 'a>>, Fault> {
        self.known.push(key);
        let read = self.source.file.table(self.table, &self.path, key, "a table").map_err(|fault| fault.hint(check()))?;
        Ok(read.map(|(table, start)| Table::new(self.source, &self.key(key), table, start)))
    }

    pub(in crate::model) fn tables(&mut self, key: &'static str) -> Result<Vec<Table<'s, 'a>>, Fault> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.wrong(value, key, &format!("`[[{key}]]` tables")));
        };
        items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Table(table) => Ok(Table::new(self.source, &self.key(key), table, item.span().start)),
                _ => Err(self.wrong(item, key, "a table")),
            })
            .collect()
    }

    /// Every entry as a table, for tables whose keys are names.
    pub(in crate::model) fn rest(&mut self) -> Result<Vec<(String, Table<'s, 'a>)>, Fault> {
        self.table
            .iter()
            .map(|(name, value)| match value.get_ref() {
                DeValue::Table(table) => {
                    Ok((name.get_ref().to_string(), Table::new(self.source, &self.key(name.get_ref()), table, name.span().start)))
                }
                _ => Err(self.wrong(value, name.get_ref(), "a table")),
            })
            .collect()
    }

    /// Refuses every key that was not read.
    ///
    /// Errors: the first key that was written in place of a missing one.
    pub(in crate::model) fn finish(&self) -> Result<(), Fault> {
        for (name, _) in self.table.iter().filter(|(name, _)| !self.known.contains(&name.get_ref().as_ref())).take(FINDINGS_MAX) {
            let fault = unknown_key(self.source, name, &self.path, &self.known);
            let stands_for = fault.detail["nearest"].as_str().filter(|key| is_meant(name.get_ref(), key));
            if stands_for.is_some_and(|key| !self.table.iter().any(|(name, _)| name.get_ref() == key)) {
                return Err(fault);
            }
            self.source.notes.add(fault);
        }
        Ok(())
    }
}

/// Example values of the keys that each manifest must have.
const EXAMPLES: &[(&str, &str)] = &[
    ("name", "\"publisher/name\""),
    ("version", "\"0.1.0\""),
    ("license", "\"Apache-2.0\""),
    ("summary", "\"Says hello\""),
    ("hob", "\"0.1\""),
    ("pod.runtime", "\"python\""),
    ("pod.entry", "\"main:Pod\""),
    ("pod.python", "\">=3.9\""),
    ("glue.world", "\"0.1\""),
];

/// Whether `name` was meant as `key`.
fn is_meant(name: &str, key: &str) -> bool {
    nearest::is_near(name, key) || foreign(name, &[key]).is_some_and(|(meant, _)| meant == Some(key))
}

/// Keys of other systems that Hob names differently, or does not have: the key with the same meaning in that
/// place, if there is one, and what to write. (Those of schemas are in `schema/words.rs`.)
const FOREIGN: &[(&[&str], &str, &str)] = &[
    (&["description", "title"], "summary", "write `summary`"),
    (&["id"], "name", "write `name`"),
    (&["author", "authors", "maintainer"], "", "the publisher is the first half of `name`"),
    (&["parameters", "args", "arguments", "inputSchema", "input_schema"], "input", "write `input`, a JSON Schema"),
    (&["returns", "result", "outputSchema", "output_schema"], "output", "write `output`, a JSON Schema"),
    (&["tools", "functions", "methods"], "operations", "write `[operations.<name>]`"),
    (&["dependencies", "requirements", "packages", "pip"], "", "packages are locked with hashes in a file that `lock` in `[pod]` names"),
    (&["python_version", "requires-python"], "", "write `python = \">=3.9\"` in `[pod]`"),
    (&["entrypoint", "entry_point", "main", "handler"], "entry", "write `entry = \"module:Class\"` in `[pod]`"),
    (&["command", "cmd"], "", "write `runtime = \"executable\"` and `entry` in `[pod]`"),
    (&["timeout", "timeout_ms", "timeout_seconds"], "deadline_ms", "write `deadline_ms` in `[operations.<name>]`"),
    (&["memory", "ram"], "memory_bytes", "write `memory_bytes` in `[pod]`"),
    (&["gpu", "gpus"], "", "write `devices = [\"gpu\"]` in `[permissions]`"),
    (&["environment"], "env", "write `[pod.env]`"),
    (&["replicas", "workers"], "max", "write `max` in `[pod]`"),
    (&["image", "docker", "container"], "", "there are no container images: a pod is built from its lock"),
];

/// The meaning of another system's key beside `known`: the key of Hob, or `None`, and what to write.
fn foreign(name: &str, known: &[&str]) -> Option<(Option<&'static str>, &'static str)> {
    let (_, key, instead) = FOREIGN.iter().find(|(words, ..)| words.iter().any(|word| word.eq_ignore_ascii_case(name)))?;
    match known.contains(key) {
        true => Some((Some(key), instead)),
        // If the key does not belong here, only hints that say where it belongs apply.
        false => (key.is_empty() || instead.contains('[')).then_some((None, instead)),
    }
}

fn unknown_key(source: &Source, name: &Spanned<Cow<str>>, path: &str, known: &[&str]) -> Fault {
    let place = if path.is_empty() { "at the top level".to_owned() } else { format!("in `{path}`") };
    let word = name.get_ref().as_ref();
    let (nearest, said) = match foreign(word, known) {
        Some((key, instead)) => (key, format!("; {instead}")),
        None => (nearest::among(word, known.iter().copied()), nearest::instead(word, known)),
    };
    let shown = shown::name(word);
    source.file.unknown(name, path, nearest, format!("this Hob knows no key `{shown}` {place}, and refuses what it cannot enforce{said}"))
}
