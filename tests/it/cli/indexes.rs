//! Several package indexes: each package comes from the first index that has its bytes, whatever the others
//! have under that name.

use std::{fs, path::Path};

use hob::model::Code;
use serde_json::{Value, json};

use super::{
    rig::{Ran, Rig, put, tools, write_recipe},
    wheels::MAKE,
};
use crate::models::server::{Reply, Server, honest};

const PASSWORD: &str = "p4ssw0rd-of-the-index";

/// A package index over HTTP. Its files are in a folder of its own.
struct Index {
    server: Server,
    folder: tempfile::TempDir,
}

impl Index {
    fn new() -> Index {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let server = Server::new(move |seen, _| {
            let path = seen.path.split('?').next().unwrap_or("").trim_start_matches("/simple/");
            let page = path.ends_with('/');
            match fs::read(root.join(path).join(if page { "index.html" } else { "" }).components().as_path()) {
                Ok(page_bytes) if page => Reply::new(200, &["content-type: text/html"], &page_bytes),
                Ok(file) => honest(seen, &file, "\"one\""),
                Err(_) => Reply::new(404, &[], b""),
            }
        });
        Index { server, folder }
    }

    /// Puts a wheel with one module into the index; returns its hash.
    fn wheel(&self, rig: &Rig, name: &str, text: &str) -> String {
        let files = json!({ format!("{name}.py"): text }).to_string();
        rig.python(&["-c", MAKE, self.folder.path().to_str().unwrap(), name, "wheel", &files, "[]"], b"").well().to_owned()
    }

    fn url(&self) -> String {
        format!("{}/simple", self.server.url)
    }

    fn was_asked_for(&self, name: &str) -> bool {
        self.server.seen().iter().any(|seen| seen.path.split('?').next() == Some(&format!("/simple/{name}/")))
    }
}

/// A recipe whose pod imports `modules` and returns their `V`.
fn recipe(folder: &Path, name: &str, modules: &[&str], lock: &str) {
    let pod = format!(
        "import {names}\nclass Subject:\n    def run(self, input):\n        return [{values}]\n",
        names = modules.join(", "),
        values = modules.iter().map(|module| format!("{module}.V")).collect::<Vec<_>>().join(", ")
    );
    write_recipe(folder, name, "0.1.0", &pod, "python = \">=3.9\"\nlock = \"pod/requirements.lock\"");
    put(&folder.join("pod/requirements.lock"), lock.as_bytes());
}

fn call(rig: &Rig, folder: &Path) -> Ran {
    rig.hob(&["call", folder.to_str().unwrap(), "run", "{}", "--json"])
}

fn result(ran: &Ran) -> Value {
    ran.well();
    ran.json()["output"].clone()
}

#[test]
fn each_package_comes_from_the_first_index_that_has_its_bytes() {
    let (rig, first, second) = (Rig::new(), Index::new(), Index::new());
    let own = first.wheel(&rig, "own", "V = 'first'");
    // A stranger's wheel of the same name and version.
    first.wheel(&rig, "shadowed", "V = 'a stranger'");
    let shadowed = second.wheel(&rig, "shadowed", "V = 'second'");
    let other = second.wheel(&rig, "other", "V = 'second'");
    let lock = format!("own==1.0 --hash=sha256:{own}\nshadowed==1.0 --hash=sha256:{shadowed}\nother==1.0 --hash=sha256:{other}\n");
    let folder = rig.folder.path().join("recipe");
    recipe(&folder, "lab/three", &["own", "shadowed", "other"], &lock);

    let list = format!("index_urls = [\"{}\", \"{}\"]\n", first.url(), second.url());
    put(&rig.home.join("hob.toml"), format!("[environments]\n{list}").as_bytes());
    assert_eq!(result(&call(&rig, &folder)), json!(["first", "second", "second"]));
    for name in ["own", "shadowed", "other"] {
        assert!(first.was_asked_for(name) && (second.was_asked_for(name) || name == "own"), "{name}");
    }
    assert!(first.server.seen().iter().any(|seen| seen.path.ends_with("shadowed-1.0-py3-none-any.whl")), "nothing was in the way");

    // A recipe's own list applies only to that recipe.
    let of_recipe = format!("[environments]\nindex_urls = [\"{}\"]\n[environments.recipes.\"lab/three\"]\n{list}", first.url());
    fs::remove_dir_all(&rig.home).unwrap();
    put(&rig.home.join("hob.toml"), of_recipe.as_bytes());
    let elsewhere = rig.folder.path().join("elsewhere");
    recipe(&elsewhere, "lab/elsewhere", &["own", "shadowed", "other"], &lock);
    call(&rig, &elsewhere).refused_in_json(Code::EnvironmentFailed);
    assert_eq!(result(&call(&rig, &folder)), json!(["first", "second", "second"]));
}

trait Refused {
    fn refused_in_json(&self, code: Code) -> Value;
}

impl Refused for Ran {
    #[track_caller]
    fn refused_in_json(&self, code: Code) -> Value {
        let fault = self.json()["fault"].clone();
        assert_eq!(fault["code"], code.name(), "{self:#?}");
        fault
    }
}

#[test]
fn what_no_index_has_is_not_called_unreachable_and_the_indexes_are_named_without_their_passwords() {
    let (rig, first, second) = (Rig::new(), Index::new(), Index::new());
    let right = "0".repeat(64);
    first.wheel(&rig, "changed", "V = 1");
    second.wheel(&rig, "changed", "V = 2");
    let with = |index: &Index| index.url().replacen("://", &format!("://me:{PASSWORD}@"), 1) + "?key=" + PASSWORD;
    let list = format!("[environments]\nindex_urls = [\"{}\", \"{}\"]\n", with(&first), with(&second));
    put(&rig.home.join("hob.toml"), list.as_bytes());
    let folder = rig.folder.path().join("recipe");
    for (name, version, hint, blame) in [
        ("nowhere", "1.0", "no package of that name", "machine"),
        ("changed", "2.0", "does not have that version", "machine"),
        ("changed", "1.0", "other bytes than the lock was made from", "recipe"),
    ] {
        recipe(&folder, "lab/lacking", &[name], &format!("{name}=={version} --hash=sha256:{right}\n"));
        let ran = call(&rig, &folder);
        let fault = ran.refused_in_json(Code::EnvironmentFailed);
        assert!(fault["hint"].as_str().unwrap().contains(hint) && fault["blame"] == blame, "{fault}");
        assert!(!fault["hint"].as_str().unwrap().contains("not reached"), "{fault}");
        let shown: Vec<_> = fault["detail"]["indexes"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
        assert!(shown.len() == 2 && shown.iter().all(|url| url.starts_with("http://***@127.0.0.1:")), "{fault}");
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains(PASSWORD), "{ran:#?}");
        }
        assert!(first.was_asked_for(name) && second.was_asked_for(name), "{name}");
    }
    let authorized = |index: &Index| index.server.seen().iter().any(|seen| seen.header("authorization").is_some());
    assert!(authorized(&first) && authorized(&second), "each password is sent to its index");

    // An unreachable index is reported as unreachable, and no other index hides that.
    let dead = "http://127.0.0.1:9/simple";
    put(&rig.home.join("hob.toml"), format!("[environments]\nindex_urls = [\"{dead}\", \"{}\"]\n", first.url()).as_bytes());
    recipe(&folder, "lab/lacking", &["changed"], &format!("changed==1.0 --hash=sha256:{right}\n"));
    let fault = call(&rig, &folder).refused_in_json(Code::EnvironmentFailed);
    assert!(fault["hint"].as_str().unwrap().contains("not reached") && fault["blame"] == "machine", "{fault}");
    assert!(fault["message"].as_str().unwrap().contains("127.0.0.1:9"), "{fault}");
}

/// A server that answers every page alike.
fn always(status: u16, headers: &'static [&'static str], body: &'static [u8]) -> Server {
    Server::new(move |_, _| Reply::new(status, headers, body))
}

#[test]
fn an_index_that_keeps_its_packages_back_is_named_with_what_it_wants() {
    const LOGIN: &[u8] = b"<!DOCTYPE html><html><body><form action=/login>Please sign in</form></body></html>";
    const XHTML: &[u8] = b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'>Please sign in</html>";
    let (rig, empty) = (Rig::new(), Index::new());
    let folder = rig.folder.path().join("recipe");
    recipe(&folder, "lab/lacking", &["kept"], &format!("kept==1.0 --hash=sha256:{}\n", "0".repeat(64)));
    let html: &[&str] = &["content-type: text/html"];
    let elsewhere = Server::new(|seen, _| match seen.path.as_str() {
        "/login" => Reply::new(200, &["content-type: text/html"], LOGIN),
        _ => Reply::new(302, &["location: /login"], b""),
    });
    let with_user = format!("me:{PASSWORD}@");
    for (server, user, says, next) in [
        (always(401, &[], b""), "", "answers 401 Unauthorized", "wants a user and a password: write them into its address in `index_urls`"),
        (always(403, &[], b""), with_user.as_str(), "answers 403 Forbidden", "does not take the user and the password in its address"),
        (always(200, html, LOGIN), "", "answers with a web page that lists no files", "in a browser"),
        (always(200, html, XHTML), "", "answers with a web page that lists no files", "in a browser"),
        (elsewhere, "", "answers with a web page that lists no files", "in a browser"),
        (always(200, html, b""), "", "answers what is empty", "is no package index"),
    ] {
        let url = format!("{}/simple", server.url);
        let named = url.replacen("://", &format!("://{user}"), 1);
        let shown = url.replacen("://", if user.is_empty() { "://" } else { "://***@" }, 1);
        for list in [vec![named.clone(), empty.url()], vec![empty.url(), named.clone()]] {
            put(&rig.home.join("hob.toml"), format!("[environments]\nindex_urls = {list:?}\n").as_bytes());
            let ran = call(&rig, &folder);
            let fault = ran.refused_in_json(Code::EnvironmentFailed);
            let (message, hint) = (fault["message"].as_str().unwrap(), fault["hint"].as_str().unwrap());
            assert!(message.contains("asked for `kept`: ") && message.contains(&format!("{shown} {says}")), "{says}: {message}");
            assert!(message.contains(&format!("{} has no package of that name", empty.url())), "{says}: {message}");
            assert!(hint.contains(next) && fault["blame"] == "machine", "{says}: {fault}");
            assert!(hint.contains(&shown) && fault["detail"]["answers"].as_array().unwrap().len() == 2, "{says}: {fault}");
            assert!(!format!("{ran:?}").contains(PASSWORD), "{ran:#?}");
        }
    }
}

#[test]
fn what_comes_in_place_of_a_wheel_is_told_and_is_not_the_recipes_fault() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("recipe");
    recipe(&folder, "lab/lacking", &["kept"], &format!("kept==1.0 --hash=sha256:{}\n", "0".repeat(64)));
    let page: &[u8] = b"<html><body><a href=\"kept-1.0-py3-none-any.whl\">kept-1.0-py3-none-any.whl</a></body></html>";
    let answers = |wheel: Reply| {
        Server::new(move |seen, _| match seen.path.ends_with(".whl") {
            true => wheel.clone(),
            false => Reply::new(200, &["content-type: text/html"], page),
        })
    };
    for (wheel, says, next) in [
        (
            Reply::new(200, &["content-type: text/html"], b"<!DOCTYPE html><html>Please sign in</html>"),
            "a web page in place of the file",
            "in a browser",
        ),
        (
            Reply::new(200, &[], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
            "a Git LFS pointer",
            "who runs the index",
        ),
        (Reply::new(401, &[], b""), "(401 ", "the package index refuses"),
    ] {
        let server = answers(wheel);
        put(&rig.home.join("hob.toml"), format!("[environments]\nindex_urls = [\"{}/simple\"]\n", server.url).as_bytes());
        let fault = call(&rig, &folder).refused_in_json(Code::EnvironmentFailed);
        assert!(server.seen().iter().any(|seen| seen.path.ends_with(".whl")), "nothing was asked for");
        assert!(fault["message"].as_str().unwrap().contains(says) && fault["blame"] == "machine", "{fault}");
        assert!(fault["hint"].as_str().unwrap().contains(next), "{fault}");
    }
}

/// The tools that Hob fetches for itself come from the same indexes. `pip` here is a script that prints its
/// settings.
#[test]
fn the_tools_that_hob_fetches_come_from_the_same_indexes() {
    let rig = Rig::new();
    let urls = [format!("http://me:{PASSWORD}@127.0.0.1:9/a/simple"), "http://127.0.0.1:9/b/simple".to_owned()];
    put(&rig.home.join("hob.toml"), format!("[environments]\nindex_urls = {urls:?}\n").as_bytes());
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *'-m pip'*)\n  echo \"told: $PIP_INDEX_URL $PIP_EXTRA_INDEX_URL\" >> {0}/told\n  \
         echo \"args: $*\" >> {0}/args\n  echo \"no luck at $PIP_INDEX_URL\" >&2\n  exit 1;;\nesac\nexec {1} \"$@\"\n",
        rig.folder.path().display(),
        tools().0.display()
    );
    let python = rig.folder.path().join("python3");
    put(&python, script.as_bytes());
    fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = hob::model::Home::at(&rig.home);
    let configured = hob::shelf::config::Config::read(&home).unwrap().tools;
    let fault = runtime.block_on(async {
        let found = hob::shelf::environment::python::find(&">=3.9".parse().unwrap(), Some(&tools().0)).await.unwrap();
        let faked = hob::shelf::environment::python::Python { executable: python.clone(), ..found };
        let progress: hob::model::progress::Shared = std::sync::Arc::new(hob::model::Silent);
        hob::shelf::environment::uv::find_in(&home, &configured, std::ffi::OsStr::new("/nowhere"), &faked, &progress).await.unwrap_err()
    });
    assert_eq!(fault.code, Code::UvMissing);
    let told = fs::read_to_string(rig.folder.path().join("told")).unwrap();
    // The last try uses pip's own configuration: an index with wheels for recipes need not have tools.
    let own = std::env::var("PIP_INDEX_URL").unwrap_or_default();
    let [first, last] = told.lines().collect::<Vec<_>>()[..] else { panic!("{told}") };
    assert!(first == format!("told: {} {}", urls[0], urls[1]) && last.starts_with(&format!("told: {own} ")), "{told}");
    assert!(!fs::read_to_string(rig.folder.path().join("args")).unwrap().contains("127.0.0.1"), "an address is among the arguments");
    assert!(fault.detail["stderr"].to_string().contains("no luck at http://***@127.0.0.1:9/a/simple"), "{fault:?}");
    assert!(!format!("{fault:?}").contains(PASSWORD) && fault.hint.as_ref().unwrap().contains("index_urls"));
    // An unreachable index does not count as one that withholds something.
    assert!(fault.message.contains("asked for `uv`: http://***@127.0.0.1:9/a/simple cannot be reached"), "{fault}");
    let keeps = always(401, &[], b"");
    let indexes = hob::Indexes::new([&format!("{}/simple", keeps.url)]).unwrap();
    let fault = runtime.block_on(async {
        let found = hob::shelf::environment::python::find(&">=3.9".parse().unwrap(), Some(&tools().0)).await.unwrap();
        let faked = hob::shelf::environment::python::Python { executable: python.clone(), ..found };
        let progress: hob::model::progress::Shared = std::sync::Arc::new(hob::model::Silent);
        let tools = hob::Tools::default().with_indexes(indexes);
        hob::shelf::environment::uv::find_in(&home, &tools, std::ffi::OsStr::new("/nowhere"), &faked, &progress).await.unwrap_err()
    });
    assert!(fault.message.contains("/simple answers 401 Unauthorized") && fault.hint.unwrap().contains("wants a user and a password"));
}
