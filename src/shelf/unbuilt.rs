//! Why `uv` could not install a lock, told by what it printed: whose fault it is, and what to do.
//!
//! Apart from building: these are another program's words, of the version that Hob fetches. What none of them fits is told as it came.

use crate::model::{Blame, Fault, Hint, act, hint};

/// What `uv` says, whose fault that is, and the next step. The first that fits counts.
const WORDS: [(&str, Blame, &str); 9] = [
    ("could not be queried", Blame::Machine, REFUSED),
    ("returned a 403", Blame::Machine, REFUSED),
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
    (
        "No solution found when resolving",
        Blame::Recipe,
        "the lock contradicts itself: make it anew with `uv pip compile --universal --generate-hashes --only-binary :all:`",
    ),
    ("Failed to fetch", Blame::Machine, UNREACHED),
];

const REFUSED: &str =
    "the package index refuses: see the user and password in `[environments] index_urls` of hob.toml, or what this network wants first";

const NO_WHEEL: &str = "packages are installed from wheels alone, since making one runs the package's own code: lock a version that has a wheel, or let the operator's index ({indexes}) have one that was made by `uv build` or `pip wheel`";

const UNREACHED: &str = "if the package index was not reached: see proxy and certificate variables, or {indexes}";

/// The package of which an index had other bytes than the lock names, as `uv` prints its name.
pub fn mismatched(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("Hash mismatch for `")?;
    rest.split(['=', '`']).next().filter(|name| !name.is_empty())
}

/// Whether an index just does not have what the lock names, so that another one may.
pub fn is_elsewhere(said: &str) -> bool {
    let words =
        ["Hash mismatch", "usable wheels", "no wheels with a matching", "not found in the package registry", "there is no version of"];
    words.iter().any(|words| said.contains(words))
}

/// A text of the table as a hint.
fn hint_of(next: &str) -> Hint {
    match next.split_once("{indexes}") {
        Some((before, after)) => hint![before, act::index_urls(), after],
        None => next.into(),
    }
}

/// Says of a fault about a failed install whose it is, and the next step. `is_own`: the index is one that the operator named, so that what is not
/// there may be its fault.
pub fn explained(fault: Fault, said: &str, is_own: bool) -> Fault {
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
            ("error: a sentence of a later version", Blame::Machine, "not reached"),
        ] {
            let fault = explained(Fault::new(Code::EnvironmentFailed, "x"), said, false);
            assert!(fault.blame == blame && fault.hint.as_ref().is_some_and(|hint| hint.contains(next)), "{said}: {fault:?}");
        }
    }
}
