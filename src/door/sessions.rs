//! `hob sessions`: lists sessions, and acts on one.
//!
//! Without a server it reads the disk, and acts through a host of its own.

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    door::{
        args::SessionArgs,
        client::Client,
        print::say,
        table::{duration, table},
    },
    host::{Config, Host},
    model::{
        Fault, RecipeRef,
        status::session::{CheckpointStatus, SessionState, SessionStatus, check_name},
    },
};

/// Lists sessions, or does the requested action.
pub async fn sessions(config: Config, words: Option<SessionArgs>, json: bool) -> Result<(), Fault> {
    match words {
        None => list(config, json).await,
        Some(SessionArgs::Open { recipe, name }) => {
            let opened: SessionStatus =
                done(config, &recipe, &name, "open", async |host, word| Ok(json!(host.open_session(&word, &name).await?))).await?;
            say(json, json!(opened), || format!("the session `{name}` of {recipe} is open"));
            Ok(())
        }
        Some(SessionArgs::Checkpoint { recipe, name }) => {
            let kept: Option<CheckpointStatus> =
                done(config, &recipe, &name, "checkpoint", async |host, word| Ok(json!(host.checkpoint_session(&word, &name).await?)))
                    .await?;
            say(json, json!(kept), || match &kept {
                Some(kept) => format!("checkpoint {} of `{name}` is kept: {} bytes", kept.number, kept.bytes),
                None => format!("nothing of `{name}` is to be kept: it was not called yet"),
            });
            Ok(())
        }
        Some(SessionArgs::Touch { recipe, name }) => {
            let touched: SessionStatus =
                done(config, &recipe, &name, "touch", async |host, word| Ok(json!(host.touch_session(&word, &name).await?))).await?;
            say(json, json!(touched), || format!("the time of `{name}` of {recipe} begins anew"));
            Ok(())
        }
        Some(SessionArgs::Close { recipe, name }) => {
            let closed: Value = done(config, &recipe, &name, "close", async |host, word| {
                host.close_session(&word, &name).await?;
                Ok(json!({ "closed": name }))
            })
            .await?;
            say(json, closed, || format!("the session `{name}` of {recipe} is closed, and what was kept of it is deleted"));
            Ok(())
        }
    }
}

async fn list(config: Config, json: bool) -> Result<(), Fault> {
    let sessions: Vec<SessionStatus> = match Client::connect(config.home()).await? {
        Some(client) => client.ask(Method::GET, "/v1/sessions").await?,
        None => {
            let host = Host::open(config.without_zygotes()).await?;
            let sessions = host.sessions().await;
            host.shutdown().await;
            sessions?
        }
    };
    say(json, json!(sessions), || match sessions.is_empty() {
        true => "there is no session".to_owned(),
        false => rows(&sessions),
    });
    Ok(())
}

/// Acts through the running server, which has the pods; without one, through `here` and a host of its own.
async fn done<T: DeserializeOwned>(
    config: Config,
    recipe: &str,
    name: &str,
    what: &str,
    here: impl AsyncFnOnce(&Host, RecipeRef) -> Result<Value, Fault>,
) -> Result<T, Fault> {
    check_name(name)?;
    let server = if RecipeRef::is_folder(recipe) { None } else { Client::connect(config.home()).await? };
    let host = Host::open(config.without_zygotes()).await?;
    // The recipe need not be installed any more.
    let value = match (host.resolve(recipe).await, server) {
        (Ok(RecipeRef::Name(recipe)), Some(server)) => server.act(&format!("/v1/recipes/{recipe}/sessions/{name}/{what}")).await,
        (Ok(recipe), _) => here(&host, recipe).await,
        (Err(fault), _) => Err(fault),
    };
    host.shutdown().await;
    serde_json::from_value(value?)
        .map_err(|error| Fault::new(crate::model::Code::Internal, format!("a session's own words cannot be read: {error}")))
}

fn rows(sessions: &[SessionStatus]) -> String {
    let row = |session: &SessionStatus| {
        let state = match (session.state, session.running) {
            (SessionState::Parked, _) => "parked",
            (SessionState::Damaged, _) => "damaged",
            (SessionState::Live, 0) => "live",
            (SessionState::Live, _) => "at work",
        };
        let now = session.checkpoint.as_ref().map(|kept| format!("{} ({} bytes, after {} calls)", kept.number, kept.bytes, kept.calls));
        [
            session.name.clone(),
            session.folder.clone().unwrap_or_else(|| session.recipe.clone()),
            session.version.clone(),
            json!(session.mode).as_str().unwrap_or("").to_owned(),
            state.to_owned(),
            duration(session.age_ms),
            duration(session.idle_ms),
            session.calls.to_string(),
            now.unwrap_or_else(|| "-".to_owned()),
            session.checkpoint_fault.as_ref().map_or("-", |fault| fault.code.name()).to_owned(),
        ]
    };
    let heads = ["SESSION", "RECIPE", "VERSION", "MODE", "STATE", "AGE", "IDLE", "CALLS", "CHECKPOINT", "LAST FAULT"];
    table(heads, sessions.iter().map(row).collect())
}
