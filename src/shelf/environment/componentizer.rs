//! The programs that make components from glue in JavaScript and Python. Hob fetches them into its own folder
//! if they are missing.
//!
//! Hosts never need them; only an author's `hob build` does. They are installed in these steps, so that two
//! builds at once, or a killed one, do no harm:
//!
//! 1. Download, pinned by version and hash.
//! 2. Unpack into staging.
//! 3. Run once.
//! 4. Publish by rename.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use semver::VersionReq;
use tokio::process::Command;

use crate::{
    disk::make,
    model::{Address, Blame, Code, Fault, Hint, Home, Step, act, hint, limits, progress},
    shelf::{
        durable,
        environment::{
            pip::{self, Pin},
            python,
            tools::Tools,
        },
        files::{
            self, locks,
            staging::Staging,
            tree::{make_read_only, take_write},
        },
        process::{self, Silent},
    },
};

/// npm checks each file against the hashes of the lock; nothing else is installed, and no package runs a
/// script.
const PACKAGE: &str = include_str!("componentizer/package.json");
const PACKAGE_LOCK: &str = include_str!("componentizer/package-lock.json");
const QJS_VERSION: &str = "0.4.5";

const PY_VERSION: &str = "0.25.1";

/// Hashes of that version's wheels: Linux with glibc on x86-64 and on arm64. There are no others.
const PY_WHEEL_HASHES: [&str; 2] = [
    "8623cd8cab8453cb0cd8bf03f3c7103420d06f2f3d360186a280a70a1ca5e89f",
    "7b6a87c520358166843af0daa86d2312d7af4cbcbbf1e598951085cf7f2991ca",
];

/// Runs the command of the package in the folder that is the first argument, whatever is installed elsewhere.
const PY_START: &str = "import sys; sys.path.insert(0, sys.argv.pop(1)); from componentize_py import script; sys.exit(script())";

/// A language in which glue can be written as a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    JavaScript,
    Python,
}

impl Language {
    fn tool(self) -> String {
        match self {
            Language::JavaScript => format!("componentize-qjs-{QJS_VERSION}"),
            Language::Python => format!("componentize-py-{PY_VERSION}"),
        }
    }
}

/// A program that is installed and answers.
#[derive(Debug)]
pub struct Componentizer {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The Python that makes the program end with Hob ([`process::that_ends_with_us`]).
    python: Option<PathBuf>,
}

impl Componentizer {
    /// The program for `language`, fetched if needed by the user's npm or by the pip of a Python.
    ///
    /// Errors: `build_failed` without npm and Node.js, or when it cannot be fetched; `python_missing`;
    /// `disk_full`.
    pub async fn find(home: &Home, tools: &Tools, language: Language, progress: &progress::Shared) -> Result<Componentizer, Fault> {
        let range = VersionReq::parse(">=3.9").expect("a constant range");
        let found = python::find(&range, tools.python.as_deref()).await;
        let (program, python) = match language {
            // A machine that builds and runs no pods may have no Python. The tools are then ended by the code
            // that waits for them.
            Language::JavaScript => {
                (node(&std::env::var_os("PATH").unwrap_or_default()).await?, found.ok().map(|python| python.executable))
            }
            Language::Python => found.map(|python| (python.executable.clone(), Some(python.executable)))?,
        };
        let place = home.tools().join(language.tool());
        let ours = Componentizer::in_folder(language, &program, python.as_deref(), &place);
        if place.is_dir() && Silent::unless_exhausted(ours.answers().await)?.is_some() {
            return Ok(ours);
        }
        let label = format!("fetching {}", language.tool());
        let _held = locks::acquire(&home.locks().join("tools.lock"), &label, progress).await?;
        if place.is_dir() && Silent::unless_exhausted(ours.answers().await)?.is_some() {
            return Ok(ours);
        }
        progress.step(Step::Started { label: label.clone(), total_bytes: None });
        let fetched = fetch(home, language, &program, python.as_deref(), tools.indexes.for_tools(), &label).await;
        progress.step(Step::Finished { label });
        fetched?;
        ours.answers().await.map_err(|silent| silent.fault(|why| Fault::new(Code::BuildFailed, format!("{}: {why}", place.display()))))?;
        Ok(ours)
    }

    fn in_folder(language: Language, program: &Path, python: Option<&Path>, folder: &Path) -> Componentizer {
        let arguments: Vec<OsString> = match language {
            Language::JavaScript => vec![folder.join("node_modules/componentize-qjs/cli.mjs").into()],
            // Isolated: Python searches neither the working directory nor the user's own packages.
            Language::Python => vec!["-I".into(), "-c".into(), PY_START.into(), folder.into()],
        };
        Componentizer { program: program.to_owned(), arguments, python: python.map(Path::to_owned) }
    }

    /// Whether the program runs; the error is for people.
    async fn answers(&self) -> Result<(), Silent> {
        let asked = self.start(&["--help".as_ref()], Path::new("/"), limits::PROBE_MS).await;
        let ran = asked.map_err(|error| Silent::after(&error, &self.program, error.to_string()))?;
        match ran.succeeded() {
            true => Ok(()),
            false => Err(format!("`--help` ended with {}: {}", ran.end(limits::PROBE_MS), ran.tail.join("\n")).into()),
        }
    }

    async fn start(&self, arguments: &[&OsStr], folder: &Path, limit_ms: u64) -> std::io::Result<process::Ran> {
        let mut command = started(self.python.as_deref(), &self.program);
        // The output then ends with the error, and not with a backtrace of the program.
        command.env_remove("RUST_BACKTRACE");
        command.args(&self.arguments).args(arguments).current_dir(folder).stdin(Stdio::null());
        process::run(command, limit_ms, |_| ()).await
    }

    /// Runs the program in `folder`.
    ///
    /// Errors: `build_failed` with the program's output, `disk_full`.
    pub async fn run(&self, arguments: &[&OsStr], folder: &Path, what: &str) -> Result<(), Fault> {
        let ran = self
            .start(arguments, folder, limits::GLUE_SCRIPT_BUILD_MS)
            .await
            .map_err(|error| Fault::io(format!("running {}", self.program.display()), &error))?;
        if ran.succeeded() {
            return Ok(());
        }
        if ran.disk_full() {
            return Err(disk_full(what, &ran));
        }
        // One of the programs reports on stdout.
        let said: Vec<_> = ran.stdout.lines().map(str::to_owned).chain(ran.tail.iter().cloned()).collect();
        let last = said[said.len().saturating_sub(limits::TOOL_TAIL_LINES)..].to_vec();
        Err(Fault::new(Code::BuildFailed, format!("{what} ({}): {}", ran.end(limits::GLUE_SCRIPT_BUILD_MS), last.join("\n")))
            .hint("the script is loaded while it is built: an import that fails, or a `run` that is missing, shows here")
            .with("output", last))
    }
}

/// A command for `program` that ends with Hob, if there is a Python that can arrange it.
fn started(python: Option<&Path>, program: &Path) -> Command {
    match python {
        Some(python) => process::that_ends_with_us(python, program),
        None => Command::new(program),
    }
}

fn disk_full(what: &str, ran: &process::Ran) -> Fault {
    Fault::new(Code::DiskFull, format!("{what}: {}", ran.tail.join("\n"))).hint(hint::full_disk("nothing was changed"))
}

/// Finds Node.js on a search path; npm must be there as well.
async fn node(path: &OsStr) -> Result<PathBuf, Fault> {
    let missing = |what: &str| {
        Fault::new(Code::BuildFailed, format!("glue in JavaScript is built with Node.js 18 or newer and its npm: {what}"))
            .blame(Blame::Machine)
            .hint(
                "install both (Debian: `apt-get install nodejs npm`) and put them on PATH; a host that only runs the recipe needs neither",
            )
    };
    on_path(path, "npm").ok_or_else(|| missing("there is no `npm` on PATH"))?;
    let node = on_path(path, "node").ok_or_else(|| missing("there is no `node` on PATH"))?;
    let mut command = Command::new(&node);
    command.arg("--version").stdin(Stdio::null());
    let ran = process::run(command, limits::PROBE_MS, |_| ())
        .await
        .map_err(|error| Silent::after(&error, &node, format!("{}: {error}", node.display())).fault(|why| missing(&why)))?;
    let major = ran.stdout.trim().strip_prefix('v').and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match major {
        Some(18..) => Ok(node),
        _ => Err(missing(&format!("`{} --version` printed `{}`", node.display(), ran.stdout.lines().next().unwrap_or("")))),
    }
}

/// A file of that name in an absolute folder of a search path.
fn on_path(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|file| file.is_file())
}

async fn fetch(
    home: &Home,
    language: Language,
    program: &Path,
    python: Option<&Path>,
    indexes: &[Address],
    label: &str,
) -> Result<(), Fault> {
    let staging = Staging::new(home, "tool")?;
    let tree = staging.folder().join("tree");
    let ran = match language {
        Language::JavaScript => {
            let write = |name: &str, text: &str| {
                make::write(&tree.join(name), text.as_bytes(), make::PRIVATE_FILE)
                    .map_err(|error| Fault::io("writing a tool's pin", &error))
            };
            durable::make_folder(&tree)?;
            write("package.json", PACKAGE)?;
            write("package-lock.json", PACKAGE_LOCK)?;
            let npm = on_path(&std::env::var_os("PATH").unwrap_or_default(), "npm").unwrap_or_else(|| "npm".into());
            let mut command = started(python, &npm);
            command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--loglevel=error"]).current_dir(&tree);
            command.stdin(staging.lock_for_tool()?);
            let ran = process::run(command, limits::GLUE_TOOL_FETCH_MS, |_| ()).await;
            ran.map_err(|error| Fault::io(format!("{label}: running npm"), &error))?
        }
        Language::Python => {
            let pin = Pin { name: "componentize-py", version: PY_VERSION, hashes: &PY_WHEEL_HASHES };
            pip::fetch(program, &pin, indexes, &staging, &tree, limits::GLUE_TOOL_FETCH_MS).await?
        }
    };
    if !ran.succeeded() {
        if ran.disk_full() {
            return Err(disk_full(label, &ran));
        }
        let (installer, place) = match language {
            Language::JavaScript => ("npm", Hint::from("its own configuration says which")),
            Language::Python => ("pip", hint![act::index_urls(), " says which, else its own configuration"]),
        };
        return Err(Fault::new(
            Code::BuildFailed,
            format!(
                "{label}: {installer} could not ({}): {}",
                ran.end(limits::GLUE_TOOL_FETCH_MS),
                ran.tail.last().map_or("it said nothing", String::as_str)
            ),
        )
        .blame(Blame::Machine)
        .hint(Hint::from(format!("{installer} must reach a package index that has it; ")).and("", place))
        .with("stderr", ran.tail));
    }
    Componentizer::in_folder(language, program, python, &tree).answers().await.map_err(|silent| {
        silent.fault(|why| Fault::new(Code::BuildFailed, format!("the fetched {} does not run here: {why}", language.tool())))
    })?;
    let place = home.tools().join(language.tool());
    durable::make_folder(&home.tools())?;
    // If something is there, it is a copy that did not answer.
    files::remove_tree(&place)?;
    // The installer's umask decided the modes.
    make_read_only(&tree)
        .and_then(|()| fs::rename(&tree, &place))
        .and_then(|()| take_write(&place))
        .and_then(|()| durable::sync_folder(&home.tools()))
        .map_err(|error| Fault::io(format!("putting {} into place", place.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_is_of_the_version_that_is_named() {
        assert!(PACKAGE.contains(&format!("\"componentize-qjs\": \"{QJS_VERSION}\"")));
        let lock: serde_json::Value = serde_json::from_str(PACKAGE_LOCK).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        let pinned: Vec<_> = packages.iter().filter(|(name, _)| !name.is_empty()).collect();
        assert_eq!(pinned.len(), 5);
        for (name, package) in pinned {
            assert_eq!(package["version"], QJS_VERSION, "{name}");
            assert!(package["integrity"].as_str().unwrap().starts_with("sha512-"), "{name}");
            // The user's npm decides where the package comes from.
            assert!(package.get("resolved").is_none(), "{name}");
        }
        assert!(PY_WHEEL_HASHES.iter().all(|hash| hash.parse::<crate::model::Digest>().is_ok()));
    }

    #[tokio::test]
    async fn what_javascript_needs_and_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        // A link, because a program that this process itself wrote may still be busy when it is started.
        let link = |name: &str| std::os::unix::fs::symlink("/bin/true", folder.path().join(name)).unwrap();
        let refused = async |says: &str| {
            let fault = node(folder.path().as_os_str()).await.unwrap_err();
            assert_eq!((fault.code, fault.blame), (Code::BuildFailed, Blame::Machine));
            assert!(fault.message.contains(says) && fault.hint.unwrap().contains("apt-get install nodejs npm"), "{}", fault.message);
        };
        refused("there is no `npm` on PATH").await;
        link("npm");
        refused("there is no `node` on PATH").await;
        link("node");
        refused("node --version` printed `").await;
    }

    #[test]
    fn programs_are_looked_for_in_absolute_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("npm"), "").unwrap();
        let path = std::env::join_paths([Path::new("relative"), Path::new(""), folder.path()]).unwrap();
        assert_eq!(on_path(&path, "npm"), Some(folder.path().join("npm")));
        assert_eq!(on_path(&path, "node"), None);
    }
}
