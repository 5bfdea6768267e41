//! A client terminates its session with DELETE.

use std::time::Duration;

use mcp_session_layer::{
    Issuer, MemoryStore, RejectionKind, SessionStore as _,
    store::{EndReason, StoreErrorKind},
};
use tokio::time::sleep;
use tower::Layer as _;

use crate::{
    inner::{Inner, json, plain},
    setup::{create, guard, over, plant, remote_store},
    support::{
        answers::{RESULT, send},
        requests::{on, post},
        sessions::{is_live, owner, session_id},
        store::{AWAY, Fault},
    },
};

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_the_inner_service_agrees() {
    for status in [200, 202, 204] {
        let inner = Inner::new(move |_| plain(status, "bye"));
        let (store, service) = guard(&inner);
        plant(&store, "live", owner(None), Issuer::Inner).await;
        let answer = send(&service, on("live", "DELETE")).await;
        assert_eq!((answer.status, &*answer.body), (status, "bye"));
        assert_eq!(inner.calls()[0].id(), "live");
        assert!(!is_live(&store, "live").await);
        for method in ["POST", "GET", "DELETE"] {
            let answer = send(&service, on("live", method)).await;
            answer.assert_not_found(RejectionKind::Unknown);
        }
        assert!(inner.told().await.is_empty(), "it saw the end itself");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_inner_service_does_not_know_ends_too() {
    for answer in [
        || plain(404, "which?"),
        || {
            json(
                404,
                r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}"#,
            )
        },
    ] {
        let inner = Inner::new(move |_| answer());
        let (store, service) = guard(&inner);
        plant(&store, "live", owner(None), Issuer::Inner).await;
        let answer = send(&service, on("live", "DELETE")).await;
        answer.assert_not_found(RejectionKind::InnerGone);
        assert!(!is_live(&store, "live").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_inner_service_keeps_lives_on() {
    for status in [400, 401, 403, 405, 409, 500, 503, 302] {
        let inner = Inner::new(move |call| match call.method.as_str() {
            "DELETE" => plain(status, "no"),
            _ => json(200, RESULT),
        });
        let (store, service) = guard(&inner);
        plant(&store, "live", owner(None), Issuer::Inner).await;
        let answer = send(&service, on("live", "DELETE")).await;
        assert_eq!(
            (answer.status, &*answer.body, answer.kind()),
            (status, "no", None)
        );
        assert!(is_live(&store, "live").await, "{status}");
        assert_eq!(send(&service, post("live")).await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_not_asked_about_an_id_that_the_layer_issued() {
    // It would refuse.
    let inner = Inner::new(|call| match call.method.as_str() {
        "DELETE" => plain(405, ""),
        _ => json(200, RESULT),
    });
    let (store, service) = guard(&inner);
    let id = create(&service, &inner).await;
    let answer = send(&service, on(&id, "DELETE")).await;
    assert_eq!((answer.status, &*answer.body), (204, ""));
    assert_eq!(answer.kind(), None);
    assert!(inner.told().await.is_empty());
    assert!(!is_live(&store, &id).await);
    send(&service, on(&id, "DELETE"))
        .await
        .assert_not_found(RejectionKind::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_asked_about_an_id_that_the_layer_issued() {
    let inner = Inner::silent();
    let store = MemoryStore::new();
    let service = over(&store)
        .with_issued_ids_forwarded()
        .layer(inner.clone());
    let id = create(&service, &inner).await;
    assert_eq!(send(&service, on(&id, "DELETE")).await.status, 200);
    assert_eq!(inner.calls()[0].id(), id);
    assert!(!is_live(&store, &id).await);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_comes_second_is_404() {
    let store = MemoryStore::new();
    // Somebody else ends it while the inner service is asked.
    let ender = store.clone();
    let inner = Inner::slow(move |call| {
        let ender = ender.clone();
        let ends = call.method == "DELETE";
        Box::pin(async move {
            if ends {
                ender
                    .delete(&session_id("live"), EndReason::Revoked)
                    .await
                    .unwrap();
            }
            plain(200, "")
        })
    });
    let service = over(&store).layer(inner);
    plant(&store, "live", owner(None), Issuer::Inner).await;
    send(&service, on("live", "DELETE"))
        .await
        .assert_not_found(RejectionKind::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_the_store_cannot_do_is_503_and_done_at_last() {
    for fault in [AWAY, Fault::Hangs, Fault::Fails(StoreErrorKind::Failed)] {
        for issuer in [Issuer::Inner, Issuer::Layer] {
            let store = remote_store();
            let inner = Inner::silent();
            let service = over(&store).layer(inner.clone());
            plant(&store, "live", owner(None), issuer).await;
            store.disturb(&["delete"], fault);
            let answer = send(&service, on("live", "DELETE")).await;
            answer.assert_unavailable(RejectionKind::StoreUnavailable);
            assert!(is_live(&store.memory, "live").await);
            inner.calls();

            // This node knows better than the store, for as long as it takes.
            for _ in 0..4 {
                sleep(Duration::from_secs(60)).await;
                let answer = send(&service, post("live")).await;
                answer.assert_not_found(RejectionKind::Ended);
            }
            assert!(inner.calls().is_empty());
            store.recover();
            sleep(Duration::from_secs(15)).await;
            assert!(!is_live(&store.memory, "live").await);
            let answer = send(&service, post("live")).await;
            assert_eq!(answer.status, 404);
        }
    }
}
