//! Open files that are handed over a Unix socket, beside the bytes of a connection.
//!
//! - The sender puts files into [`Files::send`] before it writes the bytes that mention them; the files go
//!   with the next written bytes.
//! - The receiver finds the files in [`Files::received`], in their order, once it has read those bytes.
//!
//! The files belong to one connection and are closed with it. A reader that does not expect files gets the
//! same bytes, and the kernel closes the files.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::model::{Code, Fault, limits};

/// The header that states how many files a caller hands in, and that it accepts files of the answer.
pub const FILES: &str = "x-hob-files";

/// An open file, and the permit of the server that it holds until it is dropped.
#[derive(Debug)]
pub struct Held {
    pub file: OwnedFd,
    pub room: Option<OwnedSemaphorePermit>,
}

impl From<OwnedFd> for Held {
    fn from(file: OwnedFd) -> Held {
        Held { file, room: None }
    }
}

/// The files of one connection that are on their way. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Files(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ways: Mutex<Ways>,
    /// Permits for arriving files, shared by a whole server; a client has only the limit of its connection.
    room: Option<Arc<Semaphore>>,
}

#[derive(Debug, Default)]
struct Ways {
    arrived: VecDeque<Held>,
    /// Why some of the files that arrived are missing.
    lost: Option<Lost>,
    leaving: VecDeque<Held>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// More than a connection may hold.
    TooMany,
    /// All connections together hold as many as the server may.
    NoRoom,
    /// The kernel did not deliver them, mostly because the process has too many open files.
    ByKernel,
}

impl Files {
    /// For a connection to a server whose connections share the permits in `room`.
    pub fn within(room: Arc<Semaphore>) -> Files {
        Files(Arc::new(Shared { ways: Mutex::default(), room: Some(room) }))
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.0.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends files with the next bytes that are written.
    pub fn send(&self, files: impl IntoIterator<Item = Held>) {
        self.ways().leaving.extend(files);
    }

    /// Takes all files that arrived, oldest first.
    ///
    /// Errors: `too_large` if more arrived than a connection may hold, `overloaded` if the server had no room
    /// for them, `io`.
    pub fn received(&self) -> Result<VecDeque<Held>, Fault> {
        let (arrived, lost) = {
            let mut ways = self.ways();
            (std::mem::take(&mut ways.arrived), ways.lost.take())
        };
        match lost {
            None => Ok(arrived),
            Some(Lost::TooMany) => {
                let text = format!("more than {} open files came at once, which is the most that is taken", limits::HANDED_FILES_MAX);
                Err(Fault::new(Code::TooLarge, text)
                    .hint("a call carries 16 blobs at most: hand in one file for each, with the request's first bytes"))
            }
            Some(Lost::NoRoom) => {
                let text = format!("the server holds {} files of its callers, or as many as it may open", limits::SERVE_FILES_IN_MAX);
                let mut fault = Fault::new(Code::Overloaded, text).hint("call again a little later");
                fault.retry_after = Some(limits::SERVE_RETRY_MS);
                Err(fault)
            }
            Some(Lost::ByKernel) => Err(Fault::new(Code::Io, "open files were handed over, and this process was not given them")
                .hint("it may have too many open files: `ulimit -n` before it starts")),
        }
    }

    /// Closes files that arrived and were not taken.
    pub fn forget(&self) {
        let _ = self.received();
    }

    fn arrive(&self, files: impl Iterator<Item = OwnedFd>, cut: bool) {
        let mut ways = self.ways();
        if cut {
            ways.lost = Some(Lost::ByKernel);
        }
        for file in files {
            let room = self.0.room.as_ref().map(|room| room.clone().try_acquire_owned());
            match room.transpose() {
                _ if ways.arrived.len() == limits::HANDED_FILES_MAX => ways.lost = Some(Lost::TooMany),
                Ok(room) => ways.arrived.push_back(Held { file, room }),
                Err(_) => ways.lost = Some(Lost::NoRoom),
            }
        }
    }
}

/// A Unix socket that carries [`Files`] beside its bytes.
#[derive(Debug)]
pub struct Carrier {
    stream: UnixStream,
    files: Files,
}

impl Carrier {
    pub fn new(stream: UnixStream, files: Files) -> Carrier {
        Carrier { stream, files }
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads bytes, and the files that came with them, once.
    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(limits::HANDED_FILES_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(into)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let files = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        // Lock only if there are files; most reads have none.
        let mut files = files.flatten().peekable();
        let cut = received.flags.contains(ReturnFlags::CTRUNC);
        if cut || files.peek().is_some() {
            self.files.arrive(files, cut);
        }
        Ok(received.bytes)
    }

    /// Writes bytes with the leaving files, once; `None` if there are none.
    fn send(&self, bytes: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        let mut ways = self.files.ways();
        let count = ways.leaving.len().min(limits::HANDED_FILES_MAX);
        if count == 0 || bytes.iter().all(|bytes| bytes.is_empty()) {
            return None;
        }
        let files: Vec<_> = ways.leaving.iter().take(count).map(|held| held.file.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(limits::HANDED_FILES_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
            return Some(Err(io::Error::other("no space for the files of a message")));
        }
        let sent = sendmsg(&self.stream, bytes, &mut ancillary, SendFlags::NOSIGNAL);
        drop(files);
        if sent.is_ok() {
            // The files went with the first byte, however many of the other bytes were taken.
            ways.leaving.drain(..count);
        }
        Some(sent.map_err(io::Error::from))
    }

    /// `send` as soon as the socket is writable.
    fn poll_send(&self, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<Option<io::Result<usize>>> {
        loop {
            if self.files.ways().leaving.is_empty() {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.stream.poll_write_ready(context)) {
                return Poll::Ready(Some(Err(error)));
            }
            let mut none = false;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                self.send(bytes).unwrap_or_else(|| {
                    none = true;
                    Ok(0)
                })
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return Poll::Ready((!none).then_some(sent)),
            }
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let wanted = buffer.remaining().min(limits::HANDED_READ_BYTES_MAX);
            let received = self.stream.try_io(Interest::READABLE, || self.receive(buffer.initialize_unfilled_to(wanted)));
            match received {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_send(context, &[IoSlice::new(bytes)])) {
            Some(sent) => Poll::Ready(sent),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_send(context, bytes)) {
            Some(sent) => Poll::Ready(sent),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn file(text: &str) -> Held {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, text).unwrap();
        OwnedFd::from(File::open(path).unwrap()).into()
    }

    fn read(held: Held) -> String {
        let mut text = String::new();
        File::from(held.file).read_to_string(&mut text).unwrap();
        text
    }

    fn pair(room: usize) -> (Carrier, Carrier, Arc<Semaphore>) {
        let (here, there) = UnixStream::pair().unwrap();
        let room = Arc::new(Semaphore::new(room));
        (Carrier::new(here, Files::default()), Carrier::new(there, Files::within(room.clone())), room)
    }

    #[tokio::test]
    async fn files_come_in_their_order_with_the_bytes_that_speak_of_them() {
        let (mut here, mut there, room) = pair(10);
        for (sent, texts) in [("one", &["a", "b"][..]), ("none", &[]), ("two", &["c"])] {
            here.files.send(texts.iter().map(|text| file(text)));
            here.write_all(sent.as_bytes()).await.unwrap();
            let mut bytes = vec![0; sent.len()];
            there.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, sent.as_bytes());
            let arrived = there.files.received().unwrap();
            assert_eq!(room.available_permits(), 10 - texts.len());
            assert_eq!(arrived.into_iter().map(read).collect::<Vec<_>>(), texts);
            assert_eq!(room.available_permits(), 10);
        }
        // Nobody took these, and they go with their connection.
        here.files.send([file("d")]);
        here.write_all(b"x").await.unwrap();
        there.read_u8().await.unwrap();
        assert_eq!(room.available_permits(), 9);
        drop(there);
        assert_eq!(room.available_permits(), 10);
    }

    #[tokio::test]
    async fn more_files_than_may_be_are_closed_and_told_once() {
        let (mut here, mut there, room) = pair(1_000);
        for _ in 0..3 {
            here.files.send((0..limits::HANDED_FILES_MAX).map(|_| file("x")));
            here.write_all(b"x").await.unwrap();
            there.read_u8().await.unwrap();
        }
        assert_eq!(room.available_permits(), 1_000 - limits::HANDED_FILES_MAX);
        assert_eq!(there.files.received().unwrap_err().code, Code::TooLarge);
        assert_eq!(room.available_permits(), 1_000);
        assert_eq!(there.files.received().unwrap().len(), 0);
        let (mut here, mut there, room) = pair(2);
        here.files.send((0..3).map(|_| file("x")));
        here.write_all(b"x").await.unwrap();
        there.read_u8().await.unwrap();
        assert_eq!((room.available_permits(), there.files.received().unwrap_err().code), (0, Code::Overloaded));
        assert_eq!(room.available_permits(), 2);
    }

    #[tokio::test]
    async fn a_reader_that_knows_nothing_of_files_gets_the_bytes() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut here = Carrier::new(here, Files::default());
        here.files.send([file("x")]);
        here.write_all(b"bytes").await.unwrap();
        drop(here);
        let mut bytes = Vec::new();
        there.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"bytes");
    }
}
