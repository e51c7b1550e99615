//! The surroundings that programs expect: folders, an active environment, system settings; and the leftovers
//! of an import.
//!
//! (`acts.rs` is about what must be absent.) The pods import a wheel that is made here; it writes where
//! wheels write.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use hob::{
    host::{Config, Host},
    model::{Home, status::ZygoteState},
    shelf::environment::tools::Tools,
};
use serde_json::{Value, json};

use super::{acts::one_shot, ordinary};
use crate::{
    cli::wheels::MAKE,
    support::{Rig, call, within},
};

/// A wheel that leaves the usual traces at its import, and has a script.
const LEAVER: &str = r#"
import os, tempfile
home = os.path.expanduser("~")
os.makedirs(home + "/.cache/leaver/closed", mode=0o700)
with open(home + "/.cache/leaver/closed/fonts.json", "w") as file:
    file.write("found at the import")
os.utime(home + "/.cache/leaver/closed/fonts.json", (1, 1))
os.symlink("closed/fonts.json", home + "/.cache/leaver/link")
os.chmod(home + "/.cache/leaver/closed", 0o500)
made = tempfile.mkdtemp()
fixed = "/tmp/leaver"
with open(fixed, "w") as file:
    file.write("a fixed name")
"#;

const SUBJECT: &str = r#"
import grp, multiprocessing, os, pwd, shutil, socket, subprocess, sys, tempfile
import leaver
def text(*words):
    said = subprocess.run(words, capture_output=True, text=True)
    return (said.stdout + said.stderr).strip()
class Subject:
    def run(self, input):
        with multiprocessing.Manager() as manager:
            managed = dict(manager.dict(a=1))
        with multiprocessing.get_context("forkserver").Pool(1) as pool:
            served = pool.map(abs, [-1])
        left = os.path.expanduser("~/.cache/leaver/")
        own = pwd.getpwuid(os.getuid())
        writable = [name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "HF_HOME")
                    if os.path.isdir(os.environ[name]) and os.access(os.environ[name], os.W_OK)]
        return {
            "folders": [os.getcwd(), tempfile.gettempdir(), os.path.expanduser("~"), own.pw_dir], "writable": len(writable),
            "manager": managed, "forkserver": served,
            "left": [open(left + "closed/fonts.json").read(), open(left + "link").read(), os.stat(left + "closed/fonts.json").st_mtime,
                     oct(os.stat(left + "closed").st_mode & 0o777), os.path.isdir(leaver.made), open(leaver.fixed).read()],
            "script": text("leave-say"), "python3": text("python3", "-c", "import leaver_of_child, sys; print(sys.prefix)"),
            "python": text("python", "-c", "import sys; print(sys.executable)"),
            "prefix": sys.prefix, "virtual": os.environ["VIRTUAL_ENV"], "executable": sys.executable,
            "user": [own.pw_name, grp.getgrgid(os.getgid()).gr_name, pwd.getpwuid(65534).pw_name],
            "hosts": [socket.gethostbyname("localhost"), socket.gethostname(), socket.gethostbyname(socket.gethostname())],
            "there": [path for path in input["paths"] if os.path.exists(path)],
            "closed": [path for path in input["paths"] if os.path.exists(path) and not os.access(path, os.R_OK)],
        }
"#;

/// Facts that no pod may learn: the machine's identity, its contacts, its secrets.
const NOT_THERE: &[&str] = &[
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/shadow",
    "/etc/fstab",
    "/etc/ssh",
    "/etc/pip.conf",
    "/etc/gitconfig",
    "/etc/environment",
    "/etc/ssl/private",
];

/// A rig whose home has a long path, and whose package index is a folder.
async fn rig() -> Rig {
    let folder = tempfile::Builder::new().prefix(&"a-home-with-a-long-name-".repeat(5)).tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = folder.path().join("home");
    fs::create_dir_all(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    let index = folder.path().join("index");
    fs::create_dir(&index).unwrap();
    fs::write(home.join("hob.toml"), format!("[environments]\nindex_url = \"file://{}\"\n", index.display())).unwrap();
    let config = Config::new(Home::at(home)).with_hob(env!("CARGO_BIN_EXE_hob")).with_tools(Tools::default().with_variables());
    Rig { host: Host::open(config).await.unwrap(), folder }
}

/// A recipe whose only wheel runs `import` at its import.
fn recipe(rig: &Rig, name: &str, import: &str, source: &str, more: &str) -> PathBuf {
    let files = json!({
        "leaver.py": import, "leaver_of_child.py": "",
        "leaver-1.0.data/scripts/leave-say": "#!python\nimport sys; print('said by', sys.prefix)\n",
    });
    let index = rig.folder.path().join("index");
    let words = [index.to_str().unwrap(), "leaver", "wheel", &files.to_string(), "[]"];
    let made = Command::new(ordinary::python_for_all().unwrap_or("python3".into())).args(["-c", MAKE]).args(words).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let recipe = rig.pool(name, source, &format!("lock = \"pod/requirements.lock\"\n{more}"), "");
    let lock = format!("leaver==1.0 --hash=sha256:{}", String::from_utf8(made.stdout).unwrap());
    fs::write(recipe.join("pod/requirements.lock"), lock).unwrap();
    recipe
}

/// The paths that the page on the sandbox promises to every pod, with `*` replaced for this machine.
fn promised() -> Vec<PathBuf> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sandbox.md")).unwrap();
    let page = page.split_once("With a network also").unwrap().0;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `/")?.split_once('`')).map(|(path, _)| format!("/{path}"));
    let paths: Vec<PathBuf> = rows
        .flat_map(|path| match path.strip_suffix('*') {
            None => vec![PathBuf::from(path)],
            Some(start) => {
                let (folder, start) = start.rsplit_once('/').unwrap();
                let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
                entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start)).collect()
            }
        })
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    paths
}

fn assert_is_as_on_any_machine(rig: &Rig, said: &Value) {
    assert_eq!(said["folders"], json!(["/scratch", "/scratch", "/scratch", "/scratch"]), "{said}");
    assert_eq!((&said["writable"], &said["manager"], &said["forkserver"]), (&json!(5), &json!({"a": 1}), &json!([1])), "{said}");
    let left = json!(["found at the import", "found at the import", 1.0, "0o500", true, "a fixed name"]);
    assert_eq!(said["left"], left, "{said}");
    let environments = rig.folder.path().join("home/data/environments");
    let prefix = Path::new(said["prefix"].as_str().unwrap());
    assert!(prefix.starts_with(&environments), "{said}");
    assert_eq!((&said["virtual"], &said["python3"]), (&said["prefix"], &said["prefix"]), "{said}");
    assert_eq!(said["script"], json!(format!("said by {}", prefix.display())), "{said}");
    assert_eq!((&said["python"], &said["executable"]), (&json!(prefix.join("bin/python")), &json!(prefix.join("bin/python"))), "{said}");
    assert_eq!((&said["user"], &said["hosts"]), (&json!(["pod", "pod", "nobody"]), &json!(["127.0.0.1", "pod", "127.0.0.1"])), "{said}");
    let there: Vec<PathBuf> = serde_json::from_value(said["there"].clone()).unwrap();
    let wanted: Vec<PathBuf> =
        promised().into_iter().filter(|path| fs::metadata(path).is_ok_and(|found| found.mode() & 0o004 != 0)).collect();
    assert_eq!(there, wanted, "{said}");
    assert_eq!(said["closed"], json!([]), "{said}");
}

fn paths() -> Vec<PathBuf> {
    promised().into_iter().chain(NOT_THERE.iter().map(PathBuf::from)).collect()
}

#[tokio::test]
async fn a_started_pod_finds_what_programs_expect() {
    let rig = rig().await;
    let recipe = recipe(&rig, "around", LEAVER, SUBJECT, "");
    let said = rig.host.call(call(&recipe, json!({"paths": paths()}))).await.unwrap().output.into_value();
    assert_is_as_on_any_machine(&rig, &said);
    rig.close().await;
}

/// Waits until it is known whether pods of that recipe are forked.
async fn settled(rig: &Rig, recipe: &Path) -> (ZygoteState, String) {
    rig.host.call(call(recipe, json!({"paths": []}))).await.unwrap();
    let zygote = || rig.host.status().zygotes.into_iter().next();
    within(60, "it is known whether pods are forked", || zygote().is_some_and(|found| found.state != ZygoteState::Booting)).await;
    let zygote = zygote().unwrap();
    (zygote.state, zygote.why.unwrap_or_default())
}

#[tokio::test]
async fn a_forked_pod_finds_the_same_and_what_its_imports_left() {
    let rig = rig().await;
    let recipe = recipe(&rig, "around", LEAVER, SUBJECT, "preload = [\"leaver\"]\nmax = 2");
    assert_eq!(settled(&rig, &recipe).await, (ZygoteState::Ready, String::new()));
    for _ in 0..2 {
        let before = rig.host.status().zygotes[0].forked;
        let said = rig.host.call(one_shot(&recipe, json!({"paths": paths()}))).await.unwrap().output.into_value();
        assert!(rig.host.status().zygotes[0].forked > before);
        assert_is_as_on_any_machine(&rig, &said);
    }
    rig.close().await;
}

#[test]
fn a_started_pod_of_an_ordinary_user_finds_it_too() {
    ordinary::once_more("sandbox::surroundings::a_started_pod_finds_what_programs_expect");
}

#[test]
fn a_forked_pod_of_an_ordinary_user_finds_it_too() {
    ordinary::once_more("sandbox::surroundings::a_forked_pod_finds_the_same_and_what_its_imports_left");
}

#[tokio::test]
async fn imports_that_leave_what_no_pod_can_have_a_copy_of_are_not_forked() {
    let many = "import os\nfor number in range(1001):\n    open(os.path.expanduser(f'~/{number}'), 'w').close()\n";
    let large = "import os\nwith open(os.path.expanduser('~/large'), 'wb') as file:\n    file.truncate((16 << 20) + 1)\n";
    let fifo = "import os\nos.mkfifo('/tmp/fifo')\n";
    for (name, import, says) in [("many", many, "more than 1000 files"), ("large", large, "16777216 bytes"), ("fifo", fifo, "/tmp/fifo")] {
        let rig = rig().await;
        let source = "import leaver\nclass Subject:\n    def run(self, input):\n        return 1\n";
        let recipe = recipe(&rig, name, import, source, "preload = [\"leaver\"]");
        let (state, why) = settled(&rig, &recipe).await;
        assert_eq!(state, ZygoteState::Unforkable, "{name}: {why}");
        assert!(why.contains(says), "{name}: {why}");
        // Its pods are started, and import the wheel in their own folders.
        rig.host.call(one_shot(&recipe, json!({}))).await.unwrap();
        rig.close().await;
    }
}

#[tokio::test]
async fn without_an_environment_python3_is_the_pods_own_too() {
    let rig = ordinary::rig().await;
    let source = "import os, subprocess, sys\nclass Subject:\n    def run(self, input):\n        \
                  words = ['python3', '-c', 'import sys; print(sys.version, sys.prefix)']\n        \
                  said = subprocess.run(words, capture_output=True, text=True).stdout.strip()\n        \
                  return [said == f'{sys.version} {sys.prefix}', 'VIRTUAL_ENV' in os.environ, said]\n";
    let recipe = rig.pool("bare", source, "", "");
    let said = rig.host.call(call(&recipe, json!({}))).await.unwrap().output.into_value();
    assert_eq!((&said[0], &said[1]), (&json!(true), &json!(false)), "{said}");
    rig.close().await;
}
