//! Fetches a tool with the `pip` of an interpreter: one wheel, pinned by its hashes, unpacked into a folder
//! of Hob's.
//!
//! The wheel comes from the package indexes of `hob.toml`, if it names some. They may hold wheels for recipes
//! but no tools, so a tool that they lack is then fetched with `pip`'s own configuration.

use std::{io, path::Path};

use tokio::process::Command;

use crate::{
    disk::make,
    model::{Address, Fault},
    shelf::{
        environment::indexes,
        files::staging::Staging,
        process::{self, Ran},
    },
};

/// One wheel to fetch.
pub(in crate::shelf) struct Pin<'a> {
    pub name: &'a str,
    pub version: &'a str,
    /// SHA-256 of the accepted wheels, in hex.
    pub hashes: &'a [&'a str],
}

/// Unpacks the wheel into `target`, which is in `staging`. The result says whether it succeeded, and has the
/// last output of `pip`.
///
/// Errors: `io`, `disk_full`, before `pip` starts.
pub(in crate::shelf) async fn fetch(
    python: &Path,
    pin: &Pin<'_>,
    indexes: &[Address],
    staging: &Staging,
    target: &Path,
    limit_ms: u64,
) -> Result<Ran, Fault> {
    let pins = staging.folder().join("requirements.txt");
    let hashes: String = pin.hashes.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
    make::write(&pins, format!("{}=={}{hashes}\n", pin.name, pin.version).as_bytes(), make::PRIVATE_FILE)
        .map_err(|error| Fault::io(format!("writing the pin of {}", pin.name), &error))?;
    let failed = |error: io::Error| Fault::io(format!("running {}", python.display()), &error);
    let mut before = Vec::new();
    if !indexes.is_empty() {
        let mut ran = process::run(command(python, &pins, indexes, staging, target)?, limit_ms, |_| ()).await.map_err(failed)?;
        ran.tail = ran.tail.iter().map(|line| indexes::scrub(indexes, line)).collect();
        if ran.succeeded() || ran.disk_full() {
            return Ok(ran);
        }
        before = ran.tail;
    }
    let mut ran = process::run(command(python, &pins, &[], staging, target)?, limit_ms, |_| ()).await.map_err(failed)?;
    before.append(&mut ran.tail);
    ran.tail = before;
    Ok(ran)
}

fn command(python: &Path, pins: &Path, indexes: &[Address], staging: &Staging, target: &Path) -> Result<Command, Fault> {
    let mut command = process::that_ends_with_us(python, python);
    command.args(["-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--no-user"]);
    command.args(["--only-binary", ":all:", "--progress-bar", "off", "--no-warn-script-location", "--no-compile"]);
    command.arg("--target").arg(target).arg("-r").arg(pins);
    // The configuration of `pip` stays, because it knows the way to the user's network. Variables that would
    // move the target are removed.
    command.env("PIP_REQUIRE_VIRTUALENV", "0").env_remove("PIP_TARGET").env_remove("PIP_PREFIX").env_remove("PIP_ROOT");
    indexes::tell_pip(&mut command, indexes);
    command.stdin(staging.lock_for_tool()?);
    Ok(command)
}
