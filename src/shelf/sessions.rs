//! The record of sessions on disk: their identities, how often they were called, and the last checkpoints of
//! their state.
//!
//! Nothing here is signed, unlike recipes: it is what pods said of themselves. Each session has one folder;
//! the process that holds the lock in it has the session, and a killed host holds none. The folder's name is
//! a digest of the session's identity. So if its record is damaged, a call by that name still finds the
//! folder, and reports that the session is lost instead of silently starting a new one.
//!
//! ```text
//! sessions/<digest>/session.json      its identity and its checkpoints; replaced in one step
//!                   identity.json     its identity; written once, for people to read when the record is damaged
//!                   lock              held while a host has the session
//!                   calls             number of calls that ended well, time of the last one; written in place, not synced
//!                   unkept            why its state was asked for and did not come, the last time that its pod ended
//!                   <n>.checkpoint    bytes; counts only if session.json names it with its digest
//! ```

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{
    disk::{lock, look, make, open},
    model::{
        Code, Digest, Fault, Hint, Home, act, hint,
        limits::{CHECKPOINT_BYTES_MAX, CHECKPOINTS_KEPT, FAULT_MESSAGE_BYTES_MAX, SESSION_FILE_BYTES_MAX, SESSIONS_MAX},
        status::session::{CheckpointStatus, Mode, SessionSpec},
    },
    shelf::{
        durable,
        files::{
            self,
            locks::{self, Held},
        },
    },
};

const FILE: &str = "session.json";
const IDENTITY: &str = "identity.json";
/// Prefix of the name of a folder that is being made.
const NEW: &str = ".new-";
const LOCK: &str = "lock";
const CALLS: &str = "calls";
/// The file that says why nothing was kept, for the next process that opens the session.
const UNKEPT: &str = "unkept";

/// The identity of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `publisher/name`.
    pub recipe: String,
    /// The folder of an unsigned recipe, which differs from any signed recipe, whatever name its manifest
    /// says.
    pub folder: Option<PathBuf>,
    pub name: String,
}

impl Identity {
    /// The name of its folder: it identifies the session even if the record is damaged.
    fn folder_name(&self) -> String {
        let mut hasher = Sha256::new();
        let folder = self.folder.as_ref().map(|folder| folder.as_os_str().as_encoded_bytes());
        // Each part is preceded by its length, so that no two identities run together into the same bytes.
        for part in [self.recipe.as_bytes(), folder.unwrap_or_default(), self.name.as_bytes()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update([u8::from(folder.is_some())]);
        Digest::finish(hasher).hex()
    }
}

/// `session.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    #[serde(flatten)]
    pub identity: Identity,
    /// Version of the recipe when a host last had the session.
    pub version: Version,
    pub mode: Mode,
    pub ttl_ms: u64,
    /// Milliseconds since 1970.
    pub made_ms: u64,
    pub next: u64,
    /// Oldest first.
    pub checkpoints: Vec<Kept>,
}

/// One checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    #[serde(flatten)]
    pub status: CheckpointStatus,
    /// Version of the recipe that gave it.
    pub version: Version,
    pub sha256: Digest,
    /// Whether it is JSON; otherwise it is plain bytes.
    pub json: bool,
}

/// A session as found on disk.
#[derive(Debug, Clone)]
pub struct Found {
    pub record: Record,
    pub calls: u64,
    /// Its last call or touch, in milliseconds since 1970.
    pub used_ms: u64,
    /// Whether a host has it.
    pub live: bool,
    folder: PathBuf,
}

/// A session that this process holds exclusively.
#[derive(Debug)]
pub struct Session {
    folder: PathBuf,
    record: Record,
    calls: u64,
    counter: File,
    half: Option<Half>,
    _lock: Held,
}

/// A checkpoint that is being received.
#[derive(Debug)]
struct Half {
    file: NamedTempFile,
    hasher: Sha256,
    bytes: u64,
}

/// The state that a pod starts with.
#[derive(Debug)]
pub struct Restore {
    pub file: File,
    pub kept: Kept,
    /// Numbers of newer checkpoints that are damaged.
    pub damaged: Vec<u64>,
}

/// The result of receiving a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    More,
    Kept(u64),
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The lock under which sessions are searched, made and deleted; held only for moments.
pub fn lock_path(home: &Home) -> PathBuf {
    home.locks().join("sessions")
}

/// The sessions of a home whose records are whole, oldest first; [`damaged`] returns those that are not.
#[derive(Debug)]
pub struct All {
    pub found: Vec<Found>,
    /// Why a session is in neither list: the system did not read its record.
    unread: Option<Fault>,
}

impl All {
    /// The sessions, if every record was read. Also to be called before a session is said to be missing.
    ///
    /// Errors: `io` of a record that was not read.
    pub fn whole(self) -> Result<Vec<Found>, Fault> {
        self.unread.map_or(Ok(self.found), Err)
    }
}

/// All sessions of a home. Blocking.
///
/// Errors: `io` if the folder of sessions cannot be read.
pub fn all(home: &Home) -> Result<All, Fault> {
    let mut all = All { found: Vec::new(), unread: None };
    for folder in folders(home)? {
        match read(folder) {
            Ok(found) => all.found.push(found),
            Err(fault) if is_of_the_record(&fault) => {}
            Err(fault) => all.unread = all.unread.or(Some(fault)),
        }
    }
    all.found.sort_by_key(|found| found.record.made_ms);
    Ok(all)
}

/// Whether a fault of reading a record tells that the record is damaged, and not that it was not read.
fn is_of_the_record(fault: &Fault) -> bool {
    matches!(fault.code, Code::StateUnreadable | Code::TooLarge)
}

/// The sessions of a home whose records are damaged although they had calls or checkpoints. A session that
/// the system did not read is left out; [`all`] reports it. Blocking.
///
/// Errors: `io` if the folder of sessions cannot be read.
pub fn damaged(home: &Home) -> Result<Vec<Damaged>, Fault> {
    Ok(folders(home)?.into_iter().filter_map(|folder| Damaged::at(folder, None).ok()?).collect())
}

/// The session of this identity, if its record is damaged and it had calls or checkpoints. Blocking.
///
/// Errors: `io` if it cannot be read.
pub fn damaged_of(home: &Home, identity: &Identity) -> Result<Option<Damaged>, Fault> {
    Damaged::at(home.sessions().join(identity.folder_name()), Some(identity))
}

fn folders(home: &Home) -> Result<Vec<PathBuf>, Fault> {
    let mut folders = look::entries(&home.sessions())?;
    folders.retain(|path| path.is_dir() && !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(NEW.as_bytes())));
    Ok(folders)
}

/// A session whose record cannot be read. It is lost, and its name is not reused until the session is closed.
#[derive(Debug, Clone)]
pub struct Damaged {
    /// `None` if the file with the identity is damaged as well.
    pub identity: Option<Identity>,
    pub calls: u64,
    /// Its last call or touch, in milliseconds since 1970.
    pub used_ms: u64,
    /// Whether a host holds it; that host will rewrite its record.
    live: bool,
    checkpoints: usize,
    why: String,
    folder: PathBuf,
}

impl Damaged {
    fn at(folder: PathBuf, identity: Option<&Identity>) -> Result<Option<Damaged>, Fault> {
        Ok(Damaged::any_at(folder, identity)?.filter(|damaged| damaged.calls > 0 || damaged.checkpoints > 0))
    }

    fn any_at(folder: PathBuf, identity: Option<&Identity>) -> Result<Option<Damaged>, Fault> {
        if !look::is_folder(&folder)? {
            return Ok(None);
        }
        let why = match record(&folder) {
            Ok(_) => return Ok(None),
            Err(fault) if is_of_the_record(&fault) => fault.message,
            Err(fault) => return Err(fault),
        };
        let (calls, used_ms) = counted(&folder)?;
        let checkpoints =
            look::entries(&folder)?.iter().filter(|path| path.as_os_str().as_encoded_bytes().ends_with(b".checkpoint")).count();
        let identity = identity.cloned().or_else(|| {
            let text = durable::read(&folder.join(IDENTITY), SESSION_FILE_BYTES_MAX).ok()??;
            let identity: Identity = serde_json::from_slice(&text).ok()?;
            is_of(&folder, &identity).then_some(identity)
        });
        let live = is_held(&folder);
        Ok(Some(Damaged { identity, calls, used_ms, live, checkpoints, why, folder }))
    }

    /// The folder's own name.
    pub fn folder_name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// `session_lost`, with what is left and what to do; `session_busy` while a host holds it.
    pub fn fault(&self) -> Fault {
        if self.live {
            return Fault::new(
                Code::SessionBusy,
                format!("another host has the session in {}, whose record is damaged", self.folder.display()),
            )
            .hint(hint!["call it through that host (", act::serve(), "), or when that one has ended"]);
        }
        let hint = match &self.identity {
            Some(identity) => Hint::of(vec![closing(identity)]),
            None => format!("deleting the folder {}", self.folder.display()).into(),
        };
        let fault = Fault::new(Code::SessionLost, format!("the record of a session is damaged: {}", self.why));
        fault
            .hint(
                Hint::from("put the file back if there is a copy; else ")
                    .and("", hint)
                    .and(" lets go of it, and the next call opens it anew", "".into()),
            )
            .with("calls", self.calls)
            .with("checkpoints", self.checkpoints)
            .with("folder", self.folder.display().to_string())
    }

    /// Deletes it, with its checkpoints. The caller must hold [`lock_path`]'s lock.
    ///
    /// Errors: `session_busy`, `io`.
    pub fn delete(self) -> Result<(), Fault> {
        let _lock = locks::try_acquire(&self.folder.join(LOCK))?
            .ok_or_else(|| Fault::new(Code::SessionBusy, format!("another host has the session in {}", self.folder.display())))?;
        files::remove_tree(&self.folder)
    }
}

fn read(folder: PathBuf) -> Result<Found, Fault> {
    let record = record(&folder)?;
    let (calls, used_ms) = counted(&folder)?;
    let used_ms = used_ms.max(record.made_ms);
    // Checked through a separate descriptor, which holds the lock only as long as it takes to see that no
    // other process does.
    let live = is_held(&folder);
    Ok(Found { record, calls, used_ms, live, folder })
}

fn is_held(folder: &Path) -> bool {
    open::open(&folder.join(LOCK)).is_ok_and(|file| matches!(lock::try_shared(file), Ok(None)))
}

fn record(folder: &Path) -> Result<Record, Fault> {
    let path = folder.join(FILE);
    let unreadable = |why: &str| {
        Fault::new(Code::StateUnreadable, format!("{} {why}", path.display()))
            .hint(format!("delete the folder {} if the session is not wanted", folder.display()))
    };
    let bytes = durable::read(&path, SESSION_FILE_BYTES_MAX)?.ok_or_else(|| unreadable("is missing"))?;
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| unreadable(&format!("is not a session's: {error}")))?;
    match is_of(folder, &record.identity) {
        true => Ok(record),
        false => Err(unreadable(&format!("is that of another session, `{}` of `{}`", record.identity.name, record.identity.recipe))),
    }
}

/// Whether the folder belongs to this session. Older versions of Hob gave folders random names, which say
/// nothing.
fn is_of(folder: &Path, identity: &Identity) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.len() != 64 || name == identity.folder_name()
}

/// Calls that ended well, and the last use in milliseconds since 1970; zeros if nothing was counted.
///
/// Errors: `io` if the file cannot be read.
fn counted(folder: &Path) -> Result<(u64, u64), Fault> {
    let text = match durable::read(&folder.join(CALLS), 64) {
        Err(fault) if fault.code != Code::TooLarge => return Err(fault),
        text => text.ok().flatten().unwrap_or_default(),
    };
    let text = String::from_utf8_lossy(&text);
    let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or(0));
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
}

impl Found {
    /// Whether its lifetime is over.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.used_ms) >= self.record.ttl_ms
    }

    /// Takes the session, unless another process holds it. The caller must hold [`lock_path`]'s lock.
    ///
    /// Errors: `session_busy`, `io`.
    pub fn take(self) -> Result<Session, Fault> {
        let lock = locks::try_acquire(&self.folder.join(LOCK))?.ok_or_else(|| {
            let Identity { recipe, name, .. } = &self.record.identity;
            Fault::new(Code::SessionBusy, format!("another host has the session `{name}` of `{recipe}`")).hint(hint![
                "call it through that host (",
                act::serve(),
                "), or when that one has ended"
            ])
        })?;
        // The session may have been called since it was found.
        let record = record(&self.folder)?;
        Session::at(self.folder, record, lock)
    }
}

/// The next step for a session of which nothing was kept although its state was asked for.
pub fn not_kept(why: &str) -> Hint {
    format!("the next call opens it anew; its state was asked for, and did not come: {why}").into()
}

/// The command that closes a session.
fn closing(identity: &Identity) -> hint::Part {
    match &identity.folder {
        None => act::close_session(&identity.recipe, &identity.name),
        Some(folder) => act::close_folder_session(folder.display(), &identity.name),
    }
}

impl Session {
    /// Makes a new session. The caller must hold [`lock_path`]'s lock. `others`: the existing sessions.
    ///
    /// Errors: `sessions_full`, `io`, `disk_full`.
    pub fn make(home: &Home, identity: Identity, version: Version, spec: &SessionSpec, others: &[Found]) -> Result<Session, Fault> {
        let same = |found: &&Found| found.record.identity.recipe == identity.recipe && found.record.identity.folder == identity.folder;
        let of_recipe = others.iter().filter(same).count();
        let full = |text: String| {
            Fault::new(Code::SessionsFull, text).hint(hint![
                act::sessions(),
                " lists them, ",
                act::close_session("RECIPE", "NAME"),
                " closes one"
            ])
        };
        if of_recipe >= spec.max {
            return Err(full(format!("`{}` has {of_recipe} sessions, the most that it may", identity.recipe)));
        }
        if others.len() >= SESSIONS_MAX {
            return Err(full(format!("there are {} sessions, the most that are kept", others.len())));
        }
        let above = home.sessions();
        let failed = |error: io::Error| Fault::io(format!("making a session in {}", above.display()), &error);
        durable::make_private_folder(&above)?;
        let place = above.join(identity.folder_name());
        // Folders that killed hosts left half made: nobody else makes any now.
        for entry in fs::read_dir(&above).map_err(failed)?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(NEW.as_bytes()) {
                files::remove_tree(&entry.path())?;
            }
        }
        // A damaged session with a call or a checkpoint was reported as such before; this one had neither.
        if let Some(damaged) = Damaged::any_at(place.clone(), Some(&identity))? {
            damaged.delete()?;
        }
        let folder = make::temporary_folder(&above, NEW, 12).map_err(failed)?;
        let lock = locks::try_acquire(&folder.path().join(LOCK))?
            .ok_or_else(|| Fault::new(Code::Internal, "a session that was just made is held already"))?;
        let made_ms = now_ms();
        let record = Record { identity, version, mode: spec.mode, ttl_ms: spec.ttl_ms, made_ms, next: 1, checkpoints: Vec::new() };
        let identity =
            serde_json::to_vec(&record.identity).map_err(|error| Fault::new(Code::Internal, format!("a session's name: {error}")))?;
        durable::create(&folder.path().join(IDENTITY), &identity, make::PRIVATE_FILE)?;
        let mut session = Session::at(folder.path().to_owned(), record, lock)?;
        session.save()?;
        fs::rename(folder.path(), &place).and_then(|()| durable::sync_folder(&above)).map_err(failed)?;
        // From here on the session exists.
        let _ = folder.keep();
        session.folder = place;
        Ok(session)
    }

    fn at(folder: PathBuf, record: Record, lock: Held) -> Result<Session, Fault> {
        let path = folder.join(CALLS);
        let counter = open::open_to_write(&path).map_err(|error| Fault::io(format!("opening {}", path.display()), &error))?;
        let calls = counted(&folder)?.0;
        let session = Session { folder, record, calls, counter, half: None, _lock: lock };
        session.sweep();
        Ok(session)
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Calls that ended well.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Takes over the current declarations of the manifest.
    pub fn declare(&mut self, version: &Version, spec: &SessionSpec) -> Result<(), Fault> {
        let Record { version: before, mode, ttl_ms, .. } = &mut self.record;
        if (&*before, *mode, *ttl_ms) == (version, spec.mode, spec.ttl_ms) {
            return Ok(());
        }
        (*before, *mode, *ttl_ms) = (version.clone(), spec.mode, spec.ttl_ms);
        self.save()
    }

    /// Records a touch of the session or, with `done`, a call that ended well.
    pub fn used(&mut self, done: bool) -> io::Result<()> {
        self.calls += u64::from(done);
        self.counter.write_all_at(format!("{:020} {:020}\n", self.calls, now_ms()).as_bytes(), 0)
    }

    /// The newest intact checkpoint that `version` can read; `None` if there never was a checkpoint.
    ///
    /// Errors: `session_lost`, which says what is left; `io` if a checkpoint cannot be read: it may be
    /// intact.
    pub fn restore(&self, version: &Version) -> Result<Option<Restore>, Fault> {
        let Identity { recipe, name, .. } = &self.record.identity;
        if self.record.checkpoints.is_empty() {
            return match self.calls {
                0 => Ok(None),
                calls => Err(Fault::new(
                    Code::SessionLost,
                    format!(
                        "the session `{name}` of `{recipe}` had {calls} call{} and no checkpoint, and its pod is gone",
                        if calls == 1 { "" } else { "s" }
                    ),
                )
                .hint(match self.unkept() {
                    Some(why) => not_kept(&why),
                    None => hint![
                        "the next call opens it anew; the state of a class with `checkpoint` is kept after its first ask and then after each ",
                        act::checkpoint_interval(),
                        " (0: only when asked), and where it calls `hob_pod.checkpoint(force=True)`"
                    ],
                })
                .with("calls", calls)
                .with("checkpoints", 0)),
            };
        }
        let mut damaged = Vec::new();
        for kept in self.record.checkpoints.iter().rev() {
            if !VersionReq::parse(&format!("^{}", kept.version)).is_ok_and(|range| range.matches(version)) {
                let given = &kept.version;
                let text = format!("the session `{name}` was kept by {recipe} {given}, and {version} is not a compatible version of it");
                return Err(Fault::new(Code::SessionLost, text)
                    .hint(hint!["install a compatible version to go on; ", closing(&self.record.identity), " lets it begin anew"])
                    .with("calls", self.calls)
                    .with("checkpoint", serde_json::json!(kept.status))
                    .with("checkpoint_version", given.to_string()));
            }
            match self.open(kept)? {
                Ok(file) => return Ok(Some(Restore { file, kept: kept.clone(), damaged })),
                Err(why) => {
                    tracing::warn!("checkpoint {} of the session `{name}` of `{recipe}` is damaged: {why}", kept.status.number);
                    damaged.push(kept.status.number);
                }
            }
        }
        Err(Fault::new(Code::SessionLost, format!("every checkpoint of the session `{name}` of `{recipe}` is damaged"))
            .hint(hint![closing(&self.record.identity), " lets go of it; the next call opens it anew"])
            .with("calls", self.calls)
            .with("damaged", damaged))
    }

    /// Records why nothing was kept, for the next process that opens the session.
    pub fn remember_unkept(&self, why: &str) -> Result<(), Fault> {
        durable::replace_with(&self.folder.join(UNKEPT), why.as_bytes(), make::PRIVATE_FILE)
    }

    fn unkept(&self) -> Option<String> {
        let why = durable::read(&self.folder.join(UNKEPT), FAULT_MESSAGE_BYTES_MAX as u64).ok()??;
        Some(String::from_utf8_lossy(&why).into_owned())
    }

    /// Opens a checkpoint and compares its bytes with their digest. The inner error says what is damaged, for
    /// people.
    ///
    /// Errors: `io` if it cannot be read.
    fn open(&self, kept: &Kept) -> Result<Result<File, String>, Fault> {
        let compared = || -> io::Result<Option<File>> {
            let mut file = open::open_of(&self.path(kept.status.number), kept.status.bytes)?;
            let (found, _) = files::digest_of(&mut file)?;
            // The same file that was compared.
            file.rewind()?;
            Ok((found == kept.sha256).then_some(file))
        };
        match compared() {
            Ok(Some(file)) => Ok(Ok(file)),
            Ok(None) => Ok(Err(format!("its {} bytes are not what was kept", kept.status.bytes))),
            Err(error) if look::is_about_the_file(&error) => Ok(Err(error.to_string())),
            Err(error) => Err(Fault::io(format!("reading {}", self.path(kept.status.number).display()), &error)),
        }
    }

    /// Writes one piece of a checkpoint to the disk; the `last` piece makes the checkpoint permanent.
    /// Blocking.
    ///
    /// Errors: `too_large`, `disk_full`, `io`; the pieces received so far are then discarded.
    pub fn piece(&mut self, bytes: &Bytes, last: bool, json: bool) -> Result<Piece, Fault> {
        let taken = self.take_piece(bytes, last, json);
        if taken.is_err() {
            self.half = None;
        }
        taken
    }

    fn take_piece(&mut self, bytes: &Bytes, last: bool, json: bool) -> Result<Piece, Fault> {
        let failed = |error: io::Error| Fault::io("keeping a checkpoint", &error);
        let half = match &mut self.half {
            Some(half) => half,
            None => {
                let file = make::temporary(&self.folder, ".half-", make::PRIVATE_FILE).map_err(failed)?;
                self.half.insert(Half { file, hasher: Sha256::new(), bytes: 0 })
            }
        };
        half.bytes += bytes.len() as u64;
        if half.bytes > CHECKPOINT_BYTES_MAX {
            let text = format!("a checkpoint of more than {CHECKPOINT_BYTES_MAX} bytes, which is the most that is kept");
            return Err(Fault::new(Code::TooLarge, text).hint("keep less: what can be computed again need not be in it"));
        }
        half.file.write_all(bytes).map_err(failed)?;
        half.hasher.update(bytes);
        if !last {
            return Ok(Piece::More);
        }
        let Some(half) = self.half.take() else { return Err(Fault::new(Code::Internal, "a checkpoint without a piece")) };
        half.file.as_file().sync_all().map_err(failed)?;
        let number = self.record.next;
        half.file.persist(self.path(number)).map_err(|error| failed(error.error))?;
        let before = self.record.clone();
        let status = CheckpointStatus { number, bytes: half.bytes, at_ms: now_ms(), calls: self.calls };
        let kept = Kept { status, version: self.record.version.clone(), sha256: Digest::finish(half.hasher), json };
        self.record.checkpoints.push(kept);
        let surplus = self.record.checkpoints.len().saturating_sub(CHECKPOINTS_KEPT);
        self.record.checkpoints.drain(..surplus);
        self.record.next += 1;
        // Its rename becomes durable with that of the record, which is later in the same folder.
        if let Err(fault) = self.save() {
            self.record = before;
            return Err(fault);
        }
        self.sweep();
        Ok(Piece::Kept(number))
    }

    /// Discards a checkpoint that has not arrived completely.
    pub fn forget_half(&mut self) {
        self.half = None;
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.checkpoint"))
    }

    fn save(&self) -> Result<(), Fault> {
        let text = serde_json::to_vec(&self.record).map_err(|error| Fault::new(Code::Internal, format!("a session's record: {error}")))?;
        durable::replace_with(&self.folder.join(FILE), &text, make::PRIVATE_FILE)
    }

    /// Deletes checkpoints that no record names, and unfinished ones of killed hosts.
    fn sweep(&self) {
        let named = |name: &str| self.record.checkpoints.iter().any(|kept| name == format!("{}.checkpoint", kept.status.number));
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(".half-") || (name.ends_with(".checkpoint") && !named(&name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Deletes it, with its checkpoints. The caller must hold [`lock_path`]'s lock.
    pub fn delete(self) -> Result<(), Fault> {
        files::remove_tree(&self.folder)
    }
}

#[cfg(test)]
mod tests;
