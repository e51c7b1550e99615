//! The handle that doors and apps hold: cheap to clone, the same host behind each.

use std::sync::Arc;

use super::HostState;
use crate::model::Home;

/// A plugin host. A clone is the same host.
///
/// ```no_run
/// use hob::{Call, Config, Fault, Host};
///
/// #[tokio::main]
/// async fn main() -> Result<(), Fault> {
///     let host = Host::open(Config::from_environment()?).await?;
///     let input = serde_json::json!({ "text": "hello" });
///     let outcome = host.call(Call::new("hob/sentence-embeddings", "embed", input)?).await?;
///     println!("{} numbers", outcome.output.value()["embeddings"][0].as_array().map_or(0, Vec::len));
///     host.shutdown().await;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Host(pub(super) Arc<HostState>);

impl Host {
    /// The home, which has the host's files.
    pub(crate) fn home(&self) -> &Home {
        &self.0.home
    }
}
