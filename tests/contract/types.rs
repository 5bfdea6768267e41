//! What the public types can be used for.

use std::fmt::Debug;

use mcp_session_layer::{
    BoxSessionStore, ClientInfo, InvalidSessionId, InvalidSessionRef, Issuer, McpSessionLayer,
    McpSessionService, MemoryStore, NoSession, Owner, Principal, Rejection, RejectionKind,
    ResponseFuture, Scope, Session, SessionEvent, SessionEvents, SessionId, SessionRecord,
    SessionRef, Sessions, store,
};
use tower::BoxError;

/// Compiles, and that is all.
#[test]
fn public_types_go_wherever_they_are_needed() {
    fn value<T: Debug + Send + Sync + 'static>() {}
    fn handle<T: Debug + Clone + Send + Sync + 'static>() {}
    fn future<T: Debug + Send + 'static>() {}

    handle::<McpSessionLayer>();
    handle::<McpSessionService<axum::Router>>();
    future::<ResponseFuture<std::future::Ready<()>, BoxError>>();
    handle::<Sessions>();
    value::<SessionEvents>();
    handle::<SessionEvent>();
    handle::<Session>();
    handle::<SessionRecord>();
    handle::<SessionId>();
    handle::<SessionRef>();
    handle::<InvalidSessionId>();
    handle::<InvalidSessionRef>();
    handle::<ClientInfo>();
    handle::<Issuer>();
    handle::<Owner>();
    handle::<Scope>();
    handle::<Principal>();
    handle::<Rejection>();
    handle::<RejectionKind>();
    value::<NoSession>();
    handle::<MemoryStore>();
    handle::<BoxSessionStore>();
    handle::<store::Terms>();
    handle::<store::AtLimit>();
    handle::<store::Created>();
    handle::<store::Limit>();
    handle::<store::Found>();
    handle::<store::Now>();
    handle::<store::EndReason>();
    handle::<store::FeedEvent>();
    handle::<store::SessionInfo>();
    handle::<store::SessionFilter>();
    value::<store::StoreError>();
    handle::<store::StoreErrorKind>();
}
