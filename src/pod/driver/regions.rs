//! Memory that a host shares with one pod, for blobs too large for a frame.
//!
//! A region is a memfd that the host made, or a file that a caller gave, which `sandbox/clerk.rs` lends. The
//! pod maps it; the host only ever reads and writes it with system calls, so that nothing a pod does to it
//! can end the host. A region keeps its size (sealed against shrinking and growing) and is used again:
//! touching fresh pages is what costs.
//!
//! ```text
//!             Regions::place              `back`: used again
//!   free --------------------> in an ask ------------------> free       for asks; the pod can only read its descriptor
//!                                  | `dropped`: the author's code still looks into it --> forgotten, as is a caller's file
//!
//!   `room`      answer or chunk            the last holder of the blob is gone: `free`
//!   ------> the pod's ---------> the host's ------------------------------------------> the pod's     for results
//! ```
//!
//! This file tracks who owns each region; the driver sends and receives. A region holds one blob at a time.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::PathBuf,
    sync::{Arc, Weak},
};

use rustix::fs::SealFlags;

use crate::{
    model::{
        Blob, Code, Fault, Store,
        limits::{
            BLOB_BYTES_MAX, BLOB_FRAME_BYTES_MAX, COPY_CHUNK_BYTES, LENT_BYTES_MIN, REGION_BYTES_MIN, REGION_FILES, REGIONS_BYTES_MAX,
            REGIONS_KEPT_BYTES_MAX, REGIONS_MAX,
        },
    },
    pod::{
        pool::watcher::PodShared,
        process::holdings::{Holder, Share},
        sandbox::clerk::{self, Clerk},
        spec::Spec,
        wire::messages::Control,
    },
};

/// The regions of one pod.
pub(super) struct Regions {
    shared: Weak<PodShared>,
    lender: Option<Lender>,
    holder: Holder,
    last: u64,
    inputs: BTreeMap<u64, Input>,
    outputs: BTreeMap<u64, Output>,
}

/// A memfd of the host's, with the recipe's share of descriptors for it.
pub(super) struct Memory {
    file: File,
    _share: Share,
}

struct Input {
    /// `None` for a caller's file, which is not reused for another blob.
    memory: Option<Arc<Memory>>,
    bytes: u64,
    busy: bool,
}

impl Input {
    /// Whether it is a file that is no longer needed.
    fn is_done(&self) -> bool {
        self.memory.is_none() && !self.busy
    }
}

/// Lends files to this pod.
#[derive(Clone)]
pub(super) struct Lender {
    clerk: Clerk,
    python: PathBuf,
}

impl Lender {
    pub fn of(spec: &Spec) -> Lender {
        Lender { clerk: spec.clerk.clone(), python: spec.program.base.clone() }
    }
}

struct Output {
    memory: Arc<Memory>,
    bytes: u64,
    /// The host holds it, until the last holder of its blob is gone.
    with_host: bool,
}

/// A region that the pod must be told about.
pub(super) struct New {
    number: u64,
    bytes: u64,
    descriptor: OwnedFd,
}

impl New {
    /// The message that tells the pod, and the descriptor that travels with it. `write`: the pod may write
    /// there.
    pub fn into_message(self, write: bool) -> (Control<'static>, OwnedFd) {
        (Control::Region { region: self.number, bytes: self.bytes, write }, self.descriptor)
    }
}

/// The preparation of a blob before its ask is sent.
pub(super) enum Copying {
    /// The blob is written into a region.
    Into { blob: Blob, memory: Arc<Memory> },
    /// The blob's file is lent, as the region of this number.
    Lent { blob: Blob, number: u64, lender: Lender },
}

/// The destinations of an ask's blobs.
#[derive(Default)]
pub(super) struct BlobPlan {
    regions: Vec<Option<u64>>,
    new: Vec<New>,
    copies: Vec<Copying>,
}

impl BlobPlan {
    /// The region of each blob; `None` for a blob that travels in the frame.
    pub fn regions(&self) -> &[Option<u64>] {
        &self.regions
    }

    /// Takes the work that puts the blobs in place.
    pub fn take_copies(&mut self) -> Vec<Copying> {
        std::mem::take(&mut self.copies)
    }

    /// Adds regions that the pod must be told about.
    pub fn add(&mut self, new: Vec<New>) {
        self.new.extend(new);
    }

    /// The regions that the pod must be told about before the ask is sent.
    pub fn into_new(self) -> Vec<New> {
        self.new
    }
}

impl Copying {
    /// Writes the blob into its region, or makes the region of its file. Blocking.
    ///
    /// Errors: `io` if the blob cannot be read to its end; as [`Clerk::lend`].
    pub fn run(self) -> Result<Option<New>, Fault> {
        match self {
            Copying::Into { blob, memory } => written(&blob, &memory.file).map(|()| None),
            Copying::Lent { blob, number, lender } => {
                let (what, bytes) = (format!("the blob `{}`", blob.name), blob.size());
                let file = blob.store().and_then(|store| store.file());
                let file = file.ok_or_else(|| Fault::new(Code::Internal, format!("{what} is no file any more")))?;
                let descriptor = lender.clerk.lend(&lender.python, file, bytes, &what)?;
                Ok(Some(New { number, bytes, descriptor }))
            }
        }
    }

    /// Runs all of them; returns the regions that the pod must be told about. Blocking.
    ///
    /// Errors: the first.
    pub fn run_all(copies: Vec<Copying>) -> Result<Vec<New>, Fault> {
        copies.into_iter().filter_map(|copying| copying.run().transpose()).collect()
    }
}

fn written(blob: &Blob, memory: &File) -> Result<(), Fault> {
    let failed = |error: &io::Error| Fault::io(format!("handing over the blob `{}`", blob.name), error);
    if let Some(bytes) = blob.in_memory() {
        return memory.write_all_at(bytes, 0).map_err(|error| failed(&error));
    }
    let size = blob.size();
    let mut piece = vec![0; COPY_CHUNK_BYTES.min(size as usize)];
    let mut at = 0;
    while at < size {
        let wanted = (size - at).min(piece.len() as u64) as usize;
        blob.read_exact_at(at, &mut piece[..wanted])?;
        memory.write_all_at(&piece[..wanted], at).map_err(|error| failed(&error))?;
        at += wanted as u64;
    }
    Ok(())
}

/// A memfd of this size that nobody can shrink, grow or unseal.
fn memory(bytes: u64) -> io::Result<File> {
    let made = clerk::memory(bytes)?;
    rustix::fs::fcntl_add_seals(&made, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(made)
}

/// The region size for so many bytes: there are few sizes, so that one region serves many blobs.
fn rounded(bytes: u64) -> u64 {
    bytes.max(REGION_BYTES_MIN).checked_next_power_of_two().unwrap_or(bytes).min(BLOB_BYTES_MAX.max(bytes))
}

impl Regions {
    /// `lender`: without one, the content of a file is copied.
    pub fn new(shared: Weak<PodShared>, lender: Option<Lender>, holder: Holder) -> Regions {
        Regions { shared, lender, holder, last: 0, inputs: BTreeMap::new(), outputs: BTreeMap::new() }
    }

    /// Plans the destinations of an ask's blobs. A planned region is busy until the pod gives it back.
    ///
    /// Errors: `too_large` if the pod holds too many, `overloaded` if its recipe holds all the descriptors
    /// that it may; `io`.
    pub fn plan(&mut self, blobs: &[Blob]) -> Result<BlobPlan, Fault> {
        let mut plan = BlobPlan::default();
        for blob in blobs {
            let number = match blob.size() > BLOB_FRAME_BYTES_MAX as u64 {
                false => None,
                true => Some(self.plan_one(blob, &mut plan).inspect_err(|_| self.undo(&plan))?),
            };
            plan.regions.push(number);
        }
        Ok(plan)
    }

    fn plan_one(&mut self, blob: &Blob, plan: &mut BlobPlan) -> Result<u64, Fault> {
        let failed = |error: io::Error| Fault::io(format!("sharing the blob `{}` with a pod", blob.name), &error);
        let size = blob.size();
        let is_lent = size >= LENT_BYTES_MIN && blob.store().is_some_and(|store| store.file().is_some());
        if let Some(lender) = self.lender.clone().filter(|_| is_lent) {
            let number = self.add(Input { memory: None, bytes: size, busy: true })?;
            plan.copies.push(Copying::Lent { blob: blob.clone(), number, lender });
            return Ok(number);
        }
        let free = self.inputs.iter_mut().filter(|(_, input)| !input.busy && input.bytes >= size);
        let free = free.filter_map(|(number, input)| Some((*number, input.memory.clone()?, input)));
        let (number, memory) = match free.min_by_key(|(.., input)| input.bytes) {
            Some((number, memory, input)) => {
                input.busy = true;
                (number, memory)
            }
            None => {
                let bytes = rounded(size);
                let memory = self.memory(bytes, "a large blob was not shared with a pod")?.map_err(failed)?;
                let descriptor = clerk::read_only(&memory.file).map_err(failed)?;
                let number = self.add(Input { memory: Some(memory.clone()), bytes, busy: true })?;
                plan.new.push(New { number, bytes, descriptor });
                (number, memory)
            }
        };
        plan.copies.push(Copying::Into { blob: blob.clone(), memory });
        Ok(number)
    }

    /// Memory for a region, if the recipe may hold one more descriptor.
    ///
    /// Errors: `overloaded`; the inner error is the machine's.
    fn memory(&self, bytes: u64, lost: &str) -> Result<io::Result<Arc<Memory>>, Fault> {
        let _share = self.holder.take(REGION_FILES).map_err(|short| short.fault(lost))?;
        Ok(memory(bytes).map(|file| Arc::new(Memory { file, _share })))
    }

    fn add(&mut self, input: Input) -> Result<u64, Fault> {
        if self.inputs.len() >= REGIONS_MAX {
            let text =
                format!("the pod holds {} large blobs of earlier calls; at most {REGIONS_MAX} are shared with one", self.inputs.len());
            return Err(Fault::new(Code::TooLarge, text).hint("the recipe keeps arrays that it was given: it should copy what it keeps"));
        }
        self.last += 1;
        self.inputs.insert(self.last, input);
        Ok(self.last)
    }

    /// The ask was not sent. The pod may already know the new regions; they are free for the next ask.
    pub fn undo(&mut self, plan: &BlobPlan) {
        for number in plan.regions.iter().flatten() {
            if let Some(input) = self.inputs.get_mut(number) {
                input.busy = false;
            }
        }
        for new in &plan.new {
            self.inputs.remove(&new.number);
        }
        self.inputs.retain(|_, input| !input.is_done());
    }

    /// The pod has finished with these regions of an ask. Returns the regions that it should forget.
    ///
    /// The error says what is wrong with the message.
    pub fn back(&mut self, numbers: &[u64]) -> Result<Vec<u64>, String> {
        for number in numbers {
            match self.inputs.get_mut(number) {
                Some(input) if input.busy => input.busy = false,
                _ => return Err(format!("gave back region {number}, which it was not lent")),
            }
        }
        Ok(self.surplus())
    }

    /// The pod keeps these regions forever: the author's code still uses them.
    pub fn dropped(&mut self, numbers: &[u64]) -> Result<(), String> {
        for number in numbers {
            let known = self.inputs.get(number).is_some_and(|input| input.busy);
            let theirs = self.outputs.get(number).is_some_and(|output| !output.with_host);
            if !known && !theirs {
                return Err(format!("let go of region {number}, which it did not hold"));
            }
            self.inputs.remove(number);
            self.outputs.remove(number);
        }
        Ok(())
    }

    /// Files that are no longer needed, and free regions above the number that is kept, largest first; this
    /// side forgets them here.
    fn surplus(&mut self) -> Vec<u64> {
        let mut forget: Vec<u64> = self.inputs.iter().filter(|(_, input)| input.is_done()).map(|(number, _)| *number).collect();
        self.inputs.retain(|_, input| !input.is_done());
        loop {
            let free = self.inputs.iter().filter(|(_, input)| !input.busy);
            let kept: u64 = free.clone().map(|(_, input)| input.bytes).sum();
            let outputs: u64 = self.outputs.values().filter(|output| !output.with_host).map(|output| output.bytes).sum();
            let Some((number, _)) = free.max_by_key(|(_, input)| input.bytes) else { return forget };
            if kept + outputs <= REGIONS_KEPT_BYTES_MAX {
                return forget;
            }
            let number = *number;
            self.inputs.remove(&number);
            forget.push(number);
        }
    }

    /// A region for a result of this size.
    ///
    /// Errors: `too_large` above what a pod may have, `overloaded` if its recipe holds all the descriptors
    /// that it may.
    pub fn room(&mut self, bytes: u64) -> Result<New, Fault> {
        let held: u64 = self.outputs.values().map(|output| output.bytes).sum();
        let size = rounded(bytes);
        if bytes > BLOB_BYTES_MAX || self.outputs.len() >= REGIONS_MAX || held.saturating_add(size) > REGIONS_BYTES_MAX {
            let text = format!(
                "room for a result of {bytes} bytes was refused: the pod has {held} bytes in {} regions, {} of which are not read to their end yet; at most \
                 {REGIONS_BYTES_MAX} in {REGIONS_MAX} are shared with one, and {BLOB_BYTES_MAX} in one blob",
                self.outputs.len(),
                self.outputs.values().filter(|output| output.with_host).count()
            );
            return Err(Fault::new(Code::TooLarge, text));
        }
        let failed = |error: io::Error| Fault::io("making room for a pod's result", &error);
        let memory = self.memory(size, "room for a result was refused")?.map_err(failed)?;
        let descriptor = memory.file.as_fd().try_clone_to_owned().map_err(failed)?;
        self.last += 1;
        self.outputs.insert(self.last, Output { memory, bytes: size, with_host: false });
        Ok(New { number: self.last, bytes: size, descriptor })
    }

    /// A blob that the pod sent in a region.
    ///
    /// The error says what is wrong with it: the region is not for results, the host has it already, or it is
    /// smaller than the blob.
    pub fn take(&mut self, number: u64, bytes: u64) -> Result<Arc<dyn Store>, String> {
        let output = self.outputs.get_mut(&number).ok_or_else(|| format!("in region {number}, which is none for results"))?;
        if output.with_host {
            return Err(format!("in region {number}, which it sent before and was not given back"));
        }
        if bytes > output.bytes {
            return Err(format!("of {bytes} bytes in region {number}, which has {}", output.bytes));
        }
        output.with_host = true;
        Ok(Arc::new(Sent { number, memory: output.memory.clone(), bytes, shared: self.shared.clone() }))
    }

    /// Nobody holds the blob in this region any more. Returns whether the pod should reuse it; otherwise the
    /// pod should forget it.
    pub fn freed(&mut self, number: u64) -> bool {
        let inputs: u64 = self.inputs.values().filter(|input| !input.busy).map(|input| input.bytes).sum();
        let free: u64 = self.outputs.values().filter(|output| !output.with_host).map(|output| output.bytes).sum();
        let Some(output) = self.outputs.get_mut(&number) else { return false };
        if inputs + free + output.bytes > REGIONS_KEPT_BYTES_MAX {
            self.outputs.remove(&number);
            return false;
        }
        output.with_host = false;
        true
    }
}

/// A result in a region; it outlives the pod. The pod can still write there: a reader gets the bytes that are
/// there when it reads.
struct Sent {
    number: u64,
    memory: Arc<Memory>,
    bytes: u64,
    shared: Weak<PodShared>,
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, into: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(into, "region {} of {} bytes", self.number, self.bytes)
    }
}

impl Store for Sent {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.memory.file.read_at(into, at)
    }

    fn mark(&self) -> [u64; 4] {
        let inode = self.memory.file.metadata().map_or(0, |metadata| metadata.ino());
        [self.number, self.bytes, inode, Arc::as_ptr(&self.memory) as u64]
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.free_region(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(byte: u8) -> Blob {
        Blob::new("x", "y", vec![byte; BLOB_FRAME_BYTES_MAX + 1])
    }

    fn read(descriptor: &OwnedFd, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        File::from(descriptor.try_clone().unwrap()).read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_region_for_asks_is_used_again_and_cannot_be_written_or_resized() {
        let mut regions = Regions::new(Weak::new(), None, Holder::of("lab/x"));
        let mut plan = regions.plan(&[large(7), Blob::new("small", "y", vec![1u8])]).unwrap();
        assert_eq!(plan.regions, [Some(1), None]);
        plan.copies.pop().unwrap().run().unwrap();
        let descriptor = &plan.new[0].descriptor;
        assert_eq!(read(descriptor, 3), [7; 3]);
        assert!(rustix::io::pwrite(descriptor, b"x", 0).is_err() && rustix::fs::ftruncate(descriptor, 1).is_err());
        // Not while it is in use, and not what it was never lent.
        let second = regions.plan(&[large(8)]).unwrap();
        assert_eq!((second.regions, second.new.len()), (vec![Some(2)], 1));
        assert!(regions.back(&[3]).is_err());
        assert_eq!(regions.back(&[1]), Ok(vec![]));
        assert!(regions.back(&[1]).is_err());
        let third = regions.plan(&[large(9)]).unwrap();
        assert_eq!((third.regions, third.new.len()), (vec![Some(1)], 0));
        // What the author's code holds is never written again.
        regions.dropped(&[1]).unwrap();
        assert!(regions.dropped(&[1]).is_err());
        assert_eq!(regions.plan(&[large(9)]).unwrap().regions, [Some(3)]);
    }

    #[test]
    fn a_result_is_one_blob_until_it_is_given_back() {
        let mut regions = Regions::new(Weak::new(), None, Holder::of("lab/x"));
        let new = regions.room(3 << 20).unwrap();
        assert_eq!((new.number, new.bytes), (1, 4 << 20));
        rustix::io::pwrite(&new.descriptor, b"abc", 0).unwrap();
        for size in [1, 8 << 20] {
            let error = rustix::fs::ftruncate(&new.descriptor, size).unwrap_err();
            assert_eq!(error, rustix::io::Errno::PERM);
        }
        assert!(regions.take(2, 1).unwrap_err().contains("none for results"));
        assert!(regions.take(1, (4 << 20) + 1).unwrap_err().contains("which has 4194304"));
        let blob = Blob::stored("x", "y", regions.take(1, 3).unwrap());
        assert_eq!(&blob.bytes(3).unwrap()[..], b"abc");
        assert!(regions.take(1, 3).unwrap_err().contains("not given back"));
        assert!(regions.freed(1));
        regions.take(1, 3).unwrap();
    }

    #[test]
    fn what_is_kept_and_what_there_may_be_at_all_is_bounded() {
        let mut regions = Regions::new(Weak::new(), None, Holder::of("lab/x"));
        assert_eq!(regions.room(BLOB_BYTES_MAX + 1).err().unwrap().code, Code::TooLarge);
        // Nothing touches their pages.
        let mut rooms = 0;
        let fault = loop {
            match regions.room(1 << 30) {
                Ok(_) => rooms += 1,
                Err(fault) => break fault,
            }
        };
        assert_eq!((rooms, fault.code), (8, Code::TooLarge));
        for number in 1..=8 {
            regions.take(number, 1).unwrap();
        }
        assert!((1..=8).all(|number| !regions.freed(number)), "a gigabyte is more than is kept");
        regions.room(1 << 30).unwrap();
        let mut many = Regions::new(Weak::new(), None, Holder::of("lab/x"));
        let fitting = (0..).map_while(|_| many.plan(&[large(1)]).ok()).count();
        assert_eq!(fitting, REGIONS_MAX);
    }
}
