//! The keywords of a schema: the accepted ones, those of other dialects with what to write instead, and the
//! values that are refused.
//!
//! The proof asks what keywords cost; this file asks whether they mean what their author thinks. A keyword
//! that JSON Schema would silently ignore is refused, because a typo would check nothing. So is a keyword
//! that means something else in the dialect that `$schema` names.

use serde_json::{Map, Value};

use crate::model::{
    limits::SCHEMA_FINDINGS_MAX,
    nearest::among,
    schema::{
        format::{self, Kind},
        pointer::escaped,
    },
    shown,
};

/// A word of a schema that is not accepted, with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// JSON pointer to the word.
    pub pointer: String,
    /// What is wrong with it, and what to write instead.
    pub what: String,
    /// Whether Hob accepted it before it enforced formats and dialects: recipes installed then keep working.
    pub was_taken: bool,
}

impl Finding {
    /// A finding that Hob never accepted.
    pub fn of(pointer: &str, what: String) -> Finding {
        Finding { pointer: pointer.to_owned(), what, was_taken: false }
    }
}

/// The result of inspecting one schema.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// At most [`SCHEMA_FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Formats that are checked: pointer and word.
    pub held: Vec<(String, String)>,
    /// Words for readers only: the pointer, and `format = "word"` or the word.
    pub not_held: Vec<(String, String)>,
}

/// The accepted words of JSON Schema 2020-12.
const WORDS: &[&str] = &[
    "$schema",
    "$id",
    "$ref",
    "$defs",
    "$anchor",
    "$comment",
    "type",
    "enum",
    "const",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "contentEncoding",
    "contentMediaType",
    "multipleOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "unevaluatedItems",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "required",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
];

/// The accepted values of `type`.
const TYPES: &[&str] = &["string", "number", "integer", "boolean", "object", "array", "null"];

/// Types of languages and tools, and the equivalent here.
const FOREIGN_TYPES: &[(&[&str], &str)] = &[
    (&["str", "text", "char", "varchar"], "write `string`"),
    (&["int", "long", "uint", "int32", "int64"], "write `integer`"),
    (&["float", "double", "decimal", "float32", "float64"], "write `number`"),
    (&["bool"], "write `boolean`"),
    (&["list", "tuple", "set", "vector"], "write `array`, and `items` for what is in it"),
    (&["dict", "map", "record", "struct", "json"], "write `object`"),
    (&["none", "nil", "nonetype", "undefined"], "write `null`"),
    (&["any"], "leave `type` out"),
    (&["bytes", "file", "binary", "blob", "image", "audio"], "bytes travel beside the JSON, as `blobs` of the operation"),
    (&["date", "datetime", "date-time", "timestamp"], "write `string`, with `format = \"date-time\"`"),
    (&["enum"], "write `enum`, the list of what may come, without `type`"),
];

/// Words of other dialects, and the equivalent here.
const FOREIGN: &[(&str, &str)] = &[
    ("$dynamicAnchor", "write `$ref = \"#/$defs/NAME\"`: a dynamic reference has more than one reading"),
    ("$dynamicRef", "write `$ref = \"#/$defs/NAME\"`: a dynamic reference has more than one reading"),
    ("$recursiveAnchor", "write `$ref = \"#\"`, or `$ref = \"#/$defs/NAME\"`"),
    ("$recursiveRef", "write `$ref = \"#\"`, or `$ref = \"#/$defs/NAME\"`"),
    ("additionalItems", "beside `prefixItems`, `items` says what the other items are"),
    ("definitions", "it is `$defs` in JSON Schema 2020-12, and `$ref = \"#/$defs/NAME\"` leads there"),
    ("dependencies", "it is `dependentRequired` or `dependentSchemas` in JSON Schema 2020-12"),
    ("divisibleBy", "it is `multipleOf` in JSON Schema 2020-12"),
    ("example", "it is `examples` in JSON Schema 2020-12, a list"),
    ("externalDocs", "say it in `description`"),
    ("id", "it is `$id` in JSON Schema 2020-12"),
    ("nullable", "write `type = [\"string\", \"null\"]`, with the type that it has"),
    ("xml", "say it in `description`"),
];

/// Whether a word is only for readers, and checks nothing.
pub(super) fn is_for_readers(word: &str) -> bool {
    word == "discriminator" || word.starts_with("x-")
}

/// The dialect that `$schema` names.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Dialect {
    Ours,
    Draft201909,
    Draft07,
    Draft06,
}

impl Dialect {
    /// Whether the dialect has an accepted word, with the meaning that it has here. Words that check nothing
    /// mean the same everywhere.
    fn has(self, word: &str) -> bool {
        match self {
            Dialect::Ours => true,
            Dialect::Draft201909 => !NOT_IN_2019.contains(&word),
            Dialect::Draft07 => !NOT_IN_07.contains(&word),
            Dialect::Draft06 => !NOT_IN_07.contains(&word) && !NOT_IN_06.contains(&word),
        }
    }

    /// Whether the dialect ignores words beside `$ref`.
    fn is_ref_alone(self) -> bool {
        matches!(self, Dialect::Draft07 | Dialect::Draft06)
    }
}

/// Words that a dialect lacks, in addition to those that later dialects lack: that dialect ignores them, Hob
/// enforces them.
const NOT_IN_2019: &[&str] = &["prefixItems", "unevaluatedItems"];
const NOT_IN_06: &[&str] = &["if", "then", "else"];
const NOT_IN_07: &[&str] = &[
    "prefixItems",
    "unevaluatedItems",
    "unevaluatedProperties",
    "dependentRequired",
    "dependentSchemas",
    "minContains",
    "maxContains",
    "$anchor",
];

/// Words that check nothing.
const SILENT: &[&str] =
    &["$ref", "$schema", "$id", "$defs", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"];

/// What to write as `$schema`.
const OURS: &str = "https://json-schema.org/draft/2020-12/schema";

fn dialect(named: &str) -> Result<Dialect, String> {
    let bare = named.trim_end_matches('#').trim_end_matches('/');
    let bare = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://")).unwrap_or(bare);
    let foreign = |name: &str, differs: &str| {
        Err(format!(
            "`$schema` names {name}, which this Hob does not read: write the schema in JSON Schema 2020-12 ({differs}), and remove `$schema`"
        ))
    };
    match bare {
        "json-schema.org/draft/2020-12/schema" => Ok(Dialect::Ours),
        "json-schema.org/draft/2019-09/schema" => Ok(Dialect::Draft201909),
        "json-schema.org/draft-07/schema" => Ok(Dialect::Draft07),
        "json-schema.org/draft-06/schema" => Ok(Dialect::Draft06),
        "json-schema.org/draft-05/schema" | "json-schema.org/draft-04/schema" | "json-schema.org/draft-03/schema" => foreign(
            &format!("draft-{}", &bare["json-schema.org/draft-".len()..][..2]),
            "there `exclusiveMinimum` is a number, `id` is `$id`, `definitions` is `$defs` and `required` is a list",
        ),
        other if other.starts_with("spec.openapis.org/") => foreign(
            "a dialect of OpenAPI",
            "`nullable = true` is `type = [..., \"null\"]` there, and `example` is `examples`; `discriminator` and words with `x-` are taken",
        ),
        _ => Err(format!("`$schema` names `{named:.100}`, which this Hob does not know: wanted `{OURS}`, or no `$schema`")),
    }
}

/// Inspects a whole schema, from its root.
pub(super) fn look(schema: &Value) -> Looked {
    let mut walk = Walk { looked: Looked::default(), dialect: Dialect::Ours, named: String::new() };
    match schema.get("$schema") {
        Some(Value::String(named)) => match dialect(named) {
            Ok(dialect) => (walk.dialect, walk.named) = (dialect, named.trim_end_matches('#').to_owned()),
            Err(why) => walk.find("/$schema".to_owned(), why, true),
        },
        Some(_) => {
            walk.find("/$schema".to_owned(), format!("`$schema` is the name of a dialect: wanted \"{OURS}\", or no `$schema`"), false)
        }
        None => {}
    }
    walk.schema(schema, "");
    walk.looked
}

struct Walk {
    looked: Looked,
    dialect: Dialect,
    /// The value of `$schema`.
    named: String,
}

impl Walk {
    fn find(&mut self, pointer: String, what: String, was_taken: bool) {
        if self.looked.findings.len() < SCHEMA_FINDINGS_MAX {
            self.looked.findings.push(Finding { pointer, what, was_taken });
        }
    }

    fn schema(&mut self, schema: &Value, pointer: &str) {
        let Value::Object(entries) = schema else { return };
        for (word, value) in entries {
            let at = format!("{pointer}/{}", escaped(word));
            if is_for_readers(word) {
                self.looked.not_held.push((at, format!("`{word:.100}`")));
                continue;
            }
            if !WORDS.contains(&word.as_str()) {
                self.find(at, unknown(word), false);
                continue;
            }
            self.meaning(entries, word, value, &at);
            match (word.as_str(), value) {
                ("properties" | "patternProperties" | "$defs" | "dependentSchemas", Value::Object(schemas)) => {
                    for (name, schema) in schemas {
                        self.schema(schema, &format!("{at}/{}", escaped(name)));
                    }
                }
                ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(schemas)) => {
                    for (index, schema) in schemas.iter().enumerate() {
                        self.schema(schema, &format!("{at}/{index}"));
                    }
                }
                (
                    "items"
                    | "contains"
                    | "additionalProperties"
                    | "propertyNames"
                    | "unevaluatedItems"
                    | "unevaluatedProperties"
                    | "not"
                    | "if"
                    | "then"
                    | "else",
                    schema,
                ) => self.schema(schema, &at),
                _ => {}
            }
        }
    }

    fn type_name(&mut self, name: &str, at: &str) {
        if TYPES.contains(&name) {
            return;
        }
        let nearest = among(name, TYPES.iter().copied());
        let foreign = FOREIGN_TYPES.iter().find(|(names, _)| names.iter().any(|foreign| foreign.eq_ignore_ascii_case(name)));
        let instead = match (foreign, nearest) {
            (Some((_, instead)), _) => (*instead).to_owned(),
            (None, Some(nearest)) => format!("nearest: `{nearest}`"),
            (None, None) => format!("wanted one of `{}`", TYPES.join("`, `")),
        };
        self.find(at.to_owned(), format!("there is no type `{}` in JSON Schema; {instead}", shown::name(name)), false);
    }

    /// Reports a known word that does not mean here what it says.
    fn meaning(&mut self, entries: &Map<String, Value>, word: &str, value: &Value, at: &str) {
        match (word, value) {
            ("format", Value::String(name)) => match format::kind(name) {
                Kind::Held => self.looked.held.push((at.to_owned(), name.clone())),
                Kind::Annotation => self.looked.not_held.push((at.to_owned(), format!("`format = \"{name:.100}\"`"))),
                Kind::Unknown(nearest) => {
                    let instead = match nearest {
                        Some(nearest) => format!("; nearest known format: `{nearest}`"),
                        None => "; say it by `pattern` or in `description`, or give it a name of your own that begins with `x-`".to_owned(),
                    };
                    self.find(
                        at.to_owned(),
                        format!("there is no format `{name:.100}` in JSON Schema, and this Hob refuses what it cannot hold{instead}"),
                        true,
                    );
                }
            },
            ("type", Value::String(name)) => self.type_name(name, at),
            ("type", Value::Array(names)) => {
                for (index, name) in names.iter().enumerate() {
                    if let Value::String(name) = name {
                        self.type_name(name, &format!("{at}/{index}"));
                    }
                }
            }
            ("items", Value::Array(_)) => {
                self.find(at.to_owned(), "`items` is one schema in JSON Schema 2020-12: a list of them is `prefixItems`".to_owned(), false);
            }
            _ => {}
        }
        if !self.dialect.has(word) {
            let means = if word == "unevaluatedItems" && self.dialect == Dialect::Draft201909 { "something else" } else { "nothing" };
            let text = format!("`{word}` means {means} in `{}`, which `$schema` names: remove `$schema`", self.named);
            self.find(at.to_owned(), text, true);
        }
        if self.dialect.is_ref_alone()
            && word == "$ref"
            && let Some(beside) = entries.keys().find(|word| !SILENT.contains(&word.as_str()) && !is_for_readers(word))
        {
            let text = format!(
                "`{beside}` beside `$ref` means nothing in `{}`, which `$schema` names, and holds in JSON Schema 2020-12: remove one of the two, or `$schema`",
                self.named
            );
            self.find(at.to_owned(), text, true);
        }
    }
}

fn unknown(word: &str) -> String {
    let text = format!("this Hob knows no key `{}` in a schema, and refuses what it cannot enforce", shown::name(word));
    match FOREIGN.iter().find(|(foreign, _)| *foreign == word) {
        Some((_, instead)) => format!("{text}: {instead}"),
        None => {
            let nearest = among(word, WORDS.iter().copied());
            nearest.map(|nearest| format!("{text}; nearest known key: `{nearest}`")).unwrap_or(text)
        }
    }
}
