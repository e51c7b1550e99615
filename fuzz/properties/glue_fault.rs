//! What glue and pods say went wrong: any words become a fault within bounds, that blames nobody else and
//! comes whole through every door.
//!
//! Input: code, message, hint and detail, with a NUL between them. The same words go the way of glue (a
//! record of texts) and of a pod (JSON in a frame), and then over the socket of a server to its command line.

use bytes::Bytes;
use hob::{
    fuzzing::{
        door::{Line, last_line},
        glue::{GuestFault, said},
        pod::{Frame, FromPod},
    },
    model::{Blame, Code, Fault, limits},
};
use serde_json::{Value, json};

pub fn holds(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.splitn(4, '\0');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let (code, message, hint, detail) = (part(), part(), part(), part());
    let name = "hob/echo".parse().expect("a name");

    let fault = said(&name, GuestFault { code: code.clone(), message: message.clone(), hint: hint.clone(), detail: detail.clone() });
    assert!(!fault.message.is_empty());
    sound(&fault, &code);

    let raw = serde_json::from_str::<Value>(&detail).unwrap_or(Value::String(detail));
    let wire = json!({ "type": "failed", "fault": { "code": code, "message": message, "hint": hint, "detail": raw } });
    let frame = Frame { ask: 0, json: Bytes::from(wire.to_string()), tail: Bytes::new() };
    match FromPod::parse(&frame) {
        Ok(FromPod::Failed(fault)) => sound(&fault, &code),
        // Nested deeper than any reader of JSON goes.
        Err(text) => assert!(text.contains("recursion limit"), "{text}"),
        Ok(other) => panic!("{other:?}"),
    }
}

fn sound(fault: &Fault, code: &str) {
    assert!(![Blame::Hob, Blame::Repository].contains(&fault.blame), "{fault:?}");
    match fault.code.name() == code {
        true => assert!(fault.code != Code::Internal),
        // The word stays to be seen, or is said to be none.
        false => assert!(fault.code == Code::RecipeFailed && fault.detail["code"].is_string(), "{fault:?}"),
    }
    assert!(fault.message.len() <= limits::FAULT_MESSAGE_BYTES_MAX);
    assert!(fault.hint.as_ref().is_none_or(|hint| !hint.is_empty() && hint.len() <= limits::FAULT_MESSAGE_BYTES_MAX));
    // A control character is six bytes in JSON, and so is the word that goes into `detail`.
    assert!(fault.detail.to_string().len() <= 6 * (limits::FAULT_DETAIL_BYTES_MAX + limits::FAULT_MESSAGE_BYTES_MAX));

    let line = last_line(&Err(fault.clone()), |fault| fault, None);
    let read = match Line::parse(&line[..line.len() - 1], &mut Default::default()) {
        Ok(Some(Line::Last(read))) => *read,
        other => panic!("what a server writes of a fault is not read: {other:?}"),
    };
    let read = read.expect_err("a fault");
    assert_eq!((read.code, &read.message, &read.hint), (fault.code, &fault.message, &fault.hint));
}
