//! A publisher's server that never finishes an answer, and what its operator can do meanwhile.
//!
//! The server sends a part and then keeps the connection open; no time is measured. The tests check that
//! other commands end before the slow one.

use std::{fs, path::Path, process::Child};

use hob::model::Code;

use super::rig::{Ran, Rig, Signed, put, write_recipe};
use crate::models::{
    scene::{listen, until, until_said},
    server::{Gate, Reply, Server, Then},
};

/// Cargo sets this variable for every test and its children.
const VARIABLE: &str = "CARGO_PKG_NAME";

const POD: &str = "import os\nclass Subject:\n    def run(self, input):\n        return os.environ.get(\"CARGO_PKG_NAME\")\n";

/// A home with an honest remote `main`, which has the publisher `lab`, and a remote with the publisher
/// `acme`, whose server is slow on demand.
struct Scene {
    rig: Rig,
    near: Signed,
    far: Signed,
    server: Server,
}

impl Scene {
    fn new() -> Scene {
        let (rig, near, far) = (Rig::new(), Signed::new(), Signed::new());
        let words = ["repo", "add-publisher", far.repository.to_str().unwrap(), "acme", "--keys", far.keys.to_str().unwrap()];
        rig.hob(&words).well();
        asker(&near, "lab/asker", "0.1.0");
        asker(&far, "acme/asker", "0.1.0");
        rig.trust(&near.url(), &near.repository);
        let folder = far.repository.clone();
        let server = Server::new(move |seen, _| file(&folder, &seen.path));
        let root = far.repository.join("metadata/1.root.json");
        rig.hob(&["remote", "add", "far", &server.url, "--root", root.to_str().unwrap()]).well();
        Scene { rig, near, far, server }
    }

    /// From now on the server sends one byte of paths with this ending, and then waits for the gate.
    fn drip(&self, end: &'static str) -> Gate {
        let (gate, folder) = (Gate::default(), self.far.repository.clone());
        let held = gate.clone();
        self.server.answer(move |seen, _| match seen.path.ends_with(end) {
            true => file(&folder, &seen.path).then(1, Then::Wait(held.clone())),
            false => file(&folder, &seen.path),
        });
        gate
    }

    /// The number of hanging requests for such a path.
    fn hanging(&self, end: &str) -> usize {
        self.server.seen().iter().filter(|seen| seen.path.ends_with(end) && seen.sent() == 1).count()
    }

    /// Starts an install, which hangs at a path with this ending.
    fn hang(&self, words: &[&str], end: &str) -> Child {
        let before = self.hanging(end);
        let child = self.rig.command(words).spawn().unwrap();
        until("the install hangs", || self.hanging(end) > before);
        child
    }

    fn installed(&self, name: &str) -> bool {
        self.rig.installed().iter().any(|line| line.starts_with(name))
    }
}

fn file(folder: &Path, path: &str) -> Reply {
    match fs::read(folder.join(path.trim_start_matches('/'))) {
        Ok(bytes) => Reply::new(200, &[], &bytes),
        Err(_) => Reply::new(404, &[], b""),
    }
}

/// Publishes a recipe that asks for a variable and has a model beside its bundle.
fn asker(signed: &Signed, name: &str, version: &str) {
    let folder = signed.folder.path().join(format!("{}-{version}", name.replace('/', "-")));
    let model = format!("the model of {name}");
    let more = format!(
        "python = \">=3.9\"\n\n[permissions]\nenv = [\"{VARIABLE}\"]\n\n[[model]]\nname = \"weights.bin\"\nsha256 = \"{}\"\nbytes = {}\n",
        hob::model::Digest::of(model.as_bytes()),
        model.len()
    );
    write_recipe(&folder, name, version, POD, &more);
    put(&folder.join("models/weights.bin"), model.as_bytes());
    signed.publish(&folder);
}

fn ended(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { exit: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn while_a_strangers_server_drips_everybody_else_goes_on() {
    let scene = Scene::new();
    let rig = &scene.rig;
    scene.near.publish_plain("lab/plain", "0.1.0");
    rig.hob(&["add", "lab/asker", "--grant"]).well();
    for (at, end) in [("metadata", "/timestamp.json"), ("a publisher's role", ".acme.json"), ("a bundle", ".hob"), ("a model", ".model")] {
        let gate = scene.drip(end);
        let mut slow = scene.hang(&["add", "acme/asker", "--grant"], end);
        let elsewhere = scene.near.url();
        let root = scene.near.repository.join("metadata/1.root.json");
        for words in [
            &["revoke", "lab/asker", "--all"][..],
            &["grant", "lab/asker", "--all", "--reduced"],
            &["revoke", "lab/asker", "--reduced"],
            &["add", "lab/plain"],
            &["call", "lab/asker", "run", "{}"],
            &["list"],
            &["verify"],
            &["remove", "lab/plain"],
            &["remote", "list"],
            &["remote", "add", "third", &elsewhere, "--root", root.to_str().unwrap()],
            &["remote", "remove", "third"],
        ] {
            rig.hob(words).well();
            assert!(slow.try_wait().unwrap().is_none(), "{words:?} waited for {at}");
        }
        gate.open();
        ended(slow).well();
        assert!(scene.installed("acme/asker"), "{at}");
        rig.hob(&["remove", "acme/asker"]).well();
    }
}

#[test]
fn what_is_taken_back_during_an_install_is_not_given_by_it() {
    let scene = Scene::new();
    let rig = &scene.rig;
    for words in [&["revoke", "acme/asker", "--all"][..], &["revoke", "acme/asker", "env=CARGO_PKG_NAME"]] {
        let gate = scene.drip(".hob");
        let slow = scene.hang(&["add", "acme/asker", "--grant"], ".hob");
        // Revoking by name fails, because nothing was given yet; the install heeds the revocation all the
        // same.
        rig.hob(words);
        gate.open();
        ended(slow).refused(Code::ConsentRequired, &["taken back while 0.1.0", "nothing was installed"]);
        assert!(!scene.installed("acme/asker"));
        assert!(!fs::read_to_string(rig.home.join("hob.toml")).unwrap().contains("grants"));
    }
    // An update that asks for nothing new succeeds, and has the remaining grants.
    rig.hob(&["add", "acme/asker", "--grant"]).well();
    assert_eq!(rig.hob(&["call", "acme/asker", "run", "{}"]).well(), "\"hob\"");
    asker(&scene.far, "acme/asker", "0.2.0");
    let gate = scene.drip(".hob");
    let slow = scene.hang(&["add", "acme/asker"], ".hob");
    rig.hob(&["revoke", "acme/asker", "--all"]).well();
    gate.open();
    ended(slow).well();
    assert!(scene.installed("acme/asker 0.2.0"));
    assert_eq!(rig.hob(&["call", "acme/asker", "run", "{}"]).well(), "null");
}

#[test]
fn what_is_removed_during_an_install_stays_removed() {
    let scene = Scene::new();
    let rig = &scene.rig;
    rig.hob(&["add", "acme/asker", "--no-grant"]).well();
    asker(&scene.far, "acme/asker", "0.2.0");
    let gate = scene.drip(".hob");
    let slow = scene.hang(&["add", "acme/asker", "--no-grant"], ".hob");
    rig.hob(&["remove", "acme/asker"]).well();
    gate.open();
    ended(slow).refused(Code::RecipeNotFound, &["was removed while 0.2.0"]);
    assert!(!scene.installed("acme/asker"));
    // Likewise a remote that is removed during either request.
    for end in ["/timestamp.json", ".hob"] {
        let gate = scene.drip(end);
        let slow = scene.hang(&["add", "acme/asker", "--no-grant"], end);
        rig.hob(&["remote", "remove", "far"]).well();
        gate.open();
        ended(slow).refused(Code::RemoteNotFound, &["`far`"]);
        assert!(!scene.installed("acme/asker") && !rig.home.join("data/remotes/far").exists(), "{end}");
        let root = scene.far.repository.join("metadata/1.root.json");
        rig.hob(&["remote", "add", "far", &scene.server.url, "--root", root.to_str().unwrap()]).well();
    }
}

#[test]
fn two_installs_of_one_recipe_fetch_and_one_publishes() {
    let scene = Scene::new();
    let gate = scene.drip(".hob");
    let two = [0, 1].map(|_| scene.hang(&["add", "acme/asker", "--no-grant"], ".hob"));
    gate.open();
    let mut said = two.map(|child| ended(child).well().split(':').next().unwrap().to_owned());
    said.sort();
    assert_eq!(said, ["installed", "is installed already"]);
    scene.rig.hob(&["verify"]).well();
    assert_eq!(fs::read_dir(scene.rig.home.join("data/staging")).unwrap().count(), 0);
}

#[test]
fn an_environment_whose_index_drips_keeps_no_other_waiting() {
    let (rig, signed, gate) = (Rig::new(), Signed::new(), Gate::default());
    let held = gate.clone();
    let index = Server::new(move |_, _| Reply::new(200, &["content-type: text/html"], b"<html></html>").then(1, Then::Wait(held.clone())));
    put(&rig.home.join("hob.toml"), format!("[environments]\nindex_url = \"{}/simple\"\n", index.url).as_bytes());
    for (name, package) in [("lab/one", "six==1.17.0"), ("lab/two", "idna==3.10")] {
        let folder = signed.folder.path().join(name.replace('/', "-"));
        write_recipe(&folder, name, "0.1.0", POD, "python = \">=3.9\"\nlock = \"pod/requirements.lock\"");
        put(&folder.join("pod/requirements.lock"), format!("{package} --hash=sha256:{}\n", "0".repeat(64)).as_bytes());
        signed.publish(&folder);
    }
    rig.trust(&signed.url(), &signed.repository);
    let begin = |name: &str, package: &str| {
        let mut command = rig.command(&["add", name]);
        let mut child = command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").spawn().unwrap();
        let said = listen(&mut child);
        until_said(&said, "building the environment");
        until("its index is asked", || index.seen().iter().any(|seen| seen.path.contains(package)));
        (child, said)
    };
    let mut one = begin("lab/one", "six");
    let two = begin("lab/two", "idna");
    assert!(one.0.try_wait().unwrap().is_none(), "the first one hangs");
    gate.open();
    for (mut child, said) in [one, two] {
        until_said(&said, "error[environment_failed]");
        assert!(!child.wait().unwrap().success());
    }
}
