//! Which bodies open a session, held against two parsers that the crate does not read with: serde_json's tree, which says
//! what is JSON, and jiter's, which keeps keys that stand twice.
#![no_main]

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
};
use http::{Request, StatusCode, header::CONTENT_TYPE};
use jiter::JsonValue;
use libfuzzer_sys::fuzz_target;
use mcp_session_layer::{McpSessionLayer, MemoryStore, SessionId, SessionStore as _};
use parking_lot::Mutex;
use tokio::runtime::Builder;
use tower::{Layer as _, ServiceExt as _, service_fn};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, body)) = bytes.split_first() else {
        return;
    };
    let [is_optional, is_legacy_only] = [first & 1 == 1, first & 2 == 2];
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(check(
        Bytes::copy_from_slice(body),
        is_optional,
        is_legacy_only,
    ));
});

#[derive(Debug, PartialEq, Eq)]
enum Message {
    Initialize,
    /// It claims a version for itself, as clients without sessions do.
    Claim,
    Other,
}

fn oracle(body: &[u8]) -> Message {
    let is_json = serde_json::from_slice::<serde_json::Value>(body).is_ok();
    if !is_json || !has_unique_keys(body) {
        return Message::Other;
    }
    let json: serde_json::Value = serde_json::from_slice(body).unwrap();
    let Some(method) = json.get("method").and_then(|method| method.as_str()) else {
        return Message::Other;
    };
    let claim = json.get("params").and_then(|params| params.get("_meta"));
    if claim
        .and_then(|meta| meta.get("io.modelcontextprotocol/protocolVersion"))
        .is_some()
    {
        return Message::Claim;
    }
    let has_id = json
        .get("id")
        .is_some_and(|id| id.is_string() || id.is_number());
    match method == "initialize" && has_id {
        true => Message::Initialize,
        false => Message::Other,
    }
}

/// Whether no object holds a key twice. What jiter cannot read is left to the other parser.
fn has_unique_keys(body: &[u8]) -> bool {
    fn holds(value: &JsonValue<'_>) -> bool {
        match value {
            JsonValue::Array(items) => items.iter().all(holds),
            JsonValue::Object(members) => {
                let mut keys: Vec<_> = members.iter().map(|(key, _)| &**key).collect();
                keys.sort_unstable();
                let twice = keys.windows(2).any(|two| two[0] == two[1]);
                !twice && members.iter().all(|(_, value)| holds(value))
            }
            _ => true,
        }
    }
    JsonValue::parse(body, false).map_or(true, |value| holds(&value))
}

async fn check(body: Bytes, is_optional: bool, is_legacy_only: bool) {
    let store = MemoryStore::new();
    let mut layer = McpSessionLayer::new(store.clone());
    if is_optional {
        layer = layer.with_optional_sessions();
    }
    if is_legacy_only {
        layer = layer.with_legacy_only(["2025-11-25"]);
    }
    let seen = Arc::new(Mutex::new(None));
    let inner = {
        let seen = Arc::clone(&seen);
        service_fn(move |request: Request<Body>| {
            let seen = Arc::clone(&seen);
            async move {
                let body = axum::body::to_bytes(request.into_body(), usize::MAX).await?;
                *seen.lock() = Some(body);
                let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
                Ok::<Response, axum::Error>(
                    ([(CONTENT_TYPE, "application/json")], answer).into_response(),
                )
            }
        })
    };
    let request = Request::post("/mcp").header(CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body.clone())).unwrap();
    let response = layer.layer(inner).oneshot(request).await.unwrap();

    let status = response.status();
    let seen = seen.lock().take();
    let id = response.headers().get("mcp-session-id").cloned();
    let message = oracle(&body);
    let is_too_long = body.len() > 64 * 1024;
    if is_too_long {
        assert!(id.is_none());
        return;
    }
    if let Some(seen) = &seen {
        assert_eq!(*seen, body, "a body that was looked at arrives as it was");
    }
    match message {
        Message::Initialize => {
            assert_eq!(status, StatusCode::OK);
            let id = SessionId::from_header(&id.expect("a session")).unwrap();
            assert!(store.load(&id).await.unwrap().is_some());
            assert!(seen.is_some());
        }
        Message::Claim if is_legacy_only => {
            assert!(status == StatusCode::BAD_REQUEST && seen.is_none() && id.is_none())
        }
        Message::Claim => assert!(status == StatusCode::OK && seen.is_some() && id.is_none()),
        Message::Other if is_optional => {
            assert!(status == StatusCode::OK && seen.is_some() && id.is_none())
        }
        Message::Other => {
            assert!(status == StatusCode::BAD_REQUEST && seen.is_none() && id.is_none())
        }
    }
}
