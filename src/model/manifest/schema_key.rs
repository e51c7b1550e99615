//! `input` and `output` of an operation: a JSON Schema, in the manifest or in a JSON file of the recipe.
//!
//! An error in a schema has a place within the schema, which this file maps to a line of the manifest.

use serde_json::Value;
use toml::{Spanned, de::DeValue};

use crate::model::{
    document::Document,
    fault::Fault,
    limits::SCHEMA_FILES_BYTES_MAX,
    manifest::reader::Table,
    path_pattern::is_inner_path,
    schema::{Finding, Schema},
    shown, stand_in,
    toml_file::findings::Extent,
};

impl<'s> Table<'s, '_> {
    /// The schema at `key`. A mistake in it is noted and does not stop the reader.
    ///
    /// Errors: another key was written in place of `key`.
    pub(in crate::model) fn schema(&mut self, key: &'static str) -> Result<Schema, Fault> {
        let Some(value) = self.get(key) else {
            let missing = Err::<(), _>(self.missing(key, "a JSON Schema as a table"));
            return self.noted(missing).map(|_| Schema::anything());
        };
        if self.source.extent == Extent::Outline {
            return Ok(Schema::anything());
        }
        self.compiled(key, value).or_else(|faults| {
            faults.into_iter().for_each(|fault| self.source.notes.add(fault));
            Ok(Schema::anything())
        })
    }

    fn compiled(&self, key: &str, value: &Spanned<DeValue>) -> Result<Schema, Vec<Fault>> {
        let path = self.key(key);
        if let DeValue::String(file) = value.get_ref() {
            return self.schema_file(key, &Spanned::new(value.span(), file.to_string())).map_err(|fault| vec![fault]);
        }
        let json = self.json(value, &path).map_err(|fault| vec![fault])?;
        if !json.is_object() {
            return Err(vec![self.wrong(value, key, "a JSON Schema as a table, or the path of a JSON file of the recipe")]);
        }
        Schema::compile(json, self.source.reading.edition).map_err(|findings| {
            let fault = |finding: Finding| {
                let (offset, dotted) = place(value, &path, &finding.pointer);
                let fault = self.source.fault_at(offset, &dotted, finding.what);
                if finding.pointer.is_empty() { fault } else { fault.with("pointer", finding.pointer) }
            };
            match findings.is_empty() {
                true => vec![fault(Finding::of("", "not a JSON Schema".to_owned()))],
                false => findings.into_iter().map(fault).collect(),
            }
        })
    }

    /// The schema in a file of the recipe; unlike TOML, a JSON file can say `null`.
    fn schema_file(&self, key: &str, file: &Spanned<String>) -> Result<Schema, Fault> {
        let name = file.get_ref();
        let refused = |message: String| self.fault(file, key, message).with("file", name.clone());
        if !is_inner_path(name) || !name.ends_with(".json") {
            return Err(refused(format!(
                "`{name:.100}` is not the path of a JSON file inside the recipe: wanted e.g. `schemas/{key}.json`, or a JSON Schema as a table, e.g. \
                 `{{ type = \"string\" }}`"
            )));
        }
        let bytes = (self.source.reading.file)(name).map_err(|fault| refused(format!("`{name}`: {}", fault.message)))?;
        let read = self.source.schema_bytes.get() + bytes.len() as u64;
        self.source.schema_bytes.set(read);
        if read > SCHEMA_FILES_BYTES_MAX {
            return Err(refused(format!("the JSON files of its schemas have more than {SCHEMA_FILES_BYTES_MAX} bytes together")));
        }
        let text = stand_in::text(bytes).map_err(|wrong| refused(format!("`{name}` {}", wrong.why)))?;
        let json = Document::parse(text, "it").map_err(|fault| refused(format!("`{name}`: {}", fault.message)))?.into_value();
        if !(json.is_object() || json.is_boolean()) {
            return Err(refused(format!("`{name}` is {}, wanted a JSON Schema: an object", shown::found("", &json))));
        }
        let schema = Schema::compile(json, self.source.reading.edition).map_err(|findings| {
            let first = findings.into_iter().next().unwrap_or_else(|| Finding::of("", "not a JSON Schema".to_owned()));
            let pointer = if first.pointer.is_empty() { "/" } else { &first.pointer };
            refused(format!("`{name}` at `{pointer}`: {}", first.what)).with("pointer", first.pointer)
        })?;
        Ok(schema.of_file(name.clone()))
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

/// Where a JSON pointer into `value` leads in the manifest: the byte of its last key, and the dotted keys.
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
