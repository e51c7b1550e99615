//! The way of a model from its publisher to pods: published without its bytes, fetched once, shared, and
//! read-only in the pod.

use std::fs;

use hob::model::{Code, Digest};

use super::{
    scene::{Scene, listen, until, until_said},
    server::{Gate, Server, Then, honest},
};

#[test]
fn a_model_is_published_without_its_bytes_fetched_by_add_and_shown_with_its_source() {
    let scene = Scene::new();
    let from = format!("{}/model.bin", scene.server.url);
    let published: Vec<_> =
        fs::read_dir(scene.signed.repository.join("targets/lab/one")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(published.len(), 1, "{published:?}: the bundle alone");
    let added = scene.add();
    added.well();
    assert!(added.stderr.contains(&format!("fetching model `weights.bin` of lab/one 0.1.0 from {from}")), "{added:#?}");
    assert_eq!(scene.server.seen().len(), 1);
    scene.assert_works("lab/one");

    let line = format!("from {from}");
    assert!(scene.rig.hob(&["show", "lab/one"]).well().contains(&line));
    assert_eq!(scene.rig.hob(&["show", "lab/one", "--json"]).json()["models"][0]["from"], from.as_str());
    assert!(scene.rig.hob(&["verify"]).well().contains(&line));
    assert_eq!(scene.rig.hob(&["verify", "--json"]).json()[0]["models"][0]["from"], from.as_str());

    // An altered model is found, and adding again fetches it again.
    fs::remove_file(scene.kept()).unwrap();
    fs::write(scene.kept(), &scene.model[1..]).unwrap();
    let verified = scene.rig.hob(&["verify"]);
    assert_eq!(verified.exit, Some(i32::from(Code::ShelfAltered.exit())), "{verified:#?}");
    assert!(verified.stdout.contains("ALTERED") && verified.stdout.contains("weights.bin"), "{verified:#?}");
    scene.add().well();
    assert_eq!(scene.server.seen().len(), 2);
    scene.assert_works("lab/one");
    scene.rig.hob(&["remove", "lab/one"]).well();
    assert!(!scene.kept().exists());
}

#[test]
fn what_is_on_the_shelf_is_fetched_from_nowhere_whoever_names_it() {
    let mut scene = Scene::new();
    scene.add().well();
    let other = Server::new(|_, _| panic!("asked for what is there"));
    scene.publish("lab/two", &format!("{}/copy.bin", other.url));
    scene.publish("lab/three", "hf:nobody/nothing@main:copy.bin");
    // The server must not be asked any more.
    scene.server = Server::new(|_, _| panic!("asked for what is there"));
    for name in ["lab/two", "lab/three"] {
        scene.rig.hob(&["add", name]).well();
        scene.assert_works(name);
    }
    assert!(other.seen().is_empty() && scene.server.seen().is_empty());
    for (name, stays) in [("lab/one", true), ("lab/two", true), ("lab/three", false)] {
        scene.rig.hob(&["remove", name]).well();
        assert_eq!(scene.kept().exists(), stays, "after {name} went");
    }
}

#[test]
fn two_adds_at_once_and_a_call_beside_them_make_one_download() {
    let scene = Scene::new();
    let (gate, model) = (Gate::default(), scene.model.clone());
    let held = gate.clone();
    scene.server.answer(move |seen, _| honest(seen, &model, super::scene::ETAG).then(1 << 20, Then::Wait(held.clone())));
    let folder = scene.recipe("lab/folder", &format!("{}/model.bin", scene.server.url));

    let mut first = scene.rig.command(&["add", "lab/one"]).spawn().unwrap();
    let said = listen(&mut first);
    until("the first one is in the middle of the model", || scene.part_bytes() == 1 << 20);
    let mut second = scene.rig.command(&["add", "lab/one"]).spawn().unwrap();
    let second_said = listen(&mut second);
    let mut call = scene.rig.command(&["call", folder.to_str().unwrap(), "run", "{}"]).spawn().unwrap();
    let call_said = listen(&mut call);
    // Each waits for the same bytes, and for nothing else.
    until_said(&second_said, "another hob is fetching the same model; waiting for it");
    until_said(&call_said, "another hob is fetching the same model; waiting for it");
    gate.open();
    for (what, child) in [("first", first), ("second", second), ("call", call)] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{what}: {output:?}");
    }
    drop(said);
    assert_eq!((scene.server.seen().len(), scene.server.sent()), (1, scene.model.len() as u64));
    assert_eq!(scene.rig.installed(), ["lab/one 0.1.0"]);
    scene.assert_works("lab/one");
}

#[test]
fn the_model_of_a_folder_is_fetched_by_its_first_call_or_by_build_unless_it_lies_there() {
    let scene = Scene::new();
    let from = format!("{}/model.bin", scene.server.url);
    let folder = scene.recipe("lab/folder", &from);
    let word = folder.to_str().unwrap();
    // Showing a recipe must not download gigabytes.
    scene.rig.hob(&["show", word]).refused(Code::ModelMissing, &["weights.bin", "`hob build", &from]);
    assert!(scene.server.seen().is_empty());
    scene.assert_works(word);
    scene.assert_works(word);
    assert_eq!(scene.server.seen().len(), 1);
    assert!(scene.rig.hob(&["show", word]).well().contains(&format!("from {from}")));

    fs::remove_file(scene.kept()).unwrap();
    let built = scene.rig.hob(&["build", word]);
    assert!(built.well().ends_with("models that are fetched: 1, all here and what the manifest says"), "{built:#?}");
    scene.rig.hob(&["build", word]).well();
    assert_eq!(scene.server.seen().len(), 2);

    // The file in the folder is the author's own, and is compared with the manifest.
    fs::remove_file(scene.kept()).unwrap();
    fs::create_dir(folder.join("models")).unwrap();
    fs::write(folder.join("models/weights.bin"), &scene.model).unwrap();
    assert_eq!(scene.rig.hob(&["call", word, "run", "{}"]).json()["sha256"], Digest::of(&scene.model).hex());
    fs::write(folder.join("models/weights.bin"), b"other").unwrap();
    scene.rig.hob(&["call", word, "run", "{}"]).refused(Code::InvalidRecipe, &["weights.bin"]);
    scene.rig.hob(&["pack", word]).refused(Code::InvalidRecipe, &["weights.bin"]);
    assert_eq!(scene.server.seen().len(), 2);
}
