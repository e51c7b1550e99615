//! Asks that no pod takes: which, and what their callers are told.
//!
//! Apart from `mod.rs`, which sees to those that one takes.

use std::time::Duration;

use crate::{
    model::{Code, Fault, act, hint},
    pod::pool::{
        ask::{Pending, Reply},
        restarts::MayStart,
        state::{PoolShared, PoolState},
    },
};

/// Asks that end without having been begun, and why; sent once the lock is let go of.
#[must_use]
pub(in crate::pod) struct Refusals(pub Vec<Pending>, pub Option<Fault>);

impl Refusals {
    pub(in crate::pod) fn none() -> Refusals {
        Refusals(Vec::new(), None)
    }
    pub(in crate::pod) fn send(self) {
        let Refusals(asks, Some(fault)) = self else { return };
        for ask in asks {
            ask.finish(Reply::Fault(fault.clone()));
        }
    }
}

impl PoolShared {
    pub(in crate::pod) fn refuse(&self, asks: Vec<Pending>, fault: &Fault) {
        Refusals(asks, Some(fault.clone())).send();
    }

    /// Refuses at once what no pod could take in time.
    pub(in crate::pod) fn refuse_while_cooling(&self, state: &mut PoolState, now: Duration, deadline: Duration) -> Result<(), Fault> {
        if state.members.iter().any(|member| !member.leaving) {
            return Ok(());
        }
        match state.restarts.may_start(now) {
            MayStart::Now => Ok(()),
            MayStart::At(at) if at < deadline => Ok(()),
            MayStart::At(at) | MayStart::Quarantined(at) => Err(self.cooling(state, at.saturating_sub(now))),
        }
    }

    pub(in crate::pod) fn cooling(&self, state: &PoolState, left: Duration) -> Fault {
        // Nothing failed that waiting would mend.
        if let Some(fault) = &state.hopeless {
            return fault.clone();
        }
        let name = self.name();
        let fault = Fault::new(Code::CoolingDown, format!("the pods of `{name}` failed again and again; none is started for now"))
            .hint(hint!["mend the cause, which is the last fault; ", act::lift(name), " tries again at once"])
            .retry_after(left);
        match &state.last_fault {
            Some(last) => fault.with("last_fault", serde_json::to_value(last).unwrap_or_default()),
            None => fault,
        }
    }

    pub(in crate::pod) fn poisoned(&self, operation: &str, left: Duration) -> Fault {
        let name = self.name();
        Fault::new(
            Code::PoisonRequest,
            format!("this input of `{operation}` ended pods of `{name}` before, and is not tried again for now"),
        )
        .hint(hint!["change the input, or mend the recipe; ", act::lift(name), " lets it be tried again"])
        .retry_after(left)
    }
}

/// All that waits.
pub(in crate::pod) fn everybody(state: &mut PoolState) -> Vec<Pending> {
    let solo = state.solo.drain(..).map(|ticketed| ticketed.pending);
    state.schedule.drain().into_iter().chain(solo).collect()
}

pub(in crate::pod) fn ending() -> Fault {
    Fault::new(Code::ShuttingDown, "the host is ending and takes no more work").hint("call again when it was started anew")
}

pub(in crate::pod) fn overdue() -> Fault {
    Fault::new(Code::Deadline, "the deadline passed before a pod was free")
}
