//! Runs long work on low-priority threads, so that it delays no call.
//!
//! A stranger chooses how long this work takes. It has threads of its own, not those of
//! [`blocking`](super::blocking), which are reused for other work: a thread that lowered its priority may not
//! raise it again.

use std::thread;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::sync::oneshot;

use crate::model::{Code, Fault, limits::ASIDE_NICE};

/// Runs work that may occupy a processor for a long time, within its proven bound, on a thread of its own.
/// The thread has a low priority, so the kernel prefers every other task and other calls do not wait for this
/// one. The caller bounds how many of these run at once.
///
/// If the future is dropped, the work continues and its result is dropped on the thread. The work must start
/// no thread and no process: they would inherit the low priority.
///
/// Errors: those of `work`; `io` if no thread can be started; a panic becomes `internal`.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let (tell, told) = oneshot::channel();
    let run = move || {
        // On Linux the priority is of this thread alone. If it cannot be lowered, the work is done all the
        // same. It is lowered from the priority of this process, because a process that was given precedence
        // must not have its own work starve.
        let ours = getpriority_process(None).unwrap_or(0);
        let _ = setpriority_process(None, lower(ours));
        let _ = tell.send(work());
    };
    thread::Builder::new().name("hob aside".to_owned()).spawn(run).map_err(|error| Fault::io("starting a thread", &error))?;
    told.await.unwrap_or_else(|_| Err(Fault::new(Code::Internal, "a background thread ended early")))
}

/// Lowers the priority by this much, as far as the kernel allows a lower one.
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

    /// The niceness of the calling thread, from the kernel: the 19th field of its `stat`. The second field
    /// may hold any text, in brackets.
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
        // Neither the asking thread, nor the pool's threads, nor a process that is started afterwards is
        // affected.
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
