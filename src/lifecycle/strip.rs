//! The one place where an answer's session header is judged.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::{Lifecycle, over::is_over};
use crate::{
    protocol::{SESSION_ID, SessionId},
    session::Route,
};

/// Removes from an answer every session id but the one that it may carry. A stray id opens a session in the inner service
/// that nobody could ever use or end, so the inner service is sent a DELETE for it, unless the store holds it live.
pub(crate) fn strip_ids(
    lifecycle: &Arc<Lifecycle>,
    headers: &mut HeaderMap,
    allowed: Option<&SessionId>,
    route: Option<Arc<Route>>,
) {
    let is_allowed =
        |value: &HeaderValue| allowed.is_some_and(|id| id.as_bytes() == value.as_bytes());
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
        .filter_map(|value| SessionId::from_header(value).ok())
        .collect();
    if !strays.is_empty() {
        tokio::spawn(end_strays(Arc::clone(lifecycle), strays, route));
    }
}

async fn end_strays(lifecycle: Arc<Lifecycle>, strays: Vec<SessionId>, route: Option<Arc<Route>>) {
    for id in strays {
        tracing::warn!(session = %id.reference(), "removed a session id from an answer that must not carry it");
        if !is_over(&lifecycle.store, &id).await {
            continue;
        }
        match &route {
            Some(route) => lifecycle.alive.notifier.notify_of(Arc::clone(route), id),
            None => {
                tracing::warn!(session = %id.reference(), "its route is not known any more, so it cannot be ended in the inner service");
            }
        }
    }
}
