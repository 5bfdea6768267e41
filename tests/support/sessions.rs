//! Sessions, and how to put them into a store or find them there without the layer.

use std::time::Duration;

use mcp_session_layer::{
    Issuer, Owner, Principal, Scope, Session, SessionId, SessionRecord, SessionRef, SessionStore,
    store::{AtLimit, Created, Terms},
};

use super::time::HOUR;

/// Anonymous without a principal.
pub(crate) fn owner(principal: Option<&str>) -> Owner {
    Owner {
        scope: Scope::default(),
        principal: principal.map(Principal::new),
    }
}

pub(crate) fn session_id(id: &str) -> SessionId {
    id.parse().unwrap()
}

pub(crate) fn reference(id: &str) -> SessionRef {
    session_id(id).reference()
}

pub(crate) fn session(id: &str, owner: Owner, issuer: Issuer) -> Session {
    Session::new(session_id(id), SessionRecord::new(owner, issuer))
}

/// An anonymous session with a fresh id, which the inner service issued.
pub(crate) fn fresh_session() -> Session {
    session(SessionId::issue().expose(), owner(None), Issuer::Inner)
}

/// An hour to be idle, from the start, and no limits.
pub(crate) fn terms() -> Terms {
    Terms {
        idle: HOUR,
        initial_idle: HOUR,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    }
}

pub(crate) async fn insert(store: &impl SessionStore, session: &Session, terms: &Terms) {
    let created = store.create(session, terms).await.unwrap();
    assert!(matches!(created, Created::New { .. }));
}

/// How long a session may still be idle, if it is live.
pub(crate) async fn idle_left(store: &impl SessionStore, id: &str) -> Option<Duration> {
    let found = store.load(&session_id(id)).await.unwrap();
    found.map(|found| found.idle_left)
}

pub(crate) async fn is_live(store: &impl SessionStore, id: &str) -> bool {
    idle_left(store, id).await.is_some()
}
