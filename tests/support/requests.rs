//! What a client sends.

use axum::body::Body;
use http::{
    HeaderValue, Request,
    header::{ACCEPT, CONTENT_TYPE, HOST},
    request::Builder,
};

pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"probe","version":"1.2"}}}"#;
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
pub(crate) const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
/// Of a revision without sessions, as its body says.
pub(crate) const MODERN_PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

/// The head of a request to the endpoint.
pub(crate) fn request(method: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri("/mcp")
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream")
}

pub(crate) fn initialize() -> Request<Body> {
    request("POST").body(INITIALIZE.into()).unwrap()
}

/// A request on a session. A POST is a ping.
pub(crate) fn on(id: &str, method: &str) -> Request<Body> {
    let body = if method == "POST" { PING } else { "" };
    request(method)
        .header("mcp-session-id", id)
        .header("mcp-protocol-version", "2025-11-25")
        .body(body.into())
        .unwrap()
}

pub(crate) fn get(id: &str) -> Request<Body> {
    on(id, "GET")
}

pub(crate) fn post(id: &str) -> Request<Body> {
    on(id, "POST")
}

pub(crate) fn delete(id: &str) -> Request<Body> {
    on(id, "DELETE")
}

/// With this header in place of any of the same name.
pub(crate) fn with_header(
    mut request: Request<Body>,
    name: &'static str,
    value: &str,
) -> Request<Body> {
    let value = HeaderValue::from_str(value).unwrap();
    request.headers_mut().insert(name, value);
    request
}

/// From this user; see `user_header`.
pub(crate) fn as_user(request: Request<Body>, user: &str) -> Request<Body> {
    with_header(request, "x-user", user)
}
