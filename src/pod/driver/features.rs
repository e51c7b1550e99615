//! The features that a pod claims to have.

/// The features that the pod named in its `hello`.
#[derive(Default)]
pub(super) struct Features {
    /// It notes in its page which ask it has begun.
    pub keeps_page: bool,
    pub dumps_stacks: bool,
    /// It can receive blobs in regions.
    pub shares_memory: bool,
    /// It counts how much of a stream it may send.
    pub heeds_credit: bool,
}
