//! What tower-mcp 0.25's own tests of its HTTP transport (`tests/session_principal_binding.rs` and
//! `src/transport/http/tests.rs`) ask of sessions, asked through the layer.

use axum::body::Body;
use http::Request;
use mcp_session_layer::{MemoryStore, Principal, RejectionKind};
use tower::ServiceExt as _;

use crate::{
    rig::{Identity, Rig, by, context, tower_mcp, tower_mcp_by_routes},
    support::{
        answers::NOT_FOUND,
        layer::layer,
        requests::{delete, get, initialize, on, post, request, with_header},
        time::settled,
    },
};

/// In two forms; with the principal told to the layer too, and without.
fn all() -> [Rig; 4] {
    let plain = || layer(MemoryStore::new()).with_inner_context(context);
    let told = || {
        plain().with_principal(|request| {
            let identity = request.extensions.get::<Identity>();
            Ok(identity.map(|identity| Principal::new(&*identity.0)))
        })
    };
    [
        tower_mcp(plain()),
        tower_mcp_by_routes(plain()),
        tower_mcp(told()),
        tower_mcp_by_routes(told()),
    ]
}

fn list(id: &str) -> Request<Body> {
    let (head, _) = on(id, "POST").into_parts();
    let body = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    Request::from_parts(head, body.into())
}

/// The status of a GET, and whether it is a stream, which has no end.
async fn stream(rig: &Rig, request: Request<Body>) -> (u16, bool) {
    let response = rig.endpoint.clone().oneshot(request).await.unwrap();
    let content_type = response.headers().get("content-type");
    let is_stream = content_type.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
    (response.status().as_u16(), is_stream)
}

#[tokio::test(start_paused = true)]
async fn the_same_principal_can_post_stream_and_delete() {
    for rig in all() {
        let id = rig.open("alice").await;
        let listed = rig.send(by("alice", list(&id))).await;
        assert!(listed.status == 200 && listed.body.contains("\"result\""));
        assert_eq!(stream(&rig, by("alice", get(&id))).await, (200, true));
        assert_eq!(rig.send(by("alice", delete(&id))).await.status, 200);
        assert_eq!(rig.inside().await, 0);
        rig.send(by("alice", post(&id)))
            .await
            .assert_not_found(RejectionKind::Unknown);
    }
}

/// Also where the layer does not know who is who: the words are tower-mcp's then.
#[tokio::test(start_paused = true)]
async fn a_different_principal_gets_404_and_ends_nothing() {
    for (rig, is_told) in all().into_iter().zip([false, false, true, true]) {
        let id = rig.open("alice").await;
        let nobody = |request: Request<Body>| request;
        let bob = |request| by("bob", request);
        for stranger in [bob as fn(Request<Body>) -> Request<Body>, nobody] {
            let unknown = rig.send(stranger(list("never"))).await;
            assert_eq!((unknown.status, &*unknown.body), (404, NOT_FOUND));
            for request in [list(&id), get(&id), delete(&id)] {
                let answer = rig.send(stranger(request)).await;
                assert_eq!(answer.status, 404);
                assert!(!is_told || answer.wire() == unknown.wire());
            }
        }
        assert_eq!((rig.counted().await, rig.inside().await), (1, 1));
        let listed = rig.send(by("alice", list(&id))).await;
        assert!(listed.body.contains("\"result\""), "{}", listed.body);
        rig.layer.sessions().end_all().await.unwrap();
        settled().await;
        assert_eq!(rig.inside().await, 0, "it is told in its owner's name");
    }
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_session_is_not_usable_with_a_principal() {
    for rig in all() {
        let id = rig.send(initialize()).await.id();
        let initialized = rig.send(crate::rig::initialized(&id)).await;
        assert!(initialized.status < 300);
        assert_eq!(rig.send(by("alice", list(&id))).await.status, 404);
        let listed = rig.send(list(&id)).await;
        assert!(listed.body.contains("\"result\""), "{}", listed.body);
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_missing_and_doubled_ids() {
    for rig in all() {
        for method in ["POST", "GET", "DELETE"] {
            rig.send(on("never", method))
                .await
                .assert_not_found(RejectionKind::Unknown);
            let body = if method == "POST" {
                list("x").into_body()
            } else {
                Body::empty()
            };
            let missing = rig.send(request(method).body(body).unwrap()).await;
            assert_eq!(
                missing.kind(),
                Some(RejectionKind::MissingSession),
                "{method}"
            );
            let id = rig.open("alice").await;
            let mut doubled = on(&id, method);
            doubled
                .headers_mut()
                .append("mcp-session-id", "x".parse().unwrap());
            let doubled = rig.send(by("alice", doubled)).await;
            assert_eq!(doubled.kind(), Some(RejectionKind::DuplicateSessionHeader));
        }
    }
}

/// Arguments that are wrong, methods that are unknown: its errors come as they are, and end nothing.
#[tokio::test(start_paused = true)]
async fn its_errors_on_a_session_come_through() {
    for rig in all() {
        let id = rig.open("alice").await;
        for (body, code) in [
            (r#"{"jsonrpc":"2.0","id":2,"method":"no/such"}"#, "-32601"),
            (
                r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"none"}}"#,
                "\"error\"",
            ),
            ("{", "-32700"),
        ] {
            let (head, _) = on(&id, "POST").into_parts();
            let answer = rig
                .send(by("alice", Request::from_parts(head, body.into())))
                .await;
            assert!(answer.body.contains(code), "{body}: {}", answer.wire());
            assert!(answer.rejection.is_none());
        }
        assert_eq!(rig.send(by("alice", post(&id))).await.status, 200);
    }
}

/// A failed handshake leaves no session.
#[tokio::test(start_paused = true)]
async fn a_rejected_initialize_leaves_no_session() {
    for rig in all() {
        let foreign = with_header(initialize(), "mcp-protocol-version", "2024-11-05");
        let answer = rig.send(by("alice", foreign)).await;
        let opened = usize::from(!answer.ids().is_empty());
        assert_eq!((rig.counted().await, rig.inside().await), (opened, opened));
        let broken = request("POST")
            .body(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":7}"#.into());
        let answer = rig.send(by("alice", broken.unwrap())).await;
        assert!(answer.ids().is_empty(), "{}", answer.wire());
        settled().await;
        assert_eq!((rig.counted().await, rig.inside().await), (opened, opened));
    }
}
