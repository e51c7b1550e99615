//! A change of a pool's state: made under the lock; waiters are notified after it.

use std::time::Duration;

use crate::{
    model::Fault,
    pod::pool::{
        PoolShared,
        ask::{Pending, Reply},
        state::PoolState,
    },
};

/// A pool's state while its lock is held. The callers of refused asks are told once the lock is released.
pub(super) struct Change<'a> {
    pub state: &'a mut PoolState,
    /// Time since the pool was made.
    pub now: Duration,
    refused: Vec<(Vec<Pending>, Fault)>,
    is_news: bool,
}

impl Change<'_> {
    /// Ends those asks, which no pod has begun, with that fault.
    pub fn refuse(&mut self, asks: Vec<Pending>, fault: Fault) {
        if !asks.is_empty() {
            self.refused.push((asks, fault));
        }
    }

    /// Notifies those who wait for a pod of the pool: one became ready, ended, or could not be started.
    pub fn tell_waiters(&mut self) {
        self.is_news = true;
    }

    /// Ends all waiting asks with that fault.
    pub fn refuse_all(&mut self, fault: Fault) {
        let all = self.state.take_waiting();
        self.refuse(all, fault);
    }
}

impl PoolShared {
    /// Changes the state under the lock. After the lock is released, tells the callers of refused asks, and
    /// notifies those who wait for a pod to be ready or for a closed pool to be quiet.
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut Change<'_>) -> T) -> T {
        let mut state = self.lock();
        let mut change = Change { now: self.now(), state: &mut state, refused: Vec::new(), is_news: false };
        let done = act(&mut change);
        let (refused, is_news) = (change.refused, change.is_news);
        let is_quiet = state.is_closed_and_quiet();
        drop(state);
        for (asks, fault) in refused {
            asks.into_iter().for_each(|ask| ask.finish(Reply::Fault(fault.clone())));
        }
        if is_news || is_quiet {
            self.changed.notify_waiters();
        }
        done
    }
}
