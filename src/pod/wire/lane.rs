//! One socket to a pod: sends and receives frames, and never blocks.
//!
//! Bytes wait here, within a bound; the driver sees only whole frames.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, BytesMut};
use rustix::io::Errno;
use tokio::{io::AsyncReadExt, net::UnixStream, task::unconstrained};

use crate::{
    model::limits::{LANE_WAITING_BYTES_MAX, LANE_WAITING_DESCRIPTORS_MAX},
    pod::{
        process,
        wire::frame::{Decoded, Decoder},
    },
};

/// The errors of a send for which this machine lacks resources: descriptors, in use or in transit, buffers,
/// memory.
const RAN_OUT: [Errno; 5] = [Errno::TOOMANYREFS, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];

/// One socket, with the bytes that wait to be read and written.
pub struct Lane {
    stream: UnixStream,
    decoder: Decoder,
    out: BytesMut,
    /// Descriptors, each group with the position in `out` of the byte with which it travels.
    descriptors: VecDeque<(usize, Vec<OwnedFd>)>,
    closed: bool,
    /// The most bytes of `out` that are asks: the host sends asks unprompted, and bounds them where it takes
    /// work.
    asks: usize,
    /// The other side no longer reads.
    deaf: bool,
    /// The error with which the machine refused a send.
    refused: Option<std::io::Error>,
}

/// The result of a read.
pub enum Read {
    Frame(Decoded),
    /// Nothing more now.
    Dry,
    /// The other side closed, or the stream broke in the middle of a frame.
    Closed,
    /// The stream is malformed from here on.
    Broken(String),
}

impl Lane {
    pub fn new(stream: UnixStream, frame_bytes_max: usize) -> Lane {
        Lane {
            stream,
            decoder: Decoder::new(frame_bytes_max),
            out: BytesMut::new(),
            descriptors: VecDeque::new(),
            closed: false,
            asks: 0,
            deaf: false,
            refused: None,
        }
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The buffer of bytes to send; [`Lane::flush`] sends it.
    pub fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Adds an ask, or another message of that size that no message of the pod caused.
    pub fn put_ask(&mut self, put: impl FnOnce(&mut BytesMut)) {
        let before = self.out.len();
        put(&mut self.out);
        self.asks += self.out.len() - before;
    }

    /// Whether so many bytes wait that the host stops reading until the other side reads: all waiting
    /// messages but the asks answer messages of the other side.
    pub fn is_backed_up(&self) -> bool {
        self.out.len() - self.asks > LANE_WAITING_BYTES_MAX || self.descriptors.len() > LANE_WAITING_DESCRIPTORS_MAX
    }

    /// Whether so many asks wait that no more should be added.
    pub fn has_asks_waiting(&self) -> bool {
        self.out.len() > LANE_WAITING_BYTES_MAX
    }

    /// Number of waiting bytes and descriptors.
    pub fn waiting(&self) -> (usize, usize) {
        (self.out.len(), self.descriptors.iter().map(|(_, group)| group.len()).sum())
    }

    /// The other side no longer reads: waiting bytes are discarded, now and at each [`Lane::flush`].
    pub fn give_up(&mut self) {
        self.deaf = true;
        self.flush();
    }

    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the other side stopped in the middle of a frame.
    pub fn is_mid_frame(&self) -> bool {
        self.decoder.is_mid_frame()
    }

    /// Adds a descriptor, which travels with the next byte that is put into [`Lane::out`].
    pub fn attach(&mut self, descriptor: OwnedFd) {
        match self.descriptors.back_mut() {
            Some((at, group)) if *at == self.out.len() => group.push(descriptor),
            _ => self.descriptors.push_back((self.out.len(), vec![descriptor])),
        }
    }

    /// Sends as much as the socket accepts now. A closed peer is detected by reading, so that its last
    /// messages are read first.
    pub fn flush(&mut self) {
        if self.deaf {
            self.out.clear();
            self.descriptors.clear();
        }
        self.send();
        self.asks = self.asks.min(self.out.len());
    }

    fn send(&mut self) {
        while !self.out.is_empty() {
            match self.send_some() {
                Ok(count) => {
                    self.out.advance(count);
                    self.descriptors.iter_mut().for_each(|(at, _)| *at -= count);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => self.lost(error),
            }
        }
        if self.out.capacity() > 1 << 20 {
            self.out = BytesMut::new();
        }
    }

    /// Called if the waiting bytes cannot be sent: the other side is gone, or this machine lacks resources,
    /// which ends the pod too.
    fn lost(&mut self, error: std::io::Error) {
        self.out.clear();
        self.descriptors.clear();
        if Errno::from_io_error(&error).is_some_and(|errno| RAN_OUT.contains(&errno)) {
            self.refused.get_or_insert(error);
        }
    }

    /// The error of the last send for which the machine lacked resources; returned once.
    pub fn take_refused(&mut self) -> Option<std::io::Error> {
        self.refused.take()
    }

    /// One write, up to the byte that carries the next descriptor.
    fn send_some(&mut self) -> std::io::Result<usize> {
        let Some((at, group)) = self.descriptors.front() else { return self.stream.try_write(&self.out) };
        if *at > 0 {
            return self.stream.try_write(&self.out[..*at]);
        }
        let end = self.descriptors.get(1).map_or(self.out.len(), |(at, _)| *at);
        let sent = process::send_with_descriptors(&self.stream, &self.out[..end], &group.iter().collect::<Vec<_>>())?;
        self.descriptors.pop_front();
        Ok(sent)
    }

    /// The next frame that has arrived, or that the socket can give without waiting.
    pub fn read(&mut self) -> Read {
        loop {
            match self.decoder.next() {
                Ok(Some(decoded)) => return Read::Frame(decoded),
                Ok(None) => {}
                Err(text) => {
                    self.closed = true;
                    return Read::Broken(text);
                }
            }
            if self.closed {
                return Read::Closed;
            }
            match self.receive() {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => self.closed = true,
                Poll::Pending => return Read::Dry,
            }
        }
    }

    /// Reads once into the decoder's space, by a poll. Unlike `try_read`, a poll treats a short read as the
    /// end of the data, which spares the host a further read that finds nothing. There is no budget, because
    /// nothing would wake this task to go on.
    fn receive(&mut self) -> Poll<std::io::Result<usize>> {
        let read = pin!(unconstrained(self.stream.read_buf(self.decoder.space())));
        read.poll(&mut Context::from_waker(Waker::noop()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_send_that_the_machine_refuses_is_told_and_one_to_nobody_is_not() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut lane = Lane::new(ours, 1 << 10);
        for errno in RAN_OUT {
            lane.out().extend_from_slice(b"lost");
            lane.lost(errno.into());
            assert!(!lane.has_output());
            assert_eq!(lane.take_refused().and_then(|error| error.raw_os_error()), Some(errno.raw_os_error()));
        }
        drop(theirs);
        lane.out().extend_from_slice(b"to nobody");
        lane.flush();
        assert!(!lane.has_output() && lane.take_refused().is_none());
    }
}
