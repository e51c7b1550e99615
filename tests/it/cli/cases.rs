//! `hob test`: cases that end as expected, and cases that do not.

use std::{fs, path::Path};

use hob::model::Code;

use super::rig::{Rig, Signed, put, write_recipe};

const POD: &str = r#"import hob_pod
class Subject:
    def __init__(self):
        self.kept = []
    def run(self, input, blobs=None):
        if input.get("text") is None:
            raise hob_pod.Fault("recipe_failed", "there is none", detail={"code": "no_text"})
        print("at work on", input["text"])
        return {"text": input["text"].upper(), "blobs": len(blobs or {})}
    def count(self, input):
        for at in range(input):
            yield at
        return input
    def keep(self, input):
        self.kept.append(input)
        return self.kept
"#;

fn case(folder: &Path, name: &str, input: &str, end: &[(&str, &str)]) {
    let folder = folder.join("cases").join(name);
    let _ = fs::remove_dir_all(&folder);
    put(&folder.join("input.json"), input.as_bytes());
    for (file, text) in end {
        put(&folder.join(file), text.as_bytes());
    }
}

fn recipe(folder: &Path) {
    write_recipe(folder, "lab/cased", "0.1.0", POD, "python = \">=3.9\"\n[pod.session]\nmode = \"exclusive\"\nttl_ms = 60000");
    let more = "\n[operations.count]\nsummary = \"Counts\"\ninput = {}\noutput = {}\nstreaming = true\n\n\
                [operations.keep]\nsummary = \"Keeps\"\ninput = {}\noutput = {}\nsession = true\n";
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    fs::write(folder.join("recipe.toml"), manifest + more).unwrap();
    case(folder, "one", r#"{"operation": "run", "input": {"text": "a"}}"#, &[("output.json", r#"{"text": "A"}"#)]);
    case(folder, "fails", r#"{"operation": "run", "input": {}}"#, &[("fault.json", r#"{"code": "no_text"}"#)]);
    case(folder, "counts", r#"{"operation": "count", "input": 3}"#, &[("output.json", "3"), ("chunks.json", "[0, 1, 2]")]);
    // Each case has a session of its own.
    case(folder, "keeps", r#"{"operation": "keep", "input": 1}"#, &[("output.json", "[1]")]);
    case(folder, "keeps-again", r#"{"operation": "keep", "input": 2}"#, &[("output.json", "[2]")]);
}

#[test]
fn cases_are_run_as_they_are_and_nothing_is_signed_whose_cases_end_otherwise() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = rig.folder.path().join("cased");
    recipe(&folder);
    let ran = rig.hob(&["test", "./cased", "--json"]);
    ran.well();
    let told = ran.json();
    let names: Vec<&str> = told["cases"].as_array().unwrap().iter().map(|case| case["case"].as_str().unwrap()).collect();
    assert_eq!(names, ["counts", "fails", "keeps", "keeps-again", "one"]);
    assert!(told["passed"] == 5 && told["failed"] == 0 && told["cases"].as_array().unwrap().iter().all(|case| case["ok"] == true));
    assert_eq!(rig.hob(&["sessions", "--json"]).json().as_array().map(Vec::len), Some(0), "a session is left");

    case(&folder, "one", r#"{"operation": "run", "input": {"text": "a"}}"#, &[("output.json", r#"{"text": "a"}"#)]);
    case(&folder, "counts", r#"{"operation": "count", "input": 3}"#, &[("output.json", "3"), ("chunks.json", "[0, 1]")]);
    case(&folder, "fails", r#"{"operation": "run", "input": {}}"#, &[("fault.json", r#"{"code": "no_picture"}"#)]);
    let ran = rig.hob(&["test", "cased"]);
    assert_eq!(ran.exit, Some(i32::from(Code::CaseFailed.exit())), "{ran:#?}");
    for line in ["FAILED   one: its answer: at `/text` found the text \"A\", wanted the text \"a\"", "| at work on a", "ok       keeps ("] {
        assert!(ran.stdout.contains(line), "{line}: {ran:#?}");
    }
    assert!(ran.stdout.contains("FAILED   counts: its chunks") && ran.stdout.contains("FAILED   fails: it ended as `no_text`"), "{ran:#?}");
    assert!(ran.stderr.contains("error[case_failed]: 3 of 5 cases of `lab/cased` end otherwise than they say"), "{ran:#?}");
    assert_eq!(rig.hob(&["test", "cased", "--json"]).json()["fault"]["detail"]["cases"].as_array().unwrap().len(), 5);
    // By name.
    assert!(rig.hob(&["test", "cased", "keeps"]).well().starts_with("ok       keeps ("));
    rig.hob(&["test", "cased", "keep"]).refused(Code::Usage, &["has no case `keep` (nearest: `keeps`)"]);

    let (repository, keys) = (signed.repository.to_str().unwrap(), signed.keys.to_str().unwrap());
    let publish = ["publish", "cased", "--repo", repository, "--keys", keys, "--json", "--test"];
    let refused = rig.hob(&publish);
    assert_eq!(refused.json()["fault"]["code"], "case_failed", "{refused:#?}");
    assert!(!signed.repository.join("targets/lab/cased").exists(), "something was signed");
    let packed = rig.hob(&["pack", "cased", "-o", "cased.hob", "--json"]);
    assert!(packed.json()["cases"] == 5 && packed.stderr.contains("5 cases: they were not run: `hob test` runs them"), "{packed:#?}");
    recipe(&folder);
    let published = rig.hob(&publish);
    published.well();
    assert!(published.json()["tested"] == true && !published.stderr.contains("not run"), "{published:#?}");
}

/// Misuses by a stranger's cases: they imitate Hob's lines, drop out of the list by their number, lie
/// elsewhere, stop later cases by their name, and change signed files while they run.
#[test]
fn cases_forge_no_line_lose_no_other_and_are_what_is_signed() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = rig.folder.path().join("cased");
    recipe(&folder);
    let forges = "import hob_pod\nimport time\nclass Subject:\n    def run(self, input, blobs=None):\n        if input.get('wait'):\n            \
                  time.sleep(3)\n            return {}\n        for n in range(30):\n            print('x' * 500)\n        \
                  raise hob_pod.Fault('recipe_failed', 'x\\nok       all (1 ms)\\nerror[internal]: y')\n    def count(self, input):\n        \
                  yield 1\n    def keep(self, input):\n        return input\n";
    let pod = fs::read_dir(folder.join("pod")).unwrap().next().unwrap().unwrap().path();
    fs::write(&pod, forges).unwrap();
    for name in ["counts", "fails", "keeps", "keeps-again", "one"] {
        fs::remove_dir_all(folder.join("cases").join(name)).unwrap();
    }
    for n in 0..12 {
        case(&folder, &format!("f{n:02}"), r#"{"operation": "run", "input": {"text": "a"}}"#, &[("output.json", "{}")]);
    }
    // The case's name cannot name a session.
    case(&folder, "zz groß", r#"{"operation": "keep", "input": 1}"#, &[("output.json", "1")]);
    let ran = rig.hob(&["test", "cased"]);
    assert_eq!(ran.exit, Some(i32::from(Code::CaseFailed.exit())), "{ran:#?}");
    assert!(ran.stdout.lines().any(|line| line.starts_with("ok       zz groß (")), "{ran:#?}");
    let forged = |line: &str| line.starts_with("ok       all") || line.starts_with("error[internal]");
    assert!(!ran.stdout.lines().chain(ran.stderr.lines()).any(forged), "{ran:#?}");
    let called = rig.hob(&["call", "./cased", "run", r#"{"text": "a"}"#]);
    assert!(called.stderr.contains("error[internal]: y") && !called.stderr.lines().any(forged), "{called:#?}");
    let told = rig.hob(&["test", "cased", "--json"]).json();
    let cases = told["fault"]["detail"]["cases"].as_array().unwrap_or_else(|| panic!("{told}"));
    assert_eq!(cases.len(), 13, "{told}");
    assert!(cases[0]["printed"].is_array() && cases[11].get("printed").is_none(), "what was printed did not go first");
    assert_eq!(rig.hob(&["sessions", "--json"]).json().as_array().map(Vec::len), Some(0), "a session is left");

    // The case changes the folder while it runs.
    fs::remove_dir_all(folder.join("cases")).unwrap();
    case(&folder, "waits", r#"{"operation": "run", "input": {"wait": true}}"#, &[("output.json", "{}")]);
    let (repository, keys) = (signed.repository.to_str().unwrap(), signed.keys.to_str().unwrap());
    let (changed, marker) = (pod.clone(), folder.join("cases/waits/input.json"));
    let publish = ["publish", "cased", "--repo", repository, "--keys", keys, "--test"];
    let changes = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        assert!(marker.exists());
        fs::write(&changed, format!("{forges}# another\n")).unwrap();
    });
    let refused = rig.hob(&publish);
    changes.join().unwrap();
    refused.refused(Code::InvalidRecipe, &["changed while its cases ran", "nothing was signed"]);
    assert!(!signed.repository.join("targets/lab/cased").exists(), "something was signed");

    // A mistake in the folder is reported once, as a mistake in the folder.
    case(&folder, "wants", r#"{"operation": "run", "input": {}}"#, &[("fault.json", r#"{"code": "invalid_recipe"}"#)]);
    std::os::unix::fs::symlink("/etc/passwd", folder.join("pod/link")).unwrap();
    rig.hob(&["test", "cased"]).refused(Code::InvalidRecipe, &["pod/link"]);
    fs::remove_file(folder.join("pod/link")).unwrap();
    fs::rename(folder.join("cases"), rig.folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(rig.folder.path().join("elsewhere"), folder.join("cases")).unwrap();
    rig.hob(&["test", "cased"]).refused(Code::InvalidRecipe, &["is a link"]);
    rig.hob(&["pack", "cased"]).refused(Code::InvalidRecipe, &["is a link"]);
}
