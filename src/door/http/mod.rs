//! HTTP: requests become calls, outcomes and faults become responses.
//!
//! This file has the routes; the files beside it:
//!
//! - `server.rs`: the state that all connections share
//! - `requests.rs`, `answers.rs`: read and write what every route has
//! - `calls.rs`: runs calls
//! - `status.rs`: reports about the host
//! - `connection.rs`: carries requests in
//! - `room.rs`: decides who has a connection
//! - `audience.rs`: decides who is told what
//!
//! Every failure is a fault as JSON, with its status in the fault table.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};

use crate::model::{Code, Fault};

pub mod answers;
pub mod audience;
mod body;
mod calls;
pub mod connection;
mod handed;
pub mod requests;
pub mod room;
pub mod server;
mod sessions;
mod status;
pub mod token;

use answers::refused_as;
use server::Server;

/// All routes. A test compares them with docs/serve.md.
pub fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/v1/recipes/{publisher}/{name}/{operation}", post(calls::plain))
        .route("/v1/recipes/{publisher}/{name}/lift", post(status::lift))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/recipes/{publisher}/{name}/sessions/{session}/open", post(sessions::open))
        .route("/v1/recipes/{publisher}/{name}/sessions/{session}/checkpoint", post(sessions::checkpoint))
        .route("/v1/recipes/{publisher}/{name}/sessions/{session}/touch", post(sessions::touch))
        .route("/v1/recipes/{publisher}/{name}/sessions/{session}/close", post(sessions::close))
        .route("/v1/calls", post(calls::general))
        .route("/v1/calls", get(handed::bounds))
        .route("/v1/pods", get(status::pods))
        .route("/v1/status", get(status::status))
        .route("/v1/logs", get(status::logs))
        .route("/v1/health", get(status::health))
        .route("/livez", get(status::livez))
        .route("/readyz", get(status::readyz))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(server)
}

async fn unknown(request: Request) -> Response {
    let fault = Fault::new(Code::Usage, format!("there is nothing at {}", request.uri().path()));
    refused_as(StatusCode::NOT_FOUND, &fault.hint("docs/serve.md lists the routes"))
}

async fn wrong_method(State(_): State<Arc<Server>>, request: Request) -> Response {
    let fault = Fault::new(Code::Usage, format!("{} does not take {}", request.uri().path(), request.method()));
    refused_as(StatusCode::METHOD_NOT_ALLOWED, &fault.hint("calls are POST, looking is GET; docs/serve.md lists the routes"))
}
