//! Calls and their answers as a server and its clients send them: any body is a call or a caller's fault, and
//! each line that is written is read.
//!
//! Input: a body, or the bytes of an answer. Both readers are asked; the answer comes whole and in pieces,
//! and must be the same lines.

use hob::{
    fuzzing::door::{CallBody, Line, Lines, event_line, last_line},
    model::{Blame, Code, Document, Event, Outcome, limits},
};
use serde_json::json;

pub fn holds(bytes: &[u8]) {
    body(bytes);
    answer(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        told(text);
    }
}

fn body(bytes: &[u8]) {
    let call = match CallBody::parse(bytes) {
        Ok(call) => call,
        Err(fault) => return assert!([Code::Usage, Code::InvalidJson].contains(&fault.code) && fault.blame == Blame::Caller, "{fault}"),
    };
    // A key that nobody knows never passes: this one in front of all others.
    if let Some(at) = bytes.iter().position(|byte| *byte == b'{') {
        let spoilt = [&bytes[..=at], b"\"zz-unknown\":1,", &bytes[at + 1..]].concat();
        assert_eq!(CallBody::parse(&spoilt).map(|_| ()).expect_err("an unknown key passes").code, Code::Usage);
    }
    let written = serde_json::to_vec(&call).expect("a call can be written");
    let again = CallBody::parse(&written).expect("a call that was written");
    let text = call.input.get().to_owned();
    assert_eq!(again.input.get(), text);
    let name: hob::model::RecipeRef = "a/b".parse().expect("a name");
    match (call.call(name.clone(), Default::default()), again.call(name, Default::default())) {
        (Ok(call), Ok(again)) => {
            assert_eq!(
                (&call.operation, call.deadline_ms, call.priority, call.one_shot),
                (&again.operation, again.deadline_ms, again.priority, again.one_shot)
            );
            assert!(call.input.text() == text && call.blobs == again.blobs);
        }
        (Err(fault), Err(again)) => {
            assert_eq!(fault, again);
            assert!([Code::Usage, Code::InvalidJson, Code::TooLarge].contains(&fault.code), "{fault}");
        }
        (call, again) => panic!("{call:?} written anew is {again:?}"),
    }
}

fn answer(bytes: &[u8]) {
    let read = |piece: usize| {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for part in bytes.chunks(piece) {
            lines.push(part).expect("shorter than a line may be");
            while let Some(line) = lines.next() {
                found.push(line);
            }
        }
        found
    };
    if bytes.len() > limits::SERVE_LINE_BYTES_MAX {
        return;
    }
    let found = read(bytes.len().max(1));
    assert_eq!(read(1), found);
    assert!(found.iter().all(|line| !line.is_empty() && !line.contains(&b'\n')));
    for line in found {
        match Line::parse(&line, &mut Default::default()) {
            Err(fault) => assert!([Code::Internal, Code::Usage, Code::InvalidJson, Code::TooLarge].contains(&fault.code), "{fault}"),
            Ok(Some(Line::Event(event))) => assert!(reads_as_event(&event)),
            Ok(_) => {}
        }
    }
}

/// Whatever text an app, a recipe or a pod has put there, a client reads what a server told it.
fn told(text: &str) {
    assert!(reads_as_event(&Event::Log { level: "info".into(), message: text.to_owned() }));
    let Ok(document) = Document::parse(text, "output") else { return };
    for data in [document.value().clone(), json!(text)] {
        assert!(reads_as_event(&Event::Progress { data: data.clone() }));
        assert!(reads_as_event(&Event::Chunk { data: data.into(), blobs: Vec::new() }));
    }
    let outcome = Outcome::new("a/b", "1.0.0", document, Vec::new());
    let line = last_line(&Ok(outcome.clone()), |fault| fault, None);
    assert!(line.ends_with(b"\n") && line.iter().filter(|byte| **byte == b'\n').count() == 1);
    match Line::parse(&line[..line.len() - 1], &mut Default::default()) {
        Ok(Some(Line::Last(read))) => assert_eq!(read.expect("an outcome").output.value(), outcome.output.value()),
        other => panic!("what a server writes is not read: {other:?}"),
    }
}

/// Whether an event that is written is one line and is read as an event of its kind.
fn reads_as_event(event: &Event) -> bool {
    let line = event_line(event, None).expect("no blobs that no line can hold");
    assert!(line.ends_with(b"\n") && line.iter().filter(|byte| **byte == b'\n').count() == 1);
    match (Line::parse(&line[..line.len() - 1], &mut Default::default()), event) {
        (Ok(Some(Line::Event(Event::Log { message, .. }))), Event::Log { message: wanted, .. }) => message == *wanted,
        (Ok(Some(Line::Event(Event::Progress { .. }))), Event::Progress { .. }) => true,
        (Ok(Some(Line::Event(Event::Chunk { .. }))), Event::Chunk { .. }) => true,
        (other, _) => panic!("what a server writes is not read: {other:?}"),
    }
}
