//! The page: a file with numbers that a pod's keeper and runner write, and that the host reads when both can
//! no longer send.
//!
//! The page says what a dead process had begun; a message about that could have been lost with the process.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    disk::make,
    model::{Fault, limits::POD_PAGE_BYTES},
};

/// How often a number is read again if it changed during the reading.
const READS_MAX: usize = 8;

/// One pod's page: a file, deleted on drop.
///
/// The host reads it as a file, which shows what other processes write into their mappings, and needs no
/// mapping of its own.
#[derive(Debug)]
pub struct Page(Option<(PathBuf, File)>);

impl Page {
    /// Makes the page of `incarnation` in `folder`, all zeros.
    ///
    /// Errors: `io`, `disk_full`.
    pub fn create(folder: &Path, incarnation: &str) -> Result<Page, Fault> {
        // A process that maps a file of this name belongs to the pod: see `leftovers.rs`.
        let path = folder.join(file_name(incarnation));
        let made = || -> io::Result<File> {
            let mut file = make::new_file(&path, make::PRIVATE_FILE)?;
            // Zeros instead of a hole: on a full disk, writing into a mapped hole is SIGBUS for the pod.
            file.write_all(&[0; POD_PAGE_BYTES as usize])?;
            Ok(file)
        };
        match made() {
            Ok(file) => Ok(Page(Some((path, file)))),
            Err(error) => {
                if error.kind() != io::ErrorKind::AlreadyExists {
                    let _ = fs::remove_file(&path);
                }
                Err(Fault::io(format!("making {}", path.display()), &error))
            }
        }
    }

    /// The page of a pod that has none: nothing is known about it.
    pub fn none() -> Page {
        Page(None)
    }

    pub fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(|(path, _)| &**path)
    }

    /// The highest number of an ask that the runner has begun, 0 for none. [`u64::MAX`] if the page is
    /// damaged: then every ask must be treated as begun.
    pub fn begun(&self) -> u64 {
        self.number(0).unwrap_or(u64::MAX)
    }

    /// Peak resident memory of the pod's process, in bytes; `None` until it ended.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.number(1).filter(|bytes| *bytes > 0)
    }

    /// Processor time of the pod's process, in milliseconds; `None` until it ended.
    pub fn cpu_ms(&self) -> Option<u64> {
        // A process that ended has a peak of memory, but may have taken less than a millisecond.
        self.peak_bytes().and_then(|_| self.number(2))
    }

    fn number(&self, index: u64) -> Option<u64> {
        let (_, file) = self.0.as_ref()?;
        if file.metadata().ok()?.len() != POD_PAGE_BYTES {
            return None;
        }
        let read = || {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, index * 8).ok().map(|()| u64::from_le_bytes(bytes))
        };
        // The kernel may copy the eight bytes in parts while another process writes them.
        let mut last = read()?;
        for _ in 0..READS_MAX {
            let again = read()?;
            if again == last {
                return Some(again);
            }
            last = again;
        }
        None
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// The file name of a pod's page, in any folder.
pub(in crate::pod) fn file_name(incarnation: &str) -> String {
    format!("{incarnation}.page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_writes_into_its_mapping_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let page = Page::create(folder.path(), "pod-1").unwrap();
        assert_eq!(fs::read(page.path().unwrap()).unwrap(), [0; POD_PAGE_BYTES as usize]);
        assert_eq!((page.begun(), page.peak_bytes(), page.cpu_ms()), (0, None, None));
        // The process is killed in the middle of its work, as a pod is: nothing is flushed, and nothing needs
        // to be.
        let source = "import mmap, os, signal, sys\nfile = open(sys.argv[1], 'r+b')\nnumbers = memoryview(mmap.mmap(file.fileno(), 4096)).cast('Q')\n\
                      numbers[0], numbers[1], numbers[2] = 7, 1 << 40, 0\nos.kill(os.getpid(), signal.SIGKILL)\n";
        let status = std::process::Command::new("python3").args(["-I", "-c", source]).arg(page.path().unwrap()).status().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert_eq!((page.begun(), page.peak_bytes(), page.cpu_ms()), (7, Some(1 << 40), Some(0)));
        let again = Page::create(folder.path(), "pod-1").unwrap_err();
        assert!(again.message.contains("pod-1.page") && page.path().unwrap().exists(), "a page of the same name is another's: {again:?}");
        drop(page);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_page_that_was_tampered_with_proves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let page = Page::create(folder.path(), "pod-1").unwrap();
        for bytes in [0, 4, POD_PAGE_BYTES - 1, POD_PAGE_BYTES + 1] {
            File::options().write(true).open(page.path().unwrap()).unwrap().set_len(bytes).unwrap();
            assert_eq!((page.begun(), page.peak_bytes(), page.cpu_ms()), (u64::MAX, None, None), "{bytes}");
        }
        let none = Page::none();
        assert_eq!((none.path(), none.begun(), none.peak_bytes(), none.cpu_ms()), (None, u64::MAX, None, None));
    }
}
