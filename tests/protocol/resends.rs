//! Clients that resend a dead id with `initialize`, where a setting lets them begin anew all the same.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use futures_util::{StreamExt as _, stream};
use http::Request;
use mcp_session_layer::{Issuer, MemoryStore, RejectionKind};
use tokio::time::Instant;
use tower::Layer as _;

use crate::{
    inner::Inner,
    setup::{over, plant},
    support::{
        answers::send,
        layer::{SessionLayer, user_header},
        requests::{INITIALIZE, PING, as_user, delete, get, post, request, with_header},
        sessions::{is_live, owner},
        store::{AWAY, TestStore},
    },
};

/// Whoever says so is one of those clients.
fn lenient(layer: SessionLayer) -> SessionLayer {
    layer.with_initialize_on_dead_id(|request| request.headers.contains_key("x-stuck"))
}

fn resent(id: &str, body: impl Into<Body>) -> Request<Body> {
    let request = request("POST")
        .header("last-event-id", "5")
        .body(body.into());
    with_header(
        with_header(request.unwrap(), "mcp-session-id", id),
        "x-stuck",
        "1",
    )
}

const DEAD: [&str; 4] = ["never", "bobs", "a b", "ended"];

#[tokio::test(start_paused = true)]
async fn a_dead_id_is_removed_and_the_request_creates_a_session() {
    for store in [TestStore::default(), TestStore::default().remote()] {
        let inner = Inner::issuing(&["theirs"]);
        let layer = lenient(over(&store)).with_principal(user_header);
        let service = layer.layer(inner.clone());
        plant(&store, "bobs", owner(Some("bob")), Issuer::Inner).await;
        plant(&store, "ended", owner(Some("alice")), Issuer::Inner).await;
        send(&service, as_user(delete("ended"), "alice")).await;
        inner.tells().await;
        inner.calls();
        for id in DEAD {
            let answer = send(&service, as_user(resent(id, INITIALIZE), "alice")).await;
            assert_eq!((answer.status, &*answer.id()), (200, "theirs"), "{id}");
            let calls = inner.calls();
            assert_eq!(calls.len(), 1);
            assert_eq!(calls[0].body, INITIALIZE);
            for header in ["mcp-session-id", "last-event-id"] {
                assert!(!calls[0].headers.contains_key(header), "{id}");
            }
            assert!(is_live(&store, "theirs").await);
            assert!(is_live(&store, "bobs").await, "a stranger's stays");
            let mine = send(&service, as_user(post("theirs"), "alice")).await;
            assert_eq!(mine.status, 200, "it is the caller's");
            send(&service, as_user(delete("theirs"), "alice")).await;
            inner.calls();
        }
        // An id that the client chose is nobody's, though the inner service issues none.
        let silent = lenient(over(&store)).layer(Inner::silent());
        let id = send(&silent, resent("mine", INITIALIZE)).await.id();
        assert_ne!(id, "mine");
        assert!(!is_live(&store, "mine").await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_picked_or_no_initialize_gets_the_404() {
    let claim = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    for store in [TestStore::default(), TestStore::default().remote()] {
        let inner = Inner::issuing(&["theirs"]);
        let service = lenient(over(&store)).layer(inner.clone());
        let long = INITIALIZE.to_owned() + &" ".repeat(100_000);
        for body in [PING, "", "[", claim, &long, r#"{"method":"initialize"}"#] {
            let answer = send(&service, resent("never", body.to_owned())).await;
            answer.assert_not_found(RejectionKind::Unknown);
        }
        let malformed = send(&service, resent("a b", PING)).await;
        malformed.assert_not_found(RejectionKind::Malformed);
        let slow = Body::from_stream(stream::pending::<Result<&str, Infallible>>());
        let start = Instant::now();
        send(&service, resent("never", slow))
            .await
            .assert_not_found(RejectionKind::Unknown);
        assert_eq!(start.elapsed(), Duration::from_secs(10));

        // What is not picked is not read.
        let first = stream::iter([Ok::<_, Infallible>(INITIALIZE)]);
        let body = Body::from_stream(first.chain(stream::pending()));
        let mut unpicked = resent("never", body);
        unpicked.headers_mut().remove("x-stuck");
        let start = Instant::now();
        send(&service, unpicked)
            .await
            .assert_not_found(RejectionKind::Unknown);
        assert_eq!(start.elapsed(), Duration::ZERO);
        for other in [get("never"), delete("never")] {
            send(&service, with_header(other, "x-stuck", "1"))
                .await
                .assert_not_found(RejectionKind::Unknown);
        }
        assert!(inner.calls().is_empty());
        assert!(inner.told().await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_id_is_served_as_ever_and_a_store_that_is_away_is_no_dead_id() {
    let store = TestStore::default().remote();
    let inner = Inner::silent();
    let service = lenient(over(&store)).layer(inner.clone());
    plant(&store, "live", owner(None), Issuer::Inner).await;
    // Not read, though it is picked.
    let answer = send(&service, resent("live", INITIALIZE)).await;
    assert_eq!(answer.status, 200);
    assert!(inner.calls()[0].session.is_some());
    let twice = resent("live", INITIALIZE);
    let mut twice = twice;
    twice
        .headers_mut()
        .append("mcp-session-id", "x".parse().unwrap());
    let answer = send(&service, twice).await;
    assert_eq!(answer.kind(), Some(RejectionKind::DuplicateSessionHeader));
    store.disturb(&["touch"], AWAY);
    send(&service, resent("never", INITIALIZE))
        .await
        .assert_unavailable(RejectionKind::StoreUnavailable);
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_nobody_begins_anew_with_a_dead_id() {
    let inner = Inner::silent();
    let service = over(&MemoryStore::new()).layer(inner.clone());
    send(&service, resent("never", INITIALIZE))
        .await
        .assert_not_found(RejectionKind::Unknown);
    assert!(inner.calls().is_empty());
}
