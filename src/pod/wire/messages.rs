//! Messages between host and pod: types only, no IO.
//!
//! The contract is `docs/pod-protocol.md`. A pod's message is untrusted until parsed: an unknown, missing or
//! contradictory part is an error.

use std::{borrow::Cow, collections::BTreeMap, marker::PhantomData};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    model::{
        Blob, Fault, document,
        limits::{BLOB_COPY_BYTES_MAX, BLOBS_MAX, CHUNK_CREDIT, CHUNK_WEIGHT_BYTES, POD_NAMES_MAX, POD_NUMBERS_MAX},
        status::machine::{GpuKind, LeverValue},
    },
    pod::wire::{
        fault::{FaultWire, fault},
        frame::{self, Frame},
    },
};

/// The protocol version that this host speaks.
pub const PROTOCOL: u32 = 1;

/// The first message to a pod: which recipe it runs, and with which bounds. The parts are one flat object on
/// the wire.
#[derive(Debug, Serialize)]
pub struct Start<'a> {
    pub protocol: u32,
    pub incarnation: &'a str,
    #[serde(flatten)]
    pub bounds: BoundsWire,
    #[serde(flatten)]
    pub recipe: RecipeWire<'a>,
    #[serde(flatten)]
    pub paths: PathsWire<'a>,
    /// Most units that run at the same time.
    pub concurrency: u32,
    /// A file of the recipe's folder to run between `load` and `ready`.
    pub warm_up: Option<&'a str>,
    pub operations: BTreeMap<&'a str, OperationWire>,
    /// Whether the recipe has glue, which may answer some of these operations itself.
    pub glue: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionWire<'a>>,
    /// `None` for a pod whose libraries keep nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheWire<'a>>,
}

/// Bounds on what the lanes carry at once.
#[derive(Debug, Serialize)]
pub struct BoundsWire {
    pub frame_bytes_max: usize,
    /// A blob above this size goes in a region, if the pod has the feature.
    pub blob_frame_bytes_max: usize,
    /// Chunks of an ask that the pod may send before it gets more credit, if it has the feature.
    pub chunk_credit: u32,
}

/// Which recipe a pod runs.
#[derive(Debug, Serialize)]
pub struct RecipeWire<'a> {
    #[serde(rename = "recipe")]
    pub name: &'a str,
    pub version: &'a str,
    pub digest: &'a str,
    pub folder: &'a str,
    pub entry: &'a str,
}

/// Paths of everything that is not part of the recipe, as the pod sees them within its sandbox.
#[derive(Debug, Serialize)]
pub struct PathsWire<'a> {
    pub site_packages: Option<&'a str>,
    /// The interpreter that the pod treats as its own.
    pub python: &'a str,
    pub scratch: &'a str,
    /// The path of each model by its name, below `models_folder`.
    pub models: BTreeMap<&'a str, &'a str>,
    pub models_folder: Option<&'a str>,
}

/// What happens to a pod's cache folder.
#[derive(Debug, Serialize)]
pub struct CacheWire<'a> {
    /// The folder whose copy is the initial content.
    pub from: Option<&'a str>,
    /// The pod sends `caches` once something is in it.
    pub tells: bool,
    /// The pod answers the operation [`GIVE_CACHE`].
    pub gives: bool,
    pub bytes_max: u64,
    pub files_max: usize,
}

/// The operation that asks a pod for the content of its cache. No operation of a recipe can have this name.
pub const GIVE_CACHE: &str = "hob:cache";

/// The session that a pod belongs to.
#[derive(Debug, Serialize)]
pub struct SessionWire<'a> {
    pub name: &'a str,
    pub piece_bytes_max: usize,
    pub checkpoint_bytes_max: u64,
    /// The state to begin with; its bytes are in the second descriptor that comes with `start`.
    pub restore: Option<RestoreWire>,
}

/// The checkpoint that a session's pod begins with: see [`SessionWire`].
#[derive(Debug, Serialize)]
pub struct RestoreWire {
    pub number: u64,
    pub bytes: u64,
    pub json: bool,
}

/// What a pod must know of an operation.
#[derive(Debug, Serialize)]
pub struct OperationWire {
    pub streaming: bool,
    /// Whether its asks come as batches.
    pub batch: bool,
    /// Whether the manifest declares blobs that the operation takes.
    pub blobs: bool,
}

/// Control lane, host to pod.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Control<'a> {
    /// The environment of a confined pod, sent before its `hello`. The keeper's part of the pod reads it, not
    /// the recipe's code.
    Variables {
        variables: BTreeMap<&'a str, String>,
    },
    Start(Box<Start<'a>>),
    /// The first `load` comes on the control lane; later ones on the data lane, as `unload` does.
    Load {
        /// The value of the recipe's lever, if it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        lever: Option<&'a LeverValue>,
        /// The GPU that the pod must use.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu: Option<GpuWire<'a>>,
    },
    /// On the data lane: unload the models.
    Unload,
    Ping {
        seq: u64,
    },
    Cancel {
        ask: u64,
    },
    /// A checkpoint is due.
    Checkpoint {
        seq: u64,
    },
    /// On the data lane: send the checkpoint now, unless one was sent since.
    Give {
        seq: u64,
    },
    /// The result of a piece; with the last piece, `number` is that of the checkpoint.
    Kept {
        number: Option<u64>,
        fault: Option<&'a str>,
    },
    /// On the data lane: the pod's session is closed.
    Close,
    Drain,
    Exit,
    /// Shared memory; its descriptor comes with the message. `write`: for results.
    Region {
        region: u64,
        bytes: u64,
        write: bool,
    },
    /// The requested room is refused.
    NoRoom {
        why: &'a str,
    },
    /// A result was read: the pod may use its region again.
    Free {
        region: u64,
    },
    /// That region is no longer used.
    Forget {
        region: u64,
    },
    /// So many chunks of that ask were read.
    Credit {
        ask: u64,
        chunks: u32,
    },
}

/// A GPU that a pod is given.
#[derive(Debug, Serialize)]
pub struct GpuWire<'a> {
    pub id: &'a str,
    pub kind: GpuKind,
}

/// A blob's place: in the tail, or in a region.
#[derive(Debug, Serialize, Deserialize)]
struct BlobWire<'a> {
    name: Cow<'a, str>,
    media_type: Cow<'a, str>,
    bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<u64>,
}

/// Data lane, host to pod.
#[derive(Serialize)]
struct AskWire<'a> {
    r#type: &'static str,
    incarnation: &'a str,
    digest: &'a str,
    operation: &'a str,
    left_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lever: Option<&'a LeverValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blobs: Vec<BlobWire<'a>>,
}

/// The JSON of an ask. `input` is the text of a document; a blob in a region stands beside that region.
pub fn ask<'a>(
    incarnation: &str,
    digest: &str,
    operation: &str,
    input: &str,
    left_ms: u64,
    lever: Option<&LeverValue>,
    blobs: impl Iterator<Item = (&'a Blob, Option<u64>)>,
) -> Vec<u8> {
    let blobs = blobs
        .map(|(blob, region)| BlobWire { name: (&*blob.name).into(), media_type: (&*blob.media_type).into(), bytes: blob.size(), region })
        .collect();
    let head = AskWire { r#type: "ask", incarnation, digest, operation, left_ms, lever, blobs };
    let mut json = Vec::with_capacity(input.len() + (1 << 10));
    frame::put_around(&mut json, &head, "input", |json| json.extend_from_slice(input.as_bytes()));
    json
}

/// One ask of a batch.
pub struct Item<'a> {
    pub ask: u64,
    pub left_ms: u64,
    /// The text of a document.
    pub input: &'a str,
}

#[derive(Serialize)]
struct BatchWire<'a> {
    r#type: &'static str,
    incarnation: &'a str,
    digest: &'a str,
    operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lever: Option<&'a LeverValue>,
}

#[derive(Serialize)]
struct ItemWire {
    ask: u64,
    left_ms: u64,
}

/// The JSON of a batch.
pub fn batch(incarnation: &str, digest: &str, operation: &str, lever: Option<&LeverValue>, items: &[Item]) -> Vec<u8> {
    let mut json = Vec::with_capacity(items.iter().map(|item| item.input.len() + (1 << 7)).sum::<usize>() + (1 << 10));
    frame::put_around(&mut json, &BatchWire { r#type: "batch", incarnation, digest, operation, lever }, "items", |json| {
        json.push(b'[');
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            let head = ItemWire { ask: item.ask, left_ms: item.left_ms };
            frame::put_around(json, &head, "input", |json| json.extend_from_slice(item.input.as_bytes()));
        }
        json.push(b']');
    });
    json
}

/// The JSON of a control message.
pub fn control(message: &Control) -> Vec<u8> {
    serde_json::to_vec(message).expect("strings and numbers become JSON")
}

/// JSON text and blobs, as a pod sent them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Payload {
    pub json: String,
    pub blobs: Vec<Blob>,
    /// Blobs that are still to be read from regions, each with its index in `blobs`.
    pub regions: Vec<(usize, InRegion)>,
}

impl Payload {
    /// The number of chunks that it counts as. A large chunk counts as several, so that credit bounds the
    /// bytes in transit as well.
    pub fn weight(&self) -> u32 {
        let blobs = self.blobs.iter().map(Blob::size).chain(self.regions.iter().map(|(_, blob)| blob.bytes));
        weight(blobs.fold(self.json.len() as u64, u64::saturating_add))
    }
}

/// See [`Payload::weight`]; `bytes`: of its data and its blobs. The result is at most half of the credit, so
/// that there is always enough credit for one chunk, even if the host has confirmed few. The runner computes
/// the same.
pub fn weight(bytes: u64) -> u32 {
    (1 + bytes / CHUNK_WEIGHT_BYTES).min(u64::from(CHUNK_CREDIT / 2)) as u32
}

/// A blob that a pod reports in a region.
#[derive(Debug, Clone, PartialEq)]
pub struct InRegion {
    pub name: String,
    pub media_type: String,
    pub bytes: u64,
    pub region: u64,
}

/// Any message of a pod, on either lane.
#[derive(Debug, Clone, PartialEq)]
pub enum FromPod {
    /// The sandbox is complete. `missing`: the layers that its operator let it do without. `way_out`: the
    /// keeper's descriptor of its proxy.
    Confined {
        missing: Vec<String>,
        way_out: Option<i32>,
    },
    /// The sandbox could not be built.
    Refused {
        layer: String,
        why: String,
    },
    Hello {
        protocol: [u32; 2],
        features: Vec<String>,
        pid: u32,
        runtime: String,
    },
    /// `unloads`: the pod can unload its models and stay alive.
    Started {
        unloads: bool,
    },
    Ready,
    Unloaded,
    /// Something is in its cache folder.
    Caches,
    Failed(Fault),
    Pong {
        seq: u64,
        asks: Vec<u64>,
    },
    Log {
        level: String,
        message: String,
    },
    Checkpoint(Checkpoint),
    /// The pod needs room for a result of so many bytes.
    Room {
        bytes: u64,
    },
    /// The pod no longer uses those regions of asks; they may be used again.
    Back {
        regions: Vec<u64>,
    },
    /// The pod keeps those regions, or has closed them for good: they must not be used again.
    Dropped {
        regions: Vec<u64>,
    },
    Progress {
        ask: u64,
        /// JSON text.
        data: String,
    },
    Chunk {
        ask: u64,
        payload: Payload,
    },
    /// `whole_batch`: the whole batch failed, not this item alone.
    Answer {
        ask: u64,
        incarnation: String,
        result: Result<Payload, Fault>,
        whole_batch: bool,
    },
}

/// What a pod of a session reports about its state.
#[derive(Debug, Clone, PartialEq)]
pub enum Checkpoint {
    Piece {
        bytes: Bytes,
        last: bool,
        json: bool,
    },
    /// There is none, or it could not be made.
    None(Option<Fault>),
    Closed,
}

/// The fields of a message that belongs to an ask, and the fields that several kinds of messages have; `type`
/// decides which are required.
///
/// One flat struct instead of a tagged enum, because serde buffers tagged enums and then cannot borrow raw
/// JSON.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(default)]
    whole_batch: bool,
    #[serde(default)]
    last: bool,
    #[serde(default)]
    json: bool,
    #[serde(default)]
    incarnation: Option<String>,
    #[serde(default, borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    output: Option<&'a RawValue>,
    #[serde(default, borrow)]
    fault: Option<FaultWire<'a>>,
    #[serde(default, borrow, deserialize_with = "few::<_, _, POD_NAMES_MAX>")]
    blobs: Vec<BlobWire<'a>>,
}

/// The fields of a message in which a pod reports about itself. Such messages are rare and short, so their
/// text is parsed a second time for this.
#[derive(Default, Deserialize)]
struct OfItself {
    #[serde(default)]
    protocol: Option<[u32; 2]>,
    #[serde(default, deserialize_with = "few::<_, _, POD_NAMES_MAX>")]
    features: Vec<String>,
    #[serde(default)]
    pid: Option<u32>,
    #[serde(default)]
    runtime: Option<String>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default, deserialize_with = "few::<_, _, POD_NAMES_MAX>")]
    missing: Vec<String>,
    #[serde(default)]
    way_out: Option<i32>,
    #[serde(default)]
    layer: Option<String>,
    #[serde(default)]
    why: Option<String>,
    #[serde(default, deserialize_with = "some_few::<_, _, POD_NUMBERS_MAX>")]
    asks: Option<Vec<u64>>,
    #[serde(default)]
    unloads: bool,
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    bytes: Option<u64>,
    #[serde(default, deserialize_with = "some_few::<_, _, POD_NUMBERS_MAX>")]
    regions: Option<Vec<u64>>,
}

/// Reads a list of at most `MOST` entries: a frame full of short entries needs many times its size once
/// parsed.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Few<T, const MOST: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Few<T, MOST> {
        type Value = Vec<T>;
        fn expecting(&self, into: &mut std::fmt::Formatter) -> std::fmt::Result {
            write!(into, "a list of at most {MOST}")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut few = Vec::new();
            while let Some(item) = items.next_element()? {
                if few.len() == MOST {
                    return Err(serde::de::Error::custom(format!("a list of more than {MOST}")));
                }
                few.push(item);
            }
            Ok(few)
        }
    }
    deserializer.deserialize_seq(Few::<T, MOST>(PhantomData))
}

fn some_few<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    few::<_, _, MOST>(deserializer).map(Some)
}

/// A field that is present, even as `null`: Python's `return None` is an answer too.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl FromPod {
    /// Parses a frame. The error says what is wrong with it, for a `protocol_violation`.
    pub fn parse(frame: &Frame) -> Result<FromPod, String> {
        let text = std::str::from_utf8(&frame.json).map_err(|error| format!("a frame that is not UTF-8: {error}"))?;
        let wrong = |error: serde_json::Error| format!("a frame that is not a message: {error}");
        let said: Said = serde_json::from_str(text).map_err(wrong)?;
        let kind = said.r#type.to_string();
        let own = match kind.as_str() {
            "progress" | "chunk" | "answer" => OfItself::default(),
            _ => serde_json::from_str(text).map_err(wrong)?,
        };
        let missing = |field: &str| format!("a `{kind}` without `{field}`");
        let ask = || match frame.ask {
            0 => Err(format!("a `{kind}` that belongs to no ask")),
            ask => Ok(ask),
        };
        let (blobs, in_regions) =
            cut(&said.blobs, &frame.tail, text.len() + frame.tail.len()).map_err(|error| format!("a `{kind}` {error}"))?;
        Ok(match kind.as_str() {
            "confined" => FromPod::Confined { missing: own.missing, way_out: own.way_out },
            "refused" => {
                FromPod::Refused { layer: own.layer.ok_or_else(|| missing("layer"))?, why: own.why.ok_or_else(|| missing("why"))? }
            }
            "hello" => FromPod::Hello {
                protocol: own.protocol.ok_or_else(|| missing("protocol"))?,
                features: own.features,
                pid: own.pid.ok_or_else(|| missing("pid"))?,
                runtime: own.runtime.unwrap_or_default(),
            },
            "checkpoint" => FromPod::Checkpoint(match (&blobs[..], said.fault) {
                ([state], None) => {
                    Checkpoint::Piece { bytes: state.in_memory().cloned().unwrap_or_default(), last: said.last, json: said.json }
                }
                ([], wire) => Checkpoint::None(wire.map(fault)),
                _ => return Err("a `checkpoint` with more than its state".to_owned()),
            }),
            "closed" => FromPod::Checkpoint(Checkpoint::Closed),
            "started" => FromPod::Started { unloads: own.unloads },
            "ready" => FromPod::Ready,
            "unloaded" => FromPod::Unloaded,
            "caches" => FromPod::Caches,
            "failed" => FromPod::Failed(fault(said.fault.ok_or_else(|| missing("fault"))?)),
            "pong" => FromPod::Pong { seq: own.seq.ok_or_else(|| missing("seq"))?, asks: own.asks.ok_or_else(|| missing("asks"))? },
            "log" => FromPod::Log { level: own.level.unwrap_or_default(), message: own.message.ok_or_else(|| missing("message"))? },
            "room" => FromPod::Room { bytes: own.bytes.ok_or_else(|| missing("bytes"))? },
            "back" => FromPod::Back { regions: own.regions.ok_or_else(|| missing("regions"))? },
            "dropped" => FromPod::Dropped { regions: own.regions.ok_or_else(|| missing("regions"))? },
            "progress" => {
                let data = said.data.ok_or_else(|| missing("data"))?;
                document::check(data.get()).map_err(|error| format!("a `progress` that no value can hold: {error}"))?;
                FromPod::Progress { ask: ask()?, data: data.get().to_owned() }
            }
            "chunk" => {
                let data = said.data.ok_or_else(|| missing("data"))?;
                FromPod::Chunk { ask: ask()?, payload: Payload { json: data.get().to_owned(), blobs, regions: in_regions } }
            }
            "answer" => FromPod::Answer {
                ask: ask()?,
                incarnation: said.incarnation.ok_or_else(|| missing("incarnation"))?,
                whole_batch: said.whole_batch,
                result: match (said.output, said.fault) {
                    (Some(output), None) => Ok(Payload { json: output.get().to_owned(), blobs, regions: in_regions }),
                    (None, Some(wire)) => Err(fault(wire)),
                    _ => return Err("an `answer` with both or neither of `output` and `fault`".to_owned()),
                },
            },
            _ => return Err(format!("a message of unknown type `{}`", kind.chars().take(40).collect::<String>())),
        })
    }
}

/// The blobs of a frame's tail, and those in regions.
type Cut = (Vec<Blob>, Vec<(usize, InRegion)>);

/// Copies the bytes if they would keep much more memory of their frame than they need.
fn piece(bytes: Bytes, frame_bytes: usize) -> Bytes {
    match bytes.len() < frame_bytes / 4 || bytes.len() < BLOB_COPY_BYTES_MAX {
        true => Bytes::copy_from_slice(&bytes),
        false => bytes,
    }
}

fn cut(places: &[BlobWire], tail: &Bytes, frame_bytes: usize) -> Result<Cut, String> {
    if places.len() > BLOBS_MAX {
        return Err(format!("with {} blobs; at most {BLOBS_MAX} are taken", places.len()));
    }
    let mut at = 0usize;
    let (mut blobs, mut in_regions) = (Vec::with_capacity(places.len()), Vec::new());
    for (place, wire) in places.iter().enumerate() {
        if let Some(region) = wire.region {
            let (name, media_type) = (wire.name.to_string(), wire.media_type.to_string());
            in_regions.push((place, InRegion { name, media_type, bytes: wire.bytes, region }));
            continue;
        }
        let end = usize::try_from(wire.bytes).ok().and_then(|bytes| at.checked_add(bytes)).filter(|end| *end <= tail.len());
        let end = end.ok_or_else(|| format!("whose blobs claim more than its tail of {} bytes", tail.len()))?;
        blobs.push(Blob::new(wire.name.to_string(), wire.media_type.to_string(), piece(tail.slice(at..end), frame_bytes)));
        at = end;
    }
    match at == tail.len() {
        true => Ok((blobs, in_regions)),
        false => Err(format!("whose blobs make up {at} of its tail's {} bytes", tail.len())),
    }
}
