//! The policy of the memory budget: which pods may load their models, and which have to unload theirs. It has
//! neither clock nor lock nor hardware.
//!
//! A pod that was granted memory is a *resident*: from before it loads until its memory is known to be back.
//! A pod that requests memory waits with the class of its work:
//!
//! - Free memory is granted at once. So is the memory of an idle resident, the least recently used first, but
//!   never to a waiter without work.
//! - A waiter with work of a higher class gets the memory at the next end of an ask.
//! - A waiter of the same class gets it when the resident has had its *hold* (a few times what loading took),
//!   or was idle for a while.
//! - A waiter of a lower class gets it after [`PATIENCE_HOLDS`] holds, and then for a whole hold. So nothing
//!   waits for ever, and only a share of the time goes into loading.
//! - A resident that is pinned, or has the state of a session, is never told to go.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    Digest, Priority,
    limits::{GAP_MAX_MS, GAP_MIN_MS, HOLD_LOADS, HOLD_MAX_MS, HOLD_MIN_MS, PATIENCE_HOLDS},
    status::machine::ResidentState,
};

/// Identifies a pod's claim.
pub type ClaimId = u64;

/// What a pod needs while its models are loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    pub memory: u64,
    /// Memory on one GPU.
    pub gpu: Option<u64>,
    /// No other pod may use that GPU.
    pub alone: bool,
    /// Of each of these groups, one pod at a time is a resident.
    pub groups: Vec<String>,
    /// Pinned by the operator: never told to go.
    pub pinned: bool,
    /// Pods of one recipe never take memory from each other: nothing would be gained.
    pub recipe: Option<Digest>,
    /// Has the state of a session; never told to go while it has that.
    pub kept: bool,
}

/// A class of work as a number: 0 is no work; a higher number goes first.
pub type Rank = u8;

pub fn rank(priority: Option<Priority>) -> Rank {
    match priority {
        None => 0,
        Some(Priority::Bulk) => 1,
        Some(Priority::Normal) => 2,
        Some(Priority::Interactive) => 3,
    }
}

/// The memory that all pods together may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    pub memory: u64,
    /// The GPUs, each with its memory.
    pub gpus: Vec<GpuCapacity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuCapacity {
    pub bytes: u64,
    /// One model at a time.
    pub exclusive: bool,
}

/// A pod that was granted memory.
#[derive(Debug, Clone)]
pub struct Resident {
    pub need: Need,
    pub gpu: Option<usize>,
    /// The time at which it had loaded; `None` while it loads.
    pub loaded: Option<Duration>,
    pub load_time: Duration,
    /// The class of its current work; 0 if it has none.
    pub work: Rank,
    /// The class of its last work.
    pub worked: Rank,
    /// The time since which it works, or is idle.
    pub since: Duration,
    /// It was told to unload its models, or does so for its own reasons.
    pub leaving: bool,
    /// It waited too long for this memory: during its hold not even a higher class makes it go.
    pub guaranteed: bool,
}

/// A pod that waits for memory.
#[derive(Debug, Clone)]
pub struct Waiter {
    pub need: Need,
    pub rank: Rank,
    /// The time since which it waits for work of that class.
    pub since: Duration,
    /// The time since which it waits for any work.
    pub first: Duration,
    /// It waited so long that it is served before work of a higher class.
    pub jumps_queue: bool,
    /// How long its load is expected to take.
    pub load_time: Duration,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This pod may load, on that GPU if it needs one.
    Load(ClaimId, Option<usize>),
    /// The first pod has to go for the second.
    Leave(ClaimId, ClaimId),
}

/// Why a need can never be met here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TooMuch {
    Memory { wanted: u64, budget: u64, pinned: u64 },
    NoGpu,
    Gpu { wanted: u64, budget: u64 },
}

/// The residents, and the pods that wait.
#[derive(Debug, Default)]
pub struct Residency {
    capacity: Capacity,
    residents: BTreeMap<ClaimId, Resident>,
    waiters: BTreeMap<ClaimId, Waiter>,
}

impl Resident {
    pub fn state(&self) -> ResidentState {
        match self.loaded {
            _ if self.leaving => ResidentState::Leaving,
            Some(_) => ResidentState::Loaded,
            None => ResidentState::Loading,
        }
    }
}

/// How long a model may stay once it is loaded.
pub fn hold(load_time: Duration) -> Duration {
    (load_time * HOLD_LOADS).clamp(Duration::from_millis(HOLD_MIN_MS), Duration::from_millis(HOLD_MAX_MS))
}

/// How long a model must have no work to count as idle for good.
fn gap(load_time: Duration) -> Duration {
    (load_time / 2).clamp(Duration::from_millis(GAP_MIN_MS), Duration::from_millis(GAP_MAX_MS))
}

impl Residency {
    pub fn new(capacity: Capacity) -> Residency {
        Residency { capacity, ..Residency::default() }
    }

    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    pub fn set_gpus(&mut self, gpus: Vec<GpuCapacity>) {
        self.capacity.gpus = gpus;
    }

    pub fn resident(&self, id: ClaimId) -> Option<&Resident> {
        self.residents.get(&id)
    }

    pub fn residents(&self) -> impl Iterator<Item = (ClaimId, &Resident)> {
        self.residents.iter().map(|(id, resident)| (*id, resident))
    }

    pub fn waiters(&self) -> impl Iterator<Item = (ClaimId, &Waiter)> {
        self.waiters.iter().map(|(id, waiter)| (*id, waiter))
    }

    pub fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// A resident has loaded, in `load_time`. Returns the class of the work that it loaded for.
    pub fn report_loaded(&mut self, id: ClaimId, load_time: Duration, now: Duration) -> Rank {
        let Some(resident) = self.residents.get_mut(&id) else { return 0 };
        (resident.loaded, resident.load_time, resident.since) = (Some(now), load_time, now);
        resident.work
    }

    /// Since `since`, a loaded resident works on class `work`, or is idle; `worked`: the class of its last
    /// work.
    pub fn report_work(&mut self, id: ClaimId, since: Duration, worked: Rank, work: Rank) {
        if let Some(resident) = self.residents.get_mut(&id).filter(|resident| resident.loaded.is_some()) {
            (resident.since, resident.worked, resident.work) = (since, worked.max(1), work);
        }
    }

    /// A resident's measured memory, in bytes; `gpu` is 0 if it was not measured.
    pub fn report_measure(&mut self, id: ClaimId, memory: u64, gpu: u64) {
        let Some(resident) = self.residents.get_mut(&id) else { return };
        resident.need.memory = memory;
        if let Some(claimed) = resident.need.gpu.as_mut().filter(|_| gpu > 0) {
            *claimed = gpu;
        }
    }

    /// A resident goes. Returns whether that is news.
    pub fn report_leaving(&mut self, id: ClaimId) -> bool {
        self.residents.get_mut(&id).is_some_and(|resident| !std::mem::replace(&mut resident.leaving, true))
    }

    /// Requests memory, or requests it for another class than before.
    ///
    /// Errors: why it can never fit.
    pub fn request(&mut self, id: ClaimId, need: Need, rank: Rank, load_time: Duration, now: Duration) -> Result<(), TooMuch> {
        self.check(&need)?;
        let fresh = Waiter { need: need.clone(), rank, since: now, first: now, jumps_queue: false, load_time };
        let waiter = self.waiters.entry(id).or_insert(fresh);
        // A pod of the same recipe may have been measured since the last request.
        (waiter.need, waiter.load_time) = (need, load_time);
        if waiter.rank == 0 && rank > 0 {
            waiter.first = now;
        }
        if waiter.rank != rank {
            (waiter.rank, waiter.since) = (rank, now);
        }
        Ok(())
    }

    /// Whether the need can be met if every resident goes that may be told to.
    fn check(&self, need: &Need) -> Result<(), TooMuch> {
        let pinned = self.residents.values().filter(|resident| resident.need.pinned);
        let pinned_memory: u64 = pinned.map(|resident| resident.need.memory).fold(0, u64::saturating_add);
        let budget = self.capacity.memory;
        if need.memory > budget.saturating_sub(pinned_memory) {
            return Err(TooMuch::Memory { wanted: need.memory, budget, pinned: pinned_memory });
        }
        let Some(wanted) = need.gpu else { return Ok(()) };
        let largest = self.capacity.gpus.iter().map(|gpu| gpu.bytes).max().ok_or(TooMuch::NoGpu)?;
        if wanted > largest { Err(TooMuch::Gpu { wanted, budget: largest }) } else { Ok(()) }
    }

    /// The pod waits no longer.
    pub fn withdraw(&mut self, id: ClaimId) {
        self.waiters.remove(&id);
    }

    /// The pod's memory is back, or the pod is gone.
    pub fn release(&mut self, id: ClaimId) -> bool {
        self.waiters.remove(&id);
        self.residents.remove(&id).is_some()
    }

    /// The decisions that are possible now, and when to decide again even if nothing happens.
    pub fn decide(&mut self, now: Duration) -> (Vec<Decision>, Option<Duration>) {
        let (mut decisions, mut again) = (Vec::new(), None::<Duration>);
        let mut order: Vec<ClaimId> = self.waiters.keys().copied().collect();
        order.sort_by_key(|id| (std::cmp::Reverse(self.urgency(id, now)), self.waiters[id].since, *id));
        // Waiters for which residents are already leaving: the memory is reserved for them.
        let mut reserved: Vec<Waiter> = Vec::new();
        for id in order {
            let waiter = self.waiters[&id].clone();
            if let Some(gpu) = self.fits(&waiter.need) {
                let breaks = |reservation: &Waiter| {
                    let after = self.without(|resident| resident.leaving);
                    after.fits(&reservation.need).is_some() && after.with(&waiter.need, gpu).fits(&reservation.need).is_none()
                };
                if reserved.iter().any(breaks) {
                    continue;
                }
                // A waiter that goes before others of a higher class does so because it waited so long.
                let first = waiter.jumps_queue
                    || self.waiters.values().any(|other| other.rank > waiter.rank && self.is_out_of_patience(&waiter, now));
                self.waiters.remove(&id);
                self.residents.insert(id, Self::granted(&waiter, gpu, now, first));
                decisions.push(Decision::Load(id, gpu));
                continue;
            }
            if self.without(|resident| resident.leaving).fits(&waiter.need).is_some() {
                reserved.push(waiter);
                continue;
            }
            let (victims, at) = self.victims(&waiter, now);
            match at {
                Some(at) if at <= now && !victims.is_empty() => {
                    let jumps_queue = victims.iter().any(|victim| self.residents[victim].work > waiter.rank);
                    if let Some(waiter) = self.waiters.get_mut(&id) {
                        waiter.jumps_queue |= jumps_queue;
                    }
                    for victim in victims {
                        if let Some(resident) = self.residents.get_mut(&victim) {
                            resident.leaving = true;
                        }
                        decisions.push(Decision::Leave(victim, id));
                    }
                    reserved.push(waiter);
                }
                Some(at) if at > now => again = Some(again.map_or(at, |again| again.min(at))),
                // A resident has to finish loading, or leaving, first: that is an event.
                _ => {}
            }
        }
        (decisions, again)
    }

    /// The class that a waiter is served in: one that waited too long goes first.
    fn urgency(&self, id: &ClaimId, now: Duration) -> Rank {
        let Some(waiter) = self.waiters.get(id) else { return 0 };
        if self.is_out_of_patience(waiter, now) { Rank::MAX } else { waiter.rank }
    }

    fn is_out_of_patience(&self, waiter: &Waiter, now: Duration) -> bool {
        waiter.rank > 0 && now.saturating_sub(waiter.first) >= hold(waiter.load_time) * PATIENCE_HOLDS
    }

    fn granted(waiter: &Waiter, gpu: Option<usize>, now: Duration, guaranteed: bool) -> Resident {
        Resident {
            need: waiter.need.clone(),
            gpu,
            loaded: None,
            load_time: waiter.load_time,
            work: waiter.rank,
            worked: waiter.rank,
            since: now,
            leaving: false,
            guaranteed,
        }
    }

    fn without(&self, is_gone: impl Fn(&Resident) -> bool) -> Residency {
        let staying = self.residents.iter().filter(|(_, resident)| !is_gone(resident));
        Residency {
            capacity: self.capacity.clone(),
            residents: staying.map(|(id, resident)| (*id, resident.clone())).collect(),
            waiters: BTreeMap::new(),
        }
    }

    fn with(mut self, need: &Need, gpu: Option<usize>) -> Residency {
        let waiter = Waiter {
            need: need.clone(),
            rank: 0,
            since: Duration::ZERO,
            first: Duration::ZERO,
            jumps_queue: false,
            load_time: Duration::ZERO,
        };
        let resident = Self::granted(&waiter, gpu, Duration::ZERO, false);
        self.residents.insert(ClaimId::MAX, resident);
        self
    }

    /// Where a need fits beside all residents: `None` if nowhere, else the GPU, if the need has one.
    fn fits(&self, need: &Need) -> Option<Option<usize>> {
        let all = || self.residents.values();
        let memory = all().map(|resident| resident.need.memory).fold(need.memory, u64::saturating_add);
        let grouped = all().any(|resident| shares_group(&resident.need, need));
        if memory > self.capacity.memory || grouped {
            return None;
        }
        let Some(bytes) = need.gpu else { return Some(None) };
        let gpus = self.capacity.gpus.iter().enumerate().filter_map(|(at, gpu)| {
            let there = || all().filter(|resident| resident.gpu == Some(at));
            let used = there().map(|resident| resident.need.gpu.unwrap_or(0)).fold(0, u64::saturating_add);
            let disturbed = there().any(|resident| resident.need.alone || need.alone || gpu.exclusive);
            let free = gpu.bytes.checked_sub(used)?;
            (!disturbed && free >= bytes).then_some((at, free))
        });
        // The emptiest GPU: the next need has the best chance to fit on another one.
        gpus.max_by_key(|(at, free)| (*free, std::cmp::Reverse(*at))).map(|(at, _)| Some(at))
    }

    /// The residents that would have to go, and when they may be told to. `None`: at least one of them may
    /// never be told, or only after some event.
    fn victims(&self, waiter: &Waiter, now: Duration) -> (Vec<ClaimId>, Option<Duration>) {
        let gpus: Vec<Option<usize>> = match waiter.need.gpu {
            Some(_) => (0..self.capacity.gpus.len()).map(Some).collect(),
            None => vec![None],
        };
        let each = gpus.into_iter().filter_map(|gpu| {
            let victims = self.victims_on(waiter, gpu, now)?;
            let at = victims.iter().map(|(_, at)| *at).max().unwrap_or(now).max(now);
            Some((at, victims.len(), victims))
        });
        match each.min_by_key(|(at, count, _)| (*at, *count)) {
            Some((at, _, victims)) => (victims.into_iter().map(|(id, _)| id).collect(), Some(at)),
            None => (Vec::new(), None),
        }
    }

    /// `victims` for memory on that GPU.
    fn victims_on(&self, waiter: &Waiter, gpu: Option<usize>, now: Duration) -> Option<Vec<(ClaimId, Duration)>> {
        let need = &waiter.need;
        let staying = || self.residents.iter().filter(|(_, resident)| !resident.leaving);
        let is_alone = |at: usize| need.alone || self.capacity.gpus[at].exclusive;
        let is_on = |resident: &Resident| gpu.is_some() && resident.gpu == gpu;
        let must = |resident: &Resident| {
            shares_group(&resident.need, need) || (is_on(resident) && (gpu.is_some_and(is_alone) || resident.need.alone))
        };
        let mut victims = Vec::new();
        for (id, resident) in staying().filter(|(_, resident)| must(resident)) {
            victims.push((*id, self.may_leave(resident, waiter, now)?));
        }
        let memory_left = |victims: &[(ClaimId, Duration)]| {
            let others = staying().filter(|(id, _)| !victims.iter().any(|(victim, _)| victim == *id));
            others.map(|(_, resident)| resident.need.memory).fold(0, u64::saturating_add).saturating_add(need.memory)
                <= self.capacity.memory
        };
        let gpu_left = |victims: &[(ClaimId, Duration)]| {
            let Some(at) = gpu else { return true };
            let others = staying().filter(|(id, resident)| resident.gpu == gpu && !victims.iter().any(|(victim, _)| victim == *id));
            let used = others.map(|(_, resident)| resident.need.gpu.unwrap_or(0)).fold(0, u64::saturating_add);
            used.saturating_add(need.gpu.unwrap_or(0)) <= self.capacity.gpus[at].bytes
        };
        // First the residents that may be told soonest, and of these the least recently used.
        let mut rest: Vec<(ClaimId, Duration, Duration)> = Vec::new();
        for (id, resident) in staying() {
            if victims.iter().any(|(victim, _)| victim == id) {
                continue;
            }
            if let Some(at) = self.may_leave(resident, waiter, now) {
                let used = if resident.work > 0 { Duration::MAX } else { resident.since };
                rest.push((*id, at.max(now), used));
            }
        }
        rest.sort_by_key(|(id, at, used)| (*at, *used, *id));
        for (id, at, _) in rest {
            let helps_gpu = !gpu_left(&victims) && self.residents[&id].gpu == gpu;
            if helps_gpu || !memory_left(&victims) {
                victims.push((id, at));
            }
        }
        // A victim that is large enough alone spares the ones chosen before it.
        let needed = victims.clone();
        for (id, _) in needed {
            let spared: Vec<_> = victims.iter().copied().filter(|(victim, _)| *victim != id).collect();
            if !must(&self.residents[&id]) && memory_left(&spared) && gpu_left(&spared) {
                victims = spared;
            }
        }
        (memory_left(&victims) && gpu_left(&victims)).then_some(victims)
    }

    /// When a resident may be told to go for that waiter. `None`: never, or only after some event.
    fn may_leave(&self, resident: &Resident, waiter: &Waiter, now: Duration) -> Option<Duration> {
        let loaded = resident.loaded?;
        let same_recipe = resident.need.recipe.is_some() && resident.need.recipe == waiter.need.recipe;
        if resident.need.pinned || resident.need.kept || same_recipe || waiter.rank == 0 {
            return None;
        }
        let hold = hold(resident.load_time);
        let lost_patience = waiter.first + hold * PATIENCE_HOLDS;
        let held = loaded + hold;
        let at = match (resident.work, waiter.rank) {
            // The resident may get more work: of the same class soon, of a higher class at some time.
            (0, wanted) if wanted == resident.worked => held.min(resident.since + gap(resident.load_time)),
            (0, wanted) if wanted < resident.worked => (resident.since + hold).min(lost_patience.max(held)),
            (0, _) => now,
            (work, wanted) if wanted > work => now,
            (work, wanted) if wanted == work => held.max(waiter.since),
            _ => lost_patience.max(held),
        };
        Some(match (resident.guaranteed, resident.work) {
            (true, 0) => at.max(held.min(resident.since + gap(resident.load_time))),
            (true, _) => at.max(held),
            (false, _) => at,
        })
    }
}

fn shares_group(one: &Need, other: &Need) -> bool {
    one.groups.iter().any(|group| other.groups.contains(group))
}
