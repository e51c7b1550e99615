//! The blobs that an operation takes and gives, if its manifest declares them: `[operations.<name>.blobs.in]`
//! and `.out`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::model::{
    blob::Blob,
    fault::{Code, Fault},
    limits::{BLOB_BYTES_MAX, BLOBS_MAX, SHOWN_NAME_CHARS_MAX},
    manifest::reader::Table,
};

/// The declaration of one blob.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlobSpec {
    /// E.g. `audio/wav`, `image/*` or `*/*`.
    pub media_type: String,
    /// Most bytes that it may have.
    pub bytes_max: u64,
    /// Whether the blob is mandatory.
    pub required: bool,
}

/// The properties of a blob that a declaration restricts.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    pub name: &'a str,
    pub media_type: &'a str,
    pub bytes: u64,
}

/// The declared blobs of one side of an operation, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlobSpecs {
    /// `None`: the manifest declares nothing, and any blob may come.
    named: Option<BTreeMap<String, BlobSpec>>,
}

impl BlobSpecs {
    /// Whether the manifest declares the blobs.
    pub fn are_declared(&self) -> bool {
        self.named.is_some()
    }

    /// The declared blobs, by name.
    pub fn declared(&self) -> impl Iterator<Item = (&String, &BlobSpec)> {
        self.named.iter().flatten()
    }

    /// Checks blobs against the declaration. `what` describes them, e.g. "input of `run` of `me/x`".
    ///
    /// Errors: `code`; the message names the blob, with what was found and wanted.
    pub fn check(&self, blobs: &[Blob], what: &str, code: Code) -> Result<(), Fault> {
        let described: Vec<_> =
            blobs.iter().map(|blob| Described { name: &blob.name, media_type: &blob.media_type, bytes: blob.size() }).collect();
        self.check_described(&described, what, code)
    }

    /// [`BlobSpecs::check`] for blobs that do not exist yet.
    ///
    /// Errors: as [`BlobSpecs::check`].
    pub fn check_described(&self, blobs: &[Described], what: &str, code: Code) -> Result<(), Fault> {
        let Some(named) = &self.named else { return Ok(()) };
        let wrong = |name: &str, why: String| {
            let name: String = name.chars().take(SHOWN_NAME_CHARS_MAX).collect();
            Err(Fault::new(code, format!("{what}: the blob `{}` {why}", name.escape_debug())).with("blob", name))
        };
        for (at, blob) in blobs.iter().enumerate() {
            let Some(spec) = named.get(blob.name) else {
                let known: Vec<_> = named.keys().map(|name| format!("`{name}`")).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return wrong(blob.name, format!("is not one that the operation declares: wanted {known}"));
            };
            if blobs[..at].iter().any(|other| other.name == blob.name) {
                return wrong(blob.name, "is there twice".to_owned());
            }
            if !spec.takes(blob.media_type) {
                let found: String = blob.media_type.chars().take(SHOWN_NAME_CHARS_MAX).collect();
                return wrong(blob.name, format!("is `{}`, wanted `{}`", found.escape_debug(), spec.media_type));
            }
            if blob.bytes > spec.bytes_max {
                return wrong(blob.name, format!("has {} bytes; at most {} are wanted", blob.bytes, spec.bytes_max));
            }
        }
        match named.iter().find(|(name, spec)| spec.required && !blobs.iter().any(|blob| blob.name == name.as_str())) {
            Some((name, spec)) => wrong(name, format!("is missing: wanted `{}`, at most {} bytes", spec.media_type, spec.bytes_max)),
            None => Ok(()),
        }
    }
}

impl Serialize for BlobSpecs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.named.serialize(serializer)
    }
}

impl BlobSpec {
    /// Whether the declaration allows that media type. Parameters (`; charset=utf-8`) and case do not matter.
    fn takes(&self, media_type: &str) -> bool {
        let found = media_type.split(';').next().unwrap_or("").trim();
        let (Some((kind, name)), Some((wanted_kind, wanted))) = (found.split_once('/'), self.media_type.split_once('/')) else {
            return false;
        };
        (wanted_kind == "*" || kind.eq_ignore_ascii_case(wanted_kind)) && (wanted == "*" || name.eq_ignore_ascii_case(wanted))
    }
}

/// Reads `blobs` of an operation: those of its input, and those of its output.
pub(in crate::model) fn blobs(table: &mut Table) -> Result<[BlobSpecs; 2], Fault> {
    let Some(mut table) = table.optional_table("blobs")? else { return Ok(Default::default()) };
    let both = [side(&mut table, "in")?, side(&mut table, "out")?];
    table.finish()?;
    Ok(both)
}

fn side(table: &mut Table, key: &'static str) -> Result<BlobSpecs, Fault> {
    let Some(mut table) = table.optional_table(key)? else { return Ok(BlobSpecs::default()) };
    let mut named = BTreeMap::new();
    for (name, mut table) in table.rest()? {
        if !is_blob_name(&name) {
            return Err(table.fault_here(format!("`{name:.100}` is not a blob's name: wanted 1 to 64 of a-z, A-Z, 0-9, `_`, `-` and `.`")));
        }
        let media_type = table.optional_string("media_type")?;
        let media_type = match media_type {
            Some(text) if is_media_range(text.get_ref()) => text.into_inner(),
            Some(text) => {
                let why = format!("`{:.100}` is not a media type: wanted e.g. `image/png`, `image/*` or `*/*`", text.get_ref());
                return Err(table.fault(&text, "media_type", why));
            }
            None => "*/*".to_owned(),
        };
        let bytes_max = table.optional_integer("bytes_max", 1, BLOB_BYTES_MAX)?.unwrap_or(BLOB_BYTES_MAX);
        let required = table.boolean("required", true)?;
        table.finish()?;
        named.insert(name, BlobSpec { media_type, bytes_max, required });
    }
    match named.len() > BLOBS_MAX {
        true => Err(table.fault_here(format!("{} blobs; at most {BLOBS_MAX} are carried", named.len()))),
        false => Ok(BlobSpecs { named: Some(named) }),
    }
}

fn is_blob_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn is_media_range(text: &str) -> bool {
    let is_token = |part: &str| {
        (1..=100).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    match text.split_once('/') {
        Some(("*", "*")) => true,
        Some((kind, "*")) => is_token(kind),
        Some((kind, name)) => is_token(kind) && is_token(name),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Manifest;

    fn specs(lines: &str) -> Result<[BlobSpecs; 2], Fault> {
        let text = format!(
            "name = \"me/x\"\nversion = \"1.0.0\"\nlicense = \"MIT\"\nsummary = \"s\"\nhob = \">=0.1.1, <0.2\"\n[glue]\nworld = \"0.1\"\n\
             [operations.run]\nsummary = \"s\"\ninput = {{}}\noutput = {{}}\n{lines}"
        );
        let manifest = Manifest::parse(&text, "recipe.toml")?;
        Ok(manifest.operation("run")?.blobs.clone())
    }

    #[test]
    fn what_is_declared_is_held_by_name_type_size_and_number() {
        let [taken, given] = specs(
            "blobs.in.picture = { media_type = \"image/*\", bytes_max = 4 }\nblobs.in.mask = { media_type = \"image/png\", required = false }\n",
        )
        .unwrap();
        assert!(taken.are_declared() && !given.are_declared());
        let blob = |name: &str, media_type: &str, bytes: usize| Blob::new(name, media_type, vec![0; bytes]);
        let check = |blobs: &[Blob]| taken.check(blobs, "input", Code::InvalidInput);
        check(&[blob("picture", "IMAGE/jpeg; q=1", 4)]).unwrap();
        check(&[blob("mask", "image/png", 4), blob("picture", "image/x", 0)]).unwrap();
        for (blobs, says) in [
            (vec![], "the blob `picture` is missing: wanted `image/*`, at most 4 bytes"),
            (vec![blob("pictrue", "image/png", 1)], "the blob `pictrue` is not one that the operation declares: wanted `mask`, `picture`"),
            (vec![blob("picture", "audio/wav", 1)], "the blob `picture` is `audio/wav`, wanted `image/*`"),
            (vec![blob("picture", "nonsense", 1)], "is `nonsense`, wanted `image/*`"),
            (vec![blob("picture", "image/png", 5)], "has 5 bytes; at most 4"),
            (vec![blob("picture", "image/png", 1), blob("picture", "image/png", 1)], "is there twice"),
        ] {
            let fault = check(&blobs).unwrap_err();
            assert!(fault.code == Code::InvalidInput && fault.message.contains(says), "{says}: {fault}");
        }
        given.check(&[blob("anything", "at/all", 9)], "output", Code::InvalidOutput).unwrap();
        let [none, _] = specs("blobs.in = {}\n").unwrap();
        assert!(none.check(&[blob("a", "a/b", 1)], "input", Code::InvalidInput).unwrap_err().message.contains("wanted none"));
    }

    #[test]
    fn what_cannot_be_held_is_refused_at_its_line() {
        for (lines, says) in [
            ("blobs.in.\"a b\" = {}\n", "is not a blob's name"),
            ("blobs.in.a = { media_type = \"image\" }\n", "`image` is not a media type"),
            ("blobs.in.a = { media_type = \"*/png\" }\n", "`*/png` is not a media type"),
            ("blobs.in.a = { bytes_max = 0 }\n", "found 0, wanted 1 to"),
            ("blobs.in.a = { byte_max = 1 }\n", "nearest known key: `bytes_max`"),
            ("blobs.inn.a = {}\n", "nearest known key: `in`"),
            ("idempotent = true\nbatch = { items = 2 }\nblobs.in.a = {}\n", "`batch` with `blobs`"),
        ] {
            let fault = specs(lines).unwrap_err();
            assert!(fault.code == Code::InvalidManifest && fault.message.contains(says), "{lines}: {fault}");
        }
    }
}
