//! A JSON Schema (draft 2020-12) with a proven bound on the cost of checking.
//!
//! The validator has no budget of its own, and the author of a schema chooses its work. So a schema is
//! compiled only after `schema/cost.rs` proved a rate, and a document is accepted only if rate times size
//! stays within [`SCHEMA_UNITS_MAX`](super::limits::SCHEMA_UNITS_MAX).

use std::{collections::HashSet, fmt};

use jsonschema::{Keyword, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::model::{
    Edition,
    document::Document,
    fault::{Code, Fault},
    limits::{
        PATTERN_CACHE_BYTES_MAX, PATTERN_COMPILED_BYTES_MAX, READ_HERE_BYTES_MAX, SCHEMA_INLINE_UNITS, SCHEMA_LISTED_UNITS,
        SCHEMA_POINTERS_BYTES_MAX, SCHEMA_VIOLATION_BYTES_MAX, SCHEMA_VIOLATIONS_MAX,
    },
    printable::in_a_line,
    shown,
    text::cut,
};

mod cost;
mod format;
mod graph;
mod pattern;
pub mod pointer;
#[cfg(test)]
mod tests;
mod told;
mod whole;
mod words;

pub use words::Finding;
use words::Looked;

/// A JSON Schema, compiled, with its proven cost.
pub struct Schema {
    source: Value,
    validator: Validator,
    cost: cost::Proven,
    /// Whether the schema uses `integer` anywhere.
    says_integer: bool,
    warnings: Vec<Finding>,
    not_held: Vec<(String, String)>,
    file: Option<String>,
}

/// Bytes of the pointers to all places below `value`, which itself is `above` bytes below the root.
fn pointers_bytes(value: &Value, above: u64) -> u64 {
    let below = |name: u64, value: &Value| {
        let at = above + 1 + name;
        at.saturating_add(pointers_bytes(value, at))
    };
    match value {
        // A pointer writes `~` and `/` as two characters each.
        Value::Object(entries) => entries.iter().fold(0, |sum, (name, value)| sum.saturating_add(below(2 * name.len() as u64, value))),
        Value::Array(items) => items.iter().fold(0, |sum, item| sum.saturating_add(below(8, item))),
        _ => 0,
    }
}

impl Schema {
    /// Compiles `source`.
    ///
    /// Errors: at least one finding, each with its place, for the manifest's reader.
    pub fn compile(source: Value, edition: Edition) -> Result<Schema, Vec<Finding>> {
        let pointers = pointers_bytes(&source, 0);
        if pointers > SCHEMA_POINTERS_BYTES_MAX {
            return Err(vec![Finding::of(
                "",
                format!(
                    "its places have {pointers} bytes of names above them, each place's counted; at most {SCHEMA_POINTERS_BYTES_MAX} are taken: give \
                     what has many places below it a shorter name"
                ),
            )]);
        }
        let Looked { findings, held, not_held } = words::look(&source);
        let (mut warnings, refused): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|finding| edition == Edition::Older && finding.was_taken);
        if !refused.is_empty() {
            return Err(refused);
        }
        let cost = cost::prove(&source, edition).map_err(|why| {
            let pointer = if why.pointer.is_empty() { "/" } else { &why.pointer };
            let first = if why.is_lost { "a reference cannot be followed" } else { "the cost of checking is not bounded" };
            vec![Finding::of(&why.pointer, format!("{first} at `{pointer}`: {}; {}", why.what, why.instead))]
        })?;
        // Patterns match in time that grows only with the text. With a backtracking engine, a recipe could
        // make matching take as long as it likes, on every call and in the host. Patterns that only such an
        // engine can match (look-around, back-references) are refused here.
        let patterns = PatternOptions::regex().size_limit(PATTERN_COMPILED_BYTES_MAX).dfa_size_limit(PATTERN_CACHE_BYTES_MAX);
        let mut options = jsonschema::draft202012::options()
            .with_pattern_options(patterns)
            .should_validate_formats(edition == Edition::Current)
            .with_keyword("uniqueItems", |_, value, _| Ok(Box::new(UniqueItems(value == &Value::Bool(true)))));
        for (name, judge) in format::HELD {
            options = options.with_format(*name, judge);
        }
        let validator = options.build(&source).map_err(|error| {
            let pointer = error.instance_path().to_string();
            let why = match source.pointer(&pointer) {
                Some(Value::String(pattern)) if format::is_pattern(pattern) && pointer.contains("attern") => format!(
                    "the pattern `{pattern:.100}` needs an engine that goes back (look-around, back-references), whose time has no bound: say it without"
                ),
                _ => error.to_string(),
            };
            vec![match pointer.is_empty() {
                true => Finding::of("", format!("not a JSON Schema: {why}")),
                false => Finding::of(&pointer, format!("not a JSON Schema at `{pointer}`: {why}")),
            }]
        })?;
        if edition == Edition::Older {
            let not_held = |(pointer, name): (String, String)| Finding {
                pointer,
                what: format!("`format = \"{name}\"` is not held"),
                was_taken: true,
            };
            warnings.extend(held.into_iter().map(not_held));
        }
        let says_integer = whole::says_integer(&source);
        Ok(Schema { source, validator, cost, says_integer, warnings, not_held, file: None })
    }

    /// What today's Hob would refuse or enforce, but does not, because an older Hob installed the recipe.
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// Its words for readers only, which check nothing, by pointer.
    pub fn not_held(&self) -> &[(String, String)] {
        &self.not_held
    }

    /// The schema that accepts any document.
    pub fn anything() -> Schema {
        Schema::compile(Value::Bool(true), Edition::Current).expect("a constant schema")
    }

    /// The same schema, from that file of its recipe.
    pub(super) fn of_file(self, path: String) -> Schema {
        Schema { file: Some(path), ..self }
    }

    /// The recipe's file that contains the schema, if the manifest does not.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The schema as written.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Largest document that is checked, in bytes of its text: as much as the schema's cost allows, and never
    /// more than a document may have.
    pub fn document_bytes_max(&self) -> usize {
        self.cost.document_bytes_max()
    }

    /// Whether checking `document` takes longer than unrelated work may be delayed: the check itself, or
    /// parsing the document's text for it.
    pub fn is_long_for(&self, document: &Document) -> bool {
        self.units(document) > SCHEMA_INLINE_UNITS as f64 || document.text().len() > READ_HERE_BYTES_MAX
    }

    fn units(&self, document: &Document) -> f64 {
        self.cost.rate * document.text().len() as f64
    }

    /// Checks `document`; a mismatch is `code` and lists each place as a JSON pointer, with what was expected
    /// and what was found.
    ///
    /// Errors: `code`; a document larger than this schema allows is `too_large`, if a caller sent it.
    pub fn check(&self, document: &Document, what: &str, code: Code) -> Result<(), Fault> {
        let (bytes, most) = (document.text().len(), self.document_bytes_max());
        if bytes > most {
            let code = if code == Code::InvalidInput { Code::TooLarge } else { code };
            return Err(Fault::new(code, format!("{what} is {bytes} bytes of JSON; its schema is checked for at most {most}"))
                .hint("pass large data as a blob, or in several calls; a simpler schema allows more"));
        }
        let value = document.looked_at();
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        let violations = self.violations(document, &value);
        let Some(first) = violations.first() else {
            return Err(Fault::new(
                code,
                format!("{what} does not match its schema; of {bytes} bytes with alternatives, the place is not told"),
            )
            .hint("a smaller document of this kind is told the place"));
        };
        let more = match violations.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let [pointer, expected, found] = ["pointer", "expected", "found"].map(|key| first[key].as_str().unwrap_or_default());
        let text = format!("{what} does not match the schema at `{pointer}`: {expected}, found {found}{more}");
        Err(Fault::new(code, text).with("violations", violations))
    }

    /// Returns a matching `document` with `2.0` written as `2` where the schema says `integer` and no other
    /// kind of number.
    pub fn with_integers(&self, document: Document) -> Document {
        match self.says_integer.then(|| whole::numbers(&self.source, document.text())).flatten() {
            Some(text) => Document::checked(text),
            None => document,
        }
    }

    /// Where `document` differs: all places of a small document, the first of a large one, and none of a
    /// large one whose schema has alternatives, because each alternative would be described for each part.
    fn violations(&self, document: &Document, value: &Value) -> Vec<Value> {
        let errors: Vec<_> = match (self.units(document) * self.cost.described <= SCHEMA_LISTED_UNITS as f64, self.cost.alternatives) {
            (true, _) => self.validator.iter_errors(value).take(SCHEMA_VIOLATIONS_MAX).collect(),
            (false, false) => self.validator.validate(value).err().into_iter().collect(),
            (false, true) => Vec::new(),
        };
        let described = |error: ValidationError| {
            let bounded = |text: String| cut(text, SCHEMA_VIOLATION_BYTES_MAX);
            let place = shown::pointer(&bounded(error.instance_path().to_string()));
            serde_json::json!({
                "pointer": bounded(place),
                "expected": bounded(in_a_line(&bounded(told::expected(&error)))),
                "found": bounded(told::found(&error)),
                "schema": bounded(in_a_line(&bounded(error.schema_path().to_string()))),
            })
        };
        errors.into_iter().map(described).collect()
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// `uniqueItems` in time that grows with the text. The validator's own check compares all items with equal
/// hashes, and its hash has no secret, so such items can be made: `[[1],2]` and `[1,[2]]` are two.
struct UniqueItems(bool);

impl<'i> Keyword<'i> for UniqueItems {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        match self.is_valid(instance) {
            true => Ok(()),
            false => Err(ValidationError::custom("wanted each item once")),
        }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        let (true, Value::Array(items)) = (self.0, instance) else { return true };
        let mut seen = HashSet::with_capacity(items.len());
        items.iter().all(|item| {
            let mut text = Vec::new();
            write_plain(item, &mut text);
            seen.insert(text)
        })
    }
}

/// Writes `value` so that two values are written alike exactly if JSON Schema considers them equal: `1` and
/// `1.0` are equal, and so are objects in any order.
fn write_plain(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(b'n'),
        Value::Bool(flag) => out.push(if *flag { b't' } else { b'f' }),
        Value::Number(number) => {
            let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            let float = number.as_f64().unwrap_or(0.0);
            // Between these bounds, a float without a fraction is exactly an integer.
            let whole = whole.or_else(|| (float.fract() == 0.0 && float.abs() < 2.0_f64.powi(100)).then_some(float as i128));
            match whole {
                Some(whole) => out.extend_from_slice(format!("i{whole};").as_bytes()),
                None => out.extend_from_slice(format!("d{:x};", float.to_bits()).as_bytes()),
            }
        }
        Value::String(text) => {
            out.extend_from_slice(format!("s{};", text.len()).as_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Array(items) => {
            out.extend_from_slice(format!("a{};", items.len()).as_bytes());
            items.iter().for_each(|item| write_plain(item, out));
        }
        Value::Object(entries) => {
            out.extend_from_slice(format!("o{};", entries.len()).as_bytes());
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            for (key, value) in sorted {
                out.extend_from_slice(format!("s{};", key.len()).as_bytes());
                out.extend_from_slice(key.as_bytes());
                write_plain(value, out);
            }
        }
    }
}
