//! Explains why `uv` could not install a lock, from its output: who is to blame, and what to do.
//!
//! The table holds another program's words, those of the `uv` version that Hob fetches. Output that matches
//! no entry is passed on unchanged.

use crate::{
    model::{Blame, Fault, Hint, StandIn, act, hint},
    shelf::environment::{
        index_answers::{self, Answered, NETWORK, PROXY},
        requirements::locking,
    },
};

/// A text that `uv` prints, who is to blame, and the next step. The first match counts.
const WORDS: [(&str, Blame, &str); 16] = [
    ("could not be queried", Blame::Machine, REFUSED),
    ("returned a 403", Blame::Machine, REFUSED),
    ("error (401 ", Blame::Machine, REFUSED),
    ("error (403 ", Blame::Machine, REFUSED),
    ("error (407 ", Blame::Machine, PROXY),
    ("error (511 ", Blame::Machine, NETWORK),
    ("Failed to extract archive", Blame::Machine, NOT_A_WHEEL),
    ("unexpected JSON", Blame::Machine, NO_INDEX),
    ("Unsupported `Content-Type`", Blame::Machine, NO_INDEX),
    (
        "Hash mismatch",
        Blame::Recipe,
        "the index has other bytes than the lock was made from: tell the recipe's publisher, and who runs the index if it is your own",
    ),
    ("has no usable wheels", Blame::Recipe, NO_WHEEL),
    (
        "has no wheels with a matching",
        Blame::Recipe,
        "its wheels are for other machines or Pythons than this one: a recipe says which Pythons it takes by `python` in `[pod]`, and which packages are for which machines by markers in its lock",
    ),
    (
        "was not found in the package registry",
        Blame::Recipe,
        "the package index has no package of that name: correct the lock, or see that {indexes} leads to an index that has it",
    ),
    (
        "there is no version of",
        Blame::Recipe,
        "the package index does not have that version: correct the lock, or see that {indexes} leads to an index that has it",
    ),
    ("No solution found when resolving", Blame::Recipe, "the lock contradicts itself: make it anew with {locking}"),
    ("Failed to fetch", Blame::Machine, UNREACHED),
];

const REFUSED: &str =
    "the package index refuses: see the user and the password in its address in {indexes}, or what this network wants first";

const NOT_A_WHEEL: &str = "what came in place of the wheel is none: open its address in a browser, since this network or that server may want you to sign in; else tell who runs the index (see {indexes})";

const NO_INDEX: &str = "what answers there is no package index: this network may want you to sign in; else correct {indexes}, where an index often ends in `/simple`";

const NO_WHEEL: &str = "packages are installed from wheels alone, since making one runs the package's own code: lock a version that has a wheel, or let the operator's index ({indexes}) have one that was made by `uv build` or `pip wheel`";

const UNREACHED: &str = "if the package index was not reached: see proxy and certificate variables, or {indexes}";

/// The package for which an index had other bytes than the lock names, as `uv` prints its name.
pub fn mismatched(said: &str) -> Option<&str> {
    after(said, "Hash mismatch for `")
}

/// The package that an install failed for, as `uv` prints its name.
pub fn package(said: &str) -> Option<&str> {
    let before = |words: &str| said.split_once(words).and_then(|(before, _)| before.rsplit(' ').next());
    let starts = ["Hash mismatch for `", "there is no version of ", "Failed to download `"];
    let found = starts.iter().find_map(|start| after(said, start));
    let found = found.or_else(|| ELSEWHERE.iter().find_map(|words| before(words)).and_then(|word| word.split("==").next()));
    found.map(str::trim).filter(|name| !name.is_empty())
}

/// The name that follows these words.
fn after<'a>(said: &'a str, words: &str) -> Option<&'a str> {
    let (_, rest) = said.split_once(words)?;
    rest.split(['=', '`', ' ', '\n']).next().filter(|name| !name.is_empty())
}

/// Words that say that an index simply lacks the locked file; they follow the name.
const ELSEWHERE: [&str; 3] = [" has no usable wheels", " has no wheels with a matching", " was not found in the package registry"];

/// Whether the index simply lacks the locked file, so that another index may have it.
pub fn is_elsewhere(said: &str) -> bool {
    ["Hash mismatch", "there is no version of"].iter().chain(&ELSEWHERE).any(|words| said.contains(words))
}

/// What came instead of a wheel, by its first four bytes; `uv` prints them as a number, the first byte last.
fn in_place_of_a_wheel(said: &str) -> Option<StandIn> {
    let (_, rest) = said.split_once("(actual: 0x")?;
    let head = u32::from_str_radix(rest.split(',').next()?, 16).ok()?.to_le_bytes();
    match head {
        [b'v', b'e', b'r', b's'] => Some(StandIn::LfsPointer),
        // Only the first bytes of a page are known; no wheel begins with `<`.
        [b'<', ..] => Some(StandIn::WebPage),
        _ => StandIn::of(&head, None),
    }
}

/// A text of the table as a hint.
fn hint_of(next: &str) -> Hint {
    if let Some(before) = next.strip_suffix("{locking}") {
        return Hint::from(before).and("", locking());
    }
    match next.split_once("{indexes}") {
        Some((before, after)) => hint![before, act::index_urls(), after],
        None => next.into(),
    }
}

/// Adds to a fault about a failed install who is to blame, and the next step. `is_own`: the operator named
/// the index, so a missing file may be the index's fault. `answers`: the answer of each index about the
/// package, if they were asked.
pub fn explained(mut fault: Fault, said: &str, is_own: bool, answers: &[Answered]) -> Fault {
    if let Some(found) = in_place_of_a_wheel(said) {
        fault.message.push_str(&format!("\n(what came is {})", found.name()));
    }
    let name = package(said).map_or("it".to_owned(), |name| format!("`{name}`"));
    let (fault, next) = index_answers::told(fault, &name, answers);
    // An index that withholds an answer may have the file that the others lack.
    if let (true, Some(next)) = (is_elsewhere(said), next) {
        return fault.blame(Blame::Machine).hint(next);
    }
    match WORDS.iter().find(|(words, ..)| said.contains(words)) {
        Some((words, _, next)) if is_own && ["was not found", "there is no version"].iter().any(|missing| words.starts_with(missing)) => {
            fault.hint(hint_of(next))
        }
        Some((_, blame, next)) => fault.blame(*blame).hint(hint_of(next)),
        None => fault.hint(hint_of(UNREACHED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Code;

    #[test]
    fn a_package_that_another_index_may_have_is_found_in_what_uv_says() {
        let said = "error: Failed to download `six-x==1.17.0`\n  cause: Hash mismatch for `six-x==1.17.0`\n\n  Expected:";
        assert!(mismatched(said) == Some("six-x") && is_elsewhere(said));
        for said in ["Because six==99.0 has no usable wheels and", "Because nosuch was not found in the package registry and"] {
            assert!(mismatched(said).is_none() && is_elsewhere(said));
        }
        assert!(!is_elsewhere("error: Failed to fetch: http://127.0.0.1:9/simple/six/") && mismatched("Hash mismatch for `").is_none());
    }

    /// As uv 0.13 prints it.
    #[test]
    fn what_uv_says_has_its_own_next_step_and_the_right_one_to_blame() {
        for (said, blame, next) in [
            (
                "cause: Because docopt==0.6.2 has no usable wheels and you require docopt==0.6.2, we can conclude",
                Blame::Recipe,
                "wheels alone",
            ),
            (
                "cause: Because pywin32==308 has no wheels with a matching platform tag (e.g., `manylinux_2_36_x86_64`)",
                Blame::Recipe,
                "other machines",
            ),
            (
                "cause: Because tensorflow==2.0.0 has no wheels with a matching Python ABI tag (e.g., `cp311`)",
                Blame::Recipe,
                "`python` in `[pod]`",
            ),
            (
                "cause: Because nosuch was not found in the package registry and you require nosuch==1.0",
                Blame::Recipe,
                "no package of that name",
            ),
            ("cause: Because there is no version of six==99.0 and you require six==99.0", Blame::Recipe, "that version"),
            ("error: Failed to download `six==1.17.0`\n  cause: Hash mismatch for `six==1.17.0`", Blame::Recipe, "other bytes"),
            ("error: No solution found when resolving dependencies\n  cause: something else", Blame::Recipe, "contradicts itself"),
            (
                "error: Request failed after 3 retries\n  cause: Failed to fetch: http://127.0.0.1:9/simple/six/",
                Blame::Machine,
                "not reached",
            ),
            (
                "hint: An index URL (http://x/simple) could not be queried due to a lack of valid authentication credentials (401 Unauthorized). was not found in the package registry",
                Blame::Machine,
                "refuses",
            ),
            (
                "error: Failed to download `six==1.17.0`\n  cause: Failed to fetch: http://x/six.whl\n  cause: HTTP status client error (401 Unauthorized) for url (http://x/six.whl)",
                Blame::Machine,
                "refuses",
            ),
            (
                "error: Failed to fetch: http://x\n  cause: HTTP status server error (511 Network Authentication Required)",
                Blame::Machine,
                "sign in",
            ),
            (
                "error: Failed to fetch: http://x\n  cause: HTTP status client error (407 Proxy Authentication Required)",
                Blame::Machine,
                "proxy",
            ),
            ("error: Received some unexpected JSON from `http://x/simple/six/`", Blame::Machine, "no package index"),
            (
                "error: Unsupported `Content-Type` \"text/plain\" for `http://x/simple/six/`. Expected JSON or HTML.",
                Blame::Machine,
                "no package index",
            ),
            ("error: Failed to download `six==1.17.0`\n  cause: Failed to extract archive: six.whl", Blame::Machine, "sign in"),
            ("error: a sentence of a later version", Blame::Machine, "not reached"),
        ] {
            let fault = explained(Fault::new(Code::EnvironmentFailed, "x"), said, false, &[]);
            assert!(fault.blame == blame && fault.hint.as_ref().is_some_and(|hint| hint.contains(next)), "{said}: {fault:?}");
        }
    }

    #[test]
    fn the_package_is_found_in_what_uv_says_and_what_came_in_place_of_its_wheel() {
        for (said, name) in [
            ("  cause: Because six was not found in the package registry and you require six==1.0", Some("six")),
            ("  cause: Because there is no version of six-x==1.17.0 and you", Some("six-x")),
            ("  cause: Because docopt==0.6.2 has no usable wheels and", Some("docopt")),
            ("  cause: Because pywin32==308 has no wheels with a matching platform tag", Some("pywin32")),
            ("error: Failed to download `six==1.17.0`\n  cause: Failed to extract archive", Some("six")),
            ("  cause: Hash mismatch for `six==1.17.0`", Some("six")),
            ("error: Failed to fetch: http://127.0.0.1:9/simple/six/", None),
        ] {
            assert_eq!(package(said), name, "{said}");
        }
        let came = |hex: &str| in_place_of_a_wheel(&format!("unexpected header (actual: 0x{hex}, expected: 0x4034b50)."));
        assert_eq!((came("4f44213c"), came("73726576")), (Some(StandIn::WebPage), Some(StandIn::LfsPointer)));
        assert_eq!((came("88b1f"), came("4034b50"), came("zz")), (Some(StandIn::Gzip), None, None));
    }

    #[test]
    fn an_index_that_keeps_something_back_is_what_has_to_be_seen_to() {
        use crate::shelf::environment::index_answers::Answer;
        let of = |index: &str, answer| Answered { index: index.to_owned(), answer };
        let said = "Because six was not found in the package registry and";
        let missing = of("http://b/simple", Answer::Nothing);
        for (answer, next) in [
            (of("http://a/simple", Answer::Refuses(reqwest::StatusCode::UNAUTHORIZED)), "http://a/simple wants a user and a password"),
            (of("http://***@a/simple", Answer::Refuses(reqwest::StatusCode::FORBIDDEN)), "does not take the user and the password"),
            (of("http://a/simple", Answer::Other(StandIn::WebPage)), "open http://a/simple in a browser"),
        ] {
            let fault = explained(Fault::new(Code::EnvironmentFailed, "x"), said, true, &[missing.clone(), answer.clone()]);
            assert!(fault.blame == Blame::Machine && fault.hint.as_ref().is_some_and(|hint| hint.contains(next)), "{fault:?}");
            assert!(fault.message.contains(&format!("asked for `six`: http://b/simple has no package of that name; {}", answer.told())));
            // The index's answer does not hide a fault with a reason of its own.
            let fault = explained(Fault::new(Code::EnvironmentFailed, "x"), "Failed to fetch: http://c/simple", true, &[answer]);
            assert!(fault.hint.is_some_and(|hint| hint.contains("not reached")));
        }
        let fault = explained(Fault::new(Code::EnvironmentFailed, "x"), said, false, &[missing]);
        assert!(fault.blame == Blame::Recipe && fault.hint.is_some_and(|hint| hint.contains("no package of that name")));
    }
}
