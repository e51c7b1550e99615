//! Bundles: which files packing takes and refuses, and that each wrong byte in one is reported by the name of
//! its file.
//!
//! The signatures here are good and the bytes under them are not.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use hob::{
    author::pack::pack,
    model::{Code, Digest, Fault, Silent},
    shelf::bundle::{
        index::Index,
        unpack::{check_folder, unpack},
    },
};
use serde_json::json;

use super::world::{World, resolve, tree, write_recipe};

/// One entry of a hand-made archive.
struct Entry<'a> {
    path: &'a str,
    kind: tar::EntryType,
    bytes: &'a [u8],
    /// The size in the header, if it is wrong.
    claims: Option<u64>,
}

fn file<'a>(path: &'a str, bytes: &'a [u8]) -> Entry<'a> {
    Entry { path, kind: tar::EntryType::Regular, bytes, claims: None }
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        // Written into the raw field, because the library refuses to write an attacker's name.
        header.as_ustar_mut().unwrap().name[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_size(entry.claims.unwrap_or(entry.bytes.len() as u64));
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        if entry.kind == tar::EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(entry.bytes);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn index(files: &[(&str, &[u8])]) -> Index {
    let files: BTreeMap<_, _> = files
        .iter()
        .map(|(path, bytes)| (*path, json!({ "sha256": Digest::of(bytes).hex(), "bytes": bytes.len(), "executable": false })))
        .collect();
    Index::read(json!(files)).unwrap()
}

#[tokio::test]
async fn one_flipped_byte_in_a_published_bundle_is_refused_by_the_name_of_the_inner_file() {
    let world = World::new().await;
    let recipe = world.recipe("hob/echo", "0.1.0");
    let packed = pack(&recipe).unwrap();
    let (good, published) = (packed.bytes.clone(), world.repo.join(format!("targets/hob/echo/{}.0.1.0.hob", packed.digest())));
    assert_eq!(fs::read(&published).unwrap(), good);
    let entries: Vec<_> = packed.index.files().map(|(path, _)| (path, fs::read(recipe.join(path)).unwrap())).collect();
    let rebuilt = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut files: Vec<_> = entries.iter().map(|(path, bytes)| file(path, bytes)).collect();
        change(&mut files);
        archive(&files)
    };
    assert_eq!(rebuilt(&|_| {}), good, "the attacks below differ from the bundle in what they say, and in nothing else");

    let mut table: Vec<(String, Vec<u8>, Code, String)> = Vec::new();
    for (path, bytes) in entries.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        // At the start of a block, because one file may be part of another.
        let start = (0..good.len()).step_by(512).find(|at| good[*at..].starts_with(bytes)).unwrap();
        for at in [start, start + bytes.len() / 2, start + bytes.len() - 1] {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            table.push((format!("{path} byte {at}"), flipped, Code::BundleInvalid, format!("`{path}` is not what `hob` signed")));
        }
    }
    for wanted in ["glue.wasm", "pod/echo.py", "recipe.toml", "pod/requirements.lock", "cases/hello/input.json"] {
        assert!(table.iter().any(|(case, ..)| case.starts_with(wanted)), "{wanted}");
    }
    let mut header = good.clone();
    header[140] ^= 1;
    table.push(("tar header".into(), header, Code::Tampered, "the archive is damaged".into()));
    let mut padding = good.clone();
    let last = padding.len() - 1;
    padding[last] ^= 1;
    table.push(("padding".into(), padding, Code::Tampered, "hob/echo 0.1.0".into()));
    table.push(("longer".into(), [good.as_slice(), b"x"].concat(), Code::Tampered, "the archive around them does not".into()));
    table.push(("shorter".into(), good[..good.len() / 2].to_vec(), Code::Tampered, "damaged".into()));
    table.push(("empty".into(), Vec::new(), Code::RepositoryUnreachable, "what answers there is empty".into()));
    table.push(("much longer".into(), [good.as_slice(), &[0; 3 << 20]].concat(), Code::Tampered, "hob/echo 0.1.0".into()));
    let extra = rebuilt(&|files| files.push(file("pod/extra.py", b"import os")));
    table.push(("extra".into(), extra, Code::BundleInvalid, "`pod/extra.py` is an extra file".into()));
    let missing = rebuilt(&|files| files.retain(|entry| entry.path != "pod/echo.py"));
    table.push(("missing".into(), missing, Code::BundleInvalid, "`pod/echo.py` is missing".into()));
    let twice = rebuilt(&|files| files.push(file("README.md", b"# Echo\n")));
    table.push(("twice".into(), twice, Code::BundleInvalid, "`README.md` is there twice".into()));

    let home = world.home("home").await;
    let mut client = world.client(&home).await;
    let resolved = resolve(&mut client, "hob/echo").await.unwrap();
    let before = tree(home.config());
    for (case, bytes, code, says) in table {
        fs::write(&published, bytes).unwrap();
        let fault = client.fetch_bundle(&resolved, &Silent).await.expect_err(&case);
        assert!(fault.code == code && fault.message.contains(&says), "{case}: {fault}");
        // A file that is no bundle at all is reported by its own name.
        let named = if code == Code::RepositoryUnreachable { published.to_str().unwrap() } else { "hob/echo 0.1.0" };
        assert!(fault.message.contains(named), "{case}: {fault}");
        assert!(fault.hint.is_some());
    }
    assert_eq!(tree(home.config()), before, "nothing was written");
    fs::remove_file(&published).unwrap();
    let fault = client.fetch_bundle(&resolved, &Silent).await.unwrap_err();
    assert!(fault.code == Code::RepositoryUnreachable && fault.message.contains("is signed, but there is no file"), "{fault}");
    fs::write(&published, good).unwrap();
    client.fetch_bundle(&resolved, &Silent).await.unwrap();
}

#[test]
fn a_hostile_archive_is_refused_before_anything_is_written() {
    let good: &[(&str, &[u8])] = &[("README.md", b"read"), ("pod/a.py", b"a = 1")];
    let entries = || good.iter().map(|(path, bytes)| file(path, bytes)).collect::<Vec<_>>();
    let with = |entry: Entry| {
        let mut bytes = Vec::new();
        let mut all = entries();
        all.push(Entry { path: entry.path, kind: entry.kind, bytes: entry.bytes, claims: entry.claims });
        bytes.extend(archive(&all));
        bytes
    };
    let special = |path, kind| with(Entry { path, kind, bytes: b"", claims: None });
    let mut swapped = entries();
    swapped.reverse();
    let mut hidden = archive(&entries());
    hidden.extend_from_slice(&archive(&[file("pod/b.py", b"b")]));
    let table: [(&str, Vec<u8>, &str); 17] = [
        ("symlink", special("pod/link", tar::EntryType::Symlink), "`pod/link` is a symbolic link"),
        ("hard link", special("pod/link", tar::EntryType::Link), "`pod/link` is a hard link"),
        ("device", special("pod/null", tar::EntryType::Char), "`pod/null` is a device"),
        ("pipe", special("pod/pipe", tar::EntryType::Fifo), "`pod/pipe` is a pipe"),
        ("folder", special("pod/", tar::EntryType::Directory), "`pod/` is a folder entry"),
        ("long name", special("././@LongLink", tar::EntryType::GNULongName), "is a tar extension"),
        ("pax", special("pax", tar::EntryType::XHeader), "is a tar extension"),
        ("absolute", with(file("/etc/cron.d/x", b"x")), "`/etc/cron.d/x` has no place"),
        ("upwards", with(file("pod/../../x", b"x")), "`pod/../../x` has no place"),
        ("dotfile", with(file("pod/.pth", b"x")), "`pod/.pth` has no place"),
        ("elsewhere", with(file("bin/sh", b"x")), "`bin/sh` has no place"),
        ("extra", with(file("pod/b.py", b"x")), "`pod/b.py` is an extra file"),
        ("twice", with(file("pod/a.py", b"a = 1")), "`pod/a.py` is there twice"),
        ("lying size", archive(&[Entry { claims: Some(5000), ..file("README.md", b"read") }]), "claims 5000 bytes"),
        ("huge size", archive(&[Entry { claims: Some(1 << 40), ..file("README.md", b"read") }]), "claims"),
        ("order", archive(&swapped), "not in the one form"),
        ("behind the end", hidden, "not in the one form"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let wanted = index(good);
    for (case, bytes, says) in table {
        let dest = folder.path().join("dest");
        let fault = unpack(&bytes, &wanted, &dest, "hob/x 1.0.0").expect_err(case);
        assert!(fault.code == Code::BundleInvalid && fault.message.contains(says), "{case}: {fault}");
        assert!(fault.message.starts_with("bundle hob/x 1.0.0: "), "{fault}");
        assert!(!dest.exists(), "{case}");
    }
    unpack(&archive(&entries()), &wanted, &folder.path().join("dest"), "hob/x 1.0.0").unwrap();
    let fault = unpack(&archive(&entries()), &wanted, &folder.path().join("dest"), "hob/x 1.0.0").unwrap_err();
    assert!(fault.message.contains("never unpacked over"), "{fault}");
}

#[test]
fn an_installed_recipe_that_changed_is_refused_by_the_name_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    write_recipe(&folder.path().join("recipe"), "hob/echo", "0.1.0");
    let packed = pack(&folder.path().join("recipe")).unwrap();
    type Change = fn(&Path) -> std::io::Result<()>;
    let table: [(&str, Change, &str); 8] = [
        (
            "altered",
            |at| fs::write(at.join("pod/echo.py"), "class Echo:\n    def echo(self, text):\n        return {'text': evil}\n"),
            "`pod/echo.py`",
        ),
        ("shorter", |at| fs::write(at.join("glue.wasm"), "x"), "`glue.wasm` in "),
        ("missing", |at| fs::remove_file(at.join("cases/hello/input.json")), "`cases/hello/input.json` in "),
        ("extra", |at| fs::write(at.join("pod/sitecustomize.py"), ""), "`pod/sitecustomize.py` in "),
        ("extra folder", |at| fs::create_dir_all(at.join("pod/numpy/core")), "`pod/numpy` in "),
        ("compiled", |at| fs::create_dir(at.join("pod/__pycache__")), "`pod/__pycache__` in "),
        ("executable", |at| fs::set_permissions(at.join("pod/echo.py"), PermissionsExt::from_mode(0o555)), "`pod/echo.py` in "),
        (
            "link",
            |at| {
                fs::copy(at.join("pod/echo.py"), at.with_extension("py"))?;
                fs::remove_file(at.join("pod/echo.py"))?;
                symlink(at.with_extension("py"), at.join("pod/echo.py"))
            },
            "`pod/echo.py` in ",
        ),
    ];
    for (case, change, says) in table {
        let dest = folder.path().join(case.replace(' ', "-"));
        unpack(&packed.bytes, &packed.index, &dest, "hob/echo 0.1.0").unwrap();
        check_folder(&dest, &packed.index).unwrap();
        assert_eq!(fs::metadata(dest.join("pod/echo.py")).unwrap().permissions().mode() & 0o777, 0o444);
        for (path, _) in packed.index.files() {
            fs::set_permissions(dest.join(path), PermissionsExt::from_mode(0o644)).unwrap();
        }
        change(&dest).unwrap();
        let fault = check_folder(&dest, &packed.index).expect_err(case);
        assert!(fault.code == Code::ShelfAltered && fault.message.contains(says), "{case}: {fault}");
    }
}

#[test]
fn packing_is_deterministic_and_takes_only_what_belongs_to_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    write_recipe(&one, "hob/echo", "0.1.0");
    let first = pack(&one).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    write_recipe(&two, "hob/echo", "0.1.0");
    fs::set_permissions(two.join("README.md"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(pack(&two).unwrap().bytes, first.bytes);
    let paths: Vec<_> = first.index.files().map(|(path, _)| path).collect();
    let wanted = [
        "LICENSE",
        "README.md",
        "cases/hello/input.json",
        "cases/hello/output.json",
        "glue.wasm",
        "pod/echo.py",
        "pod/helpers/__init__.py",
        "pod/requirements.lock",
        "recipe.toml",
    ];
    assert_eq!(paths, wanted);
    let json = serde_json::to_value(&first.index).unwrap();
    assert_eq!(Index::read(json).unwrap(), first.index);

    fs::set_permissions(two.join("pod/echo.py"), PermissionsExt::from_mode(0o755)).unwrap();
    let executable = pack(&two).unwrap();
    assert!(executable.index.get("pod/echo.py").unwrap().executable && executable.bytes != first.bytes);
    // Without `[glue]`, a stray glue.wasm is not part of the recipe.
    let text = fs::read_to_string(two.join("recipe.toml")).unwrap().replace("[glue]\nworld = \"0.1\"\n", "");
    fs::write(two.join("recipe.toml"), text).unwrap();
    assert!(pack(&two).unwrap().index.get("glue.wasm").is_none());
}

#[test]
fn packing_refuses_what_a_host_would_refuse_later() {
    type Change = fn(&Path) -> std::io::Result<()>;
    fn edit(at: &Path, from: &str, to: &str) -> std::io::Result<()> {
        let text = fs::read_to_string(at.join("recipe.toml"))?;
        assert!(text.contains(from), "{from}");
        fs::write(at.join("recipe.toml"), text.replace(from, to))
    }
    let table: [(&str, Change, Code, &[&str]); 21] = [
        ("no manifest", |at| fs::remove_file(at.join("recipe.toml")), Code::InvalidRecipe, &["no `recipe.toml`"]),
        ("bad key", |at| edit(at, "license", "licence"), Code::InvalidManifest, &["recipe.toml:", "license"]),
        ("no glue", |at| fs::remove_file(at.join("glue.wasm")), Code::InvalidRecipe, &["`glue.wasm`", "[glue]"]),
        ("no entry", |at| fs::remove_file(at.join("pod/echo.py")), Code::InvalidRecipe, &["pod.entry", "`pod/echo.py`"]),
        ("no lock", |at| fs::remove_file(at.join("pod/requirements.lock")), Code::InvalidRecipe, &["pod.lock", "requirements.lock"]),
        (
            "no hash",
            |at| fs::write(at.join("pod/requirements.lock"), "numpy==2.3.1\n"),
            Code::InvalidRecipe,
            &["requirements.lock:1", "numpy"],
        ),
        (
            "lock unnamed",
            |at| {
                edit(at, "lock = \"pod/requirements.lock\"\n", "")?;
                fs::write(at.join("pod/requirements.in"), "numpy")
            },
            Code::InvalidRecipe,
            &["requirements.in", "pod.lock"],
        ),
        (
            "not executable",
            |at| {
                edit(
                    at,
                    "runtime = \"python\"\nentry = \"echo:Echo\"\npython = \">=3.9\"\nlock = \"pod/requirements.lock\"",
                    "runtime = \"executable\"\nentry = \"pod/echo.py\"",
                )
            },
            Code::InvalidRecipe,
            &["`pod/echo.py`", "not executable"],
        ),
        ("no model", |at| fs::remove_file(at.join("models/weights.bin")), Code::InvalidRecipe, &["`weights.bin`", "missing"]),
        (
            "short model",
            |at| fs::write(at.join("models/weights.bin"), "x"),
            Code::InvalidRecipe,
            &["`weights.bin`", "found 1 bytes, wanted 21"],
        ),
        (
            "other model",
            |at| fs::write(at.join("models/weights.bin"), "weights, many of thex"),
            Code::InvalidRecipe,
            &["`weights.bin`", "found sha256", "wanted"],
        ),
        ("no cases", |at| fs::remove_dir_all(at.join("cases")), Code::InvalidRecipe, &["no case"]),
        ("no input", |at| fs::remove_file(at.join("cases/hello/input.json")), Code::InvalidRecipe, &["cases/hello/input.json", "missing"]),
        (
            "no output",
            |at| fs::remove_file(at.join("cases/hello/output.json")),
            Code::InvalidRecipe,
            &["cases/hello/output.json", "missing"],
        ),
        (
            "both",
            |at| fs::write(at.join("cases/hello/fault.json"), r#"{"code":"too_large"}"#),
            Code::InvalidRecipe,
            &["cases/hello/fault.json", "one of them"],
        ),
        ("bad json", |at| fs::write(at.join("cases/hello/input.json"), "{"), Code::InvalidRecipe, &["cases/hello/input.json", "JSON"]),
        (
            "bad input",
            |at| fs::write(at.join("cases/hello/input.json"), r#"{"operation": "echo", "input": {}}"#),
            Code::InvalidRecipe,
            &["cases/hello/input.json", "text"],
        ),
        (
            "bad operation",
            |at| fs::write(at.join("cases/hello/input.json"), r#"{"operation": "ecko", "input": {}}"#),
            Code::InvalidRecipe,
            &["cases/hello/input.json", "`echo`"],
        ),
        (
            "bad key in case",
            |at| fs::write(at.join("cases/hello/input.json"), r#"{"operation": "echo", "input": {"text": ""}, "x": 1}"#),
            Code::InvalidRecipe,
            &["cases/hello/input.json", "`x`"],
        ),
        ("link", |at| symlink("/etc/passwd", at.join("pod/passwd")), Code::InvalidRecipe, &["`pod/passwd`", "a link"]),
        (
            "long path",
            |at| fs::write(at.join("pod").join("x".repeat(120)), ""),
            Code::InvalidRecipe,
            &["xxx", "255 bytes of path and 100 of name"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (case, change, code, says) in table {
        let recipe = folder.path().join(case.replace(' ', "-"));
        write_recipe(&recipe, "hob/echo", "0.1.0");
        change(&recipe).unwrap();
        let fault: Fault = pack(&recipe).map(|_| ()).expect_err(case);
        assert_eq!(fault.code, code, "{case}: {fault}");
        for part in says {
            assert!(fault.message.contains(part), "{case}: `{part}` is not in: {fault}");
        }
    }
    // A file that looks like rubbish or a secret is refused by its name, unless it is spelled out.
    for path in ["pod/venv/lib/a.py", "pod/id_rsa", "pod/credentials.json", "cases/hello/photo.jpg~", "pod/x.pyc", "pod/hob.key.json"] {
        let recipe = folder.path().join(path.replace(['/', '~'], "-"));
        write_recipe(&recipe, "hob/echo", "0.1.0");
        let place = recipe.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, "x").unwrap();
        let fault = pack(&recipe).map(drop).unwrap_err();
        let named = path.split("lib").next().unwrap();
        assert!(fault.code == Code::InvalidRecipe && fault.message.contains(&format!("`{named}`")), "{path}: {fault}");
        fs::write(recipe.join(".hobignore"), "venv/\nid_rsa\n*.json~\n").unwrap();
        let manifest = fs::read_to_string(recipe.join("recipe.toml")).unwrap();
        let named = format!("hob = \">=0.1.1, <0.2\"\nfiles = [\"{path}\"]");
        fs::write(recipe.join("recipe.toml"), manifest.replace("hob = \"0.1\"", &named)).unwrap();
        if ["pod/venv/lib/a.py", "pod/id_rsa"].contains(&path) {
            // Named and ignored at the same time.
            let fault = pack(&recipe).map(drop).unwrap_err();
            assert!(fault.code == Code::InvalidRecipe && fault.message.contains(&format!("names `{path}`")), "{path}: {fault}");
            continue;
        }
        assert!(pack(&recipe).unwrap().index.get(path).is_some(), "{path}");
    }
    // More places and longer paths, for a recipe that excludes the Hob that accepts neither; otherwise the
    // files stay behind and are reported.
    let recipe = folder.path().join("wider");
    write_recipe(&recipe, "hob/echo", "0.1.0");
    let long = format!("pod/{}x.txt", "folder-of-some-length/".repeat(9));
    let more = ["data/words.txt", "LICENSES/MIT.txt", "NOTICE", "pod/.config", &long];
    for path in more {
        fs::create_dir_all(recipe.join(path).parent().unwrap()).unwrap();
        fs::write(recipe.join(path), "x").unwrap();
    }
    let packed = pack(&recipe).unwrap();
    assert!(more.iter().all(|path| packed.index.get(path).is_none()));
    for path in ["LICENSES/", "NOTICE", "data/", "pod/.config", &long] {
        assert!(packed.left.contains_key(path), "{path}: {:?}", packed.left);
    }
    let manifest = fs::read_to_string(recipe.join("recipe.toml")).unwrap();
    fs::write(recipe.join("recipe.toml"), format!("files = [\"data/**\"]\n{manifest}")).unwrap();
    let fault = pack(&recipe).map(drop).unwrap_err();
    assert!(fault.code == Code::InvalidManifest && fault.message.contains("`files`") && fault.message.contains("0.1.1"), "{fault}");
    let manifest = manifest.replace("hob = \"0.1\"", "hob = \">=0.1.1, <0.2\"");
    fs::write(recipe.join("recipe.toml"), format!("files = [\"data/**\", \"pod/.config\"]\n{manifest}")).unwrap();
    let packed = pack(&recipe).unwrap();
    assert!(more.iter().all(|path| packed.index.get(path).is_some()), "{:?}", packed.index);
    // A pattern that matches nothing is misspelled, or its files are missing from this copy of the folder.
    for idle in ["dta/**", "models/readme.txt", "data/*.md"] {
        fs::write(recipe.join("recipe.toml"), format!("files = [\"data/**\", \"{idle}\"]\n{manifest}")).unwrap();
        let fault = pack(&recipe).map(drop).unwrap_err();
        assert!(fault.code == Code::InvalidRecipe && fault.message.contains(&format!("names `{idle}`")), "{fault}");
    }
    fs::write(recipe.join("recipe.toml"), &manifest).unwrap();
    fs::write(recipe.join(".hobignore"), "\u{feff}NOTICE\r\n").unwrap();
    let fewer = pack(&recipe).unwrap().index;
    assert!(fewer.get("NOTICE").is_none() && fewer.get("LICENSES/MIT.txt").is_some(), "{fewer:?}");
    assert!(more.iter().all(|path| !packed.left.contains_key(*path)), "{:?}", packed.left);
    // A case may expect the refusal of a bad input.
    let recipe = folder.path().join("refusal");
    write_recipe(&recipe, "hob/echo", "0.1.0");
    fs::create_dir(recipe.join("cases/empty")).unwrap();
    fs::write(recipe.join("cases/empty/input.json"), r#"{"operation": "echo", "input": {}}"#).unwrap();
    fs::write(recipe.join("cases/empty/fault.json"), r#"{"code": "invalid_input"}"#).unwrap();
    pack(&recipe).unwrap();
}
