//! The keyword `format`: which of its values are enforced, which are only accepted, and the checks of those
//! that are enforced.
//!
//! The checks are Hob's own, not the validator's. Each reads its text from front to back at most four times
//! and spends a constant time on each byte, which is what the proof counts for it ([`FORMAT_UNITS`]). Numbers
//! and every other value that is no text match every `format`, as JSON Schema defines it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::nearest::among;

mod regex;
#[cfg(test)]
mod tests;

pub(super) use regex::regex as is_pattern;

/// Units for each byte of a text that is checked against a format.
pub(super) const FORMAT_UNITS: f64 = 16.0;

type Judge = fn(&str) -> bool;

/// The formats that are checked: those of JSON Schema 2020-12, except `idn-hostname`.
pub(super) const HELD: &[(&str, Judge)] = &[
    ("date", date),
    ("date-time", date_time),
    ("duration", duration),
    ("email", email),
    ("hostname", hostname),
    ("idn-email", idn_email),
    ("ipv4", ipv4),
    ("ipv6", ipv6),
    ("iri", iri),
    ("iri-reference", iri_reference),
    ("json-pointer", json_pointer),
    ("regex", is_pattern),
    ("relative-json-pointer", relative_json_pointer),
    ("time", time),
    ("uri", uri),
    ("uri-reference", uri_reference),
    ("uri-template", uri_template),
    ("uuid", uuid),
];

/// Formats that are accepted for readers and not checked: OpenAPI's, those that schema generators write, and
/// `idn-hostname`, which needs the tables of another library.
pub(super) const ANNOTATIONS: &[&str] = &[
    "base64",
    "base64url",
    "binary",
    "byte",
    "char",
    "color",
    "commonmark",
    "date-time-local",
    "decimal",
    "decimal128",
    "directory-path",
    "double",
    "double-int",
    "file-path",
    "float",
    "html",
    "http-date",
    "idn-hostname",
    "int16",
    "int32",
    "int64",
    "int8",
    "json-string",
    "markdown",
    "media-range",
    "multi-host-uri",
    "password",
    "path",
    "time-local",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
    "uuid1",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// How a `format` is treated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Held,
    /// Accepted, and not checked.
    Annotation,
    /// Refused; with the known format that it resembles.
    Unknown(Option<&'static str>),
}

/// How `format = "word"` is treated. An author's own formats begin with `x-`.
pub(super) fn kind(word: &str) -> Kind {
    if HELD.iter().any(|(known, _)| *known == word) {
        return Kind::Held;
    }
    if ANNOTATIONS.contains(&word) || word.len() > 2 && word.starts_with("x-") {
        return Kind::Annotation;
    }
    Kind::Unknown(among(word, HELD.iter().map(|(known, _)| *known).chain(ANNOTATIONS.iter().copied())))
}

fn digits(text: &[u8]) -> Option<u32> {
    let value = |number: u32, byte: &u8| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'));
    (!text.is_empty() && text.len() <= 4).then(|| text.iter().try_fold(0, value)).flatten()
}

fn date(text: &str) -> bool {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *text.as_bytes() else { return false };
    let (Some(year), Some(month), Some(day)) = (digits(&[y0, y1, y2, y3]), digits(&[m0, m1]), digits(&[d0, d1])) else { return false };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 0,
    };
    (1..=days).contains(&day)
}

/// A time with its UTC offset, as in RFC 3339.
fn time(text: &str) -> bool {
    let text = text.as_bytes();
    let Some(([h0, h1, b':', m0, m1, b':', s0, s1], rest)) = text.split_first_chunk::<8>() else { return false };
    let (Some(hour), Some(minute), Some(second)) = (digits(&[*h0, *h1]), digits(&[*m0, *m1]), digits(&[*s0, *s1])) else { return false };
    let rest = match rest.split_first() {
        Some((b'.', rest)) => match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => return false,
            count => &rest[count..],
        },
        _ => rest,
    };
    let east = match *rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => match (digits(&[h0, h1]), digits(&[m0, m1])) {
            (Some(hours @ 0..=23), Some(minutes @ 0..=59)) if sign == b'+' => i64::from(hours * 60 + minutes),
            (Some(hours @ 0..=23), Some(minutes @ 0..=59)) => -i64::from(hours * 60 + minutes),
            _ => return false,
        },
        _ => return false,
    };
    // A leap second is only at the end of the day, in UTC.
    let minute_of_day = (i64::from(hour * 60 + minute) - east).rem_euclid(24 * 60);
    hour < 24 && minute < 60 && (second < 60 || second == 60 && minute_of_day == 24 * 60 - 1)
}

fn date_time(text: &str) -> bool {
    match (text.get(..10), text.as_bytes().get(10), text.get(11..)) {
        (Some(day), Some(b'T' | b't'), Some(rest)) => date(day) && time(rest),
        _ => false,
    }
}

/// `P1Y2M3DT4H5M6.7S`, with any part left out, or `P8W`.
fn duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('P') else { return false };
    let (days, times) = match rest.split_once('T') {
        Some((days, times)) => (days, Some(times)),
        None => (rest, None),
    };
    let is_list = |text: &str, units: &str| {
        let (mut units, mut rest) = (units, text);
        while !rest.is_empty() {
            let whole = rest.bytes().take_while(u8::is_ascii_digit).count();
            let mut count = whole;
            if let Some(fraction) = rest[whole..].strip_prefix('.') {
                let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
                if digits == 0 || !fraction[digits..].starts_with('S') {
                    return false;
                }
                count += 1 + digits;
            }
            let Some(unit) = rest[count..].chars().next() else { return false };
            let Some(at) = units.find(unit).filter(|_| whole > 0) else { return false };
            units = &units[at + 1..];
            rest = &rest[count + 1..];
        }
        true
    };
    match times {
        None => !days.is_empty() && (is_list(days, "YMD") || is_list(days, "W")),
        Some(times) => !times.is_empty() && is_list(days, "YMD") && is_list(times, "HMS"),
    }
}

fn hostname(text: &str) -> bool {
    let is_label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && !label.starts_with(b"-")
            && !label.ends_with(b"-")
    };
    text.len() <= 253 && text.as_bytes().split(|byte| *byte == b'.').all(is_label)
}

fn ipv4(text: &str) -> bool {
    text.len() <= 15 && text.parse::<Ipv4Addr>().is_ok()
}

fn ipv6(text: &str) -> bool {
    text.len() <= 45 && text.parse::<Ipv6Addr>().is_ok()
}

/// As in RFC 5321: with a host name behind the `@`, or an address in brackets.
fn email(text: &str) -> bool {
    text.is_ascii() && mailbox(text, hostname)
}

/// An email address with letters beyond ASCII; then only the lengths of the host are checked.
fn idn_email(text: &str) -> bool {
    let is_host = |host: &str| {
        let is_label = |label: &str| {
            (1..=63).contains(&label.chars().count())
                && label.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || is_beyond_ascii(letter))
        };
        host.len() <= 4 * 253 && host.split('.').all(is_label)
    };
    mailbox(text, is_host)
}

fn mailbox(text: &str, is_host: impl Fn(&str) -> bool) -> bool {
    let Some((local, host)) = text.rsplit_once('@') else { return false };
    let is_atom_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'*+/=?^_`{|}~-".contains(&byte);
    let is_local = match local.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')) {
        Some(quoted) => {
            let mut bytes = quoted.bytes();
            let mut good = local.len() > 1;
            while let Some(byte) = bytes.next() {
                good &= match byte {
                    b'\\' => bytes.next().is_some_and(|byte| matches!(byte, b' '..=b'~')),
                    b'"' => false,
                    byte => byte >= b' ' && byte != 0x7f,
                };
            }
            good
        }
        None => local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom_byte)),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(literal) => match literal.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => ipv6(&literal[5..]),
            _ => ipv4(literal),
        },
        None => is_host(host),
    };
    local.len() <= 64 * 4 && local.chars().count() <= 64 && is_local && is_host
}

fn uuid(text: &str) -> bool {
    let is_good = |(at, byte): (usize, u8)| if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() };
    text.len() == 36 && text.bytes().enumerate().all(is_good)
}

fn json_pointer(text: &str) -> bool {
    let is_escaped = |part: &str| part.starts_with(['0', '1']);
    (text.is_empty() || text.starts_with('/')) && text.split('~').skip(1).all(is_escaped)
}

fn relative_json_pointer(text: &str) -> bool {
    let is_number =
        |text: &str| text == "0" || !text.starts_with('0') && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (number, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let rest = match rest.strip_prefix(['+', '-']) {
        None => rest,
        Some(moved) => {
            let (by, rest) = moved.split_at(moved.bytes().take_while(u8::is_ascii_digit).count());
            if !is_number(by) || by == "0" {
                return false;
            }
            rest
        }
    };
    is_number(number) && (rest == "#" || json_pointer(rest))
}

fn is_beyond_ascii(letter: char) -> bool {
    // RFC 3987 excludes control characters, surrogates and noncharacters.
    !letter.is_ascii() && !letter.is_control() && letter as u32 & 0xfffe != 0xfffe && !('\u{fdd0}'..='\u{fdef}').contains(&letter)
}

fn uri(text: &str) -> bool {
    reference(text, true, false)
}
fn uri_reference(text: &str) -> bool {
    reference(text, false, false)
}
fn iri(text: &str) -> bool {
    reference(text, true, true)
}
fn iri_reference(text: &str) -> bool {
    reference(text, false, true)
}

/// RFC 3986, or RFC 3987 if letters `beyond` ASCII are allowed; `whole`: the reference begins with a scheme.
fn reference(text: &str, whole: bool, beyond: bool) -> bool {
    // Unreserved letters, escapes, and the letters of `more`.
    let is_of = |text: &str, more: &str| {
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let good = match letter {
                '%' => letters.next().is_some_and(|c| c.is_ascii_hexdigit()) && letters.next().is_some_and(|c| c.is_ascii_hexdigit()),
                letter => {
                    letter.is_ascii_alphanumeric() || "-._~".contains(letter) || more.contains(letter) || beyond && is_beyond_ascii(letter)
                }
            };
            if !good {
                return false;
            }
        }
        true
    };
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let rest = match rest.find([':', '/']).filter(|at| rest.as_bytes()[*at] == b':') {
        Some(at) => {
            let scheme = &rest.as_bytes()[..at];
            let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
                && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
            // Without a scheme the first part of a path has no colon.
            if !is_scheme {
                return false;
            }
            &rest[at + 1..]
        }
        None if whole => return false,
        None => rest,
    };
    const SUB: &str = "!$&'()*+,;=";
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            let (host, port) = match host.strip_prefix('[') {
                Some(literal) => {
                    let Some((literal, rest)) = literal.split_once(']') else { return false };
                    let is_future = || {
                        let tail = literal.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.'));
                        tail.is_some_and(|(version, rest)| {
                            !version.is_empty()
                                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                                && !rest.is_empty()
                                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(&byte))
                        })
                    };
                    let Some(port) = (if rest.is_empty() { Some("") } else { rest.strip_prefix(':') }) else { return false };
                    if !ipv6(literal) && !is_future() {
                        return false;
                    }
                    ("", port)
                }
                None => host.split_once(':').unwrap_or((host, "")),
            };
            if !is_of(user, "!$&'()*+,;=:") || !is_of(host, SUB) || !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return false;
            }
            path
        }
    };
    is_of(path, "!$&'()*+,;=:@/") && is_of(query, "!$&'()*+,;=:@/?") && is_of(fragment, "!$&'()*+,;=:@/?")
}

/// RFC 6570.
fn uri_template(text: &str) -> bool {
    let is_name = |name: &str| {
        let is_part = |part: &str| {
            let mut letters = part.bytes();
            let mut good = !part.is_empty();
            while let Some(byte) = letters.next() {
                good &= match byte {
                    b'%' => letters.next().is_some_and(|b| b.is_ascii_hexdigit()) && letters.next().is_some_and(|b| b.is_ascii_hexdigit()),
                    byte => byte.is_ascii_alphanumeric() || byte == b'_',
                };
            }
            good
        };
        name.split('.').all(is_part)
    };
    let is_variable = |variable: &str| match (variable.strip_suffix('*'), variable.split_once(':')) {
        (Some(name), _) => is_name(name),
        (None, Some((name, most))) => is_name(name) && !most.starts_with('0') && digits(most.as_bytes()).is_some(),
        (None, None) => is_name(variable),
    };
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '{' => {
                let Some((expression, after)) = rest[1..].split_once('}') else { return false };
                let expression = expression.strip_prefix(|operator| "+#./;?&=,!@|".contains(operator)).unwrap_or(expression);
                if !expression.split(',').all(is_variable) {
                    return false;
                }
                after
            }
            '%' => match *rest.as_bytes() {
                [_, a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => &rest[3..],
                _ => return false,
            },
            letter if letter.is_control() || " \"<>\\^`|}".contains(letter) => return false,
            letter => &rest[letter.len_utf8()..],
        };
    }
    true
}
