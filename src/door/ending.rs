//! The end of a server: who requests it, and the one clock that nothing can delay.
//!
//! It runs on a thread with a runtime of its own, because the server's runtime may be the part that hangs:
//! signals are received and the clock runs even if all threads of the server are busy.

use std::{
    fs::File,
    process::exit,
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::print;
use crate::model::{Code, Fault, limits};

/// How long the end may take: from the first request (orderly), and from the second (hurried).
#[derive(Debug, Clone, Copy)]
struct Clock {
    whole: Duration,
    hurried: Duration,
}

/// Signals to end, or to read the settings again.
pub struct Ending {
    /// The number of requests to end.
    wishes: watch::Receiver<u32>,
    anew: Arc<Notify>,
}

impl Ending {
    /// From here on SIGTERM and SIGINT are requests for an orderly end, and SIGHUP is a request to read the
    /// settings again. SIGHUP because the terminal is gone is a request to end too. The first request starts
    /// the clock, which ends the process when the time is over.
    ///
    /// Errors: `io`.
    pub fn new() -> Result<Ending, Fault> {
        let whole = Duration::from_millis(limits::SERVE_END_MS);
        Ending::within(Clock { whole, hurried: Duration::from_millis(limits::SERVE_HURRIED_END_MS) })
    }

    fn within(clock: Clock) -> Result<Ending, Fault> {
        let ((counted, wishes), anew) = (watch::channel(0), Arc::new(Notify::new()));
        let (ready, is_ready) = mpsc::sync_channel(1);
        let told = anew.clone();
        let listen = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                match Signals::new() {
                    Ok(signals) => {
                        let _ = ready.send(Ok(()));
                        signals.follow(clock, &counted, &told).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        };
        let failed = |error: &std::io::Error| Fault::io("listening for signals", error);
        std::thread::Builder::new().name("ending".to_owned()).spawn(listen).map_err(|error| failed(&error))?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(Ending { wishes, anew }),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(Fault::new(Code::Internal, "the thread that listens for signals is gone")),
        }
    }

    /// Returns when the end was requested `times` times.
    pub async fn wished(&self, times: u32) {
        // No error is possible: the sender lives as long as the process.
        let _ = self.wishes.clone().wait_for(|wishes| *wishes >= times).await;
    }

    /// Returns when the settings are to be read again.
    pub async fn anew(&self) {
        self.anew.notified().await;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether the process had a terminal at its start.
    terminal: bool,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            terminal: has_terminal(),
        })
    }

    async fn follow(mut self, clock: Clock, counted: &watch::Sender<u32>, anew: &Notify) {
        let mut end = None;
        loop {
            let over = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => if has_terminal() == self.terminal {
                    anew.notify_one();
                    continue;
                },
                () = over => {
                    print::note("the server did not end in order in its time: it is ended, and its pods end with it");
                    exit(i32::from(Code::Internal.exit()));
                }
            }
            counted.send_modify(|wishes| *wishes += 1);
            let left = if *counted.borrow() == 1 { clock.whole } else { clock.hurried };
            let latest = Instant::now() + left;
            end = Some(end.map_or(latest, |end: Instant| end.min(latest)));
        }
    }
}

/// Whether the process has a terminal; one that hung up does not count.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use rustix::process::{Pid, Signal as Name, kill_process};

    use super::*;

    const SUBJECT: &str = "HOB_TEST_HANGS";

    /// A process whose every thread but the clock's is busy for ever, as one with a bug is.
    #[test]
    fn a_process_that_hangs_is_ended_by_its_clock() {
        let clock = Clock { whole: Duration::from_millis(400), hurried: Duration::from_millis(100) };
        if std::env::var_os(SUBJECT).is_some() {
            let _ending = Ending::within(clock).unwrap();
            print::result("hangs");
            loop {
                std::hint::spin_loop();
            }
        }
        let name = "door::ending::tests::a_process_that_hangs_is_ended_by_its_clock";
        for signals in [1, 2] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(SUBJECT, "1");
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let said = BufReader::new(child.stdout.take().unwrap()).lines().any(|line| line.unwrap().contains("hangs"));
            assert!(said, "it did not begin");
            for _ in 0..signals {
                kill_process(Pid::from_raw(child.id() as i32).unwrap(), Name::TERM).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
            let ended = child.wait_with_output().unwrap();
            assert_eq!(ended.status.code(), Some(i32::from(Code::Internal.exit())));
            assert!(String::from_utf8_lossy(&ended.stderr).contains("its pods end with it"), "{ended:?}");
        }
    }
}
