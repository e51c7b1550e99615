//! The state of a budget: its claims, which pods have memory, and past events.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    model::{
        limits::RESIDENCY_EVENTS_MAX,
        status::machine::{Gpu, ResidencyChange, ResidencyEvent},
    },
    pod::{
        pool::watcher::PodShared,
        replan::Replan,
        residency::{
            footprints::Footprints,
            policy::{ClaimId, Residency},
            work::Work,
        },
    },
};

/// The state that the lock guards.
#[derive(Default)]
pub(super) struct BudgetState {
    pub residency: Residency,
    pub claims: HashMap<ClaimId, ClaimState>,
    /// The newest claim.
    newest: ClaimId,
    /// `None` until the first recipe needs a GPU.
    pub gpus: Option<Vec<Gpu>>,
    pub events: VecDeque<ResidencyEvent>,
    /// The next time at which to decide again.
    pub replan: Replan,
    pub footprints: Footprints,
}

/// The state of one pod's claim.
pub(super) struct ClaimState {
    pub recipe: String,
    pub incarnation: String,
    /// The driver, which gets the decisions.
    pub shared: Weak<PodShared>,
    pub work: Arc<Work>,
    /// What its GPU had in use before it loaded, in bytes.
    pub gpu_before: u64,
}

impl BudgetState {
    pub fn new(residency: Residency, footprints: Footprints) -> BudgetState {
        BudgetState { residency, footprints, ..BudgetState::default() }
    }

    pub fn add(&mut self, claim: ClaimState) -> ClaimId {
        self.newest += 1;
        self.claims.insert(self.newest, claim);
        self.newest
    }

    /// Reads the work that residents reported.
    pub fn read_work(&mut self) {
        for (id, claim) in &self.claims {
            let (since, worked, work) = claim.work.get();
            self.residency.report_work(*id, since, worked, work);
        }
    }

    /// The driver of that claim, if its pod is still there.
    pub fn driver(&self, id: ClaimId) -> Option<Arc<PodShared>> {
        self.claims.get(&id)?.shared.upgrade()
    }

    pub fn gpu(&self, at: Option<usize>) -> Option<&Gpu> {
        self.gpus.as_ref()?.get(at?)
    }

    /// The GPU of that resident, and the bytes that were in use on it before the load.
    pub fn gpu_of(&self, id: ClaimId) -> Option<(Gpu, u64)> {
        let gpu = self.gpu(self.residency.resident(id)?.gpu)?;
        Some((gpu.clone(), self.claims.get(&id)?.gpu_before))
    }

    /// Records an event of a resident; keeps the last [`RESIDENCY_EVENTS_MAX`].
    pub fn record(&mut self, now: Duration, id: ClaimId, what: ResidencyChange, wanted_by: Option<String>) {
        let Some(claim) = self.claims.get(&id) else { return };
        let gpu = self.residency.resident(id).and_then(|resident| resident.gpu);
        let event = ResidencyEvent {
            at_ms: now.as_millis() as u64,
            what,
            recipe: claim.recipe.clone(),
            incarnation: claim.incarnation.clone(),
            gpu: self.gpu(gpu).map(|gpu| gpu.id.clone()),
            wanted_by,
        };
        tracing::debug!(recipe = %event.recipe, incarnation = %event.incarnation, gpu = ?event.gpu, "{what:?}");
        if self.events.len() == RESIDENCY_EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
