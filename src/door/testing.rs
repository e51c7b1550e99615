//! `hob test`: runs the cases of a recipe folder in one host, and compares how each ends with what it says.

use std::{collections::VecDeque, path::Path, time::Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    author::{cases, pack::read_manifest},
    door::{calling::interruptible, print::say},
    host::{Config, Host, blobs},
    model::{
        Call, Code, Door, Event, Fault, Manifest, Outcome, RecipeRef, act,
        case::{Case, End},
        hint,
        limits::{CASE_LINES_MAX, CASE_WHY_CHARS_MAX, CASES_TOLD_MAX, FAULT_DETAIL_BYTES_MAX, PACK_NAMED_MAX},
        nearest,
        printable::in_a_line,
    },
};

/// The result of a case.
#[derive(Debug, Serialize)]
struct Tried {
    case: String,
    ok: bool,
    /// How the end differs from what the case says.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The hint of the fault with which it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    wall_ms: u64,
    /// The last lines that the pod printed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    printed: Vec<String>,
}

/// Runs the named cases, or all, and prints the result of each.
///
/// Errors: `case_failed`; faults of the folder; `usage` for a name that no case has.
pub async fn test(config: Config, folder: &Path, names: &[String], json: bool) -> Result<(), Fault> {
    let (manifest, tried) = all(config, folder, names).await?;
    let failed = tried.iter().filter(|tried| !tried.ok).count();
    let fault = fault(&manifest, &tried);
    if let (true, Some(fault)) = (json, &fault) {
        // With `--json` there is one document: the fault carries the results.
        return Err(fault.clone());
    }
    say(json, json!({ "cases": tried, "passed": tried.len() - failed, "failed": failed }), || {
        tried.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    fault.map_or(Ok(()), Err)
}

/// Refuses a folder if a case ends otherwise than it says.
///
/// Errors: those of [`test`].
pub async fn pass(config: Config, folder: &Path) -> Result<(), Fault> {
    let (manifest, tried) = all(config, folder, &[]).await?;
    fault(&manifest, &tried).map_or(Ok(()), Err)
}

fn line(tried: &Tried) -> String {
    let case = in_a_line(&tried.case);
    let Some(why) = &tried.why else { return format!("ok       {case} ({} ms)", tried.wall_ms) };
    let printed: String = tried.printed.iter().map(|line| format!("\n         | {line}")).collect();
    let hint = tried.hint.as_ref().map(|hint| format!("\n         hint: {}", in_a_line(hint))).unwrap_or_default();
    format!("FAILED   {case}: {}{hint}{printed}", in_a_line(why))
}

fn fault(manifest: &Manifest, tried: &[Tried]) -> Option<Fault> {
    let failed: Vec<&Tried> = tried.iter().filter(|tried| !tried.ok).collect();
    let first = failed.first()?;
    let named: Vec<String> = failed.iter().take(PACK_NAMED_MAX).map(|tried| format!("`{}`", tried.case)).collect();
    let text = format!(
        "{} of {} cases of `{}` end otherwise than they say: {}; of `{}`, {}",
        failed.len(),
        tried.len(),
        manifest.name,
        named.join(", "),
        first.case,
        in_a_line(first.why.as_deref().unwrap_or_default())
    );
    let own = first.hint.as_ref().map(|hint| format!("{}; else ", in_a_line(hint))).unwrap_or_default();
    let next = hint![own, "correct the recipe, or what the case says; ", act::call_folder("FOLDER"), " shows an answer whole"];
    // A fault has limited room: the result of each case comes first, then printed lines as far as they fit.
    let room = FAULT_DETAIL_BYTES_MAX / 2;
    let (mut used, mut told) = (0, Vec::new());
    for tried in tried {
        let why = tried.why.as_ref().map(|why| shortened(why));
        let hint = tried.hint.as_ref().map(|hint| shortened(hint));
        let printed: usize = tried.printed.iter().map(String::len).sum();
        used += printed + tried.case.len() + [&why, &hint].into_iter().flatten().map(String::len).sum::<usize>() + 64;
        let printed = if used <= room { tried.printed.clone() } else { Vec::new() };
        if used > room {
            used -= tried.printed.iter().map(String::len).sum::<usize>();
        }
        told.push(Tried { case: tried.case.clone(), ok: tried.ok, why, hint, wall_ms: tried.wall_ms, printed });
    }
    // More cases than fit: keep only failed ones, up to the limit.
    if used > room {
        told.retain(|tried| !tried.ok);
        told.truncate(CASES_TOLD_MAX);
    }
    Some(Fault::new(Code::CaseFailed, text).hint(next).with("cases", json!(told)))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(CASE_WHY_CHARS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

async fn all(config: Config, folder: &Path, names: &[String]) -> Result<(Manifest, Vec<Tried>), Fault> {
    let manifest = read_manifest(folder)?;
    let mut cases = cases::all(folder, &manifest)?;
    if let Some(unknown) = names.iter().find(|name| cases.iter().all(|case| case.name != **name)) {
        let near = nearest::among(unknown, cases.iter().map(|case| case.name.as_str())).map(|near| format!(" (nearest: `{near}`)"));
        let text = format!("`{}` has no case `{unknown}`{}", manifest.name, near.unwrap_or_default());
        return Err(Fault::new(Code::Usage, text).hint(format!("the cases are the folders in {}", folder.join("cases").display())));
    }
    cases.retain(|case| names.is_empty() || names.contains(&case.name));
    let recipe = RecipeRef::Folder(std::path::absolute(folder).map_err(|error| Fault::io(folder.display(), &error))?);
    let host = Host::open(config.without_zygotes()).await?;
    // A fault of the folder is not the fault of a case.
    if let Err(fault) = host.show(&recipe).await {
        host.shutdown().await;
        return Err(fault);
    }
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut tried = Vec::new();
    let done = async {
        for (at, case) in cases.into_iter().enumerate() {
            // A session of its own, so that no case sees the state of another. It is named by a number,
            // because a case's name may be no valid session name.
            let session = manifest.operation(&case.operation)?.session.then(|| format!("test-{}-{at}", std::process::id()));
            let one = interruptible(interrupt.as_mut(), one(&host, &recipe, folder, session.clone(), case)).await;
            if let Some(name) = session {
                match host.close_session(&recipe, &name).await {
                    // A session that could not be opened is not found, and needs no closing.
                    Err(fault) if fault.code != Code::SessionNotFound => return Err(fault),
                    _ => {}
                }
            }
            tried.push(one??);
        }
        Ok(())
    };
    let done: Result<(), Fault> = done.await;
    host.shutdown().await;
    done.map(|()| (manifest, tried))
}

async fn one(host: &Host, recipe: &RecipeRef, folder: &Path, session: Option<String>, case: Case) -> Result<Tried, Fault> {
    let file = |(name, file): (&String, &String)| {
        let path = folder.join("cases").join(&case.name).join(file);
        blobs::from_file(name.as_str(), blobs::media_type_of(&path), &path)
    };
    let mut call = Call::new(&recipe.to_string(), &case.operation, case.input.clone())?;
    call.recipe = recipe.clone();
    call.blobs = case.blobs.iter().map(file).collect::<Result<_, _>>()?;
    call.logs = true;
    call.session = session;
    let begun = Instant::now();
    let (outcome, chunks, printed) = run(host, call, &case).await?;
    let wall_ms = begun.elapsed().as_millis() as u64;
    let why = match &outcome {
        Ok(outcome) => case.differs(Ok(outcome.output.value()), &chunks),
        Err(fault) => case.differs(Err(fault), &chunks),
    };
    let hint = outcome.err().and_then(|fault| fault.worded(Door::CommandLine).hint).filter(|_| why.is_some());
    let hint = hint.map(|hint| hint.to_string());
    let printed = if why.is_some() { printed.into() } else { Vec::new() };
    Ok(Tried { case: case.name, ok: why.is_none(), why, hint, wall_ms, printed })
}

/// Runs a case: its end, its chunks as far as they are compared, and the last printed lines.
async fn run(host: &Host, call: Call, case: &Case) -> Result<(Result<Outcome, Fault>, Vec<Value>, VecDeque<String>), Fault> {
    // One chunk more than the case has is enough to show that the number differs.
    let most = match &case.end {
        End::Answer { chunks: Some(chunks), .. } => chunks.len() + 1,
        _ => 0,
    };
    let (mut chunks, mut printed) = (Vec::new(), VecDeque::new());
    let mut running = host.start(call);
    while let Some(event) = running.next().await {
        match event {
            Event::Chunk { data, .. } if chunks.len() < most => chunks.push(data.into_value()),
            Event::Printed { text } => {
                if printed.len() == CASE_LINES_MAX {
                    printed.pop_front();
                }
                printed.push_back(text);
            }
            _ => {}
        }
    }
    Ok((running.outcome().await, chunks, printed))
}
