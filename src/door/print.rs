//! The one place that prints.
//!
//! Results go to stdout and nothing else does; progress, notes and faults go to stderr.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{BufRead, IsTerminal, Read, Write},
    sync::Mutex,
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::model::{Fault, Permissions, Progress, Step, limits::ANSWER_BYTES_MAX};

/// Writes one line to stdout. A reader that went away (`hob ... | head`) is no failure.
pub fn result(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// Writes one line to stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", harmless(text));
}

/// Text for people, with what would command their terminal (or turn the writing around) shown instead of obeyed: faults and summaries hold
/// the words of strangers, such as the paths in a bundle that is refused.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let commands =
        |c: char| (c.is_control() && !['\n', '\t'].contains(&c)) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match text.contains(commands) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(text.chars().flat_map(|c| if commands(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()),
    }
}

/// Whether a question would reach somebody who can answer it.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks on stderr; anything but a clear yes is a no.
pub fn ask(question: &str) -> bool {
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "{question} [y/N] ").and_then(|()| out.flush());
    let mut answer = Vec::new();
    let read = std::io::stdin().lock().take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer);
    read.is_ok() && matches!(answer.trim_ascii().to_ascii_lowercase().as_slice(), b"y" | b"yes")
}

/// Writes text to stdout in place of what stood there, where that is a terminal; else as it is, with an empty line after it.
pub fn redrawn(text: &str) {
    let mut out = std::io::stdout().lock();
    let (before, after) = if out.is_terminal() { ("\x1b[H\x1b[2J", "\n") } else { ("", "\n\n") };
    let _ = write!(out, "{before}{text}{after}").and_then(|()| out.flush());
}

/// Whether anybody still reads stdout.
pub fn is_read() -> bool {
    let out = std::io::stdout();
    let mut stdout = [rustix::event::PollFd::new(&out, rustix::event::PollFlags::empty())];
    let polled = rustix::event::poll(&mut stdout, Some(&rustix::event::Timespec::default()));
    polled.is_err() || !stdout[0].revents().intersects(rustix::event::PollFlags::ERR | rustix::event::PollFlags::HUP)
}

/// Where diagnostics (`HOB_LOG`) go.
pub fn diagnostics() -> std::io::Stderr {
    std::io::stderr()
}

/// A fault for people: what, the next step, and what the recipe itself had to say.
pub fn fault(fault: &Fault) {
    let mut text = format!("error[{}]: {}\n", fault.code.name(), fault.message);
    if let Some(hint) = &fault.hint {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    for violation in fault.detail["violations"].as_array().into_iter().flatten().skip(1) {
        text.push_str(&format!(
            "  also at {}: {}\n",
            violation["pointer"].as_str().unwrap_or("/"),
            violation["expected"].as_str().unwrap_or("")
        ));
    }
    let words: Vec<&str> = fault.detail["permissions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (word, means) in Permissions::from_words(words).unwrap_or_default().explained() {
        text.push_str(&format!("  {word}: to {means}\n"));
    }
    for key in ["cause", "traceback", "log"] {
        let lines: Vec<&str> = match &fault.detail[key] {
            Value::String(text) => text.lines().collect(),
            Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
            _ => continue,
        };
        if !lines.is_empty() {
            text.push_str(&format!("  {key}:\n"));
            lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        }
    }
    let _ = std::io::stderr().lock().write_all(harmless(&text).as_bytes());
}

/// Progress on stderr: bars on a terminal, a line per step elsewhere.
pub struct Bars {
    bars: MultiProgress,
    steps: Mutex<HashMap<String, ProgressBar>>,
    terminal: bool,
}

impl Bars {
    pub fn new() -> Bars {
        Bars { bars: MultiProgress::new(), steps: Mutex::default(), terminal: std::io::stderr().is_terminal() }
    }

    fn line(&self, text: &str) {
        if self.terminal {
            let _ = self.bars.println(harmless(text));
        } else {
            note(text);
        }
    }
}

impl Progress for Bars {
    fn step(&self, step: Step) {
        let mut steps = self.steps.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match step {
            Step::Note { text } => self.line(&format!("  {text}")),
            Step::Started { label, total_bytes } => {
                if !self.terminal {
                    return self.line(&format!("  {label}"));
                }
                let bar = match total_bytes {
                    Some(total) => ProgressBar::new(total).with_style(
                        ProgressStyle::with_template("  {msg} {wide_bar} {bytes}/{total_bytes} {eta}").expect("a constant template"),
                    ),
                    None => ProgressBar::new_spinner()
                        .with_style(ProgressStyle::with_template("  {spinner} {msg} {elapsed}").expect("a constant template")),
                };
                let bar = self.bars.add(bar.with_message(label.clone()));
                bar.enable_steady_tick(Duration::from_millis(120));
                steps.insert(label, bar);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_command_a_terminal_is_shown_and_not_obeyed() {
        assert_eq!(
            harmless("`pod/\x1b[2Ja` \u{9b}1m\r\x07 \u{202e}cod.exe\n\tä 語"),
            "`pod/\\u{1b}[2Ja` \\u{9b}1m\\r\\u{7} \\u{202e}cod.exe\n\tä 語"
        );
        assert!(matches!(harmless("two\nlines"), Cow::Borrowed(_)));
    }
}
