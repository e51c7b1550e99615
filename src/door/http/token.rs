//! The token that a caller over TCP must show.
//!
//! It is a secret: it is made once, lies in a file that only its owner can read (or belongs to the app), and
//! is never printed.

use std::{
    fmt, fs,
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

/// The hint for a file from which no token can be read.
const NEXT: &str = "have it hold 64 hex digits, with mode 0600 and of the user that runs the server; or delete it: a new token is made when it is read next, \
                    at the server's start or at SIGHUP";

/// The secret of requests over TCP: `authorization: Bearer TOKEN`.
pub struct Token {
    text: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

impl Token {
    /// A token of the app: 32 to 256 letters, digits and signs (ASCII, no spaces) that nobody can guess.
    ///
    /// Errors: `usage` for any other text.
    pub fn of(text: impl Into<String>) -> Result<Token, Fault> {
        let text = text.into();
        let wrong = |found: &str| {
            let wanted = format!("wanted {} to {} letters, digits and signs", limits::TOKEN_CHARS_MIN, limits::TOKEN_CHARS_MAX);
            Err(Fault::new(Code::Usage, format!("the token {found}: {wanted}"))
                .hint("`hob::http::Token::at` makes one, and keeps it in a file"))
        };
        match text.len() {
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => wrong("has characters that a header cannot carry"),
            length if length < limits::TOKEN_CHARS_MIN => wrong(&format!("is {length} characters long, and soon guessed")),
            length if length > limits::TOKEN_CHARS_MAX => wrong(&format!("is {length} characters long")),
            _ => Ok(Token { text }),
        }
    }

    /// Reads the token at `path`, 64 hex digits. If there is no file, or an empty one, makes a token in a
    /// file for this user alone. Only one program may do this at a time: two would make different tokens.
    ///
    /// Errors: `key_invalid` for a file that others can read, or that has other content; the file stays as it
    /// is. `io`.
    pub fn at(path: &Path) -> Result<Token, Fault> {
        let file = path.display().to_string();
        let refused = |text| Err(Fault::new(Code::KeyInvalid, text).hint(NEXT));
        let no_token = |found: String| refused(format!("{file} holds no token: wanted {} hex digits, found {found}", 2 * TOKEN_BYTES));
        let read = match durable::read(path, limits::TOKEN_FILE_BYTES_MAX) {
            Err(fault) if fault.code == Code::TooLarge => return no_token(format!("more than {} bytes", limits::TOKEN_FILE_BYTES_MAX)),
            read => read?,
        };
        if let Some(bytes) = read {
            let found = fs::symlink_metadata(path).map_err(|error| Fault::io(format!("looking at {file}"), &error))?;
            let mode = found.permissions().mode();
            if mode & 0o077 != 0 {
                return refused(format!("{file} can be read by others (mode {:o})", mode & 0o777));
            }
            if found.uid() != geteuid().as_raw() {
                return refused(format!("{file} belongs to another user (uid {})", found.uid()));
            }
            // The content is not shown: it may be most of a secret.
            match bytes.trim_ascii() {
                // Its maker was killed before the token was used, or somebody emptied the file to get a new
                // token.
                [] => {}
                hex if !hex.iter().all(u8::is_ascii_hexdigit) => return no_token(format!("{} bytes that are none", hex.len())),
                hex if hex.len() != 2 * TOKEN_BYTES => return no_token(format!("{}", hex.len())),
                hex => return Ok(Token { text: String::from_utf8_lossy(hex).into_owned() }),
            }
            fs::remove_file(path).map_err(|error| Fault::io(format!("removing {file}"), &error))?;
        }
        let mut bytes = [0; TOKEN_BYTES];
        rand::fill(&mut bytes).map_err(|_| Fault::new(Code::Internal, "the system gives no random bytes"))?;
        let hex = hex::encode(bytes);
        durable::create(path, hex.as_bytes(), 0o600)?;
        Ok(Token { text: hex })
    }

    /// Checks that a request shows the token, in a time that reveals nothing about the token.
    ///
    /// Errors: `unauthorized`.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let found = match shown.map(|text| text.strip_prefix(b"Bearer ")) {
            Some(Some(shown)) if verify_slices_are_equal(shown, self.text.as_bytes()).is_ok() => return Ok(()),
            Some(Some(_)) => "another token",
            Some(None) => "no bearer token",
            None => "nothing",
        };
        // The hint does not name the token's file, because the caller is not authorized.
        Err(Fault::new(Code::Unauthorized, format!("header `authorization` shows {found}, wanted `Bearer TOKEN`")).hint(hint![
            "whoever runs the server has the token; where that is ",
            act::serve(),
            ", it said at its start which file holds it"
        ]))
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
        assert_eq!((token.text.len(), fs::metadata(&path).unwrap().permissions().mode() & 0o777), (64, 0o600));
        assert_eq!(Token::at(&path).unwrap().text, token.text);
        let shows = |text: &str| token.check(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(text).unwrap())]));
        shows(&format!("Bearer {}", token.text)).unwrap();
        for bad in ["", "Bearer ", &token.text, &format!("Bearer {}", &token.text[1..]), &format!("Bearer {}0", token.text)] {
            assert_eq!(shows(bad).unwrap_err().code, Code::Unauthorized, "{bad}");
        }
        assert_eq!(token.check(&HeaderMap::new()).unwrap_err().code, Code::Unauthorized);
        // An app's own is any text that a header can carry and nobody guesses.
        let own = Token::of("s3cret-".repeat(8)).unwrap();
        assert!(
            own.check(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", own.text)).unwrap())])).is_ok()
        );
        assert_eq!(format!("{own:?}"), "Token(not shown)");
        for (bad, found) in [
            ("short".to_owned(), "5 characters"),
            ("x y".repeat(20), "cannot carry"),
            ("ä".repeat(40), "cannot carry"),
            ("x".repeat(257), "257"),
        ] {
            let fault = Token::of(bad).unwrap_err();
            assert!(fault.code == Code::Usage && fault.message.contains(found) && fault.message.contains("wanted 32 to 256"), "{fault}");
        }
        // Where its maker was killed it is made anew. What somebody wrote is refused and stays, as is a file
        // that others read or that another user owns.
        fs::write(&path, "\n").unwrap();
        assert_ne!(Token::at(&path).unwrap().text, token.text);
        let made = fs::read(&path).unwrap();
        for (wrote, found) in [
            ("xyz".to_owned(), "found 3 bytes that are none"),
            ("abc\n".to_owned(), "found 3"),
            ("z".repeat(64), "found 64 bytes that are none"),
            ("a".repeat(65), "found 65"),
            ("a".repeat(1_000), "found more than 256 bytes"),
        ] {
            fs::write(&path, &wrote).unwrap();
            let fault = Token::at(&path).unwrap_err();
            assert!(fault.code == Code::KeyInvalid && fault.message.ends_with(found) && fault.hint.is_some(), "{fault}");
            assert_eq!(fs::read_to_string(&path).unwrap(), wrote, "it stays");
        }
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
