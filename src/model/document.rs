//! A JSON document with both its text (for the wire) and its value (for schemas and Rust callers).

use super::hint::{act, hint};
use std::{borrow::Cow, fmt, ops::Deref, sync::OnceLock};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{
    fault::{Code, Fault},
    limits::{DOCUMENT_BYTES_MAX, DOCUMENT_VALUES_BYTES_MAX, JSON_OBJECT_BYTES, JSON_VALUE_BYTES, READ_HERE_BYTES_MAX},
};

/// One JSON document within Hob's bounds: at most [`DOCUMENT_BYTES_MAX`] bytes, no NaN, no lone
/// surrogates, no integers past 64 bits.
#[derive(Debug, Clone)]
pub struct Document {
    text: String,
    /// The parsed value, made on first use for a text that only passes through: a value may take a hundred
    /// times the memory of its text.
    value: OnceLock<Value>,
}

impl Document {
    /// Parses `text`; `what` (e.g. "input") names it in faults.
    ///
    /// Errors: `too_large`, `invalid_json` with the place.
    pub fn parse(text: impl Into<String>, what: &str) -> Result<Document, Fault> {
        let document = Document { text: sized(text.into(), what)?, value: OnceLock::new() };
        let value: Value = serde_json::from_str(&document.text).map_err(|error| invalid(what, &error))?;
        check_integers(&document.text, what)?;
        let _ = document.value.set(value);
        Ok(document)
    }

    /// Checks a document that is probably never inspected, and keeps only its text.
    ///
    /// Errors: `too_large`, `invalid_json` with the place.
    #[doc(hidden)]
    pub fn unread(text: impl Into<String>, what: &str) -> Result<Document, Fault> {
        let text = sized(text.into(), what)?;
        check(&text).map_err(|error| invalid(what, &error))?;
        check_integers(&text, what)?;
        Ok(Document { text, value: OnceLock::new() })
    }

    /// Parses a document that is checked against a schema and then passed on. For a long text no value is
    /// kept, because even dropping a million values takes time.
    ///
    /// Errors: `too_large`, `invalid_json` with the place.
    #[doc(hidden)]
    pub fn passing(text: impl Into<String>, what: &str) -> Result<Document, Fault> {
        let text = text.into();
        match text.len() > READ_HERE_BYTES_MAX {
            true => Document::unread(text, what),
            false => Document::parse(text, what),
        }
    }

    /// The value for one use; kept afterwards only if it was kept before.
    #[doc(hidden)]
    pub fn looked_at(&self) -> Cow<'_, Value> {
        match self.value.get() {
            Some(value) => Cow::Borrowed(value),
            None => Cow::Owned(serde_json::from_str(&self.text).unwrap_or_default()),
        }
    }

    /// Wraps a text that is known to be a valid document.
    pub(super) fn checked(text: String) -> Document {
        Document { text, value: OnceLock::new() }
    }

    /// The text as received.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// The value.
    pub fn value(&self) -> &Value {
        // The text was checked to be JSON.
        self.value.get_or_init(|| serde_json::from_str(&self.text).unwrap_or_default())
    }
    /// The text, without a copy.
    pub fn into_text(self) -> String {
        self.text
    }
    /// The text without a copy, and the values if they were made; dropping the values of a long text takes
    /// time.
    #[doc(hidden)]
    pub fn into_parts(self) -> (String, Option<Value>) {
        (self.text, self.value.into_inner())
    }
    /// The value, without a copy.
    pub fn into_value(self) -> Value {
        match self.value.into_inner() {
            Some(value) => value,
            None => serde_json::from_str(&self.text).unwrap_or_default(),
        }
    }
}

fn sized(mut text: String, what: &str) -> Result<String, Fault> {
    // A byte order mark, which some editors write, is not part of the document.
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(Fault::new(
            Code::TooLarge,
            format!("{what} is {} bytes of JSON; at most {DOCUMENT_BYTES_MAX} are carried", text.len()),
        )
        .hint(hint!["pass large data as a blob, by ", act::blob()]));
    }
    let values = values_bytes(text.as_bytes());
    if values > DOCUMENT_VALUES_BYTES_MAX {
        return Err(Fault::new(
            Code::TooLarge,
            format!(
                "{what} is {} bytes of JSON in so many small values that they take {} MiB; at most {} are given to a document",
                text.len(),
                values >> 20,
                DOCUMENT_VALUES_BYTES_MAX >> 20
            ),
        )
        .hint(hint!["pass tables as a blob, by ", act::blob(), ", or as one array for each column"]));
    }
    Ok(text)
}

fn invalid(what: &str, error: &serde_json::Error) -> Fault {
    Fault::new(Code::InvalidJson, format!("{what} is not valid JSON: {error}"))
        .hint(hint!["wanted one JSON document, e.g. `{\"text\": \"hello\"}`, ", act::document()])
}

fn check_integers(text: &str, what: &str) -> Result<(), Fault> {
    if has_long_number(text.as_bytes())
        && let Some(offset) = integer_past_64_bits(text.as_bytes())
    {
        let token: String = text[offset..].chars().take_while(|c| c.is_ascii_digit() || *c == '-').take(24).collect();
        return Err(Fault::new(Code::InvalidJson, format!("{what} has an integer past 64 bits at byte {offset}: {token}"))
            .hint("write it as a string or as a float"));
    }
    Ok(())
}

/// Whether `text` is JSON from which a [`Value`] can be made, checked without making it.
///
/// Errors: the error that making it would give.
pub fn check(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<Checked>(text).map(drop)
}

/// Reads any JSON and keeps none of it. (serde's own type for this ignores invalid escapes, and numbers that
/// no value can hold.)
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(Checked)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Checked;

    fn expecting(&self, into: &mut fmt::Formatter) -> fmt::Result {
        into.write_str("any JSON")
    }
    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        while items.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Checked, A::Error> {
        while entries.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}

impl Deref for Document {
    type Target = Value;

    /// Its [`Document::value`]. The value's objects have sorted keys; the text keeps the original order.
    fn deref(&self) -> &Value {
        self.value()
    }
}

impl PartialEq<Value> for Document {
    fn eq(&self, other: &Value) -> bool {
        self.value() == other
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Document) -> bool {
        self.text == other.text
    }
}

impl From<Value> for Document {
    fn from(value: Value) -> Document {
        Document { text: value.to_string(), value: value.into() }
    }
}

/// Memory that the values of a JSON text take, in bytes: a rough lower bound, because a table of objects can
/// take eighty times its text. Returns 0 for a text that is too short to take too much.
fn values_bytes(text: &[u8]) -> usize {
    // The shortest text that makes an object with a key: `{"":1},`.
    const SHORTEST: usize = 7;
    if text.len() / SHORTEST * (JSON_OBJECT_BYTES + 2 * JSON_VALUE_BYTES) <= DOCUMENT_VALUES_BYTES_MAX {
        return 0;
    }
    let (mut values, mut objects, mut at) = (1, 0, 0);
    while at < text.len() {
        match text[at] {
            b'"' => {
                at += 1;
                while at < text.len() && text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
            }
            b',' | b'[' => values += 1,
            b'{' => {
                values += 1;
                objects += 1;
            }
            _ => {}
        }
        at += 1;
    }
    values * JSON_VALUE_BYTES + objects * JSON_OBJECT_BYTES
}

/// Whether `text` has 19 digits in a row: the shortest integer past 64 bits. It checks every 19th byte, one
/// of which is in any such row, so that nearly every document avoids the scan byte by byte.
fn has_long_number(text: &[u8]) -> bool {
    const SHORTEST: usize = 19;
    (SHORTEST - 1..text.len()).step_by(SHORTEST).any(|at| {
        if !text[at].is_ascii_digit() {
            return false;
        }
        let before = text[..at].iter().rev().take(SHORTEST).take_while(|byte| byte.is_ascii_digit()).count();
        let after = text[at + 1..].iter().take(SHORTEST).take_while(|byte| byte.is_ascii_digit()).count();
        before + 1 + after >= SHORTEST
    })
}

/// The offset of an integer in `text` (valid JSON) that fits neither i64 nor u64. serde_json would silently
/// round it to a float.
fn integer_past_64_bits(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                at += 1;
                while text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                while at < text.len() && matches!(text[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                    at += 1;
                }
                let token = &text[start..at];
                // 18 digits always fit; most numbers end here.
                if token.len() > 18 && !token.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
                    let token = std::str::from_utf8(token).unwrap_or("");
                    if token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
                        return Some(start);
                    }
                }
            }
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_many_times_its_text_is_refused_before_it_is_read() {
        let list = |item: &str, bytes: usize| format!("[{}{item}]", format!("{item},").repeat(bytes / (item.len() + 1) - 1));
        let objects = Document::parse(list(r#"{"":1}"#, DOCUMENT_BYTES_MAX - 8), "input").unwrap_err();
        assert!(objects.code == Code::TooLarge && objects.message.contains("many small values"), "{objects}");
        for fits in [
            list("1", DOCUMENT_BYTES_MAX - 8),
            list("[]", DOCUMENT_BYTES_MAX - 8),
            list(r#"{"":1}"#, 1 << 20),
            list(r#""{{{{{{{{{{""#, DOCUMENT_BYTES_MAX - 8),
        ] {
            assert!(Document::parse(fits, "input").is_ok());
        }
    }

    #[test]
    fn of_a_long_text_that_passes_no_value_is_kept() {
        let text = |bytes: usize| format!("[{}1]", "1,".repeat(bytes / 2));
        for (bytes, kept) in [(1 << 10, true), (READ_HERE_BYTES_MAX, false)] {
            let document = Document::passing(text(bytes), "input").unwrap();
            assert_eq!(document.looked_at().as_array().unwrap().len(), bytes / 2 + 1);
            assert_eq!((document.value.get().is_some(), document.text()), (kept, &*text(bytes)));
        }
        assert_eq!(Document::passing(text(READ_HERE_BYTES_MAX) + "]", "input").unwrap_err().code, Code::InvalidJson);
    }

    #[test]
    fn only_carriable_json_becomes_a_document() {
        for good in ["{}", "[1,-2.5e3,\"a\\\"9999999999999999999999\"]", "18446744073709551615", "-9223372036854775808", "1e30"] {
            assert_eq!(Document::parse(good, "input").unwrap().text(), good);
            let unread = Document::unread(good, "input").unwrap();
            assert_eq!((unread.value(), unread.text()), (Document::parse(good, "input").unwrap().value(), good));
        }
        for bad in ["", "{", "NaN", "[Infinity]", "\"\\ud800\"", "18446744073709551616", "{\"a\":[-9223372036854775809]}", "1e999"] {
            assert_eq!(Document::parse(bad, "input").unwrap_err().code, Code::InvalidJson, "{bad}");
            // The same fault, word for word, without making a value.
            assert_eq!(Document::unread(bad, "input").unwrap_err(), Document::parse(bad, "input").unwrap_err(), "{bad}");
        }
        // At any place in the text.
        for spaces in 0..40 {
            let space = " ".repeat(spaces);
            assert_eq!(Document::parse(format!("{space}[18446744073709551616]"), "input").unwrap_err().code, Code::InvalidJson, "{spaces}");
            assert_eq!(Document::parse(format!("{space}-9223372036854775809"), "input").unwrap_err().code, Code::InvalidJson, "{spaces}");
            assert!(Document::parse(format!("{space}[18446744073709551615]"), "input").is_ok());
        }
        let huge = format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX));
        assert_eq!(Document::parse(huge, "input").unwrap_err().code, Code::TooLarge);
    }
}
