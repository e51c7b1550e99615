//! Decides what each caller may read of Hob's own words.
//!
//! A fault tells its caller what went wrong with the call. Tracebacks, output of pods, values of variables
//! and paths of the server are for its operator only. This is the only place that decides; it filters
//! everything that Hob says itself, and never a recipe's answer.

use std::{
    borrow::Cow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Map, Value};

use crate::model::{Door, Home, hint, limits::SERVE_WITHHELD_LOG_BYTES_MAX};

/// The reader of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// The user that runs the server, who may read everything.
    Operator,
    /// A holder of the token, who gets only what a caller needs. The folders of the server, whose paths are
    /// not shown.
    Caller(Arc<[String]>),
}

/// Replaces a path.
const PATH: &str = "[path]";

/// Numbers the faults of which something was withheld; the operator finds the rest in the log by that number.
static REFERENCES: AtomicU64 = AtomicU64::new(1);

/// Keys of a fault's `detail` that its caller gets: what is wrong with the call, what to do about it, and the
/// reference by which the operator finds the rest.
const CALLER_DETAIL: &[&str] = &[
    "allowed",
    "blob",
    "calls",
    "cap",
    "checkpoint",
    "checkpoint_version",
    "checkpoints",
    "code",
    "crash",
    "damaged",
    "deadline_ms",
    "detail_dropped_bytes",
    "device",
    "dossier",
    "dropped",
    "errno",
    "exit_code",
    "expected",
    "findings",
    "found",
    "found_bytes",
    "free_bytes",
    "have_bytes",
    "last_fault",
    "layer",
    "library",
    "line",
    "memory_bytes",
    "memory_bytes_max",
    "model",
    "module",
    "nearest",
    "network_refusals",
    "other_hob",
    "package",
    "permissions",
    "pointer",
    "problem",
    "seen",
    "signal",
    "signed_bytes",
    "status",
    "type",
    "violations",
    "wanted",
    "wanted_bytes",
];

/// Keys of a `detail` for the operator only: output of pods, Python's frames and variables, places on the
/// server's disk or network.
const OPERATOR_DETAIL: &[&str] = &[
    "also_in",
    "answers",
    "case",
    "cases",
    "cause",
    "causes",
    "command",
    "detail",
    "detail_text",
    "doctor",
    "environment",
    "expired",
    "file",
    "folder",
    "group",
    "indexes",
    "key",
    "left_behind",
    "log",
    "mode",
    "network_refused",
    "output",
    "path",
    "reports",
    "signed_sha256",
    "stderr",
    "stdout",
    "target",
    "traceback",
    "user",
    "why",
];

/// Top folders whose paths reveal something about the server.
const TOPS: &[&str] = &["/home/", "/root/", "/tmp/", "/usr/", "/opt/", "/etc/", "/var/", "/run/", "/proc/", "/srv/", "/mnt/", "/media/"];

impl Audience {
    /// A holder of the token of the server of `home`.
    pub fn caller(home: &Home) -> Audience {
        let mut folders: Vec<String> = Vec::new();
        let user = std::env::var_os("HOME");
        for folder in home.folders().into_iter().chain(user.as_deref().map(Path::new)).chain([&*std::env::temp_dir()]) {
            for folder in [Some(folder.to_owned()), folder.canonicalize().ok()].into_iter().flatten() {
                let text = folder.display().to_string();
                if text.len() > 1 && !folders.contains(&text) {
                    folders.push(text);
                }
            }
        }
        Audience::Caller(folders.into())
    }

    /// The part of `said` that this audience may read, with hints in the words of HTTP. The withheld parts of
    /// a fault go to the server's log.
    pub fn told(&self, mut said: Value) -> Value {
        hint::word(&mut said, Door::Http);
        let Audience::Caller(folders) = self else { return said };
        let mut telling = Telling { folders, withheld: Map::new() };
        let mut told = telling.value(said);
        // Only if the answer itself is a fault, not if it reports an older one.
        if let (Some(fault), false) = (told.get_mut("fault"), telling.withheld.is_empty()) {
            let reference = format!("{}-{}", std::process::id(), REFERENCES.fetch_add(1, Ordering::Relaxed));
            let mut text = Value::Object(telling.withheld).to_string();
            text.truncate(text.floor_char_boundary(SERVE_WITHHELD_LOG_BYTES_MAX));
            let code = fault["code"].as_str().unwrap_or_default();
            tracing::warn!("fault {reference} ({code}), of which its caller was not told: {}", text);
            match &mut fault["detail"] {
                Value::Object(detail) => drop(detail.insert("reference".to_owned(), reference.into())),
                none => *none = serde_json::json!({ "reference": reference }),
            }
        }
        told
    }

    /// Whether this audience may read log lines of pods, which may hold anything.
    pub fn may_read_logs(&self) -> bool {
        *self == Audience::Operator
    }
}

struct Telling<'a> {
    folders: &'a [String],
    /// The withheld parts, by key.
    withheld: Map<String, Value>,
}

impl Telling<'_> {
    fn value(&mut self, said: Value) -> Value {
        match said {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(entries) => {
                let is_fault = ["code", "blame", "message"].iter().all(|key| entries.contains_key(*key));
                let entry = |(key, value): (String, Value)| match is_fault && key == "detail" {
                    true => (key, self.detail(value)),
                    false => (key, self.value(value)),
                };
                Value::Object(entries.into_iter().map(entry).collect())
            }
            other => other,
        }
    }

    fn detail(&mut self, detail: Value) -> Value {
        let Value::Object(entries) = detail else { return self.value(detail) };
        // Entries that the recipe added itself are for its caller, unless a Python traceback is beside them.
        let is_raised = entries.contains_key("traceback");
        let mut told = Map::new();
        for (key, value) in entries {
            let is_known = OPERATOR_DETAIL.contains(&key.as_str());
            match CALLER_DETAIL.contains(&key.as_str()) || (!is_known && !is_raised) {
                true => drop(told.insert(key, self.value(value))),
                false => drop(self.withheld.insert(key, value)),
            }
        }
        Value::Object(told)
    }

    /// The text without paths of the server.
    fn text(&mut self, text: String) -> String {
        match without_paths(&text, self.folders) {
            Cow::Borrowed(_) => text,
            Cow::Owned(told) => {
                self.withheld.insert("text".to_owned(), text.into());
                told
            }
        }
    }
}

/// The text with [`PATH`] in place of each path that begins with one of `folders` or one of `TOPS`.
fn without_paths<'t>(text: &'t str, folders: &[String]) -> Cow<'t, str> {
    // The length of the prefix that makes `rest` a path of the server.
    let begins = |rest: &str| {
        let is_below = |folder: &&String| rest.strip_prefix(folder.as_str()).is_some_and(|rest| !rest.starts_with(is_of_a_name));
        let folder = folders.iter().filter(is_below).map(String::len).max();
        folder.or_else(|| TOPS.iter().find(|top| rest.starts_with(**top)).map(|top| top.len()))
    };
    let mut told = String::new();
    let (mut kept, mut from) = (0, 0);
    while let Some(at) = text[from..].find('/').map(|at| from + at) {
        let is_start = !text[..at].ends_with(|c: char| is_of_a_name(c) || c == '.');
        // Several slashes in a row count as one, as in `file:///home`: the last one begins the path.
        let last = at + text[at..].bytes().take_while(|byte| *byte == b'/').count() - 1;
        let Some(begun) = begins(&text[last..]).filter(|_| is_start).map(|length| last + length) else {
            from = last + 1;
            continue;
        };
        let ends = |c: char| c.is_whitespace() || "'\"`<>|;,)(]}:".contains(c);
        let end = text[begun..].find(ends).map_or(text.len(), |end| begun + end);
        told.push_str(&text[kept..at]);
        told.push_str(PATH);
        (kept, from) = (end, end);
    }
    match kept {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(told + &text[kept..]),
    }
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Code, Fault};

    fn caller() -> Audience {
        Audience::Caller(["/work place/x".to_owned(), "/data/hob".to_owned()].into())
    }

    #[test]
    fn a_caller_is_told_what_is_wrong_and_the_operator_what_python_says() {
        let raised = Fault::new(Code::RecipeFailed, "`run` raised KeyError: 'x' in /data/hob/recipes/a/subject.py")
            .hint("look at /home/me/.config/hob/hob.toml: it says so")
            .with("type", "KeyError")
            .with("traceback", "File \"/data/hob/recipes/a/subject.py\", line 3\n  password = 'planted'")
            .with("log", vec!["planted"])
            .with("surprise", "planted")
            .with("dossier", "0-1");
        let said = json!({ "fault": raised, "pools": [{ "last_fault": raised }] });
        assert_eq!(Audience::Operator.told(said.clone()), said);
        let told = caller().told(said);
        let text = told.to_string();
        for secret in ["planted", "subject.py", "/data/hob", "/home/me", "traceback"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert_eq!(told["fault"]["message"], "`run` raised KeyError: 'x' in [path]");
        assert_eq!(told["fault"]["hint"], "look at [path]: it says so");
        assert_eq!(told["pools"][0]["last_fault"]["detail"], json!({ "type": "KeyError", "dossier": "0-1" }));
        assert!(told["fault"]["detail"]["reference"].is_string(), "{text}");
        // A fault in the recipe's own words is for its caller.
        let own = json!({ "fault": Fault::new(Code::InvalidInput, "no").with("left", 3) });
        assert_eq!(caller().told(own.clone()), own);
        // One that carries another.
        let crash = Fault::new(Code::Crashed, "over").with("signal", 9).with("log", vec!["planted"]);
        let told = caller().told(json!(Fault::new(Code::PoisonRequest, "no").with("crash", json!(crash))));
        assert_eq!(told["detail"]["crash"]["detail"], json!({ "signal": 9 }));
    }

    #[test]
    fn paths_of_the_server_go_and_addresses_and_pointers_stay() {
        let Audience::Caller(folders) = caller() else { unreachable!() };
        for (text, told) in [
            ("reading /data/hob/x/y.toml: Permission denied", "reading [path]: Permission denied"),
            ("`/data/hob`", "`[path]`"),
            ("(/tmp/a, /usr/lib/python3.11/site.py)", "([path], [path])"),
            ("file:/home/me/x", "file:[path]"),
            ("file:///home/me/x `//data/hob/y`", "file:[path] `[path]`"),
            ("/work place/x/y z", "[path] z"),
        ] {
            assert_eq!(without_paths(text, &folders), told);
        }
        for text in ["/items/0/text", "there is nothing at /v1/x", "/data/hobby/x", "a/tmp/b", "https://example.com/usr/x", "/data/0", "/"]
        {
            assert_eq!(without_paths(text, &folders), text);
        }
    }

    /// Each key that a source gives to a fault's detail stands in one of the two lists, and in one only.
    #[test]
    fn each_key_of_a_detail_is_declared() {
        fn keys(text: &str, before: &str) -> Vec<String> {
            let words = text.split(before).skip(1).filter_map(|rest| rest.split_once('"').map(|(key, _)| key.to_owned()));
            words.collect()
        }
        fn sources(folder: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => sources(&path, found),
                    false => found.extend(keys(&std::fs::read_to_string(&path).unwrap_or_default(), ".with(\"")),
                }
            }
        }
        let mut found = Vec::new();
        sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut found);
        assert!(found.len() > 50, "{found:?}");
        // Of this file's and other tests.
        let of_tests = ["surprise", "left", "many", "text", "texts", "keys", ""];
        let runner = ["type", "traceback", "pointer", "problem", "device", "package", "module", "command", "library", "errno", "model"];
        for key in found.iter().map(String::as_str).chain(runner).filter(|key| !of_tests.contains(key)) {
            let lists = [CALLER_DETAIL, OPERATOR_DETAIL].iter().filter(|list| list.contains(&key)).count();
            assert_eq!(lists, 1, "`{key}` of a fault's detail: for whom is it?");
        }
    }
}
