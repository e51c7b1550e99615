//! The least that glue can do: reads the input, asks the pod the same, hands its answer back.
//!
//! It stands apart from `recipes/echo`, which has no glue: the difference between the two is what glue costs.

use hob::glue::pod;
use serde::{Deserialize, Serialize};

// Brings `Guest`, `Request`, `Response`, `Fault` and the imports under `hob::glue`.
wit_bindgen::generate!({ path: "wit", world: "glue" });

struct Glue;

#[derive(Serialize, Deserialize)]
struct Input {
    text: String,
}

impl Guest for Glue {
    fn run(request: Request) -> Result<Response, Fault> {
        let input: Input = serde_json::from_str(&request.input).map_err(|error| fault("invalid_input", error.to_string()))?;
        let arguments = serde_json::to_string(&input).map_err(|error| fault("invalid_input", error.to_string()))?;
        let call = pod::start(&request.operation, &arguments, Vec::new())?;
        while let Some(event) = call.next()? {
            if event.kind == "answer" {
                return Ok(Response { output: event.data, blobs: Vec::new() });
            }
        }
        Err(fault("no_answer", "the pod's call ended without an answer".into()))
    }
}

fn fault(code: &str, message: String) -> Fault {
    Fault { code: code.into(), message, hint: String::new(), detail: String::new() }
}

export!(Glue);
