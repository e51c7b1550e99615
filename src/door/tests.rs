//! What hints name, held against what there is: for each door every command, flag, route, field, method, key
//! and variable.
//!
//! Actions are read from their one table; the words of pods' hints and of what a door says itself are looked
//! for in the sources.

use std::{fs, path::Path};

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::{args::CommandLine, lines::CallBody};
use crate::{
    model::{
        Door, Hint, Manifest,
        hint::{ACTIONS, Kind, OF_PODS, Part, Row},
    },
    pod::fuzzing::{Frame, FromPod},
    shelf::config::Config,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// All files of a folder and below with this ending, but those of tests alone.
fn sources(folder: &str, ending: &str) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match path.is_dir() {
                true if name != "tests" && name != "__pycache__" => folders.push(path),
                false if name.ends_with(ending) && name != "tests.rs" => {
                    let text = fs::read_to_string(&path).unwrap();
                    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("").to_owned();
                    found.push((path.strip_prefix(root()).unwrap().display().to_string(), text));
                }
                _ => {}
            }
        }
    }
    assert!(found.len() > 3, "the sources of {folder} are not where they were");
    found
}

/// The row as it reads at a door, about something that could be.
fn worded(row: &Row, door: Door) -> String {
    let of = row.arguments.iter().map(|argument| match *argument {
        "key" => "00".repeat(32),
        "operation" => "echo".to_owned(),
        "permission" => "env=A".to_owned(),
        "folder" => "./a".to_owned(),
        "name" | "remote" | "publisher" => "main".to_owned(),
        "words" => "ulimit -n".to_owned(),
        _ => "lab/echo".to_owned(),
    });
    let written = serde_json::json!([{ "do": row.name, "of": of.collect::<Vec<_>>() }]);
    Hint::of(serde_json::from_value::<Vec<Part>>(written).unwrap()).worded(door).to_string()
}

/// What stands between single backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What is wrong with a command line that somebody is to type.
fn command_is_wrong(words: &str) -> Option<String> {
    match CommandLine::try_parse_from(words.split_whitespace()) {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => None,
        Err(error) => Some(error.to_string()),
    }
}

/// Commands with all that belongs to them, and such as are only named: `hob call`.
fn is_command(words: &str) -> bool {
    let (mut command, mut words) = (CommandLine::command(), words.split_whitespace().skip(1).peekable());
    while let Some(next) = words.peek().and_then(|word| command.find_subcommand(word)).cloned() {
        command = next;
        words.next();
    }
    command.get_name() != "hob" && words.next().is_none()
}

fn is_flag_of_call(word: &str) -> bool {
    let name = word.split_whitespace().next().unwrap_or_default().trim_start_matches("--");
    let command = CommandLine::command();
    command.find_subcommand("call").unwrap().get_arguments().any(|argument| argument.get_long() == Some(name))
}

/// (method, segments) of all routes, as the router is told them.
fn routes() -> Vec<(String, Vec<String>)> {
    let text = source("src/door/http/mod.rs");
    let routes: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let (path, rest) = line.trim().strip_prefix(".route(\"")?.split_once("\", ")?;
            let method = rest.split('(').next()?.to_ascii_uppercase();
            Some((method, path.split('/').map(str::to_owned).collect()))
        })
        .collect();
    assert!(routes.len() > 10, "the routes are not where they were");
    routes
}

fn is_route(words: &str, routes: &[(String, Vec<String>)]) -> bool {
    let Some((method, path)) = words.split_once(' ') else { return false };
    let parts: Vec<_> = path.split('/').collect();
    // A recipe's name has two parts of a path.
    routes.iter().any(|(of, segments)| {
        of == method && segments.len() == parts.len() && segments.iter().zip(&parts).all(|(a, b)| a.starts_with('{') || a == b)
    })
}

/// Whether the route that takes a document alone reads it.
fn is_header(name: &str) -> bool {
    source("src/door/http/calls.rs").contains(&format!("header(&head.headers, \"{name}\")"))
}

fn is_field(name: &str) -> bool {
    let mut call = serde_json::json!({ "recipe": "a/b", "operation": "c", "input": {} });
    call[name] = serde_json::json!({ "of a type": "that no field has" });
    CallBody::parse(call.to_string().as_bytes()).err().is_none_or(|fault| !fault.message.contains("unknown field"))
}

/// Whether an app has it: `Host::add`, `Call::session`, `Consent::Give`.
fn is_of_the_crate(word: &str, sources: &[(String, String)]) -> bool {
    let Some((kind, name)) = word.split_once("::") else { return false };
    let places = match kind {
        "Host" => "src/host/",
        "Call" => "src/model/call.rs",
        "Limits" => "src/host/config.rs",
        "authoring" => "src/author/",
        "http" => "src/door/serving.rs",
        "Consent" => "src/host/grants.rs",
        "Trust" => "src/shelf/repository/mod.rs",
        _ => return false,
    };
    let starts =
        [format!("pub async fn {name}("), format!("pub fn {name}("), format!("pub {name}:"), format!("{name}("), format!("{name},")];
    let is_it = |line: &str| starts.iter().any(|start| line.trim_start().starts_with(start));
    sources.iter().filter(|(path, _)| path.starts_with(places)).any(|(_, text)| text.lines().any(is_it))
}

/// A key and the table that it is in, of `` `key` in `[table]` of FILE`` and its like.
fn key_of(words: &str) -> (String, String) {
    let mut words = quoted(words);
    let first = words.next().unwrap_or_default();
    match (first.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]")), words.next()) {
        (Some(tables), _) => (String::new(), tables.to_owned()),
        (None, Some(table)) => (first.split(" = ").next().unwrap_or_default().to_owned(), table.trim_matches(['[', ']']).to_owned()),
        (None, None) if first.starts_with('[') => (String::new(), first.trim_matches(['[', ']']).to_owned()),
        (None, None) => (first.to_owned(), String::new()),
    }
}

const MANIFEST: &str = "name = \"lab/echo\"\nversion = \"0.1.0\"\nlicense = \"MIT\"\nsummary = \"s\"\nhob = \">=0.1.1, <0.2\"\n";

/// Whether `recipe.toml` has the key: one of a type that no key has is refused for its type.
fn is_manifest_key(key: &str, table: &str) -> bool {
    let line = |of: &str| match (of == table, key.is_empty()) {
        (true, false) => format!("{key} = 2000-01-01\n"),
        _ => String::new(),
    };
    let keep = |of: &str, name: &str, text: &str| if of == table && name == key { String::new() } else { format!("{text}\n") };
    let top: String = MANIFEST.lines().map(|text| keep("", text.split(' ').next().unwrap_or(""), text)).collect();
    let pod = [("runtime", "runtime = \"python\""), ("entry", "entry = \"a:B\""), ("python", "python = \">=3.9\"")];
    let pod: String = pod.iter().map(|(name, text)| keep("pod", name, text)).collect();
    let session = if table == "pod.session" { format!("[pod.session]\nmode = \"shared\"\n{}", line(table)) } else { String::new() };
    let operation = if table == "operations.echo" { line(table) } else { String::new() };
    let permissions = if table == "permissions" { format!("[permissions]\n{}", line(table)) } else { String::new() };
    let text = format!(
        "{top}{}[pod]\n{pod}{}{session}{permissions}[operations.echo]\nsummary = \"s\"\ninput = {{}}\noutput = {{}}\n{operation}",
        line(""),
        line("pod")
    );
    // A table alone: an empty one, or a key that it does not have, which its message then names.
    let text = match key.is_empty() {
        true => format!("{}\n[[{table}]]\nnosuch = 1\n", text),
        false => text,
    };
    let fault = Manifest::parse(&text, "recipe.toml").expect_err(&text);
    let (known, says) = (!fault.message.contains("knows no key"), &fault.message);
    match key.is_empty() {
        true => !says.contains(&format!("knows no key `{table}`")),
        false => known && says.contains(key),
    }
}

fn is_setting(key: &str, table: &str) -> bool {
    let text = match (key.is_empty(), table) {
        (true, table) => format!("{table} = 2000-01-01"),
        (false, table) => format!("[{table}]\n{key} = 2000-01-01"),
    };
    let fault = Config::parse(&text, "hob.toml").expect_err(&text);
    !fault.message.contains("no such key") && fault.message.contains(table)
}

#[test]
fn the_looks_find_what_is_not_there() {
    assert!(
        command_is_wrong("hob add a/b --grnt").is_some()
            && command_is_wrong("hob ad a/b").is_some()
            && command_is_wrong("hob add").is_some()
    );
    assert!(command_is_wrong("hob add a/b --grant").is_none() && is_command("hob sessions close") && !is_command("hob sessions shut"));
    assert!(is_flag_of_call("--deadline TIME") && !is_flag_of_call("--dead-line TIME"));
    let routes = routes();
    assert!(is_route("POST /v1/recipes/a/b/lift", &routes) && is_route("GET /v1/sessions", &routes));
    assert!(!is_route("GET /v1/session", &routes) && !is_route("DELETE /v1/sessions", &routes));
    assert!(is_field("deadline_ms") && is_field("input") && !is_field("deadline"));
    assert!(is_header("x-hob-session") && !is_header("x-hob-sessions"));
    let all = sources("src", ".rs");
    assert!(is_of_the_crate("Host::add", &all) && is_of_the_crate("Call::session", &all));
    assert!(!is_of_the_crate("Host::ad", &all) && !is_of_the_crate("Call::sessions", &all) && !is_of_the_crate("Guest::add", &all));
    assert!(is_manifest_key("processes", "pod") && is_manifest_key("streaming", "operations.echo") && is_manifest_key("", "model"));
    assert!(!is_manifest_key("max_items", "pod") && !is_manifest_key("max", "operations.echo") && !is_manifest_key("", "models"));
    assert!(is_setting("details", "serve") && is_setting("", "grants") && !is_setting("detail", "serve") && !is_setting("", "grant"));
}

#[test]
fn every_action_names_what_its_door_has() {
    let (routes, all) = (routes(), sources("src", ".rs"));
    for row in ACTIONS {
        for door in Door::ALL {
            let words = worded(row, door);
            let wrong = |why: &str| panic!("{} at {door:?}: {words}: {why}", row.name);
            if matches!(row.kind, Kind::Operator | Kind::Author) && door == Door::Http && words.contains("`hob ") {
                let whose = ["the operator's `hob ", "the author's `hob "];
                assert!(whose.iter().any(|whose| words.starts_with(whose)), "{}: {words}", row.name);
            }
            match row.kind {
                Kind::System => continue,
                Kind::Manifest => {
                    let (key, table) = key_of(row.command_line.replace("{operation}", "echo").as_str());
                    assert!(is_manifest_key(&key, &table), "{}: {words}", row.name);
                    continue;
                }
                Kind::Setting => {
                    let (key, table) = key_of(row.command_line.replace("{recipe}", "lab/echo").as_str());
                    assert!(is_setting(&key, &table), "{}: {words}", row.name);
                    continue;
                }
                Kind::Variable => {
                    let name = quoted(row.command_line).next().unwrap();
                    assert!(all.iter().any(|(_, text)| text.contains(&format!("(\"{name}\")"))), "{words}");
                    continue;
                }
                Kind::App => {
                    let word = quoted(&words).next().unwrap();
                    assert!(
                        is_of_the_crate(word, &all) && (door == Door::Crate || words.starts_with("the app's `")),
                        "{}: {words}",
                        row.name
                    );
                    continue;
                }
                Kind::Operator | Kind::Author | Kind::Caller => {}
            }
            for word in quoted(&words) {
                match word {
                    // What the action is about.
                    "lab/echo" | "main" | "env=A" | "reduced" | "./a" => {}
                    _ if word.starts_with("hob ") && (is_command(word) || row.arguments.is_empty()) && command_is_wrong(word).is_some() => {
                        assert!(is_command(word), "{}: {words}", row.name);
                    }
                    _ if word.starts_with("hob ") => assert_eq!(command_is_wrong(word), None, "{}", row.name),
                    _ if word.starts_with("--") && door == Door::CommandLine => assert!(is_flag_of_call(word), "{}: {words}", row.name),
                    // How a path begins.
                    "./" | "/" if row.name == "folder_word" => {}
                    _ if door == Door::Http && word.starts_with("x-") => assert!(is_header(word), "{}: {words}", row.name),
                    _ if door == Door::Http && word.contains('/') => assert!(is_route(word, &routes), "{}: {words}", row.name),
                    _ if door == Door::Http => assert!(is_field(word), "{}: {words}", row.name),
                    _ if door == Door::Crate => assert!(is_of_the_crate(word, &all), "{}: {words}", row.name),
                    _ => wrong("what is it?"),
                }
            }
        }
    }
}

#[test]
fn every_action_is_used() {
    let (all, pods) = (sources("src", ".rs"), sources("python/src/hob_pod", ".py"));
    let of_pods = |name: &str| pods.iter().any(|(_, text)| text.contains(&format!("{{\"do\": \"{name}\"")));
    let is_used = |name: &&str| all.iter().any(|(_, text)| text.contains(&format!("act::{name}("))) || of_pods(name);
    assert!(OF_PODS.iter().all(|name| of_pods(name)));
    let unused: Vec<_> = ACTIONS.iter().map(|row| row.name).filter(|name| !is_used(name)).collect();
    assert_eq!(unused, [""; 0]);
}

/// The actions that the runner's own source sends, as a host takes them off the wire, at each door; what an
/// older pod sends is a text.
#[test]
fn the_hint_of_a_pod_is_worded_by_the_door() {
    let fault = |hint: &str| {
        let json = format!("{{\"type\":\"failed\",\"fault\":{{\"code\":\"sandbox_denied\",\"message\":\"m\",{hint}}}}}");
        let frame = Frame { ask: 0, json: json.into(), tail: Default::default() };
        match FromPod::parse(&frame) {
            Ok(FromPod::Failed(fault)) => fault,
            other => panic!("{other:?}"),
        }
    };
    let at = |hint: &str, door| fault(hint).worded(door).hint.unwrap().to_string();
    let new = r#""hint":"by its operator's `hob grant a/b env=A`","hint_parts":["by ",{"do":"grant_lacking","of":["a/b env=A"]}," or ",{"do":"granting"}]"#;
    assert_eq!(at(new, Door::CommandLine), "by `hob grant a/b env=A` or `hob grant`");
    assert_eq!(at(new, Door::Http), "by the operator's `hob grant a/b env=A` or the operator's `hob grant`");
    assert_eq!(at(new, Door::Crate), "by `Host::grant` of `a/b env=A` or `Host::grant`");
    for old_or_foreign in [
        r#""hint":"as it is""#,
        r#""hint":"as it is","hint_parts":["run ",{"do":"shell","of":["rm -rf ~"]}]"#,
        r#""hint":"as it is","hint_parts":["run ",{"do":"add","of":["evil/x"]}]"#,
        r#""hint":"as it is","hint_parts":["run ",{"do":"grant_lacking","of":["a/b` and `rm -rf ~"]}]"#,
        r#""hint":"as it is","hint_parts":["run ",{"do":"what no Hob has"}]"#,
        r#""hint":"as it is","hint_parts":7"#,
        r#""hint":"as it is","hint_parts":[]"#,
    ] {
        for door in Door::ALL {
            assert_eq!(at(old_or_foreign, door), "as it is", "{old_or_foreign}");
        }
    }
}

/// Texts of the sources between double quotes, roughly: a line with a quote in it is enough, as what is
/// looked for has none.
fn named<'t>(text: &'t str, comment: &str) -> Vec<(usize, &'t str)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with(comment));
    lines.flat_map(|(at, line)| quoted(line).map(move |word| (at + 1, word))).collect()
}

#[test]
fn what_doors_and_pods_say_themselves_names_what_is_there() {
    let routes = routes();
    let mut seen = 0;
    let doors = sources("src/door", ".rs").into_iter().map(|(path, text)| (path, text, "//"));
    for (path, text, comment) in doors.chain(sources("python/src/hob_pod", ".py").into_iter().map(|(path, text)| (path, text, "#"))) {
        for (line, word) in named(&text, comment) {
            if word.starts_with("hob ") {
                seen += 1;
                let known = is_command(word)
                    || command_is_wrong(&word.replace("COMMAND", "list").replace("{}", "lab/x").replace(['{', '}'], "")).is_none();
                assert!(known, "{path}:{line}: names `{word}`");
            }
            if ["GET /", "POST /", "DELETE /"].iter().any(|method| word.starts_with(method)) {
                seen += 1;
                assert!(is_route(word, &routes), "{path}:{line}: names `{word}`");
            }
        }
        if comment == "#" {
            for (line, text) in text.lines().enumerate().filter(|(_, text)| text.contains("`hob grant`")) {
                assert!(text.contains("operator"), "{path}:{}: a command that is not the reader's", line + 1);
            }
        }
    }
    assert!(seen > 5, "nothing was looked at");
    // Keys that pods name, with their tables.
    let hints = ["faults", "runner", "serving", "steps"].map(|name| source(&format!("python/src/hob_pod/{name}.py"))).concat();
    for (says, key, table) in [
        ("`network = [", "network", "permissions"),
        ("`read = [", "read", "permissions"),
        ("`items` of the operation's `batch`", "batch", "operations.echo"),
        ("`[[model]]`", "", "model"),
        ("set `entry` in recipe.toml", "entry", "pod"),
        ("`streaming = true` in [operations.", "streaming", "operations.echo"),
    ] {
        assert!(hints.contains(says), "no hint says {says} any more");
        assert!(is_manifest_key(key, table), "{says}");
    }
}

#[cfg(not(feature = "serve"))]
#[tokio::test]
async fn a_program_that_was_built_without_its_server_says_so_and_does_not_offer_it() {
    let words = CommandLine::try_parse_from(["hob", "serve", "--listen", "127.0.0.1:0"]).unwrap();
    let fault = super::cli::command(words).await.unwrap_err();
    assert!(fault.code == crate::model::Code::Usage && fault.message.contains("without its server"), "{fault}");
    let help = CommandLine::command().render_help().to_string();
    assert!(!help.lines().any(|line| line.trim_start().starts_with("serve ")) && help.contains("  call "), "{help}");
}
