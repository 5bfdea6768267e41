//! The one place where an answer's session header is judged.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::{
    lifecycle::upstream::Route, protocol::SessionId, protocol::request::SESSION_ID,
    service::layer::Core, store::SessionStore,
};

/// Whether an answer carries a session id at all. Most do not.
pub(crate) fn has_id(headers: &HeaderMap) -> bool {
    headers.contains_key(&SESSION_ID)
}

/// Removes from an answer every session id but the one that it may carry. A stray id opens a session in the inner service
/// that nobody could ever use or end, so the inner service is told to end it, unless the store holds it live.
pub(crate) fn judge<St: SessionStore>(
    headers: &mut HeaderMap,
    allowed: Option<&SessionId>,
    core: &Arc<Core<St>>,
    route: impl FnOnce() -> Route,
) {
    if !has_id(headers) {
        return;
    }
    let is_allowed =
        |value: &HeaderValue| allowed.is_some_and(|id| id.expose().as_bytes() == value.as_bytes());
    let (echoes, strays): (Vec<_>, Vec<_>) = headers
        .get_all(&SESSION_ID)
        .iter()
        .cloned()
        .partition(is_allowed);
    headers.remove(&SESSION_ID);
    if let (Some(id), false) = (allowed, echoes.is_empty()) {
        headers.insert(&SESSION_ID, id.to_header());
    }
    let strays: Vec<_> = strays
        .iter()
        .filter_map(|value| SessionId::copied(value.as_bytes()).ok())
        .collect();
    if !strays.is_empty() {
        tokio::spawn(tell_of_strays(strays, Arc::clone(core), route()));
    }
}

async fn tell_of_strays<St: SessionStore>(
    strays: Vec<SessionId>,
    core: Arc<Core<St>>,
    route: Route,
) {
    for id in strays {
        tracing::warn!(session = %id.reference(), "removed a session id from an answer that must not carry it");
        match core.load_at_last(&id).await {
            Some(_) => {}
            None => route.clone().tell(id, &core.live),
        }
    }
}
