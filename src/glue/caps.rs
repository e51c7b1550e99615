//! The bounds on what a guest may be given and may make.

use crate::model::{Code, Fault, Manifest};
use serde_json::Value;

/// The fault of a run that exceeded a cap.
pub fn limit(
    manifest: &Manifest,
    cap: &str,
    found: impl Into<Option<usize>>,
    allowed: impl std::fmt::Display + Into<Value> + Copy,
    unit: &str,
) -> Fault {
    let found: Option<usize> = found.into();
    let wanted = found.map(|found| format!(" ({found} wanted)")).unwrap_or_default();
    Fault::new(Code::GlueLimit, format!("the glue of `{}` went over its limit of {cap}: {allowed} {unit}{wanted}", manifest.name))
        .hint("nothing else is affected; the recipe's author has to make its glue need less")
        .with("cap", cap)
        .with("allowed", allowed)
        .with("found", found.map(Value::from).unwrap_or_default())
}
