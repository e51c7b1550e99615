//! The dossier: the record of a pod that crashed, with how it ended, what it was doing, and its last output.
//!
//! The log in memory ends with the host; a dossier stays for later readers from any host of this home.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    disk::{make, open},
    model::{
        Fault,
        limits::{DOSSIER_ASKS_MAX, DOSSIER_BYTES_MAX, DOSSIER_HALF_MS, DOSSIERS_MAX},
        status::LogLine,
    },
    pod::record::line::Line,
};

/// Prefix of the name of a dossier that is being written.
const HALF: &str = ".half-";

/// One crash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dossier {
    pub incarnation: String,
    pub recipe: String,
    pub version: String,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// The process that did the work; `None` if it never sent hello.
    pub pid: Option<u32>,
    pub ending: Ended,
    /// Peak resident memory of the pod's process, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Processor time of the pod's process, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// From its spawn to its end, in milliseconds.
    pub age_ms: u64,
    /// Asks that it answered.
    pub asks_done: u64,
    /// The asks that it had in hand.
    pub asks: Vec<AskInHand>,
    /// The last lines that the pod printed, oldest first; they include the stacks of a crash.
    pub log: Vec<Line>,
}

impl Dossier {
    /// The last lines, shown like those of a live pod, followed by how the pod ended.
    pub fn lines(&self) -> impl Iterator<Item = LogLine> {
        let last = Line { ask: 0, at_ms: self.at_ms, text: self.ending.line() };
        self.log.iter().cloned().chain([last]).map(|line| line.of(&self.recipe, &self.incarnation))
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Ended {
    Code(i32),
    Signal {
        number: i32,
        /// E.g. `SIGSEGV`.
        name: String,
    },
}

impl Ended {
    /// The text that a log shows after the last printed line.
    pub fn line(&self) -> String {
        match self {
            Ended::Code(code) => format!("[ended with exit code {code}]"),
            Ended::Signal { number, name } => format!("[ended by signal {number} ({name})]"),
        }
    }
}

/// An ask that had no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AskInHand {
    pub operation: String,
    /// Milliseconds since it was sent to the pod.
    pub running_ms: u64,
    /// Whether the pod may have run code for it.
    pub begun: bool,
}

/// Saves a dossier in `folder` (made if missing) and deletes the oldest beyond [`DOSSIERS_MAX`]. Blocking.
///
/// A dossier that is too large loses the first lines of its log. A second one of the same incarnation
/// replaces the first.
///
/// Errors: `io`, `disk_full`.
pub fn save(folder: &Path, dossier: &Dossier) -> Result<PathBuf, Fault> {
    let path = folder.join(name_of(dossier));
    let saved = || -> io::Result<()> {
        make::folder(folder, make::PRIVATE_FOLDER)?;
        let text = text_of(dossier)?;
        // A pod may print private texts: a temporary file is accessible only to its owner, and stays so.
        let mut file = make::temporary(folder, HALF, make::PRIVATE_FILE)?;
        file.write_all(&text)?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    saved().map_err(|error| Fault::io(format!("saving the crash dossier {}", path.display()), &error))?;
    prune(folder, &path, dossier);
    Ok(path)
}

/// All dossiers of `folder`, newest first; unreadable ones are skipped. Blocking.
pub fn list(folder: &Path) -> Vec<Dossier> {
    let newest = names(folder).into_iter().rev().take(DOSSIERS_MAX);
    newest.filter_map(|name| serde_json::from_slice(&open::read(&folder.join(name), DOSSIER_BYTES_MAX as u64).ok()?).ok()).collect()
}

/// The name begins with the time, so that names sort as dossiers do.
fn name_of(dossier: &Dossier) -> String {
    format!("{:015}-{}", dossier.at_ms, tail_of(dossier))
}

fn tail_of(dossier: &Dossier) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    format!("{}.json", dossier.incarnation.chars().map(safe).take(100).collect::<String>())
}

/// The names of all dossiers, oldest first.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with(HALF) && name.ends_with(".json"));
    names.sort_unstable();
    names
}

fn text_of(dossier: &Dossier) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(dossier)?;
    let mut short = dossier.clone();
    if text.len() > DOSSIER_BYTES_MAX {
        short.asks.truncate(DOSSIER_ASKS_MAX);
        text = serde_json::to_vec(&short)?;
    }
    while text.len() > DOSSIER_BYTES_MAX && !short.log.is_empty() {
        short.log.drain(..short.log.len().div_ceil(4));
        text = serde_json::to_vec(&short)?;
    }
    match text.len() > DOSSIER_BYTES_MAX {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {} bytes without its log", text.len()))),
        false => Ok(text),
    }
}

/// Deletes dossiers beyond the bound, an older dossier of the same pod, and unfinished files of killed hosts.
/// Another host may do the same at the same time; a file that is already gone is no error.
fn prune(folder: &Path, saved: &Path, dossier: &Dossier) {
    let mut names = names(folder);
    let of_same_pod = format!("-{}", tail_of(dossier));
    names.retain(|name| {
        let is_older = folder.join(name) != saved && name.ends_with(&of_same_pod) && name.len() == 15 + of_same_pod.len();
        if is_older {
            let _ = fs::remove_file(folder.join(name));
        }
        !is_older
    });
    for name in &names[..names.len().saturating_sub(DOSSIERS_MAX)] {
        let _ = fs::remove_file(folder.join(name));
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_half = entry.file_name().as_encoded_bytes().starts_with(HALF.as_bytes());
        let age = || SystemTime::now().duration_since(entry.metadata().ok()?.modified().ok()?).ok();
        if is_half && age().is_some_and(|age| age > Duration::from_millis(DOSSIER_HALF_MS)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: impl IntoIterator<Item = String>) -> Vec<Line> {
        texts.into_iter().map(|text| Line { ask: 1, at_ms: 1_600_000_000_000, text }).collect()
    }

    fn dossier(number: u64) -> Dossier {
        Dossier {
            incarnation: format!("host-a-{number}"),
            recipe: "test/crashes".into(),
            version: "0.1.0".into(),
            at_ms: 1_700_000_000_000 + number,
            pid: Some(4242),
            ending: Ended::Signal { number: 11, name: "SIGSEGV".into() },
            memory_peak_bytes: Some(1 << 30),
            cpu_ms: None,
            age_ms: 99,
            asks_done: 3,
            asks: vec![AskInHand { operation: "run".into(), running_ms: 12, begun: true }],
            log: lines(["Fatal Python error: Segmentation fault".into(), "  File \"pod/subject.py\", line 3 in run".into()]),
        }
    }

    #[test]
    fn dossiers_come_back_newest_first_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state/dossiers");
        assert_eq!(list(&folder), []);
        let count = DOSSIERS_MAX as u64 + 5;
        // Not in the order of their times: the time of the pod's end counts, not that of the save.
        for number in (0..count).rev().step_by(2).chain((0..count).rev().skip(1).step_by(2)) {
            let path = save(&folder, &dossier(number)).unwrap();
            assert!(path.parent() == Some(&*folder));
        }
        let kept = list(&folder);
        assert_eq!(kept, (5..count).rev().map(dossier).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), DOSSIERS_MAX);
        // One file per pod, whatever its time; a pod with a similar name loses none.
        for incarnation in ["a-7", "host-a-7"] {
            for at_ms in [1, 1_800_000_000_000] {
                save(&folder, &Dossier { at_ms, incarnation: incarnation.into(), ..dossier(7) }).unwrap();
            }
        }
        let kept = list(&folder);
        let of = |incarnation: &str| kept.iter().filter(|dossier| dossier.incarnation == incarnation).count();
        assert_eq!((of("a-7"), of("host-a-7"), of("host-a-8"), kept.len()), (1, 1, 1, DOSSIERS_MAX));
    }

    #[test]
    fn a_dossier_is_bounded_private_and_cannot_leave_its_folder() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("dossiers");
        let long = |count: usize| lines((0..count).map(|n| format!("{n} {}", "\u{1}".repeat(4_096))));
        let asks = vec![AskInHand { operation: "run".into(), running_ms: 1, begun: false }; DOSSIER_ASKS_MAX * 2];
        let large = Dossier { incarnation: "../../etc/x\0".into(), log: long(100), asks, ..dossier(1) };
        let path = save(&folder, &large).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::metadata(&path).unwrap().len() <= DOSSIER_BYTES_MAX as u64);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "{}", path.display());
        let kept = &list(&folder)[0];
        assert!(kept.log.len() > 5 && kept.log.last() == large.log.last() && kept.asks.len() == DOSSIER_ASKS_MAX, "{}", kept.log.len());
        let hopeless = Dossier { recipe: "x".repeat(DOSSIER_BYTES_MAX), ..dossier(2) };
        assert!(save(&folder, &hopeless).unwrap_err().message.contains("without its log"));
        assert_eq!(list(&folder).len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_skipped_and_half_files_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        save(folder, &dossier(1)).unwrap();
        fs::write(folder.join("999999999999999-x.json"), "{\"incarnation\":").unwrap();
        fs::create_dir(folder.join("999999999999999-y.json")).unwrap();
        for (name, age) in [("old", Duration::from_millis(2 * DOSSIER_HALF_MS)), ("new", Duration::ZERO)] {
            let half = fs::File::create(folder.join(format!("{HALF}{name}"))).unwrap();
            half.set_modified(SystemTime::now() - age).unwrap();
        }
        assert_eq!(list(folder), [dossier(1)]);
        save(folder, &dossier(2)).unwrap();
        assert_eq!(list(folder), [dossier(2), dossier(1)]);
        assert!(!folder.join(".half-old").exists() && folder.join(".half-new").exists());
    }

    #[test]
    fn an_ending_is_one_word_and_its_number() {
        let json = |ending: Ended| serde_json::to_string(&ending).unwrap();
        let shown: Vec<_> = dossier(1).lines().map(|line| (line.incarnation, line.at_ms, line.text)).collect();
        assert_eq!(shown.len(), 3);
        assert_eq!(shown[2], ("host-a-1".into(), 1_700_000_000_001, "[ended by signal 11 (SIGSEGV)]".into()));
        assert_eq!(json(Ended::Code(3)), r#"{"code":3}"#);
        assert_eq!(json(Ended::Signal { number: 9, name: "SIGKILL".into() }), r#"{"signal":{"number":9,"name":"SIGKILL"}}"#);
    }
}
