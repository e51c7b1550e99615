//! A test of this binary once more, as a user who is nobody in particular.
//!
//! Apart from the tests, which do not ask who they are: their files lie in a temporary folder, and that is
//! made this user's.

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

/// Of nobody: no file on a machine belongs to it.
const USER: u32 = 61_234;

/// Held to read by tests whose pods send descriptors, to write by the one that takes all that a user may have
/// on their way: it is one count for all pods of a user.
pub static ON_THEIR_WAY: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Whether this is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// As `Rig::new`, with the tools that [`once_more`] named, if it did.
pub async fn rig() -> Rig {
    rig_without(&[]).await
}

/// The same, taking these layers of the sandbox for unavailable.
pub async fn rig_without(layers: &[&str]) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    // Others may pass through, as through the folders of a machine: what is closed to a pod is closed by its
    // sandbox.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config =
        Config::new(Home::at(folder.path().join("home"))).with_hob(env!("CARGO_BIN_EXE_hob")).with_tools(Tools::default().with_variables());
    let host = Host::open(config.without_layers(layers.iter().map(|layer| layer.to_string()))).await.unwrap();
    Rig { folder, host }
}

/// Runs that test of this binary as an ordinary user. When the suite is run by one, it is one of the tests
/// already.
pub fn once_more(test: &str) {
    if !is_root() {
        return println!("skipped: this is an ordinary user already");
    }
    let Some(python) = python_for_all() else {
        return println!("skipped: no interpreter from 3.9 on is open to every user of this machine");
    };
    let folder = tempfile::tempdir().unwrap();
    let uv = hob_uv();
    // Where it was built may be closed to others.
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

/// An interpreter that does not lie in a folder of one user.
/// An interpreter that every user of this machine may run.
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

/// A folder that is removed at the end, open to those who may pass through it.
pub fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}
