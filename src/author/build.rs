//! `hob build`: from glue source to the component `glue.wasm`.
//!
//! One file of the source folder determines the language: `Cargo.toml`, `glue.js` or `glue.py`.
//!
//! - Rust glue is a cargo package. It is built for `wasm32-unknown-unknown`, and made a component in this
//!   process.
//! - Glue in a script language is in `script.rs`.
//!
//! The toolchain is rustup's with that target. If rustup cannot have the target, Debian's packages
//! `rustc-web cargo-web rust-web-src lld-19` build the target's standard library from source.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use super::script;
use crate::{
    model::{Code, Fault, Home, Progress, Step, limits},
    shelf::{
        environment::componentizer::Language,
        models::{fetching, sources::Sources},
    },
};

const TARGET: &str = "wasm32-unknown-unknown";
const LINKER: &str = "wasm-ld-19";

/// The files that mark the language.
const MARKS: [(&str, Source); 3] =
    [("Cargo.toml", Source::Rust), ("glue.js", Source::Script(Language::JavaScript)), ("glue.py", Source::Script(Language::Python))];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Rust,
    Script(Language),
}

/// Fetches the models of the recipe in `folder` that state an address, so that its author is the first to see
/// whether they match the manifest. Returns how many of them are now on the shelf of `home`.
///
/// Errors: `invalid_recipe` without a manifest, `invalid_manifest`, and those of [`fetching::bring`].
pub async fn fetch_models(folder: &Path, home: &Home, sources: &Sources, progress: &Arc<dyn Progress>) -> Result<usize, Fault> {
    let manifest = super::pack::read_manifest(folder)?;
    fetching::bring_all(home, folder, &manifest, true, sources, progress).await
}

/// Builds the glue of the recipe in `folder` and writes `glue.wasm` beside its manifest. Tools that it
/// fetches for this are kept in `home`.
///
/// Returns the component's path and size in bytes; `None` for a recipe without glue. Blocks while cargo runs.
/// Errors: `invalid_recipe` without a manifest, `invalid_manifest`, `build_failed`, `python_missing`, `io`.
pub async fn build(folder: &Path, home: &Home, progress: &Arc<dyn Progress>) -> Result<Option<(PathBuf, u64)>, Fault> {
    let manifest = super::pack::read_manifest(folder)?;
    let Some(glue) = &manifest.glue else { return Ok(None) };
    let source = folder.join(&glue.source);
    let language = language(&source).map_err(|fault| {
        fault.hint(format!(
            "for any other, build the component with the language's own tools and place it at {}",
            folder.join("glue.wasm").display()
        ))
    })?;
    let label = format!("building the glue of {}", manifest.name);
    progress.step(Step::Started { label: label.clone(), total_bytes: None });
    let built = match language {
        Source::Rust => compile(&source, &**progress).and_then(|module| component(&module)),
        Source::Script(language) => script::component(language, &source, home, progress).await,
    };
    progress.step(Step::Finished { label });
    let component = built?;
    if component.len() as u64 > limits::GLUE_COMPONENT_BYTES_MAX {
        return Err(Fault::new(
            Code::TooLarge,
            format!("the component is {} bytes; at most {} are run", component.len(), limits::GLUE_COMPONENT_BYTES_MAX),
        ));
    }
    let path = folder.join("glue.wasm");
    let what = |error: std::io::Error| Fault::io(format!("writing {}", path.display()), &error);
    let file = tempfile::NamedTempFile::new_in(folder).map_err(what)?;
    std::fs::write(file.path(), &component).map_err(what)?;
    // Only its owner can read a temporary file; a component is not secret.
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(what)?;
    file.persist(&path).map_err(|error| what(error.error))?;
    Ok(Some((path, component.len() as u64)))
}

/// The language of the glue in a folder.
fn language(source: &Path) -> Result<Source, Fault> {
    let found: Vec<_> = MARKS.iter().filter(|(mark, _)| source.join(mark).is_file()).collect();
    let marks = "`Cargo.toml` (Rust), `glue.js` (JavaScript), `glue.py` (Python)";
    match found[..] {
        [(_, language)] => Ok(*language),
        [] => Err(Fault::new(Code::BuildFailed, format!("{} has none of {marks}, one of which says the language", source.display()))),
        _ => {
            let names = found.iter().map(|(mark, _)| format!("`{mark}`")).collect::<Vec<_>>().join(" and ");
            Err(Fault::new(Code::BuildFailed, format!("{} has {names}: glue is in one language; wanted one of {marks}", source.display())))
        }
    }
}

/// Runs cargo in `source` and returns the path of the core module.
fn compile(source: &Path, progress: &dyn Progress) -> Result<PathBuf, Fault> {
    let mut cargo = toolchain(progress)?;
    let flags = anonymous(source, cargo.get_program())?;
    let mut child = cargo
        .args(["--message-format=json-render-diagnostics"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .current_dir(source)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Diagnostics go to the author's terminal; stdout is this program's.
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| Fault::io(format!("running {:?}", cargo.get_program()), &error))?;
    let messages = std::io::read_to_string(child.stdout.take().expect("stdout is piped"))
        .map_err(|error| Fault::io("reading what cargo says", &error))?;
    let status = child.wait().map_err(|error| Fault::io("waiting for cargo", &error))?;
    if !status.success() {
        return Err(Fault::new(Code::BuildFailed, format!("cargo could not build the glue in {} ({status})", source.display()))
            .hint("the compiler's messages are above"));
    }
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .rfind(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .ok_or_else(|| {
            Fault::new(Code::BuildFailed, format!("cargo built no wasm module in {}", source.display()))
                .hint("the glue's Cargo.toml wants `[lib] crate-type = [\"cdylib\"]`")
        })
}

/// Compiler flags that remove this machine's folders from panic messages: a bundle must not name its
/// publisher's folders.
fn anonymous(source: &Path, cargo: &std::ffi::OsStr) -> Result<String, Fault> {
    let source = source.canonicalize().map_err(|error| Fault::io(format!("opening {}", source.display()), &error))?;
    let rustc = if cargo == "cargo" { "rustc" } else { "/usr/bin/rustc" };
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).stdin(Stdio::null()).output();
    let sysroot = sysroot.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let home = std::env::var("CARGO_HOME").ok().or_else(|| std::env::var("HOME").ok().map(|home| format!("{home}/.cargo")));
    let mut flags = Vec::new();
    for (from, to) in [(source.display().to_string(), "glue"), (sysroot, "rust"), (home.unwrap_or_default(), "cargo")] {
        if !from.is_empty() {
            flags.push(format!("--remap-path-prefix={from}={to}"));
        }
    }
    Ok(flags.join("\u{1f}"))
}

/// `cargo build` with the first toolchain that has the target.
fn toolchain(progress: &dyn Progress) -> Result<Command, Fault> {
    if !has_target() && runs("rustup", &["--version"]) {
        progress.step(Step::Note { text: format!("adding the target {TARGET} with rustup") });
        // The check below shows whether it worked; its own output says why not.
        let _ = Command::new("rustup").args(["target", "add", TARGET]).stdin(Stdio::null()).output();
    }
    if has_target() {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--target", TARGET]);
        return Ok(cargo);
    }
    let (rustc, cargo) = (Path::new("/usr/bin/rustc"), Path::new("/usr/bin/cargo"));
    if rustc.is_file() && cargo.is_file() && runs(LINKER, &["--version"]) {
        progress.step(Step::Note { text: format!("rustup cannot have {TARGET} here: building it from Debian's Rust source") });
        let mut command = Command::new(cargo);
        command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", rustc).env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", LINKER).args([
            "build",
            "--release",
            "--target",
            TARGET,
            "-Zbuild-std=std,panic_abort",
            "-Zbuild-std-features=",
        ]);
        return Ok(command);
    }
    Err(Fault::new(Code::BuildFailed, format!("no Rust toolchain with the target {TARGET}"))
        .hint(format!("`rustup target add {TARGET}`; where rustup cannot: `apt-get install rustc-web cargo-web rust-web-src lld-19`")))
}

fn has_target() -> bool {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Turns a core module that carries its world into a component.
fn component(module: &Path) -> Result<Vec<u8>, Fault> {
    let bytes = std::fs::read(module).map_err(|error| Fault::io(format!("reading {}", module.display()), &error))?;
    let encoded = wit_component::ComponentEncoder::default().validate(true).module(&bytes).and_then(|mut encoder| encoder.encode());
    encoded.map_err(|error| {
        Fault::new(Code::BuildFailed, format!("{} cannot become a component: {error:#}", module.display()))
            .hint("the glue must be made with wit-bindgen for the world `hob:glue/glue`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_says_the_language() {
        let folder = tempfile::tempdir().unwrap();
        let says = |wanted: &str| {
            let fault = language(folder.path()).unwrap_err();
            assert!(fault.code == Code::BuildFailed && fault.message.contains(wanted), "{}", fault.message);
        };
        says("has none of `Cargo.toml` (Rust), `glue.js` (JavaScript), `glue.py` (Python)");
        for (mark, wanted) in MARKS {
            std::fs::write(folder.path().join(mark), "").unwrap();
            assert_eq!(language(folder.path()).unwrap(), wanted);
            std::fs::remove_file(folder.path().join(mark)).unwrap();
        }
        std::fs::write(folder.path().join("glue.js"), "").unwrap();
        std::fs::write(folder.path().join("glue.py"), "").unwrap();
        says("has `glue.js` and `glue.py`");
    }
}
