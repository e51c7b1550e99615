//! The handle on a machine's memory budget: made by the host, which registers each pod with it.

use std::sync::{Arc, Weak};

use crate::{
    model::{
        Digest, Manifest,
        limits::{FOOTPRINT_DEFAULT_BYTES, GPU_BUDGET_PERCENT, MEMORY_BUDGET_PERCENT},
        status::machine::{Footprint, Gpu, MachineRules, MachineStatus, ResidencyEvent},
    },
    pod::residency::{
        BudgetShared,
        claim::Claim,
        footprints::Footprints,
        machine::Machine,
        policy::{Capacity, GpuCapacity, Need, Residency},
        state::{BudgetState, ClaimState},
        work::Work,
    },
};

/// The memory that the pods of one machine may have for their models. Cloning shares it.
#[derive(Clone)]
pub struct Budget(Arc<BudgetShared>);

impl Budget {
    /// Makes a budget in which no pod has memory yet. `footprints`: measured by earlier hosts, for each
    /// recipe.
    pub fn new(machine: Arc<dyn Machine>, rules: MachineRules, footprints: impl IntoIterator<Item = (Digest, Footprint)>) -> Budget {
        let memory = rules.memory_bytes.unwrap_or_else(|| machine.memory_bytes() / 100 * MEMORY_BUDGET_PERCENT);
        let residency = Residency::new(Capacity { memory, gpus: Vec::new() });
        Budget(BudgetShared::new(machine, rules, BudgetState::new(residency, Footprints::new(footprints))))
    }

    /// Detects the machine's GPUs, once. Blocking, for as long as their drivers' tools take.
    pub fn look_for_gpus(&self) {
        let shared = &self.0;
        // If none is found, the driver may have been slow to wake: the next call asks again.
        if shared.lock().gpus.as_ref().is_some_and(|gpus| !gpus.is_empty()) {
            return;
        }
        let gpus = shared.machine.gpus();
        let capacity = |gpu: &Gpu| GpuCapacity {
            bytes: shared.rules.gpu_bytes.unwrap_or(gpu.bytes / 100 * GPU_BUDGET_PERCENT).min(gpu.bytes),
            exclusive: shared.rules.exclusive_gpus,
        };
        let mut state = shared.lock();
        state.residency.set_gpus(gpus.iter().map(capacity).collect());
        state.gpus = Some(gpus);
    }

    /// A claim for a pod of that recipe, which has no memory for its models yet. `kept`: the pod has the
    /// state of a session.
    pub fn register(&self, manifest: &Manifest, recipe: Digest, incarnation: &str, kept: bool) -> Claim {
        let shared = self.0.clone();
        let name = manifest.name.to_string();
        let spec = manifest.pod.as_ref().map(|pod| pod.residency.clone()).unwrap_or_default();
        let groups = shared.rules.exclusive.iter().filter(|(_, recipes)| recipes.contains(&name)).map(|(group, _)| group.clone());
        let need = Need {
            memory: spec.memory_bytes.unwrap_or(FOOTPRINT_DEFAULT_BYTES),
            gpu: spec.gpu_bytes,
            alone: spec.exclusive,
            groups: groups.collect(),
            pinned: shared.rules.pinned.contains(&name),
            kept,
            recipe: Some(recipe),
        };
        let work = Arc::new(Work::default());
        let claim =
            ClaimState { recipe: name, incarnation: incarnation.to_owned(), shared: Weak::new(), work: work.clone(), gpu_before: 0 };
        let id = shared.lock().add(claim);
        Claim::new(shared, id, recipe, need, work)
    }

    /// Which pods have memory, and which wait for it.
    pub fn status(&self) -> MachineStatus {
        self.0.status()
    }

    /// What happened to residents, oldest first: the last
    /// [`RESIDENCY_EVENTS_MAX`](crate::model::limits::RESIDENCY_EVENTS_MAX).
    pub fn events(&self) -> Vec<ResidencyEvent> {
        self.0.lock().events.iter().cloned().collect()
    }

    /// All footprints, if some were measured since the last time.
    pub fn unsaved_footprints(&self) -> Option<Vec<(Digest, Footprint)>> {
        self.0.lock().footprints.take_unsaved()
    }
}
