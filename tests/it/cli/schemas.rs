//! What a schema says is held: at the author's desk, at an install and at a call; and what an older Hob installed keeps working.

use std::{fs, path::Path};

use hob::model::{Code, Digest};
use serde_json::json;

use super::{
    hostile::{Den, Raw, archive, file, indexed},
    rig::{Rig, Signed, run, url, write_recipe},
    served::Serving,
};

const ECHO: &str = "class Subject:\n    def run(self, input):\n        return input\n";

/// A recipe `lab/red` whose schemas are these lines of TOML.
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

/// Gives `hob.lock` and the shelf the form in which an older Hob left them: without an edition, and with `text` in place of as long a `text` of
/// the manifest.
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

    // Its manifest is one that is refused today.
    as_older(&rig, "email", "emial");
    rig.hob(&nobody).well();
    rig.hob(&["verify"]).well();
    let listed = rig.hob(&["list", "--json"]);
    let warning = "operations.run.input.properties.mail.format: there is no format `emial` in JSON Schema";
    assert!(listed.json()[0]["warnings"][0].as_str().unwrap().starts_with(warning), "{listed:#?}");
    assert!(listed.stderr.contains("lab/red: installed by an older Hob"), "{listed:#?}");
    assert!(rig.hob(&["show", "lab/red"]).well().contains(warning));
    let logged = run(
        {
            let mut command = rig.command(&nobody);
            command.env("HOB_LOG", "warn");
            command
        },
        b"",
    );
    assert!(logged.stderr.contains("installed by an older Hob") && logged.stderr.contains("emial"), "{logged:#?}");
    // To add what is there changes nothing of it.
    rig.hob(&["add", "lab/red"]).well();
    rig.hob(&nobody).well();

    // One that is taken today says that it is not held, until it is added again: also for a server that runs.
    as_older_again(&rig);
    let serving = Serving::start(&rig, &[]);
    rig.hob(&nobody).well();
    assert!(rig.hob(&["show", "lab/red"]).well().contains("mail.format: `format = \"email\"` is not held"));
    rig.hob(&["add", "lab/red"]).well();
    rig.hob(&nobody).refused(Code::InvalidInput, &["`/mail`"]);
    assert!(!rig.hob(&["list"]).stderr.contains("older"));
    drop(serving);
}

/// The same recipe as it was published, still in the form of an older Hob.
fn as_older_again(rig: &Rig) {
    rig.hob(&["remove", "lab/red"]).well();
    rig.hob(&["add", "lab/red"]).well();
    as_older(rig, "email", "email");
}
