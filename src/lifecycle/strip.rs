//! The one place where an answer's session header is judged.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::{Forwarded, Lifecycle, over::is_over};
use crate::{
    protocol::{SESSION_ID, SessionId},
    session::{Route, Session},
};

/// Removes from an answer every session id but the one that its request came with. A stray id opens a session in the inner
/// service that nobody could ever use or end, so the inner service is sent a DELETE for it, unless the store holds it live.
pub(crate) fn strip_ids(
    lifecycle: &Arc<Lifecycle>,
    headers: &mut HeaderMap,
    request: Option<&Forwarded>,
    route: Option<Arc<Route>>,
) {
    let is_allowed = |value: &HeaderValue| {
        request.is_some_and(|request| request.session().id().as_bytes() == value.as_bytes())
    };
    let (echoes, strays): (Vec<_>, Vec<_>) = headers
        .get_all(&SESSION_ID)
        .iter()
        .cloned()
        .partition(is_allowed);
    headers.remove(&SESSION_ID);
    if let (Some(request), false) = (request, echoes.is_empty()) {
        headers.insert(&SESSION_ID, request.wire_id());
    }
    let strays: Vec<_> = strays
        .iter()
        .filter_map(|value| SessionId::from_header(value).ok())
        .collect();
    if !strays.is_empty() {
        let session = request.map(|request| request.session().clone());
        tokio::spawn(end_strays(Arc::clone(lifecycle), strays, session, route));
    }
}

/// Ends sessions that the inner service opened beside the one that it was asked on, if it was. Where it does not end them, no
/// further `initialize` goes inward on that one: it would open one more each time (tower-mcp does, if the session lives).
async fn end_strays(
    lifecycle: Arc<Lifecycle>,
    strays: Vec<SessionId>,
    session: Option<Session>,
    route: Option<Arc<Route>>,
) {
    for id in strays {
        tracing::warn!(session = %id.reference(), "removed a session id from an answer that must not carry it");
        if !is_over(&lifecycle.store, &id).await {
            continue;
        }
        match &route {
            Some(route) => {
                let (known, session) = (Arc::downgrade(&lifecycle), session.clone());
                let is_left = move || {
                    if let (Some(lifecycle), Some(session)) = (known.upgrade(), &session) {
                        lifecycle.alive.marked.close(session);
                    }
                };
                let notifier = &lifecycle.alive.notifier;
                notifier.notify_of(Arc::clone(route), id, is_left);
            }
            None => {
                tracing::warn!(session = %id.reference(), "its route is not known any more, so it cannot be ended in the inner service");
            }
        }
    }
}
