//! The runtime of a command, and how it starts if threads, descriptors or memory are scarce.
//!
//! In that case the runtime and other libraries panic. A panic hook recognizes their messages. While the
//! runtime starts, the hook ends the program with a proper fault. Afterwards the hook prints nothing, because
//! the code that wanted the thread gets the fault (`disk/threads.rs`).

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

/// Whether the runtime is still starting.
static STARTS: AtomicBool = AtomicBool::new(true);

/// `serves`: for many calls at a time.
pub fn runtime(serves: bool, json: bool) -> io::Result<Runtime> {
    hear(json);
    let mut builder = match serves {
        // One connection's JSON is read while another's call is on its way: twice the throughput at 16 or
        // more calls at a time.
        true => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(cores.min(limits::SERVE_THREADS_MAX));
            builder
        }
        // One thread runs the whole call: hopping between threads costs more than the work.
        false => {
            let mut builder = Builder::new_current_thread();
            // The first thread for blocking work stays, so that there is always one.
            builder.thread_keep_alive(Duration::MAX);
            builder
        }
    };
    // Try now to get the files and threads that the runtime will need soon.
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
        // Exit instead of unwinding: a runtime with only some of its threads would wait for the others.
        Some(fault) if STARTS.load(Ordering::Relaxed) => {
            let _ = failed(&fault, json);
            process::exit(fault.code.exit().into());
        }
        Some(_) => {}
        None => usual(panic),
    }));
}

/// Runs a command to its result. A panic of a library that could start no thread becomes a fault.
pub fn run(runtime: &Runtime, command: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    panic::catch_unwind(panic::AssertUnwindSafe(|| runtime.block_on(command))).unwrap_or_else(|panic| match no_thread(&*panic) {
        Some(fault) => Err(fault),
        None => panic::resume_unwind(panic),
    })
}
