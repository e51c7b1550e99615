//! The routes that report about the host, and the one that lifts a quarantine. None of them waits for a pod.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};

use crate::{
    door::http::{
        answers::{IsFull, answer, refused, refused_as},
        audience::Audience,
        requests::query,
        server::{Server, begins_no_call},
    },
    model::{
        Code, Fault, RecipeName, act, hint, limits,
        status::{Health, PodStatus, PoolStatus},
    },
    shelf::blocking,
};

/// `GET /v1/pods?recipe=`: the running pods, as a list.
pub async fn pods(State(server): State<Arc<Server>>, request: Request) -> Response {
    let found = (|| {
        let [recipe] = query(&request, ["recipe"])?;
        let recipe = recipe.map(|name| name.parse::<RecipeName>()).transpose()?.map(|name| name.to_string());
        let pods = server.host.status().pools.into_iter().flat_map(|pool| pool.pods);
        Ok(pods.filter(|pod| recipe.as_ref().is_none_or(|name| *name == pod.recipe)).collect::<Vec<PodStatus>>())
    })();
    told(found)
}

/// `GET /v1/status`: the whole host.
pub async fn status(State(server): State<Arc<Server>>) -> Response {
    // `status` may read a file.
    told(blocking(move || Ok(server.host.status())).await)
}

/// `GET /livez`: 200 while the server runs. Needs no token.
pub async fn livez() -> Response {
    answer(StatusCode::OK, &json!({ "live": true }))
}

/// `GET /readyz`: 200 while calls are accepted; 503 while every call would be refused, with the code of the
/// reason. Needs no token.
pub async fn readyz(State(server): State<Arc<Server>>, Extension(IsFull(full)): Extension<IsFull>) -> Response {
    let refused_as = match () {
        () if server.is_closing() => Some(Code::ShuttingDown),
        () if full || server.calls.available_permits() == 0 => Some(Code::Overloaded),
        // `ready` may read a file.
        () => blocking(move || server.host.ready()).await.err().map(|fault| fault.code),
    };
    match refused_as {
        None => answer(StatusCode::OK, &json!({ "ready": true })),
        Some(code) => answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "why": code })),
    }
}

/// The reason why a caller may not read the output of pods.
pub(super) const NOT_TOLD: &str = "what pods print is told to the server's own user";

pub(super) fn logs_are_not_told() -> Fault {
    Fault::new(Code::Usage, NOT_TOLD).hint(hint![act::all_logs(), " shows it, or ", act::details(), " lets it be told"])
}

/// `GET /v1/logs?recipe=&lines=`: the last lines that pods printed, oldest first.
pub async fn logs(State(server): State<Arc<Server>>, Extension(audience): Extension<Audience>, request: Request) -> Response {
    if !audience.may_read_logs() {
        return refused_as(StatusCode::FORBIDDEN, &logs_are_not_told());
    }
    let asked = (|| {
        let [recipe, lines] = query(&request, ["recipe", "lines"])?;
        let recipe = recipe.map(|name| name.parse::<RecipeName>()).transpose()?;
        let lines = match lines {
            Some(text) => text.parse().map_err(|_| Fault::new(Code::Usage, format!("`lines={text}` is not a whole number")))?,
            None => limits::LOGS_DEFAULT_LINES,
        };
        Ok((recipe, lines))
    })();
    match asked {
        // `logs` reads files.
        Ok((recipe, lines)) => match blocking(move || Ok(server.host.logs(recipe.as_ref(), lines))).await {
            Ok(lines) => told(Ok(lines)),
            Err(fault) => refused(&fault),
        },
        Err(fault) => refused(&fault),
    }
}

/// `GET /v1/health`: 200 while calls are accepted and every recipe in use answers; else 503, with the reason
/// why none are accepted, or with the recipes that do not answer.
pub async fn health(State(server): State<Arc<Server>>) -> Response {
    let host = server.host.clone();
    let status = match blocking(move || Ok(host.status())).await {
        Ok(status) => status,
        Err(fault) => return refused(&fault),
    };
    let refused = match server.is_closing() {
        true => Some(begins_no_call()),
        false => status.refused.clone(),
    };
    let healthy = status.is_healthy() && refused.is_none();
    let mut recipes: Vec<Value> = status.pools.iter().map(in_health).collect();
    let damaged = status.damaged.iter();
    recipes.extend(damaged.map(|one| json!({ "recipe": one.recipe, "health": "damaged", "fault": one.fault.code })));
    let mut said = json!({ "healthy": healthy, "accepts": refused.is_none(), "recipes": recipes });
    if let Some(refused) = &refused {
        said["refused"] = json!(refused);
    }
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = answer(code, &said);
    // If nothing else is wrong: the time until the last recipe that cools down may start pods again.
    let ill = status.pools.iter().filter(|pool| pool.health != Health::Good);
    let cooling: Option<Vec<u64>> = ill.map(|pool| pool.retry_after).collect();
    if let (None, true, Some(longest)) = (refused, status.damaged.is_empty(), cooling.and_then(|all| all.into_iter().max())) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(longest.div_ceil(1_000)));
    }
    response
}

fn in_health(pool: &PoolStatus) -> Value {
    let mut told = json!({ "recipe": pool.recipe, "health": pool.health });
    if let Some(session) = &pool.session {
        told["session"] = json!(session);
    }
    told
}

/// `POST /v1/recipes/{publisher}/{name}/lift`: ends the quarantine of a recipe.
pub async fn lift(State(server): State<Arc<Server>>, request: Request) -> Response {
    let path = request.uri().path();
    let name = path.strip_prefix("/v1/recipes/").and_then(|rest| rest.strip_suffix("/lift")).unwrap_or(path);
    told(name.parse::<RecipeName>().and_then(|name| server.host.lift(&name).map(|()| json!({ "lifted": name }))))
}

pub(super) fn told(value: Result<impl serde::Serialize, Fault>) -> Response {
    match value {
        Ok(value) => answer(StatusCode::OK, &value),
        Err(fault) => refused(&fault),
    }
}
