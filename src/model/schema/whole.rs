//! Rewrites `2.0` to an integer where a schema says `integer`: JSON Schema accepts it, but most languages'
//! readers do not.
//!
//! The check itself changes nothing; this file edits the text of a document that matches, and only those
//! numbers. It edits a place if the schema says `integer` there and no other kind of number, whatever else
//! the document holds. It finds such places through `properties`, `additionalProperties`, `items`,
//! `prefixItems`, `$ref`, `allOf`, and through an `anyOf` or `oneOf` of which only one branch accepts that
//! kind of value.

use serde_json::Value;

use super::super::limits::SCHEMA_PLACES_MAX;

/// Returns the text with those numbers written as integers; `None` if there are none. `text` is JSON.
pub(super) fn numbers(schema: &Value, text: &str) -> Option<String> {
    let mut scan = Scan { root: schema, text: text.as_bytes(), at: 0, taken: 0, out: String::new() };
    scan.value(vec![schema]);
    match scan.taken {
        0 => None,
        taken => Some(scan.out + &text[taken..]),
    }
}

/// Whether `schema` uses `integer` anywhere; otherwise no document needs reading.
pub(super) fn says_integer(schema: &Value) -> bool {
    // Without recursion: the author chooses the depth of a schema.
    let mut left = vec![schema];
    while let Some(part) = left.pop() {
        match part {
            Value::Object(entries) => {
                let said = &part["type"];
                if said == "integer" || said.as_array().is_some_and(|types| types.iter().any(|kind| kind == "integer")) {
                    return true;
                }
                left.extend(entries.values());
            }
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    false
}

struct Scan<'a> {
    root: &'a Value,
    text: &'a [u8],
    at: usize,
    /// The end of the part of the text that is already in `out`.
    taken: usize,
    out: String,
}

impl<'a> Scan<'a> {
    /// Reads one value, to which all of `schemas` apply.
    fn value(&mut self, schemas: Vec<&'a Value>) {
        self.space();
        let Some(first) = self.text.get(self.at).copied() else { return };
        let kind = match first {
            b'{' => "object",
            b'[' => "array",
            b'"' => "string",
            b't' | b'f' => "boolean",
            b'n' => "null",
            _ => "number",
        };
        let mut all = Vec::new();
        schemas.into_iter().for_each(|schema| self.unfold(schema, kind, &mut all));
        match kind {
            "object" if !all.is_empty() => self.object(&all),
            "array" if !all.is_empty() => self.array(&all),
            "number" => self.number(&all),
            _ => self.skip(),
        }
    }

    /// Adds `schema` to `all`, and the schemas that it applies to the same value.
    fn unfold(&self, schema: &'a Value, kind: &str, all: &mut Vec<&'a Value>) {
        // Schemas that lead back to themselves were refused; this bounds schemas that unfold many times.
        if !schema.is_object() || all.len() == SCHEMA_PLACES_MAX {
            return;
        }
        all.push(schema);
        if let Some(target) = self.target(schema) {
            self.unfold(target, kind, all);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.unfold(part, kind, all);
        }
        for branches in [&schema["anyOf"], &schema["oneOf"]] {
            let mut taking = branches.as_array().into_iter().flatten().filter(|branch| self.takes(branch, kind, 0));
            if let (Some(branch), None) = (taking.next(), taking.next()) {
                self.unfold(branch, kind, all);
            }
        }
    }

    fn target(&self, schema: &Value) -> Option<&'a Value> {
        self.root.pointer(schema["$ref"].as_str()?.strip_prefix('#')?)
    }

    /// Whether a value of that kind may match `schema`, as far as its `type` says.
    fn takes(&self, schema: &Value, kind: &str, hops: usize) -> bool {
        let is = |said: &Value| said == kind || (kind == "number" && said == "integer");
        match &schema["type"] {
            Value::Array(types) => types.iter().any(is),
            Value::Null => match self.target(schema) {
                Some(target) if hops < SCHEMA_PLACES_MAX => self.takes(target, kind, hops + 1),
                _ => schema != &Value::Bool(false),
            },
            said => is(said),
        }
    }

    fn number(&mut self, schemas: &[&Value]) {
        let start = self.at;
        self.skip();
        let token = std::str::from_utf8(&self.text[start..self.at]).unwrap_or("");
        let is_integer = |schema: &&Value| match &schema["type"] {
            Value::Array(types) => types.iter().any(|kind| kind == "integer") && !types.iter().any(|kind| kind == "number"),
            said => said == "integer",
        };
        if !token.contains(['.', 'e', 'E']) || !schemas.iter().any(is_integer) {
            return;
        }
        let Some(whole) = token.parse().ok().and_then(whole) else { return };
        self.out += std::str::from_utf8(&self.text[self.taken..start]).unwrap_or("");
        self.out += &whole.to_string();
        self.taken = self.at;
    }

    fn object(&mut self, schemas: &[&'a Value]) {
        self.at += 1;
        while self.more(b'}') {
            let start = self.at;
            self.skip();
            let key: String = serde_json::from_slice(&self.text[start..self.at]).unwrap_or_default();
            self.space();
            self.at += 1; // the colon
            let of = |schema: &&'a Value| {
                let own = schema["properties"].get(&key);
                // This scan does not match keys against patterns.
                own.or_else(|| schema.get("additionalProperties").filter(|_| schema.get("patternProperties").is_none()))
            };
            self.value(schemas.iter().filter_map(of).collect());
        }
    }

    fn array(&mut self, schemas: &[&'a Value]) {
        self.at += 1;
        let mut index = 0;
        while self.more(b']') {
            let of = |schema: &&'a Value| schema["prefixItems"].get(index).or_else(|| schema.get("items"));
            self.value(schemas.iter().filter_map(of).collect());
            index += 1;
        }
    }

    /// Moves to the next item; returns false at the end of them.
    fn more(&mut self, end: u8) -> bool {
        self.space();
        match self.text.get(self.at) {
            Some(byte) if *byte == end => {
                self.at += 1;
                return false;
            }
            Some(b',') => self.at += 1,
            Some(_) => {}
            None => return false,
        }
        self.space();
        true
    }

    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips one value.
    fn skip(&mut self) {
        let mut depth = 0usize;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.at += 1;
                    while self.text.get(self.at).is_some_and(|byte| *byte != b'"') {
                        self.at += if self.text[self.at] == b'\\' { 2 } else { 1 };
                    }
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => {}
                _ => {
                    // Skips a number or a word, up to its last byte.
                    while self.text.get(self.at + 1).is_some_and(|next| next.is_ascii_alphanumeric() || b"+-.".contains(next)) {
                        self.at += 1;
                    }
                }
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }
}

/// The integer equal to a float, if JSON can carry it as an integer.
fn whole(float: f64) -> Option<i128> {
    let fits = float.fract() == 0.0 && (-(2.0_f64.powi(63))..2.0_f64.powi(64)).contains(&float);
    fits.then_some(float as i128)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_written_as_an_integer_where_the_schema_says_that_and_nothing_else() {
        let schema = json!({
            "type": "object",
            "properties": {
                "n": { "type": "integer" },
                "x": { "type": "number" },
                "maybe": { "type": ["integer", "null"] },
                "either": { "type": ["integer", "number"] },
                "optional": { "anyOf": [{ "type": "integer" }, { "type": "null" }] },
                "open": { "anyOf": [{ "type": "integer" }, { "type": "number" }] },
                "unsaid": { "anyOf": [{ "type": "integer" }, { "minimum": 0 }] },
                "list": { "type": "array", "prefixItems": [{ "type": "number" }], "items": { "type": "integer" } },
                "tree": { "$ref": "#/$defs/node" },
                "both": { "allOf": [{ "type": "number" }, { "type": "integer" }] },
            },
            "additionalProperties": { "type": "integer" },
            "$defs": { "node": { "anyOf": [{ "type": "null" }, {
                "type": "object", "properties": { "n": { "type": "integer" }, "left": { "$ref": "#/$defs/node" } } }] } },
        });
        assert!(says_integer(&schema) && !says_integer(&json!({ "properties": { "integer": { "type": "number" } } })));
        for (text, wanted) in [
            (r#"{"n":2.0}"#, r#"{"n":2}"#),
            (r#" { "n" : 1E3 , "x" : 2.0 } "#, r#" { "n" : 1000 , "x" : 2.0 } "#),
            (r#"{"maybe":-2.0,"either":2.0}"#, r#"{"maybe":-2,"either":2.0}"#),
            (r#"{"optional":2e0,"open":2.0,"unsaid":2.0}"#, r#"{"optional":2,"open":2.0,"unsaid":2.0}"#),
            (r#"{"list":[1.0,2.0,[3.0],"4.0",5.0]}"#, r#"{"list":[1.0,2,[3.0],"4.0",5]}"#),
            (r#"{"tree":{"left":{"left":null,"n":7.0},"n":1.0}}"#, r#"{"tree":{"left":{"left":null,"n":7},"n":1}}"#),
            (r#"{"b\"\u00e4":-0.0,"z":{"n":1.0},"both":3.0}"#, r#"{"b\"\u00e4":0,"z":{"n":1.0},"both":3}"#),
            (r#"{"\u006e":2.0}"#, r#"{"\u006e":2}"#),
            (r#"{"n":18446744073709549568.0,"a":-9223372036854775808.0}"#, r#"{"n":18446744073709549568,"a":-9223372036854775808}"#),
        ] {
            assert_eq!(numbers(&schema, text).as_deref(), Some(wanted), "{text}");
            assert_eq!(numbers(&schema, wanted), None, "{wanted}");
        }
        for same in ["{}", r#"{"n":1e300,"x":[{"n":2.0}]}"#, r#"{"n":18446744073709551616.0}"#, "2.0", "[2.0]", r#""2.0""#, r#"{"n":2.5}"#]
        {
            assert_eq!(numbers(&schema, same), None, "{same}");
        }
        assert_eq!(numbers(&json!({ "type": "integer" }), "2.0").as_deref(), Some("2"));
        assert_eq!(numbers(&json!(true), "2.0"), None);
    }

    /// Schemas that unfold endlessly, and documents of the greatest depth, on the stack of a thread of the
    /// host.
    #[test]
    fn the_deepest_and_the_widest_fit_a_thread() {
        let turning = json!({
            "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }],
            "$defs": { "a": { "allOf": [{ "$ref": "#" }, { "$ref": "#/$defs/a" }], "items": { "$ref": "#" }, "type": ["integer", "array"] } },
        });
        let text = format!("{}2.0{}", "[".repeat(126), "]".repeat(126));
        let work = move || numbers(&turning, &text);
        let written = std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
        assert_eq!(written.unwrap(), format!("{}2{}", "[".repeat(126), "]".repeat(126)));
    }
}
