//! The refusals of a pod's network requests: the last few texts and their number, for the faults of its calls
//! and for the host's log.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::model::limits::EGRESS_REFUSALS_MAX;

/// The refusals of one pod.
pub(super) struct Ledger {
    recipe: String,
    kept: Mutex<Kept>,
}

impl Ledger {
    pub fn of(recipe: &str) -> Ledger {
        Ledger { recipe: recipe.to_owned(), kept: Mutex::default() }
    }

    /// The last few texts, latest last, each once.
    pub fn texts(&self) -> Vec<String> {
        self.kept().texts.iter().cloned().collect()
    }

    /// Number of refusals so far.
    pub fn count(&self) -> u64 {
        self.kept().count
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, text: &str) {
        let mut kept = self.kept();
        kept.count = kept.count.saturating_add(1);
        let known = kept.texts.iter().position(|known| known == text);
        match known {
            // A pod that repeats a request must not push out the other refusals.
            Some(at) => drop(kept.texts.remove(at)),
            None => kept.new = kept.new.saturating_add(1),
        }
        if kept.texts.len() == EGRESS_REFUSALS_MAX {
            kept.texts.pop_front();
        }
        kept.texts.push_back(text.to_owned());
        let loud = known.is_none() && kept.new <= EGRESS_REFUSALS_MAX;
        drop(kept);
        match loud {
            true => tracing::warn!(recipe = self.recipe, "refused to a pod: {text}"),
            false => tracing::debug!(recipe = self.recipe, "refused to a pod: {text}"),
        }
    }
}

#[derive(Default)]
struct Kept {
    texts: VecDeque<String>,
    count: u64,
    /// Number of refusals that were not already kept. Those after the first few are traced at a lower level,
    /// or a pod could fill the host's log.
    new: usize,
}
