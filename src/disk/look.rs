//! Checks whether a path exists, where the answer decides what Hob does next.
//!
//! `Path::exists` also says no if the system could not look (no memory, no permission). A root would then be
//! pinned over an existing one, a key made beside an existing one, or a folder deleted that a process holds.

use std::path::Path;

use crate::model::Fault;

/// Whether a file or folder is at this path; links are followed.
///
/// Errors: `io` if that cannot be determined.
pub fn is_there(path: &Path) -> Result<bool, Fault> {
    path.try_exists().map_err(|error| Fault::io(format!("looking at {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_not_called_missing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        assert!(is_there(&folder.path().join("file")).unwrap());
        assert!(!is_there(&folder.path().join("none")).unwrap());
        // Longer than a name may be: the system cannot say, whoever asks.
        let long = std::ffi::OsString::from_vec(vec![b'x'; 5_000]);
        assert!(is_there(&folder.path().join(long)).unwrap_err().message.starts_with("looking at "));
    }
}
