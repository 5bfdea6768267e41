//! What the layer allocates: nothing for requests without sessions, and for a live session only what puts it into the
//! request's extensions.

use std::{convert::Infallible, future::Ready, hint::black_box, task::Poll};

use allocation_counter::measure;
use axum::body::{Body, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use mcp_session_layer::{McpSessionLayer, McpSessionService, MemoryStore, Session};
use tower::{Layer, Service};

/// Answers at once and allocates nothing.
#[derive(Clone)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Seen to the end here, so that it is not the layer's fault.
        black_box(&request);
        std::future::ready(Ok(Response::new(Body::empty())))
    }
}

type Service_ = McpSessionService<Inner, MemoryStore>;

/// A request as hyper makes it: its parts share the buffer that they were read into.
fn request(method: Method, path: &'static str, headers: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_maybe_shared(Bytes::from_static(path.as_bytes())).unwrap();
    // With room, as hyper has: a header that the layer puts back must find its old place.
    *request.headers_mut() = HeaderMap::with_capacity(16);
    for (name, value) in headers {
        let shared = shared(value);
        let value = HeaderValue::from_maybe_shared(shared).unwrap();
        request.headers_mut().insert(*name, value);
    }
    request
}

fn shared(value: &str) -> Bytes {
    let bytes = Bytes::copy_from_slice(value.as_bytes());
    // From its first clone on a buffer is shared, and clones only count.
    let _clone = bytes.clone();
    bytes
}

/// How many allocations a call makes beyond those of the request itself, and its status.
fn allocations(service: &mut Service_, request: Request<Body>) -> (u64, StatusCode) {
    let mut status = StatusCode::OK;
    let mut request = Some(request);
    let counted = measure(|| {
        let answer = service.call(request.take().expect("one call"));
        let mut answer = tokio_test::task::spawn(answer);
        let Poll::Ready(Ok(answer)) = answer.poll() else {
            panic!("answered at once");
        };
        status = answer.status();
    });
    // The test's own task.
    let task = measure(|| drop(tokio_test::task::spawn(std::future::ready(()))));
    (counted.count_total - task.count_total, status)
}

fn service(layer: &McpSessionLayer<MemoryStore>) -> Service_ {
    layer.layer(Inner)
}

#[tokio::test]
async fn requests_without_sessions_cost_no_allocation() {
    let layer = McpSessionLayer::new(MemoryStore::new()).with_paths(["/mcp"]);
    let mut service = service(&layer);
    // The first request starts the keeper.
    allocations(&mut service, request(Method::OPTIONS, "/mcp", &[]));
    let modern = ("mcp-protocol-version", "2026-07-28");
    for (what, request) in [
        ("not guarded", request(Method::POST, "/health", &[])),
        (
            "modern",
            request(Method::POST, "/mcp", &[("host", "localhost"), modern]),
        ),
        (
            "modern with an id",
            request(Method::POST, "/mcp", &[("mcp-session-id", "dead"), modern]),
        ),
        ("preflight", request(Method::OPTIONS, "/mcp", &[])),
    ] {
        let (count, status) = allocations(&mut service, request);
        assert_eq!((count, status), (0, StatusCode::OK), "{what}");
    }
}

#[tokio::test]
async fn a_live_session_costs_only_its_place_in_the_extensions() {
    let store = MemoryStore::new();
    let layer = McpSessionLayer::new(store).with_issued_ids_forwarded();
    let id = born(&layer).await;
    let mut service = service(&layer);
    let headers = [
        ("host", "localhost"),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-session-id", id.as_str()),
    ];
    // The first request notes where the inner service is told of the session's end.
    allocations(&mut service, request(Method::POST, "/mcp", &headers));
    let (count, status) = allocations(&mut service, request(Method::POST, "/mcp", &headers));
    assert_eq!(status, StatusCode::OK);

    let mut plain = request(Method::POST, "/mcp", &headers);
    let session = live_session(&layer, &id).await;
    let place = measure(|| {
        plain.extensions_mut().insert(session.clone());
    });
    assert_eq!(count, place.count_total);
}

#[tokio::test]
async fn a_refusal_costs_the_same_whatever_was_sent() {
    let layer = McpSessionLayer::new(MemoryStore::new());
    let mut service = service(&layer);
    let dead = [("mcp-session-id", "dead")];
    allocations(&mut service, request(Method::GET, "/mcp", &dead));
    let (count, status) = allocations(&mut service, request(Method::GET, "/mcp", &dead));
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(count <= 6, "{count}");
    let mut costs = Vec::new();
    for length in [1, 64 << 10, 4 << 20] {
        let mut request = request(Method::POST, "/mcp", &dead);
        *request.body_mut() = Body::from(vec![b' '; length]);
        costs.push(allocations(&mut service, request).0);
    }
    assert_eq!(costs, [costs[0]; 3]);
}

/// The id of a session that an inner service which answers `initialize` opened.
async fn born(layer: &McpSessionLayer<MemoryStore>) -> String {
    let inner = tower::service_fn(|_: Request<Body>| async {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let response = Response::builder().header("content-type", "application/json");
        Ok::<_, Infallible>(response.body(Body::from(body)).unwrap())
    });
    let mut request = request(Method::POST, "/mcp", &[]);
    *request.body_mut() = Body::from(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#);
    let answer = layer.layer(inner).call(request).await.unwrap();
    answer.headers()["mcp-session-id"]
        .to_str()
        .unwrap()
        .to_owned()
}

async fn live_session(layer: &McpSessionLayer<MemoryStore>, id: &str) -> Session {
    let (send, mut received) = tokio::sync::mpsc::unbounded_channel();
    let inner = tower::service_fn(move |request: Request<Body>| {
        send.send(request.extensions().get::<Session>().cloned())
            .unwrap();
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    });
    let request = request(Method::POST, "/mcp", &[("mcp-session-id", id)]);
    layer.layer(inner).call(request).await.unwrap();
    received.recv().await.flatten().expect("a session")
}
