//! Counts the descriptors of this process that recipes use: for pods, their regions, and their network
//! connections.
//!
//! A process without free descriptors can serve nobody. So some are reserved: for callers' connections, and
//! for the host itself. Of the others, each recipe may hold as many as are still free: a recipe that takes
//! all it can stops at half, the next one at a quarter. So the recipe that holds the most is refused first,
//! later recipes still find some, and the refusal names the right recipe.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::model::{
    Code, Fault,
    limits::{FILES_RESERVE_MAX, FILES_RESERVE_MIN, FILES_RESERVE_PERCENT, SERVE_FILES, SERVE_RETRY_MS},
    status::doctor::OpenFiles,
};

/// Descriptors held by each recipe, by name; a recipe that holds none has no entry. Counted per process, as
/// the limit is.
static HELD: Mutex<Holdings> = Mutex::new(Holdings { all: 0, recipes: BTreeMap::new() });

/// Descriptors reserved for callers: their connections, and the files that they hand in.
static CALLERS: AtomicU64 = AtomicU64::new(0);

/// Descriptors reserved from recipes; released on drop.
pub struct Kept(u64);

impl Drop for Kept {
    fn drop(&mut self) {
        CALLERS.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Reserves so many descriptors for the connections of a server and the files that come over them.
pub fn keep_for_callers(files: u64) -> Kept {
    CALLERS.fetch_add(files, Ordering::Relaxed);
    Kept(files)
}

/// Number of reserved descriptors.
pub fn kept_for_callers() -> u64 {
    CALLERS.load(Ordering::Relaxed)
}

/// The limits of open files: this process's own, the one to which a server raises it, and the most that a
/// server can use.
pub fn open_files() -> OpenFiles {
    let limit = getrlimit(Resource::Nofile);
    let (now, most) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    OpenFiles { now, served: now.max(most.min(SERVE_FILES)), wanted: SERVE_FILES }
}

/// Raises this process's limit of open files as far as allowed and useful; returns the new limit.
pub fn raise_open_files() -> u64 {
    let OpenFiles { now, served, .. } = open_files();
    let limit = Rlimit { current: Some(served), maximum: getrlimit(Resource::Nofile).maximum };
    if now < served && setrlimit(Resource::Nofile, limit).is_ok() { served } else { now }
}

/// How many descriptors all recipes together may use in a process that may have `files`, of which `callers`
/// are reserved for callers.
fn for_recipes(files: u64, callers: u64) -> u64 {
    let reserve = files.saturating_mul(FILES_RESERVE_PERCENT) / 100;
    // The reserve is at most a quarter: where files are very few, one pod is worth more than the reserve.
    files.saturating_sub(callers).saturating_sub(reserve.clamp(FILES_RESERVE_MIN, FILES_RESERVE_MAX).min(files / 4))
}

#[derive(Default)]
struct Holdings {
    all: u64,
    recipes: BTreeMap<Arc<str>, u64>,
}

impl Holdings {
    /// A recipe that holds none yet is not refused because of other recipes, while any are free.
    fn take(&mut self, recipe: &Arc<str>, files: u64, most: u64) -> Result<(), Short> {
        let (held, free) = (self.recipes.get(recipe).copied().unwrap_or(0), most.saturating_sub(self.all));
        let fair = if held == 0 { free } else { free.saturating_sub(held) };
        if files > fair {
            let greatest = self.recipes.iter().max_by_key(|(_, held)| **held).map(|(recipe, held)| (recipe.clone(), *held));
            return Err(Short { recipe: recipe.clone(), held, free, greatest });
        }
        self.all += files;
        *self.recipes.entry(recipe.clone()).or_default() += files;
        Ok(())
    }

    fn give_back(&mut self, recipe: &Arc<str>, files: u64) {
        let Some(held) = self.recipes.get_mut(recipe) else { return };
        self.all = self.all.saturating_sub(files);
        *held = held.saturating_sub(files);
        if *held == 0 {
            self.recipes.remove(recipe);
        }
    }
}

fn held() -> MutexGuard<'static, Holdings> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle with which a recipe takes descriptors.
#[derive(Debug, Clone)]
pub struct Holder(Arc<str>);

/// Descriptors that a recipe holds; released on drop.
#[derive(Debug)]
pub struct Share {
    holder: Holder,
    files: u64,
}

/// Fewer descriptors are available than were wanted.
#[derive(Debug, PartialEq)]
pub struct Short {
    recipe: Arc<str>,
    held: u64,
    free: u64,
    /// The recipe that holds the most, and how many.
    greatest: Option<(Arc<str>, u64)>,
}

impl Holder {
    pub fn of(recipe: &str) -> Holder {
        Holder(recipe.into())
    }

    /// Takes so many more descriptors.
    ///
    /// Errors: the recipe would hold more than would stay free, or no more are available.
    pub fn take(&self, files: u64) -> Result<Share, Short> {
        let all = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        held().take(&self.0, files, for_recipes(all, CALLERS.load(Ordering::Relaxed)))?;
        Ok(Share { holder: self.clone(), files })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        held().give_back(&self.holder.0, self.files);
    }
}

impl Short {
    /// The fault of the operation that needed the descriptors.
    pub fn fault(&self, what: &str) -> Fault {
        let Short { recipe, held, free, .. } = self;
        let mut text = format!(
            "{what}: `{recipe}` holds {held} open files of the host, and {free} are free for all recipes; none may hold more than are free"
        );
        if let Some((greatest, most)) = self.greatest.as_ref().filter(|(greatest, _)| greatest != recipe) {
            text += &format!("; `{greatest}` holds most of them, {most}");
        }
        let mut fault = Fault::new(Code::Overloaded, text);
        fault.retry_after = Some(SERVE_RETRY_MS);
        fault.hint("call again when fewer are held, or give the host more: `ulimit -n` bounds its open files")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one by one until it is refused; returns how many it has.
    fn all_it_can(holdings: &mut Holdings, recipe: &str) -> u64 {
        let recipe: Arc<str> = recipe.into();
        while holdings.take(&recipe, 1, 1_000).is_ok() {}
        holdings.recipes[&recipe]
    }

    #[test]
    fn who_holds_most_is_refused_first_and_whoever_comes_finds_some() {
        let mut holdings = Holdings::default();
        assert_eq!(["a/a", "b/b", "c/c", "d/d"].map(|recipe| all_it_can(&mut holdings, recipe)), [500, 250, 125, 63]);
        // A recipe that holds none may take from what is left; then it is refused, and is told which recipe
        // holds the most.
        let late: Arc<str> = "e/e".into();
        assert_eq!(holdings.take(&late, 60, 1_000), Ok(()));
        let short = holdings.take(&late, 1, 1_000).unwrap_err();
        let fault = short.fault("a pod was not started");
        assert_eq!((fault.code, fault.retry_after), (Code::Overloaded, Some(SERVE_RETRY_MS)));
        assert!(fault.message.contains("`e/e` holds 60 ") && fault.message.ends_with("`a/a` holds most of them, 500"), "{}", fault.message);
        let own = holdings.take(&"a/a".into(), 1, 1_000).unwrap_err().fault("x");
        assert!(own.message.contains("`a/a` holds 500 ") && !own.message.contains("holds most"), "{}", own.message);
        // Returned descriptors are free for all.
        holdings.give_back(&"a/a".into(), 500);
        assert!(!holdings.recipes.contains_key("a/a") && holdings.take(&late, 200, 1_000).is_ok());
    }

    #[test]
    fn connections_and_a_reserve_are_kept_from_recipes_however_few_there_are() {
        for (files, connections, wanted) in [(16_384, 8_192, 7_936), (1_024, 512, 390), (256, 128, 80), (64, 32, 16), (0, 0, 0)] {
            assert_eq!(for_recipes(files, connections), wanted, "{files}");
        }
        assert!(for_recipes(u64::MAX, 0) > 1 << 60);
    }
}
