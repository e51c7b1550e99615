//! Every act of `tests/sandbox/table.py`: denied in a pod, and possible outside of one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hob::model::{
    Call,
    status::{Confinement, ZygoteState},
};
use serde_json::{Value, json};

use super::{
    ordinary,
    victim::{Table, Victim, write_programs},
};
use crate::support::{Rig, call, within};

/// The errnos of kernels that lack something that an act needs, or have it switched off for everybody: such
/// an act shows nothing here.
const LACKING: &[&str] = &["ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENOTSUP", "EOPNOTSUPP", "ENODEV", "ENOTBLK"];

/// If fewer acts than this are possible here, the table or the machine is broken.
const REAL_MIN: usize = 100;

/// A recipe of the hostile pod in an environment with one wheel.
pub fn hostile(rig: &Rig, name: &str, more: &str) -> PathBuf {
    let pod = format!("lock = \"pod/requirements.lock\"\n{more}");
    let recipe = rig.pool(name, "from acts import Pod as Subject\n", &pod, "");
    fs::write(recipe.join("pod/requirements.lock"), include_str!("../zygotes/requirements.lock")).unwrap();
    write_programs(&recipe.join("pod"));
    recipe
}

/// The first file of that name below a folder.
pub fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name() == name {
                return Some(entry.path());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    None
}

pub fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Real targets: those of a victim, of this host, and of a neighbouring pod.
fn targets(rig: &Rig, recipe: &Path, victim: &Victim, keeper: u32, incarnation: &str) -> Value {
    let home = rig.folder.path().join("home");
    // The file as it is before anything is installed.
    fs::write(home.join("hob.lock"), "version = 1\n").unwrap();
    let six = find(&home.join("data/environments"), "six.py").unwrap();
    let runner = find(&home.join("data/tools"), "keeper.py").unwrap();
    // Of the neighbouring pod; for a forked one, of its family.
    let below = |folder: &Path| -> Vec<PathBuf> { fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let files: Vec<PathBuf> =
        below(&home.join("state/scratch")).into_iter().filter(|path| path.is_dir()).flat_map(|path| below(&path)).collect();
    let named = |path: &PathBuf| path.to_string_lossy().contains(incarnation);
    let other = files.iter().find(|path| named(path) && path.is_dir()).or(files.iter().find(|path| path.is_dir())).unwrap();
    let page = files.iter().find(|path| named(path) && path.is_file()).unwrap_or_else(|| panic!("no page of {incarnation} in {files:?}"));
    let model = home.join("data/models/planted");
    fs::create_dir_all(model.parent().unwrap()).unwrap();
    fs::write(&model, "a model").unwrap();
    let environment = six.parent().unwrap();
    let mut targets = victim.targets.clone();
    for (key, path) in [
        ("home", &*home),
        ("recipe", recipe),
        ("environment", environment),
        ("file", &six),
        ("runner", runner.parent().unwrap()),
        ("model", &model),
        ("python", &environment.ancestors().nth(3).unwrap().join("bin/python")),
        ("other", other),
        ("page", page),
    ] {
        targets[key] = json!(path);
    }
    targets["host"] = json!(std::process::id());
    targets["keeper"] = json!(keeper);
    targets
}

/// Asserts that each act was denied with an errno of the table.
fn assert_denied(table: &Table, said: &Value, how: &str) {
    let came: BTreeMap<String, String> = serde_json::from_value(said["acts"].clone()).unwrap();
    assert_eq!(came.len(), table.len());
    let wrong: Vec<String> = table
        .iter()
        .filter(|(name, (denied, _))| !denied.contains(&came[*name]))
        .map(|(name, (denied, _))| format!("{name}: {}, wanted {}", came[name], denied.join(" or ")))
        .collect();
    assert!(wrong.is_empty(), "{how}, {} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    assert_eq!(said["held"], json!({"going on from an inherited folder": "ENOTDIR", "holding a file": "EBADF"}), "{how}");
}

/// Asserts that the denied acts can be done outside, by the users that the table names.
fn assert_real(victim: &Victim, table: &Table) {
    let came = victim.attacked_outside();
    let (mut real, mut wrong) = (0, Vec::new());
    for (name, (_, outside)) in table {
        let Some(result) = came.get(name) else {
            println!("not tried outside: {name}: {outside}");
            continue;
        };
        if result.starts_with("ALLOWED") {
            real += 1;
        } else if LACKING.contains(&result.as_str()) {
            println!("not here: {name}: {result}");
        } else if outside == "any" || (outside == "root" && ordinary::is_root()) {
            wrong.push(format!("{name}: {result}"));
        }
    }
    println!("{} acts, {real} of them done outside", table.len());
    assert!(wrong.is_empty(), "these do not work outside either:\n{}", wrong.join("\n"));
    assert!(real >= REAL_MIN, "{real} acts are real here; wanted {REAL_MIN}");
}

/// Attacks with a hostile pod while another pod answers a long call, and checks the acts outside.
async fn attack(rig: &Rig, recipe: &Path, forked: bool) {
    let victim = Victim::new();
    let table = victim.table();
    denied(rig, recipe, &victim, &table, if forked { "forked" } else { "started" }).await;
    assert_real(&victim, &table);
    rig.close_within(std::time::Duration::ZERO).await;
}

/// The same without the check outside; returns the reported confinement of the neighbouring pod.
pub async fn denied(rig: &Rig, recipe: &Path, victim: &Victim, table: &Table, how: &str) -> Confinement {
    let resting = rig.host.start(one_shot(recipe, json!({"pause": 600.0})));
    within(60, "a pod beside is at work", || rig.host.pods().iter().any(|pod| pod.state == "busy" && pod.pid.is_some())).await;
    let beside = rig.host.pods().into_iter().find(|pod| pod.state == "busy").unwrap();
    let targets = targets(rig, recipe, victim, parent(beside.pid.unwrap()), &beside.incarnation);
    let nobody_takes_all = ordinary::ON_THEIR_WAY.read().await;
    let outcome = rig.host.call(one_shot(recipe, json!({"targets": targets}))).await.unwrap();
    drop(nobody_takes_all);
    let said = outcome.output.into_value();
    assert_denied(table, &said, how);
    drop(resting);
    beside.sandbox.unwrap()
}

pub fn one_shot(recipe: &Path, input: Value) -> Call {
    call(recipe, input).one_shot()
}

#[tokio::test]
async fn what_a_started_pod_tries_is_denied() {
    let rig = ordinary::rig().await;
    let recipe = hostile(&rig, "hostile", "max = 2");
    attack(&rig, &recipe, false).await;
}

#[tokio::test]
async fn what_a_forked_pod_tries_is_denied() {
    let rig = ordinary::rig().await;
    let recipe = hostile(&rig, "hostile", "max = 3\npreload = [\"six\"]");
    rig.host.call(call(&recipe, json!({}))).await.unwrap();
    let ready = || rig.host.status().zygotes.first().is_some_and(|zygote| zygote.state == ZygoteState::Ready);
    within(60, "pods can be forked", ready).await;
    let before = rig.host.status().zygotes[0].forked;
    let scratch = rig.host.call(one_shot(&recipe, json!({}))).await.unwrap().output.into_value();
    assert_eq!(scratch["scratch"], "/scratch", "{scratch}");
    assert!(rig.host.status().zygotes[0].forked > before);
    attack(&rig, &recipe, true).await;
}

#[test]
fn what_a_started_pod_of_an_ordinary_user_tries_is_denied() {
    let _nobody_takes_all = ordinary::ON_THEIR_WAY.blocking_read();
    ordinary::once_more("sandbox::acts::what_a_started_pod_tries_is_denied");
}

#[test]
fn what_a_forked_pod_of_an_ordinary_user_tries_is_denied() {
    let _nobody_takes_all = ordinary::ON_THEIR_WAY.blocking_read();
    ordinary::once_more("sandbox::acts::what_a_forked_pod_tries_is_denied");
}
