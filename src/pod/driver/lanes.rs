//! The two lanes to a pod and their state: what is unread, since when the pod does not read, when a lane
//! ended.

use tokio::time::Instant;

use crate::pod::{
    driver::{in_flight::Unfinished, waits::Undelivered},
    wire::lane::Lane,
};

/// The lanes of one pod.
pub(super) struct Lanes {
    pub control: Lane,
    /// `None` if both lanes share the control socket.
    pub data: Option<Lane>,
    /// Lanes whose decoders may hold whole frames.
    pub unfinished: Unfinished,
    /// A chunk whose caller has no room for it.
    pub undelivered: Option<Undelivered>,
    /// Number of pings that were sent.
    pub pings: u64,
    /// Set when a lane ended: when to stop waiting for the process to end as well.
    pub closed_at: Option<Instant>,
    /// Set when a lane ended: how long to wait for the news of a process that has already ended.
    pub exit_late_until: Option<Instant>,
    /// Set while the pod leaves too much unread and is not read itself: when to stop waiting for it to read.
    pub backed_up_until: Option<Instant>,
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

    pub fn has_output(&self) -> bool {
        self.all().any(Lane::has_output)
    }

    pub fn is_ended(&self) -> bool {
        self.closed_at.is_some() || self.all().any(Lane::is_closed)
    }

    pub fn is_mid_frame(&self) -> bool {
        self.all().any(Lane::is_mid_frame)
    }

    /// The lane on which asks are sent.
    pub fn for_asks(&mut self) -> &mut Lane {
        self.data.as_mut().unwrap_or(&mut self.control)
    }

    /// Whether asks wait that the pod has not read.
    pub fn asks_wait(&self) -> bool {
        self.data.as_ref().unwrap_or(&self.control).has_asks_waiting()
    }

    /// Whether the pod leaves so much unread that the host stops reading from it. Otherwise the pod would
    /// choose how much of the host's memory, and how many of its descriptors, wait for it.
    pub fn is_backed_up(&self) -> bool {
        self.all().any(Lane::is_backed_up)
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
}
