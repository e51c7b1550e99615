//! Explains a call's failure when a file of the recipe is missing from where its code looks.
//!
//! - The pod of a recipe folder sees only the files that would be packed. A file that stays behind does not
//!   exist for the pod's code, although its author sees it in the folder.
//! - A relative path is looked up in the pod's scratch folder, which holds no files of the recipe.

use crate::shelf::bundle::places;
use std::path::Path;

use serde_json::Value;

use crate::{
    model::{
        Blame, Fault, Manifest, Verified,
        limits::{BEHIND_PLACES_MAX, BEHIND_TEXT_BYTES_MAX},
        path_pattern::is_inner_path,
    },
    shelf::bundle::contents::{self, Left, Rules},
};

/// How programs and libraries report that a file is missing.
const MISSING: &[&str] =
    &["No such file", "no such file", "FileNotFound", "ENOENT", "does not exist", "not found", "cannot open", "can't open", "there is no "];

/// How Python reports a missing module or name; the name follows these words.
const NO_MODULE: &[&str] = &["No module named ", "cannot import name "];

/// Returns the same fault with texts that name the recipe folder. A pod without a root of its own runs from a
/// copy of the folder, and its texts name that copy.
pub fn at_home(recipe: &Verified, mut fault: Fault) -> Fault {
    fn replace(value: &mut Value, from: &str, to: &str) {
        match value {
            Value::String(text) if text.contains(from) => *text = text.replace(from, to),
            Value::Array(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
            Value::Object(entries) => entries.values_mut().for_each(|entry| replace(entry, from, to)),
            _ => {}
        }
    }
    if let (Some(from), Some(to)) = (recipe.seen().and_then(Path::to_str), recipe.folder().to_str()) {
        fault.message = fault.message.replace(from, to);
        fault.hint = fault.hint.map(|hint| hint.map(|text| text.replace(from, to)));
        replace(&mut fault.detail, from, to);
    }
    fault
}

/// Whether a fault may be about a missing file, so that calling [`explained`] is worthwhile.
pub fn is_about_a_file(fault: &Fault) -> bool {
    let is_code = matches!(fault.blame, Blame::Recipe | Blame::Pod);
    is_code && said(fault).any(|text| MISSING.iter().chain(NO_MODULE).any(|words| text.contains(words)))
}

/// Returns the same fault. If the missing file is in the recipe's folder, the hint says where and what to do.
/// Blocking.
pub fn explained(recipe: &Verified, fault: Fault) -> Fault {
    let folder = recipe.folder();
    let mut places = Vec::new();
    for line in said(&fault).flat_map(str::lines) {
        named(line, folder, &mut places);
    }
    places.retain(|place| is_inner_path(&place.path) && folder.join(&place.path).symlink_metadata().is_ok());
    if places.is_empty() {
        return fault;
    }
    if recipe.is_unsigned()
        && let Some((path, hint)) = left_behind(folder, recipe.manifest(), &places)
    {
        return fault.with("left_behind", path).hint(hint);
    }
    match places.iter().find(|place| place.is_relative) {
        Some(place) => {
            let up = if place.path.starts_with("pod/") { "parent" } else { "parents[1]" };
            let inner = place.path.strip_prefix("pod/").unwrap_or(&place.path);
            fault.hint(format!(
                "`{}` is a file of the recipe, and {RELATIVE}: in a module of `pod/` it is `pathlib.Path(__file__).{up} / \"{inner}\"`",
                place.path
            ))
        }
        None => fault,
    }
}

const RELATIVE: &str = "a relative path is looked for in the pod's scratch folder";

/// The last part of each of a fault's texts, where the error stands.
fn said(fault: &Fault) -> impl Iterator<Item = &str> {
    let detail = fault.detail.as_object().into_iter().flat_map(|detail| detail.values().filter_map(Value::as_str));
    [fault.message.as_str()].into_iter().chain(detail).map(ends)
}

fn ends(text: &str) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(BEHIND_TEXT_BYTES_MAX))..]
}

/// A path where the missing file may lie.
#[derive(Debug, PartialEq)]
struct Place {
    /// Relative to the recipe folder.
    path: String,
    is_module: bool,
    is_relative: bool,
}

/// Collects the places that a line mentions.
fn named(line: &str, folder: &Path, places: &mut Vec<Place>) {
    let mut put = |path: String, is_module, is_relative| {
        let place = Place { path, is_module, is_relative };
        if places.len() < BEHIND_PLACES_MAX && !places.contains(&place) {
            places.push(place);
        }
    };
    for start in NO_MODULE {
        let Some((_, rest)) = line.split_once(start) else { continue };
        let mut quoted = rest.split('\'').skip(1).step_by(2);
        let Some(name) = quoted.next() else { continue };
        // `cannot import name 'x' from 'a.b'`
        let module = match rest.contains("' from '").then(|| quoted.next()).flatten() {
            Some(package) => format!("{package}.{name}"),
            None => name.to_owned(),
        };
        places_of_module(&module).for_each(|path| put(path, true, false));
    }
    if !MISSING.iter().any(|words| line.contains(words)) {
        return;
    }
    // Backticks are left out, because Hob names operations in them.
    let quoted = ['\'', '"'].into_iter().flat_map(|sign| line.split(sign).skip(1).step_by(2));
    let words = line.split_whitespace().map(|word| word.trim_matches(|sign: char| "'\"`:;,()[]<>".contains(sign)));
    let words = words.filter(|word| word.contains(['/', '.']));
    for word in quoted.chain(words) {
        match Path::new(word).strip_prefix(folder).map(Path::to_str) {
            Ok(Some(inner)) if !inner.is_empty() => put(inner.to_owned(), false, false),
            // The path was not found from the working folder; perhaps it is meant from the recipe folder.
            Err(_) if !word.starts_with('/') => {
                let word = word.trim_start_matches("./");
                put(word.to_owned(), false, true);
                put(format!("pod/{word}"), false, true);
            }
            _ => {}
        }
    }
}

/// The paths where Python looks for a module, then those of the packages that contain it.
fn places_of_module(module: &str) -> impl Iterator<Item = String> {
    let parts: Vec<String> = module.split('.').map(str::to_owned).collect();
    let is_one = !parts.iter().any(|part| part.is_empty() || part.contains('/'));
    let counts = if is_one { 1..parts.len() + 1 } else { 0..0 };
    counts.rev().flat_map(move |count| {
        let path = parts[..count].join("/");
        [format!("pod/{path}.py"), format!("pod/{path}"), format!("{path}.py"), path]
    })
}

/// Why the file at `path`, which a key of the manifest names, is not packed although it exists, and what to
/// do.
pub fn hint_of_file(folder: &Path, manifest: &Manifest, path: &str) -> Option<String> {
    hint_of(folder, manifest, [path.to_owned()].into_iter(), false)
}

/// Why a module of the recipe is not packed although it exists, and what to do.
pub fn hint_of_module(folder: &Path, manifest: &Manifest, module: &str) -> Option<String> {
    hint_of(folder, manifest, places_of_module(module), true)
}

fn hint_of(folder: &Path, manifest: &Manifest, paths: impl Iterator<Item = String>, is_module: bool) -> Option<String> {
    let places: Vec<_> = paths
        .filter(|path| is_inner_path(path) && folder.join(path).symlink_metadata().is_ok())
        .map(|path| Place { path, is_module, is_relative: false })
        .collect();
    left_behind(folder, manifest, &places).map(|(_, hint)| hint)
}

/// The first of these places that is not packed, and what to do.
fn left_behind(folder: &Path, manifest: &Manifest, places: &[Place]) -> Option<(String, String)> {
    if places.is_empty() {
        return None;
    }
    let rules = Rules::of(manifest);
    let contents = contents::of(folder, &rules).ok()?;
    let is_taken = |path: &str| {
        let below = format!("{path}/");
        contents.taken.contains_key(path) || contents.taken.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
    };
    let Place { path, is_module, is_relative } = places.iter().find(|place| !is_taken(&place.path))?;
    let is_folder = folder.join(path).is_dir();
    let shown = if is_folder { format!("{path}/") } else { path.clone() };
    let suspect =
        contents.suspect.iter().find(|(suspect, _)| **suspect == shown || (suspect.ends_with('/') && shown.starts_with(*suspect)));
    let pattern = if is_folder { format!("{path}/**") } else { path.clone() };
    // The manifest has a `hob` already, so that key is changed: a second one is refused.
    let newer = if rules.wider { "" } else { ", where `hob` becomes `\">=0.1.1, <0.2\"`," };
    let by_name = format!("`files = [\"{pattern}\"]` in recipe.toml{newer} takes it along");
    let (why, way) = match (suspect, rules.left_of(path)) {
        (Some((_, what)), _) => ((*what).to_owned(), by_name),
        _ if places::is_never(path) && path.starts_with("models/") => {
            ("what is in `models/` is there by its name".to_owned(), "name it as a `[[model]]`".to_owned())
        }
        // Python looks only in `pod/`, whatever else is packed.
        _ if *is_module && !path.starts_with("pod/") => ("Python finds what is in `pod/`".to_owned(), "move it there".to_owned()),
        (None, Some(left @ (Left::Elsewhere | Left::Stray))) => (left.why().to_owned(), format!("{by_name}, or move it into `pod/`")),
        (None, Some(left)) => (left.why().to_owned(), by_name),
        (None, None) if is_folder => return None,
        (None, None) => ("`.hobignore` names it".to_owned(), "take it out there".to_owned()),
    };
    let and = if *is_relative { format!("; and {RELATIVE}: name it from `__file__`") } else { String::new() };
    Some((path.clone(), format!("`{shown}` lies in the folder and does not go along, so no pod sees it ({why}): {way}{and}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_says_is_missing_is_found_in_it_and_bounded() {
        let found = |line: &str| {
            let mut places = Vec::new();
            named(line, Path::new("/r"), &mut places);
            places.into_iter().map(|place| place.path).collect::<Vec<_>>()
        };
        assert_eq!(found("FileNotFoundError: [Errno 2] No such file or directory: '/r/data/my words.txt'")[0], "data/my words.txt");
        assert!(found("cat: /r/data/x: No such file or directory").contains(&"data/x".to_owned()));
        assert!(found("could not load \"net.bin\": not found").contains(&"pod/net.bin".to_owned()));
        assert_eq!(found("ModuleNotFoundError: No module named 'a.b'")[..4], ["pod/a/b.py", "pod/a/b", "a/b.py", "a/b"]);
        assert_eq!(found("ImportError: cannot import name 'c' from 'a' (/r/pod/a/__init__.py)")[0], "pod/a/c.py");
        for line in ["ValueError: '/r/data/x'", "No module named '../x'", "No module named", "", "not found: '/elsewhere/x'"] {
            assert!(!found(line).iter().any(|path| path.contains('x')), "{line}");
        }
        let many = (0..10_000).map(|at| format!("'f{at}' ")).collect::<String>() + "not found";
        assert_eq!(found(&many).len(), BEHIND_PLACES_MAX);
        assert_eq!(ends(&"ä".repeat(BEHIND_TEXT_BYTES_MAX)).len(), BEHIND_TEXT_BYTES_MAX);
    }
}
