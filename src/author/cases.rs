//! The cases of a recipe: at least one, each a call that its own schemas take.
//!
//! Apart from packing, because cases are documentation, tests and later the canary of an update: one that could never
//! run would pass as all three.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    model::{Code, Document, Fault, Manifest, limits, stand_in},
    shelf::durable,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    operation: String,
    input: Value,
}

/// Checks every case below `cases/` of a recipe folder.
///
/// Errors: `invalid_recipe`, naming the case's file.
pub(super) fn check(folder: &Path, manifest: &Manifest) -> Result<(), Fault> {
    let cases = folder.join("cases");
    let none = || {
        Fault::new(Code::InvalidRecipe, format!("`{}` has no case: wanted at least one folder in {}", manifest.name, cases.display()))
            .hint("a case is `cases/<case>/input.json` with `{\"operation\": ..., \"input\": ...}` and `output.json` or `fault.json`")
    };
    let entries = match fs::read_dir(&cases) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(none()),
        Err(error) => return Err(Fault::io(cases.display(), &error)),
    };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir()).and_then(|entry| entry.file_name().into_string().ok()))
        .filter(|name| !name.starts_with('.') && name != "__pycache__")
        .collect();
    names.sort_unstable();
    for name in &names {
        check_case(&cases.join(name), name, manifest)?;
    }
    match names.is_empty() {
        true => Err(none()),
        false => Ok(()),
    }
}

fn check_case(folder: &Path, name: &str, manifest: &Manifest) -> Result<(), Fault> {
    let wrong = |file: &str, why: String| {
        Fault::new(Code::InvalidRecipe, format!("case `{name}` of `{}`: `cases/{name}/{file}` {why}", manifest.name)).with("case", name)
    };
    let read = |file: &str| -> Result<Option<Document>, Fault> {
        let Some(bytes) = durable::read(&folder.join(file), limits::DOCUMENT_BYTES_MAX as u64)? else { return Ok(None) };
        let text = stand_in::text(bytes).map_err(|none| {
            let next = none.next;
            let fault = wrong(file, none.why);
            next.map_or(fault.clone(), |next| fault.hint(next))
        })?;
        Document::parse(text, "it").map(Some).map_err(|fault| wrong(file, format!("is not usable: {}", fault.message)))
    };
    let input = read("input.json")?.ok_or_else(|| wrong("input.json", "is missing".into()))?;
    let input: Input = serde_json::from_value(input.into_value())
        .map_err(|error| wrong("input.json", format!("is not `{{\"operation\": ..., \"input\": ...}}`: {error}")))?;
    let operation = manifest.operation(&input.operation).map_err(|fault| wrong("input.json", fault.message))?;
    let (output, fault) = (read("output.json")?, read("fault.json")?);
    let expects_refusal = match (&output, &fault) {
        (Some(_), Some(_)) => return Err(wrong("fault.json", "is there beside `output.json`: a case ends in one of them".into())),
        (None, None) => return Err(wrong("output.json", "is missing, and so is `fault.json`".into())),
        (Some(_), None) => false,
        (None, Some(fault)) => {
            let code = fault.value().get("code").and_then(Value::as_str).unwrap_or_default();
            let code =
                Code::parse(code).ok_or_else(|| wrong("fault.json", format!("has the code `{code}`, which is no fault of Hob's")))?;
            code == Code::InvalidInput
        }
    };
    let what = format!("`input` in `cases/{name}/input.json` of `{}`", manifest.name);
    match operation.input.check(&Document::from(input.input), &what, Code::InvalidRecipe) {
        Ok(()) if expects_refusal => Err(wrong("fault.json", "expects `invalid_input`, but the schema takes the input".into())),
        Err(_) if expects_refusal => Ok(()),
        other => other,
    }
}
