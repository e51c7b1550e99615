//! Checks whether a text is a pattern of ECMAScript, including look-around and back-references: its readers
//! may use another engine than Hob. Nothing is compiled, and nothing is read twice.

use std::collections::HashSet;

pub fn regex(text: &str) -> bool {
    Pattern { letters: text.chars().peekable() }.read().is_some()
}

struct Pattern<'a> {
    letters: std::iter::Peekable<std::str::Chars<'a>>,
}

/// What precedes a quantifier.
#[derive(PartialEq)]
enum Before {
    Nothing,
    Item,
}

impl Pattern<'_> {
    /// `None`: it is not a pattern.
    fn read(mut self) -> Option<()> {
        let (mut groups, mut before) = (Vec::new(), Before::Nothing);
        let (mut names, mut named) = (HashSet::new(), HashSet::new());
        while let Some(letter) = self.letters.next() {
            before = match letter {
                '^' | '$' | '|' => Before::Nothing,
                '(' => {
                    // Whether the group may be repeated: in the old grammar look-ahead may, look-behind may
                    // not.
                    let mut repeats = true;
                    if self.letters.next_if_eq(&'?').is_some() {
                        match self.letters.next()? {
                            ':' | '=' | '!' => {}
                            '<' if self.letters.next_if(|letter| "=!".contains(*letter)).is_some() => repeats = false,
                            '<' => {
                                if !names.insert(self.name()?) {
                                    return None;
                                }
                            }
                            _ => return None,
                        }
                    }
                    groups.push(repeats);
                    Before::Nothing
                }
                ')' => match groups.pop()? {
                    true => Before::Item,
                    false => Before::Nothing,
                },
                '*' | '+' | '?' | '{' => {
                    if before == Before::Nothing {
                        return None;
                    }
                    if letter == '{' {
                        self.counts()?;
                    }
                    self.letters.next_if_eq(&'?');
                    Before::Nothing
                }
                ']' | '}' => return None,
                '[' => {
                    self.class()?;
                    Before::Item
                }
                '\\' => match self.letters.peek()? {
                    'b' | 'B' => {
                        self.letters.next();
                        Before::Nothing
                    }
                    'k' => {
                        self.letters.next();
                        self.letters.next_if_eq(&'<')?;
                        named.insert(self.name()?);
                        Before::Item
                    }
                    _ => {
                        self.escape()?;
                        Before::Item
                    }
                },
                _ => Before::Item,
            };
        }
        (groups.is_empty() && named.is_subset(&names)).then_some(())
    }

    /// Reads a group's name, after its `<`.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        loop {
            match self.letters.next()? {
                '>' if name.is_empty() => return None,
                '>' => return Some(name),
                letter if letter.is_alphabetic() || "_$".contains(letter) || letter.is_numeric() && !name.is_empty() => name.push(letter),
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = None;
        while let Some(digit) = self.letters.next_if(char::is_ascii_digit) {
            number = Some(number.unwrap_or(0_u64).saturating_mul(10).saturating_add(u64::from(digit as u32 - '0' as u32)));
        }
        number
    }

    /// `n}`, `n,}` or `n,m}`.
    fn counts(&mut self) -> Option<()> {
        let least = self.number()?;
        let most = match self.letters.next_if_eq(&',') {
            Some(_) => self.number().unwrap_or(u64::MAX),
            None => least,
        };
        (self.letters.next() == Some('}') && least <= most).then_some(())
    }

    /// Reads after the `\`; returns the letter, if the escape means one.
    fn escape(&mut self) -> Option<Option<char>> {
        let hex = |pattern: &mut Self, count: usize| {
            (0..count).try_fold(0, |number, _| Some(number * 16 + pattern.letters.next()?.to_digit(16)?))
        };
        Some(match self.letters.next()? {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => None,
            'p' | 'P' => {
                self.letters.next_if_eq(&'{')?;
                let mut length = 0;
                while self.letters.next_if(|letter| letter.is_ascii_alphanumeric() || "_=".contains(*letter)).is_some() {
                    length += 1;
                }
                if length == 0 || self.letters.next() != Some('}') {
                    return None;
                }
                None
            }
            'c' => {
                self.letters.next_if(char::is_ascii_alphabetic)?;
                None
            }
            'x' => char::from_u32(hex(self, 2)?),
            'u' if self.letters.next_if_eq(&'{').is_some() => {
                let mut number = None;
                while let Some(digit) = self.letters.next_if(char::is_ascii_hexdigit) {
                    number = Some((number.unwrap_or(0_u32) << 4 | digit.to_digit(16)?).min(0x11_0000));
                }
                if self.letters.next() != Some('}') {
                    return None;
                }
                Some(char::from_u32(number?)?)
            }
            // Half of a surrogate pair is not a letter, and is allowed.
            'u' => char::from_u32(hex(self, 4)?),
            't' => Some('\t'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            'v' => Some('\u{b}'),
            'f' => Some('\u{c}'),
            '0'..='9' => None,
            letter if letter.is_ascii_alphabetic() => return None,
            letter => Some(letter),
        })
    }

    /// Reads after the `[`.
    fn class(&mut self) -> Option<()> {
        self.letters.next_if_eq(&'^');
        // The letter before a `-`, if it may begin a range.
        let (mut from, mut dash) = (None, false);
        loop {
            let letter = match self.letters.next()? {
                ']' => return Some(()),
                '\\' if self.letters.next_if_eq(&'b').is_some() => Some('\u{8}'),
                '\\' => self.escape()?,
                '-' if from.is_some() && !dash => {
                    dash = true;
                    continue;
                }
                letter => Some(letter),
            };
            if dash {
                if let (Some(from), Some(to)) = (from, letter)
                    && from > to
                {
                    return None;
                }
                (from, dash) = (None, false);
            } else {
                from = letter;
            }
        }
    }
}
