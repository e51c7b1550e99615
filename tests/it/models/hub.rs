//! `hf:`: the endpoint from its variable, and the token, which only that endpoint gets.

use std::{fs, process::Command};

use hob::model::Code;

use super::{
    scene::{BYTES, ETAG, Scene, holds},
    server::{Reply, Seen, Server, honest, redirect},
};
use crate::cli::rig::{Ran, run};

const TOKEN: &str = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz";
/// The signature in a redirect's address is worth as much as a token.
const SIGNATURE: &str = "kJ8-signature-of-the-cdn";
const FROM: &str = "hf:owner/name@0123456789abcdef:onnx/model one.bin";
const PATH: &str = "/api/hub/owner/name/resolve/0123456789abcdef/onnx/model%20one.bin";

impl Scene {
    fn of_hub() -> Scene {
        let scene = Scene::new();
        scene.publish("lab/hub", FROM);
        scene
    }

    /// A command with this endpoint, every log message of every layer, and no token of the user who runs the
    /// tests.
    fn at_hub(&self) -> Command {
        let mut command = self.rig.command(&["add", "lab/hub"]);
        let endpoint = format!("{}/api/hub/", self.server.url);
        command.env("HF_ENDPOINT", endpoint).env("HF_HOME", self.rig.folder.path()).env("HOB_LOG", "trace");
        command.env_remove("HF_TOKEN").env_remove("HF_TOKEN_PATH");
        command
    }

    #[track_caller]
    fn assert_secret(&self, ran: &Ran) {
        assert!(ran.stderr.contains("TRACE"), "nothing was logged: {ran:#?}");
        for secret in [TOKEN, SIGNATURE] {
            assert!(!ran.stderr.contains(secret) && !ran.stdout.contains(secret), "{secret}: {ran:#?}");
            assert!(!holds(&self.rig.home, secret), "{secret} is in a file");
        }
    }
}

fn shown(seen: &[Seen]) -> Vec<Option<&str>> {
    seen.iter().map(|seen| seen.header("authorization")).collect()
}

#[test]
fn the_token_goes_to_the_endpoint_and_not_to_where_it_redirects() {
    let scene = Scene::of_hub();
    let model = scene.model.clone();
    let cdn = Server::new(move |seen, before| match before {
        0 => honest(seen, &model, ETAG).cut(BYTES / 2),
        _ => honest(seen, &model, ETAG),
    });
    let to = format!("{}/blob?key={SIGNATURE}", cdn.url);
    scene.server.answer(move |seen, _| if seen.path == PATH { redirect("/api/moved") } else { redirect(&to) });
    let mut command = scene.at_hub();
    command.env("HF_TOKEN", TOKEN);
    let added = run(command, b"");
    added.well();
    assert!(added.stderr.contains(&format!("fetching model `weights.bin` of lab/hub 0.1.0 from {FROM}")), "{added:#?}");
    let bearer = format!("Bearer {TOKEN}");
    // Two requests to the endpoint for each of two tries: the rest is requested at the start of the
    // redirects, to get a fresh signature.
    assert_eq!(shown(&scene.server.seen()), [Some(bearer.as_str()); 4]);
    assert_eq!(scene.server.seen()[0].path, PATH);
    let at_cdn = cdn.seen();
    assert_eq!(shown(&at_cdn), [None, None], "the token went to a stranger");
    assert_eq!((at_cdn[1].from(), at_cdn[1].header("if-range")), (Some(BYTES / 2), Some(ETAG)));
    assert!(at_cdn.iter().all(|seen| seen.header("referer").is_none() && seen.header("cookie").is_none()));
    scene.assert_secret(&added);
    scene.assert_works("lab/hub");
    assert!(scene.rig.hob(&["show", "lab/hub"]).well().contains(FROM));
}

#[test]
fn the_token_file_is_read_when_there_is_no_variable_and_what_is_public_needs_neither() {
    let scene = Scene::of_hub();
    let model = scene.model.clone();
    scene.server.answer(move |seen, _| honest(seen, &model, ETAG));
    run(scene.at_hub(), b"").well();
    scene.rig.hob(&["remove", "lab/hub"]).well();
    fs::write(scene.rig.folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let added = run(scene.at_hub(), b"");
    added.well();
    assert_eq!(shown(&scene.server.seen()), [None, Some(&*format!("Bearer {TOKEN}"))]);
    scene.assert_secret(&added);

    // With a byte order mark and CRLF, as some editors and shells write it.
    scene.rig.hob(&["remove", "lab/hub"]).well();
    fs::write(scene.rig.folder.path().join("token"), format!("\u{feff}{TOKEN}\r\n")).unwrap();
    run(scene.at_hub(), b"").well();
    assert_eq!(shown(&scene.server.seen()).last(), Some(&Some(&*format!("Bearer {TOKEN}"))));
    scene.rig.hob(&["remove", "lab/hub"]).well();
    fs::write(scene.rig.folder.path().join("token"), TOKEN.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap();
    run(scene.at_hub(), b"").refused_beside_a_log(Code::InvalidConfig, &["token is text in UTF-16", "save it as UTF-8"]);
    fs::write(scene.rig.folder.path().join("token"), TOKEN).unwrap();
    run(scene.at_hub(), b"").well();

    // A model that is not on the hub does not get the token, even at the same server.
    scene.rig.hob(&["remove", "lab/hub"]).well();
    scene.publish("lab/web", &format!("{}{PATH}", scene.server.url));
    let command = scene.at_hub();
    let mut web = scene.rig.command(&["add", "lab/web"]);
    web.envs(command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
    run(web, b"").well();
    assert_eq!(scene.server.seen().last().unwrap().header("authorization"), None);
}

#[test]
fn a_model_that_is_not_given_says_what_to_do_about_the_token() {
    let scene = Scene::of_hub();
    for status in [401, 403] {
        scene.server.answer(move |_, _| Reply::new(status, &["x-error-code: GatedRepo"], b"{}"));
        let refused = run(scene.at_hub(), b"");
        refused.refused_beside_a_log(Code::ModelForbidden, &["(GatedRepo)", "set HF_TOKEN to a token of an account that may read it"]);
        let mut command = scene.at_hub();
        command.env("HF_TOKEN", TOKEN);
        let refused = run(command, b"");
        refused.refused_beside_a_log(Code::ModelForbidden, &["(GatedRepo)", "the token that was shown may not read it"]);
        scene.assert_secret(&refused);
    }
    scene.server.answer(|_, _| Reply::new(404, &["x-error-code: EntryNotFound"], b"{}"));
    run(scene.at_hub(), b"").refused_beside_a_log(Code::ModelMissing, &["there is no file", "(EntryNotFound)"]);
    let mut command = scene.at_hub();
    command.env("HF_ENDPOINT", "http://example.org");
    run(command, b"").refused_beside_a_log(Code::InvalidConfig, &["HF_ENDPOINT"]);
    scene.assert_nothing();
}

impl Ran {
    /// As `refused`, with a log on stderr too.
    #[track_caller]
    fn refused_beside_a_log(&self, code: Code, parts: &[&str]) {
        assert_eq!(self.exit, Some(i32::from(code.exit())), "{self:#?}");
        for part in [&[&*format!("error[{}]: ", code.name()), "  hint: "], parts].concat() {
            assert!(self.stderr.contains(part), "`{part}` is not in {self:#?}");
        }
    }
}
