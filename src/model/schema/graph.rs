//! A schema as a graph: the work of each node itself, and the nodes to which it sends a visit on.
//!
//! The entry of a keyword describes the validator's work for it. A keyword without an entry is refused,
//! because its cost would be unknown. Only `#`, `#/a/b` and `#anchor` are followed, and no `$id` or `$schema`
//! below the root. So there is one way to read a `$ref`, and the validator reads it in the same way.

use crate::model::schema::pointer::escaped;
use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    format::{self, FORMAT_UNITS},
    pattern, words,
};
use crate::model::{
    Edition,
    limits::{PATTERN_BYTES_MAX, PATTERN_SQUARES_MAX, PATTERNS_COMPILED_BYTES_MAX},
};

/// Why a cost cannot be proved, or is too high: where in the schema, what, and what to write instead.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Why {
    pub pointer: String,
    pub what: String,
    pub instead: &'static str,
    /// Whether the schema leads to a place that does not exist; otherwise it costs too much, or the cost is
    /// unknown.
    pub is_lost: bool,
}

/// Where an edge leads, relative to the instance node of the visit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place<'a> {
    /// To the same node. `once`: by a `$ref`, so that the target is compiled separately.
    Here {
        once: bool,
    },
    /// To the name of each key.
    Name,
    Named(&'a str),
    /// To keys that the node does not name.
    Other,
    EveryKey,
    Index(usize),
    /// To items behind the node's prefix.
    Rest,
    EveryItem,
    /// Nowhere: the schema is compiled again, and never visited.
    Built,
}

#[derive(Debug)]
pub(super) struct Edge<'a> {
    pub to: usize,
    pub place: Place<'a>,
}

#[derive(Debug)]
pub(super) struct Node<'a> {
    pub pointer: String,
    schema: &'a Value,
    /// Whether it marks what was evaluated, for `unevaluated...`, instead of checking.
    marks: bool,
    /// Units for each byte of the instance node itself.
    pub own: f64,
    /// Units for each byte of the whole subtree.
    pub whole: f64,
    /// Whether it tries branches that may fail although the document is valid.
    pub alternatives: bool,
    pub prefix: usize,
    pub edges: Vec<Edge<'a>>,
}

impl Node<'_> {
    pub fn why(&self, what: String, instead: &'static str) -> Why {
        Why { pointer: self.pointer.clone(), what, instead, is_lost: false }
    }

    /// Whether its `properties` have that key.
    pub fn names(&self, key: &str) -> bool {
        self.schema.get("properties").and_then(Value::as_object).is_some_and(|named| named.contains_key(key))
    }
}

#[derive(Debug)]
pub(super) struct Graph<'a> {
    /// The first node is the root.
    pub nodes: Vec<Node<'a>>,
    edition: Edition,
    root: &'a Value,
    known: HashMap<(*const Value, bool), usize>,
    anchors: HashMap<&'a str, Vec<(&'a Value, String)>>,
    squares: u64,
    compiled_bytes: f64,
    patterns: HashMap<&'a str, f64>,
}

impl<'a> Graph<'a> {
    pub fn of(root: &'a Value, edition: Edition) -> Result<Graph<'a>, Why> {
        let mut anchors = HashMap::new();
        find_anchors(root, &mut String::new(), &mut anchors);
        let (nodes, known, patterns) = (Vec::new(), HashMap::new(), HashMap::new());
        let mut graph = Graph { nodes, edition, root, known, anchors, squares: 0, compiled_bytes: 0.0, patterns };
        graph.add(root, String::new(), false);
        // New nodes are added behind the one that is being read.
        let mut at = 0;
        while at < graph.nodes.len() {
            match graph.nodes[at].marks {
                true => graph.read_marks(at)?,
                false => graph.read(at)?,
            }
            at += 1;
        }
        Ok(graph)
    }

    /// Nodes that are targets of a `$ref`.
    pub fn referred(&self) -> impl Iterator<Item = usize> + use<> {
        let edges = self.nodes.iter().flat_map(|node| &node.edges);
        let mut targets: Vec<_> = edges.filter(|edge| edge.place == (Place::Here { once: true })).map(|edge| edge.to).collect();
        targets.sort_unstable();
        targets.dedup();
        targets.into_iter()
    }

    fn add(&mut self, schema: &'a Value, pointer: String, marks: bool) -> usize {
        let next = self.nodes.len();
        let at = *self.known.entry((schema, marks)).or_insert(next);
        if at == next {
            let prefix = schema.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
            self.nodes.push(Node { pointer, schema, marks, own: 1.0, whole: 0.0, alternatives: false, prefix, edges: Vec::new() });
        }
        at
    }

    fn edge(&mut self, at: usize, schema: &'a Value, below: String, place: Place<'a>) {
        let pointer = format!("{}/{below}", self.nodes[at].pointer);
        let to = self.add(schema, pointer, false);
        self.nodes[at].edges.push(Edge { to, place });
    }

    /// Reads the cost and edges of a node that checks.
    fn read(&mut self, at: usize) -> Result<(), Why> {
        let schema = match self.nodes[at].schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(schema) => schema,
            _ => return Err(self.nodes[at].why("not a schema".into(), "a schema is a table")),
        };
        let keys = |value: &Value| value.as_object().map_or(0, Map::len);
        let few = |count: usize| count.min(16) as f64;
        for (word, value) in schema {
            let own = match word.as_str() {
                "$comment" | "$defs" | "$anchor" | "title" | "description" | "default" | "examples" | "deprecated" | "readOnly"
                | "writeOnly" => 0.0,
                word if words::is_for_readers(word) => 0.0,
                "format" => match (self.edition, format::kind(value.as_str().unwrap_or_default())) {
                    (Edition::Current, format::Kind::Held) => FORMAT_UNITS,
                    // Words at a place that only a `$ref` treats as a schema were not inspected before.
                    (Edition::Current, format::Kind::Unknown(_)) if value.is_string() => {
                        return Err(self.nodes[at].why(format!("there is no format {value:.100}"), "remove it"));
                    }
                    _ => 0.0,
                },
                "$schema" | "$id" if at == 0 => 0.0,
                "$schema" | "$id" => {
                    return Err(self.nodes[at].why(
                        format!("`{word}` below the root: a `$ref` would have two readings"),
                        "remove it, and write each `$ref` as `#/$defs/NAME`",
                    ));
                }
                "contentEncoding" | "contentMediaType" => 16.0,
                "type" | "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minContains"
                | "maxContains" => 1.0,
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => 2.0,
                "multipleOf" => 16.0,
                "const" => size(value),
                "enum" => match value.as_array() {
                    Some(values) if values.iter().all(Value::is_string) => few(values.len()) + 4.0,
                    _ => size(value),
                },
                "uniqueItems" if value == &Value::Bool(true) => {
                    self.nodes[at].whole += 16.0;
                    16.0
                }
                "uniqueItems" => 0.0,
                "pattern" => match value.as_str() {
                    Some(text) => self.pattern(at, text)?,
                    None => 0.0,
                },
                "required" => few(value.as_array().map_or(0, Vec::len)) + 2.0,
                "dependentRequired" => size(value),
                "properties" => {
                    for (name, schema) in value.as_object().into_iter().flatten() {
                        self.edge(at, schema, format!("properties/{}", escaped(name)), Place::Named(name));
                    }
                    2.0 * few(keys(value)) + 2.0
                }
                "patternProperties" => {
                    let mut own = 2.0;
                    for (text, schema) in value.as_object().into_iter().flatten() {
                        own += self.pattern(at, text)?;
                        self.edge(at, schema, format!("patternProperties/{}", escaped(text)), Place::EveryKey);
                    }
                    own
                }
                "additionalProperties" => {
                    self.edge(at, value, word.clone(), Place::Other);
                    // To find these keys, it checks the names and patterns once more.
                    let mut own = 4.0 + 2.0 * few(schema.get("properties").map_or(0, keys));
                    for (text, _) in schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
                        own += self.pattern(at, text)?;
                    }
                    own
                }
                "propertyNames" => {
                    self.edge(at, value, word.clone(), Place::Name);
                    2.0
                }
                "items" => {
                    self.items(at, word, value, Place::Rest);
                    1.0
                }
                "prefixItems" => {
                    self.items(at, word, value, Place::Rest);
                    1.0
                }
                "contains" => {
                    self.nodes[at].alternatives = true;
                    self.edge(at, value, word.clone(), Place::EveryItem);
                    2.0
                }
                "unevaluatedItems" | "unevaluatedProperties" => {
                    self.nodes[at].alternatives = true;
                    let place = if word == "unevaluatedItems" { Place::EveryItem } else { Place::EveryKey };
                    self.edge(at, value, word.clone(), place);
                    self.marking(at, at, false);
                    16.0
                }
                "allOf" | "anyOf" | "oneOf" => {
                    self.nodes[at].alternatives |= word != "allOf";
                    self.items(at, word, value, Place::Here { once: false });
                    2.0
                }
                "not" | "if" | "then" | "else" => {
                    self.nodes[at].alternatives = true;
                    self.edge(at, value, word.clone(), Place::Here { once: false });
                    1.0
                }
                "dependentSchemas" => {
                    for (name, schema) in value.as_object().into_iter().flatten() {
                        self.edge(at, schema, format!("dependentSchemas/{}", escaped(name)), Place::Here { once: false });
                    }
                    2.0 * keys(value) as f64
                }
                "$ref" => {
                    let (to, pointer) = self.target(at, value)?;
                    let to = self.add(to, pointer, false);
                    self.nodes[at].edges.push(Edge { to, place: Place::Here { once: true } });
                    // The validator searches all active schemas, to detect cycles.
                    16.0
                }
                word => {
                    return Err(self.nodes[at].why(
                        format!("nothing is known of the cost of `{word}`"),
                        "write it with the keywords of JSON Schema 2020-12 (without `$dynamicRef`)",
                    ));
                }
            };
            self.nodes[at].own += own;
        }
        Ok(())
    }

    /// Reads the cost and edges of a node that marks: all branches are checked again, and what they allow is
    /// marked in turn.
    fn read_marks(&mut self, at: usize) -> Result<(), Why> {
        let Value::Object(schema) = self.nodes[at].schema else { return Ok(()) };
        self.nodes[at].own += 16.0;
        for (word, value) in schema {
            match word.as_str() {
                "$ref" => {
                    let (to, pointer) = self.target(at, value)?;
                    let to = self.add(to, pointer, true);
                    self.nodes[at].edges.push(Edge { to, place: Place::Here { once: false } });
                }
                "allOf" | "anyOf" | "oneOf" => {
                    let first = self.nodes[at].edges.len();
                    self.items(at, word, value, Place::Here { once: false });
                    for edge in first..self.nodes[at].edges.len() {
                        let to = self.nodes[at].edges[edge].to;
                        self.marking(at, to, false);
                    }
                }
                "if" | "then" | "else" => {
                    self.edge(at, value, word.clone(), if word == "if" { Place::Here { once: false } } else { Place::Built });
                    let to = self.nodes[at].edges[self.nodes[at].edges.len() - 1].to;
                    self.marking(at, to, false);
                }
                "dependentSchemas" => {
                    for (name, schema) in value.as_object().into_iter().flatten() {
                        self.edge(at, schema, format!("dependentSchemas/{}", escaped(name)), Place::Built);
                        let to = self.nodes[at].edges[self.nodes[at].edges.len() - 1].to;
                        self.marking(at, to, false);
                    }
                }
                "contains" | "unevaluatedItems" => self.edge(at, value, word.clone(), Place::EveryItem),
                "unevaluatedProperties" => self.edge(at, value, word.clone(), Place::EveryKey),
                "additionalProperties" => self.edge(at, value, word.clone(), Place::Built),
                "patternProperties" => {
                    for (text, schema) in value.as_object().into_iter().flatten() {
                        let own = self.pattern(at, text)?;
                        self.nodes[at].own += own;
                        self.edge(at, schema, format!("patternProperties/{}", escaped(text)), Place::Built);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds an edge to the marking of the node `of`.
    fn marking(&mut self, at: usize, of: usize, once: bool) {
        let (schema, pointer) = (self.nodes[of].schema, self.nodes[of].pointer.clone());
        let to = self.add(schema, pointer, true);
        self.nodes[at].edges.push(Edge { to, place: Place::Here { once } });
    }

    /// Adds edges to each schema of a list, or to the single one.
    fn items(&mut self, at: usize, word: &str, value: &'a Value, place: Place<'a>) {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let place = if place == Place::Rest { Place::Index(index) } else { place };
                    self.edge(at, item, format!("{word}/{index}"), place);
                }
            }
            one => self.edge(at, one, word.to_owned(), place),
        }
    }

    /// The target of a `$ref`.
    fn target(&self, at: usize, reference: &Value) -> Result<(&'a Value, String), Why> {
        let node = &self.nodes[at];
        let text = reference.as_str().unwrap_or("");
        let found = match text.strip_prefix('#') {
            Some("") => Some((self.root, String::new())),
            Some(pointer) if pointer.starts_with('/') && !pointer.contains('%') => {
                self.root.pointer(pointer).map(|schema| (schema, pointer.to_owned()))
            }
            Some(anchor) => match self.anchors.get(anchor).map(Vec::as_slice) {
                Some([(schema, pointer)]) => Some((*schema, pointer.clone())),
                _ => None,
            },
            None => None,
        };
        if !text.starts_with('#') {
            let why = format!("`$ref` to `{text:.100}`, which is no place in this schema, and no other document is read");
            return Err(Why { is_lost: true, ..node.why(why, "put what it leads to under `$defs` here, and write `#/$defs/NAME`") });
        }
        found.ok_or_else(|| Why {
            is_lost: true,
            ..node.why(format!("`$ref` to `{text:.100}`, which leads nowhere in this schema"), "write it as `#/$defs/NAME`")
        })
    }

    /// Units for each byte that is matched against a pattern.
    fn pattern(&mut self, at: usize, text: &'a str) -> Result<f64, Why> {
        if let Some(states) = self.patterns.get(text) {
            return Ok(*states);
        }
        let node = &self.nodes[at];
        let shorter = "shorten the pattern: what it has to say of lengths, `maxLength` says for less";
        self.squares += (text.len() as u64).saturating_mul(text.len() as u64);
        if text.len() > PATTERN_BYTES_MAX || self.squares > PATTERN_SQUARES_MAX {
            return Err(node.why(
                format!("a pattern of {} bytes; at most {PATTERN_BYTES_MAX} are taken, and few of the longest", text.len()),
                shorter,
            ));
        }
        let cost = pattern::cost(text);
        self.compiled_bytes += cost.bytes;
        if self.compiled_bytes > PATTERNS_COMPILED_BYTES_MAX as f64 {
            return Err(node.why(
                format!(
                    "its patterns would take {:.0} MiB once compiled; at most {} are given to a schema",
                    self.compiled_bytes / f64::from(1 << 20),
                    PATTERNS_COMPILED_BYTES_MAX >> 20
                ),
                shorter,
            ));
        }
        self.patterns.insert(text, cost.states);
        Ok(cost.states)
    }
}

/// Finds every `$anchor` at any place; an anchor that occurs twice is none.
fn find_anchors<'a>(value: &'a Value, pointer: &mut String, found: &mut HashMap<&'a str, Vec<(&'a Value, String)>>) {
    let length = pointer.len();
    match value {
        Value::Object(entries) => {
            if let Some(Value::String(name)) = entries.get("$anchor") {
                found.entry(name).or_default().push((value, pointer.clone()));
            }
            for (name, value) in entries {
                pointer.push('/');
                pointer.push_str(&escaped(name));
                find_anchors(value, pointer, found);
                pointer.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointer.push_str(&format!("/{index}"));
                find_anchors(value, pointer, found);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

/// The most that comparing with `value` costs.
fn size(value: &Value) -> f64 {
    match value {
        Value::String(text) => 2.0 + text.len() as f64 / 16.0,
        Value::Array(items) => 2.0 + items.iter().map(size).sum::<f64>(),
        Value::Object(entries) => 2.0 + entries.iter().map(|(key, value)| 2.0 + key.len() as f64 / 16.0 + size(value)).sum::<f64>(),
        _ => 2.0,
    }
}
