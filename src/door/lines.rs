//! The format of a call over a socket: one JSON document in, one line of JSON per event out. Server and
//! client share it.

use std::{borrow::Cow, collections::VecDeque, os::fd::OwnedFd};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use crate::{
    host::blobs,
    model::{
        Blob, Call, Code, Document, Event, Fault, Hint, Outcome, Priority, RecipeRef, StandIn, act, hint, limits,
        printable::printable_json, stand_in::HEAD_BYTES,
    },
};

/// The body of `POST /v1/calls`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallBody {
    /// `publisher/name`, or a capability `name@major`.
    pub recipe: String,
    pub operation: String,
    pub input: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    #[serde(default)]
    pub priority: Priority,
    #[serde(default)]
    pub one_shot: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Whether lines printed during the call are sent as events.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub logs: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<BlobBody>,
}

/// Bytes beside a document: in base64, or in a file that was handed over beside it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobBody {
    pub name: String,
    #[serde(default = "octets")]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// The blob is the first so many bytes of the next file that arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
}

fn octets() -> String {
    "application/octet-stream".to_owned()
}

impl BlobBody {
    /// Bodies of `blobs`. With `files`, blobs larger than a frame go there, in their order; all others are in
    /// base64.
    ///
    /// Errors: `too_large` for blobs that no line can hold; `io`.
    fn all(blobs: &[Blob], mut files: Option<&mut Vec<OwnedFd>>) -> Result<Vec<BlobBody>, Fault> {
        let by_files = files.is_some();
        let within = blobs.iter().filter(|blob| !(by_files && is_large(blob)));
        let (most, size) = (limits::GLUE_BLOB_BYTES_MAX as u64, within.map(Blob::size).fold(0, u64::saturating_add));
        if size > most {
            let text = format!("the blobs are {size} bytes; at most {most} go through a server in base64");
            return Err(Fault::new(Code::TooLarge, text).hint(larger()));
        }
        let body = |blob: &Blob| {
            let (mut base64, mut file_bytes) = (None, None);
            match &mut files {
                Some(files) if is_large(blob) => {
                    files.push(blobs::to_open(blob)?);
                    file_bytes = Some(blob.size());
                }
                _ => base64 = Some(BASE64_STANDARD.encode(&blob.bytes(most)?)),
            }
            Ok(BlobBody { name: blob.name.clone(), media_type: blob.media_type.clone(), base64, file_bytes })
        };
        blobs.iter().map(body).collect()
    }

    /// The blob, from base64 or from the next of `files`.
    fn blob(self, files: &mut VecDeque<OwnedFd>) -> Result<Blob, Fault> {
        let wrong = |what: &str| Fault::new(Code::Usage, format!("blob `{}` {what}", self.name));
        match (&self.base64, self.file_bytes) {
            (Some(base64), None) => {
                let bytes = BASE64_STANDARD.decode(base64).map_err(|error| wrong(&format!("is not base64 with padding: {error}")))?;
                Ok(Blob::new(self.name, self.media_type, bytes))
            }
            (None, Some(bytes)) => {
                let file = files.pop_front().ok_or_else(|| {
                    wrong("is in a file that did not come").hint(
                        "files are handed over the server's Unix socket with the request's first bytes, as many as `x-hob-files` says",
                    )
                })?;
                blobs::from_open(self.name, self.media_type, file, bytes)
            }
            _ => Err(wrong("has `base64` and `file_bytes`, or neither: wanted one of them")),
        }
    }
}

/// What a caller can do if the limit is too low.
pub fn larger() -> Hint {
    hint![
        act::hob_call(),
        " on the server's machine hands over files instead, of up to 8 GiB; ",
        act::bounds(),
        " tells the bounds of each way in"
    ]
}

/// The fault about a body that is not JSON; if its format is recognized, the fault names the format.
pub fn or_known(body: &[u8], fault: Fault) -> Fault {
    match StandIn::of(&body[..body.len().min(HEAD_BYTES)], None) {
        Some(found) if fault.code == Code::InvalidJson => {
            Fault::new(Code::InvalidJson, format!("the body is {}; wanted JSON in UTF-8", found.name())).hint(found.hint_of_sender())
        }
        _ => fault,
    }
}

/// Whether a blob goes into a file where files can be handed over.
pub fn is_large(blob: &Blob) -> bool {
    blob.size() > limits::BLOB_FRAME_BYTES_MAX as u64
}

impl CallBody {
    /// Reads a request's body.
    ///
    /// Errors: `invalid_json`; `usage` for JSON that is not a call.
    pub fn parse(bytes: &[u8]) -> Result<CallBody, Fault> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        serde_json::from_slice(bytes).map_err(|error| match error.is_data() {
            true => Fault::new(Code::Usage, format!("the body is not a call: {error}")).hint(
                "wanted `{\"recipe\", \"operation\", \"input\"}` and perhaps `deadline_ms`, `priority`, `one_shot`, `session`, `logs`, \
                 `blobs: [{\"name\", \"media_type\", \"base64\"}]` (or \"file_bytes\" for one in a file)",
            ),
            false => or_known(bytes, Fault::new(Code::InvalidJson, format!("the body is not valid JSON: {error}"))),
        })
    }

    /// A call with the operation's own deadline; `recipe` is the word that the caller used.
    pub fn of(recipe: &str, operation: &str, input: &Document) -> Result<CallBody, Fault> {
        Ok(CallBody {
            recipe: recipe.to_owned(),
            operation: operation.to_owned(),
            input: raw(input.text())?.to_owned(),
            deadline_ms: None,
            priority: Priority::default(),
            one_shot: false,
            session: None,
            logs: false,
            blobs: Vec::new(),
        })
    }

    /// Sets the blobs of the call; large ones go into `files` if files can be handed over.
    ///
    /// Errors: `too_large` for blobs that no line can hold; `io`.
    pub fn carry(&mut self, blobs: &[Blob], files: Option<&mut Vec<OwnedFd>>) -> Result<(), Fault> {
        self.blobs = BlobBody::all(blobs, files)?;
        Ok(())
    }

    /// The call, with the recipe that its word was resolved to, and with the files that were handed over for
    /// it.
    ///
    /// Errors: `invalid_json`, `too_large`, `usage`, `io`.
    pub fn call(self, recipe: RecipeRef, mut files: VecDeque<OwnedFd>) -> Result<Call, Fault> {
        let blobs = self.blobs.into_iter().map(|blob| blob.blob(&mut files)).collect::<Result<_, _>>()?;
        if !files.is_empty() {
            let text = format!("{} of the files that came are of no blob", files.len());
            return Err(Fault::new(Code::Usage, text).hint("each blob with `file_bytes` takes the next file, in their order"));
        }
        Ok(Call {
            recipe,
            operation: self.operation,
            input: Document::passing(String::from(Box::<str>::from(self.input)), "input")?,
            blobs,
            deadline_ms: self.deadline_ms,
            priority: self.priority,
            one_shot: self.one_shot,
            session: self.session,
            logs: self.logs,
        })
    }
}

fn raw(text: &str) -> Result<&RawValue, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::new(Code::Internal, format!("a document is not JSON: {error}")))
}

/// JSON without line breaks between its tokens. Inside a string, a line break is always written as `\n`.
fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains(['\n', '\r']) {
        true => Cow::Owned(text.replace(['\n', '\r'], " ")),
        false => Cow::Borrowed(text),
    }
}

/// One line of an answer as it is written.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Written<'a> {
    Progress {
        data: &'a Value,
    },
    Chunk {
        data: &'a RawValue,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        blobs: Vec<BlobBody>,
    },
    Log {
        level: &'a str,
        message: &'a str,
    },
    Printed {
        text: &'a str,
    },
    Outcome {
        output: &'a RawValue,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        blobs: Vec<BlobBody>,
        recipe: &'a str,
        version: &'a str,
        unsigned: bool,
        wall_ms: f64,
    },
}

impl Written<'_> {
    fn line(&self) -> Vec<u8> {
        // Only a map with keys that are not strings could fail.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        // Data that a recipe computed stays as it is; in its messages, control characters are escaped.
        if let (Written::Log { .. } | Written::Printed { .. }, Cow::Owned(printable)) = (self, printable_json(&line)) {
            line = printable;
        }
        line.push('\n');
        line.into_bytes()
    }
}

/// The line of an event. `files` receives blobs that go beside it, if its reader accepts files.
///
/// Errors: `too_large` for blobs that no line can hold; `io`.
pub fn event_line(event: &Event, files: Option<&mut Vec<OwnedFd>>) -> Result<Vec<u8>, Fault> {
    let written = match event {
        Event::Progress { data } => Written::Progress { data },
        Event::Chunk { data, blobs } => {
            return Ok(Written::Chunk { data: raw(&one_line(data.text()))?, blobs: BlobBody::all(blobs, files)? }.line());
        }
        Event::Log { level, message } => Written::Log { level, message },
        Event::Printed { text } => Written::Printed { text },
    };
    Ok(written.line())
}

/// The last line of an answer. `told` filters a fault for its reader; `files`: as in [`event_line`].
pub fn last_line(outcome: &Result<Outcome, Fault>, told: impl FnOnce(Value) -> Value, files: Option<&mut Vec<OwnedFd>>) -> Vec<u8> {
    let fault_line = |fault: &Fault| {
        let told = told(json!({ "event": "fault", "fault": fault })).to_string();
        format!("{}\n", printable_json(&told)).into_bytes()
    };
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(fault) => return fault_line(fault),
    };
    let text = one_line(outcome.output.text());
    match raw(&text).and_then(|output| Ok((output, BlobBody::all(&outcome.blobs, files)?))) {
        Ok((output, blobs)) => Written::Outcome {
            output,
            blobs,
            recipe: &outcome.recipe,
            version: &outcome.version,
            unsigned: outcome.unsigned,
            wall_ms: outcome.wall_ms,
        }
        .line(),
        Err(fault) => fault_line(&fault),
    }
}

/// One line of an answer, read.
#[derive(Debug)]
pub enum Line {
    Event(Event),
    Last(Box<Result<Outcome, Fault>>),
}

/// All fields that a line may have; which are present depends on `event`. (A tagged enum would not keep the
/// output's text.)
#[derive(Deserialize)]
struct Read {
    event: String,
    /// Parsed separately: the data may be nested as deeply as a document, and the line adds one level.
    data: Option<Box<RawValue>>,
    #[serde(default)]
    blobs: Vec<BlobBody>,
    #[serde(default)]
    level: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    text: String,
    #[serde(default, deserialize_with = "present")]
    output: Option<Box<RawValue>>,
    #[serde(default)]
    recipe: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    unsigned: bool,
    #[serde(default)]
    wall_ms: f64,
    fault: Option<Fault>,
}

/// A field that is present, even if it is `null`, which is a valid output.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Line {
    /// Reads a line, with the files that arrived and were not taken yet; `None` for an event that this
    /// version does not know.
    ///
    /// Errors: `internal` for a line that no server of this protocol writes; as [`blobs::from_open`] for a
    /// file that is not valid.
    pub fn parse(line: &[u8], files: &mut VecDeque<OwnedFd>) -> Result<Option<Line>, Fault> {
        let wrong = |what: String| Fault::new(Code::Internal, format!("the server's answer cannot be read: {what}"));
        let read: Read = serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
        let blobs = read.blobs.into_iter().map(|blob| blob.blob(files)).collect::<Result<Vec<_>, _>>()?;
        let data = read.data.map_or_else(|| "null".to_owned(), |data| String::from(Box::<str>::from(data)));
        let data = Document::unread(data, "data").map_err(|fault| wrong(fault.message))?;
        Ok(Some(match (read.event.as_str(), read.output, read.fault) {
            ("progress", ..) => Line::Event(Event::Progress { data: data.into_value() }),
            ("chunk", ..) => Line::Event(Event::Chunk { data, blobs }),
            ("log", ..) => Line::Event(Event::Log { level: read.level, message: read.message }),
            ("printed", ..) => Line::Event(Event::Printed { text: read.text }),
            ("outcome", Some(output), _) => Line::Last(Box::new(Ok(Outcome {
                output: Document::parse(String::from(Box::<str>::from(output)), "output")?,
                blobs,
                recipe: read.recipe,
                version: read.version,
                unsigned: read.unsigned,
                wall_ms: read.wall_ms,
            }))),
            ("fault", _, Some(fault)) => Line::Last(Box::new(Err(fault))),
            ("outcome" | "fault", ..) => return Err(wrong(format!("`{}` without what it tells of", read.event))),
            _ => return Ok(None),
        }))
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    /// The length that was searched without finding the end of a line.
    searched: usize,
}

impl Lines {
    /// Takes more bytes.
    ///
    /// Errors: `too_large` for a line longer than [`limits::SERVE_LINE_BYTES_MAX`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.held.extend_from_slice(bytes);
        match self.held.len() > limits::SERVE_LINE_BYTES_MAX {
            true => Err(Fault::new(Code::TooLarge, format!("a line of the answer is above {} bytes", limits::SERVE_LINE_BYTES_MAX))),
            false => Ok(()),
        }
    }

    /// The next complete non-empty line, without its line break.
    #[allow(clippy::should_implement_trait, reason = "no iterator: bytes are put in between two calls")]
    pub fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some(at) = self.held[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.held.len();
                return None;
            };
            let rest = self.held.split_off(self.searched + at + 1);
            let mut line = std::mem::replace(&mut self.held, rest);
            self.searched = 0;
            line.pop();
            if !line.is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(output: &str) -> Outcome {
        let blob = Blob::new("audio", "audio/wav", vec![0, 10, 255]);
        Outcome {
            output: Document::parse(output, "output").unwrap(),
            blobs: vec![blob],
            recipe: "hob/echo".into(),
            version: "0.1.0".into(),
            unsigned: false,
            wall_ms: 1.5,
        }
    }

    #[test]
    fn what_is_written_is_read_and_each_is_one_line() {
        let events = [
            Event::Progress { data: serde_json::json!({ "done": 1 }) },
            Event::Chunk { data: serde_json::json!("a\nb").into(), blobs: outcome("1").blobs },
            Event::Log { level: "info".into(), message: "two\nlines".into() },
        ];
        let mut lines = Lines::default();
        for event in &events {
            lines.push(&event_line(event, None).unwrap()).unwrap();
        }
        lines.push(b"\n\n").unwrap();
        // The text of the output is kept, 1e2 is not made 100.0; line breaks between its tokens would cut the
        // line.
        lines.push(&last_line(&Ok(outcome("{\"n\":\n 1e2}")), |fault| fault, None)).unwrap();
        let fault = Fault::new(Code::Overloaded, "full").hint("wait");
        lines.push(&last_line(&Err(fault.clone()), |fault| fault, None)).unwrap();
        for event in events {
            let Some(Line::Event(read)) = Line::parse(&lines.next().unwrap(), &mut VecDeque::new()).unwrap() else { panic!("no event") };
            assert_eq!(read, event);
        }
        let Some(Line::Last(read)) = Line::parse(&lines.next().unwrap(), &mut VecDeque::new()).unwrap() else { panic!("no end") };
        assert_eq!(read.unwrap(), outcome("{\"n\":  1e2}"));
        let Some(Line::Last(read)) = Line::parse(&lines.next().unwrap(), &mut VecDeque::new()).unwrap() else { panic!("no end") };
        assert_eq!(read.unwrap_err(), fault);
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn data_comes_through_as_deeply_nested_as_a_document_may_be() {
        let text = format!("{}{}", "[".repeat(127), "]".repeat(127));
        let data = Document::parse(text.clone(), "data").unwrap();
        for event in [Event::Progress { data: data.value().clone() }, Event::Chunk { data, blobs: Vec::new() }] {
            let line = event_line(&event, None).unwrap();
            let Some(Line::Event(read)) = Line::parse(&line[..line.len() - 1], &mut VecDeque::new()).unwrap() else { panic!("no event") };
            assert_eq!(read, event);
        }
        let line = last_line(&Ok(outcome(&text)), |fault| fault, None);
        let Some(Line::Last(read)) = Line::parse(&line[..line.len() - 1], &mut VecDeque::new()).unwrap() else { panic!("no end") };
        assert_eq!(read.unwrap(), outcome(&text));
    }

    #[test]
    fn what_a_recipe_prints_commands_no_terminal_and_its_results_are_as_they_came() {
        let strange = "a\u{202e}b\u{9b}31m";
        for event in [Event::Log { level: "info".into(), message: strange.into() }, Event::Printed { text: strange.into() }] {
            let line = String::from_utf8(event_line(&event, None).unwrap()).unwrap();
            assert!(!line.contains(crate::model::printable::commands), "{line:?}");
            let Some(Line::Event(read)) = Line::parse(line.trim_end().as_bytes(), &mut VecDeque::new()).unwrap() else {
                panic!("no event")
            };
            assert_eq!(read, event);
        }
        let line = last_line(&Err(Fault::new(Code::Io, strange).with("file", strange)), |fault| fault, None);
        assert!(!String::from_utf8(line).unwrap().trim_end().contains(crate::model::printable::commands));
        let line = String::from_utf8(last_line(&Ok(outcome("\"\u{202e}\"")), |fault| fault, None)).unwrap();
        assert!(line.contains("\"\u{202e}\""), "{line}");
    }

    #[test]
    fn lines_come_whole_however_the_bytes_are_cut() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for byte in b"one\n\ntwo\nthree" {
            lines.push(&[*byte]).unwrap();
            seen.extend(lines.next());
        }
        assert_eq!(seen, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(lines.push(&vec![b'x'; limits::SERVE_LINE_BYTES_MAX]).unwrap_err().code, Code::TooLarge);
    }

    #[test]
    fn a_body_that_is_no_call_is_told_apart_from_one_that_is_no_json() {
        for (body, code) in [
            ("{", Code::InvalidJson),
            ("{\"recipe\": \"a/b\"}", Code::Usage),
            ("{\"recipe\":\"a/b\",\"operation\":\"c\",\"input\":1,\"sesion\":\"x\"}", Code::Usage),
            ("{\"recipe\":\"a/b\",\"operation\":\"c\",\"input\":1,\"priority\":\"high\"}", Code::Usage),
        ] {
            assert_eq!(CallBody::parse(body.as_bytes()).unwrap_err().code, code, "{body}");
        }
        let read = |body: &str| CallBody::parse(body.as_bytes()).unwrap().call("a/b".parse().unwrap(), VecDeque::new());
        let call = read(r#"{"recipe":"a/b","operation":"c","input": {"x":1e2},"blobs":[{"name":"b","base64":"AAo="}]}"#).unwrap();
        assert_eq!((call.input.text(), &call.blobs[0].in_memory().unwrap()[..]), (r#"{"x":1e2}"#, &[0, 10][..]));
        let wrong = r#"{"recipe":"a/b","operation":"c","input":1,"blobs":[{"name":"b","base64":"?"}]}"#;
        assert_eq!(read(wrong).unwrap_err().code, Code::Usage);
        let long = r#"{"recipe":"a/b","operation":"c","input":18446744073709551616}"#;
        assert_eq!(read(long).unwrap_err().code, Code::InvalidJson);
    }
}
