//! Runs blocking work on threads where nothing waits for it.
//!
//! Only this module hands blocking work to the runtime's threads. The runtime panics if it has no thread and
//! cannot start one; this module turns that into a fault.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use rustix::io::Errno;
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinHandle},
};

use crate::model::{Code, Fault, os_error_in};

/// How panics begin when a library could not start a thread or had no descriptor for one, before the system's
/// error: the runtime, the standard library, rayon.
pub const NO_THREAD: [&str; 4] = [
    "OS can't spawn worker thread: ",
    "failed to create UnixStream: ",
    "failed to spawn thread: ",
    "The global thread pool has not been initialized.: ",
];

/// Blocking work that has begun. As a future it returns the result; `None` if the work panicked. Dropping it
/// does not stop the work.
pub struct Work<T>(Begun<T>);

enum Begun<T> {
    There(JoinHandle<Option<T>>),
    Here(Option<T>),
}

impl<T> Unpin for Work<T> {}

impl<T> Future for Work<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        match &mut self.0 {
            Begun::There(task) => Poll::Ready(ready!(Pin::new(task).poll(context)).ok().flatten()),
            Begun::Here(done) => Poll::Ready(done.take()),
        }
    }
}

impl<T> Work<T> {
    /// The result; `None` if the runtime ended. A panic of the work resumes here.
    pub async fn panicking(self) -> Option<T> {
        match self.0 {
            Begun::Here(done) => done,
            Begun::There(task) => match task.await.map_err(JoinError::try_into_panic) {
                Ok(done) => done,
                Err(Ok(panic)) => resume_unwind(panic),
                Err(Err(_)) => None,
            },
        }
    }
}

/// Begins blocking work on another thread.
///
/// Errors: `io` if no thread can be started, `usage` outside of a runtime. In both cases the work has not
/// begun, and never will.
pub fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<Work<T>, Fault> {
    begin(work).map_err(|(_, fault)| fault)
}

/// Begins blocking work that must be done: on another thread, or right here if none can be started.
pub fn certainly<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
    begin(work).unwrap_or_else(|(work, _)| Work(Begun::Here(work.map(|work| work()))))
}

/// Runs blocking work on another thread; a panic there becomes Hob's own fault, not a hang.
///
/// If the future is dropped, the work continues; move everything that must not be lost into it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let done = match start(work)?.0 {
        Begun::Here(done) => return done.unwrap_or_else(|| Err(ended())),
        Begun::There(task) => task.await,
    };
    match done {
        Ok(done) => done.unwrap_or_else(|| Err(ended())),
        Err(error) => Err(error.try_into_panic().ok().and_then(|panic| no_thread(&*panic)).unwrap_or_else(ended)),
    }
}

fn ended() -> Fault {
    Fault::new(Code::Internal, "a background task ended early")
}

/// The fault for a library's panic that it could start no thread; `None` for any other panic.
pub fn no_thread(panic: &(dyn Any + Send)) -> Option<Fault> {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())?;
    let is_one = NO_THREAD.iter().any(|begins| text.starts_with(begins));
    is_one.then(|| os_error_in(text)).flatten().map(|error| Fault::io("starting a thread", &error))
}

/// The tokio runtime in which this function is called.
///
/// Errors: `usage` if there is none.
pub fn runtime() -> Result<Handle, Fault> {
    Handle::try_current().map_err(|_| {
        Fault::new(Code::Usage, "a host works inside of a tokio runtime, and this was called outside of any")
            .hint("call it below `#[tokio::main]` or in `Runtime::block_on`; other executors cannot drive it")
    })
}

/// Returns the work if it cannot be begun.
fn begin<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(work: W) -> Result<Work<T>, (Option<W>, Fault)> {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(fault) => return Err((Some(work), fault)),
    };
    let held = Arc::new(Mutex::new(Some(work)));
    let queued = held.clone();
    match catch_unwind(AssertUnwindSafe(|| runtime.spawn_blocking(move || taken(&queued).map(|work| work())))) {
        Ok(task) => Ok(Work(Begun::There(task))),
        // It panicked after it had queued the work, which some later thread would come to.
        Err(_) => Err((taken(&held), Fault::io("starting a thread", &Errno::AGAIN.into()))),
    }
}

fn taken<W>(held: &Mutex<Option<W>>) -> Option<W> {
    held.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_its_panic_is_no_hang() {
        let here = std::thread::current().id();
        assert_ne!(start(|| std::thread::current().id()).unwrap().await, Some(here));
        assert_eq!(start(|| -> u8 { panic!("on purpose") }).unwrap().await, None);
        assert_eq!(blocking(|| -> Result<u8, Fault> { panic!("on purpose") }).await.unwrap_err().code, Code::Internal);
        assert_eq!(certainly(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn a_library_that_panics_for_want_of_a_thread_is_a_fault_of_the_machine() {
        for panic in [
            "OS can't spawn worker thread: Resource temporarily unavailable (os error 11)",
            "failed to create UnixStream: Os { code: 24, kind: Uncategorized, message: \"Too many open files\" }",
            "failed to spawn thread: Os { code: 11, kind: WouldBlock, message: \"Resource temporarily unavailable\" }",
        ] {
            let fault = blocking(move || -> Result<(), Fault> { panic!("{panic}") }).await.unwrap_err();
            assert!(fault.code == Code::Io && fault.hint.as_ref().is_some_and(|hint| hint.contains("`ulimit -")), "{fault:?}");
        }
        for panic in ["OS can't spawn worker thread: no number", "something else (os error 11)"] {
            assert!(no_thread(&panic).is_none(), "{panic}");
        }
    }

    #[test]
    fn without_a_runtime_work_is_refused_or_done_here() {
        let here = std::thread::current().id();
        assert_eq!(start(|| ()).err().map(|fault| fault.code), Some(Code::Usage));
        let done = certainly(move || std::thread::current().id());
        assert!(matches!(done.0, Begun::Here(Some(id)) if id == here));
    }
}
