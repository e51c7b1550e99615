//! One installed recipe is damaged, in each possible way: callers of other recipes, by name or by capability,
//! notice nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use hob::model::Digest;
use serde_json::{Value, json};

use super::{
    rig::{Rig, Signed, glue, put, write_recipe},
    served::Serving,
};

const ECHO: &str = "class Subject:\n    def run(self, input):\n        return input\n";

/// The folder of an installed recipe, and the path of its index.
pub fn installed_at(rig: &Rig, name: &str) -> (PathBuf, PathBuf) {
    let versions = fs::read_dir(rig.home.join("data/recipes").join(name)).unwrap().map(|entry| entry.unwrap().path());
    let folder = versions.into_iter().find(|path| path.join("recipe.toml").is_file()).unwrap();
    let index = PathBuf::from(format!("{}.index.json", folder.display()));
    assert!(index.is_file(), "{index:?}");
    (folder, index)
}

/// Overwrites a read-only file.
pub fn overwrite(path: &Path, bytes: &[u8]) {
    let folder = path.parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

/// Makes `text` the manifest of an installed recipe, as if an older Hob, which checked less, had installed
/// it.
pub fn installed_with(rig: &Rig, name: &str, text: &str) {
    let (folder, index) = installed_at(rig, name);
    overwrite(&folder.join("recipe.toml"), text.as_bytes());
    let old = fs::read(&index).unwrap();
    let mut files: Value = serde_json::from_slice(&old).unwrap();
    files["recipe.toml"]["sha256"] = Digest::of(text.as_bytes()).hex().into();
    files["recipe.toml"]["bytes"] = text.len().into();
    let new = serde_json::to_vec(&files).unwrap();
    overwrite(&index, &new);
    let lock = rig.home.join("hob.lock");
    let found = fs::read_to_string(&lock).unwrap();
    assert!(found.contains(&Digest::of(&old).hex()), "{found}");
    fs::write(&lock, found.replace(&Digest::of(&old).hex(), &Digest::of(&new).hex())).unwrap();
}

/// Installs `lab/well`, which provides `thing@1`, and `lab/ill`, which provides another capability.
fn two() -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    for (name, more) in [("lab/well", ""), ("lab/ill", "[glue]\nworld = \"0.1\"\n")] {
        let folder = signed.folder.path().join(name.replace('/', "-"));
        write_recipe(&folder, name, "0.1.0", ECHO, &format!("python = \">=3.9\"\n{more}"));
        let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
        let provides = if name == "lab/well" { "thing@1" } else { "other@1" };
        fs::write(folder.join("recipe.toml"), manifest.replacen("hob = ", &format!("capability = \"{provides}\"\nhob = "), 1)).unwrap();
        if !more.is_empty() {
            put(&folder.join("glue.wasm"), glue());
        }
        signed.publish(&folder);
    }
    rig.trust(&signed.url(), &signed.repository);
    for name in ["lab/well", "lab/ill"] {
        rig.hob(&["add", name]).well();
    }
    (rig, signed)
}

#[test]
fn a_damaged_recipe_is_no_matter_of_whoever_calls_another_one() {
    type Damage = (&'static str, fn(&Rig), &'static str);
    let damages: [Damage; 6] = [
        ("its manifest", |rig| overwrite(&installed_at(rig, "lab/ill").0.join("recipe.toml"), b"name = "), "shelf_altered"),
        ("its glue", |rig| overwrite(&installed_at(rig, "lab/ill").0.join("glue.wasm"), b"\0asm"), "shelf_altered"),
        ("its index", |rig| overwrite(&installed_at(rig, "lab/ill").1, b"{"), "shelf_altered"),
        ("no index", |rig| fs::remove_file(installed_at(rig, "lab/ill").1).unwrap(), "shelf_altered"),
        ("no folder", |rig| fs::rename(installed_at(rig, "lab/ill").0, rig.folder.path().join("away")).unwrap(), "shelf_altered"),
        (
            "a manifest that this Hob does not take",
            |rig| installed_with(rig, "lab/ill", "capability = \"other@1\"\nname = 3\n"),
            "invalid_manifest",
        ),
    ];
    for (what, damage, code) in damages {
        let (rig, _signed) = two();
        let serving = Serving::start(&rig, &[]);
        for word in ["thing@1", "other@1"] {
            assert_eq!(rig.hob(&["call", word, "run", r#"{"text":"a"}"#]).json(), json!({ "text": "a" }), "{what}: before");
        }
        drop(serving);
        damage(&rig);
        let serving = Serving::start(&rig, &[]);
        for word in ["thing@1", "lab/well"] {
            assert_eq!(rig.hob(&["call", word, "run", r#"{"text":"a"}"#]).json(), json!({ "text": "a" }), "{what}: {word}");
        }
        // By name, the fault is that recipe's. By capability too, as long as its manifest can still be read
        // for that.
        let by_name = rig.hob(&["call", "lab/ill", "run", "{}"]);
        assert!(by_name.stderr.contains(&format!("error[{code}]")) && by_name.stderr.contains("hint"), "{what}: {by_name:#?}");
        let by_capability = rig.hob(&["call", "other@1", "run", "{}"]);
        let known = by_capability.stderr.contains(&format!("error[{code}]"));
        let unknown = by_capability.stderr.contains("error[recipe_not_found]") && by_capability.stderr.contains("1 cannot be read");
        assert!(known || unknown, "{what}: {by_capability:#?}");
        let health = serving.ask("GET /v1/health", b"");
        assert_eq!(health.status, 503, "{what}: {health:?}");
        let recipes = health.json()["recipes"].clone();
        let of = |name: &str| {
            recipes.as_array().unwrap().iter().find(|one| one["recipe"] == name).unwrap_or_else(|| panic!("{what}: {recipes}"))["health"]
                .clone()
        };
        assert_eq!((of("lab/well"), of("lab/ill")), (json!("good"), json!("damaged")), "{what}");
        let status = rig.hob(&["status"]);
        assert!(status.well().contains("DAMAGED") && status.stdout.contains("lab/ill"), "{what}: {status:#?}");
        let verified = rig.hob(&["verify"]);
        assert!(verified.exit != Some(0) && format!("{}{}", verified.stdout, verified.stderr).contains("lab/ill"), "{what}: {verified:#?}");
    }
}

#[test]
fn an_entry_of_the_lock_that_cannot_be_read_is_no_matter_of_the_others() {
    let (rig, _signed) = two();
    let lock = rig.home.join("hob.lock");
    let text = fs::read_to_string(&lock).unwrap();
    let entry = text.find("name = \"lab/ill\"").unwrap();
    let version = entry + text[entry..].find("version = \"0.1.0\"").unwrap();
    let damaged = format!("{}version = \"one\"  {}", &text[..version], &text[version + "version = \"0.1.0\"".len()..]);
    fs::write(&lock, &damaged).unwrap();
    for word in ["thing@1", "lab/well"] {
        assert_eq!(rig.hob(&["call", word, "run", r#"{"text":"a"}"#]).json(), json!({ "text": "a" }));
    }
    assert_eq!(rig.installed(), ["lab/well 0.1.0"]);
    let ill = rig.hob(&["call", "lab/ill", "run", "{}"]);
    assert!(ill.stderr.contains("error[invalid_config]") && ill.stderr.contains("`lab/ill`"), "{ill:#?}");
    let verified = rig.hob(&["verify"]);
    assert!(verified.exit != Some(0) && format!("{}{}", verified.stdout, verified.stderr).contains("lab/ill"), "{verified:#?}");
    // An unreadable file is never overwritten.
    let removed = rig.hob(&["remove", "lab/well"]);
    assert!(removed.stderr.contains("error[invalid_config]"), "{removed:#?}");
    assert_eq!(fs::read_to_string(&lock).unwrap(), damaged);
}
