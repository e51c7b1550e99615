//! For recipe authors and repository administrators: build, pack, publish, sign.

pub mod build;
