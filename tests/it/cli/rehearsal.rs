//! A folder rehearses the installed recipe: small recipes of every kind, called as a folder, installed, and
//! under a server, give the same answer or the same fault, byte for byte. (`tests/shipped/test_rehearsal.py`
//! does this with the shipped recipes.)

use std::{
    fs,
    path::{Path, PathBuf},
};

use hob::model::Digest;

use super::{
    rig::{LOCK, Ran, Rig, Signed, glue, put, write_recipe},
    served::Serving,
};

/// One recipe, and a call of it.
struct Small {
    name: &'static str,
    pod: &'static str,
    /// Lines at the end of `[pod]`.
    more: String,
    /// Lines at the end of `[operations.run]`.
    operation: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
    input: &'static str,
    flags: &'static [&'static str],
}

impl Small {
    fn new(name: &'static str, pod: &'static str) -> Small {
        Small { name, pod, more: "python = \">=3.9\"\n".into(), operation: "", files: Vec::new(), input: r#"{"text": "a"}"#, flags: &[] }
    }

    fn with(mut self, path: &'static str, bytes: &[u8]) -> Small {
        self.files.push((path, bytes.to_vec()));
        self
    }

    fn pod(mut self, more: &str) -> Small {
        self.more += more;
        self
    }

    fn operation(self, operation: &'static str) -> Small {
        Small { operation, ..self }
    }

    fn asked(self, input: &'static str, flags: &'static [&'static str]) -> Small {
        Small { input, flags, ..self }
    }

    fn write(&self, above: &Path) -> PathBuf {
        let folder = above.join(self.name);
        write_recipe(&folder, &format!("lab/{}", self.name), "0.1.0", self.pod, &self.more);
        let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
        fs::write(folder.join("recipe.toml"), manifest + self.operation).unwrap();
        for (path, bytes) in &self.files {
            put(&folder.join(path), bytes);
        }
        folder
    }
}

fn model(name: &str, bytes: &[u8]) -> String {
    format!("\n[[model]]\nname = \"{name}\"\nsha256 = \"{}\"\nbytes = {}\n", Digest::of(bytes), bytes.len())
}

fn small() -> Vec<Small> {
    const RUN: &str = "class Subject:\n    def run(self, input):\n        return input\n";
    vec![
        Small::new("echo", RUN),
        Small::new("numbers", RUN).asked(r#"{"b": 1, "a": [0.1, 1e300, 9007199254740993, -0.0], "z": null}"#, &[]),
        Small::new("text", RUN).asked(r#""\u0000 \u2028 🦀 \ud83e\udd80 é""#, &[]),
        Small::new("raises", "class Subject:\n    def run(self, input):\n        raise ValueError('not ' + input['text'])\n"),
        Small::new("fault", "import hob_pod\nclass Subject:\n    def run(self, input):\n        raise hob_pod.Fault('invalid_input', 'not this', hint='another')\n"),
        Small::new("exits", "import sys\nclass Subject:\n    def run(self, input):\n        sys.exit('no licence')\n"),
        Small::new("crashes", "import os\nclass Subject:\n    def run(self, input):\n        os._exit(3)\n"),
        Small::new("missing-module", "import a_module_that_is_not_there\nclass Subject:\n    pass\n"),
        Small::new("missing-method", "class Subject:\n    pass\n"),
        Small::new("nothing-to-say", "class Subject:\n    def run(self, input):\n        return float('nan')\n"),
        Small::new("prints", "class Subject:\n    def run(self, input):\n        print('said')\n        return 1\n"),
        Small::new("streams", "class Subject:\n    def run(self, input):\n        yield 1\n        yield {'b': 1, 'a': 2}\n        return 'end'\n")
            .operation("streaming = true\n")
            .asked("{}", &["--stream"]),
        Small::new("late", "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(60)\n").asked("{}", &["--deadline", "500ms"]),
        Small::new("unknown-blob", RUN).asked("{}", &["--blob", "picture=recipe-input"]),
        Small::new("sibling", "from helper.inner import word\nclass Subject:\n    def run(self, input):\n        return word\n")
            .with("pod/helper/__init__.py", b"")
            .with("pod/helper/inner.py", b"word = 'of a sibling'\n"),
        Small::new(
            "data",
            "import pathlib\nclass Subject:\n    def run(self, input):\n        return (pathlib.Path(__file__).parent / 'data/words.txt').read_text()\n",
        )
        .with("pod/data/words.txt", "wörter\n".as_bytes()),
        // The pod sees only its packed files: nothing above them, nothing hidden, no model that is not
        // declared.
        Small::new("sees", SEES)
            .with(".hidden", b"x")
            .with("pod/.hidden", b"x")
            .with("data/words.txt", b"x")
            .with("notes.txt", b"x")
            .with("README.md", b"# It\n")
            .with("LICENSE", b"free\n")
            .with("models/extra.bin", b"x"),
        Small::new("surroundings", SURROUNDINGS),
        Small::new("packages", "import six\nclass Subject:\n    def run(self, input):\n        return six.__version__\n")
            .pod("lock = \"pod/requirements.lock\"\n")
            .with("pod/requirements.lock", LOCK.as_bytes()),
        Small::new("models", MODELS)
            .pod(&(model("net/model.onnx", b"graph") + &model("net/model.onnx.data", b"weights") + &model("words.txt", b"w")))
            .with("models/net/model.onnx", b"graph")
            .with("models/net/model.onnx.data", b"weights")
            .with("models/words.txt", b"w"),
        Small::new("glued", RUN).pod("[glue]\nworld = \"0.1\"\n").with("glue.wasm", glue()),
        Small::new("warm", "class Subject:\n    def run(self, input):\n        return self.warm\n")
            .pod("warm_up = \"pod/warm.py\"\n")
            .with("pod/warm.py", b"pod.warm = 'by its file'\n"),
        Small::new("writes", "class Subject:\n    def run(self, input):\n        open(__file__, 'w')\n"),
        Small::new("asks-out", "import socket\nclass Subject:\n    def run(self, input):\n        socket.create_connection(('127.0.0.1', 9), 1)\n"),
        Small::new("session", RUN).pod("[pod.session]\nmode = \"exclusive\"\n").operation("session = true\n"),
    ]
}

const SEES: &str = r#"import os, pathlib
class Subject:
    def run(self, input):
        root = pathlib.Path(__file__).parents[1]
        seen = []
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(files):
                path = pathlib.Path(folder, name)
                seen.append([str(path.relative_to(root)), bool(path.stat().st_mode & 0o111), path.is_symlink(), path.stat().st_size])
        return seen
"#;

const SURROUNDINGS: &str = r#"import os, sys
class Subject:
    def run(self, input):
        def plain(text):
            return text.replace(os.path.dirname(os.path.dirname(__file__)), "RECIPE")
        return {
            "variables": {name: plain(value) for name, value in sorted(os.environ.items()) if name != "HOB_POD"},
            "arguments": [plain(word) for word in sys.argv], "folder": os.getcwd(), "scratch": sorted(os.listdir()),
            "umask": os.umask(0o22), "path": [plain(path) for path in sys.path if "hob" not in path],
        }
"#;

const MODELS: &str = r#"import os
class Subject:
    def load(self, models):
        self.seen = []
        for folder, folders, files in os.walk(models.folder):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                self.seen.append([os.path.relpath(path, models.folder), os.path.islink(path), open(path).read()])
        self.seen.append(sorted(models))
    def run(self, input):
        return self.seen
"#;

/// The caller's view, without what identifies this run: folders, processes.
fn seen(ran: &Ran, folders: &[PathBuf]) -> String {
    let mut fault = ran.stderr.find("error[").map_or("", |at| &ran.stderr[at..]).to_owned();
    for folder in folders {
        fault = fault.replace(folder.to_str().unwrap(), "RECIPE");
    }
    // The name of a pod, in the path of a file that it left.
    let fault: Vec<_> = fault.split_inclusive(' ').map(|word| if word.contains("host-") { "POD " } else { word }).collect();
    format!("exit {:?}\n{}\n{}", ran.exit, ran.stdout, fault.concat())
}

#[test]
fn a_recipe_gives_the_same_as_a_folder_installed_and_under_a_server() {
    let (rig, signed) = (Rig::new(), Signed::new());
    rig.trust(&signed.url(), &signed.repository);
    fs::write(rig.folder.path().join("recipe-input"), b"bytes").unwrap();
    let recipes: Vec<_> = small().into_iter().map(|small| (small.write(rig.folder.path()), small)).collect();
    let call = |recipe: &str, small: &Small| rig.hob(&[&["call", recipe, "run", small.input], small.flags].concat());
    let (mut alone, mut differ) = (Vec::new(), Vec::new());
    for (folder, small) in &recipes {
        signed.publish(folder);
        let name = format!("lab/{}", small.name);
        rig.hob(&["add", &name]).well();
        let installed = rig.home.join("data/recipes").join(&name);
        let installed = fs::read_dir(&installed).unwrap().map(|entry| entry.unwrap().path());
        let folders: Vec<_> = installed.filter(|path| path.is_dir()).chain([folder.clone()]).collect();
        let (as_folder, cold) = (call(folder.to_str().unwrap(), small), call(&name, small));
        assert!(as_folder.stderr.contains("unsigned dev mode") || as_folder.exit != Some(0), "{as_folder:#?}");
        if seen(&as_folder, &folders) != seen(&cold, &folders) {
            differ.push(format!("as a folder: {}installed: {}", seen(&as_folder, &folders), seen(&cold, &folders)));
        }
        alone.push((name, small, folders, cold));
    }
    let serving = Serving::start(&rig, &[]);
    for (name, small, folders, cold) in &alone {
        let served = call(name, small);
        if seen(cold, folders) != seen(&served, folders) {
            differ.push(format!("{name} without a server: {}with one: {}", seen(cold, folders), seen(&served, folders)));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    // The results were the expected ones, and not all the same refusal.
    let codes: std::collections::BTreeSet<_> = alone.iter().map(|(.., ran)| ran.exit).collect();
    assert!(codes.len() >= 4, "{codes:?}");
    drop(serving);
}

/// Opens, imports or runs what its input names.
const WANTS: &str = r#"import importlib, pathlib, subprocess
class Subject:
    def run(self, input):
        if "module" in input:
            return str(importlib.import_module(input["module"]))
        path = input["path"]
        path = str(pathlib.Path(__file__).parents[1] / path) if input.get("whole") else path
        if "by" in input:
            done = subprocess.run([input["by"], path], capture_output=True, text=True)
            raise RuntimeError(done.stderr)
        try:
            return open(path).read()
        except OSError as error:
            raise RuntimeError("cannot begin") from error
"#;

#[test]
fn a_file_that_stays_behind_is_named_by_the_fault_that_misses_it() {
    let (rig, signed) = (Rig::new(), Signed::new());
    rig.trust(&signed.url(), &signed.repository);
    let folder = rig.folder.path().join("wants");
    write_recipe(&folder, "lab/wants", "0.1.0", WANTS, "python = \">=3.9\"\n");
    for path in [
        "data/words.txt",
        "pod/.hidden",
        "pod/tmp/x",
        "pod/ca.pem",
        "models/extra.bin",
        "helper.py",
        "tools/inner/__init__.py",
        "pod/here.txt",
    ] {
        put(&folder.join(path), b"x");
    }
    fs::write(folder.join(".hobignore"), "/pod/tmp\n").unwrap();
    let named = "`files = [\"data/words.txt\"]` in recipe.toml, where `hob` becomes `\">=0.1.1, <0.2\"`,";
    for (input, behind, says) in [
        (r#"{"path": "data/words.txt", "whole": true}"#, "data/words.txt", named),
        (r#"{"path": "data", "whole": true}"#, "data", "`files = [\"data/**\"]`"),
        (r#"{"path": "data/words.txt"}"#, "data/words.txt", "name it from `__file__`"),
        (r#"{"path": "data/words.txt", "whole": true, "by": "cat"}"#, "data/words.txt", named),
        (r#"{"path": "pod/.hidden", "whole": true}"#, "pod/.hidden", "begins with a dot"),
        (r#"{"path": "pod/tmp/x", "whole": true}"#, "pod/tmp/x", "`.hobignore` names it"),
        (r#"{"path": "pod/ca.pem", "whole": true}"#, "pod/ca.pem", "perhaps a private key"),
        (r#"{"path": "models/extra.bin", "whole": true}"#, "models/extra.bin", "`[[model]]`"),
        (r#"{"module": "helper"}"#, "helper.py", "Python finds what is in `pod/`"),
        (r#"{"module": "tools.inner"}"#, "tools", "Python finds what is in `pod/`"),
    ] {
        let fault = rig.hob(&["call", "./wants", "run", input, "--json"]).json()["fault"].clone();
        let hint = fault["hint"].as_str().unwrap_or_default();
        assert!(fault["detail"]["left_behind"] == behind && hint.contains(says) && hint.contains(behind), "{input}: {fault:#}");
    }
    // A path that does not exist at all, or that no rule finds, gives the pod's own fault.
    for input in [r#"{"path": "data/other.txt", "whole": true}"#, r#"{"path": "/etc/not-there"}"#, r#"{"module": "numpy"}"#] {
        let fault = rig.hob(&["call", "./wants", "run", input, "--json"]).json()["fault"].clone();
        assert!(
            fault["code"].is_string() && fault["detail"]["left_behind"].is_null() && !fault.to_string().contains("does not go along"),
            "{fault:#}"
        );
    }
    // A relative path fails in the folder as it does when installed, with the same fault.
    fs::remove_file(folder.join("pod/ca.pem")).unwrap();
    signed.publish(&folder);
    rig.hob(&["add", "lab/wants"]).well();
    for word in ["./wants", "lab/wants"] {
        rig.hob(&["call", word, "run", r#"{"path": "here.txt"}"#])
            .refused(hob::model::Code::RecipeFailed, &["`pathlib.Path(__file__).parent / \"here.txt\"`"]);
    }
}

const TELLS: &str = r#"import pathlib
class Subject:
    def run(self, input):
        if "raise" in input:
            raise ValueError(__file__)
        root = pathlib.Path(__file__).parents[1]
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
"#;

#[test]
fn a_pod_without_a_root_sees_of_its_folder_what_is_packed_too() {
    let (rig, signed) = (Rig::new(), Signed::new());
    rig.trust(&signed.url(), &signed.repository);
    let folder = rig.folder.path().join("tells");
    write_recipe(&folder, "lab/tells", "0.1.0", TELLS, "python = \">=3.9\"\n");
    for path in ["data/words.txt", "pod/.hidden", "pod/words.txt", "notes.md", "models/extra.bin"] {
        put(&folder.join(path), b"x");
    }
    signed.publish(&folder);
    rig.hob(&["add", "lab/tells"]).well();
    for word in ["./tells", "lab/tells"] {
        rig.hob(&["grant", word, "--reduced"]).well();
    }
    let wanted = serde_json::json!(["cases/one/input.json", "cases/one/output.json", "pod/subject.py", "pod/words.txt", "recipe.toml"]);
    for without in ["namespaces", "namespaces,landlock"] {
        let call = |word: &str, input: &str| {
            let mut command = rig.command(&["call", word, "run", input]);
            command.env("HOB_SANDBOX_WITHOUT", without);
            super::rig::run(command, b"")
        };
        for word in ["./tells", "lab/tells"] {
            let ran = call(word, "{}");
            ran.well();
            assert_eq!(ran.json(), wanted, "{word} without {without}");
        }
        // The fault names the file, not its copy.
        let ran = call("./tells", r#"{"raise": 1}"#);
        let place = folder.canonicalize().unwrap().join("pod/subject.py");
        assert!(ran.exit == Some(6) && ran.stderr.contains(place.to_str().unwrap()), "{ran:#?}");
        let fault = ran.stderr.split("error[").nth(1).unwrap();
        assert!(!fault.contains("staging"), "{ran:#?}");
    }
    // If a path within the recipe folder is granted, the pod sees the folder as it lies on the disk.
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let data = folder.canonicalize().unwrap().join("data");
    fs::write(folder.join("recipe.toml"), format!("{manifest}\n[permissions]\nread = [\"{}\"]\n", data.display())).unwrap();
    rig.hob(&["grant", "./tells", "--all"]).well();
    let mut command = rig.command(&["call", "./tells", "run", "{}"]);
    command.env("HOB_SANDBOX_WITHOUT", "namespaces");
    let ran = super::rig::run(command, b"");
    ran.well();
    assert!(ran.json().as_array().unwrap().contains(&"data/words.txt".into()), "{ran:#?}");
}
