//! Signing keys: one small file for each role, readable only by its owner.
//!
//! A key must never be printed, logged or copied by accident: [`SigningKey`] shows its id and signs, nothing
//! else.

use crate::disk::look;
use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    model::{Code, Digest, Fault, StandIn, act, hint, limits, stand_in::HEAD_BYTES},
    shelf::{durable, repository::tuf::canonical},
};

/// A folder of key files, `<role>.key.json`.
#[derive(Debug, Clone)]
pub struct Keys {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    role: String,
    keytype: String,
    /// Raw public key, hex: the publisher gives it to a repository's maintainer.
    public: String,
    /// PKCS #8, hex.
    private: String,
}

impl Keys {
    /// The keys of that folder, which need not exist yet.
    pub fn at(folder: impl Into<PathBuf>) -> Keys {
        Keys { folder: folder.into() }
    }

    /// The path of a role's key.
    pub fn path(&self, role: &str) -> PathBuf {
        self.folder.join(format!("{role}.key.json"))
    }

    /// Loads the key of a role.
    ///
    /// Errors: `key_invalid` if it is missing, readable by others, or not a key.
    pub fn load(&self, role: &str) -> Result<SigningKey, Fault> {
        self.load_at(role, &self.path(role))
    }

    fn load_at(&self, role: &str, path: &Path) -> Result<SigningKey, Fault> {
        let wrong = |why: &str| Fault::new(Code::KeyInvalid, format!("the key of `{role}` in {}: {why}", path.display()));
        let bytes = durable::read(path, limits::KEY_FILE_BYTES_MAX)?.ok_or_else(|| {
            wrong("there is none").hint(format!("only who holds the key of `{role}` can do this: name the folder that has it"))
        })?;
        let mode = fs::metadata(path).map_err(|error| Fault::io(path.display(), &error))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(wrong(&format!("others may read it (mode {:o})", mode & 0o777))
                .hint(hint![act::shell(format!("chmod 600 {}", path.display())), " makes it so"]));
        }
        // Without serde's text, which may quote the file.
        let file: KeyFile =
            serde_json::from_slice(&bytes).map_err(|_| match StandIn::of_text(&bytes[..bytes.len().min(HEAD_BYTES)], None) {
                Some(found) => wrong(&format!("it is {}, wanted a key file", found.name())).hint(found.hint_of_folder()),
                None => wrong("it is not a key file"),
            })?;
        let pkcs8 = hex::decode(&file.private).map_err(|_| wrong("its private part is not hex"))?;
        if file.keytype != "ed25519" || file.role != role {
            return Err(wrong(&format!("it is a {} key of `{}`", file.keytype, file.role)));
        }
        let key = SigningKey::from_pkcs8(&pkcs8).ok_or_else(|| wrong("its private part is not an ed25519 key"))?;
        match key.public() == file.public {
            true => Ok(key),
            false => Err(wrong("its public part does not belong to its private part")),
        }
    }

    /// Makes a key for a role, mode 0600. An existing key is never overwritten.
    pub fn generate(&self, role: &str) -> Result<SigningKey, Fault> {
        self.generate_at(role, &self.path(role))
    }

    fn generate_at(&self, role: &str, path: &Path) -> Result<SigningKey, Fault> {
        durable::make_folder(&self.folder)?;
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| Fault::new(Code::Internal, "the system gave no random bytes for a key"))?;
        let key = SigningKey::from_pkcs8(pkcs8.as_ref()).ok_or_else(|| Fault::new(Code::Internal, "a fresh key does not load"))?;
        let file =
            KeyFile { role: role.to_owned(), keytype: "ed25519".to_owned(), public: key.public(), private: hex::encode(pkcs8.as_ref()) };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        durable::create(path, &text, 0o600)?;
        durable::sync_folder(&self.folder).map_err(|error| Fault::io(self.folder.display(), &error))?;
        Ok(key)
    }

    fn next_path(&self, role: &str) -> PathBuf {
        self.folder.join(format!("{role}.key.json.next"))
    }

    /// The key that will replace the present one of a role, if a rotation has made one.
    pub(super) fn load_next(&self, role: &str) -> Result<Option<SigningKey>, Fault> {
        let path = self.next_path(role);
        match look::is_there(&path)? {
            true => self.load_at(role, &path).map(Some),
            false => Ok(None),
        }
    }

    /// The next key of a role, made if there is none; [`Keys::promote`] puts it in place.
    pub(super) fn load_or_generate_next(&self, role: &str) -> Result<SigningKey, Fault> {
        match self.load_next(role)? {
            Some(key) => Ok(key),
            None => self.generate_at(role, &self.next_path(role)),
        }
    }

    /// Replaces the present key of a role by the next one. The present one stays beside it as `.old-<id>`.
    pub(super) fn promote(&self, role: &str) -> Result<(), Fault> {
        let path = self.path(role);
        let old = self.folder.join(format!("{role}.key.json.old-{}", &self.load(role)?.id()?[..16]));
        let next = self.next_path(role);
        let kept = match fs::hard_link(&path, old) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        kept.and_then(|()| fs::rename(&next, &path))
            .and_then(|()| durable::sync_folder(&self.folder))
            .map_err(|error| Fault::io(format!("putting {} in its place", next.display()), &error))
    }

    /// The key of a role, made if there is none.
    pub fn load_or_generate(&self, role: &str) -> Result<SigningKey, Fault> {
        match look::is_there(&self.path(role))? {
            true => self.load(role),
            false => self.generate(role),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A private key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl SigningKey {
    fn from_pkcs8(pkcs8: &[u8]) -> Option<SigningKey> {
        Ed25519KeyPair::from_pkcs8(pkcs8).ok().map(|pair| SigningKey { pair })
    }

    /// Raw public key, hex.
    pub fn public(&self) -> String {
        hex::encode(self.pair.public_key().as_ref())
    }

    /// Its id in metadata.
    pub fn id(&self) -> Result<String, Fault> {
        key_id(&self.public())
    }

    /// Signature of `bytes`, hex.
    pub(super) fn sign(&self, bytes: &[u8]) -> String {
        hex::encode(self.pair.sign(bytes).as_ref())
    }
}

/// A public key in the form of the metadata.
pub(super) fn public_key(public: &str) -> Value {
    json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public } })
}

/// The id of a public key (hex): sha256 of its canonical JSON.
pub fn key_id(public: &str) -> Result<String, Fault> {
    Ok(Digest::of(&canonical(&public_key(public))?).hex())
}

/// Checks a public key that somebody else provided.
///
/// Errors: `key_invalid` unless it is 64 hex digits that name a point on the curve.
pub(super) fn check_public(public: &str) -> Result<String, Fault> {
    let public = public.trim().to_ascii_lowercase();
    match hex::decode(&public) {
        Ok(bytes) if bytes.len() == 32 => Ok(public),
        _ => Err(Fault::new(Code::KeyInvalid, format!("`{public}` is not an ed25519 public key: wanted 64 hex digits"))
            .hint("it is the field `public` of the publisher's key file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_and_stays_private() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::at(folder.path().join("keys"));
        let made = keys.generate("alice").unwrap();
        assert_eq!(keys.load("alice").unwrap().id().unwrap(), made.id().unwrap());
        assert!(!format!("{made:?}").contains("private"));
        assert_eq!(keys.generate("alice").unwrap_err().code, Code::Io, "a key is never overwritten");
        assert_eq!(keys.load("bob").unwrap_err().code, Code::KeyInvalid);

        fs::set_permissions(keys.path("alice"), fs::Permissions::from_mode(0o644)).unwrap();
        let fault = keys.load("alice").unwrap_err();
        assert!(fault.code == Code::KeyInvalid && fault.message.contains("others may read it"), "{fault}");
        fs::set_permissions(keys.path("alice"), fs::Permissions::from_mode(0o600)).unwrap();

        // Another key's public part: signing with it would fail only later, at every client.
        let text = fs::read_to_string(keys.path("alice")).unwrap().replacen(&made.public(), &keys.generate("eve").unwrap().public(), 1);
        fs::write(keys.path("alice"), text).unwrap();
        let fault = keys.load("alice").unwrap_err();
        assert!(fault.message.contains("does not belong"), "{fault}");
    }
}
