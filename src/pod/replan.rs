//! The timer of a policy: at most one look is planned at a time, the earliest that was asked for.

use std::{sync::Weak, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Plans when a policy looks again although nothing happens. Times are since `born`. The lock that guards the
/// policy's state must guard this too.
#[derive(Debug, Default)]
pub struct Replan {
    planned: Option<Duration>,
}

impl Replan {
    /// Runs `look` at that time, unless an earlier look is planned, or its owner is gone by then. `look` must
    /// call [`Replan::looked`] first.
    pub fn plan<T: Send + Sync + 'static>(&mut self, owner: &Weak<T>, born: Instant, at: Duration, look: fn(&T, Duration)) {
        if self.planned.is_some_and(|planned| planned <= at) {
            return;
        }
        self.planned = Some(at);
        let owner = owner.clone();
        tokio::spawn(async move {
            sleep_until(born + at).await;
            if let Some(owner) = owner.upgrade() {
                look(&owner, at);
            }
        });
    }

    /// Records that the look that was planned for `at` begins now.
    pub fn looked(&mut self, at: Duration) {
        self.planned.take_if(|planned| *planned == at);
    }
}
