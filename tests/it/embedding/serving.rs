//! An app that serves its host over HTTP: who may connect, what ends with the server, and what continues
//! after it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::Duration,
};

use hob::{
    Call, Code, Config, Home, Host, Limits,
    http::{self, Listen, Token},
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use crate::support::{Rig, within};

const TOKEN: &str = "0123456789-abcdefghijklmnopqrstuvwxyz";
const SLEEPS: &str = "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return input\n";

/// A host on the rig's home that gives calls `drain` to finish.
async fn host(rig: &Rig, drain: Duration) -> Host {
    let config = Config::new(Home::at(rig.folder.path().join("home"))).with_hob(env!("CARGO_BIN_EXE_hob"));
    Host::open(config.with_limits(Limits::default().with_drain(drain))).await.unwrap()
}

/// Sends a request, and returns everything that comes until the server closes the connection.
fn exchanged(mut stream: impl Read + Write, request: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let sent = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(sent.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A connection that was cut may end with an error.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// The same over TCP, with a token.
fn asked(address: SocketAddr, token: &str, request: &str, body: &str) -> JoinHandle<String> {
    let (headers, request, body) = (format!("authorization: Bearer {token}\r\n"), request.to_owned(), body.to_owned());
    spawn_blocking(move || exchanged(TcpStream::connect(address).unwrap(), &request, &headers, &body))
}

/// Returns a port, and a server on it that ends when the sender is dropped.
fn served(host: &Host, listen: Listen) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<Result<(), hob::Fault>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listen = listen.on(listener, Token::of(TOKEN).unwrap());
    let (stop, stopped) = oneshot::channel();
    let host = host.clone();
    let end = async { drop(stopped.await) };
    (address, stop, tokio::spawn(async move { http::serve(&host, listen, end).await }))
}

async fn is_busy(host: &Host) {
    within(60, "the call runs", || host.pods().iter().any(|pod| pod.state == "busy")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_serves_its_host_until_it_wants_no_more() {
    let rig = Rig::new().await;
    let name = rig.install(&rig.python("sleeps", SLEEPS, false)).await;
    let route = format!("POST /v1/recipes/{name}/run");
    let own = host(&rig, Duration::from_millis(300)).await;
    let socket = rig.folder.path().join("own.socket");
    let (address, stop, server) = served(&own, Listen::new().at_socket(&socket));

    // Over TCP with the token only, over the socket without one.
    let answer = asked(address, TOKEN, &route, "0").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n0"), "{answer}");
    let answer = asked(address, "another", &route, "0").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("\"unauthorized\"") && !answer.contains(TOKEN), "{answer}");
    let stream = UnixStream::connect(&socket).unwrap();
    let answer = spawn_blocking(move || exchanged(stream, "GET /readyz", "", "")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{\"ready\":true}"), "{answer}");

    // When the server ends, a call has the app's time to finish; then its caller is told, over either route.
    let plain = asked(address, TOKEN, &route, "600");
    let body = format!("{{\"recipe\": \"{name}\", \"operation\": \"run\", \"input\": 600}}");
    let general = asked(address, TOKEN, "POST /v1/calls", &body);
    within(60, "both calls are there", || own.status().calls_running == 2).await;
    is_busy(&own).await;
    drop(stop);
    for answer in [plain.await.unwrap(), general.await.unwrap()] {
        assert!(answer.contains("\"shutting_down\"") && answer.contains("in the time that was left"), "{answer}");
    }
    server.await.unwrap().unwrap();
    within(60, "nobody listens there", || TcpStream::connect(address).is_err() && !socket.exists()).await;
    // Their work is cancelled, and the host continues.
    assert_eq!(own.call_typed::<u32>(Call::new(&name.to_string(), "run", 0).unwrap()).await.unwrap(), 0);
    own.shutdown().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_dropped_is_gone_with_the_calls_that_came_over_it() {
    let rig = Rig::new().await;
    let name = rig.install(&rig.python("sleeps", SLEEPS, false)).await;
    let own = host(&rig, Duration::from_secs(600)).await;
    let (address, _stop, server) = served(&own, Listen::new());
    let answer = asked(address, TOKEN, &format!("POST /v1/recipes/{name}/run"), "600");
    is_busy(&own).await;
    server.abort();
    assert_eq!(answer.await.unwrap(), "", "its connection is closed");
    within(60, "its call is cancelled", || own.status().calls_running == 0).await;
    within(60, "nobody listens there", || TcpStream::connect(address).is_err()).await;
    own.shutdown_within(Duration::ZERO).await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_finds_an_app_that_serves_at_home_and_no_other_serves_there() {
    let rig = Rig::new().await;
    let name = rig.install(&rig.python("sleeps", SLEEPS, false)).await;
    let own = host(&rig, Duration::from_secs(10)).await;
    let (_, stop, server) = served(&own, Listen::new().at_home());
    let home = rig.folder.path().join("home");
    within(60, "it is there", || home.join("state/serve/socket").exists()).await;
    let ran = |words: &'static [&'static str]| {
        let (name, home) = (name.to_string(), home.clone());
        spawn_blocking(move || {
            let words = words.iter().map(|word| if *word == "NAME" { &name } else { *word });
            Command::new(env!("CARGO_BIN_EXE_hob")).args(words).env("HOB_HOME", &home).output().unwrap()
        })
    };
    let called = ran(&["call", "NAME", "run", "0"]).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&called.stdout), "0\n", "{called:?}");
    assert!(own.journal().iter().any(|record| record.recipe == name.to_string()), "it was this host that answered");
    let second = http::serve(&own, Listen::new().at_home(), std::future::ready(())).await.unwrap_err();
    assert_eq!(second.code, Code::AlreadyServing, "{second}");
    let program = ran(&["serve"]).await.unwrap();
    assert!(String::from_utf8_lossy(&program.stderr).contains("error[already_serving]"), "{program:?}");
    drop(stop);
    server.await.unwrap().unwrap();
    // Now it is free.
    http::serve(&own, Listen::new().at_home(), std::future::ready(())).await.unwrap();
    own.shutdown().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_is_said() {
    let rig = Rig::new().await;
    let nowhere = http::serve(&rig.host, Listen::new(), std::future::ready(())).await.unwrap_err();
    assert!(nowhere.code == Code::Usage && nowhere.message.contains("nowhere"), "{nowhere}");
    let file = rig.folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let taken = http::serve(&rig.host, Listen::new().at_socket(&file), std::future::ready(())).await.unwrap_err();
    assert!(taken.code == Code::Usage && taken.message.contains("is no socket"), "{taken}");
    let missing = http::serve(&rig.host, Listen::new().at_socket(Path::new("/nowhere/x")), std::future::ready(())).await.unwrap_err();
    assert!(missing.code == Code::Usage && missing.message.contains("there is no folder /nowhere"), "{missing}");
    let guessed = Token::of("guess me").unwrap_err();
    assert!(guessed.code == Code::Usage && guessed.message.contains("wanted 32 to 256"), "{guessed}");
    rig.close().await;
}
