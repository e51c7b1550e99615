//! One socket to a pod: frames in, frames out, never blocking.
//!
//! Apart from the driver so that bytes wait here (with a bound) and the driver only sees whole frames.

use bytes::{Buf, BytesMut};
use tokio::net::UnixStream;

use super::frame::{Decoded, Decoder};

/// One socket with what waits to be read and written.
pub struct Lane {
    stream: UnixStream,
    decoder: Decoder,
    out: BytesMut,
    closed: bool,
}

/// What reading brought.
pub enum Read {
    Frame(Decoded),
    /// Nothing more now.
    Dry,
    /// The other side closed, or the stream broke in the middle of a frame.
    Closed,
    /// The stream makes no sense any more.
    Broken(String),
}

impl Lane {
    pub fn new(stream: UnixStream, frame_bytes_max: usize) -> Lane {
        Lane { stream, decoder: Decoder::new(frame_bytes_max), out: BytesMut::new(), closed: false }
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Where to put what is to be sent; [`Lane::flush`] sends it.
    pub fn out(&mut self) -> &mut BytesMut {
        &mut self.out
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

    /// Sends what the socket takes now. A closed peer is found by reading, so that its last words are read first.
    pub fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(count) => self.out.advance(count),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => self.out.clear(),
            }
        }
        if self.out.capacity() > 1 << 20 {
            self.out = BytesMut::new();
        }
    }

    /// The next frame that is there already, or that the socket can give without waiting.
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
            match self.stream.try_read_buf(self.decoder.space()) {
                Ok(0) => self.closed = true,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Read::Dry,
                Err(_) => self.closed = true,
            }
        }
    }
}
