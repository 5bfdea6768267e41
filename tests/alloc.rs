//! What the layer allocates: nothing of its own on a live session or where it has nothing to say.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use allocation_counter::{AllocationInfo, measure};
use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use mcp_session_layer::{Issuer, MemoryStore, Owner, Principal, Scope, SessionId};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer as _, Service};

use support::{layer::SessionLayer, sessions};

mod support;

#[test]
fn a_path_that_is_not_guarded_costs_nothing() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut service = layer(MemoryStore::new()).layer(Inner);
    for body in BODIES {
        let request = || request(Method::POST, "/health", &[], body);
        assert_eq!(cost(&mut service, request(), StatusCode::OK), NOTHING);
    }
}

#[test]
fn a_request_without_sessions_costs_nothing() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut service = layer(MemoryStore::new()).layer(Inner);
    let modern = ("mcp-protocol-version", "2026-07-28");
    let (id, last) = (("mcp-session-id", "dead"), ("last-event-id", "7"));
    let preflight = request(Method::OPTIONS, "/mcp", &[id], 0);
    cost(&mut service, preflight, StatusCode::OK);
    // What is known of a route is kept from its first request on.
    for is_first in [true, false] {
        for (name, request) in [
            ("preflight", request(Method::OPTIONS, "/mcp", &[id], 0)),
            ("POST", request(Method::POST, "/mcp", &[modern], 100)),
            (
                "with an id",
                request(Method::POST, "/mcp", &[modern, id], 100),
            ),
            (
                "GET",
                request(Method::GET, "/mcp/x?y", &[modern, id, last], 0),
            ),
        ] {
            let cost = cost(&mut service, request, StatusCode::OK);
            assert!(is_first || cost == NOTHING, "{name}: {cost:?}");
        }
    }
}

#[test]
fn a_live_session_costs_what_it_takes_to_hand_it_in() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let memory = MemoryStore::new();
    let principal = Principal::issued("https://login.example", "alice");
    let hers = principal.clone();
    for (name, who, mut service) in [
        ("plain", None, layer(memory.clone()).layer(Inner)),
        (
            "with principals",
            Some(principal),
            layer(memory.clone())
                .with_principal(move |_| Ok(Some(hers.clone())))
                .layer(Inner),
        ),
    ] {
        for issuer in [Issuer::Inner, Issuer::Layer] {
            let id = live_session(&memory, who.clone(), issuer);
            let live = [("mcp-session-id", id.expose())];
            for method in [Method::POST, Method::GET, Method::PUT] {
                for body in BODIES {
                    let request = || request(method.clone(), "/mcp", &live, body);
                    // The first visit makes room for the session on this node.
                    cost(&mut service, request(), StatusCode::OK);
                    assert_eq!(
                        cost(&mut service, request(), StatusCode::OK),
                        cost(&mut HandIn::new(), request(), StatusCode::OK),
                        "{name}, {issuer:?}, {method}, {body} bytes"
                    );
                }
            }
        }
    }
}

/// A map of headers grows before it replaces a value, if it is full: at 6 names, at 12, at 24.
#[test]
fn a_full_header_map_does_not_grow() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let store = MemoryStore::new();
    let id = live_session(&store, None, Issuer::Inner);
    let mut service = layer(store).layer(Inner);
    let names: Vec<_> = (0..30).map(|nth| format!("x-{nth}")).collect();
    for more in 0..names.len() {
        let mut headers = vec![("mcp-session-id", id.expose())];
        headers.extend(names[..more].iter().map(|name| (name.as_str(), "value")));
        let request = || request(Method::POST, "/mcp", &headers, 100);
        cost(&mut service, request(), StatusCode::OK);
        assert_eq!(
            cost(&mut service, request(), StatusCode::OK),
            cost(&mut HandIn::new(), request(), StatusCode::OK),
            "{more} more headers"
        );
    }
}

#[test]
fn a_404_costs_the_same_whatever_was_sent() {
    let runtime = runtime();
    let mut service = layer(MemoryStore::new()).layer(Inner);
    let mut refused = |method, id, body| {
        let request = request(method, "/mcp", &[("mcp-session-id", id)], body);
        let _entered = runtime.enter();
        let cost = cost(&mut service, request, StatusCode::NOT_FOUND);
        // The rest of the body is swallowed meanwhile.
        runtime.block_on(tokio::task::yield_now());
        cost
    };
    refused(Method::POST, "dead", 100);
    let long = "x".repeat(1024);
    let too_long = "x".repeat(1025);
    for id in ["dead", "two words", &long, &too_long] {
        let without = refused(Method::GET, id, 0);
        assert!(without.count_total <= 6, "{without:?}");
        let with = refused(Method::POST, id, 1);
        assert!(with.count_total <= 7, "{with:?}");
        for body in [100, 64 << 10, 4 << 20] {
            assert_eq!(refused(Method::POST, id, body), with, "{body} bytes");
        }
    }
    println!("a 404: {:?}", refused(Method::POST, "dead", 1));
}

/// The allocations of one call, its answer included.
fn cost<S>(service: &mut S, request: Request<Body>, expected: StatusCode) -> AllocationInfo
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let mut answer = None;
    let cost = measure(|| answer = service.call(request).now_or_never());
    let Ok(answer) = answer.expect("an answer at once");
    assert_eq!(answer.status(), expected);
    AllocationInfo {
        // What is freed was allocated before, with the request.
        count_current: 0,
        bytes_current: 0,
        count_max: 0,
        bytes_max: 0,
        ..cost
    }
}

const NOTHING: AllocationInfo = AllocationInfo {
    count_total: 0,
    count_current: 0,
    count_max: 0,
    bytes_total: 0,
    bytes_current: 0,
    bytes_max: 0,
};

/// Answers at once, with nothing.
#[derive(Clone)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(request);
        ready(Ok(Response::new(Body::empty())))
    }
}

/// A layer that does nothing but put a handle into the request's extensions.
struct HandIn {
    handle: Arc<u8>,
}

impl HandIn {
    fn new() -> Self {
        Self {
            handle: Arc::new(0),
        }
    }
}

impl Service<Request<Body>> for HandIn {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.handle));
        Inner.call(request)
    }
}

fn layer(store: MemoryStore) -> SessionLayer {
    support::layer::layer(store).with_paths(["/mcp"])
}

/// A request as hyper makes it: all that stands in its head shares one buffer.
fn request(method: Method, uri: &str, headers: &[(&str, &str)], body: usize) -> Request<Body> {
    let body = match body {
        0 => Body::empty(),
        _ => Body::from(Bytes::from(vec![b'x'; body])),
    };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_maybe_shared(shared(uri)).unwrap();
    for (name, value) in headers.iter().chain(&[("host", "localhost:3000")]) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = HeaderValue::from_maybe_shared(shared(value)).unwrap();
        request.headers_mut().append(name, value);
    }
    request
}

fn shared(text: &str) -> Bytes {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    // The first clone is what makes it shared.
    drop(bytes.clone());
    bytes
}

fn live_session(store: &MemoryStore, principal: Option<Principal>, issuer: Issuer) -> SessionId {
    let owner = Owner {
        scope: Scope::default(),
        principal,
    };
    let session = sessions::session(SessionId::issue().expose(), owner, issuer);
    let terms = sessions::terms();
    let inserted = sessions::insert(store, &session, &terms);
    inserted.now_or_never().expect("at once");
    session.id().clone()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

const BODIES: [usize; 3] = [0, 100, 64 << 10];
