//! The runtime of a command: how it starts where there are few threads, descriptors and little memory to be
//! had.
//!
//! The runtime's own answer to that is a panic, and that of other libraries. So there is a hook that knows
//! their words: while the runtime starts it ends the program with the fault that it is, and afterwards it is
//! silent, because whoever wanted the thread has the fault (`disk/threads.rs`).

use std::{
    io, panic, process,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};

use crate::{
    disk::threads::no_thread,
    door::print::failed,
    model::{Fault, limits},
};

/// Whether the runtime is not there yet.
static STARTS: AtomicBool = AtomicBool::new(true);

/// `serves`: for many calls at a time.
pub fn runtime(serves: bool, json: bool) -> io::Result<Runtime> {
    hear(json);
    let mut builder = match serves {
        // One connection's JSON is read while another's call is on its way: at 16 and more at a time that is
        // twice as much.
        true => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(cores.min(limits::SERVE_THREADS_MAX));
            builder
        }
        // One thread runs the whole call: hopping between threads costs more than the work.
        false => {
            let mut builder = Builder::new_current_thread();
            // Its first thread for blocking work stays: so there is always one.
            builder.thread_keep_alive(Duration::MAX);
            builder
        }
    };
    // What it will need soon, before anything is done.
    drop((0..limits::RUNTIME_FILES / 2).map(|_| io::pipe()).collect::<io::Result<Vec<_>>>()?);
    std::thread::Builder::new().spawn(|| ())?.join().unwrap_or_default();
    let runtime = builder.enable_all().build()?;
    drop(runtime.spawn_blocking(|| ()));
    STARTS.store(false, Ordering::Relaxed);
    Ok(runtime)
}

fn hear(json: bool) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| match no_thread(panic.payload()) {
        // Not by unwinding: a runtime with a part of its threads would wait for the others.
        Some(fault) if STARTS.load(Ordering::Relaxed) => {
            let _ = failed(&fault, json);
            process::exit(fault.code.exit().into());
        }
        Some(_) => {}
        None => usual(panic),
    }));
}

/// What a command comes to; where a library can start no thread and panics, that is a fault like any other.
pub fn run(runtime: &Runtime, command: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    panic::catch_unwind(panic::AssertUnwindSafe(|| runtime.block_on(command))).unwrap_or_else(|panic| match no_thread(&*panic) {
        Some(fault) => Err(fault),
        None => panic::resume_unwind(panic),
    })
}
