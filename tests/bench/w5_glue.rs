//! W5: glue alone. A fresh instance per call with every limit on, against bare wasmtime.
//!
//! All columns run the same core code on the same text. The floor has no limits, no fibers and no
//! asynchronous host, just a fresh store and instance out of wasmtime's pool as it comes; the same pool
//! settings as Hob's make a second, lower one, so that what the settings gain does not hide what the limits
//! cost.

mod support;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use hob::{
    glue::{
        Glue, Prepared,
        pods::{Ask, BoxFuture, Pods},
    },
    host::GlueCompiler,
    model::{Admitted, Blob, Call, Document, Fault, Home, Verified, events, limits},
    shelf::store::Shelf,
};
use serde_json::json;
use support::Column;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    component::{Component, InstancePre, Linker, TypedFunc},
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const ROUNDS: usize = 7;
const CALLS: usize = 2_000;

const FLOOR_WIT: &str = "package bench:plugin; world glue { export run: func(input: string) -> result<string, string>; }";

/// The floor's guest: what `tests/guests/echo.wat` does, with the floor's smaller signature.
const FLOOR_GUEST: &str = r#"(module
  (memory (export "memory") 8)
  (global $top (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "run") (param $in i32) (param $in_len i32) (result i32)
    (i32.store (i32.const 4) (local.get $in))
    (i32.store (i32.const 8) (local.get $in_len))
    (i32.const 0)))"#;

const MANIFEST: &str = r#"name = "bench/echo"
version = "0.1.0"
license = "Apache-2.0"
summary = "Gives back what it got"
hob = "0.1"
[glue]
world = "0.1"
[operations.echo]
summary = "The input, again"
input = { type = "object" }
output = { type = "object" }
"#;

struct NoPods;

impl Pods for NoPods {
    fn start<'a>(&'a self, _: &'a str, _: Document, _: Vec<Blob>) -> BoxFuture<'a, Result<Box<dyn Ask>, Fault>> {
        unreachable!("the bench's guest asks nobody")
    }
}

fn component(wat: &str, wit: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("glue.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("glue")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

fn floor(pool_as_hobs: bool) -> InstancePre<()> {
    let mut config = Config::new();
    let mut pool = PoolingAllocationConfig::default();
    pool.max_memory_size(limits::GLUE_MEMORY_BYTES_MAX);
    if pool_as_hobs {
        pool.table_elements(limits::GLUE_TABLE_ELEMENTS_MAX).max_unused_warm_slots(limits::GLUE_WARM_SLOTS_MAX);
        if PoolingAllocationConfig::is_pagemap_scan_available() {
            pool.pagemap_scan(Enabled::Yes)
                .linear_memory_keep_resident(limits::GLUE_KEEP_RESIDENT_BYTES)
                .table_keep_resident(limits::GLUE_TABLE_ELEMENTS_MAX * size_of::<usize>());
        }
    }
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config).unwrap();
    let component = Component::new(&engine, component(FLOOR_GUEST, FLOOR_WIT)).unwrap();
    Linker::new(&engine).instantiate_pre(&component).unwrap()
}

fn floor_call(pre: &InstancePre<()>, input: &str) -> usize {
    let mut store = Store::new(pre.engine(), ());
    let instance = pre.instantiate(&mut store).unwrap();
    let run: TypedFunc<(&str,), (Result<String, String>,)> = instance.get_typed_func(&mut store, "run").unwrap();
    run.call(&mut store, (input,)).unwrap().0.unwrap().len()
}

/// A recipe folder with the guest, opened as its author would.
fn recipe(folder: &Path) -> Arc<Verified> {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("recipe.toml"), MANIFEST).unwrap();
    let guest = component(include_str!("../guests/echo.wat"), include_str!("../../wit/glue.wit"));
    std::fs::write(folder.join("glue.wasm"), guest).unwrap();
    Arc::new(Shelf::open(Home::at(folder.join("home"))).unwrap().load_folder(folder).unwrap())
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let floors = [floor(false), floor(true)];
    let glue = Glue::open(&folder.path().join("cache"), Arc::new(GlueCompiler::of(env!("CARGO_BIN_EXE_hob")))).unwrap();
    let recipe = recipe(&folder.path().join("recipe"));
    let pods: Arc<dyn Pods> = Arc::new(NoPods);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let prepared: Prepared = runtime.block_on(glue.compile(&recipe)).unwrap();
    println!("\nW5: glue alone, {ROUNDS} rounds of {CALLS} calls");
    println!("| W5 | bare wasmtime, us | same pool, us | hob, us | hob / bare | hob / same pool |\n|---|---|---|---|---|---|");
    for (size, label) in [(100, "W5-100B"), (10_000, "W5-10KB")] {
        let input = json!({"text": "x".repeat(size - 11)});
        let text = input.to_string();
        let call = Call::new("bench/echo", "echo", input).unwrap();
        let call = Arc::new(Admitted::admit(recipe.clone(), call).unwrap());
        let hob = |count: usize| {
            let (prepared, pods, call, text) = (prepared.clone(), pods.clone(), call.clone(), text.clone());
            let work = async move {
                let (events, _receiver) = events::channel(limits::CALL_EVENTS_BYTES_MAX);
                let mut times = Vec::with_capacity(count);
                for _ in 0..count {
                    let start = Instant::now();
                    let deadline = tokio::time::Instant::now() + Duration::from_millis(call.deadline_ms());
                    let response = prepared.run(&call, pods.clone(), events.clone(), deadline).await.unwrap();
                    times.push(start.elapsed());
                    assert_eq!(response.output.text(), text);
                }
                times
            };
            runtime.block_on(runtime.spawn(work)).unwrap()
        };
        let bare = |floor: &InstancePre<()>, count: usize| -> Vec<Duration> {
            (0..count)
                .map(|_| {
                    let start = Instant::now();
                    let length = floor_call(floor, &text);
                    let time = start.elapsed();
                    assert_eq!(length, text.len());
                    time
                })
                .collect()
        };
        let mut columns: [Column; 3] = std::array::from_fn(|_| Column::default());
        for round in 0..=ROUNDS {
            support::quiet();
            // Taken in turns, so that all columns see the same machine.
            let found = [bare(&floors[0], CALLS), bare(&floors[1], CALLS), hob(CALLS)];
            // The first is for warming up.
            if round > 0 {
                columns.iter_mut().zip(found).for_each(|(column, times)| column.add(times));
            }
        }
        let [bare, same_pool, hob] = &columns;
        println!(
            "| {label} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            bare.median(),
            same_pool.median(),
            hob.median(),
            hob.over(bare),
            hob.over(same_pool)
        );
        for (name, column) in [("floor", bare), ("floor-same-pool", same_pool), ("hob", hob)] {
            let ratios = [("floor", column.over(bare)), ("same_pool", column.over(same_pool))];
            support::keep(label, name, column.median(), "us", &ratios);
        }
    }
}
