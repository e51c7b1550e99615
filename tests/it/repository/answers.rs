//! Answers of ordinary servers in place of a file, or on the way to it: named as what they are, followed
//! where that is safe, and never called an attack.

use std::fs;

use hob::{
    author::pack::pack,
    model::{Code, Fault, Silent},
};

use super::{
    server::{Lie, Manner, Server},
    world::{World, open, resolve},
};

const PAGE: &[u8] = b"\n<!DOCTYPE html><html><body>Please sign in</body></html>";
const XHTML: &[u8] = b"<?xml version='1.0'?>\n<!-- a portal --><html xmlns='http://www.w3.org/1999/xhtml'>";
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 3\n";
const PACKED: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03";

#[tokio::test]
async fn what_answers_in_place_of_a_file_is_named_and_is_no_attack() {
    let world = World::new().await;
    let server = Server::serve(world.repo.clone()).await;
    let packed = pack(&world.recipe("hob/echo", "0.1.0")).unwrap();
    let (snapshot, root) = (world.current("snapshot"), "2.root.json".to_owned());
    let bundle = format!("targets/hob/echo/{}.0.1.0.hob", packed.digest());
    let model = &packed.manifest.models[0];
    let weights = format!("targets/hob/echo/models/{}.{}", model.sha256, model.sha256);
    assert!(world.repo.join(&bundle).is_file());
    let table: &[(&str, Lie, &str, &str)] = &[
        ("a page", Lie::Bytes(PAGE.to_vec()), "a web page in place of the file", "sign in"),
        ("a pointer", Lie::Bytes(POINTER.to_vec()), "a Git LFS pointer", "Git LFS"),
        ("a page after much white space", Lie::Bytes([&[b'\n'; 300], PAGE].concat()), "a web page in place of the file", "sign in"),
        ("packed, said", Lie::Encoded("gzip", PACKED.to_vec()), "`content-encoding: gzip`", "turn compression off"),
        ("packed, unsaid", Lie::Bytes(PACKED.to_vec()), "gzip-compressed", "turn compression off"),
        ("as some shells write", Lie::Bytes(b"\xff\xfe{\0}\0".to_vec()), "text in UTF-16", "byte for byte"),
        ("the same without a mark", Lie::Bytes(b"{\0\"\0s\0\"\0".to_vec()), "text in UTF-16", "byte for byte"),
        ("a page that is XML", Lie::Bytes(XHTML.to_vec()), "a web page in place of the file", "sign in"),
        ("nothing", Lie::Bytes(Vec::new()), "empty", "an upload that was cut off"),
        ("nothing, said", Lie::Status(204), "204 No Content, with which no file comes", "check the address"),
        ("a challenge", Lie::Status(202), "202 Accepted, with which no file comes", "check the address"),
        ("a network that wants a visit", Lie::Status(511), "511 Network Authentication Required", "in a browser"),
        ("a proxy", Lie::Status(407), "407 Proxy Authentication Required", "HTTPS_PROXY"),
        ("who asks", Lie::Status(401), "401 Unauthorized", "https://user:password@host/path"),
    ];
    let named = |case: &str, path: &str, fault: &Fault, says: &str, next: &str| {
        assert_eq!(fault.code, Code::RepositoryUnreachable, "{case} for {path}: {fault}");
        assert!(fault.message.contains(says) && fault.message.contains(path), "{case} for {path}: {fault}");
        assert!(fault.hint.as_ref().is_some_and(|hint| hint.contains(next)), "{case} for {path}: {fault:?}");
    };
    for (at, (case, lie, says, next)) in table.iter().enumerate() {
        for path in ["metadata/timestamp.json", &format!("metadata/{snapshot}"), &format!("metadata/{root}")] {
            let server = Server::serve(world.repo.clone()).await;
            server.lie(path, lie.clone());
            let home = world.home(&format!("home{at}")).await;
            let fault = resolve(&mut open(&home, &server.url).await, "hob/echo").await.expect_err(case);
            named(case, path, &fault, says, next);
        }
        let home = world.home(&format!("whole{at}")).await;
        let mut client = open(&home, &server.url).await;
        let resolved = resolve(&mut client, "hob/echo").await.unwrap();
        server.lie(&bundle, lie.clone());
        named(case, &bundle, &client.fetch_bundle(&resolved, &Silent).await.expect_err(case), says, next);
        let asked = server.asked().len();
        let dest = world.folder.path().join(format!("model{at}"));
        client.fetch_model(&resolved, model, &dest, &Silent).await.unwrap();
        let weights = server.asked()[asked..].iter().find(|path| path.contains(&model.sha256.hex())).cloned().unwrap_or(weights.clone());
        fs::remove_file(&dest).unwrap();
        server.lie(&weights, lie.clone());
        named(case, &weights, &client.fetch_model(&resolved, model, &dest, &Silent).await.expect_err(case), says, next);
        assert!(!dest.exists(), "{case}");
        server.lie(&weights, Lie::Busy(0));
    }
}

/// A byte order mark before metadata is no attack: an editor or a tool added it. A mark before a bundle
/// proves nothing.
#[tokio::test]
async fn metadata_with_a_byte_order_mark_is_told_as_that() {
    let world = World::new().await;
    let file = world.current("snapshot");
    let good = fs::read(world.repo.join("metadata").join(&file)).unwrap();
    let server = Server::serve(world.repo.clone()).await;
    server.lie(&format!("metadata/{file}"), Lie::Bytes(["\u{feff}".as_bytes(), &good].concat()));
    let home = world.home("home").await;
    let fault = resolve(&mut open(&home, &server.url).await, "hob/echo").await.unwrap_err();
    assert_eq!(fault.code, Code::RepositoryUnreachable, "{fault}");
    assert!(fault.message.contains("text with a byte order mark before it") && fault.hint.unwrap().contains("byte for byte"));
}

#[tokio::test]
async fn every_right_manner_of_answering_will_do() {
    let world = World::new().await;
    let packed = pack(&world.recipe("hob/echo", "0.1.0")).unwrap();
    for manner in [Manner::Plain, Manner::WithoutLength, Manner::Chunked, Manner::Forbids, Manner::Six] {
        let server = Server::serve_as(world.repo.clone(), manner).await;
        let home = world.home(&format!("{manner:?}")).await;
        let mut client = open(&home, &server.url).await;
        let resolved = resolve(&mut client, "hob/echo").await.unwrap_or_else(|fault| panic!("{manner:?}: {fault}"));
        assert_eq!(client.fetch_bundle(&resolved, &Silent).await.unwrap(), packed.bytes, "{manner:?}");
        let dest = world.folder.path().join(format!("model-{manner:?}"));
        client
            .fetch_model(&resolved, &packed.manifest.models[0], &dest, &Silent)
            .await
            .unwrap_or_else(|fault| panic!("{manner:?}: {fault}"));
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_not_for_ever() {
    let world = World::new().await;
    let server = Server::serve(world.repo.clone()).await;
    let packed = pack(&world.recipe("hob/echo", "0.1.0")).unwrap();
    let bundle = format!("targets/hob/echo/{}.0.1.0.hob", packed.digest());
    let snapshot = format!("metadata/{}", world.current("snapshot"));
    for path in ["metadata/timestamp.json", &snapshot, &bundle] {
        server.lie(path, Lie::Busy(2));
    }
    let home = world.home("home").await;
    let mut client = open(&home, &server.url).await;
    let resolved = resolve(&mut client, "hob/echo").await.unwrap();
    assert_eq!(client.fetch_bundle(&resolved, &Silent).await.unwrap(), packed.bytes);
    for path in ["metadata/timestamp.json", &snapshot, &bundle] {
        assert_eq!(server.asked().iter().filter(|asked| *asked == path).count(), 3, "{path}");
    }
    server.lie(&bundle, Lie::Busy(usize::MAX));
    let fault = client.fetch_bundle(&resolved, &Silent).await.unwrap_err();
    assert!(fault.code == Code::RepositoryUnreachable && fault.message.contains("it answered 503 Service Unavailable, 4 times"), "{fault}");
}

#[tokio::test]
async fn targets_may_lie_elsewhere_and_metadata_may_not() {
    let world = World::new().await;
    let (server, store) = (Server::serve(world.repo.clone()).await, Server::serve(world.repo.clone()).await);
    let packed = pack(&world.recipe("hob/echo", "0.1.0")).unwrap();
    let bundle = format!("targets/hob/echo/{}.0.1.0.hob", packed.digest());
    server.lie(&bundle, Lie::Redirect(format!("{}{bundle}", store.url)));
    let home = world.home("home").await;
    let mut client = open(&home, &server.url).await;
    let resolved = resolve(&mut client, "hob/echo").await.unwrap();
    assert_eq!(client.fetch_bundle(&resolved, &Silent).await.unwrap(), packed.bytes);
    assert_eq!(store.asked(), std::slice::from_ref(&bundle));
    // Bytes from there must have the same digest.
    store.lie(&bundle, Lie::Bytes(b"other bytes".to_vec()));
    assert_ne!(client.fetch_bundle(&resolved, &Silent).await.unwrap_err().code, Code::RepositoryUnreachable);
    server.lie(&bundle, Lie::Redirect("ftp://127.0.0.1/x".into()));
    let fault = client.fetch_bundle(&resolved, &Silent).await.unwrap_err();
    assert!(fault.message.contains("may not go"), "{fault}");
    server.lie("metadata/timestamp.json", Lie::Redirect(server.url.replacen("http:", "https:", 1) + "metadata/timestamp.json"));
    let fault = open(&world.home("other").await, &server.url).await.refresh().await.unwrap_err();
    assert!(
        fault.message.contains("the same host over `https:`") && fault.hint.as_ref().is_some_and(|hint| hint.contains("`https:`")),
        "{fault}"
    );
}

#[tokio::test]
async fn a_plus_in_a_version_is_one_for_object_stores() {
    let world = World::new().await;
    let server = Server::serve(world.repo.clone()).await;
    world.publish("hob/echo", "0.2.0+cpu").await.unwrap();
    let packed = pack(&world.recipe("hob/echo", "0.2.0+cpu")).unwrap();
    let home = world.home("home").await;
    let mut client = open(&home, &server.url).await;
    let resolved = resolve(&mut client, "hob/echo").await.unwrap();
    assert_eq!(client.fetch_bundle(&resolved, &Silent).await.unwrap(), packed.bytes);
    assert!(server.asked().iter().any(|path| path.ends_with("0.2.0%2Bcpu.hob")), "{:?}", server.asked());
}

/// A wrong label does not matter if the bytes are the signed ones. Other bytes of the signed length were made
/// to look like them.
#[tokio::test]
async fn a_label_refuses_nothing_that_is_right_and_excuses_nothing_that_was_changed() {
    let world = World::new().await;
    let server = Server::serve(world.repo.clone()).await;
    let packed = pack(&world.recipe("hob/echo", "0.1.0")).unwrap();
    let bundle = format!("targets/hob/echo/{}.0.1.0.hob", packed.digest());
    for how in ["x-gzip", "aws-chunked", "utf-8", ""] {
        for path in ["metadata/timestamp.json", &format!("metadata/{}", world.current("snapshot")), &bundle] {
            server.lie(path, Lie::Called(how));
        }
        let home = world.home(&format!("home-{how}")).await;
        let mut client = open(&home, &server.url).await;
        let resolved = resolve(&mut client, "hob/echo").await.unwrap();
        assert_eq!(client.fetch_bundle(&resolved, &Silent).await.unwrap(), packed.bytes, "{how}");
        let mut changed = packed.bytes.clone();
        changed[..2].copy_from_slice(b"\x1f\x8b");
        server.lie(&bundle, Lie::Encoded("gzip", changed));
        let fault = client.fetch_bundle(&resolved, &Silent).await.unwrap_err();
        assert_ne!(fault.code, Code::RepositoryUnreachable, "{fault}");
        assert_eq!(fault.detail["signed_sha256"], packed.digest().hex());
        let model = &packed.manifest.models[0];
        let dest = world.folder.path().join("model");
        client.fetch_model(&resolved, model, &dest, &Silent).await.unwrap();
        fs::remove_file(&dest).unwrap();
        let weights = server.asked().last().unwrap().clone();
        server.lie(&weights, Lie::Encoded("gzip", [b"\x1f\x8b".as_slice(), &vec![0; model.bytes as usize - 2]].concat()));
        assert_eq!(client.fetch_model(&resolved, model, &dest, &Silent).await.unwrap_err().code, Code::Tampered);
        server.lie(&weights, Lie::Busy(0));
        server.lie(&bundle, Lie::Busy(0));
    }
}

#[tokio::test]
async fn a_password_goes_along_where_the_own_host_redirects_and_nowhere_else() {
    let world = World::new().await;
    let (server, store) = (Server::serve(world.repo.clone()).await, Server::serve(world.repo.clone()).await);
    let packed = pack(&world.recipe("hob/echo", "0.1.0")).unwrap();
    let bundle = format!("targets/hob/echo/{}.0.1.0.hob", packed.digest());
    let files = ["timestamp.json".to_owned(), world.current("snapshot"), world.current("targets"), world.current("hob")];
    for file in &files {
        server.lie(&format!("moved/metadata/{file}"), Lie::Redirect(format!("{}metadata/{file}", server.url)));
        server.lie(&format!("metadata/{file}"), Lie::Asks);
    }
    server.lie(&format!("moved/{bundle}"), Lie::Redirect(format!("{}{bundle}", store.url)));
    store.lie(&bundle, Lie::Asks);
    let home = world.home("home").await;
    let url = server.url.replacen("http://", "http://ci:pw@", 1) + "moved/";
    let mut client = open(&home, &url).await;
    let resolved = resolve(&mut client, "hob/echo").await.unwrap();
    // Another host is not told the password, and asks for it in vain.
    let fault = client.fetch_bundle(&resolved, &Silent).await.unwrap_err();
    assert!(fault.message.contains("401") && !fault.to_string().contains("pw"), "{fault}");
    store.lie(&bundle, Lie::Busy(0));
    assert_eq!(client.fetch_bundle(&resolved, &Silent).await.unwrap(), packed.bytes);
}
