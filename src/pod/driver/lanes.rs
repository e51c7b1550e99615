//! The two lanes to a pod, and what is known of them: what was not read yet, since when the pod does not
//! read, when a lane ended.

use tokio::time::Instant;

use crate::pod::{
    driver::{in_flight::Unfinished, waits::Undelivered},
    wire::lane::Lane,
};

/// The lanes of one pod.
pub(super) struct Lanes {
    pub control: Lane,
    /// None when both lanes share the control socket.
    pub data: Option<Lane>,
    /// Lanes whose decoders may hold whole frames.
    pub unfinished: Unfinished,
    /// A chunk whose caller has no room for it.
    pub undelivered: Option<Undelivered>,
    /// Pings that were sent.
    pub pings: u64,
    /// A lane ended: when to stop waiting for the process to end as well.
    pub closed_at: Option<Instant>,
    /// A lane ended: until when a process that has ended, and whose end was not told yet, is waited for.
    pub exit_late_until: Option<Instant>,
    /// The pod leaves too much unread, and is not read itself: when to stop waiting for it to read.
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

    /// The one that asks go out on.
    pub fn for_asks(&mut self) -> &mut Lane {
        self.data.as_mut().unwrap_or(&mut self.control)
    }

    /// Whether asks wait that the pod does not read.
    pub fn asks_wait(&self) -> bool {
        self.data.as_ref().unwrap_or(&self.control).has_asks_waiting()
    }

    /// Whether the pod leaves so much unread that it is not read either: else it would choose how much of the
    /// host's memory, and how many of its descriptors, wait for it.
    pub fn is_backed_up(&self) -> bool {
        self.all().any(Lane::is_backed_up)
    }

    /// Bytes and descriptors that the pod did not read.
    pub fn waiting(&self) -> (usize, usize) {
        self.all().map(Lane::waiting).fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }

    /// Writes what the sockets take now.
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
