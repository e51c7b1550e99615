//! The versions of a recipe that a user wants, as written in `hob add NAME@...` and in `[recipes]` of
//! `hob.toml`.

use std::{fmt, str::FromStr};

use semver::{BuildMetadata, Version, VersionReq};

use super::fault::{Code, Fault};

/// A range of versions. A whole version without an operator (`1.2.3`) means exactly that version, as in
/// well-known installers; everything else is as in semver: `1.2` is `^1.2`. A single version with build
/// metadata (`1.2.3+4`) means that build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRange {
    comparisons: VersionReq,
    /// The build metadata, if the range is one version; else empty, and every build matches.
    build: BuildMetadata,
}

impl VersionRange {
    /// Any version that is not a pre-release.
    pub const ANY: VersionRange = VersionRange { comparisons: VersionReq::STAR, build: BuildMetadata::EMPTY };

    pub fn matches(&self, version: &Version) -> bool {
        self.comparisons.matches(version) && (self.build.is_empty() || self.build == version.build)
    }
}

impl FromStr for VersionRange {
    type Err = Fault;

    /// Errors: `usage`.
    fn from_str(text: &str) -> Result<VersionRange, Fault> {
        let exact = |part: &str| Version::parse(part.strip_prefix('=').unwrap_or(part).trim_start());
        let part = |part: &str| if Version::parse(part).is_ok() { format!("={part}") } else { part.to_owned() };
        let parts: Vec<String> = text.split(',').map(str::trim).map(part).collect();
        let comparisons = VersionReq::parse(&parts.join(", ")).map_err(|error| {
            let text =
                format!("`{text}` is not a version range ({error}): wanted e.g. `0.1.0` (exactly that), `^0.1`, `~0.1.2` or `>=0.1, <0.3`");
            Fault::new(Code::Usage, text).hint("name one version, or a range of them")
        })?;
        let build = exact(text.trim()).map_or(BuildMetadata::EMPTY, |version| version.build);
        Ok(VersionRange { comparisons, build })
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.build.is_empty() {
            true => self.comparisons.fmt(f),
            false => write!(f, "{}+{}", self.comparisons, self.build),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> VersionRange {
        text.parse().unwrap()
    }

    #[test]
    fn three_numbers_mean_exactly_these_and_all_else_is_as_ever() {
        for (text, means) in [
            ("1.2.3", "=1.2.3"),
            (" 1.2.3 ", "=1.2.3"),
            ("1.0.0-rc.1", "=1.0.0-rc.1"),
            ("1.0.0+1", "=1.0.0+1"),
            ("=1.0.0+1", "=1.0.0+1"),
            ("1.2.3, <2", "=1.2.3, <2"),
            ("1.2", "^1.2"),
            ("1", "^1"),
            ("1.x", "1.*"),
            ("*", "*"),
            ("^1.2.3", "^1.2.3"),
            ("~1.2.3", "~1.2.3"),
            ("=1.2.3", "=1.2.3"),
            (">=1.2.3, <2.0.0", ">=1.2.3, <2.0.0"),
        ] {
            assert_eq!(range(text).to_string(), means, "{text}");
            // The written form reads as the same range.
            assert_eq!(range(means), range(text), "{text}");
        }
        for bad in ["", "latest", "v1.2.3", "1.2.3.4", ">=1 <2", "==1.2.3", "1.2.3,", "01.2.3"] {
            let fault = bad.parse::<VersionRange>().unwrap_err();
            assert!(fault.message.starts_with(&format!("`{bad}` is not a version range")), "{bad}: {fault}");
        }
        let matches = |text: &str, version: &str| range(text).matches(&version.parse().unwrap());
        assert!(matches("1.0.0+1", "1.0.0+1") && !matches("1.0.0+1", "1.0.0+2") && !matches("=1.0.0+1", "1.0.0"));
        assert!(matches("1.0.0", "1.0.0+2") && matches("^1", "1.0.0+2") && !matches("1.2.3", "1.2.4"));
        assert_eq!(range("*"), VersionRange::ANY);
    }
}
