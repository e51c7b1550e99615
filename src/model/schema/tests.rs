//! Tests which schemas have a proof, what is reported about those without one, and that the proof matches
//! what the validator does.

use std::thread;

use serde_json::{Value, json};

use super::*;
use crate::model::limits::{
    DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX, MANIFEST_STACK_BYTES, SCHEMA_CHAIN_MAX, SCHEMA_DOCUMENT_BYTES_MIN, SCHEMA_FINDINGS_MAX,
};

fn refused(schema: Value) -> String {
    match Schema::compile(schema, Edition::Current) {
        Ok(schema) => panic!("taken at {} units a byte", schema.cost.rate),
        Err(findings) => findings[0].what.clone(),
    }
}

fn taken(schema: Value) -> Schema {
    let text = schema.to_string();
    Schema::compile(schema, Edition::Current).unwrap_or_else(|why| panic!("{text:.300}: {why:?}"))
}

/// A level of `$defs` for each of `levels`, which `level` makes from a `$ref` to the next.
fn levels(levels: usize, level: impl Fn(Value) -> Value) -> Value {
    let mut defs = serde_json::Map::new();
    for at in 0..levels {
        defs.insert(format!("l{at}"), level(json!({ "$ref": format!("#/$defs/l{}", at + 1) })));
    }
    defs.insert(format!("l{levels}"), json!({ "type": "string", "minLength": 3 }));
    json!({ "$ref": "#/$defs/l0", "$defs": defs })
}

#[test]
fn what_ordinary_authors_write_is_checked_at_any_size() {
    let tree = json!({ "type": "object", "required": ["value"], "additionalProperties": false, "properties": {
        "value": { "type": "string", "maxLength": 100 }, "children": { "type": "array", "items": { "$ref": "#" } } } });
    let anything = json!({ "anyOf": [
        { "type": ["string", "number", "boolean", "null"] },
        { "type": "array", "items": { "$ref": "#" } },
        { "type": "object", "additionalProperties": { "$ref": "#" } } ] });
    let closed = json!({ "$defs": { "base": { "type": "object", "properties": { "id": { "type": "integer" } }, "required": ["id"] } },
        "allOf": [{ "$ref": "#/$defs/base" }], "properties": { "name": { "type": "string" } }, "unevaluatedProperties": false });
    let texts = json!({ "type": "object", "properties": { "texts": { "type": "array", "minItems": 1, "maxItems": 10_000, "uniqueItems": true,
        "items": { "type": "string", "minLength": 1, "maxLength": 8192 } }, "mode": { "enum": ["a", "b", "c"] } }, "required": ["texts"] });
    let shape = json!({ "oneOf": [{ "properties": { "kind": { "const": "circle" }, "r": { "type": "number" } }, "required": ["kind", "r"] },
        { "properties": { "kind": { "const": "box" }, "w": { "minimum": 0 }, "h": { "minimum": 0 } }, "required": ["kind"] }] });
    let address = json!({ "type": "string", "pattern": "^https?://[^/?#]+(/[^?#]*)?$", "maxLength": 500 });
    let expression = json!({ "type": "object", "required": ["op"], "properties": { "op": { "enum": ["add", "neg", "num"] },
        "left": { "$ref": "#" }, "right": { "$ref": "#" }, "value": { "type": "number" } },
        "oneOf": [{ "required": ["left", "right"] }, { "required": ["left"], "not": { "required": ["right"] } }, { "required": ["value"] }] });
    for schema in [json!({}), json!(true), tree.clone(), anything, closed, texts, shape, address, expression] {
        let schema = taken(schema);
        assert_eq!(schema.document_bytes_max(), DOCUMENT_BYTES_MAX, "{} units a byte: {schema:?}", schema.cost.rate);
    }
    // The proof does not change the meaning of a schema.
    let tree = taken(tree);
    let check = |text: &str| tree.check(&Document::parse(text, "it").unwrap(), "it", Code::InvalidInput);
    check(r#"{"value":"a","children":[{"value":"b"}]}"#).unwrap();
    assert_eq!(check(r#"{"value":"a","children":[{"value":1}]}"#).unwrap_err().detail["violations"][0]["pointer"], "/children/0/value");
}

#[test]
fn a_schema_that_could_freeze_the_host_is_refused_with_its_place_its_cost_and_what_to_write_instead() {
    let two = |word: &'static str| levels(60, move |next| json!({ word: [next.clone(), next] }));
    let marks = |depth: usize| {
        (0..depth).fold(
            json!({ "properties": { "a": true } }),
            |inner, _| json!({ "allOf": [inner], "properties": { "b": true }, "unevaluatedProperties": false }),
        )
    };
    let ways = json!({ "$defs": { "e": { "oneOf": [
        { "properties": { "op": { "const": "add" }, "left": { "$ref": "#/$defs/e" } } },
        { "properties": { "op": { "const": "mul" }, "left": { "$ref": "#/$defs/e" } } }] } }, "$ref": "#/$defs/e" });
    let chain = levels(5_000, |next| json!({ "allOf": [next] }));
    let deep_chain = {
        let mut chain = levels(40, |next| json!({ "allOf": [next] }));
        chain["$defs"]["l40"] = json!({ "items": { "$ref": "#" } });
        chain
    };
    let cases: Vec<(&str, Value, &str)> = vec![
        ("anyOf of two refs", two("anyOf"), "at `/$defs/"),
        ("oneOf of two refs", two("oneOf"), "steps for each of its bytes"),
        ("allOf of two refs", two("allOf"), "steps for each of its bytes"),
        ("not and if", levels(60, |next| json!({ "not": next.clone(), "if": next })), "steps for each of its bytes"),
        ("dependentSchemas", levels(60, |next| json!({ "dependentSchemas": { "a": next.clone(), "b": next } })), "steps for each"),
        ("names of names", levels(60, |next| json!({ "propertyNames": { "allOf": [next.clone(), next] } })), "steps for each"),
        ("patternProperties", levels(60, |next| json!({ "patternProperties": { "a": next.clone(), ".": next } })), "steps for each"),
        ("contains and items", levels(60, |next| json!({ "contains": next.clone(), "items": next })), "steps for each"),
        ("unevaluatedProperties 20 deep", marks(20), "compiling it makes"),
        ("an expression on two ways", ways, "on 2 ways for the key `left`"),
        ("a circle at one place", json!({ "allOf": [{ "$ref": "#" }] }), "would never end"),
        (
            "a circle of two",
            json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "anyOf": [{ "$ref": "#/$defs/a" }] } }, "$ref": "#/$defs/a" }),
            "would never end",
        ),
        ("a chain that fills the stack", chain, "more than 1024 levels"),
        ("a chain on each level of the document", deep_chain, "at most 1024 are held"),
        ("a long count", json!({ "pattern": "[ab]*a[ab]{40000}c" }), "steps for each of its bytes"),
        ("counts of counts", json!({ "pattern": "((a{100}){100}){100}" }), "once compiled"),
        ("many letters often", json!({ "pattern": "\\p{L}{1000}" }), "once compiled"),
        ("a long pattern", json!({ "pattern": "\\d".repeat(4_096) }), "a pattern of 8192 bytes"),
        (
            "a dynamic reference",
            json!({ "$defs": { "x": { "const": { "$dynamicRef": "#a" } } }, "$ref": "#/$defs/x/const" }),
            "`$dynamicRef`",
        ),
        ("another base", json!({ "properties": { "a": { "$id": "https://a.example/", "$ref": "#" } } }), "`$id` below the root"),
        (
            "another draft",
            json!({ "items": { "$schema": "http://json-schema.org/draft-07/schema#", "format": "regex" } }),
            "`$schema` below",
        ),
        ("a reference out", json!({ "$ref": "https://json-schema.org/draft/2020-12/schema" }), "no other document is read"),
        ("one anchor twice", json!({ "$defs": { "a": { "$anchor": "x" }, "b": { "$anchor": "x" } }, "$ref": "#x" }), "leads nowhere"),
        (
            "a list of large constants",
            json!({ "items": { "enum": (0..20_000).map(|n| json!([n])).collect::<Vec<_>>() } }),
            "steps for each",
        ),
    ];
    for (name, schema, says) in cases {
        let why = refused(schema);
        let is_lost = ["a reference out", "one anchor twice"].contains(&name);
        let first = if is_lost { "a reference cannot be followed" } else { "the cost of checking is not bounded" };
        assert!(why.starts_with(&format!("{first} at `/")), "{name}: {why}");
        assert!(why.contains(says), "{name}: {why}");
        assert!(why.len() < 700, "{name}: {why}");
    }
}

#[test]
fn a_dear_schema_is_checked_for_small_documents_and_says_up_to_which_size() {
    let schema = taken(json!({ "pattern": "[ab]*a[ab]{3000}c" }));
    let most = schema.document_bytes_max();
    assert!((SCHEMA_DOCUMENT_BYTES_MIN..DOCUMENT_BYTES_MAX / 8).contains(&most), "{most}");
    let large = Document::from(Value::from("ab".repeat(most / 2)));
    for (code, becomes) in [(Code::InvalidInput, Code::TooLarge), (Code::InvalidOutput, Code::InvalidOutput)] {
        let fault = schema.check(&large, "input of `run`", code).unwrap_err();
        assert_eq!(fault.code, becomes);
        assert!(fault.message.contains(&format!("its schema is checked for at most {most}")), "{fault}");
    }
}

#[test]
fn unique_items_are_found_in_time_that_no_input_chooses() {
    let schema = taken(json!({ "items": { "type": ["array", "object", "number", "string", "null"] }, "uniqueItems": true }));
    let check = |items: Value| schema.check(&Document::from(items), "it", Code::InvalidInput);
    for unique in [
        json!([1, 2]),
        json!([1, "1"]),
        json!([[1], [[1]]]),
        json!([[1, 2], [[1], 2], [1, [2]]]),
        json!([0.5, 0.25]),
        json!([null, []]),
        json!([{ "a": 1 }, { "a": 2 }]),
        json!([9_007_199_254_740_993_u64, 9_007_199_254_740_992_u64]),
        json!(["a", ["a"]]),
    ] {
        check(unique.clone()).unwrap_or_else(|fault| panic!("{unique}: {fault}"));
    }
    for twice in [
        json!([1, 1.0]),
        json!([0, -0.0]),
        json!([{ "a": 1, "b": [2] }, { "b": [2.0], "a": 1 }]),
        json!(["x", "y", "x"]),
        json!([1e20, 100_000_000_000_000_000_000_u128 as f64]),
    ] {
        let fault = check(twice.clone()).expect_err(&twice.to_string());
        assert_eq!(fault.detail["violations"][0]["schema"], "/uniqueItems", "{fault}");
    }
    // All of these hash alike if lengths are not hashed; the validator's own `uniqueItems` compares them in
    // pairs: 2^14 of them, for minutes.
    let bracketed = |bits: usize| {
        let parts: Vec<_> = (0..14).map(|bit| if bits >> bit & 1 == 1 { json!([[1]]) } else { json!([1]) }).collect();
        Value::Array(parts)
    };
    check((0..1 << 14).map(bracketed).collect()).unwrap();
}

#[test]
fn a_mismatch_is_told_in_few_words_however_large_the_document() {
    let schema = taken(json!({ "type": "object", "properties": { "a": { "type": "string" } }, "additionalProperties": false }));
    let keys: serde_json::Map<String, Value> = (0..200_000).map(|n| (format!("key{n}"), json!(1))).collect();
    let fault = schema.check(&Document::from(Value::Object(keys)), "input", Code::InvalidInput).unwrap_err();
    assert!(serde_json::to_string(&fault).unwrap().len() < 8_000);
    assert_eq!(fault.detail["violations"][0]["pointer"], "/");

    let alternatives = taken(json!({ "items": { "anyOf": [{ "type": "string" }, { "type": "null" }] } }));
    let numbers = |count: usize| Document::from(Value::from(vec![1; count]));
    let small = alternatives.check(&numbers(20), "input", Code::InvalidInput).unwrap_err();
    assert_eq!(small.detail["violations"].as_array().unwrap().len(), SCHEMA_VIOLATIONS_MAX);
    let large = alternatives.check(&numbers(1 << 20), "input", Code::InvalidInput).unwrap_err();
    assert!(large.message.contains("the place is not told") && large.hint.is_some(), "{large}");
}

/// (schema, document, place, the expected text, the found text)
#[test]
fn each_mismatch_says_what_was_expected_and_what_was_found() {
    let named = json!({ "type": "object", "required": ["name"], "properties": { "name": { "type": "string" }, "api_key": { "type": "integer" } },
        "additionalProperties": false });
    for (schema, document, place, expected, found) in [
        (&named, json!({ "name": 5 }), "/name", "wanted a text (string)", "5"),
        (&named, json!({ "name": { "a": 1 } }), "/name", "wanted a text (string)", "an object with the keys `a`"),
        (&named, json!("Ada"), "/", "wanted an object", "the text \"Ada\""),
        (&named, json!(null), "/", "wanted an object", "null"),
        (&named, json!({}), "/", "wanted the key `name`", "an empty object"),
        (&named, json!({ "name": "a", "nmae": 1 }), "/", "wanted no key that the schema does not name", "`nmae`"),
        (
            &named,
            json!({ "name": "a", "api_key": "planted" }),
            "/api_key",
            "wanted an integer",
            "a text of 7 characters, which is not shown",
        ),
        (&json!({ "required": ["name"] }), json!({ "nme": 1 }), "/", "wanted the key `name`", "(`name` may be meant by `nme`)"),
        (&json!({ "enum": ["a", 2] }), json!("c"), "/", "wanted one of \"a\", 2", "the text \"c\""),
        (&json!({ "const": 1 }), json!(2), "/", "wanted 1", "2"),
        (&json!({ "minimum": 0 }), json!(-1), "/", "wanted at least 0", "-1"),
        (&json!({ "type": "string", "maxLength": 2 }), json!("äöü"), "/", "wanted at most 2 characters", "3 characters"),
        (&json!({ "minItems": 2 }), json!([1]), "/", "wanted at least 2 items", "a list of 1"),
        (&json!({ "items": { "pattern": "^a$" } }), json!(["a", "b"]), "/1", "wanted a text that matches `^a$`", "the text \"b\""),
        (&json!({ "uniqueItems": true }), json!([1, 1]), "/", "wanted each item once", "one twice in a list of 2"),
        (&json!({ "anyOf": [{ "type": "string" }, { "type": ["null", "array"] }] }), json!(3), "/", "wanted a text (string), or", "3"),
        (&json!({ "propertyNames": { "maxLength": 1 } }), json!({ "ab": 1 }), "/", "wanted for the name of each key at most 1", "\"ab\""),
        (&json!({ "not": { "type": "null" } }), json!(null), "/", "wanted nothing that matches `not`", "null"),
        (&json!({ "properties": { "a": false } }), json!({ "a": [] }), "/a", "wanted nothing here", "an empty list"),
        (&json!({ "multipleOf": 3 }), json!(4), "/", "wanted a multiple of 3", "4"),
    ] {
        let fault = taken(schema.clone()).check(&Document::from(document), "it", Code::InvalidInput).unwrap_err();
        let told = &fault.detail["violations"][0];
        assert_eq!(told["pointer"], place, "{fault}");
        let holds = |key: &str, part: &str| told[key].as_str().is_some_and(|text| text.contains(part));
        assert!(holds("expected", expected) && holds("found", found), "{schema}: {told}");
        assert!(fault.message.contains(expected) && fault.message.contains(found), "{fault}");
    }
    let long =
        taken(json!({ "type": "integer" })).check(&Document::from(json!("x ".repeat(1 << 20))), "it", Code::InvalidOutput).unwrap_err();
    assert!(long.message.len() < 300 && long.message.contains("of 2097152 characters"), "{long}");
}

/// As deep as a proof allows, on the stack of a thread of the host, for valid and invalid documents.
#[test]
fn the_deepest_schema_that_is_taken_fits_a_thread() {
    let deep = (0..DOCUMENT_DEPTH_MAX - 2).fold(json!(1), |inner, _| json!([inner]));
    let flat = levels(SCHEMA_CHAIN_MAX / 2 - 3, |next| json!({ "allOf": [next] }));
    let mut turning = levels(2, |next| json!({ "anyOf": [{ "type": "null" }, next] }));
    turning["$defs"]["l2"] = json!({ "type": "array", "items": { "$ref": "#" } });
    let read = |schema| thread::Builder::new().stack_size(MANIFEST_STACK_BYTES).spawn(|| taken(schema)).unwrap().join().unwrap();
    let schemas = [(read(flat), json!("ab")), (read(turning), deep)];
    let work = move || {
        for (schema, document) in schemas {
            let fault = schema.check(&Document::from(document.clone()), "it", Code::InvalidInput).unwrap_err();
            assert_eq!(fault.code, Code::InvalidInput);
            let listed = schema.validator.iter_errors(&document).count() + usize::from(schema.validator.validate(&document).is_err());
            assert!(listed >= 2);
        }
    };
    thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
}

fn findings(schema: &Value, edition: Edition) -> Vec<Finding> {
    Schema::compile(schema.clone(), edition).err().unwrap_or_default()
}

#[test]
fn a_format_is_held_and_what_nobody_holds_is_said() {
    let schema =
        taken(json!({ "properties": { "mail": { "format": "email" }, "n": { "type": "integer", "format": "int32", "x-unit": "s" } },
        "items": { "format": "uuid" }, "discriminator": { "propertyName": "kind" } }));
    let check = |value: Value| schema.check(&Document::from(value), "it", Code::InvalidInput);
    for good in [json!({ "mail": "a@b.org", "n": 1_u64 << 40 }), json!({ "mail": 3 }), json!(["123e4567-e89b-12d3-a456-426614174000"])] {
        check(good.clone()).unwrap_or_else(|fault| panic!("{good}: {fault}"));
    }
    for (bad, pointer) in [(json!({ "mail": "nothing like it" }), "/mail"), (json!(["nope"]), "/0")] {
        assert_eq!(check(bad).unwrap_err().detail["violations"][0]["pointer"], pointer);
    }
    let words: Vec<_> = schema.not_held().iter().map(|(pointer, word)| format!("{pointer} {word}")).collect();
    assert_eq!(words, ["/discriminator `discriminator`", "/properties/n/format `format = \"int32\"`", "/properties/n/x-unit `x-unit`"]);
    assert!(schema.warnings().is_empty());
}

#[test]
fn what_a_schema_says_in_vain_is_refused_at_its_place_with_what_to_write() {
    let seven = "http://json-schema.org/draft-07/schema#";
    let cases: Vec<(Value, &str, &str)> = vec![
        (json!({ "properties": { "a": { "format": "emial" } } }), "/properties/a/format", "nearest known format: `email`"),
        (json!({ "items": { "format": "zip" } }), "/items/format", "a name of your own that begins with `x-`"),
        (json!({ "tpye": "object" }), "/tpye", "nearest known key: `type`"),
        (json!({ "definitions": {} }), "/definitions", "`$defs`"),
        (json!({ "anyOf": [true, { "nullable": true }] }), "/anyOf/1/nullable", "\"null\""),
        (json!({ "example": 1 }), "/example", "`examples`"),
        (json!({ "items": [true] }), "/items", "`prefixItems`"),
        (json!({ "$schema": 7 }), "/$schema", "wanted \"https://json-schema.org/draft/2020-12/schema\""),
        (json!({ "$schema": "http://json-schema.org/draft-04/schema#" }), "/$schema", "names draft-04"),
        (json!({ "$schema": "https://spec.openapis.org/oas/3.1/dialect/base" }), "/$schema", "a dialect of OpenAPI"),
        (json!({ "$schema": "https://example.org/mine" }), "/$schema", "which this Hob does not know"),
        (json!({ "$schema": seven, "prefixItems": [true] }), "/prefixItems", "means nothing in `http://json-schema.org/draft-07/schema`"),
        (
            json!({ "$schema": seven, "properties": { "a": { "$ref": "#", "maxLength": 3 } } }),
            "/properties/a/$ref",
            "`maxLength` beside `$ref`",
        ),
        (json!({ "$schema": "https://json-schema.org/draft/2019-09/schema", "unevaluatedItems": false }), "/unevaluatedItems", "2019-09"),
        (json!({ "pattern": "^(?!api-)" }), "/pattern", "look-around"),
        // Not a place of a schema, until a `$ref` leads there.
        (json!({ "const": { "format": "emial" }, "items": { "$ref": "#/const" } }), "/const", "no format \"emial\""),
    ];
    for (schema, pointer, says) in cases {
        let found = findings(&schema, Edition::Current);
        let found = found.first().unwrap_or_else(|| panic!("taken: {schema}"));
        assert!(found.pointer == pointer && found.what.contains(says), "{schema}: {found:?}");
    }
    // Of many findings, some are reported.
    let many: serde_json::Map<String, Value> = (0..100).map(|at| (format!("p{at}"), json!({ "format": "emial" }))).collect();
    assert_eq!(findings(&json!({ "properties": many }), Edition::Current).len(), SCHEMA_FINDINGS_MAX);
    // A dialect in which all used words mean the same as here is accepted.
    for same in [
        json!({ "$schema": seven, "type": "object", "properties": { "a": { "$ref": "#", "description": "d" } }, "if": true, "then": {} }),
        json!({ "$schema": "https://json-schema.org/draft/2019-09/schema", "dependentRequired": { "a": ["b"] } }),
        json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [true] }),
        // Names of properties are not words.
        json!({ "properties": { "format": { "const": "emial" }, "definitions": true }, "default": { "format": "emial" } }),
    ] {
        taken(same);
    }
}

#[test]
fn a_schema_of_an_older_install_is_read_as_it_was_with_warnings() {
    let schema = json!({ "$schema": "http://json-schema.org/draft-04/schema#",
        "properties": { "a": { "format": "emial" }, "b": { "format": "email" }, "c": { "format": "int32" } } });
    let older = Schema::compile(schema.clone(), Edition::Older).unwrap();
    older.check(&Document::from(json!({ "a": "x", "b": "x" })), "it", Code::InvalidInput).unwrap();
    let told: Vec<_> = older.warnings().iter().map(|found| found.pointer.as_str()).collect();
    assert_eq!(told, ["/$schema", "/properties/a/format", "/properties/b/format"]);
    assert_eq!(findings(&schema, Edition::Current).len(), 2);
    // What an older Hob refused is still refused.
    assert!(!findings(&json!({ "tpye": "object" }), Edition::Older).is_empty());
}

/// Three times what a manifest may have, and a name some hundred times longer than usual ones.
#[test]
fn names_that_are_long_cost_neither_memory_nor_a_callers_time() {
    let words: serde_json::Map<_, _> = (0..14_000).map(|n| (format!("x-{n}"), json!(1))).collect();
    let long = json!({ "properties": { "~".repeat(120_000): words } });
    let findings = Schema::compile(long, Edition::Current).map(|_| ()).unwrap_err();
    assert!(findings.len() == 1 && findings[0].what.contains("give what has many places below it a shorter name"), "{findings:?}");
    // Found keys are compared with a missing one, in case of a typo; that costs the product of the two
    // lengths.
    let schema = taken(json!({ "required": ["a".repeat(200_000)] }));
    let document = Document::from(json!({ "b".repeat(200_000): 1 }));
    let fault = schema.check(&document, "it", Code::InvalidInput).unwrap_err();
    assert!(!fault.message.contains("may be meant"), "{fault}");
}

/// Each checking word, in each dialect: it is refused if that dialect does not have it, and an installed
/// recipe with it keeps working.
#[test]
fn a_word_is_held_against_the_vocabulary_of_the_dialect_that_is_named() {
    let drafts = [
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
    ];
    // The first of the three dialects that has the word; 3 for none.
    let words = [
        ("if", json!(true), 1),
        ("then", json!(true), 1),
        ("else", json!(true), 1),
        ("dependentRequired", json!({}), 2),
        ("dependentSchemas", json!({}), 2),
        ("minContains", json!(1), 2),
        ("maxContains", json!(1), 2),
        ("$anchor", json!("a"), 2),
        ("unevaluatedProperties", json!(true), 2),
        ("unevaluatedItems", json!(true), 3),
        ("prefixItems", json!([true]), 3),
        ("contains", json!(true), 0),
        ("const", json!(1), 0),
        ("propertyNames", json!(true), 0),
        ("exclusiveMinimum", json!(1), 0),
        ("exclusiveMaximum", json!(1), 0),
        ("examples", json!([1]), 0),
        ("readOnly", json!(true), 0),
        ("contentEncoding", json!("base64"), 0),
    ];
    for (word, value, since) in words {
        for (at, draft) in drafts.into_iter().enumerate() {
            let schema = json!({ "$schema": draft, "items": { word: value } });
            let found = findings(&schema, Edition::Current);
            let told = found.iter().any(|found| found.pointer == format!("/items/{word}") && found.what.contains("which `$schema` names"));
            assert!(told == (at < since) && told != found.is_empty(), "{schema}: {found:?}");
            let older = Schema::compile(schema, Edition::Older).unwrap();
            assert_eq!(older.warnings().len(), usize::from(told), "{:?}", older.warnings());
        }
        taken(json!({ "items": { word: value } }));
    }
    for foreign in ["draft-05", "draft-04", "draft-03"] {
        let schema = json!({ "$schema": format!("http://json-schema.org/{foreign}/schema#"), "if": true });
        let found = findings(&schema, Edition::Current);
        assert!(found[0].what.contains(foreign), "{found:?}");
        assert_eq!(Schema::compile(schema, Edition::Older).unwrap().warnings().len(), 1);
    }
}

/// Parts of a document and its schema that a stranger chose: a key that is a secret, and texts that reverse
/// the writing direction.
#[test]
fn no_secret_and_nothing_that_commands_is_told_of_a_document() {
    let schema = json!({
        "additionalProperties": { "enum": ["\u{202e}exe", "a\u{1b}[2J"] },
        "propertyNames": { "pattern": "^[^\u{2066}]*$" },
        "required": ["\u{202e}missing"]
    });
    let schema = Schema::compile(schema, Edition::Current).unwrap();
    let document = json!({ "hf_planted0": 1, "a\u{2066}b": "https://me:planted1@host.example", "\u{202e}missing ": "pwd=planted2" });
    let fault = schema.check(&Document::from(document), "input", Code::InvalidInput).unwrap_err();
    let told = format!("{} {}", fault.message, fault.detail);
    assert!(fault.detail["violations"].as_array().unwrap().len() > 4, "{told}");
    assert!(!told.contains("planted") && !told.contains(crate::model::printable::commands), "{told:?}");
    assert!(told.contains("[11 characters]") && told.contains("u{202e}exe"), "{told}");
}
