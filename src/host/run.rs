//! One call, top to bottom. Start reading Hob here.

use crate::glue::pods;
use std::sync::Arc;

use serde_json::Value;
use tokio::time::{Duration, Instant, timeout_at};

use super::{
    HostState,
    call_context::CallContext,
    entry::Entry,
    journal::{Record, Recording},
    lease::Leased,
    printing, sessions,
};
use crate::{
    model::{
        Admitted, Blob, Call, Code, Document, Fault, Manifest, Operation, Outcome, RecipeRef, act, events, hint, manifest::operation::Part,
    },
    shelf::{blocking, bundle::behind},
};

/// The answer to a call before it is checked and wrapped.
struct Answer {
    output: Document,
    blobs: Vec<Blob>,
}

/// Runs one call; `events` gets the events before the outcome, in order.
pub async fn run(host: &Arc<HostState>, call: Call, events: events::Sender) -> Result<Outcome, Fault> {
    let mut recording = Recording::begin(host, &call);
    let result = resolve(host, call, events, &mut recording.record).await;
    recording.end(result.as_ref().err().map(|fault| fault.code));
    result
}

/// Finds the recipe that the call means, and runs the call on it.
async fn resolve(host: &Arc<HostState>, call: Call, events: events::Sender, record: &mut Record) -> Result<Outcome, Fault> {
    let mut begun = Instant::now();
    host.lifecycle.check_open("takes no more calls")?;
    let call = host.limits.shortened(call);
    // Find the recipe: a verified one from the shelf, or the author's folder.
    if let RecipeRef::Folder(folder) = &call.recipe
        && host.bring_models(folder).await? > 0
    {
        // Downloads of models are not part of the call's time, as those of an install are not.
        begun = Instant::now();
    }
    let entry = host.catalogue.find(host, &call.recipe).await?;
    let done = run_admitted(host, &entry, call, events, begun, record).await.map_err(|fault| behind::at_home(entry.recipe(), fault));
    match done {
        // A pod may not see a file that its author sees in the recipe folder; the explained fault says so.
        Err(fault) if behind::is_about_a_file(&fault) => {
            let (recipe, before) = (entry.recipe().clone(), fault.clone());
            Err(blocking(move || Ok(behind::explained(&recipe, fault))).await.unwrap_or(before))
        }
        done => done,
    }
}

/// Admits a call of that recipe, runs it within its time budget, and checks the answer against the output
/// schema. The time counts from `begun`.
pub(super) async fn run_admitted(
    host: &Arc<HostState>,
    entry: &Arc<Entry>,
    call: Call,
    events: events::Sender,
    begun: Instant,
    record: &mut Record,
) -> Result<Outcome, Fault> {
    let recipe = entry.recipe().clone();
    let manifest = recipe.manifest();
    let operation = call.operation_in(manifest)?.clone();
    let asked = call.recipe.clone();
    let budget_ms = call.budget_ms(&operation)?;
    let deadline = begun + Duration::from_millis(budget_ms);

    // One time budget covers all of this. At its end the future is dropped, and with it the wasm store and
    // the asks.
    let work = async {
        // Admit the call: operation, schema, bounds. Pure.
        let (long, admitted) = (operation.input.is_long_for(&call.input), recipe.clone());
        let call = entry.check(host, long, move || Admitted::admit(admitted, call)).await?;

        let logs = call.wants_logs().then(|| events.clone());
        let answer = in_session(CallContext { host, entry, events, deadline, record }, &call);
        let answer = match logs {
            Some(events) => printing::told(host, &manifest.name.to_string(), &events, answer).await?,
            None => answer.await?,
        };

        // The output must be what the recipe's schema promises.
        let (long, operation) = (operation.output.is_long_for(&answer.output), operation.clone());
        let what = format!("output of `{}` of `{}`", operation.name, manifest.name);
        let promised = move || {
            operation.output.check(&answer.output, &what, Code::InvalidOutput).map_err(|fault| unkept(fault, &answer.output, &asked))?;
            Part::Output.blobs(&operation).check(&answer.blobs, &what, Code::InvalidOutput)?;
            Ok(Answer { output: operation.output.with_integers(answer.output), ..answer })
        };
        entry.check(host, long, promised).await
    };
    let answer = match timeout_at(deadline, work).await {
        Ok(answer) => answer?,
        Err(_) => return Err(late(manifest, &operation, budget_ms, host.limits.are_why(budget_ms))),
    };
    Ok(Outcome {
        output: answer.output,
        blobs: answer.blobs,
        recipe: manifest.name.to_string(),
        version: manifest.version.to_string(),
        unsigned: recipe.is_unsigned(),
        wall_ms: begun.elapsed().as_secs_f64() * 1e3,
    })
}

/// Adds a hint for the recipe's author to the fault of an output that breaks its schema.
fn unkept(fault: Fault, output: &Document, recipe: &RecipeRef) -> Fault {
    if fault.hint.is_some() {
        return fault;
    }
    let given = match output.text() {
        "null" => "a method that ends without `return` gives null, also one that yields chunks; ",
        _ => "",
    };
    let hint = hint![given, act::show(recipe), " tells the schema of the output: the recipe's author returns what it says, or corrects it"];
    fault.hint(hint)
}

/// Runs the call in the session that it names, which is opened or restored for it; without a session if it
/// names none.
async fn in_session(context: CallContext<'_>, call: &Admitted) -> Result<Answer, Fault> {
    let host = context.host;
    let session = sessions::enter(host, context.entry, call, &context.events).await?;
    let asks = Leased::new(&context, call, session.as_ref());
    let answer = execute(context, call, asks).await;
    match session {
        Some(session) => session.over(host, answer).await,
        None => answer,
    }
}

/// Runs the recipe's glue if there is one, else asks the pod directly.
async fn execute(context: CallContext<'_>, call: &Admitted, asks: Leased) -> Result<Answer, Fault> {
    let CallContext { host, entry, events, deadline, record } = context;
    match call.recipe().manifest().glue.is_some() {
        true => {
            // A cold pod starts while the glue is compiled or read from the cache.
            asks.warm();
            let prepared = entry.prepared(host).await?;
            let asks = Arc::new(asks);
            let response = prepared.run(call, asks.clone(), events, deadline).await;
            record.count_frames(asks.crossings());
            let response = response?;
            record.count_glue(&response.crossings);
            Ok(Answer { output: response.output, blobs: response.blobs })
        }
        false => {
            let answer = ask_pod(&asks, call, &events).await;
            record.count_frames(asks.crossings());
            answer
        }
    }
}

/// Sends the validated input of a call without glue to the pod, and returns the pod's answer.
async fn ask_pod(asks: &Leased, call: &Admitted, events: &events::Sender) -> Result<Answer, Fault> {
    let mut ask = asks.send(call.operation(), call.input(), call.blobs().to_vec()).await?;
    loop {
        match ask.next(Document::parse).await? {
            pods::AskEvent::Chunk { data, blobs } => {
                events.chunk(data, blobs).await.map_err(|events::Gone| Fault::new(Code::Cancelled, "the caller went away"))?;
            }
            pods::AskEvent::Answer { data, blobs } => return Ok(Answer { output: data, blobs }),
        }
    }
}

/// The fault of a call whose time is up. `by_app`: the app's limit on all calls was the reason.
fn late(manifest: &Manifest, operation: &Operation, budget_ms: u64, by_app: bool) -> Fault {
    let hint = match by_app {
        true => hint!["no call has more time: ", act::limit_deadline(), " says so; give it less to do, or have that say more"],
        false => hint![
            "give it more time with ",
            act::deadline(),
            " up to ",
            act::operation_deadline(&operation.name),
            ", or give it less to do"
        ],
    };
    Fault::new(Code::Deadline, format!("`{}` of `{}` was not done within its {budget_ms} ms", operation.name, manifest.name))
        .hint(hint)
        .with("deadline_ms", Value::from(budget_ms))
}
