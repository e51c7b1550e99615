//! Frames on a lane: a 16-byte header, one JSON object, a binary tail. No IO.
//!
//! A frame is defined by bytes and bounds, whatever its message says. The layout is in
//! `docs/pod-protocol.md`; the tests of both sides read `tests/vectors/frames.json`.

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;

use crate::model::limits::FRAME_SKIP_BYTES_MAX;

/// Size of a header, in bytes.
pub const HEADER_BYTES: usize = 16;

/// One frame as received.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The ask it belongs to, 0 for none.
    pub ask: u64,
    pub json: Bytes,
    pub tail: Bytes,
}

/// The result of reading the next bytes of a lane.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    Frame(Frame),
    /// A frame above the negotiated maximum, which was skipped.
    Oversize {
        ask: u64,
        bytes: u64,
    },
}

/// Appends one frame to `out`; `tail` is the blobs in order.
pub fn encode<'a>(out: &mut BytesMut, ask: u64, json: &[u8], tail: impl Iterator<Item = &'a [u8]> + Clone) {
    let tail_bytes: usize = tail.clone().map(<[u8]>::len).sum();
    out.reserve(HEADER_BYTES + json.len() + tail_bytes);
    out.extend_from_slice(&(json.len() as u32).to_be_bytes());
    out.extend_from_slice(&(tail_bytes as u32).to_be_bytes());
    out.extend_from_slice(&ask.to_be_bytes());
    out.extend_from_slice(json);
    tail.for_each(|part| out.extend_from_slice(part));
}

/// Writes the object `head` with one more entry, whose value `put` writes. The text of a document was checked
/// on arrival and may have megabytes: it is inserted unchanged, so that the pod's task does not parse it
/// again.
pub fn put_around(json: &mut Vec<u8>, head: &impl Serialize, key: &str, put: impl FnOnce(&mut Vec<u8>)) {
    serde_json::to_writer(&mut *json, head).expect("strings and numbers become JSON");
    // `head` always has an entry.
    json.pop();
    json.extend_from_slice(format!(",\"{key}\":").as_bytes());
    put(json);
    json.push(b'}');
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    frame_bytes_max: usize,
    /// The rest of an over-size frame that is still to be skipped.
    skipping: Option<(u64, u64, u64)>,
}

impl Decoder {
    pub fn new(frame_bytes_max: usize) -> Decoder {
        Decoder { buffer: BytesMut::new(), frame_bytes_max, skipping: None }
    }

    /// The buffer to read into: at least 64 KiB free, or the rest of a known frame if that is more.
    pub fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < 16 << 10 {
            let wanted = match self.buffer.len() >= HEADER_BYTES && self.skipping.is_none() {
                true => {
                    let (json, tail, _) = header(&self.buffer);
                    (HEADER_BYTES + json + tail).saturating_sub(self.buffer.len()).min(self.frame_bytes_max)
                }
                false => 0,
            };
            self.buffer.reserve(wanted.max(64 << 10));
        }
        &mut self.buffer
    }

    /// Whether the stream is inside a frame; if it ends here, the frame is broken.
    pub fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty() || self.skipping.is_some()
    }

    /// The next frame, if all of it has arrived.
    ///
    /// The error is a header that claims more than can be skipped: the stream is lost.
    #[allow(clippy::should_implement_trait, reason = "no iterator: bytes are put in between two calls")]
    pub fn next(&mut self) -> Result<Option<Decoded>, String> {
        if let Some((ask, bytes, left)) = self.skipping {
            let now = left.min(self.buffer.len() as u64);
            self.buffer.advance(now as usize);
            if now < left {
                self.skipping = Some((ask, bytes, left - now));
                return Ok(None);
            }
            self.skipping = None;
            return Ok(Some(Decoded::Oversize { ask, bytes }));
        }
        if self.buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let (json, tail, ask) = header(&self.buffer);
        let body = json + tail;
        if body > FRAME_SKIP_BYTES_MAX {
            return Err(format!("a frame header claims {json} + {tail} bytes; at most {FRAME_SKIP_BYTES_MAX} are even read past"));
        }
        if body > self.frame_bytes_max {
            self.buffer.advance(HEADER_BYTES);
            self.skipping = Some((ask, body as u64, body as u64));
            return self.next();
        }
        if self.buffer.len() < HEADER_BYTES + body {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let json = self.buffer.split_to(json).freeze();
        let tail = self.buffer.split_to(tail).freeze();
        Ok(Some(Decoded::Frame(Frame { ask, json, tail })))
    }
}

fn header(bytes: &[u8]) -> (usize, usize, u64) {
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    (number(0), number(4), u64::from_be_bytes(bytes[8..16].try_into().expect("eight bytes")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_in_pieces(bytes: &[u8], piece: usize, max: usize) -> Result<Vec<Decoded>, String> {
        let mut decoder = Decoder::new(max);
        let mut all = Vec::new();
        for part in bytes.chunks(piece.max(1)) {
            decoder.space().extend_from_slice(part);
            while let Some(decoded) = decoder.next()? {
                all.push(decoded);
            }
        }
        assert!(!decoder.is_mid_frame());
        Ok(all)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(frames in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..300), prop::collection::vec(any::<u8>(), 0..300)), 1..8), piece in 1usize..700) {
            let mut bytes = BytesMut::new();
            for (ask, json, tail) in &frames {
                encode(&mut bytes, *ask, json, [&tail[..]].into_iter());
            }
            let max = 250;
            let expected: Vec<_> = frames.iter().map(|(ask, json, tail)| match json.len() + tail.len() > max {
                true => Decoded::Oversize { ask: *ask, bytes: (json.len() + tail.len()) as u64 },
                false => Decoded::Frame(Frame { ask: *ask, json: json.clone().into(), tail: tail.clone().into() }),
            }).collect();
            prop_assert_eq!(decode_in_pieces(&bytes, piece, max).unwrap(), expected);
        }
    }

    #[test]
    fn a_header_that_claims_the_moon_ends_the_stream() {
        let mut decoder = Decoder::new(1024);
        decoder.space().extend_from_slice(&[0xff; 16]);
        assert!(decoder.next().unwrap_err().contains("claims"));
    }
}
