//! How a session is created.

use std::time::Duration;

use axum::body::Body;
use http::{Response, header::CONTENT_TYPE};
use mcp_session_layer::{
    Issuer, MemoryStore, RejectionKind, SessionStore as _, store::StoreErrorKind,
};
use tokio::time::Instant;
use tower::Layer as _;

use crate::{
    inner::{Inner, json, plain, with_ids},
    setup::{create, guard, over, plant, remote_store},
    support::{
        answers::{RESULT, send},
        requests::{INITIALIZE, initialize, post, with_header},
        sessions::{is_live, owner, session_id},
        store::{AWAY, Fault},
    },
};

const ERROR: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}"#;

fn events(status: u16) -> Response<Body> {
    let mut response = plain(status, &format!("data: {RESULT}\n\n"));
    let events = "text/event-stream".parse().unwrap();
    response.headers_mut().insert(CONTENT_TYPE, events);
    response
}

async fn count(store: &MemoryStore) -> u64 {
    let filter = mcp_session_layer::store::SessionFilter::Scope(Default::default());
    store.directory().unwrap().count(&filter).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_id_of_the_inner_service_is_adopted_and_works_at_once() {
    for version in [None, Some("2025-11-25")] {
        let inner = Inner::issuing(&["theirs"]);
        let (store, service) = guard(&inner);
        let mut request = initialize();
        if let Some(version) = version {
            request = with_header(request, "mcp-protocol-version", version);
        }
        let answer = send(&service, request).await;
        assert_eq!((answer.id().as_str(), &*answer.body), ("theirs", RESULT));
        assert!(answer.headers["mcp-session-id"].is_sensitive());

        let found = store.load(&session_id("theirs")).await.unwrap().unwrap();
        let record = found.session.record();
        assert_eq!(record.issuer, Issuer::Inner);
        assert_eq!(record.owner, owner(None));
        let client = record.client.as_ref().unwrap();
        assert_eq!((&*client.name, &*client.version), ("probe", "1.2"));
        assert_eq!(record.protocol_version.as_deref(), Some("2025-06-18"));
        assert_eq!(record.initialize_params, None);

        assert_eq!(inner.calls()[0].body, INITIALIZE);
        assert_eq!(send(&service, post("theirs")).await.status, 200);
        assert_eq!(inner.calls()[0].id(), "theirs");
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_is_issued_where_the_inner_service_has_none() {
    let inner = Inner::silent();
    let (store, service) = guard(&inner);
    let first = create(&service, &inner).await;
    let second = create(&service, &inner).await;
    assert_ne!(first, second);
    for issued in [&first, &second] {
        assert_eq!(issued.len(), 36);
        let found = store.load(&session_id(issued)).await.unwrap().unwrap();
        assert_eq!(found.session.record().issuer, Issuer::Layer);
        assert_eq!(send(&service, post(issued)).await.status, 200);
    }
    assert_eq!(count(&store).await, 2);
}

#[tokio::test(start_paused = true)]
async fn the_parameters_are_kept_when_asked_for() {
    let store = MemoryStore::new();
    let inner = Inner::silent();
    let service = over(&store).with_initialize_params().layer(inner.clone());
    let id = create(&service, &inner).await;
    let found = store.load(&session_id(&id)).await.unwrap().unwrap();
    let kept = found.session.record().initialize_params.clone().unwrap();
    assert!(INITIALIZE.ends_with(&format!("{}}}", str::from_utf8(&kept).unwrap())));
}

#[tokio::test(start_paused = true)]
async fn what_opens_a_session_and_what_does_not() {
    type Answer = fn() -> Response<Body>;
    let table: [(&str, Answer, bool); 12] = [
        ("a result", || json(200, RESULT), true),
        ("another 2xx", || json(201, RESULT), true),
        (
            "a charset",
            || {
                let mut response = json(200, RESULT);
                let json = "Application/JSON; charset=utf-8".parse().unwrap();
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            },
            true,
        ),
        ("events", || events(200), true),
        ("an error", || json(200, ERROR), false),
        (
            "an error without an id",
            || json(200, r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#),
            false,
        ),
        ("400", || json(400, RESULT), false),
        ("404", || json(404, RESULT), false),
        ("500", || plain(500, "oops"), false),
        ("a redirect", || plain(307, ""), false),
        ("events at 500", || events(500), false),
        ("401", || json(401, ERROR), false),
    ];
    for (name, answer, opens) in table {
        for issued in [&[][..], &["theirs"]] {
            let inner = Inner::new(move |_| with_ids(answer(), issued));
            let (store, service) = guard(&inner);
            let out = send(&service, initialize()).await;
            let status = answer().status().as_u16();
            assert_eq!((out.status, out.kind()), (status, None), "{name}");
            assert_eq!(out.ids().len(), usize::from(opens), "{name} {issued:?}");
            assert_eq!(count(&store).await, u64::from(opens), "{name} {issued:?}");
            assert!(!out.body.is_empty() || status == 307, "{name}");
            // A session that the inner service opened all the same is ended there.
            let told = inner.told().await;
            assert_eq!(told, if opens { &[][..] } else { issued }, "{name}");
        }
    }
}

/// Neither JSON nor events: nothing says that a session was opened.
#[tokio::test(start_paused = true)]
async fn no_id_is_issued_for_an_answer_that_is_no_result() {
    type Answer = fn() -> Response<Body>;
    let table: [(&str, Answer); 5] = [
        ("202", || plain(202, "")),
        ("text", || plain(200, RESULT)),
        ("no JSON", || json(200, "hello")),
        ("an array", || json(200, "[]")),
        ("no id", || json(200, r#"{"jsonrpc":"2.0","result":{}}"#)),
    ];
    for (name, answer) in table {
        let (store, service) = guard(&Inner::new(move |_| answer()));
        let out = send(&service, initialize()).await;
        assert!(out.ids().is_empty(), "{name}");
        assert_eq!(count(&store).await, 0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_cannot_be_recorded_is_500() {
    let table: [(&[&str], &[&str]); 6] = [
        (&["ill formed"], &[]),
        (&[""], &[]),
        (&["caf\u{e9}"], &[]),
        (&["one", "two"], &["one", "two"]),
        (&["same", "same"], &["same", "same"]),
        (&["one", "ill formed"], &["one"]),
    ];
    for (issued, told) in table {
        let inner = Inner::issuing(issued);
        let (store, service) = guard(&inner);
        let answer = send(&service, initialize()).await;
        answer.assert_refused(RejectionKind::InvalidInnerId, 500, "Internal server error");
        assert_eq!(count(&store).await, 0);
        assert_eq!(inner.told().await, told, "{issued:?}");
    }
    let long = "x".repeat(1025);
    let inner = Inner::new(move |_| with_ids(json(200, RESULT), &[&long]));
    let (store, service) = guard(&inner);
    let answer = send(&service, initialize()).await;
    answer.assert_refused(RejectionKind::InvalidInnerId, 500, "Internal server error");
    assert_eq!(count(&store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_known_already_stays_whose_it_is() {
    let inner = Inner::issuing(&["known"]);
    let (store, service) = guard(&inner);
    plant(&store, "known", owner(Some("bob")), Issuer::Inner).await;
    let answer = send(&service, initialize()).await;
    answer.assert_refused(RejectionKind::InvalidInnerId, 500, "Internal server error");
    assert!(inner.told().await.is_empty(), "it is somebody's");
    let found = store.load(&session_id("known")).await.unwrap().unwrap();
    assert_eq!(found.session.owner(), &owner(Some("bob")));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_recorded_leaves_nothing() {
    for (fault, takes) in [
        (AWAY, 0),
        (Fault::Fails(StoreErrorKind::Failed), 0),
        (Fault::Hangs, 3),
        (Fault::FailsAfterEffect, 0),
    ] {
        for issued in [&["theirs"][..], &[]] {
            let store = remote_store();
            let inner = Inner::issuing(issued);
            let service = over(&store).layer(inner.clone());
            store.disturb(&["create"], fault);
            let start = Instant::now();
            let answer = send(&service, initialize()).await;
            answer.assert_unavailable(RejectionKind::StoreUnavailable);
            assert_eq!(start.elapsed().as_secs(), takes);
            assert_eq!(inner.calls().len(), 1);
            assert_eq!(inner.told().await, issued, "the inner service ends it");
            assert_eq!(count(&store.memory).await, 0);
            let calls = store.take_calls();
            assert_eq!(calls.iter().filter(|verb| **verb == "create").count(), 1);
            assert!(calls.contains(&"delete"));
            send(&service, post("theirs"))
                .await
                .assert_not_found(RejectionKind::Unknown);
        }
    }
}

/// The session may have been recorded after all, and the store may be away for longer than its client waits.
#[tokio::test(start_paused = true)]
async fn a_session_that_may_have_been_recorded_is_deleted_when_the_store_is_back() {
    let store = remote_store();
    let inner = Inner::issuing(&["theirs"]);
    let service = over(&store).layer(inner.clone());
    store.disturb(&["create"], Fault::FailsAfterEffect);
    store.disturb(&["delete"], AWAY);
    send(&service, initialize())
        .await
        .assert_unavailable(RejectionKind::StoreUnavailable);
    assert!(
        is_live(&store.memory, "theirs").await,
        "the store cannot forget it yet"
    );
    send(&service, post("theirs"))
        .await
        .assert_not_found(RejectionKind::Ended);
    store.recover();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(!is_live(&store.memory, "theirs").await);
}

#[tokio::test(start_paused = true)]
async fn no_session_is_begun_while_the_store_is_away() {
    let store = remote_store();
    let inner = Inner::silent();
    let service = over(&store).layer(inner.clone());
    store.disturb(&["create", "make_room", "load", "touch", "delete"], AWAY);
    send(&service, initialize())
        .await
        .assert_unavailable(RejectionKind::StoreUnavailable);
    assert!(inner.calls().is_empty());
    store.recover();
    create(&service, &inner).await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_node_refuses_new_sessions_and_serves_the_rest() {
    let store = MemoryStore::new();
    let inner = Inner::silent();
    let layer = over(&store);
    let service = layer.layer(inner.clone());
    let before = create(&service, &inner).await;
    layer.sessions().drain();
    send(&service, initialize())
        .await
        .assert_unavailable(RejectionKind::Draining);
    assert!(inner.calls().is_empty());
    assert_eq!(send(&service, post(&before)).await.status, 200);
}
