//! Signed metadata files as the writer makes and reads them: plain JSON values in TUF's envelope.
//!
//! They are JSON values instead of types, so that entries that a later Hob or another tool added survive a
//! rewrite.

use jiff::{Timestamp, ToSpan};
use serde_json::{Map, Value, json};

use super::keys::SigningKey;
use crate::{
    model::{Code, Digest, Fault, StandIn, stand_in::HEAD_BYTES},
    shelf::repository::tuf::canonical,
};

/// One role's `signed` object.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub signed: Map<String, Value>,
}

impl Role {
    /// A new role of that type, with version 1.
    pub fn new(kind: &str, now: Timestamp, days: i64) -> Result<Role, Fault> {
        let mut signed = Map::new();
        signed.insert("_type".into(), kind.into());
        signed.insert("spec_version".into(), "1.0.31".into());
        signed.insert("version".into(), 1.into());
        let mut role = Role { signed };
        role.expire(now, days)?;
        Ok(role)
    }

    /// Reads a role from its file. `file` names it in faults.
    pub fn read(bytes: &[u8], file: &str) -> Result<Role, Fault> {
        let wrong = |why: String| Fault::new(Code::MetadataInvalid, format!("`{file}` of the repository: {why}"));
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|error| match StandIn::of_text(&bytes[..bytes.len().min(HEAD_BYTES)], None) {
                Some(found) => wrong(format!("it is {}", found.name())).hint(found.hint_of_folder()),
                None => wrong(error.to_string()),
            })?;
        match value.get_mut("signed").map(Value::take) {
            Some(Value::Object(signed)) => Ok(Role { signed }),
            _ => Err(wrong("it has no object `signed`".into())),
        }
    }

    /// Its version.
    pub fn version(&self) -> Result<u64, Fault> {
        self.signed.get("version").and_then(Value::as_u64).ok_or_else(|| self.wrong("version"))
    }

    /// Sets the next version, valid for `days` from `now`.
    pub fn renew(&mut self, now: Timestamp, days: i64) -> Result<(), Fault> {
        let next = self.version()?.checked_add(1).ok_or_else(|| self.wrong("version: there is none after it"))?;
        self.signed.insert("version".into(), next.into());
        self.expire(now, days)
    }

    fn expire(&mut self, now: Timestamp, days: i64) -> Result<(), Fault> {
        let end = now
            .checked_add((days * 24).hours())
            .map_err(|error| Fault::new(Code::Usage, format!("no date {days} days after {now}: {error}")))?;
        // Whole seconds: every reader of the format parses these.
        let end = Timestamp::from_second(end.as_second()).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        self.signed.insert("expires".into(), end.to_string().into());
        Ok(())
    }

    /// The time when it expires.
    pub fn expires(&self) -> Result<Timestamp, Fault> {
        self.signed.get("expires").and_then(Value::as_str).and_then(|text| text.parse().ok()).ok_or_else(|| self.wrong("expires"))
    }

    /// An inner object, made if it is missing.
    pub fn object(&mut self, path: &[&str]) -> Result<&mut Map<String, Value>, Fault> {
        let mut at = &mut self.signed;
        for key in path {
            at = at
                .entry(*key)
                .or_insert_with(|| json!({}))
                .as_object_mut()
                .ok_or_else(|| Fault::new(Code::MetadataInvalid, format!("`{key}` in the repository's metadata is not an object")))?;
        }
        Ok(at)
    }

    /// Whether a root gives a role to the key with that id.
    pub fn names_key(&self, role: &str, id: &str) -> bool {
        let keys = self.signed.get("roles").and_then(|roles| roles.get(role)).and_then(|role| role.get("keyids")).and_then(Value::as_array);
        keys.into_iter().flatten().any(|key| key.as_str() == Some(id))
    }

    fn wrong(&self, key: &str) -> Fault {
        let kind = self.signed.get("_type").and_then(Value::as_str).unwrap_or("?");
        Fault::new(Code::MetadataInvalid, format!("the repository's `{kind}` metadata has no usable `{key}`"))
    }

    /// The file: signed by these keys, in the canonical form, so that every byte is signed or checked.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<Vec<u8>, Fault> {
        let signed = Value::Object(self.signed.clone());
        let bytes = canonical(&signed)?;
        let mut signatures = Vec::new();
        for key in keys {
            signatures.push(json!({ "keyid": key.id()?, "sig": key.sign(&bytes) }));
        }
        serde_json::to_vec(&json!({ "signatures": signatures, "signed": signed }))
            .map_err(|error| Fault::new(Code::Internal, format!("metadata cannot be written: {error}")))
    }
}

/// How one file is pinned in another.
pub(super) fn pin(version: u64, bytes: &[u8]) -> Value {
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": Digest::of(bytes).hex() } })
}
