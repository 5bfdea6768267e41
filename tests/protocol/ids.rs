//! Session ids inward and outward: who gets to see which.

use axum::body::Body;
use http::{Method, Request};
use mcp_session_layer::{Issuer, MemoryStore};
use tower::Layer as _;

use crate::{
    inner::Inner,
    setup::{create, guard, over, plant},
    support::{
        answers::{RESULT, lines, send},
        requests::{MODERN_PING, PING, on, post, request, with_header},
        sessions::{is_live, owner},
    },
};

const TWO: &[&str] = &["stray-1", "stray-2"];

fn modern(method: &str) -> Request<Body> {
    let builder = request(method).header("mcp-protocol-version", "2026-07-28");
    builder.body(Body::from(PING)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_opens_no_session_carries_no_id_and_the_inner_service_ends_it() {
    let inner = Inner::issuing(TWO);
    let (_, service) = guard(&inner);
    let unknown = request("GET").header("mcp-protocol-version", "banana");
    for request in [
        modern("POST"),
        modern("GET"),
        request("OPTIONS").body(Body::empty()).unwrap(),
        unknown.body(Body::empty()).unwrap(),
        request("POST").body(MODERN_PING.into()).unwrap(),
    ] {
        let answer = send(&service, request).await;
        assert_eq!((answer.status, &*answer.body), (200, RESULT));
        assert!(answer.ids().is_empty(), "{}", answer.wire());
        assert_eq!(inner.calls().len(), 1);
        assert_eq!(inner.told().await, TWO);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_on_a_session_carries_no_id_but_the_sessions_own() {
    let inner = Inner::issuing(&["stray", "live", "live", "ill formed"]);
    let (store, service) = guard(&inner);
    plant(&store, "live", owner(None), Issuer::Inner).await;
    for method in ["POST", "GET", "PUT"] {
        let answer = send(&service, on("live", method)).await;
        assert_eq!(answer.ids(), ["live"]);
        assert!(answer.headers["mcp-session-id"].is_sensitive());
        assert_eq!(inner.told().await, ["stray"]);
    }
    assert!(is_live(&store, "live").await);
}

#[tokio::test(start_paused = true)]
async fn an_equal_id_is_the_only_thing_that_passes_untold() {
    let inner = Inner::issuing(&["live"]);
    let (store, service) = guard(&inner);
    plant(&store, "live", owner(None), Issuer::Inner).await;
    assert_eq!(send(&service, post("live")).await.id(), "live");
    assert!(inner.told().await.is_empty());
}

/// An answer to a DELETE says that the session is gone: its id has no business there.
#[tokio::test(start_paused = true)]
async fn the_answer_that_ends_a_session_does_not_carry_its_id() {
    let inner = Inner::issuing(&["live"]);
    let (store, service) = guard(&inner);
    plant(&store, "live", owner(None), Issuer::Inner).await;
    let answer = send(&service, on("live", "DELETE")).await;
    assert_eq!((answer.status, answer.ids()), (200, vec![]));
    assert!(inner.told().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_keeps_a_stray_that_is_live() {
    let inner = Inner::issuing(&["live", "dead"]);
    let (store, service) = guard(&inner);
    plant(&store, "live", owner(Some("somebody")), Issuer::Inner).await;
    assert!(send(&service, modern("POST")).await.ids().is_empty());
    assert_eq!(inner.told().await, ["dead"]);
    assert!(is_live(&store, "live").await);
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_told_where_it_saw_the_request() {
    let inner = Inner::issuing(&["stray"]);
    let (store, service) = guard(&inner);
    plant(&store, "live", owner(None), Issuer::Inner).await;
    let mut request = post("live");
    *request.uri_mut() = "/mcp/here?x=1".parse().unwrap();
    send(&service, request).await;
    let told = inner.tells().await.remove(0);
    assert_eq!(
        (told.method.clone(), &*told.id()),
        (Method::DELETE, "stray")
    );
    assert_eq!(told.uri.path(), "/mcp/here");
    assert_eq!(told.headers["host"], "localhost");
    assert_eq!(told.headers["mcp-protocol-version"], "2025-11-25");
    assert!(told.body.is_empty() && told.session.is_none());

    // A DELETE of a revision without sessions means nothing.
    send(&service, modern("POST")).await;
    let told = inner.tells().await.remove(0);
    assert!(!told.headers.contains_key("mcp-protocol-version"));
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_not_guarded_is_not_judged() {
    let inner = Inner::issuing(TWO);
    let service = over(&MemoryStore::new())
        .with_paths(["/mcp"])
        .layer(inner.clone());
    let mut request = post("never");
    *request.uri_mut() = "/mcpx".parse().unwrap();
    let answer = send(&service, request).await;
    assert_eq!(answer.ids(), TWO);
    let calls = inner.calls();
    assert_eq!((calls.len(), &*calls[0].id()), (1, "never"));
    assert!(inner.told().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ids_go_inward_as_they_came_and_marked_sensitive() {
    let inner = Inner::silent();
    let (store, service) = guard(&inner);
    let widest: String = ('!'..='~').collect();
    for id in ["x", "a,b;c", &widest, &"y".repeat(1024)] {
        plant(&store, id, owner(None), Issuer::Inner).await;
        assert_eq!(send(&service, post(id)).await.status, 200);
        let call = inner.calls().remove(0);
        assert_eq!(call.headers["mcp-session-id"], *id);
        assert!(call.headers["mcp-session-id"].is_sensitive());
        assert_eq!(call.session.unwrap().id().expose(), id);
    }
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_sees_only_ids_that_it_issued() {
    for forwards in [false, true] {
        let store = MemoryStore::new();
        let inner = Inner::silent();
        let mut layer = over(&store);
        if forwards {
            layer = layer.with_issued_ids_forwarded();
        }
        let service = layer.layer(inner.clone());
        let id = create(&service, &inner).await;
        for method in ["POST", "GET"] {
            send(&service, on(&id, method)).await;
            let call = inner.calls().remove(0);
            let seen = lines(&call.headers, "mcp-session-id");
            let expected = if forwards { vec![id.clone()] } else { vec![] };
            assert_eq!(seen, expected, "{method}");
            assert_eq!(call.session.unwrap().id().expose(), id);
        }
    }
}

/// On a request of a revision without sessions nothing of a session goes in, whatever it claims.
#[tokio::test(start_paused = true)]
async fn a_dead_id_with_a_modern_version_goes_nowhere() {
    let inner = Inner::silent();
    let (store, service) = guard(&inner);
    plant(&store, "live", owner(None), Issuer::Inner).await;
    for ids in [&["never"][..], &["live"], &["live", "never"], &["a b"]] {
        let mut request = modern("POST");
        for id in ids {
            request
                .headers_mut()
                .append("mcp-session-id", id.parse().unwrap());
        }
        let request = with_header(request, "last-event-id", "3");
        assert_eq!(send(&service, request).await.status, 200);
        let call = inner.calls().remove(0);
        assert!(!call.headers.contains_key("mcp-session-id"));
        assert!(!call.headers.contains_key("last-event-id"));
        assert!(call.session.is_none());
    }
}
