//! Patterns for paths within a recipe folder: of `files` in recipe.toml, and of `.hobignore`.
//!
//! `*` and `?` match characters within one part of a path, `**` matches any number of parts. A pattern
//! matches the path that it names and, if that is a folder, everything below it. Many patterns are matched
//! against a whole tree from its top, so that the result for a folder serves everything in it, and one bound
//! covers the steps of all of it together.

use super::limits::{PATH_PATTERN_BYTES_MAX, PATH_PATTERN_PARTS_MAX, PATTERN_STEPS_MAX};
use crate::model::limits;

/// One pattern, relative to the recipe folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// At most [`PATH_PATTERN_PARTS_MAX`], and one `**` before them.
    parts: Vec<String>,
    /// Whether wildcards match names that begin with a dot; otherwise such names must be spelled out.
    takes_hidden: bool,
}

/// The remaining work that patterns may cause.
#[derive(Debug)]
pub struct Steps {
    left: u64,
}

/// The patterns need more steps than [`PATTERN_STEPS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManySteps;

impl Default for Steps {
    fn default() -> Steps {
        Steps { left: PATTERN_STEPS_MAX }
    }
}

impl Steps {
    fn spend(&mut self, count: u64) -> Result<(), TooManySteps> {
        self.left = self.left.checked_sub(count).ok_or(TooManySteps)?;
        Ok(())
    }
}

/// How far patterns match at one path: those that may still take it, or something below it.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The number of the pattern, and a bit for each `n` such that its first `n` parts match the path.
    live: Vec<(usize, u64)>,
    /// Whether a pattern spells out the path's last part, without a wildcard.
    pub spelled: bool,
}

impl Reached {
    /// The state at the folder to which all patterns are relative.
    pub fn start(patterns: &[PathPattern]) -> Reached {
        let live = patterns.iter().enumerate().map(|(number, pattern)| (number, pattern.closed(1)));
        Reached { live: live.collect(), spelled: false }
    }

    /// Descends by one part, into the folder of this state.
    pub fn step(&self, patterns: &[PathPattern], part: &str, steps: &mut Steps) -> Result<Reached, TooManySteps> {
        let mut next = Reached { live: Vec::new(), spelled: false };
        for &(number, at) in &self.live {
            let mut spent = 0;
            let (bits, spelled) = patterns[number].step(at, part, &mut spent);
            steps.spend(spent)?;
            next.spelled |= spelled;
            if bits != 0 {
                next.live.push((number, bits));
            }
        }
        Ok(next)
    }

    /// The numbers of the patterns that take the path.
    pub fn takes<'a>(&'a self, patterns: &'a [PathPattern]) -> impl Iterator<Item = usize> + 'a {
        self.live.iter().filter(|(number, at)| at & (1 << patterns[*number].parts.len()) != 0).map(|(number, _)| *number)
    }

    /// Whether a pattern takes the path.
    pub fn is_taken(&self, patterns: &[PathPattern]) -> bool {
        self.takes(patterns).next().is_some()
    }

    /// Whether a pattern may take the path, or something below it.
    pub fn is_live(&self) -> bool {
        !self.live.is_empty()
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts.join("/"))
    }
}

impl PathPattern {
    /// Parses a pattern of `files`: names that begin with a dot must be spelled out.
    ///
    /// Errors: why it is not a pattern, for people.
    pub fn parse(text: &str) -> Result<PathPattern, String> {
        let parts: Vec<String> = text.trim_end_matches('/').split('/').map(str::to_owned).collect();
        let is_part = |part: &String| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && !part.bytes().any(|byte| byte < 0x20 || byte == 0x7f)
                && !part.contains('\u{feff}')
        };
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

    /// Parses a line of `.hobignore`: without a `/` inside, it applies at any depth. `None` for an empty line
    /// or a comment.
    ///
    /// Errors: why it is not a pattern, for people.
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

    /// The same state, also with each `**` at that point skipped.
    fn closed(&self, mut at: u64) -> u64 {
        for (place, part) in self.parts.iter().enumerate() {
            if part == "**" && at & (1 << place) != 0 {
                at |= 1 << (place + 1);
            }
        }
        at
    }

    /// The state after one more part; and whether the pattern spells out that part.
    fn step(&self, at: u64, part: &str, spent: &mut u64) -> (u64, bool) {
        let is_hidden = part.starts_with('.') && !self.takes_hidden;
        let (mut next, mut spelled) = (0, false);
        let mut left = at;
        while left != 0 {
            let place = left.trailing_zeros() as usize;
            left &= left - 1;
            *spent += 1;
            match self.parts.get(place).map(String::as_str) {
                // The whole pattern matched a folder above: everything inside is taken with it.
                None | Some("**") if !is_hidden => next |= 1 << place,
                None | Some("**") => {}
                Some(own) => {
                    let is_same = own == part;
                    spelled |= is_same;
                    if is_same || (!is_hidden && is_part(own, part, spent)) {
                        next |= 1 << (place + 1);
                    }
                }
            }
        }
        (self.closed(next), spelled)
    }
}

/// Whether a part of a pattern matches a part of a path. `spent` grows by the number of steps: at most the
/// product of the two lengths.
pub fn is_part(pattern: &str, part: &str, spent: &mut u64) -> bool {
    let (mut own, mut at) = (pattern.chars(), part.chars());
    // The pattern after the last `*`, and the place where the part continues if the `*` takes no more.
    let mut star = None;
    loop {
        *spent += 1;
        let (mut own_next, mut at_next) = (own.clone(), at.clone());
        match (own_next.next(), at_next.next()) {
            (Some('*'), _) => {
                star = Some((own_next.clone(), at.clone()));
                own = own_next;
            }
            (None, None) => return true,
            (Some(sign), Some(found)) if sign == '?' || sign == found => (own, at) = (own_next, at_next),
            // The last `*` would have to take less.
            (Some(_), None) => return false,
            _ => {
                let Some((after, from)) = &mut star else { return false };
                // The last `*` takes one more.
                if from.next().is_none() {
                    return false;
                }
                (own, at) = (after.clone(), from.clone());
            }
        }
    }
}

/// Whether `path` is relative, plain and inside a recipe: no `..`, no empty part, no backslash, no NUL.
pub fn is_inner_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= limits::BUNDLE_PATH_BYTES_MAX
        && !path.bytes().any(|byte| byte == b'\\' || byte < 0x20 || byte == 0x7f)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(pattern: &PathPattern, path: &str) -> Reached {
        let (patterns, mut steps) = ([pattern.clone()], Steps::default());
        path.split('/').fold(Reached::start(&patterns), |reached, part| reached.step(&patterns, part, &mut steps).unwrap())
    }

    fn takes(pattern: &PathPattern, path: &str) -> bool {
        reached(pattern, path).is_taken(std::slice::from_ref(pattern))
    }

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
            ("pod/.c*", &[], &["pod/.config", "pod/.c"]),
            ("a/*", &["a/b", "a/b/c"], &["a", "b/a", "a/.b", "a/b/.c"]),
            ("*é?", &["é1", "éé1"], &["é", "1é"]),
            ("a?c/*b*d", &["abc/bd", "axc/xxbxxd"], &["ac/bd", "abc/b", "abc/.bd"]),
        ] {
            let pattern = PathPattern::parse(pattern).unwrap();
            assert!(taken.iter().all(|path| takes(&pattern, path)), "{pattern:?}");
            assert!(!not.iter().any(|path| takes(&pattern, path)), "{pattern:?}");
        }
        let pattern = PathPattern::parse("data/*/x/**").unwrap();
        assert!(["data", "data/a", "data/a/x", "data/a/x/y"].iter().all(|path| reached(&pattern, path).is_live()));
        assert!(!["pod", "data/a/y"].iter().any(|path| reached(&pattern, path).is_live()));
        assert!(reached(&pattern, "data").spelled && !reached(&pattern, "data/a").spelled && reached(&pattern, "data/a/x").spelled);
    }

    #[test]
    fn ignored_ones_are_meant_at_any_depth_unless_they_have_a_folder() {
        let ignored = |line| PathPattern::parse_ignored(line).unwrap().unwrap();
        assert!(takes(&ignored("*.pyc"), "pod/a/b.pyc") && takes(&ignored("venv/"), "pod/venv/lib/x") && takes(&ignored("*"), ".env"));
        assert!(takes(&ignored("/notes"), "notes") && !takes(&ignored("/notes"), "pod/notes") && !takes(&ignored("a/b"), "c/a/b"));
        assert_eq!(PathPattern::parse_ignored("# words"), Ok(None));
        assert_eq!(PathPattern::parse_ignored("   "), Ok(None));
    }

    #[test]
    fn what_leaves_the_folder_or_is_no_pattern_is_refused() {
        let long = "a".repeat(PATH_PATTERN_BYTES_MAX + 1);
        for bad in ["", "/", "/etc/passwd", "../x", "a/../b", "./a", "a//b", "a\\b", "a\nb", "a**", "[ab]", "!x", "{a,b}", &long] {
            assert!(PathPattern::parse(bad).is_err(), "{bad:?}");
        }
        // As expensive as possible.
        let stars = PathPattern::parse(&"*a".repeat(PATH_PATTERN_BYTES_MAX / 2)).unwrap();
        assert!(takes(&stars, &"a".repeat(250)) && !takes(&stars, &format!("{}b", "a".repeat(249))));
        assert!(takes(&PathPattern::parse(&["**"; PATH_PATTERN_PARTS_MAX].join("/")).unwrap(), &["a"; 120].join("/")));
    }

    #[test]
    fn what_all_of_them_cost_is_counted_and_has_a_bound() {
        let count = |patterns: &[PathPattern], names: &[String]| {
            let mut steps = Steps::default();
            let start = Reached::start(patterns);
            names.iter().try_for_each(|name| start.step(patterns, name, &mut steps).map(drop)).map(|()| PATTERN_STEPS_MAX - steps.left)
        };
        let names = |count: usize| (0..count).map(|n| format!("file-{n}.txt")).collect::<Vec<_>>();
        // A thousand plain patterns and some thousand files cost some steps each.
        let plain: Vec<_> = (0..1_000).map(|n| PathPattern::parse_ignored(&format!("*.{n}")).unwrap().unwrap()).collect();
        let spent = count(&plain, &names(3_000)).unwrap();
        assert!((3_000_000..90_000_000).contains(&spent), "{spent}");
        // Patterns that do not begin like the path cost nothing further down.
        let anchored: Vec<_> = (0..1_000).map(|n| PathPattern::parse_ignored(&format!("/notes-{n}/x")).unwrap().unwrap()).collect();
        let mut steps = Steps::default();
        let below = Reached::start(&anchored).step(&anchored, "notes-7", &mut steps).unwrap();
        let before = steps.left;
        assert!(!below.step(&anchored, "y", &mut steps).unwrap().is_live() && before - steps.left < 10);
        // The most expensive patterns that can be written end at the bound, and not later.
        let dear = format!("*{}b", "a".repeat(127));
        let mut spent = 0;
        assert!(!is_part(&dear, &"a".repeat(255), &mut spent) && (16_000..255 * 255).contains(&spent), "{spent}");
        let dear = vec![PathPattern::parse_ignored(&dear).unwrap().unwrap(); 1_000];
        assert_eq!(count(&dear, &vec!["a".repeat(255); 100]), Err(TooManySteps));
    }
}
