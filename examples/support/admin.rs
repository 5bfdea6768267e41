//! Sessions administered over HTTP.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use mcp_session_layer::{
    Principal, SessionRef, Sessions,
    admin::{self, AllowedHosts},
    store::{SessionInfo, StoreError},
};
use serde_json::{Value, json};

/// Lists sessions, ends one, all of a principal or all, drains; and at `/` a page that does the same.
pub(crate) fn admin(sessions: Sessions) -> Router {
    Router::new()
        .route("/sessions", get(list).delete(end_all))
        .route("/sessions/{reference}", delete(end))
        .route("/principals/{principal}", delete(end_of))
        .route("/drain", post(drain))
        .with_state(sessions.clone())
        .merge(admin::router(sessions, &AllowedHosts::loopback()))
}

async fn list(State(sessions): State<Sessions>) -> Result<Json<Vec<Value>>, StoreError> {
    const PAGE: usize = 1000;
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = sessions.list(after.as_ref(), PAGE).await?;
        rows.extend(page.iter().map(row));
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.reference),
            _ => return Ok(Json(rows)),
        }
    }
}

fn row(listed: &SessionInfo) -> Value {
    let record = &listed.record;
    json!({
        "reference": listed.reference.to_string(),
        "principal": record.owner.principal.as_ref().map(Principal::as_str),
        "client": record.client.as_ref().map(|client| format!("{} {}", client.name, client.version)),
        "age_seconds": listed.age.as_secs_f64(),
        "idle_left_seconds": listed.idle_left.as_secs_f64(),
        "life_left_seconds": listed.life_left.map(|left| left.as_secs_f64()),
    })
}

async fn end(
    State(sessions): State<Sessions>,
    Path(reference): Path<SessionRef>,
) -> Result<StatusCode, StoreError> {
    Ok(match sessions.end(&reference).await? {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::NOT_FOUND,
    })
}

async fn end_of(
    State(sessions): State<Sessions>,
    Path(principal): Path<String>,
) -> Result<Json<Value>, StoreError> {
    let ended = sessions.end_of(Some(&Principal::new(principal))).await?;
    Ok(Json(json!({ "ended": ended })))
}

async fn end_all(State(sessions): State<Sessions>) -> Result<Json<Value>, StoreError> {
    let ended = sessions.end_all().await?;
    Ok(Json(json!({ "ended": ended })))
}

async fn drain(State(sessions): State<Sessions>) -> StatusCode {
    sessions.drain();
    StatusCode::NO_CONTENT
}
