//! Makes strangers' texts printable: the one place that escapes what a terminal would obey.
//!
//! Every fault passes its words through here, every door its output, and the log file of pods its lines.

use std::borrow::Cow;

/// Whether a terminal obeys the character, or the character makes text look like other text: C0 and C1
/// controls, changes of the writing direction, separators and invisible marks. Joiners do not count: words
/// and emoji need them. Line ends and tabs do not count either.
pub fn commands(c: char) -> bool {
    let is_control = c.is_control() && !['\n', '\t'].contains(&c);
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let hides = matches!(c, '\u{ad}' | '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    is_control || turns || hides
}

/// Text for people, with the characters escaped that would command a terminal or turn the writing direction.
/// Idempotent.
pub fn printable(text: &str) -> Cow<'_, str> {
    match text.contains(commands) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(escaped(text, commands)),
    }
}

/// [`printable`] for a text on one line, because a second line could be taken for one of Hob's own.
pub fn in_a_line(text: &str) -> String {
    escaped(text, |c| commands(c) || c == '\n' || c == '\t')
}

/// [`printable`] for a text between two `"`.
pub fn in_quotes(text: &str) -> String {
    escaped(text, |c| commands(c) || c == '\n' || c == '\t' || c == '"')
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut written = String::with_capacity(text.len());
    for c in text.chars() {
        match is_escaped(c) {
            true => written.extend(c.escape_default()),
            false => written.push(c),
        }
    }
    written
}

/// [`printable`] for JSON; the result is the same JSON. A control character occurs raw only between tokens,
/// if it is `\r`, or within a text, if JSON allows it there.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    if !text.contains(commands) {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '\r' => written.push(' '),
            c if commands(c) => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| written.push_str(&format!("\\u{unit:04x}"))),
            c => written.push(c),
        }
    }
    Cow::Owned(written)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Code, Fault, act, hint};

    /// One character of each kind.
    const COMMANDS: &str = "\u{1b}[2J\u{9b}\r\u{7}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{e0041}\u{61c}\u{ad}";

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        assert_eq!(printable("a\u{202e}b\u{1b}[0m\n\tc"), "a\\u{202e}b\\u{1b}[0m\n\tc");
        assert_eq!(in_a_line("a\nb"), "a\\nb");
        assert_eq!(in_quotes("a\"b\u{202e}"), "a\\\"b\\u{202e}");
        assert!(matches!(printable("n\u{200d}\u{e9} ordinary"), Cow::Borrowed(_)));
        assert!(!printable(COMMANDS).contains(commands));
        assert_eq!(printable(&printable(COMMANDS)), printable(COMMANDS));
        let value = json!({ "a": COMMANDS, "b\u{202e}": 1 });
        let text = printable_json(&value.to_string()).into_owned();
        assert!(!text.contains(commands), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn no_fault_has_words_that_command() {
        let fault = Fault::new(Code::InvalidConfig, COMMANDS).hint(hint![COMMANDS, act::add(COMMANDS)]);
        let plain = Fault::new(Code::InvalidConfig, "x").hint(COMMANDS);
        let foreign = Fault::foreign("x", COMMANDS.to_owned(), Some(COMMANDS.into()), Value::Null, &[]);
        // A fault written by another Hob, with unknown content.
        let written = json!({ "code": "io", "blame": "machine", "message": COMMANDS, "hint": COMMANDS, "hint_parts": [COMMANDS, { "do": "add", "of": [COMMANDS] }] });
        let read: Fault = serde_json::from_value(written).unwrap();
        for fault in [fault, plain, foreign, read] {
            for door in crate::model::Door::ALL {
                let fault = fault.clone().worded(door);
                let said = format!("{} {}", fault.message, fault.hint.clone().unwrap_or_default());
                assert!(said.contains("\\u{202e}") && !said.contains(commands), "{said:?}");
                assert!(!json!(fault).to_string().contains(commands));
            }
        }
    }
}
