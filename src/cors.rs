//! For MCP clients in web pages, and for logs: what `tower-http` has to know of MCP's headers (feature `tower-http`).

use std::time::Duration;

use http::{
    Method,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use tower_http::{
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
};

use crate::protocol::headers::{PROTOCOL_VERSION, SESSION_ID};

/// Lets web pages of these origins be MCP clients: what the browser asks before, and what the page may read after.
///
/// ```
/// use axum::http::HeaderValue;
/// use mcp_session_layer::cors;
///
/// let pages = cors([HeaderValue::from_static("https://app.example.com")]);
/// # let app: axum::Router = axum::Router::new().layer(pages);
/// ```
///
/// Put it outside authentication and outside the session layer. A preflight carries neither credentials nor a session; and a
/// page can read a 401 or a 404, and begin anew, only if CORS headers are on it. Without them it sees a network error.
/// The order, from the outside in: [`sensitive_session_id`], trace, `cors`, authentication, the session layer.
///
/// * Methods: GET, POST, DELETE.
/// * Request headers: whatever the page asks for. Revision 2026-07-28 lets a tool name headers of its own (`Mcp-Param-*`), so
///   no list would do; which pages are let in is the origins' business.
/// * Exposed: `Mcp-Session-Id`, `MCP-Protocol-Version`, `WWW-Authenticate` and `Retry-After`.
/// * The browser asks again after ten minutes.
/// * No cookies; for these add `allow_credentials(true)`.
///
/// CORS keeps pages from *reading*. A server on a loopback address must turn away requests whose `Origin` or `Host` it does
/// not know as well (2025-11-25, transports, security warning).
pub fn cors(origins: impl Into<AllowOrigin>) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            SESSION_ID.clone(),
            PROTOCOL_VERSION.clone(),
            WWW_AUTHENTICATE,
            RETRY_AFTER,
        ])
        .max_age(Duration::from_secs(10 * 60))
}

/// Marks the session id of each request as sensitive, so that a `TraceLayer` inside it that logs headers logs no id. Put it
/// outside of everything.
///
/// The session layer does the same; a trace outside it has logged the request before. Answers need nothing: the session
/// layer marks the id that it lets out.
///
/// ```
/// use axum::Router;
/// use mcp_session_layer::{McpSessionLayer, MemoryStore, cors, sensitive_session_id};
/// use tower_http::trace::{DefaultMakeSpan, TraceLayer};
///
/// # let mcp: Router = Router::new();
/// let sessions = McpSessionLayer::new(MemoryStore::new()).with_paths(["/mcp"]);
/// // `Router::layer` puts each around what is there: the last one is the outermost.
/// let app: Router = mcp
///     .layer(sessions)
///     // Here goes what asks who the caller is.
///     .layer(cors(["https://app.example.com".parse().unwrap()]))
///     .layer(TraceLayer::new_for_http().make_span_with(DefaultMakeSpan::new().include_headers(true)))
///     .layer(sensitive_session_id());
/// ```
#[must_use]
pub fn sensitive_session_id() -> SetSensitiveRequestHeadersLayer {
    SetSensitiveRequestHeadersLayer::new([SESSION_ID.clone()])
}
