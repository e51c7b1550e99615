//! A loopback web server whose every answer is chosen by the test, byte for byte; it records its requests and
//! what it sent.
//!
//! It is written with threads and sockets, because no framework breaks off on demand, and these tests wait
//! for real processes.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A client that waits longer than this hangs.
const SECONDS: u64 = 60;

/// One request, and the number of body bytes that were sent back.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub head: HashMap<String, String>,
    sent: Arc<AtomicU64>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name).map(String::as_str)
    }

    /// The first byte of the requested range.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

/// What the server does after the first bytes of a reply.
#[derive(Clone)]
pub enum Then {
    Close,
    /// Sends nothing, until the client gives up.
    Silence,
    /// Sends nothing until the gate is open; then the rest.
    Wait(Gate),
}

/// A gate, closed at first.
#[derive(Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    pub fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    /// The value of `content-length`; `None`: the body ends with the connection.
    pub length: Option<u64>,
    /// The number of body bytes that are sent at first.
    pub first: usize,
    pub then: Then,
}

impl Reply {
    pub fn new(status: u16, headers: &[&str], body: &[u8]) -> Reply {
        let headers = headers.iter().map(|header| (*header).to_owned()).collect();
        Reply { status, headers, body: body.to_vec(), length: Some(body.len() as u64), first: body.len(), then: Then::Close }
    }

    /// Breaks off after this many bytes of the body.
    pub fn cut(mut self, first: usize) -> Reply {
        self.first = first;
        self
    }

    pub fn then(mut self, first: usize, then: Then) -> Reply {
        (self.first, self.then) = (first, then);
        self
    }
}

/// The answer of a proper file server: the file, or the requested rest of it if the file is still the same.
pub fn honest(seen: &Seen, file: &[u8], etag: &str) -> Reply {
    let tag = format!("etag: {etag}");
    let same = seen.header("if-range").is_none_or(|mark| mark == etag);
    match seen.from() {
        Some(from) if same && from < file.len() => {
            let range = format!("content-range: bytes {from}-{}/{}", file.len() - 1, file.len());
            Reply::new(206, &[&tag, &range], &file[from..])
        }
        Some(_) if same => Reply::new(416, &[], b""),
        _ => Reply::new(200, &[&tag, "accept-ranges: bytes"], file),
    }
}

pub fn redirect(to: &str) -> Reply {
    Reply::new(302, &[&format!("location: {to}")], b"elsewhere")
}

type Script = Arc<dyn Fn(&Seen, usize) -> Reply + Send + Sync>;

pub struct Server {
    pub url: String,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    over: Arc<AtomicBool>,
}

impl Server {
    /// Answers each request as `script` says, which also gets the number of earlier requests.
    pub fn new(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (script, seen): (Script, Arc<Mutex<Vec<Seen>>>) = (Arc::new(script), Arc::default());
        let server = Server { url, script: Arc::new(Mutex::new(script)), seen: seen.clone(), over: Arc::default() };
        let (script, over) = (server.script.clone(), server.over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (script, seen, over) = (script.lock().unwrap().clone(), seen.clone(), over.clone());
                // Many of these tests want a client that is killed or hangs up.
                std::thread::spawn(move || drop(answer(stream, &*script, &seen, &over)));
            }
        });
        server
    }

    /// Answers as `script` says from now on.
    pub fn answer(&self, script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The number of body bytes sent in total.
    pub fn sent(&self) -> u64 {
        self.seen().iter().map(Seen::sent).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Connects once more, because the listener waits for a connection.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

fn answer(
    mut stream: TcpStream,
    script: &(dyn Fn(&Seen, usize) -> Reply + Send + Sync),
    log: &Mutex<Vec<Seen>>,
    over: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(SECONDS)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 65_536 {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let head = lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let seen = Seen { path, head, sent: Arc::default() };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    let reply = script(&seen, before);
    let mut text = format!("HTTP/1.1 {} Reply\r\nconnection: close\r\n", reply.status);
    reply.headers.iter().for_each(|header| text.push_str(&format!("{header}\r\n")));
    if let Some(length) = reply.length {
        text.push_str(&format!("content-length: {length}\r\n"));
    }
    stream.write_all(format!("{text}\r\n").as_bytes())?;
    let (first, rest) = reply.body.split_at(reply.first.min(reply.body.len()));
    send(&mut stream, first, &seen)?;
    match reply.then {
        Then::Close => {}
        Then::Silence => drop(stream.read(&mut byte)),
        Then::Wait(gate) => {
            let end = Instant::now() + Duration::from_secs(SECONDS);
            while !gate.0.load(Ordering::SeqCst) && !over.load(Ordering::SeqCst) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
            send(&mut stream, rest, &seen)?;
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // Closing a connection with unread bytes resets it, which would lose the bytes sent last.
    let _ = stream.read(&mut byte);
    Ok(())
}

fn send(stream: &mut TcpStream, bytes: &[u8], seen: &Seen) -> std::io::Result<()> {
    for part in bytes.chunks(16 << 10) {
        stream.write_all(part)?;
        seen.sent.fetch_add(part.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}
