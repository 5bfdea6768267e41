//! Versions that a message claims by itself (2026-07-28, versioning), and `initialize` under the header of a revision
//! without sessions.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use futures_util::{StreamExt as _, stream};
use http::Request;
use mcp_session_layer::{Issuer, MemoryStore, RejectionKind};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::Layer as _;

use crate::{
    inner::{Inner, byte_by_byte},
    setup::{guard, over, plant},
    support::{
        answers::{RESULT, send},
        requests::{INITIALIZE, PING, post, request, with_header},
        sessions::{is_live, owner},
    },
};

const CLAIMS: [&str; 8] = [
    r#""2026-07-28""#,
    r#""2025-11-25""#,
    r#""1900-01-01""#,
    r#""banana""#,
    r#""""#,
    "20260728",
    "null",
    r#"{"a":[]}"#,
];

/// The methods and ids of messages that may carry a claim.
const MESSAGES: [(&str, &str); 4] = [
    ("server/discover", r#""id":7,"#),
    ("initialize", r#""id":"x","#),
    ("tools/list", r#""id":7,"#),
    ("notifications/x", ""),
];

fn claiming(method: &str, id: &str, claim: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{claim}}}}}}}"#
    )
}

fn of(version: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let mut builder = request("POST").header("last-event-id", "5");
    if let Some(version) = version {
        builder = builder.header("mcp-protocol-version", version);
    }
    builder.body(body.into()).unwrap()
}

/// Modern, and it says that it is an `initialize`.
fn modern(body: impl Into<Body>) -> Request<Body> {
    let request = of(Some("2026-07-28"), body);
    with_header(request, "mcp-method", "initialize")
}

#[tokio::test(start_paused = true)]
async fn a_message_that_claims_a_version_passes_whatever_it_claims() {
    for optional in [false, true] {
        let inner = Inner::issuing(&["stray"]);
        let store = MemoryStore::new();
        let mut layer = over(&store);
        if optional {
            layer = layer.with_optional_sessions();
        }
        let service = layer.layer(inner.clone());
        for claim in CLAIMS {
            for (method, id) in MESSAGES {
                for version in [None, Some("2025-11-25"), Some("2026-07-28")] {
                    let body = claiming(method, id, claim);
                    let answer = send(&service, of(version, body.clone())).await;
                    assert_eq!((answer.status, &*answer.body), (200, RESULT), "{body}");
                    assert!(answer.ids().is_empty(), "{body}");
                    let call = inner.calls().remove(0);
                    assert_eq!(call.body, body);
                    assert!(!call.headers.contains_key("last-event-id"));
                    assert!(!is_live(&store, "stray").await);
                    assert_eq!(inner.told().await, ["stray"]);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_legacy_only_service_hears_of_no_claim() {
    for optional in [false, true] {
        let inner = Inner::silent();
        let mut layer = over(&MemoryStore::new()).with_legacy_only(["2025-11-25"]);
        if optional {
            layer = layer.with_optional_sessions();
        }
        let service = layer.layer(inner.clone());
        let kind = RejectionKind::UnsupportedProtocolVersion;
        for claim in CLAIMS {
            for (method, id) in MESSAGES {
                for version in [None, Some("2025-11-25")] {
                    let body = claiming(method, id, claim);
                    let answer = send(&service, of(version, body.clone())).await;
                    if claim == r#""2025-11-25""# {
                        // It speaks that, with a session.
                        let kind = RejectionKind::MissingSession;
                        answer.assert_refused(kind, 400, &answer.body);
                        assert!(inner.calls().is_empty(), "{body}");
                        continue;
                    }
                    answer.assert_refused(kind, 400, &answer.body);
                    assert!(inner.calls().is_empty(), "{body}");
                    if id.is_empty() {
                        let text = "Unsupported protocol version, supported: 2025-11-25";
                        assert_eq!(answer.body, text);
                        continue;
                    }
                    let requested = match serde_json::from_str(claim).unwrap() {
                        Value::String(version) => version,
                        _ => claim.to_owned(),
                    };
                    let message: Value = serde_json::from_str(&body).unwrap();
                    let error = json!({
                        "jsonrpc": "2.0",
                        "id": message["id"],
                        "error": {
                            "code": -32022,
                            "message": "Unsupported protocol version",
                            "data": { "supported": ["2025-11-25"], "requested": requested },
                        },
                    });
                    let answered: Value = serde_json::from_str(&answer.body).unwrap();
                    assert_eq!(answered, error, "{body}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_initialize_creates_a_session_under_a_modern_header_too() {
    for (issued, brought) in [
        (&["theirs"][..], None),
        (&["theirs"], Some("never")),
        (&["theirs"], Some("")),
        (&[], None),
    ] {
        for body in [Body::from(INITIALIZE), byte_by_byte(INITIALIZE.as_bytes())] {
            let inner = Inner::issuing(issued);
            let (store, service) = guard(&inner);
            let mut request = modern(body);
            if let Some(id) = brought {
                request = with_header(request, "mcp-session-id", id);
            }
            let answer = send(&service, request).await;
            assert_eq!((answer.status, &*answer.body), (200, RESULT));
            assert!(is_live(&store, &answer.id()).await);
            let call = inner.calls().remove(0);
            assert_eq!(call.body, INITIALIZE);
            assert!(!call.headers.contains_key("mcp-session-id"));
            assert!(!call.headers.contains_key("last-event-id"));
            assert_eq!(send(&service, post(&answer.id())).await.status, 200);
        }
    }
}

/// What says that it is an `initialize` and is none, or cannot be read, is served as if the layer were not there.
#[tokio::test(start_paused = true)]
async fn what_only_looks_like_initialize_passes_under_a_modern_header() {
    let inner = Inner::issuing(&["stray"]);
    let (store, service) = guard(&inner);
    let duplicate = r#"{"id":1,"method":"initialize","method":"ping"}"#;
    for body in [PING, "[", "", duplicate, "\u{feff}{}"] {
        let answer = send(&service, modern(body)).await;
        assert_eq!((answer.status, answer.ids().len()), (200, 0), "{body}");
        assert_eq!(inner.calls().remove(0).body, body);
        assert_eq!(inner.told().await, ["stray"]);
    }
    assert!(!is_live(&store, "stray").await);
}

/// It passes, and if the inner service takes it for one and issues an id, the handshake must lead somewhere.
#[tokio::test(start_paused = true)]
async fn an_initialize_that_cannot_be_read_passes_under_a_modern_header() {
    let long = INITIALIZE.to_owned() + &" ".repeat(100_000);
    let slow = || {
        let late = async {
            tokio::time::sleep(Duration::from_secs(11)).await;
            Ok::<_, Infallible>(&INITIALIZE[9..])
        };
        let first = stream::iter([Ok(&INITIALIZE[..9])]);
        Body::from_stream(first.chain(stream::once(late)))
    };
    for (body, sent) in [(Body::from(long.clone()), &*long), (slow(), INITIALIZE)] {
        let inner = Inner::issuing(&["theirs"]);
        let (_, service) = guard(&inner);
        let answer = send(&service, modern(body)).await;
        assert_eq!((answer.status, &*answer.id()), (200, "theirs"));
        assert_eq!(inner.calls().remove(0).body, sent);
        assert_eq!(send(&service, post("theirs")).await.status, 200);
    }
}

/// No other modern request waits for its body.
#[tokio::test(start_paused = true)]
async fn every_other_modern_post_passes_unread() {
    let inner = Inner::slow(|_| Box::pin(async { crate::inner::plain(200, "") }));
    let unread = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(http::Response::new(Body::from("unread")))
    });
    let store = MemoryStore::new();
    plant(&store, "live", owner(None), Issuer::Inner).await;
    let service = over(&store).layer(unread);
    for method in [None, Some("tools/list")] {
        let body = Body::from_stream(stream::pending::<Result<&str, Infallible>>());
        let mut request = of(Some("2026-07-28"), body);
        if let Some(method) = method {
            request = with_header(request, "mcp-method", method);
        }
        let start = Instant::now();
        assert_eq!(send(&service, request).await.body, "unread");
        assert_eq!(start.elapsed(), Duration::ZERO, "not even tried");
    }
    assert!(inner.calls().is_empty());
}
