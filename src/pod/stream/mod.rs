//! The chunks of a stream between its pod and its caller.
//!
//! This module counts the chunks that a caller has not taken. While no other ask waits for the pod, the pod's
//! credit bounds what it may send. When others wait, the driver gives credit on the caller's behalf
//! ([`Outlet::lend`]), and chunks are kept: in memory, then on the disk (`spill.rs`), within bounds in bytes.
//!
//! ```text
//!   caller <-- front <-- disk <-- back <-- pod
//!
//!   `back` is in use only while chunks are on the disk, or on their way there or back
//! ```
//!
//! The disk is read and written by a job of its own, one at a time for each stream; no caller and no driver
//! blocks for it.

pub mod spill;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
};

use tokio::sync::Notify;

use crate::{disk::threads::blocking, model::Fault, pod::wire::messages::Payload};
use spill::{Space, Spill, Spools, disk_bytes, memory_bytes};

/// Both ends of a stream.
pub(super) fn stream() -> (Outlet, Inlet) {
    let stream = Arc::new(Stream::default());
    (Outlet(stream.clone()), Inlet(stream))
}

/// The driver's end. It never waits: the code that gives chunks checks the credit first.
pub(super) struct Outlet(Arc<Stream>);

/// The caller's end.
pub(super) struct Inlet(Arc<Stream>);

/// The result of trying to give credit on a caller's behalf.
#[derive(Debug)]
pub(super) enum Lent {
    /// The pod gets credit for this weight.
    Weight(u32),
    /// The disk is busy for this stream; the driver is notified when that ends.
    Later,
    /// Nothing more is kept until something is taken; the fault says why, and is `None` if the bounds are the
    /// reason.
    Full(Option<Fault>),
}

#[derive(Default)]
struct Stream {
    kept: Mutex<Kept>,
    changed: Notify,
}

/// The chunks that the pod gave and the caller has not taken.
#[derive(Default)]
struct Kept {
    /// The spools of this host; `None` before the first chunk.
    spools: Option<Arc<Spools>>,
    front: VecDeque<Payload>,
    /// The chunks between `front` and `back`; also `None` while a job has them.
    spill: Option<Spill>,
    back: VecDeque<Payload>,
    space: Option<Space>,
    /// A job reads or writes.
    is_busy: bool,
    /// Tells the driver that the job is over.
    wake: Option<Wake>,
    /// Bytes of the chunks in memory.
    memory: u64,
    weight: u32,
    /// The part of `weight`, the oldest one, for which the pod already has credit.
    lent: u32,
    /// The part of `lent` of which the driver must still tell the pod.
    granted: u32,
    /// Number of chunks that were taken since the beginning.
    taken: u64,
    /// Why the disk refused the last chunks, and how many chunks had been taken before.
    refused: Option<(Fault, u64)>,
    /// Why the chunks on the disk cannot be read.
    lost: Option<Fault>,
    /// No more chunks come.
    is_closed: bool,
    /// The caller is gone.
    is_gone: bool,
}

type Wake = Box<dyn FnOnce() + Send>;

impl Kept {
    /// Counts bytes that came into memory, and bytes that left it.
    fn in_memory(&mut self, more: u64, less: u64) {
        self.memory = self.memory + more - less;
        if let Some(spools) = &self.spools {
            spools.memory.fetch_add(more, Ordering::Relaxed);
            spools.memory.fetch_sub(less, Ordering::Relaxed);
        }
    }

    fn is_spilled(&self) -> bool {
        self.is_busy || self.spill.is_some() || !self.back.is_empty()
    }

    /// If no chunk is left between `front` and `back`, joins the two; returns the file, which is then unused.
    fn settle(&mut self) -> Option<Spill> {
        if self.is_busy || self.spill.as_ref().is_some_and(|spill| !spill.is_empty()) {
            return None;
        }
        self.front.append(&mut self.back);
        self.spill.take()
    }

    /// The newest chunks in memory for which the pod has no credit: whether they are in `back`, and the index
    /// of the first.
    fn unlent(&self) -> (bool, usize) {
        let in_back = self.is_spilled();
        let row = if in_back { &self.back } else { &self.front };
        let mut left = self.weight - self.lent;
        let newest = row.iter().rev().take_while(|chunk| {
            let is_unlent = chunk.weight() <= left;
            left = left.saturating_sub(chunk.weight());
            is_unlent
        });
        (in_back, row.len() - newest.count())
    }
}

impl Stream {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Runs a blocking job on the chunks on the disk, and then `over`.
    fn start<T: Send + 'static>(
        self: &Arc<Self>,
        kept: &mut Kept,
        work: impl FnOnce() -> T + Send + 'static,
        over: impl FnOnce(&mut Kept, T) + Send + 'static,
    ) {
        let Some(spools) = kept.spools.clone() else { return };
        kept.is_busy = true;
        let stream = self.clone();
        tokio::spawn(async move {
            let place = spools.at_once.clone().acquire_owned().await;
            let done = blocking(move || {
                let _place = place;
                Ok(work())
            });
            let done = done.await;
            let mut kept = stream.kept();
            kept.is_busy = false;
            if kept.is_gone {
                // Not under the lock: dropping blobs notifies their pod.
                drop(kept);
                return drop(done);
            }
            match done {
                Ok(done) => over(&mut kept, done),
                Err(fault) => kept.lost = Some(fault),
            }
            let wake = kept.wake.take();
            drop(kept);
            stream.changed.notify_one();
            if let Some(wake) = wake {
                wake();
            }
        });
    }

    /// Writes that row of chunks to the disk, behind those that are there.
    fn write(self: &Arc<Self>, kept: &mut Kept, row: Vec<Payload>, space: Space, folder: &Path, bytes: u64) {
        let (spill, folder) = (kept.spill.take(), folder.to_owned());
        let work = move || {
            let made = match spill {
                Some(spill) => Ok(spill),
                None => Spill::create(&folder, space.clone()).inspect_err(|_| space.give_back(bytes)),
            };
            match made {
                Ok(mut spill) => match spill.write(&row, bytes) {
                    Ok(()) => {
                        let memory = row.iter().map(memory_bytes).sum();
                        // Dropped here, where dropping blobs delays no caller.
                        drop(row);
                        (Some(spill), Ok(memory))
                    }
                    Err(fault) => (Some(spill), Err((row, fault))),
                },
                Err(fault) => (None, Err((row, fault))),
            }
        };
        self.start(kept, work, |kept, (spill, written)| {
            kept.spill = spill;
            match written {
                Ok(memory) => {
                    kept.in_memory(0, memory);
                    let behind: u32 = kept.back.iter().map(Payload::weight).sum();
                    let lent = kept.lent.max(kept.weight - behind);
                    kept.granted += lent - kept.lent;
                    (kept.lent, kept.refused) = (lent, None);
                }
                Err((row, fault)) => {
                    row.into_iter().rev().for_each(|chunk| kept.back.push_front(chunk));
                    kept.refused = Some((fault, kept.taken));
                }
            }
        });
    }

    /// Reads the oldest chunks from the disk.
    fn read(self: &Arc<Self>, kept: &mut Kept, mut spill: Spill) {
        let work = move || {
            let read = spill.read();
            (spill, read)
        };
        self.start(kept, work, |kept, (spill, read)| {
            kept.spill = Some(spill);
            match read {
                Ok(chunks) => {
                    kept.in_memory(chunks.iter().map(memory_bytes).sum(), 0);
                    kept.front.extend(chunks);
                }
                Err(fault) => kept.lost = Some(fault),
            }
        });
    }
}

impl Outlet {
    /// Adds a chunk. `spools`: those of the host, the same for all chunks.
    pub fn give(&self, payload: Payload, spools: &Arc<Spools>) {
        let mut kept = self.0.kept();
        if kept.is_gone {
            drop(kept);
            return drop(payload);
        }
        kept.spools.get_or_insert_with(|| spools.clone());
        kept.weight += payload.weight();
        kept.in_memory(memory_bytes(&payload), 0);
        match kept.is_spilled() {
            true => kept.back.push_back(payload),
            false => kept.front.push_back(payload),
        }
        drop(kept);
        self.0.changed.notify_one();
    }

    /// Treats chunks that the caller has not taken as taken, if they can be kept: in memory, or else on the
    /// disk of `folder`; `wake` is called after the disk work (also if it failed). Chunks in regions are
    /// moved out of them, because the pod has few regions.
    pub fn lend(&self, folder: &Path, wake: impl FnOnce() + Send + 'static) -> Lent {
        let mut kept = self.0.kept();
        let Some(spools) = kept.spools.clone() else { return Lent::Weight(0) };
        let emptied = kept.settle();
        let lent = self.lend_now(&mut kept, &spools, folder, Box::new(wake));
        drop(kept);
        drop(emptied);
        lent
    }

    fn lend_now(&self, kept: &mut Kept, spools: &Arc<Spools>, folder: &Path, wake: Wake) -> Lent {
        let weight = kept.weight - kept.lent;
        if weight == 0 {
            return Lent::Weight(0);
        }
        let (in_back, from) = kept.unlent();
        let row = if in_back { &kept.back } else { &kept.front };
        let in_regions = row.range(from..).any(|chunk| chunk.blobs.iter().any(|blob| blob.store().is_some()));
        let has_room = kept.memory <= spools.bounds.stream_memory && spools.memory.load(Ordering::Relaxed) <= spools.bounds.memory;
        if has_room && !in_regions {
            kept.lent = kept.weight;
            return Lent::Weight(weight);
        }
        if kept.is_busy {
            kept.wake = Some(wake);
            return Lent::Later;
        }
        if let Some((fault, _)) = kept.refused.as_ref().filter(|(_, taken)| *taken == kept.taken) {
            return Lent::Full(Some(fault.clone()));
        }
        // Chunks behind chunks on the disk go there in order, even if the pod has credit for the first of
        // them.
        let from = if in_back { 0 } else { from };
        let bytes = row.range(from..).map(disk_bytes).fold(0, u64::saturating_add);
        let space = kept.space.get_or_insert_with(|| Space::new(spools)).clone();
        if !space.take(bytes) {
            return Lent::Full(None);
        }
        let row = if in_back { &mut kept.back } else { &mut kept.front };
        let row = row.split_off(from).into();
        kept.wake = Some(wake);
        self.0.write(kept, row, space, folder, bytes);
        Lent::Later
    }

    /// The weight of the chunks that reached the disk since the last call; the pod gets credit for it.
    pub fn granted(&self) -> u32 {
        std::mem::take(&mut self.0.kept().granted)
    }

    /// Number of chunks that the caller took.
    pub fn taken(&self) -> u64 {
        self.0.kept().taken
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.kept().is_closed = true;
        self.0.changed.notify_one();
    }
}

impl Inlet {
    /// The next chunk, and the weight for which its pod has no credit yet; `None` after the last.
    /// Cancel-safe.
    ///
    /// Errors: `io` if the chunks on the disk cannot be read.
    pub async fn take(&mut self) -> Result<Option<(Payload, u32)>, Fault> {
        loop {
            let changed = self.0.changed.notified();
            if let Some(taken) = self.take_now() {
                return taken;
            }
            changed.await;
        }
    }

    /// [`Inlet::take`] without waiting; `None` if it would have to wait.
    fn take_now(&self) -> Option<Result<Option<(Payload, u32)>, Fault>> {
        let mut kept = self.0.kept();
        let emptied = if kept.front.is_empty() { kept.settle() } else { None };
        let taken = match kept.front.pop_front() {
            Some(payload) => {
                kept.in_memory(0, memory_bytes(&payload));
                let weight = payload.weight();
                let lent = weight.min(kept.lent);
                kept.lent -= lent;
                kept.weight -= weight;
                kept.taken += 1;
                Some(Ok(Some((payload, weight - lent))))
            }
            None if kept.is_busy => None,
            None if kept.lost.is_some() => kept.lost.clone().map(Err),
            None => match kept.spill.take() {
                Some(spill) => {
                    self.0.read(&mut kept, spill);
                    None
                }
                None if kept.is_closed => Some(Ok(None)),
                None => None,
            },
        };
        drop(kept);
        drop(emptied);
        taken
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let mut kept = self.0.kept();
        kept.is_gone = true;
        let memory = kept.memory;
        kept.in_memory(0, memory);
        let left = (std::mem::take(&mut kept.front), kept.spill.take(), std::mem::take(&mut kept.back));
        drop(kept);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Blob, Code};
    use crate::pod::stream::spill::Bounds;

    const KIB: u64 = 1 << 10;

    fn chunk(bytes: usize) -> Payload {
        Payload { json: "x".repeat(bytes), ..Payload::default() }
    }

    /// Spools on the disk: `mib` MiB for each stream, and half as much again for all.
    fn spools(mib: u64) -> Arc<Spools> {
        let (stream_disk, disk) = (mib * 1024 * KIB, mib * 1536 * KIB);
        Arc::new(Spools::bounded(Bounds { stream_memory: 100 * KIB, memory: 150 * KIB, stream_disk, disk }))
    }

    /// Lends until the disk has nothing to do; returns the weight that was lent, and whether no more is lent.
    async fn lend(outlet: &Outlet, folder: &Path) -> (u32, Option<Option<Fault>>) {
        let mut weight = 0;
        loop {
            let (wake, woken) = tokio::sync::oneshot::channel();
            let lent = outlet.lend(folder, move || wake.send(()).unwrap());
            weight += outlet.granted();
            match lent {
                Lent::Weight(0) => return (weight, None),
                Lent::Weight(more) => weight += more,
                Lent::Later => woken.await.unwrap(),
                Lent::Full(why) => return (weight, Some(why)),
            }
        }
    }

    /// Waits until the space is free again, which is not awaited elsewhere.
    async fn given_back(spools: &Spools) {
        for _ in 0..500 {
            if (spools.disk(), spools.memory.load(Ordering::Relaxed)) == (0, 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} bytes on the disk, {} in memory", spools.disk(), spools.memory.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn each_unit_of_weight_is_credited_once_and_in_order() {
        let ((outlet, mut inlet), spools) = (stream(), spools(8));
        (1..=3).for_each(|n| outlet.give(chunk(n), &spools));
        let (first, weight) = inlet.take().await.unwrap().unwrap();
        assert_eq!((first.json.len(), weight), (1, 1));
        let lent = lend(&outlet, Path::new("/nowhere")).await;
        assert_eq!((lent, outlet.taken()), ((2, None), 1), "what was taken is its caller's to tell");
        outlet.give(chunk(4), &spools);
        for (bytes, credit) in [(2, 0), (3, 0), (4, 1)] {
            let (payload, weight) = inlet.take().await.unwrap().unwrap();
            assert_eq!((payload.json.len(), weight), (bytes, credit));
        }
        drop(outlet);
        assert!(inlet.take().await.unwrap().is_none());
        assert_eq!(spools.memory.load(Ordering::Relaxed), 0);
    }

    /// Chunks with blobs of all sizes, taken at various times and kept in all three places: they come back
    /// the same, in order, and each is credited once.
    #[tokio::test]
    async fn what_goes_by_the_disk_comes_back_the_same_and_leaves_nothing_there() {
        let (folder, spools) = (tempfile::tempdir().unwrap(), spools(64));
        let (outlet, mut inlet) = stream();
        let bytes = |n: usize| -> Vec<u8> { (0..[0, 7, 5000, 300 << 10, (256 << 10) + 1][n % 5]).map(|at| (at * n) as u8).collect() };
        let blobs = |n: usize| -> Vec<Blob> { (0..n % 4).map(|nth| Blob::new(format!("b{nth}"), "x/y", bytes(n + nth))).collect() };
        let (mut given, mut credit, mut held, mut on_disk) = (0, 0, Vec::new(), 0);
        let mut wanted = 0..;
        for round in 0..12 {
            for _ in 0..4 {
                let payload =
                    Payload { json: format!("{given}:{}", "x".repeat(given % 7 * 1000)), blobs: blobs(given), regions: Vec::new() };
                given += 1;
                credit += u64::from(payload.weight());
                outlet.give(payload, &spools);
            }
            let (lent, full) = lend(&outlet, folder.path()).await;
            assert!(full.is_none(), "{full:?}");
            credit -= u64::from(lent);
            on_disk = on_disk.max(spools.disk());
            for _ in 0..if round < 6 { 1 } else { 7 } {
                let Ok(taken) = tokio::time::timeout(Duration::from_secs(20), inlet.take()).await else { panic!("nothing comes") };
                let (payload, weight) = taken.unwrap().unwrap();
                credit -= u64::from(weight);
                let n = wanted.next().unwrap();
                assert!(payload.json.starts_with(&format!("{n}:")) && payload.json.ends_with(&"x".repeat(n % 7 * 1000)), "chunk {n}");
                assert_eq!(payload.blobs.len(), n % 4);
                held.extend(payload.blobs.into_iter().zip(blobs(n)));
            }
        }
        assert_eq!((given, credit), (48, 0));
        assert!(on_disk > 2048 * KIB, "{on_disk}");
        // Large blobs stay where they were; the chunks around them are gone.
        assert!(held.iter().any(|(blob, _)| blob.store().is_some()) && spools.disk() > 0);
        for (blob, wanted) in &held {
            assert_eq!((&blob.name, &blob.media_type), (&wanted.name, &wanted.media_type));
            assert!(blob.bytes(u64::MAX).unwrap() == wanted.bytes(u64::MAX).unwrap());
        }
        drop((outlet, held));
        assert!(inlet.take().await.unwrap().is_none());
        given_back(&spools).await;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }

    #[tokio::test]
    async fn the_disk_is_bounded_for_each_stream_and_for_all_and_taking_makes_room() {
        let (folder, spools) = (tempfile::tempdir().unwrap(), spools(8));
        let fill = async |outlet: &Outlet| {
            let mut given = 0;
            loop {
                outlet.give(chunk(60 << 10), &spools);
                if let (_, Some(why)) = lend(outlet, folder.path()).await {
                    assert!(why.is_none());
                    return given;
                }
                given += 1;
                assert!(given < 1_000, "without an end");
            }
        };
        let (first, mut inlet) = stream();
        let (second, other) = stream();
        let of_one = fill(&first).await;
        assert!((130..=145).contains(&of_one), "{of_one} chunks of 60 KiB in 100 KiB and 8 MiB");
        let of_all = fill(&second).await;
        assert!((60..=75).contains(&of_all), "{of_all} chunks of 60 KiB in what is left of 12 MiB");
        // A stream that is dropped makes room for others; a chunk that is taken makes room for its own
        // stream.
        drop(other);
        for _ in 0..30 {
            inlet.take().await.unwrap().unwrap();
        }
        assert_eq!(lend(&first, folder.path()).await.1.map(|_| "full"), None);
        assert!(fill(&first).await >= 10);
        drop((first, second, inlet));
        given_back(&spools).await;
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_loses_nothing_and_is_asked_again_when_something_was_taken() {
        let (folder, spools) = (tempfile::tempdir().unwrap(), spools(8));
        let (outlet, mut inlet) = stream();
        (0..5).for_each(|n| outlet.give(chunk((60 << 10) + n), &spools));
        for _ in 0..2 {
            let (_, full) = lend(&outlet, &folder.path().join("missing")).await;
            assert_eq!(full.flatten().map(|fault| fault.code), Some(Code::Io));
        }
        assert_eq!(inlet.take().await.unwrap().unwrap().0.json.len(), 60 << 10);
        let (lent, full) = lend(&outlet, folder.path()).await;
        assert!(lent == 4 && full.is_none() && spools.disk() > 0, "{lent} {full:?}");
        for n in 1..5 {
            assert_eq!(inlet.take().await.unwrap().unwrap().0.json.len(), (60 << 10) + n);
        }
        // A stream that is dropped while its disk job runs leaves nothing either.
        (0..5).for_each(|_| outlet.give(chunk(60 << 10), &spools));
        assert!(matches!(outlet.lend(folder.path(), || {}), Lent::Later));
        drop(inlet);
        outlet.give(chunk(1), &spools);
        given_back(&spools).await;
    }
}
