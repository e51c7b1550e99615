//! `hob call`: its stdout, its inputs, and the traces that an interrupted call leaves.

use std::{
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use hob::model::Code;
use serde_json::json;

use super::rig::{Rig, Signed, component, processes_of, run, signal};
use super::served::{Serving, ask};

const ECHO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/echo");

pub fn with_echo() -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    let keys = signed.keys.to_str().unwrap();
    rig.hob(&["repo", "add-publisher", signed.repository.to_str().unwrap(), "hob", "--keys", keys]).well();
    signed.publish(std::path::Path::new(ECHO));
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "hob/echo"]).well();
    (rig, signed)
}

#[test]
fn a_pod_that_answers_twice_is_told_of_beside_the_answer() {
    let rig = Rig::new();
    let folder = rig.recipe("lab/twice", "", "");
    let kit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods");
    for file in ["answers_twice_in_one_write.py", "raw.py"] {
        std::fs::copy(kit.join(file), folder.join("pod").join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(folder.join("recipe.toml")).unwrap();
    let executable = manifest.replace(
        "runtime = \"python\"\nentry = \"subject:Subject\"",
        "runtime = \"executable\"\nentry = \"pod/answers_twice_in_one_write.py\"",
    );
    std::fs::write(folder.join("recipe.toml"), executable).unwrap();
    let ran = rig.hob(&["call", folder.to_str().unwrap(), "run", "{}"]);
    assert_eq!(ran.well(), r#"{"answer": 1}"#);
    assert!(ran.stderr.contains("ended badly, which the result does not show: protocol_violation"), "{ran:#?}");
}

#[test]
fn a_call_prints_one_json_document_on_stdout_and_nothing_else_there() {
    let (rig, _signed) = with_echo();
    let ran = rig.hob(&["call", "hob/echo", "echo", r#"{"text": "hello"}"#]);
    assert_eq!(ran.well(), r#"{"length":5}"#);
    assert_eq!(ran.json(), json!({ "length": 5 }));
    let whole = rig.hob(&["call", "hob/echo", "echo", r#"{"text": "hello"}"#, "--json"]);
    assert_eq!(whole.well().lines().count(), 1);
    let whole = whole.json();
    assert_eq!(
        (&whole["output"], &whole["recipe"], &whole["version"], &whole["unsigned"]),
        (&json!({ "length": 5 }), &json!("hob/echo"), &json!("0.1.0"), &json!(false))
    );
    // Input from stdin, with `-` or without.
    for words in [&["call", "hob/echo", "echo", "-"][..], &["call", "hob/echo", "echo"]] {
        assert_eq!(rig.hob_reading(words, "{\"text\": \"grüße\"}\n".as_bytes()).json(), json!({ "length": 5 }));
    }
    // A stream is one document for each chunk and one for the result; without the flag, only the result.
    let words = ["call", "hob/echo", "repeat", r#"{"text": "a", "count": 3}"#, "--stream"];
    let lines: Vec<serde_json::Value> = rig.hob(&words).well().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let chunk = |index: u32| json!({ "chunk": { "index": index, "text": "a" } });
    assert_eq!(lines, [chunk(0), chunk(1), chunk(2), json!({ "count": 3 })]);
    let ran = rig.hob(&words[..4]);
    assert_eq!(ran.json(), json!({ "count": 3 }));
    assert!(ran.stderr.contains("3 chunks of the result were not printed"), "{ran:#?}");
    assert_eq!(rig.hob(&[&words[..4], &["--json"]].concat()).json()["chunks_left"], json!(3));
}

/// Returns its input, with the keys in their order, as a chunk and as the result.
const SAME: &str = "
class Subject:
    def run(self, input):
        yield input
        return input
";

/// A folder whose `run` streams, with this schema for input and output.
fn same(rig: &Rig, schema: &str) -> String {
    let recipe = rig.recipe("lab/same", SAME, "python = \">=3.9\"");
    let manifest = recipe.join("recipe.toml");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("put = {}", &format!("put = {schema}"));
    std::fs::write(manifest, text + "streaming = true\n").unwrap();
    recipe.to_str().unwrap().to_owned()
}

#[test]
fn keys_keep_their_order_and_numbers_their_kind_and_their_last_bit() {
    let rig = Rig::new();
    let recipe = same(&rig, "{ type = \"object\", properties = { n = { type = \"integer\" }, x = { type = \"number\" } } }");
    let numbers = "[18446744073709551615,-9223372036854775808,9007199254740993,0.1,-0.0,5e-324,1.7976931348623157e+308,1.0,1,true]";
    let given = format!(r#"{{"zebra":1,"ant":{{"b":{numbers},"a":null}},"n":2.0,"x":2.0}}"#);
    let wanted = given.replace(r#""n":2.0"#, r#""n":2"#);
    let printed = rig.hob(&["call", &recipe, "run", &given, "--stream"]);
    assert_eq!(printed.well(), format!("{{\"chunk\":{wanted}}}\n{wanted}"));
    let whole = rig.hob(&["call", &recipe, "run", &given, "--json", "--stream"]);
    assert!(whole.well().lines().last().unwrap().starts_with(&format!("{{\"output\":{wanted},\"")), "{whole:#?}");
    for past in ["1e400", "18446744073709551616", "-9223372036854775809"] {
        rig.hob(&["call", &recipe, "run", &format!("{{\"x\":{past}}}")]).refused(Code::InvalidJson, &["input"]);
    }
}

#[test]
fn glue_tells_each_chunk_of_its_pod_in_its_own_words() {
    let rig = Rig::new();
    let recipe = same(&rig, "{}");
    let manifest = Path::new(&recipe).join("recipe.toml");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("[pod]", "[glue]\nworld = \"0.1\"\n\n[pod]");
    std::fs::write(&manifest, text).unwrap();
    std::fs::write(Path::new(&recipe).join("glue.wasm"), component(include_str!("../../guests/retells.wat"))).unwrap();
    let source =
        "class Subject:\n    def run(self, input):\n        for n in range(input):\n            yield {'n': n}\n        return 'end'\n";
    std::fs::write(Path::new(&recipe).join("pod/subject.py"), source).unwrap();
    let told = |n: u32| format!("{{\"chunk\":{{\"told\":{{\"n\":{n}}}}}}}\n");
    let wanted: String = (0..200).map(told).chain(["\"end\"".to_owned()]).collect();
    assert_eq!(rig.hob(&["call", &recipe, "run", "200", "--stream"]).well(), wanted);
    assert_eq!(rig.hob(&["call", &recipe, "run", "0", "--stream"]).well(), "\"end\"");
}

/// Returns its input, and the characters of it.
const SPELT: &str = "
class Subject:
    def run(self, input):
        spelt = lambda text: [ord(letter) for letter in text]
        return {'same': input, 'keys': [spelt(key) for key in input], 'values': [spelt(value) for value in input.values()]}
";

#[test]
fn text_goes_in_and_out_as_it_is_whatever_characters_it_is_of() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = rig.recipe("lab/spelt", SPELT, "python = \">=3.9\"");
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/spelt"]).well();
    let mut odd = [
        "",
        "\0",
        "a\0b",
        "\u{feff}",
        "\u{feff}first",
        "last\u{feff}",
        "\u{202e}txt.exe",
        "e\u{301}",
        "\u{e9}",
        "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "\u{2028}\u{2029}",
        "\u{7f}\u{80}\u{9b}",
        "\\u0000 \\\" \\/",
        "\u{1b}[2J",
        "\r\n\t\u{8}",
        "\u{fffd}\u{fffe}\u{10ffff}",
        "\u{ac00}\u{1100}\u{1161}",
        "fi\u{fb01}",
    ];
    // In the order in which serde's maps have their keys.
    odd.sort_unstable();
    let given: serde_json::Map<String, serde_json::Value> = odd.iter().map(|text| (text.to_string(), json!(text))).collect();
    let spelt: Vec<Vec<u32>> = odd.iter().map(|text| text.chars().map(u32::from).collect()).collect();
    let wanted = json!({ "same": given, "keys": spelt, "values": spelt });
    // Once with raw characters, as far as JSON allows, and once with each character as an escape.
    let raw = serde_json::to_string(&given).unwrap();
    let escape = |letter: char| match letter.is_ascii_graphic() || letter == ' ' {
        true => letter.to_string(),
        false => letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    let escaped: String = raw.chars().map(escape).collect();
    assert!(raw.contains('\u{feff}') && escaped.is_ascii());
    let ways = |serving: Option<&Serving>| {
        for input in [&raw, &escaped] {
            for words in [&["call", "lab/spelt", "run", "-"][..], &["call", "lab/spelt", "run", "-", "--json"]] {
                let ran = rig.hob_reading(words, input.as_bytes());
                ran.well();
                let found = ran.json();
                assert_eq!(if words.len() == 5 { &found["output"] } else { &found }, &wanted, "{words:?}");
            }
            if let Some(serving) = serving {
                let answer = serving.ask("POST /v1/recipes/lab/spelt/run", input.as_bytes());
                assert_eq!((answer.status, answer.json()), (200, wanted.clone()));
            }
        }
    };
    ways(None);
    ways(Some(&Serving::start(&rig, &[])));
}

#[test]
fn what_cannot_be_written_to_standard_output_is_said() {
    let rig = Rig::new();
    let recipe = same(&rig, "{}");
    let commands: [&[&str]; 7] = [
        &["call", &recipe, "run", "[1]"],
        &["call", &recipe, "run", "[1]", "--json"],
        &["call", &recipe, "run", "[1]", "--stream"],
        &["list"],
        &["show", &recipe],
        &["remote", "list", "--json"],
        &["--help"],
    ];
    for words in commands {
        let mut command = rig.command(words);
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let ran = run(command, b"");
        ran.refused(Code::DiskFull, &["writing to standard output"]);
    }
    // A reader that stops early has what it wanted.
    let mut command = rig.command(&["show", &recipe]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer);
    assert_eq!(run(command, b"").exit, Some(0));
}

/// Reports its progress in two ways, and yields a chunk in between.
const STEPS: &str = "
import hob_pod, time
class Subject:
    def run(self, input):
        hob_pod.progress(message='warming\\x1b[2Jup')
        time.sleep(0.4)
        for n in range(4):
            hob_pod.progress(done=n, total=4, unit='steps', message='walking')
            yield n
            time.sleep(0.3)
        return 'there'
";

fn with_steps() -> (Rig, String) {
    let rig = Rig::new();
    let recipe = rig.recipe("lab/steps", STEPS, "python = \">=3.9\"");
    let manifest = recipe.join("recipe.toml");
    let text = std::fs::read_to_string(&manifest).unwrap() + "streaming = true\n";
    std::fs::write(manifest, text).unwrap();
    (rig, recipe.to_str().unwrap().to_owned())
}

#[test]
fn a_terminal_shows_how_far_a_call_is_and_nothing_of_it_stays() {
    let (rig, recipe) = with_steps();
    for (more, stdout) in
        [(&[][..], "\"there\"\n"), (&["--stream"], "{\"chunk\":0}\n{\"chunk\":1}\n{\"chunk\":2}\n{\"chunk\":3}\n\"there\"\n")]
    {
        let words = [&["call", &recipe, "run", "{}"], more].concat();
        let ran = rig.hob_on_terminal(&words);
        assert_eq!((ran.exit, ran.stdout.as_str()), (Some(0), stdout), "{ran:#?}");
        // A spinner, then a bar; control characters are shown, not sent to the terminal.
        for shown in ["warming\\u{1b}[2Jup", "25 %", "walking: 1 of 4 steps", "75 %", "walking: 3 of 4 steps", "█"] {
            assert!(ran.stderr.contains(shown), "no `{shown}`: {ran:#?}");
        }
        assert!(!ran.stderr.contains("\x1b[2J"), "{ran:#?}");
        // The bar is erased before the last line.
        let (bars, last) = ran.stderr.rsplit_once("\x1b[2K").unwrap();
        assert!(bars.contains("3 of 4") && !last.contains("walking"), "{ran:#?}");
        assert!(last.contains("unsigned dev mode"), "{ran:#?}");
        let quiet = rig.hob_on_terminal(&[&words[..], &["--quiet"]].concat());
        assert_eq!((quiet.exit, quiet.stdout.as_str(), quiet.stderr.contains("walking")), (Some(0), stdout, false), "{quiet:#?}");
    }
}

#[test]
fn without_a_terminal_progress_is_lines_and_only_of_a_stream() {
    let (rig, recipe) = with_steps();
    let ran = rig.hob(&["call", &recipe, "run", "{}", "--stream"]);
    assert_eq!(ran.well().lines().last(), Some("\"there\""));
    let lines: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("  walking: ")).collect();
    // At most one line per second: 1.6 seconds give two, and the first says what is being warmed.
    assert!(ran.stderr.starts_with("  warming\\u{1b}[2Jup\n") && (1..=3).contains(&lines.len()), "{ran:#?}");
    assert!(lines.iter().all(|line| line.ends_with(" of 4 steps")) && !ran.stderr.contains('\x1b'), "{ran:#?}");
    for words in [&["call", &recipe, "run", "{}"][..], &["call", &recipe, "run", "{}", "--stream", "--quiet"]] {
        let ran = rig.hob(words);
        ran.well();
        assert!(!ran.stderr.contains("walking") && !ran.stderr.contains("warming"), "{ran:#?}");
    }
}

#[test]
fn what_a_pod_prints_never_reaches_stdout() {
    let rig = Rig::new();
    let source = "import os, subprocess, sys\nprint('at import')\nclass Subject:\n    def load(self, models):\n        print('at load')\n    def run(self, input):\n        \
                  print('in python'); os.write(1, b'from C\\n'); subprocess.run(['echo', 'from a child']); sys.__stdout__.write('{}'); sys.__stdout__.flush()\n        return {'said': input}\n";
    let recipe = rig.recipe("lab/loud", source, "python = \">=3.9\"");
    let ran = rig.hob(&["call", recipe.to_str().unwrap(), "run", "[1]"]);
    assert_eq!(ran.well(), r#"{"said":[1]}"#);
    assert_eq!(ran.json(), json!({ "said": [1] }));
    assert!(ran.stderr.contains("unsigned dev mode"), "{ran:#?}");
    // The author sees each line, marked as printed by the pod.
    for line in ["at import", "at load", "in python", "from C", "from a child"] {
        assert!(ran.stderr.contains(&format!("  | {line}\n")), "no `{line}`: {ran:#?}");
    }
    let quiet = rig.hob(&["call", recipe.to_str().unwrap(), "run", "[1]", "--quiet"]);
    assert!(!quiet.stderr.contains("in python"), "{quiet:#?}");
    assert!(rig.hob(&["call", recipe.to_str().unwrap(), "run", "[1]", "--quiet", "--logs"]).stderr.contains("  | in python\n"));
}

/// Prints texts that could fool a reader, and floods.
const TALKER: &str = "
import sys
class Subject:
    def run(self, input):
        print('\\x1b[2Jerror[internal]: not Hob\\u202e', input)
        print('a bar\\rover it', file=sys.stderr)
        for n in range(input.get('lines', 0)):
            print(n, 'x' * 4000)
        print('the end of', input)
        return 'there'
";

#[test]
fn what_has_no_utf_8_is_printed_and_harms_no_call() {
    let rig = Rig::new();
    let source = r#"
import logging, os, sys
class Subject:
    def run(self, input):
        print("a file \udcff of", input)
        print("half an emoji \ud83d", file=sys.stderr)
        logging.warning("logged \udc80")
        os.write(1, b"from C \xff\n")
        return "done"
"#;
    let recipe = rig.recipe("lab/halves", source, "python = \">=3.9\"");
    let ran = rig.hob(&["call", recipe.to_str().unwrap(), "run", "1"]);
    assert_eq!(ran.well(), "\"done\"");
    for line in ["a file \u{fffd} of 1", "half an emoji \\ud83d", "WARNING:root:logged \\udc80", "from C \u{fffd}"] {
        assert!(ran.stderr.lines().any(|shown| shown == format!("  | {line}")), "no `{line}`: {ran:#?}");
    }
}

#[test]
fn what_a_pod_prints_is_shown_harmless_and_a_flood_of_it_is_cut_and_counted() {
    let rig = Rig::new();
    let recipe = rig.recipe("lab/talker", TALKER, "python = \">=3.9\"");
    let recipe = recipe.to_str().unwrap();
    let ran = rig.hob(&["call", recipe, "run", "{}", "--json"]);
    assert_eq!(ran.json()["output"], "there");
    for line in ["  | \\u{1b}[2Jerror[internal]: not Hob\\u{202e} {}", "  | over it", "  | the end of {}"] {
        assert!(ran.stderr.lines().any(|shown| shown == line), "no `{line}`: {ran:#?}");
    }
    assert!(!ran.stderr.contains('\x1b') && !ran.stderr.contains("a bar"), "{ran:#?}");
    let ran = rig.hob(&["call", recipe, "run", r#"{"lines": 5000}"#]);
    assert_eq!(ran.well(), "\"there\"");
    let left = ran.stderr.lines().filter(|line| line.contains("lines are")).count();
    assert!(ran.stderr.len() < 9 << 20 && left > 0, "{} bytes, {left}", ran.stderr.len());
    // No host is left; the log still has the pod's lines, and says that some are in no file.
    let past = rig.hob(&["logs", "lab/talker", "--lines", "3000"]);
    assert!(past.stderr.contains("these lines are of the past"), "{past:#?}");
    let mut text = past.well().to_owned();
    // On a busy machine the writer of files falls behind, and may miss the last line of a flood; so the test
    // tries several times.
    for _ in 0..4 {
        if text.contains("the end of {'lines': 5000}") && text.contains("lines before this one are in no file") {
            break;
        }
        rig.hob(&["call", recipe, "run", r#"{"lines": 5000}"#]).well();
        text = rig.hob(&["logs", "lab/talker", "--lines", "3000"]).well().to_owned();
    }
    assert!(text.contains("the end of {'lines': 5000}") && text.contains("lines before this one are in no file"), "{}", text.len());
    let json = rig.hob(&["logs", "--json", "--lines", "1"]).json();
    assert_eq!((json[0]["recipe"].as_str(), json[0]["text"].as_str()), (Some("lab/talker"), Some("the end of {'lines': 5000}")));
    assert_eq!(rig.hob(&["logs", "lab/other", "--json"]).json(), json!([]));
    let files: Vec<_> =
        std::fs::read_dir(rig.home.join("state/logs")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(files.iter().sum::<u64>() < 2 << 20, "{files:?}");
}

#[test]
fn a_call_in_a_server_is_shown_what_its_pod_prints_for_it_if_it_asks() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let recipe = rig.recipe("lab/talker", TALKER, "python = \">=3.9\"");
    signed.publish(&recipe);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/talker"]).well();
    // In a host of its own.
    let words = ["call", "lab/talker", "run", r#"{"mine": 1}"#];
    let ran = rig.hob(&words);
    assert!(ran.well() == "\"there\"" && !ran.stderr.contains("the end of"), "{ran:#?}");
    let logs = [&words[..], &["--logs"]].concat();
    assert!(rig.hob(&logs).stderr.contains("  | the end of {'mine': 1}\n"));
    let serving = Serving::start(&rig, &["--listen", "127.0.0.1:0"]);
    let ran = rig.hob(&logs);
    assert!(ran.well() == "\"there\"" && ran.stderr.contains("  | the end of {'mine': 1}\n"), "{ran:#?}");
    assert!(!rig.hob(&words).stderr.contains("the end of"));
    // A line may contain another caller's input, so over TCP logs are refused before any work.
    let body = json!({ "recipe": "lab/talker", "operation": "run", "input": {}, "logs": true }).to_string();
    let token = std::fs::read_to_string(serving.token.as_ref().unwrap()).unwrap();
    let head = format!("POST /v1/calls\nauthorization: Bearer {}", token.trim());
    let refused = ask(serving.connect_tcp(), &head, body.as_bytes()).unwrap();
    assert_eq!((refused.status, &refused.json()["fault"]["code"]), (403, &json!("usage")));
}

#[test]
fn an_interrupted_call_ends_with_its_own_exit_code_and_leaves_no_process() {
    let (rig, _signed) = with_echo();
    for (sent, exit) in [(rustix::process::Signal::INT, Some(9)), (rustix::process::Signal::TERM, None)] {
        let mut child = rig.command(&["call", "hob/echo", "sleep", r#"{"seconds": 600}"#]).spawn().unwrap();
        let begun = Instant::now();
        // The call runs once the keeper and the worker exist.
        while processes_of(&rig.home).len() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(20), "no pod");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "it sleeps");
        let sent_at = Instant::now();
        signal(child.id(), sent);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), exit, "{status:?}");
        assert!(sent_at.elapsed() < Duration::from_secs(5), "it took {:?} to stop", sent_at.elapsed());
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(out, "");
        assert_eq!(err.contains(&format!("error[{}]", Code::Cancelled.name())), exit.is_some(), "{err}");
        while !processes_of(&rig.home).is_empty() {
            assert!(sent_at.elapsed() < Duration::from_secs(6), "left behind: {:?}", processes_of(&rig.home));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(rig.hob(&["call", "hob/echo", "echo", r#"{"text": ""}"#]).json(), json!({ "length": 0 }));
}

#[test]
fn a_deadline_given_in_words_is_kept() {
    let (rig, _signed) = with_echo();
    let begun = Instant::now();
    rig.hob(&["call", "hob/echo", "sleep", r#"{"seconds": 600}"#, "--deadline", "700ms"]).refused(Code::Deadline, &["`sleep`", "700 ms"]);
    assert!(begun.elapsed() < Duration::from_secs(10));
    rig.hob(&["call", "hob/echo", "sleep", r#"{"seconds": 0}"#, "--deadline", "soon"]).refused(Code::Usage, &["`soon`", "`30s`"]);
}
