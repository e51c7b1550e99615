//! The program itself, as people and scripts use it: real processes, real signed repositories, real signals.
//!
//! These tests check what a shell sees: arguments, stdout, stderr, exit codes and the files that are left.

mod besieged;
mod caches;
pub mod calling;
mod cases;
mod compiling;
pub mod damaged;
mod deploying;
mod disk;
mod doctoring;
mod documented;
mod dripping;
mod exhausted;
mod faults;
mod floods;
mod freezing;
mod granting;
mod handing;
mod homes;
mod hostile;
mod indexes;
mod injected;
mod killing;
mod managing;
mod manuals;
mod naming;
mod owning;
mod packing;
mod rehearsal;
pub mod rig;
mod schemas;
mod secrets;
pub mod served;
mod serving;
mod spelling;
mod standing_in;
mod tampering;
pub mod wheels;
