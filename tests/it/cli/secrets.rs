//! Passwords and tokens in addresses: nothing that Hob prints, logs or stores shows them, except `hob.toml`,
//! into which they were typed.

use std::fs;

use hob::model::Code;

use super::rig::{Ran, Rig, Signed, put, run, write_recipe};
use crate::models::{
    scene::holds,
    server::{Reply, Server, redirect},
};

const PASSWORD: &str = "p4ssw0rd-of-the-operator";
const TOKEN: &str = "t0ken-of-the-operator";
const SIGNATURE: &str = "s1gnature-of-a-redirect";

/// The output of all runs of the program, with every log message of every layer.
struct Said(Rig, Vec<Ran>);

impl Said {
    fn hob(&mut self, words: &[&str]) -> &Ran {
        let mut command = self.0.command(words);
        let proxy = format!("http://me:{PASSWORD}@127.0.0.1:9");
        command.env("HOB_LOG", "trace").env("HTTPS_PROXY", proxy).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        self.1.push(run(command, b""));
        self.1.last().unwrap()
    }

    #[track_caller]
    fn fault(&mut self, words: &[&str], code: Code) {
        for json in [false, true] {
            let words: Vec<&str> = words.iter().copied().chain(json.then_some("--json")).collect();
            let ran = self.hob(&words);
            assert!(format!("{}{}", ran.stdout, ran.stderr).contains(code.name()), "{words:?}: {ran:#?}");
        }
    }
}

#[test]
fn no_output_shows_a_password_or_a_token_of_an_address() {
    let signed = Signed::new();
    signed.publish_plain("lab/plain", "0.1.0");
    let folder = signed.folder.path().join("packed");
    write_recipe(&folder, "lab/packed", "0.1.0", "class Subject: pass\n", "python = \">=3.9\"\nlock = \"pod/requirements.lock\"");
    put(&folder.join("pod/requirements.lock"), format!("six==1.17.0 --hash=sha256:{}\n", "0".repeat(64)).as_bytes());
    signed.publish(&folder);
    let repository = signed.repository.clone();
    let honest = move |path: &str| match fs::read(repository.join(path.trim_start_matches('/'))) {
        Ok(bytes) => Reply::new(200, &[], &bytes),
        Err(_) => Reply::new(404, &[], b""),
    };
    let served = honest.clone();
    let server = Server::new(move |seen, _| served(&seen.path));
    // A permanent error, so that `uv` tries once.
    let index = Server::new(|_, _| Reply::new(400, &[], b""));
    let with = |url: &str| url.replacen("://", &format!("://me:{PASSWORD}@"), 1);
    let (address, root) = (with(&server.url), signed.repository.join("metadata/1.root.json"));
    let root = root.to_str().unwrap();
    let index_url = format!("{}/simple?key={TOKEN}", with(&index.url));
    let mut said = Said(Rig::new(), Vec::new());
    put(&said.0.home.join("hob.toml"), format!("[environments]\nindex_url = \"{index_url}\"\n").as_bytes());

    said.hob(&["remote", "add", "main", &address, "--root", root, "--json"]).well();
    for words in [&["remote", "list"][..], &["remote", "list", "--json"], &["add", "lab/plain"], &["list", "--json"], &["verify"]] {
        said.hob(words).well();
    }
    assert!(said.1[1].stdout.contains("http://***@127.0.0.1:"), "{:#?}", said.1[1]);
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_some()), "the password is sent to its server");
    said.fault(&["add", "lab/packed"], Code::EnvironmentFailed);
    assert!(!index.seen().is_empty(), "the index was asked");

    // The address of a redirect.
    let elsewhere = format!("http://127.0.0.1:9/x?signature={SIGNATURE}");
    server.answer(move |_, _| redirect(&elsewhere));
    said.fault(&["add", "lab/plain"], Code::RepositoryUnreachable);
    let here = format!("/loop?signature={SIGNATURE}");
    server.answer(move |_, _| redirect(&here));
    said.fault(&["add", "lab/plain"], Code::RepositoryUnreachable);
    server.answer(|_, _| Reply::new(500, &[], b""));
    said.fault(&["add", "lab/plain"], Code::RepositoryUnreachable);
    server.answer(move |seen, _| if seen.path.ends_with("timestamp.json") { Reply::new(404, &[], b"") } else { honest(&seen.path) });
    said.fault(&["add", "lab/plain"], Code::RepositoryUnreachable);
    // Malformed addresses, and addresses that lead nowhere.
    let nowhere = format!("http://me:{PASSWORD}@127.0.0.1:9/");
    let hex = "0".repeat(64);
    said.fault(&["remote", "add", "dead", &nowhere, "--fingerprint", &hex], Code::RepositoryUnreachable);
    for wrong in
        ["ftp://me:PASSWORD@example.org/x", "https://example.org/x?token=PASSWORD", "https://me:PASS/PASSWORD@example.org", "me:PASSWORD@x"]
    {
        let wrong = wrong.replace("PASSWORD", PASSWORD);
        said.fault(&["remote", "add", "wrong", &wrong, "--fingerprint", &hex], Code::Usage);
    }
    let (rig, all) = (&said.0, &said.1);
    let kept = fs::read_to_string(rig.home.join("hob.toml")).unwrap();
    assert!(kept.contains(&address) && kept.contains(&index_url), "as it was typed: {kept}");
    assert!(all.iter().any(|ran| ran.stderr.contains("TRACE")), "nothing was logged");
    for secret in [PASSWORD, TOKEN, SIGNATURE] {
        for ran in all {
            assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{secret}: {ran:#?}");
        }
        for folder in ["data", "state"] {
            assert!(!holds(&rig.home.join(folder), secret), "{secret} is in a file of {folder}");
        }
        assert!(!fs::read_to_string(rig.home.join("hob.lock")).unwrap().contains(secret));
    }
    // Every reader of a malformed `hob.toml`.
    fs::write(rig.home.join("hob.toml"), format!("[[remote]]\nname = \"a\"\nurl = \"gopher://me:{PASSWORD}@example.org\"\n")).unwrap();
    let ran = rig.hob(&["remote", "list"]);
    ran.refused(Code::InvalidConfig, &["gopher://***@example.org"]);
    assert!(!ran.stderr.contains(PASSWORD), "{ran:#?}");
}
