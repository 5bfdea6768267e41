//! A store that is away: never a 404, and never for long.

use std::time::Duration;

use mcp_session_layer::{Issuer, RejectionKind, store::StoreErrorKind};
use tokio::time::Instant;
use tower::Layer as _;

use crate::{
    inner::Inner,
    setup::{over, plant, remote_store},
    support::{
        answers::send,
        requests::{initialize, on, post},
        sessions::owner,
        store::{AWAY, Fault, TestStore, VERBS},
    },
};

async fn store() -> TestStore {
    let store = remote_store();
    plant(&store.memory, "live", owner(None), Issuer::Inner).await;
    store
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_503_after_some_tries() {
    let store = store().await;
    let inner = Inner::silent();
    let service = over(&store).layer(inner.clone());
    store.disturb(VERBS, AWAY);
    for id in ["live", "never"] {
        for method in ["POST", "GET", "DELETE"] {
            let start = Instant::now();
            let answer = send(&service, on(id, method)).await;
            answer.assert_unavailable(RejectionKind::StoreUnavailable);
            assert!(start.elapsed() <= Duration::from_secs(3));
            let tries = store.take_calls().len();
            assert!((3..=20).contains(&tries), "{tries} tries");
        }
    }
    assert!(inner.calls().is_empty());
    // What is judged by the head alone needs no store.
    send(&service, post("a b"))
        .await
        .assert_not_found(RejectionKind::Malformed);
    store.recover();
    assert_eq!(send(&service, post("live")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_503_after_three_seconds() {
    let store = store().await;
    let inner = Inner::silent();
    let default = over(&store).layer(inner.clone());
    let hasty = over(&store)
        .with_store_timeout(Duration::from_millis(200))
        .layer(inner.clone());
    store.disturb(VERBS, Fault::Hangs);
    for (service, limit) in [(default, 3000), (hasty, 200)] {
        let limit = Duration::from_millis(limit);
        for request in [post("live"), on("live", "DELETE"), initialize()] {
            let start = Instant::now();
            let answer = send(&service, request).await;
            answer.assert_unavailable(RejectionKind::StoreUnavailable);
            let took = start.elapsed();
            assert!(
                (limit..limit + Duration::from_millis(5)).contains(&took),
                "{took:?}"
            );
        }
    }
    assert!(inner.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_a_delay() {
    for outage in [100, 1000, 1400] {
        let store = store().await;
        let inner = Inner::silent();
        let service = over(&store).layer(inner.clone());
        let outage = Duration::from_millis(outage);
        for request in [post("live"), initialize(), on("live", "DELETE")] {
            let end = Instant::now() + outage;
            store.disturb(
                &["make_room", "load", "touch", "delete"],
                Fault::FailsUntil(end),
            );
            assert_eq!(send(&service, request).await.status, 200);
            assert!(Instant::now() >= end);
        }
        let end = Instant::now() + outage;
        store.disturb(
            &["make_room", "load", "touch", "delete"],
            Fault::FailsUntil(end),
        );
        send(&service, post("live"))
            .await
            .assert_not_found(RejectionKind::Unknown);
        assert!(
            Instant::now() >= end,
            "absent is said by a store that answers"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_try_cannot_mend_is_not_tried_again() {
    for kind in [StoreErrorKind::Failed, StoreErrorKind::Corrupt] {
        let store = store().await;
        let service = over(&store).layer(Inner::silent());
        store.disturb(VERBS, Fault::Fails(kind));
        let start = Instant::now();
        let answer = send(&service, post("live")).await;
        answer.assert_unavailable(RejectionKind::StoreUnavailable);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(store.take_calls(), ["touch"]);
    }
}

/// One request, one round trip.
#[tokio::test(start_paused = true)]
async fn a_request_costs_one_call() {
    let store = store().await;
    let service = over(&store).layer(Inner::silent());
    for id in ["live", "never"] {
        send(&service, post(id)).await;
        assert_eq!(store.take_calls(), ["touch"]);
    }
    send(&service, post("a b")).await;
    assert!(store.take_calls().is_empty());
}
