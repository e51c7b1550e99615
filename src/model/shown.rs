//! A stranger's value in a few words, for a message: shortened, on one line, and without what may be a secret.
//!
//! Every complaint that says what was found takes its words from here.

use std::borrow::Cow;

use serde_json::Value;
use toml::de::DeValue;

use super::limits::{SHOWN_KEYS_MAX, SHOWN_NAME_CHARS_MAX, SHOWN_TEXT_CHARS_MAX};

/// Parts of a key's name whose value is not shown.
const SECRET_NAMES: &[&str] =
    &["password", "passwd", "passphrase", "secret", "token", "apikey", "credential", "authorization", "privatekey"];

/// How the keys and tokens of well-known services begin.
const SECRET_BEGINNINGS: &[&str] = &[
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "hf_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xox",
    "AKIA",
    "ASIA",
    "AIza",
    "Bearer ",
    "Basic ",
];

/// A run of letters and digits from this length on is taken for a key.
const SECRET_RUN: usize = 20;

/// What was found, e.g. `the text "abc"`, `5`, `a list of 3`, `an object with the keys "a", "b"`. `name` is the key at which it stands, or the
/// path to it.
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

/// The same for a text.
pub fn found_text(name: &str, text: &str) -> String {
    let chars = text.chars().count();
    let plain =
        |text: &str| -> String { text.chars().flat_map(|c| if is_plain(c) { vec![c] } else { c.escape_default().collect() }).collect() };
    match chars {
        0 => "an empty text".to_owned(),
        _ if is_secret(name, text) => format!("a text of {chars} characters, which is not shown because it may be a secret"),
        chars if chars > SHOWN_TEXT_CHARS_MAX => {
            let head: String = text.chars().take(SHOWN_TEXT_CHARS_MAX).collect();
            format!("the text \"{}...\" of {chars} characters", plain(&head))
        }
        _ => format!("the text \"{}\"", plain(text)),
    }
}

/// The same for a value of a TOML file.
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

/// A number as it was written, which TOML does not bound.
fn found_number(text: &str) -> String {
    match text.get(..SHOWN_NAME_CHARS_MAX) {
        Some(head) if text.len() > head.len() => format!("the number {head}... of {} digits", text.len()),
        _ => text.to_owned(),
    }
}

/// The names of keys, each in quotes: the first few, and how many more there are.
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

/// A key's name as it can stand in a message.
fn name(key: &str) -> String {
    if is_secret("", key) {
        return format!("[{} characters]", key.chars().count());
    }
    let mut name: String =
        key.chars().take(SHOWN_NAME_CHARS_MAX).flat_map(|c| if is_plain(c) { vec![c] } else { c.escape_default().collect() }).collect();
    if key.chars().nth(SHOWN_NAME_CHARS_MAX).is_some() {
        name.push_str("...");
    }
    name
}

/// Whether a text may be a password, a token or a key: by the name of the key at which it stands, by how it begins, or because nobody writes so.
fn is_secret(name: &str, text: &str) -> bool {
    let is_marked = SECRET_BEGINNINGS.iter().any(|start| text.starts_with(start)) || text.contains("-----BEGIN");
    let has_user =
        text.split_once("://").is_some_and(|(_, rest)| rest.split(['/', '?', '#']).next().is_some_and(|host| host.contains('@')));
    let is_run = |run: &str| {
        run.len() >= SECRET_RUN && run.bytes().any(|byte| byte.is_ascii_digit()) && run.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    is_secret_name(name) || is_marked || has_user || text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(is_run)
}

fn is_secret_name(name: &str) -> bool {
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Whether a character can stand in one line of text for people.
fn is_plain(c: char) -> bool {
    !(commands(c) || c == '\n' || c == '\t' || c == '"')
}

/// What a terminal obeys, or what makes text look like other text: controls of both kinds, turns of the writing's direction, separators and
/// marks that nobody sees. Joiners are none of them: words and emoji are made with them.
pub fn commands(c: char) -> bool {
    let is_control = c.is_control() && !['\n', '\t'].contains(&c);
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let hides = matches!(c, '\u{ad}' | '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    is_control || turns || hides
}

/// Text for people, with what would command their terminal (or turn the writing around) shown instead of obeyed: faults and summaries hold
/// the words of strangers, such as the paths in a bundle that is refused.
pub fn harmless(text: &str) -> Cow<'_, str> {
    match text.contains(commands) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(text.chars().flat_map(|c| if commands(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_would_command_a_terminal_is_shown_and_not_obeyed() {
        assert_eq!(
            harmless("`pod/\x1b[2Ja` \u{9b}1m\r\x07 \u{202e}cod.exe\n\tä 語"),
            "`pod/\\u{1b}[2Ja` \\u{9b}1m\\r\\u{7} \\u{202e}cod.exe\n\tä 語"
        );
        assert!(matches!(harmless("two\nlines"), Cow::Borrowed(_)));
    }

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
    fn what_may_be_a_secret_is_not_shown() {
        let secret = |name: &str, text: &str| {
            let said = found(name, &json!(text));
            assert!(!said.contains(text) && said.contains("may be a secret"), "{name}: {said}");
        };
        secret("api_key", "planted");
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
        assert!(!found("x", &json!({ "0a1b2c3d4e5f60718293a4b5c6d7e8f9": 1 })).contains("0a1b2c"));
    }
}
