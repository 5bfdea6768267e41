//! The session as an argument of an axum handler.

use std::{convert::Infallible, fmt};

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::session::Session;

/// For handlers that serve nothing without a session. Where requests without one get in too (`initialize`, and all
/// requests of revisions without sessions) take `Option<Session>`.
impl<App: Send + Sync> FromRequestParts<App> for Session {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, NoSession> {
        parts.extensions.get().cloned().ok_or(NoSession)
    }
}

impl<App: Send + Sync> OptionalFromRequestParts<App> for Session {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get().cloned())
    }
}

/// A handler asked for a [`Session`], and the request has none. Answered with 500: it is the application's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSession;

impl fmt::Display for NoSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this request has no MCP session: either `McpSessionLayer` is not around this route, \
             or the request is one that has none (`initialize`, a revision without sessions): take `Option<Session>`",
        )
    }
}

impl std::error::Error for NoSession {}

impl IntoResponse for NoSession {
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
