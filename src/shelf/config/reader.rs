//! Tables of `hob.toml`, read key by key.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::model::{Code, Fault, nearest, shown};

/// The file's text, for line numbers.
pub(in crate::shelf) struct Reader<'a> {
    pub text: &'a str,
    pub what: &'a str,
}

impl Reader<'_> {
    pub(in crate::shelf) fn fault(&self, offset: usize, key: &str, message: String) -> Fault {
        let line = self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        let key = shown::dotted(key);
        let place = if key.is_empty() { String::new() } else { format!("{key}: ") };
        Fault::new(Code::InvalidConfig, format!("{}:{line}: {place}{message}", self.what)).with("line", line).with("key", key)
    }

    /// Refuses keys that are not among `known`.
    pub(in crate::shelf) fn only(&self, table: &DeTable, path: &str, known: &[&str]) -> Result<(), Fault> {
        let Some((name, _)) = table.iter().find(|(name, _)| !known.contains(&name.get_ref().as_ref())) else { return Ok(()) };
        let word = name.get_ref().as_ref();
        let key = if path.is_empty() { word.to_owned() } else { format!("{path}.{word}") };
        Err(self
            .fault(name.span().start, &key, format!("this Hob knows no such key{}", nearest::instead(word, known)))
            .with("nearest", nearest::among(word, known.iter().copied()))
            .hint("correct the key, or remove it; a newer Hob may know it"))
    }

    pub(in crate::shelf) fn get<'t>(&self, table: &'t DeTable<'t>, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    pub(in crate::shelf) fn table<'t>(&self, root: &'t DeTable<'t>, key: &str) -> Result<Option<&'t DeTable<'t>>, Fault> {
        match self.get(root, key).map(|value| (value.get_ref(), value.span().start)) {
            None => Ok(None),
            Some((DeValue::Table(table), _)) => Ok(Some(table)),
            Some((other, at)) => Err(self.fault(at, key, format!("found {}, wanted a table", shown::found_toml(key, other)))),
        }
    }

    pub(in crate::shelf) fn text<'t>(&self, value: &'t Spanned<DeValue<'t>>, key: &str) -> Result<&'t str, Fault> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            other => Err(self.fault(value.span().start, key, format!("found {}, wanted a string", shown::found_toml(key, other)))),
        }
    }

    pub(in crate::shelf) fn optional<'t>(&self, table: &'t DeTable<'t>, path: &str, key: &str) -> Result<Found<'t>, Fault> {
        match self.get(table, key) {
            None => Ok(None),
            Some(value) => Ok(Some((self.text(value, &format!("{path}.{key}"))?, value.span().start))),
        }
    }
}

pub type Found<'t> = Option<(&'t str, usize)>;
