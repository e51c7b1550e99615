//! Whether something is there, where the answer decides what Hob does next.
//!
//! `Path::exists` says no also where the system did not let it look (no memory, no permission): a root would
//! be pinned over one that is there, a key made beside one, a folder deleted that somebody holds.

use std::path::Path;

use crate::model::Fault;

/// Whether a file or folder is at that path; links are followed.
///
/// Errors: `io` where that cannot be found out.
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
