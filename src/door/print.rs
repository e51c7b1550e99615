//! The only file that prints.
//!
//! Only results go to stdout; progress, notes and faults go to stderr.

use std::{
    collections::HashMap,
    io::{BufRead, IsTerminal, Read, Write},
    process::ExitCode,
    sync::{
        LazyLock, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{
    host::{Host, Stray},
    model::{
        Code, Door, Fault, Permissions, Progress, Report, Step, hint,
        limits::{
            ANSWER_BYTES_MAX, CALL_PRINT_BYTES_MAX, CALL_PRINT_LINES_MAX, CALL_PRINT_WAIT_MS, FAULT_TAIL_LINES, REPORT_CHARS_MAX,
            REPORT_LINE_MS,
        },
        printable::{in_a_line, printable, printable_json},
    },
    shelf::store::lockfile::LockEntry,
};

/// All bars on stderr; other output goes above them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
/// Whether any bar was ever shown.
static SHOWN: AtomicBool = AtomicBool::new(false);
/// The length of a bar: a pod may report fractions, such as seconds, but a bar counts whole steps.
const THOUSANDTHS: u64 = 1_000;
/// The time between two frames of a bar that moves by itself.
const TICK: Duration = Duration::from_millis(120);

/// Prints without disturbing the bars.
fn above_bars<T>(print: impl FnOnce() -> T) -> T {
    match SHOWN.load(Ordering::Acquire) {
        true => BARS.suspend(print),
        false => print(),
    }
}

/// Shows one more bar, which moves by itself.
fn shown(bar: ProgressBar) -> ProgressBar {
    SHOWN.store(true, Ordering::Release);
    let bar = BARS.add(bar);
    bar.enable_steady_tick(TICK);
    bar
}

/// Writes one line to stdout: JSON, or text for people. Characters that control a terminal are written as
/// JSON escapes, so that a document stays the same wherever it is shown later. A failed write is reported by
/// [`unwritten`] at the end.
pub fn result(text: &str) {
    let text = printable_json(text);
    above_bars(|| {
        let mut out = std::io::stdout().lock();
        remember(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()));
    });
}

/// The first failure to write a result. A reader that went away (`hob ... | head`) does not count.
static UNWRITTEN: OnceLock<Fault> = OnceLock::new();

fn remember(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        let _ = UNWRITTEN
            .set(Fault::io("writing to standard output", &error).hint("what was to be printed is lost, and what was to be done is done"));
    }
}

/// The fault to report at the end if results were lost, for example on a full disk behind `> FILE`.
pub fn unwritten() -> Option<&'static Fault> {
    UNWRITTEN.get()
}

/// Writes one line to stderr.
pub fn note(text: &str) {
    above_bars(|| drop(writeln!(std::io::stderr().lock(), "{}", printable(text))));
}

/// Whether a question would reach a person who can answer it.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks on stderr; any answer except a clear yes is a no.
pub fn ask(question: &str) -> bool {
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "{} [y/N] ", printable(question)).and_then(|()| out.flush());
    let mut answer = Vec::new();
    let read = std::io::stdin().lock().take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer);
    read.is_ok() && matches!(answer.trim_ascii().to_ascii_lowercase().as_slice(), b"y" | b"yes")
}

/// Writes text to stdout. On a terminal it replaces the previous text; elsewhere an empty line follows it.
pub fn redrawn(text: &str) {
    let mut out = std::io::stdout().lock();
    let (before, after) = if out.is_terminal() { ("\x1b[H\x1b[2J", "\n") } else { ("", "\n\n") };
    remember(write!(out, "{before}{}{after}", printable(text)).and_then(|()| out.flush()));
}

/// Whether stdout still has a reader.
pub fn is_read() -> bool {
    let out = std::io::stdout();
    let mut stdout = [rustix::event::PollFd::new(&out, rustix::event::PollFlags::empty())];
    let polled = rustix::event::poll(&mut stdout, Some(&rustix::event::Timespec::default()));
    polled.is_err() || !stdout[0].revents().intersects(rustix::event::PollFlags::ERR | rustix::event::PollFlags::HUP)
}

/// The target of diagnostics (`HOB_LOG`).
pub struct Diagnostics;

impl Write for Diagnostics {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Ignore a failed write: a terminal may be gone, and the work goes on. Each event arrives whole, and
        // may contain names that strangers chose, so control characters are escaped.
        let text = String::from_utf8_lossy(bytes);
        let _ = above_bars(|| std::io::stderr().write_all(printable(&text).as_bytes()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = std::io::stderr().flush();
        Ok(())
    }
}

/// Prints a fault for people: the message, the next step, and the recipe's own details.
pub fn fault(fault: &Fault) {
    let fault = &fault.clone().worded(Door::CommandLine);
    // A recipe chooses words of it, but only Hob may begin a line.
    let inner = |text: &str| text.replace('\n', "\n      ");
    let mut text = format!("error[{}]: {}\n", fault.code.name(), inner(&fault.message));
    if let Some(hint) = &fault.hint {
        text.push_str(&format!("  hint: {}\n", inner(hint)));
    }
    for violation in fault.detail["violations"].as_array().into_iter().flatten().skip(1) {
        text.push_str(&format!(
            "  also at {}: {}, found {}\n",
            violation["pointer"].as_str().unwrap_or("/"),
            violation["expected"].as_str().unwrap_or(""),
            violation["found"].as_str().unwrap_or("")
        ));
    }
    // Only findings of Hob: a recipe may use the same key for its own.
    let findings = fault.detail["findings"].as_array().filter(|_| matches!(fault.code, Code::InvalidManifest | Code::InvalidConfig));
    for finding in findings.into_iter().flatten().skip(1) {
        text.push_str(&format!("  also {}\n", inner(finding["message"].as_str().unwrap_or_default())));
    }
    let last = &fault.detail["last_fault"];
    if let (Some(code), Some(message)) = (last["code"].as_str(), last["message"].as_str()) {
        text.push_str(&format!("  last fault[{code}]: {}\n", inner(message)));
        if let Some(hint) = last["hint"].as_str() {
            text.push_str(&format!("    hint: {}\n", inner(hint)));
        }
    }
    let words: Vec<&str> = fault.detail["permissions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (word, means) in Permissions::from_words(words).unwrap_or_default().explained() {
        text.push_str(&format!("  {word}: to {means}\n"));
    }
    for key in ["cause", "traceback", "log", "stdout", "stderr"] {
        let lines: Vec<&str> = match &fault.detail[key] {
            Value::String(text) => text.lines().collect(),
            Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
            _ => continue,
        };
        if !lines.is_empty() {
            text.push_str(&format!("  {key}:\n"));
            // The last lines of glue's output say why; the JSON has all of them.
            let skipped = if key.starts_with("std") { lines.len().saturating_sub(2 * FAULT_TAIL_LINES) } else { 0 };
            if skipped > 0 {
                text.push_str(&format!("    [{skipped} lines before these are in the fault's detail: `--json`]\n"));
            }
            lines[skipped..].iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        }
    }
    let _ = std::io::stderr().lock().write_all(printable(&text).as_bytes());
}

/// Progress on stderr: bars on a terminal, one line per step elsewhere.
pub struct Bars {
    steps: Mutex<HashMap<String, ProgressBar>>,
    terminal: bool,
}

impl Bars {
    pub fn new() -> Bars {
        Bars { steps: Mutex::default(), terminal: std::io::stderr().is_terminal() }
    }
}

impl Progress for Bars {
    fn step(&self, step: Step) {
        let mut steps = self.steps.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match step {
            Step::Note { text } => note(&format!("  {text}")),
            Step::Started { label, total_bytes } => {
                let shown_label = printable(&label).into_owned();
                if !self.terminal {
                    return note(&format!("  {label}"));
                }
                let bar = match total_bytes {
                    Some(total) => ProgressBar::new(total).with_style(
                        ProgressStyle::with_template("  {msg} {wide_bar} {bytes}/{total_bytes} {eta}").expect("a constant template"),
                    ),
                    None => ProgressBar::new_spinner()
                        .with_style(ProgressStyle::with_template("  {spinner} {msg} {elapsed}").expect("a constant template")),
                };
                steps.insert(label.clone(), shown(bar.with_message(shown_label)));
            }
            Step::Advanced { label, done_bytes } => {
                if let Some(bar) = steps.get(&label) {
                    bar.set_position(done_bytes);
                }
            }
            Step::Finished { label } => {
                if let Some(bar) = steps.remove(&label) {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

/// Shows on stderr what is printed during a call, each line marked as not Hob's. A thread writes, so that an
/// unread stderr delays no call. Lines without room are counted, and the count is shown.
pub struct Prints {
    lines: Option<mpsc::SyncSender<String>>,
    done: mpsc::Receiver<()>,
    bytes: usize,
    left: u64,
}

impl Prints {
    /// `wanted`: whether to show anything.
    pub fn new(wanted: bool) -> Prints {
        let (lines, taken) = mpsc::sync_channel::<String>(CALL_PRINT_LINES_MAX);
        let (over, done) = mpsc::sync_channel(1);
        let write = move || {
            taken.into_iter().for_each(|line| note(&line));
            drop(over);
        };
        let writes = wanted && std::thread::Builder::new().name("hob-prints".to_owned()).spawn(write).is_ok();
        Prints { lines: writes.then_some(lines), done, bytes: 0, left: 0 }
    }

    pub fn are_wanted(&self) -> bool {
        self.lines.is_some()
    }

    /// Shows printed text, which may have several lines. Never waits.
    pub fn show(&mut self, text: &str) {
        for line in text.lines() {
            self.bytes = self.bytes.saturating_add(line.len() + 1);
            self.tell_left();
            if self.left > 0 || self.bytes > CALL_PRINT_BYTES_MAX || !self.write(format!("  | {line}")) {
                self.left += 1;
            }
        }
    }

    fn write(&self, line: String) -> bool {
        self.lines.as_ref().is_none_or(|lines| lines.try_send(line).is_ok())
    }

    fn tell_left(&mut self) {
        if self.left > 0 && self.bytes <= CALL_PRINT_BYTES_MAX && self.write(self.about_left()) {
            self.left = 0;
        }
    }

    fn about_left(&self) -> String {
        format!("  | [{} lines are not shown: `hob logs` may have them]", self.left)
    }

    /// Waits for a limited time until everything is written.
    pub fn finish(mut self) {
        let last = (self.left > 0).then(|| self.about_left());
        let Some(lines) = self.lines.take() else { return };
        let until = Instant::now() + Duration::from_millis(CALL_PRINT_WAIT_MS);
        if let Some(last) = last {
            let mut waiting = last;
            while let Err(mpsc::TrySendError::Full(back)) = lines.try_send(waiting)
                && Instant::now() < until
            {
                waiting = back;
                std::thread::sleep(TICK);
            }
        }
        drop(lines);
        let _ = self.done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Shows the progress of a call on stderr. On a terminal: a bar (a spinner while the total is unknown), which
/// is gone when this is dropped. Elsewhere: a line from time to time, if wanted.
pub struct Watch {
    how: How,
    bar: Option<ProgressBar>,
    told: Option<Instant>,
}

enum How {
    Bar,
    Lines,
    Not,
}

impl Watch {
    /// `lines`: whether to print lines where a bar is not possible.
    pub fn new(quiet: bool, lines: bool) -> Watch {
        let how = match (quiet, std::io::stderr().is_terminal()) {
            (false, true) => How::Bar,
            (false, false) if lines => How::Lines,
            _ => How::Not,
        };
        Watch { how, bar: None, told: None }
    }

    pub fn show(&mut self, report: &Report) {
        match self.how {
            How::Bar => {
                let styled = |template| ProgressStyle::with_template(template).expect("a constant template");
                let (measured, spinner) = ("  {bar:30} {percent:>3} % {wide_msg} {eta}", "  {spinner} {wide_msg} {elapsed}");
                let bar = self.bar.get_or_insert_with(|| shown(ProgressBar::no_length().with_style(styled(spinner))));
                match report.share() {
                    Some(share) => {
                        if bar.length().is_none() {
                            bar.set_style(styled(measured));
                            bar.set_length(THOUSANDTHS);
                        }
                        bar.set_position((share * THOUSANDTHS as f64) as u64);
                    }
                    None if bar.length().is_some() => {
                        bar.unset_length();
                        bar.set_style(styled(spinner));
                    }
                    None => {}
                }
                bar.set_message(line(report));
            }
            How::Lines if self.told.is_none_or(|told| told.elapsed() >= Duration::from_millis(REPORT_LINE_MS)) => {
                note(&format!("  {}", line(report)));
                self.told = Some(Instant::now());
            }
            How::Lines | How::Not => {}
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            BARS.remove(&bar);
        }
    }
}

/// A report on one line, without characters that control a terminal, and cut to `REPORT_CHARS_MAX`.
fn line(report: &Report) -> String {
    let text: String = report.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = text.chars().take(REPORT_CHARS_MAX).collect();
    printable(&cut).into_owned()
}

/// Prints `text` for people or `value` for programs.
pub(super) fn say(json: bool, mut value: Value, text: impl FnOnce() -> String) {
    hint::word(&mut value, Door::CommandLine);
    match json {
        true => result(&value.to_string()),
        false => result(&printable(&text())),
    }
}

pub(super) fn failed(fault: &Fault, json: bool) -> ExitCode {
    match json {
        true => result(&json!({ "fault": fault.clone().worded(Door::CommandLine) }).to_string()),
        false => self::fault(fault),
    }
    ExitCode::from(fault.code.exit())
}

/// Notes what today's Hob would refuse in a recipe that an older Hob installed; returns the warnings.
pub fn say_warnings(host: &Host, entry: &LockEntry) -> Vec<String> {
    let warnings = host.warnings(entry);
    if let Some(warning) = warnings.first() {
        let more = match warnings.len() {
            1 => String::new(),
            all => format!(" (and {} more, which `hob show` of it names)", all - 1),
        };
        note(&format!("  {}: installed by an older Hob, and read as it was: {}{more}", entry.name, in_a_line(warning)));
    }
    warnings
}

/// Notes names in hob.toml that no installed recipe has.
pub fn say_strays(strays: Vec<Stray>) {
    strays.iter().for_each(|stray| note(&format!("  {stray}")));
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::model::printable::commands;

    #[test]
    fn what_would_command_a_terminal_is_shown_and_not_obeyed() {
        assert_eq!(
            printable("`pod/\x1b[2Ja` \u{9b}1m\r\x07 \u{202e}cod.exe\n\tä 語"),
            "`pod/\\u{1b}[2Ja` \\u{9b}1m\\r\\u{7} \\u{202e}cod.exe\n\tä 語"
        );
        assert!(matches!(printable("two\nlines"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_result_that_would_command_a_terminal_is_the_same_json_and_printable() {
        let value =
            serde_json::json!({ "\u{9b}31m": "\u{1b}[2J\u{7f}\u{85}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{e0041}ä 語 👩\u{200d}🔬" });
        let text = format!("{{\r\n{}", &value.to_string()[1..]);
        let written = printable_json(&text);
        assert!(!written.contains(commands) && written.contains("ä 語 👩\u{200d}🔬"), "{written}");
        assert!(written.contains("\\u009b31m") && written.contains("\\udb40\\udc41"), "{written}");
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), value);
        assert!(matches!(printable_json("{\n\t\"ä\": 1}"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_report_is_one_harmless_line() {
        let data = serde_json::json!({ "done": 1, "message": "two\nlines \x1b[2J\tand a tab" });
        assert_eq!(line(&Report::of(&data)), "two lines \\u{1b}[2J and a tab: 1");
        let long = serde_json::json!({ "message": "x".repeat(10_000) });
        assert_eq!(line(&Report::of(&long)).len(), REPORT_CHARS_MAX);
    }
}
