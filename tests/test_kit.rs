//! The test kit does what it says: each fault, and a server and a client that keep to the protocol.
#![cfg(feature = "test-kit")]

use std::time::Duration;

use axum::Router;
use mcp_session_layer::{
    McpSessionLayer, MemoryStore, Owner, Rejection, RejectionKind, Scope, SessionId,
    SessionStore as _,
    store::{EndReason, StoreErrorKind, Terms},
    testing::{Fault, FaultyStore, McpClient, McpServer, Verb},
};
use tokio::time::{Instant, timeout};
use tower::Layer as _;

use support::{
    sessions::{fresh_session, idle_left, insert, owner, terms},
    time::MINUTE,
};

mod support;

async fn store_with_a_session() -> (FaultyStore<MemoryStore>, SessionId) {
    let store = FaultyStore::new(MemoryStore::new());
    let session = fresh_session();
    let terms = Terms {
        initial_idle: MINUTE,
        ..terms()
    };
    insert(&store, &session, &terms).await;
    (store, session.id().clone())
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_what_it_says() {
    let kind = StoreErrorKind::Unavailable;
    // Whether it takes effect, whether it answers well, and when.
    for (fault, takes_effect, answers, after) in [
        (Fault::Fails(kind), false, false, Duration::ZERO),
        (Fault::FailsAfterEffect(kind), true, false, Duration::ZERO),
        (Fault::Delays(MINUTE / 6), true, true, MINUTE / 6),
        (Fault::AnswersLate(MINUTE / 6), true, true, MINUTE / 6),
        (Fault::LosesWrites, false, true, Duration::ZERO),
    ] {
        let (store, id) = store_with_a_session().await;
        store.disturb([Verb::Touch, Verb::Delete], fault);
        let begun = Instant::now();
        let touched = store.touch(&id, &owner(None), 10 * MINUTE).await;
        assert_eq!(touched.is_ok_and(|found| found.is_some()), answers);
        assert_eq!(begun.elapsed(), after, "{fault:?}");
        let is_extended = idle_left(store.inner(), id.expose()).await.unwrap() > MINUTE;
        assert_eq!(is_extended, takes_effect, "{fault:?}");
        let deleted = store.delete(&id, EndReason::Revoked).await;
        assert_eq!(deleted.is_ok_and(|was_live| was_live), answers);
        assert_eq!(
            idle_left(store.inner(), id.expose()).await.is_none(),
            takes_effect,
            "{fault:?}"
        );
        assert_eq!((store.calls(Verb::Touch), store.calls(Verb::Load)), (1, 0));
    }
    let (store, id) = store_with_a_session().await;
    store.disturb(Verb::ALL, Fault::Hangs);
    assert!(timeout(60 * MINUTE, store.load(&id)).await.is_err());
    store.recover();
    let stranger = Owner {
        scope: Scope::new("other"),
        ..owner(None)
    };
    let (store, id) = store_with_a_session().await;
    store.disturb([Verb::Touch], Fault::LosesWrites);
    assert!(store.touch(&id, &stranger, MINUTE).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_a_server_and_the_layer_between_them() {
    for (server, has_sessions) in [
        (McpServer::new(), true),
        (McpServer::without_sessions(), false),
    ] {
        let layer = McpSessionLayer::new(MemoryStore::new());
        let app: Router = Router::new().route_service("/mcp", layer.layer(server.clone()));
        let mut client = McpClient::new(app.clone(), "/mcp");
        assert_eq!(client.initialize().await.unwrap().status(), 200);
        assert_eq!(server.sessions(), usize::from(has_sessions));
        assert_eq!(client.ping().await.unwrap().status(), 200);
        let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(client.post(note).await.unwrap().status(), 202);
        let stream = client.open_stream().await.unwrap();
        server.notify("{}");
        let before = server.requests();
        let mut other = McpClient::new(app, "/mcp");
        other.use_session(client.session().cloned());
        assert_eq!(other.delete().await.unwrap().status(), 204);
        let refused = client.ping().await.unwrap();
        let why = refused.extensions().get().map(Rejection::kind);
        assert_eq!(refused.status(), 404);
        assert!(matches!(
            why,
            Some(RejectionKind::Ended | RejectionKind::Unknown)
        ));
        assert_eq!(server.requests(), before + u64::from(has_sessions));
        let events = axum::body::to_bytes(stream.into_body(), 1024).await;
        assert!(events.is_ok_and(|events| events.len() <= 10));
    }
}
