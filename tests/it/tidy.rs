//! Rules that no compiler checks, tested on the sources.
//!
//! Each rule is a function over a file's text, and is first shown to catch a planted offender.

mod circles;

use std::{
    fs,
    path::{Path, PathBuf},
};

const LAYERS: &[&str] = &["door", "author", "host", "shelf", "glue", "pod", "disk", "model"];

/// The other layers that each layer may import.
fn may_import(layer: &str) -> &'static [&'static str] {
    match layer {
        "door" => &["author", "host", "shelf", "glue", "pod", "disk", "model"],
        "host" => &["shelf", "glue", "pod", "disk", "model"],
        "author" => &["shelf", "glue", "disk", "model"],
        "shelf" | "glue" | "pod" => &["disk", "model"],
        "disk" => &["model"],
        _ => &[],
    }
}

struct Source {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn layer(&self) -> Option<&str> {
        let (layer, rest) = self.path.strip_prefix("src/")?.split_once('/')?;
        (!rest.is_empty()).then_some(layer)
    }

    /// Lines of code with their numbers: neither comments nor documentation.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("")))
    }

    /// The code as one text without white space, so that an import looks the same however it is broken into
    /// lines.
    fn dense(&self) -> String {
        self.code().flat_map(|(_, line)| line.chars()).filter(|c| !c.is_whitespace()).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<Source> {
    fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Build outputs and environments are not sources.
            if path.is_dir() && !name.starts_with('.') && !["target", "__pycache__", "venv"].contains(&name.as_str()) {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), extension, &mut found);
    found.sort();
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(),
        text: fs::read_to_string(&path).unwrap(),
    };
    found.into_iter().map(read).collect()
}

/// The first names of a group `{a::x, b, c::{d, e}}`, or of a single path.
fn heads(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut depth, mut heads, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.push(word(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

fn layering(source: &Source) -> Vec<String> {
    let Some(layer) = source.layer() else { return Vec::new() };
    let dense = source.dense();
    let mut wrong = Vec::new();
    let used = dense.match_indices("crate::").chain(dense.match_indices("super::super::"));
    for (at, prefix) in used {
        // `pub(in crate::x)` and the crate's own macros do not occur; what follows is a path or a group.
        for head in heads(&dense[at + prefix.len()..]) {
            let is_layer = LAYERS.contains(&head.as_str());
            // Two steps up from a file of a layer is the crate's root.
            if is_layer && head != layer && !may_import(layer).contains(&head.as_str()) {
                wrong.push(format!("{}: `{layer}` imports `{head}`", source.path));
            }
        }
    }
    wrong
}

fn proofs(source: &Source) -> Vec<String> {
    let dense = source.dense();
    let mut wrong = Vec::new();
    // The tests of the glue layer use unsigned guests.
    if dense.contains("Verified::attest(") && !source.path.starts_with("src/shelf/") && source.path != "src/glue/tests.rs" {
        wrong.push(format!("{}: makes a `Verified`; only the shelf may", source.path));
    }
    if source.path != "src/model/call.rs" {
        // `-> Admitted {` begins a body, `impl Admitted {` a block: neither makes one.
        let made = dense.match_indices("Admitted{").any(|(at, _)| {
            let before = &dense[..at];
            !["->", "impl", "for", "struct"].iter().any(|word| before.ends_with(word)) && !before.ends_with(|c: char| c.is_alphanumeric())
        });
        if made {
            wrong.push(format!("{}: makes an `Admitted` by hand", source.path));
        }
    }
    wrong
}

fn printing(source: &Source) -> Vec<String> {
    // `hob build` passes stderr of cargo on, and two tests print why they cannot run on this machine.
    if ["src/door/print.rs", "src/author/build.rs", "src/pod/sandbox/cgroup/tests.rs", "src/pod/sandbox/egress/tests.rs"]
        .contains(&source.path.as_str())
    {
        return Vec::new();
    }
    let words = ["println!", "print!", "eprint!", "eprintln!", "dbg!", "io::stdout", "io::stderr"];
    let bad = source.code().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    bad.map(|(number, line)| format!("{}:{number}: prints: {}", source.path, line.trim())).collect()
}

fn opening(source: &Source) -> Vec<String> {
    let mut lines = source.text.lines().skip_while(|line| source.path.ends_with(".py") && (line.starts_with("#!") || line.is_empty()));
    let first = lines.next().unwrap_or("");
    let says = if source.path.ends_with(".py") { first.starts_with("\"\"\"") } else { first.starts_with("//! ") };
    if says { Vec::new() } else { vec![format!("{}: does not begin by saying what it is", source.path)] }
}

fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= 900 { Vec::new() } else { vec![format!("{}: {lines} lines; wanted at most 900", source.path)] }
}

fn unsafety(source: &Source) -> Vec<String> {
    let is_word = |line: &str| line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == "unsafe");
    // A word of another program.
    let own = |line: &str| line.replace("unsafe-best-match", "");
    source.code().filter(|(_, line)| is_word(&own(line))).map(|(number, _)| format!("{}:{number}: unsafe", source.path)).collect()
}

/// Words that only one door has, in texts below the doors: hints there are made of actions (`model/hint.rs`),
/// which each door words in its own way.
fn hints(source: &Source) -> Vec<String> {
    let exceptions: &[(&str, &str)] = &[
        ("src/door/", "a door's own words, which its tests hold against what there is"),
        ("src/model/hint.rs", "the table of all these words"),
        ("src/model/status/doctor.rs", "what `hob doctor` prints"),
        ("src/shelf/environment/requirements", "options of pip"),
        ("src/shelf/environment/uv.rs", "options of uv"),
        ("src/shelf/environment/componentizer.rs", "options of the componentizers"),
    ];
    if exceptions.iter().any(|(path, _)| source.path.starts_with(path)) || source.path.ends_with("tests.rs") {
        return Vec::new();
    }
    let words = ["`hob ", "`--", "`GET /", "`POST /", "run the command"];
    let variables = ["with HOB_", "set HOB_", "move HOB_"];
    let settings = ["in hob.toml", "of hob.toml", "in `hob.toml`", "of `hob.toml`"];
    let untested = untested(source);
    let mut wrong = Vec::new();
    for (number, line) in untested.code() {
        // In a message these words say where somebody looked; in a hint they say what to do.
        let is_hint = line.contains("hint");
        // A key of a recipe, and a flag of another program.
        let line = line.replace("`hob = ", "").replace("`--disable http", "");
        let bad = words.iter().chain(&variables).chain(settings.iter().filter(|_| is_hint)).find(|word| line.contains(**word));
        wrong.extend(bad.map(|word| format!("{}:{number}: `{}` in a text: take an action of `model::act`", source.path, word.trim())));
    }
    wrong
}

/// The code of a file without its tests, which come last in it.
fn untested(source: &Source) -> Source {
    Source::new(&source.path, source.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(""))
}

/// Places that open a file by other means than `disk::open`, or make one or a folder by other means than
/// `disk::make`.
fn files_by_hand(source: &Source) -> Vec<String> {
    let reads = ["fs::read(", "read_to_string(", "File::open(", "OpenOptions", "File::options(", "fs::copy("];
    let makes = ["create_dir", "DirBuilder", "fs::write(", "File::create", "tempdir(", "tempdir_in(", "tempfile_in(", "NamedTempFile::new"];
    let exceptions: &[(&str, &[&str], &str)] = &[
        ("src/disk/", &[], "the functions themselves"),
        ("src/author/", &[], "folders and files of the author, who names them, with the author's own umask"),
        ("src/fuzzing.rs", &[], "tests alone"),
        ("src/door/cli.rs", &["std::fs::write(path"], "a bundle that the user names"),
        ("src/door/calling.rs", &["File::create(file)"], "a blob that the user names"),
        (
            "src/door/socket.rs",
            &["File::options().read(true).custom_flags(flags as i32)", "OpenOptionsExt"],
            "a folder, by a descriptor that opens nothing",
        ),
        ("src/door/manual.rs", &["fs::create_dir_all(folder)", "fs::write(folder.join"], "pages into a folder that the user names"),
        ("src/door/ending.rs", &["File::open(\"/dev/tty\")"], "whether there is a terminal"),
        ("src/host/blobs.rs", &["File::open(path)"], "a blob that the caller names"),
        ("src/pod/sandbox/cgroup.rs", &["OpenOptions", "fs::create_dir(path)"], "control groups, which are the kernel's"),
        ("src/pod/residency/machine.rs", &["out.take(GPU_TOOL_BYTES_MAX).read_to_string"], "a tool's output"),
        ("src/shelf/files/staging.rs", &["tempfile_in(root)"], "a lock file with a suffix, its owner's alone"),
    ];
    let name = source.path.rsplit('/').next().unwrap_or("");
    if name == "tests.rs" || source.path.contains("/tests/") {
        return Vec::new();
    }
    let is_excepted = |line: &str| {
        let of_file = exceptions.iter().filter(|(path, _, _)| source.path.starts_with(path));
        of_file.into_iter().any(|(_, texts, _)| texts.is_empty() || texts.iter().any(|text| line.contains(text)))
    };
    let untested = untested(source);
    let lines = untested.code().filter(|(_, line)| reads.iter().chain(&makes).any(|word| line.contains(word)) && !is_excepted(line));
    lines.map(|(number, line)| format!("{}:{number}: opens or makes a file by hand: {}", source.path, line.trim())).collect()
}

#[test]
fn hobs_own_files_are_opened_and_made_by_one_function_each() {
    for text in [
        "let a = fs::read(&path)?;",
        "let a = std::fs::read_to_string(path);",
        "File::open(path)?.read_to_end(&mut bytes)",
        "OpenOptions::new().write(true).open(path)",
        "fs::create_dir_all(&folder)?;",
        "fs::write(&path, bytes)",
        "let folder = tempfile::tempdir()?;",
    ] {
        assert_eq!(files_by_hand(&Source::new("src/shelf/store/load.rs", text)).len(), 1, "{text}");
    }
    let fine = "let a = open::read(&path, MAX)?;\n// fs::read(\n#[cfg(test)]\nmod tests {\n    fs::read(path);\n}\n";
    assert_eq!(files_by_hand(&Source::new("src/shelf/store/load.rs", fine)), [""; 0]);
    assert_eq!(files_by_hand(&Source::new("src/door/cli.rs", "std::fs::write(path, bytes)")), [""; 0]);
    assert_eq!(files_by_hand(&Source::new("src/door/cli.rs", "std::fs::write(&token, bytes)")).len(), 1);
    assert_tidy(&files("src", "rs"), files_by_hand);
}

fn assert_tidy(sources: &[Source], rule: impl Fn(&Source) -> Vec<String>) {
    assert!(sources.len() > 3, "the sources are not where they were");
    let wrong: Vec<_> = sources.iter().flat_map(rule).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn imports_go_downward_only() {
    for (path, text) in [
        ("src/model/call.rs", "use crate::host::Host;"),
        ("src/shelf/store/load.rs", "use crate::pod::Pod;"),
        ("src/glue/run.rs", "let x = crate::shelf::store::Shelf::open();"),
        ("src/pod/driver/mod.rs", "use crate::{\n    model::{self, Fault},\n    glue::Glue,\n};"),
        ("src/author/pack.rs", "use crate::{model::Fault, pod};"),
        ("src/host/run.rs", "use crate::door::print;"),
        ("src/pod/driver/state.rs", "use super::super::shelf;"),
        ("src/shelf/store/load.rs", "use super::super::{model, host::Host};"),
    ] {
        assert_eq!(layering(&Source::new(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("src/door/cli.rs", "use crate::{author, host::Host, model::{Call, Fault}, shelf::repository::Trust};"),
        ("src/model/call.rs", "//! see crate::host\nuse super::fault::Fault; // crate::pod"),
        ("src/glue/run.rs", "use crate::{glue::Glue, model};"),
    ] {
        assert_eq!(layering(&Source::new(path, text)), [""; 0], "{path}: {text}");
    }
    assert_tidy(&files("src", "rs"), layering);
}

#[test]
fn proofs_are_made_in_one_place() {
    assert_eq!(proofs(&Source::new("src/host/run.rs", "Verified::attest(\n    manifest)")).len(), 1);
    assert_eq!(proofs(&Source::new("src/host/run.rs", "Ok(Admitted { recipe })")).len(), 1);
    assert_eq!(proofs(&Source::new("src/host/run.rs", "fn f() -> Admitted {\n g() }")), [""; 0]);
    assert_tidy(&files("src", "rs"), proofs);
}

#[test]
fn nothing_prints_but_the_printer() {
    for text in ["println!(\"x\");", "    eprint!(\"x\")", "use std::io::stdout;", "std::io::stderr().lock()"] {
        assert_eq!(printing(&Source::new("src/host/run.rs", text)).len(), 1, "{text}");
    }
    assert_eq!(printing(&Source::new("src/host/mod.rs", "/// println!(\"in an example\")")), [""; 0]);
    assert_tidy(&files("src", "rs"), printing);
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    assert_eq!(opening(&Source::new("src/x.rs", "use std::io;\n//! late")).len(), 1);
    assert_eq!(opening(&Source::new("python/x.py", "#!/usr/bin/env python3\nimport os")).len(), 1);
    assert_eq!(opening(&Source::new("python/x.py", "#!/usr/bin/env python3\n\"\"\"What.\"\"\"")), [""; 0]);
    for (folder, extension) in [("src", "rs"), ("tests", "rs"), ("python/src", "py"), ("tests/pods", "py")] {
        assert_tidy(&files(folder, extension), opening);
    }
    let recipes = files("recipes", "py");
    assert!(!recipes.is_empty() && recipes.iter().flat_map(opening).next().is_none(), "{:?}", recipes.iter().flat_map(opening).next());
}

#[test]
fn no_source_is_longer_than_a_reader_can_hold() {
    assert_eq!(length(&Source::new("src/x.rs", &"\n".repeat(901))).len(), 1);
    assert_tidy(&files("src", "rs"), length);
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let planted = |files: &[(&str, &str)]| {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        circles::circles(&sources)
    };
    let root = ("src/lib.rs", "mod a;\nmod b;\nmod c;");
    let b = ("src/b.rs", "use crate::a::A;\npub struct B(A);");
    for a in [
        "use crate::b::B;\npub struct A;",
        "use crate::b;\npub struct A;\nfn f(b: b::B) {}",
        "pub struct A;\nfn f(b: super::b::B) {}",
        "pub struct A;\nfn f() { use crate::{b::{B}}; }",
        "pub struct A;\nfn f() { println!(\"{:?}\", crate::b::B::new()); }",
        "use crate::c::B;\npub struct A;",
        "use crate::c::Renamed as Other;\npub struct A;",
        "use crate::b::*;\npub struct A;",
    ] {
        let c = ("src/c.rs", "pub use crate::b::{B, B as Renamed};");
        assert_eq!(planted(&[root, ("src/a.rs", a), b, c]).len(), 1, "{a}");
    }
    for a in ["pub struct A;", "pub struct A; // crate::b::B", "pub struct A;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}"] {
        assert_eq!(planted(&[root, ("src/a.rs", a), b]), [""; 0], "{a}");
    }
    // A child and a `mod.rs` that is more than a frame; three files; a child's child with its grandparent.
    let child = ("src/a/child.rs", "use super::Other;\npub struct Child(Other);");
    let parent = "mod child;\nuse child::Child;\npub struct A(Child);\n";
    for more in ["pub struct Other;", "fn f() {}\npub use crate::b::Other;", "impl Child {}\npub use crate::b::Other;"] {
        let b = ("src/b.rs", "pub struct Other;");
        let found = planted(&[root, ("src/a/mod.rs", &format!("{parent}{more}")), child, b]);
        assert_eq!(found.len(), usize::from(more.starts_with("pub struct")), "{more}: {found:?}");
    }
    let child = ("src/a/child.rs", "use super::A;\npub struct Child(A);");
    assert_eq!(planted(&[root, ("src/a/mod.rs", parent), child]), [""; 0]);
    assert_eq!(planted(&[root, ("src/a/mod.rs", &format!("{parent}fn f() {{}}")), child]).len(), 1);
    assert_eq!(planted(&[root, ("src/a/mod.rs", &format!("{parent}impl Child {{}}")), child]).len(), 1);
    let three = [("src/a.rs", "use crate::b::B;"), ("src/b.rs", "use crate::c::C;"), ("src/c.rs", "use crate::a::A;")];
    let found = planted(&three);
    assert!(found.len() == 1 && found[0].starts_with("a circle of 3 files"), "{found:?}");
}

#[test]
fn the_tree_has_no_circle_no_wide_struct_and_no_unnamed_wait() {
    let sources = files("src", "rs");
    let found = circles::circles(&sources);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    assert_tidy(&sources, wide_structs);
    assert_tidy(&sources, unnamed_waits);
    assert_tidy(&prose(), wide_prose);
}

/// All files with prose: sources, programs, pages.
fn prose() -> Vec<Source> {
    let of = |folder: &str, kinds: &[&str]| kinds.iter().flat_map(|kind| files(folder, kind)).collect::<Vec<_>>();
    let folders = ["src", "tests/it", "tests/pods", "tests/shipped", "fuzz/properties", "examples", "python", "recipes", "docs", ".make"];
    let mut all: Vec<_> = folders.iter().flat_map(|folder| of(folder, &["rs", "py", "md", "sh"])).collect();
    for page in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Cargo.toml", "Makefile"] {
        all.push(Source::new(page, &fs::read_to_string(root().join(page)).unwrap()));
    }
    all
}

/// Lines of prose that are too wide to read. Tables, examples and text without a gap to break at may be
/// wider.
fn wide_prose(source: &Source) -> Vec<String> {
    const COLUMNS: usize = 110;
    let (is_page, is_python) = (source.path.ends_with(".md"), source.path.ends_with(".py"));
    let marks: &[&str] = if source.path.ends_with(".rs") { &["//"] } else { &["#"] };
    // Within a triple-quoted text of Python: whether it is documentation.
    let (mut in_example, mut in_text) = (false, None);
    let mut wide = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let bare = line.trim_start();
        let text = bare.trim_start_matches(['/', '!', '#', ':']);
        if text.trim_start().starts_with("```") {
            in_example = !in_example;
        }
        // A triple-quoted text is documentation if its line begins with it, else it is a value.
        let (opens, quotes) = (bare.starts_with("\"\"\"") || bare.starts_with("r\"\"\""), bare.matches("\"\"\"").count());
        let is_text = is_python && (in_text == Some(true) || in_text.is_none() && opens);
        if quotes % 2 == 1 {
            in_text = if in_text.is_some() { None } else { Some(opens) };
        }
        let is_prose = match is_page {
            true => !in_example && !line.starts_with("    ") && !text.starts_with('|'),
            false => !in_example && (is_text || marks.iter().any(|mark| bare.starts_with(mark))) && !text.trim_start().starts_with('|'),
        };
        let can_break =
            text.trim_start().trim_start_matches(['-', '*', '|', '>']).trim_start().chars().take(COLUMNS - 10).any(char::is_whitespace);
        if is_prose && can_break && line.chars().count() > COLUMNS {
            wide.push(format!("{}:{}: {} columns of prose; wanted at most {COLUMNS}", source.path, index + 1, line.chars().count()));
        }
    }
    wide
}

#[test]
fn no_line_of_prose_is_wider_than_a_reader_follows() {
    let words = "word ".repeat(23);
    for (path, text) in [
        ("src/x.rs", format!("//! {words}")),
        ("src/x.rs", format!("fn f() {{\n    /// {words}\n}}")),
        ("docs/x.md", format!("{words}\n")),
        ("docs/x.md", format!("```\nx\n```\n- {words}")),
        ("python/x.py", format!("# {words}")),
        ("python/x.py", format!("def f():\n    \"\"\"Does.\n\n    {words}\n    \"\"\"")),
        (".make/x.sh", format!("# {words}")),
    ] {
        assert_eq!(wide_prose(&Source::new(path, &text)).len(), 1, "{path}: {text}");
    }
    let address = format!("https://{}", "word/".repeat(23));
    for (path, text) in [
        ("src/x.rs", format!("let text = \"{words}\";")),
        ("src/x.rs", format!("// {address}")),
        ("docs/x.md", format!("| {words} |")),
        ("docs/x.md", format!("```\n{words}\n```")),
        ("docs/x.md", format!("    {words}")),
        ("python/x.py", format!("X = \"\"\"\n{words}\n\"\"\"")),
        ("python/x.py", format!("X = \"\"\"\nx\n\"\"\"\ny = \"{words}\"")),
    ] {
        assert_eq!(wide_prose(&Source::new(path, &text)), [""; 0], "{path}: {text}");
    }
}

/// `Path::exists` where its answer decides what Hob does with its files: it returns false also if the system
/// could not look.
fn guesses(source: &Source) -> Vec<String> {
    let decides = ["src/author/", "src/disk/", "src/host/", "src/shelf/"].iter().any(|room| source.path.starts_with(room));
    if !decides || source.path.ends_with("tests.rs") || source.path.contains("/tests/") {
        return Vec::new();
    }
    let untested = untested(source);
    let lines = untested.code().filter(|(_, line)| line.contains(".exists()"));
    lines.map(|(number, line)| format!("{}:{number}: take `disk::look::is_there`: {}", source.path, line.trim())).collect()
}

#[test]
fn what_cannot_be_looked_at_is_not_called_missing() {
    assert_eq!(guesses(&Source::new("src/shelf/store/load.rs", "if folder.exists() {")).len(), 1);
    for (path, text) in [("src/pod/doctor.rs", "mark.exists()"), ("src/shelf/x.rs", "look::is_there(&folder)? // .exists()")] {
        assert_eq!(guesses(&Source::new(path, text)), [""; 0], "{path}");
    }
    assert_tidy(&files("src", "rs"), guesses);
}

/// Structs with too many fields to keep in mind; also variants with named fields.
fn wide_structs(source: &Source) -> Vec<String> {
    fn walk(items: Vec<syn::Item>, found: &mut Vec<(String, usize)>) {
        for item in items {
            match item {
                syn::Item::Struct(one) => found.push((one.ident.to_string(), one.fields.len())),
                syn::Item::Union(one) => found.push((one.ident.to_string(), one.fields.named.len())),
                syn::Item::Enum(one) => {
                    found.extend(one.variants.iter().map(|variant| (format!("{}::{}", one.ident, variant.ident), variant.fields.len())));
                }
                syn::Item::Mod(one) => walk(one.content.map(|(_, items)| items).unwrap_or_default(), found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path)).items, &mut found);
    let wide = found.into_iter().filter(|(_, fields)| *fields > 20);
    wide.map(|(name, fields)| format!("{}: {name} has {fields} fields; wanted at most 20: split it by concept", source.path)).collect()
}

/// Waits for a bare number of milliseconds or seconds, in place of a limit or a constant whose comment says
/// why.
fn unnamed_waits(source: &Source) -> Vec<String> {
    if source.path.ends_with("tests.rs") || source.path.contains("/tests/") || source.path.ends_with("/simulation.rs") {
        return Vec::new();
    }
    let is_number = |text: &str| text.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let spans =
        ["from_secs(", "from_secs_f64(", "from_secs_f32(", "from_millis(", "from_micros(", "from_nanos(", "from_mins(", "from_hours("];
    let is_bare = |line: &str| spans.iter().any(|span| line.match_indices(span).any(|(at, _)| is_number(&line[at + span.len()..])));
    // A constant is a name, so it is allowed.
    let untested = untested(source);
    let lines = untested.code().filter(|(_, line)| is_bare(line) && !line.contains("const ") && !line.contains("static "));
    lines.map(|(number, line)| format!("{}:{number}: a wait without a name: {}", source.path, line.trim())).collect()
}

#[test]
fn no_struct_is_wider_than_a_head_holds() {
    let fields = |count: usize| (0..count).map(|n| format!("field_{n}: u8,")).collect::<String>();
    for text in [
        format!("struct Wide {{ {} }}", fields(21)),
        format!("pub enum Wide {{ One, Other {{ {} }} }}", fields(21)),
        format!("mod inner {{ pub struct Wide {{ {} }} }}", fields(21)),
        format!("struct Wide({});", "u8,".repeat(21)),
    ] {
        assert_eq!(wide_structs(&Source::new("src/x.rs", &text)).len(), 1, "{text}");
    }
    assert_eq!(wide_structs(&Source::new("src/x.rs", &format!("struct Fine {{ {} }}", fields(20)))), [""; 0]);
}

#[test]
fn each_wait_has_a_name() {
    for text in
        ["sleep(Duration::from_millis(50)).await;", "timeout(Duration::from_secs( 2_000 ), f)", "std::time::Duration::from_secs_f64(0.5)"]
    {
        assert_eq!(unnamed_waits(&Source::new("src/host/run.rs", text)).len(), 1, "{text}");
    }
    for text in [
        "const PAUSE: Duration = Duration::from_millis(50);",
        "sleep(Duration::from_millis(limits::PAUSE_MS)).await; // from_millis(50)",
        "#[cfg(test)]\nmod tests {\n    sleep(Duration::from_millis(50));\n}",
    ] {
        assert_eq!(unnamed_waits(&Source::new("src/host/run.rs", text)), [""; 0], "{text}");
    }
}

#[test]
fn there_is_no_unsafe_code() {
    assert_eq!(unsafety(&Source::new("src/x.rs", "    unsafe { f() }")).len(), 1);
    assert_eq!(unsafety(&Source::new("src/x.rs", "#![forbid(unsafe_code)] // unsafe")), [""; 0]);
    assert_tidy(&files("src", "rs"), unsafety);
    assert!(fs::read_to_string(root().join("Cargo.toml")).unwrap().contains("unsafe_code = \"forbid\""));
}

/// Work given to threads by other means than `disk::threads`: these panic if no thread can be started.
fn threads_by_hand(source: &Source) -> Vec<String> {
    let may = ["src/disk/threads.rs", "src/door/starting.rs"].contains(&source.path.as_str()) || source.path.ends_with("/tests.rs");
    let panics = ["spawn_blocking", "block_in_place", "thread::spawn(", "spawn_local("];
    let untested = untested(source);
    let lines = untested.code().filter(|(_, line)| !may && panics.iter().any(|word| line.contains(word)));
    lines.map(|(number, line)| format!("{}:{number}: starts a thread, and panics if it cannot: {}", source.path, line.trim())).collect()
}

#[test]
fn whoever_needs_a_thread_is_told_when_there_is_none() {
    for text in ["tokio::task::spawn_blocking(work)", "runtime.spawn_blocking(work)", "std::thread::spawn(work)"] {
        assert_eq!(threads_by_hand(&Source::new("src/pod/stream/mod.rs", text)).len(), 1, "{text}");
    }
    assert_eq!(threads_by_hand(&Source::new("src/pod/stream/mod.rs", "certainly(work); thread::Builder::new().spawn(work)?")), [""; 0]);
    assert_tidy(&files("src", "rs"), threads_by_hand);
}

/// Names of functions that give permissions, in a door that is not the operator's own.
fn giving(source: &Source) -> Vec<String> {
    let may = !source.path.starts_with("src/door/")
        || ["src/door/permissions.rs", "src/door/cli.rs", "src/door/tests.rs"].contains(&source.path.as_str());
    let gives =
        |line: &str| ["Consent", "permissions::", "Revoke::", ".grant(", ".revoke(", "host.add("].iter().any(|name| line.contains(name));
    let lines = source.code().filter(|(_, line)| !may && gives(line));
    lines.map(|(number, _)| format!("{}:{number}: only the command line may give permissions", source.path)).collect()
}

#[test]
fn no_door_that_serves_others_can_give_permissions() {
    assert_eq!(giving(&Source::new("src/door/http/status.rs", "host.grant(&recipe, all, false)")).len(), 1);
    assert_eq!(giving(&Source::new("src/door/serve.rs", "use crate::host::Consent;")).len(), 1);
    assert_eq!(giving(&Source::new("src/door/permissions.rs", "host.grant(&recipe, all, false)")), [""; 0]);
    assert_tidy(&files("src", "rs"), giving);
}

#[test]
fn what_is_said_below_the_doors_has_no_words_of_one_door() {
    for text in [
        ".hint(\"`hob add` says why\")",
        "let next = \"give it with `--deadline`\";",
        "\"ask `GET /v1/status`\"",
        "\"free some space and run the command again\"",
        ".hint(\"name one with HOB_PYTHON\")",
        ".hint(\"see `path` in hob.toml\")",
    ] {
        assert_eq!(hints(&Source::new("src/shelf/x.rs", text)).len(), 1, "{text}");
        assert_eq!(hints(&Source::new("src/door/x.rs", text)), [""; 0]);
    }
    assert_eq!(hints(&Source::new("src/x.rs", "/// `hob add`\n.hint(hint![act::add(name), \" asks again\"])")), [""; 0]);
    assert_tidy(&files("src", "rs"), hints);
}

/// Addresses, and errors that contain one, where a text is made: addresses contain passwords and tokens.
fn addresses(source: &Source) -> Vec<String> {
    let owners = [
        "src/model/address.rs",
        "src/model/manifest/source.rs",
        "src/shelf/repository/transport.rs",
        "src/shelf/models/origin.rs",
        "src/shelf/models/sources.rs",
        "src/shelf/redirects.rs",
        "src/shelf/environment/index_answers.rs",
    ];
    let is_word = |line: &str, word: &str| line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|part| part == word);
    let mut wrong = Vec::new();
    for (number, line) in source.code() {
        if !owners.contains(&source.path.as_str()) && ["Url", "reqwest"].iter().any(|word| is_word(line, word)) {
            wrong.push(format!("{}:{number}: a bare address or error of a request: take `Address`", source.path));
        }
        let shows = ["{url}", "{url:", "{index_url", "error.url()", "attempt.url().as_str", "chain(&error"];
        let reveals =
            line.contains("revealed()") && ["format!", "json!", "Fault::", "tracing::", "say("].iter().any(|made| line.contains(made));
        if source.path != "src/model/address.rs" && (reveals || shows.iter().any(|shown| line.contains(shown))) {
            wrong.push(format!("{}:{number}: puts an address into a text: take `shown()`", source.path));
        }
    }
    wrong
}

#[test]
fn no_address_gets_into_a_text_as_it_was_typed() {
    for text in [
        "use reqwest::Url;",
        "fn f(error: reqwest::Error) {}",
        "format!(\"no answer from {url}\")",
        "tracing::warn!(\"{}\", remote.url.revealed());",
        "json!({ \"url\": url.revealed() })",
    ] {
        assert_eq!(addresses(&Source::new("src/host/run.rs", text)).len(), 1, "{text}");
    }
    assert_eq!(addresses(&Source::new("src/shelf/repository/transport.rs", "let why = chain(&error);")).len(), 1);
    assert_eq!(addresses(&Source::new("src/host/run.rs", "json!({ \"url\": remote.url.shown() })")), [""; 0]);
    assert_tidy(&files("src", "rs"), addresses);
}

/// Constants that are alone on their line in `limits` and that nothing in `others` mentions.
fn unused(limits: &str, others: &[Source]) -> Vec<String> {
    let words = |text: &str| text.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_owned).collect::<Vec<_>>();
    let mut used = std::collections::HashSet::new();
    for source in others {
        used.extend(source.code().flat_map(|(_, line)| words(line)));
    }
    // Other constants may use it: the text right of `=`.
    for (_, line) in Source::new("", limits).code() {
        used.extend(line.split_once('=').map(|(_, value)| words(value)).unwrap_or_default());
    }
    let names = limits.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(':').map(|(name, _)| name.to_owned()));
    names.filter(|name| !used.contains(name)).collect()
}

#[test]
fn every_limit_is_used() {
    let user = [Source::new("src/x.rs", "take(A_MAX) // not B_MAX")];
    assert_eq!(unused("pub const A_MAX: u64 = 1;\npub const B_MAX: u64 = A_MAX;\n", &user), ["B_MAX"]);
    let (limits, users): (Vec<_>, Vec<_>) = files("src", "rs").into_iter().partition(|source| source.path.starts_with("src/model/limits/"));
    let limits = limits.iter().map(|source| source.text.as_str()).collect::<Vec<_>>().join("\n");
    assert!(limits.matches("pub const ").count() > 300);
    assert_eq!(unused(&limits, &users), [""; 0]);
}

#[test]
fn recipes_carry_the_world_as_it_is() {
    let world = fs::read_to_string(root().join("wit/glue.wit")).unwrap();
    let copies = files("recipes", "wit");
    assert!(!copies.is_empty());
    for copy in copies {
        assert!(copy.text == world, "{} differs from wit/glue.wit: copy it again", copy.path);
    }
}

#[test]
fn a_soak_with_a_wrong_setting_does_not_begin() {
    let soak = |name: &str, value: &str| {
        let mut command = std::process::Command::new("bash");
        let ended = command.arg(root().join(".make/soak.sh")).arg("no-such-piece").env(name, value).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{name}={value}");
        String::from_utf8(ended.stderr).unwrap()
    };
    for (name, value) in [
        ("SOAK_ROUNDS", "abc"),
        ("SOAK_ROUNDS", "0"),
        ("SOAK_ROUNDS", ""),
        ("HOB_SOAK_ROUNDS", "1e3"),
        ("HOB_SOAK_SECONDS", "0.0"),
        ("HOB_SOAK_SECONDS", "-5"),
        ("HOB_INJECTED_EACH", "many"),
        ("HOB_MISBEHAVING_ROUNDS", "0"),
        ("HOB_FUZZ_SECONDS", "15m"),
        ("HOB_SEED", "0x1"),
        ("SOAK_ROUND", "3"),
    ] {
        let said = soak(name, value);
        assert!(said.contains(name) && !said.contains("no piece"), "{name}={value}: {said}");
    }
    for (name, value) in
        [("SOAK_ROUNDS", "3"), ("HOB_SOAK_SECONDS", "0.5"), ("HOB_FUZZ_SECONDS", "0"), ("HOB_SEED", "18446744073709551615")]
    {
        assert!(soak(name, value).contains("no piece `no-such-piece`"), "{name}={value}");
    }
}

/// Blocking IO on files within `async` code: it delays everything else on that thread. Passing it to
/// `disk/threads.rs` is fine.
fn blocking_io(source: &Source) -> Vec<String> {
    fn words(tokens: proc_macro2::TokenStream) -> Vec<proc_macro2::TokenTree> {
        tokens.into_iter().collect()
    }
    fn is(token: Option<&proc_macro2::TokenTree>, word: &str) -> bool {
        token.is_some_and(|token| token.to_string() == word)
    }
    fn walk(tokens: Vec<proc_macro2::TokenTree>, is_async: bool, found: &mut Vec<String>) {
        use proc_macro2::{Delimiter, TokenTree};
        // Up to the body, the word `async` is followed by a name, parameters and a type.
        let mut awaits_body = false;
        let methods = ["exists", "is_dir", "is_file", "canonicalize", "metadata", "symlink_metadata", "read_link", "read_dir", "sync_all"];
        for (at, token) in tokens.iter().enumerate() {
            let before = |steps: usize| at.checked_sub(steps).and_then(|at| tokens.get(at));
            match token {
                TokenTree::Ident(name) if name == "async" => awaits_body = true,
                TokenTree::Punct(punct) if punct.as_char() == ';' => awaits_body = false,
                TokenTree::Ident(name) if is_async && is(tokens.get(at + 1), ":") && is(tokens.get(at + 2), ":") => {
                    let called = tokens.get(at + 3).map(ToString::to_string).unwrap_or_default();
                    // `load` is the async form of `read`.
                    let is_item = called.starts_with(|c: char| c.is_ascii_lowercase() || c == '{') && called != "load";
                    // Functions of tokio do not block, and files in memory of rustix have no disk.
                    let is_ours = !(is(before(2), ":") && (is(before(3), "tokio") || is(before(3), "rustix")));
                    if is_item && is_ours && ["fs", "open", "make", "File"].iter().any(|one| name == one) {
                        found.push(format!("{name}::{called}"));
                    }
                }
                TokenTree::Ident(name) if is_async && is(before(1), ".") && methods.iter().any(|one| name == one) => {
                    found.push(format!(".{name}()"));
                }
                TokenTree::Group(group) => {
                    let handed = ["blocking", "certainly", "aside", "reading", "start", "change"];
                    let is_handed = group.delimiter() == Delimiter::Parenthesis && handed.iter().any(|one| is(before(1), one));
                    let is_body = awaits_body && group.delimiter() == Delimiter::Brace;
                    if !is_handed {
                        walk(words(group.stream()), is_async || is_body, found);
                    }
                    awaits_body &= !is_body;
                }
                _ => {}
            }
        }
    }
    let rooms = ["src/pod/", "src/host/", "src/glue/"];
    if !rooms.iter().any(|room| source.path.starts_with(room)) || source.path.ends_with("tests.rs") || source.path.contains("/tests/") {
        return Vec::new();
    }
    let text = untested(source).text;
    let tokens = text.parse().unwrap_or_else(|error| panic!("{}: {error}", source.path));
    let mut found = Vec::new();
    walk(words(tokens), false, &mut found);
    found.into_iter().map(|what| format!("{}: `{what}` in `async` code: hand it to `disk::threads::blocking`", source.path)).collect()
}

#[test]
fn no_thread_that_drives_calls_waits_for_a_disk() {
    for text in [
        "async fn f() { std::fs::write(path, b); }",
        "pub async fn f(a: [u8; 3]) -> Result<(), E> where A: B { fs::{read}; }",
        "fn f() { spawn(async move { let a = open::read(&path, MAX)?; }); }",
        "async fn f() { if path.exists() { g() } }",
        "fn f() -> impl Future { async { select! { _ = a => make::write(&path, b) } } }",
        "async fn f() { let file = File::read(&home)?; }",
        "async fn f() { blocking(move || Ok(())).await; fs::remove_file(path); }",
    ] {
        assert_eq!(blocking_io(&Source::new("src/host/run.rs", text)).len(), 1, "{text}");
    }
    for text in [
        "fn f() { std::fs::write(path, b); }",
        "async fn f() { blocking(move || open::read(&path, MAX)).await }",
        "async fn f() { drop(certainly(move || { let _ = fs::remove_file(path); })) }",
        "trait A { async fn f(); } fn g() { fs::read(path) }",
        "async fn f() { tokio::fs::read(path).await; rustix::fs::memfd_create(a, b) }",
        "#[cfg(test)]\nmod tests {\n    async fn f() { fs::read(path) }\n}\n",
    ] {
        assert_eq!(blocking_io(&Source::new("src/host/run.rs", text)), [""; 0], "{text}");
    }
    assert_tidy(&files("src", "rs"), blocking_io);
}
