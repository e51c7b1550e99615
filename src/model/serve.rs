//! `[serve]` of `hob.toml`: the operator's settings for a server.

use std::net::IpAddr;

/// A missing key has its default, as in [`crate::model`]'s other tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeRules {
    /// Whether holders of the token see what the server's own user sees: tracebacks, output of pods, paths.
    pub details: bool,
    /// Proxies in front of the server: clients that come through one are not counted by its address.
    pub proxies: Vec<IpAddr>,
}
