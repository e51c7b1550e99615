//! Reads the body of a request, whole and within its limits.
//!
//! The limits on memory for bodies, and on time, are shared by all routes.

use std::{pin::Pin, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use futures_core::Stream;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::{
    door::http::{answers::overloaded, server::Server},
    model::{
        Code, Fault, act, hint,
        limits::{self, READ_HERE_BYTES_MAX},
    },
};

/// A body, and its share of the memory for bodies until it is dropped.
pub struct Whole {
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `most` bytes.
///
/// Errors: `too_large` (before any byte is read, if the request states its length), `overloaded` while other
/// bodies use all the memory for bodies, `deadline` if the body does not arrive in time, `cancelled` if the
/// caller hangs up in its middle.
pub async fn whole(server: &Server, headers: &HeaderMap, body: Body, most: usize) -> Result<Whole, Fault> {
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > most) {
        return Err(too_large(most));
    }
    let patience = Duration::from_millis(limits::SERVE_BODY_MS);
    let read = async {
        let expected = said.unwrap_or(most);
        let room = match expected > limits::SERVE_BODY_SMALL_BYTES {
            true => {
                let room = server.bodies.clone().acquire_many_owned(expected.div_ceil(1 << 10) as u32);
                let room = timeout(Duration::from_millis(limits::SERVE_BODY_WAIT_MS), room).await;
                // `ok` never loses a permit: nobody closes the semaphore.
                room.map_err(|_| overloaded("the bodies of other requests hold all the memory there is for them".to_owned()))?.ok()
            }
            false => None,
        };
        Ok(Whole { bytes: collect(body, said, most).await?, _room: room })
    };
    timeout(patience, read)
        .await
        .unwrap_or_else(|_| Err(Fault::new(Code::Deadline, format!("the request's body did not come within {} ms", limits::SERVE_BODY_MS))))
}

async fn collect(body: Body, said: Option<usize>, most: usize) -> Result<Bytes, Fault> {
    let mut stream = body.into_data_stream();
    let mut first = Bytes::new();
    let mut joined = Vec::new();
    while let Some(part) = std::future::poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
        let part = part.map_err(|error| Fault::new(Code::Cancelled, format!("the request's body broke off: {error}")))?;
        if first.len() + joined.len() + part.len() > most {
            return Err(too_large(most));
        }
        // Most bodies are one part, and are not copied.
        if first.is_empty() && joined.is_empty() {
            first = part;
        } else {
            let before = (first.len() + joined.len()) / READ_HERE_BYTES_MAX;
            if joined.is_empty() {
                // The permit covers this size; pages that no byte reaches take no memory.
                joined.reserve_exact(said.unwrap_or(0));
            }
            joined.extend_from_slice(&std::mem::take(&mut first));
            joined.extend_from_slice(&part);
            if joined.len() / READ_HERE_BYTES_MAX > before {
                // Copying megabytes that are all there takes a while: yield to other tasks.
                tokio::task::yield_now().await;
            }
        }
    }
    Ok(if joined.is_empty() { first } else { joined.into() })
}

fn too_large(most: usize) -> Fault {
    Fault::new(Code::TooLarge, format!("the request's body is above {most} bytes, which is the most that is carried")).hint(hint![
        "pass large data as a blob by ",
        act::blob(),
        ", or by the path of a file that the recipe may read"
    ])
}
