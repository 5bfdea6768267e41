//! What is counted, as Prometheus reads it. One recorder serves all tests of this process, so they take turns and look at
//! what has changed meanwhile.

#![cfg(feature = "metrics")]

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use mcp_session_layer::{McpSessionLayer, SessionStore};
use tower::{Layer as _, service_fn, util::BoxCloneSyncService};

use self::support::answers::RESULT;

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
    let inner = service_fn(async |request: Request<Body>| {
        let mut response = Response::new(Body::from(RESULT));
        let mut content_type = "application/json";
        if request.method() == Method::GET {
            content_type = "text/event-stream";
            *response.body_mut() =
                Body::from_stream(tokio_stream::pending::<Result<&str, axum::BoxError>>());
        } else if request.method() == Method::PUT {
            *response.status_mut() = StatusCode::NOT_FOUND;
            *response.body_mut() = Body::empty();
        }
        let content_type = content_type.parse().unwrap();
        response.headers_mut().insert("content-type", content_type);
        Ok(response)
    });
    BoxCloneSyncService::new(layer.layer(inner))
}

fn layer(store: impl SessionStore) -> McpSessionLayer {
    McpSessionLayer::new(store)
}
