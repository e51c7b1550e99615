//! The names that an operation may have: those that tools and OpenAPI allow, if every door can express them.
//!
//! - A name is a part of an address of the HTTP door, a word of a command line, and a tool's name for a
//!   model. These take letters, digits, `_`, `-` and `.`, and at most 64 characters.
//! - It is also a method of the pod's class, whose name has `_` instead of `-` or `.`.

use crate::model::edition::Edition;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Names that the HTTP door uses at `/v1/recipes/PUBLISHER/NAME/` beside operations.
const ROUTES: &[&str] = &["lift"];

/// Checks whether a manifest may have an operation of that name beside `others`.
///
/// Errors: the reason, in words.
pub fn check<'a>(name: &str, mut others: impl Iterator<Item = &'a String>, edition: Edition) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) || !name.as_bytes()[0].is_ascii_alphanumeric() {
        return Err(format!(
            "`{name:.100}` is not an operation's name: wanted 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, `_`, `-` and `.`, a letter or digit first"
        ));
    }
    // Recipes that an older Hob installed were never checked for these.
    if edition == Edition::Older {
        return Ok(());
    }
    if ROUTES.contains(&name) {
        return Err(format!("`{name}` is not an operation's name: a server has something else at that address"));
    }
    match others.find(|other| method(other) == method(name)) {
        Some(other) => Err(format!("`{name}` and `{other}` would be one method of the pod, `{}`: rename one", method(name))),
        None => Ok(()),
    }
}

/// The method of a pod's class that serves an operation.
pub fn method(name: &str) -> String {
    name.replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_tools_have_and_every_door_can_say() {
        let none = || std::iter::empty();
        for good in ["echo", "API-post-search", "getUser", "pets.list", "x", "2fa", "a_b-c.d", &"a".repeat(64)] {
            assert_eq!(check(good, none(), Edition::Current), Ok(()), "{good}");
        }
        for bad in ["", "-x", "_x", ".", "..", ".x", "a/b", "a b", "ä", "a\n", "a%2f", "a:b", &"a".repeat(65)] {
            let why = check(bad, none(), Edition::Current).unwrap_err();
            assert!(why.contains("is not an operation's name"), "{bad}: {why}");
            assert!(check(bad, none(), Edition::Older).is_err(), "{bad}");
        }
        let others = ["post-search".to_owned(), "get.user".to_owned()];
        for (name, says) in [
            ("post_search", "`post_search` and `post-search`"),
            ("get_user", "`get_user`: rename"),
            ("lift", "a server has something else"),
        ] {
            let why = check(name, others.iter(), Edition::Current).unwrap_err();
            assert!(why.contains(says), "{name}: {why}");
            assert_eq!(check(name, others.iter(), Edition::Older), Ok(()), "{name}");
        }
        assert_eq!(check("Post-search", others.iter(), Edition::Current), Ok(()));
    }
}
