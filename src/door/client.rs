//! The command line's client of a running server: one connection, one request, one answer.
//!
//! It uses hyper rather than a pooling client, because what may be done next depends on whether a request may
//! have been sent. A server that cannot be connected to has seen nothing, and only then may a call run
//! elsewhere. Nothing is sent twice.

use std::{
    collections::VecDeque,
    io::ErrorKind,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    handing::{Carrier, FILES, Files},
    lines::{self, CallBody, Line, Lines},
    socket,
};
use crate::model::{Blob, Code, Event, Fault, Hint, Home, Outcome, act, hint, limits};

fn their_home() -> Hint {
    hint!["run as that user, or name a home of your own with ", act::hob_home()]
}

/// A connection to the running server of a home.
pub struct Client {
    stream: UnixStream,
    /// The path of its socket.
    place: PathBuf,
}

impl Client {
    /// Connects to the server of `home`; `None` if no server runs.
    ///
    /// Errors: `overloaded` if a server runs and accepts no connection; `home_unsafe` if the server or the
    /// home belongs to another user; `io` if it cannot be told whether a server runs.
    pub async fn connect(home: &Home) -> Result<Option<Client>, Fault> {
        let path = home.socket();
        let knock = async {
            loop {
                match socket::connect(&path).await {
                    // The server's queue of connections is full.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        tokio::time::sleep(Duration::from_millis(limits::LOCK_POLL_MS)).await;
                    }
                    // No server listens there. Any other error leaves open whether one runs.
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused) => {
                        return Ok(None);
                    }
                    other => return other.map(Some),
                }
            }
        };
        let connected = timeout(Duration::from_millis(limits::SERVE_CONNECT_MS), knock).await;
        let full =
            |_| Fault::new(Code::Overloaded, format!("the server at {} lets nobody in", path.display())).hint("call again a little later");
        let found = connected.map_err(full)?.map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => {
                let text = format!("this user may not reach the server at {}, if one runs there: {error}", path.display());
                Fault::new(Code::HomeUnsafe, text).hint(their_home())
            }
            _ => Fault::io(format!("connecting to the server at {}", path.display()), &error),
        })?;
        let Some(stream) = found else { return Ok(None) };
        // A call's data may go only to a server of this user or of root.
        let (own, theirs) = (
            rustix::process::geteuid().as_raw(),
            stream.peer_cred().map_err(|error| Fault::io("asking whose the server is", &error))?.uid(),
        );
        match theirs == own || theirs == 0 {
            true => Ok(Some(Client { stream, place: path })),
            false => {
                Err(Fault::new(Code::HomeUnsafe, format!("the server at {} runs as user {theirs}, wanted {own} or 0", path.display()))
                    .hint(their_home()))
            }
        }
    }

    /// Sends a request and returns the document of the answer.
    ///
    /// Errors: the server's own; `deadline` if it is silent; `io` if it goes away.
    pub async fn ask<T: DeserializeOwned>(self, method: Method, path: &str) -> Result<T, Fault> {
        self.within(method, path, limits::SERVE_LOOK_MS).await
    }

    async fn within<T: DeserializeOwned>(self, method: Method, path: &str, wait_ms: u64) -> Result<T, Fault> {
        let place = self.place.clone();
        let asked = async {
            let (mut line, _) = self.open().await?;
            let bytes = read(line.send(method, path, Full::default(), None).await?).await?;
            serde_json::from_slice(&bytes)
                .map_err(|error| Fault::new(Code::Internal, format!("the server's answer to {path} cannot be read: {error}")))
        };
        within(wait_ms, &place, asked).await
    }

    /// Requests an action that may take as long as a checkpoint.
    ///
    /// Errors: as [`Client::ask`].
    pub async fn act<T: DeserializeOwned>(self, path: &str) -> Result<T, Fault> {
        self.within(Method::POST, path, limits::CHECKPOINT_WAIT_MS + limits::SHUTDOWN_MS + limits::SERVE_LOOK_MS).await
    }

    /// Begins a call with these blobs; large ones are handed over as files. Dropping the result hangs up,
    /// which cancels the call down to the worker.
    ///
    /// Errors: `too_large` before the call is sent; the server's own; `io`, `deadline`.
    pub async fn call(self, mut call: CallBody, blobs: &[Blob]) -> Result<Calling, Fault> {
        let place = self.place.clone();
        // A deadline that would overflow the clock counts as none.
        let at = |ms: u64| Instant::now().checked_add(Duration::from_millis(ms.saturating_add(limits::SERVE_LATE_MS)));
        let until = call.deadline_ms.and_then(|ms| Some(Until { ms, at: at(ms)? }));
        let (mut line, files) = self.open().await?;
        let mut handed = Vec::new();
        let takes = match blobs.iter().any(lines::is_large) {
            // Ask first: a server of an older version does not understand files.
            true => in_time(limits::SERVE_LOOK_MS, until, &place, line.takes_files()).await?,
            false => true,
        };
        call.carry(blobs, takes.then_some(&mut handed)).map_err(|fault| if takes { fault } else { older(fault) })?;
        let body = serde_json::to_vec(&call).map_err(|error| Fault::new(Code::Internal, format!("a call cannot be written: {error}")))?;
        if body.len() > limits::SERVE_CALL_BYTES_MAX {
            let text =
                format!("the call is {} bytes with its blobs in base64; the server takes {}", body.len(), limits::SERVE_CALL_BYTES_MAX);
            let fault = Fault::new(Code::TooLarge, text);
            return Err(if takes { fault } else { older(fault) });
        }
        let count = handed.len();
        files.send(handed.into_iter().map(Into::into));
        let answered = async { Answer::of(line.send(Method::POST, "/v1/calls", body.into(), Some(count)).await?, Some(line)).await };
        let answer = in_time(limits::SERVE_SILENCE_MS, until, &place, answered).await?;
        Ok(Calling { answer, lines: Lines::default(), files, handed: VecDeque::new(), outcome: None, place, until })
    }

    async fn open(self) -> Result<(Conversation, Files), Fault> {
        let files = Files::default();
        let carrier = Carrier::new(self.stream, files.clone());
        let (sender, connection) = http1::handshake(TokioIo::new(carrier)).await.map_err(gone)?;
        // The task ends when the answer was read, or when sender and answer are dropped.
        tokio::spawn(connection);
        Ok((Conversation { sender }, files))
    }
}

/// A connection that sends requests one after the other.
struct Conversation {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Conversation {
    /// Whether files can be handed over.
    async fn takes_files(&mut self) -> Result<bool, Fault> {
        #[derive(serde::Deserialize)]
        struct Bounds {
            files: usize,
        }
        let response = self.send(Method::GET, "/v1/calls", Full::default(), None).await?;
        // An older version without this route answers so.
        let is_older = response.status() == StatusCode::METHOD_NOT_ALLOWED;
        match read(response).await {
            Ok(text) => Ok(serde_json::from_slice::<Bounds>(&text).is_ok_and(|bounds| bounds.files > 0)),
            Err(_) if is_older => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// `files`: the number of files that go with the request, if files of the answer are accepted.
    async fn send(&mut self, method: Method, path: &str, body: Full<Bytes>, files: Option<usize>) -> Result<Response<Incoming>, Fault> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "hob");
        if let Some(files) = files {
            request = request.header(FILES, files);
        }
        let request = request.body(body).map_err(|error| Fault::new(Code::Usage, format!("`{path}` cannot be asked for: {error}")))?;
        self.sender.ready().await.map_err(gone)?;
        self.sender.send_request(request).await.map_err(gone)
    }
}

/// A call's own deadline, and the time by which the server should have enforced it.
#[derive(Debug, Clone, Copy)]
struct Until {
    ms: u64,
    at: Instant,
}

/// The server's answer, if it comes within `ms` and within the call's own deadline. The deadline holds for
/// the waiting caller whatever the server does. Each wait has at least `SERVE_LATE_MS`, so that a long answer
/// that began in time is read to its end.
async fn in_time<T>(ms: u64, until: Option<Until>, place: &Path, answered: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let Some(until) = until else { return within(ms, place, answered).await };
    let at = until.at.max(Instant::now() + Duration::from_millis(limits::SERVE_LATE_MS));
    timeout_at(at, within(ms, place, answered)).await.unwrap_or_else(|_| {
        let text = format!("the server gave no answer within the call's {} ms", until.ms);
        Err(Fault::new(Code::Deadline, text).hint("whether the call ran is not known; `hob status` asks the server how it does"))
    })
}

/// The server's answer, if it comes within `ms`.
async fn within<T>(ms: u64, place: &Path, answered: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match timeout(Duration::from_millis(ms), answered).await {
        Ok(answer) => answer,
        Err(_) => Err(silent(ms, place).await),
    }
}

/// Adds a hint to the fault of a call that is too large because an older server takes no files.
fn older(fault: Fault) -> Fault {
    fault.hint(hint![
        "the server that runs is of an older version: end it and start ",
        act::serve(),
        " anew, and files are handed over; or call with ",
        act::one_shot()
    ])
}

fn gone(error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::Io, format!("the server went away in the middle: {error}"))
        .hint(hint!["whether the call ran is not known; a server that was killed is started again with ", act::serve()])
}

/// The fault of a silent server. Its hint depends on whether the server still answers `/livez`.
async fn silent(ms: u64, place: &Path) -> Fault {
    let asked = async {
        let client = Client { stream: socket::connect(place).await.ok()?, place: place.to_owned() };
        let (mut line, _) = client.open().await.ok()?;
        let answer = line.send(Method::GET, "/livez", Full::default(), None).await.ok()?;
        answer.status().is_success().then_some(())
    };
    let lives = matches!(timeout(Duration::from_millis(limits::SERVE_LIVEZ_MS), asked).await, Ok(Some(())));
    let fault = Fault::new(Code::Deadline, format!("the server was silent for {ms} ms"));
    match lives {
        true => fault.hint("it lives (`/livez` answers) and has much to do: ask again a little later"),
        false => fault.hint("it does not answer `/livez` either: ask again, and if it stays so, SIGTERM ends it, in order or not"),
    }
}

/// A response that is being read, and its connection.
struct Answer {
    body: Incoming,
    _line: Option<Conversation>,
}

/// The whole body of a successful response; any other response becomes the fault in it.
async fn read(response: Response<Incoming>) -> Result<Vec<u8>, Fault> {
    Answer::of(response, None).await?.rest().await
}

impl Answer {
    /// A successful response; any other response becomes the fault in it.
    async fn of(response: Response<Incoming>, line: Option<Conversation>) -> Result<Answer, Fault> {
        let status = response.status();
        let mut answer = Answer { body: response.into_body(), _line: line };
        if status.is_success() {
            return Ok(answer);
        }
        #[derive(serde::Deserialize)]
        struct Refusal {
            fault: Fault,
        }
        let text = answer.rest().await?;
        Err(serde_json::from_slice::<Refusal>(&text)
            .map(|refusal| refusal.fault)
            .unwrap_or_else(|_| Fault::new(Code::Internal, format!("the server answered {status} without a fault"))))
    }

    async fn part(&mut self) -> Result<Option<Bytes>, Fault> {
        while let Some(frame) = self.body.frame().await {
            // A frame without data would be trailers, and there are none.
            if let Ok(data) = frame.map_err(gone)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    async fn rest(&mut self) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        while let Some(part) = self.part().await? {
            bytes.extend_from_slice(&part);
            if bytes.len() > limits::SERVE_LINE_BYTES_MAX {
                return Err(Fault::new(Code::TooLarge, format!("the server's answer is above {} bytes", limits::SERVE_LINE_BYTES_MAX)));
            }
        }
        Ok(bytes)
    }
}

/// A running call in the server.
pub struct Calling {
    answer: Answer,
    lines: Lines,
    /// Files beside the answer; `handed` has those that arrived and that no line has named yet.
    files: Files,
    handed: VecDeque<OwnedFd>,
    outcome: Option<Result<Outcome, Fault>>,
    place: PathBuf,
    until: Option<Until>,
}

impl Calling {
    /// The next event; `None` if only the outcome is left.
    pub async fn next(&mut self) -> Option<Event> {
        while self.outcome.is_none() {
            match self.line().await {
                Ok(Line::Event(event)) => return Some(event),
                Ok(Line::Last(outcome)) => self.outcome = Some(*outcome),
                Err(fault) => self.outcome = Some(Err(fault)),
            }
        }
        None
    }

    /// Waits for the outcome; events that were not taken are dropped.
    pub async fn outcome(mut self) -> Result<Outcome, Fault> {
        while self.next().await.is_some() {}
        self.outcome.unwrap_or_else(|| Err(Fault::new(Code::Internal, "a call ended without an outcome")))
    }

    async fn line(&mut self) -> Result<Line, Fault> {
        loop {
            while let Some(line) = self.lines.next() {
                self.handed.extend(self.files.received()?.into_iter().map(|held| held.file));
                if self.handed.len() > limits::HANDED_FILES_MAX {
                    return Err(Fault::new(Code::Internal, "the server handed over files and did not say of what"));
                }
                if let Some(line) = Line::parse(&line, &mut self.handed)? {
                    return Ok(line);
                }
            }
            match in_time(limits::SERVE_SILENCE_MS, self.until, &self.place, self.answer.part()).await? {
                Some(part) => self.lines.push(&part)?,
                None => return Err(gone("its answer has no end")),
            }
        }
    }
}

/// Asks the running server; `None` if no server runs.
pub(super) async fn ask<T: DeserializeOwned>(home: &Home, method: Method, path: &str) -> Result<Option<T>, Fault> {
    match Client::connect(home).await? {
        Some(client) => client.ask(method, path).await.map(Some),
        None => Ok(None),
    }
}
