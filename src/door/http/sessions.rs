//! The routes of sessions. A call that names one is an ordinary call.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::json;

use crate::{
    door::http::{server::Server, status::told},
    model::{Code, Fault, RecipeRef},
};

/// `GET /v1/sessions`: all sessions of this home.
pub async fn list(State(server): State<Arc<Server>>) -> Response {
    told(server.host.sessions().await)
}

/// `POST /v1/recipes/{publisher}/{name}/sessions/{session}/open`: opens the session, or finds it open.
pub async fn open(State(server): State<Arc<Server>>, request: Request) -> Response {
    told(match server.admit().and_then(|permit| Ok((permit, named(&request)?))) {
        Ok((_permit, (recipe, name))) => server.host.open_session(&recipe, name).await,
        Err(fault) => Err(fault),
    })
}

/// `POST /v1/recipes/{publisher}/{name}/sessions/{session}/checkpoint`: has the session keep its state now.
pub async fn checkpoint(State(server): State<Arc<Server>>, request: Request) -> Response {
    told(match named(&request) {
        Ok((recipe, name)) => server.host.checkpoint_session(&recipe, name).await,
        Err(fault) => Err(fault),
    })
}

/// `POST /v1/recipes/{publisher}/{name}/sessions/{session}/touch`: restarts the session's timeouts.
pub async fn touch(State(server): State<Arc<Server>>, request: Request) -> Response {
    told(match named(&request) {
        Ok((recipe, name)) => server.host.touch_session(&recipe, name).await,
        Err(fault) => Err(fault),
    })
}

/// `POST /v1/recipes/{publisher}/{name}/sessions/{session}/close`: ends the session for good.
pub async fn close(State(server): State<Arc<Server>>, request: Request) -> Response {
    told(match named(&request) {
        Ok((recipe, name)) => server.host.close_session(&recipe, name).await.map(|()| json!({ "closed": name })),
        Err(fault) => Err(fault),
    })
}

/// The recipe and the session in the path. Names need no escapes, so none are decoded.
fn named(request: &Request) -> Result<(RecipeRef, &str), Fault> {
    let path = request.uri().path();
    let parts = || {
        let (recipe, rest) = path.strip_prefix("/v1/recipes/")?.split_once("/sessions/")?;
        Some((recipe, rest.split_once('/')?.0))
    };
    let (recipe, name) = parts().ok_or_else(|| Fault::new(Code::Usage, format!("{path} names no session")))?;
    Ok((RecipeRef::Name(recipe.parse()?), name))
}
