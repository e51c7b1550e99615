//! Fetches targets: a bundle into memory, a model to a file. Neither is trusted before its digest is the
//! signed one.
//!
//! Bytes are counted as they arrive, so that the faults distinguish a server that sends more, fewer, other or
//! slow bytes. A wrong bundle is diagnosed by the name of the inner file.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use bytes::Bytes;
use rustix::fs::FallocateFlags;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};

use crate::{
    disk::make,
    model::{Code, Digest, Fault, Progress, StandIn, Step, limits, manifest::spec::ModelSpec, stand_in::HEAD_BYTES},
    shelf::{
        bundle::unpack,
        durable,
        repository::{
            Client, Resolved,
            transport::{Body, longest},
        },
    },
};

impl Client {
    /// The bundle's bytes, exactly as signed.
    ///
    /// Errors: `bundle_invalid` naming the inner file that differs, `tampered`, `repository_unreachable`.
    pub async fn fetch_bundle(&mut self, resolved: &Resolved, progress: &dyn Progress) -> Result<Bytes, Fault> {
        let what = format!("{} {}", resolved.name, resolved.version);
        let (mut body, end) = self.body(&resolved.target, resolved.sha256, resolved.bytes, &what).await?;
        let label = format!("fetching {what}");
        progress.step(Step::Started { label: label.clone(), total_bytes: Some(resolved.bytes) });
        let mut bytes = Vec::new();
        let most = resolved.bytes.saturating_add(limits::BUNDLE_SURPLUS_BYTES);
        // A little is read past the signed length, because an extra file can be named and "too long" cannot.
        while let Some(chunk) = next(&mut body, end, &what).await? {
            let room = most.saturating_sub(bytes.len() as u64);
            bytes.extend_from_slice(&chunk[..chunk.len().min(usize::try_from(room).unwrap_or(usize::MAX))]);
            progress.step(Step::Advanced { label: label.clone(), done_bytes: bytes.len() as u64 });
            if bytes.len() as u64 >= most {
                break;
            }
        }
        progress.step(Step::Finished { label });
        if bytes.len() as u64 == resolved.bytes && Digest::of(&bytes) == resolved.sha256 {
            return Ok(bytes.into());
        }
        let signed = |fault: Fault| {
            fault.with("found_bytes", bytes.len()).with("signed_bytes", resolved.bytes).with("signed_sha256", resolved.sha256.hex())
        };
        // A bundle of the signed length was made to look like the signed one.
        if bytes.len() as u64 != resolved.bytes {
            let head = &bytes[..bytes.len().min(HEAD_BYTES)];
            body.looked_at(head, StandIn::of(head, None)).map_err(signed)?;
        }
        Err(unpack::diagnose(&bytes, &resolved.index, &what, &resolved.publisher)
            .with("target", resolved.target.as_str())
            .with("found_bytes", bytes.len())
            .with("signed_bytes", resolved.bytes)
            .with("signed_sha256", resolved.sha256.hex()))
    }

    /// Streams a model to `dest`, which must not exist; afterwards `dest` is exactly the signed file, with
    /// mode 0444.
    ///
    /// Errors: `tampered`, `not_in_repository`, `repository_unreachable`, `disk_full`; `dest` is then gone.
    pub async fn fetch_model(&mut self, resolved: &Resolved, model: &ModelSpec, dest: &Path, progress: &dyn Progress) -> Result<(), Fault> {
        let target = self.model_target(resolved, model.sha256, model.bytes).await?;
        let what = format!("model `{}` of {} {}", model.name, resolved.name, resolved.version);
        let (mut body, end) = self.body(&target, model.sha256, model.bytes, &what).await?;
        let failed = |error: &std::io::Error| Fault::io(format!("writing {what} to {}", dest.display()), error);
        let mut file = make::new_file(dest, make::PRIVATE_FILE).map_err(|error| failed(&error))?;
        // From here on `dest` is ours to delete.
        let unfinished = Unfinished { path: Some(dest) };
        if model.bytes > 0 {
            // Space is reserved first, so that a full disk fails before the download; not every file system
            // can do that.
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, model.bytes) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
                Err(error) => return Err(failed(&error.into())),
            }
        }
        let label = format!("fetching {what}");
        progress.step(Step::Started { label: label.clone(), total_bytes: Some(model.bytes) });
        let mut hasher = Sha256::new();
        let mut done: u64 = 0;
        let mut head = Vec::new();
        while let Some(chunk) = next(&mut body, end, &what).await? {
            done = done.saturating_add(chunk.len() as u64);
            head.extend_from_slice(&chunk[..chunk.len().min(HEAD_BYTES.saturating_sub(head.len()))]);
            if done > model.bytes {
                break;
            }
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(|error| failed(&error))?;
            progress.step(Step::Advanced { label: label.clone(), done_bytes: done });
        }
        progress.step(Step::Finished { label });
        let found = Digest::finish(hasher);
        if done != model.bytes || found != model.sha256 {
            if done != model.bytes {
                body.looked_at(&head, StandIn::of(&head, None))
                    .map_err(|fault| fault.with("signed_bytes", model.bytes).with("signed_sha256", model.sha256.hex()))?;
            }
            let length = match done.cmp(&model.bytes) {
                std::cmp::Ordering::Less => format!("it ends after {done} of {} bytes", model.bytes),
                std::cmp::Ordering::Greater => format!("it is longer than {} bytes", model.bytes),
                std::cmp::Ordering::Equal => format!("its sha256 is {found}, signed was {}", model.sha256),
            };
            return Err(Fault::new(Code::Tampered, format!("{what} is not what `{}` signed: {length}", resolved.publisher))
                .with("target", target)
                .hint("nothing was kept; try again, and tell the repository's maintainer if it remains"));
        }
        let sealed = || -> std::io::Result<()> {
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()?;
            durable::sync_folder(dest.parent().unwrap_or(Path::new(".")))
        };
        sealed().map_err(|error| failed(&error))?;
        unfinished.keep();
        Ok(())
    }

    /// Opens a target and returns the time by which its last byte must have arrived.
    async fn body(&self, target: &str, sha256: Digest, bytes: u64, what: &str) -> Result<(Body, Instant), Fault> {
        let (folder, file) = target.rsplit_once('/').unwrap_or(("", target));
        let path = format!("targets/{folder}/{sha256}.{file}");
        let end = Instant::now() + Duration::from_millis(limits::METADATA_FETCH_MS) + longest(bytes);
        let late = |_| unreachable(what, &self.transport.place(&path));
        match timeout_at(end, self.transport.open(&path, end)).await.map_err(late)?? {
            Some(body) => Ok((body, end)),
            None => Err(Fault::new(
                Code::RepositoryUnreachable,
                format!("{what} is signed, but there is no file at {}", self.transport.place(&path)),
            )
            .hint("the repository is incomplete, perhaps in the middle of an upload: try again in a minute")),
        }
    }
}

async fn next(body: &mut Body, end: Instant, what: &str) -> Result<Option<Bytes>, Fault> {
    match timeout_at(end, body.chunk()).await {
        Ok(chunk) => chunk,
        Err(_) => Err(unreachable(what, &body.place)),
    }
}

fn unreachable(what: &str, place: &str) -> Fault {
    let text = format!("{what} comes too slowly from {place}: it is not here in the time that so many bytes may take");
    Fault::new(Code::RepositoryUnreachable, text).hint("try again later or over another line")
}

/// Deletes a half-written file unless it was kept.
struct Unfinished<'a> {
    path: Option<&'a Path>,
}

impl Unfinished<'_> {
    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "a half-written file stays behind");
        }
    }
}
