//! The command line: one function per command, each a few lines over `host` or `author`.

use std::{io, path::Path, process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, error::ErrorKind};
use serde_json::{Value, json};

#[cfg(feature = "serve")]
use super::serve;
use super::{
    args::{Command, CommandLine, RecipeWord, Remote, Repo, usage},
    calling, compile_glue, doctor, inspect, manual, permissions,
    print::{self, Bars, Watch, failed, say, say_strays, say_warnings},
    sessions, starting, testing,
};
use crate::{
    author,
    disk::open,
    host::{Config, Host},
    model::{Code, Fault, Progress, RecipeRef, Silent, act, hint, limits, printable::in_a_line, progress},
    shelf::{
        repository::{ModelTarget, Trust},
        store::lockfile::LockEntry,
    },
};

/// Parses the arguments, runs the command, prints its result, and returns the exit code.
pub fn main() -> ExitCode {
    let args = match CommandLine::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap failed before it parsed the flag.
            if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
                let text = error.to_string();
                let first = text.split("\n\n").next().unwrap_or("").trim_start_matches("error: ");
                return failed(&usage(first), true);
            }
            // clap's own text; help and version are not failures.
            let is_json = std::env::args_os().any(|word| word == "--json");
            if error.kind() == ErrorKind::DisplayVersion && is_json {
                print::result(&json!({ "version": env!("CARGO_PKG_VERSION") }).to_string());
                return delivered();
            }
            if !error.use_stderr() {
                print::result(error.render().to_string().trim_end());
                return delivered();
            }
            print::note(error.render().to_string().trim_end());
            return ExitCode::from(Code::Usage.exit());
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOB_LOG").unwrap_or_else(|_| "hob=warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| print::Diagnostics).init();
    let (json, word) = (args.json, args.command.recipe());
    if let Command::CompileGlue { version, reservation, folder } = &args.command {
        return compile_glue::main(version, reservation, folder);
    }
    let runtime = match starting::runtime(matches!(args.command, Command::Serve { .. }), json) {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Fault::io("starting the runtime", &error), json),
    };
    let done = starting::run(&runtime, command(args));
    // Nobody waits for work that blocks a thread for longer than this.
    runtime.shutdown_timeout(Duration::from_millis(limits::RUNTIME_END_MS));
    match done {
        Ok(()) => delivered(),
        Err(fault) => failed(&or_folder(fault, word), json),
    }
}

/// Adds a hint if a word that is no installed recipe names a folder here. `recipes/echo` parses as a recipe
/// name, `echo` and `recipes/echo/` as nothing, but a folder may have been meant. It is done here for every
/// command, because a server does not know the user's working directory.
fn or_folder(fault: Fault, word: Option<RecipeWord>) -> Fault {
    let Some(RecipeWord { text, may_be_folder }) = word else { return fault };
    let is_missing = match fault.code {
        Code::RecipeNotFound | Code::NotInRepository | Code::SessionNotFound => true,
        Code::Usage => text.parse::<RecipeRef>().is_err(),
        _ => false,
    };
    if !is_missing || RecipeRef::is_folder(&text) || !Path::new(&text).join("recipe.toml").is_file() {
        return fault;
    }
    let folder = format!("./{}", text.trim_end_matches('/'));
    fault.hint(match may_be_folder {
        true => format!("did you mean the folder `{folder}`? Without `./` it is the name of an installed recipe").into(),
        false => hint![
            format!("the folder `{folder}` is not installed, which this command is about: "),
            act::call_folder(&folder),
            " runs it as it lies there"
        ],
    })
}

/// Success, unless printed output was lost.
fn delivered() -> ExitCode {
    match print::unwritten() {
        None => ExitCode::SUCCESS,
        Some(fault) => {
            print::fault(fault);
            ExitCode::from(fault.code.exit())
        }
    }
}

/// The configuration from environment variables. This very program compiles glue; `/proc/self/exe` works even
/// if its file was replaced.
fn config() -> Result<Config, Fault> {
    Ok(Config::from_environment()?.with_hob("/proc/self/exe"))
}

pub(super) async fn command(args: CommandLine) -> Result<(), Fault> {
    let progress: progress::Shared = match args.quiet {
        true => Arc::new(Silent),
        false => Arc::new(Bars::new()),
    };
    let json = args.json;
    match args.command {
        Command::Build { folder } => return build(folder, progress, json).await,
        Command::Test { folder, cases } => return testing::test(config()?.with_progress(progress), &folder, &cases, json).await,
        Command::Pack { folder, output } => return pack(&folder, output.as_deref(), json).await,
        Command::Publish { folder, repo, keys, test } => {
            let packed = packed(&folder).await?;
            if test {
                testing::pass(config()?.with_progress(progress.clone()), &folder).await?;
                // What is signed must be what the cases ran with.
                if author::pack::pack(&folder)?.digest() != packed.digest() {
                    let text = format!("{} changed while its cases ran, and nothing was signed", folder.display());
                    return Err(Fault::new(Code::InvalidRecipe, text).hint("publish it again when nobody writes to it"));
                }
            }
            return publish(&packed, &folder, &repo, &keys, test, &*progress, json).await;
        }
        Command::Repo { command } => return repo(command, json).await,
        Command::Call(call) => {
            let watch = Watch::new(args.quiet, call.stream);
            return calling::call(config()?.with_progress(progress), call, watch, (args.quiet, json)).await;
        }
        Command::Sessions { command } => {
            return sessions::sessions(config()?.with_progress(progress), command, json).await;
        }
        Command::Pods(args) => return inspect::pods(Config::from_environment()?.home(), args, json).await,
        Command::Logs(args) => return inspect::logs(Config::from_environment()?.home(), args, json).await,
        Command::Completions { shell } => {
            manual::completions(shell);
            return Ok(());
        }
        Command::Man { command, into } => return manual::man(command.as_deref(), into.as_deref()),
        Command::Status { watch } => return inspect::status(Config::from_environment()?.home(), watch, json).await,
        #[cfg(not(feature = "serve"))]
        Command::Serve { .. } => {
            return Err(Fault::new(Code::Usage, "this `hob` was built without its server")
                .hint("build it with the feature `serve`, or take one that was"));
        }
        _ => {}
    }
    let config = config()?.with_progress(progress);
    let home = config.home().clone();
    let host = Host::open(config).await?;
    let done = match args.command {
        #[cfg(feature = "serve")]
        Command::Serve { listen, unix } => serve::serve(&host, &home, listen.as_deref(), unix.as_deref(), json).await,
        Command::Add { recipe, remote, grant, no_grant } => {
            permissions::add(&host, &recipe, remote.as_deref(), permissions::consent(grant, no_grant), json).await
        }
        Command::Grant(args) => permissions::grant(&host, &args, json).await,
        Command::Revoke(args) => permissions::revoke(&host, &args, json).await,
        Command::Remove { recipe } => remove(&host, &recipe, json).await,
        Command::List => list(&host, json),
        Command::Show { recipe } => show(&host, &recipe, json).await,
        Command::Doctor => doctor::doctor(&host, &home, json).await,
        Command::Verify { recipe } => verify(&host, recipe.as_deref(), json).await,
        Command::Remote { command } => remote(&host, command, json).await,
        Command::Build { .. } | Command::Test { .. } | Command::Pack { .. } | Command::Publish { .. } | Command::Repo { .. } => Ok(()),
        Command::Call(_) | Command::Sessions { .. } | Command::Pods(_) | Command::Logs(_) | Command::Status { .. } => Ok(()),
        Command::CompileGlue { .. } | Command::Completions { .. } | Command::Man { .. } => Ok(()),
        #[cfg(not(feature = "serve"))]
        Command::Serve { .. } => Ok(()),
    };
    host.shutdown().await;
    done
}

async fn build(folder: std::path::PathBuf, progress: progress::Shared, json: bool) -> Result<(), Fault> {
    let config = Config::from_environment()?;
    let built = author::build::build(&folder, config.home(), &progress).await?;
    let models = author::build::fetch_models(&folder, config.home(), config.sources(), &progress).await?;
    let (path, bytes) = (built.as_ref().map(|(path, _)| path), built.as_ref().map(|(_, bytes)| bytes));
    say(json, json!({ "component": path, "bytes": bytes, "models": models }), || {
        let mut text = match &built {
            Some((path, bytes)) => format!("built {} ({bytes} bytes)", path.display()),
            None => format!("{} has no glue: nothing to build", folder.display()),
        };
        if models > 0 {
            text.push_str(&format!("\nmodels that are fetched: {models}, all here and what the manifest says"));
        }
        text
    });
    Ok(())
}

/// Packs a recipe folder and tries its glue.
async fn packed(folder: &Path) -> Result<author::pack::Packed, Fault> {
    let packed = author::pack::pack(folder)?;
    // A recipe without glue needs no home.
    if packed.manifest.glue.is_some() {
        let config = config()?;
        packed.check_glue(&config.home().compile_cache(), Arc::new(config.compiler().clone())).await?;
    }
    Ok(packed)
}

async fn pack(folder: &Path, output: Option<&Path>, json: bool) -> Result<(), Fault> {
    let packed = packed(folder).await?;
    let manifest = &packed.manifest;
    let default = format!("{}-{}-{}.hob", manifest.name.publisher(), manifest.name.name(), manifest.version);
    let path = output.unwrap_or(Path::new(&default));
    std::fs::write(path, &packed.bytes).map_err(|error| Fault::io(format!("writing {}", path.display()), &error))?;
    let (bytes, sha256) = (packed.bytes.len(), packed.digest().hex());
    say_contents(&packed);
    say_cases(&packed);
    say(
        json,
        json!({ "bundle": path, "bytes": bytes, "sha256": sha256, "files": packed.index, "left": left(&packed), "left_more": packed.left_more,
            "not_held": packed.manifest.not_held(), "cases": packed.cases, "warnings": packed.warnings }),
        || format!("packed {} {} into {} ({bytes} bytes, {} files)", manifest.name, manifest.version, path.display(), packed.index.len()),
    );
    Ok(())
}

/// Notes for people which files are packed and which are left out.
fn say_contents(packed: &author::pack::Packed) {
    for (path, file) in packed.index.files().take(limits::PACK_NAMED_MAX) {
        print::note(&format!("  {path} ({} bytes)", file.bytes));
    }
    if let Some(more) = packed.index.len().checked_sub(limits::PACK_NAMED_MAX).filter(|more| *more > 0) {
        print::note(&format!("  and {more} more files"));
    }
    for (path, why) in &packed.left {
        print::note(&format!("  stays behind: {} ({})", in_a_line(path), why.why()));
    }
    for word in packed.manifest.not_held().iter().take(limits::PACK_NAMED_MAX) {
        print::note(&format!("  not held: {}", in_a_line(word)));
    }
    if packed.left_more > 0 {
        print::note(&format!("  and {} more stay behind", packed.left_more));
    }
    for warning in &packed.warnings {
        print::note(&format!("  warning: {warning}"));
    }
}

/// Notes that the cases were not run, and what runs them.
fn say_cases(packed: &author::pack::Packed) {
    let (cases, them) = if packed.cases == 1 {
        ("case".to_owned(), "it was not run: `hob test` runs it")
    } else {
        (format!("{} cases", packed.cases), "they were not run: `hob test` runs them")
    };
    print::note(&format!("  {cases}: {them}"));
}

/// The left-out files as JSON: path and reason.
fn left(packed: &author::pack::Packed) -> serde_json::Value {
    packed.left.iter().map(|(path, why)| json!({ "path": path, "why": why.why() })).collect()
}

async fn publish(
    packed: &author::pack::Packed,
    folder: &Path,
    repo: &Path,
    keys: &Path,
    tested: bool,
    progress: &dyn Progress,
    json: bool,
) -> Result<(), Fault> {
    let (name, version) = (&packed.manifest.name, &packed.manifest.version);
    let (keys, models) = (author::keys::Keys::at(keys), folder.join("models"));
    let published = author::publish::publish(repo, &keys, packed, &models, jiff::Timestamp::now(), progress).await?;
    say_contents(packed);
    if !tested {
        say_cases(packed);
    }
    let (files, left) = (&packed.index, left(packed));
    let told = json!({
        "name": name, "version": version, "sha256": published.sha256, "already": published.already, "files": files, "left": left,
        "left_more": packed.left_more, "not_held": packed.manifest.not_held(), "cases": packed.cases, "tested": tested,
        "warnings": packed.warnings,
    });
    say(json, told, || match published.already {
        true => format!("{name} {version} is published already, with the same bytes"),
        false => format!("published {name} {version}"),
    });
    Ok(())
}

async fn repo(command: Repo, json: bool) -> Result<(), Fault> {
    use author::{keys::Keys, repository};
    let now = jiff::Timestamp::now();
    match command {
        Repo::Init { dir, keys } => {
            let made = repository::repo_init(&dir, &Keys::at(keys), now).await?;
            for warning in &made.warnings {
                print::note(&format!("  warning: {warning}"));
            }
            say(json, json!({ "repository": dir, "fingerprint": made.fingerprint }), || {
                format!("made a repository in {}; fingerprint {}", dir.display(), made.fingerprint)
            });
        }
        Repo::AddPublisher { dir, name, keys, public_key } => {
            let key = repository::add_publisher(&dir, &Keys::at(keys), &name, public_key.as_deref(), now).await?;
            say(json, json!({ "publisher": name, "key": key }), || format!("`{name}/*` is signed by key {key}"));
        }
        Repo::Refresh { dir, keys } => {
            let due = repository::refresh(&dir, &Keys::at(keys), now).await?;
            for warning in &due {
                print::note(&format!("  warning: {warning}"));
            }
            say(json, json!({ "repository": dir, "due": due }), || format!("signed snapshot and timestamp of {} anew", dir.display()));
        }
    }
    Ok(())
}

async fn remove(host: &Host, recipe: &str, json: bool) -> Result<(), Fault> {
    let name = host.resolve_name(recipe).await?;
    host.remove(&name).await?;
    let stay = host.sessions().await?.into_iter().filter(|session| session.folder.is_none() && session.recipe == name.to_string()).count();
    if stay > 0 {
        print::note(&format!(
            "  sessions of it that stay, with what they kept: {stay}; `hob sessions` lists them, `hob sessions close` ends one"
        ));
    }
    say(json, json!({ "removed": name }), || format!("removed {name}"));
    Ok(())
}

fn list(host: &Host, json: bool) -> Result<(), Fault> {
    let installed = host.installed()?;
    let told = installed.iter().map(|entry| {
        let mut told = json!(entry);
        let warnings = say_warnings(host, entry);
        if !warnings.is_empty() {
            told["warnings"] = json!(warnings);
        }
        told
    });
    let told: Vec<Value> = told.collect();
    say_strays(host.strays()?);
    say(json, json!(told), || match installed.is_empty() {
        true => "nothing is installed".to_owned(),
        false => {
            let line = |entry: &LockEntry| {
                format!("{:<32} {:<10} signed by `{}` of remote `{}`", entry.name.to_string(), entry.version, entry.publisher, entry.remote)
            };
            installed.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    });
    Ok(())
}

async fn show(host: &Host, recipe: &str, json: bool) -> Result<(), Fault> {
    let shown = host.show(&host.resolve(recipe).await?).await?;
    say(json, json!(shown), || {
        let signer = match (&shown.signed_by, &shown.remote) {
            (Some(publisher), Some(remote)) => format!("signed by `{publisher}` of remote `{remote}`, key {}", shown.key_ids.join(", ")),
            _ => "unsigned: a recipe folder".to_owned(),
        };
        let capability = shown.capability.as_ref().map(|name| format!("\nprovides {name}")).unwrap_or_default();
        let (license, summary) = (in_a_line(&shown.license), in_a_line(&shown.summary));
        let mut text = format!("{} {} ({license})\n{summary}\n{signer}{capability}", shown.name, shown.version);
        for asked in &shown.permissions {
            text.push_str(&format!("\nasks for {}, {}", asked.permission, if asked.granted { "granted" } else { "not granted" }));
        }
        if shown.reduced {
            text.push_str(&format!("\n{}", permissions::REDUCED));
        }
        for model in &shown.models {
            text.push_str(&format!("\n{}", model_line(model)));
        }
        for warning in &shown.warnings {
            text.push_str(&format!("\ninstalled by an older Hob, and read as it was: {}", in_a_line(warning)));
        }
        for word in &shown.not_held {
            text.push_str(&format!("\nnot held: {}", in_a_line(word)));
        }
        for operation in &shown.operations {
            text.push_str(&format!(
                "\n\n{}: {}\n  input  {}\n  output {}",
                operation["name"].as_str().unwrap_or(""),
                in_a_line(operation["summary"].as_str().unwrap_or("")),
                operation["input"],
                operation["output"]
            ));
            if operation["session"] == true {
                text.push_str("\n  runs in a session only: `--session NAME`");
            }
            if operation["streaming"] == true {
                text.push_str("\n  gives chunks before its output: `--stream` prints them");
            }
            if let Some(items) = operation.get("batch").map(|batch| &batch["items"]) {
                text.push_str(&format!("\n  calls that wait go to a pod together, at most {items}"));
            }
            if let Some(blobs) = operation.get("blobs") {
                for (side, word) in [("in", "takes"), ("out", "gives")] {
                    for (name, spec) in blobs[side].as_object().into_iter().flatten() {
                        let optional = if spec["required"] == true { "" } else { ", if there is one" };
                        let media_type = spec["media_type"].as_str().unwrap_or_default();
                        text.push_str(&format!(
                            "\n  {word} the blob `{name}` ({media_type}, at most {} bytes{optional})",
                            spec["bytes_max"]
                        ));
                    }
                }
            }
        }
        text
    });
    Ok(())
}

fn model_line(model: &ModelTarget) -> String {
    let from = model.from.as_ref().map_or("comes with the recipe".to_owned(), |source| format!("from {source}"));
    format!("model {} ({} bytes, sha256 {}), {from}", model.name, model.bytes, model.sha256.short())
}

async fn verify(host: &Host, recipe: Option<&str>, json: bool) -> Result<(), Fault> {
    let name = match recipe {
        Some(word) => Some(host.resolve_name(word).await?),
        None => None,
    };
    let reports = host.verify(name.as_ref()).await?;
    let fault = reports.iter().find_map(|report| report.fault.clone());
    if let (true, Some(fault)) = (json, &fault) {
        // With `--json` there is one document: the fault carries the reports.
        return Err(fault.clone().with("reports", json!(reports)));
    }
    say(json, json!(reports), || {
        let line = |report: &crate::shelf::store::load::Report| match &report.fault {
            None => {
                let models = report.models.iter().map(|model| format!("\n         {}", model_line(model)));
                format!("ok       {}{}", report.subject, models.collect::<String>())
            }
            Some(fault) => format!("ALTERED  {}: {}", report.subject, fault.message),
        };
        match reports.is_empty() {
            true => "nothing is installed".to_owned(),
            false => reports.iter().map(line).collect::<Vec<_>>().join("\n"),
        }
    });
    fault.map_or(Ok(()), Err)
}

async fn remote(host: &Host, command: Remote, json: bool) -> Result<(), Fault> {
    match command {
        Remote::Add { name, url, root, fingerprint } => {
            let trust = match (root, fingerprint) {
                (Some(path), _) => {
                    // One byte above the limit is enough to show that the file is too large.
                    let root = open::read_of_user(&path, limits::ROOT_BYTES_MAX + 1);
                    Trust::Root(root.map_err(|error| match error.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                            Fault::new(Code::Usage, format!("`--root {}`: {error}", path.display())).hint(hint![
                                "wanted the repository's `1.root.json` as a file, which its maintainer gives; with its SHA-256 alone ",
                                act::remote_add(&name),
                                " pins the same"
                            ])
                        }
                        _ => Fault::io(format!("reading {}", path.display()), &error),
                    })?)
                }
                (None, Some(fingerprint)) => Trust::Fingerprint(fingerprint),
                (None, None) => return Err(usage("wanted `--root FILE` or `--fingerprint HEX`")),
            };
            let (url, pinned) = host.add_remote(&name, &url, trust).await?;
            say(json, json!({ "remote": name, "url": url.shown(), "fingerprint": pinned.fingerprint }), || {
                format!("remote `{name}` is trusted by root {}", pinned.fingerprint)
            });
        }
        Remote::List => {
            let remotes = host.remotes()?;
            let list: Vec<Value> = remotes.iter().map(|remote| json!({ "name": remote.name, "url": remote.url.shown() })).collect();
            say(json, json!(list), || match remotes.is_empty() {
                true => "no remote is trusted".to_owned(),
                false => remotes.iter().map(|remote| format!("{:<16} {}", remote.name, remote.url.shown())).collect::<Vec<_>>().join("\n"),
            });
        }
        Remote::Remove { name } => {
            host.remove_remote(&name).await?;
            say(json, json!({ "removed": name }), || format!("remote `{name}` is forgotten; what was installed from it stays"));
        }
    }
    Ok(())
}
