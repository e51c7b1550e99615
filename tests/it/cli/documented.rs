//! Checks docs/cli.md against the program.

use std::collections::BTreeSet;

use hob::model::{Code, Fault};
use serde_json::json;

use super::rig::Rig;

const PAGE: &str = include_str!("../../../docs/cli.md");

#[test]
fn the_table_of_faults_in_the_documentation_is_the_table_of_the_code() {
    let rows: Vec<Vec<&str>> = PAGE
        .lines()
        .skip_while(|line| !line.starts_with("| code"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let documented: Vec<String> = rows.iter().map(|row| row[..4].join(" ")).collect();
    let wanted: Vec<String> = Code::all()
        .map(|code| {
            let fault = Fault::new(code, "");
            let retry = if fault.retryable { "yes" } else { "" };
            format!("`{}` {} {} {retry}", code.name(), code.exit(), json!(fault.blame).as_str().unwrap())
        })
        .collect();
    assert_eq!(documented, wanted);
    assert!(rows.iter().all(|row| row.len() == 5 && row[4].len() > 10), "each says what it means");
    // Each exit code is explained in the page and in `hob --help`.
    let exits: BTreeSet<u8> = Code::all().map(Code::exit).collect();
    let help = Rig::new().hob(&["--help"]);
    // clap breaks lines at the terminal's width.
    let help = help.well().split_whitespace().collect::<Vec<_>>().join(" ");
    for exit in exits {
        assert!(PAGE.contains(&format!("- `{exit}` ")), "exit code {exit} is not in the list");
        assert!(help.contains(&format!("· {exit} ")), "exit code {exit} is not in {help}");
    }
}

#[test]
fn every_command_is_documented_and_every_documented_command_exists() {
    let commands = |words: &[&str]| -> BTreeSet<String> {
        let ran = Rig::new().hob(&[words, &["--help"]].concat());
        let lines = ran.well().lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        // A command is indented by two columns; the rest of a long summary is indented further.
        let names =
            lines.filter(|line| line.starts_with("  ") && !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        names.filter(|name| *name != "help").map(|name| [words, &[name]].concat().join(" ")).collect()
    };
    let mut there = commands(&[]);
    for group in ["remote", "repo"] {
        assert!(there.remove(group));
        there.extend(commands(&[group]));
    }
    let documented: BTreeSet<String> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("- `hob "))
        .map(|line| {
            line.split('`')
                .next()
                .unwrap()
                .split(' ')
                .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(documented, there);
}

#[test]
fn the_statuses_and_routes_of_the_server_are_documented() {
    let page = include_str!("../../../docs/serve.md");
    let mut documented = BTreeSet::new();
    for row in page.lines().skip_while(|line| !line.starts_with("| status")).skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        documented.extend(cells[1].split(", ").map(|code| format!("{} {code}", cells[0])));
    }
    let wanted: BTreeSet<String> = Code::all().map(|code| format!("{} `{}`", code.http(), code.name())).collect();
    assert_eq!(documented, wanted);
    let source = include_str!("../../../src/door/http/mod.rs");
    let routes: Vec<&str> = source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")).collect();
    assert!(routes.len() >= 7, "{routes:?}");
    for route in routes {
        let (path, handler) = route.split_once("\", ").unwrap();
        let method = if handler.starts_with("post(") { "POST" } else { "GET" };
        assert!(page.contains(&format!("| `{method} {path}` |")), "{method} {path} is not in docs/serve.md");
    }
}

#[test]
fn pages_call_a_folder_by_a_path_that_is_one() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let below = |folder: &str| std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let recipes = below("recipes").into_iter().map(|folder| folder.join("README.md"));
    let mut called = 0;
    for page in [root.join("README.md")].into_iter().chain(below("docs")).chain(recipes) {
        let text = std::fs::read_to_string(&page).unwrap();
        for word in text.split("hob call ").skip(1).filter_map(|rest| rest.split_whitespace().next()) {
            called += 1;
            let folder = word.trim_start_matches("./").trim_matches(['`', ')']);
            let is_folder =
                folder.starts_with("recipes/") || page.parent().is_some_and(|above| above.join(folder).join("recipe.toml").is_file());
            assert!(
                !is_folder || word.starts_with('.'),
                "{}: `hob call {word}` is the recipe of that name, and not the folder",
                page.display()
            );
        }
    }
    assert!(called > 10, "{called}");
}
