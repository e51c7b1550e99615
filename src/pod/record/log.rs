//! The output of one pod: always drained, bounded, attributed to the ask in hand.
//!
//! A pipe that nobody reads blocks the pod at 64 KiB. Each line goes to three places: the ring of its pod,
//! the followers of the host's pods, and the files that outlive both (`printed.rs`).

use crate::pod::record::line::Line;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::unix::pipe,
};

use crate::{
    model::{
        limits::{LOG_CATCH_UP_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX},
        status::LogLine,
    },
    pod::record::printed::{Allowance, Heard, Printed},
};

/// Bytes read from a pipe at once.
const PIECE: usize = 16 << 10;

/// The last lines of a pod, and how many earlier ones were dropped.
#[derive(Debug, Default)]
pub struct Log {
    ring: Mutex<Ring>,
    pipes: Mutex<Vec<Arc<Pipe>>>,
    told: Option<Told>,
}

/// The destination of each line beside the ring, and the pod that printed it.
#[derive(Debug)]
struct Told {
    recipe: String,
    incarnation: String,
    printed: Printed,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    dropped: u64,
    ask: u64,
    call: Option<usize>,
    allowance: Allowance,
}

impl Log {
    /// The log of a pod whose lines also go to `printed`.
    pub fn of(recipe: &str, incarnation: &str, printed: Printed) -> Log {
        let told = Some(Told { recipe: recipe.to_owned(), incarnation: incarnation.to_owned(), printed });
        Log { told, ..Log::default() }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Attributes later lines to this ask (0: none) and to this call, if the pod works for only one call.
    pub fn attribute_to(&self, ask: u64, call: Option<usize>) {
        let mut ring = self.ring();
        (ring.ask, ring.call) = (ask, call);
    }

    /// Keeps a line; of a line longer than [`LOG_LINE_BYTES_MAX`], keeps the start.
    pub fn push(&self, text: &str) {
        let kept = text.floor_char_boundary(LOG_LINE_BYTES_MAX);
        self.keep(&text[..kept], text.len() - kept);
    }

    /// Keeps `text`, of which `cut` bytes were dropped.
    fn keep(&self, text: &str, cut: usize) {
        let text = match cut {
            0 => text.to_owned(),
            _ => format!("{text} [{cut} more bytes]"),
        };
        let mut ring = self.ring();
        if ring.lines.len() >= LOG_LINES_MAX {
            ring.lines.pop_front();
            ring.dropped += 1;
        }
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let line = Line { ask: ring.ask, at_ms, text };
        if let Some(told) = &self.told {
            told.of(&mut ring, &line);
        }
        ring.lines.push_back(line);
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> Vec<Line> {
        let ring = self.ring();
        ring.lines.iter().skip(ring.lines.len().saturating_sub(count)).cloned().collect()
    }

    /// Number of lines that were dropped to make room.
    pub fn dropped(&self) -> u64 {
        self.ring().dropped
    }

    /// Reads what the pipes hold now, so that lines printed before an answer are kept when the answer is
    /// reported.
    pub fn catch_up(&self) {
        let pipes = self.pipes().clone();
        pipes.iter().for_each(|pipe| pipe.catch_up(self));
    }

    fn pipes(&self) -> MutexGuard<'_, Vec<Arc<Pipe>>> {
        self.pipes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Told {
    fn of(&self, ring: &mut Ring, line: &Line) {
        let follows = self.printed.is_followed();
        let before = ring.allowance.kept_back;
        let is_filed = ring.allowance.takes(Instant::now(), line.text.len());
        if !follows && !is_filed {
            return;
        }
        let line = line.clone().of(&self.recipe, &self.incarnation);
        if is_filed {
            let gap = || LogLine { text: format!("[{before} lines before this one are in no file: too many at once]"), ..line.clone() };
            if before > 0 && self.printed.file(&gap()) {
                ring.allowance.kept_back -= before;
            }
            ring.allowance.kept_back += u64::from(!self.printed.file(&line));
        }
        if follows {
            self.printed.tell(Heard { line: Arc::new(line), call: ring.call });
        }
    }
}

/// One output of a pod.
#[derive(Debug)]
struct Pipe {
    receiver: pipe::Receiver,
    /// Bytes that were read are kept under this lock, so that two readers do not mix their pieces.
    part: Mutex<Part>,
}

impl Pipe {
    /// Keeps the next piece; returns its length in bytes, 0 at the end.
    fn take(&self, log: &Log, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let mut part = self.part.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut buffer = [0; PIECE];
        let count = read(&mut buffer)?;
        part.take(log, &buffer[..count]);
        Ok(count)
    }

    /// Reads what the pipe holds now. It does not ask the runtime whether the pipe is readable, because the
    /// runtime may not know yet.
    fn catch_up(&self, log: &Log) {
        let mut left = LOG_CATCH_UP_BYTES_MAX;
        while left > 0
            && let Ok(count @ 1..) = self.take(log, |buffer| Ok(rustix::io::read(&self.receiver, buffer)?))
        {
            left = left.saturating_sub(count);
        }
    }
}

/// Reads an output of a pod to its end: any bytes, any length of line, any speed. `pipe` must not block.
pub async fn drain_pipe(pipe: OwnedFd, log: Arc<Log>) {
    let Ok(receiver) = pipe::Receiver::from_owned_fd(pipe) else { return };
    let pipe = Arc::new(Pipe { receiver, part: Mutex::default() });
    log.pipes().push(pipe.clone());
    while pipe.receiver.readable().await.is_ok() {
        match pipe.take(&log, |buffer| pipe.receiver.try_read(buffer)) {
            Ok(0) => break,
            Err(error) if ![ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => break,
            // Under a flood the pipe is always ready, so yield to the driver.
            _ => tokio::task::yield_now().await,
        }
    }
    log.pipes().retain(|other| !Arc::ptr_eq(other, &pipe));
    pipe.part.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).end(&log);
}

/// Does the same as [`drain_pipe`] for any reader.
pub async fn drain(mut pipe: impl AsyncRead + Unpin, log: Arc<Log>) {
    let mut buffer = vec![0; PIECE];
    let mut part = Part::default();
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        part.take(&log, &buffer[..count]);
        // Under a flood tokio's pipes are always ready, so yield to the driver.
        tokio::task::yield_now().await;
    }
    part.end(&log);
}

/// A line whose end has not come yet.
#[derive(Debug, Default)]
struct Part {
    line: Vec<u8>,
    cut: usize,
    /// The last byte was a carriage return: further bytes overwrite the line, unless they end it.
    returned: bool,
}

impl Part {
    fn take(&mut self, log: &Log, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| [b'\n', b'\r'].contains(byte)) {
            let (text, end) = match piece.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (text, Some(*end)),
                _ => (piece, None),
            };
            // As on a terminal, only the last state of a progress bar that is redrawn stays, as one line.
            if self.returned && !text.is_empty() {
                self.line.clear();
                (self.cut, self.returned) = (0, false);
            }
            let kept = text.len().min(LOG_LINE_BYTES_MAX.saturating_sub(self.line.len()));
            self.line.extend_from_slice(&text[..kept]);
            self.cut += text.len() - kept;
            match end {
                Some(b'\n') => self.finish(log),
                Some(_) => self.returned = true,
                None => {}
            }
        }
    }

    fn finish(&mut self, log: &Log) {
        log.keep(&String::from_utf8_lossy(&self.line), self.cut);
        *self = Part { line: std::mem::take(&mut self.line), ..Part::default() };
        self.line.clear();
    }

    fn end(&mut self, log: &Log) {
        if !self.line.is_empty() {
            self.finish(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_keeps_its_end_and_counts_the_rest() {
        let log = Arc::new(Log::default());
        let mut text: Vec<u8> = (0..LOG_LINES_MAX + 10).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        text.extend(vec![b'x'; LOG_LINE_BYTES_MAX + 5]);
        text.extend(b"\n\xff no newline");
        drain(&text[..], log.clone()).await;
        assert_eq!(log.dropped(), 12);
        let tail = log.tail(2);
        assert!(tail[0].text.ends_with("x [5 more bytes]"));
        assert_eq!(tail[1].text, "\u{fffd} no newline");
    }

    #[tokio::test]
    async fn a_bar_is_its_last_state_and_an_end_of_two_characters_is_one_end() {
        let log = Arc::new(Log::default());
        let bar: String = (0..1_000).map(|n| format!("\rsteps: {n}/999")).collect();
        // The result is the same wherever the pieces are cut: a return may end one piece, and the line's end
        // may begin the next.
        let text = format!("{bar}\ntwo\r\n\r\nlast\r");
        for size in [1, 7, text.len()] {
            let mut part = Part::default();
            text.as_bytes().chunks(size).for_each(|piece| part.take(&log, piece));
            part.end(&log);
            let lines: Vec<String> = log.tail(4).into_iter().map(|line| line.text).collect();
            assert_eq!(lines, ["steps: 999/999", "two", "", "last"], "in pieces of {size}");
        }
        assert_eq!(log.tail(100).len(), 12, "{:?}", log.tail(100));
    }

    #[test]
    fn a_log_message_of_the_pod_is_cut_like_a_printed_line() {
        let log = Log::default();
        log.push(&"ä".repeat(LOG_LINE_BYTES_MAX));
        let kept = &log.tail(1)[0].text;
        assert!(kept.len() < LOG_LINE_BYTES_MAX + 40 && kept.ends_with(&format!(" [{LOG_LINE_BYTES_MAX} more bytes]")), "{}", kept.len());
    }

    #[tokio::test]
    async fn what_is_in_a_pipe_is_there_when_it_is_asked_for_and_no_piece_is_mixed() {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let log = Arc::new(Log::default());
        let draining = tokio::spawn(drain_pipe(ours, log.clone()));
        while log.pipes().is_empty() {
            tokio::task::yield_now().await;
        }
        // No await lies between the print and the check, so the task had no turn.
        for n in 0..100 {
            rustix::io::write(&theirs, format!("line {n}\nhalf of").as_bytes()).unwrap();
            log.catch_up();
            assert!(log.tail(1)[0].text.ends_with(&format!("line {n}")), "{:?}", log.tail(1));
            rustix::io::write(&theirs, b" a line, ").unwrap();
        }
        drop(theirs);
        draining.await.unwrap();
        assert_eq!(log.tail(1)[0].text, "half of a line, ");
        assert!(log.pipes().is_empty());
    }
}
