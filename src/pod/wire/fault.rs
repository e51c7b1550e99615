//! A fault as a pod sends it, and the parts of it that the host accepts.
//!
//! A pod may not claim everything: it never blames the repository, and of Hob's hints it may use only a few.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::model::{Code, Fault, Hint, limits::FAULT_DETAIL_BYTES_MAX};

/// A fault as the pod words it.
#[derive(Deserialize)]
pub struct FaultWire<'a> {
    code: String,
    message: String,
    #[serde(default)]
    hint: Option<String>,
    /// The hint in parts; each door words the parts that are actions. Pods of older Hobs send none.
    #[serde(default, borrow)]
    hint_parts: Option<&'a RawValue>,
    #[serde(default, borrow)]
    detail: Option<&'a RawValue>,
}

/// Codes that a pod may send; a pod cannot claim that the repository was tampered with.
const POD_CODES: &[Code] = &[
    Code::InvalidInput,
    Code::InvalidJson,
    Code::InvalidOutput,
    Code::TooLarge,
    Code::OperationNotFound,
    Code::RecipeFailed,
    Code::ImportFailed,
    Code::DependencyMissing,
    Code::ModelMissing,
    Code::OutOfMemory,
    Code::SandboxDenied,
    Code::ProtocolViolation,
    Code::Deadline,
    Code::Cancelled,
];

/// The fault that the host reports for it.
pub fn fault(wire: FaultWire) -> Fault {
    // A parsed value may take a hundred times the memory of its text.
    let detail = match wire.detail.map(RawValue::get) {
        None => Value::Null,
        Some(text) if text.len() > FAULT_DETAIL_BYTES_MAX => serde_json::json!({ "detail_dropped_bytes": text.len() }),
        Some(text) => serde_json::from_str(text).unwrap_or_default(),
    };
    let parts = wire.hint_parts.map(RawValue::get).filter(|text| text.len() <= FAULT_DETAIL_BYTES_MAX);
    let fault = Fault::foreign(&wire.code, wire.message, wire.hint, detail, POD_CODES);
    match parts.and_then(Hint::of_pod) {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}
