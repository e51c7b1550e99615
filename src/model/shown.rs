//! Shows a stranger's value in a message: shortened, on one line, and without possible secrets.
//!
//! Every message that says what was found uses this file.

use serde_json::Value;
use toml::de::DeValue;

use super::{
    limits::{SECRET_NAME_CHARS_MAX, SHOWN_KEYS_MAX, SHOWN_NAME_CHARS_MAX, SHOWN_TEXT_CHARS_MAX},
    printable::{in_a_line, in_quotes},
    secret::{is_secret_name, is_secret_text},
};

/// Describes a found value, e.g. `the text "abc"`, `5`, `a list of 3`, `an object with the keys "a", "b"`.
/// `name` is the value's key, or the path to it.
pub fn found(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(_) if is_secret_name(name) => "a number, which is not shown because it may be a secret".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => found_text(name, text),
        Value::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(entries) if entries.is_empty() => "an empty object".to_owned(),
        Value::Object(entries) => format!("an object with the keys {}", keys(entries.keys().map(String::as_str))),
    }
}

/// [`found`] for a text.
pub fn found_text(name: &str, text: &str) -> String {
    let chars = text.chars().count();
    // Only the shown part is examined, and the rest of a word that is cut.
    let seen = text.char_indices().nth(SHOWN_TEXT_CHARS_MAX + SECRET_NAME_CHARS_MAX).map_or(text, |(at, _)| &text[..at]);
    match chars {
        0 => "an empty text".to_owned(),
        _ if is_secret_name(name) || is_secret_text(seen) => {
            format!("a text of {chars} characters, which is not shown because it may be a secret")
        }
        chars if chars > SHOWN_TEXT_CHARS_MAX => {
            let head: String = text.chars().take(SHOWN_TEXT_CHARS_MAX).collect();
            format!("the text \"{}...\" of {chars} characters", in_quotes(&head))
        }
        _ => format!("the text \"{}\"", in_quotes(text)),
    }
}

/// [`found`] for a value of a TOML file.
pub fn found_toml(name: &str, value: &DeValue) -> String {
    match value {
        DeValue::String(text) => found_text(name, text),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Integer(number) => found_number(number.as_str()),
        DeValue::Float(number) => found_number(number.as_str()),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
        DeValue::Array(items) => format!("a list of {}", items.len()),
        DeValue::Table(table) if table.is_empty() => "an empty table".to_owned(),
        DeValue::Table(table) => format!("a table with the keys {}", keys(table.iter().map(|(name, _)| name.get_ref().as_ref()))),
    }
}

/// A number as it was written; TOML does not bound its length.
fn found_number(text: &str) -> String {
    match text.get(..SHOWN_NAME_CHARS_MAX) {
        Some(head) if text.len() > head.len() => format!("the number {head}... of {} digits", text.len()),
        _ => text.to_owned(),
    }
}

/// The names of keys, each in quotes: the first few, and the number of the others.
pub fn keys<'k>(keys: impl Iterator<Item = &'k str>) -> String {
    let (mut shown, mut more) = (Vec::new(), 0);
    for key in keys {
        match shown.len() < SHOWN_KEYS_MAX {
            true => shown.push(format!("`{}`", name(key))),
            false => more += 1,
        }
    }
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A name from an untrusted source, such as a key, for a message: shortened, on one line, and without
/// possible secrets.
pub fn name(key: &str) -> String {
    let seen = key.char_indices().nth(SHOWN_NAME_CHARS_MAX + SECRET_NAME_CHARS_MAX).map_or(key, |(at, _)| &key[..at]);
    if is_secret_text(seen) {
        return format!("[{} characters]", key.chars().count());
    }
    let mut name = in_a_line(&key.chars().take(SHOWN_NAME_CHARS_MAX).collect::<String>());
    if key.chars().nth(SHOWN_NAME_CHARS_MAX).is_some() {
        name.push_str("...");
    }
    name
}

/// A JSON pointer for a message; the whole document is `/`. A key that may be a secret is hidden; other keys
/// stay unchanged, for programs that follow the pointer.
pub fn pointer(pointer: &str) -> String {
    match pointer.is_empty() {
        true => "/".to_owned(),
        false => pointer.split('/').map(segment).collect::<Vec<_>>().join("/"),
    }
}

/// Dotted keys for a message: the path to a place in a TOML file. A key may itself contain dots, so
/// everything is hidden from the first key on that may be part of a secret.
pub fn dotted(path: &str) -> String {
    if !is_secret_text(path) {
        return in_a_line(path);
    }
    let plain = |key: &&str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let mut shown: Vec<String> = path.split('.').take_while(plain).map(segment).collect();
    let left: usize = path.split('.').skip(shown.len()).map(|key| key.chars().count() + 1).sum();
    if left > 0 {
        shown.push(format!("[{} characters]", left - 1));
    }
    shown.join(".")
}

fn segment(key: &str) -> String {
    match is_secret_text(key) {
        true => format!("[{} characters]", key.chars().count()),
        false => in_a_line(key),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_value_has_its_words() {
        for (value, says) in [
            (json!(null), "null"),
            (json!(false), "false"),
            (json!(-2.5), "-2.5"),
            (json!(""), "an empty text"),
            (json!("Ada"), "the text \"Ada\""),
            (json!("a\"\n\u{1b}[2J\u{202e}"), "the text \"a\\\"\\n\\u{1b}[2J\\u{202e}\""),
            (json!([]), "an empty list"),
            (json!([1, 2]), "a list of 2"),
            (json!({}), "an empty object"),
            (json!({ "nme": 1, "b\n": 2 }), "an object with the keys `b\\n`, `nme`"),
        ] {
            assert_eq!(found("x", &value), says);
        }
    }

    #[test]
    fn what_is_long_is_cut_and_counted() {
        let long = "ä ".repeat(1 << 20);
        let said = found("x", &json!(long));
        assert!(said.chars().count() < 2 * SHOWN_TEXT_CHARS_MAX && said.ends_with("of 2097152 characters"), "{said}");
        let many: serde_json::Map<_, _> = (0..1000).map(|n| (format!("{n:04}{}", "k ".repeat(500)), json!(n))).collect();
        let said = found("x", &Value::Object(many));
        assert!(said.len() < SHOWN_KEYS_MAX * (SHOWN_NAME_CHARS_MAX + 10) + 100 && said.ends_with("and 992 more"), "{said}");
    }

    #[test]
    fn a_path_is_shown_without_what_may_be_a_secret_in_it() {
        for (found, wanted) in [
            (pointer(""), "/"),
            (pointer("/items/0/a~1b"), "/items/0/a~1b"),
            (pointer("/keys/hf_planted/x"), "/keys/[10 characters]/x"),
            (pointer("/a\u{202e}b/c\n"), "/a\\u{202e}b/c\\n"),
            (dotted("environments.index_urls"), "environments.index_urls"),
            (dotted("operations.run.input.properties.api_key"), "operations.run.input.properties.api_key"),
            (dotted("recipes.https://me:planted@host.example/x"), "recipes.[33 characters]"),
            (dotted("https://me:planted@host.example/x"), "[33 characters]"),
            (dotted("a.hf_planted.b"), "a.[10 characters].b"),
            (dotted("a\u{202e}"), "a\\u{202e}"),
        ] {
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        let secret = |name: &str, text: &str| {
            let said = found(name, &json!(text));
            assert!(!said.contains(text) && said.contains("may be a secret"), "{name}: {said}");
        };
        secret("api_key", "planted");
        secret("pwd", "planted");
        secret("/users/0/access_key", "planted");
        secret("x", "Server=db;Password=planted");
        secret("userPassword", "planted");
        secret("HF_TOKEN", "planted");
        assert!(!found("/password/0", &json!(1234)).contains("1234"));
        secret("x", "hf_planted");
        secret("x", "Bearer planted");
        secret("x", "https://me:planted@host.example/x");
        secret("x", "-----BEGIN PRIVATE KEY-----");
        secret("x", "the key is 0a1b2c3d4e5f60718293a4b5c6d7e8f9");
        for plain in [
            "a long but ordinary sentence of a person, with 3 numbers",
            "sentence-transformers/all-MiniLM-L6-v2",
            "https://host.example/a?b=c@d",
        ] {
            assert!(found("x", &json!(plain)).contains(plain), "{plain}");
        }
        assert_eq!(found("max_tokens", &json!("many")), "the text \"many\"");
        assert_eq!(found("/model/tokenizer", &json!("fast")), "the text \"fast\"");
        assert_eq!(found("max_tokens", &json!(-1)), "-1");
        // Only the shown part is examined, so a long text takes no time.
        let long = "a: b=".repeat(1 << 20);
        assert!(found("x", &json!(long)).starts_with("the text \"a: b="));
        assert!(!found("x", &json!({ "0a1b2c3d4e5f60718293a4b5c6d7e8f9": 1 })).contains("0a1b2c"));
    }
}
