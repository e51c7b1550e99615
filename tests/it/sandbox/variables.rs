//! Variables that a recipe and its grants set reach no unconfined process, and do reach the pod.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hob::model::{Code, Digest, status::ZygoteState};
use serde_json::{Value, json};

use super::{acts::find, ordinary};
use crate::support::{Rig, call, host_at, within};

/// Reports its own surroundings, and those of a child of its interpreter.
const TELLER: &str = r#"
import json, os, subprocess, sys
import six
SELF = "[sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix, os.environ.get('VIRTUAL_ENV'), os.environ.get('GCONV_PATH')]"
class Subject:
    def run(self, input):
        import time
        child = f"import json, os, sys; print(json.dumps({SELF}))"
        pause = input.get("pause", 0)
        time.sleep(pause)
        return {
            "self": eval(SELF),
            "child": json.loads(subprocess.check_output([sys.executable, "-c", child])),
            "tz": time.localtime(0).tm_hour,
            "granted": os.environ.get("CARGO_PKG_NAME"),
            "mark": os.environ["HOB_POD"],
        }
"#;

/// Variables that lead the C library to code in files of the recipe.
fn teller(rig: &Rig, name: &str, preload: &str) -> PathBuf {
    let recipe = rig.pool(name, TELLER, &format!("lock = \"pod/requirements.lock\"\n{preload}\nmax = 3"), "");
    fs::write(recipe.join("pod/requirements.lock"), include_str!("../zygotes/requirements.lock")).unwrap();
    let manifest = recipe.join("recipe.toml");
    let own = recipe.join("pod");
    let variables = format!("[pod.env]\nGCONV_PATH = \"{0}\"\nLOCPATH = \"{0}\"\nTZ = \"UTC-5\"\n[operations.run]", own.display());
    let text = fs::read_to_string(&manifest).unwrap().replace("[operations.run]", &variables);
    fs::write(&manifest, text.replace("[permissions]\n", "[permissions]\nenv = [\"CARGO_PKG_NAME\"]\n")).unwrap();
    let file = rig.folder.path().join("home/hob.toml");
    let head = format!("[grants.\"{}\"]\n", recipe.display());
    let given = fs::read_to_string(&file).unwrap().replace(&head, &format!("{head}env = [\"CARGO_PKG_NAME\"]\n"));
    fs::write(&file, given).unwrap();
    recipe
}

fn variables(pid: u32) -> BTreeSet<String> {
    let text = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let names = text.split(|byte| *byte == 0).filter(|variable| !variable.is_empty());
    names.map(|variable| String::from_utf8_lossy(variable).split('=').next().unwrap().to_owned()).collect()
}

/// Asserts that the pod that answers a long call now, and all processes above it up to this host, started
/// with only Hob's own variables.
async fn assert_born_clean(rig: &Rig, recipe: &Path) -> Value {
    let busy = rig.host.start(call(recipe, json!({"pause": 3.0})));
    within(60, "a pod is at work", || rig.host.pods().iter().any(|pod| pod.state == "busy" && pod.pid.is_some())).await;
    let mut pid = rig.host.pods().into_iter().find(|pod| pod.state == "busy").unwrap().pid.unwrap();
    let ours: BTreeSet<String> = ["PATH", "LANG", "HOB_POD", "HOB_SCRATCH", "HOB_FAMILY"].map(String::from).into();
    let mut generations = 0;
    while pid != std::process::id() {
        let found = variables(pid);
        assert!(found.is_subset(&ours) && found.contains("PATH"), "process {pid}, {generations} above the pod: {found:?}");
        pid = super::acts::parent(pid);
        generations += 1;
    }
    assert!(generations >= 2, "a pod has somebody above it");
    busy.outcome().await.unwrap().output.into_value()
}

fn assert_is_the_environments(rig: &Rig, said: &Value, recipe: &Path) {
    let six = find(&rig.folder.path().join("home/data/environments"), "six.py").unwrap();
    let environment = six.ancestors().nth(4).unwrap();
    let real = environment.join("bin/python").canonicalize().unwrap();
    let base = real.ancestors().nth(2).unwrap();
    for who in ["self", "child"] {
        let prefixes = [json!(environment.join("bin/python")), json!(environment), json!(environment)];
        assert_eq!(said[who].as_array().unwrap()[..3], prefixes, "{who}: {said}");
        assert_eq!(Path::new(said[who][3].as_str().unwrap()).canonicalize().unwrap(), base.canonicalize().unwrap(), "{who}: {said}");
        assert_eq!(said[who][4], json!(environment), "{who}: {said}");
        assert_eq!(said[who][5], json!(recipe.join("pod")), "{who}: {said}");
    }
    // The C library read them before the recipe's variables were set, and again afterwards.
    assert_eq!((&said["tz"], &said["granted"]), (&json!(5), &json!("hob")), "{said}");
}

#[tokio::test]
async fn what_a_recipe_sets_is_in_its_started_pod_and_in_nothing_above_it() {
    let rig = ordinary::rig().await;
    let recipe = teller(&rig, "teller", "");
    let said = assert_born_clean(&rig, &recipe).await;
    assert_is_the_environments(&rig, &said, &recipe);
    rig.close().await;
}

#[tokio::test]
async fn what_a_recipe_sets_is_in_its_forked_pod_and_in_nothing_above_it() {
    let rig = ordinary::rig().await;
    let recipe = teller(&rig, "teller", "preload = [\"six\"]");
    rig.host.call(call(&recipe, json!({}))).await.unwrap();
    within(60, "pods can be forked", || rig.host.status().zygotes.first().is_some_and(|zygote| zygote.state == ZygoteState::Ready)).await;
    // The started pod stays busy, so the next one is forked.
    let busy = rig.host.start(call(&recipe, json!({"pause": 8.0})));
    within(60, "the started one is at work", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    let forked = || rig.host.pods().into_iter().find(|pod| pod.forked && pod.state == "busy" && pod.pid.is_some());
    let asked = rig.host.start(call(&recipe, json!({"pause": 3.0})));
    within(60, "a forked one is at work", || forked().is_some()).await;
    let mut pid = forked().unwrap().pid.unwrap();
    let ours: BTreeSet<String> = ["PATH", "LANG", "HOB_FAMILY"].map(String::from).into();
    while pid != std::process::id() {
        assert!(variables(pid).is_subset(&ours), "process {pid}: {:?}", variables(pid));
        pid = super::acts::parent(pid);
    }
    let said = asked.outcome().await.unwrap().output.into_value();
    assert_is_the_environments(&rig, &said, &recipe);
    drop(busy);
    rig.close_within(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn a_standard_library_that_a_wheel_brought_is_not_the_keepers() {
    let rig = ordinary::rig().await;
    let recipe = teller(&rig, "teller", "");
    rig.host.call(call(&recipe, json!({}))).await.unwrap();
    let six = find(&rig.folder.path().join("home/data/environments"), "six.py").unwrap();
    let (environment, version) = (six.ancestors().nth(4).unwrap(), six.ancestors().nth(2).unwrap().file_name().unwrap());
    let evil = environment.join("share/evil");
    let (library, mark) = (evil.join("lib").join(version), rig.folder.path().join("ran"));
    fs::create_dir_all(library.join("encodings")).unwrap();
    fs::create_dir_all(evil.join("bin")).unwrap();
    fs::write(library.join("os.py"), "").unwrap();
    let source = format!("import posix\nposix.close(posix.open({:?}, posix.O_CREAT | posix.O_WRONLY))\n", mark.to_str().unwrap());
    fs::write(library.join("encodings/__init__.py"), source).unwrap();
    let config = environment.join("pyvenv.cfg");
    fs::write(&config, format!("home = {}\ninclude-system-site-packages = false\n", evil.join("bin").display())).unwrap();
    // The effect on a user who runs the environment's own interpreter.
    let _ = Command::new(environment.join("bin/python")).args(["-I", "-S", "-c", ""]).output().unwrap();
    assert!(mark.exists(), "the trap works");
    fs::remove_file(&mark).unwrap();
    let again = call(&recipe, json!({})).one_shot();
    // A child of the pod may be affected, within the sandbox, where that file cannot be made.
    let _ = rig.host.call(again).await;
    assert!(fs::read_to_string(&config).unwrap().contains("evil"));
    let beside = rig.python("beside", "class Subject:\n    def run(self, input):\n        return 1\n", false);
    assert_eq!(rig.run(&beside, json!({})).await.unwrap().output.into_value(), 1);
    assert!(!mark.exists(), "a keeper ran the library of a wheel");
    rig.close().await;
}

#[test]
fn what_a_recipe_sets_is_in_nothing_above_the_started_pod_of_an_ordinary_user() {
    ordinary::once_more("sandbox::variables::what_a_recipe_sets_is_in_its_started_pod_and_in_nothing_above_it");
}

#[tokio::test]
async fn a_recipe_that_was_installed_with_a_variable_that_is_refused_now_is_told_what_to_use() {
    let rig = Rig::new().await;
    let recipe = rig.python("older", "class Subject:\n    def run(self, input):\n        return 1\n", false);
    let manifest = recipe.join("recipe.toml");
    let text = fs::read_to_string(&manifest).unwrap().replace("[operations.run]", "[pod.env]\nXC_ALL = \"C\"\n[operations.run]");
    fs::write(&manifest, text).unwrap();
    let name = rig.install(&recipe).await;
    rig.close().await;

    // Installed as by a Hob that accepted such a name.
    let home = rig.folder.path().join("home");
    let installed = find(&home.join("data/recipes"), "recipe.toml").unwrap();
    let folder = installed.parent().unwrap();
    let index = PathBuf::from(format!("{}.index.json", folder.display()));
    let replaced = |path: &Path, old: &str, new: &str| -> (String, String) {
        let before = fs::read_to_string(path).unwrap();
        assert!(before.contains(old), "{}: {before}", path.display());
        let after = before.replace(old, new);
        for path in [path, path.parent().unwrap()] {
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        fs::write(path, &after).unwrap();
        (Digest::of(before.as_bytes()).hex(), Digest::of(after.as_bytes()).hex())
    };
    let (old, new) = replaced(&installed, "XC_ALL", "LC_ALL");
    let (old, new) = replaced(&index, &old, &new);
    replaced(&home.join("hob.lock"), &old, &new);

    let host = host_at(rig.folder.path()).await;
    let fault = host.call(call(Path::new(&name.to_string()), json!(0))).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidManifest, "{fault:?}");
    assert!(fault.message.contains("`LC_ALL` is read when a process starts") && fault.message.contains("locale.setlocale"), "{fault:?}");
    host.shutdown_within(std::time::Duration::ZERO).await;
}
