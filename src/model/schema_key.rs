//! `input` and `output` of an operation: a JSON Schema, read off the manifest.
//!
//! Apart from `manifest_reader.rs`, because what is wrong with a schema has a place in it, which is a line of the manifest.

use serde_json::Value;
use toml::{Spanned, de::DeValue};

use super::{
    fault::Fault,
    manifest_reader::Table,
    schema::{Finding, Schema},
};

impl<'s> Table<'s, '_> {
    /// The schema at `key`.
    pub(super) fn schema(&mut self, key: &'static str) -> Result<Schema, Fault> {
        let path = self.key(key);
        let Some(value) = self.get(key) else {
            return Err(self.source.fault_at(self.start, &path, "missing: wanted a JSON Schema as a table".into()));
        };
        let json = self.json(value, &path)?;
        if !json.is_object() {
            return Err(self.wrong(value, key, "a JSON Schema as a table"));
        }
        Schema::compile(json, self.source.edition).map_err(|findings| {
            let first = findings.into_iter().next().unwrap_or_else(|| Finding::of("", "not a JSON Schema".to_owned()));
            let (offset, dotted) = place(value, &path, &first.pointer);
            let fault = self.source.fault_at(offset, &dotted, first.what);
            if first.pointer.is_empty() { fault } else { fault.with("pointer", first.pointer) }
        })
    }

    fn json(&self, value: &Spanned<DeValue>, path: &str) -> Result<Value, Fault> {
        Ok(match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Integer(number) => {
                let signed = i64::from_str_radix(number.as_str(), number.radix()).map(Value::from);
                match signed.or_else(|_| u64::from_str_radix(number.as_str(), number.radix()).map(Value::from)) {
                    Ok(number) => number,
                    Err(_) => return Err(self.source.fault(value, path, "an integer past 64 bits")),
                }
            }
            DeValue::Float(number) => match number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
                Some(number) => Value::Number(number),
                None => return Err(self.source.fault(value, path, "not a number that JSON can hold")),
            },
            DeValue::Datetime(_) => return Err(self.source.fault(value, path, "a date: JSON has none, write it as a string")),
            DeValue::Array(items) => Value::Array(items.iter().map(|item| self.json(item, path)).collect::<Result<_, _>>()?),
            DeValue::Table(table) => Value::Object(
                table
                    .iter()
                    .map(|(name, value)| Ok((name.get_ref().to_string(), self.json(value, path)?)))
                    .collect::<Result<_, Fault>>()?,
            ),
        })
    }
}

/// Where in the manifest a JSON pointer into `value` leads: the byte of its last key, and the keys with dots.
fn place(value: &Spanned<DeValue>, path: &str, pointer: &str) -> (usize, String) {
    let (mut value, mut offset, mut dotted) = (value, value.span().start, path.to_owned());
    for part in pointer.split('/').skip(1) {
        let key = part.replace("~1", "/").replace("~0", "~");
        let next = match value.get_ref() {
            DeValue::Table(table) => {
                table.iter().find(|(name, _)| name.get_ref() == key.as_str()).map(|(name, value)| (name.span().start, value))
            }
            DeValue::Array(items) => key.parse().ok().and_then(|at: usize| items.get(at)).map(|item| (item.span().start, item)),
            _ => None,
        };
        let Some((start, next)) = next else { break };
        (value, offset) = (next, start);
        dotted.push('.');
        dotted.push_str(&key);
    }
    (offset, dotted)
}
