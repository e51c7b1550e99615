//! `hob call`: runs in the running server if there is one, else in a host of its own, with the same output
//! either way.

use std::{path::Path, pin::Pin};

use serde_json::json;

use crate::{
    door::{
        args::{CallArgs, usage},
        client::{Calling, Client},
        lines::CallBody,
        print::{self, Prints, Watch},
    },
    host::{Config, Host, Running, blobs},
    model::{Blob, Call, Code, Document, Event, Fault, Outcome, RecipeRef, Report, act, hint, limits, stand_in},
    pod::Missed,
};

/// Runs one call and prints its result.
pub async fn call(config: Config, args: CallArgs, watch: Watch, (quiet, json): (bool, bool)) -> Result<(), Fault> {
    let text = match args.input.as_deref() {
        Some(text) if text != "-" => text.to_owned(),
        _ => read_stdin()?,
    };
    let outs = args.out.iter().map(|pair| name_and_file(pair, "--out")).collect::<Result<Vec<_>, _>>()?;
    // A folder that its author edits, and a one-shot call, run outside the server.
    let is_folder = RecipeRef::is_folder(&args.recipe);
    let mut args = args;
    // An author wants to see what the pod prints.
    args.logs |= is_folder && !quiet;
    let args = args;
    let mut prints = Prints::new(args.logs);
    let server = match is_folder || args.one_shot {
        true => None,
        false => Client::connect(config.home()).await?,
    };
    let host = match server {
        Some(_) => None,
        None => Some(Host::open(config.without_zygotes()).await?),
    };
    // One listener for the whole call, so that a Ctrl-C between two events counts too.
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let done = async {
        let running = interruptible(interrupt.as_mut(), begin(server, host.as_ref(), &args, text)).await??;
        let (outcome, chunks_left) = follow(running, args.stream, watch, &mut prints, interrupt.as_mut()).await?;
        print(&outcome, chunks_left, &outs, json)
    };
    let done = done.await;
    if let Some(host) = host {
        if done.is_ok() {
            // The result is printed already, so a user may interrupt this.
            let _ = interruptible(interrupt.as_mut(), host.keep_caches()).await;
        }
        // Also show what the pods print as they end.
        let mut last = host.printed();
        host.shutdown().await;
        if done.is_ok() {
            for fault in host.pod_faults() {
                print::note(&format!(
                    "  a pod of it ended badly, which the result does not show: {}: {}",
                    fault.code.name(),
                    fault.message
                ));
            }
        }
        while let Some(line) = last.next_now() {
            match line {
                Ok(heard) => prints.show(&heard.line.text),
                Err(Missed(count)) => prints.show(&format!("[{count} lines are left out: too many at once]")),
            }
        }
    }
    prints.finish();
    done
}

/// Begins the call in the server, else in the host.
async fn begin(server: Option<Client>, host: Option<&Host>, args: &CallArgs, text: String) -> Result<Under, Fault> {
    let blobs = || args.blob.iter().map(|pair| read_blob(pair)).collect::<Result<Vec<_>, _>>();
    let deadline_ms = args.deadline.as_deref().map(milliseconds).transpose()?;
    let (priority, one_shot) = (args.priority, args.one_shot);
    if let Some(server) = server {
        let input = Document::parse(text, "input")?;
        let session = args.session.clone();
        let body = CallBody { deadline_ms, priority, session, logs: args.logs, ..CallBody::of(&args.recipe, &args.operation, &input)? };
        return Ok(Under::There(server.call(body, &blobs()?).await?));
    }
    let Some(host) = host else { return Err(Fault::new(Code::Internal, "a call has neither a server nor a host")) };
    let recipe = host.resolve(&args.recipe).await?;
    let input = Document::parse(text, "input")?;
    let (operation, session) = (args.operation.clone(), args.session.clone());
    let call = Call { recipe, operation, input, blobs: blobs()?, deadline_ms, priority, one_shot, session, logs: args.logs };
    Ok(Under::Here(host.start(call)))
}

/// Prints events until the outcome; returns the outcome, and the number of chunks that were not printed. The
/// progress bar is gone then.
async fn follow(
    mut running: Under,
    stream: bool,
    mut watch: Watch,
    prints: &mut Prints,
    mut interrupt: Pin<&mut impl Future<Output = std::io::Result<()>>>,
) -> Result<(Outcome, u64), Fault> {
    let mut left = 0u64;
    while let Some(event) = interruptible(interrupt.as_mut(), running.next()).await? {
        match event {
            Event::Chunk { data, .. } if stream => print::result(&format!("{{\"chunk\":{data}}}")),
            Event::Chunk { .. } => left += 1,
            Event::Progress { data } if data["session"] == "resumed" => {
                let number = |key: &str| data[key].as_u64().unwrap_or(0);
                let gone = match number("calls_since") {
                    0 => String::new(),
                    1 => "; 1 call since is gone".to_owned(),
                    calls => format!("; {calls} calls since are gone"),
                };
                print::note(&format!("  the session goes on from checkpoint {}{gone}", number("checkpoint")));
            }
            Event::Progress { data } => watch.show(&Report::of(&data)),
            Event::Printed { text } => prints.show(&text),
            Event::Log { level, message } if prints.are_wanted() => prints.show(&format!("{level}: {message}")),
            Event::Log { level, message } => tracing::info!(target: "hob::glue", "{level}: {message}"),
        }
    }
    let outcome = interruptible(interrupt, running.outcome()).await??;
    if left > 0 {
        print::note(&format!("  {left} chunks of the result were not printed: `--stream` prints them"));
    }
    Ok((outcome, left))
}

/// A running call, in the server or in a host here.
enum Under {
    Here(Running),
    There(Calling),
}

impl Under {
    async fn next(&mut self) -> Option<Event> {
        match self {
            Under::Here(running) => running.next().await,
            Under::There(calling) => calling.next().await,
        }
    }

    async fn outcome(self) -> Result<Outcome, Fault> {
        match self {
            Under::Here(running) => running.outcome().await,
            Under::There(calling) => calling.outcome().await,
        }
    }
}

/// Writes the requested blobs, and prints the result.
fn print(outcome: &Outcome, chunks_left: u64, outs: &[(String, String)], json: bool) -> Result<(), Fault> {
    for (name, file) in outs {
        let blob = outcome.blobs.iter().find(|blob| &blob.name == name).ok_or_else(|| {
            let names: Vec<_> = outcome.blobs.iter().map(|blob| format!("`{}`", blob.name)).collect();
            usage(format!("the result has no blob `{name}` (it has: {})", names.join(", ")))
        })?;
        let mut into = std::fs::File::create(file).map_err(|error| Fault::io(format!("writing {file}"), &error))?;
        blob.write_to(&mut into, file)?;
    }
    for blob in outcome.blobs.iter().filter(|blob| !outs.iter().any(|(name, _)| name == &blob.name)) {
        print::note(&format!(
            "  the result's blob `{}` ({} bytes) was not kept: `--out {}=FILE` writes it",
            blob.name,
            blob.size(),
            blob.name
        ));
    }
    if outcome.unsigned {
        print::note(&format!("  unsigned dev mode: {} {} ran from a folder", outcome.recipe, outcome.version));
    }
    match json {
        true => {
            let mut about = json!({
                "recipe": outcome.recipe, "version": outcome.version, "unsigned": outcome.unsigned, "wall_ms": outcome.wall_ms,
            });
            if chunks_left > 0 {
                about["chunks_left"] = json!(chunks_left);
            }
            // The output as its text: a parsed value would have its keys in another order.
            print::result(&format!("{{\"output\":{},{}", outcome.output, &about.to_string()[1..]));
        }
        false => print::result(outcome.output.text()),
    }
    Ok(())
}

/// Waits for `work` unless the user presses Ctrl-C; then `work` is dropped, which cancels it down to the
/// worker.
pub(super) async fn interruptible<T>(
    interrupt: impl Future<Output = std::io::Result<()>>,
    work: impl Future<Output = T>,
) -> Result<T, Fault> {
    tokio::select! {
        done = work => Ok(done),
        Ok(()) = interrupt => Err(Fault::new(Code::Cancelled, "interrupted")),
    }
}

fn read_stdin() -> Result<String, Fault> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let most = limits::DOCUMENT_BYTES_MAX;
    let read = std::io::stdin().lock().take(most as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Fault::io("reading input from stdin", &error))?;
    // Check the length before the text: the limit may have cut through a character.
    if bytes.len() > most {
        return Err(Fault::new(
            Code::TooLarge,
            format!("input on stdin is more than {most} bytes of JSON, which is the most that is carried"),
        )
        .hint(hint!["pass large data as a blob by ", act::blob()]));
    }
    stand_in::text(bytes).map_err(|wrong| {
        let fault = wrong.fault(Code::InvalidJson, "input on stdin");
        fault.hint(hint!["JSON is UTF-8: convert it, or pass bytes as a blob by ", act::blob()])
    })
}

fn name_and_file(pair: &str, flag: &str) -> Result<(String, String), Fault> {
    match pair.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.to_owned())),
        _ => Err(usage(format!("`{flag} {pair}`: wanted NAME=FILE"))),
    }
}

fn read_blob(pair: &str) -> Result<Blob, Fault> {
    let (name, file) = name_and_file(pair, "--blob")?;
    if !Path::new(&file).exists() {
        return Err(Fault::new(Code::Usage, format!("`--blob {pair}`: no file {file}")));
    }
    blobs::from_file(name, blobs::media_type_of(Path::new(&file)), Path::new(&file))
}

/// Milliseconds of a time such as `500ms`, `30s` or `5m`.
fn milliseconds(text: &str) -> Result<u64, Fault> {
    let wrong = || usage(format!("`{text}` is not a time: wanted e.g. `500ms`, `30s` or `5m`"));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(milliseconds("500ms").unwrap(), 500);
        assert_eq!(milliseconds("30s").unwrap(), 30_000);
        assert_eq!(milliseconds("5m").unwrap(), 300_000);
        for bad in ["", "5", "s", "-1s", "1h", "99999999999999999999s", "18446744073709551615m"] {
            assert_eq!(milliseconds(bad).unwrap_err().code, Code::Usage, "{bad}");
        }
    }
}
