//! Attacks by a mirror, a thief of one key, a hostile publisher or a torn disk, and the fault of each.
//!
//! After each refusal the client's home holds its own state and nothing else, and its earlier state still
//! works.

use std::{fs, path::Path, time::Duration};

use hob::{
    author::repository,
    model::{Code, Digest, Fault, Home, Silent, limits},
    shelf::repository::{Remote, Trust, transport::Patience},
};
use serde_json::json;

use super::{
    server::{Lie, Server},
    world::{World, copy, days_later, name, open, pin, resolve, tree, yesterday},
};

/// Resolves and fetches `hob/echo`, as an install would.
async fn fetch(home: &Home, url: &str) -> Result<(), Fault> {
    let mut client = open(home, url).await;
    let resolved = resolve(&mut client, "hob/echo").await?;
    client.fetch_bundle(&resolved, &Silent).await.map(drop)
}

/// Asserts that a fault has this code and contains each of these texts.
fn said(fault: &Fault, code: Code, parts: &[&str]) {
    assert_eq!(fault.code, code, "{fault}");
    for part in parts {
        assert!(fault.message.contains(part), "`{part}` is not in: {fault}");
    }
    assert!(fault.hint.is_some(), "no next step: {fault}");
}

/// Asserts that there are only the client's own state and locks, and nothing fetched.
fn nothing_installed(home: &Home) {
    for file in tree(home.config()).keys() {
        assert!(
            ["data/remotes/main/root.json", "data/remotes/main/trust.json", "state/locks/remote-main.lock"].contains(&file.as_str()),
            "{file}"
        );
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn one_flipped_byte_in_any_metadata_file_is_refused_by_the_name_of_the_file() {
    let world = World::new().await;
    repository::rotate_online(&world.repo, &world.keys, world.now).await.unwrap();
    // Until the next signing, the old key's signature stands beside the new one's, and nothing depends on it.
    repository::refresh(&world.repo, &world.keys, world.now).await.unwrap();
    let files = ["2.root.json".to_owned(), "timestamp.json".to_owned()];
    for file in files.into_iter().chain(["snapshot", "targets", "hob"].map(|role| world.current(role))) {
        let good = fs::read(world.metadata(&file)).unwrap();
        let step = good.len() / 12;
        for (round, at) in (0..good.len()).step_by(step).enumerate() {
            flip(&world.metadata(&file), at);
            let home = world.home(&format!("{file}-{round}")).await;
            let before = tree(&home.remotes());
            let fault = fetch(&home, world.repo.to_str().unwrap()).await.expect_err(&format!("{file} byte {at}"));
            said(&fault, Code::MetadataInvalid, &[&format!("`{file}`"), "remote `main`"]);
            nothing_installed(&home);
            if file == "2.root.json" {
                assert_eq!(tree(&home.remotes()), before);
            }
            fs::write(world.metadata(&file), &good).unwrap();
            fetch(&home, world.repo.to_str().unwrap()).await.unwrap();
        }
    }
    // The first root is only read when it is pinned, by its fingerprint.
    let fingerprint = Digest::of(&fs::read(world.metadata("1.root.json")).unwrap()).hex();
    flip(&world.metadata("1.root.json"), 300);
    let home = Home::at(world.folder.path().join("new"));
    let fault = Remote::pin(&home, "main", world.repo.to_str().unwrap(), Trust::Fingerprint(fingerprint)).await.unwrap_err();
    said(&fault, Code::FingerprintMismatch, &["`1.root.json`"]);
    assert!(tree(&home.remotes()).is_empty());
}

#[tokio::test]
async fn a_metadata_file_that_is_missing_is_named() {
    let world = World::new().await;
    for (role, code) in [
        ("timestamp", Code::RepositoryUnreachable),
        ("snapshot", Code::MetadataInvalid),
        ("targets", Code::MetadataInvalid),
        ("hob", Code::MetadataInvalid),
    ] {
        let (file, hidden) = (world.current(role), world.folder.path().join("hidden"));
        fs::rename(world.metadata(&file), &hidden).unwrap();
        let home = world.home(role).await;
        said(&fetch(&home, world.repo.to_str().unwrap()).await.unwrap_err(), code, &[&file]);
        nothing_installed(&home);
        fs::rename(&hidden, world.metadata(&file)).unwrap();
    }
    let fault = fetch(&world.home("gone").await, "/no/such/folder").await.unwrap_err();
    said(&fault, Code::RepositoryUnreachable, &["/no/such/folder"]);
}

#[tokio::test]
async fn an_older_repository_is_refused_by_a_client_that_saw_the_newer() {
    let world = World::new().await;
    let old = world.copy("old");
    let (old_snapshot, old_role) = (world.current("snapshot"), world.current("hob"));
    world.publish("hob/echo", "0.2.0").await.unwrap();
    let home = world.home("home").await;
    fetch(&home, world.repo.to_str().unwrap()).await.unwrap();
    let seen = tree(&home.remotes());

    // The whole repository of yesterday, for a client that was started again.
    said(&fetch(&home, old.to_str().unwrap()).await.unwrap_err(), Code::Rollback, &["`timestamp.json`", "older"]);

    // Yesterday's files under today's names: the mirror has no key.
    for (from, role) in [(old_snapshot, "snapshot"), (old_role, "hob")] {
        let mixed = world.copy(&format!("mixed-{role}"));
        let file = world.current(role);
        fs::copy(old.join("metadata").join(&from), mixed.join("metadata").join(&file)).unwrap();
        let fault = fetch(&world.home(&format!("fresh-{role}")).await, mixed.to_str().unwrap()).await.unwrap_err();
        said(&fault, Code::MetadataInvalid, &[&format!("`{file}`")]);
    }

    // With the online key: a newer timestamp and snapshot that name an older role of a publisher.
    for _ in 0..3 {
        repository::refresh(&old, &world.keys, world.now).await.unwrap();
    }
    said(&fetch(&home, old.to_str().unwrap()).await.unwrap_err(), Code::Rollback, &["snapshot.json`", "hob.json"]);
    assert_eq!(tree(&home.remotes()), seen, "a refused refresh changes nothing");
    nothing_installed(&home);
    fetch(&home, world.repo.to_str().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_timestamp_that_names_an_older_snapshot_and_a_snapshot_that_drops_a_publisher_are_rollbacks() {
    let world = World::new().await;
    let old_file = world.current("snapshot");
    let old_version: u64 = old_file.split('.').next().unwrap().parse().unwrap();
    let old = fs::read(world.metadata(&old_file)).unwrap();
    world.publish("hob/echo", "0.2.0").await.unwrap();
    let home = world.home("home").await;
    fetch(&home, world.repo.to_str().unwrap()).await.unwrap();

    let kept = world.copy("kept");
    world.forge_timestamp(|signed| {
        signed["version"] = (signed["version"].as_u64().unwrap() + 1).into();
        signed["meta"]["snapshot.json"] = pin(old_version, &old);
    });
    said(&fetch(&home, world.repo.to_str().unwrap()).await.unwrap_err(), Code::Rollback, &["`timestamp.json`", "snapshot"]);

    copy(&kept, &world.repo);
    world.forge_snapshot(|signed| drop(signed["meta"].as_object_mut().unwrap().remove("hob.json")));
    said(&fetch(&home, world.repo.to_str().unwrap()).await.unwrap_err(), Code::Rollback, &["snapshot.json`", "removes hob.json"]);
    // A new client cannot know, but is told that the publisher is named and absent; the other publishers can
    // be read.
    let newcomer = world.home("newcomer").await;
    let mut client = world.client(&newcomer).await;
    said(&resolve(&mut client, "hob/echo").await.unwrap_err(), Code::MetadataInvalid, &["`hob`", "does not list `hob.json`"]);
    resolve(&mut client, "alice/shout").await.unwrap();
}

#[tokio::test]
async fn expired_metadata_is_refused_with_its_file_and_date() {
    let world = World::new().await;
    let home = world.home("home").await;
    for (days, file) in [(15, "timestamp.json".to_owned()), (366, "1.root.json".to_owned())] {
        let mut client = world.client(&home).await.at(days_later(world.now, days));
        let fault = client.refresh().await.unwrap_err();
        said(&fault, Code::MetadataExpired, &[&format!("`{file}`"), "expired since 20"]);
        assert!(fault.hint.as_ref().is_some_and(|hint| hint.contains("this machine's clock")), "{fault:?}");
    }
    nothing_installed(&home);
    // A clock that is an hour slow does not prevent a refresh.
    world.client(&home).await.at(days_later(world.now, -1)).refresh().await.unwrap();
    // Nor does a clock that is years slow: metadata is never refused for its young age.
    world.client(&world.home("slow").await).await.at(days_later(world.now, -20 * 365)).refresh().await.unwrap();

    let past = yesterday(world.now);
    world.forge_snapshot(|signed| signed["expires"] = past.clone().into());
    said(&fetch(&home, world.repo.to_str().unwrap()).await.unwrap_err(), Code::MetadataExpired, &[&world.current("snapshot"), &past]);
    world.forge("targets", "targets", |signed| signed["expires"] = past.clone().into());
    world.forge_snapshot(|signed| signed["expires"] = days_later(world.now, 3).to_string().into());
    said(&fetch(&home, world.repo.to_str().unwrap()).await.unwrap_err(), Code::MetadataExpired, &[&world.current("targets"), &past]);
}

#[tokio::test]
async fn one_publisher_expired_or_hostile_does_not_stop_another() {
    let world = World::new().await;
    let home = world.home("home").await;
    let past = yesterday(world.now);
    world.forge("hob", "hob", |signed| signed["expires"] = past.clone().into());
    let mut client = world.client(&home).await;
    said(&resolve(&mut client, "hob/echo").await.unwrap_err(), Code::MetadataExpired, &[&world.current("hob"), &past]);
    resolve(&mut client, "alice/shout").await.unwrap();
    let listing = client.list(None).await.unwrap();
    assert_eq!((listing.recipes.len(), listing.unread[0].0.as_str(), listing.unread[0].1.code), (1, "hob", Code::MetadataExpired));

    // Signed with a key that is not hob's, and pinned with a stolen online key.
    world.forge("hob", "alice", |signed| signed["expires"] = days_later(world.now, 9).to_string().into());
    client.refresh().await.unwrap();
    said(&resolve(&mut client, "hob/echo").await.unwrap_err(), Code::MetadataInvalid, &[&world.current("hob"), "0 valid signatures"]);
    resolve(&mut client, "alice/shout").await.unwrap();
}

#[tokio::test]
async fn a_publisher_cannot_speak_for_another() {
    let world = World::new().await;
    repository::add_publisher(&world.repo, &world.keys, "mallory", None, world.now).await.unwrap();
    world.publish("mallory/echo", "9.0.0").await.unwrap();
    let home = world.home("home").await;
    let alice = resolve(&mut world.client(&home).await, "alice/shout").await.unwrap();

    // mallory lists alice's recipe in a newer version, lies about the name of her own, and goes deeper than
    // her namespace.
    world.forge("mallory", "mallory", |signed| {
        let mut target = signed["targets"]["mallory/echo/9.0.0.hob"].clone();
        target["custom"]["name"] = "alice/shout".into();
        signed["targets"]["alice/shout/9.0.0.hob"] = target.clone();
        signed["targets"]["alice/hidden/9.0.0.hob"] = target.clone();
        signed["targets"]["mallory/liar/9.0.0.hob"] = target.clone();
        signed["targets"]["mallory/a/b/9.0.0.hob"] = target;
        // She also delegates alice's namespace and role name to her own key.
        let key = world.keys.load("mallory").unwrap();
        signed["delegations"] = json!({
            "keys": { (key.id().unwrap()): { "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": key.public() } } },
            "roles": [{ "name": "alice", "keyids": [key.id().unwrap()], "threshold": 1, "terminating": true, "paths": ["alice/*/*"] }],
        });
    });
    let mut client = world.client(&home).await;
    resolve(&mut client, "mallory/echo").await.unwrap();
    assert_eq!(resolve(&mut client, "alice/shout").await.unwrap().sha256, alice.sha256);
    said(&resolve(&mut client, "alice/hidden").await.unwrap_err(), Code::NotInRepository, &["alice/hidden"]);
    said(
        &resolve(&mut client, "mallory/liar").await.unwrap_err(),
        Code::MetadataInvalid,
        &[&world.current("mallory"), "says that it is `alice/shout`"],
    );
    let listing = client.list(None).await.unwrap();
    let names: Vec<_> = listing.recipes.iter().map(|listed| listed.name.to_string()).collect();
    assert_eq!(names, ["hob/echo", "alice/shout", "mallory/echo"]);
    assert_eq!(listing.recipes[1].versions.len(), 1);
}

#[tokio::test]
async fn a_target_that_lies_in_its_own_words_is_refused() {
    type Change = fn(&mut serde_json::Value);
    let table: [(Change, &str); 10] = [
        (|target| target["custom"]["version"] = "0.9.0".into(), "says that it is `hob/echo` 0.9.0"),
        (|target| drop(target.as_object_mut().unwrap().remove("custom")), "has no `custom`"),
        (|target| target["custom"]["files"] = 3.into(), "malformed"),
        (|target| target["custom"]["files"]["../x"] = target["custom"]["files"]["README.md"].clone(), "`../x` has no place"),
        (|target| target["length"] = (limits::BUNDLE_BYTES_MAX + 1).into(), "at most"),
        (|target| target["hashes"] = json!({ "md5": "00" }), "no sha256"),
        (|target| target["custom"]["models"][0]["bytes"] = (limits::MODEL_BYTES_MAX + 1).into(), "names a model of"),
        (|target| target["custom"]["models"][0]["name"] = "../weights.bin".into(), "`../weights.bin` is not a model's name"),
        (
            |target| {
                let model = target["custom"]["models"][0].clone();
                target["custom"]["models"] = vec![model; limits::MODELS_MAX + 1].into();
            },
            "names 1025 models",
        ),
        (
            |target| target["custom"]["files"]["pod/big"] = json!({ "sha256": "0".repeat(64), "bytes": u64::MAX, "executable": false }),
            "at most",
        ),
    ];
    for (change, says) in table {
        let world = World::new().await;
        world.forge("hob", "hob", |signed| change(&mut signed["targets"]["hob/echo/0.1.0.hob"]));
        let home = world.home("home").await;
        let fault = fetch(&home, world.repo.to_str().unwrap()).await.expect_err(says);
        said(&fault, Code::MetadataInvalid, &[&world.current("hob"), says]);
        nothing_installed(&home);
    }
    // A version that only a later Hob can run is skipped, and reported if no other is left.
    let world = World::new().await;
    world.publish("hob/echo", "0.2.0").await.unwrap();
    world.forge("hob", "hob", |signed| signed["targets"]["hob/echo/0.2.0.hob"]["custom"]["hob"] = "^9".into());
    let home = world.home("home").await;
    let mut client = world.client(&home).await;
    assert_eq!(resolve(&mut client, "hob/echo").await.unwrap().version.to_string(), "0.1.0");
    let fault = client.resolve(&name("hob/echo"), &"=0.2.0".parse().unwrap()).await.unwrap_err();
    said(&fault, Code::NotInRepository, &["0.2.0 wants Hob ^9"]);
}

#[tokio::test]
async fn after_a_stolen_online_key_a_new_one_heals_every_client() {
    let world = World::new().await;
    let home = world.home("home").await;
    let kept = world.copy("kept");
    // Fast forward: the thief counts to the end, so that no honest version could ever follow.
    world.forge_snapshot(|signed| signed["version"] = (u64::MAX - 1).into());
    world.forge_timestamp(|signed| signed["version"] = u64::MAX.into());
    world.client(&home).await.refresh().await.unwrap();
    said(&fetch(&home, kept.to_str().unwrap()).await.unwrap_err(), Code::Rollback, &["`timestamp.json`", "18446744073709551615"]);

    repository::rotate_online(&kept, &world.keys, world.now).await.unwrap();
    fetch(&home, kept.to_str().unwrap()).await.unwrap();
    // Signatures of the old key are worthless to a client that saw the new root.
    let fault = fetch(&home, world.repo.to_str().unwrap()).await.unwrap_err();
    said(&fault, Code::MetadataInvalid, &["`timestamp.json`", "0 valid signatures"]);
    fetch(&home, kept.to_str().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_new_root_is_remembered_even_when_the_rest_of_the_refresh_fails() {
    let world = World::new().await;
    let home = world.home("home").await;
    let old = world.copy("old");
    fetch(&home, old.to_str().unwrap()).await.unwrap();
    repository::rotate_online(&world.repo, &world.keys, world.now).await.unwrap();
    let half = world.copy("half");
    fs::remove_file(half.join("metadata").join(world.current("snapshot"))).unwrap();
    said(&fetch(&home, half.to_str().unwrap()).await.unwrap_err(), Code::MetadataInvalid, &["snapshot.json", "missing"]);
    said(&fetch(&home, old.to_str().unwrap()).await.unwrap_err(), Code::MetadataInvalid, &["`timestamp.json`"]);
    fetch(&home, world.repo.to_str().unwrap()).await.unwrap();
}

#[tokio::test]
async fn torn_or_altered_local_state_fails_closed() {
    let world = World::new().await;
    let pristine = world.home("pristine").await;
    fetch(&pristine, world.repo.to_str().unwrap()).await.unwrap();
    type Tear = fn(&Path);
    let table: [(&str, &str, Tear); 7] = [
        ("torn", "trust.json", |path| fs::write(path, &fs::read(path).unwrap()[..200]).unwrap()),
        ("emptied", "trust.json", |path| fs::write(path, "").unwrap()),
        ("zeroed", "trust.json", |path| fs::write(path, vec![0; 4096]).unwrap()),
        ("edited", "trust.json", |path| {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.replace("\"verified_with\": 1", "\"verified_with\": 0")).unwrap();
        }),
        ("gone", "trust.json", |path| fs::remove_file(path).unwrap()),
        ("root torn", "root.json", |path| fs::write(path, "{").unwrap()),
        ("root gone", "root.json", |path| fs::remove_file(path).unwrap()),
    ];
    for (case, file, tear) in table {
        let home = Home::at(world.folder.path().join(case));
        copy(pristine.config(), home.config());
        let path = home.remotes().join("main").join(file);
        // The pinned root is 0444.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        tear(&path);
        let before = tree(&home.remotes());
        let fault = Remote::open(&home, "main", world.repo.to_str().unwrap()).await.err().unwrap_or_else(|| panic!("{case}"));
        said(&fault, Code::StateUnreadable, &["remote `main`", ".json"]);
        assert_eq!(tree(&home.remotes()), before, "{case}: a state that cannot be read is not repaired in silence");
    }
    // Complete, sealed, and of another repository.
    let other = World::new().await;
    let home = other.home("home").await;
    fs::copy(pristine.remotes().join("main/trust.json"), home.remotes().join("main/trust.json")).unwrap();
    let fault = Remote::open(&home, "main", "/nowhere").await.err().unwrap();
    said(&fault, Code::StateUnreadable, &["`timestamp.json` in it does not verify"]);
}

#[tokio::test]
async fn a_server_that_sends_too_much_too_slowly_or_elsewhere_is_left() {
    let world = World::new().await;
    let server = Server::serve(world.repo.clone()).await;
    let patience = Patience { connect: Duration::from_secs(5), stall: Duration::from_millis(400), metadata: Duration::from_millis(800) };
    let elsewhere = Server::serve(world.repo.clone()).await;
    let drip = Lie::Drip(Duration::from_millis(20));
    let table: &[(&str, Lie, Code, &str)] = &[
        ("timestamp", Lie::Endless, Code::MetadataInvalid, "longer than the 16384 bytes"),
        ("snapshot", Lie::Endless, Code::MetadataInvalid, "longer than the 2000000 bytes"),
        ("hob", Lie::Endless, Code::MetadataInvalid, "longer than the 5000000 bytes"),
        ("timestamp", drip.clone(), Code::RepositoryUnreachable, "did not arrive whole within 800 ms"),
        ("targets", drip, Code::RepositoryUnreachable, "did not arrive whole within 800 ms"),
        ("timestamp", Lie::Stall, Code::RepositoryUnreachable, "no byte came for 400 ms"),
        ("timestamp", Lie::Cut, Code::RepositoryUnreachable, "cannot be read"),
        ("timestamp", Lie::Status(500), Code::RepositoryUnreachable, "it answered 500"),
        (
            "timestamp",
            Lie::Redirect(format!("{}metadata/timestamp.json", elsewhere.url)),
            Code::RepositoryUnreachable,
            "redirects to another host",
        ),
        ("timestamp", Lie::Redirect("/metadata/timestamp.json".into()), Code::RepositoryUnreachable, "redirects"),
        ("snapshot", Lie::Bytes(b"{}".to_vec()), Code::MetadataInvalid, "length 2"),
        ("timestamp", Lie::Bytes(vec![b'['; 16_000]), Code::MetadataInvalid, "malformed"),
        ("timestamp", Lie::Bytes(b"{\"welcome\": \"to the hotel\"}".to_vec()), Code::MetadataInvalid, "malformed"),
    ];
    for (at, (role, lie, code, says)) in table.iter().enumerate() {
        let server = Server::serve(world.repo.clone()).await;
        let file = world.current(role);
        server.lie(&format!("metadata/{file}"), lie.clone());
        let home = world.home(&format!("home{at}")).await;
        let mut client = Remote::open_with(&home, "main", &server.url, patience).await.unwrap();
        let fault = resolve(&mut client, "hob/echo").await.expect_err(says);
        said(&fault, *code, &[&file, says]);
        nothing_installed(&home);
    }
    assert!(elsewhere.asked().is_empty(), "the other host was asked");
    // A redirect within the host is followed.
    server.lie("moved/metadata/timestamp.json", Lie::Redirect("/metadata/timestamp.json".into()));
    let home = world.home("home").await;
    let fault = Remote::open_with(&home, "main", &format!("{}moved", server.url), patience).await.unwrap().refresh().await.unwrap_err();
    said(&fault, Code::MetadataInvalid, &["snapshot.json` is missing"]);
    // No server listens any more.
    let url = server.url.clone();
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let fault = Remote::open_with(&home, "main", &url, patience).await.unwrap().refresh().await.unwrap_err();
    said(&fault, Code::RepositoryUnreachable, &[&url]);
}

#[tokio::test]
async fn two_hundred_publishers_cost_a_handful_of_requests() {
    let world = World::new().await;
    let key = world.keys.load("alice").unwrap().id().unwrap();
    world.forge("targets", "targets", |signed| {
        for number in 0..200 {
            let name = format!("publisher-{number}");
            let paths = [format!("{name}/*/*")];
            let role = json!({ "name": name, "keyids": [key], "threshold": 1, "terminating": true, "paths": paths });
            signed["delegations"]["roles"].as_array_mut().unwrap().insert(0, role);
        }
    });
    let server = Server::serve(world.repo.clone()).await;
    let home = world.home("home").await;
    fetch(&home, &server.url).await.unwrap();
    // Next root (not there), timestamp, snapshot, targets, the publisher, the bundle.
    assert_eq!(server.asked().len(), 6, "{:?}", server.asked());
    // Nothing changed: next root, timestamp, the publisher, the bundle.
    fetch(&home, &server.url).await.unwrap();
    assert_eq!(server.asked().len(), 10, "{:?}", server.asked());
}

#[tokio::test]
async fn of_two_refreshes_at_once_the_slower_does_not_lower_the_floor() {
    let world = World::new().await;
    let old = Server::serve(world.copy("old")).await;
    world.publish("hob/echo", "0.2.0").await.unwrap();
    let home = world.home("home").await;
    // Slow enough to be overtaken, if that were possible.
    old.lie("metadata/timestamp.json", Lie::Drip(Duration::from_micros(200)));
    let (mut slow, mut fast) = (open(&home, &old.url).await, world.client(&home).await);
    let (first, second) = tokio::join!(slow.refresh(), fast.refresh());
    second.unwrap();
    // An overtaken client starts again from the state that the other learned; then its own server is behind.
    if let Err(fault) = first {
        said(&fault, Code::Rollback, &["`timestamp.json`"]);
    }
    let fault = open(&home, &old.url).await.refresh().await.unwrap_err();
    said(&fault, Code::Rollback, &["`timestamp.json`"]);
}
