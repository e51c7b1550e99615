//! The real program with a home of its own, and real signed repositories from which it installs.
//!
//! Tests use it so that each of them shows only its steps and their results.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use hob::{
    author::{keys::Keys, pack::pack, publish::publish, repository},
    model::{Code, Digest, Home, Silent},
    shelf::environment::{python, tools::Tools, uv},
};
use serde_json::Value;
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use crate::repository::world::copy;

/// A command that takes longer than this hangs.
const RUN_SECONDS: u64 = 120;

/// Runs a command with a terminal for its standard error, and reports as JSON.
const ON_TERMINAL: &str = r#"
import fcntl, json, os, pty, struct, subprocess, sys, termios, threading
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env=dict(os.environ, TERM="xterm"))
os.close(theirs)
shown = bytearray()
def look():
    try:
        while piece := os.read(ours, 65536):
            shown.extend(piece)
    except OSError:
        pass  # a terminal that nobody has open any more
looking = threading.Thread(target=look)
looking.start()
stdout = process.stdout.read()
process.wait()
looking.join()
print(json.dumps({"exit": process.returncode, "stdout": stdout.decode(), "stderr": shown.decode()}))
"#;

/// The result of one run of the program.
#[derive(Debug)]
pub struct Ran {
    pub exit: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Asserts that it succeeded; returns its stdout.
    #[track_caller]
    pub fn well(&self) -> &str {
        assert_eq!(self.exit, Some(0), "{self:#?}");
        self.stdout.trim_end()
    }

    /// Parses all of stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not one JSON document ({error}): {self:#?}"))
    }

    /// Asserts that it failed with this fault and its documented exit code, printed each of `parts` and a
    /// next step, and printed nothing on stdout.
    #[track_caller]
    pub fn refused(&self, code: Code, parts: &[&str]) {
        assert_eq!(self.exit, Some(i32::from(code.exit())), "{self:#?}");
        let first = format!("error[{}]: ", code.name());
        assert_eq!(self.stderr.matches("error[").count(), 1, "one fault: {self:#?}");
        assert!(self.stderr.contains(&first), "no `{first}` in {self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in {self:#?}");
        }
        assert!(self.stderr.contains("  hint: "), "no next step in {self:#?}");
        assert_eq!(self.stdout, "", "stdout is for results");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
    }
}

/// A home of the program.
pub struct Rig {
    pub folder: TempDir,
    pub home: PathBuf,
}

impl Rig {
    pub fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        Rig { folder, home }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hob"));
        command.args(words).env("HOB_HOME", &self.home).env("HOB_UV", tools().1.as_os_str()).env("HOB_PYTHON", tools().0.as_os_str());
        command.env_remove("HOB_LOG").env("RUST_BACKTRACE", "0").current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn hob(&self, words: &[&str]) -> Ran {
        run(self.command(words), b"")
    }

    /// Runs `hob` with `input` on standard input.
    pub fn hob_reading(&self, words: &[&str], input: &[u8]) -> Ran {
        run(self.command(words), input)
    }

    /// Runs `hob` with standard error on a terminal of 100 columns, and standard output not on one; returns
    /// the raw output of both.
    pub fn hob_on_terminal(&self, words: &[&str]) -> Ran {
        let words: Vec<&str> = ["-c", ON_TERMINAL, env!("CARGO_BIN_EXE_hob")].iter().chain(words).copied().collect();
        let ran = self.python(&words, b"");
        let found: Value = serde_json::from_str(ran.well()).unwrap();
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        Ran { exit: found["exit"].as_i64().map(|exit| exit as i32), stdout: text("stdout"), stderr: text("stderr") }
    }

    /// Runs the interpreter of all tests, with this home.
    pub fn python(&self, words: &[&str], input: &[u8]) -> Ran {
        let mut command = Command::new(&tools().0);
        command.args(words).env("HOB_HOME", &self.home).env("HOB_PYTHON", &tools().0).env_remove("HOB_LOG");
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run(command, input)
    }

    /// Trusts the repository as the remote `main`.
    #[track_caller]
    pub fn trust(&self, url: &str, repository: &Path) {
        let root = repository.join("metadata/1.root.json");
        self.hob(&["remote", "add", "main", url, "--root", root.to_str().unwrap()]).well();
    }

    /// The names and versions that the program lists as installed.
    #[track_caller]
    pub fn installed(&self) -> Vec<String> {
        let ran = self.hob(&["list", "--json"]);
        ran.well();
        let list = ran.json();
        let line = |entry: &Value| format!("{} {}", entry["name"].as_str().unwrap(), entry["version"].as_str().unwrap());
        list.as_array().unwrap().iter().map(line).collect()
    }

    /// Asserts that nothing is installed, and that no attempt left anything.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(self.installed(), [""; 0]);
        for folder in ["data/recipes", "data/staging", "data/models", "data/environments"] {
            let left: Vec<_> = fs::read_dir(self.home.join(folder)).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "{folder} holds {left:?}");
        }
    }

    /// A recipe folder without glue; `pod` is the source of `pod/subject.py`, `more` goes to the end of
    /// `[pod]`.
    pub fn recipe(&self, name: &str, pod: &str, more: &str) -> PathBuf {
        let folder = self.folder.path().join(name.replace('/', "-"));
        write_recipe(&folder, name, "0.1.0", pod, more);
        folder
    }
}

/// Runs a command to its end, which must come in time.
pub fn run(mut command: Command, input: &[u8]) -> Ran {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    let pid = child.id();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late =
            ended.recv_timeout(Duration::from_secs(RUN_SECONDS)).is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            signal(pid, rustix::process::Signal::KILL);
        }
        late
    });
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stops reading an input that is too long closes its end.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().unwrap();
    drop(done);
    assert!(!watch.join().unwrap(), "{command:?} took more than {RUN_SECONDS} s");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { exit: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// An interpreter and a `uv` for all tests of this binary; the `uv` is fetched once if the machine has none.
pub fn tools() -> &'static (PathBuf, PathBuf) {
    static TOOLS: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    TOOLS.get_or_init(|| {
        // On a separate thread, because the caller may be inside a runtime.
        let found = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let python = python::find(&">=3.9".parse().unwrap(), None).await.unwrap();
                let home = Home::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools"));
                let uv = uv::find(&home, &Tools::default(), &python, &(std::sync::Arc::new(Silent) as _)).await.unwrap();
                (python.executable, uv.path)
            })
        });
        found.join().unwrap()
    })
}

/// Glue that passes its input on, as a component.
pub fn glue() -> &'static [u8] {
    static GLUE: OnceLock<Vec<u8>> = OnceLock::new();
    GLUE.get_or_init(|| component(include_str!("../../guests/pass.wat")))
}

/// Turns a module in text form into a component of the glue world.
pub fn component(wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("glue.wit", include_str!("../../../wit/glue.wit")).unwrap();
    let world = resolve.select_world(&[package], Some("glue")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

pub const LOCK: &str = "six==1.17.0 \\\n    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n";

/// Prints wherever a program can, and returns the content of its environment and its model.
pub const TINY: &str = r#"import os, sys
class Tiny:
    def load(self, models):
        print("loading", models)
        self.bytes = os.path.getsize(models["weights.bin"])
    def echo(self, input):
        import six
        print("noise"); print("noise", file=sys.stderr); os.write(1, b"noise\n")
        return {"text": input["text"], "six": six.__version__, "bytes": self.bytes}
"#;

/// A recipe with one of everything: glue, pod, environment lock, a model of `model_bytes`, a case.
pub fn write_tiny(folder: &Path, version: &str, model_bytes: usize) {
    let model: Vec<u8> = (0..model_bytes).map(|at| (at * 7 + at / 251) as u8).collect();
    let manifest = format!(
        "name = \"lab/tiny\"\nversion = \"{version}\"\nlicense = \"Apache-2.0\"\nsummary = \"One of everything\"\nhob = \"0.1\"\n\n\
         [glue]\nworld = \"0.1\"\n\n[pod]\nruntime = \"python\"\nentry = \"tiny:Tiny\"\npython = \">=3.9\"\nlock = \"pod/requirements.lock\"\n\n\
         [[model]]\nname = \"weights.bin\"\nsha256 = \"{}\"\nbytes = {}\n\n[operations.echo]\nsummary = \"The input, again\"\n\
         input = {{ type = \"object\", properties = {{ text = {{ type = \"string\" }} }}, required = [\"text\"], additionalProperties = false }}\n\
         output = {{ type = \"object\" }}\n",
        Digest::of(&model),
        model.len()
    );
    let files: [(&str, &[u8]); 8] = [
        ("recipe.toml", manifest.as_bytes()),
        ("glue.wasm", glue()),
        ("pod/tiny.py", TINY.as_bytes()),
        ("pod/requirements.lock", LOCK.as_bytes()),
        ("cases/hello/input.json", br#"{"operation": "echo", "input": {"text": "hello"}}"#),
        ("cases/hello/output.json", br#"{"text": "hello", "six": "1.17.0"}"#),
        ("README.md", b"# Tiny\n"),
        ("models/weights.bin", &model),
    ];
    for (path, bytes) in files {
        put(&folder.join(path), bytes);
    }
}

pub fn write_recipe(folder: &Path, name: &str, version: &str, pod: &str, more: &str) {
    let manifest = format!(
        "name = \"{name}\"\nversion = \"{version}\"\nlicense = \"Apache-2.0\"\nsummary = \"For a test\"\nhob = \"0.1\"\n\n\
         [pod]\nruntime = \"python\"\nentry = \"subject:Subject\"\n{more}\n\
         [operations.run]\nsummary = \"Runs\"\ninput = {{}}\noutput = {{}}\n"
    );
    put(&folder.join("recipe.toml"), manifest.as_bytes());
    put(&folder.join("pod/subject.py"), pod.as_bytes());
    put(&folder.join("cases/one/input.json"), br#"{"operation": "run", "input": {"text": "a"}}"#);
    put(&folder.join("cases/one/output.json"), br#"{"text": "a"}"#);
}

pub fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A signed repository with the publisher `lab`, made by the program's own commands.
pub struct Signed {
    pub folder: TempDir,
    pub repository: PathBuf,
    pub keys: PathBuf,
    /// As `hob repo init` printed it.
    pub fingerprint: String,
}

impl Signed {
    pub fn new() -> Signed {
        let author = Rig::new();
        let folder = tempfile::tempdir().unwrap();
        let (repository, keys) = (folder.path().join("repository"), folder.path().join("keys"));
        let (at, with) = (repository.to_str().unwrap(), keys.to_str().unwrap());
        let made = author.hob(&["repo", "init", at, "--keys", with, "--json"]);
        made.well();
        author.hob(&["repo", "add-publisher", at, "lab", "--keys", with]).well();
        let fingerprint = made.json()["fingerprint"].as_str().unwrap().to_owned();
        Signed { repository: repository.clone(), keys: keys.clone(), fingerprint, folder }
    }

    /// Publishes a recipe folder.
    #[track_caller]
    pub fn publish(&self, recipe: &Path) {
        let words =
            ["publish", recipe.to_str().unwrap(), "--repo", self.repository.to_str().unwrap(), "--keys", self.keys.to_str().unwrap()];
        Rig::new().hob(&words).well();
    }

    /// Publishes a recipe folder without checking its glue, as a publisher with other tools can.
    pub async fn publish_unchecked(&self, recipe: &Path) {
        let (packed, keys) = (pack(recipe).unwrap(), Keys::at(&self.keys));
        publish(&self.repository, &keys, &packed, &recipe.join("models"), jiff::Timestamp::now(), &Silent).await.unwrap();
    }

    pub fn publish_tiny(&self, version: &str, model_bytes: usize) {
        let folder = self.folder.path().join(format!("tiny-{version}"));
        write_tiny(&folder, version, model_bytes);
        self.publish(&folder);
    }

    pub fn publish_plain(&self, name: &str, version: &str) {
        let folder = self.folder.path().join(format!("{}-{version}", name.replace('/', "-")));
        write_recipe(&folder, name, version, "class Subject:\n    def run(self, input):\n        return input\n", "python = \">=3.9\"");
        self.publish(&folder);
    }

    pub fn refresh(&self) {
        Rig::new().hob(&["repo", "refresh", self.repository.to_str().unwrap(), "--keys", self.keys.to_str().unwrap()]).well();
    }

    pub fn url(&self) -> String {
        url(&self.repository)
    }

    /// Gives the repository a second root.
    pub async fn rotate(&self) {
        let keys = Keys::at(&self.keys);
        repository::rotate_online(&self.repository, &keys, jiff::Timestamp::now()).await.unwrap();
        // Until the next signing, the old key's signature stands beside the new one's, and nothing depends on
        // it.
        repository::refresh(&self.repository, &keys, jiff::Timestamp::now()).await.unwrap();
    }

    /// A copy of the repository's current state.
    pub fn copy(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join("copies").join(name);
        copy(&self.repository, &to);
        to
    }
}

pub fn url(repository: &Path) -> String {
    format!("file://{}", repository.display())
}

/// The current file of a role, e.g. `metadata/3.lab.json`.
pub fn current(repository: &Path, role: &str) -> PathBuf {
    let metadata = repository.join("metadata");
    let version = |path: &PathBuf| -> Option<u64> { path.file_name()?.to_str()?.strip_suffix(&format!(".{role}.json"))?.parse().ok() };
    let files = fs::read_dir(&metadata).unwrap().map(|entry| entry.unwrap().path());
    match role {
        "timestamp" => metadata.join("timestamp.json"),
        _ => files.filter(|path| version(path).is_some()).max_by_key(|path| version(path)).unwrap(),
    }
}

/// The published file whose name has this ending, e.g. `.0.1.0.hob`.
pub fn target(repository: &Path, recipe: &str, end: &str) -> PathBuf {
    let files = fs::read_dir(repository.join("targets").join(recipe)).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_str().unwrap().ends_with(end)).last().unwrap()
}

/// The processes that have something below `folder` among their variables.
pub fn processes_of(folder: &Path) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let names = |pid: &u32| {
        // The variables tell: the arguments of a pod show its title, and a host has the folder among its own
        // variables.
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let variables = String::from_utf8_lossy(&variables);
        variables.split('\0').any(|variable| variable.starts_with("HOB_POD=")) && variables.contains(folder.to_str().unwrap())
    };
    all.filter(names).filter(|pid| crate::support::is_running(*pid)).collect()
}
