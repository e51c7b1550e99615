//! Plain data and pure rules: no IO, no clock, nothing that could fail for a reason outside its arguments.
//!
//! Every other layer imports this one; this one imports none of them.

pub mod address;
pub mod blob;
pub mod call;
pub mod distinct;
pub mod doctor;
pub mod document;
mod edition;
pub mod events;
pub mod fault;
pub mod grant;
pub mod home;
pub mod id;
pub mod limits;
pub mod machine;
mod manifest_reader;
pub mod model_name;
pub mod operation;
pub mod path_pattern;
mod pod_table;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod schema;
mod schema_key;
mod serve;
pub mod session;
pub mod shown;
pub mod source;
pub mod stand_in;
pub mod status;
mod typed;
pub mod verified;
mod version;

pub use address::Address;
pub use blob::{Blob, OpenFile, Store};
pub use call::{Admitted, Call, Event, Outcome, Priority};
pub use document::Document;
pub use edition::Edition;
pub use fault::{Blame, Code, Fault, exhausted};
pub use grant::{Grants, Permissions};
pub use home::Home;
pub use id::{Digest, RecipeName, RecipeRef};
pub use model_name::ModelNames;
pub use operation::Operation;
pub use progress::{Progress, Silent, Step};
pub use recipe::Manifest;
pub use report::Report;
pub use schema::Schema;
pub use serve::ServeRules;
pub use source::ModelSource;
pub use stand_in::StandIn;
pub use verified::{Origin, Verified};
pub use version::VersionRange;
