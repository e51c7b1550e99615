//! Tools for recipe authors and repository administrators: build, pack, publish, sign.

pub mod build;
pub mod cases;
pub mod keys;
pub mod pack;
pub mod publish;
pub mod repository;
mod script;
mod signed;
