//! Circles of files: finds the files of the crate that use each other, through re-exports to the defining
//! file.
//!
//! An edge is a path that one file writes, in a `use` or in its code, to an item that another file defines; a
//! re-export is no edge. Code that is compiled only for tests does not count. A child and its own `mod.rs`
//! may use each other if that `mod.rs` only declares modules, documents, or holds the room's one state struct
//! with its methods.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree};

use super::Source;

/// A path of names, without `crate`.
type Path = Vec<String>;

/// One source file, by its module.
struct File {
    path: String,
    /// Whether it is a frame: its children may use it, and it may use them.
    is_frame: bool,
    /// The meaning of each name that a `use` imports, and whether it only re-exports; a glob is `*`.
    names: Vec<(String, Path, bool)>,
    /// The paths in its code, as written.
    paths: Vec<Path>,
}

/// The files that use each other, one fault for each circle; empty if there is no circle.
pub fn circles(sources: &[Source]) -> Vec<String> {
    let files = read(sources);
    let edges = edges(&files);
    let reach: BTreeMap<&Path, BTreeSet<&Path>> = files.keys().map(|file| (file, reached(file, &edges))).collect();
    let mut told = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in files.keys().filter(|file| reach[file].contains(file)) {
        let circle: BTreeSet<&Path> = files.keys().filter(|other| reach[file].contains(other) && reach[other].contains(file)).collect();
        if told.insert(circle.clone()) {
            let within = circle.iter().flat_map(|from| edges[*from].iter().map(move |edge| (*from, edge)));
            let lines = within.filter(|(_, (to, _))| circle.contains(to));
            let lines: Vec<_> =
                lines.map(|(from, (to, items))| format!("  {} uses {items:?} of {}", files[from].path, files[to].path)).collect();
            wrong.push(format!("a circle of {} files:\n{}", circle.len(), lines.join("\n")));
        }
    }
    wrong
}

fn reached<'a>(from: &'a Path, edges: &'a BTreeMap<Path, BTreeMap<Path, BTreeSet<String>>>) -> BTreeSet<&'a Path> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        open.extend(edges[file].keys().filter(|to| reached.insert(*to)));
    }
    reached
}

/// For each file: the files that it uses, and the items that it uses of them.
fn edges(files: &BTreeMap<Path, File>) -> BTreeMap<Path, BTreeMap<Path, BTreeSet<String>>> {
    let mut edges = BTreeMap::new();
    for (module, file) in files {
        let to: &mut BTreeMap<Path, BTreeSet<String>> = edges.entry(module.clone()).or_default();
        let used = file.names.iter().filter(|(_, _, is_handed_on)| !is_handed_on).map(|(_, path, _)| path.clone());
        let written = file.paths.iter().filter_map(|path| absolute(path, module, files));
        for path in used.chain(written) {
            let Some((defining, item)) = defining(path, files) else { continue };
            // A module is not an item: the items that are used of it are written in the code.
            if item.is_empty() || defining == *module || is_framed(module, &defining, files) {
                continue;
            }
            to.entry(defining).or_default().insert(item.join("::"));
        }
    }
    edges
}

/// Whether one of the two is the `mod.rs` of the other, and only its frame.
fn is_framed(one: &Path, other: &Path, files: &BTreeMap<Path, File>) -> bool {
    let is_parent = |parent: &Path, child: &Path| child.len() == parent.len() + 1 && child.starts_with(parent);
    is_parent(one, other) && files[one].is_frame || is_parent(other, one) && files[other].is_frame
}

/// The file that defines what this path names, and the rest of the path within it.
fn defining(mut path: Path, files: &BTreeMap<Path, File>) -> Option<(Path, Path)> {
    // Follows re-exports of re-exports, at most as many as rooms can be nested.
    for _ in 0..16 {
        let module = (0..=path.len()).rev().map(|length| &path[..length]).find(|module| files.contains_key(*module))?.to_vec();
        let item = path[module.len()..].to_vec();
        let Some(first) = item.first() else { return Some((module, item)) };
        match files[&module].names.iter().find(|(name, ..)| name == first) {
            Some((_, target, _)) if target[..] != path[..target.len().min(path.len())] => {
                path = [&target[..], &item[1..]].concat();
            }
            _ => return Some((module, item)),
        }
    }
    None
}

/// The path from the crate's root, for a path as written in a module; `None` for a path of another crate, or
/// of no module.
fn absolute(path: &[String], module: &Path, files: &BTreeMap<Path, File>) -> Option<Path> {
    let (first, rest) = path.split_first()?;
    let child = || [&module[..], &path[..1]].concat();
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" if rest.first().is_some_and(|next| next == "super") => absolute(rest, &above(module)?, files),
        "super" => Some([&above(module)?, rest].concat()),
        _ if files.contains_key(&child()) => Some([module, path].concat()),
        _ => {
            let (_, target, _) = files.get(module)?.names.iter().find(|(name, ..)| name == first)?;
            Some([target, rest].concat())
        }
    }
}

fn above(module: &Path) -> Option<Path> {
    Some(module[..module.len().checked_sub(1)?].to_vec())
}

fn read(sources: &[Source]) -> BTreeMap<Path, File> {
    let mut files = BTreeMap::new();
    let mut parsed = BTreeMap::new();
    let mut for_tests = BTreeSet::new();
    for source in sources.iter().filter(|source| source.path != "src/main.rs") {
        let module = module(&source.path);
        let file = syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
        for item in &file.items {
            if let Item::Mod(declared) = item
                && declared.content.is_none()
                && is_for_tests(&declared.attrs)
            {
                for_tests.insert([&module[..], &[declared.ident.to_string()]].concat());
            }
        }
        let empty = File { path: source.path.clone(), is_frame: is_frame(&file.items), names: Vec::new(), paths: Vec::new() };
        files.insert(module.clone(), empty);
        parsed.insert(module, file);
    }
    files.retain(|module, _| !for_tests.iter().any(|tests: &Path| module.starts_with(tests)));
    // Names are read first, because a path may lead through names of other files.
    let mut read = BTreeMap::new();
    for module in files.keys() {
        let (mut names, mut paths) = (Vec::new(), Vec::new());
        take(&parsed[module].items, module, &files, &mut names, &mut paths);
        read.insert(module.clone(), (names, paths));
    }
    for (module, (names, paths)) in read {
        let file = files.get_mut(&module).unwrap();
        (file.names, file.paths) = (names, paths);
    }
    files
}

/// Collects what these items import and write. A module within the file counts as part of the file, under its
/// longer name.
fn take(items: &[Item], module: &Path, files: &BTreeMap<Path, File>, names: &mut Vec<(String, Path, bool)>, paths: &mut Vec<Path>) {
    for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
        match item {
            Item::Use(used) => {
                let is_handed_on = !matches!(used.vis, syn::Visibility::Inherited);
                let known = |(name, path): (String, Path)| Some((name, absolute(&path, module, files)?, is_handed_on));
                names.extend(leaves(&used.tree, &[]).into_iter().filter_map(known));
            }
            Item::Mod(inner) if inner.content.is_some() => {
                let (mut within, mut written) = (Vec::new(), Vec::new());
                let inside = [&module[..], &[inner.ident.to_string()]].concat();
                take(&inner.content.as_ref().unwrap().1, &inside, files, &mut within, &mut written);
                names.extend(within.into_iter().map(|(name, path, is_handed_on)| (format!("{}::{name}", inner.ident), path, is_handed_on)));
                let from_root = |path: Path| Some([vec!["crate".to_owned()], absolute(&path, &inside, files)?].concat());
                paths.extend(written.into_iter().filter_map(from_root));
            }
            item => written(item.to_token_stream(), &[], paths),
        }
    }
}

fn module(path: &str) -> Path {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Whether a `mod.rs` only declares modules, documents, and defines at most one type with its methods.
fn is_frame(items: &[Item]) -> bool {
    let mut state = None;
    items.iter().filter(|item| !is_for_tests(attributes(item))).all(|item| match item {
        Item::Mod(declared) => declared.content.is_none(),
        Item::Use(_) => true,
        Item::Struct(one) => state.replace(one.ident.to_string()).is_none(),
        Item::Impl(methods) => {
            state.as_ref().is_some_and(|state| methods.self_ty.to_token_stream().into_iter().any(|name| name.to_string() == *state))
        }
        _ => false,
    })
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let condition =
        attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).map(|attribute| attribute.meta.to_token_stream());
    condition.map(|tokens| tokens.to_string().replace(' ', "")).any(|text| text == "cfg(test)" || text.starts_with("cfg(all(test"))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        _ => &[],
    }
}

/// The names that a `use` imports, each with its path as written.
fn leaves(tree: &UseTree, before: &[String]) -> Vec<(String, Path)> {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &with(&path.ident)),
        UseTree::Name(name) if name.ident == "self" => before.last().map(|last| (last.clone(), before.to_vec())).into_iter().collect(),
        UseTree::Name(name) => vec![(name.ident.to_string(), with(&name.ident))],
        UseTree::Rename(name) if name.ident == "self" => vec![(name.rename.to_string(), before.to_vec())],
        UseTree::Rename(name) => vec![(name.rename.to_string(), with(&name.ident))],
        UseTree::Glob(_) => vec![("*".to_owned(), [before, &["*".to_owned()]].concat())],
        UseTree::Group(group) => group.items.iter().flat_map(|tree| leaves(tree, before)).collect(),
    }
}

/// The paths of at least two names that these tokens contain, also within macros. `before` is the prefix of a
/// group, as in `use a::{b, c}` within a function.
fn written(tokens: TokenStream, before: &[String], paths: &mut Vec<Path>) {
    let (mut path, mut colons, mut groups) = (Path::new(), 0, Vec::new());
    let mut end = |path: &mut Path| {
        if before.len() + path.len() > 1 && !path.is_empty() {
            paths.push([before, path].concat());
        }
        path.clear();
    };
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Ident(name) => {
                if colons != 2 {
                    end(&mut path);
                }
                path.push(name.to_string());
                colons = 0;
            }
            other => {
                let goes_on = if colons == 2 { [before, &std::mem::take(&mut path)].concat() } else { Vec::new() };
                end(&mut path);
                colons = 0;
                if let TokenTree::Group(group) = other {
                    groups.push((goes_on, group.stream()));
                }
            }
        }
    }
    end(&mut path);
    for (before, group) in groups {
        written(group, &before, paths);
    }
}
