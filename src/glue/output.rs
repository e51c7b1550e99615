//! The output that glue printed, and the bounds of a fault that carries it.
//!
//! It outlives the run's other data: when a deadline drops the wasm store, the last output of the guest can
//! still be read.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde_json::Value;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

use crate::model::{Code, Fault, RecipeName, events, limits};

/// The last part of one output stream; clones share it.
#[derive(Clone, Default)]
pub struct Printed(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    tail: VecDeque<u8>,
    /// Number of bytes before the tail.
    dropped: u64,
}

/// Both output streams of a run.
#[derive(Clone, Default)]
pub struct Said {
    pub stdout: Printed,
    pub stderr: Printed,
}

impl Printed {
    fn append(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The end is kept, not the beginning: a traceback comes last.
        let fits = &bytes[bytes.len().saturating_sub(limits::GLUE_OUTPUT_BYTES_MAX)..];
        let surplus = (kept.tail.len() + fits.len()).saturating_sub(limits::GLUE_OUTPUT_BYTES_MAX);
        kept.tail.drain(..surplus);
        kept.tail.extend(fits);
        kept.dropped += (bytes.len() - fits.len() + surplus) as u64;
    }

    /// The text, and the number of bytes before it.
    pub fn text(&self) -> (String, u64) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (one, two) = kept.tail.as_slices();
        (String::from_utf8_lossy(&[one, two].concat()).into_owned(), kept.dropped)
    }
}

impl Said {
    /// Adds the printed output to a fault's detail.
    pub fn attach(&self, mut fault: Fault) -> Fault {
        for (name, printed) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let (text, dropped) = printed.text();
            if !text.is_empty() {
                fault = fault.with(name, text);
            }
            if dropped > 0 {
                fault = fault.with(&format!("{name}_dropped_bytes"), dropped);
            }
        }
        if fault.code == Code::GlueCrashed
            && let Some(raised) = raised(&self.stderr.text().0)
        {
            fault.message = format!("{raised}, which nothing caught: {}", fault.message);
        }
        fault
    }

    /// Logs the output of a run that succeeded. `told`: the caller, if it wants to see the output.
    pub fn log(&self, recipe: &RecipeName, told: Option<&events::Sender>) {
        for (name, printed) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let (text, dropped) = printed.text();
            if !text.is_empty() {
                tracing::debug!(recipe = %recipe, dropped, "{name} of the glue: {text}");
            }
            if let Some(told) = told {
                let before = (dropped > 0).then(|| format!("[{dropped} bytes of the glue's {name} before these lines are not kept]"));
                let mut left = 0;
                for line in before.into_iter().chain(text.lines().map(str::to_owned)) {
                    left += u64::from(!told.printed(line));
                }
                if left > 0 {
                    told.printed(format!("[{left} lines of the glue are left out]"));
                }
            }
        }
    }
}

/// What a script engine prints about an uncaught exception: the exception, and in JavaScript the place.
fn raised(stderr: &str) -> Option<String> {
    let shown = |text: &str| {
        text.chars().take(limits::SHOWN_TEXT_CHARS_MAX).map(|letter| if letter.is_control() { ' ' } else { letter }).collect::<String>()
    };
    // How Rust prints QuickJS's exception.
    if let Some((_, rest)) = stderr.rsplit_once("Exception { message: Some(\"") {
        let (message, rest) = rest.split_once("\"), stack: ")?;
        let place = rest.strip_prefix("Some(\"").and_then(|stack| stack.split("\\n").next()).unwrap_or_default();
        let place = if place.is_empty() { String::new() } else { format!(" {}", shown(place.trim())) };
        return Some(format!("the script raised `{}`{place}", shown(message)));
    }
    let (_, traceback) = stderr.rsplit_once("Traceback (most recent call last):")?;
    let exception = traceback.lines().skip(1).find(|line| !line.is_empty() && !line.starts_with(' '))?;
    Some(format!("the script raised `{}`", shown(exception)))
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 uses this, and it is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Printed {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn write_zeroes(&mut self, count: usize) -> StreamResult<()> {
        // A large count costs the guest nothing, but the zeroes would cost the host.
        match count <= limits::GLUE_OUTPUT_BYTES_MAX {
            true => self.write(vec![0; count].into()),
            false => Err(StreamError::trap("more zeroes written at once than the stream has room for")),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(limits::GLUE_OUTPUT_BYTES_MAX)
    }
}

/// Bounds everything in a fault that a guest may have chosen: names of its functions, log lines, output.
pub fn bounded(mut fault: Fault) -> Fault {
    fault.message = shortened(fault.message, limits::FAULT_MESSAGE_BYTES_MAX);
    let mut longest = limits::GLUE_OUTPUT_BYTES_MAX;
    loop {
        let size = fault.detail.to_string().len();
        if size <= limits::GLUE_FAULT_DETAIL_BYTES_MAX {
            return fault;
        }
        longest /= 2;
        match longest {
            0 => fault.detail = serde_json::json!({ "detail_dropped_bytes": size }),
            _ => shorten(&mut fault.detail, longest),
        }
    }
}

fn shorten(value: &mut Value, longest: usize) {
    match value {
        Value::String(text) => *text = shortened(std::mem::take(text), longest),
        Value::Array(items) => items.iter_mut().for_each(|item| shorten(item, longest)),
        Value::Object(entries) => entries.values_mut().for_each(|entry| shorten(entry, longest)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Cuts a text so that it fits a fault's message, and a tool's kept output if each byte is escaped to six.
pub fn cut(text: String) -> String {
    shortened(text, limits::FAULT_MESSAGE_BYTES_MAX.min(limits::TOOL_OUTPUT_BYTES_MAX / 8))
}

/// The beginning and the end of a too long text: one names the thing, the other says what happened to it.
fn shortened(text: String, longest: usize) -> String {
    const GAP: &str = " ... ";
    if text.len() <= longest {
        return text;
    }
    let half = longest.saturating_sub(GAP.len()) / 2;
    let (begin, end) = (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
    format!("{}{GAP}{}", &text[..begin], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_that_nothing_caught_is_told() {
        let quickjs = "thread panicked at crates/runtime/src/interpreter.rs:51:31:\nFailed to call 'run': Value(Exception(\nException { message: Some(\"wrds is not defined\"), stack: Some(\"    at run (/glue.js:7:8)\\n    at b\") })\n)\n";
        assert_eq!(raised(quickjs).unwrap(), "the script raised `wrds is not defined` at run (/glue.js:7:8)");
        let python = "Traceback (most recent call last):\n  File \"/glue.py\", line 3, in run\n    wrds\nNameError: name 'wrds' is not defined\nthread panicked\n";
        assert_eq!(raised(python).unwrap(), "the script raised `NameError: name 'wrds' is not defined`");
        for other in ["", "thread panicked", "Exception { message: Some(\"", "Traceback (most recent call last):"] {
            assert_eq!(raised(other), None, "{other}");
        }
    }

    #[test]
    fn the_end_of_what_was_printed_is_kept_and_the_rest_counted() {
        let printed = Printed::default();
        printed.append(b"first");
        assert_eq!(printed.text(), ("first".into(), 0));
        printed.append(&vec![b'x'; limits::GLUE_OUTPUT_BYTES_MAX - 3]);
        let (text, dropped) = printed.text();
        assert_eq!((text.len(), dropped, &text[..4]), (limits::GLUE_OUTPUT_BYTES_MAX, 2, "rstx"));
        printed.append(&vec![b'y'; limits::GLUE_OUTPUT_BYTES_MAX * 3]);
        let (text, dropped) = printed.text();
        assert!(text.bytes().all(|byte| byte == b'y'));
        assert_eq!((text.len(), dropped as usize), (limits::GLUE_OUTPUT_BYTES_MAX, 2 + 3 * limits::GLUE_OUTPUT_BYTES_MAX));
    }

    #[test]
    fn zeroes_cost_no_more_than_there_is_room_for() {
        let mut printed = Printed::default();
        assert!(matches!(printed.write_zeroes(usize::MAX), Err(StreamError::Trap(_))));
        printed.write_zeroes(10).unwrap();
        assert_eq!(printed.text().0.len(), 10);
    }

    #[test]
    fn a_fault_is_bounded_whatever_a_guest_put_into_it() {
        let long = "ä\u{1}".repeat(1 << 20);
        let fault =
            Fault::new(Code::GlueCrashed, long.clone()).hint(long.clone()).with("stderr", long.clone()).with("causes", vec![long.clone()]);
        let fault = bounded(fault);
        assert!(serde_json::to_string(&fault).unwrap().len() <= limits::GLUE_FAULT_DETAIL_BYTES_MAX + 20 * limits::FAULT_MESSAGE_BYTES_MAX);
        assert!(fault.detail["stderr"].as_str().unwrap().starts_with('ä') && fault.detail["stderr"].as_str().unwrap().ends_with('\u{1}'));

        let many = Fault::new(Code::GlueCrashed, "x").with("many", vec![0; limits::GLUE_FAULT_DETAIL_BYTES_MAX]);
        assert!(bounded(many).detail["many"]["detail_dropped_bytes"].as_u64().unwrap() > limits::GLUE_FAULT_DETAIL_BYTES_MAX as u64);

        let small = Fault::new(Code::GlueCrashed, "x").with("text", "y");
        assert_eq!(bounded(small.clone()), small);
    }
}
