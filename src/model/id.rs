//! Names: of recipes, of versions, and of bytes by their digest.

use super::hint::{act, hint};
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    fault::{Code, Fault},
    shown,
};

/// `publisher/name`: each part 1 to 64 of `a-z 0-9 -`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecipeName {
    publisher: String,
    name: String,
}

/// Whether `part` may be a publisher's or a recipe's name.
pub fn is_name(part: &str) -> bool {
    (1..=64).contains(&part.len())
        && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !part.starts_with('-')
}

impl RecipeName {
    /// The publisher, which may sign the recipe.
    pub fn publisher(&self) -> &str {
        &self.publisher
    }
    /// The part after the slash.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for RecipeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.publisher, self.name)
    }
}

impl FromStr for RecipeName {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self, Fault> {
        let shown = shown::name(text);
        match text.split_once('/') {
            Some((publisher, name)) if is_name(publisher) && is_name(name) => {
                Ok(RecipeName { publisher: publisher.to_owned(), name: name.to_owned() })
            }
            // The installed version runs; only an install chooses one.
            Some((publisher, rest))
                if is_name(publisher) && rest.split_once('@').is_some_and(|(name, version)| is_name(name) && !version.is_empty()) =>
            {
                let name = text.split_once('@').map_or(text, |(name, _)| name);
                Err(Fault::new(Code::Usage, format!("`{shown}` is a recipe name with a version, wanted the name alone: `{name}`"))
                    .hint(hint!["the installed version is used; ", act::add(text), " installs another"]))
            }
            _ if RecipeRef::is_folder(text) => {
                Err(Fault::new(Code::Usage, format!("`{shown}` is not a recipe name but a path: wanted `publisher/name`"))
                    .hint(hint![act::list(), " shows the names of what is installed"]))
            }
            _ => Err(Fault::new(Code::Usage, format!("`{shown}` is not a recipe name: wanted `publisher/name`, each of a-z, 0-9 and `-`"))
                .hint(hint!["for a recipe folder ", act::folder_word()])),
        }
    }
}

impl TryFrom<String> for RecipeName {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<RecipeName> for String {
    fn from(name: RecipeName) -> String {
        name.to_string()
    }
}

/// How a caller may refer to a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipeRef {
    /// A recipe on the shelf.
    Name(RecipeName),
    /// An author's recipe folder, in unsigned dev mode.
    Folder(std::path::PathBuf),
    /// A capability that one installed recipe provides: `name@major`.
    Capability(String),
}

impl RecipeRef {
    /// Whether the word is a path. `a/b` never is: it is the name of a recipe, whatever file has that path.
    pub fn is_folder(word: &str) -> bool {
        word.starts_with(['.', '/'])
    }

    /// Whether the word names a capability.
    pub fn is_capability(word: &str) -> bool {
        !word.contains('/') && word.contains('@')
    }
}

impl FromStr for RecipeRef {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self, Fault> {
        if RecipeRef::is_folder(text) {
            return Ok(RecipeRef::Folder(text.into()));
        }
        if RecipeRef::is_capability(text) {
            return Ok(RecipeRef::Capability(text.to_owned()));
        }
        text.parse().map(RecipeRef::Name)
    }
}

impl fmt::Display for RecipeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecipeRef::Name(name) => name.fmt(f),
            RecipeRef::Folder(path) => path.display().fmt(f),
            RecipeRef::Capability(capability) => capability.fmt(f),
        }
    }
}

/// A SHA-256, shown and stored as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }
    /// The digest of a finished hasher.
    #[doc(hidden)]
    pub fn finish(hasher: Sha256) -> Digest {
        Digest(hasher.finalize().into())
    }
    /// 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
    /// The first 16 hex digits: for folder names and people, never for trust.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..8])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl FromStr for Digest {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self, Fault> {
        let mut bytes = [0; 32];
        match text.bytes().any(|byte| byte.is_ascii_uppercase()) || hex::decode_to_slice(text, &mut bytes).is_err() {
            true => Err(Fault::new(Code::Usage, format!("`{}` is not a SHA-256: wanted 64 lower-case hex digits", shown::name(text)))),
            false => Ok(Digest(bytes)),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_two_plain_parts() {
        assert_eq!("hob/echo".parse::<RecipeName>().unwrap().to_string(), "hob/echo");
        for bad in ["echo", "hob/", "/echo", "Hob/echo", "hob/ec ho", "hob/../x", "hob/a/b", "-a/b", "hob/é"] {
            assert_eq!(bad.parse::<RecipeName>().unwrap_err().code, Code::Usage, "{bad}");
        }
    }

    #[test]
    fn a_path_is_a_folder_and_nothing_else_is() {
        assert!(matches!("./recipes/echo".parse(), Ok(RecipeRef::Folder(_))));
        assert!(matches!("hob/echo".parse(), Ok(RecipeRef::Name(_))));
        assert!(matches!("embeddings@1".parse(), Ok(RecipeRef::Capability(_))));
        assert!("hob/echo@1.0.0".parse::<RecipeRef>().is_err());
        assert!("recipes/echo/".parse::<RecipeRef>().is_err());
    }

    #[test]
    fn digests_round_trip() {
        let digest = Digest::of(b"hob");
        assert_eq!(digest.hex().parse::<Digest>().unwrap(), digest);
        assert!(digest.hex().to_uppercase().parse::<Digest>().is_err());
    }
}
