//! Storms: many calls at once while pods, hosts and callers end at random moments, and the invariants that
//! must hold all the same.
//!
//! The tests count: every call has one outcome, every slot is returned, nothing is left. Small versions run
//! with the default suite; HOB_SOAK_SECONDS and HOB_SOAK_ROUNDS make them long, HOB_SEED repeats a run.

use std::{
    future::Future,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hob::{host::Host, model::Fault};

mod batches;
mod cancels;
mod hosts;
mod kills;
mod pools;
mod queues;
mod restarts;
mod shutdowns;
mod strangers;

/// The duration of a storm: `seconds`, unless HOB_SOAK_SECONDS says otherwise.
fn soak_seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(from_environment("HOB_SOAK_SECONDS").unwrap_or(seconds))
}

/// The number of repetitions: `rounds`, unless HOB_SOAK_ROUNDS says otherwise.
fn soak_rounds(rounds: usize) -> usize {
    from_environment("HOB_SOAK_ROUNDS").unwrap_or(rounds)
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Random numbers that repeat with the same seed.
pub struct Dice(u64);

impl Dice {
    /// Prints its seed, which the test runner shows when the test fails.
    pub fn new() -> Dice {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = from_environment("HOB_SEED").unwrap_or(clock.as_nanos() as u64);
        println!("HOB_SEED={seed}");
        Dice(seed)
    }

    /// Another generator, seeded from this one.
    fn fork(&mut self) -> Dice {
        Dice(self.next())
    }

    /// 0 to `bound - 1`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Splitmix64: each step adds a constant and mixes the sum.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Runs `body` in a separate process (this test binary again, with only `test`), so that the test can count
/// its descriptors and its memory. Panics with the process's output if it fails, or takes `seconds` longer
/// than a storm lasts.
fn alone<F: Future<Output = ()>>(test: &str, seconds: u64, body: impl FnOnce() -> F) {
    if std::env::var("HOB_TEST_ALONE").as_deref() == Ok(test) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(body());
    }
    let output = tempfile::NamedTempFile::new().unwrap();
    // One open file for both, so that they append instead of overwriting each other.
    let writer = output.reopen().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("HOB_TEST_ALONE", test)
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + soak_seconds(0.0) + Duration::from_secs(seconds);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = std::fs::read_to_string(output.path()).unwrap();
    assert!(status.is_some(), "{test} hangs:\n{said}");
    assert!(status.is_some_and(|status| status.success()), "{test}:\n{said}");
    println!("{said}");
    assert!(said.contains("1 passed"), "{test} did not run: it is called otherwise");
}

/// The resources of a process: open descriptors, and memory in KiB.
fn held() -> (usize, u64) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (descriptors, memory.trim().trim_end_matches(" kB").parse().unwrap())
}

/// Waits for `future`, at most `seconds`: nothing in a storm may hang.
async fn bounded<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(seconds), future).await;
    waited.unwrap_or_else(|_| panic!("hangs: {what} not within {seconds} s"))
}

/// Sends SIGKILL to a random pod of `host`, whose home lies below `folder`; `false` if there is none.
fn kill_a_pod(host: &Host, folder: &Path, dice: &mut Dice) -> bool {
    let pids: Vec<u32> = host.pods().iter().filter_map(|pod| pod.pid).collect();
    let Some(pid) = (!pids.is_empty()).then(|| pids[dice.below(pids.len() as u64) as usize]) else { return false };
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Ok(handle) = pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()) else { return false };
    // The number may belong to another process by now; the handle always refers to the same one.
    crate::support::is_of(pid, folder) && pidfd_send_signal(&handle, Signal::KILL).is_ok()
}

/// The fault in one line, for assertions about many faults.
fn line(fault: &Fault) -> String {
    format!("{}: {}", fault.code.name(), fault.message)
}
