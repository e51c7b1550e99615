//! `[serve]` of `hob.toml`: the operator's settings for a server.

use std::net::IpAddr;

/// See [`crate::model`]'s other tables: no key is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeRules {
    /// Holders of the token are told what the server's own user is: tracebacks, output of pods, paths.
    pub details: bool,
    /// Proxies in front of the server: who comes through one is not counted for its address.
    pub proxies: Vec<IpAddr>,
}
