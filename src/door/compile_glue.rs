//! `hob compile-glue`: compiles the glue that a host sends, and does nothing else. Only hosts start it.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::print;
use crate::{
    glue::{Job, Reservation, compile_here, confine, receive},
    host::compiler::Answer,
};

/// Reads a component on standard input and compiles it into `folder`, within this process's own limits.
pub fn main(version: &str, reservation: &str, folder: &Path) -> ExitCode {
    let answer = match env!("CARGO_PKG_VERSION") {
        own if own != version => Answer::OtherVersion(own.to_owned()),
        _ => answer(reservation, folder.to_owned()).unwrap_or_else(Answer::Fault),
    };
    match serde_json::to_string(&answer) {
        Ok(text) => print::result(&text),
        Err(_) => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn answer(reservation: &str, into: PathBuf) -> Result<Answer, String> {
    let reservation = Reservation::named(reservation).ok_or_else(|| format!("no reservation `{reservation}`"))?;
    // Confine this process before it reads the first byte of the component.
    confine().map_err(|error| format!("setting its own limits: {error}"))?;
    let component = receive(&mut std::io::stdin().lock()).map_err(|error| format!("reading the component: {error}"))?;
    // The host holds the other end while it waits. When that end closes, nobody waits, so the work is over.
    let wait = || {
        let _ = std::io::stdin().lock().read(&mut [0]);
        std::process::exit(1);
    };
    std::thread::Builder::new().spawn(wait).map_err(|error| format!("starting a thread: {error}"))?;
    compile_here(Job { component: &component, reservation, into: &into }).map(Answer::Compiled).map_err(|fault| fault.message)
}
