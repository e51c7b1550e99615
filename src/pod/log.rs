//! What a pod prints: always drained, bounded, attributed to the ask in hand.
//!
//! Apart from the wire because nothing here is protocol: a pipe that nobody reads blocks the pod at 64 KiB.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::model::limits::{LOG_LINE_BYTES_MAX, LOG_LINES_MAX};

/// One kept line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The ask in hand when it came, 0 for none.
    pub ask: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub text: String,
}

/// The last lines of a pod, and how many were let go.
#[derive(Debug, Default)]
pub struct Log {
    ask: AtomicU64,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    dropped: u64,
}

impl Log {
    /// From now on lines belong to this ask (0: none).
    pub fn attribute_to(&self, ask: u64) {
        self.ask.store(ask, Ordering::Relaxed);
    }

    /// Keeps a line; of one longer than [`LOG_LINE_BYTES_MAX`] its start.
    pub fn push(&self, text: &str) {
        let kept = text.floor_char_boundary(LOG_LINE_BYTES_MAX);
        self.keep(&text[..kept], text.len() - kept);
    }

    /// Keeps `text`, of which `cut` bytes were let go.
    fn keep(&self, text: &str, cut: usize) {
        let text = match cut {
            0 => text.to_owned(),
            _ => format!("{text} [{cut} more bytes]"),
        };
        let mut ring = self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if ring.lines.len() >= LOG_LINES_MAX {
            ring.lines.pop_front();
            ring.dropped += 1;
        }
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        ring.lines.push_back(Line { ask: self.ask.load(Ordering::Relaxed), at_ms, text });
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> Vec<Line> {
        let ring = self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        ring.lines.iter().skip(ring.lines.len().saturating_sub(count)).cloned().collect()
    }

    /// Lines that were let go to make room.
    pub fn dropped(&self) -> u64 {
        self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).dropped
    }
}

/// Reads `pipe` to its end, whatever comes: any bytes, any length of line, any speed.
pub async fn drain(mut pipe: impl AsyncRead + Unpin, log: Arc<Log>) {
    let mut buffer = vec![0; 16 << 10];
    let mut line: Vec<u8> = Vec::new();
    let mut cut = 0usize;
    loop {
        let count = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for part in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            let ended = part.ends_with(b"\n");
            let part = part.strip_suffix(b"\n").unwrap_or(part);
            let kept = part.len().min(LOG_LINE_BYTES_MAX.saturating_sub(line.len()));
            line.extend_from_slice(&part[..kept]);
            cut += part.len() - kept;
            if ended {
                finish(&log, &mut line, &mut cut);
            }
        }
        // tokio's pipes are always ready under a flood: let the driver have its turn.
        tokio::task::yield_now().await;
    }
    if !line.is_empty() {
        finish(&log, &mut line, &mut cut);
    }
}

fn finish(log: &Log, line: &mut Vec<u8>, cut: &mut usize) {
    log.keep(&String::from_utf8_lossy(line), *cut);
    line.clear();
    *cut = 0;
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

    #[test]
    fn a_log_message_of_the_pod_is_cut_like_a_printed_line() {
        let log = Log::default();
        log.push(&"ä".repeat(LOG_LINE_BYTES_MAX));
        let kept = &log.tail(1)[0].text;
        assert!(kept.len() < LOG_LINE_BYTES_MAX + 40 && kept.ends_with(&format!(" [{LOG_LINE_BYTES_MAX} more bytes]")), "{}", kept.len());
    }
}
