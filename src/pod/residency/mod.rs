//! The memory budget of one machine: memory and GPUs, shared out among the models of all recipes.
//!
//! ```text
//!    driver/loading.rs -- requests memory, reports --> claim.rs --> mod.rs --> policy.rs  decides
//!           ^                                                        |  ^
//!           +------------- may load, has to go ----------------------+  +--- machine.rs  what there is
//! ```
//!
//! This file has the lock and the clock. The lock is held to decide, never across an await.
//!
//! - `state.rs`: the state that the lock guards.
//! - `policy.rs`: decides, with neither clock nor lock nor hardware.
//! - `work.rs`: what a pod reports of its work without the lock, read when another pod waits.
//! - `footprints.rs`: the memory that the pods of each recipe take; `measure.rs` measures it.
//! - `budget.rs`: what the host holds; `status.rs`: what the host is told.

mod budget;
mod claim;
mod footprints;
pub mod machine;
mod measure;
mod policy;
mod refusals;
mod state;
mod status;
mod work;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::model::status::machine::{MachineRules, ResidencyChange};
pub use budget::Budget;
pub use claim::Claim;
use machine::Machine;
use policy::{ClaimId, Decision};
use state::BudgetState;

/// What the handles of a budget and its claims share.
struct BudgetShared {
    this: Weak<BudgetShared>,
    machine: Arc<dyn Machine>,
    rules: MachineRules,
    born: Instant,
    state: Mutex<BudgetState>,
    /// A claim waits: a pod that becomes idle has it looked at again.
    contended: AtomicBool,
}

impl BudgetShared {
    fn new(machine: Arc<dyn Machine>, rules: MachineRules, state: BudgetState) -> Arc<BudgetShared> {
        Arc::new_cyclic(|this| BudgetShared {
            this: this.clone(),
            machine,
            rules,
            born: Instant::now(),
            state: Mutex::new(state),
            contended: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn is_contended(&self) -> bool {
        self.contended.load(Ordering::SeqCst)
    }

    /// Decides what can be decided now, and tells the drivers.
    fn replan(&self, state: &mut BudgetState) {
        if !state.residency.has_waiters() {
            self.contended.store(false, Ordering::Release);
            return;
        }
        // Before the work of residents is read: a pod that becomes idle from here on has it looked at again.
        self.contended.store(true, Ordering::SeqCst);
        state.read_work();
        let now = self.now();
        let (decisions, again) = state.residency.decide(now);
        for decision in decisions {
            match decision {
                Decision::Load(id, gpu) => {
                    let gpu = state.gpu(gpu).cloned();
                    state.record(now, id, ResidencyChange::Loading, None);
                    if let Some(driver) = state.driver(id) {
                        driver.grant_memory(gpu);
                    }
                }
                Decision::Leave(id, for_whom) => {
                    let wanted_by = state.claims.get(&for_whom).map(|claim| claim.recipe.clone());
                    state.record(now, id, ResidencyChange::Leaving, wanted_by);
                    if let Some(driver) = state.driver(id) {
                        driver.reclaim_memory();
                    }
                }
            }
        }
        if let Some(again) = again {
            state.replan.plan(&self.this, self.born, again, |budget: &BudgetShared, at| {
                let mut state = budget.lock();
                state.replan.looked(at);
                budget.replan(&mut state);
            });
        }
    }

    /// The memory of a resident is back. `for_good`: its pod is gone.
    fn release(&self, id: ClaimId, for_good: bool) {
        let mut state = self.lock();
        if state.residency.resident(id).is_some() {
            state.record(self.now(), id, ResidencyChange::Gone, None);
        }
        state.residency.release(id);
        if for_good {
            state.claims.remove(&id);
        }
        self.replan(&mut state);
    }
}
