//! The wasmtime engines: their settings, and how many guests this machine can hold at once.
//!
//! - Every number here was measured.
//! - Instances live in wasmtime's instance pool, which is made once, so a fresh instance for each call is
//!   cheap.
//! - Memory *mappings* are the limit, not memory: a used instance costs about 6 of them. Beyond
//!   `vm.max_map_count` mappings the kernel refuses the next one, which aborts the process. So the number of
//!   instances is derived from `vm.max_map_count`.
//! - If no pool is possible (a small address space), or a component does not fit the pool, instances are made
//!   on demand: slower, otherwise the same.
//! - The engines of a host have no compiler: they read code that another process compiled (see
//!   `compiling.rs`).

use std::{
    fs::Metadata,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use wasmtime::{Cache, CacheConfig, Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::{
    disk::{make, open},
    model::{Code, Fault, limits, os_error_in},
};

/// The engines that run guests on this machine.
pub struct Engines {
    /// `None` if the machine cannot hold a pool.
    pub pooled: Option<(Engine, Reservation)>,
    /// The engine with bounded reservations.
    pub on_demand: Engine,
    /// Guests that may run at once.
    pub instances: u32,
    /// The cache of both engines; it counts its hits.
    pub cache: Cache,
}

/// How much address space is reserved behind a guest's memory: the one setting of these engines on which
/// compiled code depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// A whole wasm address space, so that the guest needs no bounds checks.
    Whole,
    /// As much as a guest may have.
    Bounded,
}

impl Reservation {
    const ALL: [Reservation; 2] = [Reservation::Whole, Reservation::Bounded];

    /// The name that the compiler program is given.
    pub fn name(self) -> &'static str {
        match self {
            Reservation::Whole => "whole",
            Reservation::Bounded => "bounded",
        }
    }

    /// The reservation with that name.
    pub fn named(name: &str) -> Option<Reservation> {
        Reservation::ALL.into_iter().find(|reservation| reservation.name() == name)
    }
}

/// Makes the engines, which read compiled code from `cache` and have no compiler.
///
/// Errors: `io` for the folder, `internal` if wasmtime refuses the settings.
pub fn open(cache: &Path) -> Result<Engines, Fault> {
    let cache = compile_cache(cache)?;
    let mappings = open::read_of_kernel(Path::new("/proc/sys/vm/max_map_count"), limits::KERNEL_TEXT_BYTES_MAX).ok();
    let mappings = mappings.and_then(|text| String::from_utf8(text).ok());
    let instances = instances(mappings.as_deref());
    let reading = |reservation| {
        let mut config = config(reservation);
        config.enable_compiler(false).cache(Some(cache.clone()));
        config
    };
    let on_demand = Engine::new(&reading(Reservation::Bounded)).map_err(refused)?;
    // If a whole address space behind each memory is too much to reserve, a pool with bounds checks is still
    // better than none.
    let pooled = Reservation::ALL.into_iter().find_map(|reservation| {
        let mut config = reading(reservation);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
        Engine::new(&config)
            .inspect_err(|error| tracing::warn!("no room for a pool of {instances} glue instances on this machine: {error:#}"))
            .ok()
            .map(|engine| (engine, reservation))
    });
    if pooled.is_none() {
        tracing::warn!("glue instances are made on demand, which is slower");
    }
    Ok(Engines { pooled, on_demand, instances, cache })
}

/// An engine that compiles, and stores the code in `cache`: for the compiler process.
///
/// Errors: as [`open`].
pub fn compiling(reservation: Reservation, cache: &Path) -> Result<Engine, Fault> {
    Engine::new(config(reservation).cache(Some(compile_cache(cache)?))).map_err(refused)
}

fn refused(error: wasmtime::Error) -> Fault {
    Fault::new(Code::Internal, format!("wasmtime refuses its settings: {error:#}"))
}

/// Number of instances for which `max_map_count` (the text of its file) leaves room, with a fifth of the
/// mappings kept for other uses.
fn instances(max_map_count: Option<&str>) -> u32 {
    let mappings = max_map_count.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(65_530);
    let fit = mappings * 4 / 5 / u64::from(limits::GLUE_MAPPINGS_PER_INSTANCE);
    (fit.min(u64::from(limits::GLUE_INSTANCES_MAX)) as u32).max(1)
}

/// The common settings of the host's engines and the compiler's: the code must fit both.
fn config(reservation: Reservation) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .max_wasm_stack(limits::GLUE_STACK_BYTES_MAX)
        .async_stack_size(limits::GLUE_FIBER_STACK_BYTES);
    if reservation == Reservation::Bounded {
        config.memory_reservation(limits::GLUE_MEMORY_BYTES_MAX as u64);
    }
    config
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances * limits::GLUE_CORE_INSTANCES_MAX)
        .total_memories(instances * limits::GLUE_MEMORIES_MAX)
        .total_tables(instances * limits::GLUE_TABLES_MAX)
        .total_stacks(instances)
        .max_core_instances_per_component(limits::GLUE_CORE_INSTANCES_MAX)
        .max_memories_per_component(limits::GLUE_MEMORIES_MAX)
        .max_tables_per_component(limits::GLUE_TABLES_MAX)
        .max_memories_per_module(limits::GLUE_MEMORIES_MAX)
        .max_tables_per_module(limits::GLUE_TABLES_MAX)
        .max_memory_size(limits::GLUE_MEMORY_BYTES_MAX)
        .table_elements(limits::GLUE_TABLE_ELEMENTS_MAX)
        .max_unused_warm_slots(limits::GLUE_WARM_SLOTS_MAX);
    // Wiping an instance's pages in place is cheaper than returning them, but only if the kernel says which
    // were written.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(limits::GLUE_KEEP_RESIDENT_BYTES)
            .table_keep_resident(limits::GLUE_TABLE_ELEMENTS_MAX * size_of::<usize>());
    }
    pool
}

/// Opens the cache of compiled code. wasmtime loads its files as machine code without checks, so nobody else
/// may have been able to write there, now or earlier.
fn compile_cache(folder: &Path) -> Result<Cache, Fault> {
    let what = |doing: &str| format!("cannot {doing} the folder of compiled glue, {}", folder.display());
    make::folder(folder, make::PRIVATE_FOLDER).map_err(|error| Fault::io(what("make"), &error))?;
    let folder = folder.canonicalize().map_err(|error| Fault::io(what("find"), &error))?;
    private(&folder)?;
    let mut config = CacheConfig::new();
    // Frequently read files are not recompressed: that would take the host's memory.
    config
        .with_directory(folder)
        .with_baseline_compression_level(limits::GLUE_CODE_COMPRESSION)
        .with_optimized_compression_level(limits::GLUE_CODE_COMPRESSION);
    Cache::new(config).map_err(|error| {
        let text = format!("{error:#}");
        match os_error_in(&text) {
            Some(error) => Fault::io(what("use"), &error),
            None => Fault::new(Code::Internal, format!("wasmtime refuses its compile cache: {text}")),
        }
    })
}

/// Makes sure that the folder belongs to this user alone, and always has.
///
/// A folder into which others could write is refused, not closed: files that they put there would be
/// executed.
fn private(folder: &Path) -> Result<(), Fault> {
    let failed = |error: std::io::Error| Fault::io(format!("cannot look at the folder of compiled glue, {}", folder.display()), &error);
    let own = rustix::process::geteuid().as_raw();
    let refused = |path: &Path, why: String| {
        Fault::new(Code::StateUnreadable, format!("compiled glue in {} is not trusted: {why}", path.display()))
            .hint(format!("delete {}; Hob makes it anew and compiles again what is installed", folder.display()))
    };
    let trust = |path: &Path, found: &Metadata| match (found.uid() == own, found.mode() & 0o022) {
        (false, _) => Err(refused(path, format!("it belongs to user {}, wanted {own}", found.uid()))),
        (true, 0) => Ok(()),
        (true, _) => Err(refused(path, format!("others may write to it (mode {:03o}, wanted 700)", found.mode() & 0o777))),
    };
    let found = std::fs::metadata(folder).map_err(failed)?;
    trust(folder, &found)?;
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    // Others could enter until now, and the modes of wasmtime's inner folders depend on the umask.
    for module in folders(folder).map_err(failed)? {
        trust(&module, &std::fs::metadata(&module).map_err(failed)?)?;
    }
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).map_err(failed)
}

/// Folders in a folder, and the folders in those: wasmtime has one for its version, and in it one for each
/// compiler's settings.
fn folders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for level in 0..2 {
        let parents = if level == 0 { vec![folder.to_owned()] } else { found.clone() };
        for parent in parents {
            for entry in std::fs::read_dir(parent)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    found.push(entry.path());
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_kernels_limit_on_mappings() {
        assert_eq!(instances(Some("65530\n")), limits::GLUE_INSTANCES_MAX);
        assert_eq!(instances(None), limits::GLUE_INSTANCES_MAX);
        assert_eq!(instances(Some("600")), 80);
        assert_eq!(instances(Some("0")), 1);
        assert_eq!(instances(Some("18446744073709551")), limits::GLUE_INSTANCES_MAX);
    }

    #[test]
    fn the_compile_cache_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("a/glue");
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o755)).unwrap();
        open(&cache).unwrap();
        assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_compile_cache_that_others_could_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, inner) = (folder.path().join("glue"), folder.path().join("glue/modules/x"));
        let refused = |says: &str| {
            let fault = open(&cache).map(drop).expect_err(says);
            assert_eq!(fault.code, Code::StateUnreadable);
            assert!(fault.message.contains(says) && fault.hint.as_ref().unwrap().contains("delete"), "{fault:?}");
        };
        let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        std::fs::create_dir_all(&inner).unwrap();
        for bad in [0o770, 0o707, 0o1777] {
            mode(&cache, bad);
            refused("others may write to it");
        }
        // The folder was open to enter, and an inner folder open to write.
        mode(&cache, 0o755);
        mode(&inner, 0o775);
        refused("glue/modules/x is not trusted");
        // The folder was always closed, so the inner modes never mattered.
        mode(&cache, 0o700);
        open(&cache).unwrap();

        let nobody = 65_534;
        match std::os::unix::fs::chown(&cache, Some(nobody), None) {
            Ok(()) => refused("it belongs to user 65534"),
            // Only root can give a folder away; for other users the rest of the test suffices.
            Err(error) => assert!(!rustix::process::geteuid().is_root(), "{error}"),
        }
    }
}
