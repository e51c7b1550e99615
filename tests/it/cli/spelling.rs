//! The texts that Hob reads, as people, editors and other tools write them: manifests, locks, ranges, and
//! paths of any name.

use std::{fs, os::unix::ffi::OsStrExt, path::Path};

use hob::model::Code;
use serde_json::Value;

use super::rig::{Rig, Signed, put, run, write_recipe};

const ECHO: &str = "class Subject:\n    def run(self, input):\n        return input\n";
const HASH: &str = "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274";

/// A row of a table: a text that is accepted, or refused in these words.
type Row<'a> = (&'a str, Vec<u8>, Option<&'a [&'a str]>);

fn packed(rig: &Rig, table: &[Row], at: &Path, code: Code) {
    for (case, bytes, refused) in table {
        fs::write(at, bytes).unwrap();
        let ran = rig.hob(&["pack", "./lab-red", "-o", "red.hob"]);
        match refused {
            None => assert_eq!(ran.exit, Some(0), "{case}: {ran:#?}"),
            Some(parts) => {
                assert!(ran.exit == Some(4) && ran.stderr.contains(&format!("error[{}]", code.name())), "{case}: {ran:#?}");
                for part in *parts {
                    assert!(ran.stderr.contains(part), "{case}: wanted {part}: {}", ran.stderr);
                }
            }
        }
    }
}

#[test]
fn a_manifest_is_taken_in_every_way_of_writing_toml_and_what_json_lacks_is_named() {
    let rig = Rig::new();
    let folder = rig.recipe("lab/red", ECHO, "python = \">=3.9\"");
    let good = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to).into_bytes()
    };
    let output = |schema: &str| with("output = {}", &format!("output = {schema}"));
    let table: Vec<Row> = vec![
        ("as it is", good.clone().into_bytes(), None),
        ("a byte order mark", format!("\u{feff}{good}").into_bytes(), None),
        ("lines of Windows", good.replace('\n', "\r\n").into_bytes(), None),
        ("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect(), Some(&["UTF-8"])),
        ("Latin-1", good.replace("For a test", "f\u{fc}r").chars().map(|c| c as u8).collect(), Some(&["UTF-8"])),
        ("the same table twice", format!("{good}[pod]\nmax = 2\n").into_bytes(), Some(&["pod"])),
        ("a table over several lines", with("input = {}", "input = {\n  type = \"object\",\n  # a comment\n}"), None),
        ("dotted keys", with("input = {}", "input.type = \"object\"\ninput.properties.a.type = \"string\""), None),
        ("hexadecimal, and underscores", output("{ type = \"integer\", maximum = 0x7fff, minimum = 1_000 }"), None),
        ("a date", output("{ default = 1979-05-27T07:32:00Z }"), Some(&["operations.run.output", "string"])),
        ("infinity", output("{ maximum = inf }"), Some(&["JSON"])),
        ("an integer of 65 bits", output("{ maximum = 99999999999999999999 }"), Some(&["64 bits"])),
        ("a float for an integer", with("[pod]\n", "[pod]\nmax = 1e1\n"), Some(&["pod.max", "wanted an integer"])),
        ("a duration in words", with("[pod]\n", "[pod]\nidle_timeout_ms = \"5m\"\n"), Some(&["idle_timeout_ms", "wanted an integer"])),
    ];
    packed(&rig, &table, &folder.join("recipe.toml"), Code::InvalidManifest);
    let named = |key: &str, now: &str, value: &str| with(&format!("{key} = \"{now}\""), &format!("{key} = \"{value}\""));
    let mut table: Vec<Row> = Vec::new();
    for version in ["v1.0.0", "1.0", "1", "01.2.3", "1.0.0.0", "1.0.0-01", "1.0.0-rc..1", "99999999999999999999.0.0", "", "latest"] {
        table.push((version, named("version", "0.1.0", version), Some(&["version"])));
    }
    for version in ["1.0.0-rc.1", "1.0.0-0.3.7", "1.0.0+20240101.ab", "0.0.1", "1.0.0-x-y-z.-"] {
        table.push((version, named("version", "0.1.0", version), None));
    }
    for name in ["Me/toml", "me/My_Recipe", "me/\u{fc}ber", "me/a.b", "me/-x", "me", "toml", "me/a/b", "me/ x"] {
        table.push((name, named("name", "lab/red", name), Some(&["is not a recipe name"])));
    }
    let long = format!("me/{}", "a".repeat(64));
    for name in ["me/con", "me/nul", "0/0", "me/a--b", &long] {
        table.push((name, named("name", "lab/red", name), None));
    }
    packed(&rig, &table, &folder.join("recipe.toml"), Code::InvalidManifest);
}

#[test]
fn a_lock_is_taken_as_tools_write_it_and_what_is_none_is_told_what_makes_one() {
    let rig = Rig::new();
    let folder = rig.recipe("lab/red", ECHO, "python = \">=3.9\"\nlock = \"pod/requirements.lock\"");
    let text = |lines: &str| lines.replace("HASH", HASH).into_bytes();
    let upper = HASH.to_ascii_uppercase();
    let table: Vec<Row> = vec![
        ("lines of Windows", text("six==1.17.0 \\\r\n    --hash=sha256:HASH\r\n    # via me\r\n"), None),
        ("no end of the last line", text("six==1.17.0 --hash=sha256:HASH"), None),
        ("a hash in capitals", format!("six==1.17.0 --hash=sha256:{upper}").into_bytes(), None),
        (
            "a local version, a marker, extras, dots, capitals",
            text(
                "torch==2.9.1+cpu ; sys_platform == \"linux\" \\\n    --hash=sha256:HASH\nPyYAML[x,y]==6.0.3 --hash=sha256:HASH\nruamel.yaml==0.18.6;python_version>=\"3.9\" --hash=sha256:HASH\n",
            ),
            None,
        ),
        (
            "an index",
            text(
                "--index-url https://index.example/simple\n--extra-index-url https://wheels.example/whl/cpu\n\nsix==1.17.0 --hash=sha256:HASH\n",
            ),
            Some(&["index_url", "hob.toml"]),
        ),
        ("the project itself", text("# by uv\n-e .\nsix==1.17.0 --hash=sha256:HASH\n"), Some(&["--no-emit-project"])),
        ("an address", text("six @ https://files.example/six-1.17.0-py3-none-any.whl --hash=sha256:HASH\n"), Some(&["six"])),
        ("no hash", text("six==1.17.0\n"), Some(&["hash"])),
    ];
    packed(&rig, &table, &folder.join("pod/requirements.lock"), Code::InvalidRecipe);
}

#[test]
fn a_range_takes_the_newest_that_its_words_mean() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let published = [
        ("pre", &["0.9.0", "0.9.5", "1.0.0-rc.1", "1.0.0-rc.2"][..]),
        ("only-pre", &["1.0.0-alpha.1"]),
        ("build", &["1.0.0+1", "1.0.0+2", "1.0.0+10"]),
        ("many", &["0.1.0", "0.1.9", "0.2.0", "1.0.0", "1.4.2", "1.10.0", "2.0.0"]),
    ];
    for (name, versions) in published {
        for version in versions {
            let folder = signed.folder.path().join(format!("{name}-{version}"));
            write_recipe(&folder, &format!("lab/{name}"), version, ECHO, "python = \">=3.9\"");
            signed.publish(&folder);
        }
    }
    rig.trust(&signed.url(), &signed.repository);
    for (words, wanted) in [
        ("pre", "0.9.5"),
        ("pre@1.0.0-rc.1", "1.0.0-rc.1"),
        ("pre@^1.0.0-rc.1", "1.0.0-rc.2"),
        ("pre@=1.0.0-rc.1", "1.0.0-rc.1"),
        ("build", "1.0.0+10"),
        ("build@=1.0.0", "1.0.0+10"),
        ("build@1.0.0+1", "1.0.0+1"),
        ("many", "2.0.0"),
        ("many@^0", "0.2.0"),
        ("many@^0.1", "0.1.9"),
        ("many@~1.4", "1.4.2"),
        ("many@>=1, <2", "1.10.0"),
        ("many@*", "2.0.0"),
        ("many@1.x", "1.10.0"),
        ("many@1", "1.10.0"),
        ("many@1.4.2", "1.4.2"),
    ] {
        let ran = rig.hob(&["--json", "add", &format!("lab/{words}")]);
        ran.well();
        let name = words.split('@').next().unwrap();
        let list = rig.hob(&["--json", "list"]).json();
        let listed = list.as_array().or_else(|| list["recipes"].as_array()).unwrap();
        let found = listed.iter().find(|entry| entry["name"] == format!("lab/{name}")).map(|entry| entry["version"].clone());
        assert_eq!(found, Some(Value::from(wanted)), "{words}: {ran:#?}");
        rig.hob(&["remove", &format!("lab/{name}")]).well();
    }
    // A recipe with only pre-releases is not installed by its name, and the fault lists them.
    rig.hob(&["add", "lab/only-pre"]).refused(Code::NotInRepository, &["1.0.0-alpha.1"]);
    for words in ["many@==1.4.2", "many@~=1.4", "many@latest", "many@^1 || ^0.1", "many@1.0.0 - 1.5.0"] {
        let ran = rig.hob(&["add", &format!("lab/{words}")]);
        assert!(ran.exit == Some(2) && ran.stderr.contains("error[usage]") && ran.stderr.contains("hint"), "{words}: {ran:#?}");
    }
}

#[test]
fn folders_of_any_name_are_used_as_they_are() {
    let rig = Rig::new();
    let base = rig.folder.path();
    let (folder, repository, keys) = (base.join("my r\u{e9}cipe \u{2013} 1"), base.join("r\u{e4}po s#p%20c"), base.join("k eys"));
    write_recipe(&folder, "lab/red", "0.1.0", ECHO, "python = \">=3.9\"");
    let [folder, at, with] = [&folder, &repository, &keys].map(|path| path.to_str().unwrap());
    rig.hob(&["repo", "init", at, "--keys", with]).well();
    rig.hob(&["repo", "add-publisher", at, "lab", "--keys", with]).well();
    rig.hob(&["publish", folder, "--repo", at, "--keys", with]).well();
    let root = repository.join("metadata/1.root.json");
    for name in ["h o m e", "h\u{f6}me-\u{65e5}\u{672c}", "it's \"quoted\" $HOME `x`", "-x", &"long-".repeat(40)] {
        let hob = |words: &[&str]| {
            let mut command = rig.command(words);
            command.env("HOB_HOME", base.join(name));
            run(command, b"")
        };
        hob(&["remote", "add", "main", at, "--root", root.to_str().unwrap()]).well();
        hob(&["add", "lab/red"]).well();
        let called = hob(&["call", "lab/red", "run", r#"{"text": "ü"}"#]);
        assert!(called.well().contains(r#"{"text":"ü"}"#), "{name}: {called:#?}");
        hob(&["call", folder, "run", r#"{"text": "ü"}"#]).well();
    }
}

#[test]
fn without_a_home_it_is_said_what_names_one() {
    let rig = Rig::new();
    let folder = rig.recipe("lab/red", ECHO, "python = \">=3.9\"");
    let hob = |home: Option<&str>, words: &[&str]| {
        let mut command = rig.command(words);
        command.env_remove("HOME").env_remove("HOB_HOME");
        for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
            command.env_remove(name);
        }
        command.envs(home.map(|home| ("HOB_HOME", home)));
        run(command, b"")
    };
    let call = ["call", folder.to_str().unwrap(), "run", "{}"];
    hob(Some(rig.home.to_str().unwrap()), &call).well();
    // Relative to the working folder of the call.
    hob(Some("below/home"), &call).well();
    assert!(rig.folder.path().join("below/home/state").is_dir());
    for home in [None, Some("")] {
        hob(home, &["list"]).refused(Code::InvalidConfig, &["HOB_HOME"]);
    }
}

#[test]
fn a_file_that_cannot_be_packed_is_named_with_what_to_do() {
    let rig = Rig::new();
    let folder = rig.recipe("lab/red", ECHO, "python = \">=3.9\"");
    let odd = folder.join("pod").join(std::ffi::OsStr::from_bytes(b"b\xff.txt"));
    fs::write(&odd, "x").unwrap();
    rig.hob(&["pack", "./lab-red"]).refused(Code::InvalidRecipe, &["UTF-8", "b"]);
    fs::remove_file(odd).unwrap();
    put(&rig.folder.path().join("shared/util.py"), b"X = 1\n");
    std::os::unix::fs::symlink("../../shared/util.py", folder.join("pod/util.py")).unwrap();
    rig.hob(&["pack", "./lab-red"]).refused(Code::InvalidRecipe, &["pod/util.py", "copy of the file"]);
    fs::remove_file(folder.join("pod/util.py")).unwrap();
    for at in 0..1_500 {
        put(&folder.join(format!("pod/many/f{at}")), b"");
    }
    rig.hob(&["pack", "./lab-red"]).well();
    let long = format!("pod/{}.json", "n".repeat(120));
    put(&folder.join(&long), b"{}");
    rig.hob(&["pack", "./lab-red"]).refused(Code::InvalidRecipe, &[&long, "at most", "shorter"]);
}
