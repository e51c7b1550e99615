//! Valid locks, and locks that another reader could read differently.

use proptest::prelude::*;

use crate::shelf::environment::requirements::*;

const HASH: &str = "--hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274";
const OTHER: &str = "--hash=sha256:0000000000000000000000000000000000000000000000000000000000000001";

fn read(text: &str) -> Result<Lock, Fault> {
    Lock::parse(text.as_bytes(), "requirements.lock")
}

/// Asserts what every tool that reads the canonical text must agree on: only LF ends a line, and no line is
/// an option.
fn assert_plain(text: &str) {
    assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text:?}");
    for line in text.lines() {
        assert!(line.starts_with(|first: char| first.is_ascii_alphanumeric()), "{line:?}");
        let said = line.replace("--hash=sha256:", "");
        assert!(!said.contains([':', '\\', '#', '$', '@', '/', '`', '"']), "{line:?}");
        assert_eq!(line.matches("--").count(), line.matches(" --hash=sha256:").count(), "{line:?}");
    }
}

#[test]
fn a_compiled_lock_reads_and_is_written_anew() {
    let text = format!(
        "# by uv\nsix==1.17.0 \\\n    {HASH} \\\n    {OTHER}\n    # via x\n\nidna[all, more]==3.10 ; python_version < \"3.12\" {HASH} # why é\n"
    );
    let lock = read(&text).unwrap();
    assert_eq!(lock.pins().collect::<Vec<_>>(), [("six", "1.17.0"), ("idna", "3.10")]);
    assert_eq!(lock.text(), format!("six==1.17.0 {OTHER} {HASH}\nidna[all,more]==3.10 ; python_version < '3.12' {HASH}\n"));
    assert_eq!(read(&lock.text()).unwrap(), lock);
    assert_eq!(read(&text.replace('\n', "\r\n")).unwrap(), lock, "CR LF ends a line as LF does");
    assert_eq!(read("# nothing\n").unwrap().text(), "");
}

#[test]
fn every_shipped_lock_reads_and_says_the_same_when_written_anew() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut left, mut locks) = (vec![root.join("recipes"), root.join("tests")], 0);
    while let Some(folder) = left.pop() {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "lock") && path.file_name().unwrap() != "Cargo.lock" {
                let bytes = std::fs::read(&path).unwrap();
                let lock = Lock::parse(&bytes, &path.display().to_string()).unwrap_or_else(|fault| panic!("{}", fault.message));
                assert_eq!(Lock::parse(lock.text().as_bytes(), "anew").unwrap(), lock);
                assert_plain(&lock.text());
                let hashes = |text: &str| text.matches("--hash=sha256:").count();
                assert_eq!(hashes(&lock.text()), hashes(std::str::from_utf8(&bytes).unwrap()), "{}", path.display());
                locks += 1;
            }
        }
    }
    assert!(locks >= 8, "{locks} locks were found");
}

#[test]
fn what_is_not_a_hashed_pin_is_refused_by_line() {
    let table = [
        ("six==1.17.0\n".to_owned(), 1, "`six==1.17.0` has no hash"),
        (format!("six==1.17.0 {HASH}\n\nidna==3.10\n"), 3, "`idna==3.10` has no hash"),
        (format!("six>=1.17.0 {HASH}"), 1, "`six>=1.17.0` is not pinned"),
        (format!("six===1.17.0 {HASH}"), 1, "is not pinned"),
        (format!("six==1.* {HASH}"), 1, "is not pinned"),
        (format!("six==-1 {HASH}"), 1, "is not pinned"),
        (format!("six[a;b]==1 {HASH}"), 1, "is not pinned"),
        (format!("six @ file:///six.whl {HASH}"), 1, "is not pinned"),
        (format!("six @ http://x/?a==b {HASH}"), 1, "is not pinned"),
        (format!("six==${{HOME}} {HASH}"), 1, "is not pinned"),
        (format!("${{NAME}}==1 {HASH}"), 1, "is not pinned"),
        (format!("./six==1 {HASH}"), 1, "is not pinned"),
        (format!("six.whl==1 --hash=sha256:${{X}} {HASH}"), 1, "is not `--hash=sha256:`"),
        ("-e .".to_owned(), 1, "`-e`: a lock names packages"),
        ("-r other.txt".to_owned(), 1, "`-r`: a lock names packages"),
        ("\n--index-url=http://x".to_owned(), 2, "`--index-url`: a lock names packages"),
        ("  --no-binary evil".to_owned(), 1, "`--no-binary`: a lock names packages"),
        ("six==1.17.0 --hash=md5:abc".to_owned(), 1, "is not `--hash=sha256:`"),
        (format!("six==1.17.0 {HASH} --global-option=x"), 1, "`--global-option=x` of `six==1.17.0` is not"),
        (format!("six==1.17.0 {HASH} idna==3.10"), 1, "`idna==3.10` of `six==1.17.0` is not"),
        (format!("six==1.17.0 --no-binary six {HASH}"), 1, "is not pinned"),
    ];
    for (text, line, says) in table {
        let fault = read(&text).expect_err(&text);
        assert_eq!(fault.code, Code::InvalidRecipe);
        assert!(fault.message.starts_with(&format!("requirements.lock:{line}: ")) && fault.message.contains(says), "{}", fault.message);
    }
}

/// Texts in which some reader finds another number of lines, or other words, than Hob does.
#[test]
fn what_two_programs_may_read_differently_is_refused_by_line() {
    let table = [
        (format!("# comment\r--no-binary evil\revil==1.0 {HASH}\n"), 1, "U+000D"),
        (format!("six==1.17.0 {HASH}\r"), 1, "U+000D"),
        (format!("six==1.17.0 {HASH}\r\r\n"), 1, "U+000D"),
        (format!("six==1.17.0 \\\r{HASH}\n"), 1, "U+000D"),
        (format!("# a\u{b}--no-binary evil\nsix==1 {HASH}"), 1, "U+000B"),
        (format!("# a\u{c}--no-binary evil\nsix==1 {HASH}"), 1, "U+000C"),
        (format!("# a\n# b\u{1c}-r x\nsix==1 {HASH}"), 2, "U+001C"),
        (format!("# a\u{85}-r x\nsix==1 {HASH}"), 1, "U+0085"),
        (format!("# a\u{2028}-r x\nsix==1 {HASH}"), 1, "U+2028"),
        (format!("# a\u{2029}-r x\nsix==1 {HASH}"), 1, "U+2029"),
        (format!("\u{feff}six==1 {HASH}"), 1, "U+FEFF"),
        (format!("six==1\0 {HASH}"), 1, "U+0000"),
        (format!("six==1 \u{1b}[2K {HASH}"), 1, "U+001B"),
        (format!("six==1\u{a0}{HASH}"), 1, "U+00A0"),
        (format!("ѕix==1 {HASH}"), 1, "U+0455"),
        ("six==1.17.0 \\".to_owned(), 1, "goes on past the end"),
        (format!("six==1.17.0 {HASH} \\\n"), 1, "goes on past the end"),
        (format!("six==1.17.0 {HASH} \\ \nidna==3 {HASH}"), 1, "`\\` of `six==1.17.0` is not"),
        (format!("six==1.17.0 {HASH} \\ # x\nidna==3 {HASH}"), 1, "`\\` of `six==1.17.0` is not"),
        (format!("six==1.17.0 \\\n# x\n{HASH}"), 1, "has no hash"),
        (format!("six==1.17.0 # {HASH}"), 1, "has no hash"),
        (format!("six==1 ; {HASH}"), 1, "it ends too early"),
        (format!("six==1 ; python_version {HASH}"), 1, "wanted a comparison"),
        (format!("six==1 ; 'a' == 'b' or os.system == 'x' {HASH}"), 1, "`os` is no variable"),
        (format!("six==1 ; python_version < '3.12 {HASH}"), 1, "without its end"),
        (format!("six==1 ; python_version < '3\\'.12' {HASH}"), 1, "a string holds"),
        (format!("six==1 ; python_version < '${{X}}' {HASH}"), 1, "a string holds"),
        (format!("six==1 ; (python_version < '3' {HASH}"), 1, "without its `)`"),
        (format!("six==1 ; python_version < '3') {HASH}"), 1, "`)` after its end"),
        (format!("six==1 ; python_version < '3' ; os_name == 'a' {HASH}"), 1, "`;` has no meaning"),
        (format!("six==1 ; {}'a' == 'b'{} {HASH}", "(".repeat(40), ")".repeat(40)), 1, "more than 32 deep"),
    ];
    for (text, line, says) in table {
        let fault = read(&text).expect_err(&text);
        assert_eq!(fault.code, Code::InvalidRecipe);
        assert!(
            fault.message.starts_with(&format!("requirements.lock:{line}: ")) && fault.message.contains(says),
            "{text:?}: {}",
            fault.message
        );
    }
    assert!(Lock::parse(b"\xff", "x").unwrap_err().message.contains("not UTF-8"));
}

proptest! {
    /// Every valid lock, written in canonical form, reads as the same lock, and its text has one meaning.
    #[test]
    fn what_reads_is_written_plainly_and_reads_as_the_same(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24)) {
        if let Ok(lock) = read(&pieces.concat()) {
            let text = lock.text();
            assert_plain(&text);
            prop_assert_eq!(text.lines().count(), lock.pins().count());
            prop_assert_eq!(read(&text).unwrap(), lock);
        }
    }
}

const PIECES: &[&str] = &[
    "six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274",
    "idna[all]==3.10 ; (python_version < '3.12' or os_name not in \"nt\") \\\n --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274",
    " --hash=sha256:0000000000000000000000000000000000000000000000000000000000000001",
    "a==1",
    " ; ",
    "python_version",
    " < ",
    "'3'",
    " and ",
    "(",
    ")",
    "extra == 'x'",
    "\n",
    "\n",
    "\r\n",
    "\r",
    " \\\n",
    "\\",
    " # ",
    "#",
    "\t",
    " ",
    "-r x",
    "--no-binary evil",
    "${X}",
    "@ file:///x",
    "\u{85}",
    "\u{2028}",
    "\0",
    "é",
    "[b]",
    "==",
    "\u{c}",
];
