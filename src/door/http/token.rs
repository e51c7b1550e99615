//! The token that a caller over TCP must show.
//!
//! Apart, because it is a secret: it is made once, lies in a file that only its owner reads, and is printed nowhere.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, rand};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use rustix::process::geteuid;

use crate::{
    model::{Code, Fault, act, hint, limits},
    shelf::durable,
};

/// Random bytes of a token; it is written as twice as many hex digits.
const TOKEN_BYTES: usize = 32;

/// The token of a home.
pub struct Token {
    hex: String,
}

impl Token {
    /// Reads the token at `path`, or makes one. Only for a holder of the server's lock: two makers would disagree.
    ///
    /// Errors: `key_invalid` for a file that others can read; `io`.
    pub fn at(path: &Path) -> Result<Token, Fault> {
        let file = path.display().to_string();
        if let Some(bytes) = durable::read(path, limits::TOKEN_FILE_BYTES_MAX)? {
            let found = fs::symlink_metadata(path).map_err(|error| Fault::io(format!("looking at {file}"), &error))?;
            let refused = |text| {
                Err(Fault::new(Code::KeyInvalid, text).hint(hint!["delete it: ", act::serve_listening(), " then makes a new token"]))
            };
            let mode = found.permissions().mode();
            if mode & 0o077 != 0 {
                return refused(format!("{file} can be read by others (mode {:o})", mode & 0o777));
            }
            if found.uid() != geteuid().as_raw() {
                return refused(format!("{file} belongs to another user (uid {})", found.uid()));
            }
            let hex = String::from_utf8(bytes).unwrap_or_default().trim().to_owned();
            if hex.len() == 2 * TOKEN_BYTES {
                return match hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    true => Ok(Token { hex }),
                    false => refused(format!("{file} holds something else than {} hex digits", 2 * TOKEN_BYTES)),
                };
            }
            // Half a token: its maker was killed before anybody was let in by it.
            fs::remove_file(path).map_err(|error| Fault::io(format!("removing {file}"), &error))?;
        }
        let mut bytes = [0; TOKEN_BYTES];
        rand::fill(&mut bytes).map_err(|_| Fault::new(Code::Internal, "the system gives no random bytes"))?;
        let hex = hex::encode(bytes);
        durable::create(path, hex.as_bytes(), 0o600)?;
        Ok(Token { hex })
    }

    /// Whether a request shows it. The time that this takes tells nothing of the token.
    ///
    /// Errors: `unauthorized`.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let found = match shown.map(|text| text.strip_prefix(b"Bearer ")) {
            Some(Some(shown)) if verify_slices_are_equal(shown, self.hex.as_bytes()).is_ok() => return Ok(()),
            Some(Some(_)) => "another token",
            Some(None) => "no bearer token",
            None => "nothing",
        };
        // Not where its file lies: whoever asks is nobody yet.
        Err(Fault::new(Code::Unauthorized, format!("header `authorization` shows {found}, wanted `Bearer TOKEN`"))
            .hint(hint![act::serve(), " said at its start which file holds the token"]))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_made_once_private_and_the_only_one_that_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::at(&path).unwrap();
        assert_eq!((token.hex.len(), fs::metadata(&path).unwrap().permissions().mode() & 0o777), (64, 0o600));
        assert_eq!(Token::at(&path).unwrap().hex, token.hex);
        let shows = |text: &str| token.check(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(text).unwrap())]));
        shows(&format!("Bearer {}", token.hex)).unwrap();
        for bad in ["", "Bearer ", &token.hex, &format!("Bearer {}", &token.hex[1..]), &format!("Bearer {}0", token.hex)] {
            assert_eq!(shows(bad).unwrap_err().code, Code::Unauthorized, "{bad}");
        }
        assert_eq!(token.check(&HeaderMap::new()).unwrap_err().code, Code::Unauthorized);
        // Half a token is made anew; one that is easily guessed, that others read or that another user owns is refused.
        fs::write(&path, "abc").unwrap();
        assert_ne!(Token::at(&path).unwrap().hex, token.hex);
        let made = fs::read(&path).unwrap();
        fs::write(&path, "z".repeat(64)).unwrap();
        assert_eq!(Token::at(&path).err().unwrap().code, Code::KeyInvalid);
        fs::write(&path, made).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert_eq!(Token::at(&path).err().unwrap().code, Code::KeyInvalid);
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(Token::at(&path).err().unwrap().code, Code::KeyInvalid);
    }
}
