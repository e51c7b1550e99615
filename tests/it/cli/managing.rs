//! Remotes, versions and the shelf, as people manage them.

use std::{fs, os::unix::fs::PermissionsExt};

use hob::model::Code;
use serde_json::{Value, json};

use super::rig::{Rig, Signed};

#[test]
fn every_command_gives_one_json_document_when_asked() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_plain("lab/plain", "0.1.0");
    let json = |words: &[&str]| -> Value {
        let ran = rig.hob(&[words, &["--json"][..]].concat());
        ran.well();
        ran.json()
    };
    assert_eq!(json(&["list"]), json!([]));
    assert_eq!(json(&["verify"]), json!([]));
    let root = signed.repository.join("metadata/1.root.json");
    let added = json(&["remote", "add", "main", &signed.url(), "--root", root.to_str().unwrap()]);
    assert_eq!(added, json!({ "remote": "main", "url": signed.url(), "fingerprint": signed.fingerprint }));
    assert_eq!(json(&["remote", "list"]), json!([{ "name": "main", "url": signed.url() }]));
    let added = json(&["add", "lab/plain"]);
    assert_eq!((&added["name"], &added["version"], &added["already"]), (&json!("lab/plain"), &json!("0.1.0"), &json!(false)));
    assert_eq!(json(&["add", "lab/plain"])["already"], true);
    assert_eq!(json(&["list"])[0]["name"], "lab/plain");
    let shown = json(&["show", "lab/plain"]);
    assert_eq!((&shown["signed_by"], &shown["remote"], &shown["operations"][0]["name"]), (&json!("lab"), &json!("main"), &json!("run")));
    let reports = json(&["verify"]);
    assert!(
        !reports.as_array().unwrap().is_empty() && reports.as_array().unwrap().iter().all(|report| report["fault"].is_null()),
        "{reports}"
    );
    assert_eq!(json(&["remove", "lab/plain"]), json!({ "removed": "lab/plain" }));
    assert_eq!(json(&["remote", "remove", "main"]), json!({ "removed": "main" }));
    // For people: one line each, and never JSON.
    assert_eq!(rig.hob(&["list"]).well(), "nothing is installed");
    assert_eq!(rig.hob(&["remote", "list"]).well(), "no remote is trusted");
}

#[test]
fn a_removed_recipe_is_not_found_and_can_be_added_again() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_plain("lab/plain", "0.1.0");
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["call", "lab/plain", "run", "1"]).refused(Code::RecipeNotFound, &["installed: nothing", "`hob add lab/plain`"]);
    for _ in 0..2 {
        rig.hob(&["add", "lab/plain"]).well();
        assert_eq!(rig.hob(&["call", "lab/plain", "run", "1"]).well(), "1");
        rig.hob(&["remove", "lab/plain"]).well();
        rig.hob(&["call", "lab/plain", "run", "1"]).refused(Code::RecipeNotFound, &["installed: nothing"]);
        assert!(!rig.home.join("data/recipes/lab/plain").exists());
    }
}

#[test]
fn a_range_chooses_the_version_and_is_remembered() {
    let (rig, signed) = (Rig::new(), Signed::new());
    for version in ["0.1.0", "0.1.4", "0.2.0"] {
        signed.publish_plain("lab/plain", version);
    }
    rig.trust(&signed.url(), &signed.repository);
    let wanted = || {
        let text = fs::read_to_string(rig.home.join("hob.toml")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("\"lab/plain\" = ").map(str::to_owned)).unwrap_or_default()
    };
    for (words, version, range) in [
        ("lab/plain@^0.1", "0.1.4", "\"^0.1\""),
        ("lab/plain@=0.1.0", "0.1.0", "\"=0.1.0\""),
        // The name alone keeps a pin.
        ("lab/plain", "0.1.0", "\"=0.1.0\""),
        ("lab/plain@*", "0.2.0", "\"*\""),
        ("lab/plain@0.1.0", "0.1.0", "\"=0.1.0\""),
        ("lab/plain@0.1", "0.1.4", "\"^0.1\""),
        ("lab/plain", "0.1.4", "\"^0.1\""),
        ("lab/plain@0.2.0", "0.2.0", "\"=0.2.0\""),
        // The same version with another range.
        ("lab/plain@^0.2", "0.2.0", "\"^0.2\""),
    ] {
        let before = rig.installed().first().map(|line| line.rsplit_once(' ').unwrap().1.to_owned());
        let wanted_before = wanted();
        let text = rig.hob(&["add", words]).well().to_owned();
        assert_eq!((rig.installed(), wanted().as_str()), (vec![format!("lab/plain {version}")], range), "{words}");
        // Every change prints the old and the new version; a first install prints no old one.
        let was = before.filter(|before| before != version).map(|before| format!("{version} (was {before})"));
        assert!(
            was.as_ref().is_none_or(|was| text.contains(was)) && (was.is_some() == text.contains(&format!("{version} (was "))),
            "{text}"
        );
        let (from, to) = (wanted_before.trim_matches('"'), range.trim_matches('"'));
        let changed = !from.is_empty() && from != to;
        assert_eq!(text.contains(&format!("wanted in: `{to}` (was `{from}`)")), changed, "{words}: {text}");
        rig.hob(&["verify"]).well();
    }
    let added = rig.hob(&["add", "lab/plain@0.1.4", "--json"]).json();
    let said = ["version", "version_before", "wanted", "wanted_before"].map(|key| added[key].as_str().unwrap());
    assert_eq!(said, ["0.1.4", "0.2.0", "=0.1.4", "^0.2"]);
    // Written into the file by hand.
    let file = rig.home.join("hob.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"=0.1.4\"", "\"0.1.0\" # mine")).unwrap();
    rig.hob(&["add", "lab/plain"]).well();
    assert_eq!((rig.installed(), wanted()), (vec!["lab/plain 0.1.0".to_owned()], "\"0.1.0\" # mine".to_owned()));
    fs::write(&file, text.replace("\"=0.1.4\"", "\"7.0.0\"")).unwrap();
    rig.hob(&["add", "lab/plain"]).refused(Code::NotInRepository, &["`=7.0.0`", "`\"lab/plain\"` in `[recipes]` of hob.toml is `=7.0.0`"]);
    fs::write(&file, text.replace("\"=0.1.4\"", "\"latest\"")).unwrap();
    let ran = rig.hob(&["add", "lab/plain"]);
    assert!(ran.exit == Some(4) && ran.stderr.contains("`latest` is not a version range"), "{ran:#?}");
    fs::write(&file, text).unwrap();
    // No caller chooses which version runs.
    for words in [
        &["call", "lab/plain@0.2.0", "run", "1"][..],
        &["show", "lab/plain@0.2.0"],
        &["remove", "lab/plain@0.2.0"],
        &["logs", "lab/plain@1"],
    ] {
        rig.hob(words).refused(
            Code::Usage,
            &["with a version, wanted the name alone: `lab/plain`", "hint: the installed version is used; `hob add lab/plain@"],
        );
    }
}

#[test]
fn a_remote_is_pinned_to_its_root() {
    let (rig, one, other) = (Rig::new(), Signed::new(), Signed::new());
    one.publish_plain("lab/plain", "0.1.0");
    assert_ne!(one.fingerprint, other.fingerprint);
    let add = |url: &str, fingerprint: &str| rig.hob(&["remote", "add", "main", url, "--fingerprint", fingerprint]);
    add(&one.url(), &other.fingerprint).refused(Code::FingerprintMismatch, &[&one.fingerprint, &other.fingerprint, "1.root.json"]);
    add(&one.url(), "abc").refused(Code::Usage, &["`abc`", "64"]);
    add("ftp://example.org/x", &one.fingerprint).refused(Code::Usage, &["ftp"]);
    add("file:///no/such/place", &one.fingerprint).refused(Code::RepositoryUnreachable, &["/no/such/place"]);
    assert_eq!(rig.hob(&["remote", "list", "--json"]).json(), json!([]), "nothing was kept of all that");
    add(&one.url(), &one.fingerprint).well();
    add(&one.url(), &one.fingerprint).well();
    // The same name with another root.
    add(&other.url(), &other.fingerprint)
        .refused(Code::FingerprintMismatch, &["`main`", &one.fingerprint, &other.fingerprint, "`hob remote remove main`"]);
    assert_eq!(rig.hob(&["remote", "list", "--json"]).json(), json!([{ "name": "main", "url": one.url() }]));
    rig.hob(&["add", "lab/plain"]).well();
    // As the hint suggests.
    rig.hob(&["remote", "remove", "main"]).well();
    add(&other.url(), &other.fingerprint).well();
    assert_eq!(rig.installed(), ["lab/plain 0.1.0"], "what was installed stays");
    assert_eq!(rig.hob(&["call", "lab/plain", "run", "1"]).well(), "1");
}

#[test]
fn a_repository_may_be_named_by_its_folder_from_wherever_one_stands() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_plain("lab/plain", "0.1.0");
    let here = rig.folder.path().join("some where");
    std::os::unix::fs::symlink(signed.folder.path(), &here).unwrap();
    for address in ["./some where/repository", here.join("repository").to_str().unwrap()] {
        rig.hob(&["remote", "add", "main", address, "--fingerprint", &signed.fingerprint]).well();
        // From another folder the address means the same.
        let mut elsewhere = rig.command(&["add", "lab/plain", "--quiet"]);
        let output = elsewhere.current_dir("/").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        rig.hob(&["remove", "lab/plain"]).well();
        rig.hob(&["remote", "remove", "main"]).well();
    }
}

#[test]
fn a_remote_that_was_half_added_or_half_removed_can_be_removed() {
    let (rig, one, other) = (Rig::new(), Signed::new(), Signed::new());
    rig.trust(&one.url(), &one.repository);
    // The state after a crash between the two files: pinned, and not in `hob.toml`.
    fs::write(rig.home.join("hob.toml"), "").unwrap();
    assert!(rig.home.join("data/remotes/main").exists());
    let words = ["remote", "add", "main", &other.url(), "--fingerprint", &other.fingerprint];
    rig.hob(&words).refused(Code::FingerprintMismatch, &["`hob remote remove main`"]);
    rig.hob(&["remote", "remove", "main"]).well();
    rig.hob(&words).well();
}

#[test]
fn an_altered_shelf_is_named_file_by_file_and_healed_by_the_next_add() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_plain("lab/plain", "0.1.0");
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/plain"]).well();
    let folder = rig.hob(&["show", "lab/plain", "--json"]).json()["folder"].as_str().unwrap().to_owned();
    let file = std::path::Path::new(&folder).join("pod/subject.py");
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 1;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, bytes).unwrap();
    for words in [&["call", "lab/plain", "run", "1"][..], &["show", "lab/plain"]] {
        let ran = rig.hob(words);
        ran.refused(Code::ShelfAltered, &["`pod/subject.py`"]);
        assert_eq!(ran.exit, Some(5));
    }
    let ran = rig.hob(&["verify"]);
    assert!(ran.exit == Some(5) && ran.stdout.contains("ALTERED") && ran.stdout.contains("pod/subject.py"), "{ran:#?}");
    // For programs: one document with every report.
    let ran = rig.hob(&["verify", "--json"]);
    assert_eq!(ran.exit, Some(5));
    let fault = &ran.json()["fault"];
    assert_eq!(fault["code"], "shelf_altered");
    assert!(
        fault["detail"]["reports"].as_array().is_some_and(|reports| reports.iter().any(|report| report["fault"].is_object())),
        "{fault}"
    );
    rig.hob(&["add", "lab/plain"]).well();
    rig.hob(&["verify"]).well();
    assert_eq!(rig.hob(&["call", "lab/plain", "run", "1"]).well(), "1");
}

#[test]
fn names_in_hob_toml_that_no_installed_recipe_has_are_told_to_whoever_looks() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_plain("lab/plain", "0.1.0");
    rig.trust(&signed.url(), &signed.repository);
    let file = rig.home.join("hob.toml");
    let before = fs::read_to_string(&file).unwrap();
    let tables = "\n[environments.recipes.\"lab/plian\"]\nindex_urls = [\"https://a.example/simple\"]\n\n[grants.\"other/far\"]\nnetwork = [\"a.example:443\"]\n";
    fs::write(&file, before.clone() + tables).unwrap();
    let stray = "no recipe of the name \"lab/plian\" in [environments.recipes] is installed";
    let added = rig.hob(&["add", "lab/plain"]);
    added.well();
    assert!(added.stderr.contains(&format!("{stray} (nearest: `lab/plain`)")) && !added.stderr.contains("other/far"), "{added:#?}");
    for words in [&["list"][..], &["list", "--json"], &["doctor"]] {
        let ran = rig.hob(words);
        assert!(
            ran.stderr.contains(stray) && ran.stderr.contains("no recipe of the name \"other/far\" in [grants] is installed"),
            "{ran:#?}"
        );
        assert!(!ran.stdout.contains("plian"), "{ran:#?}");
    }
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("plian", "plain").replace("other/far", "lab/plain")).unwrap();
    let listed = rig.hob(&["list"]);
    assert!(listed.well().contains("lab/plain") && !listed.stderr.contains("no recipe"), "{listed:#?}");
}

#[test]
fn the_scheme_of_an_address_is_one_however_it_is_written() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_plain("lab/plain", "0.1.0");
    rig.trust(&signed.url().replacen("file:", "FILE:", 1), &signed.repository);
    let root = signed.repository.join("metadata/1.root.json");
    rig.hob(&["remote", "add", "web", "HTTPS://a.example/r", "--root", root.to_str().unwrap()]).well();
    let text = fs::read_to_string(rig.home.join("hob.toml")).unwrap();
    assert!(text.contains(&format!("\"{}\"", signed.url())) && text.contains("\"https://a.example/r\""), "{text}");
    rig.hob(&["add", "lab/plain", "--remote", "main"]).well();
}
