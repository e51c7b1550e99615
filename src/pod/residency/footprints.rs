//! The measured memory of each recipe's pods: the next pod of a recipe is expected to take the same.

use std::collections::HashMap;

use crate::model::{
    Digest,
    limits::{FOOTPRINT_DEFAULT_BYTES, FOOTPRINT_STEP_BYTES, FOOTPRINTS_MAX, HOLD_MIN_MS},
    status::machine::Footprint,
};

/// The footprints of at most [`FOOTPRINTS_MAX`] recipes; the one measured least recently is dropped first.
#[derive(Debug, Default)]
pub(super) struct Footprints {
    /// Each with the number of its last measure.
    of: HashMap<Digest, (Footprint, u64)>,
    measures: u64,
    /// Whether any changed since the last `take_unsaved`.
    unsaved: bool,
}

impl Footprints {
    pub fn new(known: impl IntoIterator<Item = (Digest, Footprint)>) -> Footprints {
        let of = known.into_iter().take(FOOTPRINTS_MAX).map(|(recipe, footprint)| (recipe, (footprint, 0))).collect();
        Footprints { of, measures: 0, unsaved: false }
    }

    /// All zero for a recipe that was never measured.
    pub fn of(&self, recipe: Digest) -> Footprint {
        self.of.get(&recipe).map(|(footprint, _)| *footprint).unwrap_or_default()
    }

    /// Changes a recipe's footprint by a measure, and returns it.
    pub fn measure(&mut self, recipe: Digest, change: impl FnOnce(&mut Footprint)) -> Footprint {
        self.measures += 1;
        let known = self.of.get(&recipe).map(|(footprint, _)| *footprint);
        let mut footprint = known.unwrap_or_default();
        change(&mut footprint);
        if known != Some(footprint) {
            if known.is_none() && self.of.len() >= FOOTPRINTS_MAX {
                let oldest = self.of.iter().min_by_key(|(_, (_, measure))| *measure).map(|(recipe, _)| *recipe);
                oldest.map(|oldest| self.of.remove(&oldest));
            }
            self.of.insert(recipe, (footprint, self.measures));
            let before = known.unwrap_or(Footprint { memory_bytes: FOOTPRINT_DEFAULT_BYTES, ..Footprint::default() });
            self.unsaved |= is_news(before, footprint);
        }
        footprint
    }

    /// All of them, if some were measured since the last time.
    pub fn take_unsaved(&mut self) -> Option<Vec<(Digest, Footprint)>> {
        std::mem::take(&mut self.unsaved).then(|| self.of.iter().map(|(recipe, (footprint, _))| (*recipe, *footprint)).collect())
    }
}

/// Whether the next host should know. Most pods are small and load at once; these are not worth a write to
/// the disk.
fn is_news(known: Footprint, measured: Footprint) -> bool {
    let differs = |one: u64, other: u64, step: u64| one.abs_diff(other) > step.max(one / 4);
    let grew = measured.memory_bytes > FOOTPRINT_DEFAULT_BYTES || known.memory_bytes > FOOTPRINT_DEFAULT_BYTES;
    (grew && differs(known.memory_bytes, measured.memory_bytes, FOOTPRINT_STEP_BYTES))
        || differs(known.gpu_bytes, measured.gpu_bytes, FOOTPRINT_STEP_BYTES)
        || differs(known.load_ms, measured.load_ms, HOLD_MIN_MS)
}
