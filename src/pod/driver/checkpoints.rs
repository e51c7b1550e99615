//! The pod of a session: the session's name, the checkpoint with which the pod begins, and the requests for
//! its state.
//!
//! Most pods have no session. A checkpoint comes in pieces, each acknowledged before the next, so the host
//! holds at most one piece of it. The implementation of [`Keep`] decides where checkpoints are kept.

use std::{future::pending, os::fd::OwnedFd};

use tokio::time::Instant;

use crate::{
    model::{Code, Fault, limits::CHECKPOINT_PIECE_BYTES_MAX},
    pod::{
        driver::{
            Driver,
            state::{Event, State},
        },
        pool::BoxFuture,
        wire::{
            frame,
            messages::{self, Checkpoint, Control},
        },
    },
};

/// The checkpoint state of a session's driver.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// The piece that is being kept.
    keeping: Option<BoxFuture<'static, Result<Option<u64>, Fault>>>,
    /// How many checkpoints were requested; messages on the two lanes may be read in any order.
    seq: u64,
    /// The last requested checkpoint has not arrived.
    due: bool,
    /// The request was also sent on the data lane, where the pod looks between two asks.
    told: bool,
}

impl Checkpoints {
    /// Whether a piece is being kept.
    pub fn is_keeping(&self) -> bool {
        self.keeping.is_some()
    }

    /// Waits for the piece that is being kept. Cancel-safe.
    pub async fn kept(&mut self) -> Result<Option<u64>, Fault> {
        let kept = match &mut self.keeping {
            Some(keeping) => keeping.await,
            None => pending().await,
        };
        self.keeping = None;
        kept
    }

    /// Counts a request; returns its number.
    fn request(&mut self) -> u64 {
        self.due = true;
        self.seq += 1;
        self.seq
    }

    /// The number of the last request, if the data lane should carry it now; once per request.
    fn take_untold(&mut self) -> Option<u64> {
        if !self.due || self.told {
            return None;
        }
        self.told = true;
        Some(self.seq)
    }

    /// The last requested checkpoint has arrived, or will not come.
    fn answered(&mut self) {
        (self.due, self.told) = (false, false);
    }
}

impl Driver {
    /// The descriptor of the checkpoint to begin with, for the message that names it.
    pub(super) fn restored_file(&mut self) -> Option<OwnedFd> {
        let restore = self.spec.session.as_ref()?.restore.as_ref()?;
        restore.file.try_clone().ok()
    }

    /// Requests the pod's state: at the next safe point of the running ask, or at once.
    pub(super) fn want_checkpoint(&mut self) {
        let Some(session) = &self.spec.session else { return };
        if !matches!(self.state, State::Serving(_)) {
            let fault = Fault::new(Code::SessionBusy, "the session's pod is ending, or not yet ready");
            return session.keep.none(Some(fault));
        }
        let seq = self.checkpoints.request();
        self.say(&Control::Checkpoint { seq });
        self.tell_between();
    }

    /// Requests a checkpoint after an ask and before the next: if the pod ends later, the session continues
    /// from that state.
    pub(super) fn want_first_checkpoint(&mut self) {
        let Some(session) = &mut self.spec.session else { return };
        if self.in_flight.is_empty() && std::mem::take(&mut session.keeps_first) && !self.checkpoints.due {
            self.want_checkpoint();
        }
    }

    /// Sends the request on the data lane, the only lane that the pod reads between two asks.
    pub(super) fn tell_between(&mut self) {
        let serves = matches!(self.state, State::Serving(_));
        if serves
            && self.in_flight.is_empty()
            && let Some(seq) = self.checkpoints.take_untold()
        {
            self.say_on_data(&Control::Give { seq });
        }
    }

    /// The session is closed: the pod may run its closing code.
    pub(super) fn want_close(&mut self) {
        let Some(session) = &self.spec.session else { return };
        match matches!(self.state, State::Serving(_)) && self.in_flight.is_empty() {
            true => self.say_on_data(&Control::Close),
            false => session.keep.closed(),
        }
    }

    pub(super) fn say_on_data(&mut self, message: &Control) {
        frame::encode(self.lanes.for_asks().out(), 0, &messages::control(message), std::iter::empty());
    }

    /// Handles a message of the pod about its state.
    pub(super) fn heard_checkpoint(&mut self, said: Checkpoint) {
        let violation = |text: &str| Event::Violation(text.to_owned());
        let Some(session) = &self.spec.session else { return self.step(violation("sent a checkpoint and belongs to no session")) };
        if matches!(self.state, State::Starting { .. } | State::Empty | State::Loading) {
            return self.step(violation("sent a checkpoint before it was ready"));
        }
        // It computes, and that it writes its state is a sign of life like any progress.
        let now = Instant::now();
        self.in_flight.heard_all(now);
        match said {
            _ if self.checkpoints.is_keeping() => self.step(violation("sent more of a checkpoint than it was told to")),
            Checkpoint::Piece { bytes, .. } if bytes.len() > CHECKPOINT_PIECE_BYTES_MAX => {
                self.step(violation(&format!("sent {} bytes of a checkpoint at once", bytes.len())));
            }
            Checkpoint::Piece { bytes, last, json } => self.checkpoints.keeping = Some(session.keep.piece(bytes, last, json)),
            Checkpoint::None(why) => {
                session.keep.none(why);
                self.checkpoints.answered();
            }
            Checkpoint::Closed => session.keep.closed(),
        }
    }

    /// Tells the pod whether a piece was kept.
    pub(super) fn was_kept(&mut self, kept: Result<Option<u64>, Fault>) {
        let (number, fault) = match &kept {
            Ok(number) => (*number, None),
            Err(fault) => (None, Some(fault.message.as_str())),
        };
        self.say(&Control::Kept { number, fault });
        if !matches!(kept, Ok(None)) {
            self.checkpoints.answered();
        }
    }

    /// The pod is over: ends every wait for a checkpoint, which will not come.
    pub(super) fn lost_checkpoint(&self) {
        if let Some(session) = self.spec.session.as_ref().filter(|_| self.checkpoints.due) {
            session.keep.none(Some(Fault::new(Code::Crashed, "the session's pod ended before it gave its state")));
        }
    }
}
