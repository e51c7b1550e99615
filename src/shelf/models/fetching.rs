//! Fetches a model from the place that its recipe names, over as many tries, hours and processes as it takes.
//!
//! The bytes received so far lie in `downloads/` under the wanted digest; the holder of the model's lock owns
//! the file. Its length says how much has arrived, so the process may be killed at any instant. The bytes are
//! not trusted: before publishing, the whole file is read again and compared.

use crate::disk::look;
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    disk::open,
    model::{Code, Digest, Fault, Home, Manifest, ModelSource, Step, hint, limits, manifest::spec::ModelSpec, progress},
    shelf::{
        blocking, durable, files,
        models::{
            self, Claim, FetchRight,
            origin::{self, Answer, Body, Failure, Wanted, unreachable},
            sources::{Place, Sources},
        },
        repository::transport::longest,
    },
};

/// Brings a model from `source` onto the shelf, unless it is there; returns its path. `what` names it for
/// people.
///
/// Dropping the future keeps the bytes received so far. Errors: `model_unreachable`, `model_forbidden`,
/// `model_missing`, `tampered`, `disk_full`, `io`, `invalid_config`; `overloaded` if another process fetched
/// the same model for an hour.
pub async fn bring(
    home: &Home,
    model: &ModelSpec,
    source: &ModelSource,
    what: &str,
    sources: &Sources,
    progress: &progress::Shared,
) -> Result<PathBuf, Fault> {
    let right = match models::claim(home, model.sha256, model.bytes, progress).await? {
        Claim::Present(path) => return Ok(path),
        Claim::Missing(right) => right,
    };
    let what = format!("{what} from {source}");
    let place = sources.place(source)?;
    sweep(home, model.sha256);
    let mut fetch = Fetch::begin(home, model, source, &place, &what, progress)?;
    let label = format!("fetching {what}");
    progress.step(Step::Started { label: label.clone(), total_bytes: Some(model.bytes) });
    let end = Instant::now() + Duration::from_millis(limits::MODEL_FETCH_SLACK_MS) + longest(model.bytes);
    let fetched = match timeout_at(end, fetch.all(&label)).await {
        Ok(fetched) => fetched,
        Err(_) => {
            let why = format!("its {} bytes are not here after {} s: it comes too slowly", model.bytes, longest(model.bytes).as_secs());
            Err(unreachable(&what, &place.url, &why))
        }
    };
    progress.step(Step::Finished { label });
    if let Err(fault) = fetched {
        fetch.leave();
        return Err(fault);
    }
    fetch.publish(right).await
}

/// Brings the models of a recipe folder that name a source onto the shelf; returns how many it handled. A
/// model in the folder itself is its author's matter. With `thorough`, a model that is already on the shelf
/// is read and compared; otherwise its correct length suffices.
///
/// Errors: those of [`bring`].
pub async fn bring_all(
    home: &Home,
    folder: &Path,
    manifest: &Manifest,
    thorough: bool,
    sources: &Sources,
    progress: &progress::Shared,
) -> Result<usize, Fault> {
    let mut fetched = 0;
    for model in &manifest.models {
        let Some(source) = &model.from else { continue };
        let is_there = |path: PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.len() == model.bytes);
        if look::is_there(&folder.join("models").join(&model.name))? || (!thorough && is_there(models::place(home, model.sha256))) {
            continue;
        }
        let what = format!("model `{}` of {} {}", model.name, manifest.name, manifest.version);
        bring(home, model, source, &what, sources, progress).await?;
        fetched += 1;
    }
    Ok(fetched)
}

/// The file that receives the bytes, with its state.
struct Partial {
    path: PathBuf,
    file: File,
    /// How many bytes of the model it holds: its length, except after a write that failed halfway.
    have: u64,
    /// Whether its bytes came in one answer; otherwise its parts may not belong together.
    whole: bool,
}

/// The file beside it: the name by which its server identifies this state of the model.
#[derive(Serialize, Deserialize)]
struct Note {
    from: String,
    mark: String,
}

struct Fetch<'a> {
    model: &'a ModelSpec,
    source: String,
    place: &'a Place,
    what: &'a str,
    progress: &'a progress::Shared,
    partial: Partial,
    mark: Option<String>,
}

fn part(home: &Home, digest: Digest) -> PathBuf {
    home.downloads().join(format!("{}.part", digest.hex()))
}

fn note_of(part: &Path) -> PathBuf {
    part.with_extension("json")
}

impl<'a> Fetch<'a> {
    fn begin(
        home: &Home,
        model: &'a ModelSpec,
        source: &ModelSource,
        place: &'a Place,
        what: &'a str,
        progress: &'a progress::Shared,
    ) -> Result<Fetch<'a>, Fault> {
        durable::make_folder(&home.downloads())?;
        let (path, source) = (part(home, model.sha256), source.exact());
        let failed = |error: &io::Error| Fault::io(format!("opening {}", path.display()), error);
        // The file is read-only if it was complete and publishing it failed.
        if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|error| failed(&error))?;
        }
        let file = open::open_to_append(&path).map_err(|error| failed(&error))?;
        let have = file.metadata().map_err(|error| failed(&error))?.len();
        let note = durable::read(&note_of(&path), limits::MODEL_NOTE_BYTES_MAX).ok().flatten();
        // The mark of one server has no meaning to another.
        let note = note.and_then(|note| serde_json::from_slice::<Note>(&note).ok()).filter(|note| note.from == source);
        let partial = Partial { path, file, have, whole: have == 0 };
        let mark = note.map(|note| note.mark).filter(|_| have > 0);
        let mut fetch = Fetch { model, source, place, what, progress, partial, mark };
        if have > model.bytes {
            fetch.start_over()?;
        }
        Ok(fetch)
    }

    fn note(&self, text: String) {
        self.progress.step(Step::Note { text });
    }

    /// Discards the bytes received so far.
    fn start_over(&mut self) -> Result<(), Fault> {
        let path = &self.partial.path;
        self.partial.file.set_len(0).map_err(|error| Fault::io(format!("emptying {}", path.display()), &error))?;
        files::remove_tree(&note_of(path))?;
        (self.partial.have, self.partial.whole, self.mark) = (0, true, None);
        Ok(())
    }

    /// Fetches until the file is complete and correct.
    async fn all(&mut self, label: &str) -> Result<(), Fault> {
        loop {
            self.until_complete(label).await?;
            let Some(why) = self.compare().await? else { return Ok(()) };
            let whole = self.partial.whole;
            self.start_over()?;
            if whole {
                return Err(origin::other(self.what, &self.place.url, None, &why));
            }
            // It is unknown which of several answers spoilt the file, or whether a power cut did: the next
            // try takes one answer alone.
            self.note(format!("the parts of {} do not belong together: starting again from its first byte", self.what));
        }
    }

    /// Fetches until the file has the wanted length.
    async fn until_complete(&mut self, label: &str) -> Result<(), Fault> {
        let (mut tries, mut farthest) = (0, self.partial.have);
        self.progress.step(Step::Advanced { label: label.to_owned(), done_bytes: self.partial.have });
        if self.partial.have > 0 && self.partial.have < self.model.bytes {
            self.note(format!("{} of {} bytes are here already: going on from there", self.partial.have, self.model.bytes));
        }
        while self.partial.have < self.model.bytes {
            self.has_room()?;
            let (why, wait) = match self.once(label).await {
                Ok(()) => continue,
                Err(Failure::Final(fault)) => return Err(fault),
                Err(Failure::Passing { why, wait }) => (why, wait),
            };
            tries += 1;
            if self.partial.have >= farthest + limits::MODEL_ADVANCE_BYTES {
                (tries, farthest) = (1, self.partial.have);
            }
            if tries >= limits::MODEL_TRIES_MAX {
                return Err(unreachable(self.what, &self.place.url, &format!("{why}; {tries} tries in a row brought it no further"))
                    .with("have_bytes", self.partial.have)
                    .with("wanted_bytes", self.model.bytes));
            }
            let least = Duration::from_millis(limits::MODEL_RETRY_MIN_MS << (tries - 1).min(16));
            let pause = wait.unwrap_or(least).clamp(least.min(MOST), MOST);
            self.note(format!("{why}; trying again in {} ms", pause.as_millis()));
            sleep(pause).await;
        }
        Ok(())
    }

    /// Makes one request and takes as many bytes as it brings.
    async fn once(&mut self, label: &str) -> Result<(), Failure> {
        let mark = self.mark.clone();
        let wanted = Wanted { bytes: self.model.bytes, have: self.partial.have, mark: mark.as_deref(), what: self.what };
        let body = match origin::ask(self.place, &wanted).await? {
            Answer::Rest(body) => {
                self.partial.whole = false;
                body
            }
            Answer::Whole(body) => {
                if self.partial.have > 0 {
                    let have = self.partial.have;
                    self.note(format!("the server does not go on from byte {have}, or has another file than before: starting again"));
                }
                self.begin_whole(&body).map_err(Failure::Final)?;
                body
            }
            Answer::Other(why) => {
                self.start_over().map_err(Failure::Final)?;
                return Err(Failure::passing(format!("{why}: starting again")));
            }
        };
        self.take(body, label).await
    }

    fn begin_whole(&mut self, body: &Body) -> Result<(), Fault> {
        self.start_over()?;
        // Discarding the bytes may have made room, or the whole may not fit where the rest alone did.
        self.has_room()?;
        if let Some(mark) = &body.mark {
            let note = Note { from: self.source.clone(), mark: mark.clone() };
            let note = serde_json::to_vec(&note).map_err(|error| Fault::new(Code::Internal, format!("a note: {error}")))?;
            files::replace(&note_of(&self.partial.path), &note).map_err(|fault| self.full(fault))?;
            self.mark = Some(mark.clone());
        }
        Ok(())
    }

    async fn take(&mut self, mut body: Body, label: &str) -> Result<(), Failure> {
        while let Some(chunk) = body.chunk().await? {
            if self.partial.have + chunk.len() as u64 > self.model.bytes {
                let why = format!("it is longer than {} bytes", self.model.bytes);
                self.start_over().map_err(Failure::Final)?;
                return Err(Failure::Final(origin::other(self.what, &self.place.url, None, &why)));
            }
            if let Err(error) = self.partial.file.write_all(&chunk) {
                return Err(Failure::Final(self.unwritten(&error)));
            }
            self.partial.have += chunk.len() as u64;
            self.progress.step(Step::Advanced { label: label.to_owned(), done_bytes: self.partial.have });
        }
        if self.partial.have < self.model.bytes
            && self.partial.whole
            && self.partial.have > 0
            && let Ok(Some(found)) = files::stand_in(&self.partial.path)
            && found.is_no_file()
        {
            // The answer stated no length, and was something else from its first byte.
            let why = format!("{} bytes came; wanted {} (it is {})", self.partial.have, self.model.bytes, found.name());
            self.start_over().map_err(Failure::Final)?;
            return Err(Failure::Final(origin::other(self.what, &self.place.url, Some(found), &why)));
        }
        match self.partial.have == self.model.bytes {
            true => Ok(()),
            false => Err(Failure::passing(format!("the answer ended after {} of {} bytes", self.partial.have, self.model.bytes))),
        }
    }

    fn unwritten(&mut self, error: &io::Error) -> Fault {
        // Part of the chunk may be in the file and belongs there: the bytes before it are right in either
        // case.
        self.partial.have = self.partial.file.metadata().map_or(self.partial.have, |metadata| metadata.len());
        self.full(Fault::io(format!("writing {}", self.partial.path.display()), error))
    }

    /// Whether the rest fits onto the disk, as far as that can be known in advance.
    fn has_room(&self) -> Result<(), Fault> {
        match (self.free(), self.model.bytes - self.partial.have) {
            (Some(free), rest) if free < rest => Err(self.full(Fault::new(Code::DiskFull, "it does not fit"))),
            _ => Ok(()),
        }
    }

    fn free(&self) -> Option<u64> {
        let space = rustix::fs::fstatvfs(&self.partial.file).ok()?;
        space.f_bavail.checked_mul(space.f_frsize)
    }

    /// Adds the numbers to a fault about a full disk; returns any other fault unchanged.
    fn full(&self, fault: Fault) -> Fault {
        if fault.code != Code::DiskFull {
            return fault;
        }
        let (have, free) = (self.partial.have, self.free().unwrap_or(0));
        let rest = self.model.bytes - have;
        let folder = self.partial.path.parent().unwrap_or(Path::new("/")).display();
        let kept = match have {
            0 => "nothing of it is here yet".to_owned(),
            _ => format!("the {have} bytes that came are kept in {folder}, and the next try goes on from there"),
        };
        Fault::new(Code::DiskFull, format!("{}: {rest} more bytes are wanted, {free} are free in {folder}", self.what))
            .hint(hint::full_disk(&kept))
            .with("wanted_bytes", rest)
            .with("free_bytes", free)
            .with("have_bytes", have)
    }

    /// Compares the file with the wanted digest; returns what is wrong, for people.
    async fn compare(&self) -> Result<Option<String>, Fault> {
        let (path, digest) = (self.partial.path.clone(), self.model.sha256);
        blocking(move || {
            let (found, _) = files::digest(&path).map_err(|error| Fault::io(format!("reading {}", path.display()), &error))?;
            Ok((found != digest).then(|| format!("its sha256 is {found}, wanted {digest}")))
        })
        .await
    }

    /// Keeps the received bytes for the next try; if there are none, deletes the file.
    fn leave(&self) {
        if self.partial.have == 0 {
            let _ = fs::remove_file(&self.partial.path);
            let _ = fs::remove_file(note_of(&self.partial.path));
        }
    }

    /// Moves the file to its place on the shelf.
    async fn publish(self, right: FetchRight) -> Result<PathBuf, Fault> {
        let path = self.partial.path;
        blocking(move || {
            let place = right.keep_compared(&path)?;
            files::remove_tree(&note_of(&path))?;
            Ok(place)
        })
        .await
    }
}

/// Longest pause between two tries.
const MOST: Duration = Duration::from_millis(limits::MODEL_RETRY_MAX_MS);

/// Deletes downloads that nobody resumed. One that cannot be deleted now is tried again with the next model.
fn sweep(home: &Home, but: Digest) {
    let Ok(entries) = fs::read_dir(home.downloads()) else { return };
    let kept = Duration::from_millis(limits::MODEL_PARTIAL_KEPT_MS);
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse::<Digest>().ok());
        let Some(digest) = name.filter(|digest| *digest != but) else { continue };
        let age =
            fs::metadata(&path).and_then(|metadata| metadata.modified()).ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_none_or(|age| age < kept) {
            continue;
        }
        if let Ok(Some(_held)) = models::try_lock(home, digest) {
            let part = part(home, digest);
            if files::remove_tree(&part).and_then(|()| files::remove_tree(&note_of(&part))).is_ok() {
                tracing::info!(digest = %digest.short(), "a half-fetched model that nobody came back for is deleted");
            }
        }
    }
}
