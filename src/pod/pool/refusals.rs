//! The faults of asks that are refused before a pod has begun them.

use std::time::Duration;

use crate::{
    model::{Code, Fault, act, hint},
    pod::pool::{PoolShared, restarts::MayStart, state::PoolState},
};

impl PoolShared {
    /// Errors: why no pod could take an ask with that deadline in time.
    pub(super) fn check_cooling(&self, state: &PoolState, now: Duration, deadline: Duration) -> Result<(), Fault> {
        if state.members.iter().any(|member| member.stays()) {
            return Ok(());
        }
        match state.restarts.may_start(now) {
            MayStart::Now => Ok(()),
            MayStart::At(at) if at < deadline => Ok(()),
            MayStart::At(at) | MayStart::Quarantined(at) => Err(self.cooling(state, at.saturating_sub(now))),
        }
    }

    pub(super) fn cooling(&self, state: &PoolState, left: Duration) -> Fault {
        // Waiting would not help: nothing failed.
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

    pub(super) fn poisoned(&self, operation: &str, left: Duration) -> Fault {
        let name = self.name();
        Fault::new(
            Code::PoisonRequest,
            format!("this input of `{operation}` ended pods of `{name}` before, and is not tried again for now"),
        )
        .hint(hint!["change the input, or mend the recipe; ", act::lift(name), " lets it be tried again"])
        .retry_after(left)
    }
}

pub(super) fn ending() -> Fault {
    Fault::ending("host", "takes no more work")
}

pub(super) fn overdue() -> Fault {
    Fault::new(Code::Deadline, "the deadline passed before a pod was free")
}
