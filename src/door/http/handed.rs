//! Files beside calls: those that come with a request, and results that leave as files.
//!
//! The limits on the number of files, and on copies to disk, are shared by all calls.

use std::{collections::VecDeque, os::fd::OwnedFd, sync::Arc};

use axum::{
    Extension,
    http::{StatusCode, request::Parts},
    response::Response,
};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    door::{
        handing::{FILES, Files, Held},
        http::{
            answers::{Beside, answer},
            requests::header,
        },
        lines,
    },
    model::{Blob, Code, Fault, act, hint, limits},
    shelf::blocking,
};

/// `GET /v1/calls`: what a call and its answer may carry over this listener, in bytes and numbers of blobs
/// and files.
pub async fn bounds(Extension(Beside(files)): Extension<Beside>) -> Response {
    let count = if files.is_some() { limits::BLOBS_MAX } else { 0 };
    let bounds = json!({
        "call_bytes": limits::SERVE_CALL_BYTES_MAX, "answer_blob_bytes": limits::GLUE_BLOB_BYTES_MAX, "blobs": limits::BLOBS_MAX,
        "files": count, "file_bytes": if count > 0 { limits::BLOB_BYTES_MAX } else { 0 },
    });
    answer(StatusCode::OK, &bounds)
}

/// What a request says about files.
pub struct Wish {
    files: Files,
    count: usize,
}

impl Wish {
    /// `None` if the caller hands in no files and accepts none.
    ///
    /// Errors: `usage`; `too_large`.
    pub fn of(head: &Parts) -> Result<Option<Wish>, Fault> {
        let Some(text) = header(&head.headers, FILES)? else { return Ok(None) };
        let Some(Beside(Some(files))) = head.extensions.get::<Beside>() else {
            let fault = Fault::new(Code::Usage, format!("header `{FILES}`: files are handed over the server's own Unix socket alone"));
            return Err(fault.hint(hint![
                "leave the header away and write blobs in base64; ",
                act::bounds(),
                " tells how many bytes that may be"
            ]));
        };
        let count: usize =
            text.parse().map_err(|_| Fault::new(Code::Usage, format!("header `{FILES}`: `{text}` is no number of files")))?;
        if count > limits::BLOBS_MAX {
            let text = format!("header `{FILES}`: {count} files; a call carries {} blobs at most", limits::BLOBS_MAX);
            return Err(Fault::new(Code::TooLarge, text).hint("send them in several calls"));
        }
        Ok(Some(Wish { files: files.clone(), count }))
    }

    /// The files that arrived, once the request was read to its end, and the permits that they hold while the
    /// call runs.
    ///
    /// Errors: `usage` unless their number is the announced one; `too_large`, `overloaded`, `io`.
    pub fn taken(&self) -> Result<(VecDeque<OwnedFd>, Vec<OwnedSemaphorePermit>), Fault> {
        let arrived = self.files.received()?;
        if arrived.len() != self.count {
            let text = format!("header `{FILES}` says {} files; {} came with the request", self.count, arrived.len());
            return Err(
                Fault::new(Code::Usage, text).hint("they go with the request's first bytes (`SCM_RIGHTS`), one request after the other")
            );
        }
        let (files, rooms): (_, Vec<_>) = arrived.into_iter().map(|held| (held.file, held.room)).unzip();
        Ok((files, rooms.into_iter().flatten().collect()))
    }

    pub fn files(self) -> Files {
        self.files
    }
}

/// Limits on results that leave as files, for all calls together. A clone shares them.
#[derive(Clone)]
pub struct Leaving {
    /// In units of [`limits::SERVE_FILE_OUT_BYTES_MIN`].
    room: Arc<Semaphore>,
    at_once: Arc<Semaphore>,
}

impl Default for Leaving {
    fn default() -> Leaving {
        Leaving { room: Arc::new(Semaphore::new(MOST as usize)), at_once: Arc::new(Semaphore::new(limits::SERVE_COPIES_AT_ONCE)) }
    }
}

const MOST: u64 = limits::SERVE_FILES_OUT_BYTES_MAX / limits::SERVE_FILE_OUT_BYTES_MIN;

impl Leaving {
    /// Writes a line with these blobs, the large ones into files that go with its bytes. Waits while other
    /// results use all the room; a finished result is never refused.
    ///
    /// Errors: those of `write`.
    pub async fn line(
        &self,
        files: &Files,
        blobs: &[Blob],
        write: impl FnOnce(&mut Vec<OwnedFd>) -> Result<Vec<u8>, Fault> + Send + 'static,
    ) -> Result<Vec<u8>, Fault> {
        let units = |blob: &Blob| blob.size().div_ceil(limits::SERVE_FILE_OUT_BYTES_MIN);
        let units: u64 = blobs.iter().filter(|blob| lines::is_large(blob)).map(units).sum();
        let gone = |_| Fault::new(Code::Internal, "nothing is handed over any more");
        // In this order, a result that waits for room does not keep others from copying.
        let room = self.room.clone().acquire_many_owned(units.min(MOST) as u32).await.map_err(gone)?;
        let turn = self.at_once.clone().acquire_owned().await.map_err(gone)?;
        let (line, made) = blocking(move || {
            let _turn = turn;
            let mut made = Vec::new();
            Ok((write(&mut made)?, made))
        })
        .await?;
        // The room is given back with the last file that was handed over, or with the connection.
        let mut room = room;
        let mut held: Vec<Held> = made.into_iter().map(Held::from).collect();
        let share = (room.num_permits() / held.len().max(1)).max(1);
        for held in &mut held {
            held.room = room.split(share);
        }
        files.send(held);
        Ok(line)
    }
}
