//! What is counted, as Prometheus reads it. One recorder serves all tests of this process, so they take turns and look at
//! what has changed meanwhile.

#![cfg(feature = "metrics")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use mcp_session_layer::{McpSessionLayer, SessionId, SessionStore};
use tower::{Layer as _, service_fn, util::BoxCloneSyncService};

use self::support::answers::{RESULT, question_of, result_of};

mod counts;
mod dashboard;
#[path = "../../examples/observability.rs"]
#[allow(dead_code)]
mod example;
mod numbers;
mod spans;
#[path = "../support/mod.rs"]
mod support;

type App = BoxCloneSyncService<Request<Body>, Response<Body>, std::convert::Infallible>;

/// A service that issues no ids, with a layer around it. A GET is answered with a stream that does not end, a PUT as if the
/// session were unknown.
fn app(layer: &McpSessionLayer) -> App {
    serve(layer, false)
}

/// As [`app`], but it issues ids, and has forgotten all sessions from the first PUT on.
fn forgetful(layer: &McpSessionLayer) -> App {
    serve(layer, true)
}

fn serve(layer: &McpSessionLayer, issues: bool) -> App {
    let has_forgotten = Arc::new(AtomicBool::new(false));
    let inner = service_fn(move |request: Request<Body>| {
        let has_forgotten = Arc::clone(&has_forgotten);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap_or_default().to_bytes();
            let mut response = Response::new(Body::from(RESULT));
            let mut content_type = "application/json";
            if head.method == Method::GET {
                content_type = "text/event-stream";
                *response.body_mut() =
                    Body::from_stream(tokio_stream::pending::<Result<&str, axum::BoxError>>());
            } else if head.method == Method::PUT || has_forgotten.load(SeqCst) {
                has_forgotten.store(issues, SeqCst);
                *response.status_mut() = StatusCode::NOT_FOUND;
                *response.body_mut() = Body::empty();
            } else if let Some(question) = question_of(&body) {
                *response.body_mut() = Body::from(result_of(&question));
            }
            let headers = response.headers_mut();
            headers.insert("content-type", content_type.parse().unwrap());
            if issues && !head.headers.contains_key("mcp-session-id") {
                let id = SessionId::issue().to_header();
                headers.insert("mcp-session-id", id);
            }
            Ok(response)
        }
    });
    BoxCloneSyncService::new(layer.layer(inner))
}

fn layer(store: impl SessionStore) -> McpSessionLayer {
    McpSessionLayer::new(store)
}
