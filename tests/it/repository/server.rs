//! A loopback web server that serves a repository folder, and lies on demand.
//!
//! It is written on a socket, because a web framework does not send a wrong length or a byte a minute.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the server does for one path instead of sending the file.
#[derive(Clone)]
pub enum Lie {
    Bytes(Vec<u8>),
    /// The file, and then endless bytes.
    Endless,
    /// The file, one byte at a time, with this pause between bytes.
    Drip(Duration),
    /// The first half, and then silence on an open connection.
    Stall,
    /// The first half, and then the connection is closed, although the length was larger.
    Cut,
    Redirect(String),
    Status(u16),
    /// These bytes, with this `content-encoding`.
    Encoded(&'static str, Vec<u8>),
    /// The file, for a client that sends a user and a password.
    Asks,
    /// The file itself, with this `content-encoding`.
    Called(&'static str),
    /// Asks the client to come again at once, this many times; then the file.
    Busy(usize),
}

/// The manner of all answers; each is correct HTTP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    Plain,
    /// The file ends with the connection.
    WithoutLength,
    Chunked,
    /// Answers 403 for missing files, like object stores that list nothing.
    Forbids,
    /// On the loopback address of IPv6.
    Six,
}

pub struct Server {
    pub url: String,
    lies: Arc<Mutex<HashMap<String, Lie>>>,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn serve(folder: PathBuf) -> Server {
        Server::serve_as(folder, Manner::Plain).await
    }

    pub async fn serve_as(folder: PathBuf, manner: Manner) -> Server {
        let listener = TcpListener::bind(if manner == Manner::Six { "[::1]:0" } else { "127.0.0.1:0" }).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (lies, asked) = (Arc::<Mutex<HashMap<String, Lie>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (told, log) = (lies.clone(), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (folder, told, log) = (folder.clone(), told.clone(), log.clone());
                tokio::spawn(async move {
                    // Most of these tests want a client that hangs up on a liar.
                    let _ = answer(stream, folder, &told, &log, manner).await;
                });
            }
        });
        Server { url, lies, asked, task }
    }

    pub fn lie(&self, path: &str, lie: Lie) {
        self.lies.lock().unwrap().insert(path.to_owned(), lie);
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    mut stream: TcpStream,
    folder: PathBuf,
    lies: &Mutex<HashMap<String, Lie>>,
    log: &Mutex<Vec<String>>,
    manner: Manner,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) if head.len() < 16_384 => head.push(byte),
            _ => return Ok(()),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    let is_known = head.to_ascii_lowercase().contains("authorization: basic ");
    log.lock().unwrap().push(path.clone());
    let mut lie = lies.lock().unwrap().get(&path).cloned();
    if let Some(Lie::Busy(times)) = lie {
        let next = if times > 0 { Lie::Busy(times - 1) } else { Lie::Busy(0) };
        lies.lock().unwrap().insert(path.clone(), next);
        match times {
            0 => lie = None,
            _ => {
                let busy = b"HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                return stream.write_all(busy).await;
            }
        }
    }
    // Object stores read a path this way.
    let file = std::fs::read(folder.join(path.replace('+', " ").replace("%2B", "+"))).ok();
    let body = match (&lie, file) {
        (Some(Lie::Bytes(bytes) | Lie::Encoded(_, bytes)), _) => bytes.clone(),
        (Some(Lie::Redirect(to)), _) => {
            return stream
                .write_all(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes())
                .await;
        }
        (Some(Lie::Asks), _) if !is_known => {
            return stream.write_all(b"HTTP/1.1 401 Who\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
        (Some(Lie::Status(status)), _) => {
            return stream.write_all(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await;
        }
        (_, Some(bytes)) => bytes,
        (_, None) => {
            let status = if manner == Manner::Forbids { "403 Forbidden" } else { "404 Not Found" };
            return stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await;
        }
    };
    let length = match lie {
        Some(Lie::Endless) => String::new(),
        None if manner == Manner::WithoutLength => String::new(),
        None if manner == Manner::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        Some(Lie::Encoded(how, _) | Lie::Called(how)) => format!("content-encoding: {how}\r\ncontent-length: {}\r\n", body.len()),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    stream.write_all(format!("HTTP/1.1 200 OK\r\n{length}connection: close\r\n\r\n").as_bytes()).await?;
    match lie {
        Some(Lie::Endless) => {
            stream.write_all(&body).await?;
            loop {
                stream.write_all(&[b' '; 65_536]).await?;
            }
        }
        Some(Lie::Drip(pause)) => {
            for byte in body {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(pause).await;
            }
        }
        Some(Lie::Stall) => {
            stream.write_all(&body[..body.len() / 2]).await?;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Some(Lie::Cut) => stream.write_all(&body[..body.len() / 2]).await?,
        None if manner == Manner::Chunked => {
            for part in body.chunks(1_000) {
                stream.write_all(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat()).await?;
            }
            stream.write_all(b"0\r\n\r\n").await?;
        }
        _ => stream.write_all(&body).await?,
    }
    stream.shutdown().await
}
