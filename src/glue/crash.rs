//! Turns the failed end of a run into a fault that says which party is to blame.
//!
//! A guest's claims are not trusted: it may use only the codes in `GUEST_CODES`, none of which blames Hob or
//! a repository.

use serde_json::Value;
use wasmtime::{PoolConcurrencyLimitError, Trap, component::ResourceTableError};
use wasmtime_wasi::I32Exit;

use crate::{
    glue::{caps::limit, run::Run, world::hob::glue::faults},
    model::{Code, Fault, RecipeName, fault::bounded, limits},
};

/// Codes of Hob's table that keep their meaning when a guest uses them.
const GUEST_CODES: &[Code] = &[
    Code::InvalidInput,
    Code::TooLarge,
    Code::RecipeFailed,
    Code::DependencyMissing,
    Code::ModelMissing,
    Code::OutOfMemory,
    Code::Cancelled,
    Code::Deadline,
];

/// wasmtime's texts for three failures that have no type.
const FUEL_WORDS: &str = "fuel allocated for hostcalls has been exhausted";
const COUNT_WORDS: &str = "resource limit exceeded: ";
const ADDRESS_WORDS: &str = "memory fault at wasm address 0x";

/// An address this close to 2^32 is a stack pointer that ran below zero, not a stray one.
const STACK_UNDERFLOW_BYTES: u64 = 16 << 20;

/// The fault of a run whose guest returned a fault.
pub fn returned(run: &mut Run, fault: faults::Fault) -> Fault {
    if let Some(original) = run.given(&fault.code, &fault.message) {
        return original;
    }
    said(&run.manifest.name, fault)
}

/// A fault in the words of the guest of the recipe `name`, bounded. A code that is not in `GUEST_CODES`
/// becomes `recipe_failed`.
pub fn said(name: &RecipeName, fault: faults::Fault) -> Fault {
    let faults::Fault { code: word, mut message, mut hint, detail } = fault;
    message.truncate(message.floor_char_boundary(limits::FAULT_MESSAGE_BYTES_MAX));
    hint.truncate(hint.floor_char_boundary(limits::FAULT_MESSAGE_BYTES_MAX));
    let known = Code::parse(&word).filter(|code| GUEST_CODES.contains(code));
    let is_word =
        (1..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let word = if is_word { word } else { "unnamed".to_owned() };
    if message.is_empty() {
        message = format!("the glue of `{name}` failed with `{word}` and no message");
    }
    let mut result = Fault::new(known.unwrap_or(Code::RecipeFailed), message);
    if !hint.is_empty() {
        result = result.hint(hint);
    }
    result.detail = match detail.len() {
        0 => Value::Null,
        size if size > limits::FAULT_DETAIL_BYTES_MAX => serde_json::json!({ "detail_dropped_bytes": size }),
        _ => match serde_json::from_str::<Value>(&detail) {
            Ok(Value::Object(detail)) => bounded(Value::Object(detail)),
            Ok(other) => bounded(serde_json::json!({ "detail": other })),
            Err(_) => bounded(serde_json::json!({ "detail_text": detail })),
        },
    };
    match known {
        Some(_) => result,
        None => result.with("code", word),
    }
}

/// The fault of a run that ended in an error of wasmtime: a trap, a cap, or a fault of an import on its way
/// out.
pub fn trapped(run: &Run, error: wasmtime::Error) -> Fault {
    let error = match error.downcast::<Fault>() {
        Ok(fault) => return with_log(run, fault),
        Err(error) => error,
    };
    let name = &run.manifest.name;
    let causes: Vec<String> = error.chain().map(|cause| cause.to_string()).collect();
    let said = |words: &str| causes.iter().any(|cause| cause.contains(words));
    if error.is::<PoolConcurrencyLimitError>() {
        return Fault::new(Code::Overloaded, format!("no room for one more glue instance (for `{name}`): {error}"));
    }
    if said(FUEL_WORDS) {
        return with_log(
            run,
            limit(&run.manifest, "bytes per host call", None, limits::GLUE_HOSTCALL_BYTES_MAX, "bytes out of the guest at once"),
        );
    }
    if said(COUNT_WORDS) {
        let fault = limit(&run.manifest, "core instances", None, limits::GLUE_CORE_INSTANCES_MAX, "in one component");
        return with_log(run, fault.with("causes", causes));
    }
    // WASI's handles are in the same table; its own functions do not say whose table is full.
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return with_log(run, limit(&run.manifest, "handles", None, limits::GLUE_HANDLES_MAX, "held at once"));
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        let fault = Fault::new(Code::GlueCrashed, format!("the glue of `{name}` ended itself with exit status {status}"))
            .hint("glue answers by returning from `run`: its author takes the exit out; what it printed is told with the fault");
        return with_log(run, fault);
    }
    let overflow = error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) || causes.iter().any(|cause| is_underflow(cause));
    let what = match (overflow, error.downcast_ref::<Trap>()) {
        (true, _) => format!(
            "ran out of stack (recursion too deep, or large values on the stack; Hob gives {} KiB)",
            limits::GLUE_STACK_BYTES_MAX >> 10
        ),
        (false, Some(trap)) => format!("trapped: {trap}"),
        // The first cause of the chain says where it happened, the last says what.
        (false, None) => format!("failed: {}", error.root_cause()),
    };
    let fault = Fault::new(Code::GlueCrashed, format!("the glue of `{name}` {what}"))
        .hint("the recipe's author corrects its glue; what it printed last is told with the fault")
        .with("causes", causes);
    with_log(run, fault)
}

fn with_log(run: &Run, fault: Fault) -> Fault {
    match run.log_tail.is_empty() {
        true => fault,
        false => fault.with("log", run.log_tail.iter().cloned().collect::<Vec<_>>()),
    }
}

/// Whether wasmtime's text names an address just below 2^32.
fn is_underflow(cause: &str) -> bool {
    let Some((_, rest)) = cause.split_once(ADDRESS_WORDS) else { return false };
    let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    // A negative 32-bit pointer plus an offset may also be just past 2^32.
    u64::from_str_radix(&digits, 16).is_ok_and(|address| (1u64 << 32).abs_diff(address) <= STACK_UNDERFLOW_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_near_the_end_of_memory_is_a_stack_that_ran_out() {
        assert!(is_underflow("memory fault at wasm address 0xfffffff0 in linear memory of size 0x20000"));
        assert!(is_underflow("memory fault at wasm address 0x100000010 in linear memory of size 0x20000"));
        assert!(!is_underflow("memory fault at wasm address 0x20000 in linear memory of size 0x20000"));
        assert!(!is_underflow("wasm trap: out of bounds memory access"));
    }
}
