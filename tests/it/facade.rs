//! Compares the crate's public names with a list: `tests/facade.txt`. With `HOB_WRITE_FACADE=1` the test
//! rewrites the list.
//!
//! The names come from the sources: all that `src/lib.rs` exports and does not hide, each with its fields,
//! variants and methods.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use quote::ToTokens;
use syn::{Attribute, Field, Fields, File, ImplItem, Item, UseTree, Visibility};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads a source; each is read once.
fn read(path: &Path) -> Rc<File> {
    thread_local!(static READ: RefCell<BTreeMap<PathBuf, Rc<File>>> = RefCell::default());
    let parse = || syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    READ.with_borrow_mut(|read| read.entry(path.to_owned()).or_insert_with(|| Rc::new(parse())).clone())
}

fn has(attributes: &[Attribute], text: &str) -> bool {
    attributes.iter().any(|attribute| attribute.to_token_stream().to_string().replace(' ', "").contains(text))
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    has(attributes, "doc(hidden)") || has(attributes, "cfg(test)")
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Formats tokens as a person writes them.
fn text(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (from, to) in [
        (" :: ", "::"),
        (" : ", ": "),
        ("& ", "&"),
        (" < ", "<"),
        (" >", ">"),
        ("< ", "<"),
        (" ,", ","),
        (" ;", ";"),
        ("( ", "("),
        (" )", ")"),
        (" (", "("),
        ("[ ", "["),
        (" ]", "]"),
        ("-> ", " -> "),
        ("  ", " "),
        ("' ", "'"),
        (",)", ")"),
        (", )", ")"),
        ("->(", "-> ("),
        ("::<", "<"),
    ] {
        text = text.replace(from, to);
    }
    text.replace("-  >", "->").replace("->", " -> ").replace("  ", " ").trim().to_owned()
}

/// The exports of a `use`: each path with its exported name.
fn given(tree: &UseTree, before: &[String], out: &mut Vec<(Vec<String>, String)>) {
    let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
    match tree {
        UseTree::Path(path) => given(&path.tree, &with(&path.ident), out),
        UseTree::Group(group) => group.items.iter().for_each(|tree| given(tree, before, out)),
        UseTree::Name(name) => out.push((with(&name.ident), name.ident.to_string())),
        UseTree::Rename(rename) => out.push((with(&rename.ident), rename.rename.to_string())),
        UseTree::Glob(_) => panic!("a glob gives out what nobody listed"),
    }
}

/// The file of a module of this crate.
fn file_of(module: &[String]) -> Option<PathBuf> {
    let base = module.iter().fold(root().join("src"), |path, part| path.join(part));
    [base.with_extension("rs"), base.join("mod.rs")].into_iter().find(|path| path.is_file())
}

/// The module that defines the target of a path, and the target's name there.
fn defined(path: &[String]) -> Option<(Vec<String>, String)> {
    let path: Vec<String> = path.iter().filter(|part| !["crate", "self"].contains(&part.as_str())).cloned().collect();
    let (name, module) = path.split_last()?;
    let file = read(&file_of(module)?);
    for item in &file.items {
        match item {
            Item::Struct(item) if item.ident == *name => return Some((module.to_vec(), name.clone())),
            Item::Enum(item) if item.ident == *name => return Some((module.to_vec(), name.clone())),
            Item::Trait(item) if item.ident == *name => return Some((module.to_vec(), name.clone())),
            Item::Fn(item) if item.sig.ident == *name => return Some((module.to_vec(), name.clone())),
            Item::Type(item) if item.ident == *name => return Some((module.to_vec(), name.clone())),
            Item::Use(item) if is_public(&item.vis) => {
                let mut all = Vec::new();
                given(&item.tree, &[], &mut all);
                if let Some((inner, _)) = all.into_iter().find(|(_, given)| given == name) {
                    let inner: Vec<String> = inner.into_iter().filter(|part| part != "self").collect();
                    if inner.first().is_some_and(|part| part == "super") {
                        let above = module[..module.len() - 1].iter().cloned();
                        return defined(&above.chain(inner.into_iter().skip(1)).collect::<Vec<_>>());
                    }
                    let absolute = inner.first().is_some_and(|part| part == "crate");
                    let whole = if absolute { inner } else { module.iter().cloned().chain(inner).collect() };
                    return defined(&whole);
                }
            }
            _ => {}
        }
    }
    // The item is made by a macro of that file.
    let whole = fs::read_to_string(file_of(module)?).ok()?;
    whole.contains(&format!("enum {name}")).then(|| (module.to_vec(), name.clone()))
}

/// All files of a layer, for the methods of its types.
fn files_of(layer: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join("src").join(layer)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

fn field(field: &Field) -> Option<String> {
    (is_public(&field.vis) && !is_hidden(&field.attrs)).then(|| match &field.ident {
        Some(name) => format!("{name}: {}", text(&field.ty)),
        None => text(&field.ty),
    })
}

fn fields(fields: &Fields) -> Vec<String> {
    fields.iter().filter_map(field).map(|field| format!("  .{field}")).collect()
}

fn defines(file: &File, name: &str) -> bool {
    file.items.iter().any(|item| match item {
        Item::Struct(item) => item.ident == *name,
        Item::Enum(item) => item.ident == *name,
        _ => false,
    })
}

/// The lines of one name: its kind, and its members.
fn lines(module: &[String], name: &str, shown: &str) -> Vec<String> {
    let file = read(&file_of(module).unwrap());
    let mut lines = Vec::new();
    let open = |attributes: &[Attribute]| if has(attributes, "non_exhaustive") { ", grows" } else { "" };
    for item in &file.items {
        match item {
            Item::Struct(item) if item.ident == *name => {
                lines.push(format!("struct {shown}{}", open(&item.attrs)));
                lines.extend(fields(&item.fields));
            }
            Item::Enum(item) if item.ident == *name => {
                lines.push(format!("enum {shown}{}", open(&item.attrs)));
                let inside = |variant: &syn::Variant| match &variant.fields {
                    Fields::Unit => String::new(),
                    Fields::Named(named) => {
                        format!(
                            " {{ {} }}",
                            named.named.iter().map(|field| text(&field.to_token_stream())).map(plain).collect::<Vec<_>>().join(", ")
                        )
                    }
                    Fields::Unnamed(unnamed) => {
                        format!("({})", unnamed.unnamed.iter().map(|field| text(&field.ty)).collect::<Vec<_>>().join(", "))
                    }
                };
                lines.extend(item.variants.iter().map(|variant| format!("  {}{}", variant.ident, inside(variant))));
            }
            Item::Trait(item) if item.ident == *name => {
                lines.push(format!("trait {shown}"));
                for item in &item.items {
                    if let syn::TraitItem::Fn(method) = item {
                        lines.push(format!("  {}", text(&method.sig)));
                    }
                }
            }
            Item::Fn(item) if item.sig.ident == *name => lines.push(text(&item.sig)),
            Item::Type(item) if item.ident == *name => lines.push(format!("type {shown} = {}", text(&item.ty))),
            _ => {}
        }
    }
    if lines.is_empty() {
        lines.push(format!("enum {shown}, grows (by a macro)"));
    }
    let mut methods = BTreeSet::new();
    // If only one file of the layer defines the name, it is that type in all files of the layer.
    let once = files_of(&module[0]).iter().filter(|path| defines(&read(path), name)).count() == 1;
    for path in files_of(&module[0]) {
        let here = file_of(module).unwrap() == path;
        for item in &read(&path).items {
            let Item::Impl(item) = item else { continue };
            let of = text(&item.self_ty);
            if item.trait_.is_some() || of.split('<').next() != Some(name) || is_hidden(&item.attrs) || !(here || once) {
                continue;
            }
            for item in &item.items {
                if let ImplItem::Fn(method) = item
                    && is_public(&method.vis)
                    && !is_hidden(&method.attrs)
                {
                    methods.insert(format!("  {}", text(&method.sig)));
                }
            }
        }
    }
    lines.extend(methods);
    lines
}

/// A field without its documentation.
fn plain(field: String) -> String {
    field.rsplit("]").next().unwrap_or("").trim().to_owned()
}

/// The whole list.
fn facade() -> String {
    let lib = read(&root().join("src/lib.rs"));
    let mut names: BTreeMap<String, (Vec<String>, String)> = BTreeMap::new();
    let mut others = BTreeSet::new();
    let mut take = |prefix: &str, tree: &UseTree| {
        let mut all = Vec::new();
        given(tree, &[], &mut all);
        for (path, shown) in all {
            let shown = format!("{prefix}{shown}");
            match defined(&path) {
                Some(found) => drop(names.insert(shown, found)),
                None => match path.iter().filter(|part| *part != "crate").cloned().collect::<Vec<_>>() {
                    // The export is a whole module.
                    module if file_of(&module).is_some() => {
                        for item in &read(&file_of(&module).unwrap()).items {
                            let name = match item {
                                Item::Struct(item) if is_public(&item.vis) => item.ident.to_string(),
                                Item::Enum(item) if is_public(&item.vis) => item.ident.to_string(),
                                _ => continue,
                            };
                            names.insert(format!("{shown}::{name}"), (module.clone(), name));
                        }
                    }
                    path => drop(others.insert(format!("{shown} = {}", path.join("::")))),
                },
            }
        }
    };
    for item in &lib.items {
        match item {
            Item::Use(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => take("", &item.tree),
            Item::Mod(module) if is_public(&module.vis) && !is_hidden(&module.attrs) => {
                for item in module.content.iter().flat_map(|(_, items)| items) {
                    if let Item::Use(item) = item {
                        take(&format!("{}::", module.ident), &item.tree);
                    }
                }
            }
            _ => {}
        }
    }
    let mut out: Vec<String> = others.into_iter().collect();
    for (shown, (module, name)) in names {
        out.extend(lines(&module, &name, &shown));
    }
    out.join("\n") + "\n"
}

/// Lines of one text that the other lacks, each with `+` or `-`.
fn difference(before: &str, now: &str) -> Vec<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (before.lines().collect(), now.lines().collect());
    let gone = old.difference(&new).map(|line| format!("- {line}"));
    gone.chain(new.difference(&old).map(|line| format!("+ {line}"))).collect()
}

#[test]
fn the_crates_public_names_are_those_of_the_list() {
    let (place, now) = (root().join("tests/facade.txt"), facade());
    if std::env::var_os("HOB_WRITE_FACADE").is_some() {
        fs::write(&place, &now).unwrap();
    }
    let before = fs::read_to_string(&place).unwrap_or_default();
    let changed = difference(&before, &now);
    assert!(
        before == now,
        "the crate's interface is another one than tests/facade.txt has:\n{}\nwhere that is meant, run it with HOB_WRITE_FACADE=1 and say in CHANGELOG.md what changes",
        changed.join("\n")
    );
    // Each kind of line must occur: a method, a variant, a field, a function, and a name of another crate.
    for line in [
        "  fn with_deadline(mut self, deadline: Duration) -> Call",
        "enum Event, grows",
        "struct Fault, grows",
        "Version = semver::Version",
    ] {
        assert!(now.lines().any(|found| found == line), "`{line}` is not in\n{now}");
    }
}

#[test]
fn no_name_of_the_inside_is_in_the_list() {
    let now = facade();
    for inside in ["model::", "shelf::", "pod::", "disk::", "glue::", "door::"] {
        let found: Vec<_> = now.lines().filter(|line| line.contains(inside)).collect();
        assert!(found.is_empty(), "`{inside}` is named in {found:?}");
    }
    assert_eq!(difference("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
}

/// Types of the standard library, of `serde`, and of the few crates whose types are part of the interface.
const OTHERS: &[&str] = &[
    "Arc",
    "BTreeMap",
    "BTreeSet",
    "Bytes",
    "Cow",
    "Deserialize",
    "DeserializeOwned",
    "Display",
    "Duration",
    "Error",
    "File",
    "Fn",
    "FnMut",
    "Future",
    "Into",
    "IntoIterator",
    "Item",
    "Iterator",
    "Option",
    "OnceLock",
    "OsString",
    "Output",
    "OwnedFd",
    "Path",
    "PathBuf",
    "Read",
    "Result",
    "Self",
    "Send",
    "Serialize",
    "Sized",
    "String",
    "Sync",
    "TcpListener",
    "Timestamp",
    "Url",
    "Value",
    "Vec",
    "Write",
    "IpAddr",
];

/// Types that lines of the list use and that code outside the crate cannot name.
fn unnameable(list: &str) -> Vec<String> {
    let heads = ["struct ", "enum ", "trait ", "type "];
    let of_head = |line: &str| {
        heads.iter().find_map(|head| line.strip_prefix(head)).map(|rest| rest.split([',', ' ']).next().unwrap_or("").to_owned())
    };
    let given = |line: &str| line.split_once(" = ").map(|(name, _)| name.to_owned());
    let names: BTreeSet<String> = list
        .lines()
        .filter_map(|line| of_head(line).or_else(|| given(line)))
        .map(|name| name.rsplit("::").next().unwrap_or("").to_owned())
        .collect();
    let mut wrong = Vec::new();
    for line in list.lines().filter(|line| line.starts_with("  ") || line.contains("fn ")) {
        // The name of a variant is not a type.
        let types = match line.starts_with("  ") && !line.contains("fn ") && !line.starts_with("  .") {
            true => line.trim().split_once(['(', '{']).map_or("", |(_, rest)| rest),
            false => line,
        };
        for word in types.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            let is_type = word.len() > 1 && word.starts_with(|c: char| c.is_uppercase());
            if is_type && !names.contains(word) && !OTHERS.contains(&word) {
                wrong.push(format!("`{word}` in `{}`", line.trim()));
            }
        }
    }
    wrong
}

#[test]
fn whatever_the_list_speaks_of_can_be_named_from_outside() {
    let planted = "struct Ant\n  .a: Vec<Bee>\n  fn f(self) -> Option<Ant>\nenum Eel\n  One(Cat)\n  Two\n";
    assert_eq!(unnameable(planted), ["`Bee` in `.a: Vec<Bee>`", "`Cat` in `One(Cat)`"]);
    let wrong = unnameable(&facade());
    assert!(wrong.is_empty(), "give them out in src/lib.rs, or hide what speaks of them:\n{}", wrong.join("\n"));
}

/// Names of the list to which a variant or a field cannot be added without breaking code that lists them all.
fn closed(list: &str) -> Vec<&str> {
    let (mut closed, mut head) = (Vec::new(), "");
    for line in list.lines() {
        if !line.starts_with("  ") {
            head = line;
        }
        let is_enum = head == line && line.starts_with("enum ");
        let has_field = head.starts_with("struct ") && line.starts_with("  .");
        if (is_enum || has_field) && !head.contains(", grows") && closed.last() != Some(&head) {
            closed.push(head);
        }
    }
    closed
}

#[test]
fn whatever_an_app_takes_apart_may_grow() {
    let planted = "enum A\n  One\nenum B, grows\nstruct C\n  .a: u64\n  .b: u64\nstruct D, grows\n  .a: u64\nstruct E\n  fn f()\n";
    assert_eq!(closed(planted), ["enum A", "struct C"]);
    assert_eq!(closed(&facade()), [""; 0], "`#[non_exhaustive]`, and a way to make one where apps do");
}

#[test]
fn whatever_fails_fails_as_a_fault() {
    let list = facade();
    let texts: Vec<_> = list.lines().filter(|line| line.ends_with(", String>")).collect();
    assert_eq!(texts, [""; 0], "an error is a `Fault`");
    // Types that are parsed from a text or a number.
    for path in files_of("model").iter().chain(&files_of("shelf")).chain(&files_of("host")) {
        for item in &read(path).items {
            let Item::Impl(item) = item else { continue };
            let name = text(&item.self_ty);
            let is_shown = list.lines().any(|line| line.split([' ', ',']).nth(1).is_some_and(|of| of.rsplit("::").next() == Some(&name)));
            let errors = item.items.iter().filter_map(|item| match item {
                ImplItem::Type(of) if ["Err", "Error"].contains(&of.ident.to_string().as_str()) => Some(text(&of.ty)),
                _ => None,
            });
            for error in errors.filter(|_| is_shown) {
                assert_eq!(error, "Fault", "of `{name}` in {}", path.display());
            }
        }
    }
}

/// Lines of code, without comments and empty ones.
fn code(text: &str) -> usize {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn the_app_of_the_examples_is_made_of_the_root_alone_in_30_lines() {
    let folder = root().join("examples/embed");
    let app = fs::read_to_string(folder.join("src/main.rs")).unwrap();
    assert!(code(&app) <= 30, "{} lines", code(&app));
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("default-features = false") && manifest.contains("opt-level = 2"));
    // The page shows exactly these texts.
    let page = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for text in [&app, &manifest] {
        let layers = ["host", "model", "shelf", "pod", "glue", "disk", "door", "author"];
        let used: Vec<_> = layers.iter().filter(|layer| text.contains(&format!("hob::{layer}"))).collect();
        assert!(used.is_empty() && !text.contains("semver"), "it names the inside: {used:?}");
    }
    for line in app.lines().map(str::trim).filter(|line| line.contains("hob::") || line.contains("host.") || line.contains("Config::")) {
        assert!(page.contains(line), "the first page of the documentation does not have `{line}`");
    }
}
