//! For recipe authors and repository administrators: build, pack, publish, sign.

mod cases;
pub mod keys;
pub mod pack;
pub mod publish;
pub mod repository;
mod requirements;
mod signed;
