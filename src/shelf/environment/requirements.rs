//! Reads `requirements.lock` once, strictly, into data. `uv` gets a file that Hob writes from that data
//! ([`Lock::text`]).
//!
//! No byte of a publisher's text reaches a tool, so it does not matter how another program would read that
//! text. A lock may hold only `name[extra]==version ; marker --hash=sha256:...` and comments: no index, path,
//! URL or installer option. So a lock chooses neither where bytes come from nor what runs at install.

mod marker;

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use crate::model::{Code, Digest, Fault, Hint, act, hint, limits, stand_in};
use marker::Marker;

/// How to make a lock, for hints; python/src/hob_pod/faults.py says the same with the pod's version of
/// Python.
pub fn locking() -> Hint {
    hint![
        "`uv pip compile --universal --generate-hashes --only-binary :all: --no-emit-index-url pod/requirements.in -o pod/requirements.lock` \
         (where there is no `uv`, `pip install uv` brings it, and ",
        act::doctor(),
        " says where Hob has its own)"
    ]
}

/// A lock as data. Two texts with the same meaning are equal as locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock(Vec<Requirement>);

/// One pinned package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    name: String,
    extras: Vec<String>,
    version: String,
    marker: Option<Marker>,
    /// Hashes of the files that may be installed; never empty.
    hashes: BTreeSet<Digest>,
}

impl Lock {
    /// Reads the bytes of a `requirements.lock`; `what` names the file in faults.
    ///
    /// Errors: `invalid_recipe` with `line` in `detail`, `too_large`.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Lock, Fault> {
        if bytes.len() as u64 > limits::LOCK_BYTES_MAX {
            let text = format!("{what} is {} bytes; at most {} are taken", bytes.len(), limits::LOCK_BYTES_MAX);
            return Err(Fault::new(Code::TooLarge, text));
        }
        if bytes.starts_with(b"\xef\xbb\xbf") {
            // Not read past, as in other texts: tools differ on whether it is part of the first name.
            return Err(Fault::new(Code::InvalidRecipe, format!("{what}:1: it begins with the character U+FEFF, a byte order mark"))
                .hint("save it as UTF-8 without BOM"));
        }
        let text = stand_in::text(bytes.to_vec()).map_err(|wrong| wrong.fault(Code::InvalidRecipe, what))?;
        let refuse = |line: usize, why: String| {
            Fault::new(Code::InvalidRecipe, format!("{what}:{line}: {why}"))
                .hint(Hint::from("make the lock").and(" with ", locking()))
                .with("line", line)
        };
        let mut requirements = Vec::new();
        let mut lines = text.split_inclusive('\n').map(without_end).enumerate();
        while let Some((index, first)) = lines.next() {
            let start = index + 1;
            let (mut logical, mut goes_on) = part(first).map_err(|why| refuse(start, why))?;
            while goes_on {
                let (index, next) = lines.next().ok_or_else(|| refuse(start, "the line goes on past the end of the file".into()))?;
                let (more, further) = part(next).map_err(|why| refuse(index + 1, why))?;
                logical.push(' ');
                logical.push_str(&more);
                goes_on = further;
            }
            let logical = logical.trim();
            if !logical.is_empty() {
                requirements.push(Requirement::read(logical).map_err(|why| refuse(start, why))?);
            }
        }
        Ok(Lock(requirements))
    }

    /// The canonical text of this lock, which reads as the same lock: printable ASCII, a line for each
    /// package.
    pub fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, requirement| {
            let _ = writeln!(text, "{requirement}");
            text
        })
    }

    /// The text of only those packages whose names `wanted` accepts; it gets a name as indexes know it (PEP
    /// 503: `a-b` for `A_b`).
    pub fn text_of(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.0.iter().filter(|requirement| wanted(&plain_name(&requirement.name))).map(|requirement| format!("{requirement}\n")).collect()
    }

    /// Names and versions, in the lock's order.
    pub fn pins(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|requirement| (requirement.name.as_str(), requirement.version.as_str()))
    }
}

impl Requirement {
    fn read(line: &str) -> Result<Requirement, String> {
        if line.starts_with('-') {
            let option = word(line);
            let more = match option.trim_start_matches('-') {
                "e" | "editable" => "; with `uv export` give `--no-emit-project`",
                option if option.contains("index") || option.starts_with('i') || option.starts_with('f') => {
                    "; where packages come from is the operator's to say: `[environments] index_urls` in hob.toml"
                }
                _ => "",
            };
            return Err(format!("`{option}`: a lock names packages, not options of an installer{more}"));
        }
        let (requirement, hashes) = line.split_once(" --hash").map_or((line, ""), |(head, _)| (head, &line[head.len()..]));
        let (pinned, marker) = requirement.split_once(';').map_or((requirement, None), |(pinned, marker)| (pinned, Some(marker)));
        let unpinned = || format!("`{}` is not pinned: wanted `name==version`", pinned.trim());
        let (named, version) = pinned.split_once("==").map(|(name, version)| (name.trim(), version.trim())).ok_or_else(unpinned)?;
        let (name, extras) = match named.split_once('[') {
            Some((name, extras)) => (name.trim(), extras.strip_suffix(']').ok_or_else(unpinned)?.split(',').map(str::trim).collect()),
            None => (named, Vec::new()),
        };
        if !is_name(name) || !extras.iter().all(|extra| is_name(extra)) || !is_version(version) {
            return Err(unpinned());
        }
        let marker =
            marker.map(|text| Marker::parse(text).map_err(|why| format!("the marker of `{name}=={version}`: {why}"))).transpose()?;
        if hashes.is_empty() {
            return Err(format!("`{name}=={version}` has no hash: wanted at least one `--hash=sha256:...`"));
        }
        let hash = |option: &str| -> Result<Digest, String> {
            let digest = option.strip_prefix("--hash=sha256:").and_then(|hex| hex.to_ascii_lowercase().parse().ok());
            digest.ok_or_else(|| format!("`{option}` of `{name}=={version}` is not `--hash=sha256:` and 64 hex digits"))
        };
        Ok(Requirement {
            name: name.to_owned(),
            extras: extras.into_iter().map(str::to_owned).collect(),
            version: version.to_owned(),
            marker,
            hashes: hashes.split_ascii_whitespace().map(hash).collect::<Result<_, _>>()?,
        })
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if !self.extras.is_empty() {
            write!(f, "[{}]", self.extras.join(","))?;
        }
        write!(f, "=={}", self.version)?;
        if let Some(marker) = &self.marker {
            write!(f, " ; {marker}")?;
        }
        self.hashes.iter().try_for_each(|hash| write!(f, " --hash=sha256:{hash}"))
    }
}

/// A line ends with LF. A CR directly before it belongs to the end; any other one is a control character,
/// which is refused.
fn without_end(line: &str) -> &str {
    line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// The content of a line without its comment, and whether the next line continues it. A comment begins with
/// `#` at the start of the line or after white space; a line with a comment has no continuation.
fn part(line: &str) -> Result<(String, bool), String> {
    let is_refused =
        |character: char| (character.is_control() && character != '\t') || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}');
    if let Some(character) = line.chars().find(|character| is_refused(*character)) {
        return Err(format!("the character U+{:04X}: a lock is plain text whose lines end with LF", u32::from(character)));
    }
    let comment = line.char_indices().find(|(at, character)| *character == '#' && (*at == 0 || line[..*at].ends_with([' ', '\t'])));
    let said = &line[..comment.map_or(line.len(), |(at, _)| at)];
    if let Some(character) = said.chars().find(|character| !character.is_ascii()) {
        return Err(format!("the character U+{:04X}: only comments may hold other than ASCII", u32::from(character)));
    }
    let said = said.trim().replace('\t', " ");
    match said.strip_suffix('\\') {
        Some(begun) if comment.is_none() && line.ends_with('\\') => Ok((begun.trim_end().to_owned(), true)),
        _ => Ok((said, false)),
    }
}

/// Letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let ends = text.bytes().next().is_some_and(plain) && text.bytes().next_back().is_some_and(plain);
    ends && text.bytes().all(|byte| plain(byte) || b"-_.".contains(&byte))
}

/// A name as indexes know it: lower case, with one `-` for each run of `-`, `_` and `.`.
pub(in crate::shelf) fn plain_name(name: &str) -> String {
    name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

fn is_version(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+!-_".contains(&byte))
}

fn word(text: &str) -> &str {
    text.split(|character: char| character.is_whitespace() || character == '=').next().unwrap_or(text)
}

#[cfg(test)]
mod tests;
