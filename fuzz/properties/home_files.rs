//! `hob.toml` and `hob.lock`: any text is a configuration, a lock file, or `invalid_config` with its line.
//!
//! The same text goes to both readers. What a lock file says survives being written; a key that Hob does not
//! know passes in neither.

use hob::{
    model::{Code, Fault, limits},
    shelf::{config::Config, store::lockfile::LockFile},
};

pub fn holds(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.len() as u64 > limits::CONFIG_BYTES_MAX {
        return;
    }
    match Config::parse(text, "hob.toml") {
        Ok(config) => configured(&config, text),
        Err(fault) => refused(&fault, "hob.toml", text),
    }
    match LockFile::parse(text, "hob.lock") {
        Ok(lock) => locked(&lock, text),
        Err(fault) => refused(&fault, "hob.lock", text),
    }
}

fn refused(fault: &Fault, what: &str, text: &str) {
    assert!(fault.code == Code::InvalidConfig && fault.message.starts_with(what), "{fault}");
    if let Some(line) = fault.detail.get("line") {
        let line = line.as_u64().unwrap_or_else(|| panic!("{fault:?}"));
        assert!(line >= 1 && line <= text.matches('\n').count() as u64 + 1, "line {line}: {fault}");
    }
}

fn configured(config: &Config, text: &str) {
    for (at, remote) in config.remotes.iter().enumerate() {
        assert!(!remote.name.is_empty() && !remote.name.contains(['/', '.', '\0', '\\']), "{:?} becomes a folder's name", remote.name);
        assert!(config.remotes[..at].iter().all(|other| other.name != remote.name));
        assert_eq!(config.remote(&remote.name).ok(), Some(remote));
    }
    for path in [&config.tools.python, &config.tools.uv].into_iter().flatten() {
        assert!(path.is_absolute());
    }
    // At the top, where it can only belong to the root.
    assert!(Config::parse(&format!("zz-unknown = 1\n{text}"), "hob.toml").is_err(), "an unknown key passes");
}

fn locked(lock: &LockFile, text: &str) {
    // What cannot be read of it has a fault of its own, and is not written.
    lock.damaged().iter().for_each(|damaged| refused(&damaged.fault, "hob.lock", text));
    if lock.damaged().is_empty() {
        let written = lock.text().expect("what was read can be written");
        assert_eq!(LockFile::parse(&written, "hob.lock").as_ref(), Ok(lock), "a lock file written anew is another:\n{written}");
    }
    assert!(lock.entries().windows(2).all(|pair| pair[0].name < pair[1].name));
    assert!(LockFile::parse(&format!("zz-unknown = 1\n{text}"), "hob.lock").is_err(), "an unknown key passes");
}
