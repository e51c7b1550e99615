//! Builds one environment.
//!
//! 1. `uv` puts wheels into an empty tree.
//! 2. The tree is checked.
//! 3. Its sources are compiled in a sandbox.
//! 4. The tree is published.
//!
//! No byte of a wheel runs here. `uv` unpacks and copies. Before it begins it asks an interpreter about
//! itself once: the interpreter of a separate folder (the scaffold) that receives no wheel. Hob writes the
//! files of an environment that Python reads (`pyvenv.cfg`, `bin/python`) after everything else is done.
//!
//! `uv` copies out of its cache instead of linking. With hard links and without a sandbox, a pod that writes
//! into its own environment would write into the cache, and so into every other environment.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::process::Command;

use crate::{
    disk::{make, open},
    model::{Address, Blame, Code, Digest, Fault, Home, Step, hint, limits, progress},
};

use crate::shelf::{
    blocking, durable,
    environment::{
        compiler::Compiler,
        index_answers, indexes,
        inert::{self, Most, Refused},
        python::Python,
        record::{record_file, record_text},
        requirements::{Lock, plain_name},
        unbuilt,
        uv::Uv,
    },
    files::{
        self,
        staging::Staging,
        tree::{Tree, make_read_only, take_write},
    },
    process,
};

/// The variables of the caller's environment that `uv` gets: they say how to reach the index, and change
/// nothing about what is built.
const PASSED: &[&str] = &[
    "HOME",
    "PATH",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Where systems keep the certificates that they trust; given to `uv` if the caller's environment names none.
const CERTIFICATES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// One build, from an empty staging folder to the published one.
pub(in crate::shelf) struct Build<'a> {
    pub home: &'a Home,
    pub python: &'a Python,
    pub uv: &'a Uv,
    /// The package indexes to ask, in this order; if empty, the public one.
    pub indexes: &'a [Address],
    pub compiler: &'a dyn Compiler,
    /// Names the lock in faults.
    pub what: &'a str,
    pub progress: &'a progress::Shared,
}

/// Where one build happens, and when it began.
struct Place<'a> {
    staging: &'a Staging,
    /// The interpreter of the scaffold.
    scaffold: &'a Path,
    tree: &'a Path,
    began: Instant,
}

/// A run of `uv` that failed.
struct Failed {
    fault: Fault,
    /// The last lines that it printed, if they are about packages.
    said: Option<String>,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed { fault, said: None }
    }
}

impl Build<'_> {
    /// Builds the environment of `lock` and publishes it under `digest`. Dropping the future ends the build
    /// and leaves nothing.
    pub async fn run(&self, lock: &Lock, digest: Digest) -> Result<(), Fault> {
        let began = Instant::now();
        let staging = Staging::new(self.home, "environment")?;
        let (tree, packages) = (staging.folder().join("tree"), self.python.packages());
        let made = |error: io::Error| Fault::io(format!("making {}", staging.folder().display()), &error);
        let scaffold = self.scaffold(staging.folder(), &packages).map_err(made)?;
        make::folder(&tree.join(&packages), make::FOLDER).map_err(made)?;
        // Some interpreters have `lib64` for packages with native code.
        symlink("lib", tree.join("lib64")).map_err(made)?;
        self.sweep().await?;
        let place = Place { staging: &staging, scaffold: &scaffold, tree: &tree, began };
        self.fetch(&place, lock).await?;

        self.check(&tree).await?;
        let (at, scripts) = (scaffold.clone(), tree.join("bin"));
        blocking(move || point_scripts(&scripts, &at).map_err(|error| Fault::io(format!("rewriting {}", scripts.display()), &error)))
            .await?;
        self.compile(&staging, &tree).await?;
        self.check(&tree).await?;

        let (home, python) = (self.home.clone(), self.python.clone());
        // The staging folder moves into the closure: if the caller gives up now, the folder must not be
        // deleted under the publisher.
        blocking(move || {
            let published = finish(&tree, &python)
                .map_err(|error| Fault::io(format!("finishing {}", tree.display()), &error))
                .and_then(|()| publish(&home, &tree, digest));
            drop(staging);
            published
        })
        .await
    }

    /// Lets `uv` put the wheels of `lock` into the tree.
    ///
    /// With several indexes, each package comes from the first index that has its bytes. `uv` chooses by
    /// version and by the platform of a wheel, and then takes that wheel's bytes. If two indexes have
    /// different bytes for one version (or one has a local version, as `1.0+cpu` is of `1.0`), `uv` may
    /// choose the wrong bytes; it then names the package. Each such package is asked for separately, index by
    /// index.
    async fn fetch(&self, place: &Place<'_>, lock: &Lock) -> Result<(), Fault> {
        let mut apart: Vec<(String, Failed)> = Vec::new();
        loop {
            let text = lock.text_of(|name| apart.iter().all(|(other, _)| other != name));
            let failed = match self.install(place, "sync", &text, self.indexes).await {
                Ok(()) => break,
                Err(failed) => failed,
            };
            let name = failed.said.as_deref().and_then(unbuilt::mismatched).map(plain_name).unwrap_or_default();
            let is_new = lock.pins().any(|(pin, _)| plain_name(pin) == name) && apart.iter().all(|(other, _)| *other != name);
            if self.indexes.len() < 2 || !is_new {
                return Err(self.told(failed).await);
            }
            apart.push((name, failed));
        }
        'packages: for (name, failed) in apart {
            let text = lock.text_of(|other| other == name);
            for index in self.indexes {
                match self.install(place, "install", &text, std::slice::from_ref(index)).await {
                    Ok(()) => continue 'packages,
                    Err(failed) if failed.said.as_deref().is_some_and(unbuilt::is_elsewhere) => {}
                    Err(failed) => return Err(self.told(failed).await),
                }
            }
            // No index has those bytes.
            return Err(self.told(failed).await);
        }
        Ok(())
    }

    /// The fault of a failed run, with the answer of each index that the operator named about the package.
    async fn told(&self, failed: Failed) -> Fault {
        let Failed { fault, said: Some(said) } = failed else { return failed.fault };
        let answers = match unbuilt::package(&said) {
            Some(name) => index_answers::ask(self.indexes, &plain_name(name)).await,
            None => Vec::new(),
        };
        unbuilt::explained(fault, &said, !self.indexes.is_empty(), &answers)
    }

    /// Runs `uv pip sync`, or `uv pip install`, which keeps packages that are already there.
    async fn install(&self, place: &Place<'_>, word: &str, lock: &str, indexes: &[Address]) -> Result<(), Failed> {
        let requirements = place.staging.folder().join("requirements.txt");
        // The file of the run before.
        let _ = fs::remove_file(&requirements);
        make::write(&requirements, lock.as_bytes(), make::PRIVATE_FILE)
            .map_err(|error| Fault::io(format!("writing {}", requirements.display()), &error))?;
        let mut command = self.command(place.staging)?;
        command.args(["pip", word, "--require-hashes", "--only-binary", ":all:", "--no-compile-bytecode"]);
        command.arg(if word == "sync" { "--allow-empty-requirements" } else { "--no-deps" });
        indexes::tell_uv(&mut command, indexes);
        command.arg("--python").arg(place.scaffold).arg("--prefix").arg(place.tree);
        command.args((word == "install").then_some("-r")).arg(&requirements);
        self.step(command, &format!("uv pip {word}"), place.began).await
    }

    /// Makes an environment without packages, from which `uv` learns which interpreter it installs for;
    /// returns the path of that interpreter.
    fn scaffold(&self, staging: &Path, packages: &Path) -> io::Result<PathBuf> {
        let scaffold = staging.join("scaffold");
        make::folder(&scaffold.join(packages), make::FOLDER)?;
        make::folder(&scaffold.join("bin"), make::FOLDER)?;
        // Scripts then find their interpreter relative to their own folder.
        let configuration = configuration(self.python) + "relocatable = true\n";
        make::write(&scaffold.join("pyvenv.cfg"), configuration.as_bytes(), make::FILE)?;
        let python = scaffold.join("bin/python");
        symlink(&self.python.executable, &python)?;
        Ok(python)
    }

    /// Deletes half-unpacked files that a `uv` killed long ago left in its cache.
    async fn sweep(&self) -> Result<(), Fault> {
        let cache = self.home.uv_cache();
        blocking(move || {
            sweep_cache(&cache);
            Ok(())
        })
        .await
    }

    /// Refuses a tree that holds anything other than packages.
    ///
    /// Errors: `environment_failed`, which blames the recipe.
    async fn check(&self, tree: &Path) -> Result<(), Fault> {
        let (tree, packages) = (tree.to_owned(), self.python.packages());
        let checked = blocking(move || {
            // The lock of `uv` on its target, writable for everybody.
            let lock = tree.join(".lock");
            if fs::symlink_metadata(&lock).is_ok_and(|found| found.is_file() && found.len() == 0) {
                let _ = fs::remove_file(&lock);
            }
            let entries =
                inert::look(&tree, Most::ENVIRONMENT).map_err(|error| Fault::io(format!("reading {}", tree.display()), &error))?;
            Ok(inert::check(&entries, &packages, Most::ENVIRONMENT).map_err(|refused| {
                let wheel = inert::wheel_of(&tree, &packages, &refused.path);
                (refused, wheel)
            }))
        });
        checked.await?.map_err(|(refused, wheel)| self.refused(&refused, wheel))
    }

    fn refused(&self, refused: &Refused, wheel: Option<String>) -> Fault {
        let Refused { path, why } = refused;
        let of = wheel.map_or_else(|| "a wheel".to_owned(), |wheel| format!("the wheel of {wheel}"));
        let shown: String = path.to_string_lossy().chars().take(limits::ENVIRONMENT_PATH_SHOWN_CHARS).collect();
        let text = match path.as_os_str().is_empty() {
            true => format!("the environment of {} is not taken: {why}", self.what),
            false => format!("the environment of {} is not taken: {of} has `{shown}`, and {why}", self.what),
        };
        let fault = Fault::new(Code::EnvironmentFailed, text)
            .hint("a package may hold code for site-packages, scripts and data, nothing else; tell the publisher of the recipe which one does not")
            .with("path", shown);
        Fault { blame: Blame::Recipe, ..fault }
    }

    /// Compiles the sources; refuses the tree if it grows too large meanwhile.
    async fn compile(&self, staging: &Staging, tree: &Path) -> Result<(), Fault> {
        let (packages, scratch) = (tree.join(self.python.packages()), staging.folder().join("compiling"));
        make::new_folder(&scratch, make::PRIVATE_FOLDER).map_err(|error| Fault::io(format!("making {}", scratch.display()), &error))?;
        let grown = async {
            loop {
                tokio::time::sleep(Duration::from_millis(limits::BYTECODE_LOOK_MS)).await;
                let tree = tree.to_owned();
                let weighed = blocking(move || {
                    // The check after this one finds a folder that is gone by now.
                    let entries = inert::look(&tree, Most::ENVIRONMENT).unwrap_or_default();
                    Ok(inert::weigh(&entries, Most::ENVIRONMENT))
                });
                if let Ok(Err(refused)) = weighed.await {
                    return refused;
                }
            }
        };
        tokio::select! {
            why = self.compiler.compile(&self.python.executable, &packages, &scratch) => {
                if let Some(why) = why? {
                    tracing::warn!("an environment is without bytecode: {why}");
                    self.progress.step(Step::Note { text: format!("without bytecode, so that imports take longer: {why}") });
                }
                Ok(())
            }
            refused = grown => Err(self.refused(&refused, None)),
        }
    }

    /// A `uv` command with its own environment variables, so that no user's configuration changes the build.
    fn command(&self, staging: &Staging) -> Result<Command, Fault> {
        let mut command = process::that_ends_with_us(&self.python.executable, &self.uv.path);
        command.env_clear().current_dir(staging.folder()).stdin(staging.lock_for_tool()?);
        command.args(["--no-config", "--no-progress", "--no-python-downloads", "--color", "never"]);
        for name in PASSED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if std::env::var_os("SSL_CERT_FILE").is_none()
            && std::env::var_os("SSL_CERT_DIR").is_none()
            && let Some(path) = CERTIFICATES.iter().find(|path| Path::new(path).is_file())
        {
            command.env("SSL_CERT_FILE", path);
        }
        command.env("LANG", "C.UTF-8").env("UV_LINK_MODE", "copy").env("UV_CACHE_DIR", self.home.uv_cache());
        command.env("UV_HTTP_TIMEOUT", (limits::PACKAGE_INDEX_STALL_MS / 1000).to_string());
        Ok(command)
    }

    /// The addresses given to `uv` that may contain a password and may appear in its output.
    fn addresses(&self) -> Vec<Address> {
        let variables = PASSED.iter().filter(|name| name.to_ascii_lowercase().ends_with("_proxy"));
        let proxies = variables.filter_map(|name| std::env::var(name).ok()).map(Address::new);
        self.indexes.iter().cloned().chain(proxies).collect()
    }

    async fn step(&self, command: Command, name: &str, began: Instant) -> Result<(), Failed> {
        let left = limits::ENVIRONMENT_BUILD_MS.saturating_sub(began.elapsed().as_millis() as u64);
        let hidden = self.addresses();
        let scrub = |line: &str| indexes::scrub(&hidden, line);
        let note = |line: &str| self.progress.step(Step::Note { text: scrub(line) });
        let most = process::Most { written: limits::ENVIRONMENT_WRITTEN_BYTES_MAX, memory: Some(limits::ENVIRONMENT_MEMORY_BYTES_MAX) };
        let mut ran = process::run_within(command, left, most, note)
            .await
            .map_err(|error| Fault::io(format!("running {}", self.uv.path.display()), &error))?;
        ran.tail = ran.tail.iter().map(|line| scrub(line)).collect();
        if ran.succeeded() {
            return Ok(());
        }
        let said = ran.tail.join("\n");
        if ran.disk_full() {
            return Err(Fault::new(Code::DiskFull, format!("{name}: {said}")).hint(hint::full_disk("nothing was changed")).into());
        }
        let end = ran.end(limits::ENVIRONMENT_BUILD_MS);
        if ran.overflowed {
            let most = limits::ENVIRONMENT_WRITTEN_BYTES_MAX;
            let text =
                format!("{name} for {} wrote more than {most} bytes and was ended: wheels of the lock unpack to too much", self.what);
            let fault = Fault::new(Code::EnvironmentFailed, text)
                .hint(format!("while nothing is built, {} may be deleted, where they lie half unpacked", self.home.uv_cache().display()))
                .with("stderr", ran.tail);
            return Err(Fault { blame: Blame::Recipe, ..fault }.into());
        }
        if ran.out_of_memory() {
            let most = limits::ENVIRONMENT_MEMORY_BYTES_MAX;
            let text = format!(
                "{name} for {} wanted more than {most} bytes of memory: what a wheel of the lock says of itself is too much",
                self.what
            );
            let fault = Fault::new(Code::EnvironmentFailed, text)
                .hint("tell the publisher of the recipe; where the machine itself has less memory than that, try again when more of it is free")
                .with("stderr", ran.tail);
            return Err(Fault { blame: Blame::Recipe, ..fault }.into());
        }
        let found = format!("Python {}, {}", self.python.version, self.python.platform);
        let fault = Fault::new(Code::EnvironmentFailed, format!("{name} could not build the environment for {found} ({end}):\n{said}"));
        let mut fault = fault.with("stderr", ran.tail);
        if !self.indexes.is_empty() {
            fault = fault.with("indexes", self.indexes.iter().map(Address::shown).collect::<Vec<_>>());
        }
        Err(Failed { fault, said: Some(said) })
    }
}

/// Turns a tree of packages into an environment: adds files that Hob writes, and links to the machine's
/// interpreter.
fn finish(tree: &Path, python: &Python) -> io::Result<()> {
    make::write(&tree.join("pyvenv.cfg"), configuration(python).as_bytes(), make::FILE)?;
    make::folder(&tree.join("bin"), make::FOLDER)?;
    symlink(&python.executable, tree.join("bin/python"))?;
    for name in ["python3".to_owned(), format!("python{}.{}", python.version.major, python.version.minor)] {
        symlink("python", tree.join("bin").join(name))?;
    }
    Ok(())
}

fn configuration(python: &Python) -> String {
    let home = python.executable.parent().unwrap_or(Path::new("/")).display();
    format!("home = {home}\nversion_info = {}\ninclude-system-site-packages = false\n", python.version)
}

/// Rewrites scripts to use `bin/python` of the environment. They were made for the scaffold's interpreter,
/// which they name by its path or relative to their own folder.
fn point_scripts(bin: &Path, scaffold: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(bin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let names = [scaffold.as_os_str().as_encoded_bytes(), b"../../scaffold/bin/python"];
    for entry in entries {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if !metadata.is_file() || metadata.len() > limits::SCRIPT_BYTES_MAX {
            continue;
        }
        let mut text = open::read(&path, limits::SCRIPT_BYTES_MAX)?;
        let found = names.iter().find_map(|name| Some((text.windows(name.len()).position(|part| part == *name)?, name.len())));
        let Some((at, length)) = found else { continue };
        text.splice(at..at + length, *b"python");
        fs::remove_file(&path)?;
        make::write(&path, &text, metadata.permissions().mode() & 0o777)?;
    }
    Ok(())
}

fn sweep_cache(cache: &Path) {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    // No running build is as old as the longest time that a build may take.
    let is_old = |path: &Path| {
        let changed = fs::symlink_metadata(path).and_then(|found| found.modified()).ok();
        changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > Duration::from_millis(limits::ENVIRONMENT_STALE_MS))
    };
    let is_half = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp"));
    let top = entries(cache);
    let inner: Vec<PathBuf> = top.iter().filter(|path| path.is_dir() && !is_half(path)).flat_map(|folder| entries(folder)).collect();
    for path in top.iter().chain(&inner).filter(|path| is_half(path) && is_old(path)) {
        // A folder that cannot be deleted now is tried again by the next build.
        let _ = files::remove_tree(path);
    }
}

/// Records the tree, removes write permissions, then renames: in this order, so that a published environment
/// is complete.
fn publish(home: &Home, tree: &Path, digest: Digest) -> Result<(), Fault> {
    let root = home.environments();
    durable::make_folder(&root)?;
    let place = root.join(digest.hex());
    let failed = |error: io::Error| Fault::io(format!("publishing {}", place.display()), &error);
    make_read_only(tree).map_err(failed)?;
    let text = record_text(&Tree::of(tree).map_err(failed)?);
    // Thousands of small files: one sync of the file system is far cheaper than one for each.
    let opened = open::open_folder(tree).map_err(failed)?;
    rustix::fs::syncfs(&opened).map_err(|error| failed(error.into()))?;
    files::replace(&record_file(home, digest), text.as_bytes())?;
    fs::rename(tree, &place).map_err(failed)?;
    take_write(&place).and_then(|()| durable::sync_folder(&root)).map_err(failed)
}
