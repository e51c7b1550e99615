//! Opens Hob's own files.
//!
//! Each is a plain file at exactly its path. If a link, a FIFO, a device or a folder is there instead, a
//! broken disk or somebody else put it there: opening it could wait forever, or read a file meant for others.
//! The folders above are Hob's (`owner.rs`).

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags};

/// Flags for every open: a link at the end of the path is not followed, and the open never waits for the
/// other end.
const ALWAYS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// At most `max` bytes of a file that the user named: it may be a link, or a pipe of the shell.
pub fn read_of_user(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens one of Hob's own files for reading.
///
/// Errors: `NotFound` if there is nothing; `InvalidData`, which says what is there, for anything but a plain
/// file.
pub fn open(path: &Path) -> io::Result<File> {
    plain(path, OFlags::RDONLY | ALWAYS, Mode::empty())
}

/// [`open`] for a file whose length is known. The file has exactly `bytes` bytes; that is checked before any
/// byte is read.
///
/// Errors: as [`open`]; `InvalidData` with both lengths.
pub fn open_of(path: &Path, bytes: u64) -> io::Result<File> {
    let file = open(path)?;
    match file.metadata()?.len() {
        found if found == bytes => Ok(file),
        found => Err(wrong(format!("it has {found} bytes, wanted {bytes}"))),
    }
}

/// Opens a folder, so that it can be synced to the disk.
pub fn open_folder(path: &Path) -> io::Result<File> {
    Ok(File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
}

/// The whole of a file whose length is known.
///
/// Errors: as [`open_of`].
pub fn read_of(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut read = Vec::with_capacity(bytes as usize);
    open_of(path, bytes)?.take(bytes).read_to_end(&mut read)?;
    Ok(read)
}

/// The whole of a file of at most `max` bytes. A longer one is refused before it is read.
///
/// Errors: as [`open`]; `FileTooLarge`.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let too_large = |found: u64| io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {found} bytes, wanted at most {max}"));
    if length > max {
        return Err(too_large(length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max {
        true => Err(too_large(bytes.len() as u64)),
        false => Ok(bytes),
    }
}

/// At most `max` bytes of a text of the kernel (below `/proc`, `/sys`). Such a file has no length, and only
/// the kernel makes one.
pub fn read_of_kernel(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens one of Hob's files for writing, and keeps its content. A missing file is made, accessible to its
/// owner only.
///
/// Errors: as [`open`].
pub fn open_to_write(path: &Path) -> io::Result<File> {
    plain(path, OFlags::RDWR | OFlags::CREATE | ALWAYS, Mode::RUSR | Mode::WUSR)
}

/// [`open_to_write`], but writes append to the content.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    plain(path, OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | ALWAYS, Mode::RUSR | Mode::WUSR)
}

/// [`open_to_write`] for a file that must exist.
pub fn open_there_to_write(path: &Path) -> io::Result<File> {
    plain(path, OFlags::RDWR | ALWAYS, Mode::empty())
}

fn plain(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    let opened = match rustix::fs::open(path, flags, mode) {
        Ok(opened) => opened,
        // Of `O_NOFOLLOW`; and a FIFO or socket that nobody reads.
        Err(rustix::io::Errno::LOOP) => return Err(wrong("there is a link, wanted a plain file".into())),
        Err(rustix::io::Errno::NXIO) => return Err(wrong("there is a FIFO, a socket or a device, wanted a plain file".into())),
        Err(error) => return Err(error.into()),
    };
    let kind = match FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) {
        FileType::RegularFile => return Ok(File::from(opened)),
        FileType::Fifo => "FIFO",
        FileType::Directory => "folder",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "thing that is no file",
    };
    Err(wrong(format!("there is a {kind}, wanted a plain file")))
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn only_a_plain_file_of_the_known_length_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("plain"), "123").unwrap();
        symlink(at("plain"), at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs::File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();

        assert_eq!(read(&at("plain"), 3).unwrap(), b"123");
        assert_eq!(read(&at("plain"), 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&at("sparse"), 1 << 20).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        open_of(&at("plain"), 3).unwrap();
        assert!(open_of(&at("sparse"), 3).unwrap_err().to_string().contains("1099511627776 bytes, wanted 3"));
        assert_eq!(open(&at("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
        for (name, says) in [("link", "a link"), ("folder", "a folder"), ("fifo", "a FIFO"), ("socket", "a FIFO, a socket")] {
            let error = open(&at(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}");
            assert!(error.to_string().contains(says), "{name}: {error}");
        }
        for name in ["link", "fifo", "socket", "folder"] {
            open_to_write(&at(name)).unwrap_err();
        }
        open_to_write(&at("new")).unwrap();
    }
}
