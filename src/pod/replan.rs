//! The timer of a policy: at most one look at a time is planned, the earliest that was asked for.

use std::{sync::Weak, time::Duration};

use tokio::time::{Instant, sleep_until};

/// When a policy is asked again although nothing happens. Times are since `born`. It belongs under the lock
/// of what it looks at.
#[derive(Debug, Default)]
pub struct Replan {
    planned: Option<Duration>,
}

impl Replan {
    /// Has `look` run at that time, unless an earlier look is planned, or its owner is gone by then. `look`
    /// calls [`Replan::looked`] first.
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

    /// The look that was planned for `at` is taken now.
    pub fn looked(&mut self, at: Duration) {
        self.planned.take_if(|planned| *planned == at);
    }
}
