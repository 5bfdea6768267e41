//! A client terminates its session with DELETE.

use std::{
    future::ready,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use futures_util::future::{join, join_all};
use mcp_session_layer::{
    Issuer, MemoryStore, RejectionKind, SessionStore as _,
    store::{EndReason, StoreErrorKind},
};
use tokio::time::sleep;
use tower::Layer as _;

use crate::{
    inner::{Inner, json, plain, with_ids},
    setup::{create, guard, over, plant, remote_store},
    support::{
        answers::{RESULT, send},
        layer::user_header,
        requests::{as_user, on, post},
        sessions::{is_live, owner, session_id},
        store::{AWAY, Fault},
        time::set_off,
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
    for (status, body) in [
        (404, "which?"),
        (
            400,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}"#,
        ),
        (500, ""),
    ] {
        let inner = Inner::new(move |call| match call.method.as_str() {
            "DELETE" => json(status, body),
            _ => with_ids(json(200, RESULT), &["live"]),
        })
        .questioned(|_| plain(404, ""));
        let (store, service) = guard(&inner);
        let id = create(&service, &inner).await;
        let answer = send(&service, on(&id, "DELETE")).await;
        answer.assert_not_found(RejectionKind::InnerGone);
        assert!(!is_live(&store, &id).await);
        assert_eq!(inner.questions().await.len(), 1);
        assert_eq!(inner.calls().len(), 1);
        assert!(inner.told().await.is_empty(), "it has nothing to end");

        // A stranger's word is no reason.
        plant(&store, "other", owner(None), Issuer::Inner).await;
        let answer = send(&service, on("other", "DELETE")).await;
        answer.assert_not_found(RejectionKind::InnerGone);
        assert!(is_live(&store, "other").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_lives_behind_another_node_is_ended_by_its_principal() {
    let inner = Inner::new(|_| plain(404, "")).questioned(|_| plain(404, ""));
    let store = MemoryStore::new();
    let service = over(&store).with_principal(user_header).layer(inner);
    plant(&store, "live", owner(Some("alice")), Issuer::Inner).await;
    let answer = send(&service, as_user(on("live", "DELETE"), "alice")).await;
    assert_eq!((answer.status, &*answer.body), (204, ""));
    assert!(!is_live(&store, "live").await);
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

#[tokio::test(start_paused = true)]
async fn of_many_deletes_at_once_one_is_the_end() {
    for second in [404, 400, 500] {
        // The first takes its time; whatever comes after it finds nothing any more.
        let deletes = AtomicUsize::new(0);
        let inner = Inner::slow(move |_| match deletes.fetch_add(1, SeqCst) {
            0 => Box::pin(async {
                sleep(Duration::from_secs(2)).await;
                plain(200, "bye")
            }),
            _ => Box::pin(ready(plain(second, "which?"))),
        });
        let (store, service) = guard(&inner);
        plant(&store, "live", owner(None), Issuer::Inner).await;
        let all = (0..10).map(|_| send(&service, on("live", "DELETE")));
        let (ended, others): (Vec<_>, Vec<_>) = join_all(all)
            .await
            .into_iter()
            .partition(|answer| answer.status == 200);
        assert_eq!((ended.len(), &*ended[0].body), (1, "bye"));
        for other in others {
            other.assert_not_found(RejectionKind::Ended);
        }
        assert_eq!(inner.calls().len(), 1, "one was sent inward");
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_deletes_at_once_the_next_has_its_turn_if_the_first_failed() {
    let deletes = AtomicUsize::new(0);
    let inner = Inner::slow(move |_| {
        let nth = deletes.fetch_add(1, SeqCst);
        Box::pin(async move {
            sleep(Duration::from_secs(1)).await;
            plain(if nth < 3 { 503 } else { 204 }, "")
        })
    });
    let (store, service) = guard(&inner);
    plant(&store, "live", owner(None), Issuer::Inner).await;
    // One that hangs up while it waits is no hindrance.
    let mut first = Box::pin(send(&service, on("live", "DELETE")));
    let mut hung_up = Box::pin(send(&service, on("live", "DELETE")));
    set_off(&mut first).await;
    set_off(&mut hung_up).await;
    drop(hung_up);
    let all = (0..9).map(|_| send(&service, on("live", "DELETE")));
    let (first, others) = join(first, join_all(all)).await;
    assert_eq!(first.status, 503);
    let mut statuses: Vec<_> = others.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 404, 404, 404, 404, 404, 404, 503, 503]);
    assert_eq!(inner.calls().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn of_deletes_on_two_nodes_one_is_the_end() {
    for pause in [0, 500, 999] {
        let inner = |pause| {
            Inner::slow(move |_| {
                Box::pin(async move {
                    sleep(Duration::from_millis(pause)).await;
                    plain(204, "")
                })
            })
        };
        let store = MemoryStore::new();
        let here = over(&store).layer(inner(500));
        let there = over(&store).layer(inner(pause));
        plant(&store, "live", owner(None), Issuer::Inner).await;
        let all = (0..10).map(|nth| send([&here, &there][nth % 2], on("live", "DELETE")));
        let (ended, others): (Vec<_>, Vec<_>) = join_all(all)
            .await
            .into_iter()
            .partition(|answer| answer.status == 204);
        assert_eq!(ended.len(), 1, "{pause}");
        assert!(others.iter().all(|answer| answer.status == 404));
    }
}
