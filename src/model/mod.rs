//! Plain data and pure rules: no IO, no clock, nothing that fails for a reason outside its arguments.
//!
//! ```text
//!    words --> call.rs  Call --> Admitted (with verified.rs: the recipe it is for) --> Outcome
//!                 ^
//!    manifest/  recipe.toml     schema/  what a document may be, and what checking it costs
//!    grant.rs   permissions     hint.rs  next steps, worded by each door
//!    fault.rs   every failure   limits/  every bound     status/  what a host tells of itself
//! ```
//!
//! Every other layer imports this one; this one imports none of them.

pub mod address;
pub mod blob;
pub mod call;
pub mod case;
pub mod distinct;
pub mod document;
mod edition;
pub mod events;
pub mod fault;
pub mod grant;
pub mod hint;
pub mod home;
pub mod id;
pub mod limits;
pub mod manifest;
pub mod model_name;
pub mod nearest;
pub mod path_pattern;
pub mod printable;
pub mod priority;
pub mod progress;
pub mod schema;
mod secret;
mod serve;
pub mod shown;
pub mod stand_in;
pub mod status;
pub mod text;
pub mod toml_file;
mod typed;
pub mod verified;
mod version;

pub use address::Address;
pub use blob::{Blob, OpenFile, Store};
pub use call::Admitted;
pub use call::Call;
pub use call::Event;
pub use call::Outcome;
pub use document::Document;
pub use edition::Edition;
pub use fault::{Blame, Code, Fault, exhausted_in, has_run_out, os_error_in};
pub use grant::{Grants, Permissions};
pub(crate) use hint::hint;
pub use hint::{Door, Hint, act};
pub use home::Home;
pub use id::{Digest, RecipeName, RecipeRef};
pub use manifest::Manifest;
pub use manifest::operation::Operation;
pub use manifest::reading::Reading;
pub use manifest::source::ModelSource;
pub use model_name::ModelNames;
pub use priority::Priority;
pub use progress::{Progress, Silent, Step};
pub use schema::Schema;
pub use serve::ServeRules;
pub use stand_in::StandIn;
pub use status::report::Report;
pub use verified::{Origin, Verified};
pub use version::VersionRange;
