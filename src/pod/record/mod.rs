//! What is kept of pods while they live and after: what they print, and how they crashed.

pub mod dossier;
pub mod line;
pub mod log;
pub mod log_files;
pub mod printed;
