//! Sessions on a real disk: which checkpoint is restored, which process has a session, and what is swept.

use super::*;

fn all(home: &Home) -> Vec<Found> {
    super::all(home).unwrap().whole().unwrap()
}

fn damaged_of(home: &Home, identity: &Identity) -> Option<Damaged> {
    super::damaged_of(home, identity).unwrap()
}

fn spec(max: usize) -> SessionSpec {
    SessionSpec { mode: Mode::Exclusive, idle_timeout_ms: 1, ttl_ms: 1_000, checkpoint_interval_ms: 0, max }
}

fn identity(name: &str) -> Identity {
    Identity { recipe: "test/counter".to_owned(), folder: None, name: name.to_owned() }
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn made(home: &Home, name: &str) -> Session {
    Session::make(home, identity(name), version("1.2.0"), &spec(8), &all(home)).unwrap()
}

fn keep(session: &mut Session, text: &'static str) -> u64 {
    let bytes = Bytes::from_static(text.as_bytes());
    let (first, rest) = (bytes.slice(..1), bytes.slice(1..));
    assert_eq!(session.piece(&first, false, false).unwrap(), Piece::More);
    match session.piece(&rest, true, false).unwrap() {
        Piece::Kept(number) => number,
        Piece::More => panic!("the last piece was not the last"),
    }
}

fn text(restore: Restore) -> (String, u64, Vec<u64>) {
    (io::read_to_string(restore.file).unwrap(), restore.kept.status.number, restore.damaged)
}

#[test]
fn the_last_two_are_kept_and_a_damaged_one_falls_back_to_the_one_before() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let mut session = made(&home, "a");
    assert!(session.restore(&version("1.2.0")).unwrap().is_none());
    session.used(true).unwrap();
    let lost = session.restore(&version("1.2.0")).unwrap_err();
    assert_eq!((lost.code, &lost.detail["calls"]), (Code::SessionLost, &serde_json::json!(1)));
    for state in ["one", "two", "three"] {
        keep(&mut session, state);
    }
    let folder = session.folder().to_owned();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let files = || fs::read_dir(&folder).unwrap().count();
    assert_eq!(files(), 6, "record, identity, lock, calls and two checkpoints");
    assert_eq!(text(session.restore(&version("1.9.0")).unwrap().unwrap()), ("three".to_owned(), 3, vec![]));
    for bad in ["1.1.0", "2.0.0"] {
        let fault = session.restore(&version(bad)).unwrap_err();
        assert_eq!((fault.code, &fault.detail["checkpoint_version"]), (Code::SessionLost, &serde_json::json!("1.2.0")), "{bad}");
    }
    fs::write(folder.join("3.checkpoint"), "thref").unwrap();
    assert_eq!(text(session.restore(&version("1.2.0")).unwrap().unwrap()), ("two".to_owned(), 2, vec![3]));
    fs::remove_file(folder.join("2.checkpoint")).unwrap();
    assert_eq!(session.restore(&version("1.2.0")).unwrap_err().detail["damaged"], serde_json::json!([3, 2]));
    session.delete().unwrap();
    assert!(!folder.exists() && all(&home).is_empty());
}

#[test]
fn one_has_it_at_a_time_and_what_was_counted_is_there_for_the_next() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let mut session = made(&home, "a");
    session.used(true).unwrap();
    keep(&mut session, "state");
    session.used(true).unwrap();
    // An unfinished checkpoint, as a killed host leaves it.
    session.piece(&Bytes::from_static(b"half"), false, false).unwrap();
    let [found] = &all(&home)[..] else { panic!("one session") };
    assert!(found.live && found.calls == 2 && found.record.identity == identity("a"), "{found:?}");
    assert_eq!(found.clone().take().unwrap_err().code, Code::SessionBusy);
    let folder = session.folder().to_owned();
    drop(session);
    fs::write(folder.join(".half-x"), "").unwrap();
    fs::write(folder.join("9.checkpoint"), "of a host that was killed before it was named").unwrap();
    let found = all(&home).remove(0);
    assert!(!found.live && found.is_over(found.used_ms + 1_000) && !found.is_over(found.used_ms + 999));
    let session = found.take().unwrap();
    assert_eq!((session.calls(), session.record().checkpoints[0].status.calls), (2, 1));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 5);
}

#[test]
fn there_are_so_many_and_what_is_no_session_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let _kept: Vec<Session> = ["a", "b"].iter().map(|name| made(&home, name)).collect();
    let more = |spec: &SessionSpec| Session::make(&home, identity("c"), version("1.0.0"), spec, &all(&home));
    assert_eq!(more(&spec(2)).unwrap_err().code, Code::SessionsFull);
    more(&spec(3)).unwrap();
    fs::create_dir(home.sessions().join("x")).unwrap();
    fs::write(home.sessions().join("x").join(FILE), "{").unwrap();
    assert_eq!(all(&home).len(), 3);
}

#[test]
fn a_damaged_record_is_a_lost_session_and_no_new_one() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let other = made(&home, "other");
    let theirs = fs::read(other.folder().join(FILE)).unwrap();
    for (name, bytes) in [("torn", b"{".to_vec()), ("large", vec![b' '; 1 << 20]), ("another's", theirs)] {
        let mut session = made(&home, "a");
        session.used(true).unwrap();
        keep(&mut session, "state");
        let folder = session.folder().to_owned();
        fs::write(folder.join(FILE), bytes).unwrap();
        assert_eq!(damaged_of(&home, &identity("a")).unwrap().fault().code, Code::SessionBusy, "{name}");
        drop(session);
        assert_eq!(all(&home).len(), 1, "{name}: the other one alone");
        let damaged = damaged_of(&home, &identity("a")).unwrap();
        let fault = damaged.fault();
        assert_eq!((fault.code, &fault.detail["calls"], &fault.detail["checkpoints"]), (Code::SessionLost, &1.into(), &1.into()), "{name}");
        assert!(fault.hint.unwrap().contains("`Host::close_session` of `a` of `test/counter`"));
        let [listed] = &super::damaged(&home).unwrap()[..] else { panic!("{name}: one is damaged") };
        assert_eq!(listed.identity, Some(identity("a")), "{name}");
        assert!(damaged_of(&home, &identity("b")).is_none());
        damaged.delete().unwrap();
        assert!(!folder.exists());
    }
    // A session with neither a call nor a checkpoint loses nothing.
    let session = made(&home, "a");
    fs::write(session.folder().join(FILE), "{").unwrap();
    drop(session);
    assert!(damaged_of(&home, &identity("a")).is_none());
    made(&home, "a");
}

#[test]
fn a_checkpoint_that_is_no_plain_file_of_its_length_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let mut session = made(&home, "a");
    keep(&mut session, "one");
    keep(&mut session, "two");
    let newest = session.folder().join("2.checkpoint");
    let one = || text(session.restore(&version("1.2.0")).unwrap().unwrap()).0;
    fs::remove_file(&newest).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &newest, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    assert_eq!(one(), "one");
    fs::remove_file(&newest).unwrap();
    File::create(&newest).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(one(), "one");
    fs::remove_file(&newest).unwrap();
    // The same bytes, but behind a link.
    fs::write(session.folder().join("elsewhere"), "two").unwrap();
    std::os::unix::fs::symlink("elsewhere", &newest).unwrap();
    assert_eq!(one(), "one");
}
