//! Tests the byte vectors of the pod protocol against this side's decoder; `python/tests/test_wire.py` reads
//! the same file.
//!
//! A vector goes through both `frame.rs` and `messages.rs`.

use serde_json::Value;

use crate::{
    model::{Document, limits::FRAME_BYTES_MAX},
    pod::wire::{
        frame::{Decoded, Decoder},
        messages::{self, BoundsWire, Checkpoint, Control, FromPod, OperationWire, PathsWire, RecipeWire, SessionWire, Start},
    },
};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/frames.json")).unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn decode(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Result<Vec<Decoded>, String> {
    let mut all = Vec::new();
    for part in bytes.chunks(piece) {
        decoder.space().extend_from_slice(part);
        while let Some(decoded) = decoder.next()? {
            all.push(decoded);
        }
    }
    Ok(all)
}

/// Asserts that a decoded message has all that the vector's message states.
fn assert_says(parsed: &FromPod, message: &Value, name: &str) {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    match parsed {
        FromPod::Hello { protocol, features, pid, runtime } => {
            let said = serde_json::json!({ "type": "hello", "protocol": protocol, "features": features, "pid": pid, "runtime": runtime });
            assert_eq!(&said, message, "{name}");
        }
        FromPod::Confined { missing, way_out } => {
            assert_eq!((&message["missing"], &message["way_out"]), (&missing.clone().into(), &(*way_out).into()), "{name}");
        }
        FromPod::Refused { layer, why } => {
            assert_eq!((&message["layer"], &message["why"]), (&(&**layer).into(), &(&**why).into()), "{name}")
        }
        FromPod::Pong { seq, asks } => assert_eq!((&message["seq"], &message["asks"]), (&(*seq).into(), &asks.clone().into()), "{name}"),
        FromPod::Log { message: text, .. } => assert_eq!(&message["message"], text, "{name}"),
        FromPod::Failed(fault) | FromPod::Answer { result: Err(fault), .. } => {
            assert_eq!(message["fault"]["message"], fault.message, "{name}");
        }
        FromPod::Progress { data, .. } => assert_eq!(message["data"], serde_json::from_str::<serde_json::Value>(data).unwrap(), "{name}"),
        FromPod::Chunk { payload, .. } => assert_eq!(message["data"], json(&payload.json), "{name}"),
        FromPod::Answer { result: Ok(payload), incarnation, .. } => {
            assert_eq!((&message["output"], &message["incarnation"]), (&json(&payload.json), &incarnation.as_str().into()), "{name}");
            assert_eq!(payload.blobs.len() + payload.regions.len(), message["blobs"].as_array().map_or(0, Vec::len), "{name}");
        }
        FromPod::Checkpoint(Checkpoint::Piece { bytes, last, json }) => {
            assert_eq!(
                (&message["blobs"][0]["bytes"], &message["last"], &message["json"]),
                (&bytes.len().into(), &(*last).into(), &(*json).into())
            );
        }
        FromPod::Checkpoint(Checkpoint::None(fault)) => {
            assert_eq!(message["fault"]["message"], Value::from(fault.as_ref().map(|fault| fault.message.clone())), "{name}");
        }
        FromPod::Room { bytes } => assert_eq!(message["bytes"], *bytes, "{name}"),
        FromPod::Back { regions } | FromPod::Dropped { regions } => assert_eq!(message["regions"], Value::from(regions.clone()), "{name}"),
        FromPod::Started { unloads } => assert_eq!(message["unloads"].as_bool().unwrap_or(false), *unloads, "{name}"),
        FromPod::Checkpoint(Checkpoint::Closed) | FromPod::Ready | FromPod::Unloaded | FromPod::Caches => {}
    }
}

#[test]
fn good_frames_decode_to_what_they_say() {
    let from_pods = [
        "confined",
        "refused",
        "hello",
        "started",
        "ready",
        "unloaded",
        "caches",
        "failed",
        "pong",
        "log",
        "room",
        "back",
        "dropped",
        "progress",
        "chunk",
        "answer",
        "checkpoint",
        "closed",
    ];
    let mut parsed = std::collections::BTreeSet::new();
    for vector in vectors()["good"].as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let frames = decode(&mut decoder, &bytes(&vector["frame"]), 7).unwrap();
        let [Decoded::Frame(frame)] = &frames[..] else { panic!("{name}: {frames:?}") };
        assert!(!decoder.is_mid_frame(), "{name}");
        assert_eq!(Value::from(frame.ask), vector["ask"], "{name}");
        assert_eq!(serde_json::from_slice::<Value>(&frame.json).unwrap(), vector["message"], "{name}");
        assert_eq!(frame.tail, bytes(&vector["tail"]), "{name}");
        let kind = vector["message"]["type"].as_str().unwrap();
        match FromPod::parse(frame) {
            Ok(message) if from_pods.contains(&kind) => {
                assert_says(&message, &vector["message"], name);
                parsed.insert(kind.to_owned());
            }
            // A message that only a host sends is a violation if a pod sends it.
            Err(_) if !from_pods.contains(&kind) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(parsed.len(), from_pods.len(), "{parsed:?}");
}

#[test]
fn bad_frames_come_to_the_end_that_the_file_names() {
    let vectors = vectors();
    let bad = vectors["bad"].as_array().unwrap();
    assert!(bad.len() > 20);
    for vector in bad {
        let name = vector["name"].as_str().unwrap();
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let decoded = decode(&mut decoder, &bytes(&vector["frame"]), 5);
        let message = decoded.clone().and_then(|frames| match &frames[..] {
            [Decoded::Frame(frame)] => FromPod::parse(frame).map(Some),
            _ => Ok(None),
        });
        match vector["outcome"].as_str().unwrap() {
            "incomplete" => assert!(decoded == Ok(vec![]) && decoder.is_mid_frame(), "{name}: {decoded:?}"),
            "violation" => assert!(message.is_err(), "{name}: {message:?}"),
            // The wire does not look into raw JSON; a document with it is refused.
            "document" => {
                let Ok(Some(FromPod::Answer { result: Ok(payload), .. })) = message else {
                    assert!(message.is_err(), "{name}: {message:?}");
                    continue;
                };
                assert!(Document::parse(payload.json, "answer").is_err(), "{name}");
            }
            other => panic!("{name}: no such outcome: {other}"),
        }
    }
}

#[test]
fn streams_give_their_frames_however_they_are_cut() {
    for vector in vectors()["streams"].as_array().unwrap() {
        let wanted = vector["frames"].as_array().unwrap();
        for piece in [1, 3, 20, 1000] {
            let mut decoder = Decoder::new(vector["frame_bytes_max"].as_u64().unwrap() as usize);
            let found = decode(&mut decoder, &bytes(&vector["bytes"]), piece).unwrap();
            assert!(!decoder.is_mid_frame() && found.len() == wanted.len(), "{}", vector["name"]);
            for (found, wanted) in found.iter().zip(wanted) {
                match found {
                    Decoded::Frame(frame) => {
                        assert_eq!(Value::from(frame.ask), wanted["ask"]);
                        assert_eq!(serde_json::from_slice::<Value>(&frame.json).unwrap(), wanted["message"]);
                    }
                    Decoded::Oversize { ask, bytes } => {
                        assert_eq!((Value::from(*ask), Value::from(*bytes)), (wanted["ask"].clone(), wanted["too_large"].clone()));
                    }
                }
            }
        }
    }
}

#[test]
fn what_a_pod_is_told_to_be_is_one_flat_object() {
    let start = Start {
        protocol: 1,
        incarnation: "i",
        bounds: BoundsWire { frame_bytes_max: 2, blob_frame_bytes_max: 3, chunk_credit: 4 },
        recipe: RecipeWire { name: "hob/echo", version: "1.2.3", digest: "d", folder: "/f", entry: "a:B" },
        paths: PathsWire {
            site_packages: None,
            python: "/p",
            scratch: "/s",
            models: [("m", "/models/m")].into(),
            models_folder: Some("/models"),
        },
        concurrency: 5,
        warm_up: None,
        operations: [("run", OperationWire { streaming: true, batch: false, blobs: false })].into(),
        glue: true,
        session: Some(SessionWire { name: "n", piece_bytes_max: 6, checkpoint_bytes_max: 7, restore: None }),
        cache: None,
    };
    let bytes = messages::control(&Control::Start(Box::new(start)));
    let wanted = r#"{"type":"start","protocol":1,"incarnation":"i","frame_bytes_max":2,"blob_frame_bytes_max":3,"chunk_credit":4,"#
        .to_owned()
        + r#""recipe":"hob/echo","version":"1.2.3","digest":"d","folder":"/f","entry":"a:B","site_packages":null,"#
        + r#""python":"/p","scratch":"/s","models":{"m":"/models/m"},"models_folder":"/models","concurrency":5,"#
        + r#""warm_up":null,"operations":{"run":{"streaming":true,"batch":false,"blobs":false}},"glue":true,"#
        + r#""session":{"name":"n","piece_bytes_max":6,"checkpoint_bytes_max":7,"restore":null}}"#;
    assert_eq!(String::from_utf8(bytes).unwrap(), wanted);
}
