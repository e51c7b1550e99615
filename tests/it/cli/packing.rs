//! Files that are packed, files that stay behind, and files that are refused: at `hob pack`, in a call of the
//! folder, and in a bundle that was signed with more.

use std::{collections::BTreeMap, fs, path::Path};

use hob::model::{Code, Digest, limits};
use serde_json::{Value, json};

use super::{
    hostile::{Den, Raw, archive, file, indexed},
    rig::{Rig, Signed, put, url, write_recipe},
};

const ECHO: &str = "class Subject:\n    def run(self, input):\n        return input\n";

/// A recipe folder whose manifest begins with these lines.
fn recipe(folder: &Path, first: &str) {
    write_recipe(folder, "lab/red", "0.1.0", ECHO, "python = \">=3.9\"\n");
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    fs::write(folder.join("recipe.toml"), format!("{first}\n{}", manifest.replace("hob = \"0.1\"\n", ""))).unwrap();
}

const WIDER: &str = "hob = \">=0.1.1, <0.2\"";

#[test]
fn what_stays_behind_is_named_and_counted() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = rig.folder.path().join("red");
    recipe(&folder, "hob = \"0.1\"");
    let publish = ["publish", "./red", "--repo", signed.repository.to_str().unwrap(), "--keys", signed.keys.to_str().unwrap(), "--json"];
    for (count, named) in [(3, 3), (limits::PACK_NAMED_MAX, limits::PACK_NAMED_MAX), (50, limits::PACK_NAMED_MAX)] {
        for at in 0..count {
            put(&folder.join(format!("notes-{at:02}.txt")), b"x");
        }
        for words in [&["pack", "./red", "--json"][..], &publish] {
            let told = rig.hob(words).json();
            assert_eq!(
                (told["left"].as_array().map(Vec::len), told["left_more"].as_u64()),
                (Some(named), Some((count - named) as u64)),
                "{told}"
            );
        }
    }
}

#[test]
fn a_new_key_is_for_hobs_that_know_it_whatever_is_in_it() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    for files in ["[]", "[\"data/**\"]"] {
        recipe(&folder, &format!("hob = \"0.1\"\nfiles = {files}"));
        for words in [&["pack", "./red"][..], &["call", "./red", "run", "1"], &["show", "./red"]] {
            rig.hob(words).refused(Code::InvalidManifest, &["recipe.toml:2", "`files`", "Hob 0.1.1 is the first"]);
        }
    }
    recipe(&folder, &format!("{WIDER}\nfiles = []"));
    rig.hob(&["pack", "./red"]).well();
}

#[test]
fn names_that_are_one_elsewhere_are_refused() {
    let rig = Rig::new();
    for (at, (one, other)) in [
        ("pod/Words.txt", "pod/words.txt"),
        ("pod/caf\u{e9}.txt", "pod/cafe\u{301}.txt"),
        ("pod/Data/a.txt", "pod/data/b.txt"),
        ("pod/stra\u{df}e", "pod/STRASSE"),
        ("pod/\u{212a}elvin", "pod/kelvin"),
    ]
    .into_iter()
    .enumerate()
    {
        let word = format!("./red-{at}");
        let folder = rig.folder.path().join(&word);
        recipe(&folder, WIDER);
        put(&folder.join(one), b"x");
        rig.hob(&["call", &word, "run", "1"]).well();
        put(&folder.join(other), b"y");
        for words in [&["pack", &word][..], &["call", &word, "run", "1"]] {
            rig.hob(words).refused(Code::InvalidRecipe, &["are one name to file systems"]);
        }
        // An ignored file needs no report.
        fs::write(folder.join(".hobignore"), format!("/{one}\n")).unwrap();
        rig.hob(&["pack", &word]).well();
    }
}

#[test]
fn what_looks_like_a_secret_does_so_in_every_case() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    recipe(&folder, WIDER);
    for name in ["ID_RSA", "server.KEY", "Credentials.JSON", "Venv/lib.py", "Node_Modules/x.js", "CERT.Pem", "thumbs.DB", "x.PYC", "a.ORIG"]
    {
        let path = folder.join("pod").join(name);
        put(&path, b"x");
        let shown = name.split_inclusive('/').next().unwrap();
        rig.hob(&["pack", "./red"]).refused(Code::InvalidRecipe, &[&format!("`pod/{shown}`"), "hardly meant to be published"]);
        let top = folder.join("pod").join(shown);
        if top.is_dir() { fs::remove_dir_all(top) } else { fs::remove_file(path) }.unwrap();
    }
    // A name that is spelled out is intended.
    put(&folder.join("pod/CERT.Pem"), b"x");
    recipe(&folder, &format!("{WIDER}\nfiles = [\"pod/CERT.Pem\"]"));
    assert!(rig.hob(&["pack", "./red", "--json"]).json()["files"].get("pod/CERT.Pem").is_some());
    recipe(&folder, &format!("{WIDER}\nfiles = [\"pod/cert.pem\"]"));
    rig.hob(&["pack", "./red"]).refused(Code::InvalidRecipe, &["`files` in recipe.toml names `pod/cert.pem`"]);
}

#[test]
fn one_file_of_a_hidden_folder_brings_no_other() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    recipe(&folder, &format!("{WIDER}\nfiles = [\"pod/.config/one.json\", \".top/**\"]"));
    for path in ["pod/.config/one.json", "pod/.config/two.json", "pod/.config/more/three.json", "pod/.other/x", ".top/a", ".top/.b"] {
        put(&folder.join(path), b"x");
    }
    let told = rig.hob(&["pack", "./red", "--json"]).json();
    let files: Vec<_> = told["files"].as_object().unwrap().keys().filter(|path| path.contains("/.") || path.starts_with('.')).collect();
    assert_eq!(files, [".top/a", "pod/.config/one.json"], "{told}");
}

#[test]
fn patterns_beyond_their_bound_are_refused_and_many_plain_ones_are_not() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    recipe(&folder, WIDER);
    for at in 0..3_000 {
        put(&folder.join(format!("pod/data/{}/file-{at}.txt", at % 7)), b"");
    }
    fs::write(folder.join(".hobignore"), (0..990).map(|at| format!("*.{at}\n")).collect::<String>()).unwrap();
    rig.hob(&["pack", "./red"]).well();
    for at in 0..150 {
        put(&folder.join(format!("pod/{at:03}{}", "a".repeat(96))), b"");
    }
    let dear = format!("*{}b\n", "a".repeat(60));
    fs::write(folder.join(".hobignore"), dear.repeat(990)).unwrap();
    for words in [&["pack", "./red"][..], &["call", "./red", "run", "1"]] {
        rig.hob(words).refused(Code::TooLarge, &["`files` and `.hobignore`", "more than 200000000 steps"]);
    }
    fs::write(folder.join(".hobignore"), dear.repeat(2_000)).unwrap();
    rig.hob(&["pack", "./red"]).refused(Code::TooLarge, &[".hobignore", "larger than 65536 bytes"]);
}

/// Signs the honest recipe with another manifest and further files.
fn sign(den: &Den, first: &str, more: &[&str]) {
    let mut files: Vec<Raw> = den.honest.clone();
    let manifest = files.iter_mut().find(|file| file.name == b"recipe.toml").unwrap();
    let text = String::from_utf8(manifest.content.clone()).unwrap();
    manifest.content = format!("{WIDER}\n{first}\n{}", text.replace("hob = \"0.1\"\n", "")).into_bytes();
    files.extend(more.iter().map(|path| file(path, b"more")));
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let index: BTreeMap<String, Value> = indexed(&files);
    let bytes = archive(&files);
    den.sign(&bytes, &index);
    den.world.forge("hob", "hob", |signed| signed["targets"]["hob/plain/0.1.0.hob"]["custom"]["hob"] = json!(">=0.1.1, <0.2"));
    assert!(Digest::of(&bytes) != Digest::of(&archive(&den.honest)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_was_signed_with_more_than_its_manifest_takes_is_not_installed() {
    let (den, rig) = (Den::new().await, Rig::new());
    rig.trust(&url(&den.world.repo), &den.world.repo);
    let files = "files = [\"data/*.txt\", \"pod/.config/one\"]";
    for extra in
        ["notes.md", "data/a.bin", "data/.b.txt", ".env", "pod/.config/two", "pod/.hidden", "src/main.rs", "glue.wasm", "pod/.git/config"]
    {
        sign(&den, files, &["data/a.txt", extra]);
        rig.hob(&["add", "hob/plain"]).refused(Code::BundleInvalid, &["`hob/plain`", &format!("`{extra}` would not be packed")]);
        rig.assert_empty();
    }
    let mut long: Vec<String> = (0..4_000).map(|at| format!("pod/{at:04}{}", "a".repeat(90))).collect();
    long.sort();
    let dear: Vec<String> = (0..64).map(|at| format!("**/*{}b{at}", "a".repeat(60))).collect();
    sign(&den, &format!("files = {}", json!(dear)), &long.iter().map(String::as_str).collect::<Vec<_>>());
    rig.hob(&["add", "hob/plain"]).refused(Code::BundleInvalid, &["`hob/plain`", "takes more than 200000000 steps"]);
    for (one, other) in
        [("pod/Words", "pod/words"), ("pod/\u{e9}", "pod/e\u{301}"), ("data/a.txt", "Data/b.txt"), ("README.md", "Readme.md")]
    {
        sign(&den, "files = [\"**\"]", &[one, other]);
        rig.hob(&["add", "hob/plain"]).refused(Code::MetadataInvalid, &["hob/plain/0.1.0.hob", "are one name to file systems"]);
    }
    rig.assert_empty();
    // Files that `pack` would have taken are installed; a publisher may publish a file that looks like a
    // secret.
    sign(&den, files, &["data/a.txt", "pod/.config/one", "NOTICE", "LICENSES/MIT", "pod/ca.pem"]);
    rig.hob(&["add", "hob/plain"]).well();
    assert_eq!(rig.hob(&["call", "hob/plain", "run", "[1]"]).well(), "[1]");
}

#[test]
fn what_a_key_names_and_does_not_go_along_is_told_with_the_reason() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    let lock = format!("{}lock = \"pod/requirements.lock\"\n", "python = \">=3.9\"\n");
    write_recipe(&folder, "lab/red", "0.1.0", ECHO, &lock);
    // The file does not exist at all.
    for words in [&["pack", "./red"][..], &["call", "./red", "run", "1"]] {
        rig.hob(words).refused(Code::InvalidRecipe, &["`pod/requirements.lock`", "make the file, or correct the key"]);
    }
    put(&folder.join("pod/requirements.lock"), b"");
    fs::write(folder.join(".hobignore"), "*.lock\n").unwrap();
    for words in [&["pack", "./red"][..], &["call", "./red", "run", "1"]] {
        rig.hob(words).refused(Code::InvalidRecipe, &["`pod/requirements.lock`", "`.hobignore` names it"]);
    }
    // A file that no key names.
    write_recipe(&folder, "lab/red", "0.1.0", ECHO, "python = \">=3.9\"\n");
    fs::remove_file(folder.join(".hobignore")).unwrap();
    let warned = rig.hob(&["pack", "./red", "--json"]);
    assert!(warned.json()["warnings"][0].as_str().unwrap().contains("`lock = \"pod/requirements.lock\"` in `[pod]`"), "{warned:#?}");
    assert!(warned.stderr.contains("warning: nothing in `pod/requirements.lock` is installed"), "{warned:#?}");
    write_recipe(&folder, "lab/red", "0.1.0", ECHO, &lock);
    fs::write(folder.join(".hobignore"), "*.lock\n").unwrap();
    // The module in which the pod begins: ignored, or outside the place where it belongs.
    fs::write(folder.join(".hobignore"), "subject.py\n").unwrap();
    rig.hob(&["pack", "./red"]).refused(Code::InvalidRecipe, &["`pod/subject.py`", "`.hobignore` names it"]);
    rig.hob(&["call", "./red", "run", "1"]).refused(Code::ImportFailed, &["pod/subject.py", "`.hobignore` names it"]);
    fs::remove_file(folder.join(".hobignore")).unwrap();
    fs::rename(folder.join("pod/subject.py"), folder.join("subject.py")).unwrap();
    rig.hob(&["pack", "./red"]).refused(Code::InvalidRecipe, &["`pod/subject.py`", "`subject.py` lies in the folder", "move it there"]);
    fs::rename(folder.join("subject.py"), folder.join("pod/subject.py")).unwrap();
    for make in [|at: &Path| fs::create_dir(at), |at: &Path| std::os::unix::fs::symlink("/etc/passwd", at)] {
        make(&folder.join(".hobignore")).unwrap();
        for words in [&["pack", "./red"][..], &["call", "./red", "run", "1"]] {
            rig.hob(words).refused(Code::InvalidRecipe, &[".hobignore", "wanted a plain file", "one pattern a line"]);
        }
        let _ = fs::remove_dir(folder.join(".hobignore")).or_else(|_| fs::remove_file(folder.join(".hobignore")));
    }
    // A bundle that was packed here is not part of the next one.
    recipe(&folder, &format!("{WIDER}\nfiles = [\"**\"]"));
    let mut command = rig.command(&["pack", "."]);
    command.current_dir(&folder);
    super::rig::run(command, b"").well();
    rig.hob(&["pack", "./red"]).refused(Code::InvalidRecipe, &["`lab-red-0.1.0.hob` (a bundle"]);
}

#[test]
fn however_deep_a_folder_is_the_walk_through_it_ends_in_words() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("red");
    recipe(&folder, WIDER);
    // Deeper than a path may be: each folder is made from within the one above.
    let deep = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(3000):\n    os.mkdir('a')\n    os.chdir('a')\n";
    let gone = "import os, sys\nos.chdir(sys.argv[1])\ndepth = 0\nwhile os.path.exists('a'):\n    os.chdir('a')\n    depth += 1\nfor _ in range(depth):\n    os.chdir('..')\n    os.rmdir('a')\n";
    let pod = folder.join("pod");
    let python = |script: &str| assert_eq!(rig.python(&["-c", script, pod.to_str().unwrap()], b"").well(), "");
    python(deep);
    for words in [&["pack", "./red"][..], &["call", "./red", "run", "1"]] {
        rig.hob(words).refused(Code::InvalidRecipe, &["the folder `pod/a/a/", "more than 255 bytes"]);
    }
    fs::write(folder.join(".hobignore"), "/pod/a/\n").unwrap();
    rig.hob(&["pack", "./red"]).well();
    python(gone);
}
