//! Bad input in every place where the program takes input: one clear fault, the documented exit code, a next
//! step.

use std::fs;

use hob::model::{Code, limits};
use serde_json::Value;

use super::rig::{Rig, Signed, put, write_recipe, write_tiny};

const ANY: &str = "python = \">=3.9\"";
const GOOD: &str = "class Subject:\n    def run(self, input):\n        return input\n";

/// A home with `lab/plain` installed, whose `run` wants a text of at most five letters and a number.
fn installed() -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = rig.recipe("lab/plain", GOOD, ANY);
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap().replace(
        "input = {}",
        "input = { type = \"object\", properties = { text = { type = \"string\", maxLength = 5 }, list = { type = \"array\", items = { type = \"integer\" } } }, required = [\"text\"] }",
    );
    fs::write(folder.join("recipe.toml"), manifest).unwrap();
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/plain"]).well();
    (rig, signed)
}

#[test]
fn a_call_that_makes_no_sense_says_what_would() {
    let (rig, _signed) = installed();
    let cases: &[(&[&str], Code, &[&str])] = &[
        (&["call", "lab/plane", "run", "{}"], Code::RecipeNotFound, &["`lab/plane`", "installed: `lab/plain`", "`hob add lab/plane`"]),
        (&["call", "lab/plain", "walk", "{}"], Code::OperationNotFound, &["no operation `walk`", "it has: `run`", "`hob show lab/plain`"]),
        (&["call", "lab/plain", "run", "{}"], Code::InvalidInput, &["`/`", "wanted the key `text`, found an empty object"]),
        (&["call", "lab/plain", "run", r#"{"text": 5}"#], Code::InvalidInput, &["`/text`", "wanted a text (string), found 5"]),
        (
            &["call", "lab/plain", "run", r#"{"text": "toolong", "list": [1, "x"]}"#],
            Code::InvalidInput,
            &["`/list/1`", "integer", "found the text \"x\"", "also at /text: wanted at most 5 characters, found 7"],
        ),
        (&["call", "lab/plain", "run", "{text: 1}"], Code::InvalidJson, &["input is not valid JSON", "line 1 column 2"]),
        (&["call", "lab/plain", "run", ""], Code::InvalidJson, &["input is not valid JSON"]),
        (
            &["call", "lab/plain", "run", r#"{"text": "a", "list": [18446744073709551616]}"#],
            Code::InvalidJson,
            &["past 64 bits", "18446744073709551616"],
        ),
        (&["call", "lab/plain", "run", r#"{"text": "a"}"#, "--deadline", "0ms"], Code::Usage, &["0 ms"]),
        (&["call", "lab/plain", "run", r#"{"text": "a"}"#, "--blob", "nothing"], Code::Usage, &["NAME=FILE"]),
        (&["call", "plain", "run", "{}"], Code::Usage, &["`plain` is not a recipe name", "publisher/name"]),
        (&["call", "./nowhere", "run", "{}"], Code::RecipeNotFound, &["./nowhere", "recipe.toml"]),
        (&["call", "plain@1", "run", "{}"], Code::RecipeNotFound, &["plain@1"]),
        (&["show", "lab/plane"], Code::RecipeNotFound, &["installed: `lab/plain`"]),
        (&["remove", "lab/plane"], Code::RecipeNotFound, &["installed: `lab/plain`"]),
        (&["verify", "lab/plane"], Code::RecipeNotFound, &["installed: `lab/plain`"]),
        (&["add", "lab/plane"], Code::NotInRepository, &["no recipe `lab/plane`", "`plain`"]),
        (&["add", "nobody/plain"], Code::NotInRepository, &["nobody"]),
        (&["add", "lab/plain@^7"], Code::NotInRepository, &["`^7`", "`0.1.0`"]),
        (&["add", "lab/plain@newest"], Code::Usage, &["`newest` is not a version range"]),
        (&["add", "lab/plain", "--remote", "other"], Code::RemoteNotFound, &["`other`", "`main`"]),
        (&["remote", "remove", "other"], Code::RemoteNotFound, &["`other`", "`main`"]),
    ];
    for (words, code, parts) in cases {
        rig.hob(words).refused(*code, parts);
    }
    // For programs: the same exit code, and the fault on stdout.
    for (words, code, _) in cases {
        let ran = rig.hob(&[words, &["--json"][..]].concat());
        assert_eq!(ran.exit, Some(i32::from(code.exit())), "{words:?}: {ran:#?}");
        let fault = &ran.json()["fault"];
        assert_eq!(fault["code"], code.name(), "{words:?}: {ran:#?}");
        assert!(fault["message"].is_string() && fault["hint"].is_string() && fault["blame"].is_string(), "{fault}");
    }
    // Several mistakes of a manifest at once, and keys of other systems with Hob's names for them.
    let folder = rig.recipe("lab/wrong", GOOD, ANY);
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let wrong = manifest.replace("input = {}", "inputs = {}\ntimeout = 3").replace("summary", "sumary");
    fs::write(folder.join("recipe.toml"), wrong).unwrap();
    let says = ["knows no key `sumary`", "  also ", "knows no key `inputs`", "nearest known key: `input`", "write `deadline_ms`"];
    rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]).refused(Code::InvalidManifest, &says);
    // Nothing was lost.
    assert_eq!(rig.hob(&["call", "lab/plain", "run", r#"{"text": "a"}"#]).well(), r#"{"text":"a"}"#);
    rig.hob(&["verify"]).well();
}

/// Common mistakes of newcomers, and their faults: what is wrong, and the next step.
#[test]
fn a_recipe_that_does_not_keep_its_word_is_told_how_it_would() {
    let rig = Rig::new();
    let method = |body: &str| format!("class Subject:\n    def run(self, input):\n        {body}\n");
    let cases: &[(&str, String, Code, &[&str])] = &[
        (
            "returns-none",
            method("{'text': 'x'}"),
            Code::InvalidOutput,
            &["wanted an object, found null", "a method that ends without `return` gives null", "hob show "],
        ),
        ("yields", method("yield 1"), Code::RecipeFailed, &["set `streaming = true` in [operations.run]"]),
        (
            "returns-text",
            method("return 'x'"),
            Code::InvalidOutput,
            &["found the text \"x\"", "the recipe's author returns what it says, or corrects it"],
        ),
        ("no-input", "class Subject:\n    def run(self): pass\n".to_owned(), Code::RecipeFailed, &["write `def run(self, input):`"]),
        ("raises", method("return input['x']"), Code::RecipeFailed, &["KeyError: 'x'", "its author corrects it", "subject.py"]),
        ("reads-keys", method("return {'text': __builtins__['input']()}"), Code::RecipeFailed, &["a pod has no terminal"]),
        ("debugs", method("breakpoint()"), Code::RecipeFailed, &["take `breakpoint()` out"]),
        ("recurses", method("return self.run(input)"), Code::RecipeFailed, &["calls itself without end"]),
        (
            "runs-a-program",
            method("__import__('subprocess').check_output(['ls', '/nowhere/x'])"),
            Code::RecipeFailed,
            &["returned non-zero", "runs in the pod's sandbox"],
        ),
        (
            "writes-beside-itself",
            method("open(__file__ + '.log', 'w')"),
            Code::SandboxDenied,
            &["Read-only file system", "write into the working folder"],
        ),
        ("relative", format!("from .helper import x\n{GOOD}"), Code::ImportFailed, &["`from helper import x`"]),
        ("no-colon", "class Subject\n".to_owned(), Code::ImportFailed, &["expected ':' (subject.py, line 1)", "correct that line"]),
        ("function", "def Subject(input): pass\n".to_owned(), Code::ImportFailed, &["is a function, wanted a class"]),
    ];
    for (name, source, code, says) in cases {
        let folder = rig.recipe(&format!("lab/{name}"), source, ANY);
        let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
        fs::write(folder.join("recipe.toml"), manifest.replace("output = {}", "output = { type = \"object\" }")).unwrap();
        rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]).refused(*code, says);
    }
    let folder = rig.recipe("lab/prefix", GOOD, ANY);
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    assert!(manifest.contains("subject:Subject"));
    fs::write(folder.join("recipe.toml"), manifest.replace("subject:Subject", "pod.subject:Subject")).unwrap();
    let says = ["modules are named from the folder `pod`", "`subject:Subject`"];
    rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]).refused(Code::ImportFailed, &says);
}

#[test]
fn words_that_the_command_line_does_not_know_are_usage_in_text_and_in_json() {
    let rig = Rig::new();
    for words in [&["kall"][..], &["add"], &["list", "--jsn"], &["remote", "add", "x", "file:///x"], &["call", "a/b"]] {
        let ran = rig.hob(words);
        assert_eq!((ran.exit, ran.stdout.as_str()), (Some(2), ""), "{ran:#?}");
        assert!(ran.stderr.contains("error: ") && ran.stderr.contains("Usage: "), "{ran:#?}");
        let json = rig.hob(&[words, &["--json"][..]].concat());
        assert_eq!(json.exit, Some(2));
        assert_eq!(json.json()["fault"]["code"], "usage", "{json:#?}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(rig.hob(&["--version"]).well(), format!("hob {version}"));
    assert_eq!(rig.hob(&["--version", "--json"]).json(), serde_json::json!({ "version": version }));
}

#[test]
fn input_that_is_too_large_is_refused_before_anything_runs() {
    let (rig, _signed) = installed();
    let words = ["call", "lab/plain", "run", "-"];
    let text = |letter: &str, bytes: usize| format!("{{\"text\":\"{}\"}}", letter.repeat(bytes / letter.len()));
    // Just within the bound, the schema refuses it.
    let within = text("a", limits::DOCUMENT_BYTES_MAX - 20);
    rig.hob_reading(&words, within.as_bytes()).refused(Code::InvalidInput, &["`/text`"]);
    // Beyond the bound, at whatever byte the bound cuts.
    let bound = limits::DOCUMENT_BYTES_MAX.to_string();
    for letter in ["a", "ä", "€", "😀"] {
        let past = text(letter, limits::DOCUMENT_BYTES_MAX + 100);
        assert!(past.len() > limits::DOCUMENT_BYTES_MAX);
        rig.hob_reading(&words, past.as_bytes()).refused(Code::TooLarge, &[&bound, "blob"]);
    }
    rig.hob_reading(&words, b"{\"text\": \"\xff\"}").refused(Code::InvalidJson, &["UTF-8"]);
}

#[test]
fn a_wrong_manifest_is_refused_with_line_key_and_the_nearest_known_key() {
    let rig = Rig::new();
    let cases: &[(&str, &str, &[&str])] = &[
        ("summary = \"For", "sumary = \"For", &["recipe.toml:4", "`sumary`", "nearest known key: `summary`"]),
        ("python = ", "pyhton = ", &["recipe.toml:10", "pod", "pyhton"]),
        ("version = \"0.1.0\"", "version = \"one\"", &["recipe.toml:2", "version", "`one`"]),
        ("[pod]", "[pod", &["recipe.toml:7", "TOML"]),
        ("input = {}", "input = { tpye = \"object\" }", &["recipe.toml:13", "tpye", "nearest known key: `type`"]),
        ("hob = \"0.1\"", "hob = \"9\"", &["recipe.toml:5", "wants Hob ^9"]),
        ("name = \"lab/wrong\"", "name = \"wrong\"", &["recipe.toml:1", "publisher/name"]),
    ];
    for (right, wrong, parts) in cases {
        let folder = rig.recipe("lab/wrong", GOOD, ANY);
        let path = folder.join("recipe.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(right));
        fs::write(&path, text.replacen(right, wrong, 1)).unwrap();
        let folder = folder.to_str().unwrap();
        for words in [&["call", folder, "run", "{}"][..], &["pack", folder], &["build", folder], &["show", folder]] {
            rig.hob(words).refused(Code::InvalidManifest, parts);
        }
    }
    // Nor is it published.
    let signed = Signed::new();
    let folder = rig.recipe("lab/wrong", GOOD, "python = \">=3.9\"\nGPU = true");
    let words =
        ["publish", folder.to_str().unwrap(), "--repo", signed.repository.to_str().unwrap(), "--keys", signed.keys.to_str().unwrap()];
    rig.hob(&words).refused(Code::InvalidManifest, &["GPU"]);
    assert!(!signed.repository.join("targets/lab").exists());
}

#[test]
fn a_folder_that_cannot_be_built_says_why() {
    let rig = Rig::new();
    let plain = rig.recipe("lab/plain", GOOD, ANY);
    assert!(rig.hob(&["build", plain.to_str().unwrap()]).well().contains("no glue"));
    assert_eq!(rig.hob(&["build", plain.to_str().unwrap(), "--json"]).json()["component"], Value::Null);
    let tiny = rig.folder.path().join("tiny");
    write_tiny(&tiny, "0.1.0", 10);
    fs::create_dir(tiny.join("glue")).unwrap();
    let before = fs::read(tiny.join("glue.wasm")).unwrap();
    rig.hob(&["build", tiny.to_str().unwrap()]).refused(Code::BuildFailed, &["glue has none of `Cargo.toml`", "`glue.py`", "glue.wasm"]);
    assert_eq!(fs::read(tiny.join("glue.wasm")).unwrap(), before, "what was there stays");
    fs::remove_file(tiny.join("glue.wasm")).unwrap();
    let folder = tiny.to_str().unwrap();
    rig.hob(&["pack", folder]).refused(Code::InvalidRecipe, &["no `glue.wasm`", "`hob build"]);
    rig.hob(&["call", folder, "echo", "{}"]).refused(Code::InvalidRecipe, &["glue.wasm"]);
    let empty = rig.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for command in ["build", "pack"] {
        rig.hob(&[command, empty.to_str().unwrap()]).refused(Code::InvalidRecipe, &["no `recipe.toml`"]);
    }
}

#[test]
fn a_machine_without_the_tools_is_told_which_and_nothing_is_installed() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_tiny("0.1.0", 100);
    let future = rig.recipe("lab/future", GOOD, "python = \">=9\"");
    signed.publish(&future);
    rig.trust(&signed.url(), &signed.repository);

    let add = |variable: &str, value: &str| {
        let output = rig.command(&["add", "lab/tiny"]).env(variable, value).output().unwrap();
        super::rig::Ran {
            exit: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    };
    add("HOB_UV", "/nonexistent/uv").refused(Code::UvMissing, &["/nonexistent/uv", "HOB_UV"]);
    // A program that is not `uv`.
    add("HOB_UV", "/bin/true").refused(Code::UvMissing, &["/bin/true"]);
    add("HOB_PYTHON", "/nonexistent/python3").refused(Code::PythonMissing, &["/nonexistent/python3", ">=3.9", "HOB_PYTHON"]);
    let added = rig.hob(&["add", "lab/future"]);
    added.refused(Code::PythonMissing, &["no Python in the range >=9", "found "]);
    assert_eq!(added.exit, Some(8));
    rig.hob(&["call", future.to_str().unwrap(), "run", "{}"]).refused(Code::PythonMissing, &[">=9"]);
    assert_eq!(rig.installed(), [""; 0]);
    for folder in ["data/recipes", "data/staging", "data/environments"] {
        assert_eq!(fs::read_dir(rig.home.join(folder)).into_iter().flatten().count(), 0, "{folder}");
    }
    // The tools are available again.
    rig.hob(&["add", "lab/tiny"]).well();
}

#[test]
fn a_pod_that_fails_at_import_shows_its_traceback() {
    let rig = Rig::new();
    for (source, code, parts) in [
        ("import nosuchpackage\n", Code::DependencyMissing, &["nosuchpackage", "traceback:", "subject.py\", line 1"][..]),
        (
            "def helper():\n    return 1 / 0\nhelper()\n",
            Code::ImportFailed,
            &["ZeroDivisionError", "traceback:", "subject.py\", line 2, in helper"],
        ),
        ("class Other: pass\n", Code::ImportFailed, &["Subject"]),
        (
            "class Subject:\n    def load(self, models):\n        raise OSError('no weights')\n    def run(self, input): pass\n",
            Code::ImportFailed,
            &["no weights", "line 3, in load"],
        ),
    ] {
        let folder = rig.recipe("lab/broken", source, ANY);
        let ran = rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]);
        assert_eq!(ran.exit, Some(6), "{ran:#?}");
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains(&format!("error[{}]", code.name())), "{ran:#?}");
        for part in parts {
            assert!(ran.stderr.contains(part), "`{part}` is not in {ran:#?}");
        }
    }
    // An operation that raises shows it too.
    let folder = rig.recipe("lab/broken", "class Subject:\n    def run(self, input):\n        return input['colour']\n", ANY);
    let ran = rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]);
    assert_eq!(ran.exit, Some(6));
    assert!(
        ["error[recipe_failed]", "KeyError", "'colour'", "subject.py\", line 3, in run"].iter().all(|part| ran.stderr.contains(part)),
        "{ran:#?}"
    );
}

#[test]
fn a_bundle_that_its_own_publisher_signed_wrong_is_refused() {
    // `hob publish` cannot produce a bundle whose inner name differs from the signed one. A file altered
    // after packing can be put in place, and the next publish and every client refuse it.
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = rig.folder.path().join("plain");
    write_recipe(&folder, "lab/plain", "0.1.0", GOOD, ANY);
    signed.publish(&folder);
    put(&folder.join("pod/subject.py"), b"class Subject:\n    pass\n");
    let words =
        ["publish", folder.to_str().unwrap(), "--repo", signed.repository.to_str().unwrap(), "--keys", signed.keys.to_str().unwrap()];
    rig.hob(&words).refused(Code::AlreadyPublished, &["`lab/plain` 0.1.0 is published already, with other bytes", "raise `version`"]);
    let elsewhere = rig.folder.path().join("nokeys");
    let words = ["publish", folder.to_str().unwrap(), "--repo", signed.repository.to_str().unwrap(), "--keys", elsewhere.to_str().unwrap()];
    rig.hob(&words).refused(Code::KeyInvalid, &["nokeys"]);
}

/// A recipe is called by its folder's path, and its hints name that.
#[test]
fn a_folder_is_named_as_one_and_an_operation_says_how_it_runs() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("plain");
    write_recipe(&folder, "lab/plain", "0.1.0", GOOD, "python = \">=3.9\"\n[pod.session]\nmode = \"exclusive\"\nttl_ms = 60000");
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let more = "\n[operations.keep]\nsummary = \"x\"\ninput = {}\noutput = {}\nsession = true\nstreaming = true\n\n\
                [operations.many]\nsummary = \"x\"\ninput = {}\noutput = {}\nidempotent = true\nbatch = { items = 7 }\n";
    fs::write(folder.join("recipe.toml"), manifest + more).unwrap();
    let hint = rig.hob(&["call", "./plain", "walk", "{}", "--json"]).json()["fault"]["hint"].clone();
    let hint = hint.as_str().unwrap();
    assert!(hint.starts_with("`hob show ") && hint.contains("/plain` lists") && !hint.contains("lab/plain"), "{hint}");
    let shown = rig.hob(&["show", "./plain", "--json"]).json()["operations"].clone();
    let of = |name: &str| shown.as_array().unwrap().iter().find(|shown| shown["name"] == name).unwrap().clone();
    assert!(of("keep")["session"] == true && of("keep")["streaming"] == true && of("keep").get("batch").is_none(), "{shown:#}");
    assert!(of("many")["session"] == false && of("many")["batch"]["items"] == 7, "{shown:#}");
    let text = rig.hob(&["show", "./plain"]).well().to_owned();
    assert!(text.contains("in a session only") && text.contains("`--stream` prints them") && text.contains("at most 7"), "{text}");
}

/// Texts as editors, shells and servers write them.
#[test]
fn a_text_with_a_mark_is_read_and_one_in_another_encoding_is_named() {
    let rig = Rig::new();
    let marked = |text: &[u8]| [b"\xef\xbb\xbf", text].concat();
    let wide = |text: &[u8]| {
        let units = std::str::from_utf8(text).unwrap().encode_utf16().flat_map(u16::to_le_bytes);
        b"\xff\xfe".iter().copied().chain(units).collect::<Vec<u8>>()
    };
    let folder = rig.recipe("lab/texts", GOOD, ANY);
    let at = folder.to_str().unwrap().to_owned();
    put(&folder.join("pod/requirements.lock"), format!("six==1.17.0 --hash=sha256:{}\n", "a".repeat(64)).as_bytes());
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    put(&folder.join("recipe.toml"), manifest.replace("[pod]\n", "[pod]\nlock = \"pod/requirements.lock\"\n").as_bytes());
    put(&folder.join(".hobignore"), b"*.tmp\n");
    let out = rig.folder.path().join("x.hob");
    let pack = ["pack", &at, "-o", out.to_str().unwrap()];
    rig.hob(&pack).well();
    let input = fs::read_dir(folder.join("cases")).unwrap().next().unwrap().unwrap().path().join("input.json");
    for (file, code) in [
        (folder.join("recipe.toml"), Code::InvalidManifest),
        (folder.join("pod/requirements.lock"), Code::InvalidRecipe),
        (folder.join(".hobignore"), Code::InvalidRecipe),
        (input, Code::InvalidRecipe),
    ] {
        let text = fs::read(&file).unwrap();
        put(&file, &marked(&text));
        let ran = rig.hob(&pack);
        match file.ends_with("requirements.lock") {
            // A lock refuses any text that other tools read differently.
            true => ran.refused(code, &["byte order mark"]),
            false => drop(ran.well().to_owned()),
        }
        put(&file, &wide(&text));
        rig.hob(&pack).refused(code, &["UTF-16", "wanted text in UTF-8", file.file_name().unwrap().to_str().unwrap()]);
        put(&file, b"\x1f\x8b\x08\0\xff");
        rig.hob(&pack).refused(code, &["gzip-compressed"]);
        put(&file, &text);
    }
    fs::create_dir_all(&rig.home).unwrap();
    put(&rig.home.join("hob.toml"), &marked(b"# mine\n"));
    rig.hob(&["list"]).well();
    put(&rig.home.join("hob.toml"), &wide(b"# mine\n"));
    rig.hob(&["list"]).refused(Code::InvalidConfig, &["UTF-16"]);
    fs::remove_file(rig.home.join("hob.toml")).unwrap();
    let folder = rig.recipe("lab/plain", GOOD, ANY);
    let call = ["call", folder.to_str().unwrap(), "run", "-"];
    rig.hob_reading(&call, &marked(b"{\"text\": \"a\"}")).well();
    rig.hob_reading(&call, &wide(b"{\"text\": \"a\"}")).refused(Code::InvalidJson, &["UTF-16"]);
}

#[test]
fn a_download_in_a_pod_without_network_says_that_it_has_none() {
    let rig = Rig::new();
    let source = r#"
import socket, urllib.request

class Subject:
    def run(self, input):
        if input["how"] == "four":
            socket.getaddrinfo("models.example.org", 443, socket.AF_INET)
        if input["how"] == "listens":
            socket.create_server(("127.0.0.1", 0))
        if input["how"] == "connects":
            socket.create_connection(("127.0.0.1", 9), timeout=5)
        try:
            urllib.request.urlopen("https://models.example.org/weights", timeout=5)
        except OSError as error:
            if input["how"] == "from":
                raise RuntimeError("the weights are not in the cache") from error
            if input["how"] == "context":
                raise OSError("the weights are not in the cache")
            raise
"#;
    let folder = rig.recipe("lab/downloads", source, ANY);
    for how in ["plain", "from", "context", "four", "listens", "connects"] {
        let ran = rig.hob(&["call", folder.to_str().unwrap(), "run", &format!("{{\"how\": \"{how}\"}}")]);
        ran.refused(Code::SandboxDenied, &["its sandbox does not allow", "network = ["]);
    }
    // A `load` gets the same hint.
    let loads = source.replace(
        "    def run(self, input):",
        "    def run(self, input):\n        pass\n\n    def load(self, models):\n        input = {\"how\": \"from\"}",
    );
    let folder = rig.recipe("lab/loads", &loads, ANY);
    rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]).refused(Code::SandboxDenied, &["network = ["]);
}

#[test]
fn what_a_recipe_asks_for_and_was_not_given_is_told_with_the_grant_that_gives_it() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let source = r#"
import os
import urllib.request

class Subject:
    def run(self, input):
        print("asked for", input)
        if input == "file":
            open("/data/books/one")
        if input == "own":
            open("/tmp/hob-test-books/one")
        if input == "env":
            os.environ["API_TOKEN"]
        if input == "any":
            open("/usr/new", "w")
        urllib.request.urlopen("https://models.example.org/weights", timeout=5)
"#;
    let given = "network = [\"models.example.org:443\"]\nread = [\"/data/books\", \"/tmp/hob-test-books\"]\nenv = [\"API_TOKEN\"]\n";
    let asks = format!("{ANY}\n[permissions]\n{given}");
    let files = "read=/data/books read=/tmp/hob-test-books";
    let folder = rig.recipe("lab/asks", source, &asks);
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/asks", "--no-grant"]).well();
    for recipe in [folder.to_str().unwrap(), "lab/asks"] {
        let grant = format!("hob grant {recipe} ");
        for (input, code, words) in [
            (r#""network""#, Code::SandboxDenied, "network=models.example.org:443`".to_owned()),
            (r#""file""#, Code::RecipeFailed, format!("{files}`")),
            // A pod has its own `/tmp` and its own variables.
            (r#""own""#, Code::RecipeFailed, format!("{files}`")),
            (r#""env""#, Code::RecipeFailed, "env=API_TOKEN`".to_owned()),
            (r#""any""#, Code::SandboxDenied, format!("network=models.example.org:443 {files} env=API_TOKEN`")),
        ] {
            rig.hob(&["call", recipe, "run", input]).refused(code, &["asks for what it was not given", &format!("{grant}{words}")]);
        }
    }
    // The logs of a folder's pods are stored under the name in its manifest.
    let logged = rig.hob(&["logs", folder.to_str().unwrap()]);
    assert!(logged.well().contains("lab/asks asked for env"), "{logged:?}");
    assert_eq!(rig.hob(&["logs", folder.to_str().unwrap(), "--lines", "0"]).well(), "");
    rig.hob(&["logs", "./none"]).refused(Code::InvalidRecipe, &["./none is not a recipe folder", "recipe.toml"]);
    // A permission that was given is not mentioned again.
    rig.hob(&["grant", "lab/asks", "network=models.example.org:443"]).well();
    let ran = rig.hob(&["call", "lab/asks", "run", r#""any""#]);
    ran.refused(Code::SandboxDenied, &[&format!("hob grant lab/asks {files} env=API_TOKEN`")]);
}
