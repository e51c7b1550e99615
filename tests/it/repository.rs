//! Both sides of the signed repository, through the library's public functions: honest use works, and
//! everything else is refused by name.
//!
//! This file has honest use and the refusals of the writer; the attacks have modules of their own.

mod answers;
mod attacks;
mod bundles;
pub mod server;
pub mod world;

use std::{fs, path::Path};

use hob::{
    author::{keys::Keys, pack::pack, publish::publish, repository},
    model::{Code, Digest, Door, Fault, Home, Silent, manifest::spec::ModelSpec},
    shelf::{
        bundle::unpack,
        repository::{Remote, Trust, pinned_root},
    },
};

use self::{
    server::Server,
    world::{MODEL, World, days_later, name, open, resolve, tree},
};

#[tokio::test]
async fn what_was_published_arrives_byte_by_byte_over_file_and_http() {
    let world = World::new().await;
    let server = Server::serve(world.repo.clone()).await;
    let packed = pack(&world.recipe("hob/echo", "0.1.0")).unwrap();
    for (at, url) in [world.repo.display().to_string(), format!("file://{}", world.repo.display()), server.url.clone()].iter().enumerate() {
        let home = world.home(&format!("home{at}")).await;
        let mut client = open(&home, url).await;
        let resolved = resolve(&mut client, "hob/echo").await.unwrap();
        assert_eq!((resolved.version.to_string().as_str(), resolved.sha256, &resolved.index), ("0.1.0", packed.digest(), &packed.index));
        assert_eq!(resolved.key_ids, [world.keys.load("hob").unwrap().id().unwrap()]);
        resolved.same_signer(&resolved.key_ids).unwrap();
        assert_eq!(resolved.same_signer(&["00".to_owned()]).unwrap_err().code, Code::PublisherKeyChanged);

        let bundle = client.fetch_bundle(&resolved, &Silent).await.unwrap();
        assert_eq!(bundle, packed.bytes);
        let dest = world.folder.path().join(format!("unpacked{at}"));
        unpack::unpack(&bundle, &resolved.index, &dest, "hob/echo 0.1.0").unwrap();
        unpack::check_folder(&dest, &resolved.index).unwrap();

        let model = world.folder.path().join(format!("model{at}"));
        client.fetch_model(&resolved, &packed.manifest.models[0], &model, &Silent).await.unwrap();
        assert_eq!(fs::read(&model).unwrap(), MODEL);
    }
}

#[tokio::test]
async fn the_newest_version_in_range_is_taken_and_a_miss_says_what_there_is() {
    let world = World::new().await;
    for version in ["0.2.0", "0.10.0", "1.0.0-beta.1"] {
        world.publish("hob/echo", version).await.unwrap();
    }
    let home = world.home("home").await;
    let client = world.client(&home).await;
    // Doors run these on any thread.
    let mut client = tokio::spawn(async move {
        let mut client = client;
        resolve(&mut client, "hob/echo").await.unwrap();
        client
    })
    .await
    .unwrap();
    for (range, wanted) in [("*", "0.10.0"), ("^0.1", "0.1.0"), ("<0.10", "0.2.0"), (">=1.0.0-beta", "1.0.0-beta.1")] {
        let found = client.resolve(&name("hob/echo"), &range.parse().unwrap()).await.unwrap();
        assert_eq!(found.version.to_string(), wanted, "{range}");
    }
    for (recipe, range, says) in [
        ("hob/echo", "^3", "(it has: `1.0.0-beta.1`, `0.10.0`, `0.2.0`, `0.1.0`)"),
        ("hob/ecko", "*", "has no recipe `hob/ecko` (publisher `hob` has: `echo`)"),
        ("bob/echo", "*", "has no publisher `bob` (it has: `hob`, `alice`)"),
    ] {
        let fault = client.resolve(&name(recipe), &range.parse().unwrap()).await.unwrap_err();
        assert!(fault.code == Code::NotInRepository && fault.message.contains(says), "{fault}");
    }
    let listing = client.list(None).await.unwrap();
    let names: Vec<_> = listing.recipes.iter().map(|listed| (listed.name.to_string(), listed.versions.len())).collect();
    assert_eq!(names, [("hob/echo".to_owned(), 4), ("alice/shout".to_owned(), 1)]);
    assert!(listing.unread.is_empty() && listing.recipes[0].summary == "Gives back what it got");
}

#[tokio::test]
async fn a_root_is_pinned_by_fingerprint_or_by_file_and_never_replaced() {
    let world = World::new().await;
    let server = Server::serve(world.repo.clone()).await;
    let root = fs::read(world.metadata("1.root.json")).unwrap();
    let home = Home::at(world.folder.path().join("home"));

    let fault = Remote::open(&home, "main", &server.url).await.err().unwrap();
    assert!(fault.code == Code::RemoteNotFound && fault.message.contains("`main`"), "{fault}");
    let wrong = Digest::of(b"another").hex();
    let fault = Remote::pin(&home, "main", &server.url, Trust::Fingerprint(wrong.clone())).await.unwrap_err();
    assert_eq!(fault.code, Code::FingerprintMismatch);
    for part in ["`1.root.json`", &wrong, &Digest::of(&root).hex()] {
        assert!(fault.message.contains(part), "{fault}");
    }
    assert!(tree(&home.remotes()).is_empty());
    let fault = Remote::pin(&home, "main", &server.url, Trust::Root(root[..root.len() - 2].to_vec())).await.unwrap_err();
    assert!(fault.code == Code::MetadataInvalid && fault.message.contains("root file"), "{fault}");
    assert_eq!(Remote::pin(&home, "../up", &server.url, Trust::Root(root.clone())).await.unwrap_err().code, Code::Usage);

    let pinned = Remote::pin(&home, "main", &server.url, Trust::Fingerprint(Digest::of(&root).hex())).await.unwrap();
    assert!(!pinned.already && pinned.root_version == 1 && pinned_root(&home, "main").unwrap() == Some(pinned.fingerprint));
    assert!(Remote::pin(&home, "main", &server.url, Trust::Root(root)).await.unwrap().already);

    let other = World::new().await;
    let before = tree(&home.remotes());
    let other_root = fs::read(other.metadata("1.root.json")).unwrap();
    let fault = Remote::pin(&home, "main", &server.url, Trust::Root(other_root)).await.unwrap_err();
    assert!(fault.code == Code::FingerprintMismatch && fault.hint.unwrap().contains("`Host::remove_remote` of `main`"));
    assert_eq!(tree(&home.remotes()), before);
    Remote::forget(&home, "main").await.unwrap();
    assert!(tree(&home.remotes()).is_empty());
}

#[tokio::test]
async fn a_version_never_changes_and_publishing_it_again_changes_nothing() {
    let world = World::new().await;
    let before = tree(&world.repo);
    assert!(world.publish("hob/echo", "0.1.0").await.unwrap().already);
    assert_eq!(tree(&world.repo), before);

    let recipe = world.recipe("hob/echo", "0.1.0");
    fs::write(recipe.join("pod/echo.py"), "class Echo: pass\n").unwrap();
    let packed = pack(&recipe).unwrap();
    let fault = publish(&world.repo, &world.keys, &packed, &recipe.join("models"), world.now, &Silent).await.unwrap_err();
    assert!(fault.code == Code::AlreadyPublished && fault.message.contains("`hob/echo` 0.1.0"), "{fault}");
    assert_eq!(tree(&world.repo), before);
}

#[tokio::test]
async fn only_the_key_that_the_repository_knows_may_publish() {
    let world = World::new().await;
    let recipe = world.recipe("bob/echo", "0.1.0");
    let packed = pack(&recipe).unwrap();
    let models = recipe.join("models");
    let before = tree(&world.repo);

    let fault = publish(&world.repo, &world.keys, &packed, &models, world.now, &Silent).await.unwrap_err();
    let adds = format!("add-publisher {} bob --keys {}` makes its key", world.repo.display(), world.keys.folder().display());
    let hint = fault.clone().worded(Door::CommandLine).hint.unwrap();
    assert!(fault.code == Code::KeyInvalid && fault.message.contains("has no publisher `bob`") && hint.contains(&adds), "{fault} {hint}");
    let bob = Keys::at(world.folder.path().join("bob"));
    let public = bob.generate("bob").unwrap().public();
    fs::copy(bob.path("bob"), world.keys.path("bob")).unwrap();
    let fault = publish(&world.repo, &world.keys, &packed, &models, world.now, &Silent).await.unwrap_err();
    assert!(fault.code == Code::KeyInvalid && fault.hint.clone().unwrap().contains(&public), "{fault:?}");
    assert_eq!(tree(&world.repo), before);

    // Another key is given for the name that the repository gave to alice.
    let mallory = Keys::at(world.folder.path().join("mallory"));
    mallory.generate("alice").unwrap();
    fs::copy(world.keys.path("online"), mallory.path("online")).unwrap();
    let shout = world.recipe("alice/shout", "0.2.0");
    let fault = publish(&world.repo, &mallory, &pack(&shout).unwrap(), &shout.join("models"), world.now, &Silent).await.unwrap_err();
    assert!(fault.code == Code::KeyInvalid && fault.message.contains("`alice` signs here with"), "{fault}");
    assert_eq!(tree(&world.repo), before);

    for wrong in ["root", "online", "Bob", "a/b"] {
        let fault = repository::add_publisher(&world.repo, &world.keys, wrong, None, world.now).await.unwrap_err();
        assert_eq!(fault.code, Code::Usage, "{wrong}");
    }
    let fault = repository::add_publisher(&world.repo, &world.keys, "bob", Some("12"), world.now).await.unwrap_err();
    assert_eq!(fault.code, Code::KeyInvalid);
    let fault = repository::add_publisher(&world.repo, &world.keys, "alice", Some(&public), world.now).await.unwrap_err();
    assert_eq!(fault.code, Code::AlreadyPublished);
    assert_eq!(tree(&world.repo), before);

    // Added by public key alone: before the first publish there is nothing to verify, and the output says so.
    repository::add_publisher(&world.repo, &world.keys, "bob", Some(&public), world.now).await.unwrap();
    let home = world.home("home").await;
    let mut client = world.client(&home).await;
    let fault = resolve(&mut client, "bob/echo").await.unwrap_err();
    assert!(fault.code == Code::MetadataInvalid && fault.message.contains("does not list `bob.json`"), "{fault}");
    resolve(&mut client, "hob/echo").await.unwrap();
    world.publish("bob/echo", "0.1.0").await.unwrap();
    client.refresh().await.unwrap();
    resolve(&mut client, "bob/echo").await.unwrap();
}

#[tokio::test]
async fn the_writer_refuses_a_step_that_no_client_could_load() {
    let world = World::new().await;
    // The online key is not the one that the root names, so every signature would be worthless.
    fs::remove_file(world.keys.path("online")).unwrap();
    world.keys.generate("online").unwrap();
    let before = tree(&world.repo);
    let fault = repository::refresh(&world.repo, &world.keys, world.now).await.unwrap_err();
    assert!(
        fault.code == Code::MetadataInvalid && fault.message.contains("refused") && fault.message.contains("`timestamp.json`"),
        "{fault}"
    );
    assert_eq!(tree(&world.repo), before);
    // With a clock a year ahead, root and targets would be expired for everyone.
    let world = World::new().await;
    let before = tree(&world.repo);
    let fault = repository::refresh(&world.repo, &world.keys, days_later(world.now, 366)).await.unwrap_err();
    assert!(fault.code == Code::MetadataExpired && fault.message.contains("`1.root.json`"), "{fault}");
    assert_eq!(tree(&world.repo), before);
    assert!(repository::refresh(&world.repo, &world.keys, world.now).await.unwrap().is_empty());
    let warnings = repository::refresh(&world.repo, &world.keys, days_later(world.now, 310)).await.unwrap();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
}

#[tokio::test]
async fn a_step_that_died_at_any_file_leaves_a_repository_that_works_and_can_be_finished() {
    for step in ["publish", "rotate", "refresh", "add-publisher"] {
        let world = World::new().await;
        let (before, old_keys) = (world.copy("before"), world.folder.path().join("old-keys"));
        world::copy(world.keys.folder(), &old_keys);
        let take = async |repo: &Path, keys: &Keys| -> Result<(), Fault> {
            match step {
                "publish" => {
                    let recipe = world.recipe("hob/echo", "0.2.0");
                    publish(repo, keys, &pack(&recipe)?, &recipe.join("models"), world.now, &Silent).await.map(drop)
                }
                "rotate" => repository::rotate_online(repo, keys, world.now).await.map(drop),
                "refresh" => repository::refresh(repo, keys, world.now).await.map(drop),
                _ => repository::add_publisher(repo, keys, "carol", None, world.now).await.map(drop),
            }
        };
        take(&world.repo, &world.keys).await.unwrap();
        let (old, new) = (tree(&before), tree(&world.repo));
        for file in new.keys().filter(|file| !old.contains_key(*file)) {
            let what = format!("{step} that died at {file}");
            let at = |part: &str| world.folder.path().join(part).join(step).join(file);
            let (repo, keys) = (at("repos"), Keys::at(at("keys-of")));
            world::copy(&before, &repo);
            world::copy(&old_keys, keys.folder());
            let url = repo.to_str().unwrap();
            let home = world.home(&format!("homes/{step}/{file}")).await;
            resolve(&mut open(&home, url).await, "hob/echo").await.unwrap();

            // A full folder in the file's place stops the writer at this step.
            let obstacle = repo.join(file);
            fs::create_dir_all(obstacle.join("in the way")).unwrap();
            take(&repo, &keys).await.expect_err(&what);
            fs::remove_dir_all(&obstacle).unwrap();

            // A client that knew the earlier state, and one that is new.
            resolve(&mut open(&home, url).await, "hob/echo").await.unwrap_or_else(|fault| panic!("{what}: {fault}"));
            let newcomer = world.home(&format!("newcomers/{step}/{file}")).await;
            resolve(&mut open(&newcomer, url).await, "hob/echo").await.unwrap_or_else(|fault| panic!("{what}: {fault}"));
            take(&repo, &keys).await.unwrap_or_else(|fault| panic!("{what}, again: {fault}"));
            resolve(&mut open(&home, url).await, "hob/echo").await.unwrap_or_else(|fault| panic!("{what}, finished: {fault}"));
        }
        if step == "rotate" {
            // Killed with the new root written and the old key still in its place.
            fs::copy(world.keys.path("online"), old_keys.join("online.key.json.next")).unwrap();
            repository::refresh(&world.repo, &Keys::at(&old_keys), world.now).await.unwrap();
            let home = world.home("home").await;
            resolve(&mut world.client(&home).await, "hob/echo").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_model_that_is_not_what_was_signed_leaves_no_file() {
    let world = World::new().await;
    let home = world.home("home").await;
    let mut client = world.client(&home).await;
    let resolved = resolve(&mut client, "hob/echo").await.unwrap();
    let (sha256, dest) = (Digest::of(MODEL), world.folder.path().join("model"));
    let spec = ModelSpec { name: "weights.bin".into(), sha256, bytes: MODEL.len() as u64, from: None };
    let file = world.repo.join(format!("targets/hob/echo/{sha256}.{sha256}.model"));
    let mut flipped = MODEL.to_vec();
    flipped[3] ^= 1;
    let table: [(&[u8], &str); 3] =
        [(&flipped, "its sha256 is"), (&[MODEL, b"!"].concat(), "it is longer than"), (&MODEL[1..], "it ends after")];
    for (bytes, says) in table {
        fs::write(&file, bytes).unwrap();
        let fault = client.fetch_model(&resolved, &spec, &dest, &Silent).await.unwrap_err();
        assert!(fault.code == Code::Tampered && fault.message.contains(says) && fault.message.contains("`weights.bin`"), "{fault}");
        assert!(!dest.exists());
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(client.fetch_model(&resolved, &spec, &dest, &Silent).await.unwrap_err().code, Code::RepositoryUnreachable);
    let unsigned = ModelSpec { sha256: Digest::of(b"x"), ..spec };
    assert_eq!(client.fetch_model(&resolved, &unsigned, &dest, &Silent).await.unwrap_err().code, Code::NotInRepository);
    assert!(!dest.exists());
}
