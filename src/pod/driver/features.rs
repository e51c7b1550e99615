//! What a pod can do, by its own word.

/// What the pod said in its `hello` that it can do.
#[derive(Default)]
pub(super) struct Features {
    /// It notes in its page what it has begun.
    pub keeps_page: bool,
    pub dumps_stacks: bool,
    /// It can have blobs in regions.
    pub shares_memory: bool,
    /// It counts what it may send of a stream.
    pub heeds_credit: bool,
}
