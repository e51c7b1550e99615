//! Runs a test of this binary again, as an ordinary user.
//!
//! The tests do not depend on their user: their files lie in a temporary folder, which is given to this user.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use hob::{
    host::{Config, Host},
    model::Home,
    shelf::environment::tools::Tools,
};
use tempfile::TempDir;

use super::victim::{PROGRAMS, write_programs};
use crate::support::Rig;

/// A user without any file on a machine.
const USER: u32 = 61_234;

/// Tests whose pods send descriptors hold it for reading; the test that takes all descriptors that a user may
/// have in flight holds it for writing, because the kernel counts them for all pods of a user.
pub static ON_THEIR_WAY: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// As `Rig::new`, with the tools that [`once_more`] named, if any.
pub async fn rig() -> Rig {
    rig_without(&[]).await
}

/// The same, on a machine without these layers of the sandbox.
pub async fn rig_without(layers: &[&str]) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    // Others may pass through the folder, as on a real machine: only the sandbox closes anything to a pod.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config =
        Config::new(Home::at(folder.path().join("home"))).with_hob(env!("CARGO_BIN_EXE_hob")).with_tools(Tools::default().with_variables());
    let host = Host::open(config.without_layers(layers.iter().map(|layer| layer.to_string()))).await.unwrap();
    Rig { folder, host }
}

/// Runs that test of this binary as an ordinary user. If the suite already runs as one, there is nothing to
/// do.
pub fn once_more(test: &str) {
    if !is_root() {
        return println!("skipped: this is an ordinary user already");
    }
    let Some(python) = python_for_all() else {
        return println!("skipped: no interpreter from 3.9 on is open to every user of this machine");
    };
    let folder = tempfile::tempdir().unwrap();
    let uv = hob_uv();
    // The folder of the build may be closed to others.
    let program = folder.path().join("it");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let tool = folder.path().join("uv");
    fs::copy(uv, &tool).unwrap();
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    for path in [folder.path(), &program, &tool, &temporary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    write_programs(folder.path());
    let user = USER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&program);
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).current_dir(folder.path());
    command
        .env("TMPDIR", &temporary)
        .env("HOME", folder.path())
        .env("HOB_PYTHON", python)
        .env("HOB_UV", &tool)
        .env(PROGRAMS, folder.path());
    command.env_remove("HOB_HOME").env_remove("UV_CACHE_DIR").env_remove("XDG_CACHE_HOME");
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: no setpriv here: {error}"),
    };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "as user {USER}: {said}");
}

/// An interpreter that every user of this machine may run, outside of any user's own folder.
pub fn python_for_all() -> Option<PathBuf> {
    let candidates = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().map(PathBuf::from);
    candidates.into_iter().find(|path| {
        let modern = Command::new(path).args(["-I", "-c", "import sys; sys.exit(sys.version_info < (3, 9))"]).status();
        modern.is_ok_and(|status| status.success())
    })
}

fn hob_uv() -> &'static Path {
    &crate::cli::rig::tools().1
}

/// A folder, removed at the end, in a place through which others may pass.
pub fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}
