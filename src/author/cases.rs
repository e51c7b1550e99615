//! The cases of a recipe: at least one, each a call that its own schemas accept.
//!
//! Cases are documentation, tests, and later the canary of an update; a case that can never run would pass as
//! all three.

use std::{fs, path::Path};

use crate::{
    model::{
        Code, Document, Fault, Manifest, act, blob,
        case::{Case, End},
        hint, limits,
        manifest::{blobs::Described, operation::Part},
    },
    shelf::durable,
};

const SHAPE: &str = "a case is `cases/<case>/input.json` with `{\"operation\": ..., \"input\": ...}` and `output.json` or `fault.json`";

/// All cases below `cases/` of a recipe folder, each checked, ordered by name.
///
/// Errors: `invalid_recipe`, naming the case's file.
pub fn all(folder: &Path, manifest: &Manifest) -> Result<Vec<Case>, Fault> {
    let cases = folder.join("cases");
    let none = || {
        Fault::new(Code::InvalidRecipe, format!("`{}` has no case: wanted at least one folder in {}", manifest.name, cases.display()))
            .hint(SHAPE)
    };
    let linked = |path: &Path| {
        Fault::new(Code::InvalidRecipe, format!("{} is a link, and a bundle has none: wanted a folder", path.display()))
            .hint("put a copy of what it leads to in its place")
    };
    if cases.is_symlink() {
        return Err(linked(&cases));
    }
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
    if let Some(name) = names.iter().find(|name| cases.join(name).is_symlink()) {
        return Err(linked(&cases.join(name)));
    }
    match names.is_empty() {
        true => Err(none()),
        false => names.iter().map(|name| checked(&cases.join(name), name, manifest)).collect(),
    }
}

fn checked(folder: &Path, name: &str, manifest: &Manifest) -> Result<Case, Fault> {
    let wrong = |file: &str, why: String| {
        let text = format!("case `{name}` of `{}`: `cases/{name}/{file}` {why}", manifest.name);
        Fault::new(Code::InvalidRecipe, text).hint(SHAPE).with("case", name)
    };
    let read = Case::read(name, &|file| durable::read(&folder.join(file), limits::DOCUMENT_BYTES_MAX as u64))?;
    let case = read.map_err(|none| {
        let fault = wrong(none.file, none.why);
        none.next.map_or(fault.clone(), |next| fault.hint(next))
    })?;
    let operation = manifest.operation(&case.operation).map_err(|fault| {
        wrong("input.json", format!("calls an operation that is not there: {}", fault.message))
            .hint("correct `operation` in it, or add the operation to recipe.toml")
    })?;
    if let (false, End::Answer { chunks: Some(_), .. }) = (operation.streaming, &case.end) {
        return Err(wrong("chunks.json", format!("is there, and `{}` gives no chunks: it has no `streaming = true`", operation.name))
            .hint(hint!["delete it, or set ", act::streaming(&operation.name)]));
    }
    let mut described = Vec::new();
    for (blob, file) in &case.blobs {
        let found = folder.join(file).symlink_metadata().ok().filter(|found| found.is_file());
        let found = found.ok_or_else(|| {
            wrong("input.json", format!("names `{file}` as the blob `{blob}`, and there is no such file beside it"))
                .hint("put the file there, or correct `blobs` in it")
        })?;
        described.push(Described { name: blob, media_type: blob::media_type_of(Path::new(file)), bytes: found.len() });
    }
    let what = format!("`input` in `cases/{name}/input.json` of `{}`", manifest.name);
    let checked = operation.input.check(&Document::from(case.input.clone()), &what, Code::InvalidRecipe);
    let checked = checked.and_then(|()| Part::Input.blobs(operation).check_described(&described, &what, Code::InvalidRecipe));
    match (&case.end, checked) {
        (End::Fault(code), Ok(())) if *code == Code::InvalidInput.name() => {
            Err(wrong("fault.json", "expects `invalid_input`, but the schema takes the input".into())
                .hint("correct `code` in it, or have the schema in recipe.toml refuse the input"))
        }
        (End::Fault(code), Err(_)) if *code == Code::InvalidInput.name() => Ok(case),
        (_, checked) => checked.map(|()| case).map_err(|fault| match fault.hint {
            Some(_) => fault,
            None => fault.hint("correct `input` or `blobs` in it, or what the operation takes in recipe.toml"),
        }),
    }
}
