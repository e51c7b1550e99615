//! The folder in which a pod finds its models: by name, as plain read-only files and nothing else, however
//! the recipe was installed and whatever kind of pod it has.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use hob::model::{Code, Digest};
use serde_json::{Value, json};

use super::server::{Reply, Server};
use crate::cli::{
    damaged::installed_at,
    rig::{Rig, Signed, put, write_recipe},
};

/// Models of one file, of three files, a split one with its index, and a file with the same bytes as another.
const MODELS: [(&str, &str); 6] = [
    ("onnx/model.onnx", "reads model.onnx_data beside it"),
    ("onnx/model.onnx_data", "the weights"),
    ("onnx/more/bias", "the bias"),
    ("model.safetensors.index.json", "names model-00001-of-00001.safetensors"),
    ("model-00001-of-00001.safetensors", "the weights"),
    ("LICENSE", "of the model, not of the recipe"),
];

/// Reports what it finds, and tries what it must not be able to do.
const POD: &str = r#"import os

class Subject:
    def load(self, models):
        self.models = models

    def run(self, input):
        return look(dict(self.models), self.models.folder, input.get("content_alone"))

def look(models, folder, content_alone=False):
    found, kinds = {}, set()
    for place, folders, files in os.walk(folder):
        for name in files:
            path = os.path.join(place, name)
            kinds.add("link" if os.path.islink(path) else "file" if os.path.isfile(path) else "other")
            with open(path) as file:
                found[os.path.relpath(path, folder)] = file.read()
    model = models["onnx/model.onnx"]
    beside = os.path.join(os.path.dirname(model), "model.onnx_data")
    with open(beside) as file:
        data = file.read()
    done = []
    for name, act in {
        "write": lambda: os.close(os.open(model, os.O_WRONLY)),
        "truncate": lambda: os.truncate(model, 0),
        "delete": lambda: os.unlink(model),
        "rename": lambda: os.rename(model, model + ".old"),
        "add": lambda: os.close(os.open(beside + ".new", os.O_CREAT | os.O_WRONLY)),
        "folder": lambda: os.mkdir(os.path.join(folder, "new")),
        "link": lambda: os.link(model, "mine"),
        "mode": lambda: os.chmod(model, 0o666),
        "mode of folder": lambda: os.chmod(folder, 0o777),
        "times": lambda: os.utime(model, (1, 1)),
        "owner": lambda: os.chown(model, os.getuid(), os.getgid()),
    }.items():
        if content_alone and name not in ("write", "truncate", "delete", "rename", "add", "folder", "link"):
            continue
        try:
            act()
            done.append(name)
        except OSError:
            pass
    named = {name: os.path.relpath(path, folder) for name, path in models.items()}
    return {"found": found, "kinds": sorted(kinds), "data": data, "named": named, "done": done}
"#;

/// The same by hand, in the protocol's words: `old` takes the folder from a path, because `models_folder`
/// came later.
const EXECUTABLE: &str = r#"#!/usr/bin/env -S python3 -B
import os, sys
sys.path.insert(0, os.path.dirname(__file__))
import raw, subject

pod = raw.Pod()
pod.ready()
while True:
    ask, input = pod.ask()
    models = pod.start["models"]
    folder = pod.start["models_folder"]
    if input.get("old"):
        folder = models["LICENSE"][: -len("/LICENSE")]
    pod.answer(ask, subject.look(models, folder))
"#;

/// A `[[model]]` for each; with `from`, its source is the server's file of that name.
fn tables(from: Option<&str>) -> String {
    let table = |(name, text): &(&str, &str)| {
        let sha256 = Digest::of(text.as_bytes());
        let from = from.map(|from| format!("from = \"{from}{name}\"\n")).unwrap_or_default();
        format!("\n[[model]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\nbytes = {}\n{from}", text.len())
    };
    MODELS.iter().map(table).collect()
}

/// A recipe folder, with the models in it unless they come `from` a server.
fn recipe(below: &Path, name: &str, from: Option<&str>) -> PathBuf {
    let folder = below.join(name.replace('/', "-"));
    write_recipe(&folder, name, "0.1.0", POD, &format!("python = \">=3.9\"\n{}", tables(from)));
    if from.is_none() {
        for (model, text) in MODELS {
            put(&folder.join("models").join(model), text.as_bytes());
        }
    }
    folder
}

/// As [`recipe`], for a program that speaks the protocol itself.
fn executable(below: &Path, name: &str) -> PathBuf {
    let folder = recipe(below, name, None);
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let manifest = manifest
        .replace("runtime = \"python\"\nentry = \"subject:Subject\"\npython = \">=3.9\"", "runtime = \"executable\"\nentry = \"pod/run\"");
    put(&folder.join("recipe.toml"), manifest.as_bytes());
    put(&folder.join("pod/run"), EXECUTABLE.as_bytes());
    fs::set_permissions(folder.join("pod/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods/raw.py"), folder.join("pod/raw.py")).unwrap();
    folder
}

/// The report of a pod whose models are as they should be.
fn wanted() -> Value {
    let found: serde_json::Map<_, _> = MODELS.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    let named: serde_json::Map<_, _> = MODELS.iter().map(|(name, _)| ((*name).to_owned(), json!(name))).collect();
    json!({ "found": found, "kinds": ["file"], "data": "the weights", "named": named, "done": [] })
}

#[track_caller]
fn assert_finds(rig: &Rig, recipe: &str, input: &str) {
    let ran = rig.hob(&["call", recipe, "run", input]);
    ran.well();
    assert_eq!(ran.json(), wanted(), "{recipe}");
}

struct Scene {
    rig: Rig,
    signed: Signed,
}

impl Scene {
    fn new() -> Scene {
        let (rig, signed) = (Rig::new(), Signed::new());
        rig.trust(&signed.url(), &signed.repository);
        Scene { rig, signed }
    }

    /// Publishes and installs a recipe; returns its folder.
    #[track_caller]
    fn installed(&self, folder: &Path, name: &str) -> PathBuf {
        self.signed.publish(folder);
        self.rig.hob(&["add", name]).well();
        installed_at(&self.rig, name).0
    }
}

fn models_of(recipe: &Path) -> PathBuf {
    PathBuf::from(format!("{}.models", recipe.display()))
}

fn number(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn open(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_pod_finds_them_by_name_from_a_folder_and_installed_whatever_it_is() {
    let scene = Scene::new();
    let below = scene.rig.folder.path();
    let served = Server::new(|seen, _| {
        let text = MODELS.iter().find(|(name, _)| seen.path.ends_with(&format!("/{name}"))).map(|(_, text)| text.as_bytes());
        Reply::new(if text.is_some() { 200 } else { 404 }, &[], text.unwrap_or_default())
    });
    let at = format!("{}/of/", served.url);
    for (name, folder) in [
        ("lab/fetched", recipe(below, "lab/fetched", Some(&at))),
        ("lab/files", recipe(below, "lab/files", None)),
        ("lab/program", executable(below, "lab/program")),
    ] {
        assert_finds(&scene.rig, folder.to_str().unwrap(), "{}");
        let place = scene.installed(&folder, name);
        assert_finds(&scene.rig, name, "{}");
        assert_finds(&scene.rig, name, "{\"old\": true}");
        // A file takes its space once, whatever names it has.
        for (model, text) in MODELS {
            let kept = scene.rig.home.join("data/models").join(Digest::of(text.as_bytes()).hex());
            assert_eq!(number(&models_of(&place).join(model)), number(&kept), "{name}: {model}");
        }
        scene.rig.hob(&["verify", name]).well();
    }
    assert_eq!(served.seen().len(), 5, "each file is fetched once");
    assert!(scene.rig.hob(&["show", "lab/files"]).well().contains("onnx/more/bias"));
    for name in ["lab/files", "lab/fetched", "lab/program"] {
        scene.rig.hob(&["remove", name]).well();
    }
    for folder in ["data/recipes/lab", "data/models", "data/staging"] {
        assert_eq!(fs::read_dir(scene.rig.home.join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[test]
fn a_pod_without_a_root_of_its_own_finds_the_same() {
    let scene = Scene::new();
    let folder = recipe(scene.rig.folder.path(), "lab/files", None);
    scene.installed(&folder, "lab/files");
    for recipe in ["lab/files", folder.to_str().unwrap()] {
        scene.rig.hob(&["grant", recipe, "--reduced"]).well();
        // The remaining layers do not control modes and times.
        let mut command = scene.rig.command(&["call", recipe, "run", "{\"content_alone\": true}"]);
        command.env("HOB_SANDBOX_WITHOUT", "namespaces");
        let ran = crate::cli::rig::run(command, b"");
        ran.well();
        assert_eq!(ran.json(), wanted(), "{recipe}");
        assert_finds(&scene.rig, recipe, "{}");
    }
}

#[test]
fn of_a_recipe_folder_a_pod_finds_what_the_manifest_names_however_it_lies_there() {
    let scene = Scene::new();
    let below = scene.rig.folder.path();
    let folder = recipe(below, "lab/files", None);
    let word = folder.to_str().unwrap();
    let staging = scene.rig.home.join("data/staging");

    // Files that are not models reach no pod, neither at the top nor below.
    put(&folder.join("models/.gitignore"), b"*");
    put(&folder.join("models/onnx/notes.txt"), b"mine");
    assert_finds(&scene.rig, word, "{}");
    fs::remove_file(folder.join("models/onnx/notes.txt")).unwrap();
    // A link into a cache of models is a plain file in the pod.
    let cache = below.join("cache");
    put(&cache.join("blob"), b"the weights");
    fs::remove_file(folder.join("models/onnx/model.onnx_data")).unwrap();
    symlink(cache.join("blob"), folder.join("models/onnx/model.onnx_data")).unwrap();
    assert_finds(&scene.rig, word, "{}");
    // The whole folder may be such a link.
    fs::rename(folder.join("models"), below.join("mine")).unwrap();
    symlink(below.join("mine"), folder.join("models")).unwrap();
    assert_finds(&scene.rig, word, "{}");
    // An author's files stay as they were: writable, in their places, without a link of Hob's.
    for file in [below.join("mine/onnx/model.onnx"), cache.join("blob")] {
        let found = fs::metadata(&file).unwrap();
        assert!(found.mode() & 0o200 != 0 && found.nlink() == 1, "{file:?}");
    }
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);

    // Some models are fetched, some lie in the folder.
    let served = Server::new(|_, _| Reply::new(200, &[], b"the bias"));
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let named = "name = \"onnx/more/bias\"\n";
    put(&folder.join("recipe.toml"), manifest.replace(named, &format!("{named}from = \"{}/bias\"\n", served.url)).as_bytes());
    fs::remove_file(below.join("mine/onnx/more/bias")).unwrap();
    assert_finds(&scene.rig, word, "{}");
    assert_eq!(served.seen().len(), 1);

    // A model that is missing or differs is named, with the author's path of it.
    put(&cache.join("blob"), b"other weights");
    scene.rig.hob(&["call", word, "run", "{}"]).refused(Code::InvalidRecipe, &["model `onnx/model.onnx_data`", "wanted 11"]);
    fs::remove_file(below.join("mine/LICENSE")).unwrap();
    scene.rig.hob(&["call", word, "run", "{}"]).refused(Code::ModelMissing, &["model `LICENSE`", "mine/LICENSE"]);
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
}

#[test]
fn what_was_installed_before_there_was_a_folder_gets_one() {
    let scene = Scene::new();
    let place = scene.installed(&recipe(scene.rig.folder.path(), "lab/files", None), "lab/files");
    let (models, staging) = (models_of(&place), scene.rig.home.join("data/staging"));
    let remove = || {
        open(&models);
        ["onnx", "onnx/more"].iter().for_each(|inner| open(&models.join(inner)));
        fs::remove_dir_all(&models).unwrap();
    };
    remove();
    assert_finds(&scene.rig, "lab/files", "{}");
    assert!(models.is_dir());

    // This also works if the folder cannot be made beside the recipe, as in a home that is part of an image:
    // then it lasts for one process.
    remove();
    fs::remove_dir(&staging).unwrap();
    fs::write(&staging, "in the way").unwrap();
    assert_finds(&scene.rig, "lab/files", "{}");
    assert!(!models.exists());
    assert_eq!(fs::read_dir(scene.rig.home.join("cache/models")).unwrap().count(), 0);
    fs::remove_file(&staging).unwrap();
    scene.rig.hob(&["verify"]).well();
}

#[test]
fn what_was_planted_among_them_is_found_and_adding_again_mends_it() {
    let scene = Scene::new();
    let place = scene.installed(&recipe(scene.rig.folder.path(), "lab/files", None), "lab/files");
    let models = models_of(&place);
    type Harm = fn(&Path);
    let table: [(Harm, &str); 4] = [
        (|models| put(&models.join("onnx/custom_code.py"), b""), "`onnx/custom_code.py` is no model of the recipe"),
        (|models| fs::remove_file(models.join("onnx/model.onnx_data")).unwrap(), "`onnx/model.onnx_data` is missing"),
        (
            |models| {
                fs::remove_file(models.join("onnx/model.onnx")).unwrap();
                symlink("model.onnx_data", models.join("onnx/model.onnx")).unwrap();
            },
            "`onnx/model.onnx` is no plain file",
        ),
        (
            |models| {
                fs::remove_file(models.join("onnx/model.onnx_data")).unwrap();
                put(&models.join("onnx/model.onnx_data"), b"THE WEIGHTS");
            },
            "onnx/model.onnx_data",
        ),
    ];
    for (harm, says) in table {
        open(&models.join("onnx"));
        harm(&models);
        scene.rig.hob(&["call", "lab/files", "run", "{}"]).refused(Code::ShelfAltered, &[says, "`hob add lab/files`"]);
        let verified = scene.rig.hob(&["verify"]);
        assert!(verified.exit == Some(i32::from(Code::ShelfAltered.exit())) && verified.stdout.contains(says), "{verified:#?}");
        scene.rig.hob(&["add", "lab/files"]).well();
        assert_finds(&scene.rig, "lab/files", "{}");
    }
    assert_eq!(fs::read_dir(scene.rig.home.join("data/staging")).unwrap().count(), 0);
}

#[test]
fn a_file_that_the_recipe_does_not_name_is_missing_by_its_name() {
    let rig = Rig::new();
    let pod = "class Subject:\n    def load(self, models):\n        open(models['net.onnx'] + '_data')\n    def run(self, input): pass\n";
    let more = format!("python = \">=3.9\"\n\n[[model]]\nname = \"net.onnx\"\nsha256 = \"{}\"\nbytes = 1\n", Digest::of(b"x"));
    let folder = rig.recipe("lab/one", pod, &more);
    put(&folder.join("models/net.onnx"), b"x");
    put(&folder.join("models/net.onnx_data"), b"forgotten in recipe.toml");
    let ran = rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]);
    ran.refused(Code::ModelMissing, &["the model `net.onnx_data`", "name it as a `[[model]]` of recipe.toml"]);
}

#[test]
fn a_thousand_of_them_take_one_mount_and_no_descriptor_each() {
    let scene = Scene::new();
    let count = 1_000;
    let name = |at: usize| format!("shards/model-{at:05}-of-{count:05}.safetensors");
    let tables: String = (0..count)
        .map(|at| {
            let text = at.to_string();
            format!("\n[[model]]\nname = \"{}\"\nsha256 = \"{}\"\nbytes = {}\n", name(at), Digest::of(text.as_bytes()), text.len())
        })
        .collect();
    let pod = "import os\nclass Subject:\n    def load(self, models):\n        self.models = models\n    def run(self, input):\n        \
               total = sum(int(open(path).read()) for path in self.models.values())\n        \
               mounts = [line for line in open('/proc/self/mountinfo') if self.models.folder in line]\n        \
               return {'total': total, 'mounts': len(mounts)}\n";
    let folder = scene.rig.recipe("lab/many", pod, &format!("python = \">=3.9\"\n{tables}"));
    (0..count).for_each(|at| put(&folder.join("models").join(name(at)), at.to_string().as_bytes()));
    scene.installed(&folder, "lab/many");
    let ran = scene.rig.hob(&["call", "lab/many", "run", "{}"]);
    ran.well();
    assert_eq!(ran.json(), json!({ "total": count * (count - 1) / 2, "mounts": 1 }));
}

#[test]
fn what_versions_before_had_goes_with_the_recipe_and_what_another_has_stays() {
    let scene = Scene::new();
    let folder = recipe(scene.rig.folder.path(), "lab/files", None);
    let first = scene.installed(&folder, "lab/files");
    scene.installed(&recipe(scene.rig.folder.path(), "lab/other", None), "lab/other");
    // The next version has one more file, one that differs, and not the licence.
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let (data, sha256) = ("new weights", Digest::of(b"new weights"));
    let at = manifest.find("[[model]]\nname = \"LICENSE\"").unwrap();
    let end = manifest.find("[operations.run]").unwrap();
    let more = format!("[[model]]\nname = \"new.bin\"\nsha256 = \"{sha256}\"\nbytes = {}\n\n", data.len());
    let manifest = [&manifest[..at], &more, &manifest[end..]].concat().replace("version = \"0.1.0\"", "version = \"0.2.0\"");
    put(&folder.join("recipe.toml"), manifest.as_bytes());
    put(&folder.join("models/new.bin"), data.as_bytes());
    scene.signed.publish(&folder);
    scene.rig.hob(&["add", "lab/files"]).well();
    assert_eq!(scene.rig.installed(), ["lab/files 0.2.0", "lab/other 0.1.0"]);
    // Pods of the previous version continue until their calls are done.
    assert!(models_of(&first).join("LICENSE").is_file());
    let kept = || fs::read_dir(scene.rig.home.join("data/models")).unwrap().count();
    let others = MODELS.iter().map(|(_, text)| text).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(kept(), others + 1);
    scene.rig.hob(&["remove", "lab/other"]).well();
    assert!(models_of(&first).join("LICENSE").is_file());
    scene.rig.hob(&["remove", "lab/files"]).well();
    assert_eq!(kept(), 0);
}
