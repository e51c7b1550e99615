//! Schemas are enforced: at `hob pack`, at an install and at a call; and recipes that an older Hob installed
//! keep working.

use std::{fs, io::Read, path::Path};

use hob::model::{Code, Digest};
use serde_json::json;

use super::{
    hostile::{Den, Raw, archive, file, indexed},
    rig::{Ran, Rig, Signed, component, put, run, url, write_recipe},
    served::Serving,
};

const ECHO: &str = "class Subject:\n    def run(self, input):\n        return input\n";

/// A recipe `lab/red` with these lines of TOML as its schemas.
fn recipe(folder: &Path, input: &str, output: &str) {
    write_recipe(folder, "lab/red", "0.1.0", ECHO, "python = \">=3.9\"\n");
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let manifest = manifest.replace("input = {}", &format!("input = {input}")).replace("output = {}", &format!("output = {output}"));
    fs::write(folder.join("recipe.toml"), manifest).unwrap();
}

const MAIL: &str = "{ properties = { mail = { format = \"email\" } } }";
const TYPO: &str = "{ properties = { mail = { format = \"emial\" } } }";

#[test]
fn a_format_is_held_in_a_call_and_one_that_does_not_exist_is_refused() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    recipe(&folder, MAIL, "{}");
    rig.hob(&["call", "./red", "run", r#"{"mail": "a@b.org"}"#]).well();
    rig.hob(&["call", "./red", "run", r#"{"mail": "nobody"}"#]).refused(Code::InvalidInput, &["`/mail`"]);
    recipe(&folder, "{}", MAIL);
    let given = rig.hob(&["call", "./red", "run", r#"{"mail": "nobody"}"#, "--json"]).json();
    assert_eq!(
        (&given["fault"]["code"], &given["fault"]["detail"]["violations"][0]["pointer"]),
        (&json!("invalid_output"), &json!("/mail"))
    );
    recipe(&folder, "{ properties = { n = { type = \"integer\", format = \"int32\", x-unit = \"s\" } } }", "{}");
    let packed = rig.hob(&["pack", "./red", "--json"]);
    assert_eq!(
        packed.json()["not_held"],
        json!(["operations.run.input.properties.n.format: `format = \"int32\"`", "operations.run.input.properties.n.x-unit: `x-unit`"])
    );
    assert!(packed.stderr.contains("not held: operations.run.input.properties.n.format"), "{packed:#?}");
    assert!(rig.hob(&["show", "./red"]).well().contains("not held: operations.run.input.properties.n.x-unit: `x-unit`"));

    recipe(&folder, TYPO, "{}");
    let signed = Signed::new();
    let publish = ["publish", "./red", "--repo", signed.repository.to_str().unwrap(), "--keys", signed.keys.to_str().unwrap()];
    for words in [&["pack", "./red"][..], &publish, &["call", "./red", "run", "{}"], &["show", "./red"]] {
        rig.hob(words).refused(
            Code::InvalidManifest,
            &["recipe.toml:14: operations.run.input.properties.mail.format: there is no format `emial`", "nearest known format: `email`"],
        );
    }
}

#[tokio::test]
async fn a_signed_recipe_that_says_a_format_that_does_not_exist_is_not_installed() {
    let (den, rig) = (Den::new().await, Rig::new());
    rig.trust(&url(&den.world.repo), &den.world.repo);
    let mistaken = |entry: &Raw| {
        let text = String::from_utf8(entry.content.clone()).unwrap().replace("input = {}", &format!("input = {TYPO}"));
        if entry.name == b"recipe.toml" { file("recipe.toml", text.as_bytes()) } else { entry.clone() }
    };
    let entries: Vec<Raw> = den.honest.iter().map(mistaken).collect();
    den.sign(&archive(&entries), &indexed(&entries));
    rig.hob(&["add", "hob/plain"]).refused(Code::InvalidManifest, &["there is no format `emial`"]);
    assert_eq!(rig.installed(), [""; 0]);
}

/// Gives `hob.lock` and the shelf the form in which an older Hob left them: without an edition, and with
/// `text` in place of `replaced`, which has the same length, in the manifest.
fn as_older(rig: &Rig, replaced: &str, text: &str) {
    let home = hob::model::Home::at(&rig.home);
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let write = |path: &Path, text: &str| {
        fs::remove_file(path).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    };
    let versions = home.recipes().join("lab/red");
    let ends = |end: &str| {
        let paths = fs::read_dir(&versions).unwrap().map(|entry| entry.unwrap().path());
        paths.into_iter().find(|path| path.to_str().unwrap().ends_with(end) && path.is_dir() == end.is_empty()).unwrap()
    };
    let (folder, index) = (ends(""), ends(".index.json"));
    let manifest = folder.join("recipe.toml");
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (before, lock) = (read(&manifest), home.lock_file());
    let after = before.replace(replaced, text);
    assert!(before.contains(replaced) && before.len() == after.len());
    write(&manifest, &after);
    let indexed = read(&index);
    let changed = indexed.replace(&Digest::of(before.as_bytes()).hex(), &Digest::of(after.as_bytes()).hex());
    write(&index, &changed);
    let locked = read(&lock);
    assert!(locked.contains("edition = 2\n"), "{locked}");
    let locked = locked.replace("edition = 2\n", "").replace(&Digest::of(indexed.as_bytes()).hex(), &Digest::of(changed.as_bytes()).hex());
    write(&lock, &locked);
}

#[test]
fn what_an_older_hob_installed_keeps_working_and_says_what_it_does_not_hold() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = rig.folder.path().join("red");
    recipe(&folder, MAIL, "{}");
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/red"]).well();
    let nobody = ["call", "lab/red", "run", r#"{"mail": "nobody"}"#];
    rig.hob(&nobody).refused(Code::InvalidInput, &["`/mail`"]);
    assert!(!rig.hob(&["list"]).stderr.contains("older"));

    // Its manifest would be refused today.
    as_older(&rig, "email", "emial");
    rig.hob(&nobody).well();
    rig.hob(&["verify"]).well();
    let listed = rig.hob(&["list", "--json"]);
    let warning = "operations.run.input.properties.mail.format: there is no format `emial` in JSON Schema";
    assert!(listed.json()[0]["warnings"][0].as_str().unwrap().starts_with(warning), "{listed:#?}");
    assert!(listed.stderr.contains("lab/red: installed by an older Hob"), "{listed:#?}");
    assert!(rig.hob(&["show", "lab/red"]).well().contains(warning));
    // Callers can do nothing about it, so `hob list`, `hob doctor` and `hob serve` report it.
    let logging = |words: &[&str], level: &str| {
        let mut command = rig.command(words);
        command.env("HOB_LOG", level);
        run(command, b"")
    };
    let warned = |ran: &Ran| ran.stderr.contains("installed by an older Hob") && ran.stderr.contains("emial");
    assert!(!warned(&logging(&nobody, "warn")) && !warned(&rig.hob(&[&nobody[..], &["--quiet"]].concat())));
    assert!(warned(&logging(&nobody, "info")) && warned(&rig.hob(&["doctor"])));
    let mut serving = Serving::start(&rig, &[]);
    serving.end(rustix::process::Signal::TERM, 60);
    let mut said = String::new();
    serving.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("installed by an older Hob") && said.contains("emial"), "{said}");
    // Adding the installed version changes nothing.
    rig.hob(&["add", "lab/red"]).well();
    rig.hob(&nobody).well();

    // A recipe that is accepted today is reported as not enforced until it is added again, also to a running
    // server.
    as_older_again(&rig);
    let serving = Serving::start(&rig, &[]);
    rig.hob(&nobody).well();
    assert!(rig.hob(&["show", "lab/red"]).well().contains("mail.format: `format = \"email\"` is not held"));
    rig.hob(&["add", "lab/red"]).well();
    rig.hob(&nobody).refused(Code::InvalidInput, &["`/mail`"]);
    assert!(!rig.hob(&["list"]).stderr.contains("older"));
    drop(serving);
}

/// The same recipe as published, still in the form of an older Hob.
fn as_older_again(rig: &Rig) {
    rig.hob(&["remove", "lab/red"]).well();
    rig.hob(&["add", "lab/red"]).well();
    as_older(rig, "email", "email");
}

/// Replaces a text in the manifest of `folder`.
fn edit(folder: &Path, replaced: &str, text: &str) {
    let path = folder.join("recipe.toml");
    let before = fs::read_to_string(&path).unwrap();
    assert!(before.contains(replaced), "{before}");
    fs::write(path, before.replacen(replaced, text, 1)).unwrap();
}

const WIDER: &str = "hob = \">=0.1.1, <0.2\"";

#[test]
fn a_schema_in_a_file_says_null_and_travels_with_the_recipe() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = rig.folder.path().join("red");
    recipe(&folder, "\"schemas/run.json\"", "{}");
    let schema = folder.join("schemas/run.json");
    rig.hob(&["show", "./red"])
        .refused(Code::InvalidManifest, &["recipe.toml:14: operations.run.input: `schemas/run.json`: there is no such file"]);
    put(&schema, br#"{"properties": {"a": {"enum": ["x", null], "default": null}, "text": true}}"#);
    // Hob 0.1.0 does not accept this file.
    for words in [&["pack", "./red"][..], &["call", "./red", "run", "{}"]] {
        rig.hob(words).refused(Code::InvalidRecipe, &["operations.run.input", "`schemas/run.json`", ">=0.1.1"]);
    }
    edit(&folder, "hob = \"0.1\"", WIDER);
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/red"]).well();
    for recipe in ["./red", "lab/red"] {
        assert_eq!(rig.hob(&["call", recipe, "run", r#"{"a": null}"#]).well(), r#"{"a": null}"#.replace(' ', ""));
        rig.hob(&["call", recipe, "run", r#"{"a": "y"}"#]).refused(Code::InvalidInput, &["`/a`"]);
        assert_eq!(rig.hob(&["show", recipe, "--json"]).json()["operations"][0]["input"]["properties"]["a"]["enum"], json!(["x", null]));
    }
    // The file is checked like every other file of a recipe.
    let installed = rig.hob(&["show", "lab/red", "--json"]).json()["folder"].as_str().unwrap().to_owned();
    let installed = Path::new(&installed).join("schemas/run.json");
    fs::set_permissions(&installed, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&installed, "true").unwrap();
    rig.hob(&["call", "lab/red", "run", "{}"]).refused(Code::ShelfAltered, &["schemas/run.json"]);

    for (text, says) in [
        (r#"{"properties": {"a": {"format": "emial"}}}"#, "`schemas/run.json` at `/properties/a/format`: there is no format `emial`"),
        (r#"{"items": [{"tpye": 1}]}"#, "at `/items`"),
        (r#"{"a": "#, "`schemas/run.json`: it is not valid JSON"),
        ("[]", "is an empty list, wanted a JSON Schema"),
        (r#"{"minimum": 18446744073709551616}"#, "past 64 bits"),
    ] {
        put(&schema, text.as_bytes());
        rig.hob(&["pack", "./red"]).refused(Code::InvalidManifest, &["recipe.toml:14: operations.run.input: ", says]);
    }
    put(&schema, format!("{{\"description\": \"{}\"}}", "x".repeat(1 << 20)).as_bytes());
    rig.hob(&["pack", "./red"]).refused(Code::InvalidManifest, &["schemas/run.json"]);
    for path in ["../run.json", "/etc/run.json", "schemas/run.toml", "a//b.json"] {
        recipe(&folder, &format!("\"{path}\""), "{}");
        rig.hob(&["pack", "./red"])
            .refused(Code::InvalidManifest, &[&format!("`{path}` is not the path of a JSON file inside the recipe")]);
    }
    // Below `pod/`, every Hob packs it.
    recipe(&folder, "\"pod/run.json\"", "{}");
    put(&folder.join("pod/run.json"), b"true");
    rig.hob(&["pack", "./red"]).well();
}

#[test]
fn blobs_that_are_declared_are_held_in_and_out_at_every_door() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    recipe(&folder, "{}", "{}");
    let pod = "import hob_pod\nclass Subject:\n    def run(self, input, blobs):\n        return hob_pod.Result(input, {name: hob_pod.Blob(b'x' * size, kind) for name, kind, size in input['give']})\n";
    put(&folder.join("pod/subject.py"), pod.as_bytes());
    let declared = "output = {}\nblobs.in.picture = { media_type = \"image/*\", bytes_max = 8 }\nblobs.out.small = { media_type = \"image/jpeg\", bytes_max = 4 }\n";
    edit(&folder, "output = {}\n", declared);
    rig.hob(&["show", "./red"]).refused(Code::InvalidManifest, &["Hob 0.1.1 is the first that knows `blobs`"]);
    edit(&folder, "hob = \"0.1\"", WIDER);
    put(&rig.folder.path().join("a.png"), b"12345678");
    put(&rig.folder.path().join("b.png"), b"123456789");
    put(&rig.folder.path().join("a.wav"), b"1234");
    let shown = rig.hob(&["show", "./red"]);
    assert!(
        shown
            .well()
            .contains("takes the blob `picture` (image/*, at most 8 bytes)\n  gives the blob `small` (image/jpeg, at most 4 bytes)")
    );
    assert_eq!(
        rig.hob(&["show", "./red", "--json"]).json()["operations"][0]["blobs"]["in"]["picture"],
        json!({ "media_type": "image/*", "bytes_max": 8, "required": true })
    );
    let good = r#"{"give": [["small", "image/jpeg", 4]]}"#;
    put(&folder.join("cases/one/input.json"), br#"{"operation": "run", "input": {}, "blobs": {"picture": "a.png"}}"#);
    put(&folder.join("cases/one/a.png"), b"12345678");
    let signed = Signed::new();
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/red"]).well();
    for (recipe, served) in [("./red", false), ("lab/red", true)] {
        let serving = served.then(|| Serving::start(&rig, &[]));
        let call = |input: &str, blobs: &[&str]| {
            let mut words = vec!["call", recipe, "run", input];
            blobs.iter().for_each(|blob| words.extend(["--blob", blob]));
            rig.hob(&words)
        };
        call(good, &["picture=a.png"]).well();
        call(good, &[]).refused(Code::InvalidInput, &["the blob `picture` is missing", "`hob show"]);
        call(good, &["pictrue=a.png"]).refused(Code::InvalidInput, &["the blob `pictrue` is not one"]);
        call(good, &["picture=b.png"]).refused(Code::InvalidInput, &["has 9 bytes; at most 8"]);
        call(good, &["picture=a.wav"]).refused(Code::InvalidInput, &["is `audio/wav`, wanted `image/*`"]);
        for (give, says) in [
            ("[]", "the blob `small` is missing"),
            (r#"[["small", "image/png", 4]]"#, "is `image/png`, wanted `image/jpeg`"),
            (r#"[["small", "image/jpeg", 5]]"#, "has 5 bytes; at most 4"),
            (r#"[["small", "image/jpeg", 4], ["more", "image/jpeg", 1]]"#, "the blob `more` is not one"),
        ] {
            let mut words = vec!["call", recipe, "run", "", "--json", "--blob", "picture=a.png"];
            let input = format!("{{\"give\": {give}}}");
            words[3] = &input;
            let fault = rig.hob(&words).json()["fault"].clone();
            assert!(fault["code"] == "invalid_output" && fault["blame"] == "recipe", "{fault}");
            assert!(fault["message"].as_str().unwrap().contains(says), "{says}: {fault}");
        }
        drop(serving);
    }
}

#[test]
fn an_operation_has_the_name_that_its_tool_has() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    recipe(&folder, "{}", "{}");
    let methods = "class Subject:\n    def API_post_search(self, input):\n        return 1\n    def getUser(self, input):\n        return 2\n    def pets_list(self, input):\n        return 3\n";
    put(&folder.join("pod/subject.py"), methods.as_bytes());
    let more = |name: &str| format!("[operations.\"{name}\"]\nsummary = \"s\"\ninput = {{}}\noutput = {{}}\n");
    edit(&folder, "[operations.run]", &format!("{}{}[operations.\"pets.list\"]", more("API-post-search"), more("getUser")));
    put(&folder.join("cases/one/input.json"), br#"{"operation": "getUser", "input": {}}"#);
    let signed = Signed::new();
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/red"]).well();
    let serving = Serving::start(&rig, &[]);
    for (name, answer) in [("API-post-search", "1"), ("getUser", "2"), ("pets.list", "3")] {
        for recipe in ["./red", "lab/red"] {
            assert_eq!(rig.hob(&["call", recipe, name, "{}"]).well(), answer);
        }
        let told = serving.ask(&format!("POST /v1/recipes/lab/red/{name}"), b"{}");
        assert_eq!(told.body.trim_end(), answer, "{name}");
    }
    drop(serving);
    put(&folder.join("recipe.toml"), fs::read_to_string(folder.join("recipe.toml")).unwrap().replace("getUser", "pets-list").as_bytes());
    rig.hob(&["pack", "./red"])
        .refused(Code::InvalidManifest, &["`pets.list`", "`pets-list`", "would be one method of the pod, `pets_list`"]);
}

#[test]
fn glue_answers_an_operation_that_the_pod_lacks() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    recipe(&folder, "{}", "{}");
    edit(&folder, "[operations.run]", "[operations.extra]\nsummary = \"s\"\ninput = {}\noutput = {}\n\n[operations.run]");
    rig.hob(&["call", "./red", "run", "1"]).refused(Code::ImportFailed, &["no method `extra`"]);
    edit(&folder, "[pod]", "[glue]\nworld = \"0.1\"\n\n[pod]");
    put(&folder.join("glue.wasm"), &component(include_str!("../../guests/pass.wat")));
    assert_eq!(rig.hob(&["call", "./red", "run", "1"]).well(), "1");
    // Glue that asks the pod for that operation gets the fault.
    let fault = rig.hob(&["call", "./red", "extra", "1", "--json"]).json()["fault"].clone();
    assert!(fault["code"] == "recipe_failed" && fault["message"].as_str().unwrap().contains("no method `extra`"), "{fault}");
    put(&folder.join("glue.wasm"), &component(include_str!("../../guests/echo.wat")));
    assert_eq!(rig.hob(&["call", "./red", "extra", "1"]).well(), "1");
}

#[test]
fn a_case_may_have_blobs_chunks_and_faults_of_the_recipes_own() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    recipe(&folder, "{ type = \"object\" }", "{}");
    edit(&folder, "output = {}\n", "output = {}\nblobs.in.picture = { media_type = \"image/*\", bytes_max = 8 }\n");
    edit(&folder, "hob = \"0.1\"", WIDER);
    let case = |files: &[(&str, &str)]| {
        let _ = fs::remove_dir_all(folder.join("cases/one"));
        files.iter().for_each(|(file, text)| put(&folder.join("cases/one").join(file), text.as_bytes()));
        rig.hob(&["pack", "./red"])
    };
    let with = ("input.json", r#"{"operation": "run", "input": {}, "blobs": {"picture": "a.png"}, "tolerance": 0.01}"#);
    case(&[with, ("a.png", "12345678"), ("output.json", "{}")]).well();
    case(&[with, ("a.png", "12345678"), ("fault.json", r#"{"code": "no_picture"}"#)]).well();
    let without = ("input.json", r#"{"operation": "run", "input": {}}"#);
    case(&[without, ("fault.json", r#"{"code": "invalid_input"}"#)]).well();
    for (files, says) in [
        (&[without, ("output.json", "{}")][..], "the blob `picture` is missing"),
        (&[with, ("output.json", "{}")], "names `a.png` as the blob `picture`, and there is no such file"),
        (&[with, ("a.png", "123456789"), ("output.json", "{}")], "the blob `picture` has 9 bytes; at most 8"),
        (&[with, ("a.png", "1"), ("chunks.json", "[1]"), ("output.json", "{}")], "no `streaming = true`"),
        (&[with, ("a.png", "1"), ("fault.json", r#"{"code": "invalid_input"}"#)], "expects `invalid_input`"),
    ] {
        let ran = case(files);
        assert!(ran.exit != Some(0) && ran.stderr.contains("error[invalid_recipe]") && ran.stderr.contains(says), "{says}: {ran:#?}");
        assert!(ran.stderr.contains("hint: "), "{says}: {ran:#?}");
    }
    let other = ("input.json", r#"{"operation": "rum", "input": {}}"#);
    let ran = case(&[other, ("output.json", "{}")]);
    assert!(ran.stderr.contains("calls an operation that is not there") && ran.stderr.contains("hint: correct `operation`"), "{ran:#?}");
    // If the manifest declares an operation and no method takes it, the recipe is at fault.
    put(&folder.join("pod/subject.py"), b"class Subject:\n    def run(self, input):\n        return input\n");
    case(&[with, ("a.png", "12345678"), ("output.json", "{}")]).well();
    put(&rig.folder.path().join("a.png"), b"1");
    let signature = "write `def run(self, input, blobs):`";
    rig.hob(&["call", "./red", "run", "{}", "--blob", "picture=a.png"]).refused(Code::RecipeFailed, &["no parameter `blobs`", signature]);
    // The hint of the failed case names the case.
    let failed = rig.hob(&["test", "./red"]);
    assert!(failed.stdout.contains("hint: it is called with") && failed.stderr.contains(signature), "{failed:#?}");
}
