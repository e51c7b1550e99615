//! What a granted permission opens for a pod, and that it opens nothing else.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
};

use hob::model::{Code, Door};
use serde_json::json;

use super::ordinary;
use crate::support::{Rig, call};

/// Makes the recipe ask for these permissions too; they are granted if `given`.
pub fn allow(rig: &Rig, recipe: &Path, lines: &str, given: bool) {
    let manifest = recipe.join("recipe.toml");
    let asked = fs::read_to_string(&manifest).unwrap().replace("[permissions]\n", &format!("[permissions]\n{lines}\n"));
    fs::write(manifest, asked).unwrap();
    if given {
        let file = rig.folder.path().join("home/hob.toml");
        let head = format!("[grants.\"{}\"]\n", recipe.display());
        let granted = fs::read_to_string(&file).unwrap().replace(&head, &format!("{head}{lines}\n"));
        fs::write(file, granted).unwrap();
    }
}

const FETCHER: &str = r#"
import urllib.error, urllib.request
class Subject:
    def run(self, input):
        try:
            with urllib.request.urlopen(input, timeout=10) as answer:
                return [answer.status, answer.read().decode()]
        except urllib.error.HTTPError as error:
            return [error.code, ""]
        except (urllib.error.URLError, OSError) as error:
            return [0, str(error)]
"#;

#[tokio::test]
async fn a_pod_reaches_what_was_granted_by_name_and_nothing_else_on_the_network() {
    let (granted, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (port, closed) = (granted.local_addr().unwrap().port(), other.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut stream in granted.incoming().take(4).map(Result::unwrap) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        }
    });
    let rig = ordinary::rig().await;
    let recipe = rig.python("fetcher", FETCHER, false);
    allow(&rig, &recipe, &format!("network = [\"127.0.0.1:{port}\"]"), true);
    let fetch = |url: String| {
        let (rig, recipe) = (&rig, &recipe);
        async move { rig.host.call(call(recipe, json!(url))).await.unwrap().output.into_value() }
    };
    assert_eq!(fetch(format!("http://127.0.0.1:{port}/")).await, json!([200, "hello"]));
    for url in [format!("http://127.0.0.1:{closed}/"), format!("http://localhost:{port}/"), "http://192.0.2.1/".to_owned()] {
        assert_eq!(fetch(url.clone()).await[0], 403, "{url}");
    }
    let ungranted = rig.python("ungranted", FETCHER, false);
    allow(&rig, &ungranted, &format!("network = [\"127.0.0.1:{port}\"]"), false);
    let said = rig.host.call(call(&ungranted, json!(format!("http://127.0.0.1:{port}/")))).await.unwrap().output.into_value();
    assert_eq!(said[0], 0, "{said}");
    assert!(said[1].as_str().unwrap().contains("Operation not permitted"), "{said}");
    other.set_nonblocking(true).unwrap();
    assert!(other.accept().is_err(), "nobody came to what was not granted");
    rig.close().await;
}

const OPENER: &str = r#"
import errno
class Subject:
    def run(self, input):
        if input.get("plain"):
            with open(input["path"], input["mode"]) as file:
                return file.read()
        try:
            with open(input["path"], input["mode"]) as file:
                if "w" in input["mode"]:
                    file.write("a pod's")
                    return "written"
                return file.read()
        except OSError as error:
            return errno.errorcode[error.errno]
"#;

#[tokio::test]
async fn granted_folders_are_open_as_granted_and_links_in_them_lead_nowhere() {
    let rig = ordinary::rig().await;
    let recipe = rig.python("opener", OPENER, false);
    let (books, other, open) = (rig.folder.path().join("books"), rig.folder.path().join("other"), rig.open());
    for folder in [&books, &other] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("one"), "text").unwrap();
    }
    symlink(other.join("one"), open.join("link")).unwrap();
    symlink(&other, open.join("folder")).unwrap();
    allow(&rig, &recipe, &format!("read = [\"{}\"]", books.display()), true);
    for (path, mode, expected) in [
        (books.join("one"), "r", "text"),
        (books.join("one"), "w", "EROFS"),
        (books.join("new"), "w", "EROFS"),
        (open.join("new"), "w", "written"),
        (open.join("new"), "r", "a pod's"),
        (open.join("link"), "r", "ENOENT"),
        (open.join("link"), "w", "EROFS"),
        (open.join("folder/one"), "r", "ENOENT"),
        (other.join("one"), "r", "ENOENT"),
    ] {
        let input = json!({"path": path, "mode": mode});
        let said = rig.host.call(call(&recipe, input)).await.unwrap().output.into_value();
        // A missing file cannot be made there, whichever layer refuses first.
        let same =
            said == expected || (mode == "w" && ["EROFS", "EACCES", "ENOENT"].contains(&said.as_str().unwrap()) && expected == "EROFS");
        assert!(same, "{} {mode}: {said}, wanted {expected}", path.display());
    }
    assert_eq!(fs::read_to_string(other.join("one")).unwrap(), "text");
    assert_eq!(fs::read_to_string(books.join("one")).unwrap(), "text");
    assert_eq!(fs::read_to_string(open.join("new")).unwrap(), "a pod's");

    let fault = rig.host.call(call(&recipe, json!({"plain": true, "path": books.join("new"), "mode": "w"}))).await.unwrap_err();
    assert_eq!(fault.code, Code::SandboxDenied, "{fault:?}");
    assert!(fault.hint.as_ref().is_some_and(|hint| hint.contains("`Host::grant`")), "{fault:?}");
    rig.close().await;
}

const LISTER: &str = r#"
import errno, os
class Subject:
    def run(self, input):
        try:
            if "write" in input:
                with open(input["write"], "w") as file:
                    file.write("a pod's")
            return sorted(os.listdir(input["list"]))
        except OSError as error:
            return errno.errorcode[error.errno]
"#;

#[tokio::test]
async fn what_was_granted_in_the_recipes_own_folder_is_there_and_its_code_is_not_given_away() {
    let rig = ordinary::rig().await;
    let recipe = rig.python("lister", LISTER, false);
    let (data, state) = (recipe.join("data"), recipe.join("state.txt"));
    fs::create_dir_all(data.join("out")).unwrap();
    for file in [data.join("words"), recipe.join("other"), state.clone()] {
        fs::write(file, "an author's").unwrap();
    }
    let lines = format!("read = [\"{}\"]", data.display());
    allow(&rig, &recipe, &lines, true);
    let given = |more: &str| {
        for file in [recipe.join("recipe.toml"), rig.folder.path().join("home/hob.toml")] {
            let text = fs::read_to_string(&file).unwrap();
            let at = text.find(&lines).unwrap() + lines.len();
            let rest = text[at..].trim_start().split_once('\n').unwrap().1.to_owned();
            fs::write(file, format!("{}\nwrite = [{more}]\n{rest}", &text[..at])).unwrap();
        }
    };
    let said = |input| async { rig.host.call(call(&recipe, input)).await.map(|outcome| outcome.output.into_value()) };
    given(&format!("\"{}\", \"{}\"", data.join("out").display(), state.display()));
    assert_eq!(said(json!({"list": data})).await.unwrap(), json!(["out", "words"]));
    assert_eq!(said(json!({"list": data, "write": data.join("words")})).await.unwrap(), json!("EROFS"));
    assert_eq!(said(json!({"list": data.join("out"), "write": data.join("out/new")})).await.unwrap(), json!(["new"]));
    let listed = said(json!({"list": recipe, "write": state})).await.unwrap();
    assert!(listed.as_array().unwrap().contains(&json!("state.txt")) && !listed.as_array().unwrap().contains(&json!("other")), "{listed}");
    assert_eq!(fs::read_to_string(&state).unwrap(), "a pod's");
    // A place of Hob's own files is not granted, and the fault says so.
    for own in [recipe.clone(), recipe.join("pod")] {
        given(&format!("\"{}\"", own.display()));
        let fault = said(json!({"list": data})).await.unwrap_err();
        assert!(fault.code == Code::InvalidConfig && fault.message.contains(&*own.to_string_lossy()), "{fault:?}");
    }
    rig.close().await;
}

/// If a granted place has a fault of its own, the place is named, no layer is blamed, and no fault suggests
/// fewer layers.
#[tokio::test]
async fn a_granted_place_that_cannot_be_given_is_named() {
    for without in [&[][..], &["namespaces"], &["landlock"]] {
        let rig = ordinary::rig_without(without).await;
        let at = fs::canonicalize(rig.folder.path()).unwrap();
        fs::create_dir_all(at.join("real/inner")).unwrap();
        fs::create_dir_all(at.join("closed/inner")).unwrap();
        fs::write(at.join("file"), "text").unwrap();
        symlink(at.join("real"), at.join("link")).unwrap();
        symlink("nowhere", at.join("dangling")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let mut table = vec![
            ("link", "link", "is a symbolic link to"),
            ("link/inner", "link", "is a symbolic link to"),
            ("dangling", "dangling", "is a symbolic link to"),
            ("gone", "gone", "which is not there"),
            ("gone/inner", "gone", "which is not there"),
            ("file/inner", "file", "is a file where a folder is to be"),
            ("fifo", "fifo", "is neither a file nor a folder"),
        ];
        if !ordinary::is_root() {
            fs::set_permissions(at.join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
            table.push(("closed/inner", "closed/inner", "cannot be looked at: Permission denied"));
        }
        for (number, (granted, named, says)) in table.into_iter().enumerate() {
            for kind in ["read", "write"] {
                let recipe = rig.python(&format!("opener-{kind}-{number}"), OPENER, false);
                let granted = at.join(granted);
                for file in [recipe.join("recipe.toml"), rig.folder.path().join("home/hob.toml")] {
                    let text = fs::read_to_string(&file).unwrap();
                    let head =
                        if file.ends_with("hob.toml") { format!("[grants.\"{}\"]\n", recipe.display()) } else { "[permissions]\n".into() };
                    let (before, after) = text.split_once(&head).unwrap();
                    let rest: String = after.split_inclusive('\n').skip_while(|line| line.contains('=')).collect();
                    // Even where the operator allows reduced confinement.
                    let reduced = if file.ends_with("hob.toml") { "reduced = true\n" } else { "" };
                    fs::write(&file, format!("{before}{head}{kind} = [\"{}\"]\n{reduced}{rest}", granted.display())).unwrap();
                }
                let fault = rig.host.call(call(&recipe, json!({"path": granted, "mode": "r"}))).await.unwrap_err();
                let hint = fault.hint.clone().unwrap_or_default().worded(Door::CommandLine);
                let what = format!("{kind}={}", granted.display());
                assert_eq!(fault.code, Code::InvalidConfig, "{what} without {without:?}: {fault:?}");
                for part in [what.as_str(), says] {
                    assert!(fault.message.contains(part), "{what} without {without:?}: {fault:?}");
                }
                assert!(fault.message.contains(at.join(named).to_str().unwrap()), "{what}: {fault:?}");
                assert!(
                    hint.contains(&format!("`hob revoke {} {what}`", recipe.display())) && !hint.contains("--reduced"),
                    "{what}: {fault:?}"
                );
            }
        }
        rig.close().await;
    }
}

#[test]
fn a_granted_place_that_cannot_be_given_is_named_to_an_ordinary_user() {
    ordinary::once_more("sandbox::granted::a_granted_place_that_cannot_be_given_is_named");
}
