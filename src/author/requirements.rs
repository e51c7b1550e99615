//! What a `requirements.lock` must be before it may be signed: exact versions, each with its hashes, and nothing else.
//!
//! Apart and pure. An index address, a path or an editable install in a lock would let the author's machine, or a host of
//! the author's choosing, speak on every operator's machine.

use crate::model::{Code, Fault};

/// Checks the text of a lock; `file` names it in faults.
///
/// Errors: `invalid_recipe` with file and line.
pub fn check(text: &str, file: &str) -> Result<(), Fault> {
    for (number, line) in logical_lines(text) {
        let wrong = |why: String| {
            Fault::new(Code::InvalidRecipe, format!("{file}:{number}: {why}"))
                .with("line", number)
                .hint("make it with `uv pip compile --universal --generate-hashes --only-binary :all:`")
        };
        if line.starts_with('-') {
            if line.split([' ', '=']).next() == Some("--only-binary") {
                continue;
            }
            return Err(wrong(format!("found the option `{line}`; wanted requirements only, so that no lock says where to fetch from")));
        }
        let mut words = line.split_whitespace();
        let mut requirement = String::new();
        let mut hashes = 0;
        for word in words.by_ref() {
            match word.strip_prefix("--hash=") {
                Some(hash) => match hash.strip_prefix("sha256:") {
                    Some(hex) if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => hashes += 1,
                    _ => return Err(wrong(format!("`{word}` is not `--hash=sha256:` and 64 hex digits"))),
                },
                None if hashes > 0 => return Err(wrong(format!("found `{word}` after a hash"))),
                None => {
                    requirement.push_str(word);
                    requirement.push(' ');
                }
            }
        }
        let requirement = requirement.trim_end();
        let plain = requirement.split(';').next().unwrap_or_default().trim();
        let exact = plain.split_once("==").is_some_and(|(name, version)| {
            let name = name.trim().split('[').next().unwrap_or_default();
            let version = version.trim();
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                && !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".!+-_".contains(&byte))
        });
        if !exact {
            return Err(wrong(format!("found `{requirement}`; wanted `name==version`")));
        }
        if hashes == 0 {
            return Err(wrong(format!("`{plain}` has no `--hash=sha256:`")));
        }
    }
    Ok(())
}

/// Lines with their continuations joined, comments and blank lines left out; each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, raw) in text.lines().enumerate() {
        // A comment starts at a `#` at the beginning or after a space; a `#` inside a word is part of it.
        let end = raw.match_indices('#').map(|(at, _)| at).find(|at| *at == 0 || raw[..*at].ends_with([' ', '\t'])).unwrap_or(raw.len());
        let line = raw[..end].trim();
        let (line, more) = match line.strip_suffix('\\') {
            Some(line) => (line.trim_end(), true),
            None => (line, false),
        };
        let (number, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        joined.push(' ');
        joined.push_str(line);
        match more {
            true => open = Some((number, joined)),
            false => lines.push((number, joined.trim().to_owned())),
        }
    }
    lines.extend(open.map(|(number, line)| (number, line.trim().to_owned())));
    lines.retain(|(_, line)| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "--hash=sha256:0000000000000000000000000000000000000000000000000000000000000000";

    #[test]
    fn a_lock_with_versions_and_hashes_passes() {
        let text = format!(
            "# made by uv\n--only-binary :all:\n\nnumpy==2.3.1 \\\n    {HASH} \\\n    {HASH}\n    # via\n    #   onnxruntime\n\
             colorama==0.4.6 ; sys_platform == 'win32' {HASH}\ntorch[cpu]==2.9.0+cpu {HASH}"
        );
        check(&text, "requirements.lock").unwrap();
        check("", "requirements.lock").unwrap();
    }

    #[test]
    fn anything_else_is_refused_with_its_line() {
        let table = [
            ("numpy==2.3.1", 1, "`numpy==2.3.1` has no `--hash=sha256:`"),
            ("\nnumpy>=2 HASH", 2, "wanted `name==version`"),
            ("a==1 HASH\nb==1 \\\n", 2, "`b==1` has no"),
            ("--index-url https://example.org/simple", 1, "the option `--index-url"),
            ("-e ./src", 1, "the option `-e"),
            ("./wheel.whl HASH", 1, "wanted `name==version`"),
            ("a @ https://example.org/a.whl HASH", 1, "wanted `name==version`"),
            ("a==https://example.org/a.whl HASH", 1, "wanted `name==version`"),
            ("a==1 --hash=md5:00", 1, "is not `--hash=sha256:`"),
            ("a==1 HASH b==2", 1, "found `b==2` after a hash"),
            ("a==1 HASH --extra-index-url=x", 1, "found `--extra-index-url=x` after a hash"),
        ];
        for (text, line, says) in table {
            let fault = check(&text.replace("HASH", HASH), "requirements.lock").expect_err(text);
            assert_eq!(fault.code, Code::InvalidRecipe);
            assert!(fault.message.starts_with(&format!("requirements.lock:{line}: ")) && fault.message.contains(says), "{text}: {fault}");
        }
    }
}
