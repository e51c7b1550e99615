//! The two lanes to a pod and their state: what is unread, since when the pod does not read, when a lane
//! ended.

use std::{future::pending, time::Duration};

use tokio::time::Instant;

use crate::{
    model::limits::{EXIT_GRACE_MS, EXIT_LATE_MS, LANE_WAITING_MS},
    pod::{
        driver::{state::AskId, waits::far},
        wire::{
            lane::{Lane, Read},
            messages::Payload,
        },
    },
};

/// One of the two lanes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Which {
    Control,
    Data,
}

/// A set of lanes.
#[derive(Debug, Default)]
struct Unfinished {
    control: bool,
    data: bool,
}

/// The lanes of one pod.
pub(super) struct Lanes {
    control: Lane,
    /// `None` if both lanes share the control socket.
    data: Option<Lane>,
    /// Lanes whose decoders may hold whole frames.
    unfinished: Unfinished,
    /// A chunk whose caller has no room for it; while there is one, the data lane is not read.
    undelivered: Option<(AskId, Payload)>,
    /// Number of pings that were sent.
    pings: u64,
    /// Set when a lane ended: when to stop waiting for the process to end as well.
    closed_at: Option<Instant>,
    /// Set when a lane ended: how long to wait for the news of a process that has already ended.
    exit_late_until: Option<Instant>,
    /// Set while the pod leaves too much unread and is not read itself: when to stop waiting for it to read.
    backed_up_until: Option<Instant>,
}

impl Lanes {
    pub fn new(control: Lane, data: Lane) -> Lanes {
        Lanes {
            control,
            data: Some(data),
            unfinished: Unfinished::default(),
            undelivered: None,
            pings: 0,
            closed_at: None,
            exit_late_until: None,
            backed_up_until: None,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Lane> {
        [Some(&self.control), self.data.as_ref()].into_iter().flatten()
    }

    // Sending.

    pub fn control(&mut self) -> &mut Lane {
        &mut self.control
    }

    /// The lane on which asks are sent.
    pub fn for_asks(&mut self) -> &mut Lane {
        self.data.as_mut().unwrap_or(&mut self.control)
    }

    /// Both lanes use the control socket from now on.
    pub fn share_socket(&mut self) {
        self.data = None;
    }

    pub fn is_sharing_socket(&self) -> bool {
        self.data.is_none()
    }

    /// The number of the ping that is sent now.
    pub fn next_ping(&mut self) -> u64 {
        self.pings += 1;
        self.pings
    }

    pub fn is_last_ping(&self, number: u64) -> bool {
        number == self.pings
    }

    pub fn has_output(&self) -> bool {
        self.all().any(Lane::has_output)
    }

    /// Waits until a socket accepts some of the output. Cancel-safe.
    pub async fn writable(&self) {
        tokio::select! { _ = writable(self.data.as_ref()) => {}, _ = writable(Some(&self.control)) => {} }
    }

    /// Whether asks wait that the pod has not read.
    pub fn asks_wait(&self) -> bool {
        self.data.as_ref().unwrap_or(&self.control).has_asks_waiting()
    }

    /// Number of bytes and of descriptors that the pod has not read.
    pub fn waiting(&self) -> (usize, usize) {
        self.all().map(Lane::waiting).fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }

    /// Writes as much as the sockets accept now.
    pub fn flush(&mut self) {
        self.control.flush();
        if let Some(data) = &mut self.data {
            data.flush();
        }
    }

    /// The first error with which this machine refused to send something.
    pub fn take_refused(&mut self) -> Option<std::io::Error> {
        self.control.take_refused().or_else(|| self.data.as_mut().and_then(Lane::take_refused))
    }

    /// The pod is over: nothing more is sent.
    pub fn give_up(&mut self) {
        self.control.give_up();
        if let Some(data) = &mut self.data {
            data.give_up();
        }
    }

    // Reading.

    /// Whether this lane is read now. No lane of a pod that does not read is read, and not the lane of chunks
    /// and answers while one of them finds no room.
    pub fn hears(&self, which: Which) -> bool {
        let carries_data = matches!(which, Which::Data) || self.is_sharing_socket();
        !(self.is_backed_up() || (carries_data && self.undelivered.is_some()))
    }

    /// Waits until this lane has input. Cancel-safe.
    pub async fn readable(&self, which: Which) {
        match (which, &self.data) {
            (Which::Control, _) => drop(self.control.stream().readable().await),
            (Which::Data, Some(data)) if !data.is_closed() => drop(data.stream().readable().await),
            (Which::Data, _) => pending().await,
        }
    }

    /// Reads from this lane; `None` for the data lane if both share the control socket.
    pub fn read(&mut self, which: Which) -> Option<Read> {
        match which {
            Which::Control => Some(self.control.read()),
            Which::Data => self.data.as_mut().map(Lane::read),
        }
    }

    /// The decoder of this lane may hold whole frames, for which the socket will not become readable.
    pub fn note_unfinished(&mut self, which: Which) {
        match which {
            Which::Control => self.unfinished.control = true,
            Which::Data => self.unfinished.data = true,
        }
    }

    pub fn has_unfinished(&self) -> bool {
        self.unfinished.control || self.unfinished.data
    }

    pub fn take_unfinished(&mut self) -> impl Iterator<Item = Which> + use<> {
        let Unfinished { control, data } = std::mem::take(&mut self.unfinished);
        [(control, Which::Control), (data, Which::Data)].into_iter().filter_map(|(is_in, which)| is_in.then_some(which))
    }

    pub fn is_mid_frame(&self) -> bool {
        self.all().any(Lane::is_mid_frame)
    }

    /// Keeps a chunk whose caller has no room for it. The lane of chunks is not read until the chunk is
    /// taken.
    pub fn hold_back(&mut self, ask: AskId, payload: Payload) {
        self.undelivered = Some((ask, payload));
    }

    pub fn take_undelivered(&mut self) -> Option<(AskId, Payload)> {
        self.undelivered.take()
    }

    // Lanes that end, and pods that do not read.

    pub fn is_ended(&self) -> bool {
        self.closed_at.is_some() || self.all().any(Lane::is_closed)
    }

    /// A lane ended. A process that is just ending closes its sockets first: its end has a moment to arrive.
    pub fn note_closed(&mut self, now: Instant) {
        self.exit_late_until.get_or_insert(now + Duration::from_millis(EXIT_LATE_MS));
        self.closed_at.get_or_insert(now + Duration::from_millis(EXIT_GRACE_MS));
    }

    /// A lane cannot be read any more. That ends the pod; the end of its process is not awaited.
    pub fn note_broken(&mut self) {
        self.closed_at = None;
    }

    /// Whether a process still lives at the end of the time that it has after its lanes ended; true once.
    pub fn take_exit_overdue(&mut self, now: Instant) -> bool {
        self.closed_at.take_if(|at| *at <= now).is_some()
    }

    /// Whether the news of a process's end may still be on its way.
    pub fn may_exit_late(&self, now: Instant) -> bool {
        self.exit_late_until.is_some_and(|until| now < until)
    }

    /// Waits again: the process has ended, and the news of it is late.
    pub fn await_exit(&mut self, now: Instant) {
        self.closed_at = Some(now + Duration::from_millis(EXIT_GRACE_MS));
    }

    /// Whether the pod leaves so much unread that the host stops reading from it. Otherwise the pod would
    /// choose how much of the host's memory, and how many of its descriptors, wait for it.
    fn is_backed_up(&self) -> bool {
        self.all().any(Lane::is_backed_up)
    }

    /// Starts the wait for a pod that leaves too much unread, or ends it. Returns true if the pod has read,
    /// so that the host reads from it again.
    pub fn watch_backlog(&mut self, now: Instant) -> bool {
        match (self.is_backed_up(), self.backed_up_until) {
            (true, None) => self.backed_up_until = Some(now + Duration::from_millis(LANE_WAITING_MS)),
            (false, Some(_)) => {
                self.backed_up_until = None;
                return true;
            }
            _ => {}
        }
        false
    }

    /// Whether the pod has left too much unread for too long; true once. The wait does not begin anew: it
    /// ends with the pod, or when the pod has read.
    pub fn take_backlog_overdue(&mut self, now: Instant) -> bool {
        let is_overdue = self.backed_up_until.is_some_and(|at| at <= now);
        if is_overdue {
            self.backed_up_until = Some(far());
        }
        is_overdue
    }

    /// When the first wait of the lanes ends.
    pub fn next_due(&self) -> Option<Instant> {
        [self.closed_at, self.backed_up_until].into_iter().flatten().min()
    }
}

async fn writable(lane: Option<&Lane>) {
    match lane.filter(|lane| lane.has_output()) {
        Some(lane) => drop(lane.stream().writable().await),
        None => pending().await,
    }
}
