//! What claims to budget are made of: what a pod is at work on, what of a measure is news, and the words for one that can never be met.
//!
//! Apart from `mod.rs`, which has the lock: nothing here waits for anybody.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    model::{
        Code, Fault, act, hint,
        limits::{FOOTPRINT_DEFAULT_BYTES, FOOTPRINT_STEP_BYTES, HOLD_MIN_MS},
        status::machine::{Footprint, MachineRules},
    },
    pod::residency::policy::{Rank, TooMuch},
};

/// What a pod is at work on, told without the lock: microseconds, since asks take less than a millisecond, the class that it had last, the class that it has.
#[derive(Debug, Default)]
pub(in crate::pod) struct Work(AtomicU64);

impl Work {
    pub fn set(&self, now: Duration, work: Rank) {
        let worked = if work > 0 { work } else { self.get().1 };
        self.0.store((now.as_micros() as u64) << 4 | u64::from(worked) << 2 | u64::from(work), Ordering::SeqCst);
    }

    pub fn get(&self) -> (Duration, Rank, Rank) {
        let word = self.0.load(Ordering::SeqCst);
        (Duration::from_micros(word >> 4), (word >> 2 & 3) as Rank, (word & 3) as Rank)
    }
}

/// Whether the next host should know: most pods are small and load in no time, and a disk is not written to for those.
pub(in crate::pod) fn is_news(known: Footprint, measured: Footprint) -> bool {
    let differs = |one: u64, other: u64, step: u64| one.abs_diff(other) > step.max(one / 4);
    let grew = measured.memory_bytes > FOOTPRINT_DEFAULT_BYTES || known.memory_bytes > FOOTPRINT_DEFAULT_BYTES;
    (grew && differs(known.memory_bytes, measured.memory_bytes, FOOTPRINT_STEP_BYTES))
        || differs(known.gpu_bytes, measured.gpu_bytes, FOOTPRINT_STEP_BYTES)
        || differs(known.load_ms, measured.load_ms, HOLD_MIN_MS)
}

/// Why there never will be a place, in a caller's words. `rules` say whose the limit is.
pub(in crate::pod) fn too_much(recipe: &str, why: &TooMuch, rules: &MachineRules) -> Fault {
    let memory = || if rules.memory_is_of_the_app { act::limit_memory() } else { act::machine_memory() };
    let gpu = || if rules.gpu_is_of_the_app { act::limit_gpu() } else { act::machine_gpu() };
    let (text, hint, device) = match why {
        TooMuch::Memory { wanted, budget, pinned } => (
            format!(
                "the models of `{recipe}` take {wanted} bytes of memory; all pods together may have {budget} on this machine, of which \
                 pinned ones have {pinned}"
            ),
            hint![memory(), " says what pods may have; ", act::status(), " shows who has it"],
            "cpu",
        ),
        TooMuch::NoGpu => (
            format!("the models of `{recipe}` want a GPU, and this machine has none that its driver tells of"),
            hint![act::doctor(), " shows what was looked for; `nvidia-smi` has to be on the host's PATH"],
            "gpu",
        ),
        TooMuch::Gpu { wanted, budget } => (
            format!("the models of `{recipe}` take {wanted} bytes on a GPU; the largest of this machine has {budget} for models"),
            hint!["choose a smaller model; ", gpu(), " says how much of a GPU is for models"],
            "gpu",
        ),
    };
    Fault::new(Code::OutOfMemory, text).hint(hint).with("device", device)
}
