//! Checks `SECURITY.md` against the code: each promise names tests that exist, and the table of processes is
//! complete.
//!
//! Each rule is a function over texts, and is first shown to catch a planted offender.

use std::{collections::BTreeMap, fs, path::Path};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("SECURITY.md")).unwrap()
}

/// The lines of the section with this heading, up to the next one of its level.
fn section<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = page.lines().skip_while(|line| line.strip_prefix("## ") != Some(heading)).skip(1);
    lines.take_while(|line| !line.starts_with("## ")).collect()
}

/// The rows of the tables in these lines, without their heads.
fn rows<'a>(lines: &[&'a str]) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for pair in lines.windows(2) {
        // A head is the line before `|---|`.
        if pair[1].starts_with('|') && !pair[1].starts_with("|--") {
            rows.push(cells(pair[1]));
        }
    }
    let heads: Vec<_> = lines.windows(2).filter(|pair| pair[1].starts_with("|--")).map(|pair| cells(pair[0])).collect();
    rows.retain(|row| !heads.contains(row));
    rows
}

/// The texts between single backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether the words name a place in this repository: `path` or `path::test`.
fn is_place(words: &str) -> bool {
    let folders = ["src/", "tests/", "python/", "fuzz/", "docs/", "packaging/", "recipes/", ".make/"];
    folders.iter().any(|folder| words.starts_with(folder)) && !words.contains(' ')
}

/// Whether `text` has a test of that name: in Rust a function below a test's attribute, in Python a function.
fn has_test(path: &str, text: &str, name: &str) -> bool {
    if path.ends_with(".py") {
        return text.contains(&format!("def {name}("));
    }
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let is_it =
        |line: &str| line.split_once("fn ").is_some_and(|(_, rest)| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')));
    let is_attribute = |line: &&str| line.starts_with("#[") && line.contains("test");
    lines.iter().enumerate().any(|(at, line)| is_it(line) && lines[at.saturating_sub(4)..at].iter().any(is_attribute))
}

/// Places that the page names and that do not exist. `read` returns the text of a path, or an empty text for
/// a folder.
fn missing(page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for words in page.lines().flat_map(quoted).filter(|words| is_place(words)) {
        let (path, test) = words.split_once("::").map_or((words, None), |(path, test)| (path, Some(test)));
        match (read(path), test) {
            (None, _) => wrong.push(format!("`{words}`: there is no {path}")),
            (Some(text), Some(test)) if !has_test(path, &text, test) => wrong.push(format!("`{words}`: {path} has no test {test}")),
            _ => {}
        }
    }
    wrong
}

/// Rows whose last cell names no test.
fn unproven(page: &str, headings: &[&str]) -> Vec<String> {
    let rows = headings.iter().flat_map(|heading| rows(&section(page, heading)));
    let proven = |cell: &str| quoted(cell).any(|words| is_place(words) && words.contains("::"));
    rows.filter(|row| !row.last().is_some_and(|cell| proven(cell))).map(|row| row[0].to_owned()).collect()
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let planted = "## A\n| what | shown by |\n|---|---|\n| one | `src/a.rs::good` |\n| two | `src/a.rs::bad`, `src/b.rs` |\n| three | words |\n## B\n";
    let read = |path: &str| (path == "src/a.rs").then(|| "#[test]\nfn good() {}\n\n\n\n\nfn bad() {}\n".to_owned());
    assert_eq!(missing(planted, read), ["`src/a.rs::bad`: src/a.rs has no test bad", "`src/b.rs`: there is no src/b.rs"]);
    assert_eq!(unproven(planted, &["A"]), ["three"]);

    let read = |path: &str| {
        let place = root().join(path);
        if place.is_dir() { Some(String::new()) } else { fs::read_to_string(place).ok() }
    };
    let page = page();
    assert_eq!(missing(&page, read), [""; 0]);
    let headings = ["Who attacks, and what holds", "Promises, each with its test"];
    assert!(headings.iter().all(|heading| rows(&section(&page, heading)).len() >= 5), "the tables are not where they were");
    assert_eq!(unproven(&page, &headings), [""; 0]);
}

/// The number of places in a text that start a process, or replace this process by another program.
fn starts(path: &str, text: &str) -> usize {
    if path.ends_with(".rs") {
        // A file's own tests come last in it.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
        let lines = code.lines().map(|line| line.split("//").next().unwrap_or(""));
        return lines.map(|line| line.matches("Command::new(").count() + line.matches(".exec()").count()).sum();
    }
    let words =
        ["os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system(", "os.popen(", "subprocess", "multiprocessing", "pty.fork"];
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    lines.map(|line| words.iter().map(|word| line.matches(word).count()).sum::<usize>()).sum()
}

/// The files that the table names, with the number of places in each.
fn told(page: &str) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for row in rows(&section(page, "What runs, as which user, before which wall")) {
        // The second column names the files.
        let Some(cell) = row.get(1) else { continue };
        let parts: Vec<_> = cell.split('`').collect();
        for (path, after) in parts.iter().skip(1).step_by(2).zip(parts.iter().skip(2).step_by(2)) {
            let count = after.trim_start().strip_prefix('×').and_then(|rest| rest.split([',', ' ']).next()?.parse().ok()).unwrap_or(1);
            *told.entry((*path).to_owned()).or_default() += count;
        }
    }
    told
}

fn sources(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Files that hold only tests may start any process.
            if path.is_dir() && name != "tests" && name != "__pycache__" {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) && name != "tests.rs" {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), text));
            }
        }
    }
    found
}

#[test]
fn every_start_of_a_process_is_in_the_table() {
    let planted = "let a = Command::new(x);\n// Command::new(no)\nCommand::new(y)\n#[cfg(test)]\nmod tests {\n    Command::new(z)\n}\n";
    assert_eq!(starts("src/x.rs", planted), 2);
    assert_eq!(starts("python/src/x.py", "import subprocess\npid = os.fork()  # os.fork\nos.execve(a, b, c)\n"), 3);
    let table = "## What runs, as which user, before which wall\n| a | b | c |\n|---|---|---|\n| x | `src/x.rs` ×2, `src/y.rs` | - |\n| z | `src/x.rs` | - |\n";
    assert_eq!(told(table), BTreeMap::from([("src/x.rs".to_owned(), 3), ("src/y.rs".to_owned(), 1)]));

    let all = sources("src", "rs").into_iter().chain(sources("python/src", "py"));
    let found: BTreeMap<_, _> = all.map(|(path, text)| (path.clone(), starts(&path, &text))).filter(|(_, count)| *count > 0).collect();
    assert!(found.len() > 10, "the sources are not where they were");
    assert_eq!(told(&page()), found, "left: what SECURITY.md says, right: what the sources have");
}
