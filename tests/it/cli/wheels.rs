//! Locks and wheels of a hostile publisher: nothing of them runs outside of a pod's sandbox, neither at
//! `hob add` nor at the call of a folder.
//!
//! The wheels are made here and served from a folder. Where its code runs, each writes into a file, the mark,
//! which no pod can reach. Each fixture is first used in a way that does run it, so that a test cannot pass
//! because nothing happens.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hob::model::{Code, Digest};
use serde_json::{Value, json};

use super::{
    hostile::{Den, archive, file, indexed},
    rig::{Rig, Signed, put, tools, url, write_recipe},
};

/// Makes a package's file for an index in a folder; prints its SHA-256.
pub const MAKE: &str = r#"
import base64, hashlib, io, json, os, sys, tarfile, zipfile
index, name, kind, files, links = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), json.loads(sys.argv[5])
folder = f"{index}/{name}"
os.makedirs(folder, exist_ok=True)
if kind == "wheel":
    about = f"{name}-1.0.dist-info"
    files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = f"{folder}/{name}-1.0-py3-none-any.whl"
    record = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file, text in files.items():
            info = zipfile.ZipInfo(file)
            info.external_attr = (0o120777 if file in links else 0o104755) << 16
            wheel.writestr(info, text)
            record += f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        wheel.writestr(f"{about}/RECORD", record + f"{about}/RECORD,,\n")
else:
    files["PKG-INFO"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    path = f"{folder}/{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as source:
        for file, text in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{file}")
            info.size = len(text)
            source.addfile(info, io.BytesIO(text.encode()))
digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
with open(f"{folder}/index.html", "a") as page:
    page.write(f'<a href="{os.path.basename(path)}#sha256={digest}">{os.path.basename(path)}</a>\n')
print(digest)
"#;

/// A home whose package index is a folder.
struct Scene {
    rig: Rig,
    index: PathBuf,
    mark: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let rig = Rig::new();
        let (index, mark) = (rig.folder.path().join("index"), rig.folder.path().join("mark"));
        fs::create_dir_all(&index).unwrap();
        put(&rig.home.join("hob.toml"), format!("[environments]\nindex_url = \"file://{}\"\n", index.display()).as_bytes());
        Scene { rig, index, mark }
    }

    /// Puts a package into the index; returns its line of a lock.
    fn package(&self, name: &str, kind: &str, files: &Value, links: &[&str]) -> String {
        let (files, links) = (files.to_string(), json!(links).to_string());
        let ran = self.rig.python(&["-c", MAKE, self.index.to_str().unwrap(), name, kind, &files, &links], b"");
        format!("{name}==1.0 --hash=sha256:{}\n", ran.well())
    }

    /// Python code that writes the mark, and stays silent where it cannot.
    fn marking(&self, what: &str) -> String {
        format!(
            "try:\n    with open({:?}, 'a') as mark:\n        mark.write('{what} ')\nexcept OSError:\n    pass\n",
            self.mark.to_str().unwrap()
        )
    }

    /// Installs the wheels of a lock in a careless way that was once used: with the publisher's own text, and
    /// with an interpreter that runs their code.
    fn install_carelessly(&self, lock: &str) {
        let (venv, text) = (self.rig.folder.path().join("careless"), self.rig.folder.path().join("careless.txt"));
        fs::write(&text, lock).unwrap();
        let uv = |words: &[&str]| {
            let mut command = Command::new(&tools().1);
            command.args(words).args(["--no-config", "--cache-dir"]).arg(self.rig.folder.path().join("careless-cache"));
            command.output().unwrap()
        };
        let at = venv.to_str().unwrap();
        assert!(uv(&["venv", "--clear", "--python", tools().0.to_str().unwrap(), at]).status.success());
        let index = format!("file://{}", self.index.display());
        let ways = ["--require-hashes", "--only-binary", ":all:", "--compile-bytecode"];
        let words = [&["pip", "sync", "--python", at, "--default-index", &index][..], &ways, &[text.to_str().unwrap()]].concat();
        let _ = uv(&words);
    }

    /// Asserts that the mark exists, so that the fixture works; deletes it.
    #[track_caller]
    fn take_mark(&self) -> String {
        let found = fs::read_to_string(&self.mark).expect("the fixture does nothing");
        fs::remove_file(&self.mark).unwrap();
        found
    }

    #[track_caller]
    fn assert_unmarked(&self) {
        assert!(!self.mark.exists(), "ran outside of the walls: {:?}", fs::read_to_string(&self.mark));
    }

    #[track_caller]
    fn assert_nothing_staged(&self) {
        let left: Vec<_> =
            fs::read_dir(self.rig.home.join("data/staging")).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "staging holds {left:?}");
    }

    /// A recipe folder with that lock.
    fn recipe(&self, name: &str, version: &str, pod: &str, lock: &str) -> PathBuf {
        let folder = self.rig.folder.path().join(format!("{}-{version}", name.replace('/', "-")));
        write_recipe(&folder, name, version, pod, "python = \">=3.9\"\nlock = \"pod/requirements.lock\"");
        put(&folder.join("pod/requirements.lock"), lock.as_bytes());
        folder
    }

    /// The folders of the existing environments.
    fn environments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.rig.home.join("data/environments")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }
}

const ECHO: &str = "class Subject:\n    def run(self, input):\n        return input\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_comment_is_three_lines_for_the_installer_runs_no_setup_py() {
    let scene = Scene::new();
    let build = "[build-system]\nrequires = []\nbuild-backend = \"setup\"\nbackend-path = [\".\"]\n";
    let setup = format!("{}raise SystemExit('built')\n", scene.marking("setup.py"));
    let pin = scene.package("evil", "source", &json!({ "setup.py": setup, "pyproject.toml": build }), &[]);
    let lock = format!("# comment\r--no-binary evil\r{pin}");
    scene.install_carelessly(&lock);
    assert!(scene.take_mark().contains("setup.py"));

    let mut den = Den::new().await;
    let manifest = den.honest.iter_mut().find(|file| file.name == b"recipe.toml").unwrap();
    let text = String::from_utf8(manifest.content.clone()).unwrap();
    manifest.content = text.replace("python = \">=3.9\"", "python = \">=3.9\"\nlock = \"pod/requirements.lock\"").into_bytes();
    den.honest.push(file("pod/requirements.lock", lock.as_bytes()));
    den.honest.sort_by(|a, b| a.name.cmp(&b.name));
    den.sign(&archive(&den.honest), &indexed(&den.honest));
    scene.rig.trust(&url(&den.world.repo), &den.world.repo);
    scene.rig.hob(&["add", "hob/plain"]).refused(Code::InvalidRecipe, &["requirements.lock", ":1: ", "U+000D"]);
    scene.assert_unmarked();
    scene.rig.assert_empty();

    let folder = scene.recipe("lab/evil", "0.1.0", ECHO, &lock);
    scene.rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]).refused(Code::InvalidRecipe, &[":1: ", "U+000D"]);
    // The same without disguise: a source distribution is not built, whatever the lock says.
    let folder = scene.recipe("lab/plainly", "0.1.0", ECHO, &pin);
    scene.rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]).refused(Code::EnvironmentFailed, &["evil"]);
    scene.assert_unmarked();
    scene.assert_nothing_staged();
}

#[test]
fn what_python_runs_by_itself_is_installed_and_compiled_and_not_run() {
    let scene = Scene::new();
    let pth = format!("import os; exec({:?})\n", scene.marking("pth"));
    let files = json!({
        "evil.pth": pth, "sitecustomize.py": scene.marking("sitecustomize"), "usercustomize.py": scene.marking("usercustomize"),
        "evil/__init__.py": scene.marking("evil"), "py_compile.py": scene.marking("py_compile"), "evil/broken.py": "print 'of another Python'\n",
    });
    let lock = scene.package("evil", "wheel", &files, &[]);
    scene.install_carelessly(&lock);
    assert!(scene.take_mark().contains("pth"));

    let signed = Signed::new();
    signed.publish(&scene.recipe("lab/evil", "0.1.0", ECHO, &lock));
    scene.rig.trust(&signed.url(), &signed.repository);
    scene.rig.hob(&["add", "lab/evil"]).well();
    scene.assert_unmarked();
    scene.assert_nothing_staged();
    let [environment] = &scene.environments()[..] else { panic!("{:?}", scene.environments()) };
    let packages = fs::read_dir(environment.join("lib")).unwrap().next().unwrap().unwrap().path().join("site-packages");
    let compiled: Vec<_> = fs::read_dir(packages.join("evil/__pycache__")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(compiled.len() == 1 && compiled[0].to_str().unwrap().starts_with("__init__."), "{compiled:?}");
    assert!(packages.join("evil.pth").is_file() && packages.join("sitecustomize.py").is_file());

    // Inside the sandbox the wheel may run anything; a child starts from the environment's interpreter.
    let pod = "import subprocess, sys\nclass Subject:\n    def run(self, input):\n        import evil\n        \
               child = subprocess.run([sys.executable, '-c', 'import sys; print(sys.prefix)'], capture_output=True, text=True)\n        \
               return {'prefix': child.stdout.strip(), 'error': child.stderr}\n";
    let folder = scene.recipe("lab/child", "0.1.0", pod, &lock);
    let ran = scene.rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]);
    let said: Value = serde_json::from_str(ran.well()).unwrap();
    assert_eq!(said["prefix"], environment.to_str().unwrap(), "{said}");
    scene.assert_unmarked();
    assert_eq!(scene.environments().len(), 1, "a folder with the same lock has the same environment");
}

#[test]
fn a_wheel_with_what_python_or_hob_reads_as_its_own_is_refused_by_name() {
    let scene = Scene::new();
    let ran = scene.rig.python(&["-c", "import sys; print('python%d.%d' % sys.version_info[:2])"], b"");
    let version = ran.well().to_owned();
    let standard = format!("lib/{version}/encodings");
    let (own, other) = (format!("data/{standard}/__init__.py"), format!("data/lib64/{version}/encodings/__init__.py"));
    let cases = [
        ("data/pyvenv.cfg", "pyvenv.cfg"),
        ("data/bin/activate", "bin/activate"),
        ("scripts/activate.fish", "bin/activate.fish"),
        ("data/bin/python3", "python3"),
        ("scripts/python", "python"),
        (own.as_str(), standard.as_str()),
        (other.as_str(), standard.as_str()),
        ("data/lib/python3.99/site-packages/x.py", "lib/python3.99"),
        ("data/lib64", "lib64"),
        ("data/lib/aaa/site-packages/x.py", "lib/aaa/site-packages"),
        ("data/bin/pybuilddir.txt", "bin/pybuilddir.txt"),
    ];
    for (number, (path, says)) in cases.into_iter().enumerate() {
        let name = format!("evil{number}");
        let text = scene.marking("standard library") + "home = /nowhere\n";
        let lock = scene.package(&name, "wheel", &json!({ format!("{name}-1.0.data/{path}"): text }), &[]);
        let folder = scene.recipe(&format!("lab/{name}"), "0.1.0", ECHO, &lock);
        let ran = scene.rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]);
        ran.refused(Code::EnvironmentFailed, &[says, &name]);
        scene.assert_unmarked();
        scene.assert_nothing_staged();
        assert!(scene.environments().is_empty(), "{path}");
    }
}

/// The tree to delete may be as deep as a stranger likes; the program has few descriptors, like the usual
/// limit of most systems.
#[test]
fn a_wheel_deeper_than_there_are_descriptors_is_refused_and_leaves_the_next_install_alone() {
    let scene = Scene::new();
    let deep = format!("{}x.py", "a/".repeat(400));
    let lock = scene.package("deep", "wheel", &json!({ deep: "", "deep-1.0.data/scripts/activate": "x" }), &[]);
    let folder = scene.recipe("lab/deep", "0.1.0", ECHO, &lock);
    let few = |folder: &Path| {
        let limited = "import os, resource, sys\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n\
                       os.execve(sys.argv[2], sys.argv[2:], dict(os.environ, HOB_UV=sys.argv[1]))";
        let words = ["-c", limited, tools().1.to_str().unwrap()];
        let call = [env!("CARGO_BIN_EXE_hob"), "call", folder.to_str().unwrap(), "run", "{}"];
        scene.rig.python(&[&words[..], &call].concat(), b"")
    };
    few(&folder).refused(Code::EnvironmentFailed, &["bin/activate"]);
    scene.assert_nothing_staged();
    let lock = scene.package("plain", "wheel", &json!({ "plain.py": "" }), &[]);
    few(&scene.recipe("lab/plain", "0.1.0", ECHO, &lock)).well();
    assert_eq!(scene.environments().len(), 1);
}

/// `RECORD` is some hundred kilobytes in the archive, and would take many times that when it is read.
#[test]
fn a_wheel_that_says_gigabytes_of_itself_ends_its_own_build() {
    let scene = Scene::new();
    scene.package("bomb", "wheel", &json!({ "bomb.py": "" }), &[]);
    let inflate = "import hashlib, sys, zipfile\npath = sys.argv[1] + '/bomb/bomb-1.0-py3-none-any.whl'\n\
                   with zipfile.ZipFile(path) as old: files = {name: old.read(name) for name in old.namelist()}\n\
                   with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as new:\n    \
                   for name, text in files.items():\n        with new.open(name, 'w') as out:\n            out.write(text)\n            \
                   if name.endswith('RECORD'):\n                for _ in range(300): out.write(b'a,,\\n' * (1 << 18))\n\
                   digest = hashlib.sha256(open(path, 'rb').read()).hexdigest()\n\
                   open(sys.argv[1] + '/bomb/index.html', 'w').write(f'<a href=\"bomb-1.0-py3-none-any.whl#sha256={digest}\">bomb-1.0-py3-none-any.whl</a>')\n\
                   print(digest)\n";
    let ran = scene.rig.python(&["-c", inflate, scene.index.to_str().unwrap()], b"");
    let lock = format!("bomb==1.0 --hash=sha256:{}\n", ran.well());
    let folder = scene.recipe("lab/bomb", "0.1.0", ECHO, &lock);
    scene.rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]).refused(Code::EnvironmentFailed, &["4294967296 bytes of memory"]);
    scene.assert_nothing_staged();
    assert!(scene.environments().is_empty());
}

/// The path fits where the tree is built, and is too long where it would be used.
#[test]
fn a_path_that_grows_too_long_where_it_is_used_is_refused_before_anything_is_published() {
    let scene = Scene::new();
    let used = scene.rig.home.join("data/environments").join("0".repeat(64)).join("lib/python3.11/site-packages/").as_os_str().len();
    // Eleven bytes more than the kernel accepts.
    let left = 4095 - used + 11;
    let (folders, rest) = ((left - 100) / 100, (left - 100) % 100 + 100);
    let long = format!("{}{}.py", format!("{}/", "d".repeat(99)).repeat(folders), "e".repeat(rest - 3));
    let lock = scene.package("long", "wheel", &json!({ long: "" }), &[]);
    let folder = scene.recipe("lab/long", "0.1.0", ECHO, &lock);
    for _ in 0..2 {
        scene.rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]).refused(Code::EnvironmentFailed, &["long-1.0", "at most 1024"]);
        assert!(scene.environments().is_empty());
        scene.assert_nothing_staged();
    }
}

#[test]
fn links_and_set_ids_of_a_wheel_are_plain_files_and_its_scripts_name_the_environment() {
    let scene = Scene::new();
    let files = json!({
        "evil-1.0.data/data/share/link": "/etc/passwd", "evil/link.py": "/etc/passwd", "evil/__init__.py": "",
        "evil-1.0.data/scripts/say": "#!python\nimport sys; print(sys.prefix)\n", "evil-1.0.data/data/etc/up": "../../..",
    });
    let lock = scene.package("evil", "wheel", &files, &["evil-1.0.data/data/share/link", "evil/link.py", "evil-1.0.data/data/etc/up"]);
    let pod = "import os, subprocess, sys\nclass Subject:\n    def run(self, input):\n        import evil\n        \
               root = evil.__file__.split('/lib/')[0]\n        \
               said = subprocess.run([root + '/bin/say'], capture_output=True, text=True)\n        \
               odd = [os.path.join(at, name) for at, folders, names in os.walk(root) for name in folders + names\n               \
               if os.path.islink(os.path.join(at, name)) or os.lstat(os.path.join(at, name)).st_mode & 0o7000]\n        \
               return {'odd': sorted(path[len(root):] for path in odd), 'own': said.stdout.strip() == root, 'error': said.stderr}\n";
    let folder = scene.recipe("lab/evil", "0.1.0", pod, &lock);
    let ran = scene.rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]);
    let said: Value = serde_json::from_str(ran.well()).unwrap();
    assert_eq!(said["own"], true, "{said}");
    let odd: Vec<&str> = said["odd"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert!(odd.len() == 4 && odd.iter().all(|path| path.starts_with("/bin/python") || *path == "/lib64"), "{odd:?}");
}

#[test]
fn an_environment_that_another_way_of_building_made_is_not_used_and_hob_add_makes_it_anew() {
    let scene = Scene::new();
    let lock = scene.package("told", "wheel", &json!({ "told.py": "what = 'new'\n" }), &[]);
    let pod = "class Subject:\n    def run(self, input):\n        import told\n        return {'what': told.what}\n";
    let signed = Signed::new();
    signed.publish(&scene.recipe("lab/told", "0.1.0", pod, &lock));
    scene.rig.trust(&signed.url(), &signed.repository);
    scene.rig.hob(&["add", "lab/told"]).well();
    scene.rig.hob(&["verify"]).well();

    // The state that an older Hob left: another name, a record without the line that names the way of
    // building, and a file that a wheel made.
    let [built] = &scene.environments()[..] else { panic!("one environment") };
    let name = built.file_name().unwrap().to_str().unwrap().to_owned();
    let (root, old) = (built.parent().unwrap(), Digest::of(b"an older name").hex());
    let record = fs::read_to_string(root.join(format!("{name}.tree"))).unwrap();
    let bare = record.split_once('\n').unwrap().1;
    assert!(bare.starts_with("hob-tree 1\n"));
    fs::write(root.join(format!("{old}.tree")), bare).unwrap();
    fs::remove_file(root.join(format!("{name}.tree"))).unwrap();
    writable(built);
    fs::rename(built, root.join(&old)).unwrap();
    let told = find(&root.join(&old), "told.py");
    writable(told.parent().unwrap());
    fs::remove_file(&told).unwrap();
    fs::write(&told, "what = 'old'\n").unwrap();
    let pins = scene.rig.home.join("hob.lock");
    let text = fs::read_to_string(&pins).unwrap();
    let pinned = text.replace(&name, &old).replace(&Digest::of(record.as_bytes()).hex(), &Digest::of(bare.as_bytes()).hex());
    assert!(pinned != text);
    fs::write(&pins, pinned).unwrap();

    let ran = scene.rig.hob(&["call", "lab/told", "run", "{}"]);
    assert_eq!(serde_json::from_str::<Value>(ran.well()).unwrap(), json!({ "what": "new" }));
    let ran = scene.rig.hob(&["verify"]);
    assert!(
        ran.exit != Some(0) && ran.stderr.contains("another version of Hob") | ran.stdout.contains("another version of Hob"),
        "{ran:#?}"
    );
    assert!(ran.stderr.contains("hob add") | ran.stdout.contains("hob add"), "{ran:#?}");
    scene.rig.hob(&["add", "lab/told"]).well();
    scene.rig.hob(&["verify"]).well();
    let ran = scene.rig.hob(&["call", "lab/told", "run", "{}"]);
    assert_eq!(serde_json::from_str::<Value>(ran.well()).unwrap(), json!({ "what": "new" }));
}

fn writable(folder: &Path) {
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

fn find(folder: &Path, name: &str) -> PathBuf {
    let mut left = vec![folder.to_owned()];
    while let Some(at) = left.pop() {
        for path in fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()) {
            match path.file_name().is_some_and(|found| found == name) {
                true => return path,
                false if path.is_dir() && !path.is_symlink() => left.push(path),
                false => {}
            }
        }
    }
    panic!("no {name} in {}", folder.display())
}

#[test]
fn a_package_that_cannot_be_had_is_the_recipes_fault_and_says_what_to_do() {
    let scene = Scene::new();
    let source = scene.package("sourceonly", "source", &json!({ "setup.py": scene.marking("setup") }), &[]);
    scene.package("other", "wheel", &json!({ "other.py": "" }), &[]);
    let unknown = format!("nosuchpackage==1.0 --hash=sha256:{}\n", "0".repeat(64));
    let newer = format!("other==2.0 --hash=sha256:{}\n", "0".repeat(64));
    let changed = format!("other==1.0 --hash=sha256:{}\n", "0".repeat(64));
    // The operator named this index, so a missing file may be the index's fault.
    for (name, lock, blame, says) in [
        ("lab/source", &source, "recipe", "installed from wheels alone"),
        ("lab/unknown", &unknown, "machine", "no package of that name"),
        ("lab/newer", &newer, "machine", "does not have that version"),
        ("lab/changed", &changed, "recipe", "other bytes than the lock was made from"),
    ] {
        let folder = scene.recipe(name, "0.1.0", ECHO, lock);
        let ran = scene.rig.hob(&["call", folder.to_str().unwrap(), "run", "{}", "--json"]);
        let told = ran.json();
        let fault = &told["fault"];
        assert_eq!((fault["code"].as_str(), fault["blame"].as_str()), (Some("environment_failed"), Some(blame)), "{ran:#?}");
        assert!(fault["hint"].as_str().unwrap().contains(says), "{name}: {ran:#?}");
    }
    scene.assert_unmarked();
}
