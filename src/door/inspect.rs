//! `hob pods`, `hob logs`, `hob status`: what the running server reports about itself.
//!
//! Each may ask every second. With `--watch`, a missing server is no fault.

use crate::door::{
    client::ask,
    table::{duration, table},
};
use std::{collections::HashMap, path::Path, time::Duration};

use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    author::pack::read_manifest,
    door::{
        args::{LogArgs, PodArgs},
        machine::machine_text,
        print::{self, say},
    },
    host::past_logs,
    model::{
        Code, Door, Fault, Home, RecipeName, RecipeRef, limits,
        status::{Class, Confinement, Health, HostStatus, LogLine, PodStatus, ZygoteState, ZygoteStatus},
    },
    shelf::store::Shelf,
};

const NONE_RUNS: &str = "no host is running: `hob serve` starts one";
const OF_THE_PAST: &str = "no host is running: these lines are of the past";

/// Lists the pods, or lifts a quarantine.
pub async fn pods(home: &Home, args: PodArgs, json: bool) -> Result<(), Fault> {
    if let Some(recipe) = &args.lift {
        let name: RecipeName = recipe.parse()?;
        let lifted: Option<Value> = ask(home, Method::POST, &format!("/v1/recipes/{name}/lift")).await?;
        say(json, json!({ "lifted": lifted.is_some().then_some(&name) }), || match lifted {
            Some(_) => format!("{name} may start pods again"),
            None => format!("{NONE_RUNS}, and with none nothing cools down"),
        });
        return Ok(());
    }
    let path = address("/v1/pods", args.recipe.as_deref(), None)?;
    every(args.watch, async || {
        let pods: Option<Vec<PodStatus>> = ask(home, Method::GET, &path).await?;
        told(&pods, args.watch)?;
        if let (Some([]), Some(recipe), false) = (pods.as_deref(), &args.recipe, args.watch) {
            say_unknown(home, &recipe.parse()?);
        }
        show(&pods.as_deref().unwrap_or_default(), args.watch, json, || match &pods {
            None => NONE_RUNS.to_owned(),
            Some(pods) if pods.is_empty() => "no pod is running".to_owned(),
            Some(pods) => pod_table(pods),
        });
        Ok(())
    })
    .await
}

/// Shows a summary of the host.
pub async fn status(home: &Home, watch: bool, json: bool) -> Result<(), Fault> {
    every(watch, async || {
        let status: Option<HostStatus> = ask(home, Method::GET, "/v1/status").await?;
        told(&status, watch)?;
        show(&status, watch, json, || status.as_ref().map_or_else(|| NONE_RUNS.to_owned(), status_text));
        Ok(())
    })
    .await
}

/// Checks that a server answered. With `--watch`, the command waits for a server.
///
/// Errors: `not_serving`.
fn told<T>(found: &Option<T>, watch: bool) -> Result<(), Fault> {
    match found.is_some() || watch {
        true => Ok(()),
        false => Err(Fault::new(Code::NotServing, "no host is running").hint("`hob serve` starts one")),
    }
}

/// Notes that no recipe of that name is installed, if nothing was found under the name. That is no fault: a
/// recipe that was removed, or is called as a folder, may have left lines or pods.
fn say_unknown(home: &Home, name: &RecipeName) {
    if let Err(fault) = Shelf::is_known(home, name) {
        let fault = fault.worded(Door::CommandLine);
        let next = fault.hint.as_ref().map(|hint| format!(": {hint}")).unwrap_or_default();
        print::note(&format!("  {}{next}", fault.message));
    }
}

/// Prints the last lines; with `--watch`, also later ones.
pub async fn logs(home: &Home, args: LogArgs, json: bool) -> Result<(), Fault> {
    let recipe = args.recipe.as_deref().map(named).transpose()?;
    let shown = recipe.as_ref().map(ToString::to_string);
    let path = |lines| address("/v1/logs", shown.as_deref(), Some(lines));
    let line = |line: &LogLine| match json {
        true => print::result(&json!(line).to_string()),
        false => print::result(&log_text(line)),
    };
    if !args.watch {
        let (lines, is_past) = lines_of(home, &path(args.lines)?, recipe.as_ref(), args.lines).await?;
        if let (true, Some(name)) = (lines.is_empty(), &recipe) {
            say_unknown(home, name);
        }
        if is_past && !lines.is_empty() {
            print::note(OF_THE_PAST);
        }
        match &lines[..] {
            lines if json => print::result(&json!(lines).to_string()),
            [] if args.lines == 0 => {}
            [] if is_past => print::result(NONE_RUNS),
            [] => print::result("no pod has printed anything"),
            lines => lines.iter().for_each(line),
        }
        return Ok(());
    }
    // Each look returns earlier lines again; only new ones are printed. It asks for as many as are kept, so
    // that none are missed.
    let most = args.lines.max(limits::LOG_LINES_MAX);
    let path = path(most)?;
    let mut seen: Option<Vec<LogLine>> = None;
    let mut was_past = false;
    every(true, async || {
        let (now, is_past) = lines_of(home, &path, recipe.as_ref(), most).await?;
        if is_past && !was_past {
            print::note(if now.is_empty() { NONE_RUNS } else { OF_THE_PAST });
        }
        was_past = is_past;
        let new = fresh(seen.as_deref().unwrap_or_default(), &now);
        let skipped = if seen.is_none() { new.len().saturating_sub(args.lines) } else { 0 };
        new.into_iter().skip(skipped).for_each(line);
        seen = Some(now);
        Ok(())
    })
    .await
}

/// The recipe name of log lines; for a recipe folder, the name in its manifest.
fn named(word: &str) -> Result<RecipeName, Fault> {
    if !RecipeRef::is_folder(word) {
        return word.parse();
    }
    Ok(read_manifest(Path::new(word))?.name)
}

/// The last lines from the running server, or from files if no server runs; returns whether they are from
/// files.
async fn lines_of(home: &Home, path: &str, recipe: Option<&RecipeName>, lines: usize) -> Result<(Vec<LogLine>, bool), Fault> {
    match ask(home, Method::GET, path).await? {
        Some(lines) => Ok((lines, false)),
        None => Ok((past_logs(home, recipe, lines)?, true)),
    }
}

/// The lines of `now` that are not in `before`, in order. Equal lines are told apart by their count.
fn fresh<'a>(before: &[LogLine], now: &'a [LogLine]) -> Vec<&'a LogLine> {
    type Key<'k> = (&'k str, u64, u64, &'k str);
    fn key(line: &LogLine) -> Key<'_> {
        (&line.incarnation, line.ask, line.at_ms, &line.text)
    }
    let mut known: HashMap<Key, usize> = HashMap::new();
    before.iter().for_each(|line| *known.entry(key(line)).or_default() += 1);
    let mut new = Vec::new();
    for line in now {
        match known.get_mut(&key(line)) {
            Some(left) if *left > 0 => *left -= 1,
            _ => new.push(line),
        }
    }
    new
}

/// Runs `look` once, or once a second for as long as stdout is read.
async fn every(watch: bool, mut look: impl AsyncFnMut() -> Result<(), Fault>) -> Result<(), Fault> {
    look().await?;
    while watch && print::is_read() {
        tokio::time::sleep(Duration::from_millis(limits::WATCH_MS)).await;
        look().await?;
    }
    Ok(())
}

fn show(value: &impl Serialize, watch: bool, json: bool, text: impl FnOnce() -> String) {
    match (json, watch) {
        (false, true) => print::redrawn(&text()),
        _ => say(json, json!(value), text),
    }
}

fn address(path: &str, recipe: Option<&str>, lines: Option<usize>) -> Result<String, Fault> {
    let recipe = recipe.map(str::parse::<RecipeName>).transpose()?.map(|name| format!("recipe={name}"));
    let lines = lines.map(|lines| format!("lines={lines}"));
    let words: Vec<String> = [recipe, lines].into_iter().flatten().collect();
    Ok(if words.is_empty() { path.to_owned() } else { format!("{path}?{}", words.join("&")) })
}

fn pod_table(pods: &[PodStatus]) -> String {
    let row = |pod: &PodStatus| {
        [
            pod.recipe.clone(),
            pod.version.clone(),
            pod.state.to_string(),
            duration(pod.since_ms),
            pod.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            pod.memory_bytes.map_or("-".to_owned(), |bytes| format!("{} MB", bytes >> 20)),
            pod.asks.to_string(),
            pod.in_hand.to_string(),
            if pod.forked { "forked" } else { "started" }.to_owned(),
            pod.sandbox.as_ref().map_or("-".to_owned(), sandbox),
            last(pod.last_fault.as_ref()),
        ]
    };
    let heads = ["RECIPE", "VERSION", "STATE", "SINCE", "PID", "MEMORY", "CALLS", "IN HAND", "BEGAN", "SANDBOX", "LAST FAULT"];
    table(heads, pods.iter().map(row).collect())
}

/// A short text such as `full`, `gpu`, or `reduced: landlock, seccomp`. The reasons are in the JSON, and in
/// `hob doctor`.
fn sandbox(sandbox: &Confinement) -> String {
    let missing: Vec<&str> = sandbox.missing.iter().map(|text| text.split_once(" (").map_or(&**text, |(name, _)| name)).collect();
    match sandbox.class {
        Class::Full => "full".to_owned(),
        Class::Gpu => "gpu".to_owned(),
        Class::Reduced => format!("reduced: {}", missing.join(", ")),
    }
}

/// How pods of recipes with preloads are started.
pub(super) fn zygote_table(zygotes: &[ZygoteStatus]) -> String {
    let row = |zygote: &ZygoteStatus| {
        let state = match zygote.state {
            ZygoteState::Booting => "booting",
            ZygoteState::Ready => "ready",
            ZygoteState::Gone => "gone",
            ZygoteState::Unforkable => "unforkable",
        };
        [
            zygote.recipe.clone(),
            state.to_owned(),
            zygote.forked.to_string(),
            zygote.pods.to_string(),
            zygote.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            zygote.why.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    table(["RECIPE", "ZYGOTE", "FORKED", "PODS", "PID", "WHY"], zygotes.iter().map(row).collect())
}

fn status_text(status: &HostStatus) -> String {
    let accepts = match (status.accepts, &status.refused) {
        (true, _) => "taking calls",
        (false, Some(fault)) if fault.code != Code::ShuttingDown => "refusing all calls",
        (false, _) => "ending",
    };
    let mut text = format!(
        "hob {}, pid {}, up {}, {accepts}, {}\ncalls: {} under way, {} done, {} of them failed",
        status.version,
        status.pid,
        duration(status.up_ms),
        if status.is_healthy() { "healthy" } else { "not healthy" },
        status.calls_running,
        status.calls_done,
        status.calls_failed
    );
    if let Some(fault) = status.refused.clone().filter(|fault| fault.code != Code::ShuttingDown) {
        let fault = fault.worded(Door::CommandLine);
        let next = fault.hint.as_ref().map(|hint| format!("\n  {hint}")).unwrap_or_default();
        text.push_str(&format!("\nrefusing all calls as {}: {}{next}", fault.code.name(), fault.message));
    }
    let row = |pool: &crate::model::status::PoolStatus| {
        let health = match (pool.health, pool.retry_after) {
            (Health::Good, _) => "good".to_owned(),
            (Health::Failing, _) => "failing".to_owned(),
            (Health::Quarantined, Some(ms)) => format!("quarantined for {}", duration(ms)),
            (Health::Quarantined, None) => "quarantined".to_owned(),
        };
        [
            match &pool.session {
                Some(session) => format!("{} (session {session})", pool.recipe),
                None => pool.recipe.clone(),
            },
            pool.version.clone(),
            health,
            format!("{}/{}", pool.pods.len(), pool.pods_max),
            format!("{}/{}/{}", pool.waiting.interactive, pool.waiting.normal, pool.waiting.bulk),
            pool.asks_done.to_string(),
            pool.asks_failed.to_string(),
            pool.asks_repeated.to_string(),
            pool.crashes.to_string(),
            last(pool.last_fault.as_ref()),
        ]
    };
    if !status.pools.is_empty() {
        let heads = ["RECIPE", "VERSION", "HEALTH", "PODS", "WAITING", "ASKS", "FAILED", "REPEATED", "CRASHES", "LAST FAULT"];
        text.push_str(&format!("\n\n{}", table(heads, status.pools.iter().map(row).collect())));
    }
    if !status.damaged.is_empty() {
        let row = |one: &crate::model::status::DamagedStatus| [one.recipe.clone(), last(Some(&one.fault)), one.fault.message.clone()];
        text.push_str(&format!("\n\n{}", table(["DAMAGED", "FAULT", "WHY"], status.damaged.iter().map(row).collect())));
    }
    if !status.zygotes.is_empty() {
        text.push_str(&format!("\n\n{}", zygote_table(&status.zygotes)));
    }
    let machine = machine_text(&status.machine);
    if !machine.is_empty() {
        text.push_str(&format!("\n\n{machine}"));
    }
    text
}

fn log_text(line: &LogLine) -> String {
    let at = i64::try_from(line.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{} {} {}", at.map_or("-".to_owned(), |at| format!("{at:.3}")), line.recipe, line.text)
}

fn last(fault: Option<&Fault>) -> String {
    fault.map_or("-".to_owned(), |fault| fault.code.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_two_units() {
        let texts = [850, 12_999, 192_000, 18_180_000, 190_800_000].map(duration);
        assert_eq!(texts, ["850ms", "12s", "3m 12s", "5h 3m", "2d 5h"]);
    }

    #[test]
    fn only_lines_that_were_not_there_before_are_fresh() {
        let line = |at_ms, text: &str| LogLine { recipe: "a/b".into(), incarnation: "i".into(), ask: 0, at_ms, text: text.into() };
        // The oldest was dropped, an equal line came twice more.
        let before = [line(1, "a"), line(2, "b"), line(2, "b")];
        let now = [line(2, "b"), line(2, "b"), line(2, "b"), line(3, "a"), line(3, "a")];
        assert_eq!(fresh(&before, &now), [&now[2], &now[3], &now[4]]);
        assert_eq!(fresh(&[], &now).len(), 5);
    }

    #[test]
    fn the_class_of_a_pod_is_shown_with_what_it_lacks() {
        let shown = |class, missing: &[&str]| {
            sandbox(&Confinement { class, missing: missing.iter().map(|text| text.to_string()).collect(), memory: Default::default() })
        };
        assert_eq!((shown(Class::Full, &[]).as_str(), shown(Class::Gpu, &[]).as_str()), ("full", "gpu"));
        let missing = ["landlock (made unavailable)", "signalling the host (was not denied)"];
        assert_eq!(shown(Class::Reduced, &missing), "reduced: landlock, signalling the host");
    }

    #[test]
    fn a_zygote_is_shown_with_why_nothing_is_forked_from_it() {
        let zygote = |state, why: Option<&str>| ZygoteStatus {
            recipe: "a/b".into(),
            state,
            why: why.map(str::to_owned),
            forked: 3,
            pods: 1,
            pid: why.is_none().then_some(7),
        };
        let text = zygote_table(&[zygote(ZygoteState::Ready, None), zygote(ZygoteState::Unforkable, Some("fork: 2 threads"))]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a/b", "ready", "3", "1", "7", "-"]);
        assert_eq!(lines[2], ["a/b", "unforkable", "3", "1", "-", "fork:", "2", "threads"]);
    }

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let rows = vec![["hob/echo".to_owned(), "1".to_owned()], ["x".to_owned(), "-".to_owned()]];
        assert_eq!(table(["RECIPE", "N"], rows), "RECIPE    N\nhob/echo  1\nx         -");
    }
}
