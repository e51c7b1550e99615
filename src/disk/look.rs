//! Checks what is at a path, where the answer decides what Hob does next.
//!
//! `Path::exists` also says no if the system could not look (no memory, no permission). A root would then be
//! pinned over an existing one, a key made beside an existing one, or a folder deleted that a process holds.
//! In the same way, a file that the system did not open is not damaged.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::model::Fault;

/// Whether a file or folder is at this path; links are followed.
///
/// Errors: `io` if that cannot be determined.
pub fn is_there(path: &Path) -> Result<bool, Fault> {
    path.try_exists().map_err(|error| Fault::io(format!("looking at {}", path.display()), &error))
}

/// Whether a file, not a folder or anything else, is at this path; links are followed.
///
/// Errors: `io` if that cannot be determined.
pub fn is_file(path: &Path) -> Result<bool, Fault> {
    found(path, fs::metadata(path)).map(|found| found.is_some_and(|found| found.is_file()))
}

/// Whether a folder is at this path; links are followed.
///
/// Errors: `io` if that cannot be determined.
pub fn is_folder(path: &Path) -> Result<bool, Fault> {
    found(path, fs::metadata(path)).map(|found| found.is_some_and(|found| found.is_dir()))
}

/// The paths in a folder; none if there is no folder.
///
/// Errors: `io` if it cannot be read.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let Some(entries) = found(folder, fs::read_dir(folder))? else { return Ok(Vec::new()) };
    let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    paths.map_err(|error| failed(folder, &error))
}

/// Whether an error of reading a file tells something about the file: it is missing, of another kind, or of
/// another length. Any other error means that the system did not look.
pub fn is_about_the_file(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, InvalidData, IsADirectory, NotADirectory, NotFound, UnexpectedEof};
    matches!(error.kind(), FileTooLarge | InvalidData | IsADirectory | NotADirectory | NotFound | UnexpectedEof)
}

/// The result of a look; `None` if there is nothing.
fn found<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, Fault> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

fn failed(path: &Path, error: &io::Error) -> Fault {
    Fault::io(format!("looking at {}", path.display()), error)
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
        let long = folder.path().join(long);
        for said in [is_there(&long).err(), is_file(&long).err(), is_folder(&long).err(), entries(&long).err()] {
            assert!(said.unwrap().message.starts_with("looking at "));
        }
        assert!(is_file(&folder.path().join("file")).unwrap() && !is_folder(&folder.path().join("file")).unwrap());
        assert_eq!(entries(folder.path()).unwrap(), [folder.path().join("file")]);
        assert_eq!(entries(&folder.path().join("none")).unwrap(), [""; 0].map(PathBuf::from));
    }
}
