//! Strangers, slow readers and kills at once, against a real server: a caller with the token gets an answer,
//! or is told when to come back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{Dice, alone, soak_rounds, soak_seconds};
use crate::cli::{
    calling::with_echo,
    rig::write_recipe,
    served::{Serving, general, request},
};

/// Yields many chunks to any caller, and is killed meanwhile.
const LOUD: &str = r#"
class Subject:
    def run(self, input):
        for n in range(input["chunks"]):
            yield "x" * 65536
"#;

/// With fewer calls it was no storm.
const CALLS_MIN: usize = 20;

/// No proper caller waits longer than this, on a machine that does other work besides.
const ANSWER_S: u64 = 30;

#[derive(Default)]
struct Told {
    /// Number of answers by status and code.
    answers: Mutex<BTreeMap<String, usize>>,
    waits: Mutex<Vec<Duration>>,
    /// Connections of strangers that were closed by the server.
    evicted: AtomicUsize,
    read: AtomicUsize,
    kills: AtomicUsize,
}

#[test]
fn a_good_caller_is_answered_among_strangers_slow_readers_and_kills() {
    // In a soak, 2,000 strangers and 100 slow readers; else fewer, but more than the share of connections
    // that they may have.
    let (strangers, readers) = if soak_rounds(0) > 0 { (2_000, 100) } else { (600, 10) };
    alone("storms::strangers::a_good_caller_is_answered_among_strangers_slow_readers_and_kills", 240, || storm(strangers, readers));
}

async fn storm(strangers: usize, readers: usize) {
    // All of them belong to this process.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).unwrap();
    let (rig, signed) = with_echo();
    let folder = signed.folder.path().join("loud");
    write_recipe(&folder, "lab/loud", "0.1.0", LOUD, "python = \">=3.9\"");
    let manifest = std::fs::read_to_string(folder.join("recipe.toml")).unwrap();
    std::fs::write(folder.join("recipe.toml"), format!("{manifest}\nstreaming = true\n")).unwrap();
    signed.publish(&folder);
    rig.hob(&["add", "lab/loud"]).well();
    let mut serving = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    let address: Arc<str> = serving.address.clone().unwrap().into();
    let token: Arc<str> = std::fs::read_to_string(serving.token.as_ref().unwrap()).unwrap().into();
    let (told, over) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
    let mut dice = Dice::new();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..strangers {
        tasks.spawn(stranger(number, address.clone(), told.clone(), over.clone()));
    }
    for _ in 0..readers {
        tasks.spawn(slow_reader(address.clone(), token.clone(), told.clone(), over.clone()));
    }
    for _ in 0..4 {
        tasks.spawn(good_caller(address.clone(), token.clone(), told.clone(), over.clone()));
    }
    let end = Instant::now() + soak_seconds(4.0);
    // Lasts until it is a storm, however busy the machine is.
    let is_storm = || told.waits.lock().unwrap().len() >= CALLS_MIN && told.kills.load(Ordering::Relaxed) > 0;
    while Instant::now() < end || (!is_storm() && Instant::now() < end + Duration::from_secs(60)) {
        sleep(Duration::from_millis(200 + dice.below(300))).await;
        for pid in pods_of(&serving, "lab/loud").await {
            if crate::support::is_of(pid, &rig.home) {
                crate::cli::rig::signal(pid, Signal::KILL);
                told.kills.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    over.store(true, Ordering::Release);
    let end = async { while tasks.join_next().await.is_some() {} };
    timeout(Duration::from_secs(2 * ANSWER_S), end).await.expect("somebody hangs");
    let mut waits = std::mem::take(&mut *told.waits.lock().unwrap());
    waits.sort_unstable();
    let answers = told.answers.lock().unwrap().clone();
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    println!(
        "{strangers} strangers ({} closed), {readers} slow readers ({} KiB read), {} kills; good callers: {answers:?}, median {:?}, p99 {:?}, \
         worst {:?}",
        count(&told.evicted),
        count(&told.read) >> 10,
        count(&told.kills),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits[waits.len() - 1]
    );
    assert!(waits.len() >= CALLS_MIN && count(&told.kills) > 0 && count(&told.read) > 0, "it was no storm");
    assert!(count(&told.evicted) > 0, "the strangers never filled their part");
    assert!(answers.keys().all(|answer| ["200", "429 overloaded"].contains(&answer.as_str())), "{answers:?}");
    assert!(answers.contains_key("200"), "{answers:?}");
    assert_eq!(tokio::task::spawn_blocking(move || serving.end(Signal::TERM, 60).code()).await.unwrap(), Some(0));
}

/// Connects, sends nothing, half of a head, or a wrong token, and stays; when the server closes it, it
/// connects again.
async fn stranger(number: usize, address: Arc<str>, told: Arc<Told>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Acquire) {
        let Ok(mut stream) = TcpStream::connect(&*address).await else { continue };
        let said: &[u8] = match number % 20 {
            0..10 => b"",
            10..19 => b"POST /v1/calls HTTP/1.1\r\nhost: x\r\n",
            _ => b"GET /v1/status HTTP/1.1\r\nhost: x\r\nauthorization: Bearer 0\r\n\r\n",
        };
        let _ = stream.write_all(said).await;
        let mut buffer = [0; 1_024];
        loop {
            match timeout(Duration::from_millis(200), stream.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Err(_) if over.load(Ordering::Acquire) => return,
                Ok(Ok(_)) | Err(_) => {}
            }
        }
        if number % 20 < 19 {
            told.evicted.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Requests a stream of chunks, and takes a little of it now and then.
async fn slow_reader(address: Arc<str>, token: Arc<str>, told: Arc<Told>, over: Arc<AtomicBool>) {
    let head = format!("POST /v1/calls\nauthorization: Bearer {token}");
    let bytes = request(&head, &general("lab/loud", "run", &json!({ "chunks": 10_000 })));
    while !over.load(Ordering::Acquire) {
        let Ok(mut stream) = TcpStream::connect(&*address).await else { continue };
        let _ = stream.write_all(&bytes).await;
        let mut buffer = [0; 1_024];
        while !over.load(Ordering::Acquire) {
            match timeout(Duration::from_millis(500), stream.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(read)) => drop(told.read.fetch_add(read, Ordering::Relaxed)),
                Err(_) => {}
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Makes calls repeatedly, each on a connection of its own.
async fn good_caller(address: Arc<str>, token: Arc<str>, told: Arc<Told>, over: Arc<AtomicBool>) {
    let head = format!("POST /v1/recipes/hob/echo/echo\nauthorization: Bearer {token}");
    let bytes = request(&head, br#"{"text": "hello"}"#);
    while !over.load(Ordering::Acquire) {
        let begun = Instant::now();
        let mut said = Vec::new();
        let asked = async {
            let mut stream = TcpStream::connect(&*address).await?;
            stream.write_all(&bytes).await?;
            stream.read_to_end(&mut said).await
        };
        let asked = timeout(Duration::from_secs(ANSWER_S), asked).await;
        told.waits.lock().unwrap().push(begun.elapsed());
        let text = String::from_utf8_lossy(&said);
        let status = text.split(' ').nth(1).unwrap_or("none");
        let answer = match (asked, status) {
            (Err(_), _) => "no answer in time".to_owned(),
            (Ok(_), "200") if text.ends_with("{\"length\":5}") => "200".to_owned(),
            (Ok(_), "429") if text.contains("\"overloaded\"") && text.contains("retry-after: ") => "429 overloaded".to_owned(),
            (Ok(end), _) => format!("{end:?} {text}"),
        };
        *told.answers.lock().unwrap().entry(answer).or_default() += 1;
        sleep(Duration::from_millis(20)).await;
    }
}

/// The processes of a recipe's pods, as the server reports them over its socket.
async fn pods_of(serving: &Serving, recipe: &str) -> Vec<u32> {
    let mut stream = tokio::net::UnixStream::connect(&serving.socket).await.unwrap();
    stream.write_all(&request("GET /v1/pods", b"")).await.unwrap();
    let mut said = String::new();
    timeout(Duration::from_secs(ANSWER_S), stream.read_to_string(&mut said)).await.expect("`hob pods` is not answered").unwrap();
    let Some((_, body)) = said.split_once("\r\n\r\n") else { return Vec::new() };
    let pods: serde_json::Value = serde_json::from_str(body).unwrap();
    let pods = pods.as_array().unwrap().iter().filter(|pod| pod["recipe"] == recipe);
    pods.filter_map(|pod| pod["pid"].as_u64().map(|pid| pid as u32)).collect()
}
