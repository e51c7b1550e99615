//! The frames of a pod: what they are does not depend on how the bytes were cut, memory stays within the
//! announced maximum, and what a frame says is a message or a named violation.
//!
//! Input: a byte that chooses the maximum, a byte that says how many cuts follow, the cuts, and then the
//! stream. The frames are compared with those of a reader of a dozen lines that holds the whole stream at
//! once and shares no code with the decoder.

use bytes::{Bytes, BytesMut};
use hob::{
    fuzzing::pod::{Decoded, Decoder, Frame, FromPod, HEADER_BYTES, encode},
    model::{Blame, Code, Document, Fault, limits},
};

const MAXIMA: [usize; 4] = [24, 250, 4096, limits::FRAME_BYTES_MAX];

/// Everything that a stream turned out to be.
#[derive(Debug, PartialEq)]
struct Found {
    frames: Vec<Decoded>,
    broken: bool,
    mid_frame: bool,
}

pub fn holds(bytes: &[u8]) {
    let [maximum, cuts, rest @ ..] = bytes else { return };
    let max = MAXIMA[usize::from(*maximum) % MAXIMA.len()];
    let Some((cuts, stream)) = rest.split_at_checked(usize::from(*cuts)) else { return };
    let wanted = reference(stream, max);
    for found in [decode(stream, max, &[]), decode(stream, max, cuts), decode(stream, max, &[1])] {
        assert_eq!(found, wanted, "cut by {cuts:?}");
    }
    for frame in &wanted.frames {
        match frame {
            Decoded::Frame(frame) => message(frame),
            Decoded::Oversize { bytes, .. } => assert!(*bytes > max as u64 && *bytes <= limits::FRAME_SKIP_BYTES_MAX as u64),
        }
    }
}

/// Feeds the decoder piece by piece: by the given lengths, round and round; without any, the whole at once.
fn decode(stream: &[u8], max: usize, cuts: &[u8]) -> Found {
    let mut decoder = Decoder::new(max);
    let mut found = Found { frames: Vec::new(), broken: false, mid_frame: false };
    let mut lengths = cuts.iter().map(|cut| usize::from(*cut).max(1)).cycle();
    let mut left = stream;
    while !left.is_empty() {
        let (piece, rest) = left.split_at(lengths.next().unwrap_or(left.len()).min(left.len()));
        left = rest;
        let space = decoder.space();
        // What was there, and room for the rest of one frame: a header that claims much does not get much at
        // once.
        assert!(
            space.capacity() <= 2 * (max + HEADER_BYTES + (64 << 10)) + stream.len(),
            "{} bytes for a maximum of {max}",
            space.capacity()
        );
        space.extend_from_slice(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => found.frames.push(frame),
                Ok(None) => break,
                Err(text) => {
                    assert!(text.contains("claims"), "{text}");
                    found.broken = true;
                    return found;
                }
            }
        }
    }
    found.mid_frame = decoder.is_mid_frame();
    found
}

fn reference(mut left: &[u8], max: usize) -> Found {
    let mut found = Found { frames: Vec::new(), broken: false, mid_frame: false };
    while let Some((header, rest)) = left.split_first_chunk::<16>() {
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (json, tail) = (number(0), number(4));
        let ask = (number(8) as u64) << 32 | number(12) as u64;
        if json + tail > limits::FRAME_SKIP_BYTES_MAX {
            found.broken = true;
            return found;
        }
        let Some((body, rest)) = rest.split_at_checked(json + tail) else { break };
        left = rest;
        found.frames.push(match body.len() > max {
            true => Decoded::Oversize { ask, bytes: body.len() as u64 },
            false => {
                let (json, tail) = body.split_at(json);
                Decoded::Frame(Frame { ask, json: Bytes::copy_from_slice(json), tail: Bytes::copy_from_slice(tail) })
            }
        });
    }
    found.mid_frame = !left.is_empty();
    found
}

/// What one frame says.
fn message(frame: &Frame) {
    let mut out = BytesMut::new();
    encode(&mut out, frame.ask, &frame.json, [&frame.tail[..]].into_iter());
    assert_eq!(decode(&out, out.len(), &[]).frames, [Decoded::Frame(frame.clone())], "a frame written anew is another");
    let message = match FromPod::parse(frame) {
        Ok(message) => message,
        Err(text) => return assert!(!text.is_empty() && text.len() < 1024 + frame.json.len()),
    };
    assert_eq!(FromPod::parse(frame).as_ref(), Ok(&message));
    match message {
        FromPod::Failed(fault) => of_a_pod(&fault),
        FromPod::Chunk { ask, payload } => {
            assert_eq!(ask, frame.ask);
            carried(&payload.json, &payload.blobs, frame);
        }
        FromPod::Answer { ask, result, .. } => {
            assert!(ask == frame.ask && ask != 0);
            match result {
                Ok(payload) => carried(&payload.json, &payload.blobs, frame),
                Err(fault) => of_a_pod(&fault),
            }
        }
        _ => {}
    }
}

/// The blobs are the tail, cut and nothing lost, and the JSON is a document or a fault of the caller's kind.
fn carried(json: &str, blobs: &[hob::model::Blob], frame: &Frame) {
    assert!(blobs.len() <= limits::BLOBS_MAX);
    assert_eq!(blobs.iter().flat_map(|blob| blob.in_memory().expect("cut from the tail").to_vec()).collect::<Vec<_>>(), frame.tail);
    match Document::parse(json, "answer") {
        Ok(document) => {
            assert_eq!(document.text(), json);
            assert_eq!(serde_json::from_str::<serde_json::Value>(json).ok().as_ref(), Some(document.value()));
        }
        Err(fault) => assert!([Code::InvalidJson, Code::TooLarge].contains(&fault.code), "{fault}"),
    }
}

/// A pod says what went wrong with itself, within bounds, and blames neither Hob nor a repository.
fn of_a_pod(fault: &Fault) {
    assert!(![Blame::Hob, Blame::Repository].contains(&fault.blame), "{fault:?}");
    assert!(fault.message.len() <= limits::FAULT_MESSAGE_BYTES_MAX);
    assert!(fault.hint.as_ref().is_none_or(|hint| hint.len() <= limits::FAULT_MESSAGE_BYTES_MAX));
    assert!(fault.detail.to_string().len() <= limits::FAULT_DETAIL_BYTES_MAX + 6 * limits::FAULT_MESSAGE_BYTES_MAX + 64);
}
