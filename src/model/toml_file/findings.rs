//! Collects all errors of a TOML file at once, although its reader stops at the first that it cannot pass.
//!
//! An error that the reader can pass is [noted](Notes). After one that it cannot pass, the tree is repaired
//! at that place (the key is spelt right, removed, or given a valid value) and read again. Nothing of a
//! repaired tree is used. This keeps the readers simple.

use std::{cell::RefCell, ops::Range};

use serde_json::{Value, json};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::model::{
    fault::{Code, Fault},
    limits::FINDINGS_MAX,
    nearest,
    toml_file::line_of,
};

/// A mandatory key: its path, in which `*` is any name, and a valid value, which repairs use.
pub type Needed = (&'static str, &'static str);

/// How much of a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Without the expensive parts. Those are read at most twice: before the first mistake, and when all
    /// others are known.
    Outline,
}

/// The mistakes that a reader passed without stopping.
#[derive(Debug, Default)]
pub struct Notes(RefCell<Vec<Note>>);

#[derive(Debug)]
struct Note {
    fault: Fault,
    /// It counts only if no repair removed a key from that table.
    of: Option<String>,
}

impl Notes {
    /// Notes a mistake.
    pub fn add(&self, fault: Fault) {
        self.note(Note { fault, of: None });
    }

    /// Notes a mistake in which keys the table at that path has or lacks. It is not reported if a mistake in
    /// that table may be the cause.
    pub fn add_of(&self, table: &str, fault: Fault) {
        self.note(Note { fault, of: Some(table.to_owned()) });
    }

    fn note(&self, note: Note) {
        let mut notes = self.0.borrow_mut();
        if notes.len() < FINDINGS_MAX {
            notes.push(note);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Whether as many mistakes are noted as are reported. A list of wrong items is then read no further,
    /// because each would be searched for in the text.
    pub fn are_full(&self) -> bool {
        self.0.borrow().len() >= FINDINGS_MAX
    }
}

/// Parses `text` as far as a reader can use it. Of a duplicate key, the first value counts.
///
/// Returns the tree, and a fault for each duplicate key, which `fault` makes from a place and a message.
///
/// Errors: the reason why the text is not TOML, made the same way.
pub fn parse<'t>(text: &'t str, fault: impl Fn(usize, String) -> Fault) -> Result<(DeTable<'t>, Vec<Fault>), Fault> {
    let first = match DeTable::parse(text) {
        Ok(document) => return Ok((document.into_inner(), Vec::new())),
        Err(error) => error,
    };
    let place = |span: Option<Range<usize>>| span.map_or(0, |span| span.start);
    let (document, errors) = DeTable::parse_recoverable(text);
    let document = document.into_inner();
    let mut twice = Vec::new();
    for error in errors.iter().take(FINDINGS_MAX) {
        let word = error.span().and_then(|span| text.get(span)).filter(|_| error.message() == "duplicate key");
        match word.and_then(|word| first_of(text, &document, word, place(error.span())).map(|line| (word, line))) {
            Some((word, line)) => {
                twice.push(fault(place(error.span()), format!("not TOML: duplicate key `{word:.64}`, which line {line} has already")));
            }
            // Parts of the tree may be missing.
            None => return Err(fault(place(first.span()), format!("not TOML: {}", not_toml(text, first.message(), first.span())))),
        }
    }
    Ok((document, twice))
}

/// The TOML parser's message; if it points to a single word, with that word.
fn not_toml(text: &str, says: &str, at: Option<Range<usize>>) -> String {
    let is_word =
        |word: &&str| (1..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match at.and_then(|at| text.get(at)).filter(is_word) {
        Some(word) if says == "duplicate key" => format!("{says} `{word}`"),
        _ => says.to_owned(),
    }
}

/// The line of the first occurrence of a duplicate key whose second occurrence is at `offset`: in the same
/// table, or as the same heading.
///
/// `None`: the first one is not a plain line of its own.
fn first_of(text: &str, document: &DeTable, word: &str, offset: usize) -> Option<usize> {
    let at = line_of(text, offset) - 1;
    let lines: Vec<&str> = text.lines().map(str::trim).take(at + 1).collect();
    let second = *lines.get(at)?;
    let heading = |line: &str| line.split('#').next().map(str::trim).map(str::to_owned);
    if second.starts_with('[') {
        // The tree holds its keys beside those of the first.
        return lines[..at].iter().position(|line| line.starts_with('[') && heading(line) == heading(second)).map(|found| found + 1);
    }
    let is_key = |line: &str| line.strip_prefix(word).is_some_and(|rest| rest.trim_start().starts_with('='));
    if !is_key(second) {
        return None;
    }
    let begins = lines[..at].iter().rposition(|line| line.starts_with('[')).map_or(0, |heading| heading + 1);
    let found = begins + lines[begins..at].iter().position(|line| is_key(line))?;
    // The found line must be a key, and not a line of a text that looks like one.
    let start = text.lines().take(found).map(|line| line.len() + 1).sum::<usize>();
    keys(document).into_iter().any(|key| line_range(text, start).contains(&key)).then_some(found + 1)
}

/// The offsets at which the keys of a tree begin.
fn keys(document: &DeTable) -> Vec<usize> {
    let (mut keys, mut tables, mut lists) = (Vec::new(), vec![document], Vec::new());
    loop {
        if let Some(table) = tables.pop() {
            for (name, value) in table.iter() {
                keys.push(name.span().start);
                match value.get_ref() {
                    DeValue::Table(table) => tables.push(table),
                    DeValue::Array(list) => lists.push(list),
                    _ => {}
                }
            }
        } else if let Some(list) = lists.pop() {
            for item in list.iter() {
                match item.get_ref() {
                    DeValue::Table(table) => tables.push(table),
                    DeValue::Array(list) => lists.push(list),
                    _ => {}
                }
            }
        } else {
            return keys;
        }
    }
}

/// The bytes of the line that contains this byte.
fn line_range(text: &str, offset: usize) -> Range<usize> {
    let offset = offset.min(text.len());
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    start..text[offset..].find('\n').map_or(text.len(), |at| offset + at + 1)
}

/// Reads `document`, the tree of `text`, with `read`: once if it has no mistakes. `twice`: the duplicate keys
/// that [`parse`] found.
///
/// Errors: the first mistake by line; if there are more, `findings` in its detail has `line`, `key` and
/// `message` of each.
pub fn all<T>(
    (mut document, twice): (DeTable<'_>, Vec<Fault>),
    text: &str,
    needed: &[Needed],
    mut read: impl FnMut(&DeTable, Extent, &Notes) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let place = |fault: &Fault| Some((fault.detail["key"].as_str()?.to_owned(), fault.detail["line"].as_u64()? as usize));
    let (mut findings, mut taken): (Vec<Fault>, Vec<String>) = (twice, Vec::new());
    let mut extent = Extent::Whole;
    let mut notes = Notes::default();
    while findings.len() < FINDINGS_MAX {
        notes = Notes::default();
        let fault = match read(&document, extent, &notes) {
            Ok(good) if findings.is_empty() && notes.is_empty() => return Ok(good),
            Ok(_) => break,
            Err(fault) => fault,
        };
        // A file for another version of Hob may be correct.
        if fault.detail["other_hob"] == true {
            return Err(fault);
        }
        extent = Extent::Outline;
        let found = place(&fault).filter(|_| matches!(fault.code, Code::InvalidManifest | Code::InvalidConfig));
        let Some((key, line)) = found else {
            if findings.is_empty() {
                return Err(fault);
            }
            break;
        };
        // A second mistake at the same key is about the repair; only repeatable tables have the same key
        // several times.
        let is_one = !["model.", "remote."].iter().any(|several| key.starts_with(several));
        if findings.iter().filter_map(place).any(|(known, at)| known == key && (is_one || at == line)) {
            break;
        }
        let nearest = fault.detail["nearest"].as_str().map(str::to_owned);
        let is_unknown = fault.detail.get("nearest").is_some();
        findings.push(fault);
        let lines = line_range(text, text.split_inclusive('\n').take(line - 1).map(str::len).sum());
        let mut mending = Mending { lines, whole: &key, is_unknown, nearest: nearest.as_deref(), needed, taken: None };
        let done = mending.mend(&mut document, &key);
        taken.extend(mending.taken);
        if !done {
            break;
        }
    }
    if extent == Extent::Outline && findings.len() < FINDINGS_MAX {
        notes = Notes::default();
        let _ = read(&document, Extent::Whole, &notes);
    }
    let is_own = |note: &Note| note.of.as_ref().is_none_or(|of| !taken.contains(of));
    findings.extend(notes.0.into_inner().into_iter().filter(is_own).map(|note| note.fault));
    findings.sort_by_key(|fault| fault.detail["line"].as_u64());
    findings.truncate(FINDINGS_MAX);
    let all: Vec<Value> = findings.iter().map(told).collect();
    let first = findings.swap_remove(0);
    if all.len() == 1 {
        return Err(first);
    }
    let message = format!("{} (and {} more)", first.message, all.len() - 1);
    Err(Fault { message, ..first }.with("findings", all))
}

/// One of several mistakes, in the form of `findings`.
fn told(fault: &Fault) -> Value {
    json!({ "line": fault.detail["line"], "key": fault.detail["key"], "message": fault.message })
}

/// One mistake to repair.
struct Mending<'m> {
    /// The bytes of its line.
    lines: Range<usize>,
    /// The dotted path of the key, as in messages.
    whole: &'m str,
    /// Whether there is no such key.
    is_unknown: bool,
    /// The key that was most likely meant.
    nearest: Option<&'m str>,
    needed: &'m [Needed],
    /// The path of the table from which a known key was removed.
    taken: Option<String>,
}

impl Mending<'_> {
    /// Repairs the key at `path` below `table`; returns whether it succeeded.
    fn mend(&mut self, table: &mut DeTable<'_>, path: &str) -> bool {
        let is_at = |word: &str| {
            let quoted = || path.strip_prefix('"')?.strip_prefix(word)?.strip_prefix('"');
            path.strip_prefix(word).or_else(quoted).filter(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let names: Vec<_> = table.keys().filter(|name| is_at(name.get_ref()).is_some()).cloned().collect();
        for name in names {
            let done = match is_at(name.get_ref()).unwrap_or_default() {
                "" => return self.leaf(table, &name),
                rest => match table.get_mut(&name).map(Spanned::get_mut) {
                    Some(DeValue::Table(inner)) => self.mend(inner, &rest[1..]),
                    Some(DeValue::Array(items)) => items.iter_mut().any(|item| {
                        let is_here = self.lines.contains(&item.span().start);
                        match item.get_mut() {
                            DeValue::Table(inner) if is_here || self.has_line_of(inner) => self.mend(inner, &rest[1..]),
                            _ => false,
                        }
                    }),
                    _ => false,
                },
            };
            if done {
                return true;
            }
        }
        // The key is missing.
        match (self.good(self.whole), path.contains('.')) {
            (Some(good), false) => {
                table.insert(Spanned::new(0..0, path.to_owned().into()), good);
                true
            }
            _ => false,
        }
    }

    fn leaf<'i>(&mut self, table: &mut DeTable<'i>, name: &Spanned<std::borrow::Cow<'i, str>>) -> bool {
        // Removing a table does not repair a mistake in it as a whole: other keys may need it.
        let is_whole = matches!(table.get(name).map(Spanned::get_ref), Some(DeValue::Table(_)));
        let good = self.good(self.whole);
        if is_whole && !self.is_unknown && good.is_none() {
            return false;
        }
        let Some(value) = table.remove(name) else { return false };
        let above = self.whole.strip_suffix(&**name.get_ref()).unwrap_or_default();
        match (self.is_unknown, self.nearest.filter(|nearest| !table.keys().any(|key| key.get_ref() == nearest))) {
            (false, _) => match good {
                Some(good) => drop(table.insert(name.clone(), Spanned::new(value.span(), good.into_inner()))),
                None => self.taken = Some(above.trim_end_matches('.').to_owned()),
            },
            (true, Some(nearest)) if nearest::is_near(name.get_ref(), nearest) => {
                table.insert(Spanned::new(name.span(), nearest.to_owned().into()), value);
            }
            // A key of another system; its value is not valid for Hob either.
            (true, Some(nearest)) => {
                if let Some(good) = self.good(&format!("{above}{nearest}")) {
                    table.insert(Spanned::new(name.span(), nearest.to_owned().into()), Spanned::new(value.span(), good.into_inner()));
                }
            }
            (true, None) => {}
        }
        true
    }

    /// A valid value for a path, if its key is mandatory.
    fn good(&self, path: &str) -> Option<Spanned<DeValue<'static>>> {
        let is_of = |pattern: &str| {
            pattern.split('.').count() == path.split('.').count()
                && pattern.split('.').zip(path.split('.')).all(|(wanted, found)| wanted == "*" || wanted == found)
        };
        DeValue::parse(self.needed.iter().find(|(pattern, _)| is_of(pattern))?.1).ok()
    }

    fn has_line_of(&self, table: &DeTable) -> bool {
        table.iter().any(|(name, value)| [name.span().start, value.span().start].iter().any(|at| self.lines.contains(at)))
    }
}
