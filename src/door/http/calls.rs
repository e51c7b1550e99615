//! The two routes that run a call: plain JSON in and out, and the general one with blobs and one line per
//! event.
//!
//! The call lives in the request's future or in the response's stream. When a caller hangs up, that is
//! dropped, which cancels the call down to the worker.

use std::{
    convert::Infallible,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::Response,
};
use futures_core::Stream;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::timeout,
};

use crate::{
    door::{
        handing::Files,
        http::{
            answers::{refused, refused_as, response},
            audience::Audience,
            body::whole,
            handed::{Leaving, Wish},
            requests::header,
            server::{Phase, Server},
            status,
        },
        lines::{self, CallBody},
    },
    host::Running,
    model::{Blob, Call, Code, Document, Event, Fault, Outcome, RecipeRef, act, hint, limits},
    shelf::reading,
};

/// `POST /v1/recipes/{publisher}/{name}/{operation}`: the body is the input, the response is the output.
pub async fn plain(State(server): State<Arc<Server>>, request: Request) -> Response {
    let answered = async {
        let (outcome, chunks) = answer(&server, request).await?;
        let left = [("x-hob-blobs-left", outcome.blobs.len() as u64), ("x-hob-chunks-left", chunks)];
        // Only the text is needed.
        let (text, values) = outcome.output.into_parts();
        // Drop the values in the background, so that no caller waits for it.
        tokio::spawn(reading(text.len(), move || {
            drop(values);
            Ok(())
        }));
        Ok((text, left))
    };
    match answered.await {
        Ok((text, left)) => {
            let mut response = response(StatusCode::OK, text);
            for (name, count) in left.into_iter().filter(|(_, count)| *count > 0) {
                response.headers_mut().insert(name, HeaderValue::from(count));
            }
            response
        }
        Err(fault) => refused(&fault),
    }
}

/// The outcome, and the number of chunks before it; this route drops the chunks.
async fn answer(server: &Server, request: Request) -> Result<(Outcome, u64), Fault> {
    let _running = server.admit()?;
    let (head, body) = request.into_parts();
    let (recipe, operation) = recipe_and_operation(head.uri.path())?;
    let deadline_ms =
        match header(&head.headers, "x-hob-deadline-ms")? {
            Some(text) => Some(text.parse().map_err(|_| {
                Fault::new(Code::Usage, format!("header `x-hob-deadline-ms`: `{text}` is not a whole number of milliseconds"))
            })?),
            None => None,
        };
    let priority = header(&head.headers, "x-hob-priority")?.map(str::parse).transpose()?.unwrap_or_default();
    let session = header(&head.headers, "x-hob-session")?.map(str::to_owned);
    let body = whole(server, &head.headers, body, limits::DOCUMENT_BYTES_MAX).await?;
    let length = body.bytes.len();
    let read = move || {
        let text = std::str::from_utf8(&body.bytes)
            .map_err(|error| Fault::new(Code::InvalidJson, format!("the request's body is not UTF-8 at byte {}", error.valid_up_to())));
        text.and_then(|text| Document::passing(text, "input")).map_err(|fault| lines::or_known(&body.bytes, fault))
    };
    let input = in_time(length, reading(length, read)).await?;
    let operation = operation.to_owned();
    let call = Call { recipe, operation, input, blobs: Vec::new(), deadline_ms, priority, one_shot: false, session, logs: false };
    let (mut running, mut chunks) = (UnderWay::begun(server, call), 0);
    while let Some(event) = running.next().await? {
        chunks += u64::from(matches!(event, Event::Chunk { .. }));
    }
    Ok((running.outcome().await?, chunks))
}

/// Limits the work on a body of `bytes` bytes before its call, and the call's deadline, begins: on a busy
/// machine the caller must not wait for ever.
async fn in_time<T>(bytes: usize, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(Duration::from_millis(limits::SERVE_READ_MS), work).await.unwrap_or_else(|_| {
        let wait = limits::SERVE_READ_MS / 1_000;
        let text = format!("the body of {bytes} bytes was not read within {wait} s: the machine has other things to do; nothing was run");
        let fault = Fault::new(Code::Overloaded, text).hint("call again a little later, or let fewer calls run at a time");
        Err(fault.retry_after(Duration::from_millis(limits::SERVE_RETRY_MS)))
    })
}

/// The recipe and the operation in the path. Names need no escapes, so none are decoded.
fn recipe_and_operation(path: &str) -> Result<(RecipeRef, &str), Fault> {
    let rest = path.strip_prefix("/v1/recipes/").unwrap_or(path);
    let (name, operation) = rest.rsplit_once('/').unwrap_or((rest, ""));
    Ok((RecipeRef::Name(name.parse()?), operation))
}

/// `POST /v1/calls`: a call with all options; the response has one line of JSON for each event, and the
/// outcome or the fault as the last line.
pub async fn general(State(server): State<Arc<Server>>, Extension(audience): Extension<Audience>, request: Request) -> Response {
    match begun(&server, audience, request).await {
        Ok(events) => {
            let by_files = events.telling.files.is_some();
            let mut response = Response::new(Body::from_stream(events));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
            if !by_files {
                // Announced before the work, because a larger result is known only after it.
                response.headers_mut().insert("x-hob-blob-bytes-max", HeaderValue::from(limits::GLUE_BLOB_BYTES_MAX));
            }
            response
        }
        Err(fault) if fault.code == Code::Usage && fault.message == status::NOT_TOLD => refused_as(StatusCode::FORBIDDEN, &fault),
        Err(fault) => refused(&fault),
    }
}

async fn begun(server: &Server, audience: Audience, request: Request) -> Result<EventLines, Fault> {
    let permit = server.admit()?;
    let (head, body) = request.into_parts();
    let wish = Wish::of(&head)?;
    let body = whole(server, &head.headers, body, limits::SERVE_CALL_BYTES_MAX).await.map_err(|fault| match fault.code {
        Code::TooLarge => fault.hint(lines::larger()),
        _ => fault,
    })?;
    let (files, held) = wish.as_ref().map_or_else(|| Ok(Default::default()), Wish::taken)?;
    let length = body.bytes.len();
    let call = in_time(length, reading(length, move || CallBody::parse(&body.bytes))).await?;
    if call.logs && !audience.may_read_logs() {
        return Err(status::logs_are_not_told());
    }
    let word = call.recipe.as_str();
    let recipe = server.host.resolve(word).await?;
    if let RecipeRef::Folder(folder) = &recipe {
        let fault = Fault::new(Code::Unsigned, format!("{} is a recipe folder, and a server runs signed recipes only", folder.display()));
        return Err(fault.hint(hint![
            "a recipe that was installed from a repository is called by its name; a folder is run in a host of its own by ",
            act::call_folder(folder.display())
        ]));
    }
    let call = in_time(length, reading(length, move || call.call(recipe, files))).await?;
    let telling = Telling { audience, files: wish.map(Wish::files), leaving: server.leaving.clone() };
    Ok(EventLines::new(UnderWay::begun(server, call), telling, (permit, held)))
}

/// A running call that ends with its server.
struct UnderWay {
    running: Running,
    phase: watch::Receiver<Phase>,
}

impl UnderWay {
    fn begun(server: &Server, call: Call) -> UnderWay {
        UnderWay { running: server.host.start(call), phase: server.closing.clone() }
    }

    /// The next event; `None` if only the outcome is left.
    ///
    /// Errors: `shutting_down` once the time that the ending server leaves its calls is over.
    async fn next(&mut self) -> Result<Option<Event>, Fault> {
        tokio::select! {
            biased;
            event = self.running.next() => Ok(event),
            fault = over(&mut self.phase) => Err(fault),
        }
    }

    /// Errors: the call's; `shutting_down`.
    async fn outcome(mut self) -> Result<Outcome, Fault> {
        tokio::select! {
            biased;
            outcome = self.running.outcome() => outcome,
            fault = over(&mut self.phase) => Err(fault),
        }
    }
}

async fn over(phase: &mut watch::Receiver<Phase>) -> Fault {
    // If the server is gone, this fault reaches nobody.
    let _ = phase.wait_for(|phase| *phase == Phase::Over).await;
    Fault::ending("server", "the call did not end in the time that was left for it")
}

/// The result of one step of a call's answer: the bytes to send, and the next step.
type Step = (Vec<u8>, Option<Next>);

/// The next step of a call's answer.
enum Next {
    /// Wait for the next event.
    Call(Box<UnderWay>),
    /// Finish a line of a large result, which takes time.
    Line(Writing),
}

/// Gives a line, and the call if it goes on.
type Writing = Pin<Box<dyn Future<Output = (Vec<u8>, Option<Box<UnderWay>>)> + Send>>;

/// The lines of a running call.
struct EventLines {
    step: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
    telling: Telling,
    /// The call's permit, and the permits of its files.
    _held: (OwnedSemaphorePermit, Vec<OwnedSemaphorePermit>),
}

impl EventLines {
    fn new(running: UnderWay, telling: Telling, held: (OwnedSemaphorePermit, Vec<OwnedSemaphorePermit>)) -> EventLines {
        EventLines { step: Some(Box::pin(step(Next::Call(Box::new(running)), telling.clone()))), telling, _held: held }
    }
}

async fn step(next: Next, telling: Telling) -> Step {
    let beat = Duration::from_millis(limits::SERVE_BEAT_MS);
    let mut writing = match next {
        Next::Line(writing) => writing,
        Next::Call(mut running) => match timeout(beat, running.next()).await {
            Ok(Ok(event)) => Box::pin(telling.line(event, running)) as Writing,
            Ok(Err(fault)) => Box::pin(async move { (telling.last(Err(fault)).await, None) }),
            // An empty line shows that the call still runs.
            Err(_) => return (b"\n".to_vec(), Some(Next::Call(running))),
        },
    };
    match timeout(beat, writing.as_mut()).await {
        Ok((line, running)) => (line, running.map(Next::Call)),
        Err(_) => (b"\n".to_vec(), Some(Next::Line(writing))),
    }
}

/// The audience of a call, and how its lines are written.
#[derive(Clone)]
struct Telling {
    audience: Audience,
    /// Carries large blobs as files.
    files: Option<Files>,
    leaving: Leaving,
}

impl Telling {
    /// The line of an event, or the last line if there is no event left.
    async fn line(self, event: Option<Event>, running: Box<UnderWay>) -> (Vec<u8>, Option<Box<UnderWay>>) {
        let Some(event) = event else { return (self.last(running.outcome().await).await, None) };
        let blobs = match &event {
            Event::Chunk { blobs, .. } => blobs.clone(),
            Event::Progress { .. } | Event::Log { .. } | Event::Printed { .. } => Vec::new(),
        };
        // Event data takes no longer to write than it took to read, so its length counts as zero.
        match self.written(0, blobs, move |files| lines::event_line(&event, files)).await {
            Ok(line) => (line, Some(running)),
            // An event that fits no line ends the call, which is dropped here.
            Err(fault) => (self.last(Err(fault)).await, None),
        }
    }

    async fn last(&self, outcome: Result<Outcome, Fault>) -> Vec<u8> {
        let (text, blobs) = outcome.as_ref().map_or((0, Vec::new()), |outcome| (outcome.output.text().len(), outcome.blobs.clone()));
        let audience = self.audience.clone();
        let write = move |files: Option<&mut Vec<OwnedFd>>| lines::last_line(&outcome, |fault| audience.told(fault), files);
        match self.written(text as u64, blobs, move |files| Ok(write(files))).await {
            Ok(line) => line,
            Err(fault) => lines::last_line(&Err(fault), |fault| self.audience.told(fault), None),
        }
    }

    /// Writes a line with these blobs and a text of `text` bytes; if that is long, on a thread where nobody
    /// else waits.
    async fn written(
        &self,
        text: u64,
        blobs: Vec<Blob>,
        write: impl FnOnce(Option<&mut Vec<OwnedFd>>) -> Result<Vec<u8>, Fault> + Send + 'static,
    ) -> Result<Vec<u8>, Fault> {
        match &self.files {
            Some(files) if blobs.iter().any(lines::is_large) => self.leaving.line(files, &blobs, move |made| write(Some(made))).await,
            _ => {
                let bytes = usize::try_from(text.saturating_add(size(&blobs))).unwrap_or(usize::MAX);
                drop(blobs);
                reading(bytes, move || write(None)).await
            }
        }
    }
}

/// The size of blobs in memory. A blob that is not in memory counts as endless: its bytes may be on disk, and
/// reading them may take any time.
fn size(blobs: &[Blob]) -> u64 {
    let bytes = |blob: &Blob| if blob.store().is_some() { u64::MAX } else { blob.size() };
    blobs.iter().map(bytes).fold(0, u64::saturating_add)
}

impl Stream for EventLines {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(now) = &mut self.step else { return Poll::Ready(None) };
        let Poll::Ready((bytes, next)) = now.as_mut().poll(context) else { return Poll::Pending };
        let telling = self.telling.clone();
        self.step = next.map(|next| Box::pin(step(next, telling)) as _);
        Poll::Ready(Some(Ok(bytes.into())))
    }
}
