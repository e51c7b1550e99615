//! The task that owns one pod: it performs what `state.rs` decides.
//!
//! One loop waits for everything at once (asks, both lanes, the process, the timer, callers that go away),
//! turns what came into events of the state machine, and acts. No other task touches the pod.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    frame::{self, Decoded},
    handle::{Ends, Pending, Reply, Shared},
    lane::{Lane, Read},
    log,
    process::{self, Process, Spec},
    state::{Action, AskId, Ending, Event, State, step},
    waits::{Undelivered, deliver, far, gone, readable, wait, writable},
    wire::{self, Control, FromPod, PROTOCOL, Payload},
};
use crate::model::{
    self, Code, Fault,
    limits::{EXIT_GRACE_MS, FAULT_TAIL_LINES, FRAME_BYTES_MAX, FRAMES_PER_TURN_MAX, LAST_WORDS_TURNS_MAX},
    recipe::Runtime,
};

/// Spawns the process and the task that owns it from now on.
///
/// Must be called within a tokio runtime. Errors: `io` when there is no process to be had.
pub(super) fn start(spec: Spec, ends: Ends) -> Result<(), Fault> {
    let mut process = Process::spawn(&spec)?;
    let (control, data) = process.take_streams().expect("a new process has its sockets");
    let (logs_done, logs_ended) = oneshot::channel();
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let log = ends.shared.log.clone();
    tokio::spawn(async move {
        let out = async {
            if let Some(pipe) = stdout {
                log::drain(pipe, log.clone()).await;
            }
        };
        let err = async {
            if let Some(pipe) = stderr {
                log::drain(pipe, log.clone()).await;
            }
        };
        tokio::join!(out, err);
        let _ = logs_done.send(());
    });
    let driver = Driver {
        control: Lane::new(control, FRAME_BYTES_MAX),
        data: Some(Lane::new(data, FRAME_BYTES_MAX)),
        timer: Some(Instant::now() + Duration::from_millis(spec.start_timeout_ms)),
        spec,
        process,
        shared: ends.shared,
        state: State::Starting { hello: false },
        waiting: ends.waiting,
        free: false,
        next_ask: 1,
        in_hand: None,
        undelivered: None,
        lane_closed_at: None,
        start_descriptor: false,
        unfinished: None,
        last_answer: None,
        partial: None,
        blame: None,
        stop: ends.stop,
        logs_ended: Some(logs_ended),
        bury: ends.bury,
    };
    tokio::spawn(driver.run());
    Ok(())
}

/// One of the two lanes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Which {
    Control,
    Data,
}

struct Driver {
    spec: Spec,
    process: Process,
    shared: Arc<Shared>,
    state: State,
    control: Lane,
    /// None when both lanes share the control socket.
    data: Option<Lane>,
    waiting: mpsc::Receiver<Pending>,
    /// Whether the next request may be taken.
    free: bool,
    next_ask: AskId,
    in_hand: Option<(AskId, Pending)>,
    undelivered: Option<Undelivered>,
    timer: Option<Instant>,
    /// A lane ended: when to stop waiting for the process to end as well.
    lane_closed_at: Option<Instant>,
    start_descriptor: bool,
    /// A lane whose decoder may hold whole frames.
    unfinished: Option<Which>,
    /// What the last `Answer` or `Partial` event carried, for the action that follows from it.
    last_answer: Option<Result<Payload, Fault>>,
    partial: Option<FromPod>,
    blame: Option<Fault>,
    stop: CancellationToken,
    logs_ended: Option<oneshot::Receiver<()>>,
    bury: watch::Sender<bool>,
}

impl Driver {
    async fn run(mut self) {
        let mut stopping = false;
        while self.state != State::Dead {
            self.flush();
            let undelivered = self.undelivered.is_some();
            let lane_open = !self.lane_ended();
            // Not biased: a lane that is always readable must not starve the timer or the end of the process.
            tokio::select! {
                _ = readable(self.data.as_ref()), if !undelivered && lane_open => self.read(Which::Data),
                _ = self.control.stream().readable(), if lane_open && !(undelivered && self.carries_data(Which::Control)) => {
                    self.read(Which::Control)
                }
                _ = std::future::ready(()), if self.unfinished.is_some() => {
                    if let Some(which) = self.unfinished.take() {
                        self.read(which);
                    }
                }
                pending = self.waiting.recv(), if self.free => match pending {
                    Some(pending) => self.take(pending),
                    // No handle is left.
                    None => { self.free = false; self.step(Event::Stop) }
                },
                ending = self.process.ended() => {
                    self.read_last_words();
                    self.step(Event::Exited(ending));
                }
                _ = deliver(&mut self.undelivered), if undelivered => {
                    self.unfinished = Some(if self.data.is_some() { Which::Data } else { Which::Control });
                }
                _ = gone(&self.in_hand) => self.cancel(),
                _ = writable(&self.control, self.data.as_ref()) => {}
                _ = self.stop.cancelled(), if !stopping => { stopping = true; self.free = false; self.step(Event::Stop) }
                _ = sleep_until(self.timer.unwrap_or_else(far)), if self.timer.is_some() => { self.timer = None; self.step(Event::Timeout) }
                _ = sleep_until(self.lane_closed_at.unwrap_or_else(far)), if self.lane_closed_at.is_some() => {
                    self.lane_closed_at = None;
                    self.step(Event::LaneClosed);
                }
            }
        }
        self.bury().await;
    }

    fn lane_ended(&self) -> bool {
        self.lane_closed_at.is_some() || self.control.is_closed() || self.data.as_ref().is_some_and(Lane::is_closed)
    }

    fn step(&mut self, event: Event) {
        let state = std::mem::replace(&mut self.state, State::Dead);
        let (state, actions) = step(state, event);
        *self.shared.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = state.name();
        self.state = state;
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SendStart => self.send_start(),
            Action::SendLoad => self.say(&Control::Load),
            Action::SendPing => self.say(&Control::Ping { seq: self.next_ask }),
            Action::SendCancel(ask) => self.say(&Control::Cancel { ask }),
            Action::SendDrain => self.say(&Control::Drain),
            Action::SendAsk(ask) => self.send_ask(ask),
            Action::TakeNext => {
                self.shared.was_ready.store(true, Ordering::Release);
                self.free = true;
            }
            Action::Deliver(_) => self.deliver_partial(),
            Action::Resolve(ask) => {
                let reply = match self.last_answer.take() {
                    Some(Ok(payload)) => Reply::Answer(payload),
                    Some(Err(fault)) => Reply::Fault(self.with_tail(fault, ask)),
                    None => Reply::Fault(Fault::new(Code::Internal, "an answer was lost")),
                };
                self.resolve(ask, reply);
            }
            Action::Fail(ask, fault) => self.resolve(ask, Reply::Fault(fault)),
            Action::Terminate => {
                // By word as well as by signal: the control thread hears while the main thread ignores SIGTERM.
                self.say(&Control::Exit);
                self.process.terminate();
            }
            Action::Kill => self.process.kill(),
            Action::KillGroup => self.process.kill_group(),
            Action::Arm(timer) => self.timer = Some(Instant::now() + wait(timer)),
            Action::Disarm => self.timer = None,
            Action::Blame(fault) => {
                self.free = false;
                // The first reason is the reason; what follows from it is not.
                self.blame.get_or_insert(fault);
            }
            Action::Bury(ending) => {
                self.free = false;
                let fault = self.epitaph(ending);
                self.blame = Some(fault.clone());
                if let Some((ask, _)) = &self.in_hand {
                    let ask = *ask;
                    self.resolve(ask, Reply::Fault(fault));
                }
            }
        }
    }

    // Sending.

    fn say(&mut self, message: &Control) {
        frame::encode(self.control.out(), 0, &wire::control(message), std::iter::empty());
    }

    fn send_start(&mut self) {
        let manifest = self.spec.recipe.manifest().clone();
        let version = manifest.version.to_string();
        let name = manifest.name.to_string();
        let digest = self.spec.recipe.digest().hex();
        let folder = self.spec.recipe.folder().display().to_string();
        let scratch = self.spec.scratch.display().to_string();
        let site_packages = self.spec.program.site_packages.as_ref().map(|path| path.display().to_string());
        let models: Vec<(String, String)> =
            self.spec.recipe.models().iter().map(|model| (model.name.clone(), model.path.display().to_string())).collect();
        let entry = match manifest.pod.as_ref().map(|pod| &pod.runtime) {
            Some(Runtime::Python { entry, .. } | Runtime::Executable { entry }) => entry.as_str(),
            None => "",
        };
        let operations: BTreeMap<_, _> = manifest
            .operations()
            .map(|operation| (operation.name.as_str(), wire::OperationWire { streaming: operation.streaming }))
            .collect();
        let start = Control::Start(wire::Start {
            protocol: PROTOCOL,
            incarnation: &self.spec.incarnation,
            frame_bytes_max: FRAME_BYTES_MAX,
            recipe: &name,
            version: &version,
            digest: &digest,
            folder: &folder,
            entry,
            site_packages: site_packages.as_deref(),
            scratch: &scratch,
            models: models.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect(),
            operations,
        });
        let start = wire::control(&start);
        frame::encode(self.control.out(), 0, &start, std::iter::empty());
        // The data lane travels with the first byte of this message.
        self.start_descriptor = self.data.is_some();
    }

    fn send_ask(&mut self, ask: AskId) {
        let Some((_, pending)) = &self.in_hand else { return };
        let request = &pending.request;
        let left_ms = request.deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
        let digest = self.spec.recipe.digest().hex();
        let json = wire::ask(&self.spec.incarnation, &digest, &request.operation.name, &request.input, left_ms, &request.blobs);
        let blobs = request.blobs.iter().map(|blob| &blob.bytes[..]);
        let too_large = |bytes: usize| {
            Fault::new(Code::TooLarge, format!("the ask is {bytes} bytes with its blobs; at most {FRAME_BYTES_MAX} are carried"))
                .hint("send less at once")
        };
        let lane = self.data.as_mut().unwrap_or(&mut self.control);
        let refused = match json {
            Err(fault) => Some(fault),
            Ok(json) => match json.len() + blobs.clone().map(<[u8]>::len).sum::<usize>() {
                bytes if bytes > FRAME_BYTES_MAX => Some(too_large(bytes)),
                _ => {
                    frame::encode(lane.out(), ask, &json, blobs);
                    None
                }
            },
        };
        match refused {
            // Nothing was sent: for the pod this ask never was.
            Some(fault) => {
                self.last_answer = Some(Err(fault));
                self.step(Event::Answer(ask));
            }
            None => {
                lane.flush();
                self.shared.log.attribute_to(ask);
                self.shared.asks.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn flush(&mut self) {
        if self.start_descriptor && self.control.has_output() {
            let Some(descriptor) = self.process.data_theirs.take() else { return };
            let bytes = self.control.out().split().freeze();
            match process::send_with_descriptor(self.control.stream(), &bytes, &descriptor) {
                Ok(count) => {
                    self.start_descriptor = false;
                    self.control.out().extend_from_slice(&bytes[count..]);
                }
                Err(error) => {
                    self.control.out().extend_from_slice(&bytes);
                    // A full socket: the next round tries again. Anything else shows as a closed lane.
                    match error.kind() {
                        std::io::ErrorKind::WouldBlock => self.process.data_theirs = Some(descriptor),
                        _ => self.start_descriptor = false,
                    }
                    return;
                }
            }
        }
        self.control.flush();
        if let Some(data) = &mut self.data {
            data.flush();
        }
    }

    // Receiving.

    /// Reads what a lane has, but only so much that everything else gets its turn.
    fn read(&mut self, which: Which) {
        for _ in 0..FRAMES_PER_TURN_MAX {
            if self.state == State::Dead || (self.undelivered.is_some() && self.carries_data(which)) {
                return;
            }
            let lane = match (which, &mut self.data) {
                (Which::Control, _) => &mut self.control,
                (Which::Data, Some(data)) => data,
                (Which::Data, None) => return,
            };
            let read = lane.read();
            if !self.received(read) {
                return;
            }
        }
        // More may be in the decoder already, for which the socket will not become readable.
        self.unfinished = Some(which);
    }

    /// Whether chunks and answers come on that lane: only such a lane is held back by a slow caller.
    fn carries_data(&self, which: Which) -> bool {
        matches!(which, Which::Data) || self.data.is_none()
    }

    /// Handles one thing read; false when there is nothing more to read now.
    fn received(&mut self, read: Read) -> bool {
        match read {
            Read::Dry => return false,
            Read::Closed => {
                // A process that is just ending closes its sockets first: give its end a moment to arrive.
                self.lane_closed_at.get_or_insert(Instant::now() + Duration::from_millis(EXIT_GRACE_MS));
                return false;
            }
            Read::Broken(text) => {
                self.step(Event::Violation(format!("sent what cannot be read: {text}")));
                self.lane_closed_at = None;
                return false;
            }
            Read::Frame(Decoded::Oversize { ask, bytes }) => self.step(Event::Oversize(ask, bytes)),
            Read::Frame(Decoded::Frame(frame)) => match FromPod::parse(&frame) {
                Ok(message) => self.heard(message),
                Err(text) => self.step(Event::Violation(format!("sent {text}"))),
            },
        }
        true
    }

    fn heard(&mut self, message: FromPod) {
        match message {
            FromPod::Hello { protocol, features, pid, .. } => {
                if !(protocol[0]..=protocol[1]).contains(&PROTOCOL) {
                    let text = format!("speaks protocol {} to {}, this host speaks {PROTOCOL}", protocol[0], protocol[1]);
                    return self.step(Event::Violation(text));
                }
                if !features.iter().any(|feature| feature == "fds") {
                    self.data = None;
                    self.process.data_theirs = None;
                }
                self.shared.pid.store(pid, Ordering::Release);
                self.step(Event::Hello);
            }
            FromPod::Started => self.step(Event::Started),
            FromPod::Ready => self.step(Event::Ready),
            FromPod::Failed(fault) => {
                let fault = self.with_tail(fault, 0);
                self.step(Event::Failed(fault));
            }
            FromPod::Pong { ask, .. } => self.step(Event::Pong(ask)),
            FromPod::Log { level, message } => self.shared.log.push(&format!("{}: {message}", clip(&level))),
            FromPod::Progress { ask, .. } => {
                self.partial = Some(message);
                self.step(Event::Partial(ask));
            }
            FromPod::Chunk { ask, .. } => {
                let streaming = self.in_hand.as_ref().is_some_and(|(_, pending)| pending.request.operation.streaming);
                if !streaming && self.in_hand.is_some() {
                    return self.step(Event::Violation("sent a chunk for an operation that does not stream".into()));
                }
                self.partial = Some(message);
                self.step(Event::Partial(ask));
            }
            FromPod::Answer { ask, incarnation, result } => {
                if incarnation != self.spec.incarnation {
                    let text = format!("answered as incarnation `{}`, it is `{}`", clip(&incarnation), self.spec.incarnation);
                    return self.step(Event::Violation(text));
                }
                self.last_answer = Some(result);
                self.step(Event::Answer(ask));
                self.last_answer = None;
            }
        }
    }

    /// What the pod sent before it ended still counts: an answer in the socket is an answer.
    ///
    /// Unless a chunk before it finds no room: then the answer stays unread, because a result with a hole is none.
    fn read_last_words(&mut self) {
        for which in [Which::Data, Which::Control] {
            self.unfinished = Some(which);
            // Bounded: something that escaped with a socket may never stop talking.
            for _ in 0..LAST_WORDS_TURNS_MAX {
                if matches!(self.undelivered, Some(Undelivered::Progress(..))) {
                    self.undelivered = None;
                    self.unfinished = Some(which);
                }
                if self.unfinished.take().is_none() || self.state == State::Dead {
                    break;
                }
                self.read(which);
            }
        }
        let torn = self.control.is_mid_frame() || self.data.as_ref().is_some_and(Lane::is_mid_frame);
        if torn && self.in_hand.is_some() && self.blame.is_none() {
            self.shared.log.push("[the pod ended in the middle of a frame]");
        }
    }

    // Callers.

    fn take(&mut self, pending: Pending) {
        self.free = false;
        if pending.replies.is_closed() {
            self.free = true;
            return;
        }
        if pending.request.deadline <= Instant::now() {
            pending.last.send(Reply::Fault(Fault::new(Code::Deadline, "the deadline passed before the pod was free")));
            self.free = true;
            return;
        }
        let ask = self.next_ask;
        self.next_ask += 1;
        self.in_hand = Some((ask, pending));
        self.step(Event::Ask(ask));
    }

    fn cancel(&mut self) {
        if let Some((ask, _)) = &self.in_hand {
            let ask = *ask;
            self.undelivered = None;
            self.step(Event::Cancel(ask));
            // A pod that is being ended by force has no use for the word. Without this the loop would find the caller
            // gone again and again, and on a runtime of one thread nothing else would ever run.
            self.resolve(ask, Reply::Fault(Fault::new(Code::Cancelled, "the caller went away")));
        }
    }

    fn resolve(&mut self, ask: AskId, reply: Reply) {
        if let Some((_, pending)) = self.in_hand.take_if(|(of, _)| *of == ask) {
            pending.last.send(reply);
        }
        self.undelivered = None;
        self.shared.log.attribute_to(0);
    }

    fn deliver_partial(&mut self) {
        let Some((_, pending)) = &self.in_hand else { return };
        self.undelivered = match self.partial.take() {
            Some(FromPod::Chunk { payload, .. }) => match pending.replies.try_send(Reply::Chunk(payload)) {
                Err(mpsc::error::TrySendError::Full(Reply::Chunk(payload))) => Some(Undelivered::Chunk(pending.replies.clone(), payload)),
                _ => None,
            },
            Some(FromPod::Progress { data, .. }) => match pending.request.events.try_send(model::Event::Progress { data }) {
                Err(mpsc::error::TrySendError::Full(model::Event::Progress { data })) => {
                    Some(Undelivered::Progress(pending.request.events.clone(), data))
                }
                _ => None,
            },
            _ => None,
        };
    }

    // The end.

    /// Why asks end with the pod.
    fn epitaph(&self, ending: Ending) -> Fault {
        let manifest = self.spec.recipe.manifest();
        let name = &manifest.name;
        let during = match &self.in_hand {
            Some((_, pending)) => format!(" during `{}`", pending.request.operation.name),
            None if self.shared.was_ready.load(Ordering::Acquire) => String::new(),
            None => " before it was ready".to_owned(),
        };
        let fault = match (&self.blame, ending) {
            (Some(blame), _) => {
                let mut fault = blame.clone();
                fault.message = match fault.message.strip_prefix("the pod ") {
                    Some(rest) => format!("the pod of `{name}` {rest}"),
                    None => fault.message,
                };
                fault
            }
            (None, Ending::Signal(signal)) => {
                Fault::new(Code::Crashed, format!("the pod of `{name}` was ended by signal {signal} ({}){during}", signal_name(signal)))
            }
            (None, Ending::Code(code)) => Fault::new(Code::Crashed, format!("the pod of `{name}` exited with code {code}{during}")),
        };
        // A pod that was ended for a reason tells nothing by how it ended.
        let fault = match ending {
            _ if self.blame.is_some() => fault,
            Ending::Signal(signal) => fault.with("signal", signal),
            Ending::Code(code) => fault.with("exit_code", code),
        };
        let fault = match fault.hint {
            Some(_) => fault,
            None => fault.hint("the last lines of its output are in `detail.log`; the next call starts a new pod"),
        };
        self.with_tail(fault, 0)
    }

    /// Adds the last lines that the pod printed (during `ask`, unless 0).
    fn with_tail(&self, fault: Fault, ask: AskId) -> Fault {
        let log = &self.shared.log;
        let lines = log.tail(FAULT_TAIL_LINES).into_iter().filter(|line| ask == 0 || line.ask == ask);
        let mut lines: Vec<String> = lines.map(|line| line.text).collect();
        if log.dropped() > 0 && !lines.is_empty() {
            lines.insert(0, format!("[{} earlier lines were let go]", log.dropped()));
        }
        match lines.is_empty() || !(fault.detail.is_null() || fault.detail.is_object()) {
            true => fault,
            false => fault.with("log", lines),
        }
    }

    async fn bury(mut self) {
        // Lines still in the pipes; a grandchild that holds one open is not waited for.
        if let Some(logs) = self.logs_ended.take() {
            let _ = timeout(Duration::from_millis(EXIT_GRACE_MS), logs).await;
        }
        let fault = self.blame.take().unwrap_or_else(|| Fault::new(Code::Crashed, "the pod is over"));
        let fault = self.with_tail(fault, 0);
        let _ = self.shared.epitaph.set(fault.clone());
        self.waiting.close();
        while let Some(pending) = self.waiting.recv().await {
            pending.last.send(Reply::Unstarted { fault: fault.clone(), request: Box::new(pending.request) });
        }
        let scratch = self.spec.scratch.clone();
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(scratch)).await;
        let _ = self.bury.send(true);
    }
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => "see signal(7)",
    }
}
