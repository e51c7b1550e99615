//! Tests of a pod's network access, with real connections on the loopback.
//!
//! The name server is made up, because the important ones here are those that lie.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    model::limits::{EGRESS_HEAD_BYTES_MAX, EGRESS_REFUSALS_MAX},
    pod::sandbox::egress::*,
};

/// Longer than any test should take; each waits for an event and not for a time.
const LONG: Duration = Duration::from_secs(20);

/// A name server with an answer for each lookup; the last answer serves all later ones. `None`: it does not
/// answer at all.
struct Names(Vec<Option<Vec<SocketAddr>>>, Arc<AtomicUsize>);

impl Resolve for Names {
    async fn resolve(&self, _: &Endpoint) -> io::Result<Vec<SocketAddr>> {
        let asked = self.1.fetch_add(1, Ordering::Relaxed);
        match self.0.get(asked).or(self.0.last()) {
            Some(Some(addresses)) => Ok(addresses.clone()),
            Some(None) => std::future::pending().await,
            None => Err(io::Error::other("no such name")),
        }
    }
}

struct Out {
    egress: Egress,
    at: SocketAddr,
    lookups: Arc<AtomicUsize>,
}

fn patience() -> Patience {
    Patience { head: Duration::from_millis(300), lookup: Duration::from_millis(300), ..Patience::default() }
}

fn out_with(allowed: &[String], answers: Vec<Option<Vec<SocketAddr>>>, patience: Patience) -> Out {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let lookups = Arc::new(AtomicUsize::new(0));
    let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
    let egress = Egress::start(listener.into(), allowed, "acme/x".into(), Names(answers, lookups.clone()), patience).unwrap();
    Out { egress, at, lookups }
}

fn out(allowed: &[String]) -> Out {
    out_with(allowed, Vec::new(), patience())
}

impl Out {
    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    /// Sends `request` and reads to the end.
    async fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.open().await;
        // A request that is refused midway may not take the rest.
        let _ = stream.write_all(request.as_ref()).await;
        all(&mut stream).await
    }
}

async fn all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("it neither answered nor closed");
    String::from_utf8(bytes).unwrap()
}

async fn head(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        text.push(timeout(LONG, stream.read_u8()).await.unwrap().unwrap() as char);
    }
    text
}

/// A server that answers each connection with `answer` once it has read `until`, and reports what it read.
async fn server(until: &'static str, answer: &'static str) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = Vec::new();
            while !String::from_utf8_lossy(&read).ends_with(until) {
                if stream.read_buf(&mut read).await.unwrap() == 0 {
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            if tell.send(String::from_utf8(read).unwrap()).await.is_err() {
                return;
            }
        }
    });
    (at, told)
}

#[tokio::test]
async fn a_server_that_only_ever_promises_an_answer_is_left() {
    let early = "HTTP/1.1 102 Processing\r\n\r\n";
    let usual = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let (at, _told) = server("\r\n\r\n", usual).await;
    let answer = out(&[at.to_string()]).ask(format!("GET http://{at}/ HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hi"), "{answer}");

    // All at once, with the answer behind them.
    let (at, _told) = server("\r\n\r\n", format!("{}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", early.repeat(64)).leak()).await;
    for _ in 0..8 {
        let answer = out(&[at.to_string()]).ask(format!("GET http://{at}/ HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("more than 16 times"), "{answer}");
    }

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let promising = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = 0_u64;
        // For as long as the other side reads it.
        while stream.write_all(early.repeat(64).as_bytes()).await.is_ok() {
            sent += 64;
        }
        sent
    });
    let answer = out(&[at.to_string()]).ask(format!("GET http://{at}/ HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("more than 16 times"), "{answer}");
    assert!(timeout(LONG, promising).await.expect("it is read for ever").unwrap() >= 64);
}

#[tokio::test]
async fn a_request_without_a_path_asks_for_the_root() {
    for address in ["", "#x", "/#x"] {
        let (at, mut told) = server("\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let answer = out(&[at.to_string()]).ask(format!("GET http://{at}{address} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        if answer.starts_with("HTTP/1.1 200 ") {
            let asked = told.recv().await.unwrap();
            assert!(asked.starts_with("GET / HTTP/1.1\r\n"), "{address}: {asked}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 400 "), "{address}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_tunnel_carries_bytes_and_half_closes_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap();
    let out = out(&[there.to_string()]);
    let mut stream = out.open().await;
    // The first bytes of the tunnel may come with the head.
    stream.write_all(format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\nearly").as_bytes()).await.unwrap();
    let (mut other, _) = listener.accept().await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("close"), "{answer}");
    stream.write_all(b" and late").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(all(&mut other).await, "early and late");
    let large = "x".repeat(1 << 20);
    other.write_all(large.as_bytes()).await.unwrap();
    drop(other);
    assert!(all(&mut stream).await == large);
    assert_eq!((out.egress.refused(), out.lookups.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn a_request_is_carried_to_whom_its_uri_names_and_to_nobody_else() {
    let (there, mut told) = server(
        "\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nhi",
    )
    .await;
    let out = out(&[there.to_string()]);
    let request = format!(
        "GET http://{there}/a?b=c HTTP/1.1\r\nHost: 169.254.169.254\r\nProxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\n\
         Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Kept: yes\r\nUpgrade: h2c\r\nTE: trailers\r\n\r\nGET http://{there}/second HTTP/1.1\r\n\r\n"
    );
    let answer = out.ask(request).await.to_lowercase();
    // The client has to ask for the place where it leads next.
    assert!(answer.starts_with("http/1.1 302 found\r\n") && answer.ends_with("\r\n\r\nhi"), "{answer}");
    assert!(answer.contains("location: http://10.0.0.1/\r\n") && answer.contains("connection: close\r\n") && !answer.contains("x-hop"));
    let seen = told.recv().await.unwrap().to_lowercase();
    assert!(seen.starts_with("get /a?b=c http/1.1\r\n") && seen.contains(&format!("host: {there}\r\n")), "{seen}");
    assert!(seen.contains("x-kept: yes\r\n") && seen.contains("connection: close\r\n"), "{seen}");
    for gone in ["169.254", "proxy-", "x-mine", "upgrade", "te:", "keep-alive", "second"] {
        assert!(!seen.contains(gone), "`{gone}` in {seen}");
    }
}

#[tokio::test]
async fn a_body_is_carried_as_it_was_read_and_cannot_hide_a_second_request() {
    let (there, mut told) = server("0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let out = out(&[there.to_string()]);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    let request = format!(
        "POST http://{there}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{hidden}"
    );
    let answer = out.ask(request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("2\r\nok\r\n0\r\n\r\n"), "{answer}");
    let seen = told.recv().await.unwrap().to_lowercase();
    assert!(!seen.contains("hidden") && !seen.contains("content-length") && seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{seen}");
    // The length in an answer without a body is that of the body which it would have had.
    let (there, _told) = server("\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    let out = out_with(&[there.to_string()], Vec::new(), patience());
    let answer = out.ask(format!("HEAD http://{there}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200 ok\r\n") && answer.contains("content-length: 5\r\n"), "{answer}");
    // A client that waits for permission to send gets it, and a client whose sending side is closed is
    // answered.
    let (there, mut told) = server("body", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let out = out_with(&[there.to_string()], Vec::new(), patience());
    let mut stream = out.open().await;
    let request = format!("PUT http://{there}/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(all(&mut stream).await.ends_with("\r\n\r\nok"));
    let seen = told.recv().await.unwrap().to_lowercase();
    assert!(seen.contains("content-length: 4\r\n") && !seen.contains("expect"), "{seen}");
}

#[tokio::test]
async fn what_was_not_granted_is_refused_with_what_to_do() {
    let (there, mut told) = server("\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let out = out(&["a.example:443".into(), "127.0.0.1:1".into()]);
    for request in [
        format!("CONNECT {there} HTTP/1.1\r\nHost: a.example:443\r\n\r\n"),
        format!("GET http://{there}/ HTTP/1.1\r\nHost: a.example:443\r\n\r\n"),
        "CONNECT a.example:80 HTTP/1.1\r\nHost: x\r\n\r\n".into(),
    ] {
        let answer = out.ask(&request).await;
        // The text is in the first line too, which is what clients show of a refused tunnel.
        let first = answer.lines().next().unwrap();
        assert!(first.starts_with("HTTP/1.1 403 ") && first.contains("was not granted to `acme/x`"), "{answer}");
        assert!(answer.trim_end().ends_with(first.trim_start_matches("HTTP/1.1 403 ")), "{answer}");
        assert!(answer.contains("hob grant acme/x network="), "{answer}");
    }
    assert_eq!((out.lookups.load(Ordering::Relaxed), out.egress.refused()), (0, 3));
    let refusals = out.egress.refusals();
    assert!(refusals.len() == 2 && refusals[0].contains(&there.to_string()) && refusals[1].contains("a.example:80"), "{refusals:?}");
    // The last few are kept, however many follow, and a repeated one pushes out no other.
    for port in 1..=EGRESS_REFUSALS_MAX + 1 {
        for _ in 0..2 {
            out.ask(format!("CONNECT b.example:{port} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        }
    }
    let refusals = out.egress.refusals();
    assert_eq!(refusals.len(), EGRESS_REFUSALS_MAX);
    assert!(
        refusals[0].contains("`b.example:2`") && refusals.last().unwrap().contains(&format!("`b.example:{}`", EGRESS_REFUSALS_MAX + 1))
    );
    assert_eq!(out.egress.refused(), 3 + 2 * (EGRESS_REFUSALS_MAX as u64 + 1));
    assert!(told.try_recv().is_err(), "somebody was connected to");
}

#[tokio::test]
async fn a_granted_name_does_not_open_the_machine_or_its_neighbours() {
    let (there, mut told) = server("\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
    let port = there.port();
    let request = format!("GET http://rebound.example:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    let name = format!("rebound.example:{port}");
    for address in ["127.0.0.1", "10.0.0.5", "169.254.169.254", "100.64.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1"] {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let out = out_with(std::slice::from_ref(&name), vec![Some(vec![address])], patience());
        let answer = out.ask(&request).await;
        let literal = Endpoint { host: address.ip().to_string(), port };
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains(&format!("hob grant acme/x network={literal}")), "{answer}");
        assert!(answer.contains("grant the address itself as well") && out.egress.refused() == 1, "{answer}");
    }
    assert!(told.try_recv().is_err(), "somebody was connected to");
    // An address that is granted itself is reached; of an answer with both kinds, only the granted address
    // is.
    let metadata = SocketAddr::from(([169, 254, 169, 254], port));
    for answers in [vec![there], vec![metadata, there]] {
        let out = out_with(&[name.clone(), there.to_string()], vec![Some(answers)], patience());
        assert!(out.ask(&request).await.ends_with("hi"));
        assert!(told.recv().await.unwrap().contains(&format!("host: rebound.example:{port}\r\n")));
    }
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_what_was_checked_is_connected_to() {
    let (there, _told) = server("\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
    let (port, name) = (there.port(), format!("rebound.example:{}", there.port()));
    let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port));
    let out = out_with(&[name.clone(), there.to_string()], vec![Some(vec![there]), Some(vec![other])], patience());
    let request = format!("GET http://{name}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(out.ask(&request).await.ends_with("hi"));
    assert_eq!(out.lookups.load(Ordering::Relaxed), 1);
    assert!(out.ask(&request).await.starts_with("HTTP/1.1 403 "), "the second answer is checked anew");
    assert_eq!(out.lookups.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_is_no_request_to_a_proxy_is_told_so() {
    let out = out(&["a.example:80".into()]);
    let long = format!("GET http://a.example/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(2 * EGRESS_HEAD_BYTES_MAX));
    let many = format!("GET http://a.example/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(2_000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "400"),
        ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", "400"),
        ("CONNECT a.example:80 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "400"),
        ("CONNECT a.example HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("GET https://a.example/ HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("GET http://u:p@a.example/ HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("GET http://a.example/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        (&long, "431"),
        (&many, "431"),
    ] {
        let answer = out.ask(request).await;
        let start = format!("HTTP/1.1 {status}");
        let is_right = if status.is_empty() { !answer.contains(" 200 ") } else { answer.starts_with(&start) };
        assert!(is_right, "{:?}: {answer}", &request[..request.len().min(60)]);
    }
    assert_eq!((out.lookups.load(Ordering::Relaxed), out.egress.refused()), (0, 0));
}

#[tokio::test]
async fn who_is_slow_loses_the_connection_and_who_is_dead_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap();
    let idle = Duration::from_millis(400);
    let out = out_with(&[there.to_string(), "a.example:80".into()], vec![None], Patience { idle, ..patience() });
    // A head that comes in byte by byte.
    let mut stream = out.open().await;
    let begun = tokio::time::Instant::now();
    let drip = async {
        while stream.write_all(b"X").await.is_ok() && begun.elapsed() < LONG {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    };
    let waited = drip.await;
    assert!((patience().head..LONG).contains(&waited), "{waited:?}");
    // A tunnel that stalls after some traffic.
    let mut stream = out.open().await;
    stream.write_all(format!("CONNECT {there} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let (mut other, _) = listener.accept().await.unwrap();
    head(&mut stream).await;
    for _ in 0..6 {
        tokio::time::sleep(idle / 4).await;
        other.write_all(b".").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'.');
    }
    let begun = tokio::time::Instant::now();
    assert_eq!((all(&mut stream).await, all(&mut other).await), (String::new(), String::new()));
    assert!((idle / 2..LONG).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // A name server that does not answer, one that does not know the name, a port without a server, a server
    // that answers nonsense.
    let answer = out.ask("CONNECT a.example:80 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("`a.example:80`"), "{answer}");
    drop(listener);
    let (nonsense, _told) = server("\r\n\r\n", "what?\r\n\r\n").await;
    let (switching, _told) = server("\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
    let out = out_with(
        &[there, nonsense, switching].map(|at| at.to_string()).into_iter().chain(["a.example:80".into()]).collect::<Vec<_>>(),
        Vec::new(),
        patience(),
    );
    for (request, named) in [
        (format!("CONNECT {there} HTTP/1.1\r\nHost: x\r\n\r\n"), there.to_string()),
        ("GET http://a.example/ HTTP/1.1\r\nHost: x\r\n\r\n".into(), "no such name".into()),
        (format!("GET http://{nonsense}/ HTTP/1.1\r\nHost: x\r\n\r\n"), nonsense.to_string()),
        (format!("GET http://{switching}/ HTTP/1.1\r\nHost: x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), switching.to_string()),
    ] {
        let answer = out.ask(request).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains(&named), "{answer}");
    }
}

#[tokio::test]
async fn a_pod_has_so_many_connections_and_the_next_one_waits() {
    let out = out_with(&[], Vec::new(), Patience::default());
    let mut held = Vec::new();
    for _ in 0..EGRESS_CONNECTIONS_MAX {
        held.push(out.open().await);
    }
    let mut next = out.open().await;
    next.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(300), next.read(&mut byte)).await.is_err(), "it was one too many");
    held.pop();
    assert!(all(&mut next).await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn dropped_it_ends_every_connection_and_takes_no_new_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap();
    let (silent, mut told) = server("never", "").await;
    let out = out_with(&[there.to_string(), silent.to_string()], Vec::new(), Patience::default());
    let mut tunnel = out.open().await;
    tunnel.write_all(format!("CONNECT {there} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let (mut other, _) = listener.accept().await.unwrap();
    head(&mut tunnel).await;
    let mut waiting = out.open().await;
    waiting.write_all(format!("GET http://{silent}/seen HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut idle = out.open().await;
    let at = out.at;
    // Time for the request to be forwarded, so that its server can see the end.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(out);
    for stream in [&mut tunnel, &mut other, &mut waiting, &mut idle] {
        assert_eq!(all(stream).await, "");
    }
    assert!(timeout(LONG, told.recv()).await.unwrap().unwrap().starts_with("GET /seen "), "the other side saw its end");
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn connections_of_a_recipe_that_holds_all_descriptors_it_may_wait_until_it_holds_fewer() {
    let (there, _told) = server("\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
    let name = format!("localhost:{}", there.port());
    let greedy = Holder::of("acme/greedy");
    let (mut held, mut files) = (Vec::new(), 1 << 40);
    while files > 0 {
        match greedy.take(files) {
            Ok(share) => held.push(share),
            Err(_) => files /= 2,
        }
    }
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let _egress = Egress::serve(listener.into(), BTreeSet::from([name.parse().unwrap()]), "acme/greedy".into()).unwrap();
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(format!("GET http://{name}/ HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let early = timeout(Duration::from_millis(3 * EGRESS_ACCEPT_PAUSE_MS), stream.read_to_string(&mut answer)).await;
    assert!(early.is_err() && answer.is_empty(), "it was taken: {answer}");
    drop(held);
    timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains(" 200 OK\r\n") && answer.ends_with("hi"), "{answer}");
}

#[tokio::test]
async fn the_machines_resolver_finds_localhost() {
    let (there, _told) = server("\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let name = format!("localhost:{}", there.port());
    let _egress = Egress::serve(listener.into(), BTreeSet::from([name.parse().unwrap()]), "acme/x".into()).unwrap();
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(format!("GET http://{name}/ HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let answer = all(&mut stream).await;
    assert!(answer.contains(" 200 OK\r\n") && answer.ends_with("hi"), "{answer}");
}

#[tokio::test]
async fn only_a_listening_tcp_socket_is_a_way_out() {
    let connected = TcpStream::connect(Listener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()).await;
    let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut wrong: Vec<OwnedFd> = vec![pair.into(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()];
    wrong.extend(connected.ok().map(|stream| OwnedFd::from(stream.into_std().unwrap())));
    wrong.push(std::fs::File::open("/dev/null").unwrap().into());
    for fd in wrong {
        assert!(Egress::serve(fd, BTreeSet::new(), "acme/x".into()).is_err());
    }
}

/// A stand-in for a pod: a namespace with only a loopback of its own, a listener in it, and a client.
const POD: &str = r#"
import ctypes, fcntl, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNET, SET_FLAGS, UP = 0x10000000, 0x40000000, 0x8914, 1
if libc.unshare(NEWUSER | NEWNET):
    sys.exit(f"unshare: {ctypes.get_errno()}")
fcntl.ioctl(socket.socket(), SET_FLAGS, struct.pack("16sH14x", b"lo", UP))
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], listener.fileno(), flush=True)
port = int(sys.stdin.readline())
try:
    print(socket.create_connection(("127.0.0.1", port), 10))
except OSError as error:
    print(type(error).__name__)
out = socket.create_connection(listener.getsockname(), 10)
out.sendall(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % port)
print(out.makefile().read())
"#;

#[tokio::test]
async fn a_pod_that_reaches_nothing_by_itself_reaches_what_was_granted() {
    let (there, _told) = server("\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
    let mut command = tokio::process::Command::new("python3");
    command.args(["-I", "-c", POD]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut pod = command.spawn().unwrap();
    let mut lines = BufReader::new(pod.stdout.take().unwrap());
    let mut line = String::new();
    timeout(LONG, lines.read_line(&mut line)).await.unwrap().unwrap();
    let Some((_, fd)) = line.trim().split_once(' ') else {
        println!("not tested here: {}", String::from_utf8_lossy(&pod.wait_with_output().await.unwrap().stderr));
        return;
    };
    let pid = rustix::process::Pid::from_raw(pod.id().unwrap().try_into().unwrap()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let listener = rustix::process::pidfd_getfd(pidfd, fd.parse().unwrap(), rustix::process::PidfdGetfdFlags::empty()).unwrap();
    let _egress = Egress::serve(listener, BTreeSet::from([there.to_string().parse().unwrap()]), "acme/x".into()).unwrap();
    pod.stdin.take().unwrap().write_all(format!("{}\n", there.port()).as_bytes()).await.unwrap();
    let mut printed = String::new();
    timeout(LONG, lines.read_to_string(&mut printed)).await.unwrap().unwrap();
    assert!(printed.starts_with("ConnectionRefusedError\nHTTP/1.1 200 OK\n") && printed.trim().ends_with("\n\nhi"), "{printed}");
}
