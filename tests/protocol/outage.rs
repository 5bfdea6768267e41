//! A store that is away: never a 404, and never for long.

use std::{sync::Arc, time::Duration};

use mcp_session_layer::{Issuer, RejectionKind, store::StoreErrorKind};
use tokio::time::Instant;
use tower::Layer as _;

use super::support::*;

const ALL: &[&str] = &["create", "load", "touch", "delete"];

async fn store() -> Arc<Moody> {
    let store = Arc::new(Moody::default());
    plant(&store.store, "live", owner(None), Issuer::Inner).await;
    store
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_503_after_some_tries() {
    let store = store().await;
    let inner = Inner::silent();
    let service = over(&store).layer(inner.clone());
    store.put(ALL, AWAY);
    for id in ["live", "never"] {
        for method in ["POST", "GET", "DELETE"] {
            let start = Instant::now();
            let answer = send(&service, on(id, method)).await;
            answer.assert_unavailable(RejectionKind::StoreUnavailable);
            assert!(start.elapsed() <= Duration::from_secs(3));
            let tries = store.calls().len();
            assert!((3..=20).contains(&tries), "{tries} tries");
        }
    }
    assert!(inner.calls().is_empty());
    // What is judged by the head alone needs no store.
    send(&service, ping("a b"))
        .await
        .assert_not_found(RejectionKind::Malformed);
    store.cheer_up();
    assert_eq!(send(&service, ping("live")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_503_after_three_seconds() {
    let store = store().await;
    let inner = Inner::silent();
    let default = over(&store).layer(inner.clone());
    let hasty = over(&store)
        .with_store_timeout(Duration::from_millis(200))
        .layer(inner.clone());
    store.put(ALL, Mood::Hangs);
    for (service, limit) in [(default, 3000), (hasty, 200)] {
        let limit = Duration::from_millis(limit);
        for request in [ping("live"), on("live", "DELETE"), initialize()] {
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
        for request in [ping("live"), initialize(), on("live", "DELETE")] {
            let end = Instant::now() + outage;
            store.put(&["load", "touch", "delete"], Mood::FailsUntil(end));
            assert_eq!(send(&service, request).await.status, 200);
            assert!(Instant::now() >= end);
        }
        let end = Instant::now() + outage;
        store.put(&["load", "touch", "delete"], Mood::FailsUntil(end));
        send(&service, ping("live"))
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
        store.put(ALL, Mood::Fails(kind));
        let start = Instant::now();
        let answer = send(&service, ping("live")).await;
        answer.assert_unavailable(RejectionKind::StoreUnavailable);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(store.calls(), ["touch"]);
    }
}

/// One request, one round trip.
#[tokio::test(start_paused = true)]
async fn a_request_costs_one_call() {
    let store = store().await;
    let service = over(&store).layer(Inner::silent());
    for id in ["live", "never"] {
        send(&service, ping(id)).await;
        assert_eq!(store.calls(), ["touch"]);
    }
    send(&service, ping("a b")).await;
    assert!(store.calls().is_empty());
}
