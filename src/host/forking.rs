//! Whether the pods of one recipe are forked, and from which zygote.

use std::sync::{Mutex, MutexGuard};

use crate::{
    model::{
        Verified,
        status::{ZygoteState, ZygoteStatus},
    },
    pod::Family,
};

/// What is known of forking one recipe's pods.
#[derive(Debug, Default)]
pub struct Forkable {
    verdict: Mutex<Verdict>,
}

/// Whether this recipe's pods can be forked.
#[derive(Debug, Clone, Default)]
pub enum Verdict {
    #[default]
    Unknown,
    /// The zygote boots, or its canary runs.
    Asked,
    Forks(Family),
    Starts(String),
}

impl Forkable {
    fn verdict(&self) -> MutexGuard<'_, Verdict> {
        self.verdict.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The family to fork the next pod from; `None` while that is unknown, or known not to work.
    pub fn family(&self) -> Option<Family> {
        let mut verdict = self.verdict();
        match &*verdict {
            Verdict::Forks(family) if family.can_fork() => Some(family.clone()),
            // The zygote was killed, or ended because it had no pods: the next pod is started, and a new
            // zygote after it.
            Verdict::Forks(_) => {
                *verdict = Verdict::Unknown;
                None
            }
            _ => None,
        }
    }

    /// Returns true if the caller has to find out whether pods can be forked.
    pub fn ask(&self) -> bool {
        let mut verdict = self.verdict();
        let unknown = matches!(*verdict, Verdict::Unknown);
        if unknown {
            *verdict = Verdict::Asked;
        }
        unknown
    }

    pub fn set(&self, verdict: Verdict) {
        *self.verdict() = verdict;
    }

    /// The state for `hob status` and `hob doctor`; `None` while nothing is known.
    pub fn status(&self, recipe: &Verified) -> Option<ZygoteStatus> {
        let (state, why, family) = match &*self.verdict() {
            Verdict::Unknown => return None,
            Verdict::Asked => (ZygoteState::Booting, None, None),
            Verdict::Forks(family) if family.can_fork() => (ZygoteState::Ready, None, Some(family.clone())),
            Verdict::Forks(_) => (ZygoteState::Gone, None, None),
            Verdict::Starts(why) => (ZygoteState::Unforkable, Some(why.clone()), None),
        };
        let (forked, pods) = family.as_ref().map_or((0, 0), Family::counts);
        Some(ZygoteStatus {
            recipe: recipe.manifest().name.to_string(),
            state,
            why,
            forked,
            pods,
            pid: family.and_then(|family| family.supervisor_pid()),
        })
    }
}
