//! Glue of `hob/sentence-embeddings`: maps a caller's input to the pod's, and the pod's answer back.
//!
//! It is separate from the pod so that the form of input and output can change without a change to the code
//! that runs the model. This file connects the sandbox's imports and exports; `shape` maps the JSON.

mod shape;

use std::{panic, sync::Once};

use hob::glue::{log, pod};

// Brings `Guest`, `Request`, `Response`, `Fault` and the imports under `hob::glue`.
wit_bindgen::generate!({ path: "wit", world: "glue" });

/// The glue, which implements the world.
struct Glue;

impl Guest for Glue {
    fn run(request: Request) -> Result<Response, Fault> {
        tell_panics();
        let plan = shape::Plan::read(&request.operation, &request.input).map_err(fault)?;
        let call = pod::start(&request.operation, &plan.arguments(), Vec::new())?;
        let answer = loop {
            match call.next()? {
                Some(event) if event.kind == "answer" => break event.data,
                Some(_) => continue,
                None => return Err(fault(shape::Wrong::new("no_answer", "the pod's call ended without an answer".into()))),
            }
        };
        Ok(Response { output: plan.output(&answer).map_err(fault)?, blobs: Vec::new() })
    }
}

/// Writes a panic's message to the log, because the host sees only a trap.
fn tell_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|what| log::write("error", &what.to_string()))));
}

fn fault(wrong: shape::Wrong) -> Fault {
    Fault { code: wrong.code.into(), message: wrong.message, hint: String::new(), detail: String::new() }
}

export!(Glue);
