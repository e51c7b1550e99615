//! Glue of `hob/document-search`: turns a long list of documents into many short asks of the pod, and
//! everything else into one.
//!
//! A pod of a session does one thing at a time, and the queue is ordered between two asks. So a search waits
//! for one short ask of a caller who fills the index, and not for all of them. This file connects the
//! sandbox's imports and exports; `adding` decides what is asked.

mod adding;

use std::{panic, sync::Once};

use adding::{Adding, Wrong};
use hob::glue::{log, pod};

// Brings `Guest`, `Request`, `Response`, `Fault` and the imports under `hob::glue`.
wit_bindgen::generate!({ path: "wit", world: "glue" });

/// The glue, which implements the world.
struct Glue;

impl Guest for Glue {
    fn run(request: Request) -> Result<Response, Fault> {
        tell_panics();
        if request.operation != "add" {
            let output = ask(&request.operation, &request.input)?;
            return Ok(Response { output, blobs: Vec::new() });
        }
        let mut adding = Adding::read(&request.input).map_err(fault)?;
        while let Some(arguments) = adding.arguments() {
            let answer = ask("add", &arguments)?;
            adding.take(&answer).map_err(fault)?;
        }
        Ok(Response { output: adding.output(), blobs: Vec::new() })
    }
}

/// Sends one ask to the pod and returns its answer. Each ask waits for its turn by the call's priority.
fn ask(operation: &str, arguments: &str) -> Result<String, Fault> {
    let call = pod::start(operation, arguments, Vec::new())?;
    loop {
        match call.next()? {
            Some(event) if event.kind == "answer" => return Ok(event.data),
            Some(_) => continue,
            None => return Err(fault(Wrong::new("no_answer", "the pod's call ended without an answer".into()))),
        }
    }
}

/// Writes a panic's message to the log, because the host sees only a trap.
fn tell_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|what| log::write("error", &what.to_string()))));
}

fn fault(wrong: Wrong) -> Fault {
    Fault { code: wrong.code.into(), message: wrong.message, hint: wrong.hint.into(), detail: String::new() }
}

export!(Glue);
