//! Work whose length a stranger chooses, on threads that give way to everybody else.
//!
//! Apart from [`blocking`](super::blocking), whose threads are used again for other work: a thread that once
//! gave way may not take that back.

use std::thread;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::sync::oneshot;

use crate::model::{Code, Fault, limits::ASIDE_NICE};

/// Runs work that takes a processor for as long as a stranger likes, within its proven bound, on a thread of
/// its own with a low priority: the kernel prefers whatever else is to run, so that the calls of others do
/// not wait for it. How many there are at once is their callers' to bound.
///
/// The work goes on when the future is dropped, and what it made is let go of there. It starts no thread and
/// no process, which would be born with its priority.
///
/// Errors: those of `work`; `io` where no thread is to be had; a panic is `internal`.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let (tell, told) = oneshot::channel();
    let run = move || {
        // Of this thread alone, as Linux has it. Where it cannot be had, the work is done all the same. From
        // what this process has: whoever gave it precedence over others did not want its own work to starve.
        let ours = getpriority_process(None).unwrap_or(0);
        let _ = setpriority_process(None, lower(ours));
        let _ = tell.send(work());
    };
    thread::Builder::new().name("hob aside".to_owned()).spawn(run).map_err(|error| Fault::io("starting a thread", &error))?;
    told.await.unwrap_or_else(|_| Err(Fault::new(Code::Internal, "a background thread ended early")))
}

/// So much lower, as far as there is something lower.
fn lower(nice: i32) -> i32 {
    nice.saturating_add(ASIDE_NICE).min(19)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        model::limits,
        shelf::{blocking, reading},
    };

    /// The niceness of the thread that asks, from the kernel: the 19th field of its `stat`, of which the
    /// second may hold anything in brackets.
    fn nice() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn long_work_gives_way_and_nobody_inherits_that() {
        let ours = nice();
        let long = limits::READ_HERE_BYTES_MAX + 1;
        assert_eq!(aside(|| Ok(nice())).await.unwrap(), lower(ours));
        assert_eq!(reading(long, || Ok(nice())).await.unwrap(), lower(ours));
        assert_eq!([-20, -15, 0, 3, 19].map(lower), [-5, 0, 15, 18, 19]);
        assert_eq!(reading(1, || Ok(nice())).await.unwrap(), ours);
        // Neither who asked, nor the threads of the pool, nor a process that is started afterwards.
        let child = blocking(|| {
            let ran = std::process::Command::new("cat").arg("/proc/self/stat").output().unwrap();
            Ok((nice(), String::from_utf8(ran.stdout).unwrap()))
        });
        let (pool, child) = child.await.unwrap();
        let child: i32 = child.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().parse().unwrap();
        assert_eq!((nice(), pool, child), (ours, ours, ours));
    }

    #[tokio::test]
    async fn a_panic_aside_is_a_fault() {
        let fault = aside(|| -> Result<(), Fault> { panic!("planted") }).await.unwrap_err();
        assert_eq!(fault.code, Code::Internal);
    }
}
