//! The files that keep the output of pods after the pods and their host have ended.
//! `<publisher>+<name>.jsonl` has one line of JSON for each printed line; the `.old` file beside it is the
//! previous one, which was full.
//!
//! All hosts of a home append to the same files, each a batch at a time. A lock is taken only to replace a
//! full file; a host that does not get the lock leaves that to the host that has it. A separate thread
//! writes, so that a slow disk delays no pod.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        mpsc::{self, Receiver, SyncSender},
    },
    time::Duration,
};

use crate::{
    disk::{lock, make, open},
    model::{
        limits::{
            LOCK_POLL_MS, LOG_ASIDE_TRIES, LOG_BATCH_LINES_MAX, LOG_CLOSE_MS, LOG_FILE_BYTES_MAX, LOG_FILES_MAX, LOG_FILES_QUEUE_MAX,
        },
        printable::printable_json,
        status::LogLine,
    },
    pod::record::dossier,
};

const ENDING: &str = ".jsonl";
const OLD: &str = ".old.jsonl";
/// The lock held to set a full file aside.
const LOCK: &str = ".lock";

/// The queue of lines to their files.
#[derive(Debug)]
pub(in crate::pod) struct Files {
    folder: PathBuf,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
enum Writer {
    /// No line has come yet.
    Idle,
    Running {
        lines: SyncSender<LogLine>,
        done: Receiver<()>,
    },
    Closed,
}

impl Files {
    pub fn new(folder: PathBuf) -> Files {
        Files { folder, writer: Mutex::new(Writer::Idle) }
    }

    /// Queues a line; returns whether there was room for it. Never waits.
    pub fn put(&self, line: LogLine) -> bool {
        let mut writer = self.writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if matches!(*writer, Writer::Idle) {
            *writer = started(self.folder.clone());
        }
        match &*writer {
            Writer::Running { lines, .. } => lines.try_send(line).is_ok(),
            Writer::Idle | Writer::Closed => false,
        }
    }

    /// Waits for a bounded time until queued lines are written. Blocking.
    pub fn close(&self) {
        let writer = std::mem::replace(&mut *self.writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), Writer::Closed);
        if let Writer::Running { lines, done } = writer {
            drop(lines);
            let _ = done.recv_timeout(Duration::from_millis(LOG_CLOSE_MS));
        }
    }
}

fn started(folder: PathBuf) -> Writer {
    let (lines, taken) = mpsc::sync_channel::<LogLine>(LOG_FILES_QUEUE_MAX);
    let (over, done) = mpsc::sync_channel::<()>(1);
    let write = move || {
        let mut is_told = false;
        while let Ok(first) = taken.recv() {
            let batch = std::iter::once(first).chain(taken.try_iter().take(LOG_BATCH_LINES_MAX - 1));
            if let Err(error) = write(&folder, batch)
                && !std::mem::replace(&mut is_told, true)
            {
                tracing::warn!("what pods print is in no file: {}: {error}", folder.display());
            }
        }
        drop(over);
    };
    match std::thread::Builder::new().name("hob-logs".to_owned()).spawn(write) {
        Ok(_) => Writer::Running { lines, done },
        Err(error) => {
            tracing::warn!("what pods print is in no file: {error}");
            Writer::Closed
        }
    }
}

/// Writes lines of any recipes; the lines of each recipe are written in one piece.
fn write(folder: &Path, lines: impl Iterator<Item = LogLine>) -> io::Result<()> {
    let mut pieces: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for line in lines {
        let piece = pieces.entry(stem(&line.recipe)).or_default();
        // Escaped, because people read these files with `cat`.
        piece.write_all(printable_json(&serde_json::to_string(&line)?).as_bytes())?;
        piece.push(b'\n');
    }
    make::folder(folder, make::PRIVATE_FOLDER)?;
    for (stem, piece) in pieces {
        let path = folder.join(format!("{stem}{ENDING}"));
        let mut file = open::open_to_append(&path)?;
        if file.metadata()?.len() == 0 {
            prune(folder);
        }
        file.write_all(&piece)?;
        if file.metadata()?.len() >= LOG_FILE_BYTES_MAX {
            put_aside(folder, &path, &folder.join(format!("{stem}{OLD}")))?;
        }
    }
    Ok(())
}

/// The file name for a recipe's name. Recipe names have neither `+` nor anything that leaves a folder; any
/// other character becomes `+`.
fn stem(recipe: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '+' };
    recipe.chars().map(safe).take(150).collect()
}

fn put_aside(folder: &Path, path: &Path, old: &Path) -> io::Result<()> {
    // If another host holds the lock, it is about to set the file aside. This host waits, because otherwise
    // its lines would go beyond the bound meanwhile. It does not wait for ever, because the other host may be
    // stopped.
    let mut tries = 0;
    let _alone = loop {
        if let Some(held) = lock::try_exclusive(open::open_to_write(&folder.join(LOCK))?)? {
            break held;
        }
        if tries == LOG_ASIDE_TRIES {
            return Ok(());
        }
        tries += 1;
        std::thread::sleep(Duration::from_millis(LOCK_POLL_MS));
    };
    // Another host may have set the file aside meanwhile, and a new one may not exist yet.
    let done = open::open(path).and_then(|file| match file.metadata()?.len() >= LOG_FILE_BYTES_MAX {
        true => fs::rename(path, old),
        false => Ok(()),
    });
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Deletes the files whose last write is the oldest, beyond [`LOG_FILES_MAX`].
fn prune(folder: &Path) {
    let mut files: Vec<_> = entries(folder).filter_map(|path| Some((fs::symlink_metadata(&path).ok()?.modified().ok()?, path))).collect();
    files.sort_unstable();
    for (_, path) in &files[..files.len().saturating_sub(LOG_FILES_MAX)] {
        let _ = fs::remove_file(path);
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_str().is_some_and(|path| path.ends_with(ENDING)))
}

/// Returns the last `lines` lines about pods in the files of a home, oldest first, those of dead hosts too;
/// of one recipe or of all. Blocking; unreadable files are skipped.
///
/// - `dossiers`: the folder of dossiers, which have the last lines and the ends of pods that crashed.
/// - `but`: pods to leave out.
/// - `most`: bytes to read from the end of each file.
pub fn past(folder: &Path, dossiers: &Path, recipe: Option<&str>, lines: usize, but: &HashSet<&str>, most: u64) -> Vec<LogLine> {
    let is_wanted = |line: &LogLine| recipe.is_none_or(|recipe| line.recipe == recipe) && !but.contains(line.incarnation.as_str());
    let crashes = dossier::list(dossiers);
    let mut all: Vec<LogLine> = crashes.iter().flat_map(|dossier| dossier.lines()).filter(is_wanted).collect();
    // The file of a crashed pod has the same lines as its dossier, except those that were kept back.
    let crashed: HashMap<&str, u64> =
        crashes.iter().map(|one| (one.incarnation.as_str(), one.log.first().map_or(0, |line| line.at_ms))).collect();
    let in_dossier = |line: &LogLine| crashed.get(line.incarnation.as_str()).is_some_and(|first| line.at_ms >= *first);
    let paths: Vec<PathBuf> = match recipe {
        Some(recipe) => [OLD, ENDING].map(|ending| folder.join(format!("{}{ending}", stem(recipe)))).into(),
        None => entries(folder).collect(),
    };
    for path in paths {
        let read = last_lines(&path, most).unwrap_or_default();
        let mut found: Vec<LogLine> = read.into_iter().filter(|line| is_wanted(line) && !in_dossier(line)).collect();
        all.append(&mut found.split_off(found.len().saturating_sub(lines)));
    }
    all.sort_by_key(|line| line.at_ms);
    all.split_off(all.len().saturating_sub(lines))
}

/// The whole lines in the last `most` bytes of a file; a line that a killed host left unfinished is skipped.
fn last_lines(path: &Path, most: u64) -> io::Result<Vec<LogLine>> {
    let mut file: File = open::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(most);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let cut = usize::from(skipped > 0);
    Ok(bytes.split(|byte| *byte == b'\n').skip(cut).filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn line(recipe: &str, at_ms: u64, text: String) -> LogLine {
        LogLine { recipe: recipe.into(), incarnation: "host-a-1".into(), ask: 0, at_ms, text }
    }

    fn read(folder: &Path, recipe: Option<&str>, lines: usize) -> Vec<String> {
        let past = past(folder, &folder.join("dossiers"), recipe, lines, &HashSet::new(), u64::MAX);
        past.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn what_was_put_is_read_back_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state/logs");
        let files = Files::new(folder.clone());
        assert!(files.put(line("a/b", 2, "two\nlines".into())) && files.put(line("a/c", 1, "first".into())));
        files.close();
        assert!(!files.put(line("a/b", 3, "too late".into())));
        assert_eq!(read(&folder, None, 10), ["first", "two\nlines"]);
        assert_eq!((read(&folder, Some("a/c"), 10), read(&folder, None, 1)), (vec!["first".into()], vec!["two\nlines".into()]));
        for (path, mode) in [(folder.clone(), 0o700), (folder.join("a+b.jsonl"), 0o600)] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
    }

    #[test]
    fn files_are_bounded_in_size_and_number_whoever_writes() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // Three hosts write at once, each more than two files hold.
        std::thread::scope(|scope| {
            for host in 0..3 {
                scope.spawn(move || {
                    let each = 3 * LOG_FILE_BYTES_MAX / 1_000;
                    for first in (0..each).step_by(100) {
                        write(folder, (first..first + 100).map(|n| line("a/b", n, format!("{host} {n} {}", "x".repeat(900))))).unwrap();
                    }
                });
            }
        });
        let sizes: Vec<u64> = entries(folder).map(|path| fs::metadata(path).unwrap().len()).collect();
        // The lines that other hosts wrote while one host found the file full.
        let slack = 3 * 100 * 1_100;
        assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= LOG_FILE_BYTES_MAX + slack), "{sizes:?}");
        let kept = read(folder, Some("a/b"), usize::MAX);
        assert!(kept.len() as u64 > LOG_FILE_BYTES_MAX / 1_100 && kept.iter().all(|text| text.ends_with('x')), "{}", kept.len());
        for n in 0..LOG_FILES_MAX + 5 {
            write(folder, std::iter::once(line(&format!("a/r{n}"), 1, "x".into()))).unwrap();
        }
        assert!(entries(folder).count() <= LOG_FILES_MAX + 1, "{}", entries(folder).count());
        assert_eq!(read(folder, Some(&format!("a/r{}", LOG_FILES_MAX + 4)), 9), ["x"]);
    }

    #[test]
    fn what_lies_in_the_place_of_a_file_is_neither_read_nor_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, outside) = (folder.path(), folder.path().join("outside"));
        fs::write(&outside, "mine\n").unwrap();
        symlink(&outside, folder.join("a+b.jsonl")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("a+c.jsonl"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        fs::write(folder.join("a+d.jsonl"), "{\"recipe\": \"a/d\"\n\n[1]\nnonsense\n").unwrap();
        for recipe in ["a/b", "a/c"] {
            assert!(write(folder, std::iter::once(line(recipe, 1, "x".into()))).is_err(), "{recipe}");
        }
        write(folder, std::iter::once(line("../../a/d", 1, "x".into()))).unwrap();
        assert_eq!((read(folder, None, 10), fs::read_to_string(&outside).unwrap()), (vec!["x".to_owned()], "mine\n".to_owned()));
        assert!(!folder.join("../a").exists());
    }
}
