//! Unix sockets by path: made privately, in one step, and reachable however long the path is. Server and
//! clients use it.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::{
    disk::{look, make},
    model::{Code, Fault, limits::SOCKET_PATH_BYTES_MAX},
};

/// A path that fits into the kernel's address, and the descriptor that keeps it valid.
fn reachable(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    if path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let flags = (rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY).bits();
    let folder = File::options().read(true).custom_flags(flags as i32).open(folder)?;
    Ok((Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name), Some(folder.into())))
}

/// Connects to the socket at `path`.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (short, _folder) = reachable(path)?;
    UnixStream::connect(short).await
}

/// A listening socket and its file.
pub struct Listening {
    pub listener: UnixListener,
    /// Removes the file when dropped.
    pub file: SocketFile,
}

/// The file of a socket that this process made.
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Only if the file is still ours.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`, for its owner only. A socket left there by a dead server is replaced.
///
/// Errors: `already_serving` if a server answers there, `usage` if another kind of file is there or the
/// folder does not exist, `io`.
pub async fn listen(path: &Path) -> Result<Listening, Fault> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            let fault = Fault::new(Code::Usage, format!("{} is there already and is no socket", path.display()));
            return Err(fault.hint("name a path where nothing lies, or delete what lies there"));
        }
        // Only a refused connection shows that nobody listens: a busy server, one of another kind, or one of
        // another user has other answers.
        Ok(_) => match connect(path).await {
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {}
            Ok(_) => {
                return Err(Fault::new(Code::AlreadyServing, format!("another program listens at {}", path.display()))
                    .hint("end it first, or name another path"));
            }
            Err(error) => {
                return Err(Fault::io(format!("finding out whether another program listens at {}", path.display()), &error)
                    .hint("end it first, or name another path"));
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Fault::io(format!("listening at {}", path.display()), &error)),
    }
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    if !look::is_folder(above)? {
        let fault = Fault::new(Code::Usage, format!("listening at {}: there is no folder {}", path.display(), above.display()));
        return Err(fault.hint("make the folder, or name a path in one that is there"));
    }
    // Made in a folder that no other user can enter, then renamed: at no time can another user connect.
    let folder = make::temporary_folder(above, ".s", 4).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Fault::new(Code::Io, format!("listening at {}: this user may not write to {}", path.display(), above.display()))
                .hint("let it write there, or name a path in a folder of its own")
        }
        _ => Fault::io(format!("listening at {}", path.display()), &error),
    })?;
    let made = || -> io::Result<Listening> {
        let born = folder.path().join("s");
        let (short, _kept) = reachable(&born)?;
        let listener = UnixListener::bind(short)?;
        fs::set_permissions(&born, fs::Permissions::from_mode(0o600))?;
        let meta = fs::symlink_metadata(&born)?;
        fs::rename(&born, path)?;
        Ok(Listening { listener, file: SocketFile { path: path.to_owned(), inode: (meta.dev(), meta.ino()) } })
    };
    made().map_err(|error| Fault::io(format!("listening at {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_a_live_one_and_a_file_are_not_and_a_long_path_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(150));
        fs::create_dir(&long).unwrap();
        for folder in [folder.path(), &long] {
            let path = folder.join("socket");
            // As a killed server leaves it.
            std::mem::forget(listen(&path).await.unwrap().file);
            assert!(path.exists() && connect(&path).await.is_err());
            let listening = listen(&path).await.unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            connect(&path).await.unwrap();
            assert_eq!(listen(&path).await.err().unwrap().code, Code::AlreadyServing);
            drop(listening);
            assert_eq!(fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().path() != long).count(), 0);
            // A living one of another kind.
            let theirs = std::os::unix::net::UnixDatagram::bind(reachable(&path).unwrap().0);
            if theirs.is_ok() {
                assert_eq!(listen(&path).await.err().unwrap().code, Code::Io);
                fs::remove_file(&path).expect("it is left there");
            }
            fs::write(&path, "mine").unwrap();
            assert_eq!(listen(&path).await.err().unwrap().code, Code::Usage);
            assert_eq!(fs::read(&path).unwrap(), b"mine");
        }
        let fault = listen(&folder.path().join("none/socket")).await.err().unwrap();
        assert!(fault.code == Code::Usage && fault.message.ends_with("/none") && !fault.message.contains("/.s"), "{fault}");
    }
}
