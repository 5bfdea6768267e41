//! The settings that change the table.

use axum::body::Body;
use http::Request;
use mcp_session_layer::{Issuer, MemoryStore, RejectionKind};
use tower::Layer as _;

use crate::{
    inner::Inner,
    setup::{over, plant},
    support::{
        answers::send,
        requests::{PING, request},
        sessions::owner,
    },
};

#[tokio::test(start_paused = true)]
async fn a_legacy_only_service_hears_of_no_other_revision() {
    let inner = Inner::silent();
    let store = MemoryStore::new();
    let service = over(&store)
        .with_legacy_only(["2025-06-18", "2025-11-25"])
        .layer(inner.clone());
    plant(&store, "live", owner(None), Issuer::Inner).await;

    let of = |method: &str, version: &str, body: &'static str| -> Request<Body> {
        let builder = request(method).header("mcp-protocol-version", version);
        builder
            .header("mcp-session-id", "live")
            .body(body.into())
            .unwrap()
    };
    let kind = RejectionKind::UnsupportedProtocolVersion;
    for version in ["2026-07-28", "2027-01-01", "v999.0.0", ""] {
        let answer = send(&service, of("POST", version, PING)).await;
        let error = format!(
            r#"{{"jsonrpc":"2.0","id":7,"error":{{"code":-32022,"data":{{"requested":"{version}","supported":["2025-06-18","2025-11-25"]}},"message":"Unsupported protocol version"}}}}"#
        );
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            body,
            serde_json::from_str::<serde_json::Value>(&error).unwrap()
        );
        answer.assert_refused(kind, 400, &answer.body);

        let text = "Unsupported protocol version, supported: 2025-06-18, 2025-11-25";
        for (method, body) in [
            ("POST", "["),
            (
                "POST",
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            ),
            ("POST", r#"{"jsonrpc":"2.0","id":7,"result":{}}"#),
            ("GET", ""),
            ("DELETE", ""),
        ] {
            let answer = send(&service, of(method, version, body)).await;
            answer.assert_refused(kind, 400, text);
        }
        assert!(inner.calls().is_empty());
    }

    assert_eq!(
        send(&service, of("POST", "2025-11-25", PING)).await.status,
        200
    );
    let preflight = of("OPTIONS", "2026-07-28", "");
    assert_eq!(send(&service, preflight).await.status, 200);
    assert_eq!(inner.calls().len(), 2);
}
