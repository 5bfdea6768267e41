//! Requests, to be had cheaply and often, as hyper makes them: what stands in a head is shared.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use mcp_session_layer::Principal;

/// One kind of request, on one of many sessions.
pub struct Template {
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub expected: StatusCode,
    /// What the authentication in front of everything would have left.
    pub principal: Option<Principal>,
    /// The values of the header that names the session, one after the other.
    pub names: Vec<(HeaderName, HeaderValue)>,
    next: usize,
}

impl Template {
    /// Of this kind, for these sessions.
    #[must_use]
    pub fn new(kind: &str, ids: &[String]) -> Self {
        let (uri, version, size, expected) = match kind {
            "live" | "principal" | "json" | "ping" => ("/mcp", LEGACY, 0, StatusCode::OK),
            "dead" => ("/mcp", LEGACY, 200, StatusCode::NOT_FOUND),
            "dead64k" => ("/mcp", LEGACY, 64 << 10, StatusCode::NOT_FOUND),
            "unknown" | "foreign" => ("/mcp", LEGACY, 0, StatusCode::NOT_FOUND),
            "modern" => ("/mcp", MODERN, 0, StatusCode::OK),
            "unguarded" => ("/health", "", 0, StatusCode::OK),
            "initialize" => ("/mcp", "", 0, StatusCode::OK),
            _ => panic!("no such request: {kind}"),
        };
        let authorization = format!("Bearer {}", "x".repeat(1024 - "Bearer ".len()));
        let is_authorized = matches!(kind, "principal" | "unknown" | "foreign");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "localhost:3000"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("user-agent", "benches/1"),
            ("mcp-protocol-version", version),
            (
                "authorization",
                if is_authorized { &authorization } else { "" },
            ),
        ] {
            if !value.is_empty() {
                headers.insert(HeaderName::from_static(name), value_of(value));
            }
        }
        let mut template = Self {
            uri: Uri::from_maybe_shared(shared(uri)).expect("a URI"),
            headers,
            body: shared(&body(kind, size)),
            expected,
            principal: is_authorized.then(alice),
            names: Vec::new(),
            next: 0,
        };
        match kind {
            "modern" | "unguarded" | "initialize" => {}
            "dead" | "dead64k" => template.name_sessions("mcp-session-id", [DEAD]),
            _ => template.name_sessions("mcp-session-id", ids),
        }
        template
    }

    /// Names sessions with this header.
    pub fn name_sessions(
        &mut self,
        header: &'static str,
        values: impl IntoIterator<Item: AsRef<str>>,
    ) {
        let name = HeaderName::from_static(header);
        let values = values.into_iter();
        self.names = values
            .map(|value| (name.clone(), value_of(value.as_ref())))
            .collect();
    }

    /// The next request is the first one again.
    pub fn start_again(&mut self) {
        self.next = 0;
    }

    /// The next request. Far from the one before: neighbours in the list may be neighbours in memory.
    pub fn request(&mut self) -> Request<Body> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if !self.names.is_empty() {
            self.next = (self.next + STRIDE) % self.names.len();
            let (name, value) = &self.names[self.next];
            request.headers_mut().insert(name.clone(), value.clone());
        }
        if let Some(principal) = &self.principal {
            request.extensions_mut().insert(principal.clone());
        }
        request
    }
}

fn body(kind: &str, size: usize) -> String {
    if kind == "initialize" {
        return INITIALIZE.to_owned();
    }
    let padded = |padding: usize| {
        let padding = "x".repeat(padding);
        PING.replace("{}", &format!(r#"{{"_meta":{{"padding":"{padding}"}}}}"#))
    };
    match size.checked_sub(padded(0).len()) {
        None => PING.to_owned(),
        Some(missing) => padded(missing),
    }
}

/// Who the caller is, where a caller is somebody.
#[must_use]
pub fn alice() -> Principal {
    Principal::issued("https://login.example", "alice")
}

fn value_of(text: &str) -> HeaderValue {
    HeaderValue::from_maybe_shared(shared(text)).expect("a header's value")
}

fn shared(text: &str) -> Bytes {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    // The first clone is what makes it shared.
    drop(bytes.clone());
    bytes
}

/// A prime: it visits all of a list whose length it does not divide.
const STRIDE: usize = 7919;

const DEAD: &str = "5a2cbd3c-6c1c-4f0e-9f2f-000000000000";
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

pub const PING: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping","params":{}}"#;
pub const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"benches","version":"1"}}}"#;
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
