//! Downloads that break off: by the connection, the process, the server, the disk. Received bytes are never
//! fetched again if the server can resume.

use std::{
    fs,
    io::Write,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hob::{
    model::{Code, Digest, Home, Silent, manifest::spec::ModelSpec, progress},
    shelf::{
        models::{fetching, sources::Sources},
        repository::transport::Patience,
    },
};

use super::{
    scene::{BYTES, ETAG, Scene, until},
    server::{Gate, Reply, Seen, Server, Then, honest},
};

const PART: usize = 1_234_567;

impl Scene {
    /// Kills `hob add` with `kill -9` once `PART` bytes of the model have arrived.
    fn killed_in_the_middle(&self, etag: &'static str) {
        let model = self.model.clone();
        self.server.answer(move |seen, _| honest(seen, &model, etag).then(PART, Then::Silence));
        let mut child = self.rig.command(&["add", "lab/one"]).spawn().unwrap();
        until("the part is here", || self.part_bytes() == PART as u64);
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(self.part_bytes(), PART as u64, "what came stays");
        assert!(!self.kept().exists());
    }

    fn last(&self) -> Seen {
        self.server.seen().last().unwrap().clone()
    }
}

#[test]
fn a_line_that_breaks_is_taken_up_where_it_broke() {
    let scene = Scene::new();
    let model = scene.model.clone();
    // Breaks twice midway, once before the first byte, and once with an error.
    scene.server.answer(move |seen, before| match before {
        0 => honest(seen, &model, ETAG).cut(PART),
        1 => honest(seen, &model, ETAG).cut(0),
        2 => Reply::new(503, &[], b"busy"),
        3 => honest(seen, &model, ETAG).cut(500_000),
        _ => honest(seen, &model, ETAG),
    });
    let added = scene.add();
    added.well();
    assert!(added.stderr.contains("trying again in 250 ms") && added.stderr.contains("answered 503"), "{added:#?}");
    let seen = scene.server.seen();
    let asked: Vec<_> = seen.iter().map(Seen::from).collect();
    assert_eq!(asked, [None, Some(PART), Some(PART), Some(PART), Some(PART + 500_000)]);
    assert!(seen[1..].iter().all(|seen| seen.header("if-range") == Some(ETAG)));
    let sent: Vec<_> = seen.iter().map(Seen::sent).collect();
    assert_eq!(sent, [PART as u64, 0, 4, 500_000, (BYTES - PART - 500_000) as u64], "no byte twice");
    scene.assert_works("lab/one");
}

#[test]
fn kill_9_in_the_middle_and_the_next_process_goes_on_from_there() {
    let scene = Scene::new();
    scene.killed_in_the_middle(ETAG);
    assert_eq!(scene.rig.installed(), [""; 0]);
    let model = scene.model.clone();
    // And once more, a little later in the file.
    let later = PART + 300_000;
    scene.server.answer(move |seen, _| honest(seen, &model, ETAG).then(300_000, Then::Silence));
    let mut child = scene.rig.command(&["add", "lab/one"]).spawn().unwrap();
    until("a further part is here", || scene.part_bytes() == later as u64);
    child.kill().unwrap();
    child.wait().unwrap();

    let model = scene.model.clone();
    scene.server.answer(move |seen, _| honest(seen, &model, ETAG));
    let added = scene.add();
    added.well();
    assert!(added.stderr.contains(&format!("{later} of {BYTES} bytes are here already: going on from there")), "{added:#?}");
    let seen = scene.server.seen();
    let asked: Vec<_> = seen.iter().map(|seen| (seen.from(), seen.header("if-range").map(str::to_owned), seen.sent())).collect();
    let tag = || Some(ETAG.to_owned());
    assert_eq!(
        asked,
        [(None, None, PART as u64), (Some(PART), tag(), 300_000), (Some(later), tag(), (BYTES - later) as u64)],
        "no byte twice"
    );
    scene.assert_works("lab/one");
}

#[test]
fn kill_9_between_the_last_byte_and_the_shelf_needs_no_server() {
    let scene = Scene::new();
    fs::create_dir_all(scene.part().parent().unwrap()).unwrap();
    fs::write(scene.part(), &scene.model).unwrap();
    // The state after a failed rename.
    let mut mode = fs::metadata(scene.part()).unwrap().permissions();
    mode.set_readonly(true);
    fs::set_permissions(scene.part(), mode).unwrap();
    scene.add().well();
    assert!(scene.server.seen().is_empty());
    scene.assert_works("lab/one");
}

#[test]
fn a_server_that_cannot_go_on_is_asked_for_all_of_it_again_and_that_is_said() {
    let scene = Scene::new();
    scene.killed_in_the_middle(ETAG);
    let model = scene.model.clone();
    scene.server.answer(move |_, _| Reply::new(200, &[], &model));
    let added = scene.add();
    added.well();
    assert!(added.stderr.contains(&format!("the server does not go on from byte {PART}")), "{added:#?}");
    assert!(added.stderr.contains("starting again"), "{added:#?}");
    let last = scene.last();
    assert_eq!((scene.server.seen().len(), last.from(), last.sent()), (2, Some(PART), BYTES as u64));
    scene.assert_works("lab/one");
}

#[test]
fn a_server_that_never_goes_on_and_always_breaks_is_given_up() {
    let scene = Scene::new();
    let model = scene.model.clone();
    scene.server.answer(move |_, _| Reply::new(200, &[], &model).cut(BYTES - 1));
    let added = scene.add();
    added.refused(Code::ModelUnreachable, &["the line broke", "6 tries in a row brought it no further"]);
    // The bytes of the first try count; no later try brought more.
    assert_eq!(scene.server.seen().len(), 6, "{added:#?}");
    assert_eq!(scene.rig.installed(), [""; 0]);
}

#[test]
fn a_file_that_changed_at_its_server_is_not_mixed_with_what_it_was() {
    let scene = Scene::new();
    // One server that knows the meaning of the condition, and two that do not.
    type Script = fn(&Seen, &[u8]) -> Reply;
    let scripts: [(&str, Script); 3] = [
        ("has another file than before: starting again", |seen, model| honest(seen, model, "\"new\"")),
        ("the server has another file than before: starting again", |seen, model| match seen.from() {
            Some(from) => {
                let range = format!("content-range: bytes {from}-{}/{BYTES}", BYTES - 1);
                Reply::new(206, &["etag: \"new\"", &range], &model[from..])
            }
            None => honest(seen, model, "\"new\""),
        }),
        ("the server sent another part than was asked for: starting again", |seen, model| match seen.from() {
            Some(_) => Reply::new(206, &[&format!("etag: {ETAG}"), &format!("content-range: bytes 0-{}/{BYTES}", BYTES - 1)], model),
            None => honest(seen, model, ETAG),
        }),
    ];
    for (says, script) in scripts {
        scene.killed_in_the_middle(ETAG);
        let (model, before) = (scene.model.clone(), scene.server.seen().len());
        scene.server.answer(move |seen, _| script(seen, &model));
        let added = scene.add();
        added.well();
        assert!(added.stderr.contains(says), "no `{says}` in {added:#?}");
        assert_eq!(scene.server.seen()[before].from(), Some(PART));
        assert_eq!(scene.last().sent(), BYTES as u64);
        scene.assert_works("lab/one");
        scene.rig.hob(&["remove", "lab/one"]).well();
    }
}

#[test]
fn parts_that_do_not_belong_together_are_thrown_away_and_one_whole_answer_decides() {
    let scene = Scene::new();
    scene.killed_in_the_middle(ETAG);
    // As after a power cut: the same length, with other bytes.
    let mut part = fs::read(scene.part()).unwrap();
    part[PART / 2..].fill(0);
    fs::write(scene.part(), part).unwrap();
    let model = scene.model.clone();
    scene.server.answer(move |seen, _| honest(seen, &model, ETAG));
    let added = scene.add();
    added.well();
    assert!(added.stderr.contains("do not belong together: starting again"), "{added:#?}");
    let asked: Vec<_> = scene.server.seen()[1..].iter().map(Seen::from).collect();
    assert_eq!(asked, [Some(PART), None]);
    scene.assert_works("lab/one");
    scene.rig.hob(&["remove", "lab/one"]).well();

    // A part that is longer than the whole, and one that is longer than the server's file.
    fs::create_dir_all(scene.part().parent().unwrap()).unwrap();
    fs::write(scene.part(), [scene.model.clone(), vec![0]].concat()).unwrap();
    scene.add().well();
    assert_eq!(scene.last().from(), None);
    scene.rig.hob(&["remove", "lab/one"]).well();
    fs::write(scene.part(), &scene.model[..PART]).unwrap();
    let model = scene.model.clone();
    scene.server.answer(move |seen, _| if seen.from().is_some() { Reply::new(416, &[], b"") } else { honest(seen, &model, ETAG) });
    let added = scene.add();
    added.well();
    assert!(added.stderr.contains("the server has a shorter file than before: starting again"), "{added:#?}");
    scene.assert_works("lab/one");
}

/// Uses the library itself where a test cannot wait as long as the program does.
async fn bring(scene: &Scene, home: &Home) -> Result<std::path::PathBuf, hob::model::Fault> {
    let from: hob::model::ModelSource = format!("{}/model.bin", scene.server.url).parse().unwrap();
    let (sha256, bytes) = (Digest::of(&scene.model), scene.model.len() as u64);
    let spec = ModelSpec { name: "weights.bin".into(), sha256, bytes, from: Some(from.clone()) };
    let patience = Patience { stall: Duration::from_millis(400), ..Patience::default() };
    let quiet: progress::Shared = Arc::new(Silent);
    fetching::bring(home, &spec, &from, "model `weights.bin`", &Sources::default().with_patience(patience), &quiet).await
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_and_asked_again() {
    let scene = tokio::task::spawn_blocking(Scene::new).await.unwrap();
    let home = Home::at(scene.rig.home.clone());
    let model = scene.model.clone();
    scene.server.answer(move |seen, before| match before {
        0 => honest(seen, &model, ETAG).then(PART, Then::Silence),
        // Not even a head arrives.
        1 => honest(seen, &model, ETAG).then(0, Then::Silence),
        _ => honest(seen, &model, ETAG),
    });
    let path = bring(&scene, &home).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), scene.model);
    assert_eq!(scene.server.seen().iter().map(Seen::from).collect::<Vec<_>>(), [None, Some(PART), Some(PART)]);
    fs::remove_file(scene.kept()).unwrap();

    // Silence for ever: the fetch gives up, and keeps the received bytes.
    let (model, before) = (scene.model.clone(), scene.server.seen().len());
    scene.server.answer(move |seen, _| match seen.from() {
        None => honest(seen, &model, ETAG).then(PART, Then::Silence),
        Some(_) => honest(seen, &model, ETAG).then(0, Then::Silence),
    });
    let fault = bring(&scene, &home).await.unwrap_err();
    assert_eq!((fault.code, fault.retryable), (Code::ModelUnreachable, true), "{fault}");
    assert!(fault.message.contains("no byte came for 400 ms; 6 tries in a row"), "{fault}");
    assert_eq!((fault.detail["have_bytes"].as_u64(), scene.part_bytes()), (Some(PART as u64), PART as u64));
    assert_eq!(scene.server.seen().len() - before, 6);
}

#[test]
fn half_a_model_that_nobody_came_back_for_goes_and_a_fresh_one_stays() {
    let scene = Scene::new();
    let folder = scene.part().parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    let file = |text: &str, days: u64| {
        let path = folder.join(format!("{}.part", Digest::of(text.as_bytes()).hex()));
        fs::write(&path, text).unwrap();
        let at = SystemTime::now() - Duration::from_secs(days * 86_400);
        fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        path
    };
    let (old, fresh) = (file("old", 15), file("fresh", 13));
    scene.add().well();
    assert!(!old.exists() && fresh.exists());
}

/// A memory file system, gone when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path, bytes: u64) -> Option<Disk<'a>> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=755"), "none"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Disk(at))
    }

    fn free(&self) -> u64 {
        let space = rustix::fs::statvfs(self.0).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// Fills the disk except for `but` bytes.
    fn fill(&self, name: &str, but: u64) {
        let bytes = self.free().saturating_sub(but);
        fs::File::create(self.0.join(name)).unwrap().write_all(&vec![1; usize::try_from(bytes).unwrap()]).unwrap();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_disk_that_is_too_small_is_told_ahead_and_one_that_fills_up_keeps_what_came() {
    let scene = Scene::new();
    let home = scene.rig.home.clone();
    // The remote was trusted before, so the home's content moves onto the small disk.
    let aside = scene.rig.folder.path().join("aside");
    fs::rename(&home, &aside).unwrap();
    let Some(disk) = Disk::mount(&home, 64 << 20) else {
        return println!("skipped: a tmpfs cannot be mounted here");
    };
    crate::repository::world::copy(&aside, &home);

    disk.fill("ballast", 2 << 20);
    let added = scene.add();
    added.refused(
        Code::DiskFull,
        &["model `weights.bin` of lab/one 0.1.0 from ", "more bytes are wanted", "are free in", "nothing of it is here yet"],
    );
    assert!(added.stderr.contains(&format!("{BYTES} more bytes are wanted")), "{added:#?}");
    assert!(scene.server.seen().is_empty(), "asked for what does not fit");
    fs::remove_file(home.join("ballast")).unwrap();

    // There is room for all of it, until another file takes it.
    let (gate, model) = (Gate::default(), scene.model.clone());
    let held = gate.clone();
    scene.server.answer(move |seen, _| honest(seen, &model, ETAG).then(PART, Then::Wait(held.clone())));
    let child = scene.rig.command(&["add", "lab/one", "--json"]).spawn().unwrap();
    until("the part is here", || scene.part_bytes() == PART as u64);
    disk.fill("ballast", 256 << 10);
    gate.open();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(Code::DiskFull.exit())), "{output:?}");
    let fault: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let fault = &fault["fault"];
    assert_eq!(fault["code"], "disk_full");
    let have = scene.part_bytes();
    assert!((PART as u64..BYTES as u64).contains(&have), "{have} bytes");
    let number = |key: &str| fault["detail"][key].as_u64().unwrap();
    assert_eq!((number("have_bytes"), number("wanted_bytes")), (have, BYTES as u64 - have), "{fault}");
    assert!(number("free_bytes") < number("wanted_bytes"), "{fault}");
    assert!(fault["hint"].as_str().unwrap().contains(&format!("the {have} bytes that came are kept")), "{fault}");
    assert_eq!(scene.rig.installed(), [""; 0]);

    // Still full: nothing is requested. With room: the rest, and no byte twice.
    scene.add().refused(Code::DiskFull, &[&format!("the {have} bytes that came are kept")]);
    assert_eq!(scene.server.seen().len(), 1);
    fs::remove_file(home.join("ballast")).unwrap();
    let model = scene.model.clone();
    scene.server.answer(move |seen, _| honest(seen, &model, ETAG));
    scene.add().well();
    let last = scene.last();
    assert_eq!((last.from(), last.sent()), (Some(usize::try_from(have).unwrap()), BYTES as u64 - have));
    scene.assert_works("lab/one");
}

#[test]
fn two_servers_of_one_file_may_each_bring_a_part() {
    let scene = Scene::new();
    scene.killed_in_the_middle(ETAG);
    let model = scene.model.clone();
    let mirror = Server::new(move |seen, _| honest(seen, &model, "\"of the mirror\""));
    scene.publish("lab/mirrored", &format!("{}/copy.bin", mirror.url));
    scene.rig.hob(&["add", "lab/mirrored"]).well();
    let seen = mirror.seen();
    // The other server's mark means nothing to this server.
    assert_eq!((seen.len(), seen[0].from(), seen[0].header("if-range"), seen[0].sent()), (1, Some(PART), None, (BYTES - PART) as u64));
    scene.assert_works("lab/mirrored");
}
