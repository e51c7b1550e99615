//! The paths that a bundle may hold.

use crate::model::{distinct::Clash, limits::BUNDLE_PATH_BYTES_FIRST, path_pattern::is_inner_path};

/// The paths that a bundle may hold, for people.
pub(super) const PLACES: &str = "a bundle holds `recipe.toml`, `glue.wasm`, `README.md`, `LICENSE*`, `pod/`, `cases/`, and what `files` names; no `models/`, no `__pycache__`";

/// Whether a file at this path may be in the bundle of a recipe whose manifest names a Hob that takes it.
pub(super) fn is_bundle_path(path: &str) -> bool {
    is_inner_path(path) && !is_never(path)
}

/// Whether this path is never in a bundle, even if the manifest names it.
pub(in crate::shelf) fn is_never(path: &str) -> bool {
    matches!(path.split('/').next(), Some("models" | ".git")) || path.split('/').any(|part| part == "__pycache__")
}

/// Whether Hob 0.1.0 accepts a file at this path in a bundle.
pub fn is_first_place(path: &str) -> bool {
    let mut parts = path.split('/');
    let placed = match (parts.next(), parts.next()) {
        (Some("pod" | "cases"), Some(_)) => true,
        (Some(file), None) => matches!(file, "recipe.toml" | "glue.wasm" | "README.md") || file.starts_with("LICENSE"),
        _ => false,
    };
    placed
        && path.len() <= BUNDLE_PATH_BYTES_FIRST
        && is_inner_path(path)
        && !path.split('/').any(|part| part.starts_with('.') || part == "__pycache__")
}

/// Whether a Hob that takes the wider places packs this file without the manifest naming it.
pub fn is_wider_place(path: &str) -> bool {
    match path.split_once('/') {
        Some((folder, _)) => matches!(folder, "pod" | "cases" | "LICENSES"),
        None => {
            path == "CHANGELOG.md" || ["LICENSE", "NOTICE", "COPYING"].iter().any(|start| path.starts_with(start)) || is_first_place(path)
        }
    }
}

/// Why `path` cannot lie beside the earlier files.
pub(in crate::shelf) fn folded(path: &str, clash: &Clash) -> String {
    match clash {
        Clash::Same => format!("`{path}` is there twice"),
        Clash::Folded(one, before) => {
            let (one, before) = (one.escape_default(), before.escape_default());
            format!("`{one}` and `{before}` are one name to file systems that do not tell cases, or forms of a letter, apart")
        }
        Clash::FileAndFolder(path) => format!("`{path}` is both a file and a folder"),
    }
}
