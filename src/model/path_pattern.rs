//! Patterns for paths within a recipe folder: of `files` in recipe.toml, and of `.hobignore`.
//!
//! `*` and `?` stand for characters of one part of a path, `**` for any number of parts. A pattern takes what it names and, where that is a
//! folder, all below it. Matching costs at most the product of the two lengths.

use super::limits::{PATH_PATTERN_BYTES_MAX, PATH_PATTERN_PARTS_MAX};

/// One pattern, relative to the recipe folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    parts: Vec<String>,
    /// Whether a wildcard matches a part that begins with a dot.
    takes_hidden: bool,
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts.join("/"))
    }
}

impl PathPattern {
    /// Of `files`: what begins with a dot has to be spelled out.
    ///
    /// Errors: why it is none, for people.
    pub fn parse(text: &str) -> Result<PathPattern, String> {
        let parts: Vec<String> = text.trim_end_matches('/').split('/').map(str::to_owned).collect();
        let is_part =
            |part: &String| !part.is_empty() && part != "." && part != ".." && !part.bytes().any(|byte| byte < 0x20 || byte == 0x7f);
        if text.len() > PATH_PATTERN_BYTES_MAX || parts.len() > PATH_PATTERN_PARTS_MAX || text.contains('\\') || !parts.iter().all(is_part)
        {
            return Err(format!(
                "`{}` is no path below the recipe folder: wanted e.g. `data/words.txt` or `data/**`",
                text.chars().take(PATH_PATTERN_BYTES_MAX).collect::<String>().escape_debug()
            ));
        }
        if let Some(part) = parts.iter().find(|part| part.contains("**") && *part != "**") {
            return Err(format!("`{part}` in `{text}`: `**` stands alone between two `/`"));
        }
        if let Some(sign) = text.chars().find(|sign| "[]{}!".contains(*sign)) {
            return Err(format!("`{sign}` in `{text}`: patterns have `*`, `?` and `**` only"));
        }
        Ok(PathPattern { parts, takes_hidden: false })
    }

    /// A line of `.hobignore`: without a `/` inside it is meant at any depth. None for an empty line or a comment.
    ///
    /// Errors: why it is none, for people.
    pub fn parse_ignored(line: &str) -> Result<Option<PathPattern>, String> {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let (anchored, text) = match line.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (line.trim_end_matches('/').contains('/'), line),
        };
        let mut pattern = PathPattern::parse(text)?;
        if !anchored {
            pattern.parts.insert(0, "**".to_owned());
        }
        Ok(Some(PathPattern { takes_hidden: true, ..pattern }))
    }

    /// Whether it names the file `path` or a folder above it.
    pub fn takes(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        // What lies below a folder that it names is taken as by `**`.
        (1..=parts.len())
            .any(|end| self.is_whole(&parts[..end]) && (self.takes_hidden || !parts[end..].iter().any(|part| part.starts_with('.'))))
    }

    /// Whether it may take something below the folder `path`.
    pub fn enters(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        (0..=self.parts.len()).any(|end| self.is_prefix_whole(end, &parts)) || self.takes(path)
    }

    /// Whether it spells that part of a path out, without a wildcard.
    pub fn spells(&self, part: &str) -> bool {
        self.parts.iter().any(|own| own == part)
    }

    fn is_whole(&self, parts: &[&str]) -> bool {
        self.is_prefix_whole(self.parts.len(), parts)
    }

    /// Whether its first `end` parts match all of `parts`.
    fn is_prefix_whole(&self, end: usize, parts: &[&str]) -> bool {
        // reached[n]: the parts of the pattern so far match the first n of the path.
        let mut reached = vec![false; parts.len() + 1];
        reached[0] = true;
        for own in &self.parts[..end] {
            let mut next = vec![false; parts.len() + 1];
            for at in 0..=parts.len() {
                if own == "**" {
                    next[at] |= reached[at];
                    next[at] |= at > 0 && next[at - 1] && (self.takes_hidden || !parts[at - 1].starts_with('.'));
                } else if at > 0 && reached[at - 1] {
                    let hidden = parts[at - 1].starts_with('.') && !own.starts_with('.') && !self.takes_hidden;
                    next[at] = !hidden && is_part(own, parts[at - 1]);
                }
            }
            reached = next;
        }
        reached[parts.len()]
    }
}

/// Whether a part of a path is what a part of a pattern describes.
pub fn is_part(pattern: &str, part: &str) -> bool {
    let (pattern, part): (Vec<char>, Vec<char>) = (pattern.chars().collect(), part.chars().collect());
    let (mut at, mut own, mut star) = (0, 0, None);
    while at < part.len() {
        match pattern.get(own) {
            Some('*') => {
                star = Some((own, at));
                own += 1;
            }
            Some(&sign) if sign == '?' || sign == part[at] => (at, own) = (at + 1, own + 1),
            // The last `*` takes one more.
            _ => match &mut star {
                Some((place, from)) => {
                    *from += 1;
                    (own, at) = (*place + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[own..].iter().all(|sign| *sign == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_take_what_they_name_and_all_below_a_folder() {
        for (pattern, taken, not) in [
            ("data/**", &["data/a", "data/b/c.txt"][..], &["datas/a", "pod/data/a", "data/.env", "data/.git/x"][..]),
            ("data", &["data", "data/a", "data/b/c"], &["data2", "data/.hidden", "x/data"]),
            ("data/", &["data/a"], &["x"]),
            ("*.txt", &["a.txt"], &["a/b.txt", ".txt", "a.txtx"]),
            ("**/*.txt", &["a.txt", "a/b/c.txt"], &["a/.b/c.txt", "a.md"]),
            ("pod/.config.json", &["pod/.config.json"], &["pod/config.json"]),
            ("pod/.config/**", &["pod/.config/a"], &["pod/.config/.b"]),
            ("a?c/*b*d", &["abc/bd", "axc/xxbxxd"], &["ac/bd", "abc/b", "abc/.bd"]),
        ] {
            let pattern = PathPattern::parse(pattern).unwrap();
            assert!(taken.iter().all(|path| pattern.takes(path)), "{pattern:?}");
            assert!(!not.iter().any(|path| pattern.takes(path)), "{pattern:?}");
        }
        let pattern = PathPattern::parse("data/*/x/**").unwrap();
        assert!(["data", "data/a", "data/a/x", "data/a/x/y"].iter().all(|path| pattern.enters(path)));
        assert!(!["pod", "data/a/y"].iter().any(|path| pattern.enters(path)));
        assert!(pattern.spells("data") && !pattern.spells("*x"));
    }

    #[test]
    fn ignored_ones_are_meant_at_any_depth_unless_they_have_a_folder() {
        let ignored = |line| PathPattern::parse_ignored(line).unwrap().unwrap();
        assert!(ignored("*.pyc").takes("pod/a/b.pyc") && ignored("venv/").takes("pod/venv/lib/x") && ignored("*").takes(".env"));
        assert!(ignored("/notes").takes("notes") && !ignored("/notes").takes("pod/notes") && !ignored("a/b").takes("c/a/b"));
        assert_eq!(PathPattern::parse_ignored("# words"), Ok(None));
        assert_eq!(PathPattern::parse_ignored("   "), Ok(None));
    }

    #[test]
    fn what_leaves_the_folder_or_is_no_pattern_is_refused() {
        let long = "a".repeat(PATH_PATTERN_BYTES_MAX + 1);
        for bad in ["", "/", "/etc/passwd", "../x", "a/../b", "./a", "a//b", "a\\b", "a\nb", "a**", "[ab]", "!x", "{a,b}", &long] {
            assert!(PathPattern::parse(bad).is_err(), "{bad:?}");
        }
        // As dear as it gets.
        let stars = PathPattern::parse(&"*a".repeat(PATH_PATTERN_BYTES_MAX / 2)).unwrap();
        assert!(stars.takes(&"a".repeat(250)) && !stars.takes(&format!("{}b", "a".repeat(249))));
        assert!(PathPattern::parse(&["**"; PATH_PATTERN_PARTS_MAX].join("/")).unwrap().takes(&["a"; 120].join("/")));
    }
}
