//! The features that a pod claims to have.

/// The features that the pod named in its `hello`; none before.
#[derive(Default)]
pub(super) struct Features {
    takes_descriptors: bool,
    keeps_page: bool,
    dumps_stacks: bool,
    shares_memory: bool,
    heeds_credit: bool,
}

impl Features {
    /// `has_page`: the pod is run by Hob's runner and has a page. Only the runner is believed to keep one: by
    /// a page that nobody writes, no ask was ever begun.
    pub fn new(named: &[String], has_page: bool) -> Features {
        let has = |wanted: &str| named.iter().any(|feature| feature == wanted);
        Features {
            takes_descriptors: has("fds"),
            keeps_page: has_page && has("page"),
            dumps_stacks: has("stack"),
            shares_memory: has("fds") && has("regions"),
            heeds_credit: has("credit"),
        }
    }

    /// It can receive descriptors, and so a data lane of its own.
    pub fn takes_descriptors(&self) -> bool {
        self.takes_descriptors
    }

    /// It notes in its page which ask it has begun.
    pub fn keeps_page(&self) -> bool {
        self.keeps_page
    }

    /// It can print where it hangs.
    pub fn dumps_stacks(&self) -> bool {
        self.dumps_stacks
    }

    /// It can receive blobs in regions.
    pub fn shares_memory(&self) -> bool {
        self.shares_memory
    }

    /// It counts how much of a stream it may send.
    pub fn heeds_credit(&self) -> bool {
        self.heeds_credit
    }
}
