//! Distributes the output of all pods of a host to followers and into files.
//!
//! Nothing here waits: a slow follower loses lines and is told how many; a slow file loses lines too.

use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::broadcast::{self, error::RecvError};

use crate::{
    model::{
        limits::{LOG_FILE_BURST_BYTES, LOG_FILE_BYTES_PER_S, PRINTED_LINES_MAX},
        status::LogLine,
    },
    pod::record::log_files::Files,
};

/// The lines of a host's pods. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Printed(Arc<PrintedState>);

#[derive(Debug)]
struct PrintedState {
    followers: broadcast::Sender<Heard>,
    files: Files,
}

/// A line as it was printed, for followers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Heard {
    pub line: Arc<LogLine>,
    /// The one call that its pod worked for; `None` between calls, and if the pod works for several at a
    /// time.
    pub call: Option<usize>,
}

/// Some lines were dropped before this follower took them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missed(pub u64);

/// A follower: it gets the lines printed since it was made. At most [`PRINTED_LINES_MAX`] wait for it.
#[derive(Debug)]
pub struct Lines(broadcast::Receiver<Heard>);

impl Printed {
    /// `folder`: the folder of the files; made with the first line.
    pub fn new(folder: PathBuf) -> Printed {
        let (followers, _) = broadcast::channel(PRINTED_LINES_MAX);
        Printed(Arc::new(PrintedState { followers, files: Files::new(folder) }))
    }

    /// Follows the lines that are printed from now on.
    pub fn follow(&self) -> Lines {
        Lines(self.0.followers.subscribe())
    }

    pub(in crate::pod) fn is_followed(&self) -> bool {
        self.0.followers.receiver_count() > 0
    }

    pub(in crate::pod) fn tell(&self, heard: Heard) {
        // Sending fails if there is no follower any more.
        let _ = self.0.followers.send(heard);
    }

    /// Queues a line for its recipe's file; returns whether there was room for it.
    pub(in crate::pod) fn file(&self, line: &LogLine) -> bool {
        self.0.files.put(line.clone())
    }

    /// Waits until the lines so far are in their files, for at most
    /// [`LOG_CLOSE_MS`](crate::model::limits::LOG_CLOSE_MS); later lines go to no file. Blocking.
    pub fn close(&self) {
        self.0.files.close();
    }
}

impl Lines {
    /// The next line; waits for it. `None` once the host is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Heard, Missed>> {
        match self.0.recv().await {
            Ok(heard) => Some(Ok(heard)),
            Err(RecvError::Lagged(count)) => Some(Err(Missed(count))),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next line, if there is one now.
    pub fn next_now(&mut self) -> Option<Result<Heard, Missed>> {
        use broadcast::error::TryRecvError;
        match self.0.try_recv() {
            Ok(heard) => Some(Ok(heard)),
            Err(TryRecvError::Lagged(count)) => Some(Err(Missed(count))),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

/// The bytes that one pod may write to files: a burst, then a rate per second. A pod that prints for hours
/// must not wear out a disk.
#[derive(Debug)]
pub(in crate::pod) struct Allowance {
    bytes: u64,
    since: Option<Instant>,
    /// Number of lines that were not written to a file and that no file reports yet.
    pub kept_back: u64,
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance { bytes: LOG_FILE_BURST_BYTES, since: None, kept_back: 0 }
    }
}

impl Allowance {
    /// Whether a line of so many bytes may be written; if not, counts it as kept back.
    pub fn takes(&mut self, now: Instant, bytes: usize) -> bool {
        let since = self.since.get_or_insert(now);
        let gained = now.saturating_duration_since(*since).as_millis() as u64 * LOG_FILE_BYTES_PER_S / 1_000;
        if gained > 0 {
            self.bytes = self.bytes.saturating_add(gained).min(LOG_FILE_BURST_BYTES);
            *since = now;
        }
        // A line's text is surrounded by JSON in its file; that counts too.
        let wanted = bytes as u64 + 100;
        let takes = self.bytes >= wanted;
        match takes {
            true => self.bytes -= wanted,
            false => self.kept_back += 1,
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_has_its_burst_and_then_its_rate_and_is_counted() {
        let (mut allowance, begun) = (Allowance::default(), Instant::now());
        let line = 924;
        let burst = (0..1_000_000).take_while(|_| allowance.takes(begun, line)).count() as u64;
        assert_eq!((burst, allowance.kept_back), (LOG_FILE_BURST_BYTES / 1_024, 1));
        // A thousand calls within a second gain no more than one call.
        let later = |ms| begun + Duration::from_millis(ms);
        let kept = (1..=10_000).filter(|ms| allowance.takes(later(*ms), line)).count() as u64;
        assert!((kept as i64 - (10 * LOG_FILE_BYTES_PER_S / 1_024) as i64).abs() <= 5, "{kept}");
        assert_eq!(allowance.kept_back, 1 + 10_000 - kept);
        // However long the pod was silent, it gets at most one burst.
        let again = (0..1_000_000).take_while(|_| allowance.takes(later(1 << 40), line)).count() as u64;
        assert_eq!(again, LOG_FILE_BURST_BYTES / 1_024);
    }
}
