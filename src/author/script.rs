//! Glue in JavaScript and Python: from `glue.js` or `glue.py` to a component.
//!
//! No compiler runs here. A tool loads the script in its language's engine, itself a component, and saves the
//! resulting memory; the script's top level runs here, once.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::{
    disk::make,
    glue,
    model::{Code, Fault, Home, limits, progress},
    shelf::{
        config::Config,
        environment::componentizer::{Componentizer, Language},
    },
};

/// The world that this Hob offers; a script's folder needs no copy of it.
const WORLD: &str = include_str!("../../wit/glue.wit");

/// The component that the tool makes from a copy of the source folder; its first bytes are those of a
/// component.
///
/// Errors: `build_failed`, `python_missing`, `disk_full`, `io`.
pub async fn component(language: Language, source: &Path, home: &Home, progress: &progress::Shared) -> Result<Vec<u8>, Fault> {
    if language == Language::JavaScript {
        exports_run(source)?;
    }
    let tools = Config::read(home)?.tools.with_variables();
    let tool = Componentizer::find(home, &tools, language, progress).await?;
    let work =
        make::temporary_folder(&std::env::temp_dir(), "hob-", 12).map_err(|error| Fault::io("making a folder to build in", &error))?;
    // A copy, because Python leaves files behind when it loads a module, and the author's folder should not
    // get them.
    let mut left = limits::BUNDLE_FILES_MAX;
    copy(source, &work.path().join("glue"), &mut left)?;
    let world = work.path().join("wit");
    fs::create_dir(&world)
        .and_then(|()| fs::write(world.join("glue.wit"), WORLD))
        .map_err(|error| Fault::io("writing the world", &error))?;
    let what = format!("the glue in {} could not be built", source.display());
    let arguments: &[&str] = match language {
        // The non-async engine: this major version of the world does not use `async` of the component model.
        Language::JavaScript => &["--sync", "-w", "wit", "-n", "glue", "--module-root", "glue", "-j", "glue/glue.js", "-o", "glue.wasm"],
        Language::Python => &["-q", "-d", "wit", "-w", "glue", "componentize", "-p", "glue", "glue", "-o", "glue.wasm"],
    };
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    tool.run(&arguments, work.path(), &what).await?;
    let path = work.path().join("glue.wasm");
    let mut bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Fault::new(Code::BuildFailed, format!("{what}: the tool wrote no component")));
        }
        read => read.map_err(|error| Fault::io(format!("reading {}", path.display()), &error))?,
    };
    if language == Language::Python {
        // CPython's C library imports sockets in every component, whatever the script does.
        bytes.extend_from_slice(glue::SOCKETS_UNUSED);
    }
    Ok(bytes)
}

/// Checks that `glue.js` exports `run`: the engine loads a script without it, and every call would crash.
///
/// Errors: `build_failed`, with the exported names; `io`.
fn exports_run(source: &Path) -> Result<(), Fault> {
    let path = source.join("glue.js");
    let text = fs::read_to_string(&path).map_err(|error| Fault::io(format!("reading {}", path.display()), &error))?;
    let Some(names) = exports(&text).filter(|names| !names.contains(&"run")) else { return Ok(()) };
    let found = match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.iter().map(|name| format!("`{name:.100}`")).collect::<Vec<_>>().join(", "),
    };
    Err(Fault::new(Code::BuildFailed, format!("{} exports no function `run`: found {found}", path.display()))
        .hint("write `export function run(request) { ... }`: that is what a call runs"))
}

/// The names that a script exports, according to its text; `None` if it re-exports those of another file.
fn exports(text: &str) -> Option<Vec<&str>> {
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
    let first = |text: &'_ str| text.find(|letter| !is_letter(letter)).unwrap_or(text.len());
    let mut names = Vec::new();
    for (at, word) in text.match_indices("export") {
        let rest = &text[at + word.len()..];
        if text[..at].ends_with(is_letter) || rest.starts_with(is_letter) {
            continue;
        }
        let mut rest = rest.trim_start();
        if rest.starts_with('*') {
            return None;
        }
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or(list);
            names.extend(list.split(',').filter_map(|item| item.split_whitespace().last()));
            continue;
        }
        for word in ["async", "function", "const", "let", "var", "class"] {
            rest = rest.strip_prefix(word).filter(|rest| !rest.starts_with(is_letter)).unwrap_or(rest).trim_start();
        }
        rest = rest.trim_start_matches('*').trim_start();
        names.extend(Some(&rest[..first(rest)]).filter(|name| !name.is_empty()));
    }
    Some(names)
}

/// Copies files and folders, and no links, which could lead to files that the author did not mean.
fn copy(from: &Path, to: &Path, left: &mut usize) -> Result<(), Fault> {
    let failed = |path: &Path, error: std::io::Error| Fault::io(format!("copying {}", path.display()), &error);
    fs::create_dir(to).map_err(|error| failed(to, error))?;
    for entry in fs::read_dir(from).map_err(|error| failed(from, error))? {
        let entry = entry.map_err(|error| failed(from, error))?;
        let (path, target): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(|error| failed(&path, error))?;
        if entry.file_name() == "__pycache__" || entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if *left == 0 {
            return Err(Fault::new(
                Code::TooLarge,
                format!("{} has more than {} files; glue is small", from.display(), limits::BUNDLE_FILES_MAX),
            )
            .hint("bundle what the script imports into one file, or leave out what it does not"));
        }
        *left -= 1;
        if kind.is_dir() {
            copy(&path, &target, left)?;
        } else if kind.is_file() {
            fs::copy(&path, &target).map_err(|error| failed(&path, error))?;
        } else {
            return Err(Fault::new(Code::BuildFailed, format!("{} is neither a file nor a folder", path.display()))
                .hint("put the file itself there: glue is built from a copy of its folder"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_exports_is_read_off_its_text() {
        for (text, names) in [
            ("export function run(request) {}", Some(vec!["run"])),
            ("export async function run(r) {}\nexport const a = 1;", Some(vec!["run", "a"])),
            ("function f() {}\nexport { f as run, g }", Some(vec!["run", "g"])),
            ("export{a as run};", Some(vec!["run"])),
            ("export const run = (request) => 1", Some(vec!["run"])),
            ("export function rnu(request) {}", Some(vec!["rnu"])),
            ("const exported = 1; reexport.run()", Some(vec![])),
            ("export * from './other.js'", None),
            ("export function* run() {}", Some(vec!["run"])),
            ("export", Some(vec![])),
        ] {
            assert_eq!(exports(text), names, "{text}");
        }
    }
}
