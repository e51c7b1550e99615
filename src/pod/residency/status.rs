//! The status of a budget: which pods have memory, and which wait for it.

use crate::{
    model::{
        Priority,
        limits::RESIDENCY_EVENTS_SHOWN,
        status::machine::{GpuStatus, MachineStatus, ResidentStatus, WaitingStatus},
    },
    pod::residency::{
        BudgetShared,
        policy::{ClaimId, Resident, rank},
    },
};

impl BudgetShared {
    /// Which pods have memory, and which wait for it.
    pub(super) fn status(&self) -> MachineStatus {
        let mut state = self.lock();
        let now = self.now();
        state.read_work();
        let state = &*state;
        let gpu_of = |at: Option<usize>| state.gpu(at).map(|gpu| gpu.id.clone());
        let residents = || state.residency.residents();
        let resident = |(id, resident): (ClaimId, &Resident)| {
            let claim = state.claims.get(&id)?;
            let mut exclusive = resident.need.groups.clone();
            exclusive.extend(gpu_of(resident.gpu).filter(|_| resident.need.alone || self.rules.exclusive_gpus));
            Some(ResidentStatus {
                recipe: claim.recipe.clone(),
                incarnation: claim.incarnation.clone(),
                state: resident.state(),
                memory_bytes: resident.need.memory,
                gpu: gpu_of(resident.gpu),
                gpu_bytes: resident.need.gpu.unwrap_or(0),
                exclusive,
                pinned: resident.need.pinned || resident.need.kept,
                idle_ms: (resident.loaded.is_some() && resident.work == 0).then(|| now.saturating_sub(resident.since).as_millis() as u64),
            })
        };
        let mut waiting: Vec<_> = state.residency.waiters().collect();
        waiting.sort_by_key(|(id, waiter)| (std::cmp::Reverse(waiter.rank), waiter.since, *id));
        let waiting = waiting.into_iter().filter_map(|(id, waiter)| {
            let claim = state.claims.get(&id)?;
            Some(WaitingStatus {
                recipe: claim.recipe.clone(),
                incarnation: claim.incarnation.clone(),
                priority: Priority::ALL.into_iter().find(|priority| rank(Some(*priority)) == waiter.rank),
                since_ms: now.saturating_sub(waiter.since).as_millis() as u64,
            })
        });
        let claimed = |at: usize| {
            let there = residents().filter(|(_, resident)| resident.gpu == Some(at));
            there.map(|(_, resident)| resident.need.gpu.unwrap_or(0)).sum()
        };
        let capacity = state.residency.capacity();
        let gpus = state.gpus.iter().flatten().zip(&capacity.gpus).enumerate().map(|(at, (gpu, budget))| GpuStatus {
            gpu: gpu.clone(),
            budget_bytes: budget.bytes,
            claimed_bytes: claimed(at),
            exclusive: budget.exclusive,
        });
        MachineStatus {
            memory_budget_bytes: capacity.memory,
            memory_claimed_bytes: residents().map(|(_, resident)| resident.need.memory).sum(),
            gpus: gpus.collect(),
            residents: residents().filter_map(resident).collect(),
            waiting: waiting.collect(),
            events: state.events.iter().rev().take(RESIDENCY_EVENTS_SHOWN).rev().cloned().collect(),
        }
    }
}
