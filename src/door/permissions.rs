//! `hob add`, `hob grant`, `hob revoke`: show an operator what a recipe asks for, and take the operator's
//! decision.
//!
//! Only this file grants anything: no other door imports it.

use serde_json::json;

use crate::{
    door::{
        args::{GrantArgs, RevokeArgs},
        print::{self, say, say_strays},
    },
    host::{Consent, Granted, Host, Revoke},
    model::{Code, Fault, Permissions, RecipeName, VersionRange},
};

/// The words for a recipe that may run less confined.
pub const REDUCED: &str = "may run where this machine cannot confine it wholly (--reduced)";

/// The operator's decision as given by flags.
pub fn consent(grant: bool, no_grant: bool) -> Consent {
    match (grant, no_grant) {
        (true, _) => Consent::Give,
        (_, true) => Consent::Withhold,
        _ => Consent::Required,
    }
}

/// Installs a recipe; on a terminal, asks about permissions that it does not have yet.
pub async fn add(host: &Host, words: &str, remote: Option<&str>, consent: Consent, json: bool) -> Result<(), Fault> {
    let (name, range) = match words.split_once('@') {
        Some((name, range)) => (name, Some(range.parse::<VersionRange>()?)),
        None => (words, None),
    };
    let name: RecipeName = name.parse()?;
    let added = match host.add(&name, range.as_ref(), remote, &consent).await {
        // Ask between two tries, so that no lock is held while the user thinks. Only the permissions that
        // were shown are agreed to.
        Err(fault) if fault.code == Code::ConsentRequired && !json && print::can_ask() => {
            let agreed = agree(&fault)?.ok_or(fault)?;
            host.add(&name, range.as_ref(), remote, &Consent::These(agreed)).await?
        }
        added => added?,
    };
    say(json, json!(added), || {
        let verb = if added.already { "is installed already:" } else { "installed:" };
        let before = added.version_before.as_ref().filter(|before| **before != added.version);
        let before = before.map(|before| format!(" (was {before})")).unwrap_or_default();
        let mut text =
            format!("{verb} {} {}{before}, signed by `{}` of remote `{}`", added.name, added.version, added.publisher, added.remote);
        match &added.wanted_before {
            Some(before) if *before != added.wanted => text.push_str(&format!("\n  wanted in: `{}` (was `{before}`)", added.wanted)),
            _ if added.wanted != "*" => text.push_str(&format!("\n  wanted in: `{}`", added.wanted)),
            _ => {}
        }
        for (verb, words) in [("granted", &added.granted), ("not granted", &added.withheld)] {
            for line in lines(words) {
                text.push_str(&format!("\n  {verb}: {line}"));
            }
        }
        text
    });
    // Note entries under a similar name, which may be meant for this recipe. It is installed even if they
    // cannot be read.
    let strays = host.strays().unwrap_or_default();
    say_strays(strays.into_iter().filter(|stray| stray.nearest.as_ref() == Some(&name)).collect());
    Ok(())
}

/// Shows the permissions and asks; `None` without a yes.
fn agree(fault: &Fault) -> Result<Option<Permissions>, Fault> {
    let words: Vec<&str> = fault.detail["permissions"].as_array().into_iter().flatten().filter_map(|word| word.as_str()).collect();
    let permissions = Permissions::from_words(words)?;
    print::note(&fault.message);
    for (word, means) in permissions.explained() {
        print::note(&format!("  {word}: to {means}"));
    }
    Ok(print::ask("Install it and give it this?").then_some(permissions))
}

/// Grants the named permissions; without any, shows what the recipe has.
pub async fn grant(host: &Host, args: &GrantArgs, json: bool) -> Result<(), Fault> {
    let recipe = host.resolve(&args.recipe).await?;
    let permissions = read(&args.permissions)?;
    let granted = match args.all {
        true => {
            let missing = host.granted(&recipe).await?.missing;
            host.grant(&recipe, missing, args.reduced).await?
        }
        false if permissions.is_empty() && !args.reduced => host.granted(&recipe).await?,
        false => host.grant(&recipe, permissions, args.reduced).await?,
    };
    say(json, json!(granted), || shown(&granted));
    Ok(())
}

/// Takes back the named permissions.
pub async fn revoke(host: &Host, args: &RevokeArgs, json: bool) -> Result<(), Fault> {
    // Works for a recipe that is gone too, so that its grants do not stay.
    let recipe = host.resolve(&args.recipe).await?;
    let what = match args.all {
        true => Revoke::All,
        false => Revoke::These { permissions: read(&args.permissions)?, reduced: args.reduced },
    };
    let left = host.revoke(&recipe, &what).await?;
    say(json, json!({ "recipe": args.recipe, "given": left }), || {
        let mut text = format!("{} is given ", args.recipe);
        text.push_str(&match left.permissions.is_empty() {
            true => "nothing any more".to_owned(),
            false => format!("only this any more: {}", left.permissions.words().join(", ")),
        });
        if left.reduced {
            text.push_str(&format!("; it {REDUCED}"));
        }
        text
    });
    Ok(())
}

fn read(words: &[String]) -> Result<Permissions, Fault> {
    Permissions::from_words(words.iter().map(String::as_str))
}

fn lines(words: &[String]) -> Vec<String> {
    let permissions = Permissions::from_words(words.iter().map(String::as_str)).unwrap_or_default();
    permissions.explained().into_iter().map(|(word, means)| format!("{word} (to {means})")).collect()
}

fn shown(granted: &Granted) -> String {
    let mut text = format!("{} {}", granted.recipe, granted.version);
    if granted.asked.is_empty() {
        text.push_str("\n  asks for nothing");
    }
    let kinds = [
        ("granted", &granted.effective),
        ("not granted", &granted.missing),
        ("no effect now, the recipe does not ask for it", &granted.unused),
    ];
    for (verb, permissions) in kinds {
        for line in lines(&permissions.words()) {
            text.push_str(&format!("\n  {verb}: {line}"));
        }
    }
    if granted.given.reduced {
        text.push_str(&format!("\n  {REDUCED}"));
    }
    text
}
