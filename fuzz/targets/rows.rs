//! What the targets share that read back what the crate did not write.
#![allow(dead_code)] // Neither needs all of the tests' support.

#[path = "../../tests/support/sessions.rs"]
mod sessions;
#[path = "../../tests/support/time.rs"]
mod time;

use mcp_session_layer::{
    Issuer, Session, SessionId, SessionStore,
    store::{EndReason, StoreError, StoreErrorKind},
};

pub(crate) use self::time::HOUR;

/// A new session of `a` in this store, with an hour to be idle.
pub(crate) async fn created(store: &impl SessionStore) -> Session {
    let id = SessionId::issue();
    let session = sessions::session(id.expose(), sessions::owner(Some("a")), Issuer::Layer);
    sessions::insert(store, &session, &sessions::terms()).await;
    session
}

/// An answer, if what is stored could be read. Nothing else may be wrong with it.
pub(crate) fn understood<T>(answer: Result<Option<T>, StoreError>) -> Option<T> {
    answer.unwrap_or_else(|error| {
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error:?}");
        None
    })
}

/// Asks whether the session is over, and ends it.
pub(crate) async fn end(store: &impl SessionStore, session: &Session) {
    understood(store.expire(session.id()).await.map(Some));
    let deleted = store.delete(session.id(), EndReason::Deleted).await;
    understood(deleted.map(Some));
}
