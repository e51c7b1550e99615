//! `hob completions` and `hob man`: shell completions and manual pages, generated from the same definitions
//! that parse the command line.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{args::CommandLine, print};
use crate::model::{Code, Fault};

/// clap's description of a command; no process is started.
type Line = clap::Command;

/// Prints a script that completes `hob` in that shell.
pub fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(CommandLine::command()), "hob", &mut script);
    print::result(String::from_utf8_lossy(&script).trim_end());
}

/// Prints the page of `hob`, or of one of its commands; or writes all pages into a folder.
///
/// Errors: `usage` for an unknown command; `io`, `disk_full`.
pub fn man(command: Option<&str>, into: Option<&Path>) -> Result<(), Fault> {
    let all = pages();
    if let Some(folder) = into {
        let failed = |error: &std::io::Error| Fault::io(format!("writing pages into {}", folder.display()), error);
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        for (name, page) in &all {
            std::fs::write(folder.join(format!("{name}.1")), page).map_err(|error| failed(&error))?;
        }
        print::note(&format!("{} pages are in {}", all.len(), folder.display()));
        return Ok(());
    }
    let wanted = command.map_or("hob".to_owned(), |command| format!("hob-{command}"));
    let Some((_, page)) = all.iter().find(|(name, _)| *name == wanted) else {
        let names: Vec<_> = all.iter().filter_map(|(name, _)| Some(format!("`{}`", name.strip_prefix("hob-")?))).collect();
        return Err(Fault::new(Code::Usage, format!("there is no command `{}`", command.unwrap_or_default()))
            .hint(format!("there are {}", names.join(", "))));
    };
    print::result(page.trim_end());
    Ok(())
}

/// Each page with its name: of `hob`, and of each command for people.
fn pages() -> Vec<(String, String)> {
    let mut whole = shown(CommandLine::command()).disable_help_subcommand(true);
    // Sets the display name of each command, which is the name of its page.
    whole.build();
    let commands = std::iter::once(&whole).chain(whole.get_subcommands()).cloned();
    let page = |command: Line| {
        let name = command.get_display_name().unwrap_or("hob").to_owned();
        let mut page = Vec::new();
        let _ = Man::new(command).title(&name).source(concat!("hob ", env!("CARGO_PKG_VERSION"))).render(&mut page);
        (name, String::from_utf8_lossy(&page).into_owned())
    };
    commands.map(page).collect()
}

/// The command line without hidden commands.
fn shown(words: Line) -> Line {
    let (hidden, shown): (Vec<_>, Vec<_>) = words.get_subcommands().cloned().partition(Line::is_hide_set);
    if hidden.is_empty() {
        return words;
    }
    // clap cannot remove a command, so build a new one around those that stay.
    let mut without = Line::new("hob").version(env!("CARGO_PKG_VERSION")).subcommands(shown);
    without = without.args(words.get_arguments().cloned());
    if let Some(about) = words.get_about() {
        without = without.about(about.clone());
    }
    match words.get_after_help() {
        Some(after) => without.after_help(after.clone()),
        None => without,
    }
}
