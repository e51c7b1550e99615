//! The permissions that a recipe asks for, those that its operator gives, and that nothing else gives any.
//!
//! The tests use variables of the host's environment, because a pod can report whether it has one. What other
//! permissions open is tested with the sandbox.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hob::{
    host::{Config, Consent, Host},
    model::{Code, Home, Permissions},
};
use serde_json::{Value, json};

use super::{
    rig::{Ran, Rig, Signed, current, processes_of, put, write_recipe},
    served::{Serving, general},
};
use crate::repository::world::World;

/// Cargo sets both variables for every test and its children.
const ONE: &str = "CARGO_PKG_NAME";
const OTHER: &str = "CARGO_PKG_VERSION";

/// Reports which of the two variables it has, and its pid.
const ASKER: &str = r#"import os, time
class Subject:
    def run(self, input):
        if input.get("seconds"):
            print("began", flush=True)
            time.sleep(input["seconds"])
        return {"one": os.environ.get("CARGO_PKG_NAME"), "other": os.environ.get("CARGO_PKG_VERSION"), "pid": os.getpid()}
"#;

/// A recipe folder that asks for these variables.
fn asker(folder: &Path, version: &str, env: &[&str]) {
    let asks = if env.is_empty() { String::new() } else { format!("\n[permissions]\nenv = {}\n", json!(env)) };
    write_recipe(folder, "lab/asker", version, ASKER, &format!("python = \">=3.9\"\n{asks}"));
}

fn publish(signed: &Signed, version: &str, env: &[&str]) {
    let folder = signed.folder.path().join(format!("asker-{version}"));
    asker(&folder, version, env);
    signed.publish(&folder);
}

/// A home that trusts a repository with `lab/asker` 0.1.0, which asks for one variable.
fn with_asker() -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    publish(&signed, "0.1.0", &[ONE]);
    rig.trust(&signed.url(), &signed.repository);
    (rig, signed)
}

/// Which of the two variables a pod of that recipe has.
#[track_caller]
fn known(rig: &Rig, recipe: &str) -> [bool; 2] {
    let ran = rig.hob(&["call", recipe, "run", "{}"]);
    ran.well();
    let said = ran.json();
    assert!(said["one"].is_null() || said["one"] == env!("CARGO_PKG_NAME"), "{said}");
    [said["one"].is_string(), said["other"].is_string()]
}

fn configured(rig: &Rig) -> String {
    fs::read_to_string(rig.home.join("hob.toml")).unwrap_or_default()
}

fn words(kind: &str, values: &[&str]) -> Value {
    values.iter().map(|value| format!("{kind}={value}")).collect()
}

#[test]
fn nothing_is_installed_until_somebody_was_asked() {
    let (rig, _signed) = with_asker();
    let before = configured(&rig);
    rig.hob(&["add", "lab/asker"]).refused(
        Code::ConsentRequired,
        &[
            "`lab/asker` 0.1.0",
            "env=CARGO_PKG_NAME",
            "to know the value of the variable",
            "`hob add lab/asker --grant`",
            "`hob add lab/asker --no-grant`",
        ],
    );
    let ran = rig.hob(&["add", "lab/asker", "--json"]);
    let fault = &ran.json()["fault"];
    assert_eq!((ran.exit, &fault["code"], &fault["blame"]), (Some(5), &json!("consent_required"), &json!("caller")));
    assert_eq!(fault["detail"]["permissions"], words("env", &[ONE]));
    rig.assert_empty();
    assert_eq!(configured(&rig), before);
    let both = rig.hob(&["add", "lab/asker", "--grant", "--no-grant"]);
    assert_eq!(both.exit, Some(2), "{both:#?}");

    // Installed without the grant: it runs, and has no variable.
    let ran = rig.hob(&["add", "lab/asker", "--no-grant", "--json"]);
    ran.well();
    assert_eq!((&ran.json()["granted"], &ran.json()["withheld"]), (&json!([]), &words("env", &[ONE])));
    assert_eq!(known(&rig, "lab/asker"), [false, false]);
    assert!(!configured(&rig).contains("[grants"));
    // The operator has not agreed yet, so the question stays.
    rig.hob(&["add", "lab/asker"]).refused(Code::ConsentRequired, &["env=CARGO_PKG_NAME"]);
    // The same version again, now with consent.
    let ran = rig.hob(&["add", "lab/asker", "--grant"]);
    assert!(ran.well().contains("is installed already") && ran.stdout.contains("granted: env=CARGO_PKG_NAME (to know"), "{ran:#?}");
    assert_eq!(known(&rig, "lab/asker"), [true, false]);
    // From then on there is no question.
    rig.hob(&["add", "lab/asker"]).well();
    // Removing the recipe removes its grants.
    rig.hob(&["remove", "lab/asker"]).well();
    assert!(!configured(&rig).contains("grants"), "{}", configured(&rig));
    rig.hob(&["add", "lab/asker"]).refused(Code::ConsentRequired, &["env=CARGO_PKG_NAME"]);
}

#[test]
fn an_update_that_asks_for_more_does_not_have_it() {
    let (rig, signed) = with_asker();
    rig.hob(&["add", "lab/asker", "--grant"]).well();
    publish(&signed, "0.2.0", &[ONE, OTHER]);
    let ran = rig.hob(&["add", "lab/asker"]);
    ran.refused(Code::ConsentRequired, &["`lab/asker` 0.2.0", "env=CARGO_PKG_VERSION"]);
    assert!(!ran.stderr.contains("CARGO_PKG_NAME"), "only what is new is asked about: {ran:#?}");
    assert_eq!((rig.installed(), known(&rig, "lab/asker")), (vec!["lab/asker 0.1.0".to_owned()], [true, false]));
    rig.hob(&["add", "lab/asker", "--no-grant"]).well();
    assert_eq!((rig.installed(), known(&rig, "lab/asker")), (vec!["lab/asker 0.2.0".to_owned()], [true, false]));
    let shown = rig.hob(&["show", "lab/asker", "--json"]).json();
    let listed: Vec<_> = shown["permissions"].as_array().unwrap().iter().map(|asked| (&asked["permission"], &asked["granted"])).collect();
    assert_eq!(listed, [(&json!("env=CARGO_PKG_NAME"), &json!(true)), (&json!("env=CARGO_PKG_VERSION"), &json!(false))]);
    let text = rig.hob(&["show", "lab/asker"]);
    assert!(text.well().contains("asks for env=CARGO_PKG_VERSION, not granted") && text.stdout.contains("NAME, granted"), "{text:#?}");
    // A version that asks for less gets less, and the grant is kept for the next version.
    publish(&signed, "0.3.0", &[]);
    rig.hob(&["add", "lab/asker"]).well();
    assert_eq!(known(&rig, "lab/asker"), [false, false]);
    publish(&signed, "0.4.0", &[ONE]);
    rig.hob(&["add", "lab/asker"]).well();
    assert_eq!(known(&rig, "lab/asker"), [true, false]);
}

#[test]
fn what_is_given_is_shown_and_can_be_taken_back() {
    let (rig, _signed) = with_asker();
    rig.hob(&["add", "lab/asker", "--no-grant"]).well();
    let shown = |words: &[&str]| -> Value {
        let ran = rig.hob(&[words, &["--json"][..]].concat());
        ran.well();
        ran.json()
    };
    let text = |words: &[&str]| rig.hob(words).well().to_owned();
    let grant = shown(&["grant", "lab/asker"]);
    assert_eq!((&grant["recipe"], &grant["version"]), (&json!("lab/asker"), &json!("0.1.0")));
    assert_eq!((&grant["asked"], &grant["missing"]), (&json!({ "env": [ONE] }), &json!({ "env": [ONE] })));
    assert_eq!((&grant["given"], &grant["effective"], &grant["unused"]), (&json!({}), &json!({}), &json!({})));
    assert!(text(&["grant", "lab/asker"]).contains("\n  not granted: env=CARGO_PKG_NAME"));

    // A grant that the recipe does not ask for is kept for later, and has no effect.
    let grant = shown(&["grant", "lab/asker", "env=CARGO_PKG_VERSION"]);
    assert_eq!((&grant["effective"], &grant["unused"]), (&json!({}), &json!({ "env": [OTHER] })));
    assert!(text(&["grant", "lab/asker"]).contains("no effect now, the recipe does not ask for it: env=CARGO_PKG_VERSION"));
    assert_eq!(known(&rig, "lab/asker"), [false, false]);
    let grant = shown(&["grant", "lab/asker", "--all", "--reduced"]);
    assert_eq!((&grant["effective"], &grant["missing"]), (&json!({ "env": [ONE] }), &json!({})));
    assert_eq!(grant["given"], json!({ "env": [ONE, OTHER], "reduced": true }));
    assert!(text(&["show", "lab/asker"]).contains("(--reduced)") && text(&["grant", "lab/asker"]).contains("(--reduced)"));
    assert_eq!(known(&rig, "lab/asker"), [true, false]);

    assert_eq!(shown(&["revoke", "lab/asker", "--reduced"])["given"], json!({ "env": [ONE, OTHER] }));
    assert_eq!(shown(&["revoke", "lab/asker", "env=CARGO_PKG_NAME"])["given"], json!({ "env": [OTHER] }));
    assert_eq!(known(&rig, "lab/asker"), [false, false]);
    rig.hob(&["revoke", "lab/asker", "env=CARGO_PKG_NAME"])
        .refused(Code::Usage, &["was not given env=CARGO_PKG_NAME", "env=CARGO_PKG_VERSION", "`hob grant lab/asker`"]);
    assert_eq!(text(&["revoke", "lab/asker", "--all"]), "lab/asker is given nothing any more");
    assert!(!configured(&rig).contains("grants"));
    assert_eq!(rig.hob(&["revoke", "lab/asker"]).exit, Some(2), "what to take back is to be said");
    assert_eq!(rig.hob(&["revoke", "lab/asker", "--all", "env=A"]).exit, Some(2));
}

#[test]
fn words_that_nobody_can_be_given_are_refused() {
    let (rig, _signed) = with_asker();
    rig.hob(&["add", "lab/asker", "--no-grant"]).well();
    let before = configured(&rig);
    for (word, says) in [
        ("env", "wanted KEY=VALUE"),
        ("netwrok=a:1", "there is no permission `netwrok`"),
        ("network=a", "`a` is not a network name"),
        ("network=*.example.com:443", "is not a network name"),
        ("read=data", "is not a path to grant"),
        ("read=/data/../etc", "is not a path to grant"),
        ("read=/data/\u{1b}[2J", "`/data/\\u{1b}[2J` is not a path"),
        ("env=PATH", "this variable is the host's"),
        ("env=LD_PRELOAD", "this variable is the host's"),
        ("devices=camera", "there is no device `camera`"),
    ] {
        rig.hob(&["grant", "lab/asker", word]).refused(Code::Usage, &[says]);
    }
    // A pod that writes `hob.toml` gives itself everything else, and a pod that reads the server's token may
    // call it.
    let home = rig.home.to_str().unwrap();
    let folder = rig.folder.path().to_str().unwrap();
    for path in [folder, home, &format!("{home}/hob.toml"), &format!("{home}/state/serve/token"), &format!("{home}/data/recipes")] {
        for kind in ["read", "write"] {
            rig.hob(&["grant", "lab/asker", &format!("{kind}={path}")]).refused(Code::Usage, &["Hob's own files", path]);
        }
    }
    symlink(&rig.home, format!("{home}-link")).unwrap();
    rig.hob(&["grant", "lab/asker", &format!("write={home}-link/state")]).refused(Code::Usage, &["Hob's own files"]);
    rig.hob(&["grant", "lab/asker", &format!("read={home}-beside")]).well();
    rig.hob(&["revoke", "lab/asker", "--all"]).well();
    rig.hob(&["grant", "lab/none", "env=A"]).refused(Code::RecipeNotFound, &["`lab/none`"]);
    rig.hob(&["grant", "./none", "env=A"]).refused(Code::RecipeNotFound, &["./none"]);
    assert_eq!(configured(&rig), before);
    // The folder above was granted: a path below it cannot be revoked from that grant.
    rig.hob(&["grant", "lab/asker", "read=/data", "write=/out"]).well();
    let ran = rig.hob(&["revoke", "lab/asker", "read=/data/x"]);
    ran.refused(Code::Usage, &["was not given read=/data/x", "by a folder above"]);
    // More permissions of one kind than allowed.
    let many: Vec<String> = (0..65).map(|n| format!("env=V{n}")).collect();
    let many: Vec<&str> = ["grant", "lab/asker"].into_iter().chain(many.iter().map(String::as_str)).collect();
    rig.hob(&many).refused(Code::Usage, &["more than 64 of one kind"]);
}

#[test]
fn a_bundle_that_asks_for_hobs_own_files_is_given_none_of_them() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = signed.folder.path().join("thief");
    let asks = format!("python = \">=3.9\"\n\n[permissions]\nwrite = [{}]\n", json!(rig.home));
    write_recipe(&folder, "lab/thief", "0.1.0", ASKER, &asks);
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/thief", "--grant"]).refused(Code::Usage, &["Hob's own files", rig.home.to_str().unwrap()]);
    rig.assert_empty();
}

#[test]
fn wrong_grants_in_the_configuration_are_named_by_line_and_nothing_runs() {
    let (rig, _signed) = with_asker();
    rig.hob(&["add", "lab/asker", "--grant"]).well();
    let good = configured(&rig);
    let home = rig.home.to_str().unwrap();
    for (table, says) in [
        ("[grants.\"lab asker\"]", "neither a recipe nor a folder"),
        ("[grants.\"./asker\"]", "neither a recipe nor a folder"),
        ("[grants.\"/a/../b\"]", "neither a recipe nor a folder"),
        ("[grants]\n\"lab/x\" = 3", "grants.\"lab/x\": found 3, wanted a table"),
        ("[grants.\"lab/x\"]\nnetwrok = []", "nearest known key: `network`"),
        ("[grants.\"lab/x\"]\nenv = \"A\"", "grants.\"lab/x\".env: found the text \"A\", wanted a list of strings"),
        ("[grants.\"lab/x\"]\nenv = [3]", "found 3, wanted a string"),
        ("[grants.\"lab/x\"]\nenv = [\"PATH\"]", "this variable is the host's"),
        ("[grants.\"lab/x\"]\nreduced = 1", "grants.\"lab/x\".reduced: found 1, wanted true or false"),
        ("[grants.\"/a\"]\n[grants.\"/a/\"]", "a second table of the same folder"),
        (&format!("[grants.\"lab/x\"]\nwrite = [\"{home}/state\"]"), "reaches Hob's own files"),
    ] {
        put(&rig.home.join("hob.toml"), format!("{table}\n\n{good}").as_bytes());
        for command in [&["call", "lab/asker", "run", "{}"][..], &["grant", "lab/asker"], &["revoke", "lab/asker", "--all"], &["list"]] {
            let ran = rig.hob(command);
            assert_eq!(ran.exit, Some(4), "{table}: {ran:#?}");
            assert!(ran.stderr.contains("error[invalid_config]") && ran.stderr.contains(says), "{table}: {ran:#?}");
            assert!(ran.stderr.contains("hob.toml:"), "{ran:#?}");
        }
    }
    put(&rig.home.join("hob.toml"), good.as_bytes());
    assert_eq!(known(&rig, "lab/asker"), [true, false]);
}

#[test]
fn a_configuration_behind_a_link_is_edited_where_it_lies() {
    let (rig, _signed) = with_asker();
    rig.hob(&["add", "lab/asker", "--no-grant"]).well();
    let (file, kept) = (rig.home.join("hob.toml"), rig.home.join("kept/hob.toml"));
    fs::create_dir(kept.parent().unwrap()).unwrap();
    fs::rename(&file, &kept).unwrap();
    symlink("kept/hob.toml", &file).unwrap();
    rig.hob(&["grant", "lab/asker", "read=/data"]).well();
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink() && fs::read_to_string(&kept).unwrap().contains("/data"));
    assert_eq!(fs::read_dir(kept.parent().unwrap()).unwrap().count(), 1, "what was written beside it is gone");
    // One that leads nowhere is neither replaced nor taken for no file.
    fs::remove_file(&kept).unwrap();
    let refused = rig.hob(&["grant", "lab/asker", "read=/data"]);
    assert!(refused.exit != Some(0) && fs::symlink_metadata(&file).unwrap().is_symlink(), "{refused:?}");
}

#[test]
fn grants_are_edited_and_everything_else_stays() {
    let (rig, _signed) = with_asker();
    rig.hob(&["add", "lab/asker", "--no-grant"]).well();
    let before = format!(
        "# by hand\n{}\n[grants.\"lab/asker\"] # this one\nenv = [\n  \"CARGO_PKG_NAME\", # its name\n  \"B\", # no more\n]\nread = [\"/data/\"]\n\n\
         [grants.\"lab/away\"]\nnetwork = [\"API.example.:443\"]\n",
        configured(&rig)
    );
    put(&rig.home.join("hob.toml"), before.as_bytes());
    rig.hob(&["grant", "lab/asker", "write=/out", "read=/data"]).well();
    rig.hob(&["revoke", "lab/asker", "env=B"]).well();
    let after = configured(&rig);
    for kept in [
        "# by hand\n",
        "[grants.\"lab/asker\"] # this one\n",
        "  \"CARGO_PKG_NAME\", # its name\n",
        "read = [\"/data/\"]\n",
        "write = [\"/out\"]\n",
        "[grants.\"lab/away\"]\nnetwork = [\"API.example.:443\"]\n",
    ] {
        assert!(after.contains(kept), "{kept:?} is not in {after}");
    }
    assert!(!after.contains("\"B\""), "{after}");
    // Grants of a recipe that is not installed can be revoked.
    let left = rig.hob(&["revoke", "lab/away", "network=api.example:443", "--json"]);
    assert_eq!(left.json(), json!({ "recipe": "lab/away", "given": {} }));
    assert!(!configured(&rig).contains("lab/away"));
    // The short form means the same.
    let (head, _) = before.split_once("[grants.\"lab/asker\"]").unwrap();
    put(&rig.home.join("hob.toml"), format!("grants = {{ \"lab/asker\" = {{ env = [\"CARGO_PKG_NAME\"] }} }}\n{head}").as_bytes());
    assert_eq!(known(&rig, "lab/asker"), [true, false]);
    rig.hob(&["grant", "lab/asker", "env=B"]).well();
    assert!(configured(&rig).contains("env = [\"CARGO_PKG_NAME\", \"B\"]"), "{}", configured(&rig));
    rig.hob(&["revoke", "lab/asker", "--all"]).well();
    assert_eq!(known(&rig, "lab/asker"), [false, false]);
}

#[test]
fn a_folder_has_what_it_was_given_by_its_place_and_not_by_its_name() {
    let (rig, _signed) = with_asker();
    rig.hob(&["add", "lab/asker", "--grant"]).well();
    let (folder, copy) = (rig.folder.path().join("asker"), rig.folder.path().join("copy"));
    asker(&folder, "0.1.0", &[ONE, OTHER]);
    asker(&copy, "0.1.0", &[ONE, OTHER]);
    // The folder calls itself `lab/asker`, as any folder can.
    assert_eq!(known(&rig, "./asker"), [false, false]);
    let granted = rig.hob(&["grant", "./asker", "env=CARGO_PKG_VERSION", "--json"]).json();
    assert_eq!(granted["recipe"], json!(folder.canonicalize().unwrap()));
    symlink(&folder, rig.folder.path().join("link")).unwrap();
    for (word, has) in [("./asker", true), (folder.to_str().unwrap(), true), ("./link", true), ("./copy", false), ("lab/asker", false)] {
        assert_eq!(known(&rig, word)[1], has, "{word}");
    }
    assert_eq!(known(&rig, "lab/asker"), [true, false]);
    rig.hob(&["revoke", "./link", "--all"]).well();
    assert_eq!(known(&rig, "./asker"), [false, false]);
    // A folder that is gone leaves no grants behind.
    rig.hob(&["grant", "./copy", "--all"]).well();
    fs::remove_dir_all(&copy).unwrap();
    rig.hob(&["revoke", copy.canonicalize().unwrap_or(copy.clone()).to_str().unwrap(), "--all"]).well();
    assert!(!configured(&rig).contains("copy"), "{}", configured(&rig));
}

/// Runs the program behind a terminal, where `answer` is typed.
fn typed(rig: &Rig, words: &[&str], answer: &str) -> Ran {
    let script = "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let hob = rig.command(words);
    rig.python(&[&["-c", script, hob.get_program().to_str().unwrap()], words].concat(), answer.as_bytes())
}

#[test]
fn on_a_terminal_it_is_asked_and_only_yes_is_a_yes() {
    let (rig, signed) = with_asker();
    for answer in ["\n", "n\n", "yess\n", "grant\n"] {
        let ran = typed(&rig, &["add", "lab/asker"], answer);
        assert!(ran.exit == Some(5) && ran.stdout.contains("Install it and give it this? [y/N]"), "{answer:?}: {ran:#?}");
        assert!(ran.stdout.contains("env=CARGO_PKG_NAME: to know the value") && ran.stdout.contains("error[consent_required]"), "{ran:#?}");
        rig.assert_empty();
    }
    let ran = typed(&rig, &["add", "lab/asker"], "y\n");
    assert!(ran.exit == Some(0) && ran.stdout.contains("installed: lab/asker 0.1.0"), "{ran:#?}");
    assert_eq!(known(&rig, "lab/asker"), [true, false]);
    // Nothing new, so no question; and a program that wants JSON gets no question either.
    let ran = typed(&rig, &["add", "lab/asker"], "");
    assert!(ran.exit == Some(0) && !ran.stdout.contains("[y/N]"), "{ran:#?}");
    publish(&signed, "0.2.0", &[ONE, OTHER]);
    let ran = typed(&rig, &["add", "lab/asker", "--json"], "y\n");
    assert!(ran.exit == Some(5) && !ran.stdout.contains("[y/N]"), "{ran:#?}");
}

#[test]
fn a_running_server_follows_and_gives_nothing_itself() {
    let (rig, _signed) = with_asker();
    rig.hob(&["add", "lab/asker", "--grant"]).well();
    let serving = Serving::start(&rig, &[]);
    let call = || {
        let ran = rig.hob(&["call", "lab/asker", "run", "{}"]);
        ran.well();
        ran.json()
    };
    let first = call();
    assert_eq!(first["one"], env!("CARGO_PKG_NAME"));
    assert_eq!(call()["pid"], first["pid"], "it stays warm");

    // No request of any kind changes a recipe's permissions.
    let before = configured(&rig);
    rig.hob(&["revoke", "lab/asker", "--all"]).well();
    let revoked = configured(&rig);
    // Without a call: a pod that lost a permission has no reason to be called.
    let begun = Instant::now();
    while !processes_of(&rig.home).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the pod of before is still there: {:?}", processes_of(&rig.home));
        std::thread::sleep(Duration::from_millis(20));
    }
    let body = json!({ "permissions": ["env=CARGO_PKG_NAME"], "env": [ONE], "reduced": true }).to_string();
    for path in
        ["/v1/grants", "/v1/grants/lab/asker", "/v1/recipes/lab/asker/grant", "/v1/recipes/lab/asker/grants", "/v1/recipes/lab/asker"]
    {
        for method in ["POST", "PUT", "PATCH", "GET", "DELETE"] {
            let answer = serving.ask(&format!("{method} {path}"), body.as_bytes());
            assert!([404, 405].contains(&answer.status), "{method} {path}: {answer:?}");
        }
    }
    for more in [json!({ "grants": { "env": [ONE] } }), json!({ "permissions": words("env", &[ONE]) }), json!({ "reduced": true })] {
        let mut call: Value = serde_json::from_slice(&general("lab/asker", "run", &json!({}))).unwrap();
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = serving.ask("POST /v1/calls", call.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    assert_eq!(configured(&rig), revoked);
    let second = call();
    assert!(second["one"].is_null() && second["pid"] != first["pid"], "{second}");

    // A grant written by hand counts as well; a pod first finishes its ask in hand.
    let mut slow = rig.command(&["call", "lab/asker", "run", r#"{"seconds": 3}"#]).spawn().unwrap();
    let begun = Instant::now();
    while !rig.hob(&["logs"]).stdout.contains("began") {
        assert!(begun.elapsed() < Duration::from_secs(10), "the slow call did not begin");
    }
    fs::write(rig.home.join("hob.toml"), &before).unwrap();
    let third = call();
    assert!(third["one"].is_string() && third["pid"] != second["pid"], "{third}");
    assert!(slow.try_wait().unwrap().is_none(), "it was over before its pod could be let go of");
    assert!(slow.wait().unwrap().success());
    // A typing mistake: nothing is guessed, and calls report the mistake until it is corrected.
    fs::write(rig.home.join("hob.toml"), before.replace("CARGO_PKG_NAME", "PATH")).unwrap();
    let answer = serving.ask("POST /v1/recipes/lab/asker/run", b"{}");
    assert!(answer.code() == "invalid_config" && answer.body.contains("this variable is the host's"), "{answer:?}");
    fs::write(rig.home.join("hob.toml"), &before).unwrap();
    assert_eq!(call()["one"], env!("CARGO_PKG_NAME"));
}

#[test]
fn a_recipe_that_asks_for_nothing_keeps_its_pod_when_another_is_given_something() {
    let (rig, signed) = with_asker();
    signed.publish_plain("lab/plain", "0.1.0");
    rig.hob(&["add", "lab/asker", "--no-grant"]).well();
    rig.hob(&["add", "lab/plain"]).well();
    let _serving = Serving::start(&rig, &[]);
    rig.hob(&["call", "lab/plain", "run", "1"]).well();
    let pods = |rig: &Rig| rig.hob(&["pods", "lab/plain", "--json"]).json();
    let before = pods(&rig)[0]["pid"].clone();
    rig.hob(&["grant", "lab/asker", "--all"]).well();
    rig.hob(&["grant", "lab/plain", "env=A"]).well();
    rig.hob(&["call", "lab/plain", "run", "1"]).well();
    assert!(before.is_u64() && pods(&rig)[0]["pid"] == before, "{}", pods(&rig));
}

#[tokio::test]
async fn an_app_that_embeds_a_host_says_what_it_agrees_to() {
    let (rig, _signed) = with_asker();
    let host = Host::open(Config::new(Home::at(&rig.home)).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
    let (name, any) = ("lab/asker".parse().unwrap(), hob::model::VersionRange::ANY);
    let agreed = |words: &[&str]| Consent::These(Permissions::from_words(words.iter().copied()).unwrap());
    // Consent to other permissions than the recipe asks for.
    for consent in [Consent::Required, agreed(&[]), agreed(&["env=CARGO_PKG_VERSION"])] {
        assert_eq!(host.add(&name, Some(&any), None, &consent).await.unwrap_err().code, Code::ConsentRequired, "{consent:?}");
    }
    assert_eq!(host.installed().unwrap(), []);
    // Consent to more than the recipe asks for: only that is granted.
    let added = host.add(&name, Some(&any), None, &agreed(&["env=CARGO_PKG_VERSION", "env=CARGO_PKG_NAME"])).await.unwrap();
    assert_eq!(added.granted, ["env=CARGO_PKG_NAME"]);
    let granted = host.granted(&"lab/asker".parse().unwrap()).await.unwrap();
    assert_eq!(granted.given.permissions.words(), ["env=CARGO_PKG_NAME"]);
    host.shutdown().await;
}

#[tokio::test]
async fn what_is_signed_about_a_bundle_is_what_its_manifest_asks_for() {
    // The format that the publisher's program writes, for readers that have not fetched the bundle.
    let (_rig, signed) = with_asker();
    let role: Value = serde_json::from_slice(&fs::read(current(&signed.repository, "lab")).unwrap()).unwrap();
    assert_eq!(role["signed"]["targets"]["lab/asker/0.1.0.hob"]["custom"]["permissions"], words("env", &[ONE]));

    for (said, code, says) in [
        (json!(["env=A"]), Code::BundleInvalid, "asks for none; its publisher signed that it asks for `env=A`"),
        (json!(["env=PATH"]), Code::MetadataInvalid, "`permissions` of target `hob/echo/0.1.0.hob`"),
        (json!("env=A"), Code::MetadataInvalid, "malformed"),
    ] {
        let world = World::new().await;
        world.forge("hob", "hob", |signed| signed["targets"]["hob/echo/0.1.0.hob"]["custom"]["permissions"] = said);
        let rig = Rig::new();
        let repository: PathBuf = world.repo.clone();
        rig.trust(repository.to_str().unwrap(), &repository);
        rig.hob(&["add", "hob/echo", "--grant"]).refused(code, &[says]);
        assert_eq!(rig.installed(), [""; 0]);
    }
}
