//! The least that glue can do: reads the input, asks the pod the same, hands its answer back. The chunks of a
//! stream it hands on without looking, or reads and writes each.
//!
//! It stands apart from `recipes/echo`, which has no glue: the difference between the two is what glue costs.

use hob::glue::{output, pod};
use serde::{Deserialize, Serialize};

// Brings `Guest`, `Request`, `Response`, `Fault` and the imports under `hob::glue`.
wit_bindgen::generate!({ path: "wit", world: "glue" });

struct Glue;

#[derive(Serialize, Deserialize)]
struct Input {
    text: String,
}

/// What is asked of a stream: the rest is the pod's.
#[derive(Deserialize)]
struct Asked {
    reshape: bool,
}

/// A chunk of the pod's.
#[derive(Deserialize)]
struct Repeated {
    index: u32,
    text: String,
}

/// What becomes of it.
#[derive(Serialize)]
struct Reshaped {
    number: u32,
    said: String,
}

impl Guest for Glue {
    fn run(request: Request) -> Result<Response, Fault> {
        if request.operation != "echo" {
            return stream(request);
        }
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

/// The chunks of the pod's `repeat`, as they are or reshaped.
fn stream(request: Request) -> Result<Response, Fault> {
    let asked: Asked = serde_json::from_str(&request.input).map_err(|error| fault("invalid_input", error.to_string()))?;
    let call = pod::start(&request.operation, &request.input, Vec::new())?;
    if !asked.reshape {
        let answer = output::forward(call)?;
        return Ok(Response { output: answer.data, blobs: answer.blobs });
    }
    while let Some(event) = call.next()? {
        match event.kind.as_str() {
            "chunk" => {
                let chunk: Repeated = serde_json::from_str(&event.data).map_err(|error| fault("invalid_chunk", error.to_string()))?;
                let reshaped = Reshaped { number: chunk.index + 1, said: chunk.text };
                let text = serde_json::to_string(&reshaped).map_err(|error| fault("invalid_chunk", error.to_string()))?;
                output::emit(&text, Vec::new())?;
            }
            "answer" => return Ok(Response { output: event.data, blobs: Vec::new() }),
            _ => {}
        }
    }
    Err(fault("no_answer", "the pod's call ended without an answer".into()))
}

fn fault(code: &str, message: String) -> Fault {
    Fault { code: code.into(), message, hint: String::new(), detail: String::new() }
}

export!(Glue);
