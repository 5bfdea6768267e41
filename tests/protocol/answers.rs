//! What the client is told, to the byte.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use futures_util::stream;
use http::Response;
use mcp_session_layer::{Issuer, MemoryStore, Principal, RejectionKind, Sessions};
use tokio::time::{Instant, advance};
use tower::Layer as _;

use crate::{
    inner::{Inner, json, plain},
    setup::{guard, over, plant},
    support::{
        answers::{NO_SESSION, NOT_FOUND, RESULT, send},
        requests::{PING, on, post, request},
        sessions::{owner, session_id},
    },
};

#[tokio::test(start_paused = true)]
async fn all_404_are_one_answer() {
    let store = MemoryStore::new();
    // Answers 404 to one session, so that its client hears of an end that the inner service noticed first.
    let inner = Inner::new(|call| match call.session.is_some() {
        true => plain(404, "no such session here"),
        false => json(200, RESULT),
    });
    let layer = over(&store).with_principal(|_| Ok(Some(Principal::new("alice"))));
    let sessions: Sessions = layer.sessions();
    let service = layer.layer(inner.questioned_as_others());

    plant(&store, "expired", owner(Some("alice")), Issuer::Inner).await;
    advance(Duration::from_secs(900)).await;
    for (id, name) in [("bobs", "bob"), ("live", "alice"), ("revoked", "alice")] {
        plant(&store, id, owner(Some(name)), Issuer::Inner).await;
    }
    plant(&store, "anonymous", owner(None), Issuer::Inner).await;
    assert!(
        sessions
            .end(&session_id("revoked").reference())
            .await
            .unwrap()
    );
    let long = "x".repeat(1025);

    let unknown = send(&service, post("never")).await;
    unknown.assert_not_found(RejectionKind::Unknown);
    for (brought, kind) in [
        ("expired", RejectionKind::Unknown),
        ("revoked", RejectionKind::Unknown),
        ("bobs", RejectionKind::Unknown),
        ("anonymous", RejectionKind::Unknown),
        ("a b", RejectionKind::Malformed),
        (&long, RejectionKind::Malformed),
        ("live", RejectionKind::InnerGone),
    ] {
        for method in ["POST", "GET", "DELETE", "PUT"] {
            // Its principal ends it.
            if (brought, method) == ("live", "DELETE") {
                continue;
            }
            let answer = send(&service, on(brought, method)).await;
            assert_eq!(answer.kind(), Some(kind), "{method} {brought}");
            assert_eq!(answer.wire(), unknown.wire(), "{method} {brought}");
        }
    }
    assert_eq!(
        unknown.wire(),
        format!("404\ncontent-type: application/json\ncache-control: no-store\n\n{NOT_FOUND}")
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_session_is_answered_by_its_id_and_nothing_else_is() {
    let (_, service) = guard(&Inner::silent());
    let missing = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32600,"message":"Bad Request: Mcp-Session-Id header is required"}}}}"#
        )
    };
    for (body, expected) in [
        (
            r#"{"id":"a\u0041","method":"ping"}"#,
            missing(r#""a\u0041""#),
        ),
        (r#"{"id":-1.50,"method":"tools/list"}"#, missing("-1.50")),
        (r#"{"id":null,"method":"ping"}"#, NO_SESSION.into()),
        (r#"{"id":null,"method":"initialize"}"#, NO_SESSION.into()),
        (r#"{"id":[1],"method":"ping"}"#, NO_SESSION.into()),
        (
            r#"{"id":1,"error":{"code":1,"message":""}}"#,
            NO_SESSION.into(),
        ),
        (r#"[{"id":1,"method":"ping"}]"#, NO_SESSION.into()),
    ] {
        let answer = send(&service, request("POST").body(body.into()).unwrap()).await;
        answer.assert_refused(RejectionKind::MissingSession, 400, &expected);
    }
    let answer = send(&service, request("GET").body(Body::empty()).unwrap()).await;
    answer.assert_refused(RejectionKind::MissingSession, 400, NO_SESSION);
}

#[tokio::test(start_paused = true)]
async fn doubled_headers_are_told_apart_from_dead_sessions() {
    let (_, service) = guard(&Inner::silent());
    let twice = |name| {
        let builder = request("POST").header(name, "2025-11-25");
        builder
            .header(name, "2025-11-25")
            .body(PING.into())
            .unwrap()
    };
    send(&service, twice("mcp-session-id"))
        .await
        .assert_refused(
            RejectionKind::DuplicateSessionHeader,
            400,
            "More than one Mcp-Session-Id header",
        );
    send(&service, twice("mcp-protocol-version"))
        .await
        .assert_refused(
            RejectionKind::DuplicateVersionHeader,
            400,
            "More than one MCP-Protocol-Version header",
        );
}

/// With an id, the body decides nothing: the answer is there while the client is still sending.
#[tokio::test(start_paused = true)]
async fn a_dead_session_is_404_before_its_body_is_there() {
    let (_, service) = guard(&Inner::silent());
    let start = Instant::now();
    let body = Body::from_stream(stream::pending::<Result<&str, Infallible>>());
    let request = request("POST").header("mcp-session-id", "never").body(body);
    let answer = send(&service, request.unwrap()).await;
    answer.assert_not_found(RejectionKind::Unknown);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_custom_rendering_decides_all_but_what_must_hold() {
    let store = MemoryStore::new();
    let service = over(&store)
        .with_rejection(|rejection| {
            Response::builder()
                .status(410)
                .header("cache-control", "public")
                .header("mcp-session-id", "from-the-rendering")
                .header("x-kind", format!("{:?}", rejection.kind()))
                .body(Body::from("mine"))
                .unwrap()
        })
        .layer(Inner::silent());
    let without_id = |body: &'static str| request("POST").body(body.into()).unwrap();
    for (request, kind) in [
        (post("never"), RejectionKind::Unknown),
        (post("a b"), RejectionKind::Malformed),
        (on("never", "DELETE"), RejectionKind::Unknown),
        (without_id(PING), RejectionKind::MissingSession),
        (without_id("["), RejectionKind::BodyNotJson),
    ] {
        let answer = send(&service, request).await;
        assert_eq!(answer.kind(), Some(kind));
        assert_eq!(
            answer.wire(),
            format!("410\ncache-control: no-store\nx-kind: {kind:?}\n\nmine")
        );
    }
}

/// Rejections are made to be logged.
#[tokio::test(start_paused = true)]
async fn a_rejection_does_not_tell_the_id() {
    let (_, service) = guard(&Inner::silent());
    for secret in ["secret-a", "secret b"] {
        let answer = send(&service, post(secret)).await;
        let said = format!("{:?}", answer.rejection.unwrap());
        assert!(!said.contains("secret"), "{said}");
    }
}
