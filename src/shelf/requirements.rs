//! `requirements.lock`: checked before `uv` sees it, so that a complaint names the line.
//!
//! Apart from environments, because it is pure. Only `name==version --hash=...` passes: no index host, no path,
//! no URL, no option, so that a lock can neither choose where bytes come from nor what runs at install.

use crate::model::{Code, Fault, limits};

/// One pinned package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    pub name: String,
    pub version: String,
}

/// All packages of a lock, in its order. `what` names the file in faults.
///
/// Errors: `invalid_recipe` with `line` in `detail`, `too_large`.
pub fn parse(text: &str, what: &str) -> Result<Vec<Pin>, Fault> {
    if text.len() as u64 > limits::LOCK_BYTES_MAX {
        return Err(Fault::new(Code::TooLarge, format!("{what} is {} bytes; at most {} are taken", text.len(), limits::LOCK_BYTES_MAX)));
    }
    let refuse = |line: usize, why: String| {
        Fault::new(Code::InvalidRecipe, format!("{what}:{line}: {why}"))
            .hint("make the lock with `uv pip compile --universal --generate-hashes --only-binary :all:`")
            .with("line", line)
    };
    let mut pins = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let start = index + 1;
        let mut logical = uncommented(first).to_owned();
        while let Some(begun) = logical.strip_suffix('\\') {
            let Some((_, more)) = lines.next() else {
                return Err(refuse(start, "the line goes on past the end of the file".into()));
            };
            logical = format!("{begun} {}", uncommented(more));
        }
        let logical = logical.trim();
        if logical.is_empty() {
            continue;
        }
        if logical.starts_with('-') {
            return Err(refuse(start, format!("`{}`: a lock names packages, not options of an installer", word(logical))));
        }
        let (requirement, hashes) = logical.split_once("--hash").map_or((logical, ""), |(head, _)| (head, &logical[head.len()..]));
        let (pinned, _marker) = requirement.split_once(';').unwrap_or((requirement, ""));
        let Some((name, version)) = pinned.split_once("==").map(|(name, version)| (name.trim(), version.trim())) else {
            return Err(refuse(start, format!("`{}` is not pinned: wanted `name==version`", pinned.trim())));
        };
        let (bare, extras) = name.split_once('[').map_or((name, "]"), |(bare, extras)| (bare, extras));
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) && !text.starts_with('-')
        };
        let version_is_plain = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+!-_".contains(&byte));
        if !plain(bare.trim()) || !extras.ends_with(']') || !version_is_plain {
            return Err(refuse(start, format!("`{}` is not pinned: wanted `name==version`", pinned.trim())));
        }
        if hashes.is_empty() {
            return Err(refuse(start, format!("`{name}=={version}` has no hash: wanted at least one `--hash=sha256:...`")));
        }
        for option in hashes.split_whitespace() {
            let hash = option.strip_prefix("--hash=sha256:").unwrap_or("");
            if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(refuse(start, format!("`{option}` of `{name}=={version}` is not `--hash=sha256:` and 64 hex digits")));
            }
        }
        pins.push(Pin { name: bare.trim().to_owned(), version: version.to_owned() });
    }
    Ok(pins)
}

/// The line without its comment: `#` at the start or after white space.
fn uncommented(line: &str) -> &str {
    let comment = line.char_indices().find(|(at, character)| *character == '#' && (*at == 0 || line[..*at].ends_with([' ', '\t'])));
    line[..comment.map_or(line.len(), |(at, _)| at)].trim_end()
}

fn word(text: &str) -> &str {
    text.split(|character: char| character.is_whitespace() || character == '=').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "--hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274";

    #[test]
    fn a_compiled_lock_reads() {
        let text = format!(
            "# by uv\nsix==1.17.0 \\\n    {HASH} \\\n    {HASH}\n    # via x\n\nidna[all]==3.10 ; python_version < '3.12' {HASH} # why\n"
        );
        let pins = parse(&text, "requirements.lock").unwrap();
        let pin = |name: &str, version: &str| Pin { name: name.into(), version: version.into() };
        assert_eq!(pins, [pin("six", "1.17.0"), pin("idna", "3.10")]);
        assert_eq!(parse("# nothing\n", "x").unwrap(), []);
    }

    #[test]
    fn what_is_not_a_hashed_pin_is_refused_by_line() {
        let table = [
            ("six==1.17.0\n".to_owned(), 1, "`six==1.17.0` has no hash"),
            (format!("six==1.17.0 {HASH}\n\nidna==3.10\n"), 3, "`idna==3.10` has no hash"),
            (format!("six>=1.17.0 {HASH}"), 1, "`six>=1.17.0` is not pinned"),
            (format!("six==1.* {HASH}"), 1, "is not pinned"),
            (format!("six @ file:///six.whl {HASH}"), 1, "is not pinned"),
            (format!("six @ http://x/?a==b {HASH}"), 1, "is not pinned"),
            (format!("./six==1 {HASH}"), 1, "is not pinned"),
            ("-e .".to_owned(), 1, "`-e`: a lock names packages"),
            ("\n--index-url=http://x".to_owned(), 2, "`--index-url`: a lock names packages"),
            ("six==1.17.0 --hash=md5:abc".to_owned(), 1, "is not `--hash=sha256:`"),
            (format!("six==1.17.0 {HASH} --global-option=x"), 1, "`--global-option=x` of `six==1.17.0` is not"),
            ("six==1.17.0 \\".to_owned(), 1, "goes on past the end"),
        ];
        for (text, line, says) in table {
            let fault = parse(&text, "requirements.lock").expect_err(&text);
            assert_eq!(fault.code, Code::InvalidRecipe);
            assert!(fault.message.starts_with(&format!("requirements.lock:{line}: ")) && fault.message.contains(says), "{}", fault.message);
        }
    }
}
