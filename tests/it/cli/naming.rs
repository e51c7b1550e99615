//! A word in the place of a recipe means the same to every command: a name, a capability, or a folder.

use std::fs;

use hob::model::Code;
use serde_json::json;

use super::{
    rig::{Rig, Signed, write_recipe},
    served::Serving,
};

const ECHO: &str = "class Subject:\n    def run(self, input):\n        return input\n";

/// A recipe whose session can be parked.
const KEPT: &str = "class Subject:\n    def run(self, input):\n        return input\n    def checkpoint(self):\n        return {}\n    def restore(self, state):\n        pass\n";

/// Every command that takes an installed recipe, for the recipe `lab/red`.
const COMMANDS: [&[&str]; 13] = [
    &["call", "lab/red", "run", "{}"],
    &["show", "lab/red"],
    &["verify", "lab/red"],
    &["remove", "lab/red"],
    &["grant", "lab/red"],
    &["grant", "lab/red", "--reduced"],
    &["revoke", "lab/red", "--reduced"],
    &["revoke", "lab/red", "--all"],
    &["revoke", "lab/red", "env=A"],
    &["sessions", "open", "lab/red", "one"],
    &["sessions", "checkpoint", "lab/red", "one"],
    &["sessions", "touch", "lab/red", "one"],
    &["sessions", "close", "lab/red", "one"],
];

#[test]
fn a_name_that_is_not_installed_is_told_of_the_folder_that_lies_there() {
    let (rig, signed) = (Rig::new(), Signed::new());
    rig.trust(&signed.url(), &signed.repository);
    for (is_there, served) in [(false, false), (true, false), (true, true)] {
        if is_there {
            write_recipe(&rig.folder.path().join("lab/red"), "lab/red", "0.1.0", ECHO, "python = \">=3.9\"\n");
            rig.hob(&["grant", "./lab/red", "--reduced"]).well();
        }
        let _serving = served.then(|| Serving::start(&rig, &[]));
        let add = &["add", "lab/red"][..];
        let lift = served.then_some(&["pods", "--lift", "lab/red"][..]);
        for words in COMMANDS.into_iter().chain([add]).chain(lift) {
            let ran = rig.hob(words);
            assert_eq!(ran.exit, Some(3), "{words:?}: {ran:#?}");
            let is_about_installed = ["verify", "remove", "add", "pods"].contains(&words[0]);
            let says = if is_about_installed { "`hob call ./lab/red OPERATION`" } else { "did you mean the folder `./lab/red`?" };
            assert_eq!(ran.stderr.contains(says), is_there, "{words:?}: {ran:#?}");
            let told = rig.hob(&[words, &["--json"]].concat()).json();
            let hint = told["fault"]["hint"].as_str().unwrap();
            assert_eq!(hint.contains("./lab/red"), is_there, "{words:?}: {hint}");
        }
    }
    // The folder's grants stay until somebody revokes them by the folder's own word.
    let granted = || rig.hob(&["grant", "./lab/red", "--json"]).json()["given"].clone();
    assert_eq!(granted(), json!({ "reduced": true }));
    rig.hob(&["revoke", "./lab/red", "--reduced"]).well();
    assert_eq!(granted(), json!({}));
    rig.hob(&["revoke", "./lab/red", "--reduced"]).refused(Code::Usage, &["was not given leave for less"]);
    // Once installed, the name means the recipe, whatever folder exists.
    signed.publish(&rig.folder.path().join("lab/red"));
    rig.hob(&["add", "lab/red"]).well();
    for words in [&["call", "lab/red", "run", "{}"][..], &["verify", "lab/red"], &["grant", "lab/red"], &["revoke", "lab/red", "--all"]] {
        rig.hob(words).well();
    }
    fs::remove_dir_all(rig.folder.path().join("lab")).unwrap();
    rig.hob(&["revoke", "./lab/red", "--all"]).refused(Code::RecipeNotFound, &["lab/red", "was given nothing"]);
    rig.hob(&["remove", "lab/red"]).well();
    rig.hob(&["revoke", "lab/red", "--all"]).refused(Code::RecipeNotFound, &["`lab/red`", "was given nothing"]);
}

#[test]
fn a_capability_and_a_folder_are_read_alike_everywhere() {
    let (rig, signed) = (Rig::new(), Signed::new());
    rig.trust(&signed.url(), &signed.repository);
    let folder = rig.folder.path().join("red");
    write_recipe(&folder, "lab/red", "0.1.0", KEPT, "python = \">=3.9\"\n[pod.session]\nmode = \"exclusive\"\n");
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    fs::write(folder.join("recipe.toml"), format!("capability = \"red@1\"\n{manifest}session = true\n")).unwrap();
    signed.publish(&folder);
    rig.hob(&["add", "lab/red"]).well();
    for served in [false, true] {
        let _serving = served.then(|| Serving::start(&rig, &[]));
        for words in [
            &["call", "red@1", "run", "{}", "--session", "one"][..],
            &["show", "red@1"],
            &["verify", "red@1"],
            &["grant", "red@1", "--reduced"],
            &["revoke", "red@1", "--reduced"],
            &["sessions", "open", "red@1", "one"],
            &["sessions", "touch", "red@1", "one"],
            &["sessions", "close", "red@1", "one"],
        ] {
            rig.hob(words).well();
        }
    }
    // Commands for installed recipes say that the word is a folder.
    for words in [&["verify", "./red"][..], &["remove", "./red"], &["add", "./red"], &["pods", "./red"]] {
        rig.hob(words).refused(Code::Usage, &["`./red` is not a recipe name but a path", "`hob list`"]);
    }
    // The logs of a folder are stored under the name in its manifest.
    rig.hob(&["logs", "./red"]).well();
    assert_ne!(rig.hob(&["logs", "./nothing"]).exit, Some(0));
    // A word that cannot be a name, and is a folder.
    for word in ["red", "red/"] {
        for words in [&["call", word, "run", "{}"][..], &["show", word], &["grant", word], &["revoke", word, "--all"]] {
            rig.hob(words).refused(Code::Usage, &["is not a recipe name", "did you mean the folder `./red`?"]);
        }
        rig.hob(&["verify", word]).refused(Code::Usage, &["is not a recipe name", "`hob call ./red OPERATION`"]);
    }
    for words in [&["call", "./red/recipe.toml", "run", "{}"][..], &["pack", "red/recipe.toml"], &["build", "red/recipe.toml"]] {
        rig.hob(words).refused(Code::InvalidRecipe, &["red/recipe.toml is a file, wanted the folder of a recipe"]);
    }
    assert_eq!(rig.hob(&["remove", "red@1", "--json"]).json(), json!({ "removed": "lab/red" }));
}
