//! The values that the stages of one call share; `run.rs` has the stages.

use std::sync::Arc;

use tokio::time::Instant;

use super::{HostState, entry::Entry, journal::Record};
use crate::model::events;

/// The values that the stages of one call share.
pub struct CallContext<'a> {
    pub host: &'a Arc<HostState>,
    pub entry: &'a Arc<Entry>,
    /// The caller's channel for events before the outcome.
    pub events: events::Sender,
    pub deadline: Instant,
    pub record: &'a mut Record,
}
