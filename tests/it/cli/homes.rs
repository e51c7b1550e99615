//! Ownership of Hob's files: the modes that Hob gives them under any umask, the files that it refuses to
//! trust, and homes that root made for others.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use hob::model::Code;
use rustix::process::Signal;

use super::{
    rig::{Ran, Rig, Signed, run, signal, write_recipe},
    served::{Serving, wait_for},
};
use crate::sandbox::ordinary;

/// The number of an otherwise unused user and group.
const OTHER: u32 = 61_778;

/// Runs `hob` under that umask.
fn hob_under(rig: &Rig, umask: &str, words: &[&str]) -> Ran {
    run(under(rig, umask, words), b"")
}

fn under(rig: &Rig, umask: &str, words: &[&str]) -> Command {
    let hob = rig.command(words);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(hob.get_program()).args(hob.get_args());
    command.envs(hob.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(rig.folder.path());
    command.env_remove("HOB_LOG").stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

/// Everything below a folder with its mode, except links, and except the files of tools in the two caches
/// that nobody else may enter.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_symlink() {
                continue;
            }
            found.push((path.clone(), meta.mode() & 0o7777));
            if meta.is_dir() && !path.ends_with("cache/uv") && !path.ends_with("cache/wasmtime") {
                folders.push(path);
            }
        }
    }
    found
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The folder of the only installed version of `lab/tiny`.
fn recipe_folder(rig: &Rig) -> PathBuf {
    let versions = fs::read_dir(rig.home.join("data/recipes/lab/tiny")).unwrap();
    versions.map(|entry| entry.unwrap().path()).find(|path| path.join("recipe.toml").is_file()).unwrap()
}

/// The folder of its models.
fn models_folder(rig: &Rig) -> PathBuf {
    PathBuf::from(format!("{}.models", recipe_folder(rig).display()))
}

fn only_folder(folder: PathBuf, begins: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.is_dir() && path.file_name().unwrap().to_str().unwrap().starts_with(begins)).unwrap()
}

const CALL: &[&str] = &["call", "lab/tiny", "echo", r#"{"text": "a"}"#];

#[test]
fn under_umask_000_nothing_of_hobs_is_open_to_others() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_tiny("0.1.0", 1_000);
    let root = signed.repository.join("metadata/1.root.json");
    hob_under(&rig, "000", &["remote", "add", "main", &signed.url(), "--root", root.to_str().unwrap()]).well();
    hob_under(&rig, "000", &["add", "lab/tiny"]).well();
    hob_under(&rig, "000", CALL).well();
    hob_under(&rig, "000", &["doctor", "--json"]);
    let found = modes(&rig.home);
    for name in ["hob.toml", "hob.lock", "keeper.py", "six.py", "tiny.py", "state/locks", "state/scratch", "cache/wasmtime", "data/models/"]
    {
        assert!(found.iter().any(|(path, _)| path.to_str().unwrap().contains(name)), "{name} was not made at all");
    }
    let open: Vec<_> =
        found.iter().filter(|(_, mode)| mode & 0o022 != 0).map(|(path, mode)| format!("{mode:04o} {}", path.display())).collect();
    assert!(open.is_empty(), "others may write to\n{}", open.join("\n"));
    for private in ["state", "cache", "cache/uv", "cache/wasmtime"] {
        assert_eq!(fs::metadata(rig.home.join(private)).unwrap().mode() & 0o777, 0o700, "{private}");
    }
    rig.hob(&["verify"]).well();
}

/// `hob.toml` may contain passwords in addresses.
#[test]
fn a_hob_toml_that_is_closed_to_others_stays_so_and_one_with_a_password_is_made_so() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let root = signed.repository.join("metadata/1.root.json");
    let file = rig.home.join("hob.toml");
    let add = |name: &str, url: &str| rig.hob(&["remote", "add", name, url, "--root", root.to_str().unwrap()]).well().to_owned();
    let mode = || fs::metadata(&file).unwrap().mode() & 0o777;
    add("first", "https://me:planted@example.org/r");
    assert_eq!(mode(), 0o600);
    chmod(&file, 0o640);
    add("second", &signed.url());
    assert_eq!(mode(), 0o640, "as its operator set it");
    fs::remove_file(&file).unwrap();
    add("third", &signed.url());
    assert_eq!(mode(), 0o644);
}

#[test]
fn a_hob_toml_that_cannot_be_read_at_all_is_an_invalid_one() {
    let rig = Rig::new();
    fs::create_dir_all(&rig.home).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, rig.home.join("hob.toml"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    rig.hob(&["remote", "list"]).refused(Code::InvalidConfig, &["FIFO"]);
}

#[test]
fn what_others_can_write_to_is_refused_and_the_printed_command_mends_it() {
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_tiny("0.1.0", 1_000);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/tiny"]).well();
    rig.hob(CALL).well();
    let runner = only_folder(rig.home.join("data/tools"), "runner-").join("hob_pod");
    let environment =
        fs::read_dir(rig.home.join("data/environments")).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    let refused = |path: &Path| {
        let ran = rig.hob(CALL);
        ran.refused(Code::HomeUnsafe, &[path.to_str().unwrap(), "then `ch"]);
        // The command is the first text between backticks in the hint.
        let hint = ran.stderr.split("  hint: ").nth(1).unwrap();
        let command = hint.split('`').nth(1).unwrap();
        assert!(Command::new("/bin/sh").args(["-c", command]).status().unwrap().success(), "{command}");
        rig.hob(CALL).well();
    };
    let all = [
        rig.home.clone(),
        rig.home.join("hob.toml"),
        rig.home.join("hob.lock"),
        rig.home.join("data"),
        rig.home.join("state"),
        rig.home.join("cache"),
        rig.home.join("data/tools"),
        runner.clone(),
        runner.join("keeper.py"),
        recipe_folder(&rig),
        models_folder(&rig),
        rig.home.join("data/recipes/lab"),
        environment.unwrap(),
    ];
    for path in &all {
        for (bits, group) in [(0o002, None), (0o020, Some(OTHER))] {
            if group.is_some() && !ordinary::is_root() {
                continue;
            }
            chown(path, None, group).unwrap();
            chmod(path, fs::metadata(path).unwrap().mode() & 0o7777 | bits);
            refused(path);
        }
        if ordinary::is_root() {
            chown(path, Some(OTHER), None).unwrap();
            refused(path);
        }
    }
    // A group that `hob.toml` allows may write to installed files, and not to `hob.toml`.
    if ordinary::is_root() {
        let (config, data) = (rig.home.join("hob.toml"), rig.home.join("data"));
        chown(&data, None, Some(OTHER)).unwrap();
        chmod(&data, 0o775);
        rig.hob(CALL).refused(Code::HomeUnsafe, &["`group` in `[home]` of hob.toml"]);
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{text}\n[home]\ngroup = \"{OTHER}\"\n")).unwrap();
        rig.hob(CALL).well();
        chown(&config, None, Some(OTHER)).unwrap();
        chmod(&config, 0o664);
        rig.hob(CALL).refused(Code::HomeUnsafe, &["hob.toml"]);
        chmod(&config, 0o644);
        fs::write(&config, format!("{text}\n[home]\ngroup = \"no-such-group\"\n")).unwrap();
        rig.hob(CALL).refused(Code::InvalidConfig, &["home.group: this machine has no group `no-such-group`"]);
        fs::write(&config, text).unwrap();
        chown(&data, None, Some(0)).unwrap();
    }
    // Deep in the tree, `hob verify` and `hob doctor` do the checks.
    let file = recipe_folder(&rig).join("recipe.toml");
    chmod(&file, 0o646);
    rig.hob(CALL).well();
    let told = rig.hob(&["verify"]);
    assert!(told.exit != Some(0) && format!("{}{}", told.stdout, told.stderr).contains("recipe.toml is not safe to use"), "{told:#?}");
    chmod(&file, 0o444);
    chmod(&models_folder(&rig).join("weights.bin"), 0o446);
    let told = rig.hob(&["verify"]);
    assert!(told.exit != Some(0) && format!("{}{}", told.stdout, told.stderr).contains("weights.bin is not safe to use"), "{told:#?}");
    chmod(&models_folder(&rig).join("weights.bin"), 0o444);
    chmod(&file, 0o646);
    let told = rig.hob(&["doctor"]);
    assert!(told.exit != Some(0) && told.stdout.contains("own files") && told.stdout.contains("recipe.toml is not safe"), "{told:#?}");
}

#[test]
fn a_server_of_another_user_is_told_nothing() {
    if !ordinary::is_root() {
        return println!("skipped: only root can make a server another user's");
    }
    let rig = Rig::new();
    // A user who can create a socket there is another user, whose server listens on it.
    let listens = "import os, socket, sys, time\ns = socket.socket(socket.AF_UNIX)\nos.chdir(sys.argv[1])\nos.setuid(61778)\ns.bind('socket')\ns.listen()\nprint(flush=True)\ntime.sleep(60)";
    let serve = rig.home.join("state/serve");
    fs::create_dir_all(&serve).unwrap();
    chmod(rig.folder.path(), 0o755);
    chown(&serve, Some(OTHER), None).unwrap();
    let mut command = Command::new("python3");
    let mut child = command.args(["-c", listens]).arg(&serve).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let ran = rig.hob(&["status"]);
    child.kill().unwrap();
    child.wait().unwrap();
    ran.refused(Code::HomeUnsafe, &[&format!("runs as user {OTHER}, wanted 0")]);
}

#[test]
fn of_another_users_home_nobody_is_told_that_no_host_is_running() {
    if !ordinary::is_root() {
        return println!("skipped: only root can look as another user");
    }
    let rig = Rig::new();
    let mut serving = Serving::start(&rig, &[]);
    chmod(rig.folder.path(), 0o755);
    let program = rig.folder.path().join("hob");
    fs::copy(env!("CARGO_BIN_EXE_hob"), &program).unwrap();
    let look = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        let user = OTHER.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&program).args(words);
        command.env("HOB_HOME", &rig.home).env("HOME", rig.folder.path()).env_remove("HOB_LOG").current_dir("/");
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        run(command, b"")
    };
    for words in [&["status"][..], &["pods"], &["logs"], &["pods", "--lift", "lab/plain"], &["sessions"]] {
        look(words).refused(Code::HomeUnsafe, &["this user may not reach the server at", "run as that user"]);
    }
    // The same where the path to the socket is open and only the written files are closed.
    fs::create_dir_all(rig.home.join("state/dossiers")).unwrap();
    for (place, mode) in [("", 0o755), ("state", 0o755), ("state/serve", 0o755), ("state/dossiers", 0o700)] {
        chmod(&rig.home.join(place), mode);
    }
    assert_eq!(serving.end(Signal::TERM, 60).code(), Some(0));
    look(&["logs"]).refused(Code::Io, &["state/dossiers"]);
}

#[test]
fn a_home_that_root_made_is_used_by_an_ordinary_user() {
    let Some((rig, _signed, python)) = home_of_root() else { return };
    let call = ["call", "lab/plain", "run", r#"{"text": "a"}"#];
    rig.hob(&call).well();
    // The home of an image: root owns the installed files, and the host's user owns the files that it writes.
    chmod(rig.folder.path(), 0o755);
    let program = rig.folder.path().join("hob");
    fs::copy(env!("CARGO_BIN_EXE_hob"), &program).unwrap();
    for folder in ["state", "cache"] {
        fs::remove_dir_all(rig.home.join(folder)).unwrap();
        fs::create_dir(rig.home.join(folder)).unwrap();
        chown(rig.home.join(folder), Some(OTHER), Some(OTHER)).unwrap();
    }
    let user = OTHER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&program).args(call);
    command.env("HOB_HOME", &rig.home).env("HOB_PYTHON", python).env("HOME", rig.folder.path()).env_remove("HOB_LOG");
    command.current_dir("/").stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let ran = run(command, b"");
    // On a machine that does not confine pods of ordinary users, the fault says that, and does not blame the
    // home.
    match ran.stderr.contains("error[sandbox_unavailable]") {
        true => println!("skipped: {}", ran.stderr),
        false => assert!(ran.well().contains("\"text\":\"a\""), "{ran:#?}"),
    }
}

/// A home of root with `lab/plain`, and an interpreter that other users may run. Without either it prints why
/// the test is skipped.
fn home_of_root() -> Option<(Rig, Signed, PathBuf)> {
    if !ordinary::is_root() {
        println!("skipped: only root can make a home for another user");
        return None;
    }
    let Some(python) = ordinary::python_for_all() else {
        println!("skipped: no interpreter is open to every user of this machine");
        return None;
    };
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_plain("lab/plain", "0.1.0");
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/plain"]).well();
    Some((rig, signed, python))
}

/// Runs `hob` as another user in this home, from a copy of the program that everybody may run.
fn as_other(rig: &Rig, python: &Path, words: &[&str]) -> Ran {
    chmod(rig.folder.path(), 0o755);
    let program = rig.folder.path().join("hob");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_hob"), &program).unwrap();
    }
    let user = OTHER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&program).args(words);
    command.env("HOB_HOME", &rig.home).env("HOB_PYTHON", python).env("HOME", rig.folder.path()).env_remove("HOB_LOG");
    command.current_dir("/").stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    run(command, b"")
}

#[test]
fn a_file_in_the_place_of_a_home_is_named() {
    let rig = Rig::new();
    let file = rig.folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for home in [file.clone(), file.join("below")] {
        for words in
            [&["list"][..], &["pods"], &["logs"], &["status"], &["call", "lab/plain", "run", "1"], &["add", "lab/plain"], &["doctor"]]
        {
            let mut command = rig.command(words);
            command.env("HOB_HOME", &home);
            run(command, b"").refused(Code::InvalidConfig, &[&format!("{} is no folder", file.display()), "`HOB_HOME`"]);
        }
    }
}

#[test]
fn folders_that_root_made_for_itself_are_named_to_a_user_who_may_not_enter_them() {
    if !ordinary::is_root() {
        return println!("skipped: only root can make a home for another user");
    }
    let rig = Rig::new();
    rig.hob(&["list"]).well();
    // The state after root ran a command once, first in the cache and then in the state.
    for _ in 0..2 {
        let ran = as_other(&rig, Path::new("/usr/bin/python3"), &["list"]);
        ran.refused(Code::HomeUnsafe, &["belongs to user 0, and user 61778 may not enter it", "`HOB_HOME`"]);
        let command = ran.stderr.split("  hint: ").nth(1).unwrap().split('`').nth(1).unwrap().to_owned();
        assert!(command.starts_with("chown -R 61778 "), "{command}");
        assert!(Command::new("/bin/sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    }
    as_other(&rig, Path::new("/usr/bin/python3"), &["list"]).well();
}

#[test]
fn a_user_who_may_only_read_a_home_has_a_runner_of_its_own_after_an_update_of_hob() {
    let Some((rig, _signed, python)) = home_of_root() else { return };
    for folder in ["state", "cache"] {
        fs::remove_dir_all(rig.home.join(folder)).unwrap();
        fs::create_dir(rig.home.join(folder)).unwrap();
        chown(rig.home.join(folder), Some(OTHER), Some(OTHER)).unwrap();
    }
    // The folder has the runner of an earlier version.
    fs::rename(only_folder(rig.home.join("data/tools"), "runner-"), rig.home.join("data/tools/runner-000000000000")).unwrap();
    let ran = as_other(&rig, &python, &["call", "lab/plain", "run", r#"{"text": "a"}"#]);
    match ran.stderr.contains("error[sandbox_unavailable]") {
        true => println!("skipped: {}", ran.stderr),
        false => assert!(ran.well().contains("\"text\":\"a\""), "{ran:#?}"),
    }
    let own = only_folder(rig.home.join("cache/tools"), "runner-");
    assert_eq!(fs::metadata(own.join("hob_pod/keeper.py")).unwrap().uid(), OTHER);
    assert_eq!(
        fs::read_dir(rig.home.join("data/tools"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("runner-"))
            .count(),
        1
    );
}

/// Runs `hob` with each of these argument lists in a mount namespace in which the home is read-only; returns
/// the output and the exit code of each.
fn in_a_closed_home(rig: &Rig, all: &[&[&str]]) -> Vec<(String, i32)> {
    let hob = rig.command(&[]);
    let script = r#"mount --bind "$HOB_HOME" "$HOB_HOME" && mount -o remount,ro,bind "$HOB_HOME" || exit 99
        if touch "$HOB_HOME/x" 2>/dev/null; then exit 98; fi
        said=$1; shift; n=0
        while [ $# -gt 0 ]; do
            n=$((n + 1)); count=$1; shift; words=
            while [ $count -gt 0 ]; do words="$words '$1'"; shift; count=$((count - 1)); done
            eval "\"\$HOB\" $words" >"$said/$n" 2>&1; echo $? >"$said/$n.exit"
        done"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "/bin/sh", "-c", script, "sh"]).arg(rig.folder.path());
    for words in all {
        command.arg(words.len().to_string()).args(*words);
    }
    command.envs(hob.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("HOB", hob.get_program());
    command.env("TMPDIR", rig.folder.path().join("tmp")).env_remove("HOB_LOG").stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let ran = run(command, b"");
    assert_eq!(ran.exit, Some(0), "{ran:#?}");
    (1..=all.len())
        .map(|n| {
            let read = |name: String| fs::read_to_string(rig.folder.path().join(name)).unwrap();
            (read(n.to_string()), read(format!("{n}.exit")).trim().parse().unwrap())
        })
        .collect()
}

#[test]
fn what_is_installed_in_a_home_that_is_read_only_runs_and_nothing_else_is_said_to_have_been_done() {
    if !ordinary::is_root() {
        return println!("skipped: only root can mount");
    }
    let (rig, signed) = (Rig::new(), Signed::new());
    signed.publish_tiny("0.1.0", 1_000);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/tiny"]).well();
    // As in an image: only the installed files.
    for folder in ["state", "cache"] {
        fs::remove_dir_all(rig.home.join(folder)).unwrap();
    }
    fs::create_dir(rig.folder.path().join("tmp")).unwrap();
    let before = modes(&rig.home);
    let said = in_a_closed_home(
        &rig,
        &[&["list"], &["show", "lab/tiny"], CALL, CALL, &["doctor"], &["remove", "lab/tiny"], &["add", "lab/tiny"], &["list"]],
    );
    for (n, wanted) in [(0, "lab/tiny"), (1, "signed by `lab`"), (2, "{"), (3, "{"), (7, "lab/tiny")] {
        assert!(said[n].1 == 0 && said[n].0.contains(wanted), "{n}: {said:#?}");
    }
    // The message names the folder that is used instead, and only its user may enter it.
    let below =
        fs::read_dir(rig.folder.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.join("state").is_dir());
    let below = below.unwrap_or_else(|| panic!("no state anywhere: {said:#?}"));
    assert_eq!(fs::metadata(&below).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(said[4].0.contains(&format!("{}/state", below.display())), "{}", said[4].0);
    for (text, exit) in &said[5..7] {
        assert!(*exit == 8 && text.contains("error[io]") && text.contains("Read-only file system"), "{said:#?}");
    }
    assert_eq!(modes(&rig.home), before, "nothing was written there");
}

#[test]
fn a_home_of_another_user_without_state_is_used_and_a_place_that_another_took_is_not() {
    let Some((rig, _signed, python)) = home_of_root() else { return };
    for folder in ["state", "cache"] {
        fs::remove_dir_all(rig.home.join(folder)).unwrap();
    }
    chmod(rig.folder.path(), 0o755);
    let program = rig.folder.path().join("hob");
    fs::copy(env!("CARGO_BIN_EXE_hob"), &program).unwrap();
    let temporary = rig.folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    chmod(&temporary, 0o1777);
    let of_other = |words: &[&str]| {
        let user = OTHER.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&program).args(words);
        command.env("HOB_HOME", &rig.home).env("HOB_PYTHON", &python).env("HOME", rig.folder.path()).env_remove("HOB_LOG");
        command.env("TMPDIR", &temporary).current_dir("/").stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        run(command, b"")
    };
    of_other(&["list"]).well();
    let made: Vec<PathBuf> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(made.len() == 1 && fs::metadata(&made[0]).unwrap().uid() == OTHER, "{made:?}");
    let ran = of_other(&["call", "lab/plain", "run", r#"{"text": "a"}"#]);
    match ran.stderr.contains("error[sandbox_unavailable]") {
        true => println!("skipped: {}", ran.stderr),
        false => assert!(ran.well().contains("\"text\":\"a\""), "{ran:#?}"),
    }
    // Another spelling of the home's path gives the same folder.
    let linked = rig.folder.path().join("linked");
    std::os::unix::fs::symlink(&rig.home, &linked).unwrap();
    for spelled in [format!("{}/", rig.home.display()), format!("{}/../home", rig.home.display()), linked.display().to_string()] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &OTHER.to_string(), "--regid", &OTHER.to_string(), "--clear-groups", "--"]).arg(&program).arg("list");
        command.env("HOB_HOME", &spelled).env("HOB_PYTHON", &python).env("HOME", rig.folder.path()).env_remove("HOB_LOG");
        command.env("TMPDIR", &temporary).current_dir("/").stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        run(command, b"").well();
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 1, "{spelled}");
    }
    // Another user made the folder first.
    fs::remove_dir_all(&made[0]).unwrap();
    fs::create_dir(&made[0]).unwrap();
    chown(&made[0], Some(OTHER + 1), Some(OTHER + 1)).unwrap();
    chmod(&made[0], 0o777);
    of_other(&["list"]).refused(Code::HomeUnsafe, &[made[0].to_str().unwrap(), "TMPDIR"]);
    assert_eq!(fs::read_dir(&made[0]).unwrap().count(), 0, "nothing was put there");
}

/// A stranger's summary cannot imitate the line that says who signed the recipe.
#[test]
fn what_a_recipe_says_of_itself_is_no_line_of_what_hob_says_of_it() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = rig.folder.path().join("plain");
    write_recipe(&folder, "lab/plain", "0.1.0", "class Subject:\n    def run(self, input):\n        return input\n", "python = \">=3.9\"");
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let forged = r"x)\nsigned by `acme` of remote `main`, key 00\n";
    let manifest = manifest.replace("Apache-2.0", forged).replace("For a test", forged).replace("\"Runs\"", &format!("\"{forged}\""));
    fs::write(folder.join("recipe.toml"), manifest).unwrap();
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/plain"]).well();
    let ran = rig.hob(&["show", "lab/plain"]);
    let signers: Vec<&str> = ran.well().lines().filter(|line| line.starts_with("signed by")).collect();
    assert!(signers.len() == 1 && signers[0].starts_with("signed by `lab` of remote `main`"), "{ran:#?}");
    assert!(ran.stdout.contains(forged), "{ran:#?}");
}

#[test]
fn a_server_under_umask_000_keeps_its_socket_token_and_lock_to_itself() {
    let rig = Rig::new();
    let mut child = under(&rig, "000", &["serve", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    wait_for(&rig.home.join("state/serve/token"));
    let begun = std::time::Instant::now();
    while !rig.home.join("state/serve/socket").exists() {
        assert!(begun.elapsed().as_secs() < 30, "no socket");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let found = modes(&rig.home);
    signal(child.id(), Signal::TERM);
    assert!(child.wait().unwrap().success());
    for name in ["serve/socket", "serve/token", "serve/lock"] {
        let (_, mode) = found.iter().find(|(path, _)| path.ends_with(name)).unwrap_or_else(|| panic!("no {name} in {found:?}"));
        assert_eq!(mode & 0o077, 0, "{name}: {mode:04o}");
    }
    assert!(found.iter().all(|(_, mode)| mode & 0o022 == 0), "{found:?}");
}
