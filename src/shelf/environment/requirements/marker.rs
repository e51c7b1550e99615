//! Parses the environment markers of a lock, e.g. `python_full_version < '3.12' and sys_platform == 'linux'`,
//! into words.
//!
//! The grammar is that of Python's dependency specifiers, with its variables by name and strings of an
//! alphabet that needs no quoting. The installer evaluates the marker.

use std::fmt;

/// The variables that a marker may name.
const VARIABLES: &[&str] = &[
    "extra",
    "implementation_name",
    "implementation_version",
    "os_name",
    "platform_machine",
    "platform_python_implementation",
    "platform_release",
    "platform_system",
    "platform_version",
    "python_full_version",
    "python_version",
    "sys_platform",
];

const COMPARISONS: &[&str] = &["<=", "<", "!=", "===", "==", ">=", ">", "~="];

/// Deepest nesting of parentheses that is accepted; `uv` writes two or three levels.
const DEPTH_MAX: usize = 32;

/// A marker that follows the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker(Vec<Word>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Variable(&'static str),
    Text(String),
    Comparison(&'static str),
    In,
    Not,
    And,
    Or,
    Open,
    Close,
}

impl Marker {
    /// The error is for people.
    pub fn parse(text: &str) -> Result<Marker, String> {
        let words = words(text)?;
        let mut reader = Reader { words: &words, at: 0 };
        reader.alternatives(0)?;
        match reader.words.get(reader.at) {
            None => Ok(Marker(words)),
            Some(word) => Err(format!("`{word}` after its end")),
        }
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            write!(f, "{}{word}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Variable(name) => f.write_str(name),
            Word::Text(text) => write!(f, "'{text}'"),
            Word::Comparison(sign) => f.write_str(sign),
            Word::In => f.write_str("in"),
            Word::Not => f.write_str("not"),
            Word::And => f.write_str("and"),
            Word::Or => f.write_str("or"),
            Word::Open => f.write_str("("),
            Word::Close => f.write_str(")"),
        }
    }
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(' ');
    while let Some(first) = rest.chars().next() {
        let (word, length) = match first {
            '(' => (Word::Open, 1),
            ')' => (Word::Close, 1),
            '\'' | '"' => {
                let inner = rest[1..].split_once(first).map(|(inner, _)| inner).ok_or("a string without its end")?;
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" ._+-*!".contains(&byte);
                if !inner.bytes().all(plain) {
                    return Err(format!("`{inner}`: a string holds letters, digits, spaces and `._+-*!`"));
                }
                (Word::Text(inner.to_owned()), inner.len() + 2)
            }
            'a'..='z' => {
                let name = rest.split(|character: char| !character.is_ascii_lowercase() && character != '_').next().unwrap_or(rest);
                let word = match name {
                    "in" => Word::In,
                    "not" => Word::Not,
                    "and" => Word::And,
                    "or" => Word::Or,
                    _ => Word::Variable(VARIABLES.iter().find(|known| **known == name).ok_or_else(|| format!("`{name}` is no variable"))?),
                };
                (word, name.len())
            }
            _ => {
                let sign = COMPARISONS.iter().find(|sign| rest.starts_with(**sign)).ok_or_else(|| format!("`{first}` has no meaning"))?;
                (Word::Comparison(sign), sign.len())
            }
        };
        words.push(word);
        rest = rest[length..].trim_start_matches(' ');
    }
    Ok(words)
}

struct Reader<'a> {
    words: &'a [Word],
    at: usize,
}

impl Reader<'_> {
    /// Consumes the next word if it equals `word`.
    fn took(&mut self, word: &Word) -> bool {
        let is_it = self.words.get(self.at) == Some(word);
        self.at += usize::from(is_it);
        is_it
    }

    fn alternatives(&mut self, depth: usize) -> Result<(), String> {
        loop {
            self.comparison(depth)?;
            if !self.took(&Word::And) && !self.took(&Word::Or) {
                return Ok(());
            }
        }
    }

    fn comparison(&mut self, depth: usize) -> Result<(), String> {
        if self.took(&Word::Open) {
            if depth == DEPTH_MAX {
                return Err(format!("parentheses more than {DEPTH_MAX} deep"));
            }
            self.alternatives(depth + 1)?;
            return if self.took(&Word::Close) { Ok(()) } else { Err("a `(` without its `)`".into()) };
        }
        self.operand()?;
        let compares = match self.words.get(self.at) {
            Some(Word::Comparison(_)) => {
                self.at += 1;
                true
            }
            _ => self.took(&Word::In) || (self.took(&Word::Not) && self.took(&Word::In)),
        };
        if !compares {
            return Err("wanted a comparison, `in` or `not in`".into());
        }
        self.operand()
    }

    fn operand(&mut self) -> Result<(), String> {
        match self.words.get(self.at) {
            Some(Word::Variable(_) | Word::Text(_)) => {
                self.at += 1;
                Ok(())
            }
            Some(word) => Err(format!("`{word}` where a variable or a string was wanted")),
            None => Err("it ends too early".into()),
        }
    }
}
