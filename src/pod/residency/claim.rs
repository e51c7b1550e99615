//! A pod's claim to memory for its models: how its driver asks for it, and reports what it does with it.

use std::{sync::Arc, time::Duration};

use crate::{
    disk::threads::certainly,
    model::{
        Digest, Fault, Priority,
        limits::{FOOTPRINT_STEP_BYTES, MEMORY_BACK_SLACK_BYTES},
        status::machine::ResidencyChange,
    },
    pod::{
        pool::watcher::PodShared,
        process::vitals,
        residency::{
            BudgetShared,
            measure::comes_back,
            policy::{ClaimId, Need, Rank, rank},
            refusals::too_much,
            work::Work,
        },
    },
};

/// A pod's claim to memory, held by the pod's driver. Drop frees the memory for others once the pod's memory
/// is back.
pub struct Claim {
    budget: Arc<BudgetShared>,
    id: ClaimId,
    recipe: Digest,
    /// What the manifest declares.
    need: Need,
    work: Arc<Work>,
    /// The work that was last reported.
    reported: Rank,
    /// Whether the pod may load, or has loaded.
    is_granted: bool,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Claim").field("id", &self.id).field("need", &self.need).finish_non_exhaustive()
    }
}

impl Claim {
    pub(super) fn new(budget: Arc<BudgetShared>, id: ClaimId, recipe: Digest, need: Need, work: Arc<Work>) -> Claim {
        Claim { budget, id, recipe, need, work, reported: 0, is_granted: false }
    }

    /// Sends decisions to this driver.
    pub(in crate::pod) fn attach(&self, shared: &Arc<PodShared>) {
        if let Some(claim) = self.budget.lock().claims.get_mut(&self.id) {
            claim.shared = Arc::downgrade(shared);
        }
    }

    /// Whether the operator wants the pod's models to stay.
    pub(in crate::pod) fn is_pinned(&self) -> bool {
        self.need.pinned
    }

    /// Requests memory for work of that class; `None`: only if there is memory to spare. Called again when
    /// the class changes.
    ///
    /// Errors: `out_of_memory` if it can never fit.
    pub(in crate::pod) fn request(&mut self, priority: Option<Priority>) -> Result<(), Fault> {
        if self.is_granted {
            return Ok(());
        }
        let budget = &self.budget;
        let now = budget.now();
        let mut state = budget.lock();
        if state.residency.resident(self.id).is_some() {
            return Ok(());
        }
        let footprint = state.footprints.of(self.recipe);
        let capacity = state.residency.capacity();
        let mut need = self.need.clone();
        // A pod that took more than the budget when it ran did run: it gets the machine for itself, and is
        // not refused because of its measure.
        if footprint.memory_bytes > 0 {
            need.memory = footprint.memory_bytes.min(capacity.memory);
        }
        let largest = capacity.gpus.iter().map(|gpu| gpu.bytes).max().unwrap_or(0);
        if let Some(gpu) = need.gpu.as_mut().filter(|_| footprint.gpu_bytes > 0) {
            *gpu = footprint.gpu_bytes.min(largest.max(1));
        }
        let requested = state.residency.request(self.id, need, rank(priority), Duration::from_millis(footprint.load_ms), now);
        requested.map_err(|why| too_much(&state.claims[&self.id].recipe, &why, &budget.rules))?;
        budget.replan(&mut state);
        Ok(())
    }

    /// The pod wants no memory any more.
    pub(in crate::pod) fn withdraw(&self) {
        let mut state = self.budget.lock();
        state.residency.withdraw(self.id);
        self.budget.replan(&mut state);
    }

    /// The pod begins to load, on the GPU that it was granted.
    pub(in crate::pod) fn report_loading(&mut self) {
        self.is_granted = true;
        let (budget, id) = (self.budget.clone(), self.id);
        let Some((gpu, _)) = self.budget.lock().gpu_of(id) else { return };
        // If the driver does not list processes, the usage before the load shows afterwards what the pod
        // used. This is not awaited, because a driver takes longer to wake for a process.
        drop(certainly(move || {
            let before = budget.gpu_used_beside(id, &gpu).unwrap_or(gpu.used_bytes);
            if let Some(claim) = budget.lock().claims.get_mut(&id) {
                claim.gpu_before = before;
            }
        }));
    }

    /// The pod has loaded, in `load_time`; `pid` holds `memory` bytes.
    pub(in crate::pod) fn report_loaded(&mut self, pid: u32, memory: Option<u64>, load_time: Duration) {
        let (budget, id, recipe) = (self.budget.clone(), self.id, self.recipe);
        {
            let mut state = budget.lock();
            let now = budget.now();
            // The class that it loaded for counts until it reports its work, so that it does not seem idle
            // before its first ask.
            self.reported = state.residency.report_loaded(id, load_time, now);
            self.work.set(now, self.reported);
            state.record(now, id, ResidencyChange::Loaded, None);
        }
        let load_ms = load_time.as_millis() as u64;
        budget.record_footprint(id, recipe, |footprint| {
            footprint.load_ms = load_ms;
            footprint.memory_bytes = memory.unwrap_or(footprint.memory_bytes).max(1);
        });
        let gpu = budget.lock().gpu_of(id);
        if let Some((gpu, before)) = gpu {
            drop(certainly(move || {
                if let Some(bytes) = budget.gpu_held(id, pid, &gpu, before).filter(|bytes| *bytes > 0) {
                    budget.record_footprint(id, recipe, |footprint| footprint.gpu_bytes = bytes);
                }
            }));
        }
    }

    /// The pod works on that class, or is idle. Costs nothing while no pod waits and nothing changed.
    pub(in crate::pod) fn report_work(&mut self, work: Option<Priority>) {
        let work = rank(work);
        if std::mem::replace(&mut self.reported, work) == work {
            return;
        }
        self.work.set(self.budget.now(), work);
        if self.budget.is_contended() {
            self.budget.replan(&mut self.budget.lock());
        }
    }

    /// The pod was found to hold `memory` bytes between two asks.
    pub(in crate::pod) fn report_memory(&self, memory: u64) {
        let known = self.budget.lock().footprints.of(self.recipe).memory_bytes;
        if memory > known + FOOTPRINT_STEP_BYTES {
            self.budget.record_footprint(self.id, self.recipe, |footprint| footprint.memory_bytes = memory);
        }
    }

    /// The pod unloads its models, because it was told to or for its own reasons.
    pub(in crate::pod) fn report_leaving(&self) {
        let mut state = self.budget.lock();
        if state.residency.report_leaving(self.id) {
            state.record(self.budget.now(), self.id, ResidencyChange::Leaving, None);
        }
    }

    /// Waits until the memory of the unloaded models is back. `empty`: bytes that `pid` held before it
    /// loaded. Returns whether it is back.
    pub(in crate::pod) fn await_memory_back(&self, pid: u32, empty: u64) -> impl Future<Output = bool> + Send + 'static {
        let (budget, id) = (self.budget.clone(), self.id);
        comes_back(move || {
            let memory = vitals::memory_bytes(pid).unwrap_or(0);
            let gpu = budget.lock().gpu_of(id);
            let held = gpu.and_then(|(gpu, before)| budget.gpu_held(id, pid, &gpu, before));
            memory <= empty + MEMORY_BACK_SLACK_BYTES && held.is_none_or(|held| held <= MEMORY_BACK_SLACK_BYTES)
        })
    }

    /// The pod has unloaded, and its memory is back.
    pub(in crate::pod) fn report_unloaded(&mut self) {
        self.is_granted = false;
        self.reported = 0;
        self.budget.release(self.id, false);
    }
}

impl Drop for Claim {
    /// No process of the pod is left. A GPU's driver may still clean up after it for a moment.
    fn drop(&mut self) {
        let (budget, id) = (self.budget.clone(), self.id);
        let gpu = budget.lock().gpu_of(id).filter(|_| self.is_granted);
        match (gpu, tokio::runtime::Handle::try_current()) {
            (Some((gpu, before)), Ok(runtime)) => {
                budget.lock().residency.report_leaving(id);
                runtime.spawn(async move {
                    let there = budget.clone();
                    comes_back(move || there.gpu_used_beside(id, &gpu).is_none_or(|used| used <= before + MEMORY_BACK_SLACK_BYTES)).await;
                    budget.release(id, true);
                });
            }
            _ => budget.release(id, true),
        }
    }
}
