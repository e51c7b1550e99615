//! Wrong content in the place of a file (a web page, a Git LFS pointer, another encoding): every reader names
//! it.

use std::fs;

use hob::model::Code;
use serde_json::Value;

use super::{
    calling::with_echo,
    rig::{Rig, Signed, current, put, run, write_recipe},
    served::Serving,
};

const PAGE: &[u8] =
    b"<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Strict//EN\"><html><body>Sign in</body></html>";
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 3\n";
const ECHO: &str = "class Subject:\n    def run(self, input):\n        return input\n";

/// Each content, its name in faults, and a word of the next step for a user who has it in a folder.
fn table() -> [(Vec<u8>, &'static str, &'static str); 4] {
    let text = "{\"a\": 1}\n";
    [
        (PAGE.to_vec(), "a web page in place of the file", "download the file again"),
        (POINTER.to_vec(), "a Git LFS pointer in place of the file", "git lfs pull"),
        (text.encode_utf16().flat_map(u16::to_le_bytes).collect(), "text in UTF-16", "save it as UTF-8"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), "gzip-compressed", "gunzip"),
    ]
}

#[test]
fn a_root_that_is_none_is_told_by_what_it_is() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let good = fs::read(signed.repository.join("metadata/1.root.json")).unwrap();
    let root = rig.folder.path().join("root.json");
    let add = || rig.hob(&["remote", "add", "main", &signed.url(), "--root", root.to_str().unwrap()]);
    let marked = ["\u{feff}".as_bytes(), &good].concat();
    let more = [
        (marked, "text with a byte order mark before it", "without BOM"),
        (Vec::new(), "empty", "it has no byte"),
        (b"{\"signed\": 1}".to_vec(), "is not valid", "1.root.json"),
    ];
    for (bytes, is, next) in table().into_iter().chain(more) {
        fs::write(&root, bytes).unwrap();
        add().refused(Code::MetadataInvalid, &["remote `main`: the root file", is, next, "ask the repository's maintainer"]);
        let told = rig.hob(&["remote", "add", "main", &signed.url(), "--root", root.to_str().unwrap(), "--json"]);
        assert_eq!(told.json()["fault"]["blame"], "caller", "{told:#?}");
    }
    // An endless file is read as far as a root may be long.
    rig.hob(&["remote", "add", "main", &signed.url(), "--root", "/dev/zero"])
        .refused(Code::MetadataInvalid, &["the root file has more than", "1.root.json"]);
    assert!(rig.hob(&["remote", "list"]).well().contains("no remote"));
    fs::write(&root, good).unwrap();
    add().well();
}

#[test]
fn files_of_a_recipe_that_are_something_else_are_told_by_what_they_are() {
    let rig = Rig::new();
    let folder = rig.recipe("lab/red", ECHO, "python = \">=3.9\"\nlock = \"pod/requirements.lock\"");
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let manifest = manifest
        .replace("input = {}", "input = \"schemas/run.json\"")
        .replace("hob = \"0.1\"", "hob = \">=0.1.1, <0.2\"\nfiles = [\"schemas\"]");
    let manifest = manifest.replace("\n[pod]", "\n[glue]\nworld = \"0.1\"\n\n[pod]");
    let files: [(&str, &[u8], Code); 6] = [
        ("recipe.toml", manifest.as_bytes(), Code::InvalidManifest),
        ("schemas/run.json", b"{}", Code::InvalidManifest),
        ("pod/requirements.lock", b"", Code::InvalidRecipe),
        ("cases/one/output.json", br#"{"text": "a"}"#, Code::InvalidRecipe),
        (".hobignore", b"*.tmp\n", Code::InvalidRecipe),
        ("glue.wasm", super::rig::glue(), Code::GlueIncompatible),
    ];
    for (path, good, _) in files {
        put(&folder.join(path), good);
    }
    rig.hob(&["pack", folder.to_str().unwrap(), "-o", "red.hob"]).well();
    for (path, good, code) in files {
        for (bytes, is, _) in table() {
            fs::write(folder.join(path), bytes).unwrap();
            rig.hob(&["pack", folder.to_str().unwrap(), "-o", "red.hob"]).refused(code, &[&format!("is {is}")]);
        }
        fs::write(folder.join(path), good).unwrap();
    }
    rig.hob(&["pack", folder.to_str().unwrap(), "-o", "red.hob"]).well();
}

#[test]
fn hobs_own_files_keys_and_metadata_that_are_something_else_are_told_by_what_they_are() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let (repository, keys) = (signed.repository.to_str().unwrap(), signed.keys.to_str().unwrap());
    let snapshot = current(&signed.repository, "snapshot");
    for (bytes, is, next) in table() {
        for name in ["hob.toml", "hob.lock"] {
            put(&rig.home.join(name), &bytes);
            rig.hob(&["list"]).refused(Code::InvalidConfig, &[name, &format!("is {is}"), next]);
            fs::remove_file(rig.home.join(name)).unwrap();
        }
        for (file, code) in [(&snapshot, Code::MetadataInvalid), (&signed.keys.join("online.key.json"), Code::KeyInvalid)] {
            let good = fs::read(file).unwrap();
            fs::write(file, &bytes).unwrap();
            rig.hob(&["repo", "refresh", repository, "--keys", keys]).refused(code, &[&format!("it is {is}"), next]);
            fs::write(file, good).unwrap();
        }
    }
    rig.hob(&["repo", "refresh", repository, "--keys", keys]).well();
    let input = "{\"text\": \"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let folder = rig.folder.path().join("recipe");
    write_recipe(&folder, "lab/echo", "0.1.0", ECHO, "python = \">=3.9\"");
    let call = rig.command(&["call", "./recipe", "run", "-"]);
    run(call, &input).refused(Code::InvalidJson, &["input on stdin is text in UTF-16"]);
}

#[test]
fn a_body_that_is_no_json_is_told_by_what_it_is() {
    let (rig, _signed) = with_echo();
    let serving = Serving::start(&rig, &[]);
    let general = "{\"recipe\": \"hob/echo\", \"operation\": \"echo\", \"input\": {\"text\": \"a\"}}";
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    for (head, good) in [("POST /v1/calls", general), ("POST /v1/recipes/hob/echo/echo", "{\"text\": \"a\"}")] {
        let marked = ["\u{feff}", good].concat();
        for (bytes, is, next) in [
            (utf16(good), "text in UTF-16", "UTF-8"),
            (utf16(&marked), "text in UTF-16", "UTF-8"),
            (b"\x1f\x8b\x08\0".to_vec(), "gzip-compressed", "compressed"),
            (PAGE.to_vec(), "a web page in place of the file", "JSON"),
            (Vec::new(), "empty", "wanted one JSON document"),
        ] {
            let answer = serving.ask(head, &bytes);
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_json"), "{head} {is}: {answer:?}");
            let fault: &Value = &answer.json()["fault"];
            let told = |key: &str, part: &str| fault[key].as_str().is_some_and(|text| text.contains(part));
            assert!(told("message", &format!("the body is {is}; wanted JSON in UTF-8")) && told("hint", next), "{head}: {answer:?}");
        }
        for good in [good, marked.as_str()] {
            assert_eq!(serving.ask(head, good.as_bytes()).status, 200, "{head} {good}");
        }
        assert_eq!(serving.ask(head, b"{").code(), "invalid_json");
    }
}
