//! The memory budget of one machine: memory and GPUs, shared out among the models of all recipes.
//!
//! ```text
//!    driver/loading.rs -- wants to load, works, rests, holds so much --> mod.rs --> policy.rs  decides
//!           ^                                                             |  ^
//!           +------------- may load, has to go ---------------------------+  +--- machine.rs  what there is
//! ```
//!
//! This file has the lock and the clock. The lock is held to decide, never across an await. `policy.rs` has
//! neither clock nor lock nor hardware. `claims.rs` has what a pod tells of its work without the lock, read
//! when somebody waits.

mod claims;
pub mod machine;
mod policy;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    disk::threads::certainly,
    model::{
        Digest, Fault, Manifest, Priority,
        limits::{
            FOOTPRINT_DEFAULT_BYTES, FOOTPRINT_STEP_BYTES, FOOTPRINTS_MAX, GPU_BUDGET_PERCENT, MEMORY_BACK_LOOK_MS, MEMORY_BACK_MS,
            MEMORY_BACK_SLACK_BYTES, MEMORY_BUDGET_PERCENT, RESIDENCY_EVENTS_MAX, RESIDENCY_EVENTS_SHOWN,
        },
        status::machine::{
            Footprint, Gpu, GpuStatus, MachineRules, MachineStatus, ResidencyChange, ResidencyEvent, ResidentState, ResidentStatus,
            WaitingStatus,
        },
    },
    pod::{pool::watcher::PodShared, process::vitals},
};
use claims::{Work, is_news, too_much};
use machine::Machine;
use policy::{Capacity, ClaimId, Decision, GpuCapacity, Need, Rank, Residency, rank};

/// The budget of one machine. Cloning shares them.
#[derive(Clone)]
pub struct Budget(Arc<BudgetShared>);

struct BudgetShared {
    this: Weak<BudgetShared>,
    machine: Arc<dyn Machine>,
    rules: MachineRules,
    born: Instant,
    state: Mutex<BudgetState>,
    /// Somebody waits: who becomes idle says so.
    contended: AtomicBool,
}

#[derive(Default)]
struct BudgetState {
    residency: Residency,
    claims: HashMap<ClaimId, ClaimState>,
    next: ClaimId,
    /// Looked for when the first recipe wants one.
    gpus: Option<Vec<Gpu>>,
    events: VecDeque<ResidencyEvent>,
    planned: Option<Duration>,
    footprints: HashMap<Digest, (Footprint, u64)>,
    /// Footprints were measured that nobody has written down.
    unsaved: bool,
    measured: u64,
}

struct ClaimState {
    recipe: String,
    incarnation: String,
    shared: Weak<PodShared>,
    work: Arc<Work>,
    /// What its GPU had in use before it loaded.
    gpu_before: u64,
}

impl Budget {
    /// Nobody has a place. `footprints`: what recipes were measured to take before.
    pub fn new(machine: Arc<dyn Machine>, rules: MachineRules, footprints: impl IntoIterator<Item = (Digest, Footprint)>) -> Budget {
        let memory = rules.memory_bytes.unwrap_or_else(|| machine.memory_bytes() / 100 * MEMORY_BUDGET_PERCENT);
        let footprints = footprints.into_iter().take(FOOTPRINTS_MAX).map(|(recipe, footprint)| (recipe, (footprint, 0))).collect();
        let residency = Residency { capacity: Capacity { memory, gpus: Vec::new() }, ..Residency::default() };
        Budget(Arc::new_cyclic(|this| BudgetShared {
            this: this.clone(),
            machine,
            rules,
            born: Instant::now(),
            state: Mutex::new(BudgetState { residency, footprints, ..BudgetState::default() }),
            contended: AtomicBool::new(false),
        }))
    }

    /// Looks which GPUs there are, once. Blocking, as long as their drivers' tools take.
    pub fn look_for_gpus(&self) {
        let inner = &self.0;
        // None at all may be a driver that was slow to wake: it is asked again.
        if inner.lock().gpus.as_ref().is_some_and(|gpus| !gpus.is_empty()) {
            return;
        }
        let gpus = inner.machine.gpus();
        let mut state = inner.lock();
        let budget = |gpu: &Gpu| GpuCapacity {
            bytes: inner.rules.gpu_bytes.unwrap_or(gpu.bytes / 100 * GPU_BUDGET_PERCENT).min(gpu.bytes),
            exclusive: inner.rules.exclusive_gpus,
        };
        state.residency.capacity.gpus = gpus.iter().map(budget).collect();
        state.gpus = Some(gpus);
    }

    /// A pod of that recipe, which has no place yet. `kept`: the state of a session is in it.
    pub fn register(&self, manifest: &Manifest, recipe: Digest, incarnation: &str, kept: bool) -> Claim {
        let inner = self.0.clone();
        let name = manifest.name.to_string();
        let spec = manifest.pod.as_ref().map(|pod| pod.residency.clone()).unwrap_or_default();
        let groups = inner.rules.exclusive.iter().filter(|(_, recipes)| recipes.contains(&name)).map(|(group, _)| group.clone());
        let need = Need {
            memory: spec.memory_bytes.unwrap_or(FOOTPRINT_DEFAULT_BYTES),
            gpu: spec.gpu_bytes,
            alone: spec.exclusive,
            groups: groups.collect(),
            pinned: inner.rules.pinned.contains(&name),
            kept,
            recipe: Some(recipe),
        };
        let work = Arc::new(Work::default());
        let mut state = inner.lock();
        state.next += 1;
        let id = state.next;
        let known =
            ClaimState { recipe: name, incarnation: incarnation.to_owned(), shared: Weak::new(), work: work.clone(), gpu_before: 0 };
        state.claims.insert(id, known);
        drop(state);
        Claim { budget: inner, id, recipe, need, work, told: 0, is_granted: false }
    }

    /// Who has what, and who waits.
    pub fn status(&self) -> MachineStatus {
        let inner = &self.0;
        let mut state = inner.lock();
        let now = inner.now();
        inner.read_work(&mut state);
        let state = &*state;
        let gpus = state.gpus.as_deref().unwrap_or_default();
        let gpu_of = |at: Option<usize>| at.and_then(|at| gpus.get(at)).map(|gpu| gpu.id.clone());
        let residents = &state.residency.residents;
        let resident = |(id, resident): (&ClaimId, &crate::pod::residency::policy::Resident)| {
            let known = state.claims.get(id)?;
            let mut exclusive = resident.need.groups.clone();
            exclusive.extend(gpu_of(resident.gpu).filter(|_| resident.need.alone || inner.rules.exclusive_gpus));
            Some(ResidentStatus {
                recipe: known.recipe.clone(),
                incarnation: known.incarnation.clone(),
                state: match resident {
                    resident if resident.leaving => ResidentState::Leaving,
                    resident if resident.loaded.is_some() => ResidentState::Loaded,
                    _ => ResidentState::Loading,
                },
                memory_bytes: resident.need.memory,
                gpu: gpu_of(resident.gpu),
                gpu_bytes: resident.need.gpu.unwrap_or(0),
                exclusive,
                pinned: resident.need.pinned || resident.need.kept,
                idle_ms: (resident.loaded.is_some() && resident.work == 0).then(|| now.saturating_sub(resident.since).as_millis() as u64),
            })
        };
        let mut waiting: Vec<_> = state.residency.waiters.iter().collect();
        waiting.sort_by_key(|(id, waiter)| (std::cmp::Reverse(waiter.rank), waiter.since, **id));
        let waiting = waiting.into_iter().filter_map(|(id, waiter)| {
            let known = state.claims.get(id)?;
            Some(WaitingStatus {
                recipe: known.recipe.clone(),
                incarnation: known.incarnation.clone(),
                priority: Priority::ALL.into_iter().find(|priority| rank(Some(*priority)) == waiter.rank),
                since_ms: now.saturating_sub(waiter.since).as_millis() as u64,
            })
        });
        let claimed = |at: usize| {
            let there = residents.values().filter(|resident| resident.gpu == Some(at));
            there.map(|resident| resident.need.gpu.unwrap_or(0)).sum()
        };
        let budgets = &state.residency.capacity;
        let gpus = gpus.iter().zip(&budgets.gpus).enumerate().map(|(at, (gpu, budget))| GpuStatus {
            gpu: gpu.clone(),
            budget_bytes: budget.bytes,
            claimed_bytes: claimed(at),
            exclusive: budget.exclusive,
        });
        MachineStatus {
            memory_budget_bytes: budgets.memory,
            memory_claimed_bytes: residents.values().map(|resident| resident.need.memory).sum(),
            gpus: gpus.collect(),
            residents: residents.iter().filter_map(resident).collect(),
            waiting: waiting.collect(),
            events: state.events.iter().rev().take(RESIDENCY_EVENTS_SHOWN).rev().cloned().collect(),
        }
    }

    /// What happened to residents, oldest first: the last [`RESIDENCY_EVENTS_MAX`].
    pub fn events(&self) -> Vec<ResidencyEvent> {
        self.0.lock().events.iter().cloned().collect()
    }

    /// All footprints, if some were measured since the last time.
    pub fn unsaved_footprints(&self) -> Option<Vec<(Digest, Footprint)>> {
        let mut state = self.0.lock();
        std::mem::take(&mut state.unsaved).then(|| state.footprints.iter().map(|(recipe, (footprint, _))| (*recipe, *footprint)).collect())
    }
}

impl BudgetShared {
    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    /// Takes over what residents said of their work.
    fn read_work(&self, state: &mut BudgetState) {
        for (id, resident) in &mut state.residency.residents {
            if let Some(known) = state.claims.get(id) {
                let (since, worked, work) = known.work.get();
                if resident.loaded.is_some() {
                    (resident.since, resident.worked, resident.work) = (since, worked.max(1), work);
                }
            }
        }
    }

    /// Decides what can be decided now.
    fn replan(&self, state: &mut BudgetState) {
        if state.residency.waiters.is_empty() {
            self.contended.store(false, Ordering::Release);
            return;
        }
        // Before the work of residents is read: who becomes idle from here on looks again.
        self.contended.store(true, Ordering::SeqCst);
        self.read_work(state);
        let (decisions, again) = state.residency.decide(self.now());
        for decision in decisions {
            match decision {
                Decision::Load(id, gpu) => {
                    let at = gpu.and_then(|at| Some(state.gpus.as_ref()?.get(at)?.clone()));
                    self.record(state, id, ResidencyChange::Loading, None);
                    if let Some(shared) = state.claims.get(&id).and_then(|known| known.shared.upgrade()) {
                        shared.grant_memory(at);
                    }
                }
                Decision::Leave(id, for_whom) => {
                    let wanted_by = state.claims.get(&for_whom).map(|known| known.recipe.clone());
                    self.record(state, id, ResidencyChange::Leaving, wanted_by);
                    if let Some(shared) = state.claims.get(&id).and_then(|known| known.shared.upgrade()) {
                        shared.reclaim_memory();
                    }
                }
            }
        }
        if let Some(again) = again {
            self.plan(state, again);
        }
    }

    /// Looks again at that time.
    fn plan(&self, state: &mut BudgetState, at: Duration) {
        if state.planned.is_some_and(|planned| planned <= at) {
            return;
        }
        state.planned = Some(at);
        let (inner, when) = (self.this.clone(), self.born + at + Duration::from_millis(1));
        tokio::spawn(async move {
            sleep_until(when).await;
            let Some(inner) = inner.upgrade() else { return };
            let mut state = inner.lock();
            state.planned.take_if(|planned| *planned == at);
            inner.replan(&mut state);
        });
    }

    fn record(&self, state: &mut BudgetState, id: ClaimId, what: ResidencyChange, wanted_by: Option<String>) {
        let Some(known) = state.claims.get(&id) else { return };
        let gpu = state.residency.residents.get(&id).and_then(|resident| resident.gpu);
        let event = ResidencyEvent {
            at_ms: self.now().as_millis() as u64,
            what,
            recipe: known.recipe.clone(),
            incarnation: known.incarnation.clone(),
            gpu: gpu.and_then(|at| Some(state.gpus.as_ref()?.get(at)?.id.clone())),
            wanted_by,
        };
        tracing::debug!(recipe = %event.recipe, incarnation = %event.incarnation, gpu = ?event.gpu, "{what:?}");
        if state.events.len() == RESIDENCY_EVENTS_MAX {
            state.events.pop_front();
        }
        state.events.push_back(event);
    }

    fn release(&self, id: ClaimId, for_good: bool) {
        let mut state = self.lock();
        if state.residency.residents.contains_key(&id) {
            self.record(&mut state, id, ResidencyChange::Gone, None);
        }
        state.residency.release(id);
        if for_good {
            state.claims.remove(&id);
        }
        self.replan(&mut state);
    }

    fn gpu_of(&self, id: ClaimId) -> Option<(Gpu, u64)> {
        let state = self.lock();
        let at = state.residency.residents.get(&id)?.gpu?;
        Some((state.gpus.as_ref()?.get(at)?.clone(), state.claims.get(&id)?.gpu_before))
    }

    /// What of its GPU is used by nobody who has a place but perhaps by that one. Blocking.
    fn gpu_used_beside(&self, id: ClaimId, gpu: &Gpu) -> Option<u64> {
        let found = self.machine.gpus().into_iter().find(|found| found.id == gpu.id)?;
        let mut state = self.lock();
        if let Some(known) = state.gpus.as_mut().and_then(|gpus| gpus.iter_mut().find(|known| known.id == gpu.id)) {
            known.used_bytes = found.used_bytes;
        }
        let at = state.gpus.as_ref()?.iter().position(|known| known.id == gpu.id);
        let others = state.residency.residents.iter().filter(|(other, resident)| **other != id && resident.gpu == at);
        let others: u64 = others.map(|(_, resident)| resident.need.gpu.unwrap_or(0)).sum();
        Some(found.used_bytes.saturating_sub(others))
    }

    /// What that pod holds on its GPU; `before`: what was in use there beside those with a place, before it loaded. Blocking.
    fn gpu_held(&self, id: ClaimId, pid: u32, gpu: &Gpu, before: u64) -> Option<u64> {
        self.machine.gpu_bytes_of(pid, gpu).or_else(|| Some(self.gpu_used_beside(id, gpu)?.saturating_sub(before)))
    }

    /// Takes a measure of a resident over; it counts for so much from now on, and so does the next pod of its recipe.
    fn record_footprint(&self, id: ClaimId, recipe: Digest, change: impl FnOnce(&mut Footprint)) {
        let mut state = self.lock();
        state.measured += 1;
        let (measured, known) = (state.measured, state.footprints.get(&recipe).map(|(footprint, _)| *footprint));
        let mut footprint = known.unwrap_or_default();
        change(&mut footprint);
        if known != Some(footprint) {
            if known.is_none() && state.footprints.len() >= FOOTPRINTS_MAX {
                let oldest = state.footprints.iter().min_by_key(|(_, (_, at))| *at).map(|(recipe, _)| *recipe);
                oldest.map(|oldest| state.footprints.remove(&oldest));
            }
            state.footprints.insert(recipe, (footprint, measured));
            state.unsaved |=
                is_news(known.unwrap_or(Footprint { memory_bytes: FOOTPRINT_DEFAULT_BYTES, ..Footprint::default() }), footprint);
        }
        if let Some(resident) = state.residency.residents.get_mut(&id) {
            resident.need.memory = footprint.memory_bytes;
            if let Some(gpu) = resident.need.gpu.as_mut().filter(|_| footprint.gpu_bytes > 0) {
                *gpu = footprint.gpu_bytes;
            }
        }
        self.replan(&mut state);
    }
}

/// A pod's claim to a place. Its driver has it; dropped, the place is free when the pod's memory is back.
pub struct Claim {
    budget: Arc<BudgetShared>,
    id: ClaimId,
    recipe: Digest,
    /// As declared.
    need: Need,
    work: Arc<Work>,
    /// What was said of its work last.
    told: Rank,
    is_granted: bool,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Claim").field("id", &self.id).field("need", &self.need).finish_non_exhaustive()
    }
}

impl Claim {
    /// Whom to tell.
    pub(super) fn attach(&self, shared: &Arc<PodShared>) {
        if let Some(known) = self.budget.lock().claims.get_mut(&self.id) {
            known.shared = Arc::downgrade(shared);
        }
    }

    /// Whether the operator wants its models to stay.
    pub(super) fn is_pinned(&self) -> bool {
        self.need.pinned
    }

    /// Wants a place for work of that class; none: only if there is one to spare. Said again when the class changes.
    ///
    /// Errors: `out_of_memory` if there never will be one.
    pub(super) fn request(&mut self, priority: Option<Priority>) -> Result<(), Fault> {
        if self.is_granted {
            return Ok(());
        }
        let budget = &self.budget;
        let now = budget.now();
        let mut state = budget.lock();
        if state.residency.residents.contains_key(&self.id) {
            return Ok(());
        }
        let footprint = state.footprints.get(&self.recipe).map(|(footprint, _)| *footprint).unwrap_or_default();
        let mut need = self.need.clone();
        // One that took more than the budget when it ran did run: it has the machine for itself then, and is not refused for being measured.
        if footprint.memory_bytes > 0 {
            need.memory = footprint.memory_bytes.min(state.residency.capacity.memory);
        }
        let largest = state.residency.capacity.gpus.iter().map(|gpu| gpu.bytes).max().unwrap_or(0);
        if let Some(gpu) = need.gpu.as_mut().filter(|_| footprint.gpu_bytes > 0) {
            *gpu = footprint.gpu_bytes.min(largest.max(1));
        }
        let wanted = state.residency.request(self.id, need, rank(priority), Duration::from_millis(footprint.load_ms), now);
        wanted.map_err(|why| too_much(&state.claims[&self.id].recipe, &why, &budget.rules))?;
        budget.replan(&mut state);
        Ok(())
    }

    /// It wants none any more.
    pub(super) fn withdraw(&self) {
        let mut state = self.budget.lock();
        state.residency.withdraw(self.id);
        self.budget.replan(&mut state);
    }

    /// It begins to load, on that GPU.
    pub(super) fn report_loading(&mut self) {
        self.is_granted = true;
        let (budget, id) = (self.budget.clone(), self.id);
        let Some((gpu, _)) = budget.gpu_of(id) else { return };
        // What is used before tells apart, where the driver names no processes, what it used. It takes a driver longer to wake for a process.
        drop(certainly(move || {
            let before = budget.gpu_used_beside(id, &gpu).unwrap_or(gpu.used_bytes);
            if let Some(known) = budget.lock().claims.get_mut(&id) {
                known.gpu_before = before;
            }
        }));
    }

    /// It has loaded, in so long; `pid` holds so much memory.
    pub(super) fn report_loaded(&mut self, pid: u32, memory: Option<u64>, load_time: Duration) {
        let (budget, id, recipe) = (self.budget.clone(), self.id, self.recipe);
        {
            let mut state = budget.lock();
            let now = budget.now();
            // What it was loaded for, until it says what it is at work on: it is not taken for idle before its first ask.
            self.told = state.residency.residents.get(&id).map_or(0, |resident| resident.work);
            self.work.set(now, self.told);
            if let Some(resident) = state.residency.residents.get_mut(&id) {
                (resident.loaded, resident.load_time, resident.since) = (Some(now), load_time, now);
            }
            budget.record(&mut state, id, ResidencyChange::Loaded, None);
        }
        let load_ms = load_time.as_millis() as u64;
        budget.record_footprint(id, recipe, |footprint| {
            footprint.load_ms = load_ms;
            footprint.memory_bytes = memory.unwrap_or(footprint.memory_bytes).max(1);
        });
        if let Some((gpu, before)) = budget.gpu_of(id) {
            drop(certainly(move || {
                if let Some(bytes) = budget.gpu_held(id, pid, &gpu, before).filter(|bytes| *bytes > 0) {
                    budget.record_footprint(id, recipe, |footprint| footprint.gpu_bytes = bytes);
                }
            }));
        }
    }

    /// It is at work of that class, or without. Costs nothing while nobody waits and nothing changed.
    pub(super) fn report_work(&mut self, work: Option<Priority>) {
        let work = rank(work);
        if std::mem::replace(&mut self.told, work) == work {
            return;
        }
        self.work.set(self.budget.now(), work);
        if self.budget.contended.load(Ordering::SeqCst) {
            let mut state = self.budget.lock();
            self.budget.replan(&mut state);
        }
    }

    /// It was found to hold so much memory, between two asks.
    pub(super) fn report_memory(&self, memory: u64) {
        let known = self.budget.lock().footprints.get(&self.recipe).map_or(0, |(footprint, _)| footprint.memory_bytes);
        if memory > known + FOOTPRINT_STEP_BYTES {
            self.budget.record_footprint(self.id, self.recipe, |footprint| footprint.memory_bytes = memory);
        }
    }

    /// It goes of itself.
    pub(super) fn report_leaving(&self) {
        let mut state = self.budget.lock();
        let first = state.residency.residents.get_mut(&self.id).is_some_and(|resident| !std::mem::replace(&mut resident.leaving, true));
        if first {
            self.budget.record(&mut state, self.id, ResidencyChange::Leaving, None);
        }
    }

    /// Waits until the memory of what it unloaded is back: `empty`, what `pid` held before it loaded. Whether it is.
    pub(super) fn await_memory_back(&self, pid: u32, empty: u64) -> impl Future<Output = bool> + Send + 'static {
        let (budget, id) = (self.budget.clone(), self.id);
        async move {
            let until = Instant::now() + Duration::from_millis(MEMORY_BACK_MS);
            loop {
                let (budget, gpu) = (budget.clone(), budget.gpu_of(id));
                let look = move || {
                    let memory = vitals::memory_bytes(pid).unwrap_or(0);
                    let held = gpu.and_then(|(gpu, before)| budget.gpu_held(id, pid, &gpu, before));
                    memory <= empty + MEMORY_BACK_SLACK_BYTES && held.is_none_or(|held| held <= MEMORY_BACK_SLACK_BYTES)
                };
                if certainly(look).await.unwrap_or(false) {
                    return true;
                }
                if Instant::now() >= until {
                    return false;
                }
                sleep(Duration::from_millis(MEMORY_BACK_LOOK_MS)).await;
            }
        }
    }

    /// It unloaded, and its memory is back.
    pub(super) fn report_unloaded(&mut self) {
        self.is_granted = false;
        self.told = 0;
        self.budget.release(self.id, false);
    }
}

impl Drop for Claim {
    /// No process of the pod is left. A GPU's driver may clean up after it for a moment still.
    fn drop(&mut self) {
        let (budget, id) = (self.budget.clone(), self.id);
        let gpu = budget.gpu_of(id).filter(|_| self.is_granted);
        match (gpu, tokio::runtime::Handle::try_current()) {
            (Some((gpu, before)), Ok(runtime)) => {
                budget.mark_leaving(id);
                runtime.spawn(async move {
                    let until = Instant::now() + Duration::from_millis(MEMORY_BACK_MS);
                    loop {
                        let (there, gpu) = (budget.clone(), gpu.clone());
                        let back = move || there.gpu_used_beside(id, &gpu).is_none_or(|used| used <= before + MEMORY_BACK_SLACK_BYTES);
                        if certainly(back).await.unwrap_or(true) || Instant::now() >= until {
                            break;
                        }
                        sleep(Duration::from_millis(MEMORY_BACK_LOOK_MS)).await;
                    }
                    budget.release(id, true);
                });
            }
            _ => budget.release(id, true),
        }
    }
}

impl BudgetShared {
    fn mark_leaving(&self, id: ClaimId) {
        if let Some(resident) = self.lock().residency.residents.get_mut(&id) {
            resident.leaving = true;
        }
    }
}
