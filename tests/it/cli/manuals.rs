//! Shell completions and `man` pages: they have exactly the words that the command line accepts.

use std::{collections::BTreeSet, fs, process::Command};

use hob::model::Code;

use super::rig::Rig;

/// The commands that `hob --help` lists.
fn commands(rig: &Rig) -> BTreeSet<String> {
    let help = rig.hob(&["--help"]);
    let lines = help.well().lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn help_is_a_command_and_says_the_same_as_the_flag() {
    let rig = Rig::new();
    let (command, flag) = (rig.hob(&["help", "call"]), rig.hob(&["call", "--help"]));
    assert_eq!(command.well(), flag.well());
    assert!(rig.hob(&["help"]).well().contains("Commands:"));
    assert_eq!(rig.hob(&["help", "kall"]).exit, Some(2));
}

#[test]
fn a_shell_completes_the_commands_and_flags_that_there_are() {
    let rig = Rig::new();
    let commands = commands(&rig);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = rig.hob(&["completions", shell]);
        let script = script.well();
        for word in commands.iter().map(String::as_str).chain(["--one-shot", "add-publisher", "no-grant"]) {
            let bare = word.trim_start_matches('-');
            assert!(script.contains(bare), "{shell} does not know `{word}`");
        }
        assert!(!script.contains("compile-glue"), "{shell} shows what nobody types");
    }
    // The words of a line, the number of the typed one, and its completions.
    let script = rig.folder.path().join("hob.bash");
    fs::write(&script, rig.hob(&["completions", "bash"]).well()).unwrap();
    for (line, wanted) in [("hob rem", "remove remote"), ("hob call --one", "--one-shot"), ("hob repo add", "add-publisher")] {
        let source = "source \"$1\"; COMP_WORDS=($2); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); \
            _hob hob \"${COMP_WORDS[$COMP_CWORD]}\" \"${COMP_WORDS[$((COMP_CWORD - 1))]}\"; echo \"${COMPREPLY[*]}\"";
        let ran = Command::new("bash").args(["-c", source, "bash"]).arg(&script).arg(line).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), wanted, "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    rig.hob(&["completions", "dos"]).exit.filter(|exit| *exit == 2).expect("a shell that is none is refused");
}

#[test]
fn each_command_has_a_page() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("man");
    rig.hob(&["man", "--into", folder.to_str().unwrap()]).well();
    let pages: BTreeSet<String> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let names = commands(&rig).into_iter().map(|name| format!("hob-{name}.1"));
    assert_eq!(pages, names.chain(["hob.1".to_owned()]).collect());
    let whole = rig.hob(&["man"]);
    let whole = whole.well();
    for part in [".TH hob 1", "hob\\-call(1)", "Exit codes: 0 done"] {
        assert!(whole.contains(part), "no `{part}` in {whole}");
    }
    let call = rig.hob(&["man", "call"]);
    assert!(call.well().contains("\\fBhob call\\fR") && call.well().contains("\\-\\-one\\-shot"), "{call:#?}");
    assert_eq!(fs::read_to_string(folder.join("hob-call.1")).unwrap().trim_end(), call.well());
    rig.hob(&["man", "kall"]).refused(Code::Usage, &["no command `kall`", "`call`"]);
}
