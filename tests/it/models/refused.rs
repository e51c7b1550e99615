//! Wrong answers in place of a model, and sources that cannot have one: refused with a reason, and nothing is
//! kept.

use std::fs;

use hob::model::{Code, Digest};

use super::{
    scene::{BYTES, ETAG, Scene},
    server::{Reply, Server, honest, redirect},
};
use crate::{
    cli::rig::{Rig, put},
    repository::world::{MODEL, World},
};

#[test]
fn other_bytes_are_refused_whole_and_nothing_is_kept() {
    let scene = Scene::new();
    let flipped = {
        let mut model = scene.model.clone();
        model[BYTES / 3] ^= 1;
        model
    };
    let longer = [scene.model.clone(), b"!".to_vec()].concat();
    let endless = Reply { length: None, ..Reply::new(200, &[], &longer) };
    let shorter = &scene.model[1..];
    let replies = [
        ("its sha256 is ", Reply::new(200, &[&format!("etag: {ETAG}")], &flipped)),
        ("bytes; wanted 3145728", Reply::new(200, &[], &longer)),
        ("bytes; wanted 3145728", Reply::new(200, &[], shorter)),
        ("it is longer than 3145728 bytes", endless),
    ];
    for (says, reply) in replies {
        let before = scene.server.seen().len();
        scene.server.answer(move |_, _| reply.clone());
        scene.add().refused(Code::Tampered, &["model `weights.bin` of lab/one 0.1.0", "is not what its recipe names", says]);
        assert_eq!(scene.server.seen().len() - before, 1, "asked again for what was wrong");
        scene.assert_nothing();
    }
    let model = scene.model.clone();
    scene.server.answer(move |seen, _| honest(seen, &model, ETAG));
    scene.add().well();
    assert_eq!(scene.server.seen().last().unwrap().from(), None, "a wrong model left something behind");
    scene.assert_works("lab/one");
}

#[test]
fn what_comes_in_place_of_the_file_is_told_by_its_kind() {
    let scene = Scene::new();
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {BYTES}\n", Digest::of(&scene.model));
    let endless = |body: &[u8]| Reply { length: None, ..Reply::new(200, &[], body) };
    let unreachable = Code::ModelUnreachable;
    let (lfs, page) = ("it is a Git LFS pointer in place of the file", "it is a web page in place of the file");
    for (code, says, next, reply) in [
        (unreachable, lfs, "`/resolve/`", Reply::new(200, &["content-type: text/plain"], pointer.as_bytes())),
        (unreachable, lfs, "`/resolve/`", endless(pointer.as_bytes())),
        (unreachable, page, "browser", Reply::new(200, &["content-type: text/html"], b"<p>Please log in to the network</p>")),
        (unreachable, page, "browser", Reply::new(200, &["content-type: application/xhtml+xml"], b"<p>Please log in</p>")),
        (unreachable, page, "browser", Reply::new(200, &[], b"<!DOCTYPE html><title>Sign in</title>")),
        (unreachable, page, "browser", Reply::new(200, &[], b"<?xml version='1.0'?><html>")),
        (unreachable, page, "browser", endless(b"<!doctype html>")),
        (unreachable, "sends 0 bytes; wanted 3145728 (it is empty)", "nothing is there", Reply::new(200, &[], b"")),
        (unreachable, "answered 204 No Content", "", Reply::new(204, &[], b"")),
        // An answer that could be a recipe's file in another encoding is compared with the signed bytes.
        (Code::Tampered, "it is text in UTF-16", "", Reply::new(200, &[], b"a\0b\0")),
        (
            Code::ModelUnreachable,
            "sends it packed (`content-encoding: gzip`)",
            "",
            Reply::new(200, &["content-encoding: gzip"], b"\x1f\x8b"),
        ),
    ] {
        let before = scene.server.seen().len();
        scene.server.answer(move |_, _| reply.clone());
        scene.add().refused(code, &["model `weights.bin` of lab/one 0.1.0", says, next]);
        assert_eq!(scene.server.seen().len() - before, 1, "asked again for what was wrong");
        scene.assert_nothing();
    }
    // A connection that breaks before the first byte of an answer without a length is tried again, and is no
    // empty file.
    let model = scene.model.clone();
    scene.server.answer(
        move |seen, before| if before == 0 { Reply { length: None, ..Reply::new(200, &[], b"") } } else { honest(seen, &model, ETAG) },
    );
    scene.add().well();
    scene.rig.hob(&["remove", "lab/one"]).well();
    // The author's own folder, as a clone without `git lfs` has it.
    let folder = scene.recipe("lab/cloned", "https://example.org/never-asked");
    put(&folder.join("models/weights.bin"), pointer.as_bytes());
    for words in [["pack", folder.to_str().unwrap()].as_slice(), &["call", folder.to_str().unwrap(), "run", "{}"]] {
        scene.rig.hob(words).refused(Code::InvalidRecipe, &["model `weights.bin`", lfs, "`git lfs pull`"]);
    }
}

#[test]
fn what_is_not_there_or_not_given_says_so_at_once() {
    let scene = Scene::new();
    for (status, code, says) in [
        (404, Code::ModelMissing, "there is no file"),
        (410, Code::ModelMissing, "answered 410"),
        (401, Code::ModelForbidden, "answered 401"),
        (403, Code::ModelForbidden, "answered 403"),
        (418, Code::ModelUnreachable, "answered 418"),
    ] {
        let before = scene.server.seen().len();
        scene.server.answer(move |_, _| Reply::new(status, &[], b"no"));
        scene.add().refused(code, &["weights.bin", says, "127.0.0.1:"]);
        assert_eq!(scene.server.seen().len() - before, 1, "{status}");
        scene.assert_nothing();
    }
}

#[test]
fn a_server_that_has_too_much_to_do_is_given_time() {
    let scene = Scene::new();
    let model = scene.model.clone();
    scene.server.answer(move |seen, before| match before {
        0 => Reply::new(429, &["retry-after: 1"], b"slow down"),
        1 => Reply::new(500, &[], b"oops"),
        _ => honest(seen, &model, ETAG),
    });
    let added = scene.add();
    added.well();
    assert!(added.stderr.contains("answered 429") && added.stderr.contains("trying again in 1000 ms"), "{added:#?}");
    scene.assert_works("lab/one");
    scene.rig.hob(&["remove", "lab/one"]).well();

    let before = scene.server.seen().len();
    scene.server.answer(|_, _| Reply::new(502, &[], b"oops"));
    scene.add().refused(Code::ModelUnreachable, &["answered 502", "6 tries in a row"]);
    assert_eq!(scene.server.seen().len() - before, 6);
}

#[test]
fn nobody_at_the_address_is_told() {
    let scene = Scene::new();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    scene.publish("lab/gone", &format!("http://{gone}/model.bin"));
    scene.rig.hob(&["add", "lab/gone"]).refused(Code::ModelUnreachable, &["cannot be reached", &gone.to_string()]);
}

#[test]
fn redirects_go_only_where_they_may_and_not_for_ever() {
    let scene = Scene::new();
    let model = scene.model.clone();
    let other = Server::new(move |seen, _| honest(seen, &model, ETAG));
    // A redirect to another server, and from there to a path without a host.
    let to = format!("{}/files/model.bin?signature=secret", other.url);
    scene.server.answer(move |seen, _| if seen.path == "/model.bin" { redirect("/moved") } else { redirect(&to) });
    scene.add().well();
    assert_eq!(scene.server.seen().iter().map(|seen| seen.path.clone()).collect::<Vec<_>>(), ["/model.bin", "/moved"]);
    assert_eq!(other.seen()[0].path, "/files/model.bin?signature=secret");
    scene.assert_works("lab/one");
    scene.rig.hob(&["remove", "lab/one"]).well();

    for (to, says, asked) in [
        ("/model.bin", "redirects more than 4 times", 5),
        ("http://example.org/model.bin?signature=secret", "redirects to example.org, where this download may not go", 1),
        ("http://10.0.0.1/model.bin?signature=secret", "redirects to 10.0.0.1, where this download may not go", 1),
        ("ftp://127.0.0.1/model.bin", "may not go", 1),
        ("http://[", "redirects (302 Found) to no address", 1),
    ] {
        let before = scene.server.seen().len();
        scene.server.answer(move |_, _| redirect(to));
        let added = scene.add();
        added.refused(Code::ModelUnreachable, &[says]);
        assert!(!added.stderr.contains("secret"), "{added:#?}");
        assert_eq!(scene.server.seen().len() - before, asked, "{to}");
    }
}

#[test]
fn a_manifest_names_a_place_that_is_safe_to_fetch_from() {
    let scene = Scene::new();
    for (from, says) in [
        ("http://example.org/model.bin", "wanted `https:`"),
        ("file:///srv/model.bin", "put it into the recipe folder's `models/`"),
        ("hf:owner/name:model.bin", "it names no revision"),
        ("https://me:secret@example.org/model.bin", "a name or a password"),
    ] {
        let folder = scene.recipe("lab/wrong", from);
        let line = fs::read_to_string(folder.join("recipe.toml")).unwrap().lines().position(|line| line.starts_with("from")).unwrap() + 1;
        let place = format!("recipe.toml:{line}: model.from: ");
        for command in ["pack", "build", "show"] {
            let ran = scene.rig.hob(&[command, folder.to_str().unwrap()]);
            ran.refused(Code::InvalidManifest, &[&place, says]);
        }
    }
}

#[tokio::test]
async fn what_is_signed_of_a_model_is_what_the_manifest_in_the_bundle_says() {
    let server = Server::new(|seen, _| honest(seen, MODEL, ETAG));
    let somewhere = format!("{}/model.bin", server.url);
    for (from, code, says) in [
        (somewhere.as_str(), Code::BundleInvalid, "names other models than its publisher signed of it"),
        ("http://example.org/model.bin", Code::MetadataInvalid, "malformed"),
        ("hf:owner/name:model.bin", Code::MetadataInvalid, "malformed"),
    ] {
        let world = World::new().await;
        world.forge("hob", "hob", |signed| signed["targets"]["hob/echo/0.1.0.hob"]["custom"]["models"][0]["from"] = from.into());
        let rig = Rig::new();
        rig.trust(world.repo.to_str().unwrap(), &world.repo);
        rig.hob(&["add", "hob/echo"]).refused(code, &[says]);
        assert_eq!(rig.installed(), [""; 0]);
    }
    assert_eq!(server.seen().len(), 1);
}
