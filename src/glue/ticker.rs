//! The thread that counts time for guests: it advances the engines' epoch while any guest runs.
//!
//! It sleeps if nothing has run for a while, so that an idle host is idle. Starting a run costs two atomic
//! operations, and one wake-up if the thread is asleep.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use wasmtime::EngineWeak;

use crate::model::{Fault, limits};

struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
    ticks: AtomicU64,
}

/// Owns the thread; dropping it ends the thread.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Marks a running guest; dropping it marks the guest's end.
pub struct Running(Arc<Shared>);

impl Ticker {
    /// Starts the thread, asleep until the first [`Ticker::run`].
    pub fn start(engines: Vec<EngineWeak>) -> Result<Ticker, Fault> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
        });
        let thread = thread::Builder::new().name("hob-glue-ticker".into()).spawn({
            let shared = shared.clone();
            move || tick(&shared, &engines)
        });
        let thread = thread.map_err(|error| Fault::io("cannot start the thread that counts glue's time", &error))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Hold the result while a guest runs.
    pub fn run(&self) -> Running {
        // The counter first, then the flag; the thread does it in reverse order, so one of the two sees the
        // other.
        self.shared.running.fetch_add(1, SeqCst);
        if self.shared.asleep.load(SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Running(self.shared.clone())
    }

    #[cfg(test)]
    pub fn is_asleep(&self) -> bool {
        self.shared.asleep.load(SeqCst)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Joining fails only after a panic of that thread, which has nothing left to do.
            let _ = thread.join();
        }
    }
}

impl Running {
    /// Ticks so far.
    pub fn ticks(&self) -> u64 {
        self.0.ticks.load(SeqCst)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

fn tick(shared: &Shared, engines: &[EngineWeak]) {
    let mut idle = 0;
    while !shared.stop.load(SeqCst) {
        if idle >= limits::GLUE_IDLE_TICKS_MAX {
            shared.asleep.store(true, SeqCst);
            while shared.running.load(SeqCst) == 0 && !shared.stop.load(SeqCst) {
                thread::park();
            }
            shared.asleep.store(false, SeqCst);
            idle = 0;
        }
        thread::park_timeout(Duration::from_millis(limits::GLUE_TICK_MS));
        idle = if shared.running.load(SeqCst) == 0 { idle + 1 } else { 0 };
        shared.ticks.fetch_add(1, SeqCst);
        for engine in engines {
            if let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
            }
        }
    }
}
