//! Measures a pod's memory: on its GPU while it is loaded, and whether it is back after the unload.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    disk::threads::certainly,
    model::{
        Digest,
        limits::{MEMORY_BACK_LOOK_MS, MEMORY_BACK_MS},
        status::machine::{Footprint, Gpu},
    },
    pod::residency::{BudgetShared, policy::ClaimId},
};

impl BudgetShared {
    /// Usage of its GPU, minus the claims of other residents, in bytes. Blocking.
    pub(super) fn gpu_used_beside(&self, id: ClaimId, gpu: &Gpu) -> Option<u64> {
        let found = self.machine.gpus().into_iter().find(|found| found.id == gpu.id)?;
        let mut state = self.lock();
        if let Some(known) = state.gpus.as_mut().and_then(|gpus| gpus.iter_mut().find(|known| known.id == gpu.id)) {
            known.used_bytes = found.used_bytes;
        }
        let at = state.gpus.as_ref()?.iter().position(|known| known.id == gpu.id);
        let others = state.residency.residents().filter(|(other, resident)| *other != id && resident.gpu == at);
        let others: u64 = others.map(|(_, resident)| resident.need.gpu.unwrap_or(0)).sum();
        Some(found.used_bytes.saturating_sub(others))
    }

    /// Bytes that the pod holds on its GPU; `before`: the usage, apart from other residents, before it
    /// loaded. Blocking.
    pub(super) fn gpu_held(&self, id: ClaimId, pid: u32, gpu: &Gpu, before: u64) -> Option<u64> {
        self.machine.gpu_bytes_of(pid, gpu).or_else(|| Some(self.gpu_used_beside(id, gpu)?.saturating_sub(before)))
    }

    /// Records a measure of a resident. From now on it counts for that much, and so does the next pod of its
    /// recipe.
    pub(super) fn record_footprint(&self, id: ClaimId, recipe: Digest, change: impl FnOnce(&mut Footprint)) {
        let mut state = self.lock();
        let footprint = state.footprints.measure(recipe, change);
        state.residency.report_measure(id, footprint.memory_bytes, footprint.gpu_bytes);
        self.replan(&mut state);
    }
}

/// Checks until the memory is back, for at most [`MEMORY_BACK_MS`]: neither the kernel nor a GPU's driver
/// notifies about it. Returns whether it is back.
pub(super) async fn comes_back(is_back: impl Fn() -> bool + Clone + Send + 'static) -> bool {
    let until = Instant::now() + Duration::from_millis(MEMORY_BACK_MS);
    loop {
        if certainly(is_back.clone()).await.unwrap_or(false) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        sleep(Duration::from_millis(MEMORY_BACK_LOOK_MS)).await;
    }
}
